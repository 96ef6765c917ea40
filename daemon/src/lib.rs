//! The Flash daemon: QUIC peers, group commit, ledger watcher, wallet and admin RPC around the pure
//! channel machine.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod api;
pub mod backup;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod core_files;
pub mod daemon;
pub mod datadir;
pub mod demo;
pub mod engine;
pub mod events;
pub mod exit;
pub mod failure;
pub mod flashd_cli;
pub mod local;
mod memory_limit;
pub mod metrics;
pub mod node_http;
mod node_keys;
pub mod node_service;
pub mod node_setup;
pub mod node_snapshot;
mod opening;
mod peers;
mod recovery;
pub mod rpc;
pub mod run;
pub mod seedfile;
pub mod setup;
mod size;
pub mod stop;
mod submitter;
pub mod tables;
mod towers;
pub mod treasury;
mod wallet;
mod watched_store;
mod watcher;
pub mod watchtower;
