//! Two parties step by step: whoever drives them chooses each step. The model checker chooses all of them, in every
//! order; the fuzzer chooses by the bytes of its input, and so can anybody who writes a sequence down.
//!
//! The parties, the ledger and the oracle are those of the simulation; there are no ticks and no chance. A stream
//! delivers in order and whole until it breaks. An honest party is never more than [`LAG_MAX`] milestones behind:
//! until it has seen the newest and done what it must, the ledger does not go on.

mod step;
mod tower;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use flash_channel::{
    machine::{Channel, Effects, Input, Phase},
    store::Fault,
};
use flash_proto::{Amount, ChannelPhase, NetworkId, Side, TransactionId, message::ChannelMessage};
pub use step::{Budget, Step};

use super::{
    faults::Plan,
    hostile,
    ledger::{By, Ledger},
    oracle::Oracle,
    party::Party,
    rng::Rng,
    setup,
    tower::Watchtower,
};

/// Milestones that an honest party may be behind.
const LAG_MAX: u64 = 2;
/// Copies of a disk that can be restored later.
const COPIES_MAX: u64 = 2;

/// More steps than opening takes.
const OPENING_STEPS_MAX: usize = 100;

/// Two parties, a stream and a ledger.
pub struct Duel {
    network: NetworkId,
    left: Budget,
    hostile: Option<Side>,
    parties: [Arc<Party>; 2],
    /// What each side needs on the ledger, and a hash of all that it is once somebody asks.
    wanted: [Option<TransactionId>; 2],
    digests: [OnceLock<u64>; 2],
    /// Messages on their way to A and to B.
    wires: [Vec<ChannelMessage>; 2],
    connected: bool,
    links: u64,
    ledger: Arc<Ledger>,
    oracle: Oracle,
    /// The milestone at which each side had seen and done everything last.
    well: [u64; 2],
    /// Whether each side had while it could still claim.
    was_there: [bool; 2],
    watched: Option<Watched>,
    paid_out: bool,
}

/// The watchtower of A.
#[derive(Clone)]
struct Watched {
    tower: Arc<Watchtower>,
    /// What it has confirmed.
    confirmed: Amount,
    /// What it had confirmed when it last saw a contest in which it could still claim.
    owed: Amount,
    /// The milestone at which it had seen and done everything last.
    well: u64,
    /// It has claimed something.
    claimed: bool,
    /// A is away.
    alone: bool,
}

impl Clone for Duel {
    fn clone(&self) -> Self {
        Self {
            parties: self.parties.clone(),
            digests: self.digests.clone(),
            wires: self.wires.clone(),
            ledger: Arc::clone(&self.ledger),
            oracle: self.oracle.clone(),
            watched: self.watched.clone(),
            ..*self
        }
    }
}

impl Duel {
    /// Both have agreed on the channel and written that down; nothing was said yet. B is hostile if the budget says so.
    pub fn new(deposits: [u64; 2], budget: Budget) -> Self {
        let hostile = (budget.hostile > 0).then_some(Side::B);
        let plan = Plan { hostile, ..Plan::small(deposits) };
        let params = setup::params();
        let (network, mut oracle) = (params.id(), Oracle::new(params.id(), &plan));
        let parties = setup::agreements(&params, &plan).map(|agreement| {
            let mut effects = Effects::default();
            let key = setup::channel_key(agreement.side);
            let mut party = Party::new(Channel::new(agreement, key, &mut effects), effects);
            oracle.require(party.write(None).is_ok(), || "I13: the first commit fails".into());
            Arc::new(party)
        });
        let [a, _] = &parties;
        let watched = (budget.hands > 0).then(|| Watched::new(network, a.id));
        let ledger = Arc::new(Ledger::new(params, a.id));
        Self {
            network,
            left: budget,
            hostile,
            parties,
            wanted: [None; 2],
            digests: Default::default(),
            wires: [Vec::new(), Vec::new()],
            connected: false,
            links: 0,
            ledger,
            oracle,
            well: [0; 2],
            was_there: [false; 2],
            watched,
            paid_out: false,
        }
    }

