//! The seed file: one line of text, readable by its owner only.
//!
//! Plain: `flash-seed 1 plain WORDS`. With a passphrase: `flash-seed 1 argon2id M_KIB T P SALT NONCE
//! CIPHERTEXT`, the last three in hexadecimal. The key is argon2id of the passphrase; the cipher is
//! ChaCha20-Poly1305, which also authenticates everything on the line before the ciphertext.

use std::{fs, io, path::Path};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    ChaCha20Poly1305, Key, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    datadir::{DataDirError, check_private, write_atomically},
    exit::Exit,
};

/// The environment variable that holds the passphrase.
pub const PASSPHRASE_ENV: &str = "FLASH_PASSPHRASE";
/// The environment variable that names a file whose first line is the passphrase.
pub const PASSPHRASE_FILE_ENV: &str = "FLASH_PASSPHRASE_FILE";

const MAGIC: &str = "flash-seed 1";
/// 64 MiB, three passes, one lane: about a tenth of a second per try.
const COST: (u32, u32, u32) = (64 * 1024, 3, 1);
/// A file cannot make the daemon take more memory than this, KiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 100;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// Why the seed cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeedFileError {
    /// The file or directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// It is encrypted and no passphrase was given.
    #[error(
        "the seed is encrypted: give its passphrase in {PASSPHRASE_ENV}, in a file named by {PASSPHRASE_FILE_ENV}, or at the terminal"
    )]
    PassphraseNeeded,
    /// The passphrase does not open it.
    #[error("the passphrase does not open the seed (or the seed file was changed)")]
    WrongPassphrase,
    /// Not a seed file that this version reads.
    #[error(
        "the seed file is not one that this version can read: {0}. Restore it from the written-down words"
    )]
    Malformed(&'static str),
    /// The system gave no random bytes, or the key could not be derived.
    #[error("cannot encrypt the seed: {0}")]
    Crypto(String),
    /// The passphrase could not be read.
    #[error("cannot read the passphrase: {0}")]
    Passphrase(String),
}

impl SeedFileError {
    /// The exit code for it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::DataDir(error) => error.exit(),
            Self::PassphraseNeeded | Self::WrongPassphrase | Self::Passphrase(_) => Exit::Usage,
            Self::Malformed(_) => Exit::DataDirUnusable,
            Self::Crypto(_) => Exit::Failed,
        }
    }
}

/// Writes the seed's words, encrypted if there is a passphrase.
///
/// # Errors
/// [`SeedFileError`]; the old file, if any, is then unchanged.
pub fn write(path: &Path, words: &str, passphrase: Option<&str>) -> Result<(), SeedFileError> {
    let line = match passphrase {
        None => Zeroizing::new(format!("{MAGIC} plain {words}\n")),
        Some(passphrase) => Zeroizing::new(encrypt(words, passphrase)?),
    };
    Ok(write_atomically(path, line.as_bytes())?)
}

/// Reads the seed's words. `passphrase` is asked only if the file is encrypted.
///
/// # Errors
/// [`SeedFileError`].
pub fn read(
    path: &Path,
    passphrase: impl FnOnce() -> Result<Option<Zeroizing<String>>, SeedFileError>,
) -> Result<Zeroizing<String>, SeedFileError> {
    check_private(path, "600")?;
    let text = Zeroizing::new(fs::read_to_string(path).map_err(DataDirError::io(path))?);
    let rest =
        text.trim_end().strip_prefix(MAGIC).ok_or(SeedFileError::Malformed("its first words are unknown"))?;
    if let Some(plain) = rest.strip_prefix(" plain ") {
        return Ok(Zeroizing::new(plain.to_owned()));
    }
    let passphrase = passphrase()?.ok_or(SeedFileError::PassphraseNeeded)?;
    decrypt(text.trim_end(), &passphrase)
}

/// Whether the seed file is encrypted.
///
/// # Errors
/// [`SeedFileError::DataDir`] if it cannot be read.
pub fn is_encrypted(path: &Path) -> Result<bool, SeedFileError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(DataDirError::io(path))?);
    Ok(text.starts_with(&format!("{MAGIC} argon2id ")))
}

/// The passphrase from the environment, from the file that the environment names, or, if `terminal`,
/// from the terminal. `None` if there is none.
///
/// # Errors
/// [`SeedFileError::Passphrase`].
pub fn passphrase(terminal: bool) -> Result<Option<Zeroizing<String>>, SeedFileError> {
    if let Ok(passphrase) = std::env::var(PASSPHRASE_ENV) {
        return Ok(Some(Zeroizing::new(passphrase)).filter(|passphrase| !passphrase.is_empty()));
    }
    let failed = |what: &str, error: io::Error| SeedFileError::Passphrase(format!("{what}: {error}"));
    if let Ok(file) = std::env::var(PASSPHRASE_FILE_ENV) {
        let text = Zeroizing::new(fs::read_to_string(&file).map_err(|error| failed(&file, error))?);
        let line = text.lines().next().unwrap_or_default();
        return Ok(Some(Zeroizing::new(line.to_owned())).filter(|passphrase| !passphrase.is_empty()));
    }
    if !terminal || !io::IsTerminal::is_terminal(&io::stdin()) {
        return Ok(None);
    }
    let typed = rpassword::prompt_password("Passphrase of the seed: ")
        .map_err(|error| failed("the terminal", error))?;
    Ok(Some(Zeroizing::new(typed)))
}

