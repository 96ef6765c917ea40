//! The running daemon as its RPC sees it.

use flash_proto::{ChannelId, TransactionId};
use tokio::sync::broadcast;

use crate::api;

/// A handle to the running daemon; cheap to clone.
///
/// Every method answers only after what it says is on the disk.
#[derive(Clone, Debug)]
pub struct Daemon {}

type Answer<T> = Result<T, api::ApiError>;

#[allow(clippy::unused_async, missing_docs, reason = "signatures first")]
impl Daemon {
    pub async fn info(&self) -> Answer<api::Info> {
        unavailable()
    }
    pub async fn new_address(&self) -> Answer<api::NewAddress> {
        unavailable()
    }
    pub async fn wallet_balance(&self) -> Answer<api::WalletBalance> {
        unavailable()
    }
    /// Returns when the transfer is applied.
    pub async fn send(&self, _request: api::SendRequest) -> Answer<api::SendResult> {
        unavailable()
    }
    pub async fn wallet_history(&self, _limit: usize) -> Answer<Vec<api::HistoryEntry>> {
        unavailable()
    }
    /// Returns when the channel is open on the ledger.
    pub async fn open(&self, _request: api::OpenRequest) -> Answer<api::ChannelInfo> {
        unavailable()
    }
    /// All channels, newest first; closed ones too if `closed`.
    pub async fn channels(&self, _closed: bool) -> Answer<Vec<api::ChannelInfo>> {
        unavailable()
    }
    pub async fn channel(&self, _id: ChannelId) -> Answer<api::ChannelInfo> {
        unavailable()
    }
    /// Cooperative: returns when the close is applied. Forced: when it is settled... the RPC lets the
    /// caller choose `wait = false` to return once the close is durable and submitted.
    pub async fn close(
        &self,
        _id: ChannelId,
        _request: api::CloseRequest,
        _wait: bool,
    ) -> Answer<api::ChannelInfo> {
        unavailable()
    }
    /// Returns when the payee has acknowledged the payment.
    pub async fn pay(&self, _id: ChannelId, _request: api::PayRequest) -> Answer<api::PayResult> {
        unavailable()
    }
    /// For streams of payments: queues the payment (waiting while the queue is full) and returns a
    /// future that resolves when it is acknowledged, so that thousands can be in flight.
    pub async fn queue_payment(&self, _id: ChannelId, _request: api::PayRequest) -> Answer<PendingPayment> {
        unavailable()
    }
    /// Events after number `after`, at most `limit`, oldest first. `EventsGone` if some were pruned.
    pub async fn events(&self, _after: u64, _limit: usize) -> Answer<Vec<api::Event>> {
        unavailable()
    }
    /// The newest event's number, whenever it rises; read the events with `events`.
    pub fn event_number(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
    pub async fn ledger_status(&self) -> Answer<api::LedgerStatus> {
        unavailable()
    }
    pub async fn ledger_transaction(&self, _id: TransactionId) -> Answer<api::TransactionInfo> {
        unavailable()
    }
    /// The newest if `index` is `None`.
    pub async fn ledger_milestone(&self, _index: Option<u64>) -> Answer<api::MilestoneInfo> {
        unavailable()
    }
    /// The text of `/metrics` (OpenMetrics).
    pub fn metrics(&self) -> String {
        String::new()
    }
    /// Begins an orderly stop: no new work, everything durable, connections closed.
    pub async fn shutdown(&self) {}
}

/// A payment on its way.
#[derive(Debug)]
pub struct PendingPayment {
    /// Its number on the lane.
    pub number: u64,
    acknowledged: broadcast::Receiver<()>,
}

impl PendingPayment {
    /// Waits until the payee has it on its disk.
    #[allow(missing_docs, reason = "signatures first")]
    pub async fn acknowledged(mut self) -> Answer<api::PayResult> {
        let _ = self.acknowledged.recv().await;
        unavailable()
    }
}

fn unavailable<T>() -> Answer<T> {
    Err(api::ApiError::new(api::ErrorCode::Internal, "not wired up", ""))
}
