//! Blocks are found by what is in them, and what became of them is told.

use flash_channel::store::{Batch, MemoryStore, Store};
use flash_proto::{Block, BlockId, Output, OutputId, Payload, StateKey, block::Data};

use super::support::*;
use crate::{
    ledger::{Conflict, tests::support::*},
    node::{BlockOutcome, BlockState, Confirmed, Find, Node, index},
};

fn found(node: &Node, what: &Find) -> Vec<BlockId> {
    node.find(what, None, 10).unwrap().unwrap()
}

fn data_block(node: &Node, tag: &[u8], parents: Vec<BlockId>) -> Vec<u8> {
    let data = Data { tag: tag.to_vec(), data: b"reading".to_vec() };
    worked(node.params(), Block::new(parents, Payload::Data(data)))
}

fn confirmed(milestone_index: u64, outcome: BlockOutcome) -> BlockState {
    BlockState::Confirmed(Confirmed { milestone_index, outcome })
}

#[test]
fn blocks_are_found_by_tag_parent_transaction_and_address() {
    let node = node_on(&MemoryStore::new());
    let params = params();
    let genesis = params.genesis_block();
    let meter = node.submit(&data_block(&node, b"meter", vec![genesis])).unwrap();
    let padded = node.submit(&data_block(&node, b"meter\0\0", vec![meter])).unwrap();
    node.submit(&data_block(&node, b"mete", vec![meter])).unwrap();
    let mut both = vec![meter, padded];
    both.sort_unstable();
    assert_eq!(found(&node, &Find::Tag(b"meter".to_vec())), both);
    assert_eq!(found(&node, &Find::Tag(b"meter\0\0\0".to_vec())), both);
    assert!(found(&node, &Find::Tag(vec![7; 300])).is_empty());
    assert_eq!(found(&node, &Find::Parent(genesis)), [meter]);
    assert_eq!(found(&node, &Find::Parent(meter)).len(), 2);

    // A page ends where it is told to, and the next begins after it.
    let what = Find::Tag(b"meter".to_vec());
    assert_eq!(node.find(&what, None, 1).unwrap().unwrap(), both[..1]);
    assert_eq!(node.find(&what, Some(both[0]), 1).unwrap().unwrap(), both[1..]);
    assert!(node.find(&what, Some(both[1]), 1).unwrap().unwrap().is_empty());

    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 300_000), output(1, 700_000)]);
    let carrier = submit(&node, &pay);
    for what in [Find::Transaction(pay.id()), Find::Address(address(4)), Find::Address(address(1))] {
        assert_eq!(found(&node, &what), [carrier], "{what:?}");
    }
    assert!(found(&node, &Find::Address(address(2))).is_empty());
    let coin = genesis_coin(&params, 2);
    let open = flash_proto::Action::Open(opening(400_000, 100_000, 9));
    let open = submit(&node, &spend(&params, &[coin], Vec::new(), open));
    assert_eq!(found(&node, &Find::Address(address(21))), [open]);
    assert_eq!(found(&node, &Find::Address(address(2))), [open]);
}

#[test]
fn what_became_of_a_block_is_told_and_survives_a_restart() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let params = params();
    let coin = genesis_coin(&params, 1);
    let first = transfer(&params, &[coin], vec![output(4, 1_000_000)]);
    let second = transfer(&params, &[coin], vec![output(5, 1_000_000)]);
    let blocks = [submit(&node, &first), submit(&node, &second)];
    let data = node.submit(&data_block(&node, b"x", vec![blocks[1]])).unwrap();
    assert_eq!(node.block_state(data).unwrap(), Some(BlockState::Waiting));
    assert_eq!(node.block_state(BlockId::new([9; 32])).unwrap(), None);
    node.issue_milestone(5_000, &signers()).unwrap();
    let node = node_on(&store);
    assert_eq!(node.block_state(data).unwrap(), Some(confirmed(1, BlockOutcome::Included)));
    let mut outcomes = blocks.map(|block| node.block_state(block).unwrap().unwrap());
    outcomes.sort_by_key(|outcome| *outcome == confirmed(1, BlockOutcome::Rejected(Conflict::InputMissing)));
    let rejected = confirmed(1, BlockOutcome::Rejected(Conflict::InputMissing));
    assert_eq!(outcomes, [confirmed(1, BlockOutcome::Applied), rejected]);
    assert_eq!(node.block_state(params.genesis_block()).unwrap(), Some(confirmed(0, BlockOutcome::Included)));

    let included = node.included(1, 0, 9).unwrap().unwrap();
    assert_eq!(included.len(), 3);
    assert_eq!(node.included(1, 2, 9).unwrap().unwrap(), included[2..]);
    assert_eq!(node.included(2, 0, 9).unwrap(), None);
    let milestone = node.milestone(None).unwrap().unwrap();
    assert_eq!(milestone.milestone.essence.index, 1);
    assert_eq!(found(&node, &Find::Parent(data)), [milestone.block]);
    assert_eq!(node.milestone(Some(2)).unwrap(), None);
}

