//! What can go wrong between a client and its nodes.

use std::time::Duration;

use flash_proto::TransactionId;
use thiserror::Error;

use crate::{
    ledger::Conflict,
    light::{Fault, LightError},
    protocol::RefusedCode,
    quic::{ConnectError, PeerAddress, frames::FrameError},
};

/// Why a call failed. [`ClientError::is_retryable`] says whether the same call can succeed later.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client cannot start.
    #[error("the node client cannot start: {0}")]
    Start(#[from] ConnectError),
    /// A node cannot be connected to.
    #[error("no link to node {node}: {error}")]
    Connect {
        /// The node.
        node: PeerAddress,
        /// Why.
        error: Box<ConnectError>,
    },
    /// No node is configured.
    #[error("no node is configured; name at least one as KEY@HOST:PORT")]
    NoNodes,
    /// The network's parameters or the checkpoint are wrong.
    #[error(transparent)]
    Setup(LightError),
    /// No node can be reached at this moment.
    #[error("no node can be reached now; it is tried again all the time")]
    Unreachable,
    /// The connection to the node was lost during the call.
    #[error("the link to node {node} broke: {error}")]
    Link {
        /// The node.
        node: PeerAddress,
        /// How.
        error: Box<FrameError>,
    },
    /// The connection to the node was lost before the call went out.
    #[error("the link to node {node} is lost: {error}")]
    Lost {
        /// The node.
        node: PeerAddress,
        /// How.
        error: Box<quinn::ConnectionError>,
    },
    /// The node did not answer in time.
    #[error("node {node} did not answer within {waited:?}")]
    Timeout {
        /// The node.
        node: PeerAddress,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The node stays behind the others.
    #[error("node {node} stays {behind} milestones behind: it withholds or delays them")]
    Withheld {
        /// The node.
        node: PeerAddress,
        /// How many milestones it is behind.
        behind: u64,
    },
    /// The node refused.
    #[error("node {node} refuses ({code:?}): {reason}")]
    Refused {
        /// The node.
        node: PeerAddress,
        /// What kind of refusal.
        code: RefusedCode,
        /// In its words.
        reason: String,
    },
    /// The node made something up. It is avoided from now on, and nothing it said was believed.
    #[error("node {node} lies: {what}")]
    Lied {
        /// The node.
        node: PeerAddress,
        /// What it made up.
        what: String,
    },
    /// The node answered with something that was not asked for.
    #[error("node {node} answered with something else than was asked for: {what}")]
    Malformed {
        /// The node.
        node: PeerAddress,
        /// What.
        what: String,
    },
    /// The node's answer is too old to rely on, or from ahead of its own milestones.
    #[error("node {node} is not at the newest milestone: {what}")]
    Stale {
        /// The node.
        node: PeerAddress,
        /// How.
        what: String,
    },
    /// The coordinators signed two different ledgers. Nothing is believed any more.
    #[error("halted: {0}")]
    Halted(String),
    /// There is no such milestone, or the node does not keep it.
    #[error("the node has no milestone {0:?}")]
    NoSuchMilestone(Option<u64>),
    /// The payload does not fit a block.
    #[error("a block with this payload has {got} bytes, at most {max} are allowed; send less at once", max = flash_proto::limits::BLOCK_BYTES_MAX)]
    BlockTooLarge {
        /// Bytes it would have.
        got: usize,
    },
    /// No nonce has enough work; cannot happen below 2^64 tries.
    #[error("the proof of work found no nonce")]
    Work,
    /// The ledger does not apply the transaction, as all nodes say that could be asked.
    #[error("transaction {transaction} was rejected at milestone {milestone_index}: {conflict}")]
    Rejected {
        /// The transaction.
        transaction: TransactionId,
        /// The milestone that confirmed its block.
        milestone_index: u64,
        /// Why.
        conflict: Conflict,
    },
    /// The transaction was not applied up to the caller's deadline. Unless it expires by itself it may
    /// still be.
    #[error("transaction {transaction} was not applied up to milestone {deadline}")]
    Deadline {
        /// The transaction.
        transaction: TransactionId,
        /// The caller's deadline.
        deadline: u64,
    },
}

impl ClientError {
    /// Whether the same call can succeed later: nothing is wrong with the call itself.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Refused { code, .. } => {
                matches!(
                    code,
                    RefusedCode::Busy
                        | RefusedCode::UnknownParent
                        | RefusedCode::Halted
                        | RefusedCode::MoreWork { .. }
                )
            }
            _ => self.is_of_node(),
        }
    }

    /// Whether it says something about the node alone, so that another one can be asked.
    pub(super) const fn is_of_node(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Link { .. }
                | Self::Lost { .. }
                | Self::Timeout { .. }
                | Self::Withheld { .. }
                | Self::Lied { .. }
                | Self::Malformed { .. }
                | Self::Stale { .. }
                | Self::Refused { .. }
        )
    }

    /// What the node was caught at, without its name.
    pub(super) fn fault_text(&self) -> String {
        match self {
            Self::Lied { what, .. } => what.clone(),
            Self::Malformed { what, .. } => {
                format!("it answered with something else than was asked for: {what}")
            }
            Self::Stale { what, .. } => format!("it says less than it has announced: {what}"),
            Self::Timeout { waited, .. } => format!("it did not answer within {waited:?}"),
            Self::Withheld { behind, .. } => format!("it stays {behind} milestones behind"),
            other => other.to_string(),
        }
    }

    /// What a verifier's error means for the node that sent the data.
    pub(super) fn of_node(node: &PeerAddress, error: &LightError) -> Self {
        let (node, what) = (node.clone(), error.to_string());
        match error.fault() {
            Fault::Lied => Self::Lied { node, what },
            Fault::Malformed => Self::Malformed { node, what },
            Fault::Stale | Fault::Ahead => Self::Stale { node, what },
            Fault::Fork | Fault::Setup => Self::Halted(what),
        }
    }
}
