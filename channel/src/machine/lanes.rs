//! Paying and being paid, and finding each other again after a break.

use std::collections::VecDeque;

use flash_proto::{
    Amount, Hash, LaneState, Payment, PaymentList, Side, SignedBalance, TickStep, TickTerms, limits,
    message::{ChannelMessage, PauseReason, Reestablish, Update},
    payment::{PaymentError, Total},
};

use super::{
    After, Channel, ChannelEvent, Effects, Item, Link, Misbehaviour, Outgoing, PAYMENT_KEY_BYTES_MAX,
    PayError, PaymentKey, Phase, Queued, Sent,
    tables::{self, Kept, Lane},
    ticks::Next,
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
    /// [`Channel::order`] of a payment.
    ///
    /// # Errors
    /// [`PayError`]; nothing is queued.
    pub fn pay(&mut self, payment: Payment, key: Option<PaymentKey>) -> Result<u64, PayError> {
        self.order(Item::Payment(payment), key)
    }

    /// Queues payments and returns the number of the last of them on the lane. Nothing is promised until
    /// that one is acknowledged.
    ///
    /// # Errors
    /// [`PayError`]; nothing is queued.
    pub fn order(&mut self, item: Item, key: Option<PaymentKey>) -> Result<u64, PayError> {
        if self.phase != Phase::Open || self.wants_close || self.peer_wants_close || self.doubt.is_some() {
            let state =
                if self.phase == Phase::Open && self.doubt.is_none() { "closing" } else { self.state() };
            return Err(PayError::NotOpen(state));
        }
        if self.link != Link::Established {
            return Err(PayError::NotConnected);
        }
        if let Item::Ticks { unit, count } = item
            && (unit.is_zero() || !(1..=limits::TICKS_MAX).contains(&count))
        {
            return Err(PayError::Ticks);
        }
        if self.queue.len() >= limits::PAYMENTS_QUEUED_MAX {
            return Err(PayError::Full);
        }
        if key.as_ref().is_some_and(|key| key.len() > PAYMENT_KEY_BYTES_MAX) {
            return Err(PayError::KeyTooLong);
        }
        let (payments, amount) = item.worth();
        let available = self.available();
        let queued = self.queued_amount.checked_add(amount);
        let total = queued.and_then(|queued| queued.checked_add(self.outgoing.total()));
        let (Some(queued), Some(_)) = (queued.filter(|_| amount <= available), total) else {
            return Err(PayError::Insufficient { amount, available });
        };
        self.queued_amount = queued;
        // Counts of payments stay far below 2^64.
        self.queued_payments = self.queued_payments.saturating_add(payments);
        self.queue.push_back(Queued { item, key });
        Ok(self.outgoing.payments.saturating_add(self.queued_payments))
    }

    /// Pays what waits: as many payments as fit one update, and ticks before and after it.
    pub(super) fn cut(&mut self, effects: &mut Effects) {
        let may_pay = self.phase == Phase::Open
            && self.link == Link::Established
            && self.doubt.is_none()
            && self.peer_paused.is_none()
            && self.queue_is_covered();
        if !may_pay {
            return;
        }
        let next = self.next_of_queue(self.sent.len() < limits::UPDATES_UNACKNOWLEDGED_MAX);
        if !next.is_update() {
            self.reveal(&next, effects);
        } else if self.sign_update(next, effects) {
            // Ticks that the update began a chain for go at once.
            let ticks = self.next_of_queue(false);
            self.reveal(&ticks, effects);
        }
    }

    /// Signs one update.
    fn sign_update(&mut self, next: Next, effects: &mut Effects) -> bool {
        let before = self.outgoing_state();
        let folded = self.revealed(next.ticks);
        let fresh = next.anchor.and_then(|unit| self.new_chain(folded, &next.payments, unit));
        let ticks = self.tick_step(folded, fresh.as_ref());
        // Payments that were taken fit what this side owns, so their sum fits 64 bits, and no list that
        // was just packed is malformed.
        let Ok(state) = before.step(&next.payments, &ticks) else { return false };
        let rises = state.seq > before.seq && state.cumulative >= self.outgoing.total();
        assert!(rises, "I3: a counter must not go down");
        let signed = state.sign(self.agreement.network, &self.key);
        self.take_queued(next.entries, effects);
        self.outgoing.signed = Some(signed);
        self.outgoing.ticks = None;
        self.outgoing.acknowledged_ticks = 0;
        self.chain_after(fresh, &ticks);
        let plain = before.ticks == TickTerms::NONE && ticks == TickStep::NONE;
        let update = Update {
            seq: state.seq,
            cumulative: state.cumulative,
            payments: next.payments,
            ticks: (!plain).then_some(ticks),
            signature: signed.signature,
        };
        self.keep_own(&update, &before, effects);
        self.sent.push_back(Sent { update: update.clone(), payments: self.outgoing.payments });
        effects.after.push(After::Send(ChannelMessage::Update(update)));
        self.ask_at_cadence(&state, effects);
        true
    }

    /// Takes entries from the queue that the batch pays.
    pub(super) fn take_queued(&mut self, entries: usize, effects: &mut Effects) {
        for Queued { item, key } in self.queue.drain(..entries) {
            let (payments, amount) = item.worth();
            self.queued_payments = self.queued_payments.saturating_sub(payments);
            self.queued_amount = self.queued_amount.saturating_sub(amount);
            self.outgoing.payments = self.outgoing.payments.saturating_add(payments);
            if let Some(key) = key {
                tables::put_key(&mut effects.batch, self.id, &key, self.outgoing.payments, &item);
            }
        }
        self.dirty.outgoing = true;
    }

    /// Gives up the payments that wait.
    pub(super) fn drop_queue(&mut self, effects: &mut Effects) {
        if !self.queue.is_empty() {
            let payments = self.queued_payments;
            effects.after.push(After::Event(ChannelEvent::NotMade { payments }));
            self.queue.clear();
            self.queued_amount = Amount::ZERO;
            self.queued_payments = 0;
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

    pub(super) fn check_peers(&self, balance: &SignedBalance) -> Result<(), Misbehaviour> {
        self.check_terms(&balance.state, !self.agreement.side)?;
        let valid = self
            .peer_verifier
            .as_ref()
            .is_some_and(|verifier| balance.verify_with(self.agreement.network, verifier));
        if valid { Ok(()) } else { Err(Misbehaviour::Signature) }
    }

    fn check_terms(&self, state: &LaneState, payer: Side) -> Result<(), Misbehaviour> {
        let ours = state.channel == self.id && state.payer == payer;
        let usable = state.ticks.check_form().is_ok() && state.locks_root == Hash::ZERO;
        if ours && usable { Ok(()) } else { Err(Misbehaviour::Terms) }
    }

    /// The payee's rule: the payer never paid more than it ever owned.
    fn check_owned(&self, total: Amount) -> Result<(), Misbehaviour> {
        let totals = self.totals(!self.agreement.side);
        let received = self.outgoing.total();
        let owned = totals
            .deposit
            .checked_add(received)
            .and_then(|owned| owned.checked_sub(totals.withdrawn))
            .unwrap_or(Amount::ZERO);
        if total > owned {
            return Err(Misbehaviour::Overspent { total, owned });
        }
        Ok(())
    }

    /// [`Self::check_owned`], and false if nothing can be taken yet.
    pub(super) fn is_owned(&mut self, total: Amount, effects: &mut Effects) -> Result<bool, Misbehaviour> {
        match self.check_owned(total) {
            Err(_) if self.waits_for_lapse(total, effects) => Ok(false),
            owned => owned.map(|()| true),
        }
    }

    /// Why nothing is taken now, if so.
    pub(super) fn refusal(&self) -> Option<PauseReason> {
        match self.phase {
            Phase::Opening => Some(PauseReason::NotOpenYet),
            Phase::Open if self.doubt.is_some() => Some(PauseReason::Recovered),
            Phase::Open if self.fresh && self.seen.is_some() && !self.behind => None,
            Phase::Open => Some(PauseReason::StaleLedgerView),
            _ => Some(PauseReason::Closing),
        }
    }

    /// Tells the peer once that nothing is taken now. True if so.
    pub(super) fn pauses(&mut self, effects: &mut Effects) -> bool {
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
        let again = fresh && !self.fresh;
        self.fresh = fresh;
        self.lapse_forgotten();
        self.resume(effects);
        if again {
            self.state_stakes(effects); // what could not be signed before is asked for again
        }
    }

    pub(super) fn take_update(&mut self, update: Update, effects: &mut Effects) -> Result<(), Misbehaviour> {
        let before = self.incoming_state();
        if update.seq <= before.seq {
            self.check_one_update(&update, effects)?;
            self.dirty.acknowledge = true;
            return Ok(());
        }
        if self.pauses(effects) {
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
        let ticks = update.ticks.unwrap_or(TickStep::NONE);
        let new_ticks = self.check_folded(ticks.folded.as_ref())?;
        let listed = listed(&update.payments)?;
        let state = before.step(&update.payments, &ticks)?;
        if state.cumulative != update.cumulative {
            return Err(Misbehaviour::Cumulative { got: update.cumulative, wanted: state.cumulative });
        }
        if !self.is_owned(state.cumulative, effects)? {
            return Ok(());
        }
        let balance = SignedBalance { state, signature: update.signature };
        self.check_peers(&balance)?;
        self.resending = false;
        self.hold(balance);
        self.evidence.before = Some(before);
        self.incoming.payments = self.incoming.payments.saturating_add(listed.count);
        self.received_ticks(new_ticks, before.ticks.unit, effects);
        self.keep_peers(&update, &before, effects);
        if listed.count > 0 {
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
        self.check_one_body(balance, effects)?;
        let before = self.incoming_state();
        if balance.state.seq <= before.seq {
            self.dirty.acknowledge = true;
            return Ok(());
        }
        let (got, wanted) = (balance.state.cumulative, self.incoming.total());
        if got < wanted {
            return Err(Misbehaviour::Cumulative { got, wanted });
        }
        if !self.takes_shown() && self.pauses(effects) {
            return Ok(());
        }
        if !self.is_owned(got, effects)? {
            return Ok(());
        }
        self.resending = false;
        self.hold(*balance);
        self.recovered(balance.state.payer, effects);
        Ok(())
    }

    fn hold(&mut self, balance: SignedBalance) {
        let before = self.incoming_state();
        assert!(
            balance.state.seq > before.seq && balance.state.cumulative >= self.incoming.total(),
            "I3: a counter must not go down"
        );
        self.incoming.held = Some(balance);
        self.incoming.ticks = None;
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
            self.outgoing.acknowledged_payments = self.outgoing.acknowledged_payments.max(first.payments);
            self.sent.pop_front();
        }
        self.outgoing.acknowledged = self.outgoing.acknowledged.max(seq);
    }
}

/// How many payments a list holds, and their sum; an update that is only about ticks holds none.
fn listed(payments: &PaymentList) -> Result<Total, PaymentError> {
    if payments.is_empty() { Ok(Total { count: 0, amount: Amount::ZERO }) } else { payments.total() }
}
