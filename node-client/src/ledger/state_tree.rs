//! The sparse Merkle tree over the ledger's state: every unspent output and every channel record.
//!
//! It maps 32-byte keys to 32-byte value hashes. An empty subtree is 32 zero bytes, a subtree with one
//! entry is that entry's leaf, so that the depth follows the number of entries, not of bits. The root
//! depends on the entries alone, never on the order in which they came or on entries that are gone.
//!
//! Nodes are shared (`Arc`): a clone is a snapshot that costs nothing, and an update copies only the
//! path to what it changes. Subtrees of a few entries are one list of them, whose inner hashes are worked
//! out when they are needed: that takes half the memory of a node for each.

mod proof;

use std::{sync::Arc, thread};

use flash_proto::{
    Hash,
    hash::{Layout, Tag},
};

pub use self::proof::{Landmarks, Presence, Proof, ProofError};

/// Entries of a subtree that is kept as a list. More would take less memory, but longer to hash at a change.
const LEAVES_MAX: usize = 8;
/// Down to here the halves are hashed side by side: four threads at most,
const DEPTH_APART: usize = 2;
/// if so many entries change that it is worth it.
const CHANGES_APART: usize = 512;

/// The tree. A clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct StateTree {
    root: Node,
}

/// A change of one entry: its key, and its new value hash or `None` to remove it.
pub type Change = (Hash, Option<Hash>);

/// A subtree with its hash, which stands where the parent is read.
#[derive(Clone, Debug, Default)]
enum Node {
    #[default]
    Empty,
    /// One entry up to [`LEAVES_MAX`], in rising order.
    Leaves(Hash, Arc<[Leaf]>),
    /// More than that. Halves may be empty.
    Branch(Hash, Arc<[Node; 2]>),
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    key: Hash,
    value: Hash,
    hash: Hash,
}

impl Leaf {
    fn new(key: Hash, value: Hash) -> Self {
        Self { key, value, hash: leaf_hash(&key, &value) }
    }
}

impl Node {
    const fn hash(&self) -> Hash {
        match self {
            Self::Empty => Hash::ZERO,
            Self::Leaves(hash, _) | Self::Branch(hash, _) => *hash,
        }
    }

    /// The entries, if there are few.
    fn leaves(&self) -> Option<&[Leaf]> {
        match self {
            Self::Empty => Some(&[]),
            Self::Leaves(_, leaves) => Some(leaves),
            Self::Branch(..) => None,
        }
    }
}

fn leaf_hash(key: &Hash, value: &Hash) -> Hash {
    Layout::new(Tag::TREE_LEAF).bytes(key.as_bytes()).bytes(value.as_bytes()).hash()
}

fn branch_hash(left: &Hash, right: &Hash) -> Hash {
    Layout::new(Tag::TREE_NODE).bytes(left.as_bytes()).bytes(right.as_bytes()).hash()
}

/// Whether the path of `key` turns right at `depth`; the most significant bit comes first.
fn turns_right(key: &Hash, depth: usize) -> bool {
    let byte = key.as_bytes().get(depth >> 3).copied().unwrap_or(0);
    byte & (0x80 >> (depth & 7)) != 0
}

/// Sorted leaves of one path up to `depth`, by where they turn there.
fn halves(leaves: &[Leaf], depth: usize) -> (&[Leaf], &[Leaf]) {
    leaves.split_at(leaves.partition_point(|leaf| !turns_right(&leaf.key, depth)))
}

/// The same for changes.
fn halves_of(changes: &[Change], depth: usize) -> (&[Change], &[Change]) {
    changes.split_at(changes.partition_point(|(key, _)| !turns_right(key, depth)))
}

/// The hash of a subtree of these entries at `depth`. Two different keys part at the latest in their last bit,
/// so the depth stays below 256.
fn hash_of(leaves: &[Leaf], depth: usize) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [leaf] => leaf.hash,
        _ => {
            let (left, right) = halves(leaves, depth);
            let next = depth.saturating_add(1);
            branch_hash(&hash_of(left, next), &hash_of(right, next))
        }
    }
}

impl StateTree {
    /// An empty tree.
    pub const fn new() -> Self {
        Self { root: Node::Empty }
    }

    /// The root hash.
    pub fn root(&self) -> Hash {
        self.root.hash()
    }

    /// Makes all changes at once, hashing every touched branch once. Of several changes of one key the
    /// last counts.
    pub fn apply(&mut self, mut changes: Vec<Change>) {
        // Stable, so that the last of several changes of one key stays the last.
        changes.sort_by_key(|(key, _)| *key);
        changes.reverse();
        changes.dedup_by_key(|(key, _)| *key);
        changes.reverse();
        self.root = update(&self.root, 0, &changes);
    }

