//! Coordinators on a network that loses, repeats, delays and reorders, and with machines that crash between any
//! two outputs: no index ever has two milestones, and where enough are up milestones go on.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Milliseconds between ticks.
const TICK_MS: u64 = 25;
/// Milliseconds of disorder in each run.
const CHAOS_MS: u64 = 3_000;
/// So impatient that the coordinators take the lead from each other all the time.
const HASTY: Timing = Timing { timeout_ms: 50, ..TIMING };
/// Milliseconds within which order brings milestones again: the longest patience, and a few rounds.
const RECOVERY_MS: u64 = 25_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

enum Event {
    Tick,
    Input { life: u64, input: Input },
    Message(CoordinatorMessage),
}

struct Machine {
    running: Option<Coordinator>,
    /// Counts restarts: what was asked before a crash is not answered after it.
    life: u64,
    record: Option<VoteRecord>,
    newest: u64,
    group: u64,
    skew_ms: u64,
    /// Its clock runs at so many percent.
    rate: u64,
}

struct Simulation {
    random: Random,
    keys: Vec<SecretKey>,
    set: CoordinatorSet,
    /// Who takes over every four milestones, and hands back after four more.
    others: CoordinatorSet,
    machines: Vec<Machine>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    scheduled: u64,
    now_ms: u64,
    chaos: bool,
    sign_at_accept: bool,
    timing: Timing,
    /// Messages lost in disorder, of a hundred.
    loss: u64,
    /// In disorder every machine is cut off half of the time.
    torn: bool,
    chain: Vec<MilestoneEssence>,
    signed: BTreeMap<(u64, PublicKey), BTreeSet<MilestoneId>>,
    twice_signed: bool,
    forked: bool,
    messages: u64,
}

impl Simulation {
    fn new(seed: u64, count: u8, threshold: u8, sign_at_accept: bool) -> Self {
        let mut random = Random(seed);
        let (keys, set) = coordinators(count, threshold);
        let machines = keys.iter().map(|_| Machine {
            running: None,
            life: 0,
            record: None,
            newest: 0,
            group: 0,
            skew_ms: random.below(100_000),
            rate: 90 + random.below(21),
        });
        let machines: Vec<_> = machines.collect();
        let mut simulation = Self {
            machines,
            random,
            keys,
            others: set.clone(),
            set,
            events: BTreeMap::new(),
            scheduled: 0,
            now_ms: 0,
            chaos: false,
            sign_at_accept,
            timing: if seed.is_multiple_of(2) { TIMING } else { HASTY },
            loss: 10 + seed / 4 % 3 * 20,
            torn: seed / 2 % 2 == 1,
            chain: vec![genesis()],
            signed: BTreeMap::new(),
            twice_signed: false,
            forked: false,
            messages: 0,
        };
        for at in 0..usize::from(count) {
            simulation.start(at);
            let delay = simulation.random.below(TICK_MS);
            simulation.schedule(delay, at, Event::Tick);
        }
        simulation
    }

