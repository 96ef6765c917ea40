//! The wallet: seed words, keys and addresses, and which outputs can be spent.

mod error;
mod keys;
mod money;
#[cfg(test)]
mod tests;

pub use error::WalletError;
pub use keys::{Account, Seed, SeedError, new_words};
pub use money::{Funded, GAP, ReservationId, Selection, Wallet, WalletEvent};
