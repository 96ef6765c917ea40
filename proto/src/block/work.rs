//! The proof of work of blocks.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use crate::{
    Hash,
    hash::{Layout, Tag},
    keccak,
};

/// Hashcash: `SHA3-256(tag ‖ digest ‖ nonce)` must begin with so many zero bits, where `digest` is the
/// hash of the block's bytes without the nonce, so that a try costs one short hash however long the
/// block.
#[derive(Clone, Debug)]
pub struct Work(Hash);

impl Work {
    /// The work on a block with these bytes (the nonce in them does not matter).
    pub fn of(block_bytes: &[u8]) -> Self {
        let body = block_bytes.split_last_chunk::<8>().map_or(block_bytes, |(body, _nonce)| body);
        Self(Layout::new(Tag::WORK).bytes(body).hash())
    }

    /// How many zero bits this nonce makes.
    pub fn bits(&self, nonce: u64) -> u32 {
        let hash = Layout::new(Tag::WORK).bytes(self.0.as_bytes()).u64(nonce).hash();
        let mut bits = 0_u32;
        for byte in hash.as_bytes() {
            bits = bits.saturating_add(byte.leading_zeros());
            if *byte != 0 {
                break;
            }
        }
        bits
    }

    /// Tries `tries` nonces from `start` and returns the first with enough zero bits. Call again with
    /// the next start until it is found or no longer wanted. As many are tried at a time as the processor has lanes of 64
    /// bits in a register: 2 to 8.
    pub fn search(&self, pow_bits: u8, start: u64, tries: u64) -> Option<u64> {
        self.search_at(Level::new(), pow_bits, start..start.saturating_add(tries))
    }

    /// With the instructions of this level.
    fn search_at(&self, level: Level, pow_bits: u8, nonces: Range<u64>) -> Option<u64> {
        dispatch!(level, simd => self.search_with(simd, pow_bits, nonces))
    }

    #[expect(clippy::inline_always, reason = "what is not inlined is not compiled for the wider registers")]
    #[inline(always)]
    fn search_with<S: Simd>(&self, simd: S, pow_bits: u8, nonces: Range<u64>) -> Option<u64> {
        let wanted = u32::from(pow_bits);
        let splat = |word: u64| S::u64s::splat(simd, word);
        let [tag, tag_end] = keccak::words(&Tag::WORK.bytes()).map(splat);
        let [a, b, c, d] = keccak::words(self.0.as_bytes()).map(splat);
        let mut from = nonces.start;
        while from < nonces.end {
            let mut tried = splat(from);
            for (lane, nonce) in (0..).zip(tried.as_mut_slice()) {
                *nonce = from.wrapping_add(lane);
            }
            let [first_words, ..] = keccak::sha3_256([tag, tag_end, a, b, c, d, tried], splat);
            for (nonce, word) in tried.as_slice().iter().zip(first_words.as_slice()) {
                // The first byte of the hash is the word's lowest one. One that may do is hashed once more, by what checks it.
                if word.swap_bytes().leading_zeros() >= wanted.min(u64::BITS)
                    && nonces.contains(nonce)
                    && self.bits(*nonce) >= wanted
                {
                    return Some(*nonce);
                }
            }
            from = from.saturating_add(u64::try_from(S::u64s::LEN).unwrap_or(1));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Several at a time find what one after the other finds, from any start and to any end, and on older processors,
        /// too.
        #[test]
        fn the_first_nonce_that_does_is_found(
            block: Vec<u8>,
            pow_bits in 0_u8..10,
            start in prop_oneof![any::<u64>(), 0_u64..100, u64::MAX - 100..=u64::MAX],
            tries in 0_u64..300,
        ) {
            let work = Work::of(&block);
            let nonces = start..start.saturating_add(tries);
            let first = nonces.clone().find(|nonce| work.bits(*nonce) >= u32::from(pow_bits));
            prop_assert_eq!(work.search(pow_bits, start, tries), first);
            prop_assert_eq!(work.search_at(Level::baseline(), pow_bits, nonces.clone()), first);
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = Level::new().as_avx2() {
                prop_assert_eq!(work.search_at(Level::Avx2(avx2), pow_bits, nonces), first);
            }
        }
    }

    #[test]
    fn more_bits_than_there_are_are_never_found() {
        assert_eq!(Work::of(b"a block").search(u8::MAX, 0, 1_000), None);
    }
}
