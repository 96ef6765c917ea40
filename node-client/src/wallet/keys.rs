//! Seed words (BIP-39) and the keys derived from them (SLIP-10 for Ed25519).

use std::fmt;

use bip39::{Language, Mnemonic};
use flash_proto::SecretKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use thiserror::Error;
use zeroize::Zeroizing;

/// Every key's path begins with `m/44'/4218'`: BIP-44, the registered coin type of the Tangle.
const PURPOSE_AND_COIN: [u32; 2] = [44, 4_218];
const ACCOUNTS: usize = 4;
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
/// assert_ne!(seed.key(Account::Money, 0).public(), seed.key(Account::Money, 1).public());
/// # Ok::<(), flash_node_client::wallet::SeedError>(())
/// ```
#[derive(Clone)]
pub struct Seed {
    /// Where the keys of each account come from: of six steps to a key only the last is left to do.
    accounts: [Extended; ACCOUNTS],
}

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
        let coin = master(seed_of(words, passphrase)?.as_ref()).descend(&PURPOSE_AND_COIN);
        let steps = [Account::Money, Account::Channels, Account::Node, Account::Backup].map(Account::step);
        Ok(Self { accounts: steps.map(|account| coin.descend(&[account, 0])) })
    }

    /// The key at `m/44'/4218'/account'/0'/index'`. Indices reach up to 2^31 − 1; the top bit is ignored.
    pub fn key(&self, account: Account, index: u32) -> SecretKey {
        let [money, channels, node, backup] = &self.accounts;
        let account = match account {
            Account::Money => money,
            Account::Channels => channels,
            Account::Node => node,
            Account::Backup => backup,
        };
        SecretKey::from_bytes(*account.descend(&[index]).key)
    }
}

/// The seed of English BIP-39 words and a passphrase.
fn seed_of(words: &str, passphrase: &str) -> Result<Zeroizing<[u8; 64]>, SeedError> {
    let mnemonic =
        Mnemonic::parse_in(Language::English, words).map_err(|error| SeedError::Words(error.to_string()))?;
    Ok(Zeroizing::new(mnemonic.to_seed(passphrase)))
}

/// A key and its chain code.
#[derive(Clone)]
struct Extended {
    key: Zeroizing<[u8; 32]>,
    chain_code: Zeroizing<[u8; 32]>,
}

/// Where all keys of a seed come from by SLIP-10 for Ed25519.
fn master(seed: &[u8]) -> Extended {
    split(b"ed25519 seed", &[seed])
}

impl Extended {
    /// What lies so many steps below, every step hardened.
    fn descend(&self, path: &[u32]) -> Self {
        path.iter().fold(self.clone(), |parent, step| {
            let hardened = (step | HARDENED).to_be_bytes();
            split(parent.chain_code.as_ref(), &[&[0], parent.key.as_ref(), &hardened])
        })
    }
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
                let extended = master(&seed).descend(&path);
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
            let seed = seed_of(text("mnemonic"), text("passphrase")).unwrap();
            assert_eq!(hex::encode(seed), text("seed"));
        }
        assert_eq!(english["tests"].as_array().unwrap().len(), 24);
    }

    #[test]
    fn each_account_has_its_path() {
        let words =
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let (seed, root) = (Seed::from_words(words, "").unwrap(), seed_of(words, "").unwrap());
        let accounts = [Account::Money, Account::Channels, Account::Node, Account::Backup];
        for (step, account) in (0..).zip(accounts) {
            let path = [44, 4_218, step, 0, 7];
            let key = SecretKey::from_bytes(*master(root.as_ref()).descend(&path).key);
            assert_eq!(seed.key(account, 7).public(), key.public(), "{account:?}");
        }
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
