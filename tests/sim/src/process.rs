//! A party's process in the world: its turns, its commits, its deaths and its returns.

use flash_channel::{
    machine::{ChannelEvent, Input, SIGNED_EXPIRY_MILESTONES_MAX},
    store::Fault,
};
use flash_proto::{Action, Claim, Essence, Side, Transaction, Unlock};

use super::{
    faults::{MILESTONE_TICKS, OUTAGE_MILESTONES_MAX, OUTAGE_REST_MILESTONES},
    hostile,
    ledger::By,
    setup,
    world::{Event, World},
};

/// Doubts of a life that are waited out.
const LONG_DOUBTS_MAX: u32 = 12;

impl World {
    pub(super) fn turn_soon(&mut self, side: Side) {
        if self.party(side).is_up() && !self.party(side).turn_due {
            self.party_mut(side).turn_due = true;
            let ticks = self.rng.below(3);
            self.later(ticks, Event::Turn(side));
        }
    }

    pub(super) fn turn(&mut self, side: Side) {
        if self.stands_still(side) {
            self.schedule(self.party(side).paused_until, Event::Turn(side));
            return;
        }
        self.party_mut(side).turn_due = false;
        let link = self.link.number;
        let index = self.ledger.index();
        if let Err(misbehaviour) = self.party_mut(side).turn(link, index) {
            self.stats.count("messages_refused");
            self.trace.line(self.now, format_args!("{side} refuses: {misbehaviour}"));
            let faultless = self.honest_link && !self.is_calm() && self.plan.reorder == 0;
            self.oracle.require(!faultless, || format!("{side} refuses an honest peer: {misbehaviour}"));
            let ticks = self.rng.between(5, 40);
            self.break_link(ticks);
        }
        self.check_told(side);
        if self.party(side).has_pending() && !self.party(side).write_due {
            self.party_mut(side).write_due = true;
            let ticks = self.rng.below(self.plan.commit_ticks + 1);
            self.later(ticks, Event::Write(side));
        }
    }

    /// Whether the process is paused; now and then it is from now on.
    fn stands_still(&mut self, side: Side) -> bool {
        let rested = self.now >= self.party(side).well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if rested && self.rng.below(1_000) < self.plan.pauses {
            self.stats.count("processes_paused");
            let until = self.now
                + match self.long_outage(side) {
                    Some(ticks) => {
                        self.break_link(1);
                        ticks
                    }
                    None => self.rng.between(1, OUTAGE_MILESTONES_MAX * MILESTONE_TICKS),
                };
            let party = self.party_mut(side);
            party.paused_until = until;
            party.well_since = until;
        }
        self.now < self.party(side).paused_until
    }

    /// I4 as the payer's user sees it: what counts as acknowledged is on the payee's disk.
    fn check_told(&mut self, side: Side) {
        let Some(channel) = self.party(side).channel() else { return };
        let outgoing = channel.outgoing();
        let ticks = if outgoing.ticks.is_some() { outgoing.acknowledged_ticks } else { 0 };
        let newest = outgoing.signed.is_some_and(|signed| signed.state.seq == outgoing.acknowledged);
        let acknowledged = (outgoing.acknowledged, if newest { ticks } else { 0 });
        let held = self.party(!side).durable.held_to();
        self.oracle.require(!self.honest_link || held >= acknowledged, || {
            format!("I4: {side} counts {acknowledged:?} as acknowledged, the peer's disk has {held:?}")
        });
    }

    /// A fault for the commit that is due, if there is to be one.
    pub(super) fn fault(&mut self, side: Side) -> Option<Fault> {
        let rested = self.now >= self.party(side).well_since + 2 * MILESTONE_TICKS;
        // Drawn in any case: until its fault comes, a life with one is the same as without.
        let crashes = rested && self.rng.chance(self.plan.crashes);
        let next = self.party(side).commits + 1;
        let here = |at: &&(Side, u64, Fault)| (at.0, at.1) == (side, next);
        let planned = self.plan.crash_at.iter().find(here).map(|(_, _, fault)| *fault);
        planned.or_else(|| if crashes { self.rng.pick(&Fault::ALL).copied() } else { None })
    }

