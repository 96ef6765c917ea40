//! What is durable about one side of a channel.

use bincode::{Decode, Encode};
use flash_proto::{
    Amount, Balances, ChannelId, NetworkId, Open, PublicKey, Side, Signature, SignedBalance, TickProof,
    Transaction, TransactionId,
    message::Stakes,
    transaction::{CooperativeClose, Withdraw},
};

/// Milestones that a cooperative close may take to be applied before it lapses.
pub const CLOSE_EXPIRY_MILESTONES: u64 = 60;
/// Milestones, from the newest one that this side has seen when it signs, within which everything lapses that can be
/// played later: what it signs second names an expiry that the peer chose, by a view that may be ahead.
pub const SIGNED_EXPIRY_MILESTONES_MAX: u64 = 2 * CLOSE_EXPIRY_MILESTONES;

/// What is fixed about a channel; only of one that was found again is something learnt later.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Agreement {
    /// The network.
    pub network: NetworkId,
    /// Which party this side is.
    pub side: Side,
    /// The key by which the peer's machine is known; of a channel that was found again, until somebody names
    /// that machine, the peer's key in the channel.
    pub peer: PublicKey,
    /// Which of this side's channel keys signs here.
    pub key_index: u32,
    /// Where this side has the channel from.
    pub origin: Origin,
    /// Parties, contest window and expiry (0 if it was found again).
    pub open: Open,
}

/// Where a side has a channel from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Origin {
    /// It agreed on it, by this transaction. Party B's copy lacks A's unlocks; only A submits it.
    Agreed(Box<Transaction>),
    /// It had lost its records and found the channel on the ledger by its keys.
    Found {
        /// The channel.
        channel: ChannelId,
        /// What A had taken out when it was found.
        withdrawn_a: Amount,
        /// What B had taken out.
        withdrawn_b: Amount,
    },
}

impl Agreement {
    /// The transaction that opens the channel, if this side agreed on it.
    pub fn open_transaction(&self) -> Option<TransactionId> {
        match &self.origin {
            Origin::Agreed(transaction) => Some(transaction.id()),
            Origin::Found { .. } => None,
        }
    }

    /// The channel's id.
    pub fn channel(&self) -> ChannelId {
        match &self.origin {
            Origin::Agreed(transaction) => ChannelId::opened_by(transaction.id()),
            Origin::Found { channel, .. } => *channel,
        }
    }
}

/// What this side may have forgotten of a channel, after its records were lost or older ones came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Doubt {
    /// What is known of the lanes.
    pub known: Known,
    /// At this milestone everything else has lapsed that may have been signed and forgotten; none until a young view of
    /// the ledger was seen.
    pub until: Option<u64>,
}

/// What a side that may have forgotten something knows of the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Known {
    /// What the records say, which may be old. Nothing is signed.
    #[default]
    Nothing,
    /// What a watchtower has kept of the peer's lane: enough to close alone.
    PeersLane,
    /// Both: the peer has shown them, or the user trusts the records.
    Balances,
}

/// Where a channel is in its life, as this side knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Agreed; not seen on the ledger yet.
    Opening,
    /// In use.
    Open,
    /// This side has signed a cooperative close: it neither pays nor accepts until that is applied or
    /// has lapsed.
    ClosingTogether {
        /// What was signed.
        close: CooperativeClose,
        /// This side's signature.
        ours: Signature,
        /// The peer's, once it is here.
        theirs: Option<Signature>,
    },
    /// This side closes alone and waits to see that on the ledger.
    ClosingAlone,
    /// The ledger shows that one side closes alone.
    Contested {
        /// Who closes.
        closer: Side,
        /// Index of the last milestone that may apply a claim.
        deadline: u64,
        /// What the ledger knows of the peer's lane.
        peer_lane: Amount,
    },
    /// Paid out.
    Closed {
        /// What each side was paid, as far as that could be seen.
        payouts: Option<Balances>,
        /// The transaction that closed it, where this side had a part in it.
        close: Option<TransactionId>,
    },
    /// The opening transaction was not applied in time and never will be.
    Lapsed,
}

impl Phase {
    /// Whether nothing is left to be done about the channel.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Lapsed)
    }
}

/// What is durable about this side's own lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Outgoing {
    /// The newest balance that this side signed.
    pub signed: Option<SignedBalance>,
    /// The newest tick that was revealed under it.
    pub ticks: Option<TickProof>,
    /// Payments up to both, each tick counted as one.
    pub payments: u64,
    /// Number of the newest update that the peer is known to hold.
    pub acknowledged: u64,
    /// Ticks under the newest balance that the peer is known to hold.
    pub acknowledged_ticks: u32,
    /// Payments that the peer is known to hold.
    pub acknowledged_payments: u64,
}

/// What is durable about the peer's lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Incoming {
    /// The newest balance that the peer signed and this side holds.
    pub held: Option<SignedBalance>,
    /// The newest tick that this side holds under it.
    pub ticks: Option<TickProof>,
    /// Payments that came in, each tick counted as one.
    pub payments: u64,
}

/// What is durable about what both sides have locked. What is seldom under way takes room only while it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Locked {
    /// As the ledger showed it last; never falls (I3).
    pub proven: Stakes,
    /// Party A's withdraw that is signed here and neither applied nor lapsed.
    pub withdraw_a: Option<Box<PendingWithdraw>>,
    /// Party B's.
    pub withdraw_b: Option<Box<PendingWithdraw>>,
    /// This side's top-up that is neither applied nor lapsed.
    pub top_up: Option<Box<Transaction>>,
    /// More was taken out than the lanes that are known here allow: records were lost, and the peer has not
    /// shown them yet.
    pub unexplained: bool,
}

/// A withdraw under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PendingWithdraw {
    /// What is signed.
    pub withdraw: Withdraw,
    /// The signature of the side that takes the money out.
    pub taker: Signature,
    /// The other side's, once it is here.
    pub other: Option<Signature>,
}
