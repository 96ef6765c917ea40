//! Which coordinators' messages go from node to node.

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
