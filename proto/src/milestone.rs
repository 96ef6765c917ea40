//! Milestones: the signed checkpoints of the ledger.

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::{
    BlockId, CoordinatorSet, Hash, MilestoneId, NetworkId, PublicKey, SecretKey, Signature,
    coordinators::CoordinatorSetError,
    hash::{Layout, Tag},
    limits,
};

/// What the coordinators sign: which blocks are confirmed, and the ledger after them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MilestoneEssence {
    /// The network.
    pub network: NetworkId,
    /// One more than the previous milestone's; the ledger's time.
    pub index: u64,
    /// Milliseconds since 1970, strictly rising.
    pub timestamp_ms: u64,
    /// The previous milestone.
    pub previous: MilestoneId,
    /// The parents of the milestone's block: their past cone is what is confirmed.
    pub parents: Vec<BlockId>,
    /// Merkle root of the blocks confirmed by this milestone, in white-flag order.
    pub included_root: Hash,
    /// Merkle root of those among them whose transaction changed the ledger.
    pub applied_root: Hash,
    /// Merkle root of the ids of the channels that changed, sorted: whoever follows the milestones
    /// cannot be kept from learning that a channel is being closed.
    pub channels_root: Hash,
    /// Root of the state tree over all unspent outputs and channel records afterwards.
    pub state_root: Hash,
    /// Who signs from the next milestone on, if that changes.
    pub next: Option<CoordinatorSet>,
}

/// One coordinator's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoordinatorSignature {
    /// Which coordinator.
    pub coordinator: PublicKey,
    /// Its signature over the milestone's id.
    pub signature: Signature,
}

/// A milestone with its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Milestone {
    /// What was signed.
    pub essence: MilestoneEssence,
    /// At least `threshold` signatures of different coordinators, strictly rising by key.
    pub signatures: Vec<CoordinatorSignature>,
}

/// Why a milestone is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MilestoneError {
    /// It is of another network.
    #[error("the milestone is of network {0}, not of this one")]
    Network(NetworkId),
    /// Fewer valid signatures than the network asks for.
    #[error("the milestone has {got} coordinator signatures, {wanted} are needed")]
    TooFewSignatures {
        /// Signatures given.
        got: usize,
        /// Signatures needed.
        wanted: u8,
    },
    /// More signatures than there are coordinators, a key twice, or not in rising order.
    #[error("the milestone's signatures are not in strictly rising order of their keys")]
    SignatureOrder,
    /// Signed by a key that is no coordinator.
    #[error("the milestone is signed by {0}, which is no coordinator of this network")]
    UnknownCoordinator(PublicKey),
    /// A signature does not verify.
    #[error("the milestone's signature of coordinator {0} is not valid")]
    BadSignature(PublicKey),
    /// Not the next index.
    #[error("milestone {got} does not follow milestone {after}")]
    Index {
        /// The index given.
        got: u64,
        /// The index before.
        after: u64,
    },
    /// Another milestone before it than the one that is known: a fork.
    #[error("milestone {index} follows {got}, but here milestone {wanted} came before it: a fork")]
    Previous {
        /// Its index.
        index: u64,
        /// The milestone it names.
        got: MilestoneId,
        /// The milestone that is known.
        wanted: MilestoneId,
    },
    /// Its time is not after the previous one's.
    #[error("milestone {0} is not later than the one before it")]
    Time(u64),
    /// No parents or too many, or not in strictly rising order.
    #[error("a milestone names 1 to {max} parents in strictly rising order", max = limits::PARENTS_MAX)]
    Parents,
    /// It hands over to what is no set of coordinators.
    #[error("the milestone hands over to wrong coordinators: {0}")]
    Next(#[from] CoordinatorSetError),
}

impl MilestoneEssence {
    /// The milestone's id: the hash of its essence (`docs/protocol.md`, "Milestone").
    pub fn id(&self) -> MilestoneId {
        let mut layout = Layout::new(Tag::MILESTONE)
            .bytes(self.network.as_bytes())
            .u64(self.index)
            .u64(self.timestamp_ms)
            .bytes(self.previous.as_bytes())
            .count(self.parents.len());
        for parent in &self.parents {
            layout = layout.bytes(parent.as_bytes());
        }
        layout = layout
            .bytes(self.included_root.as_bytes())
            .bytes(self.applied_root.as_bytes())
            .bytes(self.channels_root.as_bytes())
            .bytes(self.state_root.as_bytes());
        layout = match &self.next {
            None => layout.u8(0),
            Some(next) => next.write(layout.u8(1)),
        };
        MilestoneId::new(*layout.hash().as_bytes())
    }