    fn schedule(&mut self, delay: u64, at: usize, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now_ms + delay, self.scheduled), (at, event));
    }

    fn clock(&self, at: usize) -> u64 {
        self.machines[at].skew_ms + self.now_ms * self.machines[at].rate / 100
    }

    /// Who signs the milestone after this one.
    fn set_after(&self, newest: u64) -> CoordinatorSet {
        if (newest / 4).is_multiple_of(2) { self.set.clone() } else { self.others.clone() }
    }

    fn start(&mut self, at: usize) {
        let clock = self.clock(at);
        let set = self.set_after(self.machines[at].newest);
        let machine = &mut self.machines[at];
        if machine.running.is_some() {
            return;
        }
        let newest = self.chain[usize::try_from(machine.newest).unwrap()].clone();
        let (key, record) = (self.keys[at].clone(), machine.record.clone());
        let mut coordinator = Coordinator::new(key, self.timing, record, newest, set, clock).unwrap();
        coordinator.signs_at_accept = self.sign_at_accept;
        machine.running = Some(coordinator);
    }

    fn stop(&mut self, at: usize) {
        self.machines[at].running = None;
        self.machines[at].life += 1;
    }

    fn input(&mut self, at: usize, input: Input) {
        let Some(running) = &mut self.machines[at].running else { return };
        for output in running.handle(input) {
            if self.chaos && self.random.below(400) == 0 {
                return self.stop(at);
            }
            self.carry_out(at, output);
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let life = self.machines[at].life;
        match output {
            Output::Persist(record) => self.machines[at].record = Some(*record),
            Output::Send(message) => {
                if let Body::Sign(id, _) = message.body {
                    self.witness(message.index, self.keys[at].public(), id);
                }
                for to in 0..self.machines.len() {
                    self.transmit(at, to, &message);
                }
            }
            Output::NeedDraft => {
                let newest = &self.chain[usize::try_from(self.machines[at].newest).unwrap()];
                let draft = after(newest, self.clock(at), self.scheduled);
                self.answer(at, life, Input::Draft(Box::new(draft)));
            }
            Output::Validate(essence) => {
                self.answer(at, life, Input::Validated { id: essence.id(), right: true });
            }
            Output::Assemble(milestone) => self.assemble(at, &milestone),
            Output::Unsound(error) => panic!("{error}"),
        }
    }

    /// The node takes its time, and sometimes cannot tell yet.
    fn answer(&mut self, at: usize, life: u64, input: Input) {
        if self.chaos && self.random.percent(20) {
            return;
        }
        let delay = self.random.below(if self.chaos { 100 } else { 10 });
        self.schedule(delay, at, Event::Input { life, input });
    }

    fn transmit(&mut self, from: usize, to: usize, message: &CoordinatorMessage) {
        if from == to || self.machines[from].group != self.machines[to].group {
            return;
        }
        self.messages += 1;
        let copies = match self.random.below(100) {
            chance if self.chaos && chance < self.loss => 0,
            90.. if self.chaos => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = self.chaos && self.random.percent(10);
            let bound = if late {
                1_500
            } else if self.chaos {
                120
            } else {
                10
            };
            let delay = 1 + self.random.below(bound);
            self.schedule(delay, to, Event::Message(message.clone()));
        }
    }

    fn witness(&mut self, index: u64, signer: PublicKey, id: MilestoneId) {
        let ids = self.signed.entry((index, signer)).or_default();
        ids.insert(id);
        self.twice_signed |= ids.len() > 1;
    }

    fn assemble(&mut self, at: usize, milestone: &Milestone) {
        let index = milestone.essence.index;
        let signers: BTreeSet<_> =
            milestone.signatures.iter().map(|signature| signature.coordinator).collect();
        assert!(signers.len() >= usize::from(self.set_after(index - 1).threshold));
        for signer in signers {
            self.witness(index, signer, milestone.id());
        }
        match self.chain.get(usize::try_from(index).unwrap()) {
            Some(known) => self.forked |= known.id() != milestone.id(),
            None => self.chain.push(milestone.essence.clone()),
        }
        self.apply(at, index);
    }

    /// The node applies a milestone of the chain.
    fn apply(&mut self, at: usize, index: u64) {
        let machine = &mut self.machines[at];
        if index != machine.newest + 1 || machine.running.is_none() {
            return;
        }
        machine.newest = index;
        let essence = Box::new(self.chain[usize::try_from(index).unwrap()].clone());
        let input = Input::Newest { essence, set: self.set_after(index) };
        self.schedule(0, at, Event::Input { life: self.machines[at].life, input });
    }

    /// A node that is behind fetches a milestone from one of its group that has it.
    fn sync(&mut self, at: usize) {
        let (newest, group) = (self.machines[at].newest, self.machines[at].group);
        let ahead = self
            .machines
            .iter()
            .any(|other| other.running.is_some() && other.group == group && other.newest > newest);
        if ahead && !(self.chaos && self.random.percent(60)) {
            self.apply(at, newest + 1);
        }
    }

    fn disturb(&mut self, at: usize) {
        match self.random.below(100) {
            0 => self.stop(at),
            1..=9 => self.start(at),
            10..=15 if self.torn => self.machines[at].group = self.random.below(2),
            10 => self.machines[at].group = self.random.below(2),
            11..=13 => self.machines[at].group = 0,
            16 if self.random.percent(20) => self.machines[at].skew_ms = self.random.below(100_000),
            _ => {}
        }
    }

    fn step(&mut self) {
        let Some(((now_ms, _), (at, event))) = self.events.pop_first() else { return };
        self.now_ms = now_ms;
        match event {
            Event::Tick => {
                if self.chaos {
                    self.disturb(at);
                }
                self.sync(at);
                let now_ms = self.clock(at);
                self.input(at, Input::Tick { now_ms });
                self.schedule(TICK_MS, at, Event::Tick);
            }
            Event::Input { life, input } => {
                if life == self.machines[at].life {
                    self.input(at, input);
                }
            }
            Event::Message(message) => self.input(at, Input::Message(Heard(message))),
        }
    }

    fn run_for(&mut self, duration_ms: u64) {
        let end = self.now_ms + duration_ms;
        while self.now_ms < end && !self.forked {
            self.step();
        }
    }

    fn disorder(&mut self) {
        self.chaos = true;
        self.run_for(CHAOS_MS);
        self.chaos = false;
    }

    /// All machines but as many as may fail are up and connected; returns how long three milestones took.
    fn recover(&mut self) -> Option<u64> {
        let hands_over = self.others != self.set;
        let spare = if hands_over { 0 } else { self.set.keys.len() - usize::from(self.set.threshold) };
        let first_down = usize::try_from(self.random.below(self.keys.len() as u64)).unwrap();
        for at in 0..self.machines.len() {
            self.machines[at].group = 0;
            // The end of the order wraps, so that every coordinator is among those down in some run.
            let place = (at + self.machines.len() - first_down) % self.machines.len();
            if place < spare { self.stop(at) } else { self.start(at) }
        }
        let (begin, wanted) = (self.now_ms, self.chain.len() + 3);
        while self.chain.len() < wanted {
            if self.now_ms - begin > RECOVERY_MS {
                return None;
            }
            self.step();
        }
        Some(self.now_ms - begin)
    }
}

