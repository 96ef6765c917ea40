//! The writer: one thread that makes everything durable, many jobs to a commit, and its courier.
//!
//! It takes all jobs that wait, puts their batches into one and commits. Channels' jobs with thousands of payments go by
//! themselves, after the others, whose commit takes a fraction of the time. While it syncs, payments queue up, and the
//! next update carries all of them. What the jobs were waiting for it hands to the courier with the token of that commit
//! (I10), who shows the new state first, so that whoever hears of it from the peer finds it here as well; then messages
//! go out, then transactions, then answers, then the engine learns that it may go on.
//!
//! The courier is a task: all whom a commit concerns are woken on the threads of the runtime, by one wake of another
//! thread. They run before the tasks of QUIC do, which send together what all of them have written ([`Last`]).
//!
//! [`Last`]: flash_node_client::quic::Last

use std::{sync::Arc, thread, time::Instant};

use flash_channel::store::{Barrier, Batch, Durable, Store};
use flash_proto::{ChannelId, Transaction, message::ChannelMessage};
use tokio::sync::{mpsc, oneshot};

use super::{outbox::Outbox, view::Publication};
use crate::{
    backup::Keeper,
    events::{EventLog, NewEvent},
    metrics::Metrics,
    stop::Stop,
};

/// Jobs that may wait for the writer; past it whoever brings one waits.
const JOBS_MAX: usize = 256;
/// Jobs that find room together; whoever brings more waits once for each so many.
const JOBS_TOGETHER_MAX: usize = 128;
/// Commits whose consequences may wait for the courier; past it the writer waits.
const COMMITTED_MAX: usize = 8;

/// Something to make durable, and what happens only afterwards.
#[derive(Debug)]
pub struct Job {
    /// The changes.
    pub batch: Batch,
    /// What to tell the users, durable with the changes.
    pub events: Vec<NewEvent>,
    /// Whether others may overtake it: a channel's job with much to write. All that depends on it waits until it is durable,
    /// and of all others some rely on their order.
    pub bulk: bool,
    /// What happens once they are durable.
    pub after: Barrier<Afterwards>,
}

/// What happens once a job is durable, in this order.
#[derive(Debug, Default)]
pub struct Afterwards {
    /// What others may see of the channels.
    pub publications: Vec<Publication>,
    /// Messages to peers.
    pub sends: Vec<(Outbox, ChannelMessage)>,
    /// Transactions for the ledger.
    pub submissions: Vec<Transaction>,
    /// Callers who wait for just this.
    pub replies: Vec<oneshot::Sender<()>>,
    /// The channel whose job it is, if it is one of the engine's.
    pub engine: Option<ChannelId>,
}

/// Brings jobs to the writer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<Job>);

/// The writer is gone, because the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

/// Where the courier passes things on to.
pub(crate) struct Outlets {
    /// Transactions for the ledger. Each channel has at most a few at a time.
    pub submissions: mpsc::UnboundedSender<Transaction>,
    /// The engine's jobs that are durable; the engine bounds how many it brings.
    pub durable: mpsc::UnboundedSender<ChannelId>,
}

/// What waited for one commit.
#[derive(Debug)]
struct Committed {
    afters: Vec<Barrier<Afterwards>>,
    durable: Durable,
}

