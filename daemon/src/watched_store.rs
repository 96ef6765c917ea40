//! A store of which no damage goes unnoticed (I13): whoever comes upon a record that cannot be read, the daemon stops
//! and names it. One that is damaged may not be alone.

use flash_channel::store::{Batch, Durable, Entries, Entry, Store, StoreError, Table};

use crate::stop::Stop;

/// Stops the daemon at the first read that fails. Of commits the writer takes care.
pub(crate) struct WatchedStore {
    store: Box<dyn Store>,
    stop: Stop,
}

impl WatchedStore {
    pub(crate) const fn new(store: Box<dyn Store>, stop: Stop) -> Self {
        Self { store, stop }
    }

    fn watch<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        // What went wrong earlier has been said.
        if let Err(error) = &read
            && !matches!(error, StoreError::Poisoned)
        {
            self.stop.fail_store(error);
        }
        read
    }
}

impl Store for WatchedStore {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        self.store.commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.watch(self.store.get(table, key))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.watch(self.store.scan(table, prefix, after, limit))
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.watch(self.store.last(table, prefix))
    }
}
