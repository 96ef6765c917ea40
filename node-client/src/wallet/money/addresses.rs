//! The addresses of a wallet, and of which of them the ledger is asked next.
//!
//! A wallet that has opened very many channels has given out as many addresses, and at nearly all of them nothing is going
//! to happen for long. So the ledger is asked each time of those where something may, and of the others in turns.

use std::collections::{BTreeMap, BTreeSet};

use flash_proto::Address;

/// Of so many that were given out last the ledger is asked each time: whoever was told one of them pays soon or never.
const RECENT: usize = 4_096;
/// Of so many others it is asked each time, by turns.
const TURN: usize = 4_096;

/// All addresses of a wallet, by the indices of their keys.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_index: Vec<Address>,
    indices: BTreeMap<Address, u32>,
    /// How many of them are written down.
    written: usize,
    /// The first of the next turn.
    turn: usize,
    /// Where money is to come about now, and whether that was to be asked since it was said.
    expected: BTreeMap<Address, bool>,
}

impl Addresses {
    /// Those that are written down.
    pub(super) fn written(by_index: Vec<Address>) -> Self {
        let indices = (0..).zip(&by_index).map(|(index, address)| (*address, index)).collect();
        Self { written: by_index.len(), by_index, indices, ..Self::default() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.by_index.len()).unwrap_or(u32::MAX)
    }

    /// Adds the next one.
    pub(super) fn push(&mut self, address: Address) {
        self.indices.insert(address, self.count());
        self.by_index.push(address);
    }

    pub(super) fn get(&self, index: u32) -> Option<Address> {
        self.by_index.get(usize::try_from(index).ok()?).copied()
    }

    /// Which key an address is of.
    pub(super) fn index(&self, address: &Address) -> Option<u32> {
        self.indices.get(address).copied()
    }

    pub(super) fn all(&self) -> &[Address] {
        &self.by_index
    }

    /// Those that were added since this was asked last, with their indices.
    pub(super) fn take_new(&mut self) -> Vec<(u32, Address)> {
        let first = u32::try_from(self.written).unwrap_or(u32::MAX);
        let new = self.by_index.get(self.written..).unwrap_or_default();
        self.written = self.by_index.len();
        (first..).zip(new.iter().copied()).collect()
    }

    /// Money is to come there about now.
    pub(super) fn expect(&mut self, address: Address) {
        self.expected.insert(address, false);
    }

    /// Of which the ledger is to be asked next: `held`, where outputs are, and those from index `since` on among them.
    pub(super) fn due(&mut self, since: u32, held: impl Iterator<Item = Address>) -> Vec<Address> {
        let since = usize::try_from(since).unwrap_or(usize::MAX);
        let (older, newer) = self.by_index.split_at(self.by_index.len().saturating_sub(RECENT).min(since));
        let rest = older.get(self.turn..).unwrap_or_default();
        let turn = rest.get(..TURN).unwrap_or(rest);
        self.turn = if turn.len() < rest.len() { self.turn.saturating_add(TURN) } else { 0 };
        self.expected.values_mut().for_each(|asked| *asked = true);
        let expected = self.expected.keys().copied();
        let due: BTreeSet<Address> =
            held.chain(expected).chain(newer.iter().copied()).chain(turn.iter().copied()).collect();
        due.into_iter().collect()
    }

    /// The ledger has answered what was due last.
    pub(super) fn answered(&mut self) {
        self.expected.retain(|_, asked| !*asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(index: usize) -> Address {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        Address::new(bytes)
    }

    fn addresses(count: usize) -> Addresses {
        Addresses::written((0..count).map(address).collect())
    }

    fn due(addresses: &mut Addresses) -> BTreeSet<Address> {
        addresses.due(u32::MAX, std::iter::empty()).into_iter().collect()
    }

    #[test]
    fn of_a_few_thousand_all_are_due_each_time() {
        let mut few = addresses(RECENT + TURN);
        for _ in 0..3 {
            assert_eq!(due(&mut few).len(), RECENT + TURN);
        }
    }

    #[test]
    fn of_many_the_newest_are_due_each_time_and_the_others_by_turns() {
        let older = 3 * TURN + 100;
        let mut many = addresses(older + RECENT);
        let newest: BTreeSet<Address> = (older..older + RECENT).map(address).collect();
        for _ in 0..2 {
            let mut seen = BTreeSet::new();
            for turn in [TURN, TURN, TURN, 100] {
                let due = due(&mut many);
                assert_eq!(due.len(), RECENT + turn);
                assert!(due.is_superset(&newest));
                seen.extend(due);
            }
            assert_eq!(seen.len(), older + RECENT, "each had its turn");
        }
    }

    #[test]
    fn where_outputs_are_and_from_an_index_on_all_are_due_each_time() {
        let mut many = addresses(10 * TURN);
        let (held, since) = (address(5 * TURN), 6 * TURN);
        for _ in 0..4 {
            let due = many.due(u32::try_from(since).unwrap(), std::iter::once(held));
            assert!(due.contains(&held));
            assert!((since..10 * TURN).all(|index| due.contains(&address(index))));
        }
    }

    #[test]
    fn what_is_expected_is_due_until_the_ledger_has_answered() {
        let mut many = addresses(10 * TURN);
        let [first, second] = [address(8 * TURN - 1), address(8 * TURN)];
        let is_due = |many: &mut Addresses| {
            let due = due(many);
            [first, second].map(|address| due.contains(&address))
        };
        many.expect(first);
        assert_eq!(is_due(&mut many), [true, false]);
        assert_eq!(is_due(&mut many), [true, false], "there was no answer");
        many.expect(second);
        many.answered();
        assert_eq!(is_due(&mut many), [false, true], "the second was said after the question");
        many.answered();
        assert_eq!(is_due(&mut many), [false, false]);
    }
}
