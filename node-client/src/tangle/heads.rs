//! What the next milestone approves.

use std::collections::{BTreeMap, HashMap, HashSet};

use flash_proto::BlockId;

use super::Tangle;

/// Waiting blocks by their number, closed under "approves".
type Chosen<'a> = BTreeMap<u64, &'a BlockId>;

impl Tangle {
    /// What the next milestone shall approve, never nothing: a block over the newest milestone's, or that
    /// one itself, and at most `heads_max` in all. The past of all these holds at most `blocks_max` waiting
    /// blocks beside that milestone's.
    ///
    /// Half of the room is for the oldest blocks that stand on recent ones only; the rest is for the oldest
    /// of all. So whoever attaches any number of blocks to old ones does not delay the others, and is
    /// confirmed all the same when its turn comes. In each half the oldest blocks are approved first, over
    /// whatever head is above them: no new block can push an older one back.
    pub fn heads(&self, blocks_max: usize, heads_max: usize) -> Vec<BlockId> {
        // Parents came before their children, and a block that stands on recent ones only has only such
        // parents: so both choices are closed.
        let recent = self.waiting.iter().filter(|(_, block)| self.stands_on_recent(block));
        let recent: Chosen<'_> =
            recent.map(|(number, block)| (*number, block)).take(blocks_max / 2).collect();
        let others = self.waiting.iter().filter(|(number, _)| !recent.contains_key(number));
        let others = others.take(blocks_max.saturating_sub(recent.len()));
        let chosen: Chosen<'_> =
            others.map(|(number, block)| (*number, block)).chain(recent.clone()).collect();

        let head_of = self.heads_over(&chosen);
        let head_of_recent = self.heads_over(&recent);
        let milestone = head_of.get(&self.milestone_block).copied().unwrap_or(&self.milestone_block);
        let mut named = HashSet::new();
        let over_recent = unique(&recent, &head_of_recent).into_iter().take(heads_max / 2);
        let all = std::iter::once(milestone).chain(over_recent).chain(unique(&chosen, &head_of));
        all.filter(|block| named.insert(*block)).take(heads_max).copied().collect()
    }

    fn stands_on_recent(&self, block: &BlockId) -> bool {
        let vertex = self.blocks.get(block);
        vertex.is_some_and(|vertex| vertex.state.roots().all_recent(self.newest_milestone))
    }

    /// For each chosen block, one above it, or itself, that no chosen one approves.
    fn heads_over<'a>(&'a self, chosen: &Chosen<'a>) -> HashMap<&'a BlockId, &'a BlockId> {
        let mut head_of = HashMap::new();
        for block in chosen.values().rev() {
            let head = *head_of.entry(*block).or_insert(*block);
            for parent in self.blocks.get(block).into_iter().flat_map(|vertex| &vertex.parents) {
                head_of.entry(parent).or_insert(head);
            }
        }
        head_of
    }
}

/// The different heads over the chosen blocks, in the order of the oldest block under each.
fn unique<'a>(chosen: &Chosen<'a>, head_of: &HashMap<&'a BlockId, &'a BlockId>) -> Vec<&'a BlockId> {
    let mut seen = HashSet::new();
    let heads = chosen.values().filter_map(|block| head_of.get(block).copied());
    heads.filter(|head| seen.insert(*head)).collect()
}
