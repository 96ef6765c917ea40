//! Ticks: payments that cost one hash each.
//!
//! A signed balance may commit to the end of a hash chain. Revealing the `i`-th preimage pays `i` units on
//! top of its total, with no further signature; the ledger can check that as well as the payee. The next
//! balance folds what was revealed into its total and its history, and may begin another chain.
//!
//! ```
//! use flash_proto::{Amount, Hash, TickChain};
//!
//! // The payer signs a balance with these terms once; from then on one hash pays.
//! let mut chain = TickChain::new(Hash::new([9; 32]), Amount::new(5), 100).unwrap();
//! let terms = chain.terms();
//! let third = chain.reveal(3).unwrap();
//! assert_eq!(terms.check(&third), Ok(Amount::new(15)));
//! // And one hash tells the payee, who knows the third, that the fourth was paid.
//! let fourth = chain.reveal(4).unwrap();
//! assert_eq!(terms.check_after(&third, &fourth), Ok(Amount::new(20)));
//! ```

use std::fmt;

use bincode::{Decode, Encode};
use fearless_simd::{Level, dispatch};
use thiserror::Error;

use crate::{
    Amount, Hash,
    hash::{Layout, Tag},
    keccak, limits,
};

/// A hash chain that pays for itself tick by tick; all zero while no ticks are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TickTerms {
    /// The end of the chain: the secret hashed `max` times.
    pub anchor: Hash,
    /// What one revealed preimage pays.
    pub unit: Amount,
    /// The length of the chain.
    pub max: u32,
}

/// The `index`-th preimage of a chain: hashed so many times it is the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TickProof {
    /// How many ticks were revealed, from 1.
    pub index: u32,
    /// The preimage.
    pub preimage: Hash,
}

/// Why ticks do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TickError {
    /// Terms that are neither all zero nor a chain.
    #[error(
        "tick terms must be all zero, or have an anchor, a unit of at least 1i and 1 to {max} ticks",
        max = limits::TICKS_MAX
    )]
    Terms,
    /// Not a preimage of this chain.
    #[error("tick {index} is not a preimage of the chain of {max} ticks")]
    Preimage {
        /// The index given.
        index: u32,
        /// The chain's length.
        max: u32,
    },
    /// What they pay does not fit 64 bits.
    #[error("the sum of the ticks does not fit 64 bits")]
    Overflow,
}

/// One step along a chain: `SHA3-256(tag ‖ preimage)`.
pub fn tick_hash(preimage: &Hash) -> Hash {
    Layout::new(Tag::TICK).bytes(preimage.as_bytes()).hash()
}

/// So many steps of [`tick_hash`] along a chain. They cannot be done side by side, and nearly all the time of ticks is in
/// them.
fn hashed(times: u32, from: Hash) -> Hash {
    hashed_at(one_by_one(Level::new()), times, from)
}

/// The level for hashes that come one after the other: what AVX2 comes with turns a word in one instruction, while the registers
/// of AVX-512, which hold what is done side by side, take twice as long for what is not.
fn one_by_one(level: Level) -> Level {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = level.as_avx2() {
        return Level::Avx2(avx2);
    }
    level
}

/// With the instructions of this level.
fn hashed_at(level: Level, times: u32, from: Hash) -> Hash {
    dispatch!(level, _simd => hashed_with(times, from))
}

#[expect(clippy::inline_always, reason = "what is not inlined is not compiled for the newer instructions")]
#[inline(always)]
fn hashed_with(times: u32, from: Hash) -> Hash {
    let [tag, tag_end] = keccak::words(&Tag::TICK.bytes());
    let mut words = keccak::words(from.as_bytes());
    for _ in 0..times {
        let [a, b, c, d] = words;
        words = keccak::sha3_256([tag, tag_end, a, b, c, d], |word| word);
    }
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    Hash::new(hash)
}

impl TickTerms {
    /// No ticks.
    pub const NONE: Self = Self { anchor: Hash::ZERO, unit: Amount::ZERO, max: 0 };

    /// Whether these are no terms, or those of a chain that can pay.
    ///
    /// # Errors
    /// [`TickError::Terms`].
    pub fn check_form(&self) -> Result<(), TickError> {
        let chain =
            self.anchor != Hash::ZERO && !self.unit.is_zero() && (1..=limits::TICKS_MAX).contains(&self.max);
        if chain || *self == Self::NONE { Ok(()) } else { Err(TickError::Terms) }
    }

