//! The unspent outputs, in pages of neighbours by their ids: little more memory than they have bytes, and what
//! is stored together.

use std::collections::BTreeMap;

use flash_proto::{Output, OutputId, TransactionId};

/// Outputs in a page: some 40 kB. A fuller one is split.
pub(crate) const PAGE_OUTPUTS_MAX: usize = 512;
/// Outputs for which a page has room at a time.
const ROOM: usize = 16;
/// No id is smaller.
const FIRST: OutputId = OutputId { transaction: TransactionId::new([0; 32]), index: 0 };

/// An output and its name.
pub(crate) type Entry = (OutputId, Output);

/// All unspent outputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    /// By the smallest id that a page may hold. A page stays when it is empty.
    pages: BTreeMap<OutputId, Page>,
    count: usize,
}

/// The outputs from one id up to where the next page begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    entries: Vec<Entry>,
    /// The first milestone since the page was stored that changed it.
    changed: Option<u64>,
}

impl Page {
    /// In rising order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn set(&mut self, id: OutputId, output: Option<Output>) -> Option<Output> {
        match (self.entries.binary_search_by_key(&id, |(id, _)| *id), output) {
            (Ok(at), Some(output)) => self.entries.get_mut(at).map(|(_, old)| std::mem::replace(old, output)),
            (Ok(at), None) => {
                let (_, old) = self.entries.remove(at);
                if self.entries.capacity().saturating_sub(self.entries.len()) > 2 * ROOM {
                    self.entries.shrink_to(self.entries.len().saturating_add(ROOM));
                }
                Some(old)
            }
            (Err(at), Some(output)) => {
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(ROOM);
                }
                self.entries.insert(at, (id, output));
                None
            }
            (Err(_), None) => None,
        }
    }
}

