//! One side of one channel: inputs in, records and messages out.
//!
//! The machine does nothing itself. Whoever runs it
//!
//! 1. hands in what comes from outside ([`Channel::handle`], [`Channel::pay`]), as much as is there;
//! 2. calls [`Channel::finish`], which signs what is queued, acknowledges what was taken and writes down
//!    what changed;
//! 3. commits [`Effects::batch`], and only with the token of that commit acts on [`Effects::after`].
//!
//! A batch is one atomic change. So money that came in with a batch may be spent by an update of the
//! same batch: either both are on the disk before the update leaves, or neither happened.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | the channel, its inputs and outputs |
//! | `lanes.rs` | paying and being paid, re-establishing after a break |
//! | `closing.rs` | closing together |
//! | `ledger.rs` | what the ledger shows, closing alone, claiming |
//! | `found.rs` | a channel that was found again after its records were lost |
//! | [`open`] | how two parties come to a channel |
//! | [`tables`] | the records and their keys |

mod closing;
mod found;
mod lanes;
mod ledger;
pub mod open;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use flash_proto::{
    Amount, Balances, ChannelId, ChannelRecord, LaneState, NetworkId, Open, Payment, PublicKey, SecretKey,
    Side, Signature, SignedBalance, Transaction, TransactionId, Verifier,
    balance::Totals,
    message::{ChannelMessage, PauseReason, Update},
    transaction::CooperativeClose,
};
use thiserror::Error;

use crate::store::{Batch, Store, StoreError};

/// Milestones that a cooperative close may take to be applied before it lapses.
pub const CLOSE_EXPIRY_MILESTONES: u64 = 60;

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
    /// It has lost its records and found the channel on the ledger by its keys. It neither pays nor accepts
    /// on it any more: a close that it signed before may still be played.
    Found {
        /// The channel.
        channel: ChannelId,
        /// Whether the peer has shown where the lanes stand. Until then nothing is signed.
        shown: bool,
    },
}

impl Agreement {
    /// The channel's id.
    pub fn channel(&self) -> ChannelId {
        match &self.origin {
            Origin::Agreed(transaction) => ChannelId::opened_by(transaction.id()),
            Origin::Found { channel, .. } => *channel,
        }
    }
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

/// What is durable about this side's own lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Outgoing {
    /// The newest balance that this side signed.
    pub signed: Option<SignedBalance>,
    /// Payments under it.
    pub payments: u64,
    /// Number of the newest update that the peer is known to hold.
    pub acknowledged: u64,
    /// Payments under that one.
    pub acknowledged_payments: u64,
}

/// What is durable about the peer's lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Incoming {
    /// The newest balance that the peer signed and this side holds.
    pub held: Option<SignedBalance>,
    /// Payments that came with the updates under it.
    pub payments: u64,
}

/// A key that makes a payment happen once however often it is asked for: up to 64 bytes.
pub type PaymentKey = Vec<u8>;
/// Bytes of a payment key.
pub const PAYMENT_KEY_BYTES_MAX: usize = 64;

/// A payment that waits for the next update.
#[derive(Clone, Debug)]
struct Queued {
    payment: Payment,
    key: Option<PaymentKey>,
}

/// An update that the peer is not known to hold.
#[derive(Clone, Debug)]
struct Sent {
    update: Update,
    /// Payments on the lane up to it.
    payments: u64,
}

