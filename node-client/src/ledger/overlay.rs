//! The rules by which transactions and settlements change the state, worked out above a state that
//! stays as it is.

use std::collections::BTreeSet;

use flash_proto::{
    Action, Address, Amount, Balances, ChannelId, ChannelPhase, ChannelRecord, Claim, LaneClaim, Output,
    OutputId, Side, StateKey, Transaction, Unlock, limits,
    transaction::{CooperativeClose, TopUp, UnilateralClose, Withdraw, commit_inputs},
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
            Action::Transfer => self.spend(checked, Amount::ZERO),
            Action::Open(open) => {
                if open.expiry_milestone < self.index {
                    return Err(Conflict::Expired);
                }
                let deposits = open.party_a.deposit.checked_add(open.party_b.deposit);
                self.spend(checked, deposits.ok_or(Conflict::Sum)?)?;
                self.put_channel(ChannelId::opened_by(checked.id()), Some(ChannelRecord::opened(open)));
                Ok(())
            }
            Action::CooperativeClose(close) => self.close_together(close, unlocks),
            Action::UnilateralClose(close) => self.close_alone(close, checked, unlocks),
            Action::Claim(claim) => self.claim(claim, checked, unlocks),
            Action::TopUp(top_up) => self.top_up(top_up, checked, unlocks),
            Action::Withdraw(withdraw) => self.withdraw(withdraw, checked, unlocks),
        }
    }

    /// Spends the inputs for the outputs and for what is locked in a channel.
    fn spend(&mut self, checked: &Checked, locked: Amount) -> Result<(), Conflict> {
        let Transaction { essence, unlocks } = checked.transaction();
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
        let gone = Amount::checked_sum(spent.iter().map(|output| output.amount));
        let come = Amount::checked_sum(made.chain([locked]));
        if gone.is_none() || gone != come {
            return Err(Conflict::Sum);
        }
        for input in &essence.inputs {
            self.changes.insert(StateKey::Output(*input), None);
        }
        for (index, output) in (0_u16..).zip(&essence.outputs) {
            self.put_output(OutputId { transaction: checked.id(), index }, *output);
        }
        Ok(())
    }

    fn close_together(&mut self, close: &CooperativeClose, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let record = self.channel(close.channel)?;
        if close.expiry_milestone < self.index {
            return Err(Conflict::Expired);
        }
        signed_by_both(&record, unlocks)?;
        let balances = Balances::of_payouts(close.payout_a, close.payout_b);
        if balances.total().is_none() || balances.total() != record.total() {
            return Err(Conflict::Payouts);
        }
        self.pay_out(close.channel, &record, balances);
        Ok(())
    }

    fn close_alone(
        &mut self,
        close: &UnilateralClose,
        checked: &Checked,
        unlocks: &[Unlock],
    ) -> Result<(), Conflict> {
        let mut record = self.channel(close.channel)?;
        if record.phase != ChannelPhase::Open {
            return Err(Conflict::ChannelClosing);
        }
        signed_by(&record, close.closer, unlocks.first())?;
        if let Some(claim) = &close.balance {
            signed_by(&record, claim.state.payer, unlocks.get(1))?;
            raise(&mut record, claim, checked.claimed())?;
        }
        let window = u64::from(record.contest_window_milestones);
        // Milestone indices stay far below 2^64: one a millisecond since 1970 would be 2^41.
        let deadline = self.index.saturating_add(window);
        record.phase = ChannelPhase::Closing { closer: close.closer, deadline };
        self.put_channel(close.channel, Some(record));
        Ok(())
    }

    fn claim(&mut self, claim: &Claim, checked: &Checked, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let mut record = self.channel(claim.state.channel)?;
        match record.phase {
            ChannelPhase::Open => return Err(Conflict::ChannelOpen),
            // Over, and only not settled yet because too many were due at once.
            ChannelPhase::Closing { deadline, .. } if deadline < self.index => return Err(Conflict::Expired),
            ChannelPhase::Closing { .. } => {}
        }
        signed_by(&record, claim.state.payer, unlocks.first())?;
        raise(&mut record, claim, checked.claimed())?;
        self.put_channel(claim.state.channel, Some(record));
        Ok(())
    }

    /// The channel, if it is in use and the change of it has not expired.
    fn in_use(&self, id: ChannelId, expiry_milestone: u64) -> Result<ChannelRecord, Conflict> {
        let record = self.channel(id)?;
        if expiry_milestone < self.index {
            return Err(Conflict::Expired);
        }
        match record.phase {
            ChannelPhase::Open => Ok(record),
            ChannelPhase::Closing { .. } => Err(Conflict::ChannelClosing),
        }
    }

    fn top_up(&mut self, top_up: &TopUp, checked: &Checked, unlocks: &[Unlock]) -> Result<(), Conflict> {
        let mut record = self.in_use(top_up.channel, top_up.expiry_milestone)?;
        signed_by(&record, top_up.side, unlocks.first())?;
        let party = top_up.side.pick(&mut record.party_a, &mut record.party_b);
        party.deposit = party.deposit.checked_add(top_up.amount).ok_or(Conflict::Deposits)?;
        record.total().ok_or(Conflict::Deposits)?;
        self.spend(checked, top_up.amount)?;
        self.put_channel(top_up.channel, Some(record));
        Ok(())
    }

    fn withdraw(
        &mut self,
        withdraw: &Withdraw,
        checked: &Checked,
        unlocks: &[Unlock],
    ) -> Result<(), Conflict> {
        let Withdraw { channel, side, amount, total, expiry_milestone } = *withdraw;
        let mut record = self.in_use(channel, expiry_milestone)?;
        signed_by_both(&record, unlocks)?;
        let withdrawn = side.pick(&mut record.withdrawn_a, &mut record.withdrawn_b);
        if withdrawn.checked_add(amount) != Some(total) {
            return Err(Conflict::Withdrawn);
        }
        // It only rises (I3), so no withdraw applies twice and no output is made under an id again.
        *withdrawn = total;
        record.total().filter(|left| *left >= checked.channel_min()).ok_or(Conflict::Deposits)?;
        let output = Output { address: record.party(side).payout, amount };
        self.put_output(OutputId { transaction: checked.id(), index: 0 }, output);
        self.put_channel(channel, Some(record));
        Ok(())
    }
}

fn signed_by_both(record: &ChannelRecord, unlocks: &[Unlock]) -> Result<(), Conflict> {
    Side::BOTH.into_iter().try_for_each(|side| signed_by(record, side, unlocks.get(usize::from(side.byte()))))
}

/// The signature itself was checked before; here only whose it is.
fn signed_by(record: &ChannelRecord, side: Side, unlock: Option<&Unlock>) -> Result<(), Conflict> {
    match unlock {
        Some(unlock) if unlock.key == record.party(side).key => Ok(()),
        _ => Err(Conflict::NotAParty),
    }
}

/// Raises a lane's counter; it never goes down (I3).
fn raise(record: &mut ChannelRecord, claim: &Claim, cumulative: Amount) -> Result<(), Conflict> {
    let lane = claim.state.payer.pick(&mut record.lane_a, &mut record.lane_b);
    if cumulative <= lane.cumulative {
        return Err(Conflict::NotHigher);
    }
    *lane = LaneClaim { seq: claim.state.seq, cumulative };
    Ok(())
}
