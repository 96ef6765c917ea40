//! A ledger with many outputs, made before the node starts.

use std::path::PathBuf;

use flash_node_client::node::{Node, NodeConfig, Received, Source, dev::DevKeys};
use flash_proto::{
    Action, Address, Amount, Block, Essence, NetworkParams, Output, OutputId, Payload, SecretKey,
    Transaction, TransactionId,
    block::Work,
    hash::{Layout, Tag},
    transaction::commit_inputs,
};

use crate::{events::now_ms, failure::Failure};

/// Outputs that one transaction makes, besides its change.
const SPLIT: u64 = 100;
/// Transactions to a milestone.
const PER_MILESTONE: usize = 100;

/// Makes so many outputs, each at an address of its own, from the first output of the treasury, in whole
/// transactions; gives back how many there are then.
pub(super) fn fill(directory: PathBuf, keys: &DevKeys, outputs: u64) -> Result<u64, Failure> {
    let params = &keys.params;
    let node = Node::open(NodeConfig { index: false, ..NodeConfig::new(directory, params.clone()) })
        .map_err(Failure::new)?;
    let genesis = TransactionId::new(*params.id().as_bytes());
    let mut change = (OutputId { transaction: genesis, index: 0 }, *first(&params.genesis)?);
    let mut parents = [params.genesis_block(); 2];
    let mut blocks = Vec::new();
    let transactions = outputs.div_ceil(SPLIT);
    for number in 0..transactions {
        let transaction = split(params, &keys.treasury, change, number)?;
        change =
            (OutputId { transaction: transaction.id(), index: 0 }, *first(&transaction.essence.outputs)?);
        let mut block = Block::new(parents.to_vec(), Payload::Transaction(Box::new(transaction)));
        let nonce = Work::of(&block.to_bytes()).search(params.pow_bits, 0, u64::MAX);
        block.nonce = nonce.ok_or_else(|| Failure::new("no proof of work was found"))?;
        parents = [parents[1], block.id()];
        blocks.push(block.to_bytes());
        if blocks.len() == PER_MILESTONE || number.saturating_add(1) == transactions {
            let received = node.receive(&blocks, Source::Sent).map_err(Failure::new)?;
            blocks.clear();
            if let Some(other) = received.into_iter().find(|received| *received != Received::Added) {
                return Err(Failure::new(format!("the node does not take a block: {other:?}")));
            }
            let coordinators = std::slice::from_ref(&keys.coordinator);
            node.issue_milestone(now_ms(), coordinators).map_err(Failure::new)?;
        }
    }
    let genesis = u64::try_from(params.genesis.len()).unwrap_or(u64::MAX);
    Ok(transactions.saturating_mul(SPLIT).saturating_add(genesis))
}

fn first(outputs: &[Output]) -> Result<&Output, Failure> {
    outputs.first().ok_or_else(|| Failure::new("a transaction without outputs"))
}

/// Spends `id` into the change, which comes first, and [`SPLIT`] of the smallest outputs.
fn split(
    params: &NetworkParams,
    key: &SecretKey,
    (id, spent): (OutputId, Output),
    number: u64,
) -> Result<Transaction, Failure> {
    let parts = params.output_min.checked_mul(SPLIT).unwrap_or(Amount::MAX);
    let left = spent.amount.checked_sub(parts).filter(|left| *left >= params.output_min);
    let left =
        left.ok_or_else(|| Failure::new("so many outputs are more than the treasury's first holds"))?;
    let mut outputs = vec![Output { address: spent.address, amount: left }];
    outputs
        .extend((0..SPLIT).map(|part| Output { address: nobody(number, part), amount: params.output_min }));
    let essence = Essence {
        network: params.id(),
        inputs: vec![id],
        inputs_commitment: commit_inputs(&[spent]),
        outputs,
        action: Action::Transfer,
    };
    let unlocks = vec![essence.unlock(key)];
    Ok(Transaction { essence, unlocks })
}

/// An address whose key nobody has.
fn nobody(number: u64, part: u64) -> Address {
    Address::new(*Layout::new(Tag::ADDRESS).u64(number).u64(part).hash().as_bytes())
}

#[cfg(test)]
mod tests {
    use flash_node_client::node::dev::DevNetwork;

    use super::*;

    #[test]
    fn as_many_outputs_as_wanted_at_least() {
        let dir = tempfile::tempdir().unwrap();
        let dev = DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 };
        let keys = dev.make(now_ms(), [[1; 32], [2; 32], [3; 32]]);
        assert_eq!(fill(dir.path().join("store"), &keys, 201).unwrap(), 317);
        let config =
            NodeConfig { index: false, ..NodeConfig::new(dir.path().join("store"), keys.params.clone()) };
        let node = Node::open(config).unwrap();
        let milestone = node.followed_after(0, 10).unwrap();
        assert_eq!(milestone.len(), 1, "three transactions in one milestone");
        assert_eq!(milestone[0].milestone.essence.index, 1);
    }
}
