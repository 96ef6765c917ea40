//! Addresses.

use std::{fmt, str::FromStr};

use bech32::{Bech32, Hrp};
use bincode::{Decode, Encode};
use thiserror::Error;

use crate::{
    PublicKey,
    hash::{Layout, Tag},
};

/// The human-readable part of every address.
pub const ADDRESS_PREFIX: &str = "flash";
/// The kind byte of an Ed25519 address (TIP-31).
const KIND_ED25519: u8 = 0;

/// Where money can be sent: the hash of an Ed25519 public key.
///
/// As text it is Bech32 (TIP-31's shape: a kind byte, then the 32 bytes of the hash), whose checksum
/// finds any mistyped character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Address([u8; 32]);

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The checksum or the alphabet does not fit: a character is wrong.
    #[error("`{0}` is not an address: its checksum does not match, so at least one character is wrong")]
    Checksum(String),
    /// The text is Bech32, but of something else.
    #[error("`{0}` is not an address of this ledger: it does not begin with {ADDRESS_PREFIX}1")]
    Prefix(String),
    /// The kind of address is not known, or its length is wrong.
    #[error("`{0}` is an address of a kind this version does not know")]
    Kind(String),
}

impl Address {
    /// Takes the 32 bytes of an address.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The address of a public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(*Layout::new(Tag::ADDRESS).bytes(key.as_bytes()).hash().as_bytes())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Bech32 of a kind byte and the 32 bytes of an address under the human-readable part `prefix`.
fn to_bech32(prefix: &str, bytes: &[u8; 32]) -> Result<String, fmt::Error> {
    let mut data = Vec::with_capacity(33);
    data.push(KIND_ED25519);
    data.extend_from_slice(bytes);
    let hrp = Hrp::parse(prefix).map_err(|_| fmt::Error)?;
    bech32::encode::<Bech32>(hrp, &data).map_err(|_| fmt::Error)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&to_bech32(ADDRESS_PREFIX, &self.0)?)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(100).collect::<String>();
        let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(text)
            .map_err(|_| AddressError::Checksum(shown()))?;
        if checked.hrp().to_lowercase() != ADDRESS_PREFIX {
            return Err(AddressError::Prefix(shown()));
        }
        let data: Vec<u8> = checked.byte_iter().collect();
        match data.split_first() {
            Some((&KIND_ED25519, hash)) => {
                Ok(Self(hash.try_into().map_err(|_| AddressError::Kind(shown()))?))
            }
            _ => Err(AddressError::Kind(shown())),
        }
    }
}

crate::serde_as_text!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    /// TIP-31 (CC0): the Ed25519 case, with the prefix and hash of that network.
    #[test]
    fn the_text_form_is_that_of_tip_31() {
        let mut bytes = [0; 32];
        hex::decode_to_slice("efdc112efe262b304bcf379b26c31bad029f616ee3ec4aa6345a366e4c9e43a3", &mut bytes)
            .unwrap();
        let published = "iota1qrhacyfwlcnzkvzteumekfkrrwks98mpdm37cj4xx3drvmjvnep6xqgyzyx";
        assert_eq!(to_bech32("iota", &bytes).unwrap(), published);
        assert_eq!(published.parse::<Address>(), Err(AddressError::Prefix(published.to_owned())));
    }

    #[test]
    fn other_kinds_and_lengths_are_refused() {
        let encoded =
            |data: &[u8]| bech32::encode::<Bech32>(Hrp::parse(ADDRESS_PREFIX).unwrap(), data).unwrap();
        for data in [&[][..], &[1; 33], &[KIND_ED25519; 32], &[KIND_ED25519; 34]] {
            let text = encoded(data);
            assert_eq!(text.parse::<Address>(), Err(AddressError::Kind(text.clone())), "{data:?}");
        }
        assert_eq!(encoded(&[KIND_ED25519; 33]).parse(), Ok(Address::new([0; 32])));
    }

    #[test]
    fn every_single_wrong_character_is_found() {
        let text = Address::new([0x5a; 32]).to_string();
        assert_eq!(text.parse(), Ok(Address::new([0x5a; 32])));
        for (at, right) in text.char_indices() {
            let wrong = if right == 'q' { "p" } else { "q" };
            let mut mistyped = text.clone();
            mistyped.replace_range(at..=at, wrong);
            assert!(mistyped.parse::<Address>().is_err(), "{mistyped}");
        }
    }
}
