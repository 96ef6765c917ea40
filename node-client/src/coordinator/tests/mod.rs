//! Coordinators alone and together.

mod simulation;
mod single;
mod wire;

use flash_proto::{BlockId, Hash, MilestoneEssence, MilestoneId, NetworkId, SecretKey};

use super::*;

const TIMING: Timing = Timing { interval_ms: 100, timeout_ms: 200, repeat_ms: 50 };

/// Secret keys in the order of their public keys, and the set of them.
fn coordinators(count: u8, threshold: u8) -> (Vec<SecretKey>, CoordinatorSet) {
    let mut keys: Vec<SecretKey> = (1..=count).map(|seed| SecretKey::from_bytes([seed; 32])).collect();
    keys.sort_by_key(SecretKey::public);
    let set = CoordinatorSet { keys: keys.iter().map(SecretKey::public).collect(), threshold };
    (keys, set)
}

fn genesis() -> MilestoneEssence {
    MilestoneEssence {
        network: NetworkId::new([9; 32]),
        index: 0,
        timestamp_ms: 0,
        previous: MilestoneId::new([0; 32]),
        parents: vec![BlockId::new([9; 32])],
        included_root: Hash::new([0; 32]),
        applied_root: Hash::new([0; 32]),
        channels_root: Hash::new([0; 32]),
        state_root: Hash::new([0; 32]),
        next: None,
    }
}

/// A next milestone; a different one for every `content`.
fn after(previous: &MilestoneEssence, now_ms: u64, content: u64) -> MilestoneEssence {
    let mut root = [0; 32];
    root[..8].copy_from_slice(&content.to_le_bytes());
    MilestoneEssence {
        index: previous.index + 1,
        timestamp_ms: now_ms.max(previous.timestamp_ms + 1),
        previous: previous.id(),
        state_root: Hash::new(root),
        ..previous.clone()
    }
}