    /// Checks what can be checked of an essence alone: its parents and the coordinators it hands over to.
    ///
    /// # Errors
    /// [`MilestoneError::Parents`], [`MilestoneError::Next`].
    pub fn check_form(&self) -> Result<(), MilestoneError> {
        let count_fits = (1..=limits::PARENTS_MAX).contains(&self.parents.len());
        if !count_fits || !self.parents.is_sorted_by(|left, right| left < right) {
            return Err(MilestoneError::Parents);
        }
        self.next.as_ref().map_or(Ok(()), CoordinatorSet::check)?;
        Ok(())
    }

    /// Signs the milestone's id as a coordinator.
    pub fn sign(&self, key: &SecretKey) -> CoordinatorSignature {
        let hash = Hash::new(*self.id().as_bytes());
        CoordinatorSignature { coordinator: key.public(), signature: key.sign(&hash) }
    }

    /// Whether this is a next milestone after `previous`.
    ///
    /// # Errors
    /// [`MilestoneError`]: the index, the previous id or the time is wrong.
    pub fn follows(&self, previous: &Self) -> Result<(), MilestoneError> {
        if Some(self.index) != previous.index.checked_add(1) {
            return Err(MilestoneError::Index { got: self.index, after: previous.index });
        }
        let wanted = previous.id();
        if self.previous != wanted {
            return Err(MilestoneError::Previous { index: self.index, got: self.previous, wanted });
        }
        if self.timestamp_ms <= previous.timestamp_ms {
            return Err(MilestoneError::Time(self.index));
        }
        Ok(())
    }
}

impl Milestone {
    /// The milestone's id.
    pub fn id(&self) -> MilestoneId {
        self.essence.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(count: u8) -> Vec<BlockId> {
        (0..count).map(|n| BlockId::new([n; 32])).collect()
    }

    fn essence(index: u64, timestamp_ms: u64, previous: MilestoneId) -> MilestoneEssence {
        MilestoneEssence {
            network: NetworkId::new([1; 32]),
            index,
            timestamp_ms,
            previous,
            parents: parents(1),
            included_root: Hash::ZERO,
            applied_root: Hash::ZERO,
            channels_root: Hash::ZERO,
            state_root: Hash::ZERO,
            next: None,
        }
    }

    #[test]
    fn a_milestone_follows_one_other_only() {
        let first = essence(4, 100, MilestoneId::new([9; 32]));
        assert_eq!(essence(5, 101, first.id()).follows(&first), Ok(()));
        for index in [3, 4, 6] {
            let refused = essence(index, 101, first.id()).follows(&first);
            assert_eq!(refused, Err(MilestoneError::Index { got: index, after: 4 }));
        }
        for time in [99, 100] {
            assert_eq!(essence(5, time, first.id()).follows(&first), Err(MilestoneError::Time(5)));
        }
        let (got, wanted) = (first.previous, first.id());
        let fork = essence(5, 101, got).follows(&first);
        assert_eq!(fork, Err(MilestoneError::Previous { index: 5, got, wanted }));
        let last = essence(u64::MAX, 100, MilestoneId::new([9; 32]));
        assert!(essence(0, 101, last.id()).follows(&last).is_err(), "the count of milestones does not wrap");
    }

    #[test]
    fn parents_have_one_spelling() {
        for good in [parents(1), parents(8)] {
            let essence = MilestoneEssence { parents: good, ..essence(1, 1, MilestoneId::new([0; 32])) };
            assert_eq!(essence.check_form(), Ok(()));
        }
        let twice = vec![BlockId::new([1; 32]); 2];
        for bad in [vec![], parents(9), twice, parents(2).into_iter().rev().collect()] {
            let essence = MilestoneEssence { parents: bad, ..essence(1, 1, MilestoneId::new([0; 32])) };
            assert_eq!(essence.check_form(), Err(MilestoneError::Parents));
        }
    }
}
