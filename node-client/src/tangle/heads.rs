//! What the next milestone approves.

use std::collections::HashSet;

use flash_proto::BlockId;

use super::{Tangle, Vertex};

impl Tangle {
    /// What the next milestone shall approve, never nothing: the newest milestone's block, and at most
    /// `heads_max` in all. The past of all these holds at most `blocks_max` waiting blocks beside that
    /// milestone's.
    ///
    /// Half of the room is for the heads of the oldest blocks that stand on recent ones only; the rest is
    /// for the oldest of all. So whoever attaches any number of blocks to old ones does not delay the
    /// others, and is confirmed all the same when its turn comes.
    pub fn heads(&self, blocks_max: usize, heads_max: usize) -> Vec<BlockId> {
        // Both choices are closed under "approves": parents came before their children, and a block that
        // stands on recent ones only has only such parents.
        let recent = self.waiting_vertices();
        let recent = recent.filter(|(_, vertex)| vertex.state.roots().all_recent(self.newest_milestone));
        let mut chosen: Vec<&BlockId> = recent.map(|(block, _)| block).take(blocks_max / 2).collect();
        let approved = self.approved_by(&chosen);
        let not_approved = chosen.iter().copied().filter(|block| !approved.contains(block));
        let recent_heads: Vec<&BlockId> = not_approved.take(heads_max / 2).collect();

        let taken: HashSet<&BlockId> = chosen.iter().copied().collect();
        let others = self.waiting.values().filter(|block| !taken.contains(block));
        chosen.extend(others.take(blocks_max.saturating_sub(taken.len())));
        let approved = self.approved_by(&chosen);
        let heads = |block: &&BlockId| !approved.contains(block);
        let milestone = Some(&self.milestone_block).filter(heads);
        let others = chosen.into_iter().filter(heads);
        let mut named = HashSet::new();
        let all = milestone.into_iter().chain(recent_heads).chain(others);
        all.filter(|block| named.insert(*block)).take(heads_max).copied().collect()
    }

    fn approved_by(&self, blocks: &[&BlockId]) -> HashSet<&BlockId> {
        blocks.iter().filter_map(|block| self.blocks.get(block)).flat_map(|vertex| &vertex.parents).collect()
    }

    /// The waiting blocks in the order of arrival.
    pub(super) fn waiting_vertices(&self) -> impl Iterator<Item = (&BlockId, &Vertex)> {
        self.waiting.values().filter_map(|block| self.blocks.get_key_value(block))
    }
}
