//! What a node holds in memory.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::Arc,
};

use flash_proto::{BlockId, CoordinatorHistory, TransactionId};

use super::{outputs::Journal, pages::Place, records::Past};
use crate::{
    ledger::{Checked, LedgerState},
    protocol::Followed,
    tangle::{InsertError, Tangle},
};

/// Milestones kept in memory for those who follow; older ones are read from the disk.
const RECENT_MAX: usize = 64;

/// A block that waits for a milestone.
#[derive(Debug)]
pub(super) struct Waiting {
    pub bytes: usize,
    pub place: Place,
    pub transaction: Option<Checked>,
}

/// A transaction in blocks that wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    /// The newest of them.
    pub block: BlockId,
    /// How many they are.
    pub blocks: usize,
}

/// Everything in memory. All of it is on the disk before it stands here.
#[derive(Debug)]
pub(super) struct Core {
    pub tangle: Tangle,
    pub ledger: LedgerState,
    /// What of the ledger's changes is on the disk, but not in all pages yet.
    pub journal: Journal,
    /// Who signs which milestones.
    pub coordinators: CoordinatorHistory,
    pub waiting: HashMap<BlockId, Waiting>,
    /// What is here of the past.
    pub past: Past,
    /// Bytes of all waiting blocks.
    pub waiting_bytes: usize,
    /// The transactions in the waiting blocks.
    pub carried: HashMap<TransactionId, Carried>,
    /// The number of the next block, in the order in which this node came to hold them.
    pub next_number: u64,
    /// The next page of blocks.
    pub next_page: u64,
    /// Blocks confirmed since the genesis.
    pub confirmed: u64,
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

    /// Takes a block over that is durable and whose parents are here.
    pub(super) fn hold(
        &mut self,
        id: BlockId,
        parents: Vec<BlockId>,
        waiting: Waiting,
    ) -> Result<(), InsertError> {
        self.tangle.insert(id, self.next_number, parents)?;
        // A node would take 2^64 blocks.
        self.next_number = self.next_number.saturating_add(1);
        self.waiting_bytes = self.waiting_bytes.saturating_add(waiting.bytes);
        if let Some(transaction) = &waiting.transaction {
            let carried = self.carried.entry(transaction.id()).or_insert(Carried { block: id, blocks: 0 });
            carried.block = id;
            carried.blocks = carried.blocks.saturating_add(1);
        }
        self.waiting.insert(id, waiting);
        Ok(())
    }

    /// Lets a block go that waits no longer.
    pub(super) fn release(&mut self, block: &BlockId) {
        let Some(waiting) = self.waiting.remove(block) else { return };
        self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes);
        if let Some(transaction) = waiting.transaction
            && let Entry::Occupied(mut carried) = self.carried.entry(transaction.id())
        {
            carried.get_mut().blocks = carried.get().blocks.saturating_sub(1);
            if carried.get().blocks == 0 {
                carried.remove();
            }
        }
    }

    /// The first page with a block that still waits once these are confirmed and those have expired.
    pub(super) fn waiting_page(&self, confirmed: &[BlockId], expired: &[BlockId]) -> Option<u64> {
        let gone: HashSet<&BlockId> = confirmed.iter().chain(expired).collect();
        let first = self.tangle.waiting().find(|block| !gone.contains(block))?;
        self.waiting.get(first).map(|waiting| waiting.place.page)
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
