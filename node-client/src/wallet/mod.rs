//! The wallet: seed words, keys, addresses, and what to spend.

mod keys;
mod money;

pub use keys::{Account, Seed, SeedError, new_words};
pub use money::{Reservation, Wallet, WalletChanges, WalletError, WalletEvent};
