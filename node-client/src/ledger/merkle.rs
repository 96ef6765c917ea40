//! The Merkle trees of a milestone (P26, the shape of TIP-4): a leaf is `H(0x00 ‖ id)`, a node
//! `H(0x01 ‖ left ‖ right)`, a tree of `n` leaves splits at the largest power of two below `n`, and the
//! root of nothing is `H()`.
//!
//! Such a tree is the same as pairing neighbours level by level, where the last node of an odd level
//! moves up unchanged; that is how it is computed here, without recursion.
//!
//! ```
//! use flash_node_client::ledger::merkle;
//!
//! let ids = [[1; 32], [2; 32], [3; 32]];
//! let root = merkle::root(ids);
//! let path = merkle::prove(ids, 2).ok_or("no such leaf")?;
//! assert!(path.verify(&root, &ids[2]));
//! assert!(!path.verify(&root, &ids[1]));
//! # Ok::<(), &str>(())
//! ```

use std::collections::HashMap;

use bincode::{Decode, Encode};
use flash_proto::Hash;
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_256};

/// The hash under a tree. The ledger's is SHA3-256; the published vectors use another one.
trait Hasher {
    fn hash(parts: &[&[u8]]) -> Hash;
}

struct Sha3;

impl Hasher for Sha3 {
    fn hash(parts: &[&[u8]]) -> Hash {
        let mut hasher = Sha3_256::new();
        for part in parts {
            hasher.update(part);
        }
        Hash::new(hasher.finalize().into())
    }
}

/// Shows that a leaf is under a root: the sibling on each level, from the leaf upwards.
///
/// A root does not commit to the number of leaves. A path that verifies proves that the leaf is in the
/// tree; its index and the number of leaves are what the prover says they are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPath {
    /// The leaf's place, from 0.
    pub index: u64,
    /// Leaves of the tree.
    pub leaves: u64,
    /// The siblings: exactly as many as a leaf at `index` of `leaves` has.
    pub siblings: Vec<Hash>,
}

impl AuditPath {
    /// Whether this path leads from `leaf` to `root`. A path that is too long or too short does not.
    #[must_use]
    pub fn verify(&self, root: &Hash, leaf: &[u8; 32]) -> bool {
        self.verify_with::<Sha3>(root, leaf)
    }

    fn verify_with<H: Hasher>(&self, root: &Hash, leaf: &[u8; 32]) -> bool {
        let (mut index, mut last) = match self.leaves.checked_sub(1) {
            Some(last) if self.index <= last => (self.index, last),
            _ => return false,
        };
        let mut siblings = self.siblings.iter();
        let mut hash = leaf_hash::<H>(leaf);
        while last > 0 {
            let moves_up_unchanged = index == last && index % 2 == 0;
            if !moves_up_unchanged {
                let Some(sibling) = siblings.next() else { return false };
                hash = if index % 2 == 0 {
                    node_hash::<H>(&hash, sibling)
                } else {
                    node_hash::<H>(sibling, &hash)
                };
            }
            index /= 2;
            last /= 2;
        }
        siblings.next().is_none() && hash == *root
    }
}

/// The root over `leaves`, in the order given.
pub fn root(leaves: impl IntoIterator<Item = [u8; 32]>) -> Hash {
    root_with::<Sha3>(leaves)
}

/// The audit path of the leaf at `index`, or `None` if there is no such leaf.
pub fn prove(leaves: impl IntoIterator<Item = [u8; 32]>, index: usize) -> Option<AuditPath> {
    prove_with::<Sha3>(leaves, index)
}

/// A tree that is kept, to prove many of its leaves.
#[derive(Debug)]
pub struct Tree {
    /// Where each leaf is.
    places: HashMap<[u8; 32], usize>,
    /// From the leaves' hashes up to the root.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over `leaves`, no two of them the same, in the order given.
    pub fn new(leaves: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let leaves: Vec<[u8; 32]> = leaves.into_iter().collect();
        let places = leaves.iter().enumerate().map(|(place, leaf)| (*leaf, place)).collect();
        Self { places, levels: levels::<Sha3>(leaves) }
    }

    /// The audit path of this leaf, or `None` if there is no such leaf.
    pub fn prove(&self, leaf: &[u8; 32]) -> Option<AuditPath> {
        path(&self.levels, *self.places.get(leaf)?)
    }
}

/// From the leaves' hashes up to the root.
fn levels<H: Hasher>(leaves: impl IntoIterator<Item = [u8; 32]>) -> Vec<Vec<Hash>> {
    let mut levels = vec![leaf_level::<H>(leaves)];
    while let Some(level) = levels.last().filter(|level| level.len() > 1) {
        levels.push(next_level::<H>(level));
    }
    levels
}

fn path(levels: &[Vec<Hash>], index: usize) -> Option<AuditPath> {
    let lowest = levels.first()?;
    lowest.get(index)?;
    let mut siblings = Vec::new();
    let mut place = index;
    for level in levels {
        siblings.extend(level.get(place ^ 1));
        place /= 2;
    }
    let leaves = u64::try_from(lowest.len()).ok()?;
    Some(AuditPath { index: u64::try_from(index).ok()?, leaves, siblings })
}

fn root_with<H: Hasher>(leaves: impl IntoIterator<Item = [u8; 32]>) -> Hash {
    let mut level = leaf_level::<H>(leaves);
    while level.len() > 1 {
        level = next_level::<H>(&level);
    }
    level.first().copied().unwrap_or_else(|| H::hash(&[]))
}

fn prove_with<H: Hasher>(leaves: impl IntoIterator<Item = [u8; 32]>, index: usize) -> Option<AuditPath> {
    path(&levels::<H>(leaves), index)
}

