//! What the admin RPC and the command line say to each other: one type per answer, and the one error.
//!
//! Amounts, ids and 64-bit numbers that money depends on are strings in JSON (decimal base units,
//! hexadecimal), because a 64-bit number does not survive every JSON reader.

use std::time::SystemTime;

use flash_channel::store::StoreError;
use flash_node_client::client::{self, FaultKind, NodeState};
use flash_proto::{
    Address, Amount, BlockId, ChannelId, MilestoneId, NetworkId, PublicKey, Side, TransactionId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::exit::Exit;

mod data;
mod ticks;

pub use data::{ConfirmedBlock, PaymentReceipt, PublishRequest, ReceiptRequest};
pub use ticks::{StreamRequest, TickRequest, TicksInfo};

/// What went wrong with a call.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable, for programs: `insufficient_balance`, `unknown_channel`, …
    pub code: ErrorCode,
    /// What was wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// The stable codes of errors. HTTP status and exit code follow from the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is malformed.
    InvalidRequest,
    /// The request is larger than is accepted.
    TooLarge,
    /// The path does not take this HTTP method.
    WrongMethod,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token's scope does not allow this call.
    Forbidden,
    /// No such channel.
    UnknownChannel,
    /// No such transaction, milestone, block or path.
    NotFound,
    /// The channel's or the wallet's balance is too small.
    InsufficientBalance,
    /// The channel is not in a state that allows this.
    ChannelState,
    /// The idempotency key was used for another payment.
    KeyReused,
    /// The peer cannot be reached now.
    PeerUnreachable,
    /// The peer refused.
    PeerRefused,
    /// No node can be reached now, or the newest milestone is too old.
    LedgerUnavailable,
    /// The ledger refused the transaction.
    LedgerRefused,
    /// Too much is waiting; try again.
    Busy,
    /// The wait was too long; what was asked for goes on.
    Timeout,
    /// The file is not the one that its proof is of.
    FileChanged,
    /// The proof proves nothing.
    ProofInvalid,
    /// The proof's milestones are not signed by the network's coordinators.
    SignaturesInvalid,
    /// The proof is of another network.
    OtherNetwork,
    /// The event asked for is older than what is kept.
    EventsGone,
    /// The store failed; the daemon stops.
    StoreFailed,
    /// The command line cannot reach the daemon.
    DaemonUnreachable,
    /// The command line cannot use the data directory, or set it up.
    DataDirUnusable,
    /// A defect in this software.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that an answer with this error has.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownChannel | Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::InsufficientBalance | Self::ChannelState | Self::KeyReused => 409,
            Self::EventsGone => 410,
            Self::TooLarge => 413,
            Self::PeerRefused
            | Self::LedgerRefused
            | Self::FileChanged
            | Self::ProofInvalid
            | Self::SignaturesInvalid
            | Self::OtherNetwork => 422,
            Self::Busy => 429,
            Self::StoreFailed | Self::DataDirUnusable | Self::Internal => 500,
            Self::PeerUnreachable | Self::LedgerUnavailable | Self::DaemonUnreachable => 503,
            Self::Timeout => 504,
        }
    }

    /// The exit code of a command that ends with this error.
    pub const fn exit(self) -> Exit {
        match self {
            Self::InvalidRequest | Self::TooLarge => Exit::Usage,
            Self::Unauthorized | Self::Forbidden => Exit::Unauthorized,
            Self::UnknownChannel
            | Self::NotFound
            | Self::InsufficientBalance
            | Self::ChannelState
            | Self::KeyReused
            | Self::PeerRefused
            | Self::LedgerRefused
            | Self::EventsGone => Exit::Refused,
            Self::PeerUnreachable | Self::LedgerUnavailable | Self::Busy => Exit::TryAgain,
            Self::Timeout => Exit::GoesOn,
            Self::DaemonUnreachable => Exit::DaemonUnreachable,
            Self::StoreFailed => Exit::StoreFailed,
            Self::DataDirUnusable => Exit::DataDirUnusable,
            Self::WrongMethod | Self::Internal => Exit::Failed,
            Self::FileChanged => Exit::FileChanged,
            Self::ProofInvalid => Exit::ProofInvalid,
            Self::SignaturesInvalid => Exit::SignaturesInvalid,
            Self::OtherNetwork => Exit::OtherNetwork,
        }
    }
}

