//! One milestone: propose, accept, sign, assemble.

use std::collections::BTreeMap;

use flash_proto::{
    Milestone, MilestoneEssence, MilestoneId, PublicKey, Signature, milestone::CoordinatorSignature,
};

use super::{Accepted, Body, Coordinator, CoordinatorMessage, Output, ballots::Role, set::Ballots};

/// What is known about the next milestone and need not survive a crash: others repeat it.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Proposed here, and not yet found right.
    proposal: Option<Proposal>,
    /// The last essence that was found wrong.
    wrong: Option<MilestoneId>,
    /// This leader was told of an essence that may have been chosen: it must propose that or nothing.
    bound: bool,
    draft_asked: bool,
    /// The newest of each coordinator: ballot and essence.
    accepts: BTreeMap<PublicKey, (u64, MilestoneId)>,
    signatures: BTreeMap<PublicKey, (MilestoneId, Signature)>,
    /// Since when there are enough signatures.
    complete_since_ms: Option<u64>,
    assembled: bool,
}

#[derive(Debug)]
struct Proposal {
    ballot: u64,
    id: MilestoneId,
    essence: Box<MilestoneEssence>,
}

impl Coordinator {
    /// Counts its own recorded votes.
    pub(super) fn recall_votes(&mut self) {
        let Some(Accepted { ballot, essence }) = &self.record.accepted else { return };
        self.round.accepts.insert(self.me, (*ballot, essence.id()));
        if self.record.signed.is_some() {
            let signature = essence.sign(&self.key).signature;
            self.round.signatures.insert(self.me, (essence.id(), signature));
        }
    }

    pub(super) fn take_message(&mut self, message: CoordinatorMessage) {
        let current = message.network == self.newest.network && message.index == self.index();
        if !current || message.sender == self.me || self.set.place(&message.sender).is_none() {
            return;
        }
        let (sender, ballot) = (message.sender, message.ballot);
        match message.body {
            Body::Prepare | Body::Propose(_) if self.set.owner(ballot) != Some(sender) => {}
            Body::Prepare | Body::Propose(_) if ballot < self.record.promised => self.promise(),
            Body::Prepare => self.take_prepare(sender, ballot),
            Body::Propose(essence) => {
                if self.is_next(&essence) {
                    self.count_accept(sender, ballot, essence.id());
                    self.take_proposal(ballot, essence);
                }
            }
            Body::Promise(accepted) => self.take_promise(sender, ballot, accepted),
            Body::Accept(id) => self.count_accept(sender, ballot, id),
            Body::Sign(id, signature) => {
                self.round.signatures.insert(sender, (id, signature));
            }
        }
    }

    fn take_proposal(&mut self, ballot: u64, essence: Box<MilestoneEssence>) {
        self.note_ballot(ballot);
        match &self.record.accepted {
            // The leader asks again: the answer was lost.
            Some(accepted) if accepted.ballot == ballot => {
                let id = accepted.essence.id();
                self.send(ballot, Body::Accept(id));
            }
            _ => self.consider(ballot, essence),
        }
    }

    /// Begins to lead: with what may have been chosen in a lower ballot, or else with a draft when one comes. What
    /// was only proposed matters no more.
    pub(super) fn lead_round(&mut self, ballot: u64, adopted: Option<Accepted>) {
        self.round.proposal = None;
        self.round.bound = adopted.is_some();
        if let Some(accepted) = adopted {
            self.consider(ballot, accepted.essence);
        }
    }

    /// Accepts an essence if it is known to be right, or has the node find out.
    pub(super) fn consider(&mut self, ballot: u64, essence: Box<MilestoneEssence>) {
        let id = essence.id();
        let waits =
            self.round.proposal.as_ref().is_some_and(|known| known.ballot == ballot && known.id == id);
        if waits || self.round.wrong == Some(id) {
            return;
        }
        if self.round.accepts.get(&self.me).is_some_and(|(_, accepted)| *accepted == id) {
            self.accept(ballot, essence, id);
        } else {
            self.outputs.push(Output::Validate(essence.clone()));
            self.round.proposal = Some(Proposal { ballot, id, essence });
        }
    }

    pub(super) fn take_verdict(&mut self, id: MilestoneId, right: bool) {
        let Some(proposal) = self.round.proposal.take_if(|proposal| proposal.id == id) else { return };
        if right {
            self.accept(proposal.ballot, proposal.essence, id);
        } else {
            self.round.wrong = Some(id);
        }
    }

    pub(super) fn take_draft(&mut self, essence: Box<MilestoneEssence>) {
        if let Some(ballot) = self.wants_draft()
            && self.is_next(&essence)
        {
            let id = essence.id();
            self.accept(ballot, essence, id);
        }
    }

    /// The ballot in which a draft is to be proposed, if it is time and nothing was proposed in it yet.
    fn wants_draft(&self) -> Option<u64> {
        let ballot = self.leads().filter(|ballot| *ballot >= self.record.promised)?;
        let proposed = self.record.accepted.as_ref().is_some_and(|accepted| accepted.ballot >= ballot);
        let free = !proposed && !self.round.bound;
        (free && self.now_ms >= self.due_ms).then_some(ballot)
    }

