//! Writing a node's own snapshot.

use std::io::{BufWriter, Write};

use flash_proto::{BlockId, ChannelId, OutputId, StateKey, TransactionId};

use super::{
    format::{Carried, Entries, FRAME_ENTRIES, Frames, Header, Recent, SnapshotError},
    verify::{SnapshotInfo, first_recent},
};
use crate::{
    ledger::StateValue,
    light::Checkpoint,
    node::{
        Node, NodeError,
        records::{self, INCLUDED, MilestoneRecord, TOUCHED},
    },
};

/// Bytes gathered for one write.
const BUFFER_BYTES: usize = 64 * 1024;

impl Node {
    /// Writes all of it while nothing else can become durable, so that what is read piece by piece is the state at
    /// one milestone.
    pub(super) fn write_parts(&self, out: impl Write) -> Result<SnapshotInfo, NodeError> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let mut frames = Frames::new(out).map_err(SnapshotError::from)?;
        let _writer = self.writer()?;
        let checkpoint = {
            let core = self.read();
            Checkpoint {
                essence: core.last.milestone.essence.clone(),
                coordinators: core.coordinators.clone(),
            }
        };
        if checkpoint.essence.index == 0 {
            return Err(SnapshotError::Genesis.into());
        }
        self.write_chain(&mut frames, &checkpoint)?;
        let (outputs, channels) = self.write_state(&mut frames)?;
        let (digest, bytes) = frames.finish().map_err(SnapshotError::from)?;
        Ok(SnapshotInfo { checkpoint, outputs, channels, digest, bytes })
    }

    /// The milestones, from the first that hands over to the newest with its block.
    fn write_chain(&self, frames: &mut Frames<impl Write>, at: &Checkpoint) -> Result<(), NodeError> {
        let newest = at.essence.index;
        let (network, milestone) = (at.essence.network, at.essence.id());
        frames.frame(&Header { network, index: newest, milestone })?;
        let first = first_recent(newest);
        for index in at.coordinators.hand_overs().filter(|index| *index < first) {
            frames.frame(&self.kept_milestone(index)?)?;
        }
        frames.end().map_err(SnapshotError::from)?;
        let mut block = BlockId::new([0; 32]);
        for index in first..=newest {
            let carried = self.kept_milestone(index)?;
            block = carried.block;
            let ids = |table| self.stored(records::ids(self.store(), table, index).map_err(NodeError::from));
            let (included, touched) = (ids(INCLUDED)?.collect(), ids(TOUCHED)?.collect());
            frames.frame(&Recent { carried, included, touched })?;
        }
        frames.end().map_err(SnapshotError::from)?;
        frames.frame(
            &self.block(&block)?.ok_or_else(|| self.halt(&NodeError::Damaged("newest milestone's block")))?,
        )?;
        frames.end().map_err(SnapshotError::from)?;
        Ok(())
    }

    fn kept_milestone(&self, index: u64) -> Result<Carried, NodeError> {
        let record = self.stored(records::milestone(self.store(), index))?;
        let carried = record.map(|MilestoneRecord { milestone, block, .. }| Carried { milestone, block });
        carried.ok_or_else(|| self.halt(&NodeError::Damaged("milestone")))
    }

    /// The state, from memory, in parts; how many outputs and channels there are.
    fn write_state(&self, frames: &mut Frames<impl Write>) -> Result<(u64, u64), SnapshotError> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut from = OutputId { transaction: TransactionId::new([0; 32]), index: 0 };
        loop {
            // Held for a part only. Whoever would change the state waits for the writer.
            let core = self.read();
            let mut outputs = core.ledger.outputs().range_from(from);
            let part = outputs.by_ref().take(FRAME_ENTRIES);
            let part = part.map(|(id, output)| (StateKey::Output(*id), StateValue::Output(*output)));
            let part: Entries = part.collect();
            let next = outputs.next().map(|(id, _)| *id);
            drop(outputs);
            drop(core);
            if !part.is_empty() {
                frames.frame(&part)?;
            }
            let Some(next) = next else { break };
            from = next;
        }
        let mut channels: Vec<ChannelId> = self.read().ledger.channels().keys().copied().collect();
        channels.sort_unstable();
        for part in channels.chunks(FRAME_ENTRIES) {
            let core = self.read();
            let record = |id: &ChannelId| core.ledger.channel(id).map(|record| StateValue::Channel(*record));
            let entries = part.iter().filter_map(|id| Some((StateKey::Channel(*id), record(id)?)));
            let entries: Entries = entries.collect();
            drop(core);
            frames.frame(&entries)?;
        }
        frames.end()?;
        let core = self.read();
        Ok((count(core.ledger.outputs_count()), count(core.ledger.channels_count())))
    }
}
