//! Bytes as trytes (TIP-5, b1t6): each byte is two letters of the alphabet `9A…Z`.
//!
//! A byte is read as a signed number and written as six balanced trits, the lowest first; three trits are
//! one letter. Only what [`encode`] makes is decoded, so bytes have one spelling.

use thiserror::Error;

/// The letter of each tryte from 0 to 13 and from -13 to -1.
const ALPHABET: &[u8; 27] = b"9ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Values of one tryte.
const BASE: i16 = 27;
/// Trytes of a hash in the classic API. A 32-byte id takes 64 of them, the rest are `9`.
pub const HASH_TRYTES: usize = 81;
/// Trytes of 32 bytes.
const ID_TRYTES: usize = 64;

/// Why a text is not the trytes of any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrytesError {
    /// An odd number of trytes.
    #[error("{0} trytes: bytes have an even number of them, two for each byte")]
    Length(usize),
    /// Not the trytes of 32 bytes.
    #[error("{0} trytes: an id has {ID_TRYTES} of them, or {HASH_TRYTES} with `9`s at the end")]
    IdLength(usize),
    /// What follows the 64 trytes of an id is not all `9`.
    #[error("the trytes after the first {ID_TRYTES} of an id must all be `9`")]
    IdPadding,
    /// A character outside of the alphabet.
    #[error("character {at} is no tryte: use `9` and `A` to `Z`")]
    Letter {
        /// Where it stands, from 0.
        at: usize,
    },
    /// Two trytes that no byte is written as.
    #[error("the trytes {at} and the one after it are no byte")]
    Byte {
        /// Where the first of them stands, from 0.
        at: usize,
    },
}

/// The trytes of some bytes.
///
/// ```
/// use flash_node_client::trytes;
/// assert_eq!(trytes::encode(&[0x00, 0x01, 0x7f, 0xff]), "99A9SEZ9");
/// assert_eq!(trytes::decode("99A9SEZ9"), Ok(vec![0x00, 0x01, 0x7f, 0xff]));
/// ```
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        let value = i16::from(byte.cast_signed());
        let low = (value + BASE / 2).rem_euclid(BASE) - BASE / 2;
        text.push(letter(low));
        text.push(letter((value - low) / BASE));
    }
    text
}

/// The bytes that `text` spells.
///
/// # Errors
/// [`TrytesError`].
pub fn decode(text: &str) -> Result<Vec<u8>, TrytesError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TrytesError::Length(text.len()));
    }
    let byte = |(at, [low, high]): (usize, &[u8; 2])| {
        let value = value(*low).ok_or(TrytesError::Letter { at })?
            + BASE * value(*high).ok_or(TrytesError::Letter { at: at.saturating_add(1) })?;
        i8::try_from(value).map(i8::cast_unsigned).map_err(|_| TrytesError::Byte { at })
    };
    (0..).step_by(2).zip(pairs).map(byte).collect()
}

/// An id as a hash of the classic API: its 64 trytes and `9`s up to 81.
pub fn encode_id(id: &[u8; 32]) -> String {
    let mut text = encode(id);
    text.extend(std::iter::repeat_n('9', HASH_TRYTES - ID_TRYTES));
    text
}

/// An id of 64 trytes, with or without the `9`s up to 81.
///
/// # Errors
/// [`TrytesError`].
pub fn decode_id(text: &str) -> Result<[u8; 32], TrytesError> {
    let length = || TrytesError::IdLength(text.len());
    if text.len() != ID_TRYTES && text.len() != HASH_TRYTES {
        return Err(length());
    }
    let (id, padding) = text.split_at_checked(ID_TRYTES).ok_or(TrytesError::Letter { at: ID_TRYTES - 1 })?;
    if padding.bytes().any(|letter| letter != b'9') {
        return Err(TrytesError::IdPadding);
    }
    decode(id)?.try_into().map_err(|_| length())
}

/// The letter of a tryte from -13 to 13.
fn letter(value: i16) -> char {
    let place = usize::try_from(value.rem_euclid(BASE)).unwrap_or(0);
    ALPHABET.get(place).map_or('9', |letter| char::from(*letter))
}

/// The tryte of a letter, from -13 to 13.
fn value(letter: u8) -> Option<i16> {
    match letter {
        b'9' => Some(0),
        b'A'..=b'M' => Some(i16::from(letter - b'A') + 1),
        b'N'..=b'Z' => Some(i16::from(letter - b'N') - BASE / 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// TIP-5 (CC0), "Examples".
    const PUBLISHED: [(&str, &str); 3] = [
        ("00", "99"),
        ("0001027e7f8081fdfeff", "99A9B9RESEGVHVX9Y9Z9"),
        (
            "9ba06c78552776a596dfe360cc2b5bf644c0f9d343a10e2e71debecd30730d03",
            "GWLW9DLDDCLAJDQXBWUZYZODBYPBJCQ9NCQYT9IYMBMWNASBEDTZOYCYUBGDM9C9",
        ),
    ];

    #[test]
    fn the_published_examples_come_out() {
        for (bytes, trytes) in PUBLISHED {
            let bytes = hex::decode(bytes).unwrap();
            assert_eq!(encode(&bytes), trytes);
            assert_eq!(decode(trytes), Ok(bytes));
        }
    }

    #[test]
    fn every_byte_has_one_spelling() {
        let letters = || ALPHABET.iter().map(|letter| char::from(*letter));
        let spellings: Vec<String> =
            letters().flat_map(|low| letters().map(move |high| format!("{low}{high}"))).collect();
        let bytes = spellings.iter().filter(|pair| decode(pair).is_ok_and(|byte| encode(&byte) == **pair));
        assert_eq!(bytes.count(), 256);
        assert_eq!(spellings.iter().filter(|pair| decode(pair).is_ok()).count(), 256);
    }

    #[test]
    fn wrong_trytes_are_refused() {
        // `LI` is 255, which TIP-5 names as what must be refused.
        assert_eq!(decode("99LI"), Err(TrytesError::Byte { at: 2 }));
        assert_eq!(decode("99A"), Err(TrytesError::Length(3)));
        assert_eq!(decode("99a9"), Err(TrytesError::Letter { at: 2 }));
        assert_eq!(decode("999 "), Err(TrytesError::Letter { at: 3 }));
        assert_eq!(decode("9é9"), Err(TrytesError::Letter { at: 1 }));
    }

    #[test]
    fn ids_come_with_and_without_their_padding() {
        let id = [0xa5; 32];
        let padded = encode_id(&id);
        assert_eq!((padded.len(), decode_id(&padded)), (HASH_TRYTES, Ok(id)));
        assert_eq!(decode_id(&padded[..64]), Ok(id));
        assert_eq!(decode_id(&padded[..80]), Err(TrytesError::IdLength(80)));
        let other = format!("{}A", &padded[..80]);
        assert_eq!(decode_id(&other), Err(TrytesError::IdPadding));
        let split = format!("{}é9999999999999999", &padded[..63]);
        assert!(decode_id(&split).is_err());
    }

    proptest! {
        #[test]
        fn bytes_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_bytes_or_a_typed_error(text: String) {
            let _ = (decode(&text), decode_id(&text));
        }
    }
}
