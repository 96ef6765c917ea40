//! The graph of blocks: pure and deterministic.

pub mod white_flag;
