//! A small network, its keys, and transactions signed as they should be.

use flash_proto::{
    Action, Address, Amount, BlockId, ChannelId, Claim, Essence, Hash, LaneState, NetworkParams, Open,
    Output, OutputId, SecretKey, Side, SignedBalance, TickProof, Transaction, Unlock,
    record::Party,
    transaction::{CooperativeClose, TopUp, UnilateralClose, Withdraw, commit_inputs},
};

use crate::ledger::{Checked, Confirmation, Conflict, LedgerState, genesis::genesis_entries};

/// Milestones of the contest window of every channel here.
pub(crate) const WINDOW: u32 = 5;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

pub(crate) fn address(n: u8) -> Address {
    Address::of(&key(n).public())
}

pub(crate) fn output(owner: u8, amount: u64) -> Output {
    Output { address: address(owner), amount: Amount::new(amount) }
}

/// The keys of three coordinators, of which two must sign, in rising order.
pub(crate) fn coordinators() -> Vec<SecretKey> {
    let mut keys: Vec<_> = (200..203).map(key).collect();
    keys.sort_by_key(SecretKey::public);
    keys
}

/// Keys 1, 2 and 3 own the genesis: a million, half a million, and the rest.
pub(crate) fn params() -> NetworkParams {
    NetworkParams {
        name: "test".to_owned(),
        coordinators: coordinators().iter().map(SecretKey::public).collect(),
        threshold: 2,
        pow_bits: 4,
        output_min: Amount::new(1_000),
        milestone_interval_ms: 1_000,
        genesis_ms: 1_000,
        genesis: vec![
            output(1, 1_000_000),
            output(2, 500_000),
            output(3, Amount::SUPPLY.units() - 1_500_000),
        ],
    }
}

/// An output and the number of the key that may spend it.
pub(crate) type Coin = (OutputId, Output, u8);

/// The genesis output of key 1, 2 or 3.
pub(crate) fn genesis_coin(params: &NetworkParams, owner: u8) -> Coin {
    let transaction = flash_proto::TransactionId::new(*params.id().as_bytes());
    let id = OutputId { transaction, index: u16::from(owner) - 1 };
    (id, params.genesis[usize::from(owner) - 1], owner)
}

/// An output of a transaction.
pub(crate) fn coin_of(transaction: &Transaction, index: u16, owner: u8) -> Coin {
    let id = OutputId { transaction: transaction.id(), index };
    (id, transaction.essence.outputs[usize::from(index)], owner)
}

/// A transaction that spends coins, signed by their owners.
pub(crate) fn spend(
    params: &NetworkParams,
    coins: &[Coin],
    outputs: Vec<Output>,
    action: Action,
) -> Transaction {
    let spent: Vec<Output> = coins.iter().map(|(_, output, _)| *output).collect();
    let essence = Essence {
        network: params.id(),
        inputs: coins.iter().map(|(id, ..)| *id).collect(),
        inputs_commitment: commit_inputs(&spent),
        outputs,
        action,
    };
    let unlocks = coins.iter().map(|(.., owner)| essence.unlock(&key(*owner))).collect();
    Transaction { essence, unlocks }
}

pub(crate) fn transfer(params: &NetworkParams, coins: &[Coin], outputs: Vec<Output>) -> Transaction {
    spend(params, coins, outputs, Action::Transfer)
}

/// What an Open says: keys 11 (A) and 12 (B), paid out to 21 and 22.
pub(crate) fn opening(deposit_a: u64, deposit_b: u64, expiry_milestone: u64) -> Open {
    let party = |n: u8, deposit: u64| Party {
        key: key(n).public(),
        payout: address(n + 10),
        deposit: Amount::new(deposit),
    };
    Open {
        party_a: party(11, deposit_a),
        party_b: party(12, deposit_b),
        contest_window_milestones: WINDOW,
        expiry_milestone,
    }
}

/// A transaction that acts on a channel, signed by these keys.
pub(crate) fn acting(params: &NetworkParams, action: Action, signers: &[u8]) -> Transaction {
    let essence = Essence::acting(params.id(), action);
    let unlocks = signers.iter().map(|n| essence.unlock(&key(*n))).collect();
    Transaction { essence, unlocks }
}

pub(crate) fn cooperative(
    params: &NetworkParams,
    channel: ChannelId,
    payouts: (u64, u64),
    expiry_milestone: u64,
) -> Transaction {
    let close = CooperativeClose {
        channel,
        final_seq_a: 1,
        final_seq_b: 1,
        payout_a: Amount::new(payouts.0),
        payout_b: Amount::new(payouts.1),
        expiry_milestone,
    };
    acting(params, Action::CooperativeClose(close), &[11, 12])
}

/// Raises a side's deposit by what the coins hold above the outputs, signed by their owners and the side.
pub(crate) fn top_up(
    params: &NetworkParams,
    coins: &[Coin],
    outputs: Vec<Output>,
    top_up: TopUp,
) -> Transaction {
    let mut transaction = spend(params, coins, outputs, Action::TopUp(top_up));
    transaction.unlocks.push(transaction.essence.unlock(&key(top_up.side.pick(11, 12))));
    transaction
}

