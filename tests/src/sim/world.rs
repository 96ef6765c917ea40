//! The queue of events and what each does. Nothing else in the simulation knows what time it is.

use std::{cmp::Reverse, collections::BinaryHeap};

use flash_channel::{
    machine::{Channel, ChannelEvent, Effects, Input},
    store::Fault,
};
use flash_node_client::ledger::Conflict;
use flash_proto::{Action, ChannelPhase, NetworkId, Side, Transaction, codec, message::ChannelMessage};

use super::{
    faults::{
        DROPS_IN_A_ROW_MAX, FRESH_MILESTONES, INCLUSION_MILESTONES_MAX, MILESTONE_TICKS,
        OUTAGE_MILESTONES_MAX, OUTAGE_REST_MILESTONES, Plan,
    },
    hostile,
    ledger::Ledger,
    link::Link,
    oracle::Oracle,
    party::Party,
    report::{Outcome, Stats, Trace},
    rng::Rng,
    setup,
};

/// Something that happens at a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The next milestone.
    Milestone,
    /// A party is shown a milestone.
    View(Side, u64),
    /// A message of a stream arrives.
    Arrives(Side, u64, ChannelMessage),
    /// A party looks at what came in.
    Turn(Side),
    /// A party's commit is done.
    Write(Side),
    /// A user acts.
    User(Side),
    /// The hostile party acts.
    Hostile(Side),
    /// A new stream, if both are there.
    Connect,
    /// A party's process starts again.
    Restart(Side),
}

/// An event in the queue: earlier ticks first, then in the order of their making.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Due {
    at: u64,
    order: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Due>>,
    network: NetworkId,
    pub(super) ledger: Ledger,
    parties: [Party; 2],
    link: Link,
    pub(super) oracle: Oracle,
    pub(super) stats: Stats,
    trace: Trace,
    /// Payments asked for so far: their references.
    pub(super) payments: u64,
    /// Until then the hostile party says nothing.
    silent_until: u64,
    pub(super) paid_out: bool,
    pub(super) closed_together: bool,
}

