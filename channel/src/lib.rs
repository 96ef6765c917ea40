//! The payment channel of Flash: a pure state machine and the store it is kept in.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`machine`] | one side of one channel: inputs in, records and messages out |
//! | [`tower`] | a watchtower: the newest balance of each lane, and the claims that are due |
//! | [`store`] | batches that are on the disk when `commit` returns |
//!
//! Nothing here but `store::JournalStore` and `store::SledStore` does I/O, reads a clock or draws randomness, so that the same code
//! runs in the daemon, in the simulator and in a fuzzer.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod machine;
pub mod store;
pub mod tower;

pub use machine::Channel;