    /// Proves what is, or that nothing is, under `key`.
    pub fn prove(&self, key: &Hash) -> Proof {
        let mut proof = Proof::default();
        let (mut node, mut depth) = (&self.root, 0_usize);
        while let Node::Branch(_, halves) = node {
            let [left, right] = &**halves;
            let (next, sibling) = if turns_right(key, depth) { (right, left) } else { (left, right) };
            proof.push(depth, sibling.hash());
            node = next;
            depth = depth.saturating_add(1);
        }
        let mut leaves = node.leaves().unwrap_or_default();
        while leaves.len() > 1 {
            let (left, right) = halves(leaves, depth);
            let (next, sibling) = if turns_right(key, depth) { (right, left) } else { (left, right) };
            depth = depth.saturating_add(1);
            proof.push(depth.saturating_sub(1), hash_of(sibling, depth));
            leaves = next;
        }
        proof.other = leaves.first().filter(|leaf| leaf.key != *key).map(|leaf| (leaf.key, leaf.value));
        proof
    }
}

/// The subtree after `changes`, which are sorted, of one path up to `depth`, and at most one a key.
fn update(node: &Node, depth: usize, changes: &[Change]) -> Node {
    if changes.is_empty() {
        return node.clone();
    }
    match node {
        Node::Empty => grow(&[], changes, depth),
        Node::Leaves(_, leaves) => grow(leaves, changes, depth),
        Node::Branch(_, halves) => {
            let [left, right] = &**halves;
            let (to_left, to_right) = halves_of(changes, depth);
            let next = depth.saturating_add(1);
            let update_right = || update(right, next, to_right);
            if depth >= DEPTH_APART || changes.len() < CHANGES_APART {
                return join(update(left, next, to_left), update_right());
            }
            thread::scope(|scope| {
                // Where there is no thread to be had, the right half waits for its turn.
                let apart = thread::Builder::new().spawn_scoped(scope, update_right);
                let left = update(left, next, to_left);
                let right = apart.map_or_else(|_| update_right(), joined);
                join(left, right)
            })
        }
    }
}

/// What a thread has worked out; its panic, a broken invariant, goes on here.
fn joined<T>(apart: thread::ScopedJoinHandle<'_, T>) -> T {
    apart.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The same for a subtree that held few entries.
fn grow(old: &[Leaf], changes: &[Change], depth: usize) -> Node {
    // Of so many together more than a list holds are different keys, which part further down.
    if old.len().saturating_add(changes.len()) > 2 * LEAVES_MAX {
        let ((old_left, old_right), (left, right)) = (halves(old, depth), halves_of(changes, depth));
        let next = depth.saturating_add(1);
        return join(grow(old_left, left, next), grow(old_right, right, next));
    }
    let kept = old.iter().filter(|leaf| changes.iter().all(|(key, _)| *key != leaf.key)).copied();
    let set = changes.iter().filter_map(|(key, value)| value.map(|value| Leaf::new(*key, value)));
    let mut leaves: Vec<Leaf> = kept.chain(set).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.key);
    build(&leaves, depth)
}

fn build(leaves: &[Leaf], depth: usize) -> Node {
    match leaves.len() {
        0 => Node::Empty,
        1..=LEAVES_MAX => Node::Leaves(hash_of(leaves, depth), leaves.into()),
        _ => {
            let (left, right) = halves(leaves, depth);
            let next = depth.saturating_add(1);
            join(build(left, next), build(right, next))
        }
    }
}