    /// What `index` ticks pay.
    ///
    /// # Errors
    /// [`TickError::Preimage`] beyond the chain, [`TickError::Overflow`].
    pub fn amount(&self, index: u32) -> Result<Amount, TickError> {
        if index > self.max {
            return Err(TickError::Preimage { index, max: self.max });
        }
        self.unit.checked_mul(u64::from(index)).ok_or(TickError::Overflow)
    }

    /// The terms of what is left of the chain once its ticks up to `folded` are part of a total; none if
    /// nothing is left.
    #[must_use]
    pub fn rest(&self, folded: Option<&TickProof>) -> Self {
        let Some(folded) = folded else { return *self };
        match self.max.saturating_sub(folded.index) {
            0 => Self::NONE,
            max => Self { anchor: folded.preimage, unit: self.unit, max },
        }
    }

    /// Checks a proof by at most [`limits::TICKS_MAX`] hashes and says what it pays.
    ///
    /// # Errors
    /// [`TickError`].
    pub fn check(&self, proof: &TickProof) -> Result<Amount, TickError> {
        self.check_after(&TickProof { index: 0, preimage: self.anchor }, proof)
    }

    /// The same by whoever knows an earlier proof of the chain to be right: one hash for each tick since.
    ///
    /// # Errors
    /// [`TickError`]; one that is not later is no proof.
    pub fn check_after(&self, known: &TickProof, proof: &TickProof) -> Result<Amount, TickError> {
        self.check_form()?;
        let amount = self.amount(proof.index)?;
        let since = proof.index.checked_sub(known.index).filter(|since| *since > 0);
        if since.is_some_and(|since| hashed(since, proof.preimage) == known.preimage) {
            return Ok(amount);
        }
        Err(TickError::Preimage { index: proof.index, max: self.max })
    }
}

/// Preimages between two that a payer keeps.
const KEPT_EVERY: u32 = 64;

/// The payer's side of a chain. It keeps one preimage in 64, and those between the two where it was last: so
/// revealing tick after tick costs one hash each, whatever the length of the chain, and 6 KiB at most.
#[derive(Clone)]
pub struct TickChain {
    terms: TickTerms,
    /// The secret, and what it is after every 64 hashes.
    kept: Vec<Hash>,
    /// The 64 hashes from one of those on that were needed last, and which one it is.
    segment: (usize, Vec<Hash>),
}

impl fmt::Debug for TickChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TickChain").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl TickChain {
    /// The chain of `max` ticks that begins with this secret.
    ///
    /// # Errors
    /// [`TickError::Terms`].
    pub fn new(secret: Hash, unit: Amount, max: u32) -> Result<Self, TickError> {
        if !(1..=limits::TICKS_MAX).contains(&max) {
            return Err(TickError::Terms);
        }
        let mut kept = Vec::new();
        let mut at = secret;
        let mut done = 0_u32;
        while done < max {
            kept.push(at);
            let step = KEPT_EVERY.min(max.saturating_sub(done));
            at = hashed(step, at);
            done = done.saturating_add(step);
        }
        let terms = TickTerms { anchor: at, unit, max };
        terms.check_form()?;
        Ok(Self { terms, kept, segment: (0, Vec::new()) })
    }

    /// What a balance commits to.
    pub const fn terms(&self) -> TickTerms {
        self.terms
    }

    /// The `index`-th preimage, which pays `index` units in all; `None` if the chain is shorter, or for 0.
    pub fn reveal(&mut self, index: u32) -> Option<TickProof> {
        let from_secret = self.terms.max.checked_sub(index).filter(|_| index > 0)?;
        let number = usize::try_from(from_secret / KEPT_EVERY).ok()?;
        let within = usize::try_from(from_secret % KEPT_EVERY).ok()?;
        let (current, hashes) = &mut self.segment;
        if *current != number || hashes.is_empty() {
            let first = *self.kept.get(number)?;
            let count = usize::try_from(KEPT_EVERY).ok()?;
            *hashes = std::iter::successors(Some(first), |hash| Some(hashed(1, *hash))).take(count).collect();
            *current = number;
        }
        Some(TickProof { index, preimage: *hashes.get(within)? })
    }
}

/// What an update does about ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TickStep {
    /// The newest tick under the balance before, if any was revealed: it becomes part of the total.
    pub folded: Option<TickProof>,
    /// The terms from here on: a new chain, the rest of the one before, or none.
    pub terms: TickTerms,
}

