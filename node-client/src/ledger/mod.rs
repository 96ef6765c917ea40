//! The rules of the ledger: pure and deterministic.

pub mod merkle;
