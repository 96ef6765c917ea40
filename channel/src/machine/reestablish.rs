//! Finding each other again after a break: each side says where it stands, is sent what it lacks, and takes over
//! what it lost.

use std::collections::VecDeque;

use flash_proto::{
    Side, SignedBalance,
    message::{ChannelMessage, Reestablish},
};

use super::{
    After, Channel, ChannelEvent, Effects, Link, Misbehaviour, Outgoing, Phase, Sent,
    tables::{self, Kept, Lane},
};

/// The updates that the peer may not hold, if they lead from what it acknowledged to the newest balance
/// without a gap.
pub(super) fn sent_of(outgoing: &Outgoing, updates: Vec<Kept>) -> Option<VecDeque<Sent>> {
    let mut seq = outgoing.acknowledged;
    let mut sent = VecDeque::with_capacity(updates.len());
    for Kept { update, payments, .. } in updates {
        seq = seq.checked_add(1).filter(|next| *next == update.seq)?;
        sent.push_back(Sent { update, payments });
    }
    (seq == outgoing.signed.map_or(0, |signed| signed.state.seq)).then_some(sent)
}

impl Channel {
    pub(super) fn connected(&mut self, effects: &mut Effects) {
        self.disconnected();
        self.link = Link::Up;
        self.send_standing(effects);
    }

    pub(super) fn disconnected(&mut self) {
        self.link = Link::Down;
        self.peer_paused = None;
        self.paused = false;
        self.resending = false;
        self.peer_wants_close = false;
        self.close_requested = false;
        self.asked.clear();
        self.stated = None;
    }

    pub(super) fn send_standing(&self, effects: &mut Effects) {
        let standing = Reestablish {
            signed: self.outgoing.signed,
            signed_ticks: self.outgoing.ticks,
            held: self.incoming.held,
            held_ticks: self.incoming.ticks,
            stakes: self.stakes(),
        };
        effects.after.push(After::Send(ChannelMessage::Reestablish(Box::new(standing))));
    }

    /// The peer says where it stands: it is sent what it lacks, and what this side lost is taken over.
    pub(super) fn reestablish(
        &mut self,
        standing: &Reestablish,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        if let Some(signed) = &standing.signed {
            self.check_one_body(signed, effects)?;
        }
        if let Some(held) = &standing.held {
            self.check_own(held)?;
            let ours = self.outgoing_state();
            if held.state.seq == ours.seq && held.state != ours {
                return Err(Misbehaviour::OwnTwoBodies(ours.seq));
            }
            // A close that was signed here before those records were lost is no reason to forget them: it
            // may lapse, and what is signed next must not be a second body under a known number (I6).
            let in_use = matches!(self.phase, Phase::Opening | Phase::Open | Phase::ClosingTogether { .. });
            let shows_more = self.knows_less_than(held, standing.held_ticks.as_ref());
            if shows_more && (in_use || self.takes_shown()) {
                self.recover(held, standing, effects)?;
            }
        }
        self.shown(standing, effects)?;
        self.link = Link::Established;
        self.was_established = true;
        self.peer_paused = None;
        self.stated = Some(standing.stakes);
        let held_seq = standing.held.map_or(0, |held| held.state.seq);
        if held_seq < self.outgoing.acknowledged {
            // The peer lost what it had; the updates are gone here, but the newest balance says it all.
            if let Some(signed) = self.outgoing.signed {
                effects.after.push(After::Send(ChannelMessage::Balance(Box::new(signed))));
            }
        } else {
            self.acknowledged(held_seq);
            let updates = self.sent.iter().map(|sent| ChannelMessage::Update(sent.update.clone()));
            effects.after.extend(updates.map(After::Send));
        }
        self.resume_ticks(standing, effects);
        self.resume_close(effects);
        self.resume_withdraw(effects);
        Ok(())
    }

    /// Takes over the newest of this side's own balances, which the peer has shown: records were lost
    /// here. What the peer signed since then is taken with it, for the one may have paid for the other.
    fn recover(
        &mut self,
        own: &SignedBalance,
        standing: &Reestablish,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let shown = self.outgoing_shown(own, standing.held_ticks)?;
        if shown.total() < self.outgoing.total() {
            // A later number with less under it: this side signed twice after it lost records, which the peer
            // had hidden. Taking it over would forget the higher total (I3).
            return Err(Misbehaviour::OwnTwoBodies(own.state.seq));
        }
        let newer = self.incoming_shown(standing.signed, standing.signed_ticks)?;
        let (outgoing, incoming) = (self.outgoing, self.incoming);
        self.outgoing = shown;
        self.incoming = newer.unwrap_or(incoming);
        if self.checked_balances().is_none() {
            (self.outgoing, self.incoming) = (outgoing, incoming);
            return Err(Misbehaviour::HeldBack);
        }
        for sent in self.sent.drain(..) {
            tables::delete_kept(&mut effects.batch, self.id, Lane::Own, sent.update.seq);
        }
        self.chain = None;
        self.dirty.outgoing = true;
        self.recovered(self.agreement.side, effects);
        if newer.is_some() {
            self.dirty.incoming = true;
            self.recovered(!self.agreement.side, effects);
        }
        self.drop_queue(effects);
        self.signed_unknown(effects);
        Ok(())
    }

    pub(super) fn recovered(&self, payer: Side, effects: &mut Effects) {
        let cumulative = self.totals(payer).sent;
        effects.after.push(After::Event(ChannelEvent::Recovered { payer, cumulative }));
    }

    fn check_own(&self, balance: &SignedBalance) -> Result<(), Misbehaviour> {
        self.check_terms(&balance.state, self.agreement.side)?;
        if balance.verify(self.agreement.network, &self.key.public()) {
            Ok(())
        } else {
            Err(Misbehaviour::Signature)
        }
    }
}
