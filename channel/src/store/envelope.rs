//! What is around every stored value: `version u8 ‖ crc32 u32 LE ‖ value`, the checksum being over table,
//! key and value.

use super::{StoreError, Table};

const VERSION: u8 = 1;
pub(super) const HEADER_BYTES: usize = 5;

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table.id]);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

pub(super) fn wrap(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut wrapped = Vec::with_capacity(value.len().saturating_add(HEADER_BYTES));
    wrap_into(table, key, value, &mut wrapped);
    wrapped
}

/// As [`wrap`], at the end of `to`.
pub(super) fn wrap_into(table: Table, key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    to.push(VERSION);
    to.extend_from_slice(&checksum(table, key, value));
    to.extend_from_slice(value);
}

pub(super) fn unwrap(table: Table, key: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, StoreError> {
    let Some(([version, crc @ ..], value)) = wrapped.split_first_chunk::<HEADER_BYTES>() else {
        return Err(corrupt(table, key, "too short"));
    };
    if *version != VERSION {
        return Err(StoreError::Newer { table: table.name, version: *version });
    }
    if *crc != checksum(table, key, value) {
        return Err(corrupt(table, key, "checksum"));
    }
    Ok(value.to_vec())
}

pub(super) fn corrupt(table: Table, key: &[u8], what: &'static str) -> StoreError {
    StoreError::Corrupt { table: table.name, key: hex::encode(key), what }
}
