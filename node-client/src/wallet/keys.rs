//! Seed words (BIP-39) and the keys derived from them (SLIP-10 for Ed25519).

use std::fmt;

use bip39::{Language, Mnemonic};
use flash_proto::SecretKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Every key's path begins with `m/44'/4218'`: BIP-44, the registered coin type of the Tangle.
const PURPOSE_AND_COIN: [u32; 2] = [44, 4_218];
/// Set in every step: Ed25519 keys have hardened steps only.
const HARDENED: u32 = 1 << 31;
/// Bytes of entropy behind 24 words.
const ENTROPY_BYTES: usize = 32;

/// What a key is for: the `account'` step of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Addresses that receive money.
    Money,
    /// Keys that sign in channels.
    Channels,
    /// The key by which peers know this machine.
    Node,
    /// The key of backups; it signs nothing.
    Backup,
}

impl Account {
    const fn step(self) -> u32 {
        match self {
            Self::Money => 0,
            Self::Channels => 1,
            Self::Node => 2,
            Self::Backup => 3,
        }
    }
}

/// Why words are no seed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SeedError {
    /// A word is unknown, their number is wrong, or the checksum does not fit.
    #[error("these are not seed words: {0}; check each word and their order")]
    Words(String),
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
}

/// The seed that every key of a wallet comes from. Wiped when dropped, never printed.
///
/// ```
/// use flash_node_client::wallet::{Account, Seed};
/// let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// let seed = Seed::from_words(words, "")?;
/// assert_ne!(seed.key(Account::Money, 0, 0).public(), seed.key(Account::Money, 0, 1).public());
/// # Ok::<(), flash_node_client::wallet::SeedError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 64]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

/// 24 new words.
///
/// # Errors
/// [`SeedError::Randomness`].
pub fn new_words() -> Result<Zeroizing<String>, SeedError> {
    let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
    getrandom::fill(entropy.as_mut()).map_err(|error| SeedError::Randomness(error.to_string()))?;
    let mnemonic =
        Mnemonic::from_entropy(entropy.as_ref()).map_err(|error| SeedError::Words(error.to_string()))?;
    Ok(Zeroizing::new(mnemonic.to_string()))
}

impl Seed {
    /// The seed of English BIP-39 words and a passphrase (empty for none).
    ///
    /// # Errors
    /// [`SeedError::Words`].
    pub fn from_words(words: &str, passphrase: &str) -> Result<Self, SeedError> {
        let mnemonic = Mnemonic::parse_in(Language::English, words)
            .map_err(|error| SeedError::Words(error.to_string()))?;
        Ok(Self(mnemonic.to_seed(passphrase)))
    }

    /// The key at `m/44'/4218'/account'/change'/index'`. Indices reach up to 2^31 − 1; the top bit is
    /// ignored.
    pub fn key(&self, account: Account, change: u32, index: u32) -> SecretKey {
        let [purpose, coin] = PURPOSE_AND_COIN;
        let path = [purpose, coin, account.step(), change, index];
        SecretKey::from_bytes(*derive(&self.0, &path).key)
    }
}

/// A key and its chain code.
struct Extended {
    key: Zeroizing<[u8; 32]>,
    chain_code: Zeroizing<[u8; 32]>,
}

/// SLIP-10 for Ed25519, every step hardened.
fn derive(seed: &[u8], path: &[u32]) -> Extended {
    path.iter().fold(split(b"ed25519 seed", &[seed]), |parent, step| {
        let hardened = (step | HARDENED).to_be_bytes();
        split(parent.chain_code.as_ref(), &[&[0], parent.key.as_ref(), &hardened])
    })
}

/// HMAC-SHA512, cut into key and chain code.
fn split(hmac_key: &[u8], parts: &[&[u8]]) -> Extended {
    let (mut key, mut chain_code) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    // HMAC takes a key of any length.
    if let Ok(mac) = Hmac::<Sha512>::new_from_slice(hmac_key) {
        let mac = parts.iter().fold(mac, Mac::chain_update);
        let bytes = Zeroizing::new(<[u8; 64]>::from(mac.finalize().into_bytes()));
        let (left, right) = bytes.split_at(32);
        key.copy_from_slice(left);
        chain_code.copy_from_slice(right);
    }
    Extended { key, chain_code }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The public SLIP-10 vectors.
    #[test]
    fn keys_are_those_of_slip_10() {
        let file: Value = serde_json::from_str(include_str!("../../vectors/slip10_ed25519.json")).unwrap();
        let mut checked = 0;
        for case in file.as_array().unwrap() {
            let seed = hex::decode(case["seed"].as_str().unwrap()).unwrap();
            for test in case["tests"].as_array().unwrap() {
                let steps = test["chain"].as_str().unwrap().split('/').skip(1);
                let path: Vec<u32> = steps.map(|step| step.trim_end_matches('H').parse().unwrap()).collect();
                let extended = derive(&seed, &path);
                assert_eq!(hex::encode(extended.key.as_ref()), test["private"].as_str().unwrap(), "{test}");
                assert_eq!(hex::encode(extended.chain_code.as_ref()), test["chainCode"].as_str().unwrap());
                let public = SecretKey::from_bytes(*extended.key).public();
                assert_eq!(format!("00{public}"), test["public"].as_str().unwrap());
                checked += 1;
            }
        }
        assert_eq!(checked, 12);
    }

    /// The public BIP-39 vectors, English.
    #[test]
    fn seeds_are_those_of_bip_39() {
        let file: Value = serde_json::from_str(include_str!("../../vectors/bip39.json")).unwrap();
        let english = file.as_array().unwrap().iter().find(|list| list["language"] == "english").unwrap();
        for test in english["tests"].as_array().unwrap() {
            let text = |name: &str| test[name].as_str().unwrap();
            let seed = Seed::from_words(text("mnemonic"), text("passphrase")).unwrap();
            assert_eq!(hex::encode(seed.0), text("seed"));
        }
        assert_eq!(english["tests"].as_array().unwrap().len(), 24);
    }

    #[test]
    fn wrong_words_are_refused() {
        let words = new_words().unwrap();
        Seed::from_words(&words, "").unwrap();
        let (_, short) = words.split_once(' ').unwrap();
        for wrong in ["", "hello", short, &words.replacen(words.split(' ').next().unwrap(), "zzz", 1)] {
            assert!(matches!(Seed::from_words(wrong, ""), Err(SeedError::Words(_))));
        }
        assert_ne!(*new_words().unwrap(), *words);
    }
}
