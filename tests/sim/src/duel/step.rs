//! What may be done in a duel, and how often.

use flash_proto::Side;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The user of this side pays one unit, or all it has.
    Pay(Side, bool),
    /// The next message to this side arrives.
    Deliver(Side),
    /// This side writes down what it has to, and then does what waited for that.
    Commit(Side),
    /// This side dies at a commit: the disk does not have it, or it does but nothing was sent.
    Crash(Side, bool),
    /// This side starts again.
    Restart(Side),
    /// A stream is there.
    Connect,
    /// The stream breaks; what is under way is lost.
    Break,
    /// The next milestone confirms what waits.
    Milestone,
    /// This side is shown the newest milestone.
    See(Side),
    /// The user of this side wishes to close together.
    Close(Side),
    /// The user of this side closes alone.
    CloseAlone(Side),
    /// The hostile side publishes one of the balances that it ever held, or claims an old one of its own.
    Publish(u8),
    /// The hostile side says something that no honest side would say.
    Say(u8),
    /// A copy of this side's disk is kept.
    Copy(Side),
    /// This side dies, and the last copy is put in the place of its disk.
    Restore(Side),
    /// A hands the newest that it was paid to its watchtower, which keeps it.
    Hand,
    /// The watchtower sees the newest milestone and does what it must.
    Watch,
    /// A goes away, or comes back. Meanwhile its watchtower must keep up.
    Leave(bool),
    /// The watchtower dies, or starts again. Meanwhile A must keep up.
    Outage(bool),
}

impl Step {
    /// What the shell does by itself.
    pub const fn is_due(self) -> bool {
        use Step::{Commit, Connect, Deliver, Restart, See, Watch};
        matches!(self, Restart(_) | Connect | Deliver(_) | Commit(_) | See(_) | Watch)
    }

    /// What brings the channel on comes last: whoever searches in depth from the end gets far at once.
    pub(super) const fn progress(self) -> u8 {
        match self {
            Self::Publish(_) | Self::Say(_) | Self::Leave(false) | Self::Outage(false) => 0,
            Self::Crash(..) | Self::Break | Self::Copy(_) | Self::Restore(_) | Self::Outage(true) => 1,
            Self::Milestone => 2,
            Self::Close(_) | Self::CloseAlone(_) | Self::Leave(true) => 3,
            Self::Pay(..) | Self::Hand => 4,
            Self::See(_) | Self::Watch => 5,
            Self::Restart(_) | Self::Connect | Self::Deliver(_) | Self::Commit(_) => 6,
        }
    }
}

/// How much of everything there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Payments of both sides.
    pub payments: u8,
    /// Breaks of the stream, beside those that crashes and refusals bring.
    pub breaks: u8,
    /// Crashes of both sides.
    pub crashes: u8,
    /// Wishes of both sides to close.
    pub closes: u8,
    /// Acts of a hostile side B.
    pub hostile: u8,
    /// Kinds of acts that a hostile side chooses from.
    pub hostile_kinds: u8,
    /// Disks that are copied and restored.
    pub restores: u8,
    /// Milestones.
    pub milestones: u8,
    /// Balances that A hands to a watchtower; without any there is none.
    pub hands: u8,
}

impl Budget {
    /// Nothing happens but what must.
    pub const NOTHING: Self = Self {
        payments: 0,
        breaks: 0,
        crashes: 0,
        closes: 0,
        hostile: 0,
        hostile_kinds: 0,
        restores: 0,
        milestones: 0,
        hands: 0,
    };
}
