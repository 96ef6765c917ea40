//! One party: the shell around the real machine, with its store. It follows the machine's contract:
//! hand in, finish, commit, and only then act.

use std::{collections::BTreeMap, fmt};

use flash_channel::{
    machine::{
        After, Channel, ChannelEvent, Effects, Incoming, Input, LedgerView, Locked, Misbehaviour, Outgoing,
        PayError, Phase,
        tables::{self, Lane},
    },
    store::{Batch, Fault, MemoryStore, Store, StoreError},
};
use flash_proto::{
    Amount, ChannelId, Payment, Reference, Side, SignedBalance, TickProof, Transaction, TransactionId,
    message::ChannelMessage,
};

use super::{faults::FRESH_MILESTONES, setup};

/// Copies of the store that are kept, to be restored later.
const SNAPSHOTS_MAX: usize = 8;

/// What the disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) phase: Phase,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) locked: Locked,
    /// Whether what is known of the lanes is known to be the newest.
    pub(super) known: bool,
    /// Whether the records may be old ones.
    pub(super) in_doubt: bool,
}

impl Durable {
    pub(super) fn signed_seq(&self) -> u64 {
        self.outgoing.signed.map_or(0, |signed| signed.state.seq)
    }

    pub(super) fn held_seq(&self) -> u64 {
        self.incoming.held.map_or(0, |held| held.state.seq)
    }

    /// Number of the newest update that was signed, and of the newest tick under it.
    pub(super) fn paid_to(&self) -> (u64, u32) {
        (self.signed_seq(), index(self.outgoing.ticks))
    }

    /// The same of what is held.
    pub(super) fn held_to(&self) -> (u64, u32) {
        (self.held_seq(), index(self.incoming.ticks))
    }

    pub(super) fn signed(&self) -> Amount {
        self.outgoing.total()
    }

    pub(super) fn held(&self) -> Amount {
        self.incoming.total()
    }
}

/// A balance, and the newest tick under it.
pub(super) type Shown = (SignedBalance, Option<TickProof>);

fn index(ticks: Option<TickProof>) -> u32 {
    ticks.map_or(0, |proof| proof.index)
}

/// What waits for the disk.
#[derive(Clone, Debug)]
struct Pending {
    effects: Effects,
    /// The link on which the messages were meant to go.
    link: u64,
    /// What it needs on the ledger, as the milestone that it was shown last has it.
    wanted: Option<(Transaction, u64)>,
}

/// What may happen now that it is on the disk.
pub(super) struct Released {
    pub(super) messages: Vec<(u64, ChannelMessage)>,
    pub(super) events: Vec<ChannelEvent>,
    pub(super) wanted: Option<(Transaction, u64)>,
}

pub(super) struct Party {
    pub(super) side: Side,
    pub(super) id: ChannelId,
    pub(super) store: MemoryStore,
    /// `None` while the process does not run.
    channel: Option<Channel>,
    inbox: Vec<Input>,
    pending: Vec<Pending>,
    link: u64,
    pub(super) turn_due: bool,
    pub(super) write_due: bool,
    pub(super) durable: Durable,
    pub(super) commits: u64,
    snapshots: Vec<MemoryStore>,
    /// The newest milestone that this process was shown.
    pub(super) seen: Option<u64>,
    pub(super) stale_until: u64,
    /// When the last outage or crash was over.
    pub(super) well_since: u64,
    /// Until then the process stands still.
    pub(super) paused_until: u64,
    pub(super) drops_in_a_row: u64,
    /// What it submitted last, and at which milestone.
    pub(super) submitted: Option<(TransactionId, u64)>,
    /// It came back with an old store at some time.
    pub(super) lost_records: bool,
    /// It will come back with an old store now.
    pub(super) is_put_back: bool,
    /// It never comes back.
    pub(super) gone: bool,
    /// From which milestone to which it was away for longer than a contest window.
    pub(super) away: Option<(u64, u64)>,
    /// The newest milestone that the machine was handed in this life.
    handed: u64,
    /// What it was handed last of the ledger.
    handed_view: Option<LedgerView>,
    /// How often it was taken out of memory and loaded again.
    pub(super) rests: u64,
    /// Payments under keys that its user has asked for, in this and in earlier lives.
    pub(super) keyed: BTreeMap<u64, Amount>,
    /// Those that this process has taken and not written yet.
    in_memory: Vec<u64>,
    /// Every balance that was ever held, with its ticks: what a hostile party closes with.
    pub(super) archive: Vec<Shown>,
    /// Every balance that it ever signed: what a hostile party claims in the place of a newer one.
    pub(super) own: Vec<Shown>,
}

