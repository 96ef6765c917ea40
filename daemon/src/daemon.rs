//! The running daemon as its RPC sees it.

mod data;
mod list;
mod pay;
mod receipt;
mod stakes;

use std::{sync::Arc, time::Duration};

use flash_channel::store::Store;
use flash_node_client::{
    client::{ClientError, NodeClient, TransactionStatus},
    quic::PeerAddress,
};
use flash_proto::{Block, BlockId, ChannelId, NetworkParams, Payload, PublicKey, Transaction, TransactionId};
use tokio::sync::watch;

pub use self::pay::PaidAll;
use crate::{
    api::{self, ApiError, ErrorCode},
    engine::{Engine, View, Views, stopping},
    events::{Events, now_ms},
    metrics::Metrics,
    opening::{Opening, Wish},
    peers::Peers,
    recovery::Recovery,
    stop::Stop,
    towers::Towers,
    wallet::WalletService,
};

/// How long a call waits for the ledger.
const LEDGER_WAIT: Duration = Duration::from_secs(180);
type Answer<T> = Result<T, ApiError>;

/// A handle to the running daemon; cheap to clone.
///
/// Every method answers only after what it says is on the disk.
#[derive(Clone)]
pub struct Daemon(Arc<Parts>);

/// What the daemon is made of.
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) views: Views,
    pub(crate) events: Events,
    pub(crate) wallet: WalletService,
    pub(crate) client: NodeClient,
    pub(crate) peers: Peers,
    pub(crate) opening: Opening,
    pub(crate) recovery: Recovery,
    pub(crate) towers: Towers,
    pub(crate) params: Arc<NetworkParams>,
    pub(crate) node_key: PublicKey,
    pub(crate) ticket: String,
    /// Where this daemon is a watchtower for others, if it is one.
    pub(crate) tower: Option<PeerAddress>,
    pub(crate) contest_window_milestones: u32,
    pub(crate) metrics: Metrics,
    /// How the backup stands, if one is kept.
    pub(crate) backup: Option<BackupStatus>,
    pub(crate) stop: Stop,
}

/// Tells how the backup stands.
pub(crate) type BackupStatus = Box<dyn Fn() -> api::BackupInfo + Send + Sync>;

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("ticket", &self.0.ticket).finish_non_exhaustive()
    }
}

