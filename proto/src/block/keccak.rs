//! Keccak-f\[1600\] (FIPS 202, section 3) on several states at once, one in each lane of a register. Proof of work tries very
//! many short messages of one length, which is all that it is for: every other hash is the crate `sha3`'s, and so is the one
//! by which a nonce that was found is checked.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the wider registers")]
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "every place and every shift is a constant of FIPS 202"
)]

use fearless_simd::{Simd, prelude::*};

/// Words of a state.
const WORDS: usize = 25;
/// Words that SHA3-256 takes of a message at a time.
const RATE_WORDS: usize = 17;

/// FIPS 202, section 3.2.5.
const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// The first word of the SHA3-256 of `before ‖ last`, for each lane of `last`.
#[inline(always)]
pub(super) fn first_words<S: Simd>(simd: S, before: &[u64; 6], last: S::u64s) -> S::u64s {
    let mut state = [S::u64s::splat(simd, 0); WORDS];
    for (word, value) in state.iter_mut().zip(before) {
        *word = S::u64s::splat(simd, *value);
    }
    state[before.len()] = last;
    // The bits of SHA-3 behind a message and the padding (FIPS 202, sections 6.1 and 5.1).
    state[before.len() + 1] = S::u64s::splat(simd, 0x06);
    state[RATE_WORDS - 1] ^= 0x80 << 56;
    for constant in ROUND_CONSTANTS {
        round::<S>(&mut state, constant);
    }
    state[0]
}

#[inline(always)]
fn round<S: Simd>(state: &mut [S::u64s; WORDS], constant: u64) {
    // θ
    let mut columns = [state[0]; 5];
    for x in 0..5 {
        columns[x] = state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20];
    }
    for x in 0..5 {
        let near = columns[(x + 4) % 5] ^ turned::<S>(columns[(x + 1) % 5], 1);
        for y in 0..5 {
            state[x + 5 * y] ^= near;
        }
    }
    // ρ and π, from the last word that moves back to the first; a loop over a table of them is not unrolled, and then keeps
    // the state in memory, which takes seven times as long (FIPS 202, sections 3.2.2 and 3.2.3; (x, y) is at x + 5y).
    let first = state[1];
    state[1] = turned::<S>(state[6], 44);
    state[6] = turned::<S>(state[9], 20);
    state[9] = turned::<S>(state[22], 61);
    state[22] = turned::<S>(state[14], 39);
    state[14] = turned::<S>(state[20], 18);
    state[20] = turned::<S>(state[2], 62);
    state[2] = turned::<S>(state[12], 43);
    state[12] = turned::<S>(state[13], 25);
    state[13] = turned::<S>(state[19], 8);
    state[19] = turned::<S>(state[23], 56);
    state[23] = turned::<S>(state[15], 41);
    state[15] = turned::<S>(state[4], 27);
    state[4] = turned::<S>(state[24], 14);
    state[24] = turned::<S>(state[21], 2);
    state[21] = turned::<S>(state[8], 55);
    state[8] = turned::<S>(state[16], 45);
    state[16] = turned::<S>(state[5], 36);
    state[5] = turned::<S>(state[3], 28);
    state[3] = turned::<S>(state[18], 21);
    state[18] = turned::<S>(state[17], 15);
    state[17] = turned::<S>(state[11], 10);
    state[11] = turned::<S>(state[7], 6);
    state[7] = turned::<S>(state[10], 3);
    state[10] = turned::<S>(first, 1);
    // χ
    for y in 0..5 {
        let mut row = [state[0]; 5];
        for x in 0..5 {
            row[x] = state[x + 5 * y];
        }
        for x in 0..5 {
            state[x + 5 * y] = row[x] ^ (!row[(x + 1) % 5] & row[(x + 2) % 5]);
        }
    }
    // ι
    state[0] ^= constant;
}

#[inline(always)]
fn turned<S: Simd>(word: S::u64s, bits: u32) -> S::u64s {
    (word << bits) | (word >> (u64::BITS - bits))
}
