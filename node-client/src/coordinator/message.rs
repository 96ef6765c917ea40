//! What coordinators say to each other, and how they sign it.

use bincode::{Decode, Encode};
use flash_proto::{
    Hash, MilestoneEssence, MilestoneId, NetworkId, PublicKey, SecretKey, Signature,
    codec::{self, CodecError},
    hash::{Layout, Tag},
};

/// Bytes of one encoded signed message: an essence that hands over to the most coordinators, and room.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// What a coordinator says about the milestone after the newest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoordinatorMessage {
    /// The network.
    pub network: NetworkId,
    /// The milestone it is about.
    pub index: u64,
    /// The ballot it is about.
    pub ballot: u64,
    /// When it was sent, in milliseconds since 1970 by the sender's clock, and rising with every message of
    /// one sender: so a repetition is told from an echo.
    pub sent_ms: u64,
    /// Who says it.
    pub sender: PublicKey,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// "Let me lead with this ballot; which essence have you accepted?" Said by the ballot's owner.
    Prepare,
    /// "I accept nothing of a lower ballot any more, for this milestone and those after it."
    Promise(Option<Accepted>),
    /// "Accept this; I have." Said by the ballot's owner.
    Propose(Box<MilestoneEssence>),
    /// "I have accepted the essence with this id."
    Accept(MilestoneId),
    /// "Enough have accepted it in one ballot, and here is my signature for the milestone."
    Sign(MilestoneId, Signature),
}

/// An essence, and the ballot in which it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Accepted {
    /// The ballot.
    pub ballot: u64,
    /// The essence.
    pub essence: Box<MilestoneEssence>,
}

/// A message with its sender's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedMessage {
    /// The message.
    pub message: CoordinatorMessage,
    /// The sender's signature over the message's hash.
    pub signature: Signature,
}

impl Body {
    /// The variant's number, in the layout and in the encoding.
    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Prepare => 0,
            Self::Promise(_) => 1,
            Self::Propose(_) => 2,
            Self::Accept(_) => 3,
            Self::Sign(..) => 4,
        }
    }
}

impl CoordinatorMessage {
    /// What its sender signs (`docs/protocol.md`, "Coordinators").
    pub fn hash(&self) -> Hash {
        let layout = Layout::new(Tag::COORDINATION)
            .bytes(self.network.as_bytes())
            .u64(self.index)
            .u64(self.ballot)
            .u64(self.sent_ms)
            .u8(self.body.kind());
        match &self.body {
            Body::Prepare => layout,
            Body::Promise(None) => layout.u8(0),
            Body::Promise(Some(accepted)) => {
                layout.u8(1).u64(accepted.ballot).bytes(accepted.essence.id().as_bytes())
            }
            Body::Propose(essence) => layout.bytes(essence.id().as_bytes()),
            Body::Accept(id) => layout.bytes(id.as_bytes()),
            Body::Sign(id, signature) => layout.bytes(id.as_bytes()).bytes(signature.as_bytes()),
        }
        .hash()
    }

    /// Signs the message with its sender's key.
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> SignedMessage {
        let signature = key.sign(&self.hash());
        SignedMessage { message: self, signature }
    }
}

impl SignedMessage {
    /// The message as it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what was sent. Nothing is checked yet but the form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode::<_, MESSAGE_BYTES_MAX>(bytes)
    }

    /// Whether the sender has signed it, and, if it brings a milestone's signature, that one too.
    pub(super) fn is_genuine(&self) -> bool {
        let sender = &self.message.sender;
        let milestone_signed = match &self.message.body {
            Body::Sign(id, signature) => sender.verify(&Hash::new(*id.as_bytes()), signature),
            _ => true,
        };
        milestone_signed && sender.verify(&self.message.hash(), &self.signature)
    }
}