/// Puts two halves together. A subtree with a single leaf is that leaf, wherever it hangs.
fn join(left: Node, right: Node) -> Node {
    let hash = || branch_hash(&left.hash(), &right.hash());
    match (left.leaves(), right.leaves()) {
        (Some([]), Some([] | [_])) => right,
        (Some([_]), Some([])) => left,
        (Some(few), Some(others)) if few.len().saturating_add(others.len()) <= LEAVES_MAX => {
            Node::Leaves(hash(), [few, others].concat().into())
        }
        _ => Node::Branch(hash(), Arc::new([left, right])),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word: no sharing, no incremental updates.
    fn reference_root(entries: &[(Hash, Hash)], depth: usize) -> Hash {
        match entries {
            [] => Hash::ZERO,
            [(key, value)] => leaf_hash(key, value),
            _ => {
                let (left, right): (Vec<_>, Vec<_>) =
                    entries.iter().partition(|(key, _)| !turns_right(key, depth));
                branch_hash(&reference_root(&left, depth + 1), &reference_root(&right, depth + 1))
            }
        }
    }

    /// Keys that share long prefixes, so that deep branches and collapses happen.
    fn key(n: u16) -> Hash {
        let mut bytes = [0; 32];
        bytes[0] = (n & 3) as u8;
        bytes[20] = (n >> 2 & 3) as u8;
        bytes[31] = (n >> 4).to_le_bytes()[0];
        Hash::new(bytes)
    }

    fn value(n: u8) -> Hash {
        Hash::new([n; 32])
    }

    proptest! {
        // Paths here are up to 256 branches deep, so a case is half a million hashes.
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn the_root_depends_on_the_entries_alone(
            batches in proptest::collection::vec(proptest::collection::vec((0_u16..256, proptest::option::of(1_u8..)), 0..20), 1..12)
        ) {
            let mut tree = StateTree::new();
            let mut reference = BTreeMap::new();
            for batch in batches {
                for (n, v) in &batch {
                    match v {
                        Some(v) => reference.insert(key(*n), value(*v)),
                        None => reference.remove(&key(*n)),
                    };
                }
                let snapshot = tree.clone();
                let before = snapshot.root();
                tree.apply(batch.iter().map(|(n, v)| (key(*n), v.map(value))).collect());
                prop_assert_eq!(snapshot.root(), before, "a snapshot does not change");
                let entries: Vec<_> = reference.iter().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(tree.root(), reference_root(&entries, 0));
            }
            for n in 0..256 {
                let (key, held) = (key(n), reference.get(&key(n)).copied());
                let proof = tree.prove(&key);
                let proven = held.map_or(Presence::Absent, Presence::Present);
                prop_assert_eq!(proof.verify(tree.root(), &key, held), Ok(proven));
                // No other statement about the key passes, whatever proof comes with it.
                let lie = if held.is_some() { None } else { Some(value(9)) };
                for m in (n % 64..256).step_by(64) {
                    prop_assert!(tree.prove(&self::key(m)).verify(tree.root(), &key, lie).is_err());
                }
                prop_assert!(proof.verify(tree.root(), &key, Some(value(0))).is_err());
                prop_assert!(proof.verify(Hash::new([1; 32]), &key, held).is_err());
            }
        }
    }

    #[test]
    fn changed_proofs_are_refused() {
        let mut tree = StateTree::new();
        tree.apply((0..200).map(|n| (key(n), Some(value(1)))).collect());
        let proof = tree.prove(&key(7));
        let refused = |change: fn(&mut Proof)| {
            let mut changed = proof.clone();
            change(&mut changed);
            assert!(changed.verify(tree.root(), &key(7), Some(value(1))).is_err());
        };
        refused(|proof| proof.depth += 1);
        refused(|proof| proof.depth -= 1);
        refused(|proof| proof.depth = u16::MAX);
        refused(|proof| proof.siblings.push(Hash::ZERO));
        refused(|proof| proof.siblings.truncate(proof.siblings.len() - 1));
        refused(|proof| proof.present[31] ^= 1);
        refused(|proof| proof.present[0] ^= 0x80);
        refused(|proof| proof.other = Some((key(8), value(1))));
    }

    #[test]
    fn halves_that_are_hashed_side_by_side_come_to_the_same() {
        let hashed = |n: u32| Layout::new(Tag::STATE_KEY).u32(n).hash();
        let entries: Vec<_> = (0..5_000).map(|n| (hashed(n), Some(value(1)))).collect();
        let (mut at_once, mut in_steps) = (StateTree::new(), StateTree::new());
        at_once.apply(entries.clone());
        entries.chunks(CHANGES_APART / 2).for_each(|few| in_steps.apply(few.to_vec()));
        assert_eq!(at_once.root(), in_steps.root());
        let other: Vec<_> = (1_000..4_000).map(|n| (hashed(n), (n % 3 > 0).then(|| value(2)))).collect();
        at_once.apply(other.clone());
        other.chunks(CHANGES_APART / 2).for_each(|few| in_steps.apply(few.to_vec()));
        assert_eq!(at_once.root(), in_steps.root());
    }

    #[test]
    fn proofs_stay_small() {
        let mut tree = StateTree::new();
        let hashed = |n: u32| Layout::new(Tag::STATE_KEY).u32(n).hash();
        tree.apply((0..100_000).map(|n| (hashed(n), Some(value(1)))).collect());
        let longest = (0..2_000).map(|n| flash_proto::codec::encode(&tree.prove(&hashed(n))).len()).max();
        assert!(longest < Some(1_200), "{longest:?}");
    }
}
