//! Running a coordinator beside its node: what the [agreement](crate::coordinator) asks for is done on the node's
//! disk and ledger, and its messages go through the [`Floodgate`] that every node has.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flash_channel::store::Batch;
use flash_proto::{
    CoordinatorSet, MilestoneEssence, NetworkParams, PublicKey, SecretKey, limits::COORDINATORS_MAX,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracing::{debug, info, warn};

use super::{
    Judgement, Node, NodeError,
    rate::{Budgets, RateRule},
    records,
};
use crate::{
    coordinator::{
        Coordinator, CoordinatorMessage, Flood, Heard, Input, Output, SignedMessage, Timing, VoteRecord,
    },
    gossip::{Relay, Verdict},
};

/// Messages that wait for this node's coordinator. What does not fit is said again.
const HEARD_MAX: usize = 256;
/// Messages of one coordinator that are passed on in the time of a repetition or of a milestone, whichever is
/// shorter: an honest one says each of the five kinds once in that time.
const MESSAGES: usize = 25;
/// Messages of one coordinator that are passed on at once.
const MESSAGES_AT_ONCE: u64 = 500;
/// Coordinators whose messages are counted: those of a set and of the one that it hands over to.
const SENDERS_MAX: usize = 2 * COORDINATORS_MAX;
/// A milestone whose time is so far ahead of the local clock is not signed yet.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// Handing over to other coordinators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// The first milestone that may say so.
    pub from: u64,
    /// Who signs from the milestone after it on.
    pub to: CoordinatorSet,
}

/// What a coordinator is started with.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Its key.
    pub key: SecretKey,
    /// How often, and how patient.
    pub timing: Timing,
    /// To whom it agrees to hand over.
    pub handover: Option<Handover>,
}

impl Timing {
    /// What suits a network: patient for one interval, but not less than a second or more than ten.
    pub fn of(params: &NetworkParams) -> Self {
        let timeout_ms = params.milestone_interval_ms.clamp(1_000, 10_000);
        Self { interval_ms: params.milestone_interval_ms, timeout_ms, repeat_ms: timeout_ms / 4 }
    }
}

/// Decides which coordinators' messages a node passes on, and hands those to its own coordinator.
#[derive(Debug)]
pub struct Floodgate {
    node: Node,
    flood: Mutex<Flood>,
    /// What each coordinator has said. Taken before `flood`, never after.
    said: Mutex<Budgets<PublicKey>>,
    started: Instant,
    heard: mpsc::Sender<Heard>,
}

impl Floodgate {
    /// A gate, and what comes through it. A node without a coordinator drops the latter.
    pub fn new(node: Node) -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (heard, hearing) = mpsc::channel(HEARD_MAX);
        let (newest, set) = node.coordination();
        let flood = Mutex::new(Flood::new(newest.network, newest.index, set));
        let Timing { interval_ms, repeat_ms, .. } = Timing::of(node.params());
        let time = Duration::from_millis(interval_ms.min(repeat_ms));
        let rule = RateRule::share(MESSAGES, 1, MESSAGES_AT_ONCE, time);
        let said = Mutex::new(Budgets::new(rule, SENDERS_MAX));
        (Arc::new(Self { node, flood, said, started: Instant::now(), heard }), hearing)
    }

    /// Judges a message at a time since the start.
    pub(super) fn judge_at(&self, bytes: &[u8], now: Duration) -> Verdict {
        let Ok(message) = SignedMessage::from_bytes(bytes) else { return Verdict::Bad };
        let sender = message.message.sender;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.extra_bits(sender, now) > 0 {
            return Verdict::Stale;
        }
        let Some(heard) = self.take_message(message) else { return Verdict::Stale };
        // Only what it has signed itself counts.
        said.spend(sender, now, 0, 1);
        drop(said);
        // Where nobody listens, or too slowly, it is still passed on.
        let _ = self.heard.try_send(heard);
        Verdict::News
    }

    fn take_message(&self, message: SignedMessage) -> Option<Heard> {
        self.flood().take(message)
    }

    /// The flood, about the next milestone.
    fn flood(&self) -> MutexGuard<'_, Flood> {
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, set) = self.node.coordination();
        if !flood.follows(newest.index) {
            flood.advance(newest.index, set);
        }
        flood
    }
}

impl Relay for Floodgate {
    /// A message is news if it is genuine, of a coordinator that has not said too much lately, about the next
    /// milestone, and not said before.
    fn judge(&self, bytes: &[u8]) -> Verdict {
        self.judge_at(bytes, self.started.elapsed())
    }

    fn held(&self) -> Vec<Vec<u8>> {
        self.flood().held().map(SignedMessage::to_bytes).collect()
    }
}

impl Node {
    /// The newest milestone, and who signs the next one.
    pub fn coordination(&self) -> (MilestoneEssence, CoordinatorSet) {
        let core = self.read();
        (core.last.milestone.essence.clone(), core.coordinators.newest().clone())
    }

    fn store_vote(&self, vote: &VoteRecord) -> Result<(), NodeError> {
        let writer = self.writer()?;
        let mut batch = Batch::new();
        records::put_vote(&mut batch, vote);
        let _durable = self.commit(&writer, &batch)?;
        Ok(())
    }
}

