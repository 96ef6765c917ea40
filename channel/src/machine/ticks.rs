//! Ticks: payments of one hash each under a signed balance.
//!
//! The payer reveals the newest of all ticks that wait with one message, and writes down what it reveals before
//! that. The next update folds what was revealed, so the lane's total never falls; it goes on with what is left of
//! the chain or begins another one, in the same batch, so that no tick waits for a new chain.
//!
//! A chain lives in memory only: after a restart the first tick begins another. So two lives of one side that
//! both go on from the same old records never share a chain beyond the balance that they share
//! (`docs/safety.md`, claim 8), and no secret of a chain is ever stored. Nor is one drawn: it follows from the
//! channel's key and the body that anchors it.

use flash_proto::{
    Amount, PaymentList, SignedBalance, TickChain, TickProof, TickStep, TickTerms,
    hash::{Layout, Tag},
    limits,
    message::{ChannelMessage, Reestablish},
    payment::PaymentError,
};

use super::{
    After, Channel, ChannelEvent, Effects, Incoming, Item, Misbehaviour, Outgoing, PayError, PaymentKey,
    Wanted,
};

/// The chain under the newest balance.
#[derive(Clone, Debug)]
pub(super) struct ChainInUse {
    chain: TickChain,
    /// Ticks of it that are part of that balance's total already.
    folded: u32,
}

/// Ticks that came in and that the user was not told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Untold {
    count: u64,
    unit: Amount,
}

/// What of the queue goes next.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// Entries that are taken.
    pub(super) entries: usize,
    /// The payments among them.
    pub(super) payments: PaymentList,
    /// The ticks among them, all of the chain in use.
    pub(super) ticks: u32,
    /// The unit of the ticks that come next, if the chain in use has no room for them.
    pub(super) anchor: Option<Amount>,
}

impl Next {
    /// Whether it takes a signature.
    pub(super) const fn is_update(&self) -> bool {
        !self.payments.is_empty() || self.anchor.is_some()
    }
}

/// Everything paid by a balance and the ticks under it. A sum that does not fit is more than anybody owns, and
/// no balances come out of it.
fn total(balance: Option<&SignedBalance>, ticks: Option<&TickProof>) -> Amount {
    let Some(SignedBalance { state, .. }) = balance else { return Amount::ZERO };
    let ticked = state.ticks.amount(ticks.map_or(0, |proof| proof.index)).ok();
    ticked.and_then(|ticked| state.cumulative.checked_add(ticked)).unwrap_or(Amount::MAX)
}

fn index(ticks: Option<&TickProof>) -> u32 {
    ticks.map_or(0, |proof| proof.index)
}

impl Outgoing {
    /// All that this side paid on its lane: its balance and the ticks that it revealed under it.
    pub fn total(&self) -> Amount {
        total(self.signed.as_ref(), self.ticks.as_ref())
    }

    /// Whether the peer is known to hold every tick that was revealed under the newest balance.
    pub fn ticks_acknowledged(&self) -> bool {
        self.acknowledged_ticks >= index(self.ticks.as_ref())
    }

    /// Payments and ticks up to the newest balance, without the ticks under it.
    pub(super) fn payments_signed(&self) -> Option<u64> {
        self.payments.checked_sub(u64::from(index(self.ticks.as_ref())))
    }
}

impl Incoming {
    /// All that the peer paid on its lane: its balance and the ticks that it revealed under it.
    pub fn total(&self) -> Amount {
        total(self.held.as_ref(), self.ticks.as_ref())
    }

    /// How far the peer is: its update, and its tick under that.
    fn standing(&self) -> (u64, u32) {
        (self.held.map_or(0, |held| held.state.seq), index(self.ticks.as_ref()))
    }
}

/// Paying.
impl Channel {
    /// [`Channel::order`] of ticks.
    ///
    /// # Errors
    /// [`PayError`]; nothing is queued.
    pub fn tick(&mut self, unit: Amount, count: u32, key: Option<PaymentKey>) -> Result<u64, PayError> {
        self.order(Item::Ticks { unit, count }, key)
    }

    /// How many payments wait at the front of the queue that one step can make: the payments in one update, the
    /// ticks by one reveal before it.
    pub(super) fn next_of_queue(&self, may_sign: bool) -> Next {
        let mut next = Next::default();
        let mut room = self.ticks_left();
        let unit = self.outgoing_state().ticks.unit;
        for queued in &self.queue {
            match &queued.what {
                Wanted::Item(Item::Payment(payment), _) => {
                    if !may_sign || next.payments.push(payment).is_err() {
                        break; // full; the rest waits for the next update
                    }
                }
                Wanted::Payments(payments) => {
                    if !may_sign || next.payments.append(payments).is_err() {
                        break;
                    }
                }
                &Wanted::Item(Item::Ticks { unit: wanted, count }, _) => {
                    let Some(left) = room.checked_sub(count).filter(|_| wanted == unit) else {
                        next.anchor = may_sign.then_some(wanted);
                        break;
                    };
                    if !next.payments.is_empty() {
                        break; // an update folds ticks before its payments, and their numbers are in order
                    }
                    room = left;
                    next.ticks = next.ticks.saturating_add(count);
                }
            }
            next.entries = next.entries.saturating_add(1);
        }
        next
    }

