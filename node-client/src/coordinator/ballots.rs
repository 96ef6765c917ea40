//! Who leads: prepare, promise, and when to lose patience.

use std::collections::BTreeMap;

use flash_proto::{MilestoneEssence, PublicKey};

use super::{Accepted, Body, Coordinator, set::Ballots};

/// Patience doubles with every ballot that brought no milestone, so often at most.
const DOUBLINGS_MAX: u32 = 3;

/// What a coordinator does in the ballots.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Waits for another's proposals.
    Follower,
    /// Asks for the lead with a ballot of its own. It promises that ballot itself only when enough others have:
    /// one that is cut off must not come back with a promise that nobody asked for.
    Candidate { ballot: u64, promises: BTreeMap<PublicKey, Option<Accepted>> },
    /// Proposes in this ballot, for this milestone and those after it.
    Leader { ballot: u64 },
}

impl Coordinator {
    pub(super) fn leads(&self) -> Option<u64> {
        match self.role {
            Role::Leader { ballot } => Some(ballot),
            Role::Follower | Role::Candidate { .. } => None,
        }
    }

    /// Takes the lead without asking, where that is sound: nothing can have been accepted below ballot 0, and
    /// an owner that has accepted its own proposal had asked before it proposed.
    pub(super) fn resume_lead(&mut self) {
        let ballot = self.record.promised;
        let proposed = self.record.accepted.as_ref().is_some_and(|accepted| accepted.ballot == ballot);
        let mine = self.seen == ballot && self.set.owner(ballot) == Some(self.me);
        if mine && (ballot == 0 || proposed) {
            self.role = Role::Leader { ballot };
        }
    }

    /// The next milestone is later than it should ever be.
    fn overdue(&self) -> bool {
        self.now_ms >= self.silent_since_ms.saturating_add(self.timing.timeout_ms)
    }

    /// Asks for the lead when all those before it have had their time, and gives way when its own is over.
    pub(super) fn watch_leader(&mut self) {
        match self.role {
            Role::Candidate { .. } if self.now_ms >= self.turn_ends_ms => {
                self.role = Role::Follower;
                let turns = self.set.turns_after(self.seen, &self.me).unwrap_or(u64::MAX);
                let others = self.timing.timeout_ms.saturating_mul(turns);
                self.turn_ends_ms = self.now_ms.saturating_add(others);
            }
            Role::Candidate { .. } | Role::Leader { .. } => {}
            Role::Follower => {
                let silent = self.now_ms >= self.silent_since_ms.saturating_add(self.patience());
                if silent && self.now_ms >= self.turn_ends_ms {
                    self.campaign();
                }
            }
        }
    }

    /// How long this coordinator waits for those whose turn is before its own.
    fn patience(&self) -> u64 {
        if self.set.owner(self.seen) == Some(self.me) {
            return 0; // it leads, but has forgotten how far it got: nobody else is to be waited for
        }
        let turns = self.set.turns_after(self.seen, &self.me).unwrap_or(u64::MAX);
        let factor = turns.saturating_mul(1 << self.attempts.min(DOUBLINGS_MAX));
        self.timing.timeout_ms.saturating_mul(factor)
    }

    fn campaign(&mut self) {
        let above = self.seen.max(self.record.promised);
        let Some(turns) = self.set.turns_after(above, &self.me) else { return };
        let Some(ballot) = above.checked_add(turns) else { return };
        self.role = Role::Candidate { ballot, promises: BTreeMap::new() };
        self.turn_ends_ms = self.now_ms.saturating_add(self.timing.timeout_ms);
        self.repeat_at_ms = self.now_ms.saturating_add(self.timing.repeat_ms);
        self.send(ballot, Body::Prepare);
    }

    /// Another asks for the lead. As long as milestones come, only the leader itself is listened to (it may have
    /// restarted), so that one that was cut off cannot disturb those that were not.
    pub(super) fn take_prepare(&mut self, sender: PublicKey, ballot: u64) {
        let higher_candidate = matches!(self.role, Role::Candidate { ballot: own, .. } if own > ballot);
        if ballot > self.record.promised {
            let leader = self.set.owner(self.record.promised) == Some(sender);
            if higher_candidate || !(leader || self.overdue()) {
                return;
            }
            self.record.promised = ballot;
            self.unsaved = true;
            self.note_ballot(ballot);
        }
        self.promise();
    }

    /// Says what is promised: the answer to a prepare, or to one who does not know of a higher ballot.
    pub(super) fn promise(&mut self) {
        let accepted = self.record.accepted.clone();
        self.send(self.record.promised, Body::Promise(accepted));
    }

    pub(super) fn take_promise(&mut self, sender: PublicKey, promised: u64, accepted: Option<Accepted>) {
        if accepted.as_ref().is_some_and(|accepted| !self.is_next(&accepted.essence)) {
            return;
        }
        let (needed, overdue) = (self.set.threshold(), self.overdue());
        match &mut self.role {
            Role::Candidate { ballot, promises } if *ballot == promised => {
                // One that has accepted in this ballot promised it before, and somebody led then.
                if accepted.as_ref().is_some_and(|accepted| accepted.ballot >= promised) {
                    return;
                }
                promises.insert(sender, accepted);
                if promises.len().saturating_add(1) >= needed {
                    self.lead(promised);
                }
            }
            // A leader that gets along without this one carries on.
            _ if overdue => self.note_ballot(promised),
            _ => {}
        }
    }

    /// Enough have promised: propose what may have been chosen in a lower ballot, or else a draft.
    fn lead(&mut self, ballot: u64) {
        let Role::Candidate { promises, .. } = std::mem::replace(&mut self.role, Role::Leader { ballot })
        else {
            return;
        };
        self.record.promised = self.record.promised.max(ballot);
        self.unsaved = true;
        self.note_ballot(ballot);
        let own = self.record.accepted.clone();
        let newest: Option<Accepted> =
            promises.into_values().flatten().chain(own).max_by_key(|accepted| accepted.ballot);
        self.lead_round(ballot, newest);
    }

    /// A ballot is in use: its owner gets its time, and whoever held a lower one gives way.
    pub(super) fn note_ballot(&mut self, ballot: u64) {
        if ballot <= self.seen {
            return;
        }
        self.seen = ballot;
        self.silent_since_ms = self.now_ms;
        self.attempts = self.attempts.saturating_add(1);
        if let Role::Leader { ballot: own } | Role::Candidate { ballot: own, .. } = self.role
            && own < ballot
        {
            self.role = Role::Follower;
        }
    }

    /// Whether an essence may be the next milestone's, as far as that shows without the ledger.
    pub(super) fn is_next(&self, essence: &MilestoneEssence) -> bool {
        essence.network == self.newest.network
            && essence.check_form().is_ok()
            && essence.follows(&self.newest).is_ok()
    }
}
