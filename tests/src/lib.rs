//! What the whole-system tests share: networks of real processes on this machine.
//!
//! A [`Net`] is a temporary directory with a node of a development network and any number of daemons,
//! each the real binary with a data directory of its own. Whatever still runs when it is dropped is
//! killed; after a failed test the directory stays, and its place and the end of each log are printed.
//!
//! [`network`] is a whole network that everything happens to.
//!
//! Two environment variables matter: `FLASH_SEED` repeats the choices of an earlier run, `FLASH_CI=full`
//! runs the long versions.

mod binaries;
mod browser;
mod daemon;
mod liar;
mod net;
pub mod network;
mod payments;
mod poll;
mod ports;
mod process;
mod proxy;
mod random;
mod raw;
mod scripted;
mod tamper;
mod tower;

pub use binaries::{binary, is_release};
pub use browser::Browser;
pub use daemon::Daemon;
pub use liar::LyingNode;
pub use net::{Net, NetOptions, Node};
pub use payments::{Flow, Lane, Payer, Wish};
pub use poll::{poll, until};
pub use process::{Ended, Process, copy, kill_all_on_panic, run, wait_unlocked};
pub use proxy::{Proxy, Weather};
pub use random::{Random, full, rounds};
pub use raw::RawNode;
pub use scripted::{Ending, Greeted, STAKES, ScriptedPeer, Stream};
pub use tamper::{Tampering, strace_missing};
pub use tower::{Tower, TowerClient};
