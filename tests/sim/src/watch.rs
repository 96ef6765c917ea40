//! Towers in the world: what clients hand over and ask, what towers see, claim and suffer.

use flash_channel::{
    machine::{Input, LedgerView, Phase},
    store::Fault,
};
use flash_proto::{
    Action, Side, Transaction,
    tower::{Claimable, TowerReceipt, TowerResponse},
};

use super::{
    faults::{
        BLIND_MILESTONES_MAX, DROPS_IN_A_ROW_MAX, INCLUSION_MILESTONES_MAX, MILESTONE_TICKS,
        OUTAGE_MILESTONES_MAX, OUTAGE_REST_MILESTONES,
    },
    ledger::By,
    setup,
    tower::Question,
    world::{Event, World},
};

/// Ticks after which a client no longer waits for an answer.
const PATIENCE_TICKS: u64 = 40;

/// Something that happens at or to a tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// A client looks whether there is anything to hand over or to ask.
    Look(Side),
    /// A client's question arrives.
    Asked(Side, u64, Question),
    /// The tower's commit is done.
    Write,
    /// The answer arrives.
    Answered(Side, u64, TowerResponse),
    /// The tower is shown a milestone.
    View(u64),
    /// Its process starts again.
    Restart,
}

/// What a client knows of one tower. It forgets that with its process, and then hands over everything again.
#[derive(Clone, Debug, Default)]
pub(super) struct Hand {
    /// Counts the questions.
    number: u64,
    /// What was asked last, if there is no answer yet, and until when it is waited for.
    asked: Option<(Question, u64)>,
    confirmed: Option<Claimable>,
    /// It was shown all that the tower holds.
    shown: bool,
}

impl World {
    pub(super) fn begin_watches(&mut self) {
        for number in 0..self.towers.len() {
            for side in Side::BOTH {
                if self.plan.towers.get(number).is_some_and(|plan| plan.serves(side)) {
                    self.later(1, Event::Watch(number, Watch::Look(side)));
                }
            }
        }
    }

    pub(super) fn watches(&mut self, number: usize, watch: Watch) {
        match watch {
            Watch::Look(side) => self.looks(number, side),
            Watch::Asked(side, question_number, question) => {
                self.tower_asked(number, (side, question_number), &question);
            }
            Watch::Write => self.tower_writes(number),
            Watch::Answered(side, question, response) => self.answered(number, side, question, &response),
            Watch::View(index) => self.tower_sees(number, index),
            Watch::Restart => self.tower_restarts(number),
        }
    }

    fn hand(&mut self, number: usize, side: Side) -> Option<&mut Hand> {
        let [a, b] = self.hands.get_mut(number)?;
        Some(side.pick(a, b))
    }

    /// The process of `side` is gone, and with it what it knew of its towers.
    pub(super) fn forget_hands(&mut self, side: Side) {
        for [a, b] in &mut self.hands {
            let hand = side.pick(a, b);
            *hand = Hand { number: hand.number, ..Hand::default() };
        }
    }

    fn looks(&mut self, number: usize, side: Side) {
        let Some(plan) = self.plan.towers.get(number).cloned() else { return };
        let ticks = self.other_rng.between(1, plan.pace);
        self.later(ticks, Event::Watch(number, Watch::Look(side)));
        let (now, [a, b]) = (self.now, &self.parties);
        let party = side.pick(a, b);
        let Some(channel) = party.channel().filter(|_| now >= party.paused_until) else { return };
        if matches!(party.durable.phase, Phase::Closed { .. } | Phase::Lapsed) {
            return;
        }
        let in_the_dark = !channel.balances_known();
        let incoming = &party.durable.incoming;
        let newest = incoming.held.map(|balance| Claimable { balance, ticks: incoming.ticks });
        let Some(hand) = self.hand(number, side) else { return };
        if hand.asked.as_ref().is_some_and(|(_, until)| now < *until) {
            return;
        }
        let question = match newest.filter(|newest| hand.confirmed != Some(*newest)) {
            _ if in_the_dark && !hand.shown => Question::Show,
            Some(newest) => Question::Keep(Box::new(newest)),
            None => return,
        };
        hand.number += 1;
        hand.asked = Some((question.clone(), now + PATIENCE_TICKS));
        let asked = Watch::Asked(side, hand.number, question);
        self.stats.count("towers_asked");
        self.over_there(number, asked);
    }

