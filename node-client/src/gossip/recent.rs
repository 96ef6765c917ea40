//! A bounded memory of ids seen lately.

use std::collections::{HashSet, VecDeque};

/// The last so many ids, of which the first eight bytes are kept: they are hashes, so that others with the
/// same bytes take 2^64 tries to make.
#[derive(Debug)]
pub(super) struct Recent {
    max: usize,
    order: VecDeque<u64>,
    here: HashSet<u64>,
}

impl Recent {
    pub(super) fn new(max: usize) -> Self {
        Self { max, order: VecDeque::new(), here: HashSet::new() }
    }

    /// Remembers an id; whether it is new.
    pub(super) fn insert(&mut self, id: &[u8; 32]) -> bool {
        let short = short(id);
        if !self.here.insert(short) {
            return false;
        }
        self.order.push_back(short);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.here.remove(&oldest);
        }
        true
    }

    pub(super) fn contains(&self, id: &[u8; 32]) -> bool {
        self.here.contains(&short(id))
    }
}

fn short(id: &[u8; 32]) -> u64 {
    id.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(3);
        for n in 0..4 {
            assert!(recent.insert(&[n; 32]));
            assert!(!recent.insert(&[n; 32]));
        }
        assert!(!recent.contains(&[0; 32]));
        assert!((1..4).all(|n| recent.contains(&[n; 32])));
        assert_eq!((recent.order.len(), recent.here.len()), (3, 3));
    }
}
