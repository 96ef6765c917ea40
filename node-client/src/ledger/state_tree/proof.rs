//! Proofs of what is in the tree, and checking many of them.

use std::{collections::BTreeMap, iter::Rev, slice::Iter};

use bincode::{Decode, Encode};
use flash_proto::Hash;
use thiserror::Error;

use super::{branch_hash, leaf_hash, turns_right};

/// Levels of the tree at most: the bits of a key.
const DEPTH_MAX: usize = 256;
/// Landmarks stand so deep and above: there are at most 8,190 of them, which take 400 kB.
const LANDMARK_DEPTH: usize = 12;

/// Proof of what is under a key, against a root. At a million entries it is about 700 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// Branches between the root and the end of the key's path.
    pub(super) depth: u16,
    /// One bit a depth, most significant first: whether the sibling there is not empty.
    pub(super) present: [u8; 32],
    /// The siblings that are not empty, from the root down.
    pub(super) siblings: Vec<Hash>,
    /// The entry of another key at the end of the path, which proves that the key itself is absent.
    pub(super) other: Option<(Hash, Hash)>,
}

/// What a proof proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The key is there, with this value hash.
    Present(Hash),
    /// The key is not there.
    Absent,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The proof does not lead to the root: it is of another state, another key, or made up.
    #[error("the proof does not lead to the state root")]
    Root,
    /// The proof's parts do not fit together.
    #[error("the proof is malformed")]
    Malformed,
    /// The entry at the end of the path is not on the key's path.
    #[error("the proof's other entry is not on the key's path")]
    OtherPath,
}

impl Proof {
    pub(super) fn push(&mut self, depth: usize, sibling: Hash) {
        if sibling != Hash::ZERO {
            if let Some(byte) = self.present.get_mut(depth >> 3) {
                *byte |= 0x80 >> (depth & 7);
            }
            self.siblings.push(sibling);
        }
        self.depth = self.depth.saturating_add(1);
    }

    /// Checks that under `root` the `key` has exactly the value hash `expected`, or is absent if that
    /// is `None`.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, root: Hash, key: &Hash, expected: Option<Hash>) -> Result<Presence, ProofError> {
        let mut climb = self.climb(key, expected)?;
        climb.up_to(0)?;
        climb.is(root)?;
        Ok(expected.map_or(Presence::Absent, Presence::Present))
    }

    /// Begins at the end of the key's path, if the proof has the form of one.
    fn climb<'a>(&'a self, key: &'a Hash, expected: Option<Hash>) -> Result<Climb<'a>, ProofError> {
        let depth = usize::from(self.depth);
        if depth > DEPTH_MAX || self.depth_present() > depth || self.count_present() != self.siblings.len() {
            return Err(ProofError::Malformed);
        }
        let hash = match (expected, &self.other) {
            (Some(value), None) => leaf_hash(key, &value),
            (None, None) => Hash::ZERO,
            (None, Some((other, value))) => {
                let same_path = (0..depth).all(|at| turns_right(other, at) == turns_right(key, at));
                if other == key || !same_path {
                    return Err(ProofError::OtherPath);
                }
                leaf_hash(other, value)
            }
            (Some(_), Some(_)) => return Err(ProofError::Malformed),
        };
        Ok(Climb { key, bits: Hash::new(self.present), siblings: self.siblings.iter().rev(), depth, hash })
    }

    /// Siblings that are not empty, by the bits.
    fn count_present(&self) -> usize {
        self.present.iter().map(|byte| byte.count_ones()).sum::<u32>().try_into().unwrap_or(usize::MAX)
    }

    /// Levels down to the deepest of them.
    fn depth_present(&self) -> usize {
        let above = |at: usize| at.saturating_mul(8).saturating_add(8);
        let deepest = self.present.iter().enumerate().rfind(|(_, byte)| **byte != 0);
        deepest
            .map_or(0, |(at, byte)| above(at).saturating_sub(byte.trailing_zeros().try_into().unwrap_or(0)))
    }
}

/// On the way from the end of a key's path to the root.
struct Climb<'a> {
    key: &'a Hash,
    bits: Hash,
    siblings: Rev<Iter<'a, Hash>>,
    depth: usize,
    hash: Hash,
}

impl Climb<'_> {
    fn up_to(&mut self, depth: usize) -> Result<(), ProofError> {
        for at in (depth..self.depth).rev() {
            let sibling = if turns_right(&self.bits, at) {
                *self.siblings.next().ok_or(ProofError::Malformed)?
            } else {
                Hash::ZERO
            };
            self.hash = if turns_right(self.key, at) {
                branch_hash(&sibling, &self.hash)
            } else {
                branch_hash(&self.hash, &sibling)
            };
        }
        self.depth = self.depth.min(depth);
        Ok(())
    }

    fn is(&self, root: Hash) -> Result<(), ProofError> {
        if self.hash == root { Ok(()) } else { Err(ProofError::Root) }
    }
}

/// Branches that are proven to be in one tree. A proof that leads to one of them need not be followed to the root,
/// which saves most of the hashes where very many proofs are of one state.
#[derive(Clone, Debug)]
pub struct Landmarks {
    root: Hash,
    /// By [`place`].
    branches: BTreeMap<u16, Hash>,
}

