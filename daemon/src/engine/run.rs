//! The engine's task: takes inputs, as many as wait, and brings jobs to the writer.
//!
//! A channel has one job on its way to the disk at a time. While it syncs, payments and messages come
//! together, and the next job carries all of them: that is what batches.
//!
//! What takes as long as a hundred small inputs is worked on beside the task ([`super::bulk`]). Its channel is away
//! meanwhile, and what comes for it waits until it is back.
//!
//! Channels in which nothing is to be done are at rest: a milestone that does not name them, the age of the ledger's view
//! and the start do nothing for them. Whatever does touch one wakes it first.

mod away;

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use away::Away;
use flash_channel::{
    Channel,
    machine::{
        Agreement, Effects, LedgerView, Misbehaviour, Rest,
        tables::{self as channel_tables, Listed},
    },
    store::StoreError,
};
use flash_proto::{ChannelId, SecretKey, Transaction, Verified, message::ChannelMessage};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Command, NewChannel, Views,
    bulk::{Bulk, Work, Worked},
    records::Records,
    slot::{EARLY_PAYMENTS_MIN, Slot},
    view::{Brief, unknown},
    writer::{Job, Writer},
};
use crate::{api::ApiError, events::now_ms, metrics::Metrics};

/// Inputs that are taken at a time.
const INPUTS_MAX: usize = 1_024;
/// Signatures that are checked together: fewer gain nothing, and of more a wrong one spoils more.
const TOGETHER_MIN: usize = 4;
const TOGETHER_MAX: usize = 128;
/// How often the age of the ledger's view is looked at for channels of which nothing is asked.
const FRESHNESS_TICK: Duration = Duration::from_millis(200);

/// The times that decide whether a view of the ledger is young enough.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) milestone_interval_ms: u64,
    pub(super) freshness_max: Option<Duration>,
}

/// When a milestone was told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    arrived: Instant,
    arrived_ms: u64,
    age: Duration,
}

impl Tip {
    /// A milestone that is told of now. Taken by who tells: the engine may come to it only after a long sleep.
    pub(super) fn told(age: Duration) -> Self {
        Self { arrived: Instant::now(), arrived_ms: now_ms(), age }
    }

    /// How old the milestone is now, by the clock that says more: the monotonic one stands still while
    /// the machine sleeps, and the other one may be set back.
    pub(super) fn age(&self) -> Duration {
        let by_wall_clock = Duration::from_millis(now_ms().saturating_sub(self.arrived_ms));
        self.arrived.elapsed().max(by_wall_clock).saturating_add(self.age)
    }
}

/// Told what came of a wish.
type Done = oneshot::Sender<Result<(), ApiError>>;

/// Everything that the task owns.
pub(super) struct EngineTask {
    records: Records,
    timing: Timing,
    /// Whether channels may be at rest.
    rests: bool,
    writer: Writer,
    views: Views,
    metrics: Metrics,
    /// The channels that are awake.
    pub(super) slots: HashMap<ChannelId, Box<Slot>>,
    /// The others.
    resting: BTreeMap<ChannelId, Rest>,
    /// Those that are worked on by other threads.
    away: Away,
    /// Where they are sent.
    work: std_mpsc::Sender<Work>,
    /// What waits to be brought to the writer.
    jobs: Vec<Job>,
    links: u64,
    /// The newest milestone that was told of.
    index: u64,
    /// When it was told of, by both clocks, and how old it was then.
    pub(super) tip: Option<Tip>,
    /// How old it was when the task woke last, which may have been a long sleep of the whole machine.
    age: Option<Duration>,
    /// Until the view of the ledger is so old, it is young enough for every channel for which it was when it was looked at.
    fresh_until: Duration,
}

impl EngineTask {
    pub(super) fn new(
        records: Records,
        timing: Timing,
        rests: bool,
        writer: Writer,
        work: std_mpsc::Sender<Work>,
        views: Views,
        metrics: Metrics,
    ) -> Self {
        Self {
            records,
            timing,
            rests,
            writer,
            views,
            metrics,
            slots: HashMap::new(),
            resting: BTreeMap::new(),
            away: Away::default(),
            work,
            jobs: Vec::new(),
            links: 0,
            index: 0,
            tip: None,
            age: None,
            fresh_until: Duration::ZERO,
        }
    }

