//! A's watchtower in a duel. A may go away as long as the tower keeps up, and the tower may be late or down as long as A
//! does: one of both has always seen the ledger not more than [`LAG_MAX`] milestones ago.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use flash_channel::machine::LedgerView;
use flash_proto::{
    Action, Amount, ChannelId, NetworkId, Side,
    tower::{Claimable, TowerResponse},
};

use super::{Digest, Duel, LAG_MAX, Step, Watched};
use crate::{
    ledger::By,
    tower::{Question, Told, Watchtower},
};

/// An honest tower takes no account of it.
const HONEST: u64 = 7;

impl Watched {
    pub(super) fn new(network: NetworkId, channel: ChannelId) -> Self {
        let tower = Arc::new(Watchtower::new(network, channel, 0, false));
        Self { tower, confirmed: Amount::ZERO, owed: Amount::ZERO, well: 0, claimed: false, alone: false }
    }

    /// The tower, to be changed: a copy of its own if others look at this one.
    fn tower_mut(&mut self) -> &mut Watchtower {
        if Arc::get_mut(&mut self.tower).is_none() {
            self.tower = Arc::new(self.tower.fork());
        }
        // Nobody else has what was made just now.
        Arc::get_mut(&mut self.tower).expect("a tower of one's own")
    }
}

impl Duel {
    /// Whether the watchtower has claimed something.
    pub fn tower_claimed(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.claimed)
    }

    pub(super) fn steps_of_tower(&self, steps: &mut Vec<Step>) {
        let Some(Watched { tower, confirmed, alone, .. }) = &self.watched else { return };
        let (is_up, may_go) = (self.party(Side::A).is_up(), self.left.crashes > 0);
        if *alone {
            steps.push(Step::Leave(false));
        } else if !tower.is_up() {
            steps.push(Step::Outage(false));
        } else if may_go {
            steps.extend([Step::Leave(true), Step::Outage(true)]);
        }
        if tower.is_up() && tower.seen != Some(self.ledger.index()) {
            steps.push(Step::Watch);
        }
        let more = self.party(Side::A).durable.held() > *confirmed;
        if tower.is_up() && is_up && more && self.left.hands > 0 {
            steps.push(Step::Hand);
        }
    }

    pub(super) fn tower_is_alone(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.alone)
    }

    pub(super) fn tower_keeps_up(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| self.ledger.index() < watched.well + LAG_MAX)
    }

    pub(super) fn hand(&mut self) {
        self.left.hands = self.left.hands.saturating_sub(1);
        let incoming = self.party(Side::A).durable.incoming;
        let (Some(balance), Some(watched)) = (incoming.held, &mut self.watched) else { return };
        let newest = Claimable { balance, ticks: incoming.ticks };
        let view = LedgerView { payouts: None, ..self.ledger.newest() };
        let asked = Question::Keep(Box::new(newest));
        watched.tower_mut().asked((Side::A, 0), &asked, &view, HONEST);
        let told = self.tower_writes();
        let holds = told.answers.iter().any(|(.., answer)| matches!(answer, TowerResponse::Holds(_)));
        if let Some(watched) = self.watched.as_mut().filter(|_| holds) {
            watched.confirmed = newest.claim().total().unwrap_or(Amount::ZERO);
        }
    }

    pub(super) fn watch(&mut self) {
        let view = LedgerView { payouts: None, ..self.ledger.newest() };
        let (index, claims_in_time) = (view.index, self.claims_in_time());
        let Some(watched) = &mut self.watched else { return };
        watched.tower_mut().shown(&view);
        self.tower_writes();
        if let Some(watched) = &mut self.watched {
            watched.well = index;
            if claims_in_time {
                watched.owed = watched.confirmed;
            }
        }
    }

    pub(super) fn leave(&mut self, leaves: bool) {
        if leaves && self.party(Side::A).is_up() {
            self.party_mut(Side::A).crash();
            self.changed(Side::A);
            self.disconnect();
        }
        self.left.crashes = self.left.crashes.saturating_sub(u8::from(leaves));
        if let Some(watched) = &mut self.watched {
            watched.alone = leaves;
        }
    }

    pub(super) fn outage(&mut self, begins: bool) {
        self.left.crashes = self.left.crashes.saturating_sub(u8::from(begins));
        let Some(watched) = &mut self.watched else { return };
        if begins {
            watched.tower_mut().crash();
            return;
        }
        let starts = watched.tower_mut().restart();
        self.oracle.require(starts.is_ok(), || "I13: the tower cannot read its store".into());
    }

    /// What waits is written, and what must be claimed is submitted.
    fn tower_writes(&mut self) -> Told {
        let Some(watched) = &mut self.watched else { return Told::default() };
        let told = watched.tower_mut().write(None).unwrap_or_default();
        for claim in &told.claims {
            let total = match &claim.essence.action {
                Action::Claim(claim) => claim.total().unwrap_or(Amount::ZERO),
                _ => Amount::ZERO,
            };
            let newest = total >= watched.confirmed;
            self.oracle.require(newest, || format!("I7: the tower claims {total}, and has confirmed more"));
            watched.claimed = true;
            if !self.ledger.waits(claim.id()) {
                let from = self.ledger.index() + 1;
                let taken = Arc::make_mut(&mut self.ledger).submit(By::Tower(0), claim.clone(), from);
                self.oracle.require(taken, || "the tower submits a transaction that no node takes".into());
            }
        }
        told
    }

    /// The channel is paid out; if that was after a contest, the ledger had been `shown` so much of B's lane.
    pub(super) fn check_tower(&mut self, shown: Option<Amount>) {
        let Some((owed, shown)) = self.watched.as_ref().map(|watched| watched.owed).zip(shown) else {
            return;
        };
        self.oracle.require(shown >= owed, || {
            format!("I7: the tower has confirmed {owed}, but the ledger was shown {shown}")
        });
    }

    pub(super) fn hash_tower<H: Hasher>(&self, state: &mut H) {
        let Some(Watched { tower, confirmed, owed, well, claimed, alone }) = &self.watched else { return };
        (confirmed.units(), owed.units(), well, claimed, alone).hash(state);
        let mut digest = Digest(DefaultHasher::new());
        // Writing to a hash cannot fail.
        let _ = tower.describe(&mut digest);
        digest.0.finish().hash(state);
    }
}
