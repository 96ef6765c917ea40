//! Which coordinators' messages are worth passing on.

use std::collections::BTreeMap;

use flash_proto::{CoordinatorSet, NetworkId, PublicKey};

use super::{Body, CoordinatorMessage, SignedMessage, set::Ballots};

/// What is passed on between nodes: messages about the milestone after the newest, of its coordinators, each
/// newer than what is held of that sender and kind. Every node has one, coordinator or not.
///
/// It holds at most five messages of each coordinator.
#[derive(Clone, Debug)]
pub struct Flood {
    network: NetworkId,
    /// The milestone that is being agreed on.
    index: u64,
    set: CoordinatorSet,
    held: BTreeMap<(PublicKey, u8), SignedMessage>,
}

/// A message that passed the flood: of a coordinator, about the next milestone, with valid signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard(pub(super) CoordinatorMessage);

impl Flood {
    /// A flood for the milestone after the one with index `newest`, which `set` will sign.
    pub const fn new(network: NetworkId, newest: u64, set: CoordinatorSet) -> Self {
        Self { network, index: newest.saturating_add(1), set, held: BTreeMap::new() }
    }

    /// Whether the milestone with index `newest` is the one before that which is being agreed on.
    pub const fn follows(&self, newest: u64) -> bool {
        self.index == newest.saturating_add(1)
    }

    /// The node has applied a milestone: what was said before means nothing any more.
    pub fn advance(&mut self, newest: u64, set: CoordinatorSet) {
        *self = Self::new(self.network, newest, set);
    }

    /// Takes a message; returns it if it is genuine and news, and so is to be passed on and heard.
    pub fn take(&mut self, signed: SignedMessage) -> Option<Heard> {
        let message = &signed.message;
        if !self.is_news(message) || !self.is_plausible(message) || !signed.is_genuine() {
            return None;
        }
        let heard = Heard(message.clone());
        self.held.insert((message.sender, message.body.kind()), signed);
        Some(heard)
    }

    /// The newest messages, for a neighbour that has just connected.
    pub fn held(&self) -> impl Iterator<Item = &SignedMessage> {
        self.held.values()
    }

    fn is_news(&self, message: &CoordinatorMessage) -> bool {
        let held = self.held.get(&(message.sender, message.body.kind()));
        held.is_none_or(|held| message.sent_ms > held.message.sent_ms)
    }

    /// Whether it belongs here, and its sender may say such a thing.
    fn is_plausible(&self, message: &CoordinatorMessage) -> bool {
        let owner_only = matches!(message.body, Body::Prepare | Body::Propose(_));
        message.network == self.network
            && message.index == self.index
            && self.set.place(&message.sender).is_some()
            && (!owner_only || self.set.owner(message.ballot) == Some(message.sender))
    }
}
