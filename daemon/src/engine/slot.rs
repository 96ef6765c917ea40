//! One channel with its link, its callers, and what waits for its next commit.

mod receipts;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use flash_channel::{
    Channel,
    machine::{
        After, ChannelEvent, CommandError, Effects, Input, Item, LedgerView, Misbehaviour, PayError,
        PaymentKey, Phase, Rest,
        tables::{self, KeyRecord},
    },
    store::{Barrier, Batch, Store, StoreError},
};
use flash_proto::{
    Open, PublicKey, SignedBalance, Transaction, TransactionId,
    message::{ChannelMessage, Refusal, RefusalCode},
    tower::Claimable,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    BULK_BYTES_MIN, Callers, Change, Events, Order, Outbox, Pays, Placed, View, Views, describe,
    run::Timing,
    view::{Brief, Publication},
    writer::{Afterwards, Job},
};
use crate::{
    api::{ApiError, ErrorCode},
    metrics::Metrics,
    tables as daemon_tables,
};

/// So many payments or ticks that wait are paid while the job on its way syncs, and come with the next one: they are
/// worth an update of their own, and hashing them takes longer than the sync.
pub(super) const EARLY_PAYMENTS_MIN: u64 = 4_096;

/// A channel in the engine.
pub(super) struct Slot {
    pub(super) channel: Channel,
    /// What each of its views has.
    open: Arc<Open>,
    link: Option<(u64, Outbox)>,
    /// A job of this channel is on its way to the disk.
    pub(super) committing: bool,
    /// What waits for the next job.
    effects: Effects,
    sends: Vec<(Outbox, ChannelMessage)>,
    events: Events,
    replies: Vec<oneshot::Sender<()>>,
    /// Something changed since the last job.
    pub(super) dirty: bool,
    /// What the peer's messages take of its share until they are durable: those of the next job, and
    /// those of the job on its way.
    rooms: Vec<OwnedSemaphorePermit>,
    committing_rooms: Vec<OwnedSemaphorePermit>,
    /// Callers who wait for an acknowledgement, by the number of their payment.
    waiting: VecDeque<(u64, oneshot::Sender<Result<(), ApiError>>)>,
    /// Payments with keys that are not in the store yet.
    keys: BTreeMap<PaymentKey, KeyRecord>,
    /// Payments that were signed when the job on its way was made, and those whose update is on the disk.
    committing_payments: u64,
    stored_payments: u64,
    /// Callers who wait for a receipt, by the number of its update.
    receipts: Vec<(u64, oneshot::Sender<Result<(), ApiError>>)>,
    /// Updates of which the peer wants a receipt: their records may wait for the next job, or be on their way.
    wanted: Vec<u64>,
    committing_wanted: Vec<u64>,
    /// The channel on the ledger, as it was proven last.
    seen: Option<LedgerView>,
    /// The transaction that was passed on last.
    submitted: Option<TransactionId>,
    refused: Option<String>,
    /// The peer has shown that the records are old.
    pub(super) has_old_records: bool,
    created_ms: u64,
    counted: Counted,
    /// Shows the channel; none before its first view was made.
    shown: Option<Arc<watch::Sender<View>>>,
}

/// What was counted of a channel already.
#[derive(Clone, Copy, Default)]
struct Counted {
    state: Option<&'static str>,
    received: u64,
    acknowledged: u64,
    updates: u64,
}

impl Counted {
    fn of(channel: &Channel) -> Self {
        let seq = |balance: Option<SignedBalance>| balance.map_or(0, |balance| balance.state.seq);
        let (incoming, outgoing) = (channel.incoming(), channel.outgoing());
        Self {
            state: Some(channel.state()),
            received: incoming.payments,
            acknowledged: outgoing.acknowledged_payments,
            updates: seq(incoming.held).saturating_add(seq(outgoing.signed)),
        }
    }
}

impl Slot {
    pub(super) fn new(channel: Channel, effects: Effects, created_ms: u64) -> Self {
        let mut slot = Self {
            stored_payments: channel.outgoing().payments,
            open: Arc::new(channel.agreement().open),
            channel,
            link: None,
            committing: false,
            effects,
            sends: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            dirty: false,
            rooms: Vec::new(),
            committing_rooms: Vec::new(),
            waiting: VecDeque::new(),
            keys: BTreeMap::new(),
            committing_payments: 0,
            receipts: Vec::new(),
            wanted: Vec::new(),
            committing_wanted: Vec::new(),
            seen: None,
            submitted: None,
            refused: None,
            has_old_records: false,
            created_ms,
            counted: Counted::default(),
            shown: None,
        };
        slot.collect();
        slot
    }

