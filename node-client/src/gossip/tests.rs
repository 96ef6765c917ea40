//! Over real QUIC on loopback, with nodes on stores in memory.

mod exchange;
mod hostile;
mod mesh;
mod support;
