//! The answers of the REST API. Amounts are decimal strings of base units, ids, hashes, keys and bytes are
//! hexadecimal, addresses are as wallets show them.

use flash_proto::{
    Address, Amount, BlockId, ChannelId, MilestoneId, NetworkId, OutputId, PublicKey, TransactionId,
};
use serde::Serialize;
use utoipa::ToSchema;

/// The node at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeView {
    /// Version of the software.
    pub version: String,
    /// The network.
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// Bits of proof of work that a block needs.
    pub pow_bits: u8,
    /// Index of the newest milestone.
    pub milestone_index: u64,
    /// Blocks that the node took in.
    pub blocks: u64,
    /// Blocks that nothing approves yet.
    pub tips: u64,
    /// Unspent outputs.
    pub outputs: u64,
    /// The money in them.
    #[schema(value_type = String)]
    pub outputs_amount: Amount,
    /// Channels.
    pub channels: u64,
    /// The money in them.
    #[schema(value_type = String)]
    pub channels_amount: Amount,
    /// Root of the ledger's state.
    pub state_root: String,
    /// Connected neighbours.
    pub peers_connected: usize,
}

/// Some blocks, in rising order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BlockList {
    /// Their ids.
    #[schema(value_type = Vec<String>)]
    pub blocks: Vec<BlockId>,
    /// There may be more after the last one: ask again with `after`.
    pub more: bool,
}

/// A block that was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Submitted {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BlockId,
}

/// A block.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BlockView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BlockId,
    /// The blocks that it approves.
    #[schema(value_type = Vec<String>)]
    pub parents: Vec<BlockId>,
    /// What it carries.
    pub payload: PayloadView,
    /// What makes its proof of work come out.
    pub nonce: String,
    /// Its size.
    pub bytes: usize,
}

/// What a block carries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum PayloadView {
    /// Nothing.
    Empty,
    /// A transaction.
    Transaction(Box<TransactionView>),
    /// A milestone.
    Milestone(Box<MilestoneView>),
    /// Data.
    Data {
        /// What kind of data, in hexadecimal.
        tag: String,
        /// The data, in hexadecimal.
        data: String,
    },
}

/// A transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransactionView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// `transfer`, `open`, `top_up`, `withdraw`, `cooperative_close`, `unilateral_close` or `claim`.
    pub action: String,
    /// The channel that it opens or acts on.
    #[schema(value_type = Option<String>)]
    pub channel: Option<ChannelId>,
    /// The outputs that it spends.
    #[schema(value_type = Vec<String>)]
    pub inputs: Vec<OutputId>,
    /// The outputs that it makes.
    pub outputs: Vec<OutputView>,
    /// What the outputs hold together.
    #[schema(value_type = String)]
    pub value: Amount,
    /// The keys that signed it.
    #[schema(value_type = Vec<String>)]
    pub signed_by: Vec<PublicKey>,
}

/// An output.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputView {
    /// `TRANSACTION:INDEX`.
    #[schema(value_type = String)]
    pub id: OutputId,
    /// Whose key may spend it.
    #[schema(value_type = String)]
    pub address: Address,
    /// How much it holds.
    #[schema(value_type = String)]
    pub amount: Amount,
}

/// A milestone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MilestoneView {
    /// Its index.
    pub index: u64,
    /// Its id.
    #[schema(value_type = String)]
    pub id: MilestoneId,
    /// The block that carries it.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The one before.
    #[schema(value_type = String)]
    pub previous: MilestoneId,
    /// The blocks that it approves.
    #[schema(value_type = Vec<String>)]
    pub parents: Vec<BlockId>,
    /// Merkle root of the blocks that it confirmed.
    pub included_root: String,
    /// Merkle root of those that changed the ledger.
    pub applied_root: String,
    /// Merkle root of the channels that changed.
    pub channels_root: String,
    /// Root of the ledger's state after it.
    pub state_root: String,
    /// The coordinators that signed it.
    #[schema(value_type = Vec<String>)]
    pub signed_by: Vec<PublicKey>,
    /// Its bytes with the signatures, to be verified.
    pub raw: String,
}

/// What became of a block.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BlockMetadata {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BlockId,
    /// `pending` (no milestone confirmed it yet), `included` (confirmed, carries no transaction), `applied`
    /// (its transaction changed the ledger) or `rejected` (its transaction did not).
    pub status: &'static str,
    /// The milestone that confirmed it.
    pub milestone_index: Option<u64>,
    /// Why the transaction was rejected, for programs.
    pub conflict: Option<&'static str>,
    /// Why the transaction was rejected, for people.
    pub reason: Option<String>,
}