/// How far the link to the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// No stream.
    Down,
    /// A stream; the peer has not said yet where it stands.
    Up,
    /// Both know where the other stands.
    Established,
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
    /// A balance came in without the payments that led to it, because this side or the peer had lost
    /// records.
    Recovered {
        /// Whose lane.
        payer: Side,
        /// The lane's total.
        cumulative: Amount,
    },
    /// Payments that waited were not made, because the channel is being closed.
    NotMade {
        /// How many.
        payments: u64,
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

/// Why a payment is not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PayError {
    /// More than this side owns in the channel, payments that wait counted as paid.
    #[error("the payment of {amount} is more than the {available} that can be paid on this channel now")]
    Insufficient {
        /// The payment.
        amount: Amount,
        /// What can be paid.
        available: Amount,
    },
    /// The channel is not in use.
    #[error("the channel takes no payments: it is {0}")]
    NotOpen(&'static str),
    /// The peer is not there.
    #[error("the peer is not connected")]
    NotConnected,
    /// Too many payments wait.
    #[error("too many payments wait for this channel")]
    Full,
    /// The key is too long.
    #[error("a payment key has at most {max} bytes", max = PAYMENT_KEY_BYTES_MAX)]
    KeyTooLong,
}

/// Why a command cannot be followed. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not in this phase.
    #[error("the channel is {0}")]
    Phase(&'static str),
    /// The records were lost, and the peer has not shown its own.
    #[error("nothing is known of this channel's balances until the peer has shown them")]
    NotShown,
    /// The peer is known already.
    #[error("the channel's peer is known since it was opened")]
    PeerKnown,
}

/// How the peer broke the protocol. Nothing changed; the stream must end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// A message before it said where it stands.
    #[error("a message came before the re-establishment")]
    NotEstablished,
    /// An update that leaves numbers out.
    #[error("update {got} came after update {held}: a gap")]
    Gap {
        /// Its number.
        got: u64,
        /// The newest that is held.
        held: u64,
    },
    /// Another body under a number that was used.
    #[error("two different updates under number {0}")]
    TwoBodies(u64),
    /// The payments are malformed.
    #[error("malformed payments: {0}")]
    Payments(#[from] flash_proto::payment::PaymentError),
    /// The total is not the last one and the payments.
    #[error("the lane's total is said to be {got}, but it is {wanted}")]
    Cumulative {
        /// Said.
        got: Amount,
        /// Right.
        wanted: Amount,
    },
    /// A signature does not verify.
    #[error("a signature is not the peer's over this state")]
    Signature,
    /// More than the payer owns.
    #[error("the payer owns {owned} and cannot have paid {total} in all")]
    Overspent {
        /// The lane's total.
        total: Amount,
        /// What the payer ever owned.
        owned: Amount,
    },
    /// A balance with terms that are not in use, or of another lane.
    #[error("a balance of another lane, or with terms that are not in use")]
    Terms,
    /// An acknowledgement of what was never sent.
    #[error("update {got} is acknowledged, but only {sent} were sent")]
    AckBeyond {
        /// Acknowledged.
        got: u64,
        /// Sent.
        sent: u64,
    },
    /// A balance that this side signed, with less or something else than it remembers.
    #[error("two different balances that this side signed under number {0}")]
    OwnTwoBodies(u64),
    /// A newer balance of this side's than it remembers, without what the peer had paid for it.
    #[error("the peer shows what this side paid, but holds back what it paid itself")]
    HeldBack,
    /// A close that is not what the records say.
    #[error("the close that the peer signed is not what the records say")]
    WrongClose,
    /// A message that has no meaning now.
    #[error("{0} has no meaning now")]
    Unexpected(&'static str),
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(String),
}

/// One side of one channel. Of two copies only one may ever act: the other would sign under the same numbers.
#[derive(Clone, Debug)]
pub struct Channel {
    agreement: Agreement,
    id: ChannelId,
    key: SecretKey,
    peer_verifier: Option<Verifier>,
    phase: Phase,
    wants_close: bool,
    /// The newest milestone that was seen when the phase was written: what is older must not undo it.
    stored_seen: u64,
    outgoing: Outgoing,
    incoming: Incoming,
    // From here on nothing is stored.
    link: Link,
    fresh: bool,
    /// The newest milestone at which the channel was seen, if any since the start.
    seen: Option<u64>,
    queue: VecDeque<Queued>,
    queued_amount: Amount,
    sent: VecDeque<Sent>,
    /// Updates up to this number are no longer in the store.
    forgotten: u64,
    /// Why the peer takes no payments, if it said so.
    peer_paused: Option<PauseReason>,
    /// This side told the peer that it takes no payments.
    paused: bool,
    /// The peer was asked to send again what was not taken; what it had sent before that is skipped.
    resending: bool,
    peer_wants_close: bool,
    close_requested: bool,
    dirty: Dirty,
}

/// What changed since the last [`Channel::finish`].
#[derive(Clone, Debug, Default)]
struct Dirty {
    agreement: bool,
    phase: bool,
    outgoing: bool,
    incoming: bool,
    acknowledge: bool,
}

impl Channel {
    /// A channel that both parties agreed on, or that was found on the ledger, just now.
    pub fn new(agreement: Agreement, key: SecretKey, effects: &mut Effects) -> Self {
        let mut channel = Self::restore(agreement, key, tables::Stored::default(), VecDeque::new());
        channel.dirty.agreement = true;
        channel.dirty.phase = true;
        if channel.is_found() {
            channel.phase = Phase::Open;
            effects.after.push(After::Event(ChannelEvent::Found));
        }
        channel.finish(effects);
        channel
    }

    /// The channel as it is in the store.
    ///
    /// # Errors
    /// [`StoreError`]: damaged, or none there.
    pub fn load(
        id: ChannelId,
        key: impl FnOnce(u32) -> SecretKey,
        store: &dyn Store,
    ) -> Result<Self, StoreError> {
        let agreement = tables::agreement(store, id)?;
        let stored = tables::stored(store, id)?;
        let updates = tables::updates(store, id)?;
        let key = key(agreement.key_index);
        let sent = lanes::sent_of(&stored.outgoing, updates)
            .ok_or_else(|| tables::damaged_channel(id, "updates and balance differ"))?;
        let channel = Self::restore(agreement, key, stored, sent);
        if channel.id != id || channel.checked_balances().is_none() {
            return Err(tables::damaged_channel(id, "balances make no sense"));
        }
        Ok(channel)
    }

    fn restore(agreement: Agreement, key: SecretKey, stored: tables::Stored, sent: VecDeque<Sent>) -> Self {
        let id = agreement.channel();
        let peer_key = agreement.open.party(!agreement.side).key;
        let forgotten =
            sent.front().map_or(stored.outgoing.acknowledged, |first| first.update.seq.saturating_sub(1));
        Self {
            agreement,
            id,
            key,
            peer_verifier: peer_key.verifier(),
            phase: stored.phase,
            wants_close: stored.wants_close,
            stored_seen: stored.seen,
            outgoing: stored.outgoing,
            incoming: stored.incoming,
            link: Link::Down,
            fresh: false,
            seen: None,
            queue: VecDeque::new(),
            queued_amount: Amount::ZERO,
            sent,
            forgotten,
            peer_paused: None,
            paused: false,
            resending: false,
            peer_wants_close: false,
            close_requested: false,
            dirty: Dirty::default(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`Misbehaviour`] of the peer: nothing changed, and the stream to the peer must end.
    pub fn handle(&mut self, input: Input, effects: &mut Effects) -> Result<(), Misbehaviour> {
        match input {
            Input::Connected => self.connected(effects),
            Input::Disconnected => self.disconnected(),
            Input::Message(message) => return self.message(message, effects),
            Input::Ledger(view) => self.ledger(&view, effects),
            Input::Fresh(fresh) => self.freshness(fresh, effects),
            Input::Close => self.wish_close(effects),
            Input::CloseAlone => self.close_alone(effects),
        }
        Ok(())
    }

    fn message(&mut self, message: ChannelMessage, effects: &mut Effects) -> Result<(), Misbehaviour> {
        match (self.link, &message) {
            (Link::Established, _)
            | (Link::Up, ChannelMessage::Reestablish(_) | ChannelMessage::Refuse(_)) => {}
            _ => return Err(Misbehaviour::NotEstablished),
        }
        match message {
            ChannelMessage::Reestablish(standing) => self.reestablish(&standing, effects),
            ChannelMessage::Update(update) => self.take_update(update, effects),
            ChannelMessage::Ack { seq } => self.take_ack(seq),
            ChannelMessage::Balance(balance) => self.take_balance(&balance, effects),
            ChannelMessage::Paused { held_seq: _, reason } => {
                self.peer_paused = Some(reason);
                Ok(())
            }
            ChannelMessage::CloseRequest => {
                self.asked_to_close(effects);
                Ok(())
            }
            ChannelMessage::CloseSigned { close, signature } => self.take_close(close, signature, effects),
            ChannelMessage::CloseComplete { signature } => self.complete_close(signature),
            ChannelMessage::Refuse(refusal) => Err(Misbehaviour::Refused(refusal.detail)),
        }
    }

    /// Signs what is queued, acknowledges what was taken, and writes down what changed. To be called
    /// once after the inputs that are there, before the commit.
    pub fn finish(&mut self, effects: &mut Effects) {
        self.advance_close(effects);
        self.cut(effects);
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.agreement {
            tables::put_agreement(&mut effects.batch, self.id, &self.agreement);
        }
        if dirty.phase {
            self.stored_seen = self.stored_seen.max(self.seen.unwrap_or(0));
            tables::put_phase(&mut effects.batch, self.id, &self.phase, self.wants_close, self.stored_seen);
        }
        if dirty.outgoing {
            tables::put_outgoing(&mut effects.batch, self.id, &self.outgoing);
        }
        if dirty.incoming {
            tables::put_incoming(&mut effects.batch, self.id, &self.incoming);
        }
        if dirty.acknowledge {
            effects.after.push(After::Send(ChannelMessage::Ack { seq: self.incoming_seq() }));
        }
        assert!(self.checked_balances().is_some(), "I2: both balances must be at least zero and add up");
    }

    /// The channel's id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// What is fixed.
    pub const fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Where the channel is in its life.
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// This side's lane.
    pub const fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// The peer's lane.
    pub const fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Whether the user wished to close the channel together with the peer and that is not done yet.
    pub const fn wants_close(&self) -> bool {
        self.wants_close
    }

    /// Whether both sides know where the other stands.
    pub fn is_established(&self) -> bool {
        self.link == Link::Established
    }

    /// Whether the view of the ledger is young enough, as [`Input::Fresh`] said last.
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Payments that wait for the next update.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Why no payment can be made, or none is taken, at the moment.
    pub fn paused(&self) -> Option<&'static str> {
        match (&self.phase, self.peer_paused) {
            (Phase::Open, _) if !self.balances_known() => {
                Some("nothing is known of the balances until the peer has shown them")
            }
            (Phase::Open, _) if self.is_found() => None,
            (Phase::Open, _) if self.link != Link::Established => Some("the peer is not connected"),
            (Phase::Open, Some(PauseReason::StaleLedgerView)) => {
                Some("the peer has not seen the ledger for too long")
            }
            (Phase::Open, Some(PauseReason::NotOpenYet)) => {
                Some("the peer has not seen the channel open yet")
            }
            (Phase::Open, Some(PauseReason::Closing)) => Some("the peer is closing the channel"),
            (Phase::Open, None) if !self.fresh => Some("the ledger has not been seen here for too long"),
            _ => None,
        }
    }

    /// What each side owns now.
    pub fn balances(&self) -> Balances {
        // Checked on loading and asserted after every change.
        self.checked_balances().unwrap_or(Balances::of_payouts(Amount::ZERO, Amount::ZERO))
    }

    /// What can be paid now: this side's balance without the payments that wait.
    pub fn available(&self) -> Amount {
        self.balances().of(self.agreement.side).saturating_sub(self.queued_amount)
    }

    fn checked_balances(&self) -> Option<Balances> {
        Balances::exact(self.totals(Side::A), self.totals(Side::B))
    }

    fn totals(&self, side: Side) -> Totals {
        let sent = if side == self.agreement.side { self.outgoing_state() } else { self.incoming_state() };
        Totals {
            deposit: self.agreement.open.party(side).deposit,
            withdrawn: Amount::ZERO,
            sent: sent.cumulative,
        }
    }

    fn outgoing_state(&self) -> LaneState {
        self.outgoing.signed.map_or(LaneState::new(self.id, self.agreement.side), |signed| signed.state)
    }

    fn incoming_state(&self) -> LaneState {
        self.incoming.held.map_or(LaneState::new(self.id, !self.agreement.side), |held| held.state)
    }

    fn outgoing_seq(&self) -> u64 {
        self.outgoing.signed.map_or(0, |signed| signed.state.seq)
    }

    fn incoming_seq(&self) -> u64 {
        self.incoming.held.map_or(0, |held| held.state.seq)
    }

    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.dirty.phase = true;
    }

    /// A short name of the phase.
    pub const fn state(&self) -> &'static str {
        match self.phase {
            Phase::Opening => "opening",
            Phase::Open if self.wants_close => "closing",
            Phase::Open if self.is_found() => "recovered",
            Phase::Open => "open",
            Phase::ClosingTogether { .. } | Phase::ClosingAlone => "closing",
            Phase::Contested { .. } => "contested",
            Phase::Closed { .. } => "closed",
            Phase::Lapsed => "lapsed",
        }
    }
}
