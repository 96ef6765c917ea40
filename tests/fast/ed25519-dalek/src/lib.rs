//! Stands in for the real crate in simulations: a signature is a tag over the public key and the message.
//!
//! Whoever knows a public key could work its tags out, but nobody in a simulation does: tags are made by
//! [`SigningKey::sign`] alone, which takes the secret key. So a wrong key, a changed message and a flipped bit
//! are found as with real signatures, a thousand times faster.

use sha3::mixed;

/// What the secret and the public key differ by.
const MASK: u8 = 0xA5;

/// A secret key.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

/// A public key.
pub struct VerifyingKey([u8; 32]);

/// A signature.
pub struct Signature([u8; 64]);

/// What can sign.
pub trait Signer {
    /// Signs a message.
    fn sign(&self, message: &[u8]) -> Signature;
}

impl SigningKey {
    /// The key of a seed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The seed.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The public key.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.map(|byte| byte ^ MASK))
    }
}

impl VerifyingKey {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl Signature {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        self.0
    }
}

impl Signer for SigningKey {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature(tag(&self.verifying_key().to_bytes(), message))
    }
}

/// The one signature that counts for a public key and a message.
#[must_use]
pub fn tag(public: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for part in [public.as_slice(), message] {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state = mixed(state ^ u64::from_le_bytes(word));
        }
        state = mixed(state ^ part.len() as u64);
    }
    let mut tag = [0; 64];
    for chunk in tag.chunks_mut(8) {
        state = mixed(state);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_key_and_message_only() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = key.sign(b"message").to_bytes();
        assert_eq!(signature, tag(&public, b"message"));
        assert_ne!(signature, tag(&public, b"messagf"));
        assert_ne!(signature, tag(&SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes(), b"message"));
    }
}
