//! Why something is not believed.

use std::sync::Arc;

use bincode::{Decode, Encode};
use flash_proto::{
    BlockId, Milestone, TransactionId, block::BlockError, milestone::MilestoneError, network::NetworkError,
};
use thiserror::Error;

use crate::ledger::state_tree::ProofError;

/// Two milestones that the coordinators signed and that cannot both be: the proof that they broke the
/// ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    /// The one that was known. It has no signatures if it is what the core started from.
    pub known: Milestone,
    /// The other one: of the same index, or the successor of another milestone than the known one.
    pub other: Milestone,
}

/// What kind of fault it is that something is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Who sent it made it up: a signature or proof is not valid.
    Lied,
    /// It is too old to rely on.
    Stale,
    /// It is about a milestone that has not been followed yet: follow on, then look again.
    Ahead,
    /// It is not what was asked for.
    Malformed,
    /// The coordinators signed two different ledgers.
    Fork,
    /// The network's parameters or the checkpoint are wrong.
    Setup,
}

/// Why something is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LightError {
    /// The parameters make no network.
    #[error("the parameters make no network: {0}")]
    Network(#[from] NetworkError),
    /// The checkpoint is of another network.
    #[error("the checkpoint, milestone {index}, is of another network; remove it to start from the genesis")]
    Checkpoint {
        /// The checkpoint's index.
        index: u64,
    },
    /// The coordinators signed two milestones that cannot both be. Nothing is believed any more.
    #[error(
        "the coordinators signed milestone {} twice or after different predecessors ({} and {}): a fork; \
         trust nothing on this network until its operators have explained it",
        .0.other.essence.index, .0.known.id(), .0.other.id()
    )]
    Fork(Arc<Fork>),
    /// A milestone's form or signatures are wrong.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// A milestone that is not the next one.
    #[error("milestone {got} came where the one after {after} was due")]
    OutOfOrder {
        /// Its index.
        got: u64,
        /// The newest known index.
        after: u64,
    },
    /// The list of changed channels is not what the milestone commits to.
    #[error("the channels given as changed by milestone {index} are not those it commits to")]
    Channels {
        /// The milestone.
        index: u64,
    },
    /// A proof about the state proves nothing.
    #[error("{0}")]
    Proof(#[from] ProofError),
    /// A proof about a state of too long ago.
    #[error("the proof is of milestone {milestone_index}, too long before the newest, {newest}")]
    Stale {
        /// The proof's milestone.
        milestone_index: u64,
        /// The newest one.
        newest: u64,
    },
    /// A proof about a state that is not known yet.
    #[error("the proof is of milestone {milestone_index}, but the newest known one is {newest}")]
    Ahead {
        /// The proof's milestone.
        milestone_index: u64,
        /// The newest one.
        newest: u64,
    },
    /// The bytes are not a valid block.
    #[error("not a valid block: {0}")]
    Block(#[from] BlockError),
    /// The block carries something else.
    #[error("the block does not carry transaction {wanted}")]
    WrongTransaction {
        /// The transaction asked for.
        wanted: TransactionId,
    },
    /// The bytes are another block's.
    #[error("the bytes are not those of block {wanted}")]
    WrongBlock {
        /// The block asked for.
        wanted: BlockId,
    },
    /// The path does not lead to the included root.
    #[error("nothing proves that milestone {milestone_index} confirmed block {block}")]
    NotIncluded {
        /// The block.
        block: BlockId,
        /// The milestone.
        milestone_index: u64,
    },
    /// The path does not lead to the applied root.
    #[error("nothing proves that milestone {milestone_index} applied block {block}")]
    NotApplied {
        /// The block.
        block: BlockId,
        /// The milestone.
        milestone_index: u64,
    },
}

impl LightError {
    /// What kind of fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Network(_) | Self::Checkpoint { .. } => Fault::Setup,
            Self::Fork(_) => Fault::Fork,
            Self::OutOfOrder { .. } => Fault::Malformed,
            Self::Stale { .. } => Fault::Stale,
            Self::Ahead { .. } => Fault::Ahead,
            Self::Milestone(_)
            | Self::Channels { .. }
            | Self::Proof(_)
            | Self::Block(_)
            | Self::WrongTransaction { .. }
            | Self::WrongBlock { .. }
            | Self::NotIncluded { .. }
            | Self::NotApplied { .. } => Fault::Lied,
        }
    }
}