    pub(super) fn is_live(&self) -> bool {
        !matches!(self.channel.phase(), Phase::Closed { .. } | Phase::Lapsed)
    }

    /// The channel as others see it, once what it is now is durable.
    pub(super) fn publication(&mut self, views: &Views) -> Publication {
        let view = self.view();
        views.publication(&mut self.shown, view)
    }

    fn view(&self) -> View {
        let (open, refused) = (Arc::clone(&self.open), self.refused.clone());
        describe::view(&self.channel, open, self.link.is_some(), self.created_ms, refused)
    }

    /// Wakes a channel that was just loaded. Of the ledger it knows what it would if it had been awake.
    pub(super) fn wake(&mut self, rest: &Rest, tip: u64, views: &Views) {
        self.shown = Some(views.wake(self.channel.id(), self.view()));
        self.counted = Counted::of(&self.channel);
        self.channel.wake(rest);
        if let Some(view) = rest.view(&self.channel.agreement().open, tip) {
            self.milestone(view.index, Some(view));
        }
    }

    /// What is to be kept of the channel if nothing is to be done in it, and nobody waits for anything. Has what is left
    /// to be written down written with the next job.
    pub(super) fn at_rest(&mut self) -> Option<(Rest, Brief)> {
        let busy = self.dirty || self.committing || self.link.is_some() || self.refused.is_some();
        let told = self.effects.batch.is_empty() && self.effects.after.is_empty();
        let said = self.sends.is_empty() && self.events.is_empty() && self.replies.is_empty();
        let given = self.rooms.is_empty() && self.committing_rooms.is_empty() && self.keys.is_empty();
        let answered = self.waiting.is_empty()
            && self.receipts.is_empty()
            && self.wanted.is_empty()
            && self.committing_wanted.is_empty();
        if busy || !told || !said || !given || !answered || self.shown.is_none() {
            return None;
        }
        let rest = self.channel.at_rest(self.seen.as_ref())?;
        self.dirty = self.channel.write_acknowledged();
        let agreement = self.channel.agreement();
        (!self.dirty).then(|| (rest, Brief::new(agreement.peer, agreement.side)))
    }

    /// Takes changes and a reply into the next job.
    pub(super) fn with(&mut self, mut batch: Batch, done: oneshot::Sender<()>) {
        self.effects.batch.append(&mut batch);
        self.replies.push(done);
        self.dirty = true;
    }

    fn input(&mut self, input: Input) -> Result<(), Misbehaviour> {
        let result = self.channel.handle(input, &mut self.effects);
        self.collect();
        self.acknowledge();
        self.dirty = true;
        result
    }

    /// Binds what is to be sent to the link that there is now, and names the events.
    fn collect(&mut self) {
        let (mut wanted, mut answered) = (Vec::new(), Vec::new());
        for after in self.effects.after.drain(..) {
            match after {
                After::Send(message) => {
                    if let Some((_, outbox)) = &self.link {
                        self.sends.push((outbox.clone(), message));
                    }
                }
                After::Event(event) => {
                    if matches!(event, ChannelEvent::NotMade { .. } | ChannelEvent::Recovered { .. }) {
                        let signed = self.channel.outgoing().payments;
                        fail_above(&mut self.waiting, &mut self.keys, signed);
                    }
                    self.has_old_records |= matches!(event, ChannelEvent::OldRecords { .. });
                    match event {
                        ChannelEvent::ReceiptWanted { seq } => wanted.push(seq),
                        ChannelEvent::Receipt { seq, given } => answered.push((seq, given)),
                        _ => {}
                    }
                    self.events.extend(describe::event(&self.channel, event));
                }
            }
        }
        for seq in wanted {
            self.receipt_wanted(seq);
        }
        for (seq, given) in answered {
            self.receipt_answered(seq, given);
        }
    }

    pub(super) fn link(&mut self, number: u64, outbox: Outbox) {
        if let Some((_, old)) = self.link.replace((number, outbox)) {
            old.close();
        }
        self.show_connected();
        // Only messages can be wrong.
        let _ = self.input(Input::Connected);
    }

    pub(super) fn unlink(&mut self, number: u64) {
        if self.link.as_ref().is_some_and(|(current, _)| *current == number) {
            self.link = None;
            self.show_connected();
            let _ = self.input(Input::Disconnected);
        }
    }

    fn show_connected(&self) {
        if let Some(shown) = &self.shown {
            let connected = self.link.is_some();
            shown.send_modify(|view| view.info.connected = connected);
        }
    }

