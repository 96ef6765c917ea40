//! The words, signed types and wire messages of Flash, shared by every other crate.
//!
//! Nothing here does I/O, reads a clock or draws randomness. What is here, in reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`amount`] | [`Amount`]: money in base units, checked operations only |
//! | [`hash`] | SHA3-256 under a domain tag; [`hash::Layout`] writes the fixed byte layouts that get signed |
//! | [`id`] | 32-byte identifiers, [`OutputId`], [`Side`] |
//! | [`address`] | [`Address`]: where money can be sent, as Bech32 text |
//! | [`keys`] | secret and public keys, signatures, **the one signature check** (ZIP-215) |
//! | [`payment`] | one payment and the packed list of payments that an update carries |
//! | [`ticks`] | hash chains: payments that cost one hash each |
//! | [`lane`] | the lane state and the signed balance: what moves money in a channel |
//! | [`balance`] | the balance formula and the settlement rule |
//! | [`record`] | what the ledger stores: outputs and channel records, and their keys in the state tree |
//! | [`transaction`] | transfers and the channel transactions |
//! | [`block`], [`milestone`] | the vertices of the Tangle and the signed checkpoints of its ledger |
//! | [`coordinators`] | who signs the milestones, and how that changes |
//! | [`network`] | the parameters that name a network |
//! | [`receipt`] | proof of one payment out of a lane's history |
//! | [`message`] | what two peers say to each other |
//! | [`tower`] | what a daemon and a watchtower say to each other |
//! | [`codec`] | the one encoding of messages and records, always with a limit |
//! | [`limits`] | every maximum, in one place |
//!
//! Two encodings exist, on purpose. What is **signed or hashed** has its own fixed layout
//! ([`hash::Layout`]: little-endian integers, fixed-size arrays, a 16-byte domain tag first) that no
//! serialisation library can change. What is only **sent or stored** goes through [`codec`].
//! `docs/protocol.md` specifies both byte by byte, and `proto/vectors/` holds test vectors.
//!
//! # Example: a signed balance
//! ```
//! use flash_proto::{Amount, ChannelId, LaneState, NetworkId, Payment, PaymentList, SecretKey, Side};
//!
//! let payer = SecretKey::from_bytes([7; 32]);
//! let network = NetworkId::new([1; 32]);
//! let start = LaneState::new(ChannelId::new([2; 32]), Side::A);
//!
//! let mut payments = PaymentList::new();
//! payments.push(&Payment::new(Amount::new(1_500), b"session 17 Wh 3")?)?;
//! let next = start.advance(&payments)?;
//! let balance = next.sign(network, &payer);
//!
//! assert_eq!(balance.state.cumulative, Amount::new(1_500));
//! assert!(balance.verify(network, &payer.public()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

pub mod address;
pub mod amount;
pub mod balance;
pub mod block;
pub mod codec;
pub mod coordinators;
pub mod hash;
pub mod id;
mod keccak;
pub mod keys;
pub mod lane;
pub mod limits;
pub mod message;
pub mod milestone;
pub mod network;
pub mod payment;
pub mod receipt;
pub mod record;
pub mod ticks;
pub mod tower;
pub mod transaction;

pub use address::Address;
pub use amount::Amount;
pub use balance::Balances;
pub use block::{Block, Payload};
pub use coordinators::{CoordinatorHistory, CoordinatorSet};
pub use id::{BlockId, ChannelId, Hash, MilestoneId, NetworkId, OutputId, Side, TransactionId};
pub use keys::{PublicKey, SecretKey, Signature, Verified, Verifier};
pub use lane::{LaneState, SignedBalance};
pub use milestone::{Milestone, MilestoneEssence};
pub use network::NetworkParams;
pub use payment::{Payment, PaymentList, Reference};
pub use receipt::{PaymentProof, ProvenPayment};
pub use record::{ChannelPhase, ChannelRecord, LaneClaim, Output, StateKey};
pub use ticks::{TickChain, TickProof, TickStep, TickTerms};
pub use transaction::{Action, Claim, Essence, Open, Transaction, Unlock};
