//! What is left after a restart, a crash or a failing disk.

use flash_channel::store::{Batch, Fault, MemoryStore, SledStore, Store};
use flash_proto::{Action, ChannelId, Side, Transaction};

use super::support::*;
use crate::{
    ledger::tests::support::*,
    node::{Node, NodeConfig, NodeError, outputs::PAGES},
    protocol::{NodeInfo, NodeRequest, NodeResponse, RefusedCode, TransactionAnswer},
};

fn info(node: &Node) -> NodeInfo {
    match node.answer(NodeRequest::Info) {
        NodeResponse::Info(info) => info,
        other => panic!("{other:?}"),
    }
}

/// A history with everything in it: transfers, a conflict, a channel that is being closed, and blocks that
/// still wait.
fn history(node: &Node) -> Vec<Transaction> {
    let params = params();
    let coin = genesis_coin(&params, 1);
    let open = Action::Open(opening(6_000, 4_000, 100));
    let open = spend(&params, &[coin], vec![output(1, 990_000)], open);
    let channel = ChannelId::opened_by(open.id());
    let conflict = transfer(&params, &[coin], vec![output(5, 1_000_000)]);
    let paid = balance(&params, channel, Side::A, 500);
    let close = unilateral(&params, channel, Side::B, Some(paid));
    let waiting = transfer(&params, &[genesis_coin(&params, 2)], vec![output(6, 500_000)]);
    let all = vec![open, conflict, close, waiting];
    for transaction in &all[..3] {
        submit(node, transaction);
        node.issue_milestone(1, &signers()).unwrap();
    }
    submit(node, &all[3]);
    all
}

fn assert_same(left: &Node, right: &Node, transactions: &[Transaction]) {
    assert_eq!(info(left), info(right));
    assert_eq!(left.followed_after(0, 100).unwrap(), right.followed_after(0, 100).unwrap());
    for sent in transactions {
        assert_eq!(transaction(left, sent), transaction(right, sent));
    }
    assert_eq!(left.read().next_page, right.read().next_page);
    assert_eq!(left.read().confirmed, right.read().confirmed);
    assert_eq!(left.read().waiting_bytes, right.read().waiting_bytes);
}

#[test]
fn a_restarted_node_is_the_same_and_goes_on_alike() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let transactions = history(&node);
    let reopened = node_on(&store.snapshot());
    assert_same(&node, &reopened, &transactions);
    for _ in 0..WINDOW + 2 {
        let (left, right) = (
            node.issue_milestone(77, &signers()).unwrap(),
            reopened.issue_milestone(77, &signers()).unwrap(),
        );
        assert_eq!(left.milestone.essence, right.milestone.essence);
        assert_eq!(left.channels, right.channels);
    }
    assert_same(&node, &reopened, &transactions);
    assert_eq!(info(&node).channels.0, 0, "the channel was settled");
    assert!(matches!(transaction(&node, &transactions[3]), TransactionAnswer::Applied { .. }));
}

#[test]
fn a_node_on_a_disk_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(directory.path().join("node"), params());
    let node = Node::open(config.clone()).unwrap();
    let transactions = history(&node);
    let (before, answers) =
        (info(&node), transactions.iter().map(|sent| transaction(&node, sent)).collect::<Vec<_>>());
    drop(node);
    let node = Node::open(config).unwrap();
    assert_eq!(info(&node), before);
    assert_eq!(transactions.iter().map(|sent| transaction(&node, sent)).collect::<Vec<_>>(), answers);
    node.issue_milestone(1, &signers()).unwrap();
}

/// Releases before this one had another store.
#[test]
fn a_node_of_an_older_release_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), params().id().as_bytes()).unwrap();
    let node = Node::with_store(params(), Box::new(store)).unwrap();
    let transactions = history(&node);
    let before = info(&node);
    drop(node);
    let node = Node::open(NodeConfig::new(directory.path().to_owned(), params())).unwrap();
    assert_eq!(info(&node), before);
    node.issue_milestone(1, &signers()).unwrap();
    assert!(matches!(transaction(&node, &transactions[3]), TransactionAnswer::Applied { .. }));
}