fn encrypt(words: &str, passphrase: &str) -> Result<String, SeedFileError> {
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    let random =
        |bytes: &mut [u8]| getrandom::fill(bytes).map_err(|error| SeedFileError::Crypto(error.to_string()));
    random(&mut salt)?;
    random(&mut nonce)?;
    let (memory_kib, passes, lanes) = COST;
    let header = format!(
        "{MAGIC} argon2id {memory_kib} {passes} {lanes} {} {}",
        hex::encode(salt),
        hex::encode(nonce)
    );
    let key = derive(passphrase, &salt, COST)?;
    let ciphertext = ChaCha20Poly1305::new(&Key::from(*key))
        .encrypt(&Nonce::from(nonce), Payload { msg: words.as_bytes(), aad: header.as_bytes() })
        .map_err(|error| SeedFileError::Crypto(error.to_string()))?;
    Ok(format!("{header} {}\n", hex::encode(ciphertext)))
}

fn decrypt(line: &str, passphrase: &str) -> Result<Zeroizing<String>, SeedFileError> {
    let malformed = || SeedFileError::Malformed("its fields are not those of an encrypted seed");
    let (header, ciphertext) = line.rsplit_once(' ').ok_or_else(malformed)?;
    let fields: Vec<&str> = header.strip_prefix(MAGIC).ok_or_else(malformed)?.split_whitespace().collect();
    let ["argon2id", memory_kib, passes, lanes, salt, nonce] = fields.as_slice() else {
        return Err(malformed());
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| malformed());
    let cost = (number(memory_kib)?, number(passes)?, number(lanes)?);
    if cost.0 > MEMORY_KIB_MAX || cost.1 > PASSES_MAX {
        return Err(SeedFileError::Malformed("its cost is beyond reason"));
    }
    let (mut salt_bytes, mut nonce_bytes) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    hex::decode_to_slice(salt, &mut salt_bytes).map_err(|_| malformed())?;
    hex::decode_to_slice(nonce, &mut nonce_bytes).map_err(|_| malformed())?;
    let key = derive(passphrase, &salt_bytes, cost)?;
    let ciphertext = hex::decode(ciphertext).map_err(|_| malformed())?;
    let words = ChaCha20Poly1305::new(&Key::from(*key))
        .decrypt(&Nonce::from(nonce_bytes), Payload { msg: &ciphertext, aad: header.as_bytes() })
        .map_err(|_| SeedFileError::WrongPassphrase)?;
    String::from_utf8(words).map(Zeroizing::new).map_err(|_| malformed())
}

fn derive(
    passphrase: &str,
    salt: &[u8],
    cost: (u32, u32, u32),
) -> Result<Zeroizing<[u8; 32]>, SeedFileError> {
    let (memory_kib, passes, lanes) = cost;
    let failed = |error: argon2::Error| SeedFileError::Crypto(error.to_string());
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";

    #[allow(clippy::unnecessary_wraps, reason = "the type that `read` asks for")]
    fn given(passphrase: &str) -> Result<Option<Zeroizing<String>>, SeedFileError> {
        Ok(Some(Zeroizing::new(passphrase.to_owned())))
    }

    #[test]
    fn a_plain_seed_reads_back_without_a_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        write(&path, WORDS, None).unwrap();
        assert!(!is_encrypted(&path).unwrap());
        let read = read(&path, || panic!("no passphrase is needed")).unwrap();
        assert_eq!(*read, WORDS);
    }

    #[test]
    fn an_encrypted_seed_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        write(&path, WORDS, Some("correct horse")).unwrap();
        assert!(is_encrypted(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("zoo"), "the seed must not be readable");
        assert_eq!(*read(&path, || given("correct horse")).unwrap(), WORDS);
        assert!(matches!(read(&path, || given("battery")), Err(SeedFileError::WrongPassphrase)));
        assert!(matches!(read(&path, || Ok(None)), Err(SeedFileError::PassphraseNeeded)));

        // The header is authenticated: another salt or cost is found.
        let changed = text.replacen(" 65536 3 1 ", " 65536 2 1 ", 1);
        assert_ne!(changed, text);
        write_atomically(&path, changed.as_bytes()).unwrap();
        assert!(matches!(read(&path, || given("correct horse")), Err(SeedFileError::WrongPassphrase)));
    }

    #[test]
    fn what_is_no_seed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        for bad in [
            "",
            "hello",
            "flash-seed 2 plain 00",
            "flash-seed 1 other 00",
            "flash-seed 1 argon2id 1 2",
            "flash-seed 1 argon2id 4000000000 3 1 00 00 00",
        ] {
            write_atomically(&path, bad.as_bytes()).unwrap();
            assert!(matches!(read(&path, || given("x")), Err(SeedFileError::Malformed(_))), "{bad}");
        }
    }
}
