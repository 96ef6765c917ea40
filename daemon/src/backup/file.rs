//! The file's bytes: `"flashbak" ‖ version u8 ‖ key id 8 ‖ nonce 24 ‖ ciphertext`.
//!
//! The cipher is XChaCha20-Poly1305 under a key that comes from the seed alone; it authenticates what stands before the
//! ciphertext as well. The key id tells a file of another seed from one that is damaged.

use std::{fs, io::Read, path::Path};

use bincode::{Decode, Encode};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use flash_proto::{SecretKey, codec};

use super::BackupError;
use crate::datadir::DataDirError;

const MAGIC: [u8; 8] = *b"flashbak";
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + 1 + KEY_ID_BYTES + NONCE_BYTES;
/// Bytes of a file: some hundred thousand channels.
const BYTES_MAX: usize = 1 << 30;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    /// Rises with every commit of the store that a backup is about: of two backups of one daemon the one with the
    /// higher number is the newer.
    pub generation: u64,
    /// When it was written, milliseconds since 1970.
    pub written_ms: u64,
    /// The network's parameters, JSON.
    pub network: String,
    /// Records of the store.
    pub records: Vec<Record>,
}

/// One record of the store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The number of its table.
    pub table: u8,
    /// Its key.
    pub key: Vec<u8>,
    /// What is stored.
    pub value: Vec<u8>,
}

fn key_id(key: &SecretKey) -> [u8; KEY_ID_BYTES] {
    let public = key.public();
    let mut id = [0; KEY_ID_BYTES];
    id.iter_mut().zip(public.as_bytes()).for_each(|(to, from)| *to = *from);
    id
}

fn cipher(key: &SecretKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&chacha20poly1305::Key::from(*key.expose_bytes()))
}

/// The bytes of a backup.
///
/// # Errors
/// [`BackupError::Crypto`].
pub fn seal(content: &Content, key: &SecretKey) -> Result<Vec<u8>, BackupError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| BackupError::Crypto(error.to_string()))?;
    let mut bytes = [&MAGIC[..], &[VERSION], &key_id(key), &nonce].concat();
    let payload = Payload { msg: &codec::encode(content), aad: &bytes };
    let ciphertext = cipher(key)
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|error| BackupError::Crypto(error.to_string()))?;
    bytes.extend(ciphertext);
    Ok(bytes)
}

/// Reads and opens a backup.
///
/// # Errors
/// [`BackupError`].
pub fn read(path: &Path, key: &SecretKey) -> Result<Content, BackupError> {
    let file = fs::File::open(path).map_err(DataDirError::io(path))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(DataDirError::io(path))?;
    open(&bytes, key, path)
}

fn open(bytes: &[u8], key: &SecretKey, path: &Path) -> Result<Content, BackupError> {
    let not_one = |what| BackupError::NotABackup { path: path.to_owned(), what };
    if bytes.len() > BYTES_MAX {
        return Err(not_one("it is too large"));
    }
    let (header, ciphertext) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| not_one("it is too short"))?;
    let (version, rest) = header
        .strip_prefix(&MAGIC)
        .and_then(<[u8]>::split_first)
        .ok_or_else(|| not_one("its first bytes are others"))?;
    if *version != VERSION {
        return Err(BackupError::Newer { path: path.to_owned(), version: *version });
    }
    let damaged = || BackupError::Damaged(path.to_owned());
    let (id, nonce) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or_else(damaged)?;
    if *id != key_id(key) {
        return Err(BackupError::OtherSeed(path.to_owned()));
    }
    let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).map_err(|_| damaged())?;
    let payload = Payload { msg: ciphertext, aad: header };
    let content = cipher(key).decrypt(&XNonce::from(nonce), payload).map_err(|_| damaged())?;
    codec::decode::<Content, BYTES_MAX>(&content).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn it_opens_with_its_key_only_and_every_change_is_found() {
        let key = SecretKey::from_bytes([5; 32]);
        let record = Record { table: 3, key: vec![1, 2], value: vec![7; 100] };
        let content =
            Content { generation: 9, written_ms: 8, network: "{}".to_owned(), records: vec![record] };
        let bytes = seal(&content, &key).unwrap();
        let path = Path::new("x.backup");
        assert_eq!(open(&bytes, &key, path).unwrap(), content);
        assert_ne!(seal(&content, &key).unwrap(), bytes, "a nonce is used once");
        assert!(!bytes.windows(50).any(|window| window == [7; 50]));

        let other = open(&bytes, &SecretKey::from_bytes([6; 32]), path).unwrap_err();
        assert!(matches!(other, BackupError::OtherSeed(_)) && other.exit() == Exit::Usage, "{other}");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = open(&changed, &key, path).unwrap_err();
            let named = match at {
                0..8 => matches!(error, BackupError::NotABackup { .. }),
                8 => matches!(error, BackupError::Newer { version: 0, .. }),
                9..17 => matches!(error, BackupError::OtherSeed(_)),
                _ => matches!(error, BackupError::Damaged(_)),
            };
            assert!(named, "byte {at}: {error}");
            assert!(open(&bytes[..at], &key, path).is_err(), "cut at {at}");
        }
    }
}
