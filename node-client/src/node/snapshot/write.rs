//! Writing a node's own snapshot.

use std::io::{BufWriter, Write};

use flash_channel::store::records::{decode, for_each};
use flash_proto::BlockId;

use super::{
    format::{Carried, Entries, FRAME_ENTRIES, Frames, Header, Recent, SnapshotError},
    verify::{SnapshotInfo, first_recent},
};
use crate::{
    ledger::StateValue,
    light::Checkpoint,
    node::{
        Node, NodeError,
        records::{self, INCLUDED, MilestoneRecord, STATE, TOUCHED},
    },
};

/// Bytes gathered for one write.
const BUFFER_BYTES: usize = 64 * 1024;

impl Node {
    /// Writes all of it while nothing else can become durable, so that what is read from the disk piece by
    /// piece is the state at one milestone.
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

    /// The state, page by page; how many outputs and channels there are.
    fn write_state(&self, frames: &mut Frames<impl Write>) -> Result<(u64, u64), NodeError> {
        let (mut page, mut outputs, mut channels) = (Entries::new(), 0_u64, 0_u64);
        let written = for_each(self.store(), STATE, &[], |(key, value)| {
            let (key, value) = (decode(STATE, &key, &key)?, decode(STATE, &key, &value)?);
            let count = match value {
                StateValue::Output(_) => &mut outputs,
                StateValue::Channel(_) => &mut channels,
            };
            *count = count.saturating_add(1);
            page.push((key, value));
            if page.len() >= FRAME_ENTRIES {
                frames.frame(&page)?;
                page.clear();
            }
            Ok::<_, NodeError>(())
        });
        // A damaged store stops the node; a full disk under the snapshot does not.
        match written {
            Err(error @ NodeError::Store(_)) => return Err(self.halt(&error)),
            other => other?,
        }
        if !page.is_empty() {
            frames.frame(&page)?;
        }
        frames.end().map_err(SnapshotError::from)?;
        Ok((outputs, channels))
    }
}
