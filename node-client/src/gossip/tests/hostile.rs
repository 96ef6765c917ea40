//! Neighbours that do harm, or nothing.

use std::{net::Ipv4Addr, time::Duration};

use flash_channel::store::MemoryStore;
use flash_proto::{Block, BlockId, Payload};
use quinn::{ConnectionError, VarInt};
use tokio::time::timeout;

use super::support::*;
use crate::{
    gossip::{
        message::{LIVE_FRAME_BYTES_MAX, Live, TIPS_MAX},
        state::CLOSE_FAULTY,
    },
    ledger::tests::support::*,
    quic::{Endpoint, GOSSIP_ALPN, StreamLimits},
};

async fn pair() -> (Member, Member) {
    let first = Member::new(31, &[]);
    let second = Member::new(32, &[&first]);
    until("they are neighbours", || first.neighbour(second.key()).is_some()).await;
    (first, second)
}

/// That the member has dropped the neighbour for what it did, and neither takes it back nor is harmed.
async fn is_dropped(raw: &Raw, n: u8, member: &Member, other: &Member, what: &str) {
    let closed = timeout(Duration::from_secs(60), raw.connection.closed()).await;
    let Ok(ConnectionError::ApplicationClosed(close)) = closed else { panic!("{what}: {closed:?}") };
    assert_eq!(close.error_code, VarInt::from_u32(CLOSE_FAULTY), "{what}");
    until("it is gone", || member.neighbour(key(n).public()).is_none()).await;
    member.is_well(other, what).await;
    other.is_well(member, what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_drop_a_neighbour() {
    let (member, other) = pair().await;
    let ids = |count| vec![BlockId::new([7; 32]); count];
    let too_long = flash_proto::codec::encode(&Live::Blocks(vec![vec![0; LIVE_FRAME_BYTES_MAX]]));
    let unknown = 99_u32.to_le_bytes().to_vec();
    let cut = flash_proto::codec::encode(&Live::Newest(1))[..9].to_vec();
    let lying = [&0_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    let tips = flash_proto::codec::encode(&Live::Tips(ids(TIPS_MAX + 1)));
    let garbage = vec![0xff; 1_000];
    for (n, bytes) in (50..).zip([too_long, unknown, cut, lying, tips, garbage]) {
        let mut raw = Raw::new(n, &member, 0).await;
        raw.writer.push_bytes(&bytes).unwrap();
        raw.writer.flush().await.unwrap();
        is_dropped(&raw, n, &member, &other, &format!("message {n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_blocks_drop_a_neighbour() {
    let (member, other) = pair().await;
    let params = params();
    let mut raw = Raw::new(50, &member, 0).await;
    for n in 0..2 {
        let mut block = Block::new(vec![params.genesis_block()], Payload::Empty);
        block.version = 9 + n;
        raw.tell(&Live::Blocks(vec![worked(&params, block)])).await;
    }
    is_dropped(&raw, 50, &member, &other, "invalid").await;
    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let again = Endpoint::dialler(&key(50), GOSSIP_ALPN, local, StreamLimits { bidirectional: 1 }).unwrap();
    let connection = again.dial(&member.address).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0]).await.unwrap();
    let _closed = timeout(Duration::from_secs(30), connection.closed()).await;
    assert!(member.neighbour(key(50).public()).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_without_end_drop_a_neighbour_and_hold_up_nobody() {
    let (member, other) = pair().await;
    let params = params();
    let mut raw = Raw::new(50, &member, 0).await;
    let closed = raw.connection.clone();
    // It never answers what it is asked.
    let sending = async {
        for n in 0_u64.. {
            let mut parent = [9; 32];
            parent[..8].copy_from_slice(&n.to_le_bytes());
            let orphan = data_on(&params, vec![BlockId::new(parent)], "orphan");
            if raw.writer.send(&Live::Blocks(vec![orphan])).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let well = async {
        for n in 0..20 {
            member.is_well(&other, &format!("{n}")).await;
            other.is_well(&member, &format!("{n} back")).await;
        }
        closed.closed().await
    };
    let (ended, ()) = timeout(Duration::from_secs(120), async { tokio::join!(well, sending) }).await.unwrap();
    assert!(
        matches!(&ended, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(CLOSE_FAULTY)),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_to_be_far_ahead_and_has_nothing_harms_nobody() {
    let (member, other) = pair().await;
    let raw = Raw::new(50, &member, u64::MAX).await;
    // It takes the question and says nothing: the others go on meanwhile.
    let _stream = raw.connection.accept_bi().await.unwrap();
    for n in 0..5 {
        other.issue(1);
        member.is_well(&other, &format!("{n}")).await;
    }
    until("the milestones", || member.newest() == 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_keeps_no_honest_block_out() {
    let mut slow = params();
    slow.milestone_interval_ms = 100_000;
    let member = Member::with(31, &[], &slow, &MemoryStore::new(), all());
    let mut flooder = Raw::new(50, &member, 0).await;
    let mut honest = Raw::new(51, &member, 0).await;
    for frame in 0..100 {
        let block = |n| data_on(&slow, vec![slow.genesis_block()], &format!("{frame} {n}"));
        flooder.tell(&Live::Blocks((0..90).map(block).collect())).await;
    }
    let info = |n| member.neighbour(key(n).public()).unwrap();
    until("all came", || info(50).received_blocks == 9_000).await;
    until("what is taken is in", || info(50).new_blocks + info(50).dropped_blocks == 9_000).await;
    assert!((7_000..8_500).contains(&info(50).new_blocks), "{:?}", info(50));
    let block = data_on(&slow, vec![slow.genesis_block()], "honest");
    honest.tell(&Live::Blocks(vec![block.clone()])).await;
    until("the honest block is in", || member.has(&Block::id_of(&block))).await;
    // Every milestone ties some hundred tips together, the oldest first.
    member.issue(20);
    assert!(!member.node.waiting(0, 9_000).iter().any(|(_, id)| *id == Block::id_of(&block)));
}
