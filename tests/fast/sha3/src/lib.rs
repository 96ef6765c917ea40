//! Stands in for the real crate in simulations: 256 bits that no two inputs share by chance. Whoever wanted to could
//! find two that do, but nobody in a simulation looks for any.

/// What takes bytes in and gives their hash.
pub trait Digest: Sized {
    /// Of no bytes yet.
    fn new() -> Self;

    /// Takes more bytes in.
    fn update(&mut self, bytes: impl AsRef<[u8]>);

    /// The hash of all of them.
    fn finalize(self) -> [u8; 32];

    /// With more bytes.
    #[must_use]
    fn chain_update(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.update(bytes);
        self
    }

    /// The hash of these bytes.
    fn digest(bytes: impl AsRef<[u8]>) -> [u8; 32] {
        Self::new().chain_update(bytes).finalize()
    }
}

/// The hash so far.
#[derive(Clone)]
pub struct Sha3_256 {
    state: [u64; 2],
    /// The last bytes, fewer than eight, the first in the lowest place.
    rest: u64,
    length: u64,
}

impl Sha3_256 {
    fn absorb(&mut self, word: u64) {
        let [first, second] = self.state;
        self.state = [mixed(first ^ word), mixed(second.rotate_left(32) ^ !word)];
    }

    /// Takes in the lowest bytes of `word`, at most eight; the others are zero.
    fn push(&mut self, word: u64, bytes: usize) {
        let bits = 8 * (self.length % 8);
        let sum = u128::from(self.rest) | (u128::from(word) << bits);
        self.rest = sum as u64;
        self.length += bytes as u64;
        if bits + 8 * bytes as u64 >= 64 {
            self.absorb(self.rest);
            self.rest = (sum >> 64) as u64;
        }
    }
}

impl Digest for Sha3_256 {
    fn new() -> Self {
        Self { state: [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344], rest: 0, length: 0 }
    }

    fn update(&mut self, bytes: impl AsRef<[u8]>) {
        let (words, rest) = bytes.as_ref().as_chunks::<8>();
        for word in words {
            self.push(u64::from_le_bytes(*word), 8);
        }
        let last = rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.push(last, rest.len());
    }

    fn finalize(mut self) -> [u8; 32] {
        self.absorb(self.rest);
        self.absorb(self.length);
        let mut hash = [0; 32];
        for chunk in hash.chunks_mut(8) {
            self.absorb(0);
            let [first, second] = self.state;
            chunk.copy_from_slice(&(first ^ second.rotate_left(17)).to_le_bytes());
        }
        hash
    }
}

/// One step of SplitMix64, with which the signatures that stand in for real ones are made as well.
#[must_use]
pub const fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Digest, Sha3_256};

    #[test]
    fn only_the_bytes_count_and_not_how_they_come() {
        let message = b"a message of more than one word";
        let whole = Sha3_256::digest(message);
        for (first, second) in (0..message.len()).map(|at| message.split_at(at)) {
            assert_eq!(Sha3_256::new().chain_update(first).chain_update(second).finalize(), whole);
        }
    }

    #[test]
    fn every_bit_and_the_length_count() {
        let mut seen = HashSet::new();
        for length in 0..40 {
            assert!(seen.insert(Sha3_256::digest(vec![0; length])), "{length} zeros");
            for bit in 0..length * 8 {
                let mut bytes = vec![0; length];
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(seen.insert(Sha3_256::digest(&bytes)), "bit {bit} of {length} bytes");
            }
        }
    }
}
