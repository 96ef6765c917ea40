//! Letting go of the past: what milestones confirmed long ago is deleted in steps, from the oldest on.
//! Nothing of the state, of blocks that wait, or of hand-overs between coordinators is ever touched.
//!
//! What is about to go is refused first, in memory and with the first deletion also on the disk
//! ([`Past`]); the lists of a milestone go last. So a node that dies half way begins again at the
//! milestone at which it was, and nothing is forgotten there.

use flash_channel::store::Batch;
use flash_proto::{Block, BlockId, Payload, limits};

use super::{
    Node, NodeError, index,
    pages::{self, Reader},
    records::{self, APPLIED, INCLUDED, MILESTONES, Past, TOUCHED},
};
use crate::{light::PROOF_AGE_MAX, tangle::CONFIRMED_MILESTONES};

/// The newest milestones whose blocks are always kept: new blocks approve them, and light cores hear of
/// them late.
pub const KEEP_MILESTONES_MIN: u64 = CONFIRMED_MILESTONES + PROOF_AGE_MAX;
/// Blocks deleted in one step, and so at most in one commit.
const STEP_BLOCKS: usize = 512;
/// Milestones of which something is deleted in one step.
const STEP_MILESTONES: usize = 64;

/// How much of the past is kept. What any of the limits lets go of goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Newest milestones whose blocks are kept, at least [`KEEP_MILESTONES_MIN`].
    pub milestones: u64,
    /// Bytes of confirmed blocks that are kept, [`KEEP_MILESTONES_MIN`] milestones' in any case.
    pub bytes: u64,
    /// Newest milestones that are kept themselves, with the channels that they touched, for those who
    /// follow: never fewer than have their blocks. One is about half a kilobyte.
    pub chain: u64,
}

impl Default for Keep {
    /// A day's blocks where there is a milestone a second, and milestones for as long as the longest
    /// contest window: who was away longer has lost by then what it could have claimed.
    fn default() -> Self {
        let chain = u64::from(limits::CONTEST_WINDOW_MILESTONES_MAX);
        Self { milestones: 100_000, bytes: u64::MAX, chain }
    }
}

impl Keep {
    /// Whether the blocks of milestone `index` are to go.
    fn blocks_go(&self, index: u64, newest: u64, past: &Past) -> bool {
        let age = newest.saturating_sub(index);
        age >= KEEP_MILESTONES_MIN && (age >= self.milestones || past.bytes > self.bytes)
    }

    /// Whether milestone `index` itself is to go.
    fn milestone_goes(&self, index: u64, newest: u64, past: &Past) -> bool {
        let kept = self.chain.max(self.milestones).max(KEEP_MILESTONES_MIN);
        newest.saturating_sub(index) >= kept && index <= past.blocks
    }
}

/// What one step deletes.
#[derive(Default)]
struct Step {
    batch: Batch,
    blocks: usize,
    reader: Reader,
}

impl Node {
    /// Lets go of some of what `keep` does not keep, in one commit of bounded size; returns whether there
    /// is more.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn prune(&self, keep: &Keep) -> Result<bool, NodeError> {
        let writer = self.writer()?;
        let (newest, old) = (self.read().index(), self.past());
        let (mut past, mut step) = (old, Step::default());
        let mut more = self.stored(self.prune_blocks(keep, newest, &mut past, &mut step))?;
        more |= self.stored(self.prune_milestones(keep, newest, &mut past, &mut step))?;
        if !step.batch.is_empty() || past != old {
            records::put_past(&mut step.batch, &past);
            // Before anything is gone, so that who misses it knows why.
            self.write().past = past;
            let _durable = self.commit(&writer, &step.batch)?;
        }
        Ok(more)
    }

    fn prune_blocks(
        &self,
        keep: &Keep,
        newest: u64,
        past: &mut Past,
        step: &mut Step,
    ) -> Result<bool, NodeError> {
        // The one at which an earlier step stopped comes first. If nothing is left of it that costs a look.
        for index in (past.blocks..=newest).take(STEP_MILESTONES) {
            if !keep.blocks_go(index, newest, past) {
                return Ok(false);
            }
            past.blocks = index;
            for block in records::ids(self.store(), INCLUDED, index)? {
                if step.blocks >= STEP_BLOCKS {
                    return Ok(true);
                }
                self.forget_block(&BlockId::new(block), index, past, step)?;
            }
            for table in [INCLUDED, APPLIED] {
                records::delete_ids(self.store(), &mut step.batch, table, index)?;
            }
            // Whatever came before the first block that waited then was confirmed, or has expired.
            let waiting = records::milestone(self.store(), index)?.map_or(0, |record| record.waiting_page);
            while past.page < waiting {
                pages::delete(&mut step.batch, past.page);
                past.page = past.page.saturating_add(1);
            }
        }
        Ok(true)
    }

    /// Forgets a block that milestone `milestone` confirmed, and all that is known by it.
    fn forget_block(
        &self,
        id: &BlockId,
        milestone: u64,
        past: &mut Past,
        step: &mut Step,
    ) -> Result<(), NodeError> {
        let Some(confirmed) = records::confirmed(self.store(), id)? else { return Ok(()) };
        step.blocks = step.blocks.saturating_add(1);
        records::delete_confirmed(&mut step.batch, id);
        let bytes = step.reader.block(self.store(), confirmed.place)?;
        let bytes = bytes.ok_or(NodeError::Damaged("page of blocks"))?;
        past.bytes = past.bytes.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.shared.index {
            index::remove(&mut step.batch, *id, &bytes)?;
        }
        let block = Block::from_bytes(&bytes, self.params().pow_bits)?;
        if let Payload::Transaction(transaction) = block.payload {
            let id = transaction.id();
            let outcome = records::outcome(self.store(), id)?;
            if outcome.is_some_and(|outcome| outcome.milestone() <= milestone) {
                records::delete_outcome(&mut step.batch, id);
            }
        }
        Ok(())
    }

    fn prune_milestones(
        &self,
        keep: &Keep,
        newest: u64,
        past: &mut Past,
        step: &mut Step,
    ) -> Result<bool, NodeError> {
        for _ in 0..STEP_MILESTONES {
            let index = past.milestones.saturating_add(1);
            if !keep.milestone_goes(index, newest, past) {
                return Ok(false);
            }
            past.milestones = index;
            let record = records::milestone(self.store(), index)?;
            if record.is_some_and(|record| record.milestone.essence.next.is_none()) {
                step.batch.delete(MILESTONES, &index.to_be_bytes());
            }
            records::delete_ids(self.store(), &mut step.batch, TOUCHED, index)?;
        }
        Ok(true)
    }
}
