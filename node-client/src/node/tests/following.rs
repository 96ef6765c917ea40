//! Nodes that take blocks and milestones from other nodes.

use flash_channel::store::MemoryStore;
use flash_proto::{
    Block, BlockId, CoordinatorSet, Hash, Milestone, MilestoneEssence, Payload, SecretKey, block::Data,
};

use super::support::*;
use crate::{
    ledger::tests::support::*,
    light::LightCore,
    node::{Find, Judgement, Node, NodeError, Received, Source},
    protocol::TransactionAnswer,
    tangle::CONFIRMED_MILESTONES,
};

fn node() -> Node {
    node_on(&MemoryStore::new())
}

fn data_block(node: &Node, parents: Vec<BlockId>, byte: u8) -> Vec<u8> {
    let data = Data { tag: b"test".to_vec(), data: vec![byte] };
    worked(node.params(), Block::new(parents, Payload::Data(data)))
}

fn take(node: &Node, bytes: &[u8]) -> Received {
    node.receive(&[bytes.to_vec()], Source::Sent).unwrap().remove(0)
}

/// All that milestone `index` confirmed, and its own block.
fn cone(node: &Node, index: u64) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    loop {
        let page = node.cone(index, blocks.len(), 3).unwrap().unwrap();
        blocks.extend(page.blocks);
        if !page.more {
            return blocks;
        }
    }
}

fn root(node: &Node) -> Hash {
    node.read().ledger.root()
}

fn milestone_block(node: &Node, milestone: Milestone) -> Vec<u8> {
    let parents = milestone.essence.parents.clone();
    worked(node.params(), Block::new(parents, Payload::Milestone(Box::new(milestone))))
}

fn signed(essence: MilestoneEssence) -> Milestone {
    let signatures = signers().iter().map(|key| essence.sign(key)).collect();
    Milestone { essence, signatures }
}

#[test]
fn a_follower_comes_to_the_same_state() {
    let (leader, follower) = (node(), node());
    let mut arrivals = leader.arrivals();
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 300_000), output(1, 700_000)]);
    submit(&leader, &pay);
    for now in 1..=5 {
        leader.issue_milestone(now, &signers()).unwrap();
    }
    let mut came = Vec::new();
    while let Ok(arrival) = arrivals.try_recv() {
        assert_eq!(Block::id_of(&arrival.bytes), arrival.id);
        came.push(arrival.bytes.clone());
    }
    let received = follower.receive(&came, Source::Sent).unwrap();
    assert!(received.iter().all(|received| *received == Received::Added), "{received:?}");
    assert_eq!(*follower.newest().borrow(), 5);
    assert_eq!(root(&follower), root(&leader));
    assert!(matches!(transaction(&follower, &pay), TransactionAnswer::Applied { .. }));
    let again = follower.receive(&came, Source::Sent).unwrap();
    assert!(again.iter().all(|received| *received == Received::Known));
}

#[test]
fn a_follower_catches_up_milestone_by_milestone_and_survives_a_restart() {
    let leader = node();
    for byte in 0..20 {
        let parents = tips(&leader);
        leader.submit(&data_block(&leader, parents, byte)).unwrap();
        if byte % 4 == 0 {
            leader.issue_milestone(1, &signers()).unwrap();
        }
    }
    let store = MemoryStore::new();
    let mut follower = node_on(&store);
    assert_eq!(take(&follower, cone(&leader, 3).last().unwrap()), Received::Early { index: 3 });
    for index in 1..=5 {
        let blocks = cone(&leader, index);
        // The milestone before is one of them.
        let received = follower.receive(&blocks, Source::Asked).unwrap();
        let known = received.iter().filter(|received| **received == Received::Known).count();
        let added = received.iter().filter(|received| **received == Received::Added).count();
        assert_eq!((known, added), (usize::from(index > 1), blocks.len() - known), "{received:?}");
        drop(follower);
        follower = node_on(&store);
        assert_eq!(*follower.newest().borrow(), index);
    }
    assert_eq!(root(&follower), root(&leader));
    assert!(follower.cone(6, 0, 3).unwrap().is_none() && follower.cone(0, 0, 3).unwrap().is_none());
    assert_eq!(cone(&follower, 4), cone(&leader, 4));
}

