//! Finding neighbours, and what goes to all of them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use flash_channel::store::MemoryStore;
use flash_proto::MilestoneId;

use super::support::*;
use crate::{
    coordinator::{Body, CoordinatorMessage},
    gossip::{FloodError, Relay, Verdict, message::COORDINATOR_BYTES_MAX},
    ledger::tests::support::*,
    node::Floodgate,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_fresh_nodes_that_know_one_address_are_meshed_in_ten_seconds() {
    let began = Instant::now();
    let first = Member::new(31, &[]);
    let mut members = Vec::new();
    for n in 32..39 {
        members.push(Member::new(n, &[&first]));
    }
    members.push(first);
    until("each has three neighbours", || members.iter().all(|member| member.gossip.neighbours().len() >= 3))
        .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("meshed in {took:?}");
    // All are in one piece: the first sees everybody over others.
    let mut seen = BTreeSet::from([members[0].key()]);
    loop {
        let before = seen.len();
        for member in &members {
            if seen.contains(&member.key()) {
                seen.extend(member.gossip.neighbours().into_iter().map(|info| info.key));
            }
        }
        if seen.len() == before {
            break;
        }
    }
    assert_eq!(seen.len(), 8);
    let id = members[3].data("to all");
    members[5].issue(1);
    until("all have it", || members.iter().all(|member| member.has(&id) && member.newest() == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_outlive_a_restart() {
    let params = params();
    let store = MemoryStore::new();
    let first = Member::new(31, &[]);
    let second = Member::with(32, &[&first], &params, &store, all());
    until("they are neighbours", || second.neighbour(first.key()).is_some()).await;
    until("the address is kept", || second.node.kept_addresses().unwrap().is_some()).await;
    drop(second);
    let again = Member::with(32, &[], &params, &store.reopen(), all());
    until("they are neighbours again", || again.neighbour(first.key()).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_added_and_removed_by_hand() {
    let (first, second) = (Member::new(31, &[]), Member::new(32, &[]));
    first.gossip.add(second.address.clone());
    until("they are neighbours", || second.neighbour(first.key()).is_some()).await;
    assert!(second.gossip.remove(&first.key()));
    assert!(!second.gossip.remove(&key(99).public()));
    until("they are apart", || first.gossip.neighbours().is_empty() && second.gossip.neighbours().is_empty())
        .await;
    second.gossip.add(first.address.clone());
    until("they are neighbours again", || second.neighbour(first.key()).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_messages_go_to_all_if_they_are_news() {
    let judge = |message: &[u8]| if message.starts_with(b"good") { Verdict::News } else { Verdict::Bad };
    let relay = || Arc::new(judge);
    let (params, store) = (params(), MemoryStore::new);
    let first = Member::with(31, &[], &params, &store(), relay());
    let second = Member::with(32, &[&first], &params, &store(), relay());
    until("they are neighbours", || second.neighbour(first.key()).is_some()).await;
    let (listening, mut heard) = overheard(relay());
    let third = Member::with(33, &[&second], &params, &store(), listening);
    until("the third, too", || third.neighbour(second.key()).is_some()).await;
    for message in [&b"bad"[..], b"good one", b"good one", b"good two"] {
        first.gossip.flood(message.to_vec()).unwrap();
    }
    for expected in [&b"good one"[..], b"good two"] {
        let message = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap();
        assert_eq!(message, expected);
    }
    assert!(heard.try_recv().is_err());
    assert_eq!(
        first.gossip.flood(vec![0; COORDINATOR_BYTES_MAX + 1]),
        Err(FloodError(COORDINATOR_BYTES_MAX + 1))
    );
    assert!(first.gossip.flood(Vec::new()).is_err());
}

/// With the rules of real nodes: a message goes over a node that has no part in it, and to one that comes
/// later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_coordinators_say_reaches_them_all() {
    let member = |n, known: &[&Member]| {
        let mut heard = None;
        let member = Member::with_relay(n, known, &params(), &MemoryStore::new(), |node| {
            let (relay, hearing) = overheard(Floodgate::new(node).0);
            heard = Some(hearing);
            relay
        });
        (member, heard.unwrap())
    };
    let (first, _) = member(31, &[]);
    let sender = coordinators()[0].clone();
    let message = |sent_ms| {
        let body = Body::Accept(MilestoneId::new([7; 32]));
        let (network, sender_key) = (params().id(), sender.public());
        let message = CoordinatorMessage { network, index: 1, ballot: 0, sent_ms, sender: sender_key, body };
        message.sign(&sender).to_bytes()
    };
    let (second, mut heard) = member(32, &[&first]);
    until("they are neighbours", || second.neighbour(first.key()).is_some()).await;
    for sent in [1, 3, 2] {
        first.gossip.flood(message(sent)).unwrap();
    }
    let next = async |heard: &mut tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>| {
        tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap()
    };
    assert_eq!(next(&mut heard).await, message(1));
    assert_eq!(next(&mut heard).await, message(3));
    let (third, mut heard) = member(33, &[&second]);
    assert_eq!(next(&mut heard).await, message(3), "what is held");
    first.issue(1);
    until("the milestone", || third.newest() == 1).await;
    assert_eq!(Floodgate::new(third.node.clone()).0.judge(&message(9)), Verdict::Stale);
}
