//! The Flash daemon: QUIC peers, group commit, ledger watcher, wallet and admin RPC around the pure
//! channel machine.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod datadir;
pub mod engine;
pub mod events;
pub mod exit;
pub mod metrics;
pub mod peers;
pub mod rpc;
pub mod seedfile;
pub mod setup;
pub mod stop;
pub mod submitter;
pub mod tables;
pub mod watcher;