    /// The same with the channel open on the ledger, both connected and everything said; the budget counts from here.
    pub fn opened(deposits: [u64; 2], budget: Budget) -> Self {
        let mut duel = Self::new(deposits, budget);
        let ready = |duel: &Self| duel.is_at_rest() && duel.ledger.newest().record.is_some();
        for _ in 0..OPENING_STEPS_MAX {
            let due = |step: &Step| step.is_due() || *step == Step::Milestone;
            match duel.steps().into_iter().rev().find(due) {
                Some(step) if !ready(&duel) => duel.take(step),
                _ => break,
            }
        }
        duel.left = budget;
        duel
    }

    fn party(&self, side: Side) -> &Party {
        let [a, b] = &self.parties;
        side.pick(a, b)
    }

    /// The party, to be changed: a copy of its own if others look at this one.
    fn party_mut(&mut self, side: Side) -> &mut Party {
        let [a, b] = &mut self.parties;
        let party = side.pick(a, b);
        if Arc::get_mut(party).is_none() {
            *party = Arc::new(party.fork());
        }
        // Nobody else has what was made just now.
        Arc::get_mut(party).expect("a party of one's own")
    }

    fn wire(&mut self, to: Side) -> &mut Vec<ChannelMessage> {
        let [a, b] = &mut self.wires;
        to.pick(a, b)
    }

    /// Whether neither side lies.
    pub const fn is_honest(&self) -> bool {
        self.hostile.is_none()
    }

    fn is_hostile(&self, side: Side) -> bool {
        self.hostile == Some(side)
    }

    /// What was broken, if anything was.
    pub fn violation(&self) -> Option<&str> {
        self.oracle.violation()
    }

    /// From here on there may be so much of everything.
    pub const fn allow(&mut self, budget: Budget) {
        self.left = budget;
    }

    /// Whether the ledger has paid out, or this side knows that it never will.
    pub fn is_over(&self, side: Side) -> bool {
        self.paid_out || self.party(side).channel().is_some_and(|it| *it.phase() == Phase::Lapsed)
    }

    /// Whether the ledger has paid out.
    pub const fn is_paid_out(&self) -> bool {
        self.paid_out
    }

    /// Whether the ledger shows that one side closes alone.
    pub fn is_contested(&self) -> bool {
        let record = self.ledger.newest().record;
        record.is_some_and(|record| record.phase != ChannelPhase::Open)
    }

    /// Payments that both sides know to be on the other's disk.
    pub fn acknowledged(&self) -> u64 {
        let of = |side| self.party(side).channel().map_or(0, |it| it.outgoing().acknowledged_payments);
        Side::BOTH.into_iter().map(of).sum()
    }

    /// Whether both are connected, nothing is under way and nothing waits.
    pub fn is_at_rest(&self) -> bool {
        let idle = |side| {
            let party = self.party(side);
            party.channel().is_some_and(Channel::is_established) && !party.has_effects()
        };
        self.connected && self.wires.iter().all(Vec::is_empty) && Side::BOTH.into_iter().all(idle)
    }

    /// I8: at rest both agree on both lanes, and everything is acknowledged.
    pub fn agrees(&self) -> bool {
        let [Some(a), Some(b)] = Side::BOTH.map(|side| self.party(side).channel()) else { return true };
        let used = |it: &Channel| matches!(it.phase(), Phase::Open | Phase::ClosingTogether { .. });
        if self.hostile.is_some() || !used(a) || !used(b) || a.paused().is_some() || b.paused().is_some() {
            return true;
        }
        let done = |it: &Channel| {
            it.queued() == 0
                && it.outgoing().acknowledged == it.outgoing().signed.map_or(0, |it| it.state.seq)
        };
        a.outgoing().signed == b.incoming().held
            && b.outgoing().signed == a.incoming().held
            && done(a)
            && done(b)
    }