/// The daemon at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// Version of the software.
    pub version: String,
    /// This daemon's key, by which peers know it.
    #[schema(value_type = String)]
    pub node_key: PublicKey,
    /// What to give to a peer that wants to open a channel: `KEY@HOST:PORT`.
    pub ticket: String,
    /// What to give to others that this daemon is a watchtower for, if it is one: `KEY@HOST:PORT`.
    #[serde(default)]
    pub tower: Option<String>,
    /// The network.
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// The ledger as far as it is verified here.
    pub ledger: LedgerStatus,
    /// How many peers are connected.
    pub peers_connected: u64,
    /// How many channels there are, closed ones not counted.
    pub channels: u64,
    /// The backup, if one is kept.
    #[serde(default)]
    pub backup: Option<BackupInfo>,
}

/// The backup that the daemon keeps.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackupInfo {
    /// The file.
    pub file: String,
    /// What is in it: rises with every commit that a backup is about.
    pub generation: u64,
    /// Whether everything that is durable in the data directory is in it.
    pub current: bool,
    /// When it was written, milliseconds since 1970.
    pub written_ms: u64,
    /// Why the last attempt to write it failed, if it did.
    pub error: Option<String>,
}

/// The ledger as far as it is verified here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerStatus {
    /// The best node that is connected, if one is: `KEY@HOST:PORT`.
    pub node: Option<String>,
    /// Every configured node, the preferred one first.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
    /// Index of the newest verified milestone.
    pub milestone_index: u64,
    /// Its id.
    #[schema(value_type = String)]
    pub milestone_id: MilestoneId,
    /// Milliseconds since it arrived here.
    pub milestone_age_ms: u64,
    /// Whether it is young enough for payments to be accepted.
    pub fresh: bool,
}

/// A configured node and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// The node: `KEY@HOST:PORT`.
    pub node: String,
    /// `following`, `behind`, `away`; or why it is avoided for a while: `lying`, `withholding`, `stalled`.
    pub state: String,
    /// What it was caught at last.
    pub fault: Option<String>,
    /// When that was first seen, in milliseconds since 1970.
    pub fault_since_ms: Option<u64>,
}

impl From<client::NodeStatus> for NodeStatus {
    fn from(status: client::NodeStatus) -> Self {
        let client::NodeStatus { node, state, fault } = status;
        let state = match state {
            NodeState::Away => "away",
            NodeState::Following => "following",
            NodeState::Behind => "behind",
            NodeState::Avoided(FaultKind::Lies) => "lying",
            NodeState::Avoided(FaultKind::Withholds) => "withholding",
            NodeState::Avoided(FaultKind::Stalls) => "stalled",
        };
        let since = fault.as_ref().and_then(|fault| fault.since.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self {
            node: node.to_string(),
            state: state.to_owned(),
            fault: fault.map(|fault| fault.what),
            fault_since_ms: since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// A new address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewAddress {
    /// The address, never given out before.
    #[schema(value_type = String)]
    pub address: Address,
}

/// The wallet's money, outside of channels.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WalletBalance {
    /// Can be spent now, in base units.
    #[schema(value_type = String)]
    pub available: Amount,
    /// Spent by transactions that are not applied yet.
    #[schema(value_type = String)]
    pub reserved: Amount,
    /// The milestone of this view.
    pub milestone_index: u64,
}

/// Addresses that a wallet can be told to look at.
pub const RECOVER_ADDRESSES_MAX: u32 = 100_000;

/// A wish to find money and channels again from the words of a seed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// How many of the seed's first addresses to look at, and at least as many channel keys; at most 100,000.
    pub addresses: u32,
}

/// What was found from the words of a seed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoverResult {
    /// The money outside of channels.
    #[serde(flatten)]
    pub balance: WalletBalance,
    /// The recovered channels that are not paid out yet, newest first.
    pub channels: Vec<ChannelInfo>,
}

