//! The course of a run: busy with faults, calm without, and the end of the channel.

use flash_channel::machine::{CLOSE_EXPIRY_MILESTONES, Input, Phase};
use flash_proto::{Amount, Side};

use super::{
    faults::{Ending, WINDOW_MIN},
    world::{Event, World},
};

/// Milestones without faults and without new payments, in which everything must come to rest.
const CALM_MILESTONES: u64 = 10;
/// Milestones after which a close together has been applied, or will not be any more.
const PATIENCE_MILESTONES: u64 = CLOSE_EXPIRY_MILESTONES + 10;
/// Milestones that closing alone may take beside the contest window.
const SLACK_MILESTONES: u64 = 15;

impl World {
    pub(super) const fn is_calm(&self) -> bool {
        self.ledger.index() >= self.plan.busy_milestones
    }

    const fn ending_at(&self) -> u64 {
        self.plan.busy_milestones + CALM_MILESTONES
    }

    /// What a milestone brings beside its transactions.
    pub(super) fn next_stage(&mut self) {
        let index = self.ledger.index();
        if index == self.plan.busy_milestones {
            self.calm_down();
        }
        if index == self.ending_at() {
            self.check_rest();
            self.begin_ending();
        }
        if index == self.ending_at() + PATIENCE_MILESTONES {
            self.plan.censored_closes = false;
            for side in Side::BOTH {
                if self.party(side).channel().is_some_and(|channel| !channel.balances_known()) {
                    // Its user gives up what only the peer could show.
                    self.input(side, Input::Trust);
                }
                self.input(side, Input::CloseAlone);
            }
        }
        let last = self.ending_at() + PATIENCE_MILESTONES + u64::from(self.plan.window) + SLACK_MILESTONES;
        if index == last {
            let phases = Side::BOTH.map(|side| self.party(side).durable.phase.clone());
            self.oracle.require(false, || format!("I9: not over at milestone {last}: {phases:?}"));
        }
    }

    /// Faults stop; a fresh stream, and everybody sees the ledger.
    fn calm_down(&mut self) {
        self.plan.breaks = 0;
        self.plan.duplicates = 0;
        self.plan.reorder = 0;
        self.plan.corrupt = 0;
        self.plan.crashes = 0;
        self.plan.stale = 0;
        self.plan.old_views = 0;
        self.plan.clock_jumps = 0;
        self.plan.pauses = 0;
        self.plan.lost_transactions = 0;
        self.plan.heavy_tail = false;
        for side in Side::BOTH {
            self.party_mut(side).stale_until = 0;
        }
        self.break_link(1);
    }

    /// I8 and the first half of I9: after reconnecting and draining both agree, and what was paid is
    /// acknowledged.
    fn check_rest(&mut self) {
        let honest =
            Side::BOTH.iter().all(|side| !self.plan.is_hostile(*side) && !self.party(*side).lost_records);
        let channels = Side::BOTH.map(|side| self.party(side).channel());
        let [Some(a), Some(b)] = channels else {
            self.oracle.require(false, || "I9: a party is down without faults".into());
            return;
        };
        let used = |phase: &Phase| matches!(phase, Phase::Open | Phase::ClosingTogether { .. });
        // Who takes its records for old ones takes no payments.
        let doubts = a.doubt().is_some() || b.doubt().is_some();
        if !honest || doubts || !used(a.phase()) || !used(b.phase()) {
            return;
        }
        let agreed = a.balances() == b.balances()
            && a.outgoing().signed == b.incoming().held
            && b.outgoing().signed == a.incoming().held;
        let standing = [(*a.outgoing(), *a.incoming()), (*b.outgoing(), *b.incoming())];
        let drained = [a, b].iter().all(|channel| {
            let signed = channel.outgoing().signed.map_or(0, |signed| signed.state.seq);
            channel.queued() == 0 && channel.outgoing().acknowledged == signed
        });
        self.stats.count("agreed_at_rest");
        self.oracle.require(agreed, || format!("I8: the parties disagree at rest: {standing:?}"));
        self.oracle.require(drained, || format!("I9: a payment was not completed: {standing:?}"));
    }

    fn begin_ending(&mut self) {
        let (who, input) = match self.plan.ending {
            Ending::Together(who) => (who, Input::Close),
            Ending::Alone(who) => (who, Input::CloseAlone),
            Ending::Gone(side) => {
                self.stats.count("parties_gone");
                self.party_mut(side).gone = true;
                self.crash(side, 0);
                self.input(!side, Input::CloseAlone);
                return;
            }
        };
        for (side, closes) in Side::BOTH.into_iter().zip(who) {
            if closes {
                self.input(side, input.clone());
            }
        }
    }

    /// Whether every honest party that is there knows that the channel is paid out, or never was.
    pub(super) fn is_over(&self) -> bool {
        let done = |side: Side| {
            let party = self.party(side);
            let closed = matches!(party.durable.phase, Phase::Closed { .. } | Phase::Lapsed);
            closed || party.gone || self.plan.is_hostile(side)
        };
        Side::BOTH.into_iter().all(done)
            && (self.ledger.is_paid_out() || self.ledger.newest().record.is_none())
    }

    /// What the ledger paid, checked at the milestone that pays.
    pub(super) fn check_payout(&mut self) {
        if self.paid_out {
            return;
        }
        let Some(payouts) = self.ledger.newest().payouts else { return };
        self.paid_out = true;
        let index = self.ledger.index();
        // Whoever is away until then, or comes back too late to claim by itself, has what its towers were handed.
        let absent = Side::BOTH.map(|side| {
            let away = |(from, back): (u64, u64)| from <= index && index < back + u64::from(WINDOW_MIN);
            self.party(side).gone || self.party(side).away.is_some_and(away)
        });
        let before = self.ledger.view(index - 1).record;
        let shown = Side::BOTH.map(|side| before.map_or(Amount::ZERO, |record| record.lane(side).cumulative));
        if absent.contains(&true) {
            self.stats.count("paid_out_to_somebody_away");
        }
        self.oracle.paid_out(index, payouts, shown, absent);
    }

    /// What each honest party knows at the end.
    pub(super) fn check_over(&mut self) {
        let payouts = self.ledger.newest().payouts;
        for side in Side::BOTH {
            let party = self.party(side);
            if let Phase::Closed { payouts: known, .. } = party.durable.phase
                && !self.plan.is_hostile(side)
            {
                self.oracle.require(known == payouts, || {
                    format!("{side} believes it was paid {known:?}, but the ledger paid {payouts:?}")
                });
            }
        }
        self.oracle.over();
        let acknowledged = Side::BOTH.map(|side| self.party(side).durable.outgoing.acknowledged_payments);
        self.stats.add("payments_acknowledged", acknowledged.into_iter().sum());
        let end = match (payouts, self.closed_together) {
            (None, _) => "ended_lapsed",
            (Some(_), true) => "ended_together",
            (Some(_), false) => "ended_alone",
        };
        self.stats.count(end);
    }

    /// An event at a later tick.
    pub(super) fn later(&mut self, ticks: u64, event: Event) {
        self.schedule(self.now + ticks, event);
    }
}
