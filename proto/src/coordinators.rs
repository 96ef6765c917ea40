//! Who signs the milestones, and how that changes.
//!
//! A network begins with the coordinators of its parameters. A milestone may hand over to others: it
//! names the set that signs from the next milestone on, and is itself signed by the old one.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Hash, Milestone, MilestoneEssence, NetworkId, NetworkParams, PublicKey, hash::Layout, limits,
    milestone::MilestoneError,
};

/// The keys that sign milestones, and how many of them must.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorSet {
    /// The coordinators' keys, strictly rising.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign a milestone.
    pub threshold: u8,
}

/// Why keys and a threshold make no set of coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoordinatorSetError {
    /// No coordinators, too many, or not in strictly rising order.
    #[error("there are 1 to {max} coordinators, in strictly rising order of their keys", max = limits::COORDINATORS_MAX)]
    Keys,
    /// The threshold is 0 or above the number of coordinators.
    #[error("the threshold must be between 1 and the number of coordinators")]
    Threshold,
}

impl CoordinatorSet {
    /// Checks the form.
    ///
    /// # Errors
    /// [`CoordinatorSetError`].
    pub fn check(&self) -> Result<(), CoordinatorSetError> {
        let count_fits = (1..=limits::COORDINATORS_MAX).contains(&self.keys.len());
        if !count_fits || !self.keys.is_sorted_by(|left, right| left < right) {
            return Err(CoordinatorSetError::Keys);
        }
        if !(1..=self.keys.len()).contains(&usize::from(self.threshold)) {
            return Err(CoordinatorSetError::Threshold);
        }
        Ok(())
    }

    /// Writes the set into a layout: `keys u16 ‖ each key ‖ threshold u8`.
    pub(crate) fn write(&self, mut layout: Layout) -> Layout {
        layout = layout.count(self.keys.len());
        for key in &self.keys {
            layout = layout.bytes(key.as_bytes());
        }
        layout.u8(self.threshold)
    }

    /// Checks that at least the threshold signed the milestone, each a known key, none twice, all valid.
    fn check_signatures(&self, milestone: &Milestone) -> Result<(), MilestoneError> {
        let signatures = &milestone.signatures;
        if signatures.len() < usize::from(self.threshold) {
            return Err(MilestoneError::TooFewSignatures { got: signatures.len(), wanted: self.threshold });
        }
        let rising = signatures.is_sorted_by(|left, right| left.coordinator < right.coordinator);
        if !rising || signatures.len() > limits::COORDINATORS_MAX {
            return Err(MilestoneError::SignatureOrder);
        }
        let hash = Hash::new(*milestone.id().as_bytes());
        for signature in signatures {
            if !self.keys.contains(&signature.coordinator) {
                return Err(MilestoneError::UnknownCoordinator(signature.coordinator));
            }
            if !signature.coordinator.verify(&hash, &signature.signature) {
                return Err(MilestoneError::BadSignature(signature.coordinator));
            }
        }
        Ok(())
    }
}

/// Who could sign which milestones of a network, as far as its milestones were followed.
///
/// ```
/// use flash_proto::{Address, Amount, CoordinatorHistory, NetworkParams, Output, SecretKey};
///
/// let params = NetworkParams {
///     name: "example".to_owned(),
///     coordinators: vec![SecretKey::from_bytes([1; 32]).public()],
///     threshold: 1,
///     pow_bits: 0,
///     output_min: Amount::new(1),
///     milestone_interval_ms: 1_000,
///     genesis_ms: 0,
///     genesis: vec![Output { address: Address::new([2; 32]), amount: Amount::SUPPLY }],
/// };
/// let history = CoordinatorHistory::new(&params);
/// assert_eq!(history.newest().keys, params.coordinators);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoordinatorHistory {
    network: NetworkId,
    /// Signs until the first change.
    first: CoordinatorSet,
    /// The first milestone of a new set, and the set; rising.
    changes: Vec<(u64, CoordinatorSet)>,
}

impl CoordinatorHistory {
    /// The beginning of a network.
    pub fn new(params: &NetworkParams) -> Self {
        Self { network: params.id(), first: params.coordinator_set(), changes: Vec::new() }
    }

    /// The network.
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// Who signs milestone `index`, as far as is known.
    pub fn at(&self, index: u64) -> &CoordinatorSet {
        let later = self.changes.partition_point(|(from, _)| *from <= index);
        later.checked_sub(1).and_then(|place| self.changes.get(place)).map_or(&self.first, |(_, set)| set)
    }

    /// Who signs the next milestone.
    pub fn newest(&self) -> &CoordinatorSet {
        self.changes.last().map_or(&self.first, |(_, set)| set)
    }