fn leaf_level<H: Hasher>(leaves: impl IntoIterator<Item = [u8; 32]>) -> Vec<Hash> {
    leaves.into_iter().map(|leaf| leaf_hash::<H>(&leaf)).collect()
}

fn next_level<H: Hasher>(level: &[Hash]) -> Vec<Hash> {
    let pair = |pair: &[Hash]| match pair {
        [left, right] => Some(node_hash::<H>(left, right)),
        odd => odd.first().copied(),
    };
    level.chunks(2).filter_map(pair).collect()
}

fn leaf_hash<H: Hasher>(leaf: &[u8; 32]) -> Hash {
    H::hash(&[&[0], leaf])
}

fn node_hash<H: Hasher>(left: &Hash, right: &Hash) -> Hash {
    H::hash(&[&[1], left.as_bytes(), right.as_bytes()])
}

#[cfg(test)]
mod tests {
    use blake2::{Blake2b, digest::consts::U32};
    use flash_proto::codec;
    use serde_json::Value;

    use super::*;

    struct Blake2b256;

    impl Hasher for Blake2b256 {
        fn hash(parts: &[&[u8]]) -> Hash {
            Hash::new(Blake2b::<U32>::digest(parts.concat()).into())
        }
    }

    fn ids(count: u8) -> Vec<[u8; 32]> {
        (0..count).map(|n| [n; 32]).collect()
    }

    /// TIP-4 (CC0).
    #[test]
    fn the_published_tree_comes_out() {
        let vector: Value =
            serde_json::from_str(include_str!("../../vectors/tip4_milestone_merkle.json")).unwrap();
        let list = |name: &str| -> Vec<Hash> { serde_json::from_value(vector[name].clone()).unwrap() };
        let one = |name: &str| -> Hash { serde_json::from_value(vector[name].clone()).unwrap() };
        let leaves: Vec<[u8; 32]> = list("leaves").iter().map(|leaf| *leaf.as_bytes()).collect();

        assert_eq!(leaf_level::<Blake2b256>(leaves.clone()), list("leaf_hashes"));
        assert_eq!(root_with::<Blake2b256>(leaves.clone()), one("root"));
        assert_eq!(root_with::<Blake2b256>([]), one("empty_root"));
        let published = [list("leaf_hashes"), list("inner_nodes_as_listed")].concat();
        for (index, leaf) in leaves.iter().enumerate() {
            let path = prove_with::<Blake2b256>(leaves.clone(), index).unwrap();
            assert!(path.verify_with::<Blake2b256>(&one("root"), leaf), "leaf {index}");
            assert!(path.siblings.iter().all(|node| published.contains(node)), "leaf {index}");
        }
    }

    /// The definition, word for word: recursive, splitting at the largest power of two below n.
    fn by_definition(leaves: &[[u8; 32]]) -> Hash {
        match leaves {
            [] => Sha3::hash(&[]),
            [leaf] => leaf_hash::<Sha3>(leaf),
            many => {
                let half = many.len().next_power_of_two() / 2;
                node_hash::<Sha3>(&by_definition(&many[..half]), &by_definition(&many[half..]))
            }
        }
    }

    #[test]
    fn every_small_tree_is_that_of_the_definition() {
        for count in 0..70 {
            let leaves = ids(count);
            let root = root(leaves.clone());
            assert_eq!(root, by_definition(&leaves), "{count} leaves");
            let kept = Tree::new(leaves.clone());
            assert_eq!(kept.prove(&[0xff; 32]), None);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = prove(leaves.clone(), index).unwrap();
                assert_eq!(kept.prove(leaf).as_ref(), Some(&path), "leaf {index} of {count}");
                assert!(path.verify(&root, leaf), "leaf {index} of {count}");
                let other = [0xff; 32];
                assert!(!path.verify(&root, &other), "leaf {index} of {count}");
                assert!(!path.verify(&Hash::ZERO, leaf), "leaf {index} of {count}");
            }
            assert_eq!(prove(leaves, usize::from(count)), None);
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        let leaves = ids(11);
        let root = root(leaves.clone());
        let good = prove(leaves.clone(), 6).unwrap();
        let leaf = &leaves[6];

        let mut short = good.clone();
        short.siblings.pop();
        assert!(!short.verify(&root, leaf));
        let mut long = good.clone();
        long.siblings.push(Hash::ZERO);
        assert!(!long.verify(&root, leaf));
        for leaves in [0, 1, 6, u64::MAX] {
            assert!(!AuditPath { leaves, ..good.clone() }.verify(&root, leaf), "{leaves} leaves");
        }
        for index in [5, 7, 11, u64::MAX] {
            assert!(!AuditPath { index, ..good.clone() }.verify(&root, leaf), "index {index}");
        }
        for level in 0..good.siblings.len() {
            let mut wrong = good.clone();
            wrong.siblings[level] = Hash::ZERO;
            assert!(!wrong.verify(&root, leaf), "sibling {level}");
        }
        // An inner node is no leaf: their hashes begin with different bytes.
        let node = AuditPath { index: 0, leaves: 1, siblings: vec![] };
        assert!(!node.verify(&root, root.as_bytes()));
        assert!(AuditPath { index: 0, leaves: 1, siblings: vec![] }.verify(&super::root([*leaf]), leaf));
    }

    #[test]
    fn a_path_has_one_encoding() {
        let path = prove(ids(11), 6).unwrap();
        let bytes = codec::encode(&path);
        assert_eq!(codec::decode::<AuditPath, 1024>(&bytes), Ok(path));
    }
}
