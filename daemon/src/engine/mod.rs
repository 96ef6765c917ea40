//! The engine: one task that owns every channel machine, and the writer that makes their records
//! durable.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | the handle: what the rest of the daemon asks of the channels |
//! | `run.rs` | the task: takes inputs, as many as wait, and brings jobs to the writer |
//! | `run/away.rs` | channels that are away, because bulk is worked on in them |
//! | `bulk.rs` | bulk, which is worked on beside the task |
//! | `records.rs` | channels at rest, which are not in memory |
//! | `slot.rs` | one channel with its link, its callers and what waits for its next commit |
//! | `describe.rs` | a channel as the admin RPC shows it, and its events |
//! | [`writer`] | one commit for all jobs that wait, and only then what they were waiting for |
//! | [`outbox`] | where messages to a peer wait for its stream |
//! | [`view`] | the newest durable state of each channel, for everyone else |

mod bulk;
mod describe;
pub mod outbox;
mod records;
mod run;
mod slot;
#[cfg(test)]
mod tests;
pub mod view;
pub mod writer;

use std::{sync::Arc, thread, time::Duration};

use bulk::{Shared, Workers};
use flash_channel::{
    machine::{Agreement, HistoryRule, Item, LedgerView, PaymentKey},
    store::{Batch, Store, StoreError},
};
use flash_node_client::quic::Last;
use flash_proto::{
    Amount, ChannelId, Essence, LaneState, PaymentList, PublicKey, SecretKey, Transaction, TransactionId,
    Unlock, message::ChannelMessage, tower::Claimable,
};
pub use outbox::{Outbox, Waiting};
use records::Records;
use run::{EngineTask, Timing, Tip};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
pub use view::{Looked, View, Views};
pub use writer::{Stopped, Writer};

use crate::{
    api::{ApiError, ErrorCode},
    backup::Keeper,
    events::{EventLog, NewEvent},
    metrics::Metrics,
    stop::Stop,
};

/// Inputs that may wait for the engine; past it whoever brings one waits.
const MAILBOX_MAX: usize = 4_096;

/// Bytes of payments from which an input is bulk.
const BULK_BYTES_MIN: usize = 8 * 1024;

/// Derives a channel key from its index.
pub type ChannelKeys = Arc<dyn Fn(u32) -> SecretKey + Send + Sync>;

/// What the engine is started with.
pub struct EngineConfig {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The numbers of events.
    pub log: EventLog,
    /// Keeps the backup current, if there is one.
    pub(crate) backup: Option<Keeper>,
    /// The keys of this daemon's sides.
    pub keys: ChannelKeys,
    /// Milliseconds between two milestones, as the network intends it.
    pub milestone_interval_ms: u64,
    /// Longest age of a view of a channel under which payments are taken; half the channel's contest
    /// window if `None`.
    pub freshness_max: Option<Duration>,
    /// How much of the past is kept, and how often receipts are asked for.
    pub history: HistoryRule,
    /// Whether open channels in which nothing is to be done leave memory. Not where each is followed all the while.
    pub rests: bool,
    /// Counters.
    pub metrics: Metrics,
    /// Ends everything when something fails that must not be worked around.
    pub stop: Stop,
}

/// Asks things of the channels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    mailbox: mpsc::Sender<Command>,
}

/// A running engine.
pub struct Started {
    /// Asks things of the channels.
    pub engine: Engine,
    /// Makes other records durable with the same commits.
    pub writer: Writer,
    /// All channels as they are seen.
    pub views: Views,
    /// The transactions that channels need on the ledger.
    pub submissions: mpsc::UnboundedReceiver<Transaction>,
    /// The threads, to be joined once every handle is dropped. The writer's ends after the engine.
    pub threads: Vec<thread::JoinHandle<()>>,
}

