//! Blocks, milestones and what was missed.

use std::time::Instant;

use flash_channel::store::MemoryStore;
use flash_proto::Block;

use super::support::*;
use crate::{
    gossip::message::{Live, REPLY_FRAME_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request},
    ledger::tests::support::*,
    node::Source,
    quic::frames::{FrameReader, FrameWriter},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_and_milestones_go_both_ways() {
    let first = Member::new(31, &[]);
    let second = Member::new(32, &[&first]);
    until("they are neighbours", || first.neighbour(second.key()).is_some()).await;
    let (to, fro) = (first.data("to"), second.data("fro"));
    until("both have both", || first.has(&fro) && second.has(&to)).await;
    first.issue(3);
    until("the milestones", || second.newest() == 3).await;
    second.issue(1);
    until("the other's milestone", || first.newest() == 4).await;
    assert_eq!(first.root(), second.root());
    let known = first.neighbour(second.key()).unwrap();
    assert!(known.inbound && known.new_blocks >= 2 && known.score > 0, "{known:?}");
    until("its milestone is told", || first.neighbour(second.key()).unwrap().newest_milestone == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_parents_are_asked_of_the_sender() {
    let member = Member::new(31, &[]);
    let mut raw = Raw::new(41, &member, 0).await;
    let params = params();
    let genesis = vec![params.genesis_block()];
    let parents = [1, 2].map(|n| data_on(&params, genesis.clone(), &format!("parent {n}")));
    let child = data_on(&params, parents.iter().map(|parent| Block::id_of(parent)).collect(), "child");
    raw.tell(&Live::Blocks(vec![child.clone()])).await;
    let (send, receive) = raw.connection.accept_bi().await.unwrap();
    let mut reader = FrameReader::new(receive, REQUEST_BYTES_MAX);
    let Some(Request::Want(mut wanted)) = reader.message::<_, REQUEST_BYTES_MAX>().await.unwrap() else {
        panic!("another request")
    };
    wanted.sort_unstable();
    let mut ids = parents.each_ref().map(|parent| Block::id_of(parent));
    ids.sort_unstable();
    assert_eq!(wanted, ids);
    let mut writer = FrameWriter::new(send, REPLY_FRAME_BYTES_MAX);
    writer.send(&Reply::Blocks(parents.to_vec())).await.unwrap();
    writer.finish().await.unwrap();
    until("the child is in", || member.has(&Block::id_of(&child))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_node_catches_up() {
    let params = params();
    let old = Member::new(31, &[]);
    let mut blocks = 0;
    for round in 0..300 {
        let parents = old.node.tips(2);
        let parents = if parents.is_empty() { vec![params.genesis_block()] } else { parents };
        let new: Vec<_> =
            (0..20).map(|n| data_on(&params, parents.clone(), &format!("{round} {n}"))).collect();
        blocks += new.len();
        old.node.receive(&new, Source::Sent).unwrap();
        old.issue(1);
    }
    let waiting = old.data("not confirmed");
    let began = Instant::now();
    let fresh = Member::new(32, &[&old]);
    until("all milestones", || fresh.newest() == 300).await;
    println!("{blocks} blocks in {:?}", began.elapsed());
    assert_eq!(fresh.root(), old.root());
    until("and what no milestone confirms yet", || fresh.has(&waiting)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_heals() {
    let store = MemoryStore::new();
    let params = params();
    let left = Member::new(31, &[]);
    let right = Member::with(32, &[&left], &params, &store, all());
    until("they are neighbours", || left.neighbour(right.key()).is_some()).await;
    left.gossip.remove(&right.key());
    right.gossip.remove(&left.key());
    let apart = || left.gossip.neighbours().is_empty() && right.gossip.neighbours().is_empty();
    until("they are apart", apart).await;

    // The coordinators are on the left. On both sides the same money is spent, differently.
    let coin = genesis_coin(&params, 1);
    let mut ids = Vec::new();
    for (member, to) in [(&left, 5), (&right, 6)] {
        let pay = transfer(&params, &[coin], vec![output(to, 1_000_000)]);
        let payload = flash_proto::Payload::Transaction(Box::new(pay));
        let parents = vec![params.genesis_block()];
        ids.push(member.node.submit(&worked(&params, Block::new(parents, payload))).unwrap());
        // A long chain: asking for parents one by one would take very long.
        let mut last = *ids.last().unwrap();
        for n in 0..600 {
            last = member.node.submit(&data_on(&params, vec![last], &format!("{to} {n}"))).unwrap();
        }
        ids.push(last);
        if to == 5 {
            left.issue(30);
        }
    }
    left.gossip.add(right.address.clone());
    right.gossip.add(left.address.clone());
    until("the milestones come over", || right.newest() == 30).await;
    until("everything is on both sides", || ids.iter().all(|id| left.has(id) && right.has(id))).await;
    left.issue(1);
    until("the next milestone", || right.newest() == 31).await;
    assert_eq!(left.root(), right.root());
    assert!(left.node.waiting(0, 10).len() == 1 && right.node.waiting(0, 10).len() == 1, "all is confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_cross_on_their_way_are_no_fault() {
    let member = Member::new(1, &[]);
    let mut raw = Raw::new(50, &member, 0).await;
    for n in 0..10 {
        let bytes = raw.hears(member.data(&format!("crossing {n}"))).await;
        raw.tell(&Live::Blocks(vec![bytes.clone()])).await;
        if n == 9 {
            raw.tell(&Live::Blocks(vec![bytes])).await;
        }
    }
    let neighbour = || member.neighbour(key(50).public()).expect("it is a neighbour");
    until("all came", || neighbour().received_blocks == 11).await;
    until("only what it sent twice is a fault", || neighbour().score == -1).await;
}