    /// Something goes to a tower or comes from it, or is lost on the way.
    fn over_there(&mut self, number: usize, watch: Watch) {
        let Some(plan) = self.plan.towers.get(number) else { return };
        if !self.is_calm() && self.other_rng.chance(plan.loss) {
            self.stats.count("tower_messages_lost");
            return;
        }
        let ticks = self.other_rng.between(1, self.plan.delay);
        self.later(ticks, Event::Watch(number, watch));
    }

    /// What a node proves to the tower now: never what is behind what it has seen.
    fn proven(&mut self, number: usize) -> LedgerView {
        let newest = self.ledger.index();
        let Some(tower) = self.towers.get(number) else { return self.ledger.view(newest) };
        let least = tower.seen.unwrap_or(tower.checkpoint);
        let index = if self.now < tower.stale_until { least } else { self.other_rng.between(least, newest) };
        LedgerView { payouts: None, ..self.ledger.view(index) }
    }

    fn tower_asked(&mut self, number: usize, (side, question): (Side, u64), asked: &Question) {
        if self.tower_stands_still(number, &Watch::Asked(side, question, asked.clone())) {
            return;
        }
        let (proven, chance) = (self.proven(number), self.other_rng.next());
        let Some(tower) = self.towers.get_mut(number) else { return };
        if let Question::Keep(newest) = asked
            && chance % 16 == 0
        {
            let refused = tower.refuses_stranger(newest, &proven) || proven.record.is_none();
            self.oracle
                .require(refused, || format!("I11: tower {number} lets the payer hand over {newest:?}"));
        }
        if let Some(tower) = self.towers.get_mut(number) {
            tower.asked((side, question), asked, &proven, chance);
        }
        self.tower_write_soon(number);
    }

    fn tower_write_soon(&mut self, number: usize) {
        let Some(tower) = self.towers.get_mut(number).filter(|tower| tower.has_pending()) else { return };
        if !tower.write_due {
            tower.write_due = true;
            let ticks = self.other_rng.below(self.plan.commit_ticks + 1);
            self.later(ticks, Event::Watch(number, Watch::Write));
        }
    }

    /// Whether its process is paused, then this happens later; now and then it is from now on.
    fn tower_stands_still(&mut self, number: usize, watch: &Watch) -> bool {
        let (calm, now) = (self.is_calm(), self.now);
        let Some((tower, plan)) = self.towers.get_mut(number).zip(self.plan.towers.get(number)) else {
            return true;
        };
        let rested = now >= tower.well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if !calm && rested && self.other_rng.below(1_000) < plan.pauses {
            self.stats.count("towers_paused");
            let until = now + self.other_rng.between(1, OUTAGE_MILESTONES_MAX * MILESTONE_TICKS);
            tower.paused_until = until;
            tower.well_since = until;
        }
        let until = tower.paused_until;
        if now < until {
            self.schedule(until, Event::Watch(number, watch.clone()));
        }
        now < until
    }

    fn tower_fault(&mut self, number: usize) -> Option<Fault> {
        let (tower, plan) = (self.towers.get(number)?, self.plan.towers.get(number)?);
        let rested = self.now >= tower.well_since + 2 * MILESTONE_TICKS;
        if self.is_calm() || !rested || !self.other_rng.chance(plan.crashes) {
            return None;
        }
        self.other_rng.pick(&Fault::ALL).copied()
    }

