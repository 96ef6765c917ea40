//! What goes into the machine and what comes out of it.

use flash_proto::{
    Amount, Balances, ChannelRecord, Essence, LaneState, Payment, Side, SignedBalance, TickProof, Unlock,
    message::{ChannelMessage, Update},
};

use super::SignedTwice;
use crate::store::Batch;

/// A key that makes a payment happen once however often it is asked for: up to 64 bytes.
pub type PaymentKey = Vec<u8>;
/// Bytes of a payment key.
pub const PAYMENT_KEY_BYTES_MAX: usize = 64;

/// What somebody wants to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// One payment, by the next update.
    Payment(Payment),
    /// Several payments, by revealing as many ticks.
    Ticks {
        /// What each of them pays.
        unit: Amount,
        /// How many: 1 to [`limits::TICKS_MAX`](flash_proto::limits::TICKS_MAX).
        count: u32,
    },
}

impl Item {
    /// Payments on the lane, each tick counted as one, and what they pay in all.
    pub fn worth(&self) -> (u64, Amount) {
        match *self {
            Self::Payment(payment) => (1, payment.amount),
            Self::Ticks { unit, count } => {
                let count = u64::from(count);
                // More than 64 bits hold is more than anybody owns.
                (count, unit.checked_mul(count).unwrap_or(Amount::MAX))
            }
        }
    }
}

/// What the ledger was last seen to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerView {
    /// The milestone of the view.
    pub index: u64,
    /// The channel's record, or that there is none.
    pub record: Option<ChannelRecord>,
    /// What each side was paid, if the channel is gone and that could be seen.
    pub payouts: Option<Balances>,
}

/// What comes from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A new stream to the peer.
    Connected,
    /// The stream is gone.
    Disconnected,
    /// The peer says something.
    Message(ChannelMessage),
    /// The channel on the ledger, verified against a milestone.
    Ledger(LedgerView),
    /// Whether the view of the ledger is young enough to rule out a close that cannot be seen (§4.7).
    Fresh(bool),
    /// The user wishes to close together with the peer.
    Close,
    /// The user wishes to close alone.
    CloseAlone,
    /// A balance of the peer's that somebody else has kept for this side, such as a watchtower.
    Shown {
        /// The balance.
        held: Box<SignedBalance>,
        /// The newest tick under it.
        ticks: Option<TickProof>,
    },
    /// The records here may be older than what this side has signed.
    Doubt,
    /// The user says that the records here are the newest.
    Trust,
    /// The payee is to be asked for a receipt for this state of the own lane, as it was kept.
    AskReceipt(Box<LaneState>),
    /// The answer to [`ChannelEvent::ReceiptWanted`].
    GiveReceipt {
        /// Number of the update.
        seq: u64,
        /// The state of the peer's lane after it, if it was kept.
        state: Option<Box<LaneState>>,
    },
    /// The user locks more, if [`Channel::may_top_up`](super::Channel::may_top_up) allows it.
    TopUp {
        /// The transaction.
        essence: Box<Essence>,
        /// The unlocks of its inputs.
        unlocks: Vec<Unlock>,
    },
    /// The user wishes to take money out, if [`Channel::may_withdraw`](super::Channel::may_withdraw) allows it.
    Withdraw {
        /// How much.
        amount: Amount,
        /// What the ledger wants to stay in a channel.
        left_min: Amount,
    },
}

/// What has to be made durable, and what may happen only afterwards.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The changes: to be committed first.
    pub batch: Batch,
    /// What may happen once they are durable, in order.
    pub after: Vec<After>,
}

/// What may happen once the records are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// A message to the peer.
    Send(ChannelMessage),
    /// Something to tell the user.
    Event(ChannelEvent),
}

/// What the user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The channel is open on the ledger.
    Opened,
    /// The channel was found on the ledger after records were lost.
    Found,
    /// The opening transaction was not applied in time.
    Lapsed,
    /// Payments came in, with one update.
    Received(Box<Update>),
    /// Ticks came in.
    Ticks {
        /// How many.
        count: u64,
        /// What each of them pays.
        unit: Amount,
    },
    /// A balance came in without the payments that led to it, because this side or the peer had lost
    /// records.
    Recovered {
        /// Whose lane.
        payer: Side,
        /// The lane's total.
        cumulative: Amount,
    },
    /// The peer has shown a newer balance of this side's than it remembers: its records are an old copy, or somebody
    /// else signs with its key.
    OldRecords {
        /// Whether this side had stood where the peer stands since it was started: then somebody else signs now.
        running: bool,
    },
    /// The peer has signed two bodies under one number; both are kept. The user is told once for each channel.
    SignedTwice(Box<SignedTwice>),
    /// The payer wants a receipt for an update that is not the newest: whoever runs the machine looks for it in
    /// the history and answers with [`Input::GiveReceipt`], once all updates so far are durable.
    ReceiptWanted {
        /// Number of the update.
        seq: u64,
    },
    /// The payee has answered a wish for a receipt.
    Receipt {
        /// Number of the update.
        seq: u64,
        /// Whether it gave one. If not, it does not hold that update any more, or not yet.
        given: bool,
    },
    /// Payments that waited were not made, because the channel is being closed or the records are old.
    NotMade {
        /// How many.
        payments: u64,
    },
    /// This side locks more.
    ToppingUp {
        /// How much.
        amount: Amount,
    },
    /// More is locked.
    ToppedUp {
        /// By whom.
        side: Side,
        /// How much.
        amount: Amount,
    },
    /// This side's top-up was not applied in time; its money is free again.
    TopUpLapsed {
        /// How much.
        amount: Amount,
    },
    /// A withdraw is signed here, and counts as taken out.
    Withdrawing {
        /// Who takes the money out.
        side: Side,
        /// How much.
        amount: Amount,
    },
    /// Money was taken out.
    Withdrawn {
        /// By whom.
        side: Side,
        /// How much.
        amount: Amount,
    },
    /// A withdraw was not applied in time; its money is in use again.
    WithdrawLapsed {
        /// Whose.
        side: Side,
        /// How much.
        amount: Amount,
    },
    /// The channel is being closed by both.
    ClosingTogether,
    /// The signed close was not applied in time; the channel is in use again.
    CloseLapsed,
    /// This side closes alone.
    ClosingAlone,
    /// The ledger shows that one side closes alone.
    Contested {
        /// Who.
        closer: Side,
        /// Index of the last milestone that may apply a claim.
        deadline: u64,
    },
    /// The ledger knows less of the peer's lane than this side holds: a claim is due.
    Claiming {
        /// What the ledger knows.
        known: Amount,
        /// What this side holds.
        held: Amount,
    },
    /// Paid out.
    Closed {
        /// What was paid, as far as that could be seen.
        payouts: Option<Balances>,
        /// What should have been paid by this side's records, if it has any.
        expected: Option<Balances>,
    },
}