/// What is asked of the engine.
#[derive(Debug)]
enum Command {
    Add { new: Box<NewChannel>, done: oneshot::Sender<()> },
    Linked { channel: ChannelId, outbox: Outbox, number: oneshot::Sender<u64> },
    Unlinked { channel: ChannelId, number: u64 },
    Message { channel: ChannelId, number: u64, message: ChannelMessage, room: OwnedSemaphorePermit },
    Pay { channel: ChannelId, order: Order },
    Milestone { index: u64, tip: Tip, views: Vec<(ChannelId, LedgerView)> },
    Proven { views: Vec<(ChannelId, LedgerView)> },
    Close { channel: ChannelId, alone: bool, done: oneshot::Sender<Result<(), ApiError>> },
    Receipt { channel: ChannelId, state: Box<LaneState>, done: oneshot::Sender<Result<(), ApiError>> },
    Change { channel: ChannelId, change: Change, done: oneshot::Sender<Result<(), ApiError>> },
    Refused { channel: ChannelId, transaction: TransactionId, reason: String },
    Trust { channel: ChannelId, done: oneshot::Sender<Result<(), ApiError>> },
    Shown { channel: ChannelId, newest: Box<Claimable>, done: oneshot::Sender<Result<(), ApiError>> },
    Meet { channel: ChannelId, peer: PublicKey, with: Batch, done: oneshot::Sender<Result<(), ApiError>> },
}

impl Command {
    /// The channel that it is for, if it is one that exists: its inputs are taken in the order in which they came.
    fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Add { new, .. } => Some(new.agreement.channel()),
            Self::Linked { channel, .. }
            | Self::Unlinked { channel, .. }
            | Self::Message { channel, .. }
            | Self::Pay { channel, .. }
            | Self::Close { channel, .. }
            | Self::Receipt { channel, .. }
            | Self::Change { channel, .. }
            | Self::Refused { channel, .. }
            | Self::Trust { channel, .. }
            | Self::Shown { channel, .. }
            | Self::Meet { channel, .. } => Some(*channel),
            Self::Milestone { .. } | Self::Proven { .. } => None,
        }
    }

    /// Bytes of payments that it brings packed.
    fn payments_bytes(&self) -> usize {
        match self {
            Self::Message { message: ChannelMessage::Update(update), .. } => update.payments.as_bytes().len(),
            Self::Pay { order: Order { pays: Pays::All(payments), .. }, .. } => payments.as_bytes().len(),
            _ => 0,
        }
    }

    fn is_bulk(&self) -> bool {
        self.payments_bytes() >= BULK_BYTES_MIN
    }
}

/// A channel that was agreed on, and other changes that become durable with it.
#[derive(Debug)]
struct NewChannel {
    agreement: Agreement,
    key: SecretKey,
    with: Batch,
    created_ms: u64,
}

/// A change of what is locked that the user wishes.
#[derive(Debug)]
enum Change {
    TopUp { essence: Box<Essence>, unlocks: Vec<Unlock> },
    Withdraw { amount: Amount, left_min: Amount },
}

/// What somebody asked to be paid.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) pays: Pays,
    pub(crate) callers: Callers,
}

/// One thing, perhaps under a key, or many payments that are all made or none.
#[derive(Debug)]
pub(crate) enum Pays {
    One(Item, Option<PaymentKey>),
    All(PaymentList),
}

/// Those who wait for a payment, or for many that are made together.
#[derive(Debug)]
pub(crate) struct Callers {
    /// Told its number, or the last one's, once it is queued, or why it is not.
    pub(crate) queued: oneshot::Sender<Result<Placed, ApiError>>,
    /// Told when the peer has it on its disk.
    pub(crate) acknowledged: oneshot::Sender<Result<(), ApiError>>,
}

/// Where a payment was queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Its number on the lane.
    pub(crate) number: u64,
    /// Whether it was queued or made by an earlier call with the same key.
    pub(crate) repeated: bool,
}

