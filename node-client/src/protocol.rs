//! What a node and its clients say to each other.
//!
//! Every request has a QUIC stream of its own: one [`NodeRequest`] frame, one [`NodeResponse`] frame, and
//! the stream ends; only after [`NodeRequest::Follow`] do frames follow for as long as the client listens.
//! Nothing here is believed: whatever a client relies on comes with what proves it against the signatures
//! of the coordinators.

use bincode::{Decode, Encode};
use flash_proto::{
    Address, BlockId, ChannelId, ChannelRecord, Hash, Milestone, NetworkId, Output, OutputId, PublicKey,
    TransactionId,
};

use crate::ledger::{Conflict, merkle::AuditPath, state_tree::Proof};

/// Addresses in one request.
pub const ADDRESSES_MAX: usize = 256;
/// Outputs in one answer; ask again after the last for more.
pub const OUTPUTS_MAX: usize = 512;
/// Keys of parties in one request.
pub const PARTIES_MAX: usize = 256;
/// Channels in one answer; ask again after the last for more. Also channels in one request.
pub const CHANNELS_MAX: usize = 256;
/// Blocks in one request, which its bytes bound as well.
pub const BLOCKS_MAX: usize = 64;
/// Bytes of the text in a refusal.
pub const REASON_BYTES_MAX: usize = 1_024;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeRequest {
    /// About the node. The answer is [`NodeResponse::Info`].
    Info,
    /// Every milestone after index `after`, now and as they come: [`NodeResponse::Followed`], in order.
    Follow {
        /// The newest milestone that the client knows.
        after: u64,
    },
    /// A milestone: the newest if `None`. The answer is [`NodeResponse::Milestone`].
    Milestone(Option<u64>),
    /// A channel's record. The answer is [`NodeResponse::Channel`].
    Channel(ChannelId),
    /// Unspent outputs at these addresses. The answer is [`NodeResponse::Outputs`].
    OutputsOf {
        /// At most [`ADDRESSES_MAX`].
        addresses: Vec<Address>,
        /// Only outputs with an id above this one.
        after: Option<OutputId>,
    },
    /// Blocks to approve. The answer is [`NodeResponse::Tips`].
    Tips,
    /// A block's bytes, for the Tangle. The answer is [`NodeResponse::Submitted`].
    Submit(Vec<u8>),
    /// A transaction. The answer is [`NodeResponse::Transaction`].
    Transaction(TransactionId),
    /// A block. The answer is [`NodeResponse::Block`].
    Block(BlockId),
    /// What confirmed a block. The answer is [`NodeResponse::Inclusion`].
    Inclusion(BlockId),
    /// Channels that have one of these keys as a party's. The answer is [`NodeResponse::Channels`].
    ChannelsOf {
        /// At most [`PARTIES_MAX`].
        parties: Vec<PublicKey>,
        /// Only channels with an id above this one.
        after: Option<ChannelId>,
    },
    /// The records of at most [`CHANNELS_MAX`] channels. The answer is [`NodeResponse::Records`].
    Records(Vec<ChannelId>),
    /// The bytes of at most [`BLOCKS_MAX`] blocks, for the Tangle, each after those of them that it approves. The answer is
    /// [`NodeResponse::SubmittedAll`].
    SubmitAll(Vec<Vec<u8>>),
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeResponse {
    /// Not possible.
    Refused(Refused),
    /// About the node.
    Info(NodeInfo),
    /// A milestone and the channels that it changed, in rising order.
    Followed(Box<Followed>),
    /// The milestone, or nothing if there is none with that index.
    Milestone(Option<Box<Milestone>>),
    /// A channel's record at a milestone, or that there is none.
    Channel {
        /// The milestone whose state root the proof leads to.
        milestone_index: u64,
        /// The record, or `None` if there is no such channel.
        record: Option<Box<ChannelRecord>>,
        /// Proves the one or the other.
        proof: Proof,
    },
    /// Outputs in rising order of their ids, each with its proof.
    Outputs {
        /// The milestone whose state root the proofs lead to.
        milestone_index: u64,
        /// At most [`OUTPUTS_MAX`]; fewer if there are no more.
        outputs: Vec<(OutputId, Output, Proof)>,
    },
    /// Blocks to approve.
    Tips(Vec<BlockId>),
    /// The block is on the node's disk and in the Tangle.
    Submitted(BlockId),
    /// What the node knows of a transaction.
    Transaction(Box<TransactionAnswer>),
    /// The block's bytes, if the node has it.
    Block(Option<Vec<u8>>),
    /// What proves that the block is confirmed; nothing if it is not, or not known.
    Inclusion(Option<Box<Inclusion>>),
    /// Channels in rising order of their ids, open or closing, each with its proof. A channel that is paid
    /// out is not there any more.
    Channels {
        /// The milestone whose state root the proofs lead to.
        milestone_index: u64,
        /// At most [`CHANNELS_MAX`]; fewer if there are no more.
        channels: Vec<(ChannelId, ChannelRecord, Proof)>,
    },
    /// Channels' records at a milestone, or that there are none, in the order in which they were asked for.
    Records {
        /// The milestone whose state root the proofs lead to.
        milestone_index: u64,
        /// Each record, or `None` if there is no such channel, and what proves the one or the other.
        records: Vec<(Option<ChannelRecord>, Proof)>,
    },
    /// For each block, in their order, why it is refused; nothing if it is on the node's disk and in the Tangle.
    SubmittedAll(Vec<Option<Refused>>),
}

/// Why a node refuses.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refused {
    /// For programs.
    pub code: RefusedCode,
    /// For people.
    pub reason: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusedCode {
    /// The request is malformed or too large.
    Malformed,
    /// The block is not a valid one.
    InvalidBlock,
    /// The block approves a block that the node does not know.
    UnknownParent,
    /// The block carries a milestone that is not valid, or not next.
    InvalidMilestone,
    /// Too much at once.
    Busy,
    /// The node has stopped its ledger, because of a fork or a failing disk.
    Halted,
    /// Too many blocks came from there: the same block with more work is taken, or this one later.
    MoreWork {
        /// Bits of work that a block needs now.
        bits: u8,
    },
    /// The node does not keep what is so old: a permanode does.
    Pruned,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeInfo {
    /// Version of the software.
    pub version: String,
    /// Its network.
    pub network: NetworkId,
    /// Index of its newest milestone.
    pub milestone_index: u64,
    /// Blocks it holds.
    pub blocks: u64,
    /// Blocks that nothing approves yet.
    pub tips: u64,
    /// Unspent outputs and the money in them.
    pub outputs: (u64, flash_proto::Amount),
    /// Channels and the money in them.
    pub channels: (u64, flash_proto::Amount),
    /// Root of its state.
    pub state_root: Hash,
}

/// A milestone as it is followed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Followed {
    /// The milestone with its signatures.
    pub milestone: Milestone,
    /// The channels that it changed, in rising order; the milestone commits to them.
    pub channels: Vec<ChannelId>,
}

/// What proves that a milestone confirmed a block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inclusion {
    /// The block's bytes.
    pub block: Vec<u8>,
    /// The milestone that confirmed it.
    pub milestone: Milestone,
    /// Leads from the block to that milestone's included root.
    pub path: AuditPath,
}

/// What a node knows of a transaction.
#[expect(clippy::large_enum_variant, reason = "it stands boxed in the answer")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TransactionAnswer {
    /// Nothing.
    Unknown,
    /// It is in a block that no milestone confirms yet.
    Pending {
        /// The newest block that carries it.
        block: BlockId,
    },
    /// It changed the ledger.
    Applied {
        /// The bytes of the block that carried it.
        block: Vec<u8>,
        /// The milestone that confirmed the block.
        milestone: Milestone,
        /// Leads from the block to that milestone's applied root.
        path: AuditPath,
    },
    /// Every block that carried it was confirmed without changing the ledger.
    Rejected {
        /// The newest block that carried it.
        block: BlockId,
        /// The milestone that confirmed it.
        milestone_index: u64,
        /// Why, as the node says.
        conflict: Conflict,
    },
    /// Nothing, and what milestones up to `upto` made of their transactions is not kept: a permanode knows
    /// whether one of them applied it.
    Pruned {
        /// The newest milestone of which nothing is kept.
        upto: u64,
    },
}