fn survive(seeds: std::ops::Range<u64>, count: u8, threshold: u8) {
    survive_with(seeds, count, threshold, CoordinatorSet::clone);
}

fn survive_with(
    seeds: std::ops::Range<u64>,
    count: u8,
    threshold: u8,
    others: impl Fn(&CoordinatorSet) -> CoordinatorSet,
) {
    let (mut milestones, mut slowest) = (0, 0);
    for seed in seeds {
        let mut simulation = Simulation::new(seed, count, threshold, false);
        simulation.others = others(&simulation.set);
        simulation.disorder();
        let recovered = simulation.recover();
        assert!(!simulation.twice_signed, "seed {seed}, {threshold} of {count}: a coordinator signed twice");
        assert!(!simulation.forked, "seed {seed}, {threshold} of {count}: two milestones for one index");
        let Some(took) = recovered else {
            panic!("seed {seed}, {threshold} of {count}: no milestones after {RECOVERY_MS} ms of order")
        };
        milestones += simulation.chain.len();
        slowest = slowest.max(took);
    }
    println!(
        "{threshold} of {count}: {milestones} milestones, three more after disorder within {slowest} ms"
    );
}

#[test]
fn one_of_one_survives() {
    survive(0..50, 1, 1);
}

#[test]
fn two_of_two_survive() {
    survive(0..100, 2, 2);
}

#[test]
fn two_of_three_survive() {
    survive(0..300, 3, 2);
}

#[test]
fn three_of_four_survive() {
    survive(0..100, 4, 3);
}

#[test]
fn three_of_five_survive() {
    survive(0..100, 5, 3);
}

#[test]
fn hand_overs_survive() {
    survive_with(0..150, 4, 3, |set| CoordinatorSet { keys: set.keys[1..].to_vec(), threshold: 2 });
}

/// The simulation finds what decision 006 is about: signatures that carry no ballot add up over ballots.
#[test]
fn signing_at_accept_forks() {
    // Impatient and torn: where the lead changes most often.
    let seeds = (3..8_000).step_by(4);
    let forked = |seed: &u64| {
        let mut simulation = Simulation::new(*seed, 3, 2, true);
        simulation.disorder();
        simulation.forked
    };
    let found = seeds.into_iter().find(forked);
    println!("first fork: {found:?}");
    assert!(found.is_some(), "no run forked");
}

#[test]
fn with_one_down_milestones_keep_their_pace() {
    for down in 0..3 {
        let mut simulation = Simulation::new(8, 3, 2, false);
        for machine in &mut simulation.machines {
            machine.rate = 100;
        }
        simulation.run_for(1_000);
        assert!(simulation.chain.len() >= 9, "{}", simulation.chain.len());
        simulation.stop(down);
        simulation.run_for(1_000);
        let (before, messages) = (simulation.chain.len(), simulation.messages);
        simulation.run_for(10_000);
        let milestones = simulation.chain.len() - before;
        assert!(milestones >= 95, "{down} is down: {milestones} milestones in 100 intervals");
        let each = (simulation.messages - messages) / milestones as u64;
        assert!(each <= 12, "{down} is down: {each} messages for a milestone");
        simulation.start(down);
        let before = simulation.chain.len();
        simulation.run_for(10_000);
        let milestones = simulation.chain.len() - before;
        assert!(milestones >= 95, "{down} is back: {milestones} milestones in 100 intervals");
    }
}
