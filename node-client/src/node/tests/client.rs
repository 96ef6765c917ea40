//! The real client against the real node: everything it gets is proven.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use flash_proto::{Action, BlockId, ChannelId, Payload, Transaction, block::Data};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    client::{ClientConfig, ClientError, NodeClient},
    ledger::{Conflict, tests::support::*},
    node::{
        Node, NodeConfig,
        service::{STREAM_LIMITS, serve},
    },
    quic::{Endpoint, NODE_ALPN, PeerAddress},
};

use super::support::issue_until;

/// Runs `work` with a client of a node that issues a milestone every 20 ms.
async fn with_client<F: Future<Output = ()>>(work: impl FnOnce(NodeClient) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(directory.path().to_owned(), params());
    let node = Node::open(config).unwrap();
    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::listen(&key(1), NODE_ALPN, local, STREAM_LIMITS).unwrap();
    let port = endpoint.local_address().unwrap().port();
    let (stop, _) = watch::channel(false);
    let stopped = || {
        let mut stopped = stop.subscribe();
        async move { drop(stopped.wait_for(|stop| *stop).await) }
    };
    let serving = tokio::spawn(serve(node.clone(), endpoint, stopped()));
    let issuing = tokio::spawn(issue_until(node, Duration::from_millis(20), stopped()));
    let nodes = vec![PeerAddress::new(key(1).public(), "127.0.0.1", port).unwrap()];
    let client = NodeClient::start(ClientConfig::new(Arc::new(params()), nodes, key(2), local)).unwrap();
    work(client).await;
    stop.send_replace(true);
    serving.await.unwrap();
    issuing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_moves_and_a_channel_opens_and_closes() {
    with_client(|client| async move {
        let params = params();
        let coin = genesis_coin(&params, 1);
        let open = Action::Open(opening(6_000, 4_000, 10_000));
        let open = spend(&params, &[coin], vec![output(1, 990_000)], open);
        let channel = ChannelId::opened_by(open.id());
        let mut follow = client.follow();
        let opened = client.submit_and_wait(open, None).await.unwrap();
        loop {
            let milestone = follow.recv().await.unwrap();
            assert_eq!(
                milestone.channels.contains(&channel),
                milestone.checkpoint.essence.index == opened.milestone_index
            );
            if milestone.checkpoint.essence.index == opened.milestone_index {
                break;
            }
        }
        let record = client.channel(channel).await.unwrap().value.unwrap();
        assert_eq!(record.party_a.key, key(11).public());

        let twice = transfer(&params, &[coin], vec![output(5, 1_000_000)]);
        let rejected = client.submit_and_wait(twice, None).await;
        assert!(
            matches!(rejected, Err(ClientError::Rejected { conflict: Conflict::InputMissing, .. })),
            "{rejected:?}"
        );
        // Opened by a block that a milestone is proven to have confirmed; the other is in no milestone.
        let included = client.inclusion(opened.block).await.unwrap().unwrap();
        assert_eq!(included.milestone_index, opened.milestone_index);
        assert_eq!(client.inclusion(BlockId::new([9; 32])).await.unwrap(), None);
        assert_eq!(client.faults(), []);
        let close = cooperative(&params, channel, (2_500, 7_500), 10_000);
        client.submit_and_wait(close, None).await.unwrap();
        assert_eq!(client.channel(channel).await.unwrap().value, None);
        let paid = client.outputs_of(&[address(21), address(22)]).await.unwrap().value;
        let mut amounts: Vec<_> = paid.iter().map(|(_, output)| output.amount.units()).collect();
        amounts.sort_unstable();
        assert_eq!(amounts, [2_500, 7_500]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_transfers_at_once_are_all_applied() {
    with_client(|client| async move {
        let params = params();
        let split: Transaction = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 10_000); 100]);
        client.submit_and_wait(split.clone(), None).await.unwrap();
        let mut sending = JoinSet::new();
        for index in 0..100 {
            let pay = transfer(&params, &[coin_of(&split, index, 4)], vec![output(5, 10_000)]);
            let client = client.clone();
            sending.spawn(async move { client.submit_and_wait(pay, None).await.unwrap() });
        }
        assert_eq!(sending.join_all().await.len(), 100);
        let paid = client.outputs_of(&[address(5)]).await.unwrap().value;
        assert_eq!(paid.len(), 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_data_comes_with_evidence_for_everybody() {
    with_client(|client| async move {
        let data = Data { tag: b"test".to_vec(), data: vec![7; 1_000] };
        let evidence = client.publish(data.clone()).await.unwrap();
        let confirmed = evidence.verify(&params()).unwrap();
        assert_eq!(confirmed.block.payload, Payload::Data(data));
        assert_eq!(client.evidence(confirmed.id).await.unwrap(), Some(evidence));
        assert_eq!(client.evidence(BlockId::new([9; 32])).await.unwrap(), None);

        let too_long = Data { tag: vec![0; 65], data: Vec::new() };
        let refused = client.publish(too_long).await;
        assert!(matches!(refused, Err(ClientError::Refused { .. })), "{refused:?}");
    })
    .await;
}
