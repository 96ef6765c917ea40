//! What the benchmarks measure on: an open channel between two machines, and a ledger with many outputs.
//!
//! `just bench` runs this package's program: every figure of the product, between real processes. `cargo bench -p
//! flash-benches` runs `steps` (criterion: each step on its own, in nanoseconds), `node` (what a node does in a second) and
//! `ratios` (steps against each other in the same run, which another machine changes little).

pub mod channel;
pub mod ledger;
