//! What the next milestone confirms and changes: proposed by a coordinator, worked out again by everyone
//! else, and made durable as one batch.

use std::sync::{Arc, PoisonError};

use flash_channel::store::Batch;
use flash_proto::{
    Block, BlockId, CoordinatorSet, Milestone, MilestoneEssence, MilestoneId, Payload, SecretKey, StateKey,
    block::Work, codec, limits::PARENTS_MAX,
};

use super::{
    Node, NodeError, Writer,
    core::Core,
    index, outputs,
    pages::{Pages, Place, Reader},
    receive::{Prepared, Received},
    records::{self, APPLIED, CHANNELS, Confirmed, INCLUDED, MILESTONES, MilestoneRecord, Outcome, TOUCHED},
};
use crate::{
    ledger::{Confirmation, StateValue},
    protocol::Followed,
};

/// Blocks that one milestone confirms at most, beside the few that tie tips together: so many change
/// the ledger within one ordinary interval on a small machine, and their ids are one stored page.
const MILESTONE_BLOCKS_MAX: usize = 7_000;
/// Blocks that the coordinator makes at most to tie tips together for one milestone.
const TIES_MAX: usize = 64;
/// Tips that these blocks reach: each takes eight and leaves one.
const HEADS_MAX: usize = PARENTS_MAX + TIES_MAX * (PARENTS_MAX - 1);
/// Blocks that a proposed milestone may confirm for this node to sign it: what [`MILESTONE_BLOCKS_MAX`] and
/// the ties of its own and of earlier attempts come to.
const CONE_BLOCKS_MAX: usize = MILESTONE_BLOCKS_MAX + 4 * TIES_MAX;

/// What a milestone confirms and changes, worked out against the newest state.
#[derive(Debug)]
pub(super) struct Draft {
    milestone: MilestoneId,
    included: Vec<BlockId>,
    confirmation: Confirmation,
}

/// What makes a milestone durable, and where its block stands then.
struct Written {
    batch: Batch,
    /// The blocks that expire.
    expired: Vec<BlockId>,
    place: Place,
    next_page: u64,
    outputs: outputs::Written,
}

/// What this node says of a milestone that a coordinator proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It follows from the blocks that it confirms.
    Right,
    /// Blocks that it approves are not here yet.
    Missing(Vec<BlockId>),
    /// It does not follow.
    Wrong(String),
}

impl Node {
    /// The next milestone as this node would make it, at `now_ms` milliseconds since 1970 or just after the
    /// one before it if that is later; `next` hands over to other coordinators.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or what the node stops for.
    pub fn propose(&self, now_ms: u64, next: Option<CoordinatorSet>) -> Result<MilestoneEssence, NodeError> {
        let writer = self.writer()?;
        let parents = self.milestone_parents(&writer)?;
        let previous = self.read().last.milestone.essence.clone();
        let later = previous.timestamp_ms.checked_add(1).ok_or(NodeError::Counter)?;
        self.draft(&previous, now_ms.max(later), parents, next)
    }

    /// Works a proposed milestone out again: whether it is what follows from its parents.
    ///
    /// # Errors
    /// [`NodeError::Halted`].
    pub fn judge(&self, essence: &MilestoneEssence) -> Result<Judgement, NodeError> {
        let _writer = self.writer()?;
        let core = self.read();
        let previous = core.last.milestone.essence.clone();
        if let Err(error) = essence.check_form().and_then(|()| essence.follows(&previous)) {
            return Ok(Judgement::Wrong(error.to_string()));
        }
        let missing = |parent: &&BlockId| !core.tangle.contains(parent);
        let missing: Vec<BlockId> = essence.parents.iter().filter(missing).copied().collect();
        if !missing.is_empty() {
            return Ok(Judgement::Missing(missing));
        }
        let confirmed = core.tangle.cone(&essence.parents).len();
        drop(core);
        if confirmed > CONE_BLOCKS_MAX {
            return Ok(Judgement::Wrong(format!("it confirms {confirmed} blocks at once")));
        }
        let parents = essence.parents.clone();
        let own = self.draft(&previous, essence.timestamp_ms, parents, essence.next.clone())?;
        let wrong = || Judgement::Wrong("another milestone follows from its parents".to_owned());
        Ok(if own == *essence { Judgement::Right } else { wrong() })
    }

    /// Takes a milestone that its coordinators have signed over: puts it into a block, and applies it.
    ///
    /// # Errors
    /// [`NodeError::Milestone`] if it is not the next one or not valid, [`NodeError::Halted`], or what the node
    /// stops for.
    pub fn publish(&self, milestone: Milestone) -> Result<Arc<Followed>, NodeError> {
        milestone.essence.follows(&self.read().last.milestone.essence)?;
        let index = milestone.essence.index;
        let parents = milestone.essence.parents.clone();
        let payload = Payload::Milestone(Box::new(milestone));
        let (block, bytes) = self.work(Block::new(parents, payload))?;
        let writer = self.writer()?;
        let received = self.take_in(&writer, vec![Prepared::own(block, bytes)]);
        drop(writer);
        self.alive()?;
        let newest = self.read().last.clone();
        if newest.milestone.essence.index < index {
            return Err(NodeError::NotTaken(received.into_iter().next().unwrap_or(Received::Known)));
        }
        Ok(newest)
    }

