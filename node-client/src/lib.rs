//! Everything of Flash about the Tangle.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`client`] | asking nodes over QUIC and believing only proofs |
//! | [`coordinator`] | how coordinators agree on the next milestone, pure |
//! | [`gossip`] | nodes that keep each other up to date over QUIC |
//! | [`ledger`] | the rules and commitments of the ledger, pure |
//! | [`light`] | believing the ledger without keeping it, pure |
//! | [`tangle`] | the graph of blocks, pure |
//! | [`node`] | the full node: storage, the coordinator, serving clients |
//! | [`protocol`] | what a node and its clients say to each other |
//! | [`quic`] | connections between machines that know each other by their keys |
//! | [`trytes`] | bytes in the letters of the classic API, pure |
//! | [`wallet`] | seed words, keys, addresses, choosing what to spend |
//!
//! `coordinator`, `ledger` and `tangle` know no clock, randomness, socket, thread or file: the same code runs in a node,
//! in a light client and in the simulator.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod client;
pub mod coordinator;
pub mod gossip;
pub mod ledger;
pub mod light;
pub mod node;
pub mod protocol;
pub mod quic;
pub mod tangle;
pub mod trytes;
pub mod wallet;
