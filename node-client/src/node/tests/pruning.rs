//! What stays and what goes, and what a node says of what is gone.

use flash_channel::store::{Fault, MemoryStore, Table};
use flash_proto::{
    Action, Block, BlockId, ChannelId, CoordinatorSet, Hash, Milestone, Payload, SecretKey, Transaction,
    block::Data, limits,
};

use super::support::*;
use crate::{
    ledger::tests::support::*,
    light::LightCore,
    node::{
        KEEP_MILESTONES_MIN, Keep, Node, NodeConfig, NodeError, Past, Source,
        pages::PAGES,
        records::{APPLIED, CONFIRMED, INCLUDED, MILESTONES, TOUCHED, TRANSACTIONS},
    },
    protocol::{NodeRequest, NodeResponse, RefusedCode, TransactionAnswer},
    tangle::CONFIRMED_MILESTONES,
};

/// As little as possible.
const LEAST: Keep = Keep { milestones: 0, bytes: u64::MAX, chain: 0 };

fn count(node: &Node, table: Table) -> usize {
    node.store().scan(table, &[], None, usize::MAX).unwrap().len()
}

fn root(node: &Node) -> Hash {
    node.read().ledger.root()
}

fn prune(node: &Node, keep: &Keep) {
    while node.prune(keep).unwrap() {}
}

fn issue(node: &Node, milestones: u64) {
    for _ in 0..milestones {
        node.issue_milestone(1, &signers()).unwrap();
    }
}

/// A channel opened by milestone 1 and closed by milestone 2, and money moved by milestone 3: the closing
/// transaction, and the moving one.
fn history(node: &Node) -> [Transaction; 2] {
    let params = params();
    let open = Action::Open(opening(6_000, 4_000, 100));
    let open = spend(&params, &[genesis_coin(&params, 1)], vec![output(1, 990_000)], open);
    let channel = ChannelId::opened_by(open.id());
    let close = cooperative(&params, channel, (5_000, 5_000), 100);
    let pay = transfer(&params, &[genesis_coin(&params, 2)], vec![output(5, 500_000)]);
    for transaction in [&open, &close, &pay] {
        submit(node, transaction);
        issue(node, 1);
    }
    [close, pay]
}

#[test]
fn what_is_old_goes_and_the_node_says_so() {
    let store = MemoryStore::new();
    let node = node_on(&store);
    let [close, pay] = history(&node);
    let keys = signers().iter().map(SecretKey::public).collect();
    let essence = node.propose(1, Some(CoordinatorSet { keys, threshold: 2 })).unwrap();
    let signatures = signers().iter().map(|key| essence.sign(key)).collect();
    node.publish(Milestone { essence, signatures }).unwrap();
    issue(&node, 200);
    let (newest, before) = (*node.newest().borrow(), root(&node));
    let gone = newest - KEEP_MILESTONES_MIN;
    let first = BlockId::new(
        node.store().get(INCLUDED, &[&1_u64.to_be_bytes()[..], &[0; 4]].concat()).unwrap().unwrap()[..32]
            .try_into()
            .unwrap(),
    );
    prune(&node, &LEAST);
    for node in [&node, &node_on(&store)] {
        assert_eq!(node.past(), Past { blocks: gone, milestones: gone, ..node.past() });
        assert_eq!((*node.newest().borrow(), root(node)), (newest, before));
        for index in 1..=newest {
            assert_eq!(node.cone(index, 0, 1).unwrap().is_some(), index > gone, "{index}");
        }
        assert_eq!(transaction(node, &close), TransactionAnswer::Pruned { upto: gone });
        assert_eq!(transaction(node, &pay), TransactionAnswer::Pruned { upto: gone });
        assert_eq!(refused(node.answer(NodeRequest::Block(first))).code, RefusedCode::Pruned);
        assert_eq!(refused(node.answer(NodeRequest::Milestone(Some(3)))).code, RefusedCode::Pruned);
        // Who signed what can still be shown.
        let NodeResponse::Milestone(Some(kept)) = node.answer(NodeRequest::Milestone(Some(4))) else {
            panic!()
        };
        assert!(kept.essence.next.is_some());
        assert!(matches!(node.followed_after(3, 9), Err(NodeError::Pruned { upto }) if upto == gone));
        assert!(matches!(node.followed_after(gone - 1, 9), Err(NodeError::Pruned { .. })));
        assert_eq!(node.followed_after(gone, 200).unwrap().len() as u64, KEEP_MILESTONES_MIN);
        // Nothing is left that nobody asks for.
        let kept = usize::try_from(KEEP_MILESTONES_MIN).unwrap();
        assert_eq!(
            (count(node, INCLUDED), count(node, CONFIRMED), count(node, PAGES)),
            (kept, kept, kept + 1)
        );
        assert_eq!((count(node, APPLIED), count(node, TOUCHED), count(node, TRANSACTIONS)), (0, 0, 0));
        assert_eq!(count(node, MILESTONES), kept + 2, "the hand-over and the genesis stay");
        assert!(!node.prune(&LEAST).unwrap(), "nothing more to do");
    }
    issue(&node, 1);
    prune(&node, &LEAST);
    assert_eq!(node.past().blocks, gone + 1);
}

