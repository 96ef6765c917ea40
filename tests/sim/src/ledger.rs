//! The ledger: transactions wait in a pool and are confirmed by milestones under the real rules.

use std::{collections::BTreeSet, fmt};

use flash_channel::machine::{Input, LedgerView};
use flash_node_client::ledger::{Checked, Conflict, LedgerState, genesis::genesis_entries};
use flash_proto::{
    Action, Amount, Balances, BlockId, ChannelId, Essence, NetworkParams, Output, OutputId, Side,
    Transaction, TransactionId,
    transaction::{TopUp, commit_inputs},
};

use super::setup;

/// Who brings a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Party(Side),
    Tower(usize),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Party(side) => write!(f, "{side}"),
            Self::Tower(number) => write!(f, "tower {number}"),
        }
    }
}

/// A transaction on its way.
#[derive(Clone)]
struct Waiting {
    /// The first milestone that may confirm it.
    from: u64,
    by: By,
    checked: Checked,
}

/// A transaction that a milestone dealt with.
pub(super) struct Confirmed {
    pub(super) by: By,
    pub(super) transaction: Transaction,
    pub(super) conflict: Option<Conflict>,
}

#[derive(Clone)]
pub(super) struct Ledger {
    params: NetworkParams,
    channel: ChannelId,
    /// The outputs that the channel's money goes to.
    payouts: [OutputId; 2],
    state: LedgerState,
    index: u64,
    pool: Vec<Waiting>,
    /// What each milestone showed of the channel, from milestone 0.
    views: Vec<LedgerView>,
}

impl Ledger {
    pub(super) fn new(params: NetworkParams, channel: ChannelId) -> Self {
        let state = LedgerState::from_entries(genesis_entries(&params));
        let views = vec![LedgerView { index: 0, record: None, payouts: None }];
        let payouts = Side::BOTH.map(|side| channel.payout(side));
        Self { params, channel, payouts, state, index: 0, pool: Vec::new(), views }
    }

    pub(super) const fn index(&self) -> u64 {
        self.index
    }

    /// What the milestone of this index showed.
    pub(super) fn view(&self, index: u64) -> LedgerView {
        let at = usize::try_from(index).ok().and_then(|at| self.views.get(at));
        at.copied().unwrap_or(LedgerView { index, record: None, payouts: None })
    }

    /// What the newest milestone showed.
    pub(super) fn newest(&self) -> LedgerView {
        self.view(self.index)
    }

    /// What the newest milestone showed that still had the channel.
    pub(super) fn newest_with_channel(&self) -> Option<LedgerView> {
        self.views.iter().rev().find(|view| view.record.is_some()).copied()
    }

    /// Whether the channel was on the ledger and is paid out.
    pub(super) fn is_paid_out(&self) -> bool {
        self.newest().payouts.is_some()
    }

    /// The ids of the transactions that wait, in their order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = TransactionId> {
        self.pool.iter().map(|waiting| waiting.checked.id())
    }

    pub(super) fn waits(&self, id: TransactionId) -> bool {
        self.pool.iter().any(|waiting| waiting.checked.id() == id)
    }

    /// Takes a transaction; false if its form or a signature is wrong.
    pub(super) fn submit(&mut self, by: By, transaction: Transaction, from: u64) -> bool {
        match Checked::new(transaction, &self.params) {
            Ok(checked) => {
                self.pool.push(Waiting { from, by, checked });
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the ledger could ever take this transaction.
    pub(super) fn is_wellformed(&self, transaction: Transaction) -> bool {
        Checked::new(transaction, &self.params).is_ok()
    }

    /// What a party's user asks for to lock more, from the first output at its address that is enough.
    pub(super) fn top_up(&self, side: Side, amount: Amount, expiry_milestone: u64) -> Option<Input> {
        let address = setup::change_address(side);
        let (id, output) = self.state.outputs_at(&address).find(|(_, output)| output.amount > amount)?;
        let change = Output { amount: output.amount.checked_sub(amount)?, ..output };
        let essence = Essence {
            network: self.params.id(),
            inputs: vec![id],
            inputs_commitment: commit_inputs(&[output]),
            outputs: vec![change],
            action: Action::TopUp(TopUp { channel: self.channel, side, amount, expiry_milestone }),
        };
        let unlocks = vec![essence.unlock(&setup::money_key(side))];
        Some(Input::TopUp { essence: Box::new(essence), unlocks })
    }

    /// The next milestone, which confirms what is due. While `censors`, no cooperative close.
    pub(super) fn milestone(&mut self, censors: bool) -> Vec<Confirmed> {
        self.index += 1;
        let index = self.index;
        let is_due = |waiting: &Waiting| {
            let close = matches!(waiting.checked.transaction().essence.action, Action::CooperativeClose(_));
            waiting.from <= index && !(close && censors)
        };
        let (mut due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pool).into_iter().partition(|waiting| is_due(waiting));
        self.pool = rest;
        // Submitted again it is the same block, and what came of the first one counts.
        let mut ids = BTreeSet::new();
        due.retain(|it| ids.insert(it.checked.id()));
        let blocks: Vec<(BlockId, Option<&Checked>)> =
            due.iter().map(|it| (BlockId::new(*it.checked.id().as_bytes()), Some(&it.checked))).collect();
        let confirmation = self.state.confirm(index, &blocks);
        self.state.accept(&confirmation);
        let view =
            LedgerView { index, record: self.state.channel(&self.channel).copied(), payouts: self.payouts() };
        self.views.push(view);
        let conflict_of = |id: TransactionId| {
            let mut conflicts = confirmation.conflicts.iter();
            conflicts.find(|(_, conflicting, _)| *conflicting == id).map(|(_, _, conflict)| *conflict)
        };
        due.iter()
            .map(|it| Confirmed {
                by: it.by,
                transaction: it.checked.transaction().clone(),
                conflict: conflict_of(it.checked.id()),
            })
            .collect()
    }

    fn payouts(&self) -> Option<Balances> {
        let paid = self.payouts.each_ref().map(|id| self.state.output(id));
        let amounts = paid.map(|output| output.map_or(Amount::ZERO, |output| output.amount));
        let [a, b] = amounts;
        paid.iter().any(Option::is_some).then(|| Balances::of_payouts(a, b))
    }

    /// All money that can be found on the ledger, counted one by one.
    pub(super) fn money(&self) -> Option<Amount> {
        let outputs = setup::ADDRESSES.iter().flat_map(|address| self.state.outputs_at(address));
        let channel = self
            .state
            .channel(&self.channel)
            .map_or(Some(Amount::ZERO), flash_proto::ChannelRecord::total)?;
        Amount::checked_sum(outputs.map(|(_, output)| output.amount).chain([channel]))
    }
}
