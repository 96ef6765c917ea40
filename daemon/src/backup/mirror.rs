//! What goes into the backup, kept along with every commit: so a backup is as consistent as a commit, and making one
//! reads nothing from the store.

use std::collections::BTreeMap;

use flash_channel::{
    machine::tables as channel_tables,
    store::{Batch, Store, StoreError, Table, records::for_each},
};

use super::file::Record;
use crate::tables::{self, BackedUp};

/// The records that a backup holds. Channels that are done with are left out.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) generation: u64,
    /// By the channel's id, then by the table's number.
    channels: BTreeMap<Vec<u8>, BTreeMap<u8, Vec<u8>>>,
    /// By the table's number and the key.
    others: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Mirror {
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut mirror = Self { generation: tables::generation(store)?, ..Self::default() };
        for table in tables::backed_up() {
            for_each(store, table, &[], |(key, value)| {
                mirror.take(table, &key, Some(&value));
                Ok::<_, StoreError>(())
            })?;
        }
        Ok(mirror)
    }

    /// Whether a commit changes what a backup is about.
    pub(super) fn concerns(batch: &Batch) -> bool {
        batch.changes().any(|(table, key, _)| tables::backs_up(table, key) == BackedUp::Always)
    }

    /// Takes over what was committed.
    pub(super) fn commit(&mut self, batch: &Batch) {
        for (table, key, value) in batch.changes() {
            self.take(table, key, value);
        }
    }

    fn take(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        if tables::backs_up(table, key) == BackedUp::Never {
            return;
        }
        if !tables::is_by_channel(table) {
            match value {
                Some(value) => self.others.insert((table.id(), key.to_vec()), value.to_vec()),
                None => self.others.remove(&(table.id(), key.to_vec())),
            };
            return;
        }
        if value.is_some_and(|value| channel_tables::ends_channel(table, value)) {
            self.channels.remove(key);
            return;
        }
        match (self.channels.get_mut(key), value) {
            (Some(records), Some(value)) => {
                records.insert(table.id(), value.to_vec());
            }
            (Some(records), None) => {
                records.remove(&table.id());
            }
            (None, Some(value)) => {
                self.channels.insert(key.to_vec(), BTreeMap::from([(table.id(), value.to_vec())]));
            }
            (None, None) => {}
        }
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let of_channels = self
            .channels
            .iter()
            // What is written about a channel that is done with makes no channel.
            .filter(|(_, records)| records.keys().copied().any(channel_tables::makes_channel))
            .flat_map(|(key, records)| records.iter().map(move |(table, value)| (*table, key, value)));
        let others = self.others.iter().map(|((table, key), value)| (*table, key, value));
        of_channels
            .chain(others)
            .map(|(table, key, value)| Record { table, key: key.clone(), value: value.clone() })
            .collect()
    }
}