impl Outputs {
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, id: &OutputId) -> Option<&Output> {
        let (_, page) = self.pages.range(..=id).next_back()?;
        let at = page.entries.binary_search_by_key(id, |(id, _)| *id).ok()?;
        page.entries.get(at).map(|(_, output)| output)
    }

    /// Puts an output in or takes one out, as milestone `index` does; gives back what was there.
    pub(crate) fn set(&mut self, id: OutputId, output: Option<Output>, index: u64) -> Option<Output> {
        if self.pages.first_key_value().is_none_or(|(start, _)| *start > id) {
            self.pages.insert(FIRST, Page::default());
        }
        let (_, page) = self.pages.range_mut(..=id).next_back()?;
        let old = page.set(id, output);
        if old != output {
            page.changed.get_or_insert(index);
        }
        if page.entries.len() > PAGE_OUTPUTS_MAX {
            // Those that come in order leave full pages behind.
            let is_last = page.entries.last().is_some_and(|(last, _)| *last == id);
            let kept = if is_last { PAGE_OUTPUTS_MAX } else { PAGE_OUTPUTS_MAX / 2 };
            let entries = page.entries.split_off(kept);
            page.entries.shrink_to_fit();
            // What was here before came with it.
            let changed = page.changed;
            if let Some((start, _)) = entries.first() {
                self.pages.insert(*start, Page { entries, changed });
            }
        }
        let count = self.count.saturating_add(usize::from(output.is_some()));
        self.count = count.saturating_sub(usize::from(old.is_some()));
        old
    }

    /// Takes over a stored page; they come in rising order. `None` if its outputs do not belong there.
    pub(crate) fn add_page(&mut self, start: OutputId, entries: Vec<Entry>) -> Option<()> {
        let rising = entries.is_sorted_by(|(left, _), (right, _)| left < right);
        if !rising || entries.first().is_some_and(|(first, _)| *first < start) {
            return None;
        }
        if let Some(mut before) = self.pages.last_entry() {
            if *before.key() >= start {
                return None;
            }
            // A page that was split off and stored is newer than the one that it was split from.
            let page = before.get_mut();
            let kept = page.entries.partition_point(|(id, _)| *id < start);
            self.count = self.count.saturating_sub(page.entries.len().saturating_sub(kept));
            page.entries.truncate(kept);
            page.entries.shrink_to_fit();
        }
        self.count = self.count.saturating_add(entries.len());
        self.pages.insert(start, Page { entries, changed: None });
        Some(())
    }

    /// All from an id on, in rising order.
    pub(crate) fn range_from(&self, from: OutputId) -> impl Iterator<Item = &Entry> + '_ {
        let first = self.pages.range(..=from).next_back().map_or(from, |(start, _)| *start);
        self.pages.range(first..).flat_map(move |(_, page)| {
            let at = page.entries.partition_point(|(id, _)| *id < from);
            page.entries.get(at..).unwrap_or_default()
        })
    }

    /// All, in rising order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.range_from(FIRST)
    }

    /// The pages that are not stored as they are, each after the milestone that first changed it, in the order
    /// in which they must be stored: the one changed first comes first, so that older changes need not be kept,
    /// and what was split off before what it was split from, so that it is never in neither.
    pub(crate) fn changed(&self) -> Vec<(u64, OutputId, &Page)> {
        let pages = self.pages.iter().rev();
        let changed = pages.filter_map(|(start, page)| page.changed.map(|index| (index, *start, page)));
        let mut changed: Vec<_> = changed.collect();
        changed.sort_by_key(|(index, ..)| *index);
        changed
    }

    /// These pages are stored as they are now.
    pub(crate) fn set_stored(&mut self, pages: &[OutputId]) {
        for start in pages {
            if let Some(page) = self.pages.get_mut(start) {
                page.changed = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flash_proto::{Address, Amount};
    use proptest::prelude::*;

    use super::*;

    fn id(n: u16) -> OutputId {
        OutputId { transaction: TransactionId::new([(n >> 4).to_le_bytes()[0]; 32]), index: n & 15 }
    }

    fn output(n: u64) -> Output {
        Output { address: Address::new([7; 32]), amount: Amount::new(n) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// As a node does it: some of the pages are stored now and then, and what changed since is told again.
        #[test]
        fn pages_stored_at_any_time_and_the_changes_since_are_the_outputs(
            steps in proptest::collection::vec((0_u16..4_096, any::<bool>(), 0_usize..8), 0..4_000),
        ) {
            let (mut outputs, mut plain) = (Outputs::default(), BTreeMap::new());
            let mut disk = BTreeMap::new();
            let mut changes: Vec<(u64, OutputId, Option<Output>)> = Vec::new();
            for (index, (n, set, stored)) in (1_u64..).zip(steps) {
                let value = (set || n % 3 > 0).then(|| output(index));
                match value {
                    Some(value) => plain.insert(id(n), value),
                    None => plain.remove(&id(n)),
                };
                if index % 300 == 0 {
                    let pages = outputs.changed();
                    let starts: Vec<_> = pages.iter().take(stored).map(|(_, start, _)| *start).collect();
                    for (_, start, page) in pages.iter().take(stored) {
                        disk.insert(*start, page.entries().to_vec());
                    }
                    let oldest = pages.get(stored).map_or(index, |(oldest, ..)| *oldest);
                    changes.retain(|(index, ..)| *index >= oldest);
                    outputs.set_stored(&starts);
                }
                outputs.set(id(n), value, index);
                changes.push((index, id(n), value));
                prop_assert_eq!(outputs.len(), plain.len());
            }
            let wanted: Vec<Entry> = plain.clone().into_iter().collect();
            prop_assert_eq!(outputs.iter().copied().collect::<Vec<_>>(), wanted.clone());
            prop_assert!(outputs.pages.values().all(|page| page.entries.len() <= PAGE_OUTPUTS_MAX));
            let mut loaded = Outputs::default();
            for (start, entries) in disk {
                prop_assert!(loaded.add_page(start, entries).is_some());
            }
            for (index, id, value) in changes {
                loaded.set(id, value, index);
            }
            prop_assert_eq!(loaded.iter().copied().collect::<Vec<_>>(), wanted);
            prop_assert_eq!(loaded.len(), plain.len());
            for n in (0..4_096).step_by(7) {
                prop_assert_eq!(outputs.get(&id(n)), plain.get(&id(n)));
                let from: Vec<_> = outputs.range_from(id(n)).take(3).map(|(id, _)| *id).collect();
                prop_assert_eq!(from, plain.range(id(n)..).take(3).map(|(id, _)| *id).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn outputs_that_come_in_order_fill_their_pages() {
        let mut outputs = Outputs::default();
        (0..3_000).for_each(|n| _ = outputs.set(id(n), Some(output(1)), 0));
        assert_eq!(outputs.changed().len(), 3_000_usize.div_ceil(PAGE_OUTPUTS_MAX));
    }

    #[test]
    fn pages_that_do_not_fit_are_refused() {
        let entry = |n| (id(n), output(1));
        let mut outputs = Outputs::default();
        assert!(outputs.add_page(id(20), vec![entry(21), entry(21)]).is_none());
        assert!(outputs.add_page(id(20), vec![entry(22), entry(21)]).is_none());
        assert!(outputs.add_page(id(20), vec![entry(19)]).is_none());
        assert!(outputs.add_page(id(20), vec![entry(20)]).is_some());
        assert!(outputs.add_page(id(20), vec![]).is_none());
        assert!(outputs.add_page(id(10), vec![]).is_none());
    }
}
