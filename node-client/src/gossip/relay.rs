//! Which coordinators' messages go from node to node.

use std::sync::{Mutex, PoisonError};

use crate::{
    coordinator::{Flood, SignedMessage},
    node::Node,
};

/// What a coordinator's message is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Genuine and new: it goes on.
    News,
    /// It says nothing new, or not now.
    Stale,
    /// It never was worth anything; whoever sends many of these is dropped.
    Bad,
}

/// Decides which coordinators' messages go on. Must not block.
pub trait Relay: Send + Sync {
    /// Judges a message, and remembers it if it is news.
    fn judge(&self, message: &[u8]) -> Verdict;

    /// The messages that a neighbour must know that has just come.
    fn held(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

impl<F: Fn(&[u8]) -> Verdict + Send + Sync> Relay for F {
    fn judge(&self, message: &[u8]) -> Verdict {
        self(message)
    }
}

/// What every node does: passes on what the coordinators of the next milestone say about it.
#[derive(Debug)]
pub struct CoordinatorRelay {
    node: Node,
    flood: Mutex<(u64, Flood)>,
}

impl CoordinatorRelay {
    /// For the gossip of this node.
    pub fn new(node: Node) -> Self {
        let (newest, set) = node.next_coordinators();
        let flood = Flood::new(node.params().id(), newest, set);
        Self { node, flood: Mutex::new((newest, flood)) }
    }

    /// The flood, at the newest milestone.
    fn at_newest<T>(&self, work: impl FnOnce(&mut Flood) -> T) -> T {
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, flood) = &mut *flood;
        if *at != *self.node.newest().borrow() {
            let (newest, set) = self.node.next_coordinators();
            flood.advance(newest, set);
            *at = newest;
        }
        work(flood)
    }
}

impl Relay for CoordinatorRelay {
    fn judge(&self, message: &[u8]) -> Verdict {
        let Ok(signed) = SignedMessage::from_bytes(message) else { return Verdict::Bad };
        if signed.message.network != self.node.params().id() {
            return Verdict::Bad;
        }
        if self.at_newest(|flood| flood.take(signed)).is_some() { Verdict::News } else { Verdict::Stale }
    }

    fn held(&self) -> Vec<Vec<u8>> {
        self.at_newest(|flood| flood.held().map(SignedMessage::to_bytes).collect())
    }
}
