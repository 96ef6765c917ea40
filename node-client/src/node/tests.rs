//! Nodes on a store in memory that can fail, on a real disk, and over real sockets.

mod client;
mod coordinators;
mod explore;
mod following;
mod killed;
mod pruning;
mod serving;
mod snapshots;
mod storage;
mod support;
mod tangle;
