//! Where nodes are said to be, and where they were reached.

use std::{collections::BTreeMap, time::Duration};

use flash_proto::PublicKey;

use crate::quic::PeerAddress;

/// Addresses known at once.
pub(super) const BOOK_MAX: usize = 512;
/// Of these, addresses that one neighbour told and that nobody was reached at yet.
const TOLD_MAX: usize = 64;
/// The first wait after a failure; the waits double…
const WAIT_MIN: Duration = Duration::from_millis(250);
/// … up to this …
const WAIT_MAX: Duration = Duration::from_secs(300);
/// … or this for addresses given by hand.
const WAIT_BY_HAND_MAX: Duration = Duration::from_secs(10);
/// Failures in a row after which an address is forgotten at which nobody was ever reached.
const FAILURES_MAX: u32 = 4;
/// The same for an address at which somebody was.
const FAILURES_REACHED_MAX: u32 = 12;

/// How well an address is known, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// This neighbour told it.
    Told(PublicKey),
    /// A machine with the right key answered there.
    Reached,
}

#[derive(Clone, Debug)]
struct Entry {
    address: PeerAddress,
    known: Known,
    by_hand: bool,
    failures: u32,
    /// Not dialled before.
    next: Duration,
}

/// Addresses, one for each key. Times are of any clock that does not go back; draws are random numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<PublicKey, Entry>,
}

impl Book {
    /// An address that the operator gave: kept until it is taken out by hand.
    pub(super) fn add_by_hand(&mut self, address: PeerAddress) {
        let known = match self.entries.get(&address.key) {
            Some(entry) if entry.address == address => entry.known,
            _ => Known::Told(address.key),
        };
        let entry = Entry { known, by_hand: true, failures: 0, next: Duration::ZERO, address };
        self.entries.insert(entry.address.key, entry);
    }

    /// An address that a neighbour told; whether it is news.
    pub(super) fn told(&mut self, address: PeerAddress, by: PublicKey) -> bool {
        match self.entries.get(&address.key) {
            // Only an address that failed gives way to another.
            Some(entry) if entry.by_hand || entry.failures == 0 || entry.address == address => return false,
            Some(_) => {}
            None => {
                let told = |entry: &&Entry| entry.known == Known::Told(by) && !entry.by_hand;
                if self.entries.values().filter(told).count() >= TOLD_MAX || !self.make_room() {
                    return false;
                }
            }
        }
        let entry =
            Entry { known: Known::Told(by), by_hand: false, failures: 0, next: Duration::ZERO, address };
        self.entries.insert(entry.address.key, entry);
        true
    }

    /// The machine with that key answered there; whether that is news.
    pub(super) fn reached(&mut self, address: &PeerAddress) -> bool {
        if !self.entries.contains_key(&address.key) && !self.make_room() {
            return false;
        }
        let old = self.entries.get(&address.key);
        let by_hand = old.is_some_and(|entry| entry.by_hand);
        let news = old.is_none_or(|entry| entry.known != Known::Reached || entry.address != *address);
        let entry = Entry {
            address: address.clone(),
            known: Known::Reached,
            by_hand,
            failures: 0,
            next: Duration::ZERO,
        };
        self.entries.insert(address.key, entry);
        news
    }

    /// Whether the machine with that key was reached at that address.
    pub(super) fn is_reached(&self, address: &PeerAddress) -> bool {
        let entry = self.entries.get(&address.key);
        entry.is_some_and(|entry| entry.known == Known::Reached && entry.address == *address)
    }

    /// Nobody with that key answered: not again for a while, of which half is drawn; or never.
    pub(super) fn failed(&mut self, key: &PublicKey, now: Duration, draw: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failures = entry.failures.saturating_add(1);
        let failures_max = if entry.known == Known::Reached { FAILURES_REACHED_MAX } else { FAILURES_MAX };
        if entry.failures >= failures_max && !entry.by_hand {
            self.entries.remove(key);
            return;
        }
        let factor = 1_u32.checked_shl(entry.failures.min(16)).unwrap_or(u32::MAX);
        let wait_max = if entry.by_hand { WAIT_BY_HAND_MAX } else { WAIT_MAX };
        let half = WAIT_MIN.saturating_mul(factor).min(wait_max) / 2;
        entry.next = now.saturating_add(half).saturating_add(half.mul_f64(fraction(draw)));
    }

