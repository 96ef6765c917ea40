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
//! | `mod.rs` | the channel: takes inputs, and says what it is |
//! | `state.rs` | what is durable about it |
//! | `io.rs`, `errors.rs` | what goes in and comes out, and why something is not done |
//! | `lanes.rs` | paying and being paid |
//! | `reestablish.rs` | finding each other again after a break |
//! | `ticks.rs` | payments of one hash each |
//! | `closing.rs` | closing together |
//! | `stakes.rs` | topping up and withdrawing |
//! | `ledger.rs` | what the ledger shows, closing alone, claiming |
//! | `evidence.rs` | two bodies that the peer has signed under one number |
//! | `restored.rs` | a channel whose records were lost or may be old |
//! | `history.rs` | what was paid, update by update |
//! | `signatures.rs` | the peer's signatures |
//! | `receipts.rs` | the payee's signatures for what it has received |
//! | `rest.rs` | an open channel in which nothing is to be done |
//! | [`open`] | how two parties come to a channel |
//! | [`tables`] | the records and their keys |

mod closing;
mod errors;
mod evidence;
mod history;
mod io;
mod lanes;
mod ledger;
pub mod open;
mod receipts;
mod reestablish;
mod rest;
mod restored;
mod signatures;
mod stakes;
mod state;
pub mod tables;
#[cfg(test)]
mod tests;
mod ticks;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::OnceLock,
};

pub use errors::{CommandError, Misbehaviour, PayError};
pub use evidence::SignedTwice;
use flash_proto::{
    Amount, Balances, ChannelId, LaneState, PaymentList, SecretKey, Side, TransactionId, Verified, Verifier,
    balance::Totals,
    message::{ChannelMessage, PauseReason, Stake, Stakes, Update},
};
use history::History;
pub use history::HistoryRule;
pub use io::{After, ChannelEvent, Effects, Input, Item, LedgerView, PAYMENT_KEY_BYTES_MAX, PaymentKey};
pub use rest::Rest;
pub use stakes::WITHDRAW_EXPIRY_MILESTONES;
pub use state::{
    Agreement, CLOSE_EXPIRY_MILESTONES, Doubt, Incoming, Known, Locked, Origin, Outgoing, PendingWithdraw,
    Phase, SIGNED_EXPIRY_MILESTONES_MAX,
};

use crate::store::{Store, StoreError};

/// What waits to be paid.
#[derive(Clone, Debug)]
struct Queued {
    what: Wanted,
    /// Payments on the lane, each tick counted as one, and what they pay in all.
    payments: u64,
    amount: Amount,
    /// What it takes of the queue's room.
    room: usize,
}

/// What somebody wants to pay.
#[derive(Clone, Debug)]
enum Wanted {
    /// One thing, perhaps under a key.
    Item(Item, Option<PaymentKey>),
    /// Many payments, by one update.
    Payments(PaymentList),
}

