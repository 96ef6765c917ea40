//! What a node holds in memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use flash_proto::{BlockId, CoordinatorHistory};

use super::records::Past;
use crate::{
    ledger::{Checked, LedgerState},
    protocol::Followed,
    tangle::Tangle,
};

/// Milestones kept in memory for those who follow; older ones are read from the disk.
const RECENT_MAX: usize = 64;

/// A block that waits for a milestone.
#[derive(Debug)]
pub(super) struct Waiting {
    pub bytes: usize,
    pub transaction: Option<Checked>,
}

/// Everything in memory. All of it is on the disk before it stands here.
#[derive(Debug)]
pub(super) struct Core {
    pub tangle: Tangle,
    pub ledger: LedgerState,
    /// Who signs which milestones.
    pub coordinators: CoordinatorHistory,
    pub waiting: HashMap<BlockId, Waiting>,
    /// What is here of the past.
    pub past: Past,
    /// Bytes of all waiting blocks.
    pub waiting_bytes: usize,
    /// The number of the next block; all before it are stored.
    pub next_number: u64,
    /// The newest milestone.
    pub last: Arc<Followed>,
    /// The newest milestones, in order, `last` being the last of them.
    pub recent: VecDeque<Arc<Followed>>,
}

impl Core {
    /// Index of the newest milestone.
    pub(super) fn index(&self) -> u64 {
        self.last.milestone.essence.index
    }

    /// What is here of the past when these blocks are confirmed, too.
    pub(super) fn past_with(&self, confirmed: &[BlockId]) -> Past {
        let sizes = confirmed.iter().filter_map(|block| self.waiting.get(block)).map(|held| held.bytes);
        let bytes = u64::try_from(sizes.fold(0, usize::saturating_add)).unwrap_or(u64::MAX);
        Past { bytes: self.past.bytes.saturating_add(bytes), ..self.past }
    }

    pub(super) fn hold(&mut self, block: BlockId, waiting: Waiting) {
        self.waiting_bytes = self.waiting_bytes.saturating_add(waiting.bytes);
        self.waiting.insert(block, waiting);
    }

    pub(super) fn release(&mut self, block: &BlockId) {
        if let Some(waiting) = self.waiting.remove(block) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes);
        }
    }

    pub(super) fn set_last(&mut self, followed: Arc<Followed>) {
        self.last = Arc::clone(&followed);
        self.recent.push_back(followed);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// At most `limit` milestones from the one after `after`, if the first of them is still in memory.
    pub(super) fn recent_after(&self, after: u64, limit: usize) -> Option<Vec<Arc<Followed>>> {
        let first = self.recent.front()?.milestone.essence.index;
        let skip = usize::try_from(after.checked_add(1)?.checked_sub(first)?).ok()?;
        Some(self.recent.iter().skip(skip).take(limit).cloned().collect())
    }
}
