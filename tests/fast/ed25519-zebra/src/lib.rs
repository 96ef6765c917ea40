//! Stands in for the real crate in simulations: the check that belongs to the signatures of the crate
//! `ed25519-dalek` beside this one.

/// A signature that does not count.
#[derive(Debug)]
pub struct Error;

/// A public key, ready for checks.
#[derive(Clone, Debug)]
pub struct VerificationKey([u8; 32]);

/// A public key that may be none.
#[derive(Clone, Copy, Debug)]
pub struct VerificationKeyBytes([u8; 32]);

/// A signature.
#[derive(Clone, Copy, Debug)]
pub struct Signature([u8; 64]);

impl TryFrom<[u8; 32]> for VerificationKey {
    type Error = Error;

    /// Some bytes must be no key, as with real ones: here those that begin with two zeros.
    fn try_from(bytes: [u8; 32]) -> Result<Self, Error> {
        if bytes[..2] == [0; 2] { Err(Error) } else { Ok(Self(bytes)) }
    }
}

impl From<[u8; 32]> for VerificationKeyBytes {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<[u8; 64]> for Signature {
    fn from(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
}

impl VerificationKey {
    /// Whether the signature is this key's over the message.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, signature: &Signature, message: &[u8]) -> Result<(), Error> {
        if ed25519_dalek::tag(&self.0, message) == signature.0 { Ok(()) } else { Err(Error) }
    }
}

/// Many checks at once.
pub mod batch {
    use super::{Error, Signature, VerificationKey, VerificationKeyBytes};

    /// The checks so far.
    #[derive(Default)]
    pub struct Verifier(Vec<(VerificationKeyBytes, Signature, Vec<u8>)>);

    impl Verifier {
        /// No checks.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// One more.
        pub fn queue<M: AsRef<[u8]>>(&mut self, check: (VerificationKeyBytes, Signature, M)) {
            let (key, signature, message) = check;
            self.0.push((key, signature, message.as_ref().to_vec()));
        }

        /// Whether all signatures are right.
        ///
        /// # Errors
        /// One is not.
        pub fn verify<R>(self, _random: R) -> Result<(), Error> {
            self.0.iter().try_for_each(|(key, signature, message)| {
                VerificationKey::try_from(key.0)?.verify(signature, message)
            })
        }
    }
}
