//! Blocks whose parents are not here yet, and whom to ask for those.
//!
//! Every neighbour has a fixed share of the room, so that none can crowd out another. A missing parent is
//! asked of the neighbour that sent its child first, who must have it, then of others; where nobody
//! answers the children are let go.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use flash_proto::{BlockId, PublicKey};

/// Blocks held for one neighbour.
pub(super) const ORPHANS_MAX: usize = 256;
/// Their bytes together.
pub(super) const ORPHAN_BYTES_MAX: usize = 1024 * 1024;
/// Neighbours that are asked for one parent, before it is given up.
const ASKED_MAX: usize = 4;
/// How long a neighbour has to answer before the next one is asked.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// A block that waits for its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    pub(super) id: BlockId,
    pub(super) bytes: Vec<u8>,
    /// Who sent it.
    pub(super) from: PublicKey,
    /// Parents that are still missing.
    missing: HashSet<BlockId>,
}

/// A parent that is missing.
#[derive(Debug, Default)]
struct Missing {
    children: Vec<BlockId>,
    asked: Vec<PublicKey>,
    /// When the neighbour asked last is given up; zero if none is being asked.
    until: Duration,
}

#[derive(Debug, Default)]
struct Share {
    blocks: usize,
    bytes: usize,
}

/// The neighbour's share of the room is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Orphans {
    held: HashMap<BlockId, Orphan>,
    missing: HashMap<BlockId, Missing>,
    shares: HashMap<PublicKey, Share>,
}

impl Orphans {
    /// Holds a block until its missing parents are here.
    pub(super) fn add(
        &mut self,
        id: BlockId,
        bytes: Vec<u8>,
        from: PublicKey,
        missing: &[BlockId],
    ) -> Result<(), NoRoom> {
        if self.held.contains_key(&id) || missing.is_empty() {
            return Ok(());
        }
        let share = self.shares.entry(from).or_default();
        let bytes_now = share.bytes.saturating_add(bytes.len());
        if share.blocks >= ORPHANS_MAX || bytes_now > ORPHAN_BYTES_MAX {
            return Err(NoRoom);
        }
        (share.blocks, share.bytes) = (share.blocks.saturating_add(1), bytes_now);
        for parent in missing {
            self.missing.entry(*parent).or_default().children.push(id);
        }
        self.held.insert(id, Orphan { id, bytes, from, missing: missing.iter().copied().collect() });
        Ok(())
    }

    /// Whether a neighbour sent a block that misses one of these.
    pub(super) fn has_sent_children_of(&self, from: &PublicKey, ids: &HashSet<BlockId>) -> bool {
        let children = ids.iter().filter_map(|id| self.missing.get(id)).flat_map(|missing| &missing.children);
        children.filter_map(|child| self.held.get(child)).any(|orphan| orphan.from == *from)
    }

    /// A block is in the Tangle now: the blocks that waited for nothing else.
    pub(super) fn arrived(&mut self, id: &BlockId) -> Vec<Orphan> {
        let children = self.missing.remove(id).map(|missing| missing.children).unwrap_or_default();
        let mut ready = Vec::new();
        for child in children {
            let Some(orphan) = self.held.get_mut(&child) else { continue };
            orphan.missing.remove(id);
            if orphan.missing.is_empty() {
                ready.extend(self.remove(&child));
            }
        }
        ready
    }

    /// Whom to ask now for what. `neighbours` are those that can be asked, the best first. A parent that
    /// is held as an orphan itself is on its way.
    pub(super) fn asks(
        &mut self,
        now: Duration,
        neighbours: &[PublicKey],
    ) -> BTreeMap<PublicKey, Vec<BlockId>> {
        let mut asks: BTreeMap<PublicKey, Vec<BlockId>> = BTreeMap::new();
        let mut given_up = Vec::new();
        for (id, missing) in &mut self.missing {
            if missing.until > now || self.held.contains_key(id) {
                continue;
            }
            let senders = missing.children.iter().filter_map(|child| Some(self.held.get(child)?.from));
            let mut candidates =
                senders.filter(|key| neighbours.contains(key)).chain(neighbours.iter().copied());
            match candidates.find(|key| !missing.asked.contains(key)) {
                Some(next) if missing.asked.len() < ASKED_MAX => {
                    missing.asked.push(next);
                    missing.until = now.saturating_add(ANSWER_WAIT);
                    asks.entry(next).or_default().push(*id);
                }
                _ => given_up.push(*id),
            }
        }
        for id in given_up {
            self.give_up(&id);
        }
        asks
    }

