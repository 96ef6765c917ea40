//! Payloads that are submitted at once: they go together, and each gets there whatever becomes of the others.

use std::collections::{BTreeSet, HashSet};

use flash_proto::{Block, BlockId, block::Data, limits::PARENTS_MAX};
use futures_util::future::join_all;

use super::{
    node::{Lie, Script},
    *,
};
use crate::protocol::{NodeRequest, Refused, RefusedCode};

const AT_ONCE: u8 = 40;

fn payload(number: u8) -> Payload {
    Payload::Data(Data { tag: b"batch".to_vec(), data: vec![number; 100] })
}

/// Counts the requests that hand blocks over, and has the answers changed.
fn watched(
    change: impl Fn(&NodeRequest, &mut NodeResponse) + Send + Sync + 'static,
) -> (Lie, watch::Receiver<usize>) {
    let (counted, count) = watch::channel(0);
    let lie: Lie = Arc::new(move |request: &NodeRequest, mut answer, _: &Script| {
        if matches!(request, NodeRequest::Submit(_) | NodeRequest::SubmitAll(_)) {
            counted.send_modify(|count| *count += 1);
        }
        change(request, &mut answer);
        Reply::Answer(answer)
    });
    (lie, count)
}

async fn submit_all(client: &NodeClient) -> BTreeSet<BlockId> {
    let submitted = join_all((0..AT_ONCE).map(|number| client.submit(payload(number)))).await;
    submitted.into_iter().map(Result::unwrap).collect()
}

async fn at_milestone(node: &ScriptedNode) -> NodeClient {
    node.milestone();
    let client = client(&[node]);
    reach(&client, 1).await;
    client
}

/// The payloads of these blocks of a node, each once.
fn carried(node: &ScriptedNode, ids: &BTreeSet<BlockId>) -> (HashSet<Vec<u8>>, Vec<Block>) {
    let blocks = node.blocks();
    let blocks: Vec<Block> = ids.iter().map(|id| Block::from_bytes(&blocks[id], 0).unwrap()).collect();
    let data = blocks.iter().filter_map(|block| match &block.payload {
        Payload::Data(data) => Some(data.data.clone()),
        _ => None,
    });
    (data.collect(), blocks)
}

#[tokio::test]
async fn what_comes_together_goes_together_and_leaves_few_tips() {
    let node = ScriptedNode::start(70);
    let client = at_milestone(&node).await;
    let (lie, requests) = watched(|_, _| {});
    node.lie(lie);
    let ids = submit_all(&client).await;
    let (data, blocks) = carried(&node, &ids);
    assert_eq!((ids.len(), data.len()), (usize::from(AT_ONCE), usize::from(AT_ONCE)));
    let requests = *requests.borrow();
    assert!(requests <= 3, "{requests} requests");
    let approved: HashSet<&BlockId> = blocks.iter().flat_map(|block| &block.parents).collect();
    let tips = ids.iter().filter(|id| !approved.contains(id)).count();
    assert!(tips <= PARENTS_MAX, "{tips} tips");
}

#[tokio::test]
async fn what_a_node_does_not_take_with_others_goes_its_own_way() {
    let node = ScriptedNode::start(70);
    let client = at_milestone(&node).await;
    let (lie, _) = watched(|_, answer| {
        if let NodeResponse::SubmittedAll(answers) = answer {
            let refused = Refused { code: RefusedCode::Busy, reason: "not this one".to_owned() };
            answers.iter_mut().step_by(3).for_each(|answer| *answer = Some(refused.clone()));
        }
    });
    node.lie(lie);
    let ids = submit_all(&client).await;
    assert_eq!(carried(&node, &ids).0.len(), usize::from(AT_ONCE));
    assert_eq!(client.faults(), []);
}

#[tokio::test]
async fn a_node_that_answers_for_fewer_is_named_and_all_get_to_another() {
    let (liar, honest) = (ScriptedNode::start(70), ScriptedNode::start(71));
    liar.milestone();
    honest.milestone();
    let client = client(&[&liar, &honest]);
    drop(client.shared().nodes.subscribe().wait_for(|nodes| nodes.links(1, &[]).len() == 2).await.unwrap());
    let (lie, _) = watched(|_, answer| {
        if let NodeResponse::SubmittedAll(answers) = answer {
            answers.pop();
        }
    });
    liar.lie(lie);
    let ids = submit_all(&client).await;
    assert_eq!(carried(&honest, &ids).0.len(), usize::from(AT_ONCE));
    assert!(client.faults().iter().all(|fault| fault.node == liar.address) && !client.faults().is_empty());
}

/// Whoever gives up leaves nobody waiting.
#[tokio::test]
async fn who_gives_up_keeps_nobody_waiting() {
    let node = ScriptedNode::start(70);
    let client = at_milestone(&node).await;
    for _ in 0..4 {
        let given_up = join_all((0..AT_ONCE).map(|number| client.submit(payload(number))));
        tokio::select! {
            biased;
            _ = given_up => unreachable!("it takes more than one turn"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(submit_all(&client).await.len(), usize::from(AT_ONCE));
}
