//! The measures of the Tangle white paper (S. Popov, *The Tangle*, version 1.4.3, sections 2 and 3).
//!
//! | measure | of a block |
//! | --- | --- |
//! | own weight | the work that it proves |
//! | cumulative weight | its own weight, and those of all blocks that approve it, directly or not |
//! | score | its own weight, and those of all blocks that it approves, directly or not |
//! | height | the steps of the longest path from it down to the genesis |
//! | depth | the steps of the longest path from a tip down to it |

/// Blocks that are counted together while cumulative weights are added up: 64 bytes for each block.
const COLUMNS: usize = WORDS * 64;
const WORDS: usize = 8;

/// What the white paper says of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// The work that it proves.
    pub own_weight: u64,
    /// Its own weight, and those of all that approve it, directly or not.
    pub cumulative_weight: u64,
    /// Its own weight, and those of all that it approves, directly or not.
    pub score: u64,
    /// Steps of the longest path from it down to the beginning.
    pub height: u64,
    /// Steps of the longest path from a tip down to it.
    pub depth: u64,
}

/// A graph whose blocks are named by their place: each has a lower place than all that approve it.
///
/// ```
/// use flash_node_client::tangle::Graph;
/// let mut graph = Graph::default();
/// let genesis = graph.push(1, []);
/// let left = graph.push(1, [genesis]);
/// let right = graph.push(1, [genesis]);
/// graph.push(1, [left, right]);
/// assert_eq!(graph.cumulative_weights(), [4, 2, 2, 1]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Graph {
    own_weights: Vec<u64>,
    /// The parents of all blocks, one block's after the other's.
    parents: Vec<usize>,
    /// Where the parents of each block end.
    ends: Vec<usize>,
}

impl Graph {
    /// Adds a block and returns its place. It can approve only blocks that are here: what is no place
    /// yet, its own one included, is passed over.
    pub fn push(&mut self, own_weight: u64, parents: impl IntoIterator<Item = usize>) -> usize {
        let place = self.len();
        self.parents.extend(parents.into_iter().filter(|parent| *parent < place));
        self.ends.push(self.parents.len());
        self.own_weights.push(own_weight);
        place
    }

    /// Blocks in the graph.
    pub fn len(&self) -> usize {
        self.own_weights.len()
    }

    /// Whether no block is in the graph.
    pub fn is_empty(&self) -> bool {
        self.own_weights.is_empty()
    }

    /// The blocks that approve each one directly.
    pub(super) fn children(&self) -> Vec<Vec<usize>> {
        let mut children = vec![Vec::new(); self.len()];
        for place in 0..self.len() {
            for parent in self.parents(place) {
                children.get_mut(*parent).into_iter().for_each(|of: &mut Vec<usize>| of.push(place));
            }
        }
        children
    }

    /// All measures of one block, exactly, in time and memory linear in the graph; `None` if it has no
    /// such place.
    pub fn measures(&self, place: usize) -> Option<Measures> {
        let own_weight = *self.own_weights.get(place)?;
        let (cumulative_weight, depth) = self.future(place);
        let (score, height) = self.past(place);
        Some(Measures { own_weight, cumulative_weight, score, height, depth })
    }

    /// The cumulative weights of all blocks, exactly: 512 approving blocks at a time are passed down as bits.
    /// Takes 72 bytes for each block, and time that grows with blocks × links: some 5 hundredths of a second
    /// for 32,768 blocks, half a second for 100,000.
    pub fn cumulative_weights(&self) -> Vec<u64> {
        let mut weights = vec![0_u64; self.len()];
        let mut approved_by = vec![[0_u64; WORDS]; self.len()];
        for first in (0..self.len()).step_by(COLUMNS) {
            let end = first.saturating_add(COLUMNS).min(self.len());
            self.mark_approved(first, end, &mut approved_by);
            let planes = self.planes(first, end);
            for (weight, row) in weights.iter_mut().zip(&approved_by).take(end) {
                *weight = weight.saturating_add(weigh(row, &planes));
            }
        }
        weights
    }