    /// Not dialled for this time, however it went before.
    pub(super) fn rest(&mut self, key: &PublicKey, until: Duration) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.next = entry.next.max(until);
        }
    }

    /// Takes an address out; whether there was one.
    pub(super) fn forget(&mut self, key: &PublicKey) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Addresses to dial now: all that were given by hand, and others for as long as there are fewer than
    /// `count`, those first where somebody was reached.
    pub(super) fn to_dial(
        &self,
        now: Duration,
        count: usize,
        fit: impl Fn(&PublicKey) -> bool,
        draw: u64,
    ) -> Vec<PeerAddress> {
        let due = self.entries.values().filter(|entry| entry.next <= now && fit(&entry.address.key));
        let mut due: Vec<&Entry> = due.collect();
        let class = |entry: &Entry| (!entry.by_hand, entry.known != Known::Reached);
        due.sort_by_cached_key(|entry| (class(entry), mixed(&entry.address.key, draw)));
        let by_hand = due.iter().filter(|entry| entry.by_hand).count();
        due.into_iter().take(by_hand.max(count)).map(|entry| entry.address.clone()).collect()
    }

    /// At most `count` addresses for others, drawn from those at which somebody was reached.
    pub(super) fn sample(&self, count: usize, draw: u64) -> Vec<PeerAddress> {
        let good = |entry: &&Entry| entry.known == Known::Reached && entry.failures == 0;
        let mut good: Vec<&Entry> = self.entries.values().filter(good).collect();
        good.sort_by_cached_key(|entry| mixed(&entry.address.key, draw));
        good.into_iter().take(count).map(|entry| entry.address.clone()).collect()
    }

    /// All addresses at which somebody was reached.
    pub(super) fn all_reached(&self) -> impl Iterator<Item = &PeerAddress> {
        let reached = self.entries.values().filter(|entry| entry.known == Known::Reached);
        reached.map(|entry| &entry.address)
    }

    /// Makes room for one more: somebody goes at whose address nobody was reached, the one with the most
    /// failures; whether there is room then.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < BOOK_MAX {
            return true;
        }
        let others = self.entries.values().filter(|entry| !entry.by_hand && entry.known != Known::Reached);
        let worst = others.max_by_key(|entry| entry.failures).map(|entry| entry.address.key);
        worst.is_some_and(|key| self.entries.remove(&key).is_some())
    }
}

/// A draw as a part of one.
fn fraction(draw: u64) -> f64 {
    f64::from(u32::try_from(draw >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// An order that a draw decides, other than that of the keys.
fn mixed(key: &PublicKey, draw: u64) -> u64 {
    let bytes = key.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = (bytes ^ draw).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey::new(bytes)
    }

    fn address(n: usize) -> PeerAddress {
        PeerAddress::new(key(n), "192.0.2.1", 1).unwrap()
    }

    fn dialled(book: &Book, now: Duration, count: usize) -> Vec<PublicKey> {
        book.to_dial(now, count, |_| true, 7).into_iter().map(|address| address.key).collect()
    }

    #[test]
    fn reached_addresses_are_dialled_first_and_only_they_are_shared() {
        let mut book = Book::default();
        for n in 1..=5 {
            assert!(book.told(address(n), key(100)));
            assert!(!book.told(address(n), key(100)), "it is known already");
        }
        assert!(book.reached(&address(3)) && !book.reached(&address(3)));
        book.add_by_hand(address(9));
        assert_eq!(dialled(&book, Duration::ZERO, 2), [key(9), key(3)]);
        assert_eq!(dialled(&book, Duration::ZERO, 0), [key(9)]);
        assert_eq!(book.sample(10, 1), [address(3)]);
    }

    #[test]
    fn failures_wait_longer_each_time_and_are_forgotten() {
        let mut book = Book::default();
        book.told(address(1), key(100));
        book.add_by_hand(address(2));
        let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..FAILURES_MAX - 1 {
            book.failed(&key(1), now, 0);
            let wait = book.entries[&key(1)].next.saturating_sub(now);
            assert!(wait > last && dialled(&book, now, 8) == [key(2)]);
            (now, last) = (now + wait, wait);
            assert_eq!(dialled(&book, now, 8).len(), 2);
        }
        book.failed(&key(1), now, 0);
        for _ in 0..100 {
            book.failed(&key(2), now, u64::MAX);
        }
        assert_eq!(book.entries.keys().collect::<Vec<_>>(), [&key(2)], "by hand is kept");
        let wait = book.entries[&key(2)].next.saturating_sub(now);
        assert!(wait <= WAIT_BY_HAND_MAX && wait > WAIT_BY_HAND_MAX / 2);
    }

    #[test]
    fn lies_neither_fill_the_book_nor_move_an_address() {
        let mut book = Book::default();
        book.reached(&address(1));
        let moved = PeerAddress::new(key(1), "192.0.2.66", 1).unwrap();
        assert!(!book.told(moved, key(100)));
        for teller in 0..20 {
            for n in 0..1_000 {
                book.told(address(2 + teller * 1_000 + n), key(1_000_000 + teller));
            }
            let told =
                book.entries.values().filter(|entry| entry.known == Known::Told(key(1_000_000 + teller)));
            assert!(told.count() <= TOLD_MAX);
        }
        assert!(book.entries.len() <= BOOK_MAX);
        assert!(book.is_reached(&address(1)));
    }
}
