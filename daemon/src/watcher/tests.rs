//! What the watcher takes for proven.

use flash_node_client::{light::LightCore, node::dev::DevNetwork};
use flash_proto::MilestoneEssence;
use tokio::sync::broadcast;

use super::*;

const CHANNEL: ChannelId = ChannelId::new([1; 32]);

/// Milestones that name no channel.
fn milestones(indices: std::ops::RangeInclusive<u64>) -> Vec<Arc<FollowedMilestone>> {
    let network = DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 };
    let params = network.make(0, [[1; 32], [2; 32], [3; 32]]).params;
    let genesis = LightCore::new(Arc::new(params), None).unwrap().checkpoint();
    let milestone = |index| {
        let essence = MilestoneEssence { index, ..genesis.essence.clone() };
        let checkpoint = Checkpoint { essence, ..genesis.clone() };
        Arc::new(FollowedMilestone { checkpoint: Arc::new(checkpoint), channels: Vec::new() })
    };
    indices.map(milestone).collect()
}

/// A channel that was proven, while another one's proof is still to come.
fn half_proven() -> Pending<BTreeSet<ChannelId>> {
    Pending {
        known: BTreeSet::from([CHANNEL]),
        due: BTreeSet::from([ChannelId::new([2; 32])]),
        proven: HashMap::from([(CHANNEL, LedgerView { index: 1, record: None, payouts: None })]),
        newest: None,
    }
}

async fn hear(waiting: usize, sent: u64) -> Pending<BTreeSet<ChannelId>> {
    let (sender, mut followed) = broadcast::channel(waiting);
    for milestone in milestones(1..=sent) {
        sender.send(milestone).unwrap();
    }
    let mut pending = half_proven();
    assert!(pending.hear(&mut followed).await);
    assert_eq!(pending.newest.as_ref().map(|newest| newest.essence.index), Some(sent));
    pending
}

#[tokio::test]
async fn what_no_milestone_names_stays_proven() {
    let pending = hear(4, 4).await;
    assert!(pending.known.contains(&CHANNEL) && pending.proven.contains_key(&CHANNEL));
}

#[tokio::test]
async fn after_missed_milestones_nothing_counts_as_proven() {
    let pending = hear(2, 4).await;
    assert!(pending.known.is_empty() && pending.proven.is_empty());
}
