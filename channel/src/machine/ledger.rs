//! What the ledger shows, closing alone, and claiming.

use flash_proto::{
    Action, Amount, ChannelPhase, ChannelRecord, Claim, Essence, Side, SignedBalance, Transaction,
    TransactionId, Unlock, transaction::UnilateralClose,
};

use super::{After, Channel, ChannelEvent, CommandError, Effects, LedgerView, Origin, Phase};

impl Channel {
    /// The channel on the ledger. Views older than the newest are of no interest, also not those older
    /// than what an earlier life saw: in them the channel may not be open yet.
    pub(super) fn ledger(&mut self, view: &LedgerView, effects: &mut Effects) {
        if view.index < self.stored_seen || self.seen.is_some_and(|seen| view.index < seen) {
            return;
        }
        self.seen = Some(view.index);
        self.behind = false;
        match &view.record {
            Some(record) => self.on_ledger(record, view.index, effects),
            None => self.not_on_ledger(view, effects),
        }
        self.lapse_forgotten();
        self.resume(effects);
    }

    fn on_ledger(&mut self, record: &ChannelRecord, index: u64, effects: &mut Effects) {
        if matches!(self.phase, Phase::Closed { .. } | Phase::Lapsed) {
            return;
        }
        if self.phase == Phase::Opening {
            self.set_phase(Phase::Open);
            effects.after.push(After::Event(ChannelEvent::Opened));
        }
        self.see_stakes(record, index, effects);
        match (record.phase, &self.phase) {
            (ChannelPhase::Open, Phase::ClosingTogether { close, .. }) if index > close.expiry_milestone => {
                self.set_phase(Phase::Open);
                self.close_requested = false;
                effects.after.push(After::Event(ChannelEvent::CloseLapsed));
            }
            (ChannelPhase::Open, _) => {}
            (ChannelPhase::Closing { closer, deadline }, _) => {
                self.contested(record, closer, deadline, effects);
            }
        }
    }

    fn contested(&mut self, record: &ChannelRecord, closer: Side, deadline: u64, effects: &mut Effects) {
        let peer_lane = record.lane(!self.agreement.side).cumulative;
        let contested = Phase::Contested { closer, deadline, peer_lane };
        if self.phase == contested {
            return;
        }
        if !matches!(self.phase, Phase::Contested { .. }) {
            self.drop_queue(effects);
            effects.after.push(After::Event(ChannelEvent::Contested { closer, deadline }));
            let held = self.incoming.total();
            if held > peer_lane {
                effects.after.push(After::Event(ChannelEvent::Claiming { known: peer_lane, held }));
            }
        }
        self.set_phase(contested);
    }

    fn not_on_ledger(&mut self, view: &LedgerView, effects: &mut Effects) {
        match self.phase {
            Phase::Closed { .. } | Phase::Lapsed => {}
            Phase::Opening if view.payouts.is_none() => {
                if view.index > self.agreement.open.expiry_milestone {
                    self.set_phase(Phase::Lapsed);
                    effects.after.push(After::Event(ChannelEvent::Lapsed));
                }
            }
            _ => {
                self.drop_queue(effects);
                self.end_changes(view.payouts, effects);
                let expected = self.balances_known().then(|| self.balances());
                let payouts = view.payouts;
                let close = self.close_transaction_id();
                self.set_phase(Phase::Closed { payouts, close });
                effects.after.push(After::Event(ChannelEvent::Closed { payouts, expected }));
            }
        }
    }

    /// Whether closing alone is possible now.
    ///
    /// # Errors
    /// [`CommandError::Phase`] with the state that it is in; [`CommandError::NotShown`]: what the peer paid would
    /// be lost.
    pub const fn may_close_alone(&self) -> Result<(), CommandError> {
        match self.phase {
            Phase::Open if self.knows_nothing() => Err(CommandError::NotShown),
            Phase::Open | Phase::ClosingTogether { .. } | Phase::ClosingAlone => Ok(()),
            _ => Err(CommandError::Phase(self.state())),
        }
    }

    /// Whether closing together can be asked for now.
    ///
    /// # Errors
    /// [`CommandError::Phase`] with the state that it is in.
    pub const fn may_close(&self) -> Result<(), CommandError> {
        match self.phase {
            Phase::Opening | Phase::Open | Phase::ClosingTogether { .. } => Ok(()),
            _ => Err(CommandError::Phase(self.state())),
        }
    }

    pub(super) fn close_alone(&mut self, effects: &mut Effects) {
        if matches!(self.phase, Phase::Open | Phase::ClosingTogether { .. }) && !self.knows_nothing() {
            self.drop_queue(effects);
            self.set_phase(Phase::ClosingAlone);
            effects.after.push(After::Event(ChannelEvent::ClosingAlone));
        }
    }

    /// The transaction that this channel needs on the ledger now. It is the same whenever it is asked
    /// for, across restarts too, and may be submitted any number of times; but only once the records
    /// that led to it are durable.
    pub fn wanted(&self) -> Option<Transaction> {
        match &self.phase {
            Phase::Opening => match &self.agreement.origin {
                Origin::Agreed(transaction) if self.agreement.side == Side::A => {
                    Some((**transaction).clone())
                }
                Origin::Agreed(_) | Origin::Found { .. } => None,
            },
            Phase::ClosingTogether { close, ours, theirs: Some(theirs) } => {
                Some(self.close_transaction(*close, *ours, *theirs))
            }
            Phase::Open => self.wanted_change(),
            Phase::ClosingAlone => Some(self.unilateral_close()),
            Phase::Contested { peer_lane, .. } => self.claim(*peer_lane),
            _ => None,
        }
    }

    /// The id of the transaction by which both close or closed, or by which this side closes alone.
    pub fn close_transaction_id(&self) -> Option<TransactionId> {
        match &self.phase {
            Phase::ClosingTogether { close, .. } => Some(self.close_essence(*close).id()),
            Phase::ClosingAlone => Some(self.unilateral_close().id()),
            Phase::Closed { close, .. } => *close,
            _ => None,
        }
    }

    /// Closes alone with the newest balance that is held. One that pays nothing, such as one that only begins a chain
    /// of ticks, is left out: the ledger takes no balance that raises nothing.
    fn unilateral_close(&self) -> Transaction {
        let held = self.incoming.held.filter(|_| !self.incoming.total().is_zero());
        let action = Action::UnilateralClose(UnilateralClose {
            channel: self.id,
            closer: self.agreement.side,
            balance: held.map(|held| self.shown_to_the_ledger(&held)),
        });
        let essence = Essence::acting(self.agreement.network, action);
        let balance = held.map(|held| Unlock { key: self.peer_key(), signature: held.signature });
        let unlocks = std::iter::once(essence.unlock(&self.key)).chain(balance).collect();
        Transaction { essence, unlocks }
    }

    /// Raises the peer's lane on the ledger to what is held here, if that is more than the ledger knows.
    fn claim(&self, known: Amount) -> Option<Transaction> {
        let held = self.incoming.held.filter(|_| self.incoming.total() > known)?;
        let action = Action::Claim(self.shown_to_the_ledger(&held));
        let essence = Essence::acting(self.agreement.network, action);
        let unlocks = vec![Unlock { key: self.peer_key(), signature: held.signature }];
        Some(Transaction { essence, unlocks })
    }

    fn shown_to_the_ledger(&self, held: &SignedBalance) -> Claim {
        Claim { state: held.state, ticks: self.incoming.ticks }
    }
}
