//! Taking in what neighbours send: whatever waits shares a commit.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use flash_proto::{BlockId, PublicKey};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::debug;

use super::{
    ask::want,
    message::WANT_IDS_MAX,
    neighbours::Deed,
    state::{Parcel, Shared},
};
use crate::{
    node::{
        NodeError, Received, Source,
        rate::{weight, work_bits},
    },
    protocol::{Refused, RefusedCode},
};

/// Blocks that are taken in together, beside the last parcel's.
const BATCH_MAX: usize = 512;
/// Their bytes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Requests for missing parents that are open at once.
const WANTS_MAX: usize = 32;
/// How often open requests are looked at again.
const LOOK: Duration = Duration::from_millis(250);

/// A block on its way in.
#[derive(Debug)]
struct Item {
    id: BlockId,
    bytes: Vec<u8>,
    from: PublicKey,
    /// Whether all the parents that it missed have come since.
    again: bool,
}

/// Takes parcels in until the node stops.
pub(super) async fn run(shared: Arc<Shared>, mut parcels: mpsc::Receiver<Parcel>) -> NodeError {
    let mut look = tokio::time::interval(LOOK);
    let mut wants = JoinSet::new();
    let mut next: Option<Parcel> = None;
    loop {
        if next.is_none() {
            tokio::select! {
                parcel = parcels.recv() => next = parcel,
                Some(_) = wants.join_next() => {}
                _ = look.tick() => {}
            }
        }
        if let Some(first) = next.take() {
            let source = first.source;
            let mut batch = Vec::new();
            let mut bytes = unpack(first, &mut batch);
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(parcel) = parcels.try_recv() else { break };
                if parcel.source != source {
                    next = Some(parcel);
                    break;
                }
                bytes = bytes.saturating_add(unpack(parcel, &mut batch));
            }
            if let Err(error) = take_in(&shared, batch, source).await {
                return error;
            }
        }
        ask_for_parents(&shared, &mut wants);
    }
}

fn unpack(parcel: Parcel, batch: &mut Vec<Item>) -> usize {
    let Parcel { from, blocks, .. } = parcel;
    let bytes = blocks.iter().map(|(_, bytes)| bytes.len()).sum();
    batch.extend(blocks.into_iter().map(|(id, bytes)| Item { id, bytes, from, again: false }));
    bytes
}

/// Takes blocks in, and then those that waited for them.
async fn take_in(shared: &Shared, batch: Vec<Item>, source: Source) -> Result<(), NodeError> {
    let mut waiting = VecDeque::from([(batch, source)]);
    while let Some((batch, source)) = waiting.pop_front() {
        let (known, fresh) = sort_out(shared, batch);
        let mut ready: Vec<Item> = known.iter().flat_map(|id| arrived(shared, id)).collect();
        if !fresh.is_empty() {
            let bytes: Vec<Vec<u8>> = fresh.iter().map(|item| item.bytes.clone()).collect();
            let received = shared.node.blocking(move |node| node.receive(&bytes, source)).await?;
            for (item, received) in fresh.into_iter().zip(received) {
                ready.extend(judge(shared, item, received));
            }
        }
        if !ready.is_empty() {
            waiting.push_back((ready, Source::Sent));
        }
    }
    Ok(())
}

/// Those that are here already, and the others without repetitions.
fn sort_out(shared: &Shared, batch: Vec<Item>) -> (Vec<BlockId>, Vec<Item>) {
    let state = shared.state();
    let mut twice = HashSet::new();
    let (mut known, mut fresh) = (Vec::new(), Vec::new());
    for item in batch {
        if state.seen.contains(item.id.as_bytes()) {
            known.push(item.id);
        } else if twice.insert(item.id) {
            fresh.push(item);
        }
    }
    (known, fresh)
}

/// What follows from what became of a block; the blocks that waited for it.
fn judge(shared: &Shared, item: Item, received: Received) -> Vec<Item> {
    let Item { id, bytes, from, again } = item;
    match received {
        Received::Added => {
            shared.count(&from, Deed::NewBlock);
            arrived(shared, &id)
        }
        Received::Known => arrived(shared, &id),
        // What it misses comes by itself while this node catches up; and what came without helping never will.
        Received::Missing(_) if again || shared.is_syncing() => let_go(shared, &id),
        Received::Missing(parents) => {
            let held = shared.orphans().add(id, bytes, from, &parents);
            if held.is_err() {
                // So much is missing that asking for it one by one takes too long.
                shared.doubt(&from, Vec::new());
            }
            Vec::new()
        }
        Received::Early { index } => {
            shared.is_at_least(&from, index);
            let_go(shared, &id)
        }
        Received::Refused(Refused { code, reason }) => {
            debug!(%id, %from, ?code, reason, "a neighbour's block is not taken");
            if matches!(code, RefusedCode::InvalidBlock | RefusedCode::InvalidMilestone) {
                shared.count(&from, Deed::InvalidBlock);
            }
            let_go(shared, &id)
        }
    }
}

