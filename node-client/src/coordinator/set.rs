//! Who coordinates, and whether so many can agree as separate processes.

use bincode::{Decode, Encode};
use flash_proto::{PublicKey, limits};
use thiserror::Error;

/// The coordinators of a milestone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoordinatorSet {
    /// Their keys, strictly rising.
    pub keys: Vec<PublicKey>,
    /// How many must sign.
    pub threshold: u8,
}

/// Why coordinators cannot agree as separate processes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
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

impl CoordinatorSet {
    /// Checks that any two groups that can sign have a member in common.
    ///
    /// # Errors
    /// [`QuorumError`]: they do not, or no group can sign.
    pub fn check_quorum(&self) -> Result<(), QuorumError> {
        let (keys, threshold) = (self.keys.len(), self.threshold());
        let ordered = self.keys.is_sorted_by(|left, right| left < right);
        if ordered && keys <= limits::COORDINATORS_MAX && threshold <= keys && threshold.saturating_mul(2) > keys {
            return Ok(());
        }
        Err(QuorumError { keys, threshold: self.threshold })
    }

    /// How many must sign.
    pub(super) fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    /// Where a key stands.
    pub(super) fn place(&self, key: &PublicKey) -> Option<u64> {
        self.keys.binary_search(key).ok().and_then(|place| u64::try_from(place).ok())
    }

    /// Whose ballot this is.
    pub(super) fn owner(&self, ballot: u64) -> Option<PublicKey> {
        let place = ballot.checked_rem(self.count())?;
        self.keys.get(usize::try_from(place).ok()?).copied()
    }

    /// How many steps after the owner of `ballot` a key's turn comes: 1 to the number of keys.
    pub(super) fn turns_after(&self, ballot: u64, key: &PublicKey) -> Option<u64> {
        let count = self.count();
        let place = self.place(key)?;
        let owner = ballot.checked_rem(count)?;
        Some(match place.saturating_add(count).saturating_sub(owner).checked_rem(count)? {
            0 => count,
            turns => turns,
        })
    }

    fn count(&self) -> u64 {
        u64::try_from(self.keys.len()).unwrap_or(u64::MAX)
    }
}
