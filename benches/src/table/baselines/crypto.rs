//! Signatures and hashes, each on one core alone.

use std::hint::black_box;

use flash_proto::{
    Hash, SecretKey,
    hash::{Layout, Tag},
    keys::verify_all,
};

use super::median_us;

/// Signatures that are checked together.
const TOGETHER: u16 = 64;
/// Bytes that are hashed.
const HASHED_BYTES: usize = 128 * 1024;

/// Medians in microseconds.
#[allow(clippy::struct_field_names, reason = "the unit belongs to the name")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crypto {
    pub(crate) sign_us: f64,
    /// By a key that is prepared already.
    pub(crate) verify_us: f64,
    /// One of 64 that are checked together.
    pub(crate) verify_together_us: f64,
    /// SHA3-256 of 128 KiB.
    pub(crate) hash_us: f64,
}

impl Crypto {
    pub(crate) fn measure() -> Self {
        let key = SecretKey::from_bytes([9; 32]);
        let public = key.public();
        let hash = |n: u64| -> Hash { Layout::new(Tag::STATE_KEY).u64(n).hash() };
        let message = hash(1);
        let signature = key.sign(&message);
        let verifier = public.verifier().expect("a key that was just made");
        let many: Vec<_> =
            (0..TOGETHER).map(|n| (public, hash(n.into()), key.sign(&hash(n.into())))).collect();
        let bytes = vec![0x5a_u8; HASHED_BYTES];
        Self {
            sign_us: median_us(|| {
                black_box(key.sign(black_box(&message)));
            }),
            verify_us: median_us(|| assert!(verifier.verify(&message, &signature))),
            verify_together_us: median_us(|| assert!(verify_all(&many))) / f64::from(TOGETHER),
            hash_us: median_us(|| {
                black_box(Layout::new(Tag::HISTORY).bytes(black_box(&bytes)).hash());
            }),
        }
    }
}