/// Finds all channels, loads those that are not at rest, and starts the engine and its threads, on a runtime. The others
/// are read meanwhile, as one that cannot be read stops the daemon.
///
/// # Errors
/// [`StoreError`]: a record cannot be read, so that nothing must be signed.
pub fn start(config: EngineConfig) -> Result<Started, StoreError> {
    let EngineConfig {
        store,
        log,
        backup,
        keys,
        milestone_interval_ms,
        freshness_max,
        history,
        rests,
        metrics,
        stop,
    } = config;
    let records = Records { store: Arc::clone(&store), keys, history, stop: stop.clone() };
    let views = Views::new(records.clone());
    let (submit, submissions) = mpsc::unbounded_channel();
    let (durable, durables) = mpsc::unbounded_channel();
    let outlets = writer::Outlets { submissions: submit.clone(), durable };
    let (writer, writer_thread) =
        Writer::start(Arc::clone(&store), log, backup, outlets, metrics.clone(), stop.clone())?;
    let (mailbox, commands) = mpsc::channel(MAILBOX_MAX);
    let timing = Timing { milestone_interval_ms, freshness_max };
    let shared = Shared { store, views: views.clone(), timing, stop: stop.clone() };
    let Workers { work, worked, mut threads } = Workers::start(shared)?;
    let mut task =
        EngineTask::new(records.clone(), timing, rests, writer.clone(), work, views.clone(), metrics);
    task.load(&submit)?;
    drop(submit);
    // Whoever asks and what is asked take turns on the threads of the runtime: to wake another thread would take longer
    // than most inputs do.
    let run = async move {
        let guard = writer::FailOnPanic(stop);
        task.run(commands, durables, worked).await;
        drop(guard);
    };
    // Behind the streams: what came for many channels is taken together.
    tokio::spawn(Last::new(Box::pin(run)));
    let resting = views.clone();
    let check_thread =
        thread::Builder::new().name("flash-check".to_owned()).spawn(move || records.check(&resting))?;
    threads.extend([writer_thread, check_thread]);
    Ok(Started { engine: Engine { mailbox }, writer, views, submissions, threads })
}

pub(crate) fn stopping<E>(_: E) -> ApiError {
    ApiError::new(ErrorCode::Busy, "the daemon is stopping", "ask again once it runs")
}

impl Engine {
    async fn command(&self, command: Command) -> Result<(), ApiError> {
        self.place().await?.0.send(command);
        Ok(())
    }