    /// A message of the peer. If it breaks the protocol the stream ends, and nothing changed.
    pub(super) fn message(
        &mut self,
        number: u64,
        message: ChannelMessage,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Misbehaviour> {
        self.rooms.push(room);
        self.dirty = true;
        if self.link.as_ref().is_none_or(|(current, _)| *current != number) {
            return Ok(()); // of a stream that is gone
        }
        let result = self.input(Input::Message(message));
        if let Err(error) = &result
            && let Some((_, outbox)) = self.link.take()
        {
            if !matches!(error, Misbehaviour::Refused(_)) {
                let refusal = Refusal::new(RefusalCode::Misbehaved, error.to_string());
                outbox.send(ChannelMessage::Refuse(refusal));
            }
            self.events.push(describe::misbehaved(&self.channel, error));
            self.show_connected();
            let _ = self.input(Input::Disconnected);
        }
        result
    }

    /// The channel as it is at the tip, unless it was proven at a later milestone already.
    pub(super) fn milestone(&mut self, index: u64, proven: Option<LedgerView>) {
        if let Some(view) = proven {
            self.seen = Some(view);
        }
        if let Some(view) = &mut self.seen {
            view.index = view.index.max(index);
            let view = *view;
            let phase = self.channel.phase().clone();
            let dirty = self.dirty;
            let _ = self.input(Input::Ledger(view));
            // Most milestones change nothing here and are worth no commit.
            let changed = *self.channel.phase() != phase || self.channel.has_changed();
            self.dirty = dirty || changed || self.channel.wants_close();
        }
    }

    /// The view of the ledger has this age. Returns until which age nothing changes by it.
    pub(super) fn freshness(&mut self, age: Option<Duration>, timing: &Timing) -> Duration {
        let window = u64::from(self.channel.agreement().open.contest_window_milestones);
        let half = Duration::from_millis(window.saturating_mul(timing.milestone_interval_ms) / 2);
        let max = timing.freshness_max.unwrap_or(half).min(half);
        let fresh = self.seen.is_some() && age.is_some_and(|age| age < max);
        if fresh != self.channel.is_fresh() {
            let _ = self.input(Input::Fresh(fresh));
        }
        if fresh { max } else { Duration::MAX }
    }

    pub(super) fn close(&mut self, alone: bool, done: oneshot::Sender<Result<(), ApiError>>) {
        let (allowed, input) = if alone {
            (self.channel.may_close_alone(), Input::CloseAlone)
        } else {
            (self.channel.may_close(), Input::Close)
        };
        if let Err(error) = allowed {
            let _ = done.send(Err(command_error(&error)));
            return;
        }
        let _ = self.input(input);
        self.reply_once_durable(done);
    }

    /// The records may be older than what was signed.
    pub(super) fn doubt(&mut self) {
        let _ = self.input(Input::Doubt);
        daemon_tables::forget_searched(&mut self.effects.batch);
    }

    /// The user says that the records are the newest.
    pub(super) fn trust(&mut self, done: oneshot::Sender<Result<(), ApiError>>) {
        if let Err(error) = self.channel.may_trust() {
            let _ = done.send(Err(command_error(&error)));
            return;
        }
        let _ = self.input(Input::Trust);
        self.reply_once_durable(done);
    }

    /// A watchtower has shown this of the peer's lane.
    pub(super) fn shown(&mut self, newest: &Claimable, done: oneshot::Sender<Result<(), ApiError>>) {
        let Claimable { balance, ticks } = *newest;
        if let Err(error) = self.input(Input::Shown { held: Box::new(balance), ticks }) {
            let hint = "that watchtower shows what is not the peer's; use another one";
            let _ = done.send(Err(ApiError::new(ErrorCode::ChannelState, error.to_string(), hint)));
            return;
        }
        self.reply_once_durable(done);
    }

    /// Changes what this side has locked, if that can be done now.
    pub(super) fn change(&mut self, change: Change, done: oneshot::Sender<Result<(), ApiError>>) {
        let (allowed, input) = match change {
            Change::TopUp { essence, unlocks } => {
                (self.channel.may_top_up(&essence), Input::TopUp { essence, unlocks })
            }
            Change::Withdraw { amount, left_min } => {
                (self.channel.may_withdraw(amount, left_min), Input::Withdraw { amount, left_min })
            }
        };
        if let Err(error) = allowed {
            let _ = done.send(Err(command_error(&error)));
            return;
        }
        let _ = self.input(input);
        self.reply_once_durable(done);
    }

    fn reply_once_durable(&mut self, done: oneshot::Sender<Result<(), ApiError>>) {
        let (durable, waited) = oneshot::channel();
        self.replies.push(durable);
        tokio::spawn(async move {
            let _ = done.send(waited.await.map_err(super::stopping));
        });
    }

    /// The peer's machine is this one from now on, if it is not known from the channel's opening.
    pub(super) fn meet(
        &mut self,
        peer: PublicKey,
        mut with: Batch,
        done: oneshot::Sender<Result<(), ApiError>>,
    ) {
        let before = self.channel.agreement().peer;
        if let Err(error) = self.channel.meet(peer) {
            let _ = done.send(Err(command_error(&error)));
            return;
        }
        self.effects.batch.append(&mut with);
        self.dirty = true;
        if before != peer
            && let Some((_, outbox)) = self.link.take()
        {
            outbox.close();
            self.show_connected();
            let _ = self.input(Input::Disconnected);
        }
        self.reply_once_durable(done);
    }

    pub(super) fn refused(&mut self, transaction: TransactionId, reason: String) {
        if self.submitted == Some(transaction) {
            self.refused = Some(reason);
            self.dirty = true;
        }
    }

    /// Queues payments, unless one was made under the same key.
    pub(super) fn pay(&mut self, order: Order, store: &dyn Store) {
        let Order { pays, callers: Callers { queued, acknowledged } } = order;
        let placed = match pays {
            Pays::One(item, key) => self.pay_one(item, key, store),
            Pays::All(payments) => self.queued(|channel| channel.pay_all(payments)),
        };
        if let Ok(placed) = &placed {
            let at = self.waiting.partition_point(|(number, _)| *number <= placed.number);
            self.waiting.insert(at, (placed.number, acknowledged));
        }
        let _ = queued.send(placed);
        if self.committing && self.channel.payments_waiting() >= EARLY_PAYMENTS_MIN {
            self.channel.finish(&mut self.effects);
            self.collect();
        }
        self.acknowledge();
    }

    fn pay_one(
        &mut self,
        item: Item,
        key: Option<PaymentKey>,
        store: &dyn Store,
    ) -> Result<Placed, ApiError> {
        if let Some(number) = self.made_under(key.as_deref(), item, store)? {
            return Ok(Placed { number, repeated: true });
        }
        let placed = self.queued(|channel| channel.order(item, key.clone()))?;
        if let Some(key) = key {
            self.keys.insert(key, KeyRecord::of(placed.number, &item));
        }
        Ok(placed)
    }

    fn queued(
        &mut self,
        order: impl FnOnce(&mut Channel) -> Result<u64, PayError>,
    ) -> Result<Placed, ApiError> {
        let number = order(&mut self.channel).map_err(|error| pay_error(&error))?;
        self.dirty = true;
        Ok(Placed { number, repeated: false })
    }

    /// The number of the payment that was made or queued under a key.
    fn made_under(&self, key: Option<&[u8]>, item: Item, store: &dyn Store) -> Result<Option<u64>, ApiError> {
        let Some(key) = key else { return Ok(None) };
        let made = match self.keys.get(key) {
            Some(made) => Some(made.clone()),
            None => tables::payment_under(store, self.channel.id(), key)?,
        };
        let Some(made) = made else { return Ok(None) };
        if made == KeyRecord::of(made.number, &item) {
            return Ok(Some(made.number));
        }
        let message = "the key was used for a payment of another amount or reference";
        Err(ApiError::new(ErrorCode::KeyReused, message, "use a new key for each payment"))
    }

    /// Tells the callers whose payments the peer has on its disk. An acknowledgement of what is not even
    /// on our own cannot be honest, and waits for it (I10).
    fn acknowledge(&mut self) {
        let acknowledged = self.channel.outgoing().acknowledged_payments.min(self.stored_payments);
        while self.waiting.front().is_some_and(|(number, _)| *number <= acknowledged) {
            if let Some((_, caller)) = self.waiting.pop_front() {
                let _ = caller.send(Ok(()));
            }
        }
    }

    /// The job on its way is on the disk.
    ///
    /// # Errors
    /// [`StoreError`]: what was kept cannot be read.
    pub(super) fn durable(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.committing = false;
        self.committing_rooms.clear();
        self.stored_payments = self.committing_payments;
        let stored = self.stored_payments;
        self.keys.retain(|_, made| made.number > stored);
        self.acknowledge();
        self.give_receipts(store)
    }

    /// Counts what happened since it was counted last; what was stored before the start counts for
    /// nothing.
    pub(super) fn count(&mut self, metrics: &Metrics) {
        let now = Counted::of(&self.channel);
        let before = if self.counted.state.is_some() { self.counted } else { Counted { state: None, ..now } };
        if let Some(state) = now.state {
            metrics.channel_moved(before.state, state);
        }
        metrics.payments_received.inc_by(now.received.saturating_sub(before.received));
        metrics.payments_acknowledged.inc_by(now.acknowledged.saturating_sub(before.acknowledged));
        metrics.updates.inc_by(now.updates.saturating_sub(before.updates));
        self.counted = now;
    }

    /// The transaction that the channel needs on the ledger, if it was not passed on yet.
    pub(super) fn take_wanted(&mut self) -> Option<Transaction> {
        let transaction = self.channel.wanted()?;
        let id = transaction.id();
        if self.submitted == Some(id) {
            return None;
        }
        self.submitted = Some(id);
        self.refused = None;
        Some(transaction)
    }

    /// Makes a job of all that changed, which also shows it. Where nothing is to be written, said or told, as after an
    /// acknowledgement, it is shown at once: all of it is durable.
    pub(super) fn job(&mut self, views: &Views) -> Option<Job> {
        self.channel.finish(&mut self.effects);
        self.collect();
        self.dirty = false;
        let submissions: Vec<_> = self.take_wanted().into_iter().collect();
        let told = self.sends.is_empty() && self.events.is_empty() && self.replies.is_empty();
        if self.effects.batch.is_empty() && told && self.wanted.is_empty() && submissions.is_empty() {
            self.rooms.clear();
            self.publication(views).publish();
            return None;
        }
        self.committing = true;
        self.committing_rooms = std::mem::take(&mut self.rooms);
        self.committing_wanted = std::mem::take(&mut self.wanted);
        self.committing_payments = self.channel.outgoing().payments;
        let after = Afterwards {
            publications: vec![self.publication(views)],
            sends: std::mem::take(&mut self.sends),
            submissions,
            replies: std::mem::take(&mut self.replies),
            engine: Some(self.channel.id()),
        };
        Some(Job {
            bulk: self.effects.batch.bytes() >= BULK_BYTES_MIN,
            // A channel in which nothing more happens keeps no room for it.
            batch: std::mem::take(&mut self.effects).batch,
            events: std::mem::take(&mut self.events),
            after: Barrier::new(after),
        })
    }
}

/// Payments above `signed` were not made, or it cannot be told.
fn fail_above(
    waiting: &mut VecDeque<(u64, oneshot::Sender<Result<(), ApiError>>)>,
    keys: &mut BTreeMap<PaymentKey, KeyRecord>,
    signed: u64,
) {
    keys.retain(|_, made| made.number <= signed);
    while waiting.back().is_some_and(|(number, _)| *number > signed) {
        if let Some((_, caller)) = waiting.pop_back() {
            let message = "the payment was not made: the channel takes none any more, or not now";
            let hint = "see `flash channel show`";
            let _ = caller.send(Err(ApiError::new(ErrorCode::ChannelState, message, hint)));
        }
    }
}

fn command_error(error: &CommandError) -> ApiError {
    let (code, hint) = match error {
        CommandError::NotShown => (
            ErrorCode::ChannelState,
            "it is shown once the peer is connected; name its machine with `flash channel peer`",
        ),
        CommandError::StakeChanging => (ErrorCode::ChannelState, "wait until it is applied or has lapsed"),
        CommandError::NotConnected => (ErrorCode::PeerUnreachable, "ask again once the peer is there"),
        CommandError::StaleLedgerView => (ErrorCode::LedgerUnavailable, "see `flash ledger status`"),
        CommandError::Insufficient { .. } => (ErrorCode::InsufficientBalance, "take out less"),
        _ => (ErrorCode::ChannelState, "see `flash channel show`"),
    };
    ApiError::new(code, error.to_string(), hint)
}

fn pay_error(error: &PayError) -> ApiError {
    let message = error.to_string();
    let (code, hint) = match error {
        PayError::Insufficient { .. } => {
            (ErrorCode::InsufficientBalance, "pay less, wait for money to come in, or open a larger channel")
        }
        PayError::NotOpen(_) => (ErrorCode::ChannelState, "see `flash channel show`"),
        PayError::NotConnected => {
            (ErrorCode::PeerUnreachable, "it is connected to by itself when it is there; pay again then")
        }
        PayError::Full => (ErrorCode::Busy, "wait for acknowledgements, then pay on"),
        PayError::Ticks => (ErrorCode::InvalidRequest, "see `flash tick --help`"),
        _ => (ErrorCode::InvalidRequest, "see `flash pay --help`"),
    };
    ApiError::new(code, message, hint)
}