    /// All steps that are possible now.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.paid_out && !Side::BOTH.into_iter().any(|side| self.has_work(side)) {
            return steps;
        }
        for side in Side::BOTH {
            self.steps_of(side, &mut steps);
        }
        let up = Side::BOTH.into_iter().all(|side| self.party(side).is_up());
        if self.connected && self.left.breaks > 0 {
            steps.push(Step::Break);
        }
        if !self.connected && up {
            steps.push(Step::Connect);
        }
        // A, or its watchtower in its place.
        let is_looked_after = |side| self.keeps_up(side) || (side == Side::A && self.tower_keeps_up());
        if self.left.milestones > 0 && Side::BOTH.into_iter().all(is_looked_after) {
            steps.push(Step::Milestone);
        }
        self.steps_of_tower(&mut steps);
        steps.sort_by_key(|step| step.progress());
        self.hostile_steps(&mut steps);
        steps
    }

    /// In their place among steps that are sorted: there are many.
    fn hostile_steps(&self, steps: &mut Vec<Step>) {
        if self.hostile.is_none() || self.left.hostile == 0 {
            return;
        }
        let (says, publishes) = (self.connected, self.ledger.newest().record.is_some());
        let mut rest = steps.split_off(steps.partition_point(|step| step.progress() == 0));
        steps.reserve(2 * usize::from(self.left.hostile_kinds) + rest.len());
        for kind in 0..self.left.hostile_kinds {
            if says {
                steps.push(Step::Say(kind));
            }
            if publishes {
                steps.push(Step::Publish(kind));
            }
        }
        steps.append(&mut rest);
    }

    fn steps_of(&self, side: Side, steps: &mut Vec<Step>) {
        let [to_a, to_b] = &self.wires;
        let (party, left) = (self.party(side), &self.left);
        let Some(channel) = party.channel() else {
            if side == Side::B || !self.tower_is_alone() {
                steps.push(Step::Restart(side));
            }
            return;
        };
        if !side.pick(to_a, to_b).is_empty() {
            steps.push(Step::Deliver(side));
        }
        if self.has_work(side) {
            steps.push(Step::Commit(side));
        }
        if left.crashes > 0 {
            steps.push(Step::Crash(side, false));
            if party.has_effects() {
                steps.push(Step::Crash(side, true));
            }
        }
        if party.seen != Some(self.ledger.index()) {
            steps.push(Step::See(side));
        }
        let open = *channel.phase() == Phase::Open;
        if left.payments > 0 && open && channel.is_established() && !channel.available().is_zero() {
            steps.push(Step::Pay(side, false));
            steps.push(Step::Pay(side, true));
        }
        if left.closes > 0 && open {
            if !channel.wants_close() {
                steps.push(Step::Close(side));
            }
            steps.push(Step::CloseAlone(side));
        }
        if left.restores > 0 {
            steps.push(if party.has_copy() { Step::Restore(side) } else { Step::Copy(side) });
        }
    }

    /// Whether something waits to be written, or to be brought to the ledger.
    fn has_work(&self, side: Side) -> bool {
        let [a, b] = self.wanted;
        let missing = || side.pick(a, b).is_some_and(|wanted| !self.ledger.waits(wanted));
        self.party(side).is_up() && (self.party(side).has_effects() || missing())
    }

    fn keeps_up(&self, side: Side) -> bool {
        let [a, b] = self.well;
        self.is_hostile(side) || self.is_well(side) || self.ledger.index() < side.pick(a, b) + LAG_MAX
    }

    fn is_well(&self, side: Side) -> bool {
        self.party(side).is_up() && self.party(side).seen == Some(self.ledger.index()) && !self.has_work(side)
    }

    /// Takes a step. One that is not possible now changes nothing.
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Pay(side, all) => self.pay(side, all),
            Step::Deliver(side) => {
                if !self.wire(side).is_empty() {
                    let message = self.wire(side).remove(0);
                    self.input(side, Input::Message(message));
                }
            }
            Step::Commit(side) => self.commit(side, None),
            Step::Crash(side, written) => {
                self.left.crashes = self.left.crashes.saturating_sub(1);
                self.commit(side, Some(if written { Fault::CrashAfter } else { Fault::CrashBefore }));
            }
            Step::Restart(side) => self.restart(side),
            Step::Connect => {
                self.connected = true;
                self.links += 1;
                for side in Side::BOTH {
                    self.input(side, Input::Connected);
                }
            }
            Step::Break => {
                self.left.breaks = self.left.breaks.saturating_sub(1);
                self.disconnect();
            }
            Step::Milestone => self.milestone(),
            Step::Hand => self.hand(),
            Step::Watch => self.watch(),
            Step::Leave(leaves) => self.leave(leaves),
            Step::Outage(begins) => self.outage(begins),
            Step::See(side) => self.see(side),
            Step::Close(side) | Step::CloseAlone(side) => {
                self.left.closes = self.left.closes.saturating_sub(1);
                let alone = matches!(step, Step::CloseAlone(_));
                self.input(side, if alone { Input::CloseAlone } else { Input::Close });
            }
            Step::Publish(kind) => self.publish(kind),
            Step::Say(kind) => {
                self.left.hostile = self.left.hostile.saturating_sub(1);
                let said = hostile::message(self.party(Side::B), self.network, &mut Rng::new(kind.into()));
                if self.connected {
                    self.wire(Side::A).extend(said);
                }
            }
            Step::Copy(side) => {
                self.party_mut(side).keep_copy();
                self.changed(side);
            }
            Step::Restore(side) => {
                self.left.restores = self.left.restores.saturating_sub(1);
                if self.party_mut(side).lose_records(COPIES_MAX) {
                    self.oracle.lost_records(side);
                    self.disconnect();
                    self.changed(side);
                }
            }
        }
        self.look_well();
        if self.is_at_rest() {
            let agrees = self.agrees();
            self.oracle.require(agrees, || "I8: the parties disagree at rest".into());
        }
    }

    fn see(&mut self, side: Side) {
        let view = self.ledger.newest();
        self.party_mut(side).seen = Some(view.index);
        self.party_mut(side).push(Input::Ledger(view));
        self.input(side, Input::Fresh(true));
    }

    fn publish(&mut self, kind: u8) {
        self.left.hostile = self.left.hostile.saturating_sub(1);
        let transaction = hostile::on_ledger(self.party(Side::B), self.network, &mut Rng::new(kind.into()));
        let from = self.ledger.index() + 1;
        Arc::make_mut(&mut self.ledger).submit(By::Party(Side::B), transaction, from);
    }

    fn look_well(&mut self) {
        let well = Side::BOTH.map(|side| self.is_well(side));
        let claims_in_time = self.claims_in_time();
        for ((at, there), well) in self.well.iter_mut().zip(&mut self.was_there).zip(well) {
            if well {
                *at = self.ledger.index();
                *there |= claims_in_time;
            }
        }
    }

    /// Whether the ledger shows a contest, and a claim that is submitted now counts.
    fn claims_in_time(&self) -> bool {
        let phase = self.ledger.newest().record.map(|record| record.phase);
        matches!(phase, Some(ChannelPhase::Closing { deadline, .. }) if self.ledger.index() < deadline)
    }

    fn pay(&mut self, side: Side, all: bool) {
        self.left.payments = self.left.payments.saturating_sub(1);
        let Some(channel) = self.party(side).channel() else { return };
        let available = channel.available();
        let amount = if all { available } else { Amount::new(1) };
        let number = u64::from(self.left.payments) + 1;
        if let Some(Ok(_)) = self.party_mut(side).pay(number, amount, false) {
            self.oracle.require(amount <= available, || format!("I2: {side} pays more than it owns"));
            self.oracle.asked(side, number, amount);
            self.turn(side);
        }
    }

    fn input(&mut self, side: Side, input: Input) {
        if self.party(side).is_up() {
            self.party_mut(side).push(input);
            self.turn(side);
        }
    }

    fn turn(&mut self, side: Side) {
        let link = self.links;
        let index = self.ledger.index();
        let refused = self.party_mut(side).turn(link, index).is_err();
        self.party_mut(side).drop_idle();
        self.changed(side);
        if refused {
            let lost = Side::BOTH.into_iter().any(|side| self.party(side).lost_records);
            let faultless = self.hostile.is_none() && !lost;
            self.oracle.require(!faultless, || format!("{side} refuses an honest peer"));
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.wires = [Vec::new(), Vec::new()];
            for side in Side::BOTH {
                self.input(side, Input::Disconnected);
            }
        }
    }

    fn commit(&mut self, side: Side, fault: Option<Fault>) {
        let index = self.ledger.index();
        if !self.party(side).is_up() {
            return;
        }
        let released = self.party_mut(side).write(fault);
        let (Ok(released), None) = (released, fault) else {
            self.party_mut(side).crash();
            self.changed(side);
            self.disconnect();
            return;
        };
        self.changed(side);
        let written = self.party(side).is_written();
        self.oracle.require(written, || format!("I10: {side} knows more than it writes"));
        let [a, b] = &self.parties;
        let durable = &side.pick(a, b).durable;
        self.oracle.durable(side, durable, index, Some(index));
        for event in &released.events {
            self.oracle.told(side, event, index);
        }
        for (link, message) in released.messages {
            self.oracle.leaves(side, &message, durable, index);
            if self.connected && link == self.links {
                let [to_a, to_b] = &mut self.wires;
                side.pick(to_b, to_a).push(message);
            }
        }
        if let Some(wanted) = self.party(side).wanted().filter(|wanted| !self.ledger.waits(wanted.id())) {
            let taken = Arc::make_mut(&mut self.ledger).submit(By::Party(side), wanted, index + 1);
            self.oracle.require(taken, || format!("{side} submits a transaction that no node takes"));
        }
    }

    fn restart(&mut self, side: Side) {
        let started = self.party_mut(side).restart(false);
        self.oracle.require(started.is_ok(), || format!("I13: {side} cannot read its store"));
        let index = self.ledger.index();
        let put_back = std::mem::take(&mut self.party_mut(side).is_put_back);
        let [a, b] = &self.parties;
        let durable = &side.pick(a, b).durable;
        if put_back {
            self.oracle.starts_with(side, durable);
        }
        self.oracle.durable(side, durable, index, Some(index));
        self.changed(side);
    }

    fn milestone(&mut self) {
        self.left.milestones = self.left.milestones.saturating_sub(1);
        let ledger = Arc::make_mut(&mut self.ledger);
        let shown = ledger.newest().record.map(|record| record.lane(Side::B).cumulative);
        let confirmed = ledger.milestone(false);
        let (index, money, payouts) = (ledger.index(), ledger.money(), ledger.newest().payouts);
        self.oracle.milestone(index, &confirmed, money);
        if let Some(payouts) = payouts.filter(|_| !self.paid_out) {
            self.paid_out = true;
            let absent = self.was_there.map(|there| self.watched.is_some() && !there);
            self.oracle.paid_out(index, payouts, [Amount::ZERO; 2], absent);
            self.check_tower(shown);
        }
    }

    /// The party is another one now.
    fn changed(&mut self, side: Side) {
        let id = self.party(side).wanted().map(|wanted| wanted.id());
        let [wanted_a, wanted_b] = &mut self.wanted;
        *side.pick(wanted_a, wanted_b) = id;
        let [digest_a, digest_b] = &mut self.digests;
        *side.pick(digest_a, digest_b) = OnceLock::new();
    }

    fn digest(&self, side: Side) -> u64 {
        let [a, b] = &self.digests;
        *side.pick(a, b).get_or_init(|| {
            let mut digest = Digest(DefaultHasher::new());
            // Writing to a hash cannot fail.
            let _ = self.party(side).describe(&mut digest);
            digest.0.finish()
        })
    }
}