    fn accept(&mut self, ballot: u64, essence: Box<MilestoneEssence>, id: MilestoneId) {
        // Whoever signed has seen that nothing else can be chosen; a leader that says otherwise lies.
        #[cfg(not(test))]
        let signed_another = self.record.signed.is_some_and(|signed| signed != id);
        #[cfg(test)]
        let signed_another = !self.signs_at_accept && self.record.signed.is_some_and(|signed| signed != id);
        if ballot < self.record.promised || signed_another {
            return;
        }
        self.record.promised = ballot;
        self.record.accepted = Some(Accepted { ballot, essence: essence.clone() });
        self.unsaved = true;
        self.round.proposal = None;
        self.note_ballot(ballot);
        self.count_accept(self.me, ballot, id);
        let leading = self.leads() == Some(ballot);
        self.send(ballot, if leading { Body::Propose(essence) } else { Body::Accept(id) });
    }

    fn count_accept(&mut self, sender: PublicKey, ballot: u64, id: MilestoneId) {
        let newest = self.round.accepts.get(&sender).is_none_or(|(known, _)| *known <= ballot);
        if newest {
            self.round.accepts.insert(sender, (ballot, id));
        }
    }

    /// What follows from all that is known: ask for a draft, sign, assemble.
    pub(super) fn finish_round(&mut self) {
        if self.wants_draft().is_some() && !self.round.draft_asked {
            self.round.draft_asked = true;
            self.outputs.push(Output::NeedDraft);
        }
        // Its own vote is counted whenever it is recorded.
        let Some((_, id)) = self.round.accepts.get(&self.me).copied() else { return };
        if self.record.signed != Some(id) && self.is_chosen(id) {
            self.sign(id);
        }
        self.assemble(id);
    }

    /// Whether enough have accepted it in one ballot: then no ballot can choose anything else.
    fn is_chosen(&self, id: MilestoneId) -> bool {
        #[cfg(test)]
        if self.signs_at_accept {
            return true;
        }
        let accepts = self.round.accepts.values().filter(|(_, accepted)| *accepted == id);
        let mut ballots: Vec<u64> = accepts.map(|(ballot, _)| *ballot).collect();
        ballots.sort_unstable();
        ballots.chunk_by(u64::eq).any(|same| same.len() >= self.set.threshold())
    }

    /// Signs what was accepted.
    fn sign(&mut self, id: MilestoneId) {
        let Some(Accepted { ballot, essence }) = &self.record.accepted else { return };
        let again = self.record.signed.is_none();
        #[cfg(test)]
        let again = again || self.signs_at_accept;
        assert!(again, "a coordinator signs one essence for an index, ever");
        let (ballot, signature) = (*ballot, essence.sign(&self.key).signature);
        self.record.signed = Some(id);
        self.unsaved = true;
        self.round.signatures.insert(self.me, (id, signature));
        self.send(ballot, Body::Sign(id, signature));
    }

    /// Puts the signatures together: the leader at once, the others in turn if nothing comes of it.
    fn assemble(&mut self, id: MilestoneId) {
        let Some(Accepted { ballot, essence }) = &self.record.accepted else { return };
        let signed = self.round.signatures.iter().filter(|(_, (signed, _))| *signed == id);
        let signatures: Vec<_> = signed
            .map(|(coordinator, (_, signature))| CoordinatorSignature {
                coordinator: *coordinator,
                signature: *signature,
            })
            .collect();
        if self.round.assembled || signatures.len() < self.set.threshold() {
            return;
        }
        let since = *self.round.complete_since_ms.get_or_insert(self.now_ms);
        let turns = match self.set.owner(*ballot) {
            Some(leader) if leader == self.me => 0,
            _ => self.set.turns_after(*ballot, &self.me).unwrap_or(u64::MAX),
        };
        if self.now_ms >= since.saturating_add(self.timing.repeat_ms.saturating_mul(turns)) {
            self.round.assembled = true;
            let milestone = Milestone { essence: (**essence).clone(), signatures };
            self.outputs.push(Output::Assemble(Box::new(milestone)));
        }
    }

    /// Says and asks once more what got no answer.
    pub(super) fn repeat(&mut self) {
        self.round.draft_asked = false;
        self.round.assembled = false;
        if let Some(proposal) = &self.round.proposal {
            self.outputs.push(Output::Validate(proposal.essence.clone()));
        }
        if let Role::Candidate { ballot, .. } = self.role {
            self.send(ballot, Body::Prepare);
        }
        let Some(Accepted { ballot, essence }) = self.record.accepted.clone() else { return };
        let id = essence.id();
        let leading = self.leads() == Some(ballot);
        self.send(ballot, if leading { Body::Propose(essence) } else { Body::Accept(id) });
        if let Some((_, signature)) = self.round.signatures.get(&self.me).copied() {
            self.send(ballot, Body::Sign(id, signature));
        }
    }
}