/// Where the peer of a recovered channel is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerRequest {
    /// The peer's ticket, `KEY@HOST:PORT`.
    pub peer: String,
}

/// A wish to send money on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// Who gets it.
    #[schema(value_type = String)]
    pub to: Address,
    /// How much: base units or with a unit (`1.5Mi`).
    #[schema(value_type = String)]
    pub amount: Amount,
}

/// A transfer on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SendResult {
    /// The transaction.
    #[schema(value_type = String)]
    pub transaction: TransactionId,
    /// The milestone that applied it.
    pub milestone_index: u64,
}

/// One line of the wallet's history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// `received`, `sent`, `channel_open` or `channel_payout`.
    pub kind: String,
    /// How much.
    #[schema(value_type = String)]
    pub amount: Amount,
    /// The transaction, where there is one (a payout of a settlement has none).
    #[schema(value_type = Option<String>)]
    pub transaction: Option<TransactionId>,
    /// The other address, where there is one.
    #[schema(value_type = Option<String>)]
    pub address: Option<Address>,
    /// The milestone at which it was seen.
    pub milestone_index: u64,
}

/// A wish to open a channel.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// The peer's ticket, `KEY@HOST:PORT`.
    pub peer: String,
    /// What to lock here.
    #[schema(value_type = String)]
    pub deposit: Amount,
    /// What the peer is asked to lock; nothing if left out.
    #[serde(default)]
    #[schema(value_type = String)]
    pub peer_deposit: Amount,
    /// Milestones between a unilateral close and its settlement; the daemon's default if left out.
    #[serde(default)]
    pub contest_window_milestones: Option<u32>,
}

/// The most channels that one answer lists: each takes some kilobytes of the daemon's memory meanwhile.
pub const LISTED_MAX: usize = 10_000;

/// Which channels to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListRequest {
    /// Whether closed ones are listed too.
    pub all: bool,
    /// The first hexadecimal digits of their ids.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// So many at most, in the order of their ids; without it all, newest first, if they are 10,000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only those that come after this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub after: Option<ChannelId>,
}

