//! The queue of events and what each does. Nothing else in the simulation knows what time it is.

use std::{cmp::Reverse, collections::BinaryHeap};

use flash_channel::machine::{Channel, Effects, Input};
use flash_proto::{NetworkId, Side, message::ChannelMessage};

use super::{
    faults::{MILESTONE_TICKS, Plan, TowerPlan},
    ledger::Ledger,
    link::Link,
    oracle::Oracle,
    party::Party,
    report::{Outcome, Stats, Trace},
    rng::Rng,
    script::Act,
    setup,
    tower::Watchtower,
    watch::{Hand, Watch},
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
    /// The next line of a script.
    Act(Act),
    /// The hostile party acts.
    Hostile(Side),
    /// A new stream, if both are there.
    Connect,
    /// A party's process starts again.
    Restart(Side),
    /// Something at or with a tower.
    Watch(usize, Watch),
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
    pub(super) network: NetworkId,
    pub(super) ledger: Ledger,
    pub(super) parties: [Party; 2],
    pub(super) towers: Vec<Watchtower>,
    /// What A and what B know of each tower.
    pub(super) hands: Vec<[Hand; 2]>,
    /// For what was added later, towers among it: a life without that stays the same.
    pub(super) other_rng: Rng,
    pub(super) link: Link,
    pub(super) oracle: Oracle,
    pub(super) stats: Stats,
    pub(super) trace: Trace,
    /// Payments asked for so far: their references.
    pub(super) payments: u64,
    /// Every message is one that an honest peer with all its records sent.
    pub(super) honest_link: bool,
    /// Until then the hostile party says nothing.
    pub(super) silent_until: u64,
    pub(super) paid_out: bool,
    pub(super) closed_together: bool,
    /// How often a party in doubt has waited until what may have been signed has lapsed.
    pub(super) long_doubts: u32,
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
    world.stats.add("rests", Side::BOTH.map(|side| world.party(side).rests).iter().sum());
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
        let tower = |(number, tower): (u8, &TowerPlan)| Watchtower::new(network, a.id, number, tower.lies);
        let towers: Vec<_> = (0..).zip(&plan.towers).map(tower).collect();
        let ledger = Ledger::new(params, a.id);
        Self {
            // Not the stream of numbers from which the plan was drawn.
            rng: Rng::new(!plan.seed),
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            network,
            ledger,
            parties,
            hands: towers.iter().map(|_| <[Hand; 2]>::default()).collect(),
            towers,
            other_rng: Rng::new(plan.seed.rotate_left(32)),
            link: Link::new(),
            oracle: Oracle::new(network, &plan),
            stats: Stats::default(),
            trace: Trace::new(plan.print),
            payments: 0,
            honest_link: plan.hostile.is_none() && plan.corrupt == 0 && plan.old_store.is_none(),
            silent_until: 0,
            paid_out: false,
            closed_together: false,
            long_doubts: 0,
            plan,
        }
    }

    /// Both have the channel on their disk before either says anything.
    fn start(&mut self) {
        for side in Side::BOTH {
            let written = self.party_mut(side).write(None);
            self.oracle.require(written.is_ok(), || "I13: the first commit fails".into());
            if self.plan.script.is_some() {
                continue;
            }
            self.later(1, Event::User(side));
            if self.plan.is_hostile(side) {
                self.later(MILESTONE_TICKS, Event::Hostile(side));
            }
        }
        if let Some(script) = self.plan.script {
            self.begin_script(script);
        }
        self.begin_watches();
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
            Event::Act(act) => self.act(act),
            Event::Hostile(side) => self.hostile_acts(side),
            Event::Connect => self.connect(),
            Event::Restart(side) => self.restart(side),
            Event::Watch(number, watch) => self.watches(number, watch),
        }
    }

    /// Something for a party to look at soon.
    pub(super) fn input(&mut self, side: Side, input: Input) {
        self.party_mut(side).push(input);
        self.turn_soon(side);
    }
}