#[test]
fn what_was_confirmed_long_ago_is_known_however_it_comes() {
    let leader = node();
    leader.submit(&data_block(&leader, tips(&leader), 1)).unwrap();
    leader.submit(&data_block(&leader, tips(&leader), 2)).unwrap();
    for now in 1..=CONFIRMED_MILESTONES + 3 {
        leader.issue_milestone(now, &signers()).unwrap();
    }
    let old = [cone(&leader, 1), cone(&leader, 2)].concat();
    assert!(old.iter().all(|bytes| !leader.read().tangle.contains(&Block::id_of(bytes))));
    let waiting = leader.read().waiting.len();
    for source in [Source::Sent, Source::Asked] {
        let received = leader.receive(&old, source).unwrap();
        assert!(received.iter().all(|received| *received == Received::Known), "{source:?}: {received:?}");
    }
    assert_eq!(leader.read().waiting.len(), waiting);
}

#[test]
fn a_block_whose_parents_are_not_here_names_them() {
    let node = node();
    let first = data_block(&node, tips(&node), 1);
    let second = data_block(&node, vec![Block::id_of(&first)], 2);
    assert_eq!(take(&node, &second), Received::Missing(vec![Block::id_of(&first)]));
    let both = node.receive(&[first, second], Source::Sent).unwrap();
    assert_eq!(both, [Received::Added, Received::Added], "later ones may approve earlier ones");
}

#[test]
fn a_milestone_said_twice_changes_nothing() {
    let (leader, follower) = (node(), node());
    leader.issue_milestone(1, &signers()).unwrap();
    let milestone = leader.read().last.milestone.clone();
    follower.receive(&cone(&leader, 1), Source::Sent).unwrap();
    let mut other_block = Block::new(milestone.essence.parents.clone(), Payload::Milestone(milestone.into()));
    other_block.nonce = u64::MAX / 2;
    while Block::from_bytes(&other_block.to_bytes(), follower.params().pow_bits).is_err() {
        other_block.nonce += 1;
    }
    let (before, bytes) = (root(&follower), other_block.to_bytes());
    assert_eq!(take(&follower, &bytes), Received::Added);
    assert_eq!((*follower.newest().borrow(), root(&follower)), (1, before));
    // It is a block like any other: the next milestone confirms it, also where it came later.
    follower.issue_milestone(2, &signers()).unwrap();
    leader.receive(&cone(&follower, 2), Source::Sent).unwrap();
    assert_eq!((*leader.newest().borrow(), root(&leader)), (2, root(&follower)));
    assert_eq!(take(&leader, &bytes), Received::Known);
}

/// Both kinds: another milestone of a known index, and a next one after another than the known one.
#[test]
fn a_signed_fork_stops_the_node_for_ever_and_is_kept() {
    for next in [false, true] {
        let store = MemoryStore::new();
        let node = node_on(&store);
        let first = node.issue_milestone(1, &signers()).unwrap().milestone.essence.clone();
        let forked = if next {
            MilestoneEssence { index: 2, timestamp_ms: 9_999, ..first.clone() }
        } else {
            MilestoneEssence { timestamp_ms: first.timestamp_ms + 1, ..first.clone() }
        };
        // With one signature too few it is nothing.
        let mut weak = signed(forked.clone());
        weak.signatures.pop();
        assert!(matches!(take(&node, &milestone_block(&node, weak)), Received::Refused(_)));
        assert_eq!(node.halted(), None);

        let block = milestone_block(&node, signed(forked.clone()));
        assert!(matches!(node.receive(&[block], Source::Sent), Err(NodeError::Halted(_))));
        assert!(node.halted().unwrap().contains("fork"), "{:?}", node.halted());
        drop(node);
        let Err(NodeError::Fork(fork)) = Node::with_store(params(), Box::new(store)) else {
            panic!("a restart does not forget it")
        };
        assert_eq!((&fork.known.essence, &fork.other.essence), (&first, &forked));
    }
}

#[test]
fn a_signed_milestone_with_wrong_roots_stops_the_node() {
    let (leader, follower) = (node(), node());
    let mut essence = leader.propose(1, None).unwrap();
    assert_eq!(follower.judge(&essence).unwrap(), Judgement::Right);
    essence.state_root = Hash::new([7; 32]);
    assert!(matches!(follower.judge(&essence).unwrap(), Judgement::Wrong(_)));
    let before = root(&follower);
    let block = milestone_block(&follower, signed(essence));
    assert!(matches!(follower.receive(&[block], Source::Sent), Err(NodeError::Halted(_))));
    assert!(follower.halted().unwrap().contains("state root"), "{:?}", follower.halted());
    assert_eq!((*follower.newest().borrow(), root(&follower)), (0, before), "it was not applied");
}