/// What became of a block, and how it stands in the Tangle.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MeasuredBlock {
    /// What became of it.
    #[serde(flatten)]
    pub metadata: BlockMetadata,
    /// How fit it is to be approved (TIP-3), while it waits: 0 lazy, 1 semi-lazy, 2 not lazy.
    pub tip_score: Option<u8>,
    /// The white paper's measures; `null` for what was confirmed long ago.
    pub measures: Option<MeasuresView>,
}

/// The measures of the Tangle white paper, over the blocks that the node holds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MeasuresView {
    /// The work that it proves.
    pub own_weight: u64,
    /// Its own weight, and those of all that approve it, directly or not.
    pub cumulative_weight: u64,
    /// Its own weight, and those of all that it approves, directly or not.
    pub score: u64,
    /// Steps of the longest path from it down to the beginning.
    pub height: u64,
    /// Steps of the longest path from a tip down to it.
    pub depth: u64,
}

/// Blocks that a milestone confirmed, in the order in which it applied them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Included {
    /// The milestone.
    pub milestone_index: u64,
    /// The blocks.
    pub blocks: Vec<BlockMetadata>,
    /// There are more: ask again with a larger `skip`.
    pub more: bool,
}

/// Unspent outputs at an address, each with its proof.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputsAnswer {
    /// The milestone whose state root the proofs lead to.
    pub milestone_index: u64,
    /// In rising order of their ids.
    pub outputs: Vec<OutputProof>,
    /// There may be more after the last one: ask again with `after`.
    pub more: bool,
}

/// An output with its proof.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputProof {
    /// The output.
    #[serde(flatten)]
    pub output: OutputView,
    /// The state tree's proof, in hexadecimal.
    pub proof: String,
}

/// An output, or that there is none, with its proof.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputAnswer {
    /// The milestone whose state root the proof leads to.
    pub milestone_index: u64,
    /// The unspent output; `null` if there is none.
    pub output: Option<OutputView>,
    /// Proves the one or the other, in hexadecimal.
    pub proof: String,
}

/// A channel's record, or that there is none, with its proof.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChannelAnswer {
    /// The milestone whose state root the proof leads to.
    pub milestone_index: u64,
    /// The record; `null` if there is none: never opened, or closed.
    pub channel: Option<ChannelView>,
    /// Proves the one or the other, in hexadecimal.
    pub proof: String,
}

/// A channel's record.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChannelView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: ChannelId,
    /// `open` or `closing`.
    pub phase: &'static str,
    /// Index of the last milestone that may apply a claim, while it is closing.
    pub deadline_milestone: Option<u64>,
    /// Milestones between a unilateral close and its settlement.
    pub contest_window_milestones: u32,
    /// The party that opened it, and the other.
    pub parties: Vec<PartyView>,
}

/// One party of a channel.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartyView {
    /// Its key.
    #[schema(value_type = String)]
    pub key: PublicKey,
    /// Where its balance goes at the end.
    #[schema(value_type = String)]
    pub payout: Address,
    /// What it locked.
    #[schema(value_type = String)]
    pub deposit: Amount,
    /// What it took out again.
    #[schema(value_type = String)]
    pub withdrawn: Amount,
    /// What the ledger was shown that it paid to the other.
    #[schema(value_type = String)]
    pub paid: Amount,
}

/// What is known of a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransactionStatus {
    /// Its id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// `pending`, `applied` or `rejected`.
    pub status: &'static str,
    /// The block that carries it.
    #[schema(value_type = String)]
    pub block: BlockId,
    /// The milestone that applied or rejected it.
    pub milestone_index: Option<u64>,
    /// Why it was rejected, for programs.
    pub conflict: Option<&'static str>,
    /// Why it was rejected, for people.
    pub reason: Option<String>,
    /// What proves that it was applied.
    pub proof: Option<InclusionProof>,
}

/// Proves that a milestone applied a block's transaction: the path leads from the block's id to the
/// milestone's `applied_root`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InclusionProof {
    /// The block's bytes.
    pub block: String,
    /// The milestone's bytes, with its signatures.
    pub milestone: String,
    /// The path's bytes.
    pub path: String,
}
