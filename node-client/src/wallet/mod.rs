//! The wallet: seed words, keys and addresses.

mod keys;

pub use keys::{Account, Seed, SeedError, new_words};