impl Party {
    pub(super) fn new(channel: Channel, effects: Effects) -> Self {
        let (side, id) = (channel.agreement().side, channel.id());
        let durable = durable_of(&channel);
        Self {
            side,
            id,
            store: MemoryStore::new(),
            channel: Some(channel),
            inbox: Vec::new(),
            pending: vec![Pending { effects, link: 0, wanted: None }],
            link: 0,
            turn_due: false,
            write_due: false,
            durable,
            commits: 0,
            snapshots: Vec::new(),
            seen: None,
            stale_until: 0,
            well_since: 0,
            paused_until: 0,
            drops_in_a_row: 0,
            submitted: None,
            lost_records: false,
            is_put_back: false,
            gone: false,
            away: None,
            handed: 0,
            handed_view: None,
            rests: 0,
            keyed: BTreeMap::new(),
            in_memory: Vec::new(),
            archive: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Another party in the same state, with a disk of its own.
    pub(super) fn fork(&self) -> Self {
        Self {
            side: self.side,
            id: self.id,
            store: self.store.snapshot(),
            channel: self.channel.clone(),
            inbox: self.inbox.clone(),
            pending: self.pending.clone(),
            durable: self.durable.clone(),
            snapshots: self.snapshots.iter().map(MemoryStore::snapshot).collect(),
            keyed: self.keyed.clone(),
            in_memory: self.in_memory.clone(),
            archive: self.archive.clone(),
            own: self.own.clone(),
            ..*self
        }
    }

    /// Everything about it that can matter later, as text.
    pub(super) fn describe(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        let held = (self.archive.len(), self.own.len(), self.snapshots.len());
        write!(
            to,
            "{:?}{:?}{:?}{:?}{held:?}",
            self.channel,
            self.pending,
            self.durable,
            (self.link, self.seen)
        )
    }

    /// What it needs on the ledger now.
    pub(super) fn wanted(&self) -> Option<Transaction> {
        self.channel.as_ref()?.wanted().filter(|_| self.seen.is_some())
    }

    /// Whether anything waits for the disk that is more than nothing.
    pub(super) fn has_effects(&self) -> bool {
        self.pending
            .iter()
            .any(|pending| !pending.effects.batch.is_empty() || !pending.effects.after.is_empty())
    }

    /// Forgets what waits for the disk and is nothing.
    pub(super) fn drop_idle(&mut self) {
        self.pending.retain(|pending| !pending.effects.batch.is_empty() || !pending.effects.after.is_empty());
    }

    pub(super) const fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    pub(super) const fn is_up(&self) -> bool {
        self.channel.is_some()
    }

    pub(super) fn push(&mut self, input: Input) {
        if self.is_up() {
            self.inbox.push(input);
        }
    }

    /// The stream is gone, with all that it brought and that was not looked at yet.
    pub(super) fn disconnect(&mut self) {
        self.inbox.retain(|input| !matches!(input, Input::Message(_) | Input::Connected));
        self.push(Input::Disconnected);
    }

    /// Takes a channel at rest out of memory and loads it again: nobody must be able to tell.
    fn rest(&mut self, effects: &mut Effects) {
        let Some(channel) = self.channel.as_ref().filter(|_| self.pending.is_empty()) else { return };
        let Some(rest) = channel.at_rest(self.handed_view.as_ref()) else { return };
        if channel.clone().write_acknowledged() {
            return;
        }
        let (side, open, fresh) = (self.side, channel.agreement().open, channel.is_fresh());
        let Ok(mut loaded) = Channel::load(self.id, |_| setup::channel_key(side), &self.store) else {
            return;
        };
        loaded.wake(&rest);
        let view = rest.view(&open, self.handed).map(Input::Ledger);
        for input in view.into_iter().chain([Input::Fresh(fresh)]) {
            // Only messages can be wrong.
            let _ = loaded.handle(input, effects);
        }
        self.rests += 1;
        self.channel = Some(loaded);
    }

    /// Hands in what is there, at milestone `index`, and finishes. The first misbehaviour of the peer ends the stream.
    pub(super) fn turn(&mut self, link: u64, index: u64) -> Result<(), Misbehaviour> {
        let mut effects = Effects::default();
        self.rest(&mut effects);
        let Some(channel) = &mut self.channel else { return Ok(()) };
        let mut result = Ok(());
        // What came while the process stood still is not looked at by the clock of then.
        let is_fresh = |handed: u64| index <= handed + FRESH_MILESTONES;
        let aged = (!is_fresh(self.handed)).then_some(Input::Fresh(false));
        for input in aged.into_iter().chain(std::mem::take(&mut self.inbox)) {
            let input = match input {
                Input::Fresh(fresh) => Input::Fresh(fresh && is_fresh(self.handed)),
                input => input,
            };
            if let Input::Ledger(view) = &input {
                self.handed = self.handed.max(view.index);
                self.handed_view = Some(*view);
            }
            if result.is_err() && matches!(input, Input::Message(_)) {
                continue;
            }
            if matches!(input, Input::Connected) {
                // What was to be said on the old stream must not be said on the new one.
                channel.finish(&mut effects);
                let effects = std::mem::take(&mut effects);
                self.pending.push(Pending { effects, link: self.link, wanted: None });
                self.link = link;
            }
            if let Err(misbehaviour) = channel.handle(input, &mut effects) {
                result = Err(misbehaviour);
                // Cannot fail: it is no message.
                let _ = channel.handle(Input::Disconnected, &mut effects);
            }
        }
        channel.finish(&mut effects);
        if let Some(held) = channel.incoming().held.map(|held| (held, channel.incoming().ticks))
            && self.archive.last() != Some(&held)
        {
            self.archive.push(held);
        }
        if let Some(signed) = channel.outgoing().signed.map(|signed| (signed, channel.outgoing().ticks))
            && self.own.last() != Some(&signed)
        {
            self.own.push(signed);
        }
        let wanted = channel.wanted().zip(self.seen);
        self.pending.push(Pending { effects, link: self.link, wanted });
        result
    }

    pub(super) const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Commits everything that waits; what it held back may happen now. An error is a crash.
    pub(super) fn write(&mut self, fault: Option<Fault>) -> Result<Released, StoreError> {
        let mut batch = Batch::new();
        for pending in &mut self.pending {
            batch.append(&mut pending.effects.batch);
        }
        if !batch.is_empty() {
            self.commits += 1;
            if let Some(fault) = fault {
                self.store.fail_next(fault);
            }
        }
        let changed = !batch.is_empty();
        let _ = self.store.commit(&batch)?;
        if changed {
            self.read_back()?;
        }
        let mut released = Released { messages: Vec::new(), events: Vec::new(), wanted: None };
        for pending in self.pending.drain(..) {
            released.wanted = pending.wanted;
            for after in pending.effects.after {
                match after {
                    After::Send(message) => released.messages.push((pending.link, message)),
                    After::Event(event) => released.events.push(event),
                }
            }
        }
        Ok(released)
    }

    /// Reads from the disk what a process would find there.
    fn read_back(&mut self) -> Result<(), StoreError> {
        let side = self.side;
        let found = Channel::load(self.id, |_| setup::channel_key(side), &self.store.reopen())?;
        self.durable = durable_of(&found);
        let keep =
            |number: &u64| !matches!(tables::payment_under(&self.store, self.id, &key(*number)), Ok(Some(_)));
        self.in_memory.retain(keep);
        Ok(())
    }

    /// Keeps a copy of the store, to be restored one day.
    pub(super) fn keep_copy(&mut self) {
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            self.snapshots.remove(0);
        }
        self.snapshots.push(self.store.snapshot());
    }

    /// Whether there is a copy to restore.
    pub(super) const fn has_copy(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// The process dies.
    pub(super) fn crash(&mut self) {
        self.channel = None;
        self.inbox.clear();
        self.pending.clear();
        self.in_memory.clear();
        self.seen = None;
        self.handed = 0;
        self.handed_view = None;
        self.submitted = None;
    }

    /// Flips a bit somewhere on the disk, looks whether that is found on reading, and puts it right again.
    /// `None` if there is nothing on the disk.
    pub(super) fn finds_flipped_bit(&self, entry: usize, bit: usize) -> Option<bool> {
        let disk = self.store.reopen();
        if !disk.flip_any_bit(entry, bit) {
            return None;
        }
        let damaged =
            |error: &StoreError| matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. });
        let loaded = Channel::load(self.id, |_| setup::channel_key(self.side), &disk);
        let found = loaded.as_ref().is_err_and(damaged)
            || self.keyed.keys().any(|number| {
                tables::payment_under(&disk, self.id, &key(*number)).as_ref().is_err_and(damaged)
            })
            || loaded.as_ref().is_ok_and(|channel| {
                let durable = durable_of(channel);
                let lanes = [(Lane::Own, durable.signed_seq()), (Lane::Peers, durable.held_seq())];
                lanes.iter().any(|(lane, newest)| {
                    let kept = |seq| tables::kept(&disk, self.id, *lane, seq);
                    (1..=*newest).any(|seq| kept(seq).as_ref().is_err_and(damaged))
                }) || (1..=durable.signed_seq())
                    .any(|seq| tables::receipt_from(&disk, self.id, seq).as_ref().is_err_and(damaged))
            });
        disk.flip_any_bit(entry, bit);
        Some(found)
    }

