//! The parameters that make a network.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Amount, BlockId, CoordinatorSet, Hash, MilestoneEssence, MilestoneId, NetworkId, Output, PublicKey,
    coordinators::CoordinatorSetError,
    hash::{Layout, Tag},
    limits,
};

/// Everything that all members of a network must agree on. Its hash is the [`NetworkId`], which is part
/// of everything that is signed, so nothing signed for one network means anything on another.
///
/// This is the content of a network file (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkParams {
    /// A name for people.
    pub name: String,
    /// The keys of the first coordinators, strictly rising.
    pub coordinators: Vec<PublicKey>,
    /// How many of them must sign a milestone.
    pub threshold: u8,
    /// Zero bits of proof of work that a block needs.
    pub pow_bits: u8,
    /// The smallest output, against dust. Payouts of channels are exempt.
    pub output_min: Amount,
    /// Milliseconds between two milestones, as the coordinators intend it.
    pub milestone_interval_ms: u64,
    /// When the network began: milliseconds since 1970.
    pub genesis_ms: u64,
    /// Who owned the supply at the beginning.
    pub genesis: Vec<Output>,
}

/// Why parameters make no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The name is empty or too long.
    #[error("a network's name has 1 to {max} bytes", max = limits::NETWORK_NAME_BYTES_MAX)]
    Name,
    /// The coordinators make no set.
    #[error(transparent)]
    Coordinators(#[from] CoordinatorSetError),
    /// More proof of work than anyone can do.
    #[error("at most {max} bits of proof of work", max = limits::POW_BITS_MAX)]
    Work,
    /// A milestone interval of zero.
    #[error("the milestone interval must be at least 1 ms")]
    Interval,
    /// The minimum output is zero or more than the supply.
    #[error("the minimum output must be at least 1i and at most the supply")]
    OutputMin,
    /// The genesis outputs are none, too many, below the minimum, or do not add up to the supply.
    #[error("the genesis must hold 1 to {max} outputs of at least the minimum that add up to the supply of {supply}", max = limits::GENESIS_OUTPUTS_MAX, supply = Amount::SUPPLY)]
    Genesis,
}

