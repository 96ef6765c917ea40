//! Closing together.
//!
//! Whoever wishes to asks, once everything it sent is acknowledged, and pays no more. The other pays no
//! more either, waits until everything it sent is acknowledged, and signs; the first checks that this is
//! what its own records say, and signs too. Either submits. If both asked, A signs first.
//!
//! Ticks under the last balances need not be folded: once they are acknowledged they are in both sides'
//! records, and in the payouts.
//!
//! From its own signature on a side is frozen, until the close is applied or a milestone past its expiry
//! still shows the channel open.

use flash_proto::{
    Action, Essence, Side, Signature, Transaction, Unlock, message::ChannelMessage,
    transaction::CooperativeClose,
};

use super::{
    After, CLOSE_EXPIRY_MILESTONES, Channel, ChannelEvent, Effects, Link, Misbehaviour, Phase,
    stakes::check_expiry,
};

impl Channel {
    pub(super) fn wish_close(&mut self, effects: &mut Effects) {
        if matches!(self.phase, Phase::Opening | Phase::Open) && !self.wants_close {
            self.wants_close = true;
            self.dirty.phase = true;
            self.drop_queue(effects);
            self.ask_standing(effects);
        }
    }

    /// The peer asks to close. It may have passed over the close that this side has signed, as the one before it had not
    /// lapsed for it yet: it is told that again, once.
    pub(super) fn asked_to_close(&mut self, effects: &mut Effects) {
        if !std::mem::replace(&mut self.peer_wants_close, true) {
            self.resume_close(effects);
        }
        if matches!(self.phase, Phase::Opening | Phase::Open) {
            self.drop_queue(effects);
        }
    }

    /// Takes the next step of closing together, if one is due.
    pub(super) fn advance_close(&mut self, effects: &mut Effects) {
        let acknowledged = self.sent.is_empty() && self.outgoing.ticks_acknowledged();
        let ready = self.phase == Phase::Open
            && self.link == Link::Established
            && self.balances_known()
            && acknowledged
            && !self.changes_stake();
        if !ready {
            return;
        }
        if self.wants_close && !self.close_requested {
            self.close_requested = true;
            effects.after.push(After::Send(ChannelMessage::CloseRequest));
        }
        let signs_first = !self.wants_close || self.agreement.side == Side::A;
        let Some(seen) = self.seen.filter(|_| self.fresh) else { return };
        let agrees = self.wants_close || self.doubt.is_none();
        if self.peer_wants_close && signs_first && agrees && self.agrees_on_stakes() {
            let close = self.close_as_recorded(seen.saturating_add(CLOSE_EXPIRY_MILESTONES));
            let ours = self.sign_close(close);
            // Answered with this; what the peer asks from here on is for another one, should this lapse.
            self.peer_wants_close = false;
            self.set_phase(Phase::ClosingTogether { close, ours, theirs: None });
            effects.after.push(After::Send(ChannelMessage::CloseSigned { close, signature: ours }));
            effects.after.push(After::Event(ChannelEvent::ClosingTogether));
        }
    }

    /// The close that this side's own records call for.
    fn close_as_recorded(&self, expiry_milestone: u64) -> CooperativeClose {
        let balances = self.balances();
        let seq = |side| if side == self.agreement.side { self.outgoing_seq() } else { self.incoming_seq() };
        CooperativeClose {
            channel: self.id,
            final_seq_a: seq(Side::A),
            final_seq_b: seq(Side::B),
            payout_a: balances.of(Side::A),
            payout_b: balances.of(Side::B),
            expiry_milestone,
        }
    }

    pub(super) fn close_essence(&self, close: CooperativeClose) -> Essence {
        Essence::acting(self.agreement.network, Action::CooperativeClose(close))
    }

    fn sign_close(&self, close: CooperativeClose) -> Signature {
        self.close_essence(close).unlock(&self.key).signature
    }

    /// Checks that the peer signed a transaction.
    pub(super) fn check_signed(&self, essence: &Essence, signature: &Signature) -> Result<(), Misbehaviour> {
        let id = flash_proto::Hash::new(*essence.id().as_bytes());
        self.check_signature(&id, signature)
    }

    /// The peer has signed a close.
    pub(super) fn take_close(
        &mut self,
        close: CooperativeClose,
        signature: Signature,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        match &self.phase {
            Phase::Open if self.wants_close && self.balances_known() => {
                // Without a view of the ledger it is said again.
                let Some(seen) = self.seen else { return Ok(()) };
                if seen >= close.expiry_milestone {
                    self.close_requested = false; // so another one is asked for
                    return Ok(());
                }
                check_expiry(close.expiry_milestone, seen)?;
                if close != self.close_as_recorded(close.expiry_milestone) {
                    // One of both has not seen yet what changed what is locked: it is said again then.
                    let differs = self.behind || !self.agrees_on_stakes();
                    return if differs { Ok(()) } else { Err(Misbehaviour::WrongClose) };
                }
                if self.changes_stake() {
                    return Ok(());
                }
                self.check_signed(&self.close_essence(close), &signature)?;
                let ours = self.sign_close(close);
                self.set_phase(Phase::ClosingTogether { close, ours, theirs: Some(signature) });
                effects.after.push(After::Send(ChannelMessage::CloseComplete { signature: ours }));
                effects.after.push(After::Event(ChannelEvent::ClosingTogether));
                Ok(())
            }
            Phase::ClosingTogether { close: known, ours, .. } if *known == close => {
                let signature = *ours;
                effects.after.push(After::Send(ChannelMessage::CloseComplete { signature }));
                Ok(())
            }
            // The known one has lapsed for the peer, but not in this side's view yet. Then this side asks again.
            Phase::ClosingTogether { close: known, .. }
                if close.expiry_milestone > known.expiry_milestone =>
            {
                Ok(())
            }
            Phase::ClosingTogether { .. } => Err(Misbehaviour::WrongClose),
            // The channel is over or, where it is in use, may have been asked for before records were lost: it lapses.
            _ => Ok(()),
        }
    }

    /// The peer has signed the close that this side signed first.
    pub(super) fn complete_close(&mut self, signature: Signature) -> Result<(), Misbehaviour> {
        if let Phase::ClosingTogether { close, ours, theirs: None } = self.phase {
            self.check_signed(&self.close_essence(close), &signature)?;
            self.set_phase(Phase::ClosingTogether { close, ours, theirs: Some(signature) });
        }
        Ok(())
    }

    /// Says again what the peer may have missed.
    pub(super) fn resume_close(&self, effects: &mut Effects) {
        if let Phase::ClosingTogether { close, ours, theirs: None } = self.phase {
            effects.after.push(After::Send(ChannelMessage::CloseSigned { close, signature: ours }));
        }
    }

    /// The transaction of a close that both have signed.
    pub(super) fn close_transaction(
        &self,
        close: CooperativeClose,
        ours: Signature,
        theirs: Signature,
    ) -> Transaction {
        let side = self.agreement.side;
        let signatures = [side.pick(ours, theirs), side.pick(theirs, ours)];
        self.signed_by_both(self.close_essence(close), signatures)
    }

    /// A transaction with A's signature and B's.
    pub(super) fn signed_by_both(&self, essence: Essence, signatures: [Signature; 2]) -> Transaction {
        let parties = [&self.agreement.open.party_a, &self.agreement.open.party_b];
        let unlocks =
            parties.iter().zip(signatures).map(|(party, signature)| Unlock { key: party.key, signature });
        Transaction { unlocks: unlocks.collect(), essence }
    }
}