/// A channel.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChannelInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: ChannelId,
    /// The peer's key; of a recovered channel, until its machine is named, its key in the channel.
    #[schema(value_type = String)]
    pub peer: PublicKey,
    /// Whether the peer is connected.
    pub connected: bool,
    /// When it was agreed on, milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
    /// Which party this daemon is.
    #[schema(value_type = String)]
    pub side: Side,
    /// `opening`, `open`, `recovered`, `closing`, `contested`, `closed` or `lapsed`.
    pub state: String,
    /// Whether its records were lost and it was found on the ledger again, or they came back and may be old.
    #[serde(default)]
    pub recovered: bool,
    /// The milestone from which payments go on by themselves once the peer has shown the balances, if they wait for it.
    #[serde(default)]
    pub resumes_at_milestone: Option<u64>,
    /// Why nothing can be paid or accepted at the moment, if so.
    pub paused: Option<String>,
    /// Locked here, from the opening on.
    #[schema(value_type = String)]
    pub deposit: Amount,
    /// Locked by the peer.
    #[schema(value_type = String)]
    pub peer_deposit: Amount,
    /// Taken out here, from the opening on.
    #[serde(default)]
    #[schema(value_type = String)]
    pub withdrawn: Amount,
    /// Taken out by the peer.
    #[serde(default)]
    #[schema(value_type = String)]
    pub peer_withdrawn: Amount,
    /// What this side is about to lock as well: it waits for the ledger.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub topping_up: Option<Amount>,
    /// What this side is about to take out: it waits for the peer or the ledger, and cannot be paid any more.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub withdrawing: Option<Amount>,
    /// What the peer is about to take out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub peer_withdrawing: Option<Amount>,
    /// This side's balance; unknown of a recovered channel until the peer has shown it.
    #[schema(value_type = Option<String>)]
    pub balance: Option<Amount>,
    /// The peer's balance; the same.
    #[schema(value_type = Option<String>)]
    pub peer_balance: Option<Amount>,
    /// What can be paid now: the balance as far as both sides count it, without the payments that wait.
    #[serde(default)]
    #[schema(value_type = String)]
    pub payable: Amount,
    /// All that was paid to the peer.
    pub sent: LaneInfo,
    /// All that was received.
    pub received: LaneInfo,
    /// Milestones between a unilateral close and its settlement.
    pub contest_window_milestones: u32,
    /// Index of the last milestone of a running contest.
    pub deadline_milestone: Option<u64>,
    /// The transaction that opened it; not known of a recovered channel.
    #[schema(value_type = Option<String>)]
    pub open_transaction: Option<TransactionId>,
    /// The transaction that closes or closed it, where it is known here.
    #[schema(value_type = Option<String>)]
    pub close_transaction: Option<TransactionId>,
    /// What this side got, once closed.
    #[schema(value_type = Option<String>)]
    pub payout: Option<Amount>,
    /// What the peer got, once closed.
    #[schema(value_type = Option<String>)]
    pub peer_payout: Option<Amount>,
    /// Proof that the peer signed two bodies under one number, if it ever did: the first such pair that it has shown.
    #[serde(default)]
    pub signed_twice: Option<Box<SignedTwice>>,
    /// What each watchtower has of it, in the order of the configuration.
    #[serde(default)]
    pub towers: Vec<TowerStanding>,
}

/// Two balances that the peer has signed under one number, which an honest machine never does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedTwice {
    /// The number.
    pub update: u64,
    /// The peer's key in the channel, which signed both.
    #[schema(value_type = String)]
    pub key: PublicKey,
    /// The totals of the balance that counts here, and of the other one.
    #[schema(value_type = Vec<String>)]
    pub cumulative: [Amount; 2],
    /// Both with their signatures, each as a *signed balance* of `docs/protocol.md` in hexadecimal digits.
    #[schema(value_type = Vec<String>)]
    pub balances: [String; 2],
}

/// What a watchtower has of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TowerStanding {
    /// The tower: `KEY@HOST:PORT`.
    pub tower: String,
    /// `newest`: it has signed for having the newest balance; `behind`: for an older one; `never`: for none yet;
    /// `nothing_received`: there is nothing to hand over.
    pub state: String,
    /// How many updates it is behind by what it has signed for.
    pub updates_behind: u64,
    /// Why it did not take the newest, if it said so.
    pub error: Option<String>,
}

/// What a watchtower says that it holds of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TowerHeld {
    /// The tower: `KEY@HOST:PORT`.
    pub tower: String,
    /// Number of the update of the balance that it holds, which the peer has signed; nothing if it holds none.
    pub update: Option<u64>,
    /// All that the peer had paid by then, revealed ticks included.
    #[schema(value_type = Option<String>)]
    pub paid: Option<Amount>,
    /// Why it has shown nothing, if not because it holds nothing.
    pub error: Option<String>,
}

/// A watchtower of this daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TowerInfo {
    /// The tower: `KEY@HOST:PORT`.
    pub tower: String,
    /// Whether it is connected.
    pub connected: bool,
    /// When it answered last, in milliseconds since 1970; nothing if not since the daemon started.
    pub answered_ms: Option<u64>,
    /// Channels of which it has signed for having the newest balance.
    pub newest: u64,
    /// Channels of which it has not.
    pub behind: u64,
    /// Why it did not take one of these, if it said so.
    pub error: Option<String>,
}