    pub(super) fn write(&mut self, side: Side) {
        self.party_mut(side).write_due = false;
        if !self.party(side).is_up() {
            return;
        }
        let fault = self.fault(side);
        let commits = self.party(side).commits;
        let Ok(released) = self.party_mut(side).write(fault) else {
            self.stats.count(match fault {
                Some(Fault::CrashBefore) => "crashes_before_the_write",
                Some(Fault::CrashUnsynced) => "crashes_before_the_sync",
                Some(Fault::CrashUnsyncedKept) => "crashes_before_the_sync_in_time",
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
            self.check_disk(side, self.party(side).seen);
            if self.plan.old_store == Some(side) && self.rng.chance(10) {
                for side in Side::BOTH {
                    self.party_mut(side).keep_copy();
                }
            }
        }
        for event in &released.events {
            self.trace.line(self.now, format_args!("{side} {event:?}"));
            let index = self.ledger.index();
            self.oracle.told(side, event, index);
            match event {
                ChannelEvent::NotMade { .. } => self.party_mut(side).not_made(),
                ChannelEvent::Recovered { .. } => self.stats.count("records_recovered"),
                ChannelEvent::OldRecords { .. } => {
                    self.stats.count("old_records_shown");
                    // Where one channel's records are old all are.
                    self.input(side, Input::Doubt);
                }
                ChannelEvent::ReceiptWanted { seq } => self.looks_for_receipt(side, *seq),
                ChannelEvent::Receipt { seq, given: true } => self.has_receipt(side, *seq),
                ChannelEvent::Received(_) if self.plan.receipts > 0 && self.other_rng.chance(5) => {
                    self.proves_what_it_received(side);
                }
                _ => {}
            }
        }
        for (link, message) in released.messages {
            self.send(side, link, message);
        }
        if let Some((transaction, seen)) = released.wanted {
            self.submit(side, transaction, seen);
        }
    }

    /// `seen` is the milestone at which the process stood when it wrote that.
    pub(super) fn check_disk(&mut self, side: Side, seen: Option<u64>) {
        let index = self.ledger.index();
        let [a, b] = &self.parties;
        self.oracle.durable(side, &side.pick(a, b).durable, index, seen);
    }

    /// How long a process is down, within what an honest party may suffer.
    pub(super) fn downtime(&mut self, side: Side) -> u64 {
        let rested = self.now >= self.party(side).well_since + OUTAGE_REST_MILESTONES * MILESTONE_TICKS;
        if let Some(ticks) = rested.then(|| self.long_outage(side)).flatten() {
            return ticks;
        }
        if rested && self.rng.chance(10) {
            return OUTAGE_MILESTONES_MAX * MILESTONE_TICKS;
        }
        self.rng.between(1, MILESTONE_TICKS)
    }

    /// Now and then a party with a working tower is away for longer than the contest window, so that only the tower
    /// can claim: for so long.
    fn long_outage(&mut self, side: Side) -> Option<u64> {
        let guarded = self.plan.towers.iter().any(|tower| tower.works() && tower.serves(side));
        if !guarded || self.is_calm() || !self.other_rng.chance(self.plan.long_outages) {
            return None;
        }
        self.stats.count("long_outages");
        // Once in a life is enough.
        self.plan.long_outages = 0;
        let window = u64::from(self.plan.window);
        let milestones = window + self.other_rng.between(1, window);
        let index = self.ledger.index();
        let back = index + milestones + OUTAGE_REST_MILESTONES;
        self.plan.busy_milestones = self.plan.busy_milestones.max(back);
        self.party_mut(side).away = Some((index, back));
        // The peer does not wait for it.
        if self.plan.is_hostile(!side) {
            let [a, b] = &self.parties;
            let close = hostile::stale_close((!side).pick(a, b), self.network);
            if self.other_rng.chance(70) && self.ledger.submit(By::Party(!side), close, index + 1) {
                self.stats.count("stale_closes_while_away");
            }
        } else if self.other_rng.chance(50) {
            self.input(!side, Input::CloseAlone);
        }
        Some(milestones * MILESTONE_TICKS)
    }

    pub(super) fn crash(&mut self, side: Side, ticks: u64) {
        if self.plan.old_store == Some(side) && self.rng.chance(60) {
            let which = self.rng.below(8);
            if self.party_mut(side).lose_records(which) {
                self.stats.count("old_stores_restored");
                self.oracle.lost_records(side);
                self.plan.old_store = None;
                self.put_back_too(!side, which);
            }
        }
        self.party_mut(side).crash();
        self.forget_hands(side);
        self.break_link(ticks + 1);
        if !self.party(side).gone {
            self.party_mut(side).well_since = self.now + ticks;
            self.later(ticks, Event::Restart(side));
        }
    }

    /// A hostile party goes back to where the other one stands now, as if nothing had been paid since. What it was
    /// signed it keeps.
    fn put_back_too(&mut self, side: Side, which: u64) {
        let hides = self.plan.is_hostile(side) && self.other_rng.chance(60);
        if hides && self.party_mut(side).lose_records(which) {
            self.stats.count("peers_put_back_too");
            self.later(1, Event::Restart(side));
        }
    }

    /// Whether a process that comes back takes its store for an old one, that was `put_back` or not.
    fn doubts(&mut self, side: Side, put_back: bool) -> bool {
        let index = self.ledger.index();
        let alarm = !put_back && self.plan.false_alarms > 0 && self.other_rng.chance(self.plan.false_alarms);
        let doubts = alarm || (put_back && self.plan.noticed);
        if put_back {
            self.oracle.put_back(side, doubts);
        }
        if doubts {
            self.stats.count(if alarm { "false_alarms" } else { "old_stores_noticed" });
            self.oracle.doubts(side, index);
            // Now and then long enough for what may have been signed to lapse, but no life for ever.
            if !self.is_calm() && self.other_rng.chance(30) && self.long_doubts < LONG_DOUBTS_MAX {
                self.long_doubts += 1;
                let lapsed = SIGNED_EXPIRY_MILESTONES_MAX + u64::from(self.plan.window);
                let long = index + lapsed + OUTAGE_REST_MILESTONES;
                self.plan.busy_milestones = self.plan.busy_milestones.max(long);
            }
        }
        doubts
    }

    pub(super) fn restart(&mut self, side: Side) {
        if self.party(side).gone || self.party(side).is_up() {
            return;
        }
        self.stats.count("restarts");
        self.flip_a_bit(side);
        let put_back = std::mem::take(&mut self.party_mut(side).is_put_back);
        let doubts = self.doubts(side, put_back);
        let restarted = self.party_mut(side).restart(doubts);
        self.oracle
            .require(restarted.is_ok(), || format!("I13: {side} cannot read its store: {restarted:?}"));
        if put_back || doubts {
            let [a, b] = &self.parties;
            self.oracle.starts_with(side, &side.pick(a, b).durable);
        }
        // What was written before it died was checked against the view of then, or is younger.
        self.check_disk(side, Some(self.ledger.index()));
        self.check_claim(side);
        let index = self.ledger.index();
        self.later(1, Event::View(side, index));
        self.later(2, Event::Connect);
    }

    /// I13: a flipped bit is found on reading.
    fn flip_a_bit(&mut self, side: Side) {
        if !self.rng.chance(self.plan.bit_flips) {
            return;
        }
        let [entry, bit] = [self.rng.below(1_000), self.rng.below(100_000)];
        let at = |number: u64| usize::try_from(number).unwrap_or(0);
        if let Some(found) = self.party(side).finds_flipped_bit(at(entry), at(bit)) {
            self.stats.count("bits_flipped");
            self.oracle.require(found, || format!("I13: {side} does not notice a flipped bit on its disk"));
        }
    }

    /// I4: what the disk holds is what the ledger takes.
    pub(super) fn check_claim(&mut self, side: Side) {
        if let Some(held) = self.party(side).durable.incoming.held {
            let ticks = self.party(side).durable.incoming.ticks;
            let essence = Essence::acting(self.network, Action::Claim(Claim { state: held.state, ticks }));
            let key = setup::channel_key(!side).public();
            let unlocks = vec![Unlock { key, signature: held.signature }];
            let good = self.ledger.is_wellformed(Transaction { essence, unlocks });
            self.oracle.require(good, || format!("I4: {side} cannot claim {held:?}"));
        }
    }
}
