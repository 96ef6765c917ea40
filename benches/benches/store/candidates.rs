//! The stores that are compared, each made to reach the disk before a commit returns.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
};

use fjall::{CompressionType, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use flash_channel::store::{Batch, JournalStore, SledStore, Store, Table, records::for_each};
use redb::{ReadableDatabase, TableDefinition};

pub(crate) const NAMES: [&str; 6] = ["append", "journal", "sled", "fjall", "fjall-kv", "redb"];

/// A store as the workloads use it.
pub(crate) trait Candidate {
    fn commit(&mut self, batch: &Batch);
    /// Reads a table and counts its entries.
    fn count(&mut self, table: Table) -> u64;
}

pub(crate) fn open(name: &str, path: &Path) -> Box<dyn Candidate> {
    match name {
        "append" => Box::new(Append::open(path)),
        "sled" => Box::new(Ours(SledStore::open(path, b"bench").expect("a store"))),
        "fjall" => Box::new(Fjall::open(path, false)),
        "fjall-kv" => Box::new(Fjall::open(path, true)),
        "journal" => Box::new(Ours(JournalStore::open(path, b"bench").expect("a store"))),
        "redb" => Box::new(Redb::open(path)),
        _ => unreachable!("no such store"),
    }
}

fn entry_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.id()], key].concat()
}

struct Ours<S: Store>(S);

impl<S: Store> Candidate for Ours<S> {
    fn commit(&mut self, batch: &Batch) {
        let _durable = self.0.commit(batch).expect("the disk takes it");
    }

    fn count(&mut self, table: Table) -> u64 {
        let mut count = 0;
        for_each(&self.0, table, &[], |_| {
            count += 1;
            Ok::<_, flash_channel::store::StoreError>(())
        })
        .expect("it can be read");
        count
    }
}

/// One file, to which each commit is appended.
struct Append(File, Vec<u8>);

impl Append {
    fn open(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(path.join("log"));
        let file = file.as_mut().expect("a file");
        file.seek(std::io::SeekFrom::End(0)).expect("its end");
        Self(file.try_clone().expect("a handle"), Vec::new())
    }
}

impl Candidate for Append {
    fn commit(&mut self, batch: &Batch) {
        self.1.clear();
        for (table, key, value) in batch.changes() {
            self.1.push(table.id());
            self.1.extend_from_slice(key);
            self.1.extend_from_slice(value.unwrap_or_default());
        }
        self.0.write_all(&self.1).expect("room");
        self.0.sync_data().expect("the disk takes it");
    }

    fn count(&mut self, _table: Table) -> u64 {
        0
    }
}

struct Fjall {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path, separated: bool) -> Self {
        let db = fjall::Database::builder(path)
            .cache_size(16 << 20)
            .worker_threads(1)
            .max_journaling_size(64 << 20)
            .journal_compression(CompressionType::None)
            .open()
            .expect("a store");
        let options = || {
            KeyspaceCreateOptions::default().max_memtable_size(16 << 20).with_kv_separation(
                separated.then(|| KvSeparationOptions::default().compression(CompressionType::None)),
            )
        };
        let keyspace = db.keyspace("records", options).expect("a keyspace");
        Self { db, keyspace }
    }
}

impl Candidate for Fjall {
    fn commit(&mut self, batch: &Batch) {
        let mut writes = self.db.batch().durability(Some(PersistMode::SyncData));
        for (table, key, value) in batch.changes() {
            match value {
                Some(value) => writes.insert(&self.keyspace, entry_key(table, key), value),
                None => writes.remove(&self.keyspace, entry_key(table, key)),
            }
        }
        writes.commit().expect("the disk takes it");
    }

    fn count(&mut self, table: Table) -> u64 {
        self.keyspace.prefix([table.id()]).fold(0, |count, entry| {
            entry.value().expect("it can be read");
            count + 1
        })
    }
}

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

struct Redb(redb::Database);

impl Redb {
    fn open(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        Self(redb::Builder::new().set_cache_size(16 << 20).create(path.join("db")).expect("a store"))
    }
}

impl Candidate for Redb {
    fn commit(&mut self, batch: &Batch) {
        let transaction = self.0.begin_write().expect("it begins");
        {
            let mut records = transaction.open_table(RECORDS).expect("a table");
            for (table, key, value) in batch.changes() {
                let key = entry_key(table, key);
                match value {
                    Some(value) => drop(records.insert(&key[..], value).expect("room")),
                    None => drop(records.remove(&key[..]).expect("it goes")),
                }
            }
        }
        transaction.commit().expect("the disk takes it");
    }

    fn count(&mut self, table: Table) -> u64 {
        let transaction = self.0.begin_read().expect("it begins");
        let records = transaction.open_table(RECORDS).expect("a table");
        let (from, to) = ([table.id()], [table.id() + 1]);
        let range = records.range::<&[u8]>(&from[..]..&to[..]).expect("a range");
        range.fold(0, |count, entry| {
            entry.expect("it can be read");
            count + 1
        })
    }
}
