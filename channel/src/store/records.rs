//! Typed records above any store: the one way from stored bytes to a value.

use bincode::Decode;
use flash_proto::{codec, limits};

use super::{Entry, Store, StoreError, Table};

/// Entries that are read at a time.
const PAGE_ENTRIES: usize = 256;

/// The error of a stored value that is not what it should be.
pub fn corrupt(table: Table, key: &[u8], what: &'static str) -> StoreError {
    StoreError::Corrupt { table: table.name(), key: hex::encode(key), what }
}

/// Decodes what stands under `key`, or the key itself.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode<T: Decode<()>>(table: Table, key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode::<T, { limits::RECORD_BYTES_MAX }>(bytes).map_err(|_| corrupt(table, key, "encoding"))
}

/// The record under `key`, if there is one.
///
/// # Errors
/// [`StoreError`].
pub fn load<T: Decode<()>>(store: &dyn Store, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
    store.get(table, key)?.map(|bytes| decode(table, key, &bytes)).transpose()
}

/// Hands every entry whose key begins with `prefix` to `take`, in rising order, holding one page of them
/// at a time.
///
/// # Errors
/// [`StoreError`], or the first error of `take`.
pub fn for_each<E: From<StoreError>>(
    store: &dyn Store,
    table: Table,
    prefix: &[u8],
    mut take: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(table, prefix, after.as_deref(), PAGE_ENTRIES)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        page.into_iter().try_for_each(&mut take)?;
    }
}