fn arrived(shared: &Shared, id: &BlockId) -> Vec<Item> {
    shared.state().seen.insert(id.as_bytes());
    let ready = shared.orphans().arrived(id);
    ready
        .into_iter()
        .map(|orphan| Item { id: orphan.id, bytes: orphan.bytes, from: orphan.from, again: true })
        .collect()
}

fn let_go(shared: &Shared, id: &BlockId) -> Vec<Item> {
    shared.orphans().give_up(id);
    Vec::new()
}

/// Asks for what orphans wait for.
fn ask_for_parents(shared: &Arc<Shared>, wants: &mut JoinSet<()>) {
    if wants.len() >= WANTS_MAX || shared.orphans().is_empty() {
        return;
    }
    let connections = shared.best_connections();
    let keys: Vec<PublicKey> = connections.iter().map(|(key, _)| *key).collect();
    let asks = shared.orphans().asks(shared.now(), &keys);
    for (key, ids) in asks {
        let Some((_, connection)) = connections.iter().find(|(other, _)| *other == key) else { continue };
        for ids in ids.chunks(WANT_IDS_MAX) {
            let (shared, connection, ids) = (Arc::clone(shared), connection.clone(), ids.to_vec());
            wants.spawn(async move {
                let count = ids.len();
                let open = match want(&shared, key, &connection, ids.clone(), Source::Asked).await {
                    Ok(open) => open,
                    Err(error) => {
                        debug!(%key, %error, "parents did not come");
                        if let Some(deed) = error.deed() {
                            shared.count(&key, deed);
                        }
                        ids.into_iter().collect()
                    }
                };
                if open.len() == count && shared.orphans().has_sent_children_of(&key, &open) {
                    // It sent the children, so it must have the parents.
                    shared.count(&key, Deed::Unanswered);
                }
                for id in open {
                    shared.orphans().not_there(&id);
                }
            });
        }
    }
}

impl Shared {
    /// Blocks that a neighbour sent because it was asked.
    pub(super) fn received(&self, from: &PublicKey, blocks: &[(BlockId, Vec<u8>)], source: Source) {
        // Each counted as one block before it was asked for; what those that weigh more cost shows only now.
        let more = match source {
            Source::Sent => blocks.iter().map(|(_, bytes)| weight(bytes).saturating_sub(1)).sum(),
            Source::Asked => 0,
        };
        if let Some(neighbour) = self.state().neighbours.get_mut(from) {
            neighbour.budget.spend(0, more);
            let count = u64::try_from(blocks.len()).unwrap_or(u64::MAX);
            neighbour.standing.received = neighbour.standing.received.saturating_add(count);
            for (id, _) in blocks {
                neighbour.known.insert(id.as_bytes());
            }
        }
    }

    /// Those of the blocks that a neighbour sent of its own accord which are worth taking in.
    pub(super) fn worth_taking(&self, from: &PublicKey, blocks: Vec<Vec<u8>>) -> Vec<(BlockId, Vec<u8>)> {
        let ids = blocks.into_iter().map(|bytes| (flash_proto::Block::id_of(&bytes), bytes));
        ids.filter(|(id, bytes)| self.is_worth_taking(from, id, bytes)).collect()
    }

    fn is_worth_taking(&self, from: &PublicKey, id: &BlockId, bytes: &[u8]) -> bool {
        let now = self.now();
        let wanted = {
            let mut state = self.state();
            let seen = state.seen.contains(id.as_bytes());
            let Some(neighbour) = state.neighbours.get_mut(from) else { return false };
            neighbour.standing.received = neighbour.standing.received.saturating_add(1);
            neighbour.known.insert(id.as_bytes());
            if !neighbour.sent.insert(id.as_bytes()) {
                drop(state);
                self.count(from, Deed::Repeated);
                return false;
            }
            if seen {
                return false;
            }
            neighbour.budget.extra_bits(self.rule, now)
        };
        // Counted only where it matters, and not under the lock.
        let extra =
            if wanted == 0 { 0 } else { work_bits(bytes).saturating_sub(self.node.params().pow_bits) };
        let blocks = weight(bytes);
        let mut state = self.state();
        let Some(neighbour) = state.neighbours.get_mut(from) else { return false };
        if extra >= wanted {
            neighbour.budget.spend(extra, blocks);
            return true;
        }
        if neighbour.standing.count_over_budget(now) {
            state.drop_faulty(from, now);
        }
        false
    }
}