    /// Issues the next milestone with these keys alone.
    ///
    /// # Errors
    /// [`NodeError::Coordinators`] if the keys are too few, and those of [`Node::publish`].
    pub fn issue_milestone(&self, now_ms: u64, keys: &[SecretKey]) -> Result<Arc<Followed>, NodeError> {
        let set = self.read().coordinators.newest().clone();
        let mut signers: Vec<_> = keys.iter().filter(|key| set.keys.contains(&key.public())).collect();
        signers.sort_by_key(|key| key.public());
        signers.dedup_by_key(|key| key.public());
        if signers.len() < usize::from(set.threshold) {
            return Err(NodeError::Coordinators { given: signers.len(), threshold: set.threshold });
        }
        let essence = self.propose(now_ms, None)?;
        let signatures = signers.into_iter().map(|key| essence.sign(key)).collect();
        self.publish(Milestone { essence, signatures })
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
            heads.push(tie.id);
            ties.push(tie);
        }
        for received in self.take_in(writer, ties) {
            // Full memory refuses blocks, but never stops milestones, which empty it.
            if received != Received::Added {
                self.alive()?;
                heads = self.read().tangle.heads(MILESTONE_BLOCKS_MAX, PARENTS_MAX);
                break;
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

    /// Works out the milestone after `previous`, the newest one, and keeps what it would change: mostly it is
    /// the one that comes.
    fn draft(
        &self,
        previous: &MilestoneEssence,
        timestamp_ms: u64,
        parents: Vec<BlockId>,
        next: Option<CoordinatorSet>,
    ) -> Result<MilestoneEssence, NodeError> {
        let index = previous.index.checked_add(1).ok_or(NodeError::Counter)?;
        let (included, confirmation) = work_out(&self.read(), index, &parents);
        let essence = MilestoneEssence {
            network: previous.network,
            index,
            timestamp_ms,
            previous: previous.id(),
            parents,
            included_root: confirmation.included_root,
            applied_root: confirmation.applied_root,
            channels_root: confirmation.channels_root,
            state_root: confirmation.state_root,
            next,
        };
        *self.kept_draft() = Some(Draft { milestone: essence.id(), included, confirmation });
        Ok(essence)
    }

    fn kept_draft(&self) -> std::sync::MutexGuard<'_, Option<Draft>> {
        self.shared.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the next milestone, whose signatures were checked and whose parents are in the Tangle.
    pub(super) fn apply_milestone(
        &self,
        writer: &Writer<'_>,
        milestone: Milestone,
        block: Prepared,
    ) -> Result<(), NodeError> {
        let essence = &milestone.essence;
        let kept = self.kept_draft().take().filter(|draft| draft.milestone == essence.id());
        let draft = kept.unwrap_or_else(|| {
            let (included, confirmation) = work_out(&self.read(), essence.index, &essence.parents);
            Draft { milestone: essence.id(), included, confirmation }
        });
        check_roots(essence, &draft.confirmation).map_err(|error| self.halt(&error))?;
        let written = self.stored(self.write_milestone(&milestone, &block, &draft))?;
        let _durable = self.commit(writer, &written.batch)?;
        self.take_over(milestone, block, draft, written)
    }

    /// Everything that the milestone changes, as one batch.
    fn write_milestone(
        &self,
        milestone: &Milestone,
        block: &Prepared,
        draft: &Draft,
    ) -> Result<Written, NodeError> {
        let Draft { included, confirmation, .. } = draft;
        let index = milestone.essence.index;
        let mut batch = Batch::new();
        let included_ids: Vec<_> = included.iter().map(|block| *block.as_bytes()).collect();
        let applied: Vec<_> = confirmation.applied.iter().map(|(block, _)| *block.as_bytes()).collect();
        let touched: Vec<_> = confirmation.channels.iter().map(|channel| *channel.as_bytes()).collect();
        records::put_ids(&mut batch, INCLUDED, index, &included_ids);
        records::put_ids(&mut batch, APPLIED, index, &applied);
        records::put_ids(&mut batch, TOUCHED, index, &touched);
        for (key, value) in &confirmation.changes {
            match (key, value) {
                (StateKey::Channel(id), Some(StateValue::Channel(record))) => {
                    batch.put(CHANNELS, id.as_bytes(), codec::encode(record));
                }
                (StateKey::Channel(id), _) => batch.delete(CHANNELS, id.as_bytes()),
                (StateKey::Output(_), _) => {}
            }
        }
        for (block, id) in &confirmation.applied {
            records::put_outcome(&mut batch, *id, &Outcome::Applied { block: *block, milestone: index });
        }
        for (block, id, conflict) in &confirmation.conflicts {
            // What was applied stays applied, however often it is attached again.
            let applied = confirmation.applied.iter().any(|(_, applied)| applied == id)
                || matches!(records::outcome(self.store(), *id)?, Some(Outcome::Applied { .. }));
            if !applied {
                let outcome = Outcome::Rejected { block: *block, milestone: index, conflict: *conflict };
                records::put_outcome(&mut batch, *id, &outcome);
            }
        }
        let core = self.read();
        let outputs = core.journal.write(&mut batch, core.ledger.outputs(), &confirmation.changes, index);
        for id in included {
            let place = core.waiting.get(id).map(|waiting| waiting.place);
            let place = place.ok_or(NodeError::Damaged("graph in memory"))?;
            records::put_confirmed(&mut batch, id, &Confirmed { place, milestone: index });
        }
        let expiring = core.tangle.expiring(index, included);
        let expired: Vec<_> = expiring.into_iter().map(|(_, block)| block).collect();
        if self.shared.index {
            index::confirm(&mut batch, confirmation);
        }
        let mut reader = Reader::default();
        for (gone, waiting) in expired.iter().filter_map(|gone| core.waiting.get_key_value(gone)) {
            let bytes = reader.block(self.store(), waiting.place)?;
            index::remove(&mut batch, *gone, &bytes.ok_or(NodeError::Damaged("waiting block"))?)?;
        }
        let mut pages = Pages::from(core.next_page);
        let place = pages.push(&block.bytes)?;
        let next_page = pages.write(&mut batch)?;
        let record = MilestoneRecord {
            milestone: milestone.clone(),
            block: block.id,
            waiting_page: core.waiting_page(included, &expired).unwrap_or(place.page),
            confirmed: core.confirmed.saturating_add(u64::try_from(included.len()).unwrap_or(u64::MAX)),
        };
        batch.put(MILESTONES, &index.to_be_bytes(), codec::encode(&record));
        if milestone.essence.next.is_some() {
            let mut coordinators = core.coordinators.clone();
            coordinators.follow(&milestone.essence);
            records::put_coordinators(&mut batch, &coordinators);
        }
        records::put_past(&mut batch, &core.past_with(included));
        Ok(Written { batch, expired, place, next_page, outputs })
    }

    /// Takes a milestone over that is durable.
    fn take_over(
        &self,
        milestone: Milestone,
        block: Prepared,
        draft: Draft,
        written: Written,
    ) -> Result<(), NodeError> {
        let Draft { included, confirmation, .. } = draft;
        let (index, own) = (milestone.essence.index, block.id);
        let mut core = self.write();
        core.past = core.past_with(&included);
        core.next_page = written.next_page;
        core.confirmed = core.confirmed.saturating_add(u64::try_from(included.len()).unwrap_or(u64::MAX));
        self.hold(&mut core, block, written.place)?;
        let Core { ledger, journal, .. } = &mut *core;
        journal.take_over(written.outputs, ledger.outputs_mut());
        ledger.accept(&confirmation);
        for gone in included.iter().chain(&written.expired) {
            core.release(gone);
        }
        core.tangle.confirm(index, own, included);
        core.coordinators.follow(&milestone.essence);
        let followed = Arc::new(Followed { milestone, channels: confirmation.channels });
        core.set_last(followed);
        drop(core);
        self.shared.newest.send_replace(index);
        Ok(())
    }
}

/// The blocks that milestone `index` with these parents confirms, and what they change.
fn work_out(core: &Core, index: u64, parents: &[BlockId]) -> (Vec<BlockId>, Confirmation) {
    let included = core.tangle.cone(parents);
    let transaction = |block: &BlockId| core.waiting.get(block).and_then(|held| held.transaction.as_ref());
    let blocks: Vec<_> = included.iter().map(|block| (*block, transaction(block))).collect();
    let confirmation = core.ledger.confirm(index, &blocks);
    (included, confirmation)
}

fn check_roots(essence: &MilestoneEssence, confirmation: &Confirmation) -> Result<(), NodeError> {
    let roots = [
        ("included root", essence.included_root, confirmation.included_root),
        ("applied root", essence.applied_root, confirmation.applied_root),
        ("channels root", essence.channels_root, confirmation.channels_root),
        ("state root", essence.state_root, confirmation.state_root),
    ];
    let different = roots.into_iter().find(|(_, signed, own)| signed != own);
    different.map_or(Ok(()), |(what, ..)| Err(NodeError::Roots { index: essence.index, what }))
}
