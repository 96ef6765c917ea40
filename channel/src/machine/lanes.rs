//! Paying and being paid, and finding each other again after a break.

use std::collections::VecDeque;

use flash_proto::{
    Amount, Hash, LaneState, Payment, PaymentList, Side, SignedBalance, TickTerms, limits,
    message::{ChannelMessage, PauseReason, Reestablish, Update},
};

use super::{
    After, Channel, ChannelEvent, Effects, Link, Misbehaviour, Outgoing, PAYMENT_KEY_BYTES_MAX, PayError,
    PaymentKey, Phase, Queued, Sent,
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
    /// Queues a payment for the next update and returns its number on the lane. Nothing is promised
    /// until an update with it is acknowledged.
    ///
    /// # Errors
    /// [`PayError`]; nothing is queued.
    pub fn pay(&mut self, payment: Payment, key: Option<PaymentKey>) -> Result<u64, PayError> {
        if self.phase != Phase::Open || self.wants_close || self.peer_wants_close || self.is_found() {
            let state = if self.phase == Phase::Open && !self.is_found() { "closing" } else { self.state() };
            return Err(PayError::NotOpen(state));
        }
        if self.link != Link::Established {
            return Err(PayError::NotConnected);
        }
        if self.queue.len() >= limits::PAYMENTS_QUEUED_MAX {
            return Err(PayError::Full);
        }
        if key.as_ref().is_some_and(|key| key.len() > PAYMENT_KEY_BYTES_MAX) {
            return Err(PayError::KeyTooLong);
        }
        let available = self.available();
        let amount = payment.amount;
        let insufficient = PayError::Insufficient { amount, available };
        if amount > available {
            return Err(insufficient);
        }
        self.queued_amount = self.queued_amount.checked_add(amount).ok_or(insufficient)?;
        // Counts of payments stay far below 2^64.
        let waiting = u64::try_from(self.queue.len()).unwrap_or(u64::MAX);
        let number = self.outgoing.payments.saturating_add(waiting).saturating_add(1);
        self.queue.push_back(Queued { payment, key });
        Ok(number)
    }

    /// Signs one update with as many of the payments that wait as fit.
    pub(super) fn cut(&mut self, effects: &mut Effects) {
        let may_pay = self.phase == Phase::Open
            && self.link == Link::Established
            && self.peer_paused.is_none()
            && self.sent.len() < limits::UPDATES_UNACKNOWLEDGED_MAX;
        if !may_pay || self.queue.is_empty() {
            return;
        }
        let mut payments = PaymentList::new();
        let mut count = 0_usize;
        for queued in &self.queue {
            if payments.push(&queued.payment).is_err() {
                break; // full; the rest waits for the next update
            }
            count = count.saturating_add(1);
        }
        let before = self.outgoing_state();
        // Payments that were taken fit what this side owns, so their sum fits 64 bits, and no list that
        // was just packed is malformed.
        let Ok(state) = before.advance(&payments) else { return };
        assert!(state.seq > before.seq && state.cumulative > before.cumulative, "I3: a counter must rise");
        let signed = state.sign(self.agreement.network, &self.key);
        for queued in self.queue.drain(..count) {
            self.outgoing.payments = self.outgoing.payments.saturating_add(1);
            self.queued_amount = self.queued_amount.saturating_sub(queued.payment.amount);
            if let Some(key) = queued.key {
                tables::put_key(&mut effects.batch, self.id, &key, self.outgoing.payments, &queued.payment);
            }
        }
        self.outgoing.signed = Some(signed);
        self.dirty.outgoing = true;
        let update = Update {
            seq: state.seq,
            cumulative: state.cumulative,
            payments,
            ticks: None,
            signature: signed.signature,
        };
        self.keep_own(&update, &before, effects);
        self.sent.push_back(Sent { update: update.clone(), payments: self.outgoing.payments });
        effects.after.push(After::Send(ChannelMessage::Update(update)));
        self.ask_at_cadence(&state, effects);
    }

    /// Gives up the payments that wait.
    pub(super) fn drop_queue(&mut self, effects: &mut Effects) {
        if !self.queue.is_empty() {
            let payments = u64::try_from(self.queue.len()).unwrap_or(u64::MAX);
            effects.after.push(After::Event(ChannelEvent::NotMade { payments }));
            self.queue.clear();
            self.queued_amount = Amount::ZERO;
        }
    }

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
    }

    pub(super) fn send_standing(&self, effects: &mut Effects) {
        let standing = Reestablish {
            signed: self.outgoing.signed,
            held: self.incoming.held,
            held_ticks: None,
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
        if let Some(held) = &standing.held {
            self.check_own(held)?;
            let ours = self.outgoing_state();
            if held.state.seq == ours.seq && held.state != ours {
                return Err(Misbehaviour::OwnTwoBodies(ours.seq));
            }
            // A close that was signed here before those records were lost is no reason to forget them: it
            // may lapse, and what is signed next must not be a second body under a known number (I6).
            let in_use = matches!(self.phase, Phase::Opening | Phase::Open | Phase::ClosingTogether { .. });
            if held.state.seq > ours.seq && (in_use || self.takes_shown()) {
                self.recover(held, standing.signed.as_ref(), effects)?;
            }
        }
        self.shown(standing, effects)?;
        self.link = Link::Established;
        self.peer_paused = None;
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
        self.resume_close(effects);
        Ok(())
    }

    /// Takes over the newest of this side's own balances, which the peer has shown: records were lost
    /// here. What the peer signed since then is taken with it, for the one may have paid for the other.
    fn recover(
        &mut self,
        own: &SignedBalance,
        peers: Option<&SignedBalance>,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let newer = peers.filter(|peers| peers.state.seq > self.incoming_seq());
        if let Some(newer) = newer {
            self.check_peers(newer)?;
        }
        let (outgoing, incoming) = (self.outgoing, self.incoming);
        self.outgoing.signed = Some(*own);
        if let Some(newer) = newer {
            self.incoming.held = Some(*newer);
        }
        if self.checked_balances().is_none() {
            (self.outgoing, self.incoming) = (outgoing, incoming);
            return Err(Misbehaviour::HeldBack);
        }
        for sent in self.sent.drain(..) {
            tables::delete_kept(&mut effects.batch, self.id, Lane::Own, sent.update.seq);
        }
        self.outgoing.acknowledged = own.state.seq;
        self.outgoing.acknowledged_payments = self.outgoing.payments;
        self.dirty.outgoing = true;
        recovered(own, effects);
        if let Some(newer) = newer {
            self.dirty.incoming = true;
            recovered(newer, effects);
        }
        self.drop_queue(effects);
        Ok(())
    }

    fn check_own(&self, balance: &SignedBalance) -> Result<(), Misbehaviour> {
        self.check_terms(&balance.state, self.agreement.side)?;
        if balance.verify(self.agreement.network, &self.key.public()) {
            Ok(())
        } else {
            Err(Misbehaviour::Signature)
        }
    }

    fn check_peers(&self, balance: &SignedBalance) -> Result<(), Misbehaviour> {
        self.check_terms(&balance.state, !self.agreement.side)?;
        let valid = self
            .peer_verifier
            .as_ref()
            .is_some_and(|verifier| balance.verify_with(self.agreement.network, verifier));
        if valid { Ok(()) } else { Err(Misbehaviour::Signature) }
    }

    fn check_terms(&self, state: &LaneState, payer: Side) -> Result<(), Misbehaviour> {
        let ours = state.channel == self.id && state.payer == payer;
        let plain = state.ticks == TickTerms::NONE && state.locks_root == Hash::ZERO;
        if ours && plain { Ok(()) } else { Err(Misbehaviour::Terms) }
    }

    /// The payee's rule: the payer never paid more than it ever owned.
    fn check_owned(&self, state: &LaneState) -> Result<(), Misbehaviour> {
        let totals = self.totals(!self.agreement.side);
        let received = self.outgoing_state().cumulative;
        let owned = totals
            .deposit
            .checked_add(received)
            .and_then(|owned| owned.checked_sub(totals.withdrawn))
            .unwrap_or(Amount::ZERO);
        if state.cumulative > owned {
            return Err(Misbehaviour::Overspent { total: state.cumulative, owned });
        }
        Ok(())
    }

    /// Why nothing is taken now, if so.
    pub(super) fn refusal(&self) -> Option<PauseReason> {
        match self.phase {
            Phase::Opening => Some(PauseReason::NotOpenYet),
            _ if self.is_found() => Some(PauseReason::Closing),
            Phase::Open if self.fresh && self.seen.is_some() => None,
            Phase::Open => Some(PauseReason::StaleLedgerView),
            _ => Some(PauseReason::Closing),
        }
    }

    /// Tells the peer once that nothing is taken now. True if so.
    fn pauses(&mut self, effects: &mut Effects) -> bool {
        let Some(reason) = self.refusal() else { return false };
        if !self.paused {
            self.paused = true;
            let held_seq = self.incoming_seq();
            effects.after.push(After::Send(ChannelMessage::Paused { held_seq, reason }));
        }
        true
    }

    /// Asks the peer to send again what was not taken, if it may be taken now.
    pub(super) fn resume(&mut self, effects: &mut Effects) {
        if self.paused && self.link != Link::Down && self.refusal().is_none() {
            self.paused = false;
            self.resending = true;
            self.send_standing(effects);
        }
    }

    pub(super) fn freshness(&mut self, fresh: bool, effects: &mut Effects) {
        self.fresh = fresh;
        self.resume(effects);
    }

    pub(super) fn take_update(&mut self, update: Update, effects: &mut Effects) -> Result<(), Misbehaviour> {
        let before = self.incoming_state();
        if update.seq <= before.seq {
            let newest = self.incoming.held.filter(|held| held.state.seq == update.seq);
            if newest.is_some_and(|held| held.signature != update.signature) {
                return Err(Misbehaviour::TwoBodies(update.seq));
            }
            self.dirty.acknowledge = true;
            return Ok(());
        }
        if !self.takes_shown() && self.pauses(effects) {
            return Ok(());
        }
        if before.seq.checked_add(1) != Some(update.seq) {
            // What the peer sent before it heard that nothing was taken.
            return if self.resending {
                Ok(())
            } else {
                Err(Misbehaviour::Gap { got: update.seq, held: before.seq })
            };
        }
        let total = update.payments.total()?;
        let state = before.advance(&update.payments)?;
        if state.cumulative != update.cumulative {
            return Err(Misbehaviour::Cumulative { got: update.cumulative, wanted: state.cumulative });
        }
        self.check_owned(&state)?;
        let balance = SignedBalance { state, signature: update.signature };
        self.check_peers(&balance)?;
        self.resending = false;
        self.hold(balance);
        self.incoming.payments = self.incoming.payments.saturating_add(total.count);
        self.keep_peers(&update, &before, effects);
        if self.is_found() {
            recovered(&balance, effects);
        } else {
            effects.after.push(After::Event(ChannelEvent::Received(Box::new(update))));
        }
        Ok(())
    }

    /// The newest balance without the payments that led to it.
    pub(super) fn take_balance(
        &mut self,
        balance: &SignedBalance,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        self.check_peers(balance)?;
        let before = self.incoming_state();
        if balance.state.seq <= before.seq {
            self.dirty.acknowledge = true;
            return Ok(());
        }
        if balance.state.cumulative <= before.cumulative {
            return Err(Misbehaviour::Cumulative {
                got: balance.state.cumulative,
                wanted: before.cumulative,
            });
        }
        if !self.takes_shown() && self.pauses(effects) {
            return Ok(());
        }
        self.check_owned(&balance.state)?;
        self.resending = false;
        self.hold(*balance);
        recovered(balance, effects);
        Ok(())
    }

    fn hold(&mut self, balance: SignedBalance) {
        let before = self.incoming_state();
        assert!(
            balance.state.seq > before.seq && balance.state.cumulative > before.cumulative,
            "I3: a counter must rise"
        );
        self.incoming.held = Some(balance);
        self.dirty.incoming = true;
        self.dirty.acknowledge = true;
    }

    pub(super) fn take_ack(&mut self, seq: u64) -> Result<(), Misbehaviour> {
        let sent = self.outgoing_seq();
        if seq > sent {
            return Err(Misbehaviour::AckBeyond { got: seq, sent });
        }
        self.acknowledged(seq);
        Ok(())
    }

    /// The peer has everything up to `seq` on its disk. What it acknowledged is not worth a commit of
    /// its own: after a crash it says so again.
    fn acknowledged(&mut self, seq: u64) {
        while let Some(first) = self.sent.front().filter(|first| first.update.seq <= seq) {
            self.outgoing.acknowledged_payments = first.payments;
            self.sent.pop_front();
        }
        self.outgoing.acknowledged = self.outgoing.acknowledged.max(seq);
    }
}

fn recovered(balance: &SignedBalance, effects: &mut Effects) {
    let LaneState { payer, cumulative, .. } = balance.state;
    effects.after.push(After::Event(ChannelEvent::Recovered { payer, cumulative }));
}
