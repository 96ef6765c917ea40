//! The coordinator: what the next milestone confirms and changes, made durable as one batch.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flash_channel::store::Batch;
use flash_proto::{
    Block, BlockId, Milestone, MilestoneEssence, Payload, block::Work, codec, limits::PARENTS_MAX,
};
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::{
    Arrival, Node, NodeError, Writer,
    core::{Core, Waiting},
    index,
    records::{
        self, APPLIED, BLOCKS, INCLUDED, MILESTONES, MilestoneRecord, Outcome, STATE, TOUCHED,
        TransactionRecords, WAITING,
    },
    submit::Prepared,
};
use crate::{ledger::Confirmation, protocol::Followed};

/// Blocks that one milestone confirms at most, beside the few that tie tips together: so many change
/// the ledger within one ordinary interval on a small machine, and their ids are one stored page.
const MILESTONE_BLOCKS_MAX: usize = 7_000;
/// Blocks that the coordinator makes at most to tie tips together for one milestone.
const TIES_MAX: usize = 64;
/// Tips that these blocks reach: each takes eight and leaves one.
const HEADS_MAX: usize = PARENTS_MAX + TIES_MAX * (PARENTS_MAX - 1);

/// A milestone, worked out and not yet durable.
struct Draft {
    milestone: Milestone,
    block: BlockId,
    bytes: Vec<u8>,
    included: Vec<BlockId>,
    confirmation: Confirmation,
    batch: Batch,
}

impl Node {
    /// Issues the next milestone, at `now_ms` milliseconds since 1970 or just after the one before it if
    /// that is later, and returns it once it is on the disk.
    ///
    /// # Errors
    /// [`NodeError::NotCoordinator`], [`NodeError::Halted`], or what the node stops for.
    pub fn issue_milestone(&self, now_ms: u64) -> Result<Arc<Followed>, NodeError> {
        if self.shared.coordinators.is_empty() {
            return Err(NodeError::NotCoordinator);
        }
        let writer = self.writer()?;
        let parents = self.milestone_parents(&writer)?;
        let draft = self.stored(self.draft(now_ms, parents))?;
        let _durable = self.commit(&writer, &draft.batch)?;
        let followed = self.take_over(draft)?;
        let essence = &followed.milestone.essence;
        self.shared.newest.send_replace(essence.index);
        Ok(followed)
    }

    /// What the milestone approves. Where there are more tips than a block has parents, blocks of the
    /// coordinator's own tie them together first.
    fn milestone_parents(&self, writer: &Writer<'_>) -> Result<Vec<BlockId>, NodeError> {
        let mut heads = self.read().tangle.heads(MILESTONE_BLOCKS_MAX, HEADS_MAX);
        let mut ties = Vec::new();
        while heads.len() > PARENTS_MAX {
            let rest = heads.split_off(PARENTS_MAX);
            let (block, bytes) = self.work(Block::new(heads, Payload::Empty))?;
            let tie = Prepared::own(block, bytes);
            heads = rest;
            heads.push(tie.id());
            ties.push(tie);
        }
        for result in self.commit_blocks(writer, ties) {
            // Full memory refuses blocks, but never stops milestones, which empty it.
            if result.is_err() {
                self.alive()?;
                return Ok(self.read().tangle.heads(MILESTONE_BLOCKS_MAX, PARENTS_MAX));
            }
        }
        heads.sort_unstable();
        Ok(heads)
    }

    /// Does the proof of work.
    fn work(&self, mut block: Block) -> Result<(Block, Vec<u8>), NodeError> {
        let found = Work::of(&block.to_bytes()).search(self.shared.params.pow_bits, 0, u64::MAX);
        block.nonce = found.ok_or(NodeError::Counter)?;
        let bytes = block.to_bytes();
        Ok((block, bytes))
    }

