//! A node on a store that tests can look into and break.

use std::{future::Future, time::Duration};

use flash_channel::store::MemoryStore;
use flash_proto::{Block, BlockId, NetworkParams, Payload, SecretKey, Transaction, block::Work};

use crate::{
    ledger::tests::support::{coordinators, params},
    node::Node,
    protocol::{NodeRequest, NodeResponse, Refused, TransactionAnswer},
};

/// The two coordinators that sign, of three.
pub(super) fn signers() -> Vec<SecretKey> {
    coordinators().into_iter().take(2).collect()
}

/// Issues a milestone every `interval` with enough keys at once.
pub(super) async fn issue_until(node: Node, interval: Duration, stop: impl Future<Output = ()>) {
    let mut ticks = tokio::time::interval(interval);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => {
                let node = node.clone();
                let issued = tokio::task::spawn_blocking(move || node.issue_milestone(1, &signers()));
                issued.await.unwrap().unwrap();
            }
        }
    }
}

pub(super) fn node_on(store: &MemoryStore) -> Node {
    Node::with_store(params(), Box::new(store.clone())).unwrap()
}

pub(super) fn worked(params: &NetworkParams, mut block: Block) -> Vec<u8> {
    block.nonce = Work::of(&block.to_bytes()).search(params.pow_bits, 0, u64::MAX).unwrap();
    block.to_bytes()
}

pub(super) fn tips(node: &Node) -> Vec<BlockId> {
    match node.answer(NodeRequest::Tips) {
        NodeResponse::Tips(tips) => tips,
        other => panic!("{other:?}"),
    }
}

/// The bytes of a block with this transaction on the node's tips.
pub(super) fn block_with(node: &Node, transaction: &Transaction) -> Vec<u8> {
    let payload = Payload::Transaction(Box::new(transaction.clone()));
    worked(node.params(), Block::new(tips(node), payload))
}

pub(super) fn submit(node: &Node, transaction: &Transaction) -> BlockId {
    node.submit(&block_with(node, transaction)).unwrap()
}

pub(super) fn transaction(node: &Node, transaction: &Transaction) -> TransactionAnswer {
    match node.answer(NodeRequest::Transaction(transaction.id())) {
        NodeResponse::Transaction(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

pub(super) fn refused(response: NodeResponse) -> Refused {
    match response {
        NodeResponse::Refused(refused) => refused,
        other => panic!("{other:?}"),
    }
}
