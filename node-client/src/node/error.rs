//! What goes wrong in a node.

use std::sync::Arc;

use flash_channel::store::StoreError;
use flash_proto::{Amount, Hash, block::BlockError, milestone::MilestoneError, network::NetworkError};
use thiserror::Error;

use super::{Received, SnapshotError};
use crate::{coordinator::CoordinatorError, light::Fork};

/// Why a node does not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The parameters make no network.
    #[error("the network's parameters are wrong: {0}")]
    Network(#[from] NetworkError),
    /// The keys given cannot sign the next milestone.
    #[error("{given} coordinator keys of this network were given, but a milestone needs {threshold}")]
    Coordinators {
        /// Keys given that are coordinators of the network.
        given: usize,
        /// Signatures that a milestone needs.
        threshold: u8,
    },
    /// The store failed.
    #[error("the node's store failed: {0}")]
    Store(#[from] StoreError),
    /// The state on disk is not the one that the last milestone commits to.
    #[error(
        "the stored state has root {got}, but milestone {index} commits to {wanted}; restore the directory from a backup"
    )]
    StateRoot {
        /// The last milestone.
        index: u64,
        /// Its state root.
        wanted: Hash,
        /// The root of what is stored.
        got: Hash,
    },
    /// I1 does not hold for what is stored.
    #[error(
        "the stored outputs hold {outputs} and the channels {channels}, which is not the supply; restore the directory from a backup"
    )]
    Supply {
        /// Money in outputs.
        outputs: Amount,
        /// Money in channels.
        channels: Amount,
    },
    /// What is stored does not fit together.
    #[error("the stored {0} is damaged; restore the directory from a backup")]
    Damaged(&'static str),
    /// A stored block is not valid.
    #[error("a stored block is not valid: {0}; restore the directory from a backup")]
    Block(#[from] BlockError),
    /// A milestone is not valid.
    #[error("the milestone is not valid: {0}")]
    Milestone(#[from] MilestoneError),
    /// The coordinators signed two milestones that cannot both be.
    #[error("{}", crate::light::LightError::Fork(Arc::new((**.0).clone())))]
    Fork(Box<Fork>),
    /// The coordinators signed a milestone that does not follow from its blocks.
    #[error(
        "milestone {index} is signed, but its {what} does not follow from the blocks it confirms; compare this node's version and state with the others'"
    )]
    Roots {
        /// The milestone.
        index: u64,
        /// What differs.
        what: &'static str,
    },
    /// The coordinator does not start.
    #[error("the coordinator does not start: {0}")]
    Coordinator(#[from] CoordinatorError),
    /// A signed milestone could not be taken in.
    #[error("the milestone was not taken in: {0:?}")]
    NotTaken(Received),
    /// What was asked for was let go of.
    #[error(
        "what milestones up to {upto} did is not kept here any more; ask a permanode, or start from a later snapshot or checkpoint"
    )]
    Pruned {
        /// The newest milestone that is gone.
        upto: u64,
    },
    /// A snapshot could not be written, or is not one to start from.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// A snapshot was not read in to its end.
    #[error(
        "a start from a snapshot was cut short here; remove the store directory and start from the snapshot again"
    )]
    Unfinished,
    /// There is no later index or time.
    #[error("the milestone chain has reached the end of its counters")]
    Counter,
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
    /// The node stopped before.
    #[error("the node has stopped: {0}")]
    Halted(String),
}
