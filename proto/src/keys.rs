//! Keys, signatures and the one signature check.
//!
//! Everything that is signed anywhere in Flash is a 32-byte [`struct@Hash`] of a fixed layout. Everything
//! that is checked anywhere (channel, ledger, milestone) is checked here, by the rule of ZIP-215
//! (TIP-14 for the Tangle), so that a balance the channel accepts is always one the ledger accepts.

use std::fmt;

use chacha20::{ChaCha20Rng, rand_core::SeedableRng};
use ed25519_dalek::Signer;

use crate::{
    Hash,
    hash::{Layout, Tag},
    id::hex_newtype,
};

hex_newtype!(
    /// An Ed25519 public key. Any 32 bytes may stand here; a key that is not a point of the curve
    /// verifies nothing.
    PublicKey, 32, "a public key"
);
hex_newtype!(
    /// An Ed25519 signature.
    Signature, 64, "a signature"
);

/// An Ed25519 secret key. It is wiped when dropped, is never printed and never serialised.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key whose 32-byte seed (RFC 8032) is `bytes`.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&bytes))
    }

    /// The 32-byte seed, for the stores and TLS libraries that need it. Wipe the copy.
    pub fn expose_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The public key that goes with it.
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.0.verifying_key().to_bytes())
    }

    /// Signs a hash. Deterministic (RFC 8032): the same key and hash give the same signature.
    pub fn sign(&self, hash: &Hash) -> Signature {
        Signature::new(self.0.sign(hash.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(hidden)")
    }
}

impl PublicKey {
    /// Whether `signature` is this key's over `hash`, by the rule of ZIP-215.
    pub fn verify(&self, hash: &Hash, signature: &Signature) -> bool {
        self.verifier().is_some_and(|verifier| verifier.verify(hash, signature))
    }

    /// The key made ready for many checks, or `None` if it is not a point of the curve.
    pub fn verifier(&self) -> Option<Verifier> {
        ed25519_zebra::VerificationKey::try_from(*self.as_bytes()).ok().map(Verifier)
    }
}

/// Whether all these signatures are their keys' over their hashes: exactly if each alone is, and several times
/// faster.
///
/// A sum of all equations is checked, each times a number of 128 bits (ZIP-215). The numbers are drawn from a
/// hash of everything that is checked, so whoever wants a wrong one to pass would have to find such a hash.
pub fn verify_all(checks: &[(PublicKey, Hash, Signature)]) -> bool {
    let mut transcript = Layout::new(Tag::SIGNATURES);
    let mut batch = ed25519_zebra::batch::Verifier::new();
    for (key, hash, signature) in checks {
        transcript = transcript.bytes(key.as_bytes()).bytes(hash.as_bytes()).bytes(signature.as_bytes());
        let key = ed25519_zebra::VerificationKeyBytes::from(*key.as_bytes());
        batch.queue((key, ed25519_zebra::Signature::from(*signature.as_bytes()), hash.as_bytes()));
    }
    batch.verify(ChaCha20Rng::from_seed(*transcript.hash().as_bytes())).is_ok()
}

/// A signature that is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    key: PublicKey,
    hash: Hash,
    signature: Signature,
}

impl Verified {
    /// These signatures, if all of them are right by [`verify_all`].
    pub fn all(checks: &[(PublicKey, Hash, Signature)]) -> Option<impl Iterator<Item = Self>> {
        verify_all(checks).then(|| {
            checks.iter().map(|(key, hash, signature)| Self { key: *key, hash: *hash, signature: *signature })
        })
    }

    /// Whether this says that `signature` is that of `key` over `hash`.
    pub fn says(&self, key: &PublicKey, hash: &Hash, signature: &Signature) -> bool {
        self.key == *key && self.hash == *hash && self.signature == *signature
    }
}

/// A public key whose curve point is already decompressed: checks faster when many signatures come
/// from one key, as on a lane.
#[derive(Clone, Debug)]
pub struct Verifier(ed25519_zebra::VerificationKey);

impl Verifier {
    /// Whether `signature` is this key's over `hash`, by the rule of ZIP-215.
    pub fn verify(&self, hash: &Hash, signature: &Signature) -> bool {
        self.verify_bytes(hash.as_bytes(), signature)
    }

    /// The check itself, over any bytes: published vectors sign other messages than hashes.
    fn verify_bytes(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify(&ed25519_zebra::Signature::from(*signature.as_bytes()), message).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use blake2::{Blake2b, Digest, digest::consts::U32};
    use serde_json::Value;

    use super::*;

    type Blake2b256 = Blake2b<U32>;

    /// TIP-14 (CC0), the edge cases on which Ed25519 implementations disagree.
    #[test]
    fn the_check_is_that_of_zip_215() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../vectors/published/tip14_ed25519_zip215.json")).unwrap();
        assert_eq!(cases.len(), 12);
        for case in &cases {
            let text = |name: &str| case[name].as_str().unwrap();
            let key: PublicKey = text("pub_key").parse().unwrap();
            let signature: Signature = text("signature").parse().unwrap();
            let message = hex::decode(text("message")).unwrap();
            // An address there is a zero byte and the BLAKE2b-256 of the key; one case breaks only that.
            let address = format!("00{}", hex::encode(Blake2b256::digest(key.as_bytes())));
            let valid = address == text("address")
                && key.verifier().is_some_and(|verifier| verifier.verify_bytes(&message, &signature));
            assert_eq!(valid, case["valid"].as_bool().unwrap(), "{case}");
        }
    }

    #[test]
    fn a_signature_counts_for_its_key_and_hash_only() {
        let (key, other) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let (hash, another) = (Hash::new([3; 32]), Hash::new([4; 32]));
        let signature = key.sign(&hash);
        assert!(key.public().verify(&hash, &signature));
        assert!(!key.public().verify(&another, &signature));
        assert!(!other.public().verify(&hash, &signature));
        let mut flipped = *signature.as_bytes();
        flipped[63] ^= 1;
        assert!(!key.public().verify(&hash, &Signature::new(flipped)));
    }

    #[test]
    fn signatures_checked_together_are_right_exactly_if_each_is() {
        let mut checks: Vec<_> = (0..40_u8)
            .map(|n| {
                // Also several of one key.
                let (key, hash) = (SecretKey::from_bytes([n % 7; 32]), Hash::new([n; 32]));
                (key.public(), hash, key.sign(&hash))
            })
            .collect();
        assert!(verify_all(&checks) && verify_all(&[]));
        let verified: Vec<_> = Verified::all(&checks).unwrap().collect();
        let (own, other) = (checks[39], checks[38]);
        let says = |key, hash, signature| verified[39].says(&key, &hash, &signature);
        assert!(says(own.0, own.1, own.2));
        assert!(!says(other.0, own.1, own.2) && !says(own.0, other.1, own.2) && !says(own.0, own.1, other.2));
        for place in [0, 17, 39] {
            let right = checks[place];
            checks[place].1 = Hash::new([99; 32]);
            assert!(!verify_all(&checks) && Verified::all(&checks).is_none());
            checks[place] = right;
            checks[place].0 = PublicKey::new([2; 32]);
            assert!(!verify_all(&checks), "a key that is no point");
            checks[place] = right;
        }
        // Two wrong ones that would cancel out without the coefficients.
        (checks[3].2, checks[4].2) = (checks[4].2, checks[3].2);
        assert!(!verify_all(&checks));
    }

    #[test]
    fn a_secret_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", SecretKey::from_bytes([1; 32])), "SecretKey(hidden)");
    }
}