impl NetworkParams {
    /// Checks that the parameters make a network.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn check(&self) -> Result<(), NetworkError> {
        let in_range = |len: usize, max: usize| (1..=max).contains(&len);
        if !in_range(self.name.len(), limits::NETWORK_NAME_BYTES_MAX) {
            return Err(NetworkError::Name);
        }
        self.coordinator_set().check()?;
        if self.pow_bits > limits::POW_BITS_MAX {
            return Err(NetworkError::Work);
        }
        if self.milestone_interval_ms == 0 {
            return Err(NetworkError::Interval);
        }
        if self.output_min.is_zero() || self.output_min > Amount::SUPPLY {
            return Err(NetworkError::OutputMin);
        }
        let sum = Amount::checked_sum(self.genesis.iter().map(|output| output.amount));
        let all_large_enough = self.genesis.iter().all(|output| output.amount >= self.output_min);
        if !in_range(self.genesis.len(), limits::GENESIS_OUTPUTS_MAX)
            || sum != Some(Amount::SUPPLY)
            || !all_large_enough
        {
            return Err(NetworkError::Genesis);
        }
        Ok(())
    }

    /// Who signs the milestones until one hands over to others.
    pub fn coordinator_set(&self) -> CoordinatorSet {
        CoordinatorSet { keys: self.coordinators.clone(), threshold: self.threshold }
    }

    /// The network's id: the hash of all of the above (`docs/protocol.md`, "Network").
    pub fn id(&self) -> NetworkId {
        let mut layout = Layout::new(Tag::NETWORK).count(self.name.len()).bytes(self.name.as_bytes());
        layout = self
            .coordinator_set()
            .write(layout)
            .u8(self.pow_bits)
            .amount(self.output_min)
            .u64(self.milestone_interval_ms)
            .u64(self.genesis_ms)
            .count(self.genesis.len());
        for output in &self.genesis {
            layout = layout.bytes(output.address.as_bytes()).amount(output.amount);
        }
        NetworkId::new(*layout.hash().as_bytes())
    }

    /// The block that the first blocks approve. It has no bytes; its id is the network's.
    pub fn genesis_block(&self) -> BlockId {
        BlockId::new(*self.id().as_bytes())
    }

    /// Milestone 0, which nobody signs: the network's id vouches for it. `state_root` is the root of the
    /// state tree over the genesis outputs, `empty_root` the Merkle root of no leaves.
    pub fn genesis_milestone(&self, state_root: Hash, empty_root: Hash) -> MilestoneEssence {
        MilestoneEssence {
            network: self.id(),
            index: 0,
            timestamp_ms: self.genesis_ms,
            previous: MilestoneId::new([0; 32]),
            parents: vec![self.genesis_block()],
            included_root: empty_root,
            applied_root: empty_root,
            channels_root: empty_root,
            state_root,
            next: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, SecretKey};

    fn output(units: u64) -> Output {
        Output { address: Address::new([1; 32]), amount: Amount::new(units) }
    }

    fn params() -> NetworkParams {
        NetworkParams {
            name: "n".repeat(limits::NETWORK_NAME_BYTES_MAX),
            coordinators: vec![SecretKey::from_bytes([1; 32]).public()],
            threshold: 1,
            pow_bits: limits::POW_BITS_MAX,
            output_min: Amount::new(10),
            milestone_interval_ms: 1,
            genesis_ms: 7,
            genesis: vec![output(10), output(Amount::SUPPLY.units() - 10)],
        }
    }

    #[test]
    fn parameters_at_their_limits_make_a_network_and_beyond_them_none() {
        assert_eq!(params().check(), Ok(()));
        let whole = NetworkParams {
            output_min: Amount::SUPPLY,
            genesis: vec![output(Amount::SUPPLY.units())],
            ..params()
        };
        assert_eq!(whole.check(), Ok(()));
        let supply = Amount::SUPPLY.units();
        let count = u64::try_from(limits::GENESIS_OUTPUTS_MAX).unwrap();
        let many: Vec<_> = (0..count).map(|_| output(10)).chain([output(supply - 10 * count)]).collect();
        let named = |name: &str| NetworkParams { name: name.to_owned(), ..params() };
        let least = |units| NetworkParams { output_min: Amount::new(units), ..params() };
        let owned = |genesis| NetworkParams { genesis, ..params() };
        let cases = [
            (named(""), NetworkError::Name),
            (named(&"n".repeat(limits::NETWORK_NAME_BYTES_MAX + 1)), NetworkError::Name),
            (NetworkParams { pow_bits: limits::POW_BITS_MAX + 1, ..params() }, NetworkError::Work),
            (NetworkParams { milestone_interval_ms: 0, ..params() }, NetworkError::Interval),
            (least(0), NetworkError::OutputMin),
            (least(supply + 1), NetworkError::OutputMin),
            (owned(Vec::new()), NetworkError::Genesis),
            (owned(many), NetworkError::Genesis),
            (owned(vec![output(supply - 1)]), NetworkError::Genesis),
            (owned(vec![output(9), output(supply - 9)]), NetworkError::Genesis),
            (owned(vec![output(u64::MAX), output(supply)]), NetworkError::Genesis),
        ];
        for (number, (params, refused)) in cases.into_iter().enumerate() {
            assert_eq!(params.check(), Err(refused), "case {number}");
        }
        let nobody = NetworkParams { threshold: 0, ..params() };
        assert!(matches!(nobody.check(), Err(NetworkError::Coordinators(_))));
    }

    #[test]
    fn every_parameter_is_part_of_the_id() {
        let mut changed = vec![params(); 8];
        changed[0].name.push('n');
        changed[1].coordinators = vec![SecretKey::from_bytes([2; 32]).public()];
        changed[2].threshold = 2;
        changed[3].pow_bits = 0;
        changed[4].output_min = Amount::new(11);
        changed[5].milestone_interval_ms = 2;
        changed[6].genesis_ms = 8;
        changed[7].genesis.reverse();
        for (number, changed) in changed.into_iter().enumerate() {
            assert_ne!(changed.id(), params().id(), "parameter {number}");
        }
    }

    #[test]
    fn the_first_milestone_follows_from_the_parameters() {
        let (state, empty) = (Hash::new([1; 32]), Hash::new([2; 32]));
        let genesis = params().genesis_milestone(state, empty);
        assert_eq!((genesis.network, genesis.index, genesis.timestamp_ms), (params().id(), 0, 7));
        assert_eq!(genesis.parents, [BlockId::new(*params().id().as_bytes())]);
        assert_eq!(genesis.state_root, state);
        assert_eq!([genesis.included_root, genesis.applied_root, genesis.channels_root], [empty; 3]);
    }
}
