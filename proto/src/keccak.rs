//! SHA3-256 (FIPS 202) of very many short messages of one length, which is all that it is for: tries of a proof of work, several
//! at once, one in each lane of a register, and ticks, one after the other. Written so that it is compiled for the widest
//! registers and the newest instructions that the processor has. Every other hash is the crate `sha3`'s.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the wider registers")]
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "every place and every shift is a constant of FIPS 202"
)]

use std::ops::{BitAnd, BitOr, BitXor, Not, Shl, Shr};

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

/// A word of a state, or the words at one place of several states, one in each lane.
pub(crate) trait Word:
    Copy
    + BitXor<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
}

impl<T> Word for T where
    T: Copy
        + BitXor<Output = T>
        + BitAnd<Output = T>
        + BitOr<Output = T>
        + Not<Output = T>
        + Shl<u32, Output = T>
        + Shr<u32, Output = T>
{
}

/// The SHA3-256 of a message of less than 17 words, as little-endian words; `constant` makes a word of a number.
#[inline(always)]
pub(crate) fn sha3_256<W: Word, const N: usize>(message: [W; N], constant: impl Fn(u64) -> W) -> [W; 4] {
    const { assert!(N < RATE_WORDS, "it fits what is taken at a time, with the padding") };
    let mut state = [constant(0); WORDS];
    state[..N].copy_from_slice(&message);
    // The bits of SHA-3 behind a message and the padding (FIPS 202, sections 6.1 and 5.1).
    state[N] = constant(0x06);
    state[RATE_WORDS - 1] = state[RATE_WORDS - 1] ^ constant(0x80 << 56);
    for of_round in ROUND_CONSTANTS {
        round(&mut state, constant(of_round));
    }
    [state[0], state[1], state[2], state[3]]
}

/// The words of bytes, little-endian, as SHA3-256 takes them in.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[inline(always)]
fn round<W: Word>(state: &mut [W; WORDS], constant: W) {
    // θ
    let mut columns = [state[0]; 5];
    for x in 0..5 {
        columns[x] = state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20];
    }
    for x in 0..5 {
        let near = columns[(x + 4) % 5] ^ turned(columns[(x + 1) % 5], 1);
        for y in 0..5 {
            state[x + 5 * y] = state[x + 5 * y] ^ near;
        }
    }
    // ρ and π, from the last word that moves back to the first; a loop over a table of them is not unrolled, and then keeps
    // the state in memory, which takes seven times as long (FIPS 202, sections 3.2.2 and 3.2.3; (x, y) is at x + 5y).
    let first = state[1];
    state[1] = turned(state[6], 44);
    state[6] = turned(state[9], 20);
    state[9] = turned(state[22], 61);
    state[22] = turned(state[14], 39);
    state[14] = turned(state[20], 18);
    state[20] = turned(state[2], 62);
    state[2] = turned(state[12], 43);
    state[12] = turned(state[13], 25);
    state[13] = turned(state[19], 8);
    state[19] = turned(state[23], 56);
    state[23] = turned(state[15], 41);
    state[15] = turned(state[4], 27);
    state[4] = turned(state[24], 14);
    state[24] = turned(state[21], 2);
    state[21] = turned(state[8], 55);
    state[8] = turned(state[16], 45);
    state[16] = turned(state[5], 36);
    state[5] = turned(state[3], 28);
    state[3] = turned(state[18], 21);
    state[18] = turned(state[17], 15);
    state[17] = turned(state[11], 10);
    state[11] = turned(state[7], 6);
    state[7] = turned(state[10], 3);
    state[10] = turned(first, 1);
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
    state[0] = state[0] ^ constant;
}

#[inline(always)]
fn turned<W: Word>(word: W, bits: u32) -> W {
    (word << bits) | (word >> (u64::BITS - bits))
}