    /// Ticks of the chain in use that were not revealed.
    fn ticks_left(&self) -> u32 {
        if self.chain.is_none() {
            return 0;
        }
        self.outgoing_state().ticks.max.saturating_sub(index(self.outgoing.ticks.as_ref()))
    }

    /// The newest tick once `more` are revealed; none before the first.
    pub(super) fn revealed(&mut self, more: u32) -> Option<TickProof> {
        if more == 0 {
            return self.outgoing.ticks;
        }
        let index = index(self.outgoing.ticks.as_ref()).saturating_add(more);
        let newest = self.chain.as_mut().and_then(|ChainInUse { chain, folded }| {
            let proof = chain.reveal(folded.checked_add(index)?)?;
            Some(TickProof { index, ..proof })
        });
        assert!(newest.is_some(), "I3: a chain must have the ticks that are left of it");
        newest
    }

    /// Pays ticks of the chain in use, if there are any next: one message whatever their number.
    pub(super) fn reveal(&mut self, next: &Next, effects: &mut Effects) {
        if next.ticks == 0 {
            return;
        }
        let before = self.outgoing.total();
        self.outgoing.ticks = self.revealed(next.ticks);
        assert!(self.outgoing.total() > before, "I3: a counter must rise");
        self.take_queued(next.entries, effects);
        self.send_ticks(effects);
    }

    fn send_ticks(&self, effects: &mut Effects) {
        if let (Some(signed), Some(proof)) = (self.outgoing.signed, self.outgoing.ticks) {
            let tick = ChannelMessage::Tick { seq: signed.state.seq, proof };
            effects.after.push(After::Send(tick));
        }
    }

    /// After a break: sends the newest tick if the peer does not hold it.
    pub(super) fn resume_ticks(&mut self, standing: &Reestablish, effects: &mut Effects) {
        let held = standing.held.map_or(0, |held| held.state.seq) == self.outgoing_seq();
        let held = if held { index(standing.held_ticks.as_ref()) } else { 0 };
        self.ticks_are_held(held);
        if held < index(self.outgoing.ticks.as_ref()) {
            self.send_ticks(effects);
        }
    }

    /// What the next update does about ticks, if it folds these and begins this chain.
    pub(super) fn tick_step(&self, folded: Option<TickProof>, fresh: Option<&TickChain>) -> TickStep {
        let terms = match fresh {
            Some(chain) => chain.terms(),
            None if self.chain.is_some() => self.outgoing_state().ticks.rest(folded.as_ref()),
            None => TickTerms::NONE,
        };
        TickStep { folded, terms }
    }

    /// The chain from an update on that did this step.
    pub(super) fn chain_after(&mut self, fresh: Option<TickChain>, step: &TickStep) {
        let rest = self.chain.take().filter(|_| step.terms != TickTerms::NONE);
        self.chain = match fresh {
            Some(chain) => Some(ChainInUse { chain, folded: 0 }),
            None => rest.map(|ChainInUse { chain, folded }| ChainInUse {
                chain,
                folded: folded.saturating_add(index(step.folded.as_ref())),
            }),
        };
    }

    /// The chain that the next update may begin. Its secret is bound to that update's body, and to what this
    /// life has seen of the ledger: two different bodies, also in two lives, never have one chain.
    pub(super) fn new_chain(
        &self,
        folded: Option<TickProof>,
        payments: &PaymentList,
        unit: Amount,
    ) -> Option<TickChain> {
        let secret = Layout::new(Tag::TICK_SECRET)
            .bytes(self.key.expose_bytes().as_slice())
            .bytes(self.outgoing_state().signing_hash(self.agreement.network).as_bytes())
            .u32(index(folded.as_ref()))
            .amount(unit)
            .u64(self.stored_seen.max(self.seen.unwrap_or(0)))
            .bytes(payments.as_bytes())
            .hash();
        TickChain::new(secret, unit, limits::TICKS_MAX).ok()
    }

    pub(super) fn take_tick_ack(&mut self, seq: u64, index: u32) -> Result<(), Misbehaviour> {
        let (sent_seq, sent) = (self.outgoing_seq(), self::index(self.outgoing.ticks.as_ref()));
        if seq == sent_seq && index > sent {
            return Err(Misbehaviour::TickAckBeyond { got: index, sent });
        }
        self.take_ack(seq)?;
        if seq == sent_seq {
            self.ticks_are_held(index);
        }
        Ok(())
    }

    /// The peer holds the ticks up to this one under the newest balance.
    pub(super) fn ticks_are_held(&mut self, index: u32) {
        let index = index.min(self::index(self.outgoing.ticks.as_ref()));
        if index > self.outgoing.acknowledged_ticks {
            self.outgoing.acknowledged_ticks = index;
            let payments = self.outgoing.payments_signed().unwrap_or(0).saturating_add(u64::from(index));
            self.outgoing.acknowledged_payments = self.outgoing.acknowledged_payments.max(payments);
        }
    }