/// Runs a plan to its end, or to the first invariant that is broken.
pub fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    world.start();
    while world.oracle.violation().is_none() && !world.is_over() {
        let Some(Reverse(due)) = world.queue.pop() else { break };
        world.now = due.at;
        world.happens(due.event);
    }
    world.check_over();
    world.stats.count("runs");
    world.stats.add("milestones", world.ledger.index());
    let commits = Side::BOTH.map(|side| world.party(side).commits);
    Outcome {
        violation: world.oracle.into_violation(),
        trace: world.trace.hash(),
        stats: world.stats,
        commits,
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let params = setup::params();
        let network = params.id();
        let parties = setup::agreements(&params, &plan).map(|agreement| {
            let mut effects = Effects::default();
            let key = setup::channel_key(agreement.side);
            Party::new(Channel::new(agreement, key, &mut effects), effects)
        });
        let [a, _] = &parties;
        let ledger = Ledger::new(params, a.id);
        let deposits = Side::BOTH.map(|side| plan.deposit(side));
        Self {
            // Not the stream of numbers from which the plan was drawn.
            rng: Rng::new(!plan.seed),
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            network,
            ledger,
            parties,
            link: Link::new(),
            oracle: Oracle::new(network, deposits, plan.hostile),
            stats: Stats::default(),
            trace: Trace::new(plan.print),
            payments: 0,
            silent_until: 0,
            paid_out: false,
            closed_together: false,
            plan,
        }
    }

    /// Both have the channel on their disk before either says anything.
    fn start(&mut self) {
        for side in Side::BOTH {
            let written = self.party_mut(side).write(None);
            self.oracle.require(written.is_ok(), || "I13: the first commit fails".into());
            self.later(1, Event::User(side));
            if self.plan.is_hostile(side) {
                self.later(MILESTONE_TICKS, Event::Hostile(side));
            }
        }
        self.later(1, Event::Connect);
        self.later(MILESTONE_TICKS, Event::Milestone);
    }

    pub(super) const fn party(&self, side: Side) -> &Party {
        let [a, b] = &self.parties;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    pub(super) fn party_mut(&mut self, side: Side) -> &mut Party {
        let [a, b] = &mut self.parties;
        side.pick(a, b)
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, event }));
    }

    fn happens(&mut self, event: Event) {
        if !matches!(event, Event::Turn(_)) {
            self.trace.line(self.now, format_args!("{event:?}"));
        }
        self.trace.add(&self.now.to_le_bytes());
        match event {
            Event::Milestone => self.milestone(),
            Event::View(side, index) => self.shows(side, index),
            Event::Arrives(side, link, message) => {
                if self.link.up && link == self.link.number {
                    self.input(side, Input::Message(message));
                } else {
                    self.stats.count("messages_lost");
                }
            }
            Event::Turn(side) => self.turn(side),
            Event::Write(side) => self.write(side),
            Event::User(side) => {
                self.user_acts(side);
                let ticks = self.rng.between(1, self.plan.pace);
                if !self.is_calm() {
                    self.later(ticks, Event::User(side));
                }
            }
            Event::Hostile(side) => self.hostile_acts(side),
            Event::Connect => self.connect(),
            Event::Restart(side) => self.restart(side),
        }
    }

    /// Something for a party to look at soon.
    pub(super) fn input(&mut self, side: Side, input: Input) {
        self.party_mut(side).push(input);
        self.turn_soon(side);
    }

    pub(super) fn turn_soon(&mut self, side: Side) {
        if self.party(side).is_up() && !self.party(side).turn_due {
            self.party_mut(side).turn_due = true;
            let ticks = self.rng.below(3);
            self.later(ticks, Event::Turn(side));
        }
    }

    fn turn(&mut self, side: Side) {
        self.party_mut(side).turn_due = false;
        let link = self.link.number;
        if let Err(misbehaviour) = self.party_mut(side).turn(link) {
            self.stats.count("messages_refused");
            self.trace.line(self.now, format_args!("{side} refuses: {misbehaviour}"));
            let faultless = self.plan.hostile.is_none()
                && self.plan.corrupt == 0
                && !self.is_calm()
                && self.plan.reorder == 0
                && self.plan.old_store.is_none();
            self.oracle.require(!faultless, || format!("{side} refuses an honest peer: {misbehaviour}"));
            let ticks = self.rng.between(5, 40);
            self.break_link(ticks);
        }
        if self.party(side).has_pending() && !self.party(side).write_due {
            self.party_mut(side).write_due = true;
            let ticks = self.rng.below(self.plan.commit_ticks + 1);
            self.later(ticks, Event::Write(side));
        }
    }

    /// A fault for the commit that is due, if there is to be one.
    fn fault(&mut self, side: Side) -> Option<Fault> {
        if let Some((at, commit, fault)) = self.plan.crash_at
            && at == side
            && commit == self.party(side).commits + 1
        {
            return Some(fault);
        }
        let rested = self.now >= self.party(side).well_since + 2 * MILESTONE_TICKS;
        if rested && self.rng.chance(self.plan.crashes) {
            let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashAfter, Fault::Full, Fault::Io];
            return self.rng.pick(&faults).copied();
        }
        None
    }

    fn write(&mut self, side: Side) {
        self.party_mut(side).write_due = false;
        if !self.party(side).is_up() {
            return;
        }
        let fault = self.fault(side);
        let commits = self.party(side).commits;
        let Ok(released) = self.party_mut(side).write(fault) else {
            self.stats.count(match fault {
                Some(Fault::CrashBefore) => "crashes_before_the_write",
                Some(Fault::CrashAfter) => "crashes_after_the_write",
                Some(Fault::Full) => "disks_full",
                Some(Fault::Io) => "disk_errors",
                None => "stores_broken",
            });
            self.oracle.require(fault.is_some(), || format!("I13: the store of {side} fails by itself"));
            let ticks = self.downtime(side);
            self.crash(side, ticks);
            return;
        };
        if self.party(side).commits > commits {
            self.stats.count("commits");
            let written = self.party(side).is_written();
            self.oracle.require(written, || format!("I10: {side} knows more than it writes"));
            self.check_disk(side);
            if self.plan.old_store == Some(side) && self.rng.chance(10) {
                self.party_mut(side).keep_copy();
            }
        }
        for event in &released.events {
            self.trace.line(self.now, format_args!("{side} {event:?}"));
            self.oracle.told(side, event);
            if matches!(event, ChannelEvent::NotMade { .. }) {
                self.party_mut(side).not_made();
            }
            if matches!(event, ChannelEvent::Recovered { .. }) {
                self.stats.count("records_recovered");
            }
        }
        for (link, message) in released.messages {
            self.send(side, link, message);
        }
        if let Some((transaction, seen)) = released.wanted {
            self.submit(side, transaction, seen);
        }
    }

    fn check_disk(&mut self, side: Side) {
        let index = self.ledger.index();
        let durable = self.party(side).durable.clone();
        self.oracle.durable(side, &durable, index);
    }

    fn send(&mut self, side: Side, link: u64, message: ChannelMessage) {
        let index = self.ledger.index();
        let [a, b] = &self.parties;
        self.oracle.leaves(side, &message, &side.pick(a, b).durable, index);
        self.trace.add(&codec::encode(&message));
        if !self.link.up || link != self.link.number {
            self.stats.count("messages_lost");
            return;
        }
        let mut message = message;
        if self.plan.is_hostile(side) && self.now < self.silent_until {
            self.stats.count("messages_withheld");
            return;
        }
        if self.plan.is_hostile(side) && self.rng.chance(10) {
            let [a, b] = &self.parties;
            if let Some(bad) = hostile::message(side.pick(a, b), self.network, &mut self.rng) {
                self.stats.count("hostile_messages");
                message = bad;
            }
        }
        self.deliver(side, message);
        if self.rng.below(1_000) < self.plan.breaks {
            self.stats.count("links_broken");
            let ticks = self.rng.between(1, 30);
            self.break_link(ticks);
        }
    }

    fn deliver(&mut self, from: Side, message: ChannelMessage) {
        if let ChannelMessage::Update(_) = message {
            self.stats.count("updates_sent");
        }
        let faults = (&self.plan, &mut self.rng, &mut self.stats);
        let arrivals = self.link.carry(from, message, self.now, faults);
        let link = self.link.number;
        for (at, message) in arrivals {
            self.schedule(at, Event::Arrives(!from, link, message));
        }
    }

    /// The stream ends on both sides; a new one is tried later.
    pub(super) fn break_link(&mut self, ticks: u64) {
        if self.link.up {
            self.link.up = false;
            for side in Side::BOTH {
                self.party_mut(side).disconnect();
                self.turn_soon(side);
            }
        }
        self.later(ticks, Event::Connect);
    }

    fn connect(&mut self) {
        if self.link.up || !Side::BOTH.into_iter().all(|side| self.party(side).is_up()) {
            return;
        }
        self.link.connect();
        self.stats.count("connections");
        for side in Side::BOTH {
            self.input(side, Input::Connected);
        }
    }

    /// How long a process is down, within what an honest party may suffer.
    fn downtime(&mut self, side: Side) -> u64 {
        let rested = self.now >= self.party(side).well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if rested && self.rng.chance(10) {
            return OUTAGE_MILESTONES_MAX * MILESTONE_TICKS;
        }
        self.rng.between(1, MILESTONE_TICKS)
    }

    pub(super) fn crash(&mut self, side: Side, ticks: u64) {
        if self.plan.old_store == Some(side) && self.rng.chance(60) {
            let which = self.rng.below(8);
            if self.party_mut(side).lose_records(which) {
                self.stats.count("old_stores_restored");
                self.oracle.lost_records(side);
                self.plan.old_store = None;
            }
        }
        self.party_mut(side).crash();
        self.break_link(ticks + 1);
        if !self.party(side).gone {
            self.party_mut(side).well_since = self.now + ticks;
            self.later(ticks, Event::Restart(side));
        }
    }

    fn restart(&mut self, side: Side) {
        if self.party(side).gone || self.party(side).is_up() {
            return;
        }
        self.stats.count("restarts");
        let restarted = self.party_mut(side).restart();
        self.oracle
            .require(restarted.is_ok(), || format!("I13: {side} cannot read its store: {restarted:?}"));
        self.check_disk(side);
        self.check_claim(side);
        let index = self.ledger.index();
        self.later(1, Event::View(side, index));
        self.later(2, Event::Connect);
    }

    /// I4: what the disk holds is what the ledger takes.
    fn check_claim(&mut self, side: Side) {
        if let Some(held) = self.party(side).durable.incoming.held {
            let essence = flash_proto::Essence::acting(self.network, Action::Claim(held.state));
            let key = setup::channel_key(!side).public();
            let unlocks = vec![flash_proto::Unlock { key, signature: held.signature }];
            let good = self.ledger.is_wellformed(Transaction { essence, unlocks });
            self.oracle.require(good, || format!("I4: {side} cannot claim {held:?}"));
        }
    }

    fn milestone(&mut self) {
        let confirmed = self.ledger.milestone(self.plan.censored_closes);
        let money = self.ledger.money();
        self.oracle.milestone(&confirmed, money);
        for it in &confirmed {
            self.trace.line(
                self.now,
                format_args!("{} {} {:?}", it.by, it.transaction.essence.action.name(), it.conflict),
            );
            self.stats.count(if it.conflict.is_some() { "transactions_in_vain" } else { "transactions" });
            let applied = it.conflict.is_none();
            if applied && matches!(it.transaction.essence.action, Action::Claim(_)) {
                self.stats.count("claims");
            }
            if applied && matches!(it.transaction.essence.action, Action::CooperativeClose(_)) {
                self.closed_together = true;
            }
        }
        self.check_payout();
        let index = self.ledger.index();
        for side in Side::BOTH {
            self.see_soon(side, index);
        }
        self.next_stage();
        self.later(MILESTONE_TICKS, Event::Milestone);
    }

    /// A party will be shown the milestone, sometimes late; its clock goes on in any case.
    fn see_soon(&mut self, side: Side, index: u64) {
        let rested = self.now >= self.party(side).well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if rested && self.rng.chance(self.plan.stale) {
            self.stats.count("views_gone");
            let until = self.now + self.rng.between(1, OUTAGE_MILESTONES_MAX) * MILESTONE_TICKS;
            let party = self.party_mut(side);
            party.stale_until = until;
            party.well_since = until;
        }
        if self.party(side).seen.is_some_and(|seen| index > seen + FRESH_MILESTONES) {
            self.input(side, Input::Fresh(false));
        }
        let late = if self.plan.late_inclusion { 2 * MILESTONE_TICKS } else { MILESTONE_TICKS / 2 };
        let ticks = self.rng.between(1, late);
        self.later(ticks, Event::View(side, index));
    }

    fn shows(&mut self, side: Side, index: u64) {
        if self.now < self.party(side).stale_until || !self.party(side).is_up() {
            return;
        }
        let view = self.ledger.view(index);
        let party = self.party_mut(side);
        party.seen = Some(party.seen.map_or(index, |seen| seen.max(index)));
        let fresh = self.ledger.index() <= index + FRESH_MILESTONES;
        self.input(side, Input::Ledger(view));
        self.input(side, Input::Fresh(fresh));
    }

    /// Passes a transaction on, at most once a milestone.
    fn submit(&mut self, by: Side, transaction: Transaction, seen: u64) {
        let (id, index) = (transaction.id(), self.ledger.index());
        if self.party(by).submitted == Some((id, index)) || self.ledger.waits(id) {
            return;
        }
        self.party_mut(by).submitted = Some((id, index));
        self.check_use(by, &transaction, seen);
        if self.party(by).drops_in_a_row < DROPS_IN_A_ROW_MAX && self.rng.chance(self.plan.lost_transactions)
        {
            self.stats.count("transactions_lost");
            self.party_mut(by).drops_in_a_row += 1;
            return;
        }
        self.party_mut(by).drops_in_a_row = 0;
        let late = if self.plan.late_inclusion { self.rng.below(INCLUSION_MILESTONES_MAX + 1) } else { 0 };
        let taken = self.ledger.submit(by, transaction, index + 1 + late);
        self.oracle.require(taken, || format!("{by} submits a transaction that no node takes"));
    }

    /// I15: no fee-like waste; an honest party asks for nothing that it was shown to be pointless.
    fn check_use(&mut self, by: Side, transaction: &Transaction, seen: u64) {
        let Some(record) = self.ledger.view(seen).record else { return };
        if let Action::Claim(state) = transaction.essence.action {
            if record.phase == ChannelPhase::Open {
                self.oracle.useless(by, Conflict::ChannelOpen);
            }
            if state.cumulative <= record.lane(state.payer).cumulative {
                self.oracle.useless(by, Conflict::NotHigher);
            }
        }
    }

    fn hostile_acts(&mut self, side: Side) {
        let ticks = self.rng.between(5, 200);
        self.later(ticks, Event::Hostile(side));
        if !self.party(side).is_up() {
            return;
        }
        if self.rng.chance(10) {
            self.silent_until = self.now + self.rng.between(1, 100);
        }
        let [a, b] = &self.parties;
        let party = side.pick(a, b);
        if self.rng.chance(80) {
            if let Some(message) = hostile::message(party, self.network, &mut self.rng)
                && self.link.up
            {
                self.stats.count("hostile_messages");
                self.deliver(side, message);
            }
        } else if self.ledger.newest().record.is_some() && self.rng.chance(40) {
            let transaction = hostile::on_ledger(party, self.network, &mut self.rng);
            let from = self.ledger.index() + 1;
            if self.ledger.submit(side, transaction, from) {
                self.stats.count("hostile_transactions");
            }
        }
    }
}
