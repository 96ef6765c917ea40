//! Evidence that a block was confirmed, for whoever knows nothing but the network's parameters.
//!
//! It does not depend on any node and does not grow old. It is as good as the coordinators' signatures:
//! whoever holds enough of their keys, also of keys that were handed over long ago, can make up more. A
//! [`LightCore`](super::LightCore) that follows the milestones would see that as a fork.

use bincode::{Decode, Encode};
use flash_proto::{
    Block, BlockId, CoordinatorHistory, Milestone, NetworkParams, block::BlockError,
    limits::NODE_FRAME_BYTES_MAX, milestone::MilestoneError, network::NetworkError,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ledger::merkle::AuditPath, protocol::Inclusion};

/// Bytes of any part of evidence.
const PART_BYTES_MAX: usize = NODE_FRAME_BYTES_MAX;

/// Proves that a milestone confirmed a block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The block's bytes.
    #[serde(with = "hexadecimal")]
    pub block: Vec<u8>,
    /// Leads from the block to the milestone's included root.
    pub path: AuditPath,
    /// The milestone that confirmed the block, with its signatures.
    #[serde(with = "hexadecimal")]
    pub milestone: Milestone,
    /// The milestones before it at which coordinators handed over to others, in rising order.
    #[serde(with = "hexadecimal")]
    pub hand_overs: Vec<Milestone>,
}

/// A block that is proven to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The block's id.
    pub id: BlockId,
    /// The block.
    pub block: Block,
    /// The milestone that confirmed it.
    pub milestone_index: u64,
    /// Milliseconds since 1970, as the coordinators signed: the block is older than that.
    pub timestamp_ms: u64,
}

/// Why evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The parameters make no network.
    #[error("the parameters make no network: {0}")]
    Network(#[from] NetworkError),
    /// A milestone's form or signatures are wrong.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// A milestone among the hand-overs names no new coordinators, or is not in its place.
    #[error("milestone {index} is not a hand-over before the milestone that confirmed the block")]
    HandOver {
        /// Its index.
        index: u64,
    },
    /// The bytes are not a valid block.
    #[error("not a valid block: {0}")]
    Block(#[from] BlockError),
    /// The path does not lead to the included root.
    #[error("nothing proves that milestone {milestone_index} confirmed block {block}")]
    NotIncluded {
        /// The block.
        block: BlockId,
        /// The milestone.
        milestone_index: u64,
    },
}

impl Evidence {
    /// What a node proved to a light core, with the hand-overs before it.
    pub fn new(inclusion: Inclusion, hand_overs: Vec<Milestone>) -> Self {
        let Inclusion { block, milestone, path } = inclusion;
        Self { block, path, milestone, hand_overs }
    }

    /// Checks everything, from the network's first coordinators on.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn verify(&self, params: &NetworkParams) -> Result<Confirmed, EvidenceError> {
        params.check()?;
        self.check_signatures(params)?;
        let block = Block::from_bytes(&self.block, params.pow_bits)?;
        let (id, essence) = (Block::id_of(&self.block), &self.milestone.essence);
        if !self.path.verify(&essence.included_root, id.as_bytes()) {
            return Err(EvidenceError::NotIncluded { block: id, milestone_index: essence.index });
        }
        Ok(Confirmed { id, block, milestone_index: essence.index, timestamp_ms: essence.timestamp_ms })
    }

    fn check_signatures(&self, params: &NetworkParams) -> Result<(), EvidenceError> {
        let mut history = CoordinatorHistory::new(params);
        let mut last = None;
        for milestone in &self.hand_overs {
            history.verify(milestone)?;
            let essence = &milestone.essence;
            let rising = last < Some(essence.index) && essence.index < self.milestone.essence.index;
            if !rising || essence.next.is_none() {
                return Err(EvidenceError::HandOver { index: essence.index });
            }
            history.follow(essence);
            last = Some(essence.index);
        }
        Ok(history.verify(&self.milestone)?)
    }
}

/// Anything that has an encoding, as hexadecimal text.
mod hexadecimal {
    use bincode::{Decode, Encode};
    use flash_proto::codec;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::PART_BYTES_MAX;

    pub(super) fn serialize<T: Encode, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        hex::encode(codec::encode(value)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Decode<()>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        codec::decode::<T, PART_BYTES_MAX>(&bytes).map_err(D::Error::custom)
    }
}
