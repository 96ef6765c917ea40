//! The one encoding of everything that is sent or stored.
//!
//! bincode 2.0.1 with fixed-width little-endian integers, through its own derives. Every value has
//! exactly one encoding; decoding always has a limit, which is checked before anything is allocated,
//! and refuses trailing bytes and unknown tags.

use bincode::{Decode, Encode, enc::write::Writer, error::EncodeError};
use thiserror::Error;

/// Why bytes are not the encoding of a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// More bytes than this kind of value may have.
    #[error("{got} bytes, but at most {max} are allowed here")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end early, a tag is unknown, or a length inside claims more than is allowed.
    #[error("malformed bytes: {0}")]
    Malformed(String),
    /// The value ends before the bytes do.
    #[error("{0} bytes follow the end of the value")]
    Trailing(usize),
}

/// Encodes a value.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    // Most values fit, and need no growing.
    let mut bytes = Vec::with_capacity(320);
    encode_into(value, &mut bytes);
    bytes
}

/// Appends a value's encoding to `bytes`, so that a buffer can be used again.
pub fn encode_into<T: Encode>(value: &T, bytes: &mut Vec<u8>) {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    let result = bincode::encode_into_writer(value, Append(bytes), config);
    // Only types that can fail to encode (a locked `RefCell`, a time before 1970) make an error, and
    // none is in a message or record; a new type that could would show in the first test of it.
    debug_assert!(result.is_ok(), "{result:?}");
}

/// Decodes a value from all of `bytes`, of which there may be at most `LIMIT`.
///
/// # Errors
/// [`CodecError`], with nothing allocated beyond `LIMIT`.
pub fn decode<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > LIMIT {
        return Err(CodecError::TooLong { got: bytes.len(), max: LIMIT });
    }
    let config =
        bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>();
    let (value, read) = bincode::decode_from_slice(bytes, config)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len().saturating_sub(read) {
        0 => Ok(value),
        rest => Err(CodecError::Trailing(rest)),
    }
}

/// A writer that appends to a buffer and cannot fail.
struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Side;

    #[test]
    fn a_value_has_one_encoding() {
        let bytes = encode(&(1_u16, Some(Side::B), vec![7_u8]));
        assert_eq!(hex::encode(&bytes), "01000101000000010000000000000007");
        assert_eq!(decode::<(u16, Option<Side>, Vec<u8>), 64>(&bytes), Ok((1, Some(Side::B), vec![7])));
    }

    #[test]
    fn wrong_bytes_are_refused() {
        type T = (u16, Option<Side>, Vec<u8>);
        let good = encode(&(1_u16, Some(Side::B), vec![7_u8]));
        for cut in 0..good.len() {
            assert!(matches!(decode::<T, 64>(&good[..cut]), Err(CodecError::Malformed(_))), "cut at {cut}");
        }
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(decode::<T, 64>(&trailing), Err(CodecError::Trailing(1)));
        let mut unknown_tag = good.clone();
        unknown_tag[3] = 2;
        assert!(matches!(decode::<T, 64>(&unknown_tag), Err(CodecError::Malformed(_))));
        assert_eq!(decode::<T, 16>(&good), Ok((1, Some(Side::B), vec![7])), "as long as there may be");
        assert_eq!(decode::<T, 15>(&good), Err(CodecError::TooLong { got: 16, max: 15 }));
    }

    #[test]
    fn a_lying_length_allocates_nothing() {
        let bytes = u64::MAX.to_le_bytes();
        assert!(matches!(decode::<Vec<u8>, 64>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Vec<[u8; 32]>, 64>(&bytes), Err(CodecError::Malformed(_))));
    }
}
