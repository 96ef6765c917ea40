//! How k of n coordinators, each a process of its own, agree on the next milestone: pure, knows no clock, disk
//! or socket.
//!
//! Each milestone is decided by ballots (Paxos). A ballot has an owner, `keys[ballot mod n]`, who alone proposes
//! in it. An owner stays the leader from milestone to milestone; when milestones stop, the next one asks for a
//! higher ballot. **Only once k coordinators have accepted an essence in one ballot do they sign the milestone**,
//! and each signs one essence for an index, ever ([decision 006]).
//!
//! [`Coordinator::handle`] takes an [`Input`] and returns [`Output`]s, to be carried out in order:
//! [`Output::Persist`] comes first, and what follows it must not happen before it is on the disk.
//!
//! [decision 006]: ../../../docs/decisions/006-coordinators.md

mod ballots;
mod flood;
mod message;
mod rounds;
mod set;
#[cfg(test)]
mod tests;

use bincode::{Decode, Encode};
use flash_proto::{CoordinatorSet, Milestone, MilestoneEssence, MilestoneId, PublicKey, SecretKey};
pub use flood::{Flood, Heard};
pub use message::{Accepted, Body, CoordinatorMessage, MESSAGE_BYTES_MAX, SignedMessage};
pub use set::{QuorumError, check_quorum};
use thiserror::Error;

use self::{ballots::Role, rounds::Round, set::Ballots};

/// How often, and how patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds between milestones.
    pub interval_ms: u64,
    /// Milliseconds that a milestone may be late before the next coordinator asks for the lead. More than a
    /// message needs to reach all and a node needs to check an essence.
    pub timeout_ms: u64,
    /// Milliseconds after which what got no answer is said or asked again.
    pub repeat_ms: u64,
}

/// What a coordinator must not forget: a stored record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteRecord {
    /// The coordinators to whom the ballots belong.
    pub set: CoordinatorSet,
    /// The milestone it is about.
    pub index: u64,
    /// Nothing is accepted in a lower ballot any more, for this milestone and those after it.
    pub promised: u64,
    /// What was accepted last for this milestone.
    pub accepted: Option<Accepted>,
    /// The milestone that was signed. There is never a second for this index.
    pub signed: Option<MilestoneId>,
}

/// Why a coordinator does not start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoordinatorError {
    /// These coordinators cannot agree as separate processes.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The record says that something was signed that was not accepted.
    #[error("the coordinator's record for milestone {0} contradicts itself; restore it from a backup")]
    Record(u64),
}

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passes. Milliseconds since 1970; due several times in [`Timing::repeat_ms`].
    Tick {
        /// The local clock.
        now_ms: u64,
    },
    /// The node has applied a milestone, from wherever it came; it will never go back behind it.
    Newest {
        /// The milestone.
        essence: Box<MilestoneEssence>,
        /// Who signs the next one.
        set: CoordinatorSet,
    },
    /// What the node would confirm now, as asked for by [`Output::NeedDraft`].
    Draft(Box<MilestoneEssence>),
    /// The node has recomputed an essence, as asked for by [`Output::Validate`]. While it cannot, it says nothing.
    Validated {
        /// The essence's id.
        id: MilestoneId,
        /// Whether it is right.
        right: bool,
    },
    /// A message that passed the [`Flood`].
    Message(Heard),
}

/// What a coordinator wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store this record; the outputs after it wait until it is on the disk.
    Persist(Box<VoteRecord>),
    /// Sign this message and give it to all.
    Send(CoordinatorMessage),
    /// Work out what the next milestone would confirm. Asked again until a draft or a milestone comes.
    NeedDraft,
    /// Recompute this essence. Asked again until an answer comes or it no longer matters.
    Validate(Box<MilestoneEssence>),
    /// Issue this milestone. Repeated until the node has applied it; others may issue the same one.
    Assemble(Box<Milestone>),
    /// The next milestone's coordinators cannot agree as separate processes: this one takes no part.
    Unsound(QuorumError),
}

/// One coordinator.
#[derive(Debug)]
pub struct Coordinator {
    key: SecretKey,
    me: PublicKey,
    timing: Timing,
    /// The newest milestone here.
    newest: Box<MilestoneEssence>,
    /// Who signs the next one.
    set: CoordinatorSet,
    record: VoteRecord,
    role: Role,
    round: Round,
    /// The highest ballot that is known to be in use.
    seen: u64,
    now_ms: u64,
    /// When the next milestone is due.
    due_ms: u64,
    /// Since when there is neither a milestone nor a new leader.
    silent_since_ms: u64,
    /// How long it asks for the lead, or, after asking in vain, leaves the others their turns.
    turn_ends_ms: u64,
    repeat_at_ms: u64,
    /// Ballots since the last milestone: each makes this coordinator more patient.
    attempts: u32,
    last_sent_ms: u64,
    unsaved: bool,
    outputs: Vec<Output>,
    /// Signs what it accepts, as decision 006 says one must not.
    #[cfg(test)]
    signs_at_accept: bool,
}