#[test]
fn blocks_go_by_their_bytes_and_milestones_stay_longer() {
    let node = node_on(&MemoryStore::new());
    history(&node);
    issue(&node, 197);
    let stored = |node: &Node| -> u64 {
        let kept = node.past().blocks + 1..=*node.newest().borrow();
        let cones = kept.map(|index| node.cone(index, 0, 9).unwrap().unwrap().blocks);
        // The last of each is the milestone's own, which the next one confirms.
        cones.flat_map(|blocks| blocks.into_iter().rev().skip(1)).map(|bytes| bytes.len() as u64).sum()
    };
    assert_eq!(node.past(), Past { blocks: 0, milestones: 0, bytes: stored(&node), ..node.past() });
    let keep = Keep { milestones: 150, bytes: u64::MAX, chain: 170 };
    prune(&node, &keep);
    assert_eq!(node.past(), Past { blocks: 50, milestones: 30, bytes: stored(&node), ..node.past() });
    let bytes = node.past().bytes;
    prune(&node, &Keep { bytes: bytes - 1, ..keep });
    assert_eq!(node.past(), Past { blocks: 51, milestones: 30, bytes: stored(&node), ..node.past() });
    // Never what new blocks approve, however little room there is.
    prune(&node, &Keep { bytes: 0, ..keep });
    assert_eq!(node.past().blocks, 200 - KEEP_MILESTONES_MIN);
    assert_eq!(node.followed_after(30, 500).unwrap().len(), 170);
}

#[test]
fn a_node_that_dies_while_it_prunes_goes_on_where_it_was() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Io, Fault::Full] {
        let mut store = MemoryStore::new();
        let node = node_on(&store);
        history(&node);
        // More blocks in one milestone than one step deletes.
        let parents = tips(&node);
        for byte in 0..1_200_u16 {
            let data = Data { tag: Vec::new(), data: byte.to_be_bytes().to_vec() };
            let payload = Payload::Data(data);
            let block = worked(node.params(), Block::new(parents.clone(), payload));
            node.receive(&[block], Source::Asked).unwrap();
        }
        issue(&node, 150);
        let before = root(&node);
        let mut crashes = 0;
        drop(node);
        loop {
            store = store.reopen();
            let node = node_on(&store);
            assert_eq!(root(&node), before);
            store.fail_next(fault);
            if let Ok(more) = node.prune(&LEAST) {
                assert!(!more);
                break;
            }
            assert!(node.halted().is_some());
            crashes += 1;
            if fault != Fault::CrashAfter {
                // Nothing of it was done: once more, and this time it is.
                store = store.reopen();
                node_on(&store).prune(&LEAST).unwrap();
            }
        }
        assert!(crashes >= 2, "{fault:?}: {crashes}");
        store = store.reopen();
        let node = node_on(&store);
        let kept = usize::try_from(KEEP_MILESTONES_MIN).unwrap();
        assert_eq!(
            (count(&node, INCLUDED), count(&node, CONFIRMED), count(&node, PAGES)),
            (kept, kept, kept + 1)
        );
        assert_eq!((count(&node, TRANSACTIONS), count(&node, APPLIED)), (0, 0));
        issue(&node, 3);
        assert_eq!(root(&node_on(&store.reopen())), root(&node));
    }
}

