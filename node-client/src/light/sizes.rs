//! How large proofs are in a large ledger: all that a device has to load to believe one answer.

use flash_proto::codec;

use super::{tests::*, *};
use crate::{
    ledger::state_tree::{Change, StateTree},
    protocol::{Inclusion, NodeResponse, TransactionAnswer},
};

/// What an answer and the milestone that it is proven against may have.
const BYTES_MAX: usize = 4_000;
/// More blocks than one milestone confirms.
const BLOCKS: u16 = 8_192;

fn output(n: u32) -> (OutputId, Output) {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    let output = Output { address: flash_proto::Address::new([8; 32]), amount: flash_proto::Amount::new(1) };
    (OutputId { transaction: TransactionId::new(bytes), index: 0 }, output)
}

/// A ledger with so many outputs and one channel.
fn ledger(outputs: u32, channel: ChannelId) -> StateTree {
    let change = |n: u32| -> Change {
        let (id, output) = output(n);
        (StateKey::Output(id).tree_key(), Some(output.value_hash()))
    };
    let record = (StateKey::Channel(channel).tree_key(), Some(record().value_hash()));
    let mut tree = StateTree::new();
    tree.apply((0..outputs).map(change).chain([record]).collect());
    tree
}

/// A milestone with as many parents as one can have.
fn milestone(core: &LightCore, state_root: Hash, blocks_root: Hash) -> Milestone {
    sign(MilestoneEssence {
        index: 1,
        timestamp_ms: core.newest().timestamp_ms + 1,
        previous: core.newest().id(),
        parents: (1..=8).map(|n| BlockId::new([n; 32])).collect(),
        included_root: blocks_root,
        applied_root: blocks_root,
        state_root,
        ..core.newest().clone()
    })
}

/// The largest answers of each kind, the milestone with each.
fn measure(outputs: u32) {
    let channel = ChannelId::new([5; 32]);
    let tree = ledger(outputs, channel);
    let params = params();
    let transaction = transfer(&params, flash_proto::Address::new([8; 32]));
    let (id, block) = (transaction.id(), in_block(&params, transaction));
    let block_id = Block::id_of(&block);
    let leaves = |n: u16| if n == 77 { *block_id.as_bytes() } else { [u8::try_from(n % 251).unwrap(); 32] };
    let path = merkle::prove((0..BLOCKS).map(leaves), 77).unwrap();
    let mut core = LightCore::new(params, None).unwrap();
    let milestone = milestone(&core, tree.root(), merkle::root((0..BLOCKS).map(leaves)));
    core.advance(&Followed { milestone: milestone.clone(), channels: vec![] }).unwrap();
    let signed = codec::encode(&milestone).len();

    let prove = |key: StateKey| tree.prove(&key.tree_key());
    let channel_bytes = |record: Option<ChannelRecord>, id: ChannelId| {
        let proof = prove(StateKey::Channel(id));
        core.clone().channel(id, 1, record.as_ref(), &proof).unwrap();
        let answer = NodeResponse::Channel { milestone_index: 1, record: record.map(Box::new), proof };
        codec::encode(&answer).len() + signed
    };
    let output_bytes = |n: u32| {
        let (id, output) = output(n);
        let proof = prove(StateKey::Output(id));
        core.clone().output(id, 1, Some(&output), &proof).unwrap();
        let outputs = vec![(id, output, proof)];
        codec::encode(&NodeResponse::Outputs { milestone_index: 1, outputs }).len() + signed
    };
    let present = (0..1_000).map(|n| output_bytes(n * (outputs / 1_000))).max().unwrap();
    let absent = (6..=255).map(|n| channel_bytes(None, ChannelId::new([n; 32]))).max().unwrap();
    let record = channel_bytes(Some(record()), channel);
    core.applied(id, &block, &milestone, &path).unwrap();
    core.included(block_id, &block, &milestone, &path).unwrap();
    let applied =
        TransactionAnswer::Applied { block: block.clone(), milestone: milestone.clone(), path: path.clone() };
    let applied = codec::encode(&NodeResponse::Transaction(Box::new(applied))).len();
    let included = Inclusion { block, milestone, path };
    let included = codec::encode(&NodeResponse::Inclusion(Some(Box::new(included)))).len();
    println!(
        "{outputs} outputs: present {present} and {record}, absent {absent}, applied {applied}, included \
         {included} bytes, of which the milestone has {signed}"
    );
    for bytes in [present, record, absent, applied, included] {
        assert!(bytes < BYTES_MAX, "{bytes}");
    }
}

#[test]
fn proofs_are_small_with_a_hundred_thousand_outputs() {
    measure(100_000);
}

#[test]
#[ignore = "takes long without optimisation"]
fn proofs_are_small_with_a_million_outputs() {
    measure(1_000_000);
}
