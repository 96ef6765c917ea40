//! From what the node holds to the answers of the REST API.

use flash_node_client::{
    ledger::Conflict,
    node::{BlockOutcome, BlockState, CarriedMilestone},
    tangle::Measures,
};
use flash_proto::{
    Action, Amount, Block, BlockId, ChannelId, ChannelPhase, ChannelRecord, Milestone, OutputId, Payload,
    Side, Transaction, codec,
};

use super::views::{
    BlockMetadata, BlockView, ChannelView, MeasuresView, MilestoneView, OutputView, PartyView, PayloadView,
    TransactionView,
};

impl BlockView {
    pub(super) fn new(id: BlockId, block: Block, bytes: usize) -> Self {
        Self {
            id,
            parents: block.parents,
            payload: PayloadView::new(block.payload),
            nonce: block.nonce.to_string(),
            bytes,
        }
    }
}

impl PayloadView {
    fn new(payload: Payload) -> Self {
        match payload {
            Payload::Empty => Self::Empty,
            Payload::Transaction(transaction) => {
                Self::Transaction(Box::new(TransactionView::new(&transaction)))
            }
            Payload::Milestone(milestone) => Self::Milestone(Box::new(MilestoneView::new(&milestone, None))),
            Payload::Data(data) => Self::Data { tag: hex::encode(data.tag), data: hex::encode(data.data) },
        }
    }
}

impl TransactionView {
    pub(super) fn new(transaction: &Transaction) -> Self {
        let (id, essence) = (transaction.id(), &transaction.essence);
        let outputs = (0..).zip(&essence.outputs).map(|(index, output)| OutputView {
            id: OutputId { transaction: id, index },
            address: output.address,
            amount: output.amount,
        });
        let opened = matches!(essence.action, Action::Open(_)).then(|| ChannelId::opened_by(id));
        Self {
            id,
            action: essence.action.name().to_owned(),
            channel: opened.or_else(|| essence.action.channel()),
            inputs: essence.inputs.clone(),
            outputs: outputs.collect(),
            value: value(transaction),
            signed_by: transaction.unlocks.iter().map(|unlock| unlock.key).collect(),
        }
    }
}

/// What the outputs hold together that a transaction makes by itself.
pub(super) fn value(transaction: &Transaction) -> Amount {
    let amounts = transaction.essence.outputs.iter().map(|output| output.amount);
    let withdrawn = match transaction.essence.action {
        Action::Withdraw(withdraw) => Some(withdraw.amount),
        _ => None,
    };
    Amount::checked_sum(amounts.chain(withdrawn)).unwrap_or(Amount::MAX)
}

impl MilestoneView {
    fn new(milestone: &Milestone, block: Option<BlockId>) -> Self {
        let essence = &milestone.essence;
        Self {
            index: essence.index,
            id: milestone.id(),
            block,
            timestamp_ms: essence.timestamp_ms,
            previous: essence.previous,
            parents: essence.parents.clone(),
            included_root: essence.included_root.to_string(),
            applied_root: essence.applied_root.to_string(),
            channels_root: essence.channels_root.to_string(),
            state_root: essence.state_root.to_string(),
            signed_by: milestone.signatures.iter().map(|signature| signature.coordinator).collect(),
            raw: raw(milestone),
        }
    }
}

impl From<CarriedMilestone> for MilestoneView {
    fn from(carried: CarriedMilestone) -> Self {
        Self::new(&carried.milestone, Some(carried.block))
    }
}

impl BlockMetadata {
    pub(super) fn new(id: BlockId, state: BlockState) -> Self {
        let bare = Self { id, status: "pending", milestone_index: None, conflict: None, reason: None };
        match state {
            BlockState::Waiting => bare,
            BlockState::Confirmed(confirmed) => {
                let (status, conflict) = match confirmed.outcome {
                    BlockOutcome::Included => ("included", None),
                    BlockOutcome::Applied => ("applied", None),
                    BlockOutcome::Rejected(conflict) => ("rejected", Some(conflict)),
                };
                Self {
                    status,
                    milestone_index: Some(confirmed.milestone_index),
                    conflict: conflict.map(Conflict::code),
                    reason: conflict.map(|conflict| conflict.to_string()),
                    ..bare
                }
            }
        }
    }
}

impl From<Measures> for MeasuresView {
    fn from(measures: Measures) -> Self {
        let Measures { own_weight, cumulative_weight, score, height, depth } = measures;
        Self { own_weight, cumulative_weight, score, height, depth }
    }
}

impl ChannelView {
    pub(super) fn new(id: ChannelId, record: &ChannelRecord) -> Self {
        let (phase, deadline_milestone) = match record.phase {
            ChannelPhase::Open => ("open", None),
            ChannelPhase::Closing { deadline, .. } => ("closing", Some(deadline)),
        };
        let party = |side| {
            let party = record.party(side);
            PartyView {
                key: party.key,
                payout: party.payout,
                deposit: party.deposit,
                withdrawn: record.totals(side).withdrawn,
                paid: record.lane(side).cumulative,
            }
        };
        Self {
            id,
            phase,
            deadline_milestone,
            contest_window_milestones: record.contest_window_milestones,
            parties: Side::BOTH.into_iter().map(party).collect(),
        }
    }
}

/// A value's bytes in hexadecimal.
pub(super) fn raw<T: bincode::Encode>(value: &T) -> String {
    hex::encode(codec::encode(value))
}