/// One lane of a channel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct LaneInfo {
    /// Number of payments, each tick counted as one.
    pub payments: u64,
    /// Number of those that the payee has acknowledged.
    pub acknowledged: u64,
    /// Number of signed updates.
    pub updates: u64,
    /// Their sum.
    #[schema(value_type = String)]
    pub cumulative: Amount,
    /// The hash chain in use, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticks: Option<TicksInfo>,
}

/// A wish to lock more in a channel, or to take money out of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StakeRequest {
    /// How much: base units or with a unit (`1.5Mi`).
    #[schema(value_type = String)]
    pub amount: Amount,
}

/// A wish to close a channel.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseRequest {
    /// Close alone, without the peer; the money is out after the contest window.
    #[serde(default)]
    pub force: bool,
}

/// A wish to pay.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PayRequest {
    /// How much.
    #[schema(value_type = String)]
    pub amount: Amount,
    /// What for: at most 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Repeating a call with the same key never pays twice. At most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A payment, or ticks, that the payee has on its disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PayResult {
    /// Its number on the lane, from 1; of ticks, the last one's.
    pub number: u64,
    /// How much in all.
    #[schema(value_type = String)]
    pub amount: Amount,
    /// In how many ticks; none of a payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticks: Option<u32>,
    /// Whether this call repeated an earlier one with the same key, so that nothing was paid now.
    pub repeated: bool,
}

/// The answer to one line of a stream of payments.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamLine {
    /// The line's number in the request, from 1.
    pub line: u64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: StreamOutcome,
}

/// What became of one line of a stream of payments.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StreamOutcome {
    /// The payee has the payment on its disk.
    Paid(PayResult),
    /// The line was refused, or the payment was not acknowledged.
    Refused {
        /// Why.
        error: ApiError,
    },
}

/// The daemon was asked to stop.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stopping {
    /// The process that stops.
    pub pid: u32,
}

/// An event with its number.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Rises by one; survives restarts.
    pub number: u64,
    /// Milliseconds since 1970 when it was recorded.
    pub at_ms: u64,
    /// What happened: `channel_opened`, `channel_recovered`, `channel_lapsed`, `payments_received`, `ticks_received`, `payments_not_made`,
    /// `balance_recovered`, `channel_closing`, `close_lapsed`, `channel_contested`, `claim_submitted`,
    /// `channel_closed`, `peer_misbehaved`, `peer_signed_twice`, `funds_received`, `funds_sent`, `tower_behind`, `tower_caught_up`.
    pub kind: String,
    /// The channel, where it is about one.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    /// The details of this kind.
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
}

/// A transaction on the ledger, as far as the node could prove it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: TransactionId,
    /// `transfer`, `open`, `top_up`, `withdraw`, `cooperative_close`, `unilateral_close` or `claim`.
    pub kind: String,
    /// `pending`, `applied` or `rejected`.
    pub status: String,
    /// The milestone that applied it (verified against that milestone).
    pub milestone_index: Option<u64>,
    /// The block that carries it.
    #[schema(value_type = Option<String>)]
    pub block: Option<BlockId>,
    /// Why the ledger rejected it.
    pub reason: Option<String>,
    /// The channel that it opens or acts on.
    #[schema(value_type = Option<String>)]
    pub channel: Option<ChannelId>,
}

/// A milestone, verified.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MilestoneInfo {
    /// Its index.
    pub index: u64,
    /// Its id.
    #[schema(value_type = String)]
    pub id: MilestoneId,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The one before.
    #[schema(value_type = String)]
    pub previous: MilestoneId,
    /// Root of the ledger's state after it.
    pub state_root: String,
    /// The coordinators that signed it.
    #[schema(value_type = Vec<String>)]
    pub signed_by: Vec<PublicKey>,
}

impl ApiError {
    /// An error with its hint.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(ErrorCode::StoreFailed, error.to_string(), "see to the disk, then start the daemon again")
    }
}