#[test]
fn a_proposal_is_judged_once_its_blocks_are_here() {
    let (leader, other) = (node(), node());
    let block = data_block(&leader, tips(&leader), 1);
    leader.submit(&block).unwrap();
    let essence = leader.propose(1, None).unwrap();
    let Judgement::Missing(missing) = other.judge(&essence).unwrap() else { panic!("the block is not here") };
    assert_eq!(missing, [Block::id_of(&block)]);
    other.submit(&block).unwrap();
    assert_eq!(other.judge(&essence).unwrap(), Judgement::Right);
    other.publish(signed(essence.clone())).unwrap();
    // The leader's own, of another assembly, says the same.
    leader.publish(signed(essence.clone())).unwrap();
    assert_eq!(root(&other), root(&leader));
    assert!(matches!(other.judge(&essence).unwrap(), Judgement::Wrong(_)), "it is not next any more");
}

#[test]
fn blocks_that_no_milestone_can_confirm_any_more_expire_with_all_that_approve_them() {
    let (leader, cut_off) = (node(), node());
    let store = MemoryStore::new();
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 1_000_000)]);
    // On the one side of a partition only.
    let first = submit(&cut_off, &pay);
    let second = data_block(&cut_off, vec![first], 2);
    cut_off.submit(&second).unwrap();
    for _ in 0..CONFIRMED_MILESTONES {
        leader.issue_milestone(1, &signers()).unwrap();
    }
    let merge = |node: &Node, upto: u64| {
        let newest = *node.newest().borrow();
        for index in newest + 1..=upto {
            node.receive(&cone(&leader, index), Source::Asked).unwrap();
        }
    };
    let found = |what: &Find| cut_off.find(what, None, 9).unwrap().unwrap();
    merge(&cut_off, CONFIRMED_MILESTONES - 1);
    assert_eq!(found(&Find::Transaction(pay.id())), [first]);
    assert_eq!(found(&Find::Address(address(4))), [first]);
    assert_eq!(transaction(&cut_off, &pay), TransactionAnswer::Pending { block: first });
    assert!(cut_off.block(&first).unwrap().is_some());
    merge(&cut_off, CONFIRMED_MILESTONES);
    assert_eq!(transaction(&cut_off, &pay), TransactionAnswer::Unknown);
    assert_eq!(cut_off.block(&first).unwrap(), None);
    assert_eq!(cut_off.block(&Block::id_of(&second)).unwrap(), None);
    assert!(found(&Find::Transaction(pay.id())).is_empty() && found(&Find::Address(address(4))).is_empty());
    assert_eq!(cut_off.block_state(first).unwrap(), None);
    assert_eq!(cut_off.read().waiting.len(), leader.read().waiting.len());
    // Attached anew it is applied.
    let again = block_with(&cut_off, &pay);
    assert_eq!(take(&leader, &again), Received::Added);
    assert_eq!(take(&cut_off, &again), Received::Added);
    leader.issue_milestone(1, &signers()).unwrap();
    merge(&cut_off, CONFIRMED_MILESTONES + 1);
    assert!(matches!(transaction(&cut_off, &pay), TransactionAnswer::Applied { .. }));
    assert_eq!(root(&cut_off), root(&leader));
    drop(store);
}

#[test]
fn coordinators_hand_over_to_others() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let new = [key(60), key(61)];
    let mut keys = new.each_ref().map(SecretKey::public).to_vec();
    keys.sort_unstable();
    let essence = node.propose(1, Some(CoordinatorSet { keys, threshold: 2 })).unwrap();
    let mut light = LightCore::new(params().into(), None).unwrap();
    light.advance(&node.publish(signed(essence)).unwrap()).unwrap();
    let late = node.issue_milestone(2, &signers());
    assert!(matches!(late, Err(NodeError::Coordinators { given: 0, threshold: 2 })), "{late:?}");
    // The old keys together are worth nothing any more.
    let old = signed(node.propose(2, None).unwrap());
    assert!(
        light
            .clone()
            .advance(&crate::protocol::Followed { milestone: old.clone(), channels: vec![] })
            .is_err()
    );
    assert!(matches!(node.publish(old), Err(NodeError::NotTaken(Received::Refused(_)))));
    light.advance(&node.issue_milestone(2, &new).unwrap()).unwrap();
    drop(node);
    let node = node_on(&store);
    light.advance(&node.issue_milestone(3, &new).unwrap()).unwrap();
    assert_eq!(light.newest().index, 3);
    let again = LightCore::new(params().into(), Some(light.checkpoint())).unwrap();
    assert_eq!(again.checkpoint(), light.checkpoint());
}