    /// The milestones that handed over to others, in rising order: each is signed by the set before it.
    pub fn hand_overs(&self) -> impl Iterator<Item = u64> + '_ {
        self.changes.iter().map(|(from, _)| from.saturating_sub(1))
    }

    /// Checks a milestone's form and signatures; not what came before it.
    ///
    /// # Errors
    /// [`MilestoneError`].
    pub fn verify(&self, milestone: &Milestone) -> Result<(), MilestoneError> {
        let essence = &milestone.essence;
        if essence.network != self.network {
            return Err(MilestoneError::Network(essence.network));
        }
        essence.check_form()?;
        self.at(essence.index).check_signatures(milestone)
    }

    /// Takes over what a milestone says of its successors. Milestones come in rising order, each once, and
    /// were checked before.
    pub fn follow(&mut self, essence: &MilestoneEssence) {
        if let (Some(next), Some(from)) = (&essence.next, essence.index.checked_add(1)) {
            self.changes.push((from, next.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Amount, BlockId, MilestoneId, SecretKey};

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes([seed; 32])
    }

    fn set(seeds: &[u8], threshold: u8) -> CoordinatorSet {
        let mut keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public()).collect();
        keys.sort_unstable();
        CoordinatorSet { keys, threshold }
    }

    fn params() -> NetworkParams {
        let CoordinatorSet { keys, threshold } = set(&[1, 2, 3], 2);
        NetworkParams {
            name: "test".to_owned(),
            coordinators: keys,
            threshold,
            pow_bits: 0,
            output_min: Amount::new(1),
            milestone_interval_ms: 1_000,
            genesis_ms: 0,
            genesis: Vec::new(),
        }
    }

    fn milestone(index: u64, next: Option<CoordinatorSet>, signers: &[u8]) -> Milestone {
        let essence = MilestoneEssence {
            network: params().id(),
            index,
            timestamp_ms: index,
            previous: MilestoneId::new([0; 32]),
            parents: vec![BlockId::new([0; 32])],
            included_root: Hash::ZERO,
            applied_root: Hash::ZERO,
            channels_root: Hash::ZERO,
            state_root: Hash::ZERO,
            next,
        };
        let mut signatures: Vec<_> = signers.iter().map(|seed| essence.sign(&key(*seed))).collect();
        signatures.sort_unstable_by_key(|signature| signature.coordinator);
        Milestone { essence, signatures }
    }

    #[test]
    fn k_of_n_different_known_keys_sign() {
        let history = CoordinatorHistory::new(&params());
        assert_eq!(history.verify(&milestone(1, None, &[1, 3])), Ok(()));
        assert_eq!(history.verify(&milestone(1, None, &[1, 2, 3])), Ok(()));
        let refused = |milestone: &Milestone| history.verify(milestone).unwrap_err();
        assert_eq!(
            refused(&milestone(1, None, &[2])),
            MilestoneError::TooFewSignatures { got: 1, wanted: 2 }
        );
        assert_eq!(refused(&milestone(1, None, &[2, 2])), MilestoneError::SignatureOrder);
        assert_eq!(
            refused(&milestone(1, None, &[1, 9])),
            MilestoneError::UnknownCoordinator(key(9).public())
        );
        let mut changed = milestone(1, None, &[1, 3]);
        changed.essence.index = 2;
        assert!(matches!(refused(&changed), MilestoneError::BadSignature(_)));
        let network = NetworkId::new([9; 32]);
        assert_ne!(history.network(), network);
        changed.essence.network = network;
        assert_eq!(refused(&changed), MilestoneError::Network(network));
    }

    #[test]
    fn as_many_sign_as_there_may_be_coordinators() {
        let seeds: Vec<u8> = (1..=u8::try_from(limits::COORDINATORS_MAX).unwrap() + 1).collect();
        let (_, most) = seeds.split_last().unwrap();
        assert_eq!(set(most, 1).check_signatures(&milestone(1, None, most)), Ok(()));
        let more = set(&seeds, 1).check_signatures(&milestone(1, None, &seeds));
        assert_eq!(more, Err(MilestoneError::SignatureOrder));
    }

    #[test]
    fn a_milestone_hands_over_from_the_next_one_on() {
        let mut history = CoordinatorHistory::new(&params());
        let handing_over = milestone(5, Some(set(&[7], 1)), &[1, 2]);
        history.verify(&handing_over).unwrap();
        history.follow(&handing_over.essence);
        // The old ones sign what is old, the new one what is new, and neither the other's.
        assert_eq!(history.verify(&milestone(5, None, &[1, 2])), Ok(()));
        assert_eq!(history.verify(&milestone(6, None, &[7])), Ok(()));
        assert!(history.verify(&milestone(5, None, &[7])).is_err());
        assert!(history.verify(&milestone(6, None, &[1, 2])).is_err());
        assert_eq!(history.newest(), &set(&[7], 1));
        assert_eq!(history.hand_overs().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn keys_stand_in_strictly_rising_order() {
        let good = set(&[1, 2, 3], 3);
        assert_eq!(good.check(), Ok(()));
        let mut falling = good.clone();
        falling.keys.reverse();
        assert_eq!(falling.check(), Err(CoordinatorSetError::Keys));
        let mut twice = good.clone();
        twice.keys[1] = twice.keys[0];
        assert_eq!(twice.check(), Err(CoordinatorSetError::Keys));
        assert_eq!(CoordinatorSet { threshold: 4, ..good }.check(), Err(CoordinatorSetError::Threshold));
    }

    #[test]
    fn what_is_handed_over_is_signed_and_well_formed() {
        let history = CoordinatorHistory::new(&params());
        let mut changed = milestone(5, Some(set(&[7], 1)), &[1, 2]);
        changed.essence.next = Some(set(&[8], 1));
        assert!(matches!(history.verify(&changed), Err(MilestoneError::BadSignature(_))));
        changed.essence.next = None;
        assert!(matches!(history.verify(&changed), Err(MilestoneError::BadSignature(_))));
        for wrong in [set(&[], 0), set(&[7], 0), set(&[7], 2), set(&[7, 7], 1)] {
            let refused = history.verify(&milestone(5, Some(wrong), &[1, 2])).unwrap_err();
            assert!(matches!(refused, MilestoneError::Next(_)), "{refused}");
        }
    }
}
