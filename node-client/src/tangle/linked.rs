//! The white paper's measures over what is held.
//!
//! Blocks that wait are *linked*: their parents are kept. So are the last [`LINKED_MAX`] confirmed ones
//! while they are held. All that came before counts as one beginning, without a weight of its own. A linked
//! block's cumulative weight and depth are exact, for what approves it came later and is linked too; its
//! score and height are counted from that beginning, and lose with time what passes into it. After a stored
//! graph was read, the beginning is its newest milestone.

use std::collections::HashMap;

use flash_proto::BlockId;

use super::{Graph, Measures, Tangle};

/// Confirmed blocks whose parents are kept: 4 MB if each has two, 14 MB if each has eight.
pub const LINKED_MAX: usize = 50_000;
/// Every block has proven the work that the network asks for, so each counts as much as any other.
pub(super) const OWN_WEIGHT: u64 = 1;

impl Tangle {
    /// What the white paper says of a block; `None` if it is not linked. Takes time linear in the number
    /// of linked blocks.
    pub fn measures(&self, block: &BlockId) -> Option<Measures> {
        self.blocks.get(block).filter(|vertex| !vertex.parents.is_empty())?;
        let mut graph = Graph::default();
        let beginning = graph.push(0, []);
        let mut places = HashMap::new();
        for (linked, parents) in self.linked() {
            let of = |parent| places.get(parent).copied().unwrap_or(beginning);
            places.insert(linked, graph.push(OWN_WEIGHT, parents.iter().map(of)));
        }
        graph.measures(*places.get(block)?)
    }

    /// The newest `blocks_max` linked blocks with their exact cumulative weights, parents first. For the
    /// time and memory that this takes see [`Graph::cumulative_weights`].
    pub fn cumulative_weights(&self, blocks_max: usize) -> Vec<(BlockId, u64)> {
        let confirmed: usize = self.linked_milestones().map(Vec::len).sum();
        let older = confirmed.saturating_add(self.waiting.len()).saturating_sub(blocks_max);
        let mut graph = Graph::default();
        let mut places = HashMap::new();
        let mut blocks = Vec::new();
        for (block, parents) in self.linked().skip(older) {
            let parents = parents.iter().filter_map(|parent| places.get(parent).copied());
            let place = graph.push(OWN_WEIGHT, parents);
            places.insert(block, place);
            blocks.push(*block);
        }
        blocks.into_iter().zip(graph.cumulative_weights()).collect()
    }

    /// The linked blocks with their parents, in an order of the graph: parents first.
    pub(super) fn linked(&self) -> impl Iterator<Item = (&BlockId, &[BlockId])> {
        let all = self.linked_milestones().flatten().chain(self.waiting.values());
        all.filter_map(|block| self.blocks.get_key_value(block))
            .map(|(block, vertex)| (block, vertex.parents.as_slice()))
    }

    fn linked_milestones(&self) -> impl Iterator<Item = &Vec<BlockId>> {
        self.confirmed.iter().skip(self.unlinked).map(|(_, blocks)| blocks)
    }

    /// Drops the parents of the oldest confirmed blocks beyond [`LINKED_MAX`], a milestone's together.
    pub(super) fn unlink(&mut self) {
        let mut linked: usize = self.linked_milestones().map(Vec::len).sum();
        while linked > LINKED_MAX
            && let Some((_, blocks)) = self.confirmed.get(self.unlinked)
        {
            for block in blocks {
                if let Some(vertex) = self.blocks.get_mut(block) {
                    vertex.parents = Vec::new();
                }
            }
            linked = linked.saturating_sub(blocks.len());
            self.unlinked = self.unlinked.saturating_add(1);
        }
    }
}
