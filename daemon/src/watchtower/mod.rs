//! A watchtower for others: keeps the newest balance of each lane that its clients are paid on, and claims it
//! when the channel is closed with less, without a word from anybody.
//!
//! | part | what it does |
//! | --- | --- |
//! | `mod.rs` | one task that owns the tower: balances in, jobs for the writer out; claims |
//! | `service` | clients over QUIC |
//! | [`alone`] | `flashd tower`: a tower without a daemon around it |
//!
//! The rules are in [`flash_channel::tower`]. One task takes everything in turn, so that the writer gets the jobs in
//! the order in which the tower took the balances: no answer is given before what it says is on the disk, also
//! not to whoever asks twice. The writer makes one commit of all jobs that wait, so many clients share a sync.

pub mod alone;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use flash_channel::{
    machine::LedgerView,
    store::{Barrier, Batch},
    tower::{Answer, Limits, Tower, TowerError},
};
use flash_node_client::{
    client::{ClientError, NodeClient},
    light::Checkpoint,
    quic::{Endpoint, PeerAddress, StreamLimits, TOWER_ALPN},
};
use flash_proto::{ChannelId, PublicKey, Side, Signature, Transaction, TransactionId, tower::Claimable};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};

use crate::{
    engine::{
        Writer,
        writer::{Afterwards, Job},
    },
    failure::Failure,
    metrics::Metrics,
    node_service::from_this_machine,
    run::Base,
    stop::Stop,
    submitter, tables,
    watcher::{Watcher, Watching, prove, prove_all},
};

/// Requests that may wait for the tower; past it whoever brings one waits.
const MAILBOX_MAX: usize = 256;

/// Proofs that are asked for at a time because clients name channels that were not seen. So few that made-up
/// channels never hold up those that are watched.
const PROOFS_FOR_CLIENTS: usize = 4;

/// What a watchtower is started with.
pub(crate) struct Config {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// What peers are told to connect to, `HOST:PORT`: clients of the tower are told the same host.
    pub(crate) public_address: Option<String>,
    /// Who may be a client: these keys, or everybody if there are none.
    pub(crate) clients: BTreeSet<PublicKey>,
    /// Where the ledger is followed.
    pub(crate) client: NodeClient,
    /// Whether the milestone up to which the ledger is followed is to be kept; a daemon does that itself.
    pub(crate) keeps_checkpoint: bool,
    pub(crate) base: Base,
}

/// Starts a watchtower; gives back what its clients are to be told. It ends with `stop`.
pub(crate) fn start(config: Config, tasks: &mut JoinSet<()>) -> Result<PeerAddress, Failure> {
    let Config { listen, public_address, clients, client, keeps_checkpoint, base } = config;
    let Base { key, store, writer, metrics, stop } = base;
    let limits = StreamLimits { bidirectional: service::CLIENT_REQUESTS_MAX };
    let endpoint = Endpoint::listen(&key, TOWER_ALPN, listen, limits).map_err(Failure::new)?;
    let listening = from_this_machine(endpoint.local_address().map_err(Failure::new)?);
    let host = public_address.as_deref().and_then(|public| public.rsplit_once(':')).map(|(host, _)| host);
    let host =
        host.map_or_else(|| listening.ip().to_string(), |host| host.trim_matches(['[', ']']).to_owned());
    let address = PeerAddress::new(key.public(), host, listening.port()).map_err(Failure::new)?;
    let tower = Tower::load(store.as_ref(), client.params().id(), key, Limits::default())?;
    let (mailbox, commands) = mpsc::channel(MAILBOX_MAX);
    let proofs = Arc::new(Semaphore::new(PROOFS_FOR_CLIENTS));
    let handle = Handle { mailbox, client: client.clone(), proofs };
    let keeps = keeps_checkpoint.then(|| (writer.clone(), metrics.clone()));
    let watching = Lanes { handle: handle.clone(), keeps };
    let watcher = Watcher { client: client.clone(), watching, stop: stop.clone() };
    let task = Task { tower, client, writer, metrics, claims: BTreeMap::new(), submitting: JoinSet::new() };
    tasks.spawn(task.run(commands, stop.clone()));
    tasks.spawn(watcher.run());
    tasks.spawn(service::serve(handle, clients, endpoint, stop));
    tracing::info!(tower = %address, "a watchtower for others");
    Ok(address)
}

