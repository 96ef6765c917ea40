//! Who coordinates, and whether so many can agree as separate processes.

use flash_proto::{CoordinatorSet, PublicKey};
use thiserror::Error;

/// Why coordinators cannot agree as separate processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "milestones need {threshold} of {keys} coordinators, but separate processes can only agree if more than half \
     of them must sign; run all keys in one process, or hand over to coordinators with a higher threshold"
)]
pub struct QuorumError {
    /// How many coordinators there are.
    pub keys: usize,
    /// How many must sign.
    pub threshold: u8,
}

/// Checks that any two groups that can sign have a member in common.
///
/// # Errors
/// [`QuorumError`]: they do not, or no group can sign.
pub fn check_quorum(set: &CoordinatorSet) -> Result<(), QuorumError> {
    let (keys, threshold) = (set.keys.len(), set.threshold());
    if set.check().is_ok() && threshold.saturating_mul(2) > keys {
        return Ok(());
    }
    Err(QuorumError { keys, threshold: set.threshold })
}

/// How ballots are given to coordinators.
pub(super) trait Ballots {
    /// How many must sign.
    fn threshold(&self) -> usize;
    /// How many there are.
    fn count(&self) -> u64;
    /// Where a key stands.
    fn place(&self, key: &PublicKey) -> Option<u64>;
    /// Whose ballot this is.
    fn owner(&self, ballot: u64) -> Option<PublicKey>;
    /// How many steps after the owner of `ballot` a key's turn comes: 1 to the number of keys.
    fn turns_after(&self, ballot: u64, key: &PublicKey) -> Option<u64>;
}

impl Ballots for CoordinatorSet {
    fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    fn count(&self) -> u64 {
        u64::try_from(self.keys.len()).unwrap_or(u64::MAX)
    }

    fn place(&self, key: &PublicKey) -> Option<u64> {
        self.keys.binary_search(key).ok().and_then(|place| u64::try_from(place).ok())
    }

    fn owner(&self, ballot: u64) -> Option<PublicKey> {
        let place = ballot.checked_rem(self.count())?;
        self.keys.get(usize::try_from(place).ok()?).copied()
    }

    fn turns_after(&self, ballot: u64, key: &PublicKey) -> Option<u64> {
        let count = self.count();
        let before = self.place(key)?.checked_add(count)?.checked_sub(ballot.checked_rem(count)?)?;
        before.checked_rem(count).map(|turns| if turns == 0 { count } else { turns })
    }
}
