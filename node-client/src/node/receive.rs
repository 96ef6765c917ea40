//! Taking blocks in, from clients, from other nodes and of this node's own. Blocks that come while the disk
//! is busy share the next commit.

use std::{
    collections::HashSet,
    mem,
    net::IpAddr,
    num::NonZero,
    sync::{Arc, OnceLock, PoisonError},
    thread::{self, ScopedJoinHandle},
};

use flash_channel::store::Batch;
use flash_proto::{Block, BlockId, Milestone, Payload, Transaction};

use super::{
    Arrival, Node, NodeError, Writer,
    core::{Core, Waiting},
    index,
    pages::{Pages, Place},
    rate::clients::Who,
    records,
};
use crate::{
    ledger::Checked,
    light::Fork,
    protocol::{BLOCKS_MAX, REASON_BYTES_MAX, Refused, RefusedCode},
};

/// Blocks that may wait for a milestone.
const WAITING_MAX: usize = 100_000;
/// Their bytes together.
const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How much more of both there may be of blocks that were asked for: what milestones confirm must come in
/// also where memory is full, or it would never empty.
const ASKED_FACTOR: usize = 2;
/// Blocks that are worth another thread: some milliseconds.
const PART_MIN: usize = 64;
/// Blocks in one commit: so many wait for the disk once.
const GROUP_MAX: usize = 2_048;

/// How blocks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Somebody sent them unasked.
    Sent,
    /// This node asked for them, because a block that it has approves them or a milestone confirms them.
    Asked,
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is on the disk and in the Tangle.
    Added,
    /// It was here before.
    Known,
    /// It approves these blocks, which are not here.
    Missing(Vec<BlockId>),
    /// It carries a milestone further ahead than the next one: those between come first.
    Early {
        /// The milestone's index.
        index: u64,
    },
    /// It is not taken.
    Refused(Refused),
}

/// A block that was checked as far as it can be without the Tangle.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: BlockId,
    pub(super) parents: Vec<BlockId>,
    transaction: Option<Checked>,
    milestone: Option<Box<Milestone>>,
    pub(super) bytes: Vec<u8>,
    source: Source,
}

/// Blocks that were checked as far as they can be without the Tangle, in the order in which they came.
#[derive(Debug)]
pub struct PreparedBlocks(Vec<Result<Prepared, NotTaken>>);

/// A block that is not to be taken in, and why.
type NotTaken = (BlockId, Received);

impl PreparedBlocks {
    /// Their ids.
    pub fn ids(&self) -> Vec<BlockId> {
        let id =
            |block: &Result<Prepared, NotTaken>| block.as_ref().map_or_else(|(id, _)| *id, |block| block.id);
        self.0.iter().map(id).collect()
    }
}

/// A block on its way to the disk, and where its sender finds the answer.
#[derive(Debug)]
pub(super) struct Queued {
    block: Prepared,
    answer: Arc<OnceLock<Received>>,
}

impl Refused {
    /// A refusal; a long reason is cut.
    pub(super) fn new(code: RefusedCode, reason: &(impl ToString + ?Sized)) -> Self {
        // A character takes at most four bytes.
        Self { code, reason: reason.to_string().chars().take(REASON_BYTES_MAX / 4).collect() }
    }
}

impl Received {
    fn refused(code: RefusedCode, reason: &(impl ToString + ?Sized)) -> Self {
        Self::Refused(Refused::new(code, reason))
    }

    pub(super) fn halted(error: &NodeError) -> Self {
        Self::refused(RefusedCode::Halted, error)
    }

    /// Whether the block is here now.
    fn taken(self) -> Result<(), Refused> {
        match self {
            Self::Added | Self::Known => Ok(()),
            Self::Missing(parents) => {
                let names = parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let reason = format!("it approves blocks that are not known here: {names}");
                Err(Refused::new(RefusedCode::UnknownParent, &reason))
            }
            Self::Early { index } => {
                let reason = format!("milestone {index} comes before those that precede it");
                Err(Refused::new(RefusedCode::InvalidMilestone, &reason))
            }
            Self::Refused(refused) => Err(refused),
        }
    }
}