pub(crate) fn withdraw(
    params: &NetworkParams,
    channel: ChannelId,
    side: Side,
    (amount, total): (u64, u64),
    expiry_milestone: u64,
) -> Transaction {
    let (amount, total) = (Amount::new(amount), Amount::new(total));
    let withdraw = Withdraw { channel, side, amount, total, expiry_milestone };
    acting(params, Action::Withdraw(withdraw), &[11, 12])
}

/// A balance signed by the lane's payer: key 11 for A, 12 for B.
pub(crate) fn balance(
    params: &NetworkParams,
    channel: ChannelId,
    payer: Side,
    cumulative: u64,
) -> SignedBalance {
    let state = LaneState {
        seq: cumulative / 10 + 1,
        cumulative: Amount::new(cumulative),
        history: Hash::new([7; 32]),
        ..LaneState::new(channel, payer)
    };
    state.sign(params.id(), &key(payer.pick(11, 12)))
}

fn balance_unlock(balance: &SignedBalance) -> Unlock {
    Unlock { key: key(balance.state.payer.pick(11, 12)).public(), signature: balance.signature }
}

pub(crate) fn unilateral(
    params: &NetworkParams,
    channel: ChannelId,
    closer: Side,
    balance: Option<SignedBalance>,
) -> Transaction {
    unilateral_with_ticks(params, channel, closer, balance, None)
}

pub(crate) fn unilateral_with_ticks(
    params: &NetworkParams,
    channel: ChannelId,
    closer: Side,
    balance: Option<SignedBalance>,
    ticks: Option<TickProof>,
) -> Transaction {
    let shown = balance.map(|balance| Claim { state: balance.state, ticks });
    let close = UnilateralClose { channel, closer, balance: shown };
    let mut transaction = acting(params, Action::UnilateralClose(close), &[closer.pick(11, 12)]);
    transaction.unlocks.extend(balance.as_ref().map(balance_unlock));
    transaction
}

pub(crate) fn claim(params: &NetworkParams, balance: &SignedBalance) -> Transaction {
    claim_with_ticks(params, balance, None)
}

pub(crate) fn claim_with_ticks(
    params: &NetworkParams,
    balance: &SignedBalance,
    ticks: Option<TickProof>,
) -> Transaction {
    let mut transaction = acting(params, Action::Claim(Claim { state: balance.state, ticks }), &[]);
    transaction.unlocks.push(balance_unlock(balance));
    transaction
}

/// A ledger to which milestones are applied one after another.
pub(crate) struct Ledger {
    pub(crate) params: NetworkParams,
    pub(crate) state: LedgerState,
    pub(crate) index: u64,
    blocks: u32,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let params = params();
        Self { state: LedgerState::from_entries(genesis_entries(&params)), params, index: 0, blocks: 0 }
    }

    /// Confirms the transactions in this order, and says for each whether it changed the ledger.
    pub(crate) fn confirm(&mut self, transactions: &[Transaction]) -> Vec<Result<(), Conflict>> {
        self.confirmation(transactions).1
    }

    pub(crate) fn confirmation(
        &mut self,
        transactions: &[Transaction],
    ) -> (Confirmation, Vec<Result<(), Conflict>>) {
        let checked: Vec<Checked> = transactions
            .iter()
            .map(|transaction| Checked::new(transaction.clone(), &self.params).unwrap())
            .collect();
        let blocks: Vec<_> = checked
            .iter()
            .map(|checked| {
                self.blocks += 1;
                let mut id = [0; 32];
                id[..4].copy_from_slice(&self.blocks.to_be_bytes());
                (BlockId::new(id), Some(checked))
            })
            .collect();
        self.index += 1;
        let confirmation = self.state.confirm(self.index, &blocks);
        self.state.accept(&confirmation);
        let result = |block: &BlockId| match confirmation.conflicts.iter().find(|(id, ..)| id == block) {
            Some((_, _, conflict)) => Err(*conflict),
            None => Ok(()),
        };
        let results = blocks.iter().map(|(block, _)| result(block)).collect();
        (confirmation, results)
    }

    /// One transaction, which must change the ledger.
    pub(crate) fn apply(&mut self, transaction: &Transaction) {
        assert_eq!(self.confirm(std::slice::from_ref(transaction)), [Ok(())]);
    }

    /// One transaction, which must not.
    pub(crate) fn conflict(&mut self, transaction: &Transaction) -> Conflict {
        let root = self.state.root();
        let conflict = self.confirm(std::slice::from_ref(transaction))[0].unwrap_err();
        assert_eq!(self.state.root(), root, "a conflict changes nothing");
        conflict
    }

    /// A channel of keys 11 and 12 with 6,000 from A and 4,000 from B, funded by key 1.
    pub(crate) fn open_channel(&mut self) -> ChannelId {
        let coin = genesis_coin(&self.params, 1);
        let open = Action::Open(opening(6_000, 4_000, 100));
        let transaction = spend(&self.params, &[coin], vec![output(1, 990_000)], open);
        self.apply(&transaction);
        ChannelId::opened_by(transaction.id())
    }

    /// Milestones without transactions, up to and including `index`.
    pub(crate) fn pass_until(&mut self, index: u64) {
        while self.index < index {
            self.confirm(&[]);
        }
    }

    /// The money at an address.
    pub(crate) fn at(&self, owner: u8) -> u64 {
        self.state.outputs_at(&address(owner)).map(|(_, output)| output.amount.units()).sum()
    }
}