#[test]
fn a_permanode_proves_an_old_settlement_after_others_pruned_it() {
    let (permanode, other) = (node_on(&MemoryStore::new()), node_on(&MemoryStore::new()));
    let [close, _] = history(&permanode);
    issue(&permanode, 150);
    for index in 1..=153 {
        let blocks = permanode.cone(index, 0, 10_000).unwrap().unwrap().blocks;
        other.receive(&blocks, Source::Asked).unwrap();
    }
    prune(&other, &LEAST);
    assert_eq!(root(&other), root(&permanode));
    let TransactionAnswer::Pruned { upto: 45 } = transaction(&other, &close) else {
        panic!("{:?}", transaction(&other, &close))
    };
    let TransactionAnswer::Applied { block, milestone, path } = transaction(&permanode, &close) else {
        panic!("{:?}", transaction(&permanode, &close))
    };
    // Believed by who has followed the other one.
    let mut light = LightCore::new(params().into(), None).unwrap();
    for followed in permanode.followed_after(0, 200).unwrap() {
        light.advance(&followed).unwrap();
    }
    let applied = light.applied(close.id(), &block, &milestone, &path).unwrap();
    assert_eq!((applied.milestone_index, applied.transaction), (2, close));
}

/// A transaction that waits again when its milestone is pruned, and is forgotten when that block expires.
#[test]
fn what_waits_stays() {
    let (leader, other) = (node_on(&MemoryStore::new()), node_on(&MemoryStore::new()));
    let [_, pay] = history(&leader);
    let follow = |upto: u64| {
        let newest = *other.newest().borrow();
        for index in newest + 1..=upto {
            other.receive(&leader.cone(index, 0, 10_000).unwrap().unwrap().blocks, Source::Asked).unwrap();
        }
    };
    issue(&leader, 150);
    follow(153);
    let again = submit(&other, &pay);
    prune(&other, &LEAST);
    assert!(other.block(&again).unwrap().is_some());
    assert_eq!(transaction(&other, &pay), TransactionAnswer::Pending { block: again });
    // It approves the block of milestone 153, which the next one confirms.
    issue(&leader, 1 + CONFIRMED_MILESTONES);
    follow(153 + CONFIRMED_MILESTONES);
    prune(&other, &LEAST);
    assert!(other.block(&again).unwrap().is_some());
    follow(154 + CONFIRMED_MILESTONES);
    assert_eq!(other.block(&again).unwrap(), None);
    assert!(matches!(transaction(&other, &pay), TransactionAnswer::Pruned { .. }));
    assert_eq!(root(&other), root(&leader));
}

#[test]
fn a_day_and_the_longest_contest_window_are_kept() {
    let keep = Keep::default();
    assert_eq!(keep.chain, u64::from(limits::CONTEST_WINDOW_MILESTONES_MAX));
    assert!(keep.milestones >= 86_400 && keep.bytes == u64::MAX);
}

fn bytes_in(directory: &std::path::Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        at if at.is_dir() => bytes_in(&entry.path()),
        at => at.len(),
    };
    std::fs::read_dir(directory).unwrap().map(|entry| of(entry.unwrap())).sum()
}

/// Measures whether the disk gets smaller, and whether it stays so: run it alone with `--ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(directory.path().join("store"), params());
    let mut node = Node::open(config.clone()).unwrap();
    let disk = |what: &str, past: Past| {
        let bytes = bytes_in(&config.directory);
        println!("{what}: {bytes} bytes on the disk, {} of confirmed blocks", past.bytes);
    };
    let fill = |node: &Node, keep: Option<Keep>| {
        for round in 0..300_u32 {
            let parents = tips(node);
            let blocks: Vec<_> = (0..20_u32)
                .map(|number| {
                    let data = [round.to_be_bytes(), number.to_be_bytes()].concat().repeat(2_048);
                    let payload = Payload::Data(Data { tag: Vec::new(), data });
                    worked(node.params(), Block::new(parents.clone(), payload))
                })
                .collect();
            node.receive(&blocks, Source::Sent).unwrap();
            issue(node, 1);
            if let Some(keep) = &keep {
                prune(node, keep);
            }
        }
    };
    fill(&node, None);
    disk("300 milestones, all kept", node.past());
    prune(&node, &LEAST);
    disk("108 of them kept", node.past());
    for round in 1..=6 {
        fill(&node, Some(LEAST));
        disk(&format!("{} more, 108 kept", round * 300), node.past());
    }
    let past = node.past();
    drop(node);
    node = Node::open(config.clone()).unwrap();
    assert_eq!(node.past(), past);
    disk("opened again", past);
}
