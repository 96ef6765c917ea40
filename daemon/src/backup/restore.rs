//! Putting a backup back, and noticing that a store is older than what was signed.
//!
//! A store is known to be old if the backup beside it is ahead of it, or if its file is not the one that it was: a copy
//! has another inode or another time of birth. Whatever is noticed, every channel that is not done with is in doubt from
//! then on, and the ledger is searched again for channels that were opened later.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, time::UNIX_EPOCH};

use bincode::{Decode, Encode};
use flash_channel::{
    machine::tables as channel_tables,
    store::{Batch, Store, StoreError, StoreKind},
};
use flash_node_client::wallet::{Account, Seed};
use flash_proto::NetworkParams;

use super::{
    BackupError, Keeper, Settings,
    file::{self, Content},
    keeper,
};
use crate::{datadir::DataDir, failure::Failure, tables};

/// Channels whose records are put back with one commit.
const RECORDS_AT_A_TIME: usize = 1_024;

/// Which file the store is: sled's own, or else its lock, which is written to at every opening.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    inode: u64,
    /// Nanoseconds since 1970, where the file system knows it.
    born_ns: Option<u64>,
}

impl Place {
    fn of(store: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(store.join("db")).or_else(|_| fs::metadata(store.join("lock")))?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok());
        Ok(Self { inode: metadata.ino(), born_ns })
    }
}

/// What was found out about a store before anything was signed with it.
pub(crate) struct Checked {
    /// Keeps the backup current, if there is to be one.
    pub(crate) keeper: Option<Keeper>,
    /// How it is known that the records are old, if they are.
    pub(crate) old: Option<&'static str>,
}

/// Looks whether the store is older than what was signed, and notes that in it. To be done before its channels are loaded.
///
/// # Errors
/// [`Failure`].
pub(crate) fn check(
    dir: &DataDir,
    store: &dyn Store,
    seed: &Seed,
    params: &NetworkParams,
    settings: Option<&Settings>,
) -> Result<Checked, Failure> {
    let key = super::key(seed);
    let lock = settings.map(|settings| keeper::lock(&settings.path)).transpose()?;
    let backup = settings.filter(|settings| settings.path.exists());
    let backup = backup.map(|settings| file::read(&settings.path, &key)).transpose()?;
    let generation = tables::generation(store)?;
    let ahead = backup.filter(|content| content.generation > generation);
    let place = Place::of(&dir.store_path()).map_err(Failure::new)?;
    let was = tables::place(store)?;
    let old = match &ahead {
        Some(_) => Some("the backup was ahead of the data directory, and was taken over"),
        None if was.as_ref().is_some_and(|was| *was != place) => {
            Some("the data directory was copied, moved or put back")
        }
        None => None,
    };
    // The doubt comes before all else and the place last: whatever is interrupted between them, nothing is signed
    // with what is there then.
    if old.is_some() {
        let mut batch = Batch::new();
        channel_tables::put_all_in_doubt(store, &mut batch)?;
        tables::forget_searched(&mut batch);
        let _durable = store.commit(&batch)?;
    }
    if let Some(content) = &ahead {
        put_back(content, store)?;
    }
    if was.as_ref() != Some(&place) {
        let mut batch = Batch::new();
        tables::put_place(&mut batch, &place);
        let _durable = store.commit(&batch)?;
    }
    let keeper = match (settings, lock) {
        (Some(settings), Some(lock)) => Some(Keeper::start(settings.clone(), key, params, store, lock)?),
        _ => None,
    };
    Ok(Checked { keeper, old })
}

/// Puts the records of a backup into a store that is empty or older. Its channels are in doubt from then on.
///
/// # Errors
/// [`Failure`].
pub fn put_back(content: &Content, store: &dyn Store) -> Result<(), Failure> {
    let known: BTreeMap<u8, _> = tables::backed_up().map(|table| (table.id(), table)).collect();
    for records in content.records.chunks(RECORDS_AT_A_TIME) {
        let mut batch = Batch::new();
        for record in records {
            let table = *known.get(&record.table).ok_or_else(|| {
                Failure::unusable_data(format!(
                    "the backup has records of a kind ({}) that this version does not know; update it",
                    record.table
                ))
            })?;
            channel_tables::put_backed_up(&mut batch, table, &record.key, record.value.clone())?;
            if channel_tables::makes_channel(record.table) {
                channel_tables::put_in_doubt(&mut batch, channel_tables::channel_of(&record.key)?);
            }
        }
        let _durable = store.commit(&batch)?;
    }
    // Last: whatever is interrupted before is done again.
    let mut batch = Batch::new();
    tables::put_generation(&mut batch, content.generation);
    let _durable = store.commit(&batch)?;
    Ok(())
}

/// Whom a store belongs to: a seed in a network.
pub fn identity(params: &NetworkParams, seed: &Seed) -> Vec<u8> {
    let node_key = seed.key(Account::Node, 0).public();
    [params.id().as_bytes().as_slice(), node_key.as_bytes()].concat()
}

/// Fills the store of a data directory that is being set up.
///
/// # Errors
/// [`Failure`].
pub fn fill(dir: &DataDir, identity: &[u8], content: &Content) -> Result<(), Failure> {
    let path = dir.store_path();
    if path.exists() {
        let path = path.display();
        let message = format!(
            "{path} exists already: choose an empty directory, or remove what an interrupted restore left"
        );
        return Err(Failure::unusable_data(message));
    }
    put_back(content, &StoreKind::open(None, &path, identity)?)
}

/// How far the store of a data directory is, if nobody uses it.
///
/// # Errors
/// [`StoreError`].
pub fn generation_of(dir: &DataDir, identity: &[u8]) -> Result<u64, StoreError> {
    tables::generation(&StoreKind::open(None, &dir.store_path(), identity)?)
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self { message: error.to_string(), exit: error.exit() }
    }
}