#[test]
fn the_past_of_a_tip_is_told_by_milestones_and_by_walking() {
    let node = node_on(&MemoryStore::new());
    let genesis = node.params().genesis_block();
    let old = node.submit(&data_block(&node, b"old", vec![genesis])).unwrap();
    node.issue_milestone(5_000, &signers()).unwrap();
    let milestone = node.milestone(None).unwrap().unwrap().block;
    let left = node.submit(&data_block(&node, b"left", vec![milestone])).unwrap();
    let right = node.submit(&data_block(&node, b"right", vec![old])).unwrap();
    let past = |tip, blocks: &[BlockId]| node.in_past(&[tip], blocks).unwrap().unwrap();
    assert_eq!(past(milestone, &[old, left, right, genesis]), [true, false, false, true]);
    assert_eq!(past(left, &[old, left, right]), [true, true, false]);
    assert_eq!(past(right, &[old, right, milestone]), [true, true, false]);
    assert_eq!(node.in_past(&[left, right], &[left, right]).unwrap().unwrap(), [true, true]);
    assert_eq!(past(BlockId::new([9; 32]), &[old]), [false]);
}

#[test]
fn an_output_is_proven_present_and_absent() {
    let node = node_on(&MemoryStore::new());
    let params = params();
    let (id, held, _) = genesis_coin(&params, 1);
    let newest = node.followed_after(0, 1).unwrap();
    assert!(newest.is_empty());
    node.issue_milestone(5_000, &signers()).unwrap();
    let root = node.milestone(None).unwrap().unwrap().milestone.essence.state_root;
    let proven = node.output(id);
    assert_eq!((proven.milestone_index, proven.output), (1, Some(held)));
    let hash = proven.output.as_ref().map(Output::value_hash);
    proven.proof.verify(root, &StateKey::Output(id).tree_key(), hash).unwrap();
    let absent = OutputId { index: 99, ..id };
    let proven = node.output(absent);
    assert_eq!(proven.output, None);
    proven.proof.verify(root, &StateKey::Output(absent).tree_key(), None).unwrap();
    let balances = node.balances(&[held.address, address(77)]);
    assert_eq!(balances.amounts, [held.amount, flash_proto::Amount::ZERO]);
}

#[test]
fn a_block_that_goes_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let params = params();
    let coin = genesis_coin(&params, 1);
    let pay = [4, 5].map(|owner| transfer(&params, &[coin], vec![output(owner, 1_000_000)]));
    let blocks = pay.each_ref().map(|pay| (submit(&node, pay), pay.id()));
    node.issue_milestone(5_000, &signers()).unwrap();
    let again = submit(&node, &pay[0]);
    assert!(found(&node, &Find::Transaction(pay[0].id())).contains(&again));
    node.issue_milestone(6_000, &signers()).unwrap();
    let mut by_first = vec![blocks[0].0, again];
    by_first.sort_unstable();
    assert_eq!(found(&node, &Find::Transaction(pay[0].id())), by_first);
    assert_eq!(found(&node, &Find::Address(address(1))).len(), 3);
    let mut batch = Batch::new();
    for block in [blocks[0].0, blocks[1].0, again] {
        index::remove(&mut batch, block, &node.block(&block).unwrap().unwrap()).unwrap();
    }
    let _durable = store.commit(&batch).unwrap();
    assert!([1, 4, 5].iter().all(|owner| found(&node, &Find::Address(address(*owner))).is_empty()));
    for (block, transaction) in blocks {
        assert_eq!(index::rejected(&store, block).unwrap(), None);
        assert!(index::Prefix::rejected(transaction).blocks(&store, None, 9).unwrap().is_empty());
    }
    assert_eq!(index::rejected(&store, again).unwrap(), None);
}

#[test]
fn children_are_found_waiting_and_confirmed() {
    let node = node_on(&MemoryStore::new());
    let genesis = node.params().genesis_block();
    let parent = node.submit(&data_block(&node, b"parent", vec![genesis])).unwrap();
    let first = node.submit(&data_block(&node, b"first", vec![parent])).unwrap();
    assert_eq!(found(&node, &Find::Parent(parent)), [first]);
    node.issue_milestone(5_000, &signers()).unwrap();
    let second = node.submit(&data_block(&node, b"second", vec![parent, first])).unwrap();
    let mut both = vec![first, second];
    both.sort_unstable();
    assert_eq!(found(&node, &Find::Parent(parent)), both);
    for now in 0..5 {
        node.issue_milestone(6_000 + now, &signers()).unwrap();
    }
    assert_eq!(found(&node, &Find::Parent(parent)), both);
    assert_eq!(node.measures(&parent).unwrap().own_weight, 1);
}
