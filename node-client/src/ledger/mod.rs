//! The rules of the ledger: pure and deterministic.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`check`] | what a transaction must be whatever the ledger holds: form, sums, signatures |
//! | [`conflict`] | why the ledger does not apply a transaction |
//! | [`state`] | outputs and channels, and what a milestone changes in them |
//! | `outputs`, `by_address` | the outputs in little memory, and finding those of an address |
//! | [`state_tree`] | the sparse Merkle tree over that state, with proofs of present and absent |
//! | [`merkle`] | the Merkle trees of a milestone |
//! | [`genesis`] | the state and the milestone in which a network begins |

mod by_address;
pub mod check;
pub mod conflict;
pub mod genesis;
pub mod merkle;
pub(crate) mod outputs;
mod overlay;
pub mod state;
pub mod state_tree;
#[cfg(test)]
pub(crate) mod tests;

pub use check::{Checked, Invalid};
pub use conflict::Conflict;
pub(crate) use state::LedgerBuilder;
pub use state::{Confirmation, LedgerState, StateValue};