/// Coordinates until `stop` is ready or the node stops. `hearing` is what came through `gate`; `send` gives a
/// message to all other nodes and must not block.
///
/// # Errors
/// [`NodeError`]: why this node can coordinate no longer.
pub async fn run_coordinator(
    node: Node,
    config: CoordinatorConfig,
    gate: Arc<Floodgate>,
    mut hearing: mpsc::Receiver<Heard>,
    send: impl Fn(Vec<u8>) + Send + Sync + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut newest = node.newest();
    let tick_ms = (config.timing.interval_ms.min(config.timing.repeat_ms) / 8).clamp(1, 50);
    let mut ticks = tokio::time::interval(Duration::from_millis(tick_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut worker = Worker::new(node, config, gate, Box::new(send))?;
    tokio::pin!(stop);
    loop {
        let input = tokio::select! {
            () = &mut stop => return Ok(()),
            _ = ticks.tick() => Input::Tick { now_ms: now_ms() },
            Ok(()) = newest.changed() => worker.newest(),
            Some(heard) = hearing.recv() => Input::Message(heard),
        };
        let halted = worker.node.clone();
        let done = tokio::task::spawn_blocking(move || worker.take(input).map(|()| worker)).await;
        worker = done.unwrap_or_else(|_| {
            Err(halted.halt(&NodeError::Damaged("state in memory: an invariant did not hold")))
        })?;
    }
}

/// The agreement and all that it acts on.
struct Worker {
    node: Node,
    coordinator: Coordinator,
    key: SecretKey,
    handover: Option<Handover>,
    gate: Arc<Floodgate>,
    send: Box<dyn Fn(Vec<u8>) + Send + Sync>,
}

impl Worker {
    fn new(
        node: Node,
        config: CoordinatorConfig,
        gate: Arc<Floodgate>,
        send: Box<dyn Fn(Vec<u8>) + Send + Sync>,
    ) -> Result<Self, NodeError> {
        let CoordinatorConfig { key, timing, handover } = config;
        let (newest, set) = node.coordination();
        let vote = node.stored(records::vote(node.store()))?;
        if !set.keys.contains(&key.public()) {
            warn!(key = %key.public(), "this coordinator's key does not sign the next milestone; it waits until it does");
        }
        let coordinator = Coordinator::new(key.clone(), timing, vote, newest, set, now_ms())?;
        Ok(Self { node, coordinator, key, handover, gate, send })
    }

    fn newest(&self) -> Input {
        let (essence, set) = self.node.coordination();
        Input::Newest { essence: Box::new(essence), set }
    }

    /// Takes an input, and does all that follows from it.
    fn take(&mut self, input: Input) -> Result<(), NodeError> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.coordinator.handle(input) {
                inputs.extend(self.act(output)?);
            }
        }
        Ok(())
    }

    /// Does one thing; what the agreement must hear of it.
    fn act(&self, output: Output) -> Result<Option<Input>, NodeError> {
        match output {
            Output::Persist(vote) => self.node.store_vote(&vote)?,
            Output::Send(message) => self.send(&message),
            Output::NeedDraft => {
                let essence = self.node.propose(now_ms(), self.next())?;
                return Ok(Some(Input::Draft(Box::new(essence))));
            }
            Output::Validate(essence) => return self.validate(&essence),
            Output::Assemble(milestone) => match self.node.publish(*milestone) {
                Ok(followed) => {
                    let essence = &followed.milestone.essence;
                    debug!(index = essence.index, "milestone issued");
                    return Ok(Some(self.newest()));
                }
                Err(error @ NodeError::Halted(_)) => return Err(error),
                // Another one has issued it meanwhile.
                Err(error) => debug!(%error, "the milestone was not issued"),
            },
            Output::Unsound(error) => warn!(%error, "this coordinator takes no part"),
        }
        Ok(None)
    }

    fn send(&self, message: &CoordinatorMessage) {
        let signed = message.clone().sign(&self.key);
        let bytes = signed.to_bytes();
        // So that it is not taken for news when it comes back.
        self.gate.take_message(signed);
        (self.send)(bytes);
    }

    /// The hand-over that is due, if it has not happened.
    fn next(&self) -> Option<CoordinatorSet> {
        let (newest, set) = self.node.coordination();
        let due =
            self.handover.as_ref().filter(|handover| newest.index.saturating_add(1) >= handover.from)?;
        (due.to != set).then(|| due.to.clone())
    }

    /// Says nothing while it cannot be told.
    fn validate(&self, essence: &MilestoneEssence) -> Result<Option<Input>, NodeError> {
        let id = essence.id();
        let ahead_ms = essence.timestamp_ms.saturating_sub(now_ms());
        if Duration::from_millis(ahead_ms) > AHEAD_MAX {
            warn!(index = essence.index, ahead_ms, "a milestone of the future is proposed; check the clocks");
            return Ok(None);
        }
        if essence.next.is_some() && essence.next != self.next() {
            info!(index = essence.index, "a hand-over is proposed that this coordinator was not told of");
            return Ok(Some(Input::Validated { id, right: false }));
        }
        Ok(match self.node.judge(essence)? {
            Judgement::Right => Some(Input::Validated { id, right: true }),
            Judgement::Wrong(why) => {
                warn!(index = essence.index, why, "a wrong milestone is proposed");
                Some(Input::Validated { id, right: false })
            }
            Judgement::Missing(blocks) => {
                debug!(
                    index = essence.index,
                    blocks = blocks.len(),
                    "blocks of a proposed milestone are not here"
                );
                None
            }
        })
    }
}

/// Milliseconds since 1970; 0 on a clock that stands before it.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