    /// The process starts again with what the store holds; if it takes that for an old one, it notes that first.
    pub(super) fn restart(&mut self, doubts: bool) -> Result<(), StoreError> {
        let side = self.side;
        self.store = self.store.reopen();
        if doubts {
            let mut batch = Batch::new();
            tables::put_all_in_doubt(&self.store, &mut batch)?;
            let _durable = self.store.commit(&batch)?;
        }
        // Before the very first commit there is no channel: it is agreed on again.
        let channel = Channel::load(self.id, |_| setup::channel_key(side), &self.store)?;
        self.durable = durable_of(&channel);
        self.channel = Some(channel);
        Ok(())
    }

    /// The process dies and an old copy of its directory is put in the place of the newest. False if
    /// there is none.
    pub(super) fn lose_records(&mut self, which: u64) -> bool {
        let at = usize::try_from(which).unwrap_or(0).min(self.snapshots.len().saturating_sub(1));
        let Some(old) = self.snapshots.get(at) else { return false };
        self.store = old.snapshot();
        self.crash();
        (self.lost_records, self.is_put_back) = (true, true);
        true
    }

    /// The user pays; a key makes it happen once.
    pub(super) fn pay(&mut self, number: u64, amount: Amount, keyed: bool) -> Option<Result<u64, PayError>> {
        let key = keyed.then(|| key(number));
        if let Some(key) = &key {
            self.keyed.insert(number, amount);
            let stored = tables::payment_under(&self.store, self.id, key).ok().flatten();
            if stored.is_some() || self.in_memory.contains(&number) {
                return None;
            }
        }
        let payment = Payment { amount, reference: Reference::new(&number.to_be_bytes()).ok()? };
        let paid = self.channel.as_mut()?.pay(payment, key);
        if paid.is_ok() && keyed {
            self.in_memory.push(number);
        }
        Some(paid)
    }

    /// The user pays by ticks.
    pub(super) fn tick(&mut self, unit: Amount, count: u32) -> Option<Result<u64, PayError>> {
        Some(self.channel.as_mut()?.tick(unit, count, None))
    }

    /// Payments that waited were given up.
    pub(super) fn not_made(&mut self) {
        self.in_memory.clear();
    }

    /// Whether all that the machine knows is on the disk.
    pub(super) fn is_written(&self) -> bool {
        let Some(channel) = &self.channel else { return true };
        self.has_pending()
            || (channel.incoming() == &self.durable.incoming
                && channel.outgoing().signed == self.durable.outgoing.signed
                && channel.outgoing().ticks == self.durable.outgoing.ticks
                && channel.outgoing().payments == self.durable.outgoing.payments
                && channel.locked() == &self.durable.locked
                && channel.phase() == &self.durable.phase)
    }
}

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn durable_of(channel: &Channel) -> Durable {
    Durable {
        phase: channel.phase().clone(),
        outgoing: *channel.outgoing(),
        incoming: *channel.incoming(),
        locked: channel.locked().clone(),
        known: channel.balances_known(),
        in_doubt: channel.doubt().is_some(),
    }
}