/// What is asked of the tower's task.
enum Command {
    Keep {
        client: PublicKey,
        newest: Box<Claimable>,
        permit: Signature,
        proven: Option<Box<LedgerView>>,
        reply: oneshot::Sender<Result<Kept, TowerError>>,
    },
    Show {
        client: PublicKey,
        lane: (ChannelId, Side),
        permit: Signature,
        proven: Option<Box<LedgerView>>,
        reply: oneshot::Sender<Result<Option<Claimable>, TowerError>>,
    },
    Channels(oneshot::Sender<BTreeSet<ChannelId>>),
    Ledger(Vec<(ChannelId, LedgerView)>),
}

/// An answer, and what is told once it may be given.
struct Kept {
    answer: Answer,
    durable: oneshot::Receiver<()>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Tower(#[from] TowerError),
    #[error("the ledger cannot be asked now: {0}")]
    Ledger(#[from] ClientError),
    #[error("the tower is stopping")]
    Stopping,
}

/// Asks things of the tower; cheap to clone.
#[derive(Clone)]
struct Handle {
    mailbox: mpsc::Sender<Command>,
    client: NodeClient,
    proofs: Arc<Semaphore>,
}

impl Handle {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(command(reply)).await.map_err(|_| AskError::Stopping)?;
        answer.await.map_err(|_| AskError::Stopping)
    }

    /// Asks, and if the tower has not seen the channel on the ledger, shows it and asks again.
    async fn ask_seen<T>(
        &self,
        channel: ChannelId,
        command: impl Fn(Option<Box<LedgerView>>, oneshot::Sender<Result<T, TowerError>>) -> Command,
    ) -> Result<T, AskError> {
        match self.ask(|reply| command(None, reply)).await? {
            Err(TowerError::NotSeen) => {
                let turn = self.proofs.acquire().await.map_err(|_| AskError::Stopping)?;
                let proven = Box::new(prove(&self.client, channel).await?);
                drop(turn);
                Ok(self.ask(|reply| command(Some(proven), reply)).await??)
            }
            answer => Ok(answer?),
        }
    }

    /// Takes the newest of a lane from a client; returns once it is durable.
    async fn keep(
        &self,
        client: PublicKey,
        newest: &Claimable,
        permit: Signature,
    ) -> Result<Answer, AskError> {
        let Kept { answer, durable } = self
            .ask_seen(newest.balance.state.channel, |proven, reply| Command::Keep {
                client,
                newest: Box::new(*newest),
                permit,
                proven,
                reply,
            })
            .await?;
        durable.await.map_err(|_| AskError::Stopping)?;
        Ok(answer)
    }

    /// What is held of a lane.
    async fn show(
        &self,
        client: PublicKey,
        lane: (ChannelId, Side),
        permit: Signature,
    ) -> Result<Option<Claimable>, AskError> {
        let show = |proven, reply| Command::Show { client, lane, permit, proven, reply };
        self.ask_seen(lane.0, show).await
    }
}

/// The tower, as the one who is told of the ledger.
struct Lanes {
    handle: Handle,
    /// Keeps the newest milestone, and shows it, if nobody else does.
    keeps: Option<(Writer, Metrics)>,
}

impl Watching for Lanes {
    type Known = BTreeSet<ChannelId>;

    async fn due(&self, known: &mut BTreeSet<ChannelId>, due: &mut BTreeSet<ChannelId>) {
        let kept: BTreeSet<ChannelId> = self.handle.ask(Command::Channels).await.unwrap_or_default();
        due.retain(|id| kept.contains(id));
        due.extend(kept.difference(known));
        *known = kept;
    }

    async fn prove(&self, ids: &[ChannelId]) -> Result<Vec<LedgerView>, ClientError> {
        prove_all(&self.handle.client, ids).await
    }

    async fn hand(&self, views: Vec<(ChannelId, LedgerView)>) {
        // Gone only while the daemon stops.
        let _ = self.handle.mailbox.send(Command::Ledger(views)).await;
    }