impl Writer {
    /// Starts the thread, and its courier on the runtime. It ends when every `Writer` is dropped and all jobs are done, or
    /// when the store fails.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        log: EventLog,
        backup: Option<Keeper>,
        outlets: Outlets,
        metrics: Metrics,
        stop: Stop,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let (courier, commits) = mpsc::channel(COMMITTED_MAX);
        let (carrying, carried) = oneshot::channel::<()>();
        let guard = FailOnPanic(stop.clone());
        tokio::spawn(async move {
            carry(commits, outlets).await;
            drop((guard, carrying));
        });
        let run = move || {
            let guard = FailOnPanic(stop.clone());
            WriterThread { store, log, backup, courier, metrics, stop }.run(jobs);
            // Never sent: gone when the courier has done everything.
            let _ = carried.blocking_recv();
            drop(guard);
        };
        Ok((Self(sender), thread::Builder::new().name("flash-writer".to_owned()).spawn(run)?))
    }

    /// Brings jobs, so that they come with one commit where there is room for them; waits while too many wait.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) async fn bring(&self, jobs: Vec<Job>) -> Result<(), Stopped> {
        let mut jobs = jobs.into_iter();
        while jobs.len() > 0 {
            let room = self.0.reserve_many(jobs.len().min(JOBS_TOGETHER_MAX)).await.map_err(|_| Stopped)?;
            room.zip(&mut jobs).for_each(|(place, job)| place.send(job));
        }
        Ok(())
    }

    /// Makes changes and events durable, and returns when they are.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn commit(&self, batch: Batch, events: Vec<NewEvent>) -> Result<(), Stopped> {
        self.queue(batch, events).await?.await.map_err(|_| Stopped)
    }

    /// Queues changes and events behind all that were queued before; whoever waits for what is given back knows them
    /// durable.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) async fn queue(
        &self,
        batch: Batch,
        events: Vec<NewEvent>,
    ) -> Result<oneshot::Receiver<()>, Stopped> {
        let (reply, done) = oneshot::channel();
        let after = Barrier::new(Afterwards { replies: vec![reply], ..Afterwards::default() });
        self.bring(vec![Job { batch, events, bulk: false, after }]).await?;
        Ok(done)
    }
}

/// Makes a panic of the thread that holds it end the daemon.
pub(crate) struct FailOnPanic(pub(crate) Stop);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("a thread that money depends on has died; see the log".to_owned(), false);
        }
    }
}

struct WriterThread {
    store: Arc<dyn Store>,
    log: EventLog,
    backup: Option<Keeper>,
    courier: mpsc::Sender<Committed>,
    metrics: Metrics,
    stop: Stop,
}

impl WriterThread {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut waiting = Vec::new();
        let mut batch = Batch::new();
        let mut bulk = Vec::new();
        while jobs.blocking_recv_many(&mut waiting, JOBS_MAX) > 0 {
            bulk.extend(waiting.extract_if(.., |job| job.bulk));
            for jobs in [&mut waiting, &mut bulk] {
                if !jobs.is_empty() && self.commit(jobs, &mut batch).is_err() {
                    return;
                }
            }
        }
    }

    /// One commit for these jobs. Fails when the daemon ends.
    fn commit(&mut self, jobs: &mut Vec<Job>, batch: &mut Batch) -> Result<(), Stopped> {
        for job in &mut *jobs {
            batch.append(&mut job.batch);
        }
        self.log.record(jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.events)), batch);
        if let Some(backup) = &self.backup {
            backup.number(batch);
        }
        let started = Instant::now();
        let durable = match self.store.commit(batch) {
            Ok(durable) => durable,
            Err(error) => {
                self.stop.fail_store(&error);
                return Err(Stopped);
            }
        };
        if let Some(Err(error)) = self.backup.as_ref().map(|backup| backup.committed(batch)) {
            self.stop.fail(format!("the backup failed: {error}"), true);
            return Err(Stopped);
        }
        // Jobs without changes, such as those that only send, cost no sync.
        if !batch.is_empty() {
            self.metrics.committed(started.elapsed(), jobs.len());
        }
        batch.clear();
        self.log.publish();
        let afters = jobs.drain(..).map(|job| job.after).collect();
        // Gone when the runtime ends.
        self.courier.blocking_send(Committed { afters, durable }).map_err(|_| Stopped)
    }
}

/// The courier's work, until the writer has ended.
async fn carry(mut commits: mpsc::Receiver<Committed>, outlets: Outlets) {
    while let Some(Committed { afters, durable }) = commits.recv().await {
        for after in afters {
            act(after.open(&durable), &outlets);
        }
    }
}

fn act(after: Afterwards, outlets: &Outlets) {
    let Afterwards { publications, sends, submissions, replies, engine } = after;
    for publication in publications {
        publication.publish();
    }
    for (outbox, message) in sends {
        outbox.send(message);
    }
    for transaction in submissions {
        // Gone only while the daemon stops; the channel's record brings the transaction back.
        let _ = outlets.submissions.send(transaction);
    }
    for reply in replies {
        let _ = reply.send(());
    }
    if let Some(channel) = engine {
        let _ = outlets.durable.send(channel);
    }
}