    /// A neighbour does not have a parent that it was asked for: the next one is asked at once.
    pub(super) fn not_there(&mut self, id: &BlockId) {
        if let Some(missing) = self.missing.get_mut(id) {
            missing.until = Duration::ZERO;
        }
    }

    /// Lets go of all that one neighbour sent.
    pub(super) fn forget(&mut self, from: &PublicKey) {
        let gone: Vec<_> =
            self.held.values().filter(|orphan| orphan.from == *from).map(|orphan| orphan.id).collect();
        for id in gone {
            self.remove(&id);
        }
        self.shares.remove(from);
    }

    /// Lets go of a missing block, and of all that waits for it, and for those in turn.
    pub(super) fn give_up(&mut self, id: &BlockId) {
        let mut gone = vec![*id];
        while let Some(id) = gone.pop() {
            let children = self.missing.remove(&id).map(|missing| missing.children).unwrap_or_default();
            for child in children {
                if self.remove(&child).is_some() {
                    gone.push(child);
                }
            }
        }
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn remove(&mut self, id: &BlockId) -> Option<Orphan> {
        let orphan = self.held.remove(id)?;
        for parent in &orphan.missing {
            if let Some(missing) = self.missing.get_mut(parent) {
                missing.children.retain(|child| child != id);
                if missing.children.is_empty() {
                    self.missing.remove(parent);
                }
            }
        }
        if let Some(share) = self.shares.get_mut(&orphan.from) {
            share.blocks = share.blocks.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(orphan.bytes.len());
        }
        Some(orphan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId::new([n; 32])
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::new([n; 32])
    }

    fn ids(orphans: &[Orphan]) -> Vec<BlockId> {
        let mut ids: Vec<_> = orphans.iter().map(|orphan| orphan.id).collect();
        ids.sort_unstable();
        ids
    }

    fn empty(orphans: &Orphans) -> bool {
        orphans.held.is_empty()
            && orphans.missing.is_empty()
            && orphans.shares.values().all(|share| (share.blocks, share.bytes) == (0, 0))
    }

    #[test]
    fn a_block_is_ready_when_its_last_parent_is_here() {
        let mut orphans = Orphans::default();
        orphans.add(id(3), vec![3], key(1), &[id(1), id(2)]).unwrap();
        orphans.add(id(4), vec![4], key(1), &[id(2)]).unwrap();
        assert_eq!(ids(&orphans.arrived(&id(2))), [id(4)]);
        assert!(orphans.held.contains_key(&id(3)));
        assert_eq!(ids(&orphans.arrived(&id(1))), [id(3)]);
        assert!(empty(&orphans));
    }

    #[test]
    fn the_sender_is_asked_first_then_others_then_it_is_given_up() {
        let mut orphans = Orphans::default();
        orphans.add(id(2), vec![0; 10], key(2), &[id(1)]).unwrap();
        // Waits for the one that waits: not asked for.
        orphans.add(id(3), vec![0; 10], key(2), &[id(2)]).unwrap();
        let neighbours = [key(1), key(2), key(3)];
        let at = Duration::from_secs;
        let ask = |to| BTreeMap::from([(key(to), vec![id(1)])]);
        assert_eq!(orphans.asks(at(0), &neighbours), ask(2));
        assert!(orphans.asks(at(2), &neighbours).is_empty());
        assert_eq!(orphans.asks(at(3), &neighbours), ask(1));
        orphans.not_there(&id(1));
        assert_eq!(orphans.asks(at(3), &neighbours), ask(3));
        assert!(orphans.asks(at(6), &neighbours).is_empty());
        assert!(empty(&orphans), "{orphans:?}");
    }

    #[test]
    fn nobody_takes_more_than_its_share() {
        let mut orphans = Orphans::default();
        let many = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            BlockId::new(bytes)
        };
        for n in 0..ORPHANS_MAX {
            orphans.add(many(n), vec![0; 64], key(1), &[many(n + 10_000)]).unwrap();
        }
        assert_eq!(orphans.add(many(5_000), vec![0; 64], key(1), &[id(255)]), Err(NoRoom));
        assert_eq!(orphans.add(many(5_000), vec![0; ORPHAN_BYTES_MAX + 1], key(2), &[id(255)]), Err(NoRoom));
        orphans.add(many(5_000), vec![0; 64], key(2), &[id(255)]).unwrap();
        orphans.forget(&key(1));
        assert_eq!(orphans.held.len(), 1);
        orphans.give_up(&id(255));
        assert!(empty(&orphans));
    }
}