/// Hashes what is written.
struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Equal hashes are equal states, for a model checker: everything that can matter later goes in.
impl Hash for Duel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let view = self.ledger.newest();
        self.left.hash(state);
        Side::BOTH.map(|side| self.digest(side)).hash(state);
        (self.connected, self.paid_out, self.well, self.was_there, view.index).hash(state);
        self.hash_tower(state);
        let mut digest = Digest(DefaultHasher::new());
        let waiting: Vec<_> = self.ledger.waiting().collect();
        // Writing to a hash cannot fail.
        let _ = fmt::Write::write_fmt(
            &mut digest,
            format_args!("{:?}{view:?}{waiting:?}{:?}", self.wires, self.oracle),
        );
        digest.0.finish().hash(state);
    }
}

impl PartialEq for Duel {
    fn eq(&self, other: &Self) -> bool {
        let hash = |duel: &Self| {
            let mut hasher = DefaultHasher::new();
            duel.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

impl fmt::Debug for Duel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = Side::BOTH.map(|side| self.party(side).durable.phase.clone());
        f.debug_struct("Duel")
            .field("milestone", &self.ledger.index())
            .field("phases", &phases)
            .field("wires", &self.wires)
            .field("violation", &self.violation())
            .finish_non_exhaustive()
    }
}