/// An update that the peer is not known to hold.
#[derive(Clone, Debug)]
struct Sent {
    update: Update,
    /// Payments on the lane up to it, without the ticks under it.
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

/// One side of one channel. Of two copies only one may ever act: the other would sign under the same numbers.
#[derive(Clone, Debug)]
pub struct Channel {
    agreement: Agreement,
    id: ChannelId,
    open_transaction: Option<TransactionId>,
    key: SecretKey,
    /// Made at the first signature that is checked here, if the peer's key is good for any: many channels rest, or have theirs
    /// checked elsewhere.
    peer_verifier: OnceLock<Option<Box<Verifier>>>,
    /// A signature of the peer's that was checked elsewhere.
    verified: Option<Verified>,
    phase: Phase,
    wants_close: bool,
    /// The newest milestone that was seen when the phase was written: what is older must not undo it.
    stored_seen: u64,
    outgoing: Outgoing,
    /// The same as it was written down last.
    written: Outgoing,
    incoming: Incoming,
    doubt: Option<Doubt>,
    locked: Locked,
    evidence: evidence::Evidence,
    // From here on nothing is stored.
    link: Link,
    /// Both knew where the other stood, at some time since the start.
    was_established: bool,
    fresh: bool,
    /// The newest milestone at which the channel was seen, if any since the start.
    seen: Option<u64>,
    queue: VecDeque<Queued>,
    queued_amount: Amount,
    /// Payments that wait, each tick counted as one.
    queued_payments: u64,
    /// What is taken of the queue's room.
    queue_room: usize,
    sent: VecDeque<Sent>,
    history: History,
    /// States of the own lane for which the payee was asked for a receipt, by their number.
    asked: BTreeMap<u64, LaneState>,
    /// The chain of ticks under the newest balance, if this life has begun it.
    chain: Option<ticks::ChainInUse>,
    untold: ticks::Untold,
    /// Why the peer takes no payments, if it said so.
    peer_paused: Option<PauseReason>,
    /// This side told the peer that it takes no payments.
    paused: bool,
    /// The peer was asked to send again what was not taken; what it had sent before that is skipped.
    resending: bool,
    peer_wants_close: bool,
    close_requested: bool,
    /// What the peer counts as locked, as it said last on this stream.
    stated: Option<Stakes>,
    /// Nothing is taken before the ledger has shown more than in the newest view.
    behind: bool,
    dirty: Dirty,
}

/// What changed since the last [`Channel::finish`].
#[derive(Clone, Debug, Default)]
struct Dirty {
    agreement: bool,
    phase: bool,
    outgoing: bool,
    incoming: bool,
    doubt: bool,
    locked: bool,
    acknowledge: bool,
    acknowledge_ticks: bool,
}

impl Channel {
    /// A channel that both parties agreed on, or that was found on the ledger, just now.
    pub fn new(agreement: Agreement, key: SecretKey, effects: &mut Effects) -> Self {
        let mut channel = Self::restore(agreement, key, tables::Stored::default(), VecDeque::new());
        channel.dirty.agreement = true;
        channel.dirty.phase = true;
        if channel.is_found() {
            channel.phase = Phase::Open;
            channel.doubt = Some(Doubt::default());
            channel.dirty.doubt = true;
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
        let updates = tables::kept_after(store, id, stored.outgoing.acknowledged)?;
        let key = key(agreement.key_index);
        let sent = reestablish::sent_of(&stored.outgoing, updates)
            .ok_or_else(|| tables::damaged_channel(id, "updates and balance differ"))?;
        let history = History::load(store, id, &stored)?;
        let mut channel = Self::restore(agreement, key, stored, sent);
        channel.history = history;
        channel.evidence = evidence::Evidence::load(store, &channel)?;
        if channel.id != id || !channel.balances_add_up() {
            return Err(tables::damaged_channel(id, "balances make no sense"));
        }
        Ok(channel)
    }

    fn restore(agreement: Agreement, key: SecretKey, stored: tables::Stored, sent: VecDeque<Sent>) -> Self {
        let open_transaction = agreement.open_transaction();
        let id = open_transaction.map_or_else(|| agreement.channel(), ChannelId::opened_by);
        let locked = stored.locked.unwrap_or_else(|| Locked::agreed(&agreement));
        Self {
            agreement,
            id,
            open_transaction,
            key,
            peer_verifier: OnceLock::new(),
            verified: None,
            phase: stored.phase,
            wants_close: stored.wants_close,
            stored_seen: stored.seen,
            outgoing: stored.outgoing,
            written: stored.outgoing,
            incoming: stored.incoming,
            doubt: stored.doubt,
            locked,
            evidence: evidence::Evidence::default(),
            link: Link::Down,
            was_established: false,
            fresh: false,
            seen: None,
            queue: VecDeque::new(),
            queued_amount: Amount::ZERO,
            queued_payments: 0,
            queue_room: 0,
            sent,
            history: History::default(),
            asked: BTreeMap::new(),
            chain: None,
            untold: ticks::Untold::default(),
            peer_paused: None,
            paused: false,
            resending: false,
            peer_wants_close: false,
            close_requested: false,
            stated: None,
            behind: false,
            dirty: Dirty::default(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`Misbehaviour`] of the peer: nothing changed but what is kept as evidence, and the stream to the peer must end.
    pub fn handle(&mut self, input: Input, effects: &mut Effects) -> Result<(), Misbehaviour> {
        match input {
            Input::Connected => self.connected(effects),
            Input::Disconnected => self.disconnected(),
            Input::Message(message) => return self.message(message, effects),
            Input::Ledger(view) => self.ledger(&view, effects),
            Input::Fresh(fresh) => self.freshness(fresh, effects),
            Input::Close => self.wish_close(effects),
            Input::CloseAlone => self.close_alone(effects),
            Input::Shown { held, ticks } => return self.shown_elsewhere(*held, ticks, effects),
            Input::Doubt => self.doubt_records(effects),
            Input::Trust => self.trust(effects),
            Input::AskReceipt(state) => self.ask_receipt(&state, effects),
            Input::GiveReceipt { seq, state } => self.give_receipt(seq, state.as_deref(), effects),
            Input::TopUp { essence, unlocks } => self.top_up(*essence, unlocks, effects),
            Input::Withdraw { amount, left_min } => self.withdraw(amount, left_min, effects),
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
            ChannelMessage::ReceiptRequest { seq } => {
                self.receipt_wanted(seq, effects);
                Ok(())
            }
            ChannelMessage::Receipt { seq, signature } => self.take_receipt(seq, signature, effects),
            ChannelMessage::Tick { seq, proof } => self.take_tick(seq, proof, effects),
            ChannelMessage::TickAck { seq, index } => self.take_tick_ack(seq, index),
            ChannelMessage::Stakes(stakes) => {
                self.take_stakes(stakes, effects);
                Ok(())
            }
            ChannelMessage::WithdrawSigned { withdraw, signature } => {
                self.take_withdraw(withdraw, signature, effects)
            }
            ChannelMessage::WithdrawComplete { withdraw, signature } => {
                self.complete_withdraw(withdraw, signature)
            }
        }
    }

    /// Payments and ticks that wait to be paid.
    pub const fn payments_waiting(&self) -> u64 {
        self.queued_payments
    }

    /// Signs what is queued, acknowledges what was taken, and writes down what changed. To be called
    /// after the inputs that are there, before the commit; more than once for a commit does no harm.
    pub fn finish(&mut self, effects: &mut Effects) {
        self.explain();
        self.advance_close(effects);
        self.cut(effects);
        self.tell_ticks(effects);
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.agreement {
            tables::put_agreement(&mut effects.batch, self.id, &self.agreement);
        }
        if dirty.locked {
            tables::put_locked(&mut effects.batch, self.id, &self.locked);
        }
        // With what was seen the milestone of it is kept.
        if dirty.phase || dirty.locked {
            self.stored_seen = self.stored_seen.max(self.seen.unwrap_or(0));
            tables::put_phase(&mut effects.batch, self.id, &self.phase, self.wants_close, self.stored_seen);
        }
        if dirty.outgoing {
            tables::put_outgoing(&mut effects.batch, self.id, &self.outgoing);
            self.written = self.outgoing;
        }
        if dirty.incoming {
            tables::put_incoming(&mut effects.batch, self.id, &self.incoming);
        }
        if dirty.doubt {
            tables::put_doubt(&mut effects.batch, self.id, self.doubt.as_ref());
        }
        if dirty.acknowledge {
            effects.after.push(After::Send(ChannelMessage::Ack { seq: self.incoming_seq() }));
        }
        if dirty.acknowledge_ticks {
            effects.after.extend(self.tick_ack().map(After::Send));
        }
        assert!(self.balances_add_up(), "I2: both balances must be at least zero and add up");
    }

    /// The channel's id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// The transaction that opens it, if this side agreed on it.
    pub const fn open_transaction(&self) -> Option<TransactionId> {
        self.open_transaction
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

    /// Whether something changed that is not in a batch yet.
    pub const fn has_changed(&self) -> bool {
        let Dirty { agreement, phase, outgoing, incoming, doubt, locked, acknowledge, acknowledge_ticks } =
            self.dirty;
        agreement || phase || outgoing || incoming || doubt || locked || acknowledge || acknowledge_ticks
    }

    /// Whether the view of the ledger is young enough, as [`Input::Fresh`] said last.
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Calls to pay that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Why no payment can be made, or none is taken, at the moment.
    pub fn paused(&self) -> Option<&'static str> {
        match (&self.phase, self.peer_paused) {
            (Phase::Open, _) if !self.balances_known() || self.locked.unexplained => {
                Some("nothing is known of the balances until the peer has shown them")
            }
            (Phase::Open, _) if self.doubt.is_some() => {
                Some("records were lost, and what was signed before may not have lapsed yet")
            }
            (Phase::Open, _) if self.link != Link::Established => Some("the peer is not connected"),
            (Phase::Open, Some(PauseReason::StaleLedgerView)) => {
                Some("the peer has not seen the ledger for too long")
            }
            (Phase::Open, Some(PauseReason::NotOpenYet)) => {
                Some("the peer has not seen the channel open yet")
            }
            (Phase::Open, Some(PauseReason::Recovered)) => {
                Some("the peer has lost records and waits for what it had signed to lapse")
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

    /// What can be paid now: what this side owns by its own view and the peer's, without the payments that wait.
    pub fn available(&self) -> Amount {
        self.payable().saturating_sub(self.queued_amount)
    }

    fn checked_balances(&self) -> Option<Balances> {
        Balances::exact(self.totals(Side::A), self.totals(Side::B))
    }

    /// Whether what is known makes sense. Until the peer has shown them too little is known of lanes whose
    /// records were lost.
    fn balances_add_up(&self) -> bool {
        !self.balances_known() || self.locked.unexplained || self.checked_balances().is_some()
    }

    fn totals(&self, side: Side) -> Totals {
        let ours = side == self.agreement.side;
        let sent = if ours { self.outgoing.total() } else { self.incoming.total() };
        let Stake { deposit, withdrawn } = self.locked.counted(side);
        Totals { deposit, withdrawn, sent }
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
            Phase::Open if self.doubt.is_some() => "recovered",
            Phase::Open => "open",
            Phase::ClosingTogether { .. } | Phase::ClosingAlone => "closing",
            Phase::Contested { .. } => "contested",
            Phase::Closed { .. } => "closed",
            Phase::Lapsed => "lapsed",
        }
    }
}
