//! What a node takes in, what its milestones say, and what it answers.

use flash_channel::store::MemoryStore;
use flash_proto::{
    Action, Amount, Block, BlockId, ChannelId, CoordinatorHistory, Milestone, Open, Payload, PublicKey,
    StateKey, block::Data, milestone::MilestoneError,
};

use super::support::*;
use crate::{
    ledger::{Conflict, genesis::genesis_essence, tests::support::*},
    node::{Node, NodeError},
    protocol::{NodeRequest, NodeResponse, RefusedCode, TransactionAnswer},
    tangle::CONFIRMED_MILESTONES,
};

fn node() -> Node {
    node_on(&MemoryStore::new())
}

#[test]
fn a_transfer_becomes_money_and_is_proven() {
    let node = node();
    let params = params();
    let pay = transfer(&params, &[genesis_coin(&params, 1)], vec![output(4, 300_000), output(1, 700_000)]);
    assert_eq!(transaction(&node, &pay), TransactionAnswer::Unknown);
    let id = submit(&node, &pay);
    assert_eq!(transaction(&node, &pay), TransactionAnswer::Pending { block: id });
    let followed = node.issue_milestone(5_000, &signers()).unwrap();
    let TransactionAnswer::Applied { block, milestone, path } = transaction(&node, &pay) else {
        panic!("not applied")
    };
    assert_eq!((Block::id_of(&block), &milestone), (id, &followed.milestone));
    assert!(path.verify(&milestone.essence.applied_root, id.as_bytes()));

    let NodeResponse::Outputs { milestone_index, outputs } =
        node.answer(NodeRequest::OutputsOf { addresses: vec![address(4), address(1)], after: None })
    else {
        panic!("no outputs")
    };
    assert_eq!((milestone_index, outputs.len()), (1, 2));
    for (id, held, proof) in outputs {
        let key = StateKey::Output(id).tree_key();
        proof.verify(milestone.essence.state_root, &key, Some(held.value_hash())).unwrap();
    }
}

#[test]
fn milestones_follow_each_other_in_time_and_by_name() {
    let node = node();
    let mut previous = genesis_essence(node.params());
    // A clock that stands still or jumps back still gives rising times.
    for now in [5_000, 5_000, 10, 9_000] {
        let followed = node.issue_milestone(now, &signers()).unwrap();
        CoordinatorHistory::new(node.params()).verify(&followed.milestone).unwrap();
        followed.milestone.essence.follows(&previous).unwrap();
        previous = followed.milestone.essence.clone();
    }
    assert_eq!((previous.index, previous.timestamp_ms), (4, 9_000));
    let mut too_few = node.followed_after(3, 9).unwrap()[0].milestone.clone();
    too_few.signatures.pop();
    assert_eq!(
        CoordinatorHistory::new(node.params()).verify(&too_few),
        Err(MilestoneError::TooFewSignatures { got: 1, wanted: 2 })
    );
    let index = |milestone: Option<Box<Milestone>>| milestone.map(|milestone| milestone.essence.index);
    for (asked, got) in [(None, Some(4)), (Some(2), Some(2)), (Some(5), None)] {
        let NodeResponse::Milestone(milestone) = node.answer(NodeRequest::Milestone(asked)) else {
            panic!("no milestone")
        };
        assert_eq!(index(milestone), got);
    }
}

#[test]
fn of_two_spends_one_is_applied_and_a_second_block_of_it_changes_nothing() {
    let node = node();
    let params = params();
    let coin = genesis_coin(&params, 1);
    let spends = [4, 5].map(|to| transfer(&params, &[coin], vec![output(to, 1_000_000)]));
    let first = submit(&node, &spends[0]);
    let second = submit(&node, &spends[1]);
    node.issue_milestone(1, &signers()).unwrap();
    let TransactionAnswer::Applied { block, .. } = transaction(&node, &spends[0]) else {
        panic!("the first spend wins")
    };
    assert_eq!(Block::id_of(&block), first);
    let rejected =
        TransactionAnswer::Rejected { block: second, milestone_index: 1, conflict: Conflict::InputMissing };
    assert_eq!(transaction(&node, &spends[1]), rejected);
    // Attached again, the applied one stays applied and the rejected one waits again.
    let again = spends.each_ref().map(|spend| submit(&node, spend));
    assert!(matches!(transaction(&node, &spends[0]), TransactionAnswer::Applied { .. }));
    assert_eq!(transaction(&node, &spends[1]), TransactionAnswer::Pending { block: again[1] });
    node.issue_milestone(1, &signers()).unwrap();
    assert!(matches!(transaction(&node, &spends[0]), TransactionAnswer::Applied { .. }));
    assert!(matches!(transaction(&node, &spends[1]), TransactionAnswer::Rejected { milestone_index: 2, .. }));
}