impl Daemon {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The daemon at a glance.
    ///
    /// # Errors
    /// None so far.
    pub fn info(&self) -> Answer<api::Info> {
        let parts = &self.0;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(api::Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_key: parts.node_key,
            ticket: parts.ticket.clone(),
            tower: parts.tower.as_ref().map(ToString::to_string),
            network: parts.params.id(),
            network_name: parts.params.name.clone(),
            ledger: self.ledger_status()?,
            peers_connected: count(parts.peers.connected()),
            channels: count(parts.views.live_count()),
            backup: parts.backup.as_ref().map(|backup| backup()),
        })
    }

    /// A new address, never given out before.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn new_address(&self) -> Answer<api::NewAddress> {
        Ok(api::NewAddress { address: self.0.wallet.fresh_address().await? })
    }

    /// The wallet's money, outside of channels.
    ///
    /// # Errors
    /// [`ErrorCode::LedgerUnavailable`] if no node can be reached.
    pub async fn wallet_balance(&self) -> Answer<api::WalletBalance> {
        self.0.wallet.balance().await
    }

    /// Looks for money at the first `addresses` addresses of the seed, and for the channels of as many keys, for
    /// a wallet made from old words.
    ///
    /// # Errors
    /// [`ErrorCode::LedgerUnavailable`] if no node can be reached; the addresses are watched all the same.
    pub async fn recover(&self, request: api::RecoverRequest) -> Answer<api::RecoverResult> {
        if request.addresses > api::RECOVER_ADDRESSES_MAX {
            let message =
                format!("{} addresses; at most {} at a time", request.addresses, api::RECOVER_ADDRESSES_MAX);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, "ask for fewer"));
        }
        self.0.wallet.watch_until(request.addresses).await?;
        self.0.recovery.search(request.addresses).await?;
        let recovered = |view: &View| view.is_live() && view.info.recovered;
        let views = self.0.views.all()?.into_iter().filter(recovered);
        let channels = views.map(|view| self.shown(view)).collect();
        Ok(api::RecoverResult { balance: self.0.wallet.balance().await?, channels })
    }

    /// Says which machine the peer of a recovered channel is, and connects to it.
    ///
    /// # Errors
    /// [`ErrorCode::ChannelState`] if the channel's peer is known since it was opened.
    pub async fn meet(&self, id: ChannelId, request: api::PeerRequest) -> Answer<api::ChannelInfo> {
        let peer = self.peer_address(&request.peer)?;
        self.0.recovery.meet(&self.0.peers, id, peer).await?;
        self.channel(id)
    }

    /// The user says that the records of a channel are the newest there are.
    ///
    /// # Errors
    /// [`ErrorCode::ChannelState`] if they are not in doubt, or cannot be the newest.
    pub async fn trust(&self, id: ChannelId) -> Answer<api::ChannelInfo> {
        self.0.engine.trust(id).await?;
        self.channel(id)
    }

    fn peer_address(&self, ticket: &str) -> Answer<PeerAddress> {
        let peer: PeerAddress = ticket.parse().map_err(|error| {
            let hint = "`flash info` on the peer's machine shows its ticket";
            ApiError::new(ErrorCode::InvalidRequest, format!("{error}"), hint)
        })?;
        if peer.key == self.0.node_key {
            let hint = "name another machine's ticket";
            return Err(ApiError::new(ErrorCode::InvalidRequest, "this is our own ticket", hint));
        }
        Ok(peer)
    }

    /// Returns when the transfer is applied.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn send(&self, request: api::SendRequest) -> Answer<api::SendResult> {
        self.0.wallet.send(request.to, request.amount).await
    }

    /// What came and went, newest first.
    ///
    /// # Errors
    /// [`ErrorCode::StoreFailed`].
    pub fn wallet_history(&self, limit: usize) -> Answer<Vec<api::HistoryEntry>> {
        self.0.wallet.history(limit)
    }

    /// Returns when the channel is open on the ledger.
    ///
    /// # Errors
    /// [`ApiError`]; [`ErrorCode::Timeout`] if it is agreed on but not open yet.
    pub async fn open(&self, request: api::OpenRequest) -> Answer<api::ChannelInfo> {
        let peer = self.peer_address(&request.peer)?;
        let wish = Wish {
            peer,
            deposit: request.deposit,
            peer_deposit: request.peer_deposit,
            contest_window_milestones: request
                .contest_window_milestones
                .unwrap_or(self.0.contest_window_milestones),
        };
        let id = self.0.opening.open(&self.0.peers, wish).await?;
        let decided = |view: &View| view.info.state != "opening" || view.refused.is_some();
        let view = self.wait_for(id, decided, "open").await?;
        match (view.info.state.as_str(), view.refused) {
            ("opening", Some(reason)) => {
                let hint = "what was locked for it is free again when it has expired; try again";
                Err(ApiError::new(ErrorCode::LedgerRefused, format!("channel {id}: {reason}"), hint))
            }
            ("lapsed", _) => {
                let message = format!("channel {id} was not opened on the ledger in time");
                Err(ApiError::new(ErrorCode::LedgerRefused, message, "try again"))
            }
            _ => Ok(view.info),
        }
    }

    /// Waits until a channel is so.
    async fn wait_for(&self, id: ChannelId, so: impl FnMut(&View) -> bool, what: &str) -> Answer<View> {
        let mut view = self.0.views.follow(id)?;
        let waited = tokio::time::timeout(LEDGER_WAIT, view.wait_for(so)).await;
        match waited {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(error)) => Err(stopping(error)),
            Err(_) => {
                let message = format!("channel {id} is not {what} after {} s", LEDGER_WAIT.as_secs());
                let hint = "what was asked for goes on; see `flash channel show`. If the peer is gone, close with --force";
                Err(ApiError::new(ErrorCode::Timeout, message, hint))
            }
        }
    }

    /// One channel.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`].
    pub fn channel(&self, id: ChannelId) -> Answer<api::ChannelInfo> {
        Ok(self.shown(self.0.views.get(id)?))
    }

    /// A channel with what the watchtowers have of it.
    fn shown(&self, view: View) -> api::ChannelInfo {
        let towers = self.0.towers.standings(&view);
        api::ChannelInfo { towers, ..view.info }
    }

    /// Asks each watchtower what it holds of a channel.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`].
    pub async fn tower_held(&self, id: ChannelId) -> Answer<Vec<api::TowerHeld>> {
        let view = self.0.views.get(id)?;
        let held = self.0.towers.held(&view).await.into_iter().map(|(tower, held)| {
            let error = held.as_ref().err().map(ToString::to_string);
            let held = held.ok().flatten();
            api::TowerHeld {
                tower: tower.to_string(),
                update: held.map(|held| held.balance.state.seq),
                // What was shown has been checked.
                paid: held.and_then(|held| held.claim().total().ok()),
                error,
            }
        });
        Ok(held.collect())
    }

    /// The watchtowers of this daemon, and how far they are.
    ///
    /// # Errors
    /// None so far.
    pub fn towers(&self) -> Answer<Vec<api::TowerInfo>> {
        self.0.towers.list(&self.0.views)
    }

    /// Closes a channel. Returns once the wish is durable, or with `wait` once it is paid out.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn close(
        &self,
        id: ChannelId,
        request: api::CloseRequest,
        wait: bool,
    ) -> Answer<api::ChannelInfo> {
        self.0.engine.close(id, request.force).await?;
        if wait {
            return Ok(self.wait_for(id, |view| !view.is_live(), "closed").await?.info);
        }
        self.channel(id)
    }

    /// Events after number `after`, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`ErrorCode::EventsGone`] if some were pruned.
    pub fn events(&self, after: u64, limit: usize) -> Answer<Vec<api::Event>> {
        self.0.events.after(after, limit)
    }

    /// The newest event's number, whenever it rises; read the events with `events`.
    pub fn event_number(&self) -> watch::Receiver<u64> {
        self.0.events.number()
    }

    /// The ledger as far as it is verified here.
    ///
    /// # Errors
    /// None so far.
    pub fn ledger_status(&self) -> Answer<api::LedgerStatus> {
        let newest = self.0.client.newest();
        let view = self.0.client.view().borrow().clone();
        let since_arrival = view.tip.as_ref().map(|tip| tip.arrived.elapsed());
        let age = now_ms().saturating_sub(newest.timestamp_ms);
        let half_window = u64::from(self.0.contest_window_milestones)
            .saturating_mul(self.0.params.milestone_interval_ms)
            / 2;
        Ok(api::LedgerStatus {
            node: view.node.map(|node| node.to_string()),
            nodes: self.0.client.nodes().into_iter().map(api::NodeStatus::from).collect(),
            milestone_index: newest.index,
            milestone_id: newest.id(),
            milestone_age_ms: age,
            fresh: since_arrival.is_some() && view.halted.is_none() && age < half_window,
        })
    }

    /// A transaction, as far as the node could prove it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::LedgerUnavailable`].
    pub async fn ledger_transaction(&self, id: TransactionId) -> Answer<api::TransactionInfo> {
        let status = self.0.client.transaction(id).await?;
        let (word, milestone_index, block, reason, transaction) = match status {
            TransactionStatus::Unknown => {
                let hint = "check the id; the node knows of no such transaction";
                return Err(ApiError::new(ErrorCode::NotFound, format!("no transaction {id}"), hint));
            }
            TransactionStatus::Pending { block } => ("pending", None, Some(block), None, None),
            TransactionStatus::Applied { milestone_index, block, transaction } => {
                ("applied", Some(milestone_index), Some(block), None, Some(*transaction))
            }
            TransactionStatus::Rejected { milestone_index, conflict } => {
                ("rejected", Some(milestone_index), None, Some(conflict.to_string()), None)
            }
        };
        let transaction = match (transaction, block) {
            (None, Some(block)) => self.carried(block).await?.filter(|carried| carried.id() == id),
            (transaction, _) => transaction,
        };
        Ok(api::TransactionInfo {
            id,
            kind: transaction.as_ref().map_or("unknown", |it| it.essence.action.name()).to_owned(),
            status: word.to_owned(),
            milestone_index,
            block,
            reason,
            channel: transaction.as_ref().and_then(Transaction::channel),
        })
    }

    async fn carried(&self, block: BlockId) -> Answer<Option<Transaction>> {
        let block = self.0.client.block(block).await?;
        Ok(match block {
            Some(Block { payload: Payload::Transaction(transaction), .. }) => Some(*transaction),
            _ => None,
        })
    }

    /// A milestone, the newest if `index` is `None`.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::LedgerUnavailable`].
    pub async fn ledger_milestone(&self, index: Option<u64>) -> Answer<api::MilestoneInfo> {
        let milestone = self.0.client.milestone(index).await?;
        let essence = &milestone.essence;
        Ok(api::MilestoneInfo {
            index: essence.index,
            id: milestone.id(),
            timestamp_ms: essence.timestamp_ms,
            previous: essence.previous,
            state_root: essence.state_root.to_string(),
            signed_by: milestone.signatures.iter().map(|it| it.coordinator).collect(),
        })
    }

    /// The text of `/metrics` (OpenMetrics).
    pub fn metrics(&self) -> String {
        let faults = i64::try_from(self.0.client.faults_count()).unwrap_or(i64::MAX);
        self.0.metrics.node_faults.set(faults);
        self.0.peers.count_sent();
        self.0.metrics.text()
    }

    /// Begins an orderly stop: no new work, everything durable, connections closed.
    pub fn shutdown(&self) {
        self.0.stop.stop();
    }
}

/// What went wrong between us and the nodes, for the user.
impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoSuchMilestone(_) => {
                Self::new(ErrorCode::NotFound, message, "see `flash ledger status` for the newest")
            }
            ClientError::Rejected { .. } | ClientError::Deadline { .. } => Self::new(
                ErrorCode::LedgerRefused,
                message,
                "nothing was changed; look at the reason and try again",
            ),
            error if error.is_retryable() => {
                Self::new(ErrorCode::LedgerUnavailable, message, "see that a node of the configuration runs")
            }
            _ => Self::new(ErrorCode::LedgerRefused, message, "the reason says what is wrong"),
        }
    }
}
