//! Taking blocks in. Blocks that come while the disk is busy share the next commit.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, OnceLock, PoisonError},
};

use flash_channel::store::Batch;
use flash_proto::{Block, BlockId, Payload};

use super::{
    Arrival, Node, NodeError, Writer,
    core::{Core, Waiting},
    index,
    records::{BLOCKS, TransactionRecords, WAITING},
};
use crate::{
    ledger::Checked,
    protocol::{REASON_BYTES_MAX, Refused, RefusedCode},
    tangle::InsertError,
};

/// Blocks that may wait for a milestone.
const WAITING_MAX: usize = 100_000;
/// Their bytes together.
const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Blocks in one commit.
const GROUP_MAX: usize = 512;

/// A block that was checked as far as it can be without the Tangle.
#[derive(Debug)]
pub(super) struct Prepared {
    id: BlockId,
    parents: Vec<BlockId>,
    transaction: Option<Checked>,
    bytes: Vec<u8>,
}

/// A block on its way to the disk, and where its sender finds the answer.
#[derive(Debug)]
pub(super) struct Queued {
    block: Prepared,
    answer: Arc<OnceLock<Result<(), Refused>>>,
}

impl Refused {
    /// A refusal; a long reason is cut.
    pub(super) fn new(code: RefusedCode, reason: &(impl ToString + ?Sized)) -> Self {
        // A character takes at most four bytes.
        Self { code, reason: reason.to_string().chars().take(REASON_BYTES_MAX / 4).collect() }
    }
}

impl Prepared {
    /// An empty block of this node's own.
    pub(super) fn own(block: Block, bytes: Vec<u8>) -> Self {
        Self { id: Block::id_of(&bytes), parents: block.parents, transaction: None, bytes }
    }

    pub(super) const fn id(&self) -> BlockId {
        self.id
    }
}

impl Node {
    /// Takes a block into the Tangle. When this returns its id, the block is on the disk. A block that is
    /// here already is no error.
    ///
    /// # Errors
    /// [`Refused`], with what is wrong with the block or the node.
    pub fn submit(&self, bytes: &[u8]) -> Result<BlockId, Refused> {
        let halted = |error: NodeError| Refused::new(RefusedCode::Halted, &error);
        self.alive().map_err(halted)?;
        let Some(block) = self.prepare(bytes)? else { return Ok(Block::id_of(bytes)) };
        let id = block.id;
        let answer = Arc::new(OnceLock::new());
        let queued = Queued { block, answer: Arc::clone(&answer) };
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push(queued);
        // Whoever gets the writer first commits for all that wait behind it.
        let writer = self.writer().map_err(halted)?;
        while answer.get().is_none() {
            let group = {
                let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let group_len = queue.len().min(GROUP_MAX);
                let rest = queue.split_off(group_len);
                mem::replace(&mut *queue, rest)
            };
            if group.is_empty() {
                break;
            }
            self.commit_queued(&writer, group);
        }
        drop(writer);
        match answer.get() {
            Some(Ok(())) => Ok(id),
            Some(Err(refused)) => Err(refused.clone()),
            // A group is answered whole, so this is a block that a panicking thread held.
            None => Err(Refused::new(RefusedCode::Busy, "the block was lost on its way; send it again")),
        }
    }

    /// Checks all that needs no Tangle; `None` if the block is here already.
    fn prepare(&self, bytes: &[u8]) -> Result<Option<Prepared>, Refused> {
        let params = &self.shared.params;
        let invalid = |error: &dyn ToString| Refused::new(RefusedCode::InvalidBlock, error);
        let block = Block::from_bytes(bytes, params.pow_bits).map_err(|error| invalid(&error))?;
        let id = Block::id_of(bytes);
        let known = self.stored(self.store().get(BLOCKS, id.as_bytes()).map_err(NodeError::from));
        if known.map_err(|error| Refused::new(RefusedCode::Halted, &error))?.is_some() {
            return Ok(None);
        }
        let transaction = match block.payload {
            Payload::Transaction(transaction) => {
                Some(Checked::new(*transaction, params).map_err(|error| invalid(&error))?)
            }
            Payload::Milestone(_) => {
                let reason = "only this node's own coordinator issues milestones";
                return Err(Refused::new(RefusedCode::ForeignMilestone, reason));
            }
            Payload::Empty | Payload::Data(_) => None,
        };
        Ok(Some(Prepared { id, parents: block.parents, transaction, bytes: bytes.to_vec() }))
    }