    /// Finds all channels, and loads those that are not at rest. What they want on the ledger was durable before, and is
    /// passed on at once.
    pub(super) fn load(&mut self, submit: &mpsc::UnboundedSender<Transaction>) -> Result<(), StoreError> {
        let (mut awake, mut resting, mut briefs) = (Vec::new(), Vec::new(), Vec::new());
        for Listed { id, peer, side, rest } in channel_tables::listed(self.records.store.as_ref())? {
            match rest.filter(|_| self.rests) {
                Some(rest) => {
                    resting.push((id, rest));
                    briefs.push((id, Brief::new(peer, side)));
                }
                None => awake.push(id),
            }
        }
        self.metrics.channels_rest(resting.len());
        self.resting = resting.into_iter().collect();
        self.views.list_resting(briefs);
        for id in awake {
            let (channel, created_ms) = self.records.channel(id)?;
            let mut slot = Box::new(Slot::new(channel, Effects::default(), created_ms));
            if let Some(transaction) = slot.take_wanted() {
                let _ = submit.send(transaction);
            }
            slot.count(&self.metrics);
            slot.publication(&self.views).publish();
            self.slots.insert(id, slot);
        }
        Ok(())
    }

    /// Runs until every handle is dropped or the daemon stops.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut durables: mpsc::UnboundedReceiver<ChannelId>,
        mut worked: mpsc::UnboundedReceiver<Worked>,
    ) {
        let mut tick = tokio::time::interval(FRESHNESS_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(INPUTS_MAX);
        let mut durable = Vec::with_capacity(INPUTS_MAX);
        let mut touched: Vec<ChannelId> = Vec::new();
        let stop = self.records.stop.clone();
        loop {
            let read = tokio::select! {
                count = durables.recv_many(&mut durable, INPUTS_MAX) => {
                    if count == 0 {
                        return; // the writer is gone
                    }
                    durable.drain(..).try_for_each(|id| self.durable(id, &mut touched))
                }
                Some(worked) = worked.recv() => {
                    self.look_at_age();
                    self.back(worked, &mut touched)
                }
                count = commands.recv_many(&mut inputs, INPUTS_MAX), if !self.away.is_crowded() => {
                    if count == 0 {
                        return;
                    }
                    self.look_at_age();
                    self.verify_together(&inputs);
                    for command in inputs.drain(..) {
                        self.take(command, &mut touched);
                    }
                    Ok(())
                }
                _ = tick.tick() => {
                    self.grow_old(&mut touched);
                    Ok(())
                }
                () = stop.stopped() => return,
            };
            if let Err(error) = read {
                return self.records.stop.fail_store(&error);
            }
            self.metrics.mailbox_depth.set(i64::try_from(commands.len()).unwrap_or(i64::MAX));
            if self.bring(&mut touched).await.is_err() {
                return;
            }
        }
    }

    /// Brings a job for each channel that changed and has none on its way, all together, and lets those rest in which
    /// nothing is to be done any more.
    async fn bring(&mut self, touched: &mut Vec<ChannelId>) -> Result<(), super::Stopped> {
        for id in touched.drain(..) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            if slot.dirty && !slot.committing && slot.channel.payments_waiting() >= EARLY_PAYMENTS_MIN {
                self.send_away(id, Bulk::Sign);
                continue;
            }
            let (views, metrics) = (&self.views, &self.metrics);
            let mut job = |slot: &mut Slot| {
                if slot.dirty && !slot.committing {
                    self.jobs.extend(slot.job(views));
                    slot.count(metrics);
                }
            };
            job(slot);
            let rest = if self.rests { slot.at_rest() } else { None };
            if let Some((rest, brief)) = rest
                && views.rest(id, brief)
            {
                self.slots.remove(&id);
                self.resting.insert(id, rest);
            } else {
                job(slot); // what is written down before it rests
            }
        }
        let jobs = std::mem::take(&mut self.jobs);
        self.writer.bring(jobs).await
    }

    /// Checks the signatures of updates of different channels together, which takes half the time. Where one of them is
    /// wrong each is checked by its own channel.
    pub(super) fn verify_together(&mut self, inputs: &[Command]) {
        if inputs.len() < TOGETHER_MIN {
            return; // what is to be checked is not even hashed for a single payment
        }
        let mut checks = BTreeMap::new();
        for command in inputs {
            if let Command::Message { channel, message: ChannelMessage::Update(update), .. } = command
                && let Entry::Vacant(entry) = checks.entry(*channel)
                && let Some(check) = self.slots.get(channel).and_then(|slot| slot.channel.to_verify(update))
            {
                entry.insert(check);
            }
        }
        let (ids, checks): (Vec<_>, Vec<_>) = checks.into_iter().unzip();
        for (ids, checks) in ids.chunks(TOGETHER_MAX).zip(checks.chunks(TOGETHER_MAX)) {
            if checks.len() < TOGETHER_MIN {
                continue;
            }
            for (id, verified) in ids.iter().zip(Verified::all(checks).into_iter().flatten()) {
                if let Some(slot) = self.slots.get_mut(id) {
                    slot.channel.knows(verified);
                }
            }
        }
    }

    fn look_at_age(&mut self) {
        self.age = self.tip.as_ref().map(Tip::age);
    }

    fn show_age(&self) {
        let age_ms = self.age.map_or(i64::MAX, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.metrics.milestone_age_ms.set(age_ms);
    }

    /// A channel, awake.
    fn wake(&mut self, id: ChannelId) -> Option<&mut Slot> {
        if let Some(rest) = self.resting.get(&id) {
            let (channel, created_ms) = match self.records.channel(id) {
                Ok(loaded) => loaded,
                Err(error) => {
                    self.records.stop.fail_store(&error);
                    return None;
                }
            };
            let mut slot = Box::new(Slot::new(channel, Effects::default(), created_ms));
            slot.wake(rest, self.index, &self.views);
            self.resting.remove(&id);
            self.slots.insert(id, slot);
        }
        self.slots.get_mut(&id).map(Box::as_mut)
    }

    /// A channel that is about to be handed an input. It knows first how old its view of the ledger is by now: what is
    /// taken or signed depends on that.
    fn slot(&mut self, id: ChannelId) -> Option<&mut Slot> {
        self.wake(id)?;
        let slot = self.slots.get_mut(&id)?;
        if slot.is_live() {
            self.fresh_until = self.fresh_until.min(slot.freshness(self.age, &self.timing));
        }
        Some(slot)
    }

    /// The slot of an agreement, a new one if the channel is not known.
    fn add(&mut self, agreement: Agreement, key: SecretKey, created_ms: u64) -> &mut Slot {
        let mut effects = Effects::default();
        let mut channel = Channel::new(agreement, key, &mut effects);
        channel.set_history(self.records.history);
        let id = channel.id();
        self.wake(id);
        self.slots.entry(id).or_insert_with(|| Box::new(Slot::new(channel, effects, created_ms)))
    }

    pub(super) fn command(&mut self, command: Command, touched: &mut Vec<ChannelId>) {
        match command {
            Command::Add { new, done } => {
                let NewChannel { agreement, key, with, created_ms } = *new;
                let slot = self.add(agreement, key, created_ms);
                slot.with(with, done);
                touched.push(slot.channel.id());
            }
            Command::Linked { channel, outbox, number } => {
                self.links = self.links.wrapping_add(1);
                let link = self.links;
                if let Some(slot) = self.slot(channel).filter(|slot| slot.is_live()) {
                    slot.link(link, outbox);
                    let _ = number.send(link);
                    touched.push(channel);
                }
            }
            Command::Unlinked { channel, number } => {
                if let Some(slot) = self.slot(channel) {
                    slot.unlink(number);
                    touched.push(channel);
                }
            }
            Command::Message { channel, number, message, room } => {
                self.message(channel, number, message, room, touched);
                touched.push(channel);
            }
            Command::Pay { channel, order } => {
                let store = Arc::clone(&self.records.store);
                match self.slot(channel) {
                    Some(slot) => {
                        slot.pay(order, store.as_ref());
                        touched.push(channel);
                    }
                    None => {
                        let _ = order.callers.queued.send(Err(unknown(channel)));
                    }
                }
            }
            Command::Milestone { index, tip, views } => self.milestone(index, tip, views, touched),
            Command::Proven { views } => {
                for (id, view) in views {
                    self.proven(id, view, touched);
                }
            }
            Command::Close { channel, alone, done } => {
                self.asked(channel, done, touched, |slot, done| slot.close(alone, done));
            }
            Command::Trust { channel, done } => self.asked(channel, done, touched, Slot::trust),
            Command::Shown { channel, newest, done } => {
                self.asked(channel, done, touched, |slot, done| slot.shown(&newest, done));
            }
            Command::Meet { channel, peer, with, done } => {
                self.asked(channel, done, touched, |slot, done| slot.meet(peer, with, done));
            }
            Command::Receipt { channel, state, done } => {
                self.asked(channel, done, touched, |slot, done| slot.ask_receipt(*state, done));
            }
            Command::Change { channel, change, done } => {
                self.asked(channel, done, touched, |slot, done| slot.change(change, done));
            }
            Command::Refused { channel, transaction, reason } => {
                if let Some(slot) = self.slot(channel) {
                    slot.refused(transaction, reason);
                    touched.push(channel);
                }
            }
        }
    }

    /// Has a channel do what it is asked for, if there is one.
    fn asked(
        &mut self,
        channel: ChannelId,
        done: Done,
        touched: &mut Vec<ChannelId>,
        act: impl FnOnce(&mut Slot, Done),
    ) {
        let Some(slot) = self.slot(channel) else {
            let _ = done.send(Err(unknown(channel)));
            return;
        };
        act(slot, done);
        touched.push(channel);
    }

    fn message(
        &mut self,
        channel: ChannelId,
        number: u64,
        message: ChannelMessage,
        room: OwnedSemaphorePermit,
        touched: &mut Vec<ChannelId>,
    ) {
        let Some(slot) = self.slot(channel) else { return };
        let result = slot.message(number, message, room);
        self.heard(channel, result, touched);
    }

    /// What a message has shown besides what it says.
    fn heard(&mut self, channel: ChannelId, result: Result<(), Misbehaviour>, touched: &mut Vec<ChannelId>) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        let has_old_records = std::mem::take(&mut slot.has_old_records);
        if let Err(error) = result {
            self.metrics.peers_misbehaved.inc();
            tracing::warn!(%channel, %error, "the stream ends");
        }
        if has_old_records {
            tracing::error!(
                %channel,
                "the peer shows what was signed here and is not known here: this data directory is an old copy, or \
                 another daemon runs with this seed. Nothing is signed in any channel until its peer has shown it"
            );
            // Where one channel's records are old all are, and there may be channels that are not known at all.
            let resting: Vec<ChannelId> = self.resting.keys().copied().collect();
            for id in resting {
                self.wake(id);
            }
            for (id, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_live()) {
                slot.doubt();
                touched.push(*id);
            }
            self.away.doubt();
        }
    }

    fn milestone(
        &mut self,
        index: u64,
        tip: Tip,
        views: Vec<(ChannelId, LedgerView)>,
        touched: &mut Vec<ChannelId>,
    ) {
        self.tip = Some(tip);
        self.look_at_age();
        self.show_age();
        self.index = self.index.max(index);
        for (id, view) in views {
            self.proven(id, view, touched);
        }
        for (id, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_live()) {
            slot.milestone(index, None);
            touched.push(*id);
        }
        self.away.milestone(index);
        self.freshness(touched);
    }

    /// A channel on the ledger. One at rest sleeps on if that is what its records say.
    fn proven(&mut self, id: ChannelId, view: LedgerView, touched: &mut Vec<ChannelId>) {
        if self.resting.get_mut(&id).is_some_and(|rest| rest.sees(&view)) {
            return;
        }
        if !self.away.proven(id, view) && self.wake(id).is_some() {
            self.at_milestone(id, view.index, Some(view), touched);
        }
    }

    fn at_milestone(
        &mut self,
        id: ChannelId,
        index: u64,
        view: Option<LedgerView>,
        touched: &mut Vec<ChannelId>,
    ) {
        if let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.is_live()) {
            slot.milestone(index, view);
            self.fresh_until = self.fresh_until.min(slot.freshness(self.age, &self.timing));
            touched.push(id);
        }
    }

    /// The view of the ledger grows old while no milestone comes. Channels are looked at when it has become too old for one
    /// of them, and not before: there may be very many.
    pub(super) fn grow_old(&mut self, touched: &mut Vec<ChannelId>) {
        self.look_at_age();
        self.show_age();
        if self.age.is_some_and(|age| age >= self.fresh_until) {
            self.freshness(touched);
        }
    }

    /// Looks at all channels by the age that was just looked at.
    fn freshness(&mut self, touched: &mut Vec<ChannelId>) {
        self.fresh_until = Duration::MAX;
        for (id, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_live()) {
            self.fresh_until = self.fresh_until.min(slot.freshness(self.age, &self.timing));
            if slot.dirty {
                touched.push(*id);
            }
        }
    }
}
