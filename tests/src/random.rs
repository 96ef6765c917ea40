//! Choices that can be repeated.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Whether the long versions of tests are to run: `FLASH_CI=full`.
pub fn full() -> bool {
    std::env::var("FLASH_CI").is_ok_and(|value| value == "full")
}

/// How many rounds a test makes: `short`, or `long` with `FLASH_CI=full`.
pub fn rounds<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// Random choices from a seed that is printed, so that a failed test shows it.
#[derive(Debug)]
pub struct Random(StdRng);

impl Random {
    /// Choices from `FLASH_SEED`, or from a new seed.
    pub fn new() -> Self {
        let given = std::env::var("FLASH_SEED").ok();
        let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("FLASH_SEED is a number"));
        println!("these choices are repeated by FLASH_SEED={seed} cargo test --package flash-tests");
        Self::seeded(seed)
    }

    /// Choices from this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Other choices that follow from the same seed.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::seeded(self.0.random())
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.0.random()
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
