//! A ledger with many outputs, and transfers of all of them.

use flash_node_client::ledger::{Checked, LedgerState, genesis::genesis_entries, state_tree::Change};
use flash_proto::{
    Action, Address, Amount, BlockId, Essence, Hash, NetworkParams, Output, OutputId, SecretKey, Transaction,
    TransactionId,
    hash::{Layout, Tag},
    transaction::commit_inputs,
};

/// What each output holds.
const AMOUNT: Amount = Amount::new(1_000_000);

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// A hash that stands for the number `n`.
pub fn hash(n: u64) -> Hash {
    Layout::new(Tag::STATE_KEY).u64(n).hash()
}

/// So many entries of a state tree.
pub fn entries(count: u64) -> Vec<Change> {
    (0..count).map(|n| (hash(n), Some(hash(n + 1)))).collect()
}

/// A network that begins with so many equal outputs.
pub fn network(outputs: usize) -> NetworkParams {
    NetworkParams {
        name: "bench".to_owned(),
        coordinators: vec![key(1).public()],
        threshold: 1,
        pow_bits: 8,
        output_min: Amount::new(1_000),
        milestone_interval_ms: 1_000,
        genesis_ms: 1_000,
        genesis: vec![Output { address: Address::of(&key(2).public()), amount: AMOUNT }; outputs],
    }
}

/// The ledger in which it begins.
pub fn state(params: &NetworkParams) -> LedgerState {
    LedgerState::from_entries(genesis_entries(params))
}

/// A transfer of each output of the beginning, with its block.
pub fn transfers(params: &NetworkParams) -> Vec<(BlockId, Transaction)> {
    let transaction = TransactionId::new(*params.id().as_bytes());
    let to = Address::of(&key(3).public());
    (0_u16..)
        .zip(&params.genesis)
        .map(|(index, spent)| {
            let essence = Essence {
                network: params.id(),
                inputs: vec![OutputId { transaction, index }],
                inputs_commitment: commit_inputs(&[*spent]),
                outputs: vec![Output { address: to, amount: spent.amount }],
                action: Action::Transfer,
            };
            let unlocks = vec![essence.unlock(&key(2))];
            (BlockId::new(*hash(index.into()).as_bytes()), Transaction { essence, unlocks })
        })
        .collect()
}

/// The transfers with their signatures checked.
pub fn checked(params: &NetworkParams) -> Vec<(BlockId, Checked)> {
    let transfers = transfers(params).into_iter();
    transfers.map(|(block, it)| (block, Checked::new(it, params).expect("they are valid"))).collect()
}