    fn commit_queued(&self, writer: &Writer<'_>, group: Vec<Queued>) {
        let (blocks, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|queued| (queued.block, queued.answer)).unzip();
        let results = self.commit_blocks(writer, blocks);
        for (answer, result) in answers.into_iter().zip(results) {
            // Only this thread answers, and each once.
            let _ = answer.set(result);
        }
    }

    /// Makes blocks durable and takes them in: one answer for each.
    pub(super) fn commit_blocks(
        &self,
        writer: &Writer<'_>,
        blocks: Vec<Prepared>,
    ) -> Vec<Result<(), Refused>> {
        let count = blocks.len();
        self.try_commit_blocks(writer, blocks).unwrap_or_else(|error| {
            let refused = Refused::new(RefusedCode::Halted, &error);
            vec![Err(refused); count]
        })
    }

    fn try_commit_blocks(
        &self,
        writer: &Writer<'_>,
        blocks: Vec<Prepared>,
    ) -> Result<Vec<Result<(), Refused>>, NodeError> {
        let mut group = Group { node: self, fresh: Vec::new(), ids: HashSet::new(), bytes: 0 };
        let results = {
            let core = self.read();
            blocks.into_iter().map(|block| group.admit(&core, block)).collect()
        };
        let fresh = group.fresh;
        if fresh.is_empty() {
            return Ok(results);
        }
        let first = self.read().next_number;
        let mut batch = Batch::new();
        let mut transactions = TransactionRecords::new(self.store());
        for (number, block) in (first..).zip(&fresh) {
            index::add(&mut batch, block.id, &block.bytes)?;
            batch.put(BLOCKS, block.id.as_bytes(), block.bytes.clone());
            batch.put(WAITING, &number.to_be_bytes(), block.id.as_bytes().to_vec());
            if let Some(transaction) = &block.transaction {
                self.stored(transactions.carried(transaction.id(), block.id))?;
            }
        }
        transactions.write(&mut batch);
        let _durable = self.commit(writer, &batch)?;
        let mut core = self.write();
        for block in fresh {
            let number = core.next_number;
            core.tangle.insert_solid(block.id, number, block.parents);
            core.hold(block.id, Waiting { bytes: block.bytes.len(), transaction: block.transaction });
            core.next_number = number.checked_add(1).ok_or(NodeError::Counter)?;
            // Nobody listening is no error.
            let _ = self.shared.arrivals.send(Arc::new(Arrival { id: block.id, bytes: block.bytes }));
        }
        Ok(results)
    }
}

/// Blocks that share a commit; later ones may approve earlier ones.
struct Group<'a> {
    node: &'a Node,
    fresh: Vec<Prepared>,
    ids: HashSet<BlockId>,
    bytes: usize,
}

impl Group<'_> {
    fn admit(&mut self, core: &Core, block: Prepared) -> Result<(), Refused> {
        self.node.alive().map_err(|error| Refused::new(RefusedCode::Halted, &error))?;
        if core.tangle.contains(&block.id) || self.ids.contains(&block.id) {
            return Ok(());
        }
        let known = |parent: &&BlockId| core.tangle.contains(parent) || self.ids.contains(parent);
        if let Some(unknown) = block.parents.iter().find(|parent| !known(parent)) {
            return Err(Refused::new(RefusedCode::UnknownParent, &InsertError::UnknownParent(*unknown)));
        }
        let bytes = core.waiting_bytes.saturating_add(self.bytes).saturating_add(block.bytes.len());
        let waiting = core.waiting.len().saturating_add(self.fresh.len());
        if waiting >= WAITING_MAX || bytes > WAITING_BYTES_MAX {
            let reason = "too many blocks wait for a milestone; try again after the next one";
            return Err(Refused::new(RefusedCode::Busy, reason));
        }
        self.bytes = self.bytes.saturating_add(block.bytes.len());
        self.ids.insert(block.id);
        self.fresh.push(block);
        Ok(())
    }
}