    async fn tell(&self, checkpoint: &Checkpoint, views: Vec<(ChannelId, LedgerView)>) {
        self.hand(views).await;
        if let Some((writer, metrics)) = &self.keeps {
            metrics.milestone_index.set(i64::try_from(checkpoint.essence.index).unwrap_or(i64::MAX));
            let mut batch = Batch::new();
            tables::put_checkpoint(&mut batch, checkpoint);
            let _ = writer.commit(batch, Vec::new()).await;
        }
    }
}

/// The task that owns the tower.
struct Task {
    tower: Tower,
    client: NodeClient,
    writer: Writer,
    metrics: Metrics,
    /// The claims that are being submitted, by channel.
    claims: BTreeMap<ChannelId, BTreeMap<TransactionId, AbortHandle>>,
    submitting: JoinSet<()>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: Stop) {
        loop {
            self.count();
            let command = tokio::select! {
                command = commands.recv() => command,
                Some(_) = self.submitting.join_next() => continue,
                () = stop.stopped() => return,
            };
            let Some(command) = command else { return };
            if self.take(command).await.is_err() {
                return; // the writer is gone, because the daemon stops
            }
        }
    }

    fn count(&self) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.tower_lanes.set(gauge(self.tower.lanes()));
        self.metrics.tower_clients.set(gauge(self.tower.clients()));
    }

    async fn take(&mut self, command: Command) -> Result<(), crate::engine::Stopped> {
        match command {
            Command::Keep { client, newest, permit, proven, reply } => {
                let (channel, mut batch) = (newest.balance.state.channel, Batch::new());
                let kept = self.tower.keep(client, &newest, &permit, proven.as_deref(), &mut batch);
                let answer = match kept {
                    Ok(answer) => answer,
                    Err(error) => {
                        let _ = reply.send(Err(error));
                        return Ok(());
                    }
                };
                if !batch.is_empty() {
                    self.metrics.tower_balances.inc();
                }
                // Also an answer that changes nothing waits for what came before it.
                let ((told, durable), (may_claim, claimable)) = (oneshot::channel(), oneshot::channel());
                let after = Afterwards { replies: vec![told, may_claim], ..Afterwards::default() };
                self.writer
                    .bring(vec![Job { batch, events: Vec::new(), bulk: false, after: Barrier::new(after) }])
                    .await?;
                let _ = reply.send(Ok(Kept { answer, durable }));
                self.claim(channel, Some(claimable));
            }
            Command::Show { client, lane: (channel, payer), permit, proven, reply } => {
                let _ = reply.send(self.tower.show(client, channel, payer, &permit, proven.as_deref()));
            }
            Command::Channels(reply) => {
                let _ = reply.send(self.tower.channels().collect());
            }
            Command::Ledger(views) => {
                let mut batch = Batch::new();
                for (channel, view) in &views {
                    self.tower.ledger(*channel, view, &mut batch);
                    self.claim(*channel, None);
                }
                let after = Barrier::new(Afterwards::default());
                self.writer.bring(vec![Job { batch, events: Vec::new(), bulk: false, after }]).await?;
            }
        }
        Ok(())
    }

    /// Submits the claims that the channel needs, and gives up those that it needs no more. A balance that was just
    /// taken is claimed once it is `durable`.
    fn claim(&mut self, channel: ChannelId, mut durable: Option<oneshot::Receiver<()>>) {
        let wanted: BTreeMap<TransactionId, Transaction> =
            self.tower.wanted(channel).into_iter().map(|claim| (claim.id(), claim)).collect();
        let under_way = self.claims.entry(channel).or_default();
        under_way.retain(|id, task| {
            let stays = wanted.contains_key(id);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, claim) in wanted {
            under_way.entry(id).or_insert_with(|| {
                tracing::warn!(%channel, transaction = %id, "the channel is closed with less than is held: claiming");
                self.metrics.tower_claims.inc();
                let (client, durable) = (self.client.clone(), durable.take());
                self.submitting.spawn(async move {
                    let gone = match durable {
                        Some(durable) => durable.await.is_err(),
                        None => false,
                    };
                    if !gone {
                        submitter::insist(&client, &claim).await;
                    }
                })
            });
        }
        if under_way.is_empty() {
            self.claims.remove(&channel);
        }
    }
}
