//! Paying and being paid.

use flash_proto::{
    Amount, Hash, LaneState, Payment, PaymentList, Side, SignedBalance, TickStep, TickTerms, limits,
    message::{ChannelMessage, PauseReason, Update},
    payment::PaymentError,
};

use super::{
    After, Channel, ChannelEvent, Effects, Item, Link, Misbehaviour, PAYMENT_KEY_BYTES_MAX, PayError,
    PaymentKey, Phase, Queued, Sent, Wanted, tables, ticks::Next,
};

/// What is signed or taken after this number and this total has a later number, and pays no less.
fn assert_rises(seq: u64, total: Amount, after: &LaneState) {
    assert!(after.seq > seq && after.cumulative >= total, "I3: a counter must not go down");
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
        if let Item::Ticks { unit, count } = item
            && (unit.is_zero() || !(1..=limits::TICKS_MAX).contains(&count))
        {
            return Err(PayError::Ticks);
        }
        if key.as_ref().is_some_and(|key| key.len() > PAYMENT_KEY_BYTES_MAX) {
            return Err(PayError::KeyTooLong);
        }
        let (payments, amount) = item.worth();
        self.queue(Queued { what: Wanted::Item(item, key), payments, amount, room: 1 })
    }

    /// [`Channel::order`] of many payments: all of them or none are made, by one update. Whoever has them at hand
    /// spares the machine a step for each.
    ///
    /// # Errors
    /// [`PayError`]; nothing is queued.
    pub fn pay_all(&mut self, payments: PaymentList) -> Result<u64, PayError> {
        let total = payments.total()?;
        if total.count == 0 {
            return Err(PaymentError::Empty.into());
        }
        // Of what is packed it takes about as much as so many single payments.
        let room = usize::try_from(total.count).unwrap_or(usize::MAX);
        let (count, amount) = (total.count, total.amount);
        self.queue(Queued { what: Wanted::Payments(payments), payments: count, amount, room })
    }

    fn queue(&mut self, wanted: Queued) -> Result<u64, PayError> {
        if self.phase != Phase::Open || self.wants_close || self.peer_wants_close || self.doubt.is_some() {
            let state =
                if self.phase == Phase::Open && self.doubt.is_none() { "closing" } else { self.state() };
            return Err(PayError::NotOpen(state));
        }
        // Before the peer has said where it stands what is queued waits for that.
        if self.link == Link::Down {
            return Err(PayError::NotConnected);
        }
        if self.queue_room >= limits::PAYMENTS_QUEUED_MAX {
            return Err(PayError::Full);
        }
        let (amount, available) = (wanted.amount, self.available());
        let queued = self.queued_amount.checked_add(amount);
        let total = queued.and_then(|queued| queued.checked_add(self.outgoing.total()));
        let (Some(queued), Some(_)) = (queued.filter(|_| amount <= available), total) else {
            return Err(PayError::Insufficient { amount, available });
        };
        self.queued_amount = queued;
        // Counts of payments stay far below 2^64.
        self.queued_payments = self.queued_payments.saturating_add(wanted.payments);
        self.queue_room = self.queue_room.saturating_add(wanted.room);
        self.queue.push_back(wanted);
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
        let Ok(state) = before.step_after(&next.payments, &ticks, folded.as_ref()) else { return false };
        assert_rises(before.seq, self.outgoing.total(), &state);
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
        for Queued { what, payments, amount, room } in self.queue.drain(..entries) {
            self.queue_room = self.queue_room.saturating_sub(room);
            self.queued_payments = self.queued_payments.saturating_sub(payments);
            self.queued_amount = self.queued_amount.saturating_sub(amount);
            self.outgoing.payments = self.outgoing.payments.saturating_add(payments);
            if let Wanted::Item(item, Some(key)) = what {
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
            self.queue_room = 0;
        }
    }

    pub(super) fn check_peers(&self, balance: &SignedBalance) -> Result<(), Misbehaviour> {
        self.check_terms(&balance.state, !self.agreement.side)?;
        let hash = balance.state.signing_hash(self.agreement.network);
        self.check_signature(&hash, &balance.signature)
    }

    pub(super) fn check_terms(&self, state: &LaneState, payer: Side) -> Result<(), Misbehaviour> {
        let ours = state.channel == self.id && state.payer == payer;
        let usable = state.ticks.check_form().is_ok() && state.locks_root == Hash::ZERO;
        if ours && usable { Ok(()) } else { Err(Misbehaviour::Terms) }
    }

    /// The payee's rule: the payer never paid more than it ever owned.
    fn check_owned(&self, total: Amount) -> Result<(), Misbehaviour> {
        let stake = self.locked.counted(!self.agreement.side);
        let owned = stake.owned(self.outgoing.total()).unwrap_or(Amount::ZERO);
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
        let folded = update.ticks.and_then(|ticks| ticks.folded);
        let new_ticks = self.check_folded(folded.as_ref())?;
        let listed = update.payments.total()?;
        let state = update.after_tick(&before, self.incoming.ticks.as_ref())?;
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
        assert_rises(self.incoming_seq(), self.incoming.total(), &balance.state);
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
    pub(super) fn acknowledged(&mut self, seq: u64) {
        while let Some(first) = self.sent.front().filter(|first| first.update.seq <= seq) {
            self.outgoing.acknowledged_payments = self.outgoing.acknowledged_payments.max(first.payments);
            self.sent.pop_front();
        }
        self.outgoing.acknowledged = self.outgoing.acknowledged.max(seq);
    }
}
