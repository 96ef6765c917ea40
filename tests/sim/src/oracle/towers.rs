//! What a tower owes its clients: to keep what it confirmed, to claim it in time, and nothing that harms.

use flash_proto::{Amount, ChannelPhase, ChannelRecord, Claim, Side, tower::Claimable};

use super::Oracle;
use crate::faults::{Plan, WINDOW_MIN};

/// What is known of a tower.
#[derive(Clone, Debug)]
pub(super) struct Tower {
    /// It tells the truth and is never gone for good.
    works: bool,
    lies: bool,
    /// Of the lane on which A is paid, and of B's.
    lanes: [Lane; 2],
}

#[derive(Clone, Debug, Default)]
struct Lane {
    /// What the client knows to be confirmed: at which milestone, and how much.
    confirmed: Vec<(u64, Amount)>,
    /// What was on the tower's disk last.
    disk: Amount,
}

fn total(what: &Claimable) -> Amount {
    what.rank().map_or(Amount::ZERO, |(total, ..)| total)
}

impl Tower {
    pub(super) fn of(plan: &Plan) -> Vec<Self> {
        let known = |tower: &crate::faults::TowerPlan| Self {
            works: tower.works(),
            lies: tower.lies,
            lanes: Default::default(),
        };
        plan.towers.iter().map(known).collect()
    }

    /// What was confirmed to `client` so long before milestone `index` that it must be on the ledger by then.
    fn owes(&self, client: Side, index: u64) -> Amount {
        let [a, b] = &self.lanes;
        let in_time = |(at, total): &(u64, Amount)| (at + u64::from(WINDOW_MIN) <= index).then_some(*total);
        client.pick(a, b).confirmed.iter().filter_map(in_time).max().unwrap_or(Amount::ZERO)
    }
}

impl Oracle {
    fn tower_lane(&mut self, number: usize, client: Side) -> Option<&mut Lane> {
        let [a, b] = &mut self.towers.get_mut(number)?.lanes;
        Some(client.pick(a, b))
    }

    fn is_honest_tower(&self, number: usize) -> bool {
        self.towers.get(number).is_some_and(|tower| !tower.lies)
    }

    /// The tower has signed to `client` that it holds this.
    pub(crate) fn confirmed(&mut self, number: usize, client: Side, newest: &Claimable, index: u64) {
        let total = total(newest);
        let Some(lane) = self.tower_lane(number, client) else { return };
        lane.confirmed.push((index, total));
        let disk = lane.disk;
        let written = disk >= total || !self.is_honest_tower(number);
        self.require(written, || {
            format!("I10: tower {number} confirms {total} to {client}, but its disk has {disk}")
        });
    }

    /// The tower's disk holds this of the lane of `payer` while the channel is on the ledger.
    pub(crate) fn tower_disk(&mut self, number: usize, payer: Side, held: Option<&Claimable>) {
        let held = held.map_or(Amount::ZERO, total);
        let Some(lane) = self.tower_lane(number, !payer) else { return };
        let before = std::mem::replace(&mut lane.disk, held);
        self.require(held >= before, || {
            format!("I3: what tower {number} holds of {payer}'s lane went from {before} to {held}")
        });
    }

    /// The tower says to `client`, and proves, that it holds a newer balance than was handed over.
    pub(crate) fn tower_knows_more(&mut self, number: usize, client: Side) {
        let lost = self.of(client).lost_records || self.of(client).hostile;
        self.require(lost, || format!("I10: tower {number} holds more than was ever on {client}'s disk"));
    }

    /// The tower claims; `held` is on its disk, and `seen` is what it saw of the channel last.
    pub(crate) fn tower_claims(
        &mut self,
        number: usize,
        claim: &Claim,
        held: Option<&Claimable>,
        seen: Option<&ChannelRecord>,
    ) {
        if !self.is_honest_tower(number) {
            return;
        }
        let (payer, claimed) = (claim.state.payer, claim.total().unwrap_or(Amount::ZERO));
        if let Some(held) = held {
            let newest = claimed >= total(held);
            self.require(newest, || format!("I7: tower {number} claims {claimed} and holds {held:?}"));
        }
        let needed = seen.is_none_or(|record| {
            record.phase != ChannelPhase::Open && claimed > record.lane(payer).cumulative
        });
        self.require(needed, || format!("I15: tower {number} claims {claimed} where it is shown {seen:?}"));
    }

    /// The channel was settled at milestone `index`, and the ledger had been shown so much of each lane: that of A, and
    /// that of B.
    pub(super) fn towers_did_their_work(&mut self, index: u64, shown: [Amount; 2]) {
        let [of_a, of_b] = shown;
        for client in Side::BOTH {
            let (owed, shown) = (self.handed_over(client, index), (!client).pick(of_a, of_b));
            self.require(shown >= owed, || {
                format!("I7: a tower has confirmed {owed} to {client}, but the ledger was shown {shown}")
            });
        }
    }

    /// What working towers had confirmed to `client` in time for a settlement at milestone `index`.
    pub(super) fn handed_over(&self, client: Side, index: u64) -> Amount {
        let owed = self.towers.iter().filter(|tower| tower.works).map(|tower| tower.owes(client, index));
        owed.max().unwrap_or(Amount::ZERO)
    }
}