    fn tower_writes(&mut self, number: usize) {
        let fault = self.tower_fault(number);
        let Some(tower) = self.towers.get_mut(number) else { return };
        tower.write_due = false;
        if !tower.is_up() {
            return;
        }
        let Ok(told) = tower.write(fault) else {
            self.stats.count("towers_crashed");
            self.oracle
                .require(fault.is_some(), || format!("I13: the store of tower {number} fails by itself"));
            self.tower_crashes(number);
            return;
        };
        self.check_tower_disk(number);
        for (side, question, response) in told.answers {
            self.over_there(number, Watch::Answered(side, question, response));
        }
        for claim in told.claims {
            self.tower_claims(number, claim, told.milestone);
        }
    }

    fn tower_crashes(&mut self, number: usize) {
        let Some(tower) = self.towers.get_mut(number) else { return };
        tower.crash();
        let rested = self.now >= tower.well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        let long = rested && self.other_rng.chance(10);
        let most = if long { OUTAGE_MILESTONES_MAX * MILESTONE_TICKS } else { MILESTONE_TICKS };
        let ticks = self.other_rng.between(1, most);
        tower.well_since = self.now + ticks;
        if !tower.gone {
            self.later(ticks, Event::Watch(number, Watch::Restart));
        }
    }

    fn tower_restarts(&mut self, number: usize) {
        let Some(tower) = self.towers.get_mut(number).filter(|tower| !tower.gone && !tower.is_up()) else {
            return;
        };
        let restarted = tower.restart();
        let checkpoint = tower.checkpoint;
        self.oracle.require(restarted.is_ok(), || {
            format!("I13: tower {number} cannot read its store: {restarted:?}")
        });
        self.check_tower_disk(number);
        // The first node that it asks may be behind.
        let index = self.other_rng.between(checkpoint, self.ledger.index());
        self.later(1, Event::Watch(number, Watch::View(index)));
    }

    /// What a tower holds. Once the channel is paid out it may forget that.
    fn check_tower_disk(&mut self, number: usize) {
        let (Some(tower), Some(view)) = (self.towers.get(number), self.ledger.newest_with_channel()) else {
            return;
        };
        for payer in Side::BOTH {
            let held = tower.on_disk(payer, &view);
            if held.is_some() || !self.ledger.is_paid_out() {
                self.oracle.tower_disk(number, payer, held.as_ref());
            }
        }
    }

    fn answered(&mut self, number: usize, side: Side, question: u64, response: &TowerResponse) {
        let there = self.party(side).is_up() && self.now >= self.party(side).paused_until;
        let Some(tower) = self.towers.get(number).filter(|_| there) else { return };
        let (key, network, index) = (tower.key(), self.network, self.ledger.index());
        let Some(hand) = self.hand(number, side).filter(|hand| hand.number == question) else { return };
        let Some((asked, _)) = hand.asked.take() else { return };
        match (asked, response) {
            (Question::Keep(newest), TowerResponse::Holds(signature)) => {
                let receipt = TowerReceipt { held: *newest, signature: *signature };
                if receipt.verify(network, &key) {
                    hand.confirmed = Some(*newest);
                    self.stats.count("towers_confirmed");
                    if !self.ledger.is_paid_out() {
                        self.oracle.confirmed(number, side, &newest, index);
                    }
                }
            }
            (Question::Keep(newest), TowerResponse::Newer(newer)) => {
                let is_newer = newer.rank().is_ok_and(|rank| newest.rank().is_ok_and(|own| rank > own));
                if is_newer && self.is_of_the_peer(side, newer) {
                    self.stats.count("towers_knew_more");
                    self.oracle.tower_knows_more(number, side);
                }
            }
            (Question::Show, TowerResponse::Shown(held)) => {
                hand.shown = true;
                if let Some(held) = held.as_ref().filter(|held| self.is_of_the_peer(side, held)) {
                    self.stats.count("towers_showed");
                    let Claimable { balance, ticks } = **held;
                    self.input(side, Input::Shown { held: Box::new(balance), ticks });
                }
            }
            _ => self.stats.count("towers_refused"),
        }
    }