impl TickStep {
    /// No ticks before or after.
    pub const NONE: Self = Self { folded: None, terms: TickTerms::NONE };
}

impl Default for TickStep {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(max: u32) -> TickChain {
        TickChain::new(Hash::new([7; 32]), Amount::new(3), max).unwrap()
    }

    proptest! {
        /// The steps along a chain are those of the one definition, also on older processors.
        #[test]
        fn a_chain_is_hashed_step_by_step(from: [u8; 32], times in 0_u32..40) {
            let from = Hash::new(from);
            let one_by_one = (0..times).fold(from, |hash, _| tick_hash(&hash));
            prop_assert_eq!(hashed(times, from), one_by_one);
            prop_assert_eq!(hashed_at(Level::baseline(), times, from), one_by_one);
            prop_assert_eq!(hashed_at(Level::new(), times, from), one_by_one);
        }
    }

    #[test]
    fn every_tick_of_a_chain_pays_and_leads_to_the_next() {
        for max in [1, 63, 64, 65, 129, limits::TICKS_MAX] {
            let mut chain = chain(max);
            let mut known = TickProof { index: 0, preimage: chain.terms().anchor };
            let step = (max / 50).max(1);
            for index in (1..=max).step_by(usize::try_from(step).unwrap()) {
                let proof = chain.reveal(index).unwrap();
                let pays = Ok(Amount::new(3 * u64::from(index)));
                assert_eq!(chain.terms().check_after(&known, &proof), pays, "tick {index} of {max}");
                known = proof;
            }
            let last = chain.reveal(max).unwrap();
            assert_eq!(last.preimage, Hash::new([7; 32]), "the last preimage is the secret");
            assert!(chain.terms().check(&last).is_ok());
            assert!(chain.reveal(max + 1).is_none() && chain.reveal(0).is_none());
        }
    }

    #[test]
    fn what_is_not_a_later_preimage_pays_nothing() {
        let mut chain = chain(100);
        let terms = chain.terms();
        let (fifth, sixth) = (chain.reveal(5).unwrap(), chain.reveal(6).unwrap());
        for bad in [
            TickProof { index: 7, ..sixth },
            TickProof { index: 5, ..sixth },
            TickProof { index: 0, preimage: terms.anchor },
            TickProof { index: 101, ..sixth },
            TickProof { preimage: Hash::new([1; 32]), ..sixth },
        ] {
            assert!(matches!(terms.check(&bad), Err(TickError::Preimage { .. })), "{bad:?}");
        }
        assert!(terms.check_after(&sixth, &fifth).is_err() && terms.check_after(&fifth, &fifth).is_err());
    }

    #[test]
    fn the_rest_of_a_chain_goes_on_where_it_was_folded() {
        let mut chain = chain(100);
        let terms = chain.terms();
        let third = chain.reveal(3).unwrap();
        let rest = terms.rest(Some(&third));
        assert_eq!((rest.max, terms.rest(None)), (97, terms));
        let tenth = chain.reveal(10).unwrap();
        assert_eq!(rest.check(&TickProof { index: 7, ..tenth }), Ok(Amount::new(21)));
        assert_eq!(terms.rest(chain.reveal(100).as_ref()), TickTerms::NONE);
    }

    #[test]
    fn a_chain_shows_no_secret() {
        let text = format!("{:?}", chain(2));
        assert!(text.contains("anchor") && !text.contains(&Hash::new([7; 32]).to_string()), "{text}");
    }

    #[test]
    fn terms_are_a_chain_or_nothing() {
        let good = chain(4).terms();
        assert_eq!((good.check_form(), TickTerms::NONE.check_form()), (Ok(()), Ok(())));
        for bad in [
            TickTerms { unit: Amount::ZERO, ..good },
            TickTerms { max: 0, ..good },
            TickTerms { max: limits::TICKS_MAX + 1, ..good },
            TickTerms { anchor: Hash::ZERO, ..good },
        ] {
            assert_eq!(bad.check_form(), Err(TickError::Terms));
        }
        let secret = Hash::new([7; 32]);
        assert!(TickChain::new(secret, Amount::ZERO, 4).is_err());
        assert!(TickChain::new(secret, Amount::new(1), limits::TICKS_MAX + 1).is_err());
        assert_eq!(TickTerms { unit: Amount::MAX, ..good }.amount(2), Err(TickError::Overflow));
    }
}