    /// Waits for a place in the engine's mailbox.
    ///
    /// # Errors
    /// [`ApiError`] if the daemon is stopping.
    pub async fn place(&self) -> Result<Place<'_>, ApiError> {
        self.mailbox.reserve().await.map(Place).map_err(stopping)
    }

    /// Takes a new channel in which this side signs with `key`, with other changes that become durable with it; returns
    /// once they are.
    ///
    /// # Errors
    /// [`ApiError`] if the daemon is stopping.
    pub async fn add(
        &self,
        agreement: Agreement,
        key: SecretKey,
        with: Batch,
        created_ms: u64,
    ) -> Result<(), ApiError> {
        let (done, added) = oneshot::channel();
        let new = Box::new(NewChannel { agreement, key, with, created_ms });
        self.command(Command::Add { new, done }).await?;
        added.await.map_err(stopping)
    }

    /// Gives a channel a stream to its peer and returns the stream's number. An earlier one is ended.
    ///
    /// # Errors
    /// [`ApiError`] if the channel needs no stream or the daemon is stopping.
    pub async fn linked(&self, channel: ChannelId, outbox: Outbox) -> Result<u64, ApiError> {
        let (number, linked) = oneshot::channel();
        self.command(Command::Linked { channel, outbox, number }).await?;
        linked.await.map_err(stopping)
    }

    /// The stream with this number is gone.
    pub async fn unlinked(&self, channel: ChannelId, number: u64) {
        // Gone only while the daemon stops.
        let _ = self.command(Command::Unlinked { channel, number }).await;
    }

    pub(crate) async fn pay(&self, channel: ChannelId, order: Order) -> Result<(), ApiError> {
        self.command(Command::Pay { channel, order }).await
    }

    /// A verified milestone of this age, with what it changed. A channel that is not among the views is
    /// as it was.
    ///
    /// # Errors
    /// [`ApiError`] if the daemon is stopping.
    pub async fn milestone(
        &self,
        index: u64,
        age: Duration,
        views: Vec<(ChannelId, LedgerView)>,
    ) -> Result<(), ApiError> {
        self.command(Command::Milestone { index, tip: Tip::told(age), views }).await
    }

    /// Channels as a milestone that is not told of yet has them. How young their view is depends on the newest one
    /// that was told of.
    ///
    /// # Errors
    /// [`ApiError`] if the daemon is stopping.
    pub async fn proven(&self, views: Vec<(ChannelId, LedgerView)>) -> Result<(), ApiError> {
        self.command(Command::Proven { views }).await
    }

    /// The user wishes to close a channel; returns once the wish is durable.
    ///
    /// # Errors
    /// [`ApiError`] if it cannot be closed so now.
    pub async fn close(&self, channel: ChannelId, alone: bool) -> Result<(), ApiError> {
        let (done, wished) = oneshot::channel();
        self.command(Command::Close { channel, alone, done }).await?;
        wished.await.map_err(stopping)?
    }

    /// The user says that a channel's records are the newest; returns once that is durable.
    ///
    /// # Errors
    /// [`ApiError`] if they are not in doubt, or cannot be the newest.
    pub async fn trust(&self, channel: ChannelId) -> Result<(), ApiError> {
        let (done, trusted) = oneshot::channel();
        self.command(Command::Trust { channel, done }).await?;
        trusted.await.map_err(stopping)?
    }

    /// A watchtower has shown this of what the peer paid; returns once it is durable.
    ///
    /// # Errors
    /// [`ApiError`] if the peer never signed it.
    pub async fn shown(&self, channel: ChannelId, newest: Claimable) -> Result<(), ApiError> {
        let (done, taken) = oneshot::channel();
        self.command(Command::Shown { channel, newest: Box::new(newest), done }).await?;
        taken.await.map_err(stopping)?
    }

    /// Locks more by a transaction of which only the unlock by the channel's key is missing; returns once it is
    /// durable.
    ///
    /// # Errors
    /// [`ApiError`] if that cannot be done now; the transaction is signed nowhere then.
    pub async fn top_up(
        &self,
        channel: ChannelId,
        essence: Essence,
        unlocks: Vec<Unlock>,
    ) -> Result<(), ApiError> {
        self.change(channel, Change::TopUp { essence: Box::new(essence), unlocks }).await
    }

    /// Asks the peer for a withdraw that leaves at least `left_min` in the channel; returns once the wish is
    /// durable.
    ///
    /// # Errors
    /// [`ApiError`] if that cannot be done now.
    pub async fn withdraw(
        &self,
        channel: ChannelId,
        amount: Amount,
        left_min: Amount,
    ) -> Result<(), ApiError> {
        self.change(channel, Change::Withdraw { amount, left_min }).await
    }

    async fn change(&self, channel: ChannelId, change: Change) -> Result<(), ApiError> {
        let (done, changed) = oneshot::channel();
        self.command(Command::Change { channel, change, done }).await?;
        changed.await.map_err(stopping)?
    }

    /// The peer's machine of a channel that was found again is this one; returns once that is durable, with
    /// other changes.
    ///
    /// # Errors
    /// [`ApiError`] if the peer is known since the channel was opened.
    pub async fn meet(&self, channel: ChannelId, peer: PublicKey, with: Batch) -> Result<(), ApiError> {
        let (done, met) = oneshot::channel();
        self.command(Command::Meet { channel, peer, with, done }).await?;
        met.await.map_err(stopping)?
    }

    /// Asks the payee for a receipt for a state of the own lane; returns once it is here and durable.
    ///
    /// # Errors
    /// [`ApiError`] if the payee is not there, or keeps no record of that update.
    pub async fn ask_receipt(&self, channel: ChannelId, state: LaneState) -> Result<(), ApiError> {
        let (done, given) = oneshot::channel();
        self.command(Command::Receipt { channel, state: Box::new(state), done }).await?;
        given.await.map_err(stopping)?
    }

    /// The ledger does not take a transaction that the channel wanted.
    pub async fn refused(&self, channel: ChannelId, transaction: TransactionId, reason: String) {
        let _ = self.command(Command::Refused { channel, transaction, reason }).await;
    }
}

/// A place in the engine's mailbox. It is waited for before what is to take it is made, so that a stream that waits, of
/// which there may be very many, holds no message.
#[derive(Debug)]
pub struct Place<'a>(mpsc::Permit<'a, Command>);

impl Place<'_> {
    /// The peer says something on the stream with this number. `room` is given back once it is dealt
    /// with.
    pub fn message(
        self,
        channel: ChannelId,
        number: u64,
        message: ChannelMessage,
        room: OwnedSemaphorePermit,
    ) {
        self.0.send(Command::Message { channel, number, message, room });
    }
}

/// Events of a job.
type Events = Vec<NewEvent>;
