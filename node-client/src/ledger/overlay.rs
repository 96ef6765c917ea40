//! The rules by which transactions and settlements change the state, worked out above a state that
//! stays as it is.

use std::collections::BTreeSet;

use flash_proto::{
    Action, Address, Amount, Balances, ChannelId, ChannelPhase, ChannelRecord, Essence, LaneClaim, LaneState,
    Open, Output, OutputId, Side, StateKey, TransactionId, Unlock, limits,
    transaction::{CooperativeClose, UnilateralClose, commit_inputs},
};

use super::{Checked, Conflict, LedgerState, StateValue, check::action_unlocks, state::StateChanges};

/// A state and what one milestone changes in it.
pub(super) struct Overlay<'a> {
    base: &'a LedgerState,
    /// The milestone's index.
    index: u64,
    changes: StateChanges,
    channels: BTreeSet<ChannelId>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(base: &'a LedgerState, index: u64) -> Self {
        Self { base, index, changes: StateChanges::new(), channels: BTreeSet::new() }
    }

    /// The net changes, and the channels that changed.
    pub(super) fn finish(mut self) -> (StateChanges, Vec<ChannelId>) {
        // What was made and spent again within the milestone never was, as far as the state knows.
        self.changes.retain(|key, value| value.is_some() || self.base.get(key).is_some());
        (self.changes, self.channels.into_iter().collect())
    }

    fn get(&self, key: StateKey) -> Option<StateValue> {
        self.changes.get(&key).copied().unwrap_or_else(|| self.base.get(&key))
    }

    fn channel(&self, id: ChannelId) -> Result<ChannelRecord, Conflict> {
        match self.get(StateKey::Channel(id)) {
            Some(StateValue::Channel(record)) => Ok(record),
            _ => Err(Conflict::ChannelUnknown),
        }
    }

    fn put_channel(&mut self, id: ChannelId, record: Option<ChannelRecord>) {
        self.channels.insert(id);
        self.changes.insert(StateKey::Channel(id), record.map(StateValue::Channel));
    }

    fn put_output(&mut self, id: OutputId, output: Output) {
        self.changes.insert(StateKey::Output(id), Some(StateValue::Output(output)));
    }

    /// Pays out the channels whose contest is over, the longest over first, as many as fit one milestone.
    pub(super) fn settle_due(&mut self) {
        let due: Vec<ChannelId> =
            self.base.due(self.index).take(limits::SETTLEMENTS_PER_MILESTONE_MAX).collect();
        for id in due {
            if let Ok(record) = self.channel(id) {
                let balances = record.settle();
                assert!(balances.is_some(), "I2: a channel's record must be settleable");
                if let Some(balances) = balances {
                    self.pay_out(id, &record, balances);
                }
            }
        }
    }

    fn pay_out(&mut self, id: ChannelId, record: &ChannelRecord, balances: Balances) {
        assert_eq!(balances.total(), record.total(), "I2: payouts must add up to the channel's money");
        self.put_channel(id, None);
        for side in Side::BOTH {
            let amount = balances.of(side);
            if !amount.is_zero() {
                self.put_output(id.payout(side), Output { address: record.party(side).payout, amount });
            }
        }
    }

    /// Applies one transaction, or changes nothing.
    pub(super) fn apply(&mut self, checked: &Checked) -> Result<(), Conflict> {
        let transaction = checked.transaction();
        let unlocks = action_unlocks(transaction);
        match &transaction.essence.action {
            Action::Transfer => self.spend(&transaction.essence, &transaction.unlocks, checked.id(), None),
            Action::Open(open) => {
                self.spend(&transaction.essence, &transaction.unlocks, checked.id(), Some(open))
            }
            Action::CooperativeClose(close) => self.close_together(close, unlocks),
            Action::UnilateralClose(close) => self.close_alone(close, unlocks),
            Action::Claim(state) => self.claim(state, unlocks),
        }
    }

    fn spend(
        &mut self,
        essence: &Essence,
        unlocks: &[Unlock],
        id: TransactionId,
        open: Option<&Open>,
    ) -> Result<(), Conflict> {
        if open.is_some_and(|open| open.expiry_milestone < self.index) {
            return Err(Conflict::Expired);
        }
        let mut spent = Vec::with_capacity(essence.inputs.len());
        for input in &essence.inputs {
            match self.get(StateKey::Output(*input)) {
                Some(StateValue::Output(output)) => spent.push(output),
                _ => return Err(Conflict::InputMissing),
            }
        }
        if commit_inputs(&spent) != essence.inputs_commitment {
            return Err(Conflict::InputsCommitment);
        }
        if spent.iter().zip(unlocks).any(|(output, unlock)| Address::of(&unlock.key) != output.address) {
            return Err(Conflict::WrongKey);
        }
        let made = essence.outputs.iter().map(|output| output.amount);
        let locked = open.map(|open| [open.party_a.deposit, open.party_b.deposit]);
        let gone = Amount::checked_sum(spent.iter().map(|output| output.amount));
        let come = Amount::checked_sum(made.chain(locked.into_iter().flatten()));
        if gone.is_none() || gone != come {
            return Err(Conflict::Sum);
        }
        for input in &essence.inputs {
            self.changes.insert(StateKey::Output(*input), None);
        }
        for (index, output) in (0_u16..).zip(&essence.outputs) {
            self.put_output(OutputId { transaction: id, index }, *output);
        }
        if let Some(open) = open {
            self.put_channel(ChannelId::opened_by(id), Some(ChannelRecord::opened(open)));
        }
        Ok(())
    }

    fn close_together(&mut self, close: &CooperativeClose, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let record = self.channel(close.channel)?;
        if close.expiry_milestone < self.index {
            return Err(Conflict::Expired);
        }
        for side in Side::BOTH {
            signed_by(&record, side, unlocks.get(usize::from(side.byte())))?;
        }
        let balances = Balances::of_payouts(close.payout_a, close.payout_b);
        if balances.total().is_none() || balances.total() != record.total() {
            return Err(Conflict::Payouts);
        }
        self.pay_out(close.channel, &record, balances);
        Ok(())
    }

    fn close_alone(&mut self, close: &UnilateralClose, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let mut record = self.channel(close.channel)?;
        if record.phase != ChannelPhase::Open {
            return Err(Conflict::ChannelClosing);
        }
        signed_by(&record, close.closer, unlocks.first())?;
        if let Some(state) = &close.balance {
            signed_by(&record, state.payer, unlocks.get(1))?;
            raise(&mut record, state)?;
        }
        let window = u64::from(record.contest_window_milestones);
        // Milestone indices stay far below 2^64: one a millisecond since 1970 would be 2^41.
        let deadline = self.index.saturating_add(window);
        record.phase = ChannelPhase::Closing { closer: close.closer, deadline };
        self.put_channel(close.channel, Some(record));
        Ok(())
    }

    fn claim(&mut self, state: &LaneState, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let mut record = self.channel(state.channel)?;
        match record.phase {
            ChannelPhase::Open => return Err(Conflict::ChannelOpen),
            // Over, and only not settled yet because too many were due at once.
            ChannelPhase::Closing { deadline, .. } if deadline < self.index => return Err(Conflict::Expired),
            ChannelPhase::Closing { .. } => {}
        }
        signed_by(&record, state.payer, unlocks.first())?;
        raise(&mut record, state)?;
        self.put_channel(state.channel, Some(record));
        Ok(())
    }
}

/// The signature itself was checked before; here only whose it is.
fn signed_by(record: &ChannelRecord, side: Side, unlock: Option<&Unlock>) -> Result<(), Conflict> {
    match unlock {
        Some(unlock) if unlock.key == record.party(side).key => Ok(()),
        _ => Err(Conflict::NotAParty),
    }
}

/// Raises a lane's counter; it never goes down (I3).
fn raise(record: &mut ChannelRecord, state: &LaneState) -> Result<(), Conflict> {
    let lane = state.payer.pick(&mut record.lane_a, &mut record.lane_b);
    if state.cumulative <= lane.cumulative {
        return Err(Conflict::NotHigher);
    }
    *lane = LaneClaim { seq: state.seq, cumulative: state.cumulative };
    Ok(())
}