    fn draft(&self, now_ms: u64, mut parents: Vec<BlockId>) -> Result<Draft, NodeError> {
        parents.sort_unstable();
        let core = self.read();
        let previous = &core.last.milestone.essence;
        let index = previous.index.checked_add(1).ok_or(NodeError::Counter)?;
        let later = previous.timestamp_ms.checked_add(1).ok_or(NodeError::Counter)?;
        let included = core.tangle.cone(&parents);
        let blocks: Vec<_> = included
            .iter()
            .map(|block| (*block, core.waiting.get(block).and_then(|waiting| waiting.transaction.as_ref())))
            .collect();
        let confirmation = core.ledger.confirm(index, &blocks);
        let essence = MilestoneEssence {
            network: previous.network,
            index,
            timestamp_ms: now_ms.max(later),
            previous: previous.id(),
            parents: parents.clone(),
            included_root: confirmation.included_root,
            applied_root: confirmation.applied_root,
            channels_root: confirmation.channels_root,
            state_root: confirmation.state_root,
        };
        essence.follows(previous)?;
        let signatures = self.shared.coordinators.iter().map(|key| essence.sign(key)).collect();
        let milestone = Milestone { essence, signatures };
        milestone.verify(&self.shared.params)?;
        let payload = Payload::Milestone(Box::new(milestone.clone()));
        let (_, bytes) = self.work(Block::new(parents, payload))?;
        let block = Block::id_of(&bytes);
        let mut draft =
            Draft { milestone, block, bytes: bytes.clone(), included, confirmation, batch: Batch::new() };
        index::add(&mut draft.batch, block, &bytes)?;
        draft.batch.put(BLOCKS, block.as_bytes(), bytes);
        self.write_draft(&core, &mut draft)?;
        Ok(draft)
    }

    /// Everything that the milestone changes, as one batch.
    fn write_draft(&self, core: &Core, draft: &mut Draft) -> Result<(), NodeError> {
        let index = draft.milestone.essence.index;
        let Draft { confirmation, batch, included, block, .. } = draft;
        let record = MilestoneRecord { milestone: draft.milestone.clone(), block: *block };
        batch.put(MILESTONES, &index.to_be_bytes(), codec::encode(&record));
        for number in included.iter().filter_map(|confirmed| core.tangle.number_of(confirmed)) {
            batch.delete(WAITING, &number.to_be_bytes());
        }
        batch.put(WAITING, &core.next_number.to_be_bytes(), block.as_bytes().to_vec());
        let included_ids: Vec<_> = included.iter().map(|block| *block.as_bytes()).collect();
        let applied: Vec<_> = confirmation.applied.iter().map(|(block, _)| *block.as_bytes()).collect();
        let touched: Vec<_> = confirmation.channels.iter().map(|channel| *channel.as_bytes()).collect();
        records::put_ids(batch, INCLUDED, index, &included_ids);
        records::put_ids(batch, APPLIED, index, &applied);
        index::confirm(batch, index, included, confirmation);
        records::put_ids(batch, TOUCHED, index, &touched);
        for (key, value) in &confirmation.changes {
            let key = codec::encode(key);
            match value {
                Some(value) => batch.put(STATE, &key, codec::encode(value)),
                None => batch.delete(STATE, &key),
            }
        }
        let mut transactions = TransactionRecords::new(self.store());
        for (block, id) in &confirmation.applied {
            transactions.confirmed(*id, Outcome::Applied { block: *block, milestone: index })?;
        }
        for (block, id, conflict) in &confirmation.conflicts {
            let outcome = Outcome::Rejected { block: *block, milestone: index, conflict: *conflict };
            transactions.confirmed(*id, outcome)?;
        }
        transactions.write(batch);
        Ok(())
    }

    /// Takes a milestone over that is durable.
    fn take_over(&self, draft: Draft) -> Result<Arc<Followed>, NodeError> {
        let Draft { milestone, block, bytes, included, confirmation, .. } = draft;
        let mut core = self.write();
        let number = core.next_number;
        core.next_number = number.checked_add(1).ok_or(NodeError::Counter)?;
        core.ledger.accept(&confirmation);
        for confirmed in &included {
            core.release(confirmed);
        }
        core.hold(block, Waiting { bytes: bytes.len(), transaction: None });
        core.tangle.insert_solid(block, number, milestone.essence.parents.clone());
        core.tangle.confirm(milestone.essence.index, block, included);
        let followed = Arc::new(Followed { milestone, channels: confirmation.channels });
        core.set_last(Arc::clone(&followed));
        // Nobody listening is no error.
        let _ = self.shared.arrivals.send(Arc::new(Arrival { id: block, bytes }));
        Ok(followed)
    }
}

/// Issues a milestone every `interval`, until `stop` is ready or the node stops.
///
/// # Errors
/// [`NodeError`]: why no milestone can be issued any more.
pub async fn run_coordinator(
    node: Node,
    interval: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = ticks.tick() => {}
        }
        let issuing = node.clone();
        let issued = tokio::task::spawn_blocking(move || issuing.issue_milestone(now_ms())).await;
        match issued {
            Ok(followed) => {
                let essence = &followed?.milestone.essence;
                debug!(index = essence.index, "milestone issued");
            }
            Err(_) => {
                return Err(node.halt(&NodeError::Damaged("state in memory: an invariant did not hold")));
            }
        }
    }
}

/// Milliseconds since 1970; 0 on a clock that stands before it.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
