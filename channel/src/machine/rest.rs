//! A channel at rest: an open one in which nothing is to be done. Its records say all of it but a few words, and only
//! those have to be in memory.

use flash_proto::{ChannelPhase, ChannelRecord, Open, Side, message::Stakes};

use super::{Channel, LedgerView, Link, Phase};

/// What is known of a channel at rest beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// What the ledger showed to be locked; nothing is under way to change it.
    proven: Stakes,
    /// The newest milestone at which it was proven to be as its records say; none since the start.
    seen: Option<u64>,
    was_established: bool,
}

/// The record of an open channel of which so much is locked. As long as it is open the ledger knows of no payments.
fn record(open: &Open, proven: &Stakes) -> ChannelRecord {
    let mut record = ChannelRecord::opened(open);
    record.party_a.deposit = proven.a.deposit;
    record.party_b.deposit = proven.b.deposit;
    record.withdrawn_a = proven.a.withdrawn;
    record.withdrawn_b = proven.b.withdrawn;
    record
}

impl Rest {
    /// A channel that rests since the start.
    pub(super) const fn new(proven: Stakes) -> Self {
        Self { proven, seen: None, was_established: false }
    }

    /// Takes note of the channel on the ledger. False if that is not what its records say, or says that something is to
    /// be done: then it must be loaded, and see for itself.
    pub fn sees(&mut self, view: &LedgerView) -> bool {
        let Some(record) = &view.record else { return false };
        let same = record.phase == ChannelPhase::Open
            && Side::BOTH.into_iter().all(|side| {
                let (totals, known) = (record.totals(side), self.proven.of(side));
                totals.deposit == known.deposit && totals.withdrawn == known.withdrawn
            });
        if same {
            self.seen = self.seen.max(Some(view.index));
        }
        same
    }

    /// The channel on the ledger at `tip`, unless it was proven at a later milestone; none if it was not proven since
    /// the start. `open` is what its agreement says.
    pub fn view(&self, open: &Open, tip: u64) -> Option<LedgerView> {
        let index = self.seen?.max(tip);
        Some(LedgerView { index, record: Some(record(open, &self.proven)), payouts: None })
    }
}

impl Channel {
    /// What is to be kept of the channel if it is at rest, `seen` being the newest view of it that it was handed. None if
    /// something is to be done, or would be forgotten if only its records were kept.
    pub fn at_rest(&self, seen: Option<&LedgerView>) -> Option<Rest> {
        let quiet = self.phase == Phase::Open
            && !self.wants_close
            && self.doubt.is_none()
            && self.locked.is_settled()
            && !self.locked.unexplained
            && !self.behind;
        let alone = self.link == Link::Down && self.queue.is_empty() && self.chain.is_none();
        let rest = Rest {
            proven: self.locked.proven,
            seen: seen.map(|view| view.index),
            was_established: self.was_established,
        };
        let as_seen = seen.copied() == seen.and_then(|view| rest.view(&self.agreement.open, view.index));
        (quiet && alone && as_seen && !self.has_changed()).then_some(rest)
    }

    /// Has what the peer has acknowledged written down with the next batch; false if it is. That alone is worth no
    /// commit, but for a channel that is to rest.
    pub fn write_acknowledged(&mut self) -> bool {
        self.dirty.outgoing |= self.written != self.outgoing;
        self.dirty.outgoing
    }

    /// Wakes a channel that was just loaded.
    pub const fn wake(&mut self, rest: &Rest) {
        self.was_established = rest.was_established;
    }
}