    /// Whether what the peer shows of this side's lane is more than this side knows.
    pub(super) fn knows_less_than(&self, own: &SignedBalance, ticks: Option<&TickProof>) -> bool {
        let ours = (self.outgoing_seq(), index(self.outgoing.ticks.as_ref()));
        (own.state.seq, index(ticks)) > ours
    }

    /// This side's lane as the peer has shown it, with more than this side knew.
    pub(super) fn outgoing_shown(
        &self,
        own: &SignedBalance,
        ticks: Option<TickProof>,
    ) -> Result<Outgoing, Misbehaviour> {
        own.state.with_ticks(ticks.as_ref())?;
        let shown = index(ticks.as_ref());
        let same = own.state.seq == self.outgoing_seq();
        let known = if same { index(self.outgoing.ticks.as_ref()) } else { 0 };
        // What was paid by the updates in between cannot be told.
        let more = u64::from(shown.saturating_sub(known));
        let payments = self.outgoing.payments.saturating_add(more);
        Ok(Outgoing {
            signed: Some(*own),
            ticks,
            payments,
            acknowledged: own.state.seq,
            acknowledged_ticks: shown,
            acknowledged_payments: payments,
        })
    }
}

/// Being paid.
impl Channel {
    /// The peer reveals ticks.
    pub(super) fn take_tick(
        &mut self,
        seq: u64,
        proof: TickProof,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let (held_seq, held) = self.incoming.standing();
        if seq < held_seq {
            return Ok(()); // part of the total since
        }
        if seq == held_seq && proof.index <= held {
            self.dirty.acknowledge_ticks = true;
            return Ok(());
        }
        if self.pauses(effects) {
            return Ok(());
        }
        let Some(balance) = self.incoming.held.filter(|_| seq == held_seq) else {
            // What the peer sent before it heard that nothing was taken.
            return if self.resending { Ok(()) } else { Err(Misbehaviour::Gap { got: seq, held: held_seq }) };
        };
        let terms = balance.state.ticks;
        let anchor = TickProof { index: 0, preimage: terms.anchor };
        terms.check_after(&self.incoming.ticks.unwrap_or(anchor), &proof).map_err(PaymentError::from)?;
        let total = total(Some(&balance), Some(&proof));
        if !self.is_owned(total, effects)? {
            return Ok(());
        }
        assert!(total > self.incoming.total(), "I3: a counter must rise");
        self.incoming.ticks = Some(proof);
        self.dirty.incoming = true;
        self.dirty.acknowledge_ticks = true;
        self.received_ticks(proof.index.saturating_sub(held), terms.unit, effects);
        Ok(())
    }

    /// Counts ticks that came in, by themselves or with an update. Those of one commit are told of together.
    pub(super) fn received_ticks(&mut self, count: u32, unit: Amount, effects: &mut Effects) {
        let count = u64::from(count);
        self.incoming.payments = self.incoming.payments.saturating_add(count);
        if count == 0 {
            return;
        }
        if self.untold.unit != unit {
            self.tell_ticks(effects);
            self.untold.unit = unit;
        }
        self.untold.count = self.untold.count.saturating_add(count);
    }

    /// Tells of the ticks that came in since this was done last.
    pub(super) fn tell_ticks(&mut self, effects: &mut Effects) {
        let Untold { count, unit } = std::mem::take(&mut self.untold);
        if count > 0 {
            effects.after.push(After::Event(ChannelEvent::Ticks { count, unit }));
        }
    }

    /// Whether an update folds what is held: its payer may not take ticks back.
    pub(super) fn check_folded(&self, folded: Option<&TickProof>) -> Result<u32, Misbehaviour> {
        let (got, held) = (index(folded), index(self.incoming.ticks.as_ref()));
        got.checked_sub(held).ok_or(Misbehaviour::TicksTakenBack { got, held })
    }

    /// What was shown of the peer's lane, if that is more than is held here.
    pub(super) fn incoming_shown(
        &self,
        signed: Option<SignedBalance>,
        ticks: Option<TickProof>,
    ) -> Result<Option<Incoming>, Misbehaviour> {
        let Some(signed) = signed else { return Ok(None) };
        let shown = Incoming { held: Some(signed), ticks, payments: self.incoming.payments };
        if shown.standing() <= self.incoming.standing() {
            return Ok(None);
        }
        self.check_peers(&signed)?;
        signed.state.with_ticks(ticks.as_ref())?;
        if shown.total() < self.incoming.total() {
            let (got, wanted) = (shown.total(), self.incoming.total());
            return Err(Misbehaviour::Cumulative { got, wanted });
        }
        Ok(Some(shown))
    }

    pub(super) fn tick_ack(&self) -> Option<ChannelMessage> {
        let (seq, index) = self.incoming.standing();
        (index > 0).then_some(ChannelMessage::TickAck { seq, index })
    }
}