#[test]
fn channels_are_proven_present_and_absent_and_named_by_the_milestone() {
    let node = node();
    let params = params();
    let open = Action::Open(opening(6_000, 4_000, 100));
    let open = spend(&params, &[genesis_coin(&params, 1)], vec![output(1, 990_000)], open);
    let channel = ChannelId::opened_by(open.id());
    submit(&node, &open);
    let followed = node.issue_milestone(1, &signers()).unwrap();
    assert_eq!(followed.channels, [channel]);
    let root = followed.milestone.essence.state_root;
    for (id, there) in [(channel, true), (ChannelId::new([9; 32]), false)] {
        let NodeResponse::Channel { milestone_index: 1, record, proof } =
            node.answer(NodeRequest::Channel(id))
        else {
            panic!("no channel")
        };
        assert_eq!(record.is_some(), there);
        let value = record.map(|record| record.value_hash());
        proof.verify(root, &StateKey::Channel(id).tree_key(), value).unwrap();
    }
    let Action::Open(Open { party_a, party_b, .. }) = open.essence.action else { unreachable!("an Open") };
    let listed = |parties: Vec<PublicKey>, after| {
        let NodeResponse::Channels { milestone_index: 1, channels } =
            node.answer(NodeRequest::ChannelsOf { parties, after })
        else {
            panic!("no channels")
        };
        for (id, record, proof) in &channels {
            proof.verify(root, &StateKey::Channel(*id).tree_key(), Some(record.value_hash())).unwrap();
        }
        channels.into_iter().map(|(id, ..)| id).collect::<Vec<_>>()
    };
    for parties in [vec![party_a.key], vec![party_b.key], vec![party_b.key, party_a.key, party_a.key]] {
        assert_eq!(listed(parties, None), [channel], "each once");
    }
    assert_eq!(listed(vec![party_a.key], Some(channel)), []);
    assert_eq!(listed(vec![signers()[0].public()], None), []);
    let too_many = NodeRequest::ChannelsOf { parties: vec![party_a.key; 257], after: None };
    assert_eq!(refused_code(node.answer(too_many)), RefusedCode::Malformed);
    let NodeResponse::Info(info) = node.answer(NodeRequest::Info) else { panic!("no info") };
    assert_eq!((info.channels, info.milestone_index), ((1, Amount::new(10_000)), 1));
    assert_eq!(info.state_root, root);
}