    /// Marks in the row of every block which of the blocks from `first` up to `end` are it or approve it.
    fn mark_approved(&self, first: usize, end: usize, rows: &mut [[u64; WORDS]]) {
        rows.fill([0; WORDS]);
        for place in (0..end).rev() {
            let Some(row) = rows.get_mut(place) else { continue };
            if let Some(column) = place.checked_sub(first) {
                set_bit(row, column);
            }
            let row = *row;
            for parent in self.parents(place) {
                let Some(parent) = rows.get_mut(*parent) else { continue };
                parent.iter_mut().zip(row).for_each(|(to, from)| *to |= from);
            }
        }
    }

    /// The own weights of the blocks from `first` up to `end`, bit by bit: which of them have the bit
    /// of that value.
    fn planes(&self, first: usize, end: usize) -> Vec<(u64, [u64; WORDS])> {
        let own_weights = || self.own_weights.iter().take(end).skip(first);
        let used = own_weights().fold(0, |used, weight| used | weight);
        let bits = (0..u64::BITS).map(|bit| 1_u64 << bit).filter(|bit| used & bit != 0);
        bits.map(|bit| {
            let mut plane = [0; WORDS];
            let with_bit = own_weights().enumerate().filter(|(_, weight)| **weight & bit != 0);
            with_bit.for_each(|(column, _)| set_bit(&mut plane, column));
            (bit, plane)
        })
        .collect()
    }

    fn parents(&self, place: usize) -> &[usize] {
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(place).copied().unwrap_or(start);
        self.parents.get(start..end).unwrap_or_default()
    }

    /// The weight of a block and of all that approve it, and its depth.
    fn future(&self, block: usize) -> (u64, u64) {
        let (mut weight, mut depth) = (0_u64, 0);
        // Steps of the longest path from each later block down to this one.
        let mut steps: Vec<Option<u64>> = vec![None; self.len()];
        for (place, own_weight) in self.own_weights.iter().enumerate().skip(block) {
            let approved = self.parents(place).iter().filter_map(|parent| *steps.get(*parent)?).max();
            let found = if place == block { Some(0) } else { approved.map(|steps| steps.saturating_add(1)) };
            if let (Some(found), Some(steps)) = (found, steps.get_mut(place)) {
                *steps = Some(found);
                weight = weight.saturating_add(*own_weight);
                depth = depth.max(found);
            }
        }
        (weight, depth)
    }

    /// The weight of a block and of all that it approves, and its height.
    fn past(&self, block: usize) -> (u64, u64) {
        let (mut weight, mut height) = (0_u64, 0);
        // Steps of the longest path from this block down to each earlier one.
        let mut steps: Vec<Option<u64>> = vec![None; block.saturating_add(1)];
        steps.last_mut().into_iter().for_each(|own| *own = Some(0));
        for (place, own_weight) in self.own_weights.iter().enumerate().take(steps.len()).rev() {
            let Some(found) = steps.get(place).copied().flatten() else { continue };
            weight = weight.saturating_add(*own_weight);
            height = height.max(found);
            for parent in self.parents(place) {
                let Some(of_parent) = steps.get_mut(*parent) else { continue };
                *of_parent = (*of_parent).max(Some(found.saturating_add(1)));
            }
        }
        (weight, height)
    }
}

fn set_bit(row: &mut [u64; WORDS], column: usize) {
    if let Some(word) = row.get_mut(column / 64) {
        *word |= 1 << (column % 64);
    }
}

/// Adds up the own weights of the blocks that a row marks.
fn weigh(row: &[u64; WORDS], planes: &[(u64, [u64; WORDS])]) -> u64 {
    let of_plane = |(bit, plane): &(u64, [u64; WORDS])| {
        let ones = row.iter().zip(plane).map(|(row, plane)| u64::from((row & plane).count_ones())).sum();
        bit.saturating_mul(ones)
    };
    planes.iter().map(of_plane).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