    /// Whether it is of the lane on which `side` is paid, and the ledger would take it.
    fn is_of_the_peer(&self, side: Side, shown: &Claimable) -> bool {
        let state = &shown.balance.state;
        (state.channel, state.payer) == (self.party(side).id, !side)
            && shown.balance.verify(self.network, &setup::channel_key(!side).public())
            && shown.claim().total().is_ok()
    }

    /// A milestone came: the towers will see it, those that are gone never.
    pub(super) fn towers_see_soon(&mut self) {
        let (index, calm) = (self.ledger.index(), self.is_calm());
        for number in 0..self.towers.len() {
            let Some((tower, plan)) = self.towers.get_mut(number).zip(self.plan.towers.get(number)) else {
                continue;
            };
            if plan.gone_at.is_some_and(|gone| index >= gone) && !tower.gone {
                self.stats.count("towers_gone");
                tower.gone = true;
                tower.crash();
            }
            let rested = self.now >= tower.well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
            if !calm && rested && self.other_rng.chance(plan.stale) {
                let until = self.now + self.other_rng.between(1, BLIND_MILESTONES_MAX) * MILESTONE_TICKS;
                tower.stale_until = until;
                tower.well_since = until;
            }
            let late = if self.plan.late_inclusion { 2 * MILESTONE_TICKS } else { MILESTONE_TICKS / 2 };
            let ticks = self.other_rng.between(1, late);
            self.later(ticks, Event::Watch(number, Watch::View(index)));
        }
    }

    fn tower_sees(&mut self, number: usize, index: u64) {
        if self.tower_stands_still(number, &Watch::View(index)) {
            return;
        }
        let view = LedgerView { payouts: None, ..self.ledger.view(index) };
        let Some(tower) = self.towers.get_mut(number).filter(|tower| tower.is_up()) else { return };
        if self.now < tower.stale_until || tower.seen.unwrap_or(tower.checkpoint) > index {
            return;
        }
        tower.shown(&view);
        if tower.lies() {
            let (payer, which) =
                (*self.other_rng.pick(&Side::BOTH).unwrap_or(&Side::A), self.other_rng.next());
            if let Some(claim) = tower.old_claim(payer, which) {
                self.stats.count("towers_claimed_old_balances");
                self.ledger.submit(By::Tower(number), claim, self.ledger.index() + 1);
            }
        }
        self.tower_write_soon(number);
    }

    /// A tower brings a claim to the ledger, once a milestone until it is not needed any more.
    fn tower_claims(&mut self, number: usize, claim: Transaction, told: u64) {
        let (id, index) = (claim.id(), self.ledger.index());
        let (last, calm) = (self.ledger.newest_with_channel(), self.is_calm());
        let Some((tower, plan)) = self.towers.get_mut(number).zip(self.plan.towers.get(number)) else {
            return;
        };
        if self.ledger.waits(id) || tower.submitted.insert(id, index) == Some(index) {
            return;
        }
        let Action::Claim(claimed) = claim.essence.action else { return };
        let seen = self.ledger.view(told).record;
        let held = last.and_then(|last| tower.on_disk(claimed.state.payer, &last));
        self.oracle.tower_claims(number, &claimed, held.as_ref(), seen.as_ref());
        if !calm && tower.drops_in_a_row < DROPS_IN_A_ROW_MAX && self.other_rng.chance(plan.loss) {
            self.stats.count("transactions_lost");
            tower.drops_in_a_row += 1;
            return;
        }
        tower.drops_in_a_row = 0;
        self.stats.count("tower_claims");
        let late =
            if self.plan.late_inclusion { self.other_rng.below(INCLUSION_MILESTONES_MAX + 1) } else { 0 };
        let taken = self.ledger.submit(By::Tower(number), claim, index + 1 + late);
        self.oracle.require(taken, || format!("tower {number} submits a transaction that no node takes"));
    }
}