impl Coordinator {
    /// A coordinator whose node's newest milestone is `newest`, with the record that it stored last. A key that
    /// is not in `set` takes no part until a later set has it.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn new(
        key: SecretKey,
        timing: Timing,
        record: Option<VoteRecord>,
        newest: MilestoneEssence,
        set: CoordinatorSet,
        now_ms: u64,
    ) -> Result<Self, CoordinatorError> {
        let me = key.public();
        if set.place(&me).is_some() {
            check_quorum(&set)?;
        }
        let record = record.unwrap_or_else(|| VoteRecord {
            set: set.clone(),
            index: newest.index,
            promised: 0,
            accepted: None,
            signed: None,
        });
        let accepted = record.accepted.as_ref().map(|accepted| accepted.essence.id());
        if record.signed.is_some() && record.signed != accepted {
            return Err(CoordinatorError::Record(record.index));
        }
        let mut coordinator = Self {
            me,
            key,
            timing,
            newest: Box::new(newest),
            set,
            record,
            role: Role::Follower,
            round: Round::default(),
            seen: 0,
            now_ms,
            due_ms: now_ms,
            silent_since_ms: now_ms,
            turn_ends_ms: now_ms,
            repeat_at_ms: now_ms,
            attempts: 0,
            last_sent_ms: 0,
            unsaved: false,
            outputs: Vec::new(),
            #[cfg(test)]
            signs_at_accept: false,
        };
        coordinator.begin_round();
        Ok(coordinator)
    }

    /// Takes an input, and says what is to be done.
    pub fn handle(&mut self, input: Input) -> Vec<Output> {
        match input {
            Input::Tick { now_ms } => self.tick(now_ms),
            Input::Newest { essence, set } => self.advance(essence, set),
            _ if !self.takes_part() => {}
            Input::Draft(essence) => self.take_draft(essence),
            Input::Validated { id, right } => self.take_verdict(id, right),
            Input::Message(Heard(message)) => self.take_message(message),
        }
        if self.takes_part() {
            self.finish_round();
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        if std::mem::take(&mut self.unsaved) {
            outputs.insert(0, Output::Persist(Box::new(self.record.clone())));
        }
        outputs
    }

    /// The milestone that is being agreed on.
    const fn index(&self) -> u64 {
        self.newest.index.saturating_add(1)
    }

    /// Whether this coordinator has a vote. It has none while its node is behind what it voted on.
    fn takes_part(&self) -> bool {
        self.set.place(&self.me).is_some()
            && self.record.index == self.index()
            && check_quorum(&self.set).is_ok()
    }

    fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        // A clock that was set back must not stop anything for longer than usual.
        self.due_ms = self.due_ms.min(now_ms.saturating_add(self.timing.interval_ms));
        self.silent_since_ms = self.silent_since_ms.min(now_ms.saturating_add(self.timing.interval_ms));
        let turns_ms = self.timing.timeout_ms.saturating_mul(self.set.count());
        self.turn_ends_ms = self.turn_ends_ms.min(now_ms.saturating_add(turns_ms));
        self.repeat_at_ms = self.repeat_at_ms.min(now_ms.saturating_add(self.timing.repeat_ms));
        if !self.takes_part() {
            return;
        }
        self.watch_leader();
        if now_ms >= self.repeat_at_ms {
            self.repeat_at_ms = now_ms.saturating_add(self.timing.repeat_ms);
            self.repeat();
        }
    }

    fn advance(&mut self, essence: Box<MilestoneEssence>, set: CoordinatorSet) {
        if essence.index <= self.newest.index {
            return;
        }
        // A leader that missed milestones cannot know whether the ballots were still the same ones.
        let keeps_lead = essence.index == self.index() && set == self.set;
        if !keeps_lead || matches!(self.role, Role::Candidate { .. }) {
            self.role = Role::Follower;
        }
        self.newest = essence;
        self.set = set;
        let next = self.due_ms.saturating_add(self.timing.interval_ms);
        self.due_ms = next.clamp(self.now_ms, self.now_ms.saturating_add(self.timing.interval_ms));
        self.silent_since_ms = self.due_ms;
        self.repeat_at_ms = self.now_ms.saturating_add(self.timing.repeat_ms);
        self.turn_ends_ms = self.now_ms;
        self.attempts = 0;
        if let Err(error) = check_quorum(&self.set)
            && self.set.place(&self.me).is_some()
        {
            self.outputs.push(Output::Unsound(error));
        }
        self.begin_round();
    }

    /// Forgets what was about the milestone before, and takes up what is recorded of this one.
    fn begin_round(&mut self) {
        if self.record.index < self.index() {
            if self.record.set != self.set {
                // Other coordinators, other ballots: nobody has voted in these yet.
                self.record.set = self.set.clone();
                self.record.promised = 0;
                self.seen = 0;
            }
            self.record.index = self.index();
            self.record.accepted = None;
            self.record.signed = None;
        }
        self.seen = self.seen.max(self.record.promised);
        self.round = Round::default();
        if self.takes_part() {
            self.recall_votes();
            self.resume_lead();
        }
    }

    fn send(&mut self, ballot: u64, body: Body) {
        if self.set.keys.len() == 1 {
            return;
        }
        self.last_sent_ms = self.now_ms.max(self.last_sent_ms.saturating_add(1));
        self.outputs.push(Output::Send(CoordinatorMessage {
            network: self.newest.network,
            index: self.index(),
            ballot,
            sent_ms: self.last_sent_ms,
            sender: self.me,
            body,
        }));
    }
}