#[test]
fn another_networks_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path(), b"another").unwrap();
    drop(store);
    let config = NodeConfig::new(directory.path().to_owned(), params());
    assert!(matches!(Node::open(config), Err(NodeError::Store(_))));
}

#[test]
fn a_node_that_dies_in_a_commit_comes_back_before_or_after_it() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Io, Fault::Full] {
        let store = MemoryStore::new();
        let node = node_on(&store);
        let transactions = history(&node);
        let before = info(&node);
        store.fail_next(fault);
        assert!(matches!(node.issue_milestone(1, &signers()), Err(NodeError::Halted(_))));
        // It does not go on, whatever is asked of it.
        assert!(node.halted().is_some());
        assert_eq!(refused(node.answer(NodeRequest::Info)).code, RefusedCode::Halted);
        assert_eq!(refused(node.answer(NodeRequest::Tips)).code, RefusedCode::Halted);
        assert!(matches!(node.issue_milestone(1, &signers()), Err(NodeError::Halted(_))));
        assert!(node.followed_after(0, 1).is_err());

        let node = node_on(&store.reopen());
        if fault == Fault::CrashAfter {
            assert_eq!(info(&node).milestone_index, before.milestone_index + 1);
            assert!(matches!(transaction(&node, &transactions[3]), TransactionAnswer::Applied { .. }));
        } else {
            assert_eq!(info(&node), before);
            assert!(matches!(transaction(&node, &transactions[3]), TransactionAnswer::Pending { .. }));
        }
        node.issue_milestone(1, &signers()).unwrap();
        assert!(matches!(transaction(&node, &transactions[3]), TransactionAnswer::Applied { .. }));
    }
}

#[test]
fn a_block_that_could_not_be_stored_was_never_taken() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 1_000_000)]);
    let bytes = block_with(&node, &pay);
    store.fail_next(Fault::Io);
    assert_eq!(node.submit(&bytes).unwrap_err().code, RefusedCode::Halted);
    let node = node_on(&store.reopen());
    assert_eq!(transaction(&node, &pay), TransactionAnswer::Unknown);
    node.submit(&bytes).unwrap();
}

#[test]
fn a_state_that_is_not_the_milestones_is_found_at_the_start() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    history(&node);
    drop(node);
    let (key, value) = store.last(PAGES, &[]).unwrap().unwrap();
    let lost = store.snapshot();
    let mut batch = Batch::new();
    batch.delete(PAGES, &key);
    let _durable = lost.commit(&batch).unwrap();
    let opened = Node::with_store(params(), Box::new(lost));
    assert!(matches!(opened, Err(NodeError::StateRoot { index: 3, .. })), "{opened:?}");
    let flipped = store.snapshot();
    assert!(flipped.flip_bit(PAGES, &key, value.len() * 4));
    assert!(matches!(Node::with_store(params(), Box::new(flipped)), Err(NodeError::Store(_))));
}

#[test]
fn many_senders_at_once_share_commits_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(directory.path().to_owned(), params());
    let node = Node::open(config).unwrap();
    let params = params();
    let split = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 10_000); 100]);
    submit(&node, &split);
    node.issue_milestone(1, &signers()).unwrap();
    let spends: Vec<_> = (0..100)
        .map(|index| transfer(&params, &[coin_of(&split, index, 4)], vec![output(5, 10_000)]))
        .collect();
    std::thread::scope(|scope| {
        for part in spends.chunks(10) {
            let node = &node;
            scope.spawn(move || part.iter().for_each(|spend| _ = submit(node, spend)));
        }
        scope.spawn(|| (0..3).for_each(|_| drop(node.issue_milestone(1, &signers()).unwrap())));
    });
    node.issue_milestone(1, &signers()).unwrap();
    node.issue_milestone(1, &signers()).unwrap();
    for spend in &spends {
        assert!(matches!(transaction(&node, spend), TransactionAnswer::Applied { .. }));
    }
}