impl Prepared {
    /// A block of this node's own, its work done.
    pub(super) fn own(block: Block, bytes: Vec<u8>) -> Self {
        let milestone = match block.payload {
            Payload::Milestone(milestone) => Some(milestone),
            _ => None,
        };
        let id = Block::id_of(&bytes);
        Self { id, parents: block.parents, transaction: None, milestone, bytes, source: Source::Asked }
    }
}

impl Node {
    /// Takes blocks in, in this order: later ones may approve earlier ones. One answer for each; what is
    /// answered with [`Received::Added`] is on the disk. A milestone that follows the newest one is applied
    /// before this returns.
    ///
    /// # Errors
    /// [`NodeError::Halted`]: the node has stopped, perhaps over one of these blocks.
    pub fn receive(&self, blocks: &[Vec<u8>], source: Source) -> Result<Vec<Received>, NodeError> {
        self.alive()?;
        self.take(self.prepare(blocks, source))
    }

    /// Takes blocks in that were checked before, as [`Node::receive`] does: whoever has many prepares the next
    /// ones in the meantime.
    ///
    /// # Errors
    /// [`NodeError::Halted`]: the node has stopped, perhaps over one of these blocks.
    pub fn take(&self, PreparedBlocks(blocks): PreparedBlocks) -> Result<Vec<Received>, NodeError> {
        self.alive()?;
        let mut answers = Vec::with_capacity(blocks.len());
        let mut queued = Vec::new();
        for prepared in blocks {
            let answer = Arc::new(OnceLock::new());
            match prepared {
                Ok(block) => queued.push(Queued { block, answer: Arc::clone(&answer) }),
                // Nobody else holds it yet.
                Err((_, received)) => drop(answer.set(received)),
            }
            answers.push(answer);
        }
        if !queued.is_empty() {
            self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).extend(queued);
            self.drain_queue(|| answers.iter().all(|answer| answer.get().is_some()))?;
        }
        self.alive()?;
        // A group is answered whole, so an answer is only missing where a panicking thread held the block.
        let lost = || Received::refused(RefusedCode::Busy, "the block was lost on its way; send it again");
        Ok(answers.iter().map(|answer| answer.get().cloned().unwrap_or_else(lost)).collect())
    }

    /// Takes one block in. When this returns its id, the block is on the disk. A block that is here already
    /// is no error.
    ///
    /// # Errors
    /// [`Refused`], with what is wrong with the block or the node.
    pub fn submit(&self, bytes: &[u8]) -> Result<BlockId, Refused> {
        let received = self.receive(&[bytes.to_vec()], Source::Sent);
        let received = received.map_err(|error| Refused::new(RefusedCode::Halted, &error))?;
        let lost = || Refused::new(RefusedCode::Busy, "the block was lost on its way; send it again");
        received.into_iter().next().ok_or_else(lost)?.taken()?;
        Ok(Block::id_of(bytes))
    }

    /// The same of at most [`BLOCKS_MAX`] blocks, each after those of them that it approves: for each what is wrong with it.
    ///
    /// # Errors
    /// [`Refused`], with what is wrong with the request or the node.
    pub fn submit_all(&self, blocks: &[Vec<u8>]) -> Result<Vec<Option<Refused>>, Refused> {
        if blocks.len() > BLOCKS_MAX {
            let reason = format!("{} blocks, but at most {BLOCKS_MAX} at once", blocks.len());
            return Err(Refused::new(RefusedCode::Malformed, &reason));
        }
        let received = self.receive(blocks, Source::Sent);
        let received = received.map_err(|error| Refused::new(RefusedCode::Halted, &error))?;
        Ok(received.into_iter().map(|received| received.taken().err()).collect())
    }

    /// The same for a block that somebody at this address sent without a key: who floods has to do more work.
    ///
    /// # Errors
    /// [`Refused`]; [`RefusedCode::MoreWork`] with the bits that are needed now.
    pub fn submit_from(&self, address: IpAddr, bytes: &[u8]) -> Result<BlockId, Refused> {
        self.shared.rates.admit(Who::at(address), bytes)?;
        self.submit(bytes)
    }

    /// Whoever gets the writer first commits for all that wait behind it.
    fn drain_queue(&self, done: impl Fn() -> bool) -> Result<(), NodeError> {
        let writer = self.writer()?;
        while !done() {
            let group = {
                let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let group_len = queue.len().min(GROUP_MAX);
                let rest = queue.split_off(group_len);
                mem::replace(&mut *queue, rest)
            };
            if group.is_empty() {
                break;
            }
            let (blocks, answers): (Vec<_>, Vec<_>) =
                group.into_iter().map(|queued| (queued.block, queued.answer)).unzip();
            for (answer, received) in answers.into_iter().zip(self.take_in(&writer, blocks)) {
                // Only this thread answers, and each once.
                let _ = answer.set(received);
            }
        }
        drop(writer);
        Ok(())
    }

    /// Checks all that needs no Tangle, on all cores where there is enough to do: the form, the proof of work,
    /// signatures.
    pub fn prepare(&self, blocks: &[Vec<u8>], source: Source) -> PreparedBlocks {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let part = blocks.len().div_ceil(cores).max(PART_MIN);
        thread::scope(|scope| {
            let mut parts = blocks.chunks(part);
            let first = parts.next().unwrap_or_default();
            let others: Vec<_> = parts
                .map(|part| {
                    let check = move || self.prepare_part(part, source);
                    (part, thread::Builder::new().spawn_scoped(scope, check))
                })
                .collect();
            let mut prepared = self.prepare_part(first, source);
            for (part, other) in others {
                // Where there is no thread to be had, the part waits for its turn.
                let other =
                    other.map_or_else(|_| Ok(self.prepare_part(part, source)), ScopedJoinHandle::join);
                prepared.extend(other.unwrap_or_else(|_| {
                    let lost = || Received::refused(RefusedCode::Busy, "the check was lost; send it again");
                    part.iter().map(|bytes| Err((Block::id_of(bytes), lost()))).collect()
                }));
            }
            PreparedBlocks(prepared)
        })
    }

    fn prepare_part(&self, blocks: &[Vec<u8>], source: Source) -> Vec<Result<Prepared, NotTaken>> {
        let mut transactions = Vec::new();
        let read: Vec<_> =
            blocks.iter().map(|bytes| self.read_new(bytes, source, &mut transactions)).collect();
        let mut checked = Checked::all(transactions, &self.shared.params).into_iter();
        read.into_iter()
            .map(|read| {
                let (mut prepared, has_transaction) = read?;
                if has_transaction && let Some(checked) = checked.next() {
                    let invalid = |error| Received::refused(RefusedCode::InvalidBlock, &error);
                    prepared.transaction = Some(checked.map_err(|error| (prepared.id, invalid(error)))?);
                }
                Ok(prepared)
            })
            .collect()
    }

    /// Decodes a block that is not here yet, and puts its transaction, if it has one, to those to be checked.
    fn read_new(
        &self,
        bytes: &[u8],
        source: Source,
        transactions: &mut Vec<Transaction>,
    ) -> Result<(Prepared, bool), NotTaken> {
        let id = Block::id_of(bytes);
        let block = Block::from_bytes(bytes, self.shared.params.pow_bits)
            .map_err(|error| (id, Received::refused(RefusedCode::InvalidBlock, &error)))?;
        // What was asked for is mostly new, and the disk is not searched for it in vain: if it was confirmed
        // long ago, that shows when it is to be taken in.
        let sent = source == Source::Sent;
        if self.read().tangle.contains(&id)
            || sent && self.is_confirmed(&id).map_err(|error| (id, Received::halted(&error)))?
        {
            return Err((id, Received::Known));
        }
        let (mut has_transaction, mut milestone) = (false, None);
        match block.payload {
            Payload::Transaction(carried) => {
                has_transaction = true;
                transactions.push(*carried);
            }
            Payload::Milestone(carried) => milestone = Some(carried),
            Payload::Empty | Payload::Data(_) => {}
        }
        let (parents, bytes) = (block.parents, bytes.to_vec());
        Ok((Prepared { id, parents, transaction: None, milestone, bytes, source }, has_transaction))
    }

    pub(super) fn is_confirmed(&self, id: &BlockId) -> Result<bool, NodeError> {
        Ok(self.stored(records::confirmed(self.store(), id))?.is_some())
    }

    /// Makes blocks durable and takes them over, and applies the milestones among them that are next: one
    /// answer for each.
    pub(super) fn take_in(&self, writer: &Writer<'_>, blocks: Vec<Prepared>) -> Vec<Received> {
        let mut answers = Vec::with_capacity(blocks.len());
        let mut group = Group::default();
        for block in blocks {
            let received = self.admit(&mut group, block).unwrap_or_else(|error| Received::halted(&error));
            let added = received == Received::Added;
            answers.push(received);
            if added && let Some((block, milestone)) = self.take_next_milestone(&mut group) {
                // All before it must be in the Tangle, and those after it are judged by what it changes.
                let applied = self
                    .commit_blocks(writer, mem::take(&mut group))
                    .and_then(|()| self.apply_milestone(writer, milestone, block));
                if let Err(error) = applied {
                    answers.fill(Received::halted(&error));
                }
            }
        }
        if let Err(error) = self.commit_blocks(writer, group) {
            answers.fill(Received::halted(&error));
        }
        answers
    }

    /// Takes the newest block out of the group if it carries the next milestone: that block and what the
    /// milestone changes are one commit.
    fn take_next_milestone(&self, group: &mut Group) -> Option<(Prepared, Milestone)> {
        let milestone = group.fresh.last()?.milestone.as_deref()?.clone();
        milestone.essence.follows(&self.read().last.milestone.essence).ok()?;
        Some((group.fresh.pop()?, milestone))
    }

    /// Whether a block can come in after those of the group.
    fn admit(&self, group: &mut Group, block: Prepared) -> Result<Received, NodeError> {
        self.alive()?;
        let core = self.read();
        if core.tangle.contains(&block.id) || group.ids.contains(&block.id) {
            return Ok(Received::Known);
        }
        let unknown = |parent: &&BlockId| !core.tangle.contains(parent) && !group.ids.contains(parent);
        let unknown: Vec<BlockId> = block.parents.iter().filter(unknown).copied().collect();
        // A confirmed block leaves the Tangle not before what it approves.
        if !unknown.is_empty() && self.is_confirmed(&block.id)? {
            return Ok(Received::Known);
        }
        if let Some(milestone) = &block.milestone
            && let Some(received) = self.judge_milestone(&core, milestone)?
        {
            return Ok(received);
        }
        for parent in &unknown {
            if self.is_confirmed(parent)? {
                let reason = format!(
                    "block {parent}, which it approves, was confirmed too long ago; ask for tips and attach again"
                );
                return Ok(Received::refused(RefusedCode::UnknownParent, &reason));
            }
        }
        if !unknown.is_empty() {
            return Ok(Received::Missing(unknown));
        }
        let factor = if block.source == Source::Asked { ASKED_FACTOR } else { 1 };
        let bytes = core.waiting_bytes.saturating_add(group.bytes).saturating_add(block.bytes.len());
        let waiting = core.waiting.len().saturating_add(group.fresh.len());
        if waiting >= WAITING_MAX * factor || bytes > WAITING_BYTES_MAX * factor {
            let reason = "too many blocks wait for a milestone; try again after the next one";
            return Ok(Received::refused(RefusedCode::Busy, reason));
        }
        group.bytes = group.bytes.saturating_add(block.bytes.len());
        group.ids.insert(block.id);
        group.fresh.push(block);
        Ok(Received::Added)
    }

    /// Why a block with this milestone is not taken; `None` if it may be: it is the next one, or says again
    /// what is known. Another one than the known one, with valid signatures, stops the node.
    fn judge_milestone(&self, core: &Core, milestone: &Milestone) -> Result<Option<Received>, NodeError> {
        let newest = &core.last.milestone;
        let index = milestone.essence.index;
        if index > newest.essence.index.saturating_add(1) {
            return Ok(Some(Received::Early { index }));
        }
        if let Err(error) = core.coordinators.verify(milestone) {
            return Ok(Some(Received::refused(RefusedCode::InvalidMilestone, &error)));
        }
        let known = if index > newest.essence.index {
            match milestone.essence.follows(&newest.essence) {
                Ok(()) => return Ok(None),
                Err(flash_proto::milestone::MilestoneError::Previous { .. }) => newest.clone(),
                Err(error) => {
                    return Ok(Some(Received::refused(RefusedCode::InvalidMilestone, &error)));
                }
            }
        } else {
            let Some(stored) = self.stored(records::milestone(self.store(), index))? else {
                let reason = format!("milestone {index} is long past");
                return Ok(Some(Received::refused(RefusedCode::InvalidMilestone, &reason)));
            };
            if stored.milestone.essence == milestone.essence {
                return Ok(None);
            }
            stored.milestone
        };
        Err(self.halt_for_fork(Fork { known, other: milestone.clone() }))
    }

    /// Keeps the evidence, and stops: whoever signed both has broken the ledger.
    fn halt_for_fork(&self, fork: Fork) -> NodeError {
        let mut batch = Batch::new();
        records::put_fork(&mut batch, &fork);
        // The writer is held by whoever takes blocks in.
        match self.store().commit(&batch) {
            Ok(_durable) => self.halt(&NodeError::Fork(Box::new(fork))),
            Err(error) => self.halt(&NodeError::Store(error)),
        }
    }

    fn commit_blocks(&self, writer: &Writer<'_>, group: Group) -> Result<(), NodeError> {
        let Group { fresh, .. } = group;
        if fresh.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        if self.shared.index {
            fresh.iter().try_for_each(|block| index::add(&mut batch, block.id, &block.bytes))?;
        }
        let mut pages = Pages::from(self.read().next_page);
        let places: Vec<Place> =
            fresh.iter().map(|block| pages.push(&block.bytes)).collect::<Result<_, _>>()?;
        let next_page = pages.write(&mut batch)?;
        let _durable = self.commit(writer, &batch)?;
        let mut core = self.write();
        core.next_page = next_page;
        let mut pairs = fresh.into_iter().zip(places);
        pairs.try_for_each(|(block, place)| self.hold(&mut core, block, place))
    }

    /// Takes a block over that is durable, and tells of it.
    pub(super) fn hold(&self, core: &mut Core, block: Prepared, place: Place) -> Result<(), NodeError> {
        let Prepared { id, parents, transaction, bytes, .. } = block;
        // Admitted, so all its parents are here.
        let held = core.hold(id, parents, Waiting { bytes: bytes.len(), place, transaction });
        held.map_err(|_| self.halt(&NodeError::Damaged("graph in memory")))?;
        // Nobody listening is no error.
        let _ = self.shared.arrivals.send(Arc::new(Arrival { id, bytes }));
        Ok(())
    }
}

/// Blocks that share a commit; later ones may approve earlier ones.
#[derive(Default)]
struct Group {
    fresh: Vec<Prepared>,
    ids: HashSet<BlockId>,
    bytes: usize,
}
