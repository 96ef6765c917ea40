//! The secret keys of a node: `keys.json` in its data directory, 0600.

use std::path::{Path, PathBuf};

use flash_proto::SecretKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    datadir::{DataDir, DataDirError, check_private, write_atomically},
    failure::Failure,
};

/// The keys, as 32 bytes in hexadecimal.
#[derive(Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) node: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) coordinator: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) treasury: Option<Zeroizing<String>>,
}

pub(crate) fn keys_path(dir: &Path) -> PathBuf {
    dir.join("keys.json")
}

pub(crate) fn hidden(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(key.expose_bytes().as_ref()))
}

pub(crate) fn shown(text: &str) -> Result<SecretKey, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, bytes.as_mut()).map_err(|_| {
        Failure::unusable_data(
            "keys.json holds a key that is not 64 hexadecimal digits; restore it from a backup",
        )
    })?;
    Ok(SecretKey::from_bytes(*bytes))
}

pub(crate) fn read_keys(dir: &Path) -> Result<Keys, Failure> {
    let path = keys_path(dir);
    check_private(&path, "600")?;
    let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(DataDirError::io(&path))?);
    serde_json::from_str(&text)
        .map_err(|error| Failure::unusable_data(format!("{}: {error}", path.display())))
}

pub(crate) fn write_keys(dir: &DataDir, keys: &Keys) -> Result<(), Failure> {
    let text = Zeroizing::new(serde_json::to_string_pretty(keys).map_err(Failure::new)?);
    write_atomically(&keys_path(dir.path()), text.as_bytes())?;
    Ok(())
}

pub(crate) fn new_key() -> Result<Zeroizing<String>, Failure> {
    Ok(hidden(&random_key()?))
}

pub(crate) fn random_key() -> Result<SecretKey, Failure> {
    Ok(SecretKey::from_bytes(*random_bytes()?))
}

pub(crate) fn random_bytes() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
    Ok(bytes)
}
