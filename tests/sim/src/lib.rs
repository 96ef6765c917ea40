//! A deterministic simulation of two parties, a ledger and a link between them.
//!
//! The machines, the stores and the ledger's rules are the real ones; only time, chance, the disk and the
//! wire are made here. One queue of events, one generator, no threads, no clock: the same seed gives the
//! same run, to the byte. Each seed first draws which faults exist ([`Plan`]); an oracle that knows
//! nothing of the code under test watches every step.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `faults.rs` | which faults a seed has |
//! | `world.rs` | the queue of events |
//! | `process.rs` | turns, commits, deaths and returns of a party's process |
//! | `wire.rs` | what goes over the link, and when it breaks |
//! | `chain.rs` | milestones, who sees them when, what is submitted |
//! | `stages.rs` | the course of a run: busy, calm, ending |
//! | `party.rs` | one party: the shell around the real machine, with its store |
//! | `tower.rs` | one watchtower: the shell around the real rules, with its store |
//! | `watch.rs` | what is handed over to towers, and what they see, claim and suffer |
//! | `user.rs`, `receipts.rs` | what users do, and what they can prove |
//! | `duel.rs` | the same two parties and ledger step by step, for model checker and fuzzer |
//! | [`fuzz`] | what is done with bytes that mean nothing, or anything |
//! | `hostile.rs` | what a party does that wants to take more than is its own |
//! | `link.rs` | the link, with its faults |
//! | `ledger.rs` | the pool and the milestones |
//! | `oracle.rs` | the invariants; in `oracle/` those of towers, of old records and of proofs |
//! | [`sabotage`] | do the simulations bite? |
//! | `script.rs` | short lives in which only what is written down happens |
//! | `shrink.rs` | the least that still fails |
//! | [`command`] | the command line: many seeds on all cores |
//! | `report.rs` | counts, the hash of a run, its outcome |
//! | `rng.rs` | the generator |
//! | `setup.rs` | the network and the channel in which a run begins |
//!
//! ```
//! use flash_sim::{Plan, run};
//! let outcome = run(Plan::of_seed(1));
//! assert_eq!(outcome.violation, None);
//! assert_eq!(outcome, run(Plan::of_seed(1)));
//! ```

mod chain;
pub mod command;
mod duel;
mod faults;
pub mod fuzz;
mod hostile;
mod ledger;
mod link;
mod oracle;
mod party;
mod process;
mod receipts;
mod report;
mod rng;
pub mod sabotage;
mod script;
mod setup;
mod shrink;
mod stages;
mod tower;
mod user;
mod watch;
mod wire;
mod world;

pub use duel::{Budget, Duel, Step};
pub use faults::Plan;
pub use report::{Outcome, Stats};
pub use script::{SCRIPTS, Script};
pub use shrink::{Finding, checked};
pub use world::run;
