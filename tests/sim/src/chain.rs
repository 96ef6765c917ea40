//! Milestones: what they confirm, when parties see them, and what parties submit.

use flash_channel::machine::Input;
use flash_node_client::ledger::Conflict;
use flash_proto::{Action, ChannelPhase, Claim, Side, Transaction};

use super::{
    faults::{
        BLIND_MILESTONES_MAX, DROPS_IN_A_ROW_MAX, FRESH_MILESTONES, INCLUSION_MILESTONES_MAX,
        MILESTONE_TICKS, OUTAGE_REST_MILESTONES,
    },
    ledger::By,
    world::{Event, World},
};

impl World {
    pub(super) fn milestone(&mut self) {
        let confirmed = self.ledger.milestone(self.plan.censored_closes);
        let money = self.ledger.money();
        self.oracle.milestone(self.ledger.index(), &confirmed, money);
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
            match it.transaction.essence.action {
                Action::CooperativeClose(_) if applied => self.closed_together = true,
                Action::TopUp(_) if applied => self.stats.count("top_ups"),
                Action::Withdraw(_) if applied => self.stats.count("withdraws"),
                Action::Claim(Claim { ticks: Some(_), .. }) if applied => {
                    self.stats.count("claims_with_ticks");
                }
                _ => {}
            }
        }
        self.check_payout();
        let index = self.ledger.index();
        for side in Side::BOTH {
            self.see_soon(side, index);
        }
        self.towers_see_soon();
        self.next_stage();
        self.later(MILESTONE_TICKS, Event::Milestone);
    }

    /// A party will be shown the milestone, sometimes late; its clock goes on in any case.
    pub(super) fn see_soon(&mut self, side: Side, index: u64) {
        let rested = self.now >= self.party(side).well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if rested && self.rng.chance(self.plan.stale) {
            self.stats.count("views_gone");
            let until = self.now + self.rng.between(1, BLIND_MILESTONES_MAX) * MILESTONE_TICKS;
            let party = self.party_mut(side);
            party.stale_until = until;
            party.well_since = until;
        }
        if self.party(side).seen.is_some_and(|seen| index > seen + FRESH_MILESTONES) {
            self.input(side, Input::Fresh(false));
        }
        if self.rng.chance(self.plan.clock_jumps) {
            self.stats.count("clocks_jumped");
            self.input(side, Input::Fresh(false));
        }
        if self.rng.chance(self.plan.old_views) {
            self.stats.count("old_views_shown");
            let (ticks, old) = (self.rng.between(1, MILESTONE_TICKS), self.rng.below(index + 1));
            self.later(ticks, Event::View(side, old));
        }
        let late = if self.plan.late_inclusion { 2 * MILESTONE_TICKS } else { MILESTONE_TICKS / 2 };
        let ticks = self.rng.between(1, late);
        self.later(ticks, Event::View(side, index));
    }

    pub(super) fn shows(&mut self, side: Side, index: u64) {
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
    pub(super) fn submit(&mut self, by: Side, transaction: Transaction, seen: u64) {
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
        let taken = self.ledger.submit(By::Party(by), transaction, index + 1 + late);
        self.oracle.require(taken, || format!("{by} submits a transaction that no node takes"));
    }

    /// I15: no fee-like waste; an honest party asks for nothing that it was shown to be pointless.
    pub(super) fn check_use(&mut self, by: Side, transaction: &Transaction, seen: u64) {
        let Action::Claim(claim @ Claim { state, .. }) = transaction.essence.action else { return };
        // A contest that was seen in an earlier life is not over, whatever old view is shown in this one.
        if self.ledger.view(self.ledger.index()).record.is_some_and(|it| it.phase == ChannelPhase::Open) {
            self.oracle.useless(by, Conflict::ChannelOpen);
        }
        let known = self.ledger.view(seen).record.map(|it| it.lane(state.payer).cumulative);
        if claim.total().is_ok_and(|total| known.is_some_and(|known| total <= known)) {
            self.oracle.useless(by, Conflict::NotHigher);
        }
    }
}
