//! The Flash daemon: QUIC peers, group commit, ledger watcher, wallet and admin RPC around the pure
//! channel machine.

pub mod api;
pub mod daemon;
