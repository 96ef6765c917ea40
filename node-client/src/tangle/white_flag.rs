//! The white-flag order (TIP-2): which blocks a milestone confirms, and in which order their transactions
//! are applied, the same on every node.

use std::{collections::HashSet, hash::Hash};

/// The unconfirmed blocks in the past cone of `roots`, each after all of its parents: a depth-first walk
/// that visits parents in the order in which a block names them.
///
/// `parents` gives a block's parents, or `None` where the walk ends: at confirmed blocks. It is called
/// once for each block.
///
/// ```
/// use flash_node_client::tangle::white_flag;
/// let parents = |block: &u32| match block {
///     4 => Some(vec![2, 3]),
///     2 | 3 => Some(vec![1]),
///     _ => None, // 1 is confirmed
/// };
/// assert_eq!(white_flag::order(&[4], parents), [2, 3, 4]);
/// ```
pub fn order<K: Copy + Eq + Hash>(roots: &[K], mut parents: impl FnMut(&K) -> Option<Vec<K>>) -> Vec<K> {
    let mut order = Vec::new();
    let mut seen: HashSet<K> = HashSet::new();
    // A frame is a block and the parents of it that are still to be visited, the next one last. A cone
    // may be 100,000 blocks deep, so the walk keeps its own stack.
    let mut stack: Vec<(Option<K>, Vec<K>)> = vec![(None, roots.iter().rev().copied().collect())];
    while let Some((block, to_visit)) = stack.last_mut() {
        if let Some(next) = to_visit.pop() {
            if seen.insert(next)
                && let Some(mut next_parents) = parents(&next)
            {
                next_parents.reverse();
                stack.push((Some(next), next_parents));
            }
        } else {
            order.extend(*block);
            stack.pop();
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use serde_json::Value;

    use super::*;

    /// The example of TIP-2 (CC0).
    #[test]
    fn the_published_example_comes_out() {
        let file: Value = serde_json::from_str(include_str!("../../vectors/tip2_white_flag.json")).unwrap();
        let names = |value: &Value| -> Vec<char> {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().chars().next().unwrap())
                .collect()
        };
        let parents: BTreeMap<char, Vec<char>> = file["parents"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(block, parents)| (block.chars().next().unwrap(), names(parents)))
            .collect();
        let first = order(&['H'], |block| parents.get(block).cloned());
        assert_eq!(first, names(&file["milestone_1"]["order_computed_by_us_not_published"]));
        let confirmed: HashSet<char> = first.into_iter().collect();
        let second = order(&['V'], |block| {
            (!confirmed.contains(block)).then(|| parents.get(block).cloned()).flatten()
        });
        assert_eq!(second, names(&file["milestone_2"]["order_published"]));
    }

    #[test]
    fn a_deep_cone_needs_no_deep_stack() {
        let order = order(&[1_000_000_u32], |block| (*block > 0).then(|| vec![block - 1]));
        assert_eq!(order.len(), 1_000_000);
        assert!(order.is_sorted());
    }
}