#[test]
fn bad_blocks_are_refused_by_kind() {
    let node = node();
    let params = params();
    let code = |bytes: &[u8]| node.submit(bytes).unwrap_err().code;
    let unknown = Block::new(vec![BlockId::new([9; 32])], Payload::Empty);
    assert_eq!(code(&worked(&params, unknown)), RefusedCode::UnknownParent);
    assert_eq!(code(&[1, 2, 3]), RefusedCode::InvalidBlock);

    let mut lazy = Block::new(tips(&node), Payload::Empty);
    while Block::from_bytes(&lazy.to_bytes(), params.pow_bits).is_ok() {
        lazy.nonce += 1;
    }
    let refused = node.submit(&lazy.to_bytes()).unwrap_err();
    assert_eq!(refused.code, RefusedCode::InvalidBlock);
    assert!(refused.reason.contains("proof of work"), "{}", refused.reason);

    let coin = genesis_coin(&params, 1);
    let dust = transfer(&params, &[coin], vec![output(4, 1)]);
    assert_eq!(code(&block_with(&node, &dust)), RefusedCode::InvalidBlock);
    assert_eq!(transaction(&node, &dust), TransactionAnswer::Unknown);

    // A milestone with one signature too few, and one that comes too early.
    let mut essence = genesis_essence(&params);
    essence.parents = tips(&node);
    for (index, signers) in [(1, &signers()[..1]), (2, &signers()[..])] {
        essence.index = index;
        let signatures = signers.iter().map(|key| essence.sign(key)).collect();
        let forged = Payload::Milestone(Box::new(Milestone { essence: essence.clone(), signatures }));
        let forged = worked(&params, Block::new(tips(&node), forged));
        assert_eq!(code(&forged), RefusedCode::InvalidMilestone);
    }

    let many = vec![address(1); 300];
    let too_many = node.answer(NodeRequest::OutputsOf { addresses: many, after: None });
    assert_eq!(refused_code(too_many), RefusedCode::Malformed);
    assert_eq!(
        node.issue_milestone(1, &signers()).unwrap().milestone.essence.index,
        1,
        "none of it did any harm"
    );
}

fn refused_code(response: NodeResponse) -> RefusedCode {
    refused(response).code
}

#[test]
fn a_block_may_come_twice() {
    let node = node();
    let data = Data { tag: b"meter".to_vec(), data: vec![1, 2, 3] };
    let bytes = worked(node.params(), Block::new(tips(&node), Payload::Data(data)));
    let id = node.submit(&bytes).unwrap();
    assert_eq!(node.submit(&bytes).unwrap(), id);
    for _ in 0..=CONFIRMED_MILESTONES {
        node.issue_milestone(1, &signers()).unwrap();
    }
    assert_eq!(node.submit(&bytes).unwrap(), id, "also long after it was confirmed");
    assert_eq!(node.answer(NodeRequest::Block(id)), NodeResponse::Block(Some(bytes)));
}

#[test]
fn a_milestone_ties_many_tips_together() {
    let node = node();
    let genesis = vec![node.params().genesis_block()];
    for n in 0..100_u8 {
        let data = Payload::Data(Data { tag: Vec::new(), data: vec![n] });
        node.submit(&worked(node.params(), Block::new(genesis.clone(), data))).unwrap();
    }
    node.issue_milestone(1, &signers()).unwrap();
    let NodeResponse::Info(info) = node.answer(NodeRequest::Info) else { panic!("no info") };
    assert_eq!(info.tips, 1, "only the milestone is left");
    assert_eq!(node.read().waiting.len(), 1);
    assert_eq!(tips(&node).len(), 1);
}

#[test]
fn outputs_come_in_pages() {
    let node = node();
    let params = params();
    let mut coin = genesis_coin(&params, 3);
    for _ in 0..6 {
        let rest = coin.1.amount.units() - 100_000;
        let mut outputs = vec![output(4, 1_000); 100];
        outputs.push(output(3, rest));
        let split = transfer(&params, &[coin], outputs);
        submit(&node, &split);
        coin = coin_of(&split, 100, 3);
    }
    node.issue_milestone(1, &signers()).unwrap();
    let mut found = Vec::new();
    loop {
        let after = found.last().copied();
        let request = NodeRequest::OutputsOf { addresses: vec![address(4)], after };
        let NodeResponse::Outputs { outputs, .. } = node.answer(request) else { panic!("no outputs") };
        if outputs.is_empty() {
            break;
        }
        found.extend(outputs.into_iter().map(|(id, ..)| id));
    }
    assert!(found.len() == 600 && found.is_sorted_by(|left, right| left < right));
}

#[test]
fn only_enough_coordinators_issue_milestones() {
    let node = node();
    let one = coordinators()[0].clone();
    for keys in [vec![], vec![one.clone()], vec![one; 2], vec![key(1), key(2)]] {
        let refused = node.issue_milestone(1, &keys);
        assert!(matches!(refused, Err(NodeError::Coordinators { threshold: 2, .. })), "{refused:?}");
    }
}