impl Landmarks {
    /// Of the tree with this root: none yet.
    pub const fn new(root: Hash) -> Self {
        Self { root, branches: BTreeMap::new() }
    }

    /// The root of the tree.
    pub const fn root(&self) -> Hash {
        self.root
    }

    /// As [`Proof::verify`] against this root, up to the first branch that is known; remembers those on the way of a proof
    /// that is right.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(
        &mut self,
        proof: &Proof,
        key: &Hash,
        expected: Option<Hash>,
    ) -> Result<Presence, ProofError> {
        let mut climb = proof.climb(key, expected)?;
        let (mut passed, mut known) = ([(0, Hash::ZERO); LANDMARK_DEPTH], false);
        // At the end of the path there is no branch, and only a few keys come by.
        let depth = climb.depth.saturating_sub(1).min(LANDMARK_DEPTH);
        for (at, passed) in (1..=depth).rev().zip(&mut passed) {
            climb.up_to(at)?;
            *passed = (place(key, at), climb.hash);
            known = self.branches.get(&passed.0) == Some(&passed.1);
            if known {
                break;
            }
        }
        if !known {
            climb.up_to(0)?;
            climb.is(self.root)?;
        }
        self.branches.extend(passed.into_iter().filter(|(place, _)| *place > 0));
        Ok(expected.map_or(Presence::Absent, Presence::Present))
    }
}

/// A number for the first turns of a key's path, at most [`LANDMARK_DEPTH`]: a one, and a bit for each of them.
fn place(key: &Hash, turns: usize) -> u16 {
    let first = key.as_bytes().first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    (first >> 1 | 1 << 15) >> 15_usize.saturating_sub(turns)
}

#[cfg(test)]
mod tests {
    use flash_proto::hash::{Layout, Tag};

    use super::*;
    use crate::ledger::state_tree::StateTree;

    fn hashed(n: u32) -> Hash {
        Layout::new(Tag::STATE_KEY).u32(n).hash()
    }

    fn value(n: u32) -> Hash {
        Layout::new(Tag::STATE_VALUE).u32(n).hash()
    }

    fn tree(entries: u32) -> StateTree {
        let mut tree = StateTree::new();
        tree.apply((0..entries).map(|n| (hashed(n), Some(value(n)))).collect());
        tree
    }

    /// Whatever landmarks are there, what is right without them is right with them, and what passes is true.
    #[test]
    fn landmarks_let_nothing_pass_that_is_not_so() {
        for entries in [0, 1, 50, 5_000, 40_000] {
            let (tree, other) = (tree(entries), tree(entries + 1));
            let mut landmarks = Landmarks::new(tree.root());
            for n in (0..entries + 50).step_by(7).chain([entries; 2]) {
                let key = hashed(n);
                let (right, wrong) = (tree.prove(&key), other.prove(&key));
                let held = (n < entries).then(|| value(n));
                for expected in [held, None, Some(value(n)), Some(value(n + 1))] {
                    for proof in [&right, &wrong, &tree.prove(&hashed(n + 1))] {
                        let without = proof.verify(tree.root(), &key, expected);
                        let with = landmarks.verify(proof, &key, expected);
                        assert!(with.is_err() || expected == held, "{n} of {entries}: {expected:?}");
                        assert!(with == without || without.is_err(), "{n} of {entries}: {with:?}");
                    }
                }
                assert!(landmarks.verify(&right, &key, held).is_ok());
            }
        }
    }

    /// Each level's branch is hashed, or one that was proven is reached: a changed proof does not pass because the right one
    /// did before.
    #[test]
    fn a_proof_that_was_changed_below_a_landmark_is_refused() {
        let tree = tree(40_000);
        let mut landmarks = Landmarks::new(tree.root());
        let key = hashed(3);
        let proof = tree.prove(&key);
        landmarks.verify(&proof, &key, Some(value(3))).unwrap();
        assert_eq!(landmarks.branches.len(), LANDMARK_DEPTH);
        let below = proof.siblings.len() - 1;
        let mut changed = proof.clone();
        changed.siblings[below] = value(0);
        assert_eq!(landmarks.verify(&changed, &key, Some(value(3))), Err(ProofError::Root));
        let mut longer = proof.clone();
        longer.siblings.push(value(0));
        assert_eq!(landmarks.verify(&longer, &key, Some(value(3))), Err(ProofError::Malformed));
        let mut shorter = proof;
        shorter.siblings.pop();
        assert_eq!(landmarks.verify(&shorter, &key, Some(value(3))), Err(ProofError::Malformed));
        assert_eq!(landmarks.branches.len(), LANDMARK_DEPTH, "nothing wrong is remembered");
    }

    #[test]
    fn there_are_never_more_than_8_190_landmarks() {
        let tree = tree(100_000);
        let mut landmarks = Landmarks::new(tree.root());
        for n in 0..100_000 {
            landmarks.verify(&tree.prove(&hashed(n)), &hashed(n), Some(value(n))).unwrap();
        }
        assert_eq!(landmarks.branches.len(), 8_190);
    }
}
