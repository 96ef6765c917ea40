//! What the benchmarks measure on: an open channel between two machines, and a ledger with many outputs.
//!
//! `cargo bench -p flash-benches` runs `steps` (criterion: each step on its own, in nanoseconds) and
//! `ratios` (steps against each other in the same run, which another machine changes little).

pub mod channel;
pub mod ledger;
