//! The wallet in the daemon: its record is durable before an address or a transaction leaves.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flash_channel::{
    machine::tables as channel_tables,
    store::{Batch, Store, StoreError},
};
use flash_node_client::{
    client::{ClientError, NodeClient},
    wallet::{Reservation, Seed, Wallet, WalletError, WalletEvent},
};
use flash_proto::{
    Address, Amount, ChannelId, Essence, Output, OutputId, PublicKey, SecretKey, Side, TransactionId, Unlock,
    message::Funding,
};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, oneshot, watch};

use crate::{
    api::{self, ApiError, ErrorCode, HistoryEntry},
    engine::{Views, Writer, stopping},
    events::NewEvent,
    failure::Failure,
    stop::Stop,
    tables::{self, TransferRecord},
};

/// How often the wallet looks for money while nobody asks, if that does not take long.
const LOOK: Duration = Duration::from_secs(5);
/// How often however long that takes.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Looks for money take one part of the time in so many, while nobody asks.
const LOOK_SHARE: u32 = 20;
/// How long whoever needs an unused address or key waits for the ledger to be searched.
const SEARCH_WAIT: Duration = Duration::from_secs(30);
/// How long a transfer may take to be applied.
const SEND_WAIT: Duration = Duration::from_secs(180);

/// The wallet; cheap to clone.
#[derive(Clone)]
pub(crate) struct WalletService(Arc<Inner>);

struct Inner {
    /// Held until a change has its place in the writer's queue, so that an older record never replaces a newer one; what
    /// many change at once becomes durable together. No payment in a channel ever waits for it.
    wallet: Mutex<Wallet>,
    /// Looks at the ledger that have begun, and the newest that has ended: its number, and what came of it.
    looks_begun: AtomicU64,
    looked: Mutex<(u64, Result<(), ApiError>)>,
    /// Whether the outputs were seen on the ledger since the start.
    seen: AtomicBool,
    client: NodeClient,
    writer: Writer,
    store: Arc<dyn Store>,
    /// Tells where channels have paid out.
    views: Views,
    /// Whether the ledger was searched for what belongs to the seed: before, an address or key that was used
    /// in an earlier life could be given out again.
    searched: watch::Sender<bool>,
}

/// A change of the wallet that is in the writer's queue: durable before all that is brought to the writer later, and to be
/// waited for before anything of it leaves this machine.
#[must_use = "what was given out must not leave before it is durable"]
pub(crate) struct Queued(oneshot::Receiver<()>);

impl Queued {
    /// Returns once it is durable.
    pub(crate) async fn durable(self) -> Result<(), ApiError> {
        self.0.await.map_err(stopping)
    }
}

/// Money for a channel, reserved.
#[derive(Clone, Debug)]
pub(crate) struct Funds {
    reservation: u64,
    /// What is spent.
    pub(crate) funding: Vec<Funding>,
    /// What is left over of that.
    pub(crate) change: Option<Output>,
}

/// What one party brings to an Open, reserved.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// Which channel key.
    pub(crate) key_index: u32,
    /// The channel key.
    pub(crate) key: SecretKey,
    /// Where the balance goes at the end.
    pub(crate) payout: Address,
    /// What the deposit is paid with.
    pub(crate) funds: Funds,
}

impl Funds {
    fn new(reservation: Reservation, wallet: &mut Wallet) -> Result<Self, WalletError> {
        let Reservation { id: reservation, funding, change: amount } = reservation;
        let change =
            if amount.is_zero() { None } else { Some(Output { address: wallet.fresh_address()?, amount }) };
        Ok(Self { reservation, funding, change })
    }
}

impl From<WalletError> for ApiError {
    fn from(error: WalletError) -> Self {
        let message = error.to_string();
        match error {
            WalletError::Insufficient { .. } => Self::new(
                ErrorCode::InsufficientBalance,
                message,
                "send money to an address of `flash wallet address`, or wait for what is reserved",
            ),
            _ => Self::new(ErrorCode::InvalidRequest, message, "choose another amount"),
        }
    }
}

impl WalletService {
    pub(crate) fn open(
        seed: Seed,
        client: NodeClient,
        writer: Writer,
        store: Arc<dyn Store>,
        views: Views,
    ) -> Result<Self, Failure> {
        let wallet = match tables::wallet(store.as_ref())? {
            Some(record) => {
                let store = store.as_ref();
                let (reservations, outputs) = (tables::reservations(store)?, tables::wallet_outputs(store)?);
                Wallet::from_record(seed, &record, reservations, outputs, tables::wallet_addresses(store)?)
                    .map_err(|error| Failure::new(format!("the wallet's record is damaged: {error}")))?
            }
            None => Wallet::new(seed),
        };
        let searched = watch::Sender::new(tables::is_searched(store.as_ref())?);
        let (looks_begun, looked) = (AtomicU64::new(0), Mutex::new((0, Ok(()))));
        let wallet = Mutex::new(wallet);
        Ok(Self(Arc::new(Inner {
            wallet,
            looks_begun,
            looked,
            seen: AtomicBool::new(false),
            client,
            writer,
            store,
            views,
            searched,
        })))
    }

    /// Makes the wallet's record durable.
    async fn keep(&self, wallet: MutexGuard<'_, Wallet>) -> Result<(), ApiError> {
        self.queue(wallet).await?.durable().await
    }

    /// Gives the wallet's record its place in the writer's queue.
    async fn queue(&self, mut wallet: MutexGuard<'_, Wallet>) -> Result<Queued, ApiError> {
        self.queue_with(&mut wallet, Batch::new(), Vec::new()).await
    }

    async fn queue_with(
        &self,
        wallet: &mut Wallet,
        mut batch: Batch,
        events: Vec<NewEvent>,
    ) -> Result<Queued, ApiError> {
        tables::put_wallet(&mut batch, wallet.take_changes());
        self.0.writer.queue(batch, events).await.map(Queued).map_err(stopping)
    }

    /// Makes the wallet's record durable, with other changes, events and lines of the history.
    async fn keep_with(
        &self,
        mut wallet: MutexGuard<'_, Wallet>,
        mut batch: Batch,
        events: Vec<NewEvent>,
        history: Vec<HistoryEntry>,
    ) -> Result<(), ApiError> {
        if !history.is_empty() {
            let mut number = tables::history_number(self.0.store.as_ref())?;
            for entry in &history {
                number = number.saturating_add(1);
                tables::put_history(&mut batch, number, entry);
            }
        }
        let queued = self.queue_with(&mut wallet, batch, events).await?;
        // The next line is numbered after the last one in the store, so that these must be there first.
        let held = (!history.is_empty()).then_some(wallet);
        let durable = queued.durable().await;
        drop(held);
        durable
    }

    /// Whether the ledger was searched for what belongs to the seed.
    pub(crate) fn is_searched(&self) -> bool {
        *self.0.searched.borrow()
    }

    async fn wait_for_search(&self) -> Result<(), ApiError> {
        let mut searched = self.0.searched.subscribe();
        let waited = tokio::time::timeout(SEARCH_WAIT, searched.wait_for(|searched| *searched)).await;
        if matches!(waited, Ok(Ok(_))) {
            return Ok(());
        }
        let message = "the ledger could not be searched yet for what the seed was used for before";
        let hint = "see `flash ledger status`; once a node answers, try again";
        Err(ApiError::new(ErrorCode::LedgerUnavailable, message, hint))
    }

    pub(crate) async fn fresh_address(&self) -> Result<Address, ApiError> {
        self.wait_for_search().await?;
        let mut wallet = self.0.wallet.lock().await;
        let address = wallet.fresh_address()?;
        self.keep(wallet).await?;
        Ok(address)
    }

    /// Looks at all addresses on the ledger, until none comes to them any more.
    pub(crate) async fn look_everywhere(&self) -> Result<(), ApiError> {
        let _one = self.0.looked.lock().await;
        loop {
            let watched = self.0.wallet.lock().await.addresses().to_vec();
            self.look(&watched).await?;
            if self.0.wallet.lock().await.addresses().len() == watched.len() {
                return Ok(());
            }
        }
    }

    /// How many channel keys were given out.
    pub(crate) async fn channel_keys_given(&self) -> u32 {
        self.0.wallet.lock().await.channel_keys_given()
    }

    /// The secret of a channel key.
    pub(crate) async fn channel_key(&self, index: u32) -> SecretKey {
        self.0.wallet.lock().await.channel_key(index)
    }

    /// Channel keys with their indices.
    pub(crate) async fn channel_keys(&self, indices: Range<u32>) -> Vec<(u32, PublicKey)> {
        self.0.wallet.lock().await.channel_keys(indices)
    }

    /// The ledger was searched: these keys are those of channels, which pay out to these addresses. None of them
    /// is given out again. Returns the addresses that are not ours, as far as can be seen.
    pub(crate) async fn found_channels(
        &self,
        indices: impl IntoIterator<Item = u32>,
        payouts: impl IntoIterator<Item = Address>,
    ) -> Result<BTreeSet<Address>, ApiError> {
        let mut wallet = self.0.wallet.lock().await;
        let missing = wallet.found_channels(indices, payouts);
        self.keep(wallet).await?;
        Ok(missing)
    }

    /// All that was found is durable: new addresses and keys can be given out.
    pub(crate) async fn searched(&self) -> Result<(), ApiError> {
        let mut batch = Batch::new();
        tables::put_searched(&mut batch);
        self.0.writer.commit(batch, Vec::new()).await.map_err(stopping)?;
        self.0.searched.send_replace(true);
        Ok(())
    }

    /// Looks at the addresses that are due on the ledger, unless a look that has begun since this was called is over by the
    /// time of its turn: many who ask at once need no more than two.
    async fn refresh(&self) -> Result<(), ApiError> {
        let begun = self.0.looks_begun.load(Ordering::SeqCst);
        let mut looked = self.0.looked.lock().await;
        if looked.0 <= begun {
            let number = self.0.looks_begun.fetch_add(1, Ordering::SeqCst).saturating_add(1);
            let due = {
                let mut wallet = self.0.wallet.lock().await;
                self.0.views.take_paid_out().into_iter().for_each(|address| wallet.expect(address));
                wallet.due()
            };
            *looked = (number, self.look(&due).await);
        }
        looked.1.clone()
    }

    async fn look(&self, addresses: &[Address]) -> Result<(), ApiError> {
        let proven = self.0.client.outputs_of(addresses).await?;
        let mut wallet = self.0.wallet.lock().await;
        let changes = wallet.observe(proven.milestone_index, addresses, proven.value);
        self.0.seen.store(true, Ordering::SeqCst);
        if changes.is_empty() {
            return Ok(());
        }
        let (mut batch, mut events) = (Batch::new(), Vec::new());
        let mut history = self.opened(&changes, proven.milestone_index)?;
        let payouts = payouts(self.0.store.as_ref(), &changes)?;
        for change in &changes {
            match change {
                WalletEvent::Received { id, output, .. } => tables::put_wallet_output(&mut batch, id, output),
                WalletEvent::Spent { id, .. } => tables::delete_wallet_output(&mut batch, id),
            }
            if let WalletEvent::Received { id, output, change: false } = change {
                let channel = payouts.get(id).copied();
                let kind = if channel.is_some() { "channel_payout" } else { "received" };
                let details = json!({ "amount": output.amount, "address": output.address, "output": id, "source": kind });
                events.push(NewEvent::new("funds_received", channel, &details));
                let transaction = channel.is_none().then_some(id.transaction);
                let address = Some(output.address);
                history.push(entry(kind, output.amount, transaction, address, proven.milestone_index));
            }
        }
        self.keep_with(wallet, batch, events, history).await
    }

    /// The channels whose opening has spent some of our outputs.
    fn opened(&self, changes: &[WalletEvent], milestone_index: u64) -> Result<Vec<HistoryEntry>, ApiError> {
        let spenders: BTreeSet<TransactionId> = changes
            .iter()
            .filter_map(|change| match change {
                WalletEvent::Spent { by, .. } => *by,
                WalletEvent::Received { .. } => None,
            })
            .collect();
        let mut history = Vec::new();
        for transaction in spenders {
            let channel = ChannelId::opened_by(transaction);
            if let Some(agreement) = channel_tables::find_agreement(self.0.store.as_ref(), channel)? {
                let deposit = agreement.open.party(agreement.side).deposit;
                history.push(entry("channel_open", deposit, Some(transaction), None, milestone_index));
            }
        }
        Ok(history)
    }

    /// Looks at the first `addresses` addresses, too, from now on.
    pub(crate) async fn watch_until(&self, addresses: u32) -> Result<(), ApiError> {
        let mut wallet = self.0.wallet.lock().await;
        wallet.watch_until(addresses);
        self.keep(wallet).await
    }

    pub(crate) async fn balance(&self) -> Result<api::WalletBalance, ApiError> {
        self.refresh().await?;
        let wallet = self.0.wallet.lock().await;
        Ok(api::WalletBalance {
            available: wallet.available(),
            reserved: wallet.reserved(),
            milestone_index: wallet.seen_milestone(),
        })
    }

    /// Sends money; returns when the transfer is applied. Once it is signed it is seen through, also
    /// across restarts.
    pub(crate) async fn send(&self, to: Address, amount: Amount) -> Result<api::SendResult, ApiError> {
        self.refresh().await?;
        let transfer = {
            let mut wallet = self.0.wallet.lock().await;
            let (transaction, reservation) = wallet.transfer(to, amount, self.0.client.params())?;
            let transfer = TransferRecord { reservation: reservation.id, transaction };
            let mut batch = Batch::new();
            tables::put_transfer(&mut batch, &transfer);
            self.keep_with(wallet, batch, Vec::new(), Vec::new()).await?;
            transfer
        };
        let id = transfer.transaction.id();
        let sent = tokio::spawn(self.clone().see_through(transfer));
        if let Ok(sent) = tokio::time::timeout(SEND_WAIT, sent).await {
            return sent.map_err(stopping)?;
        }
        let message = format!("transaction {id} is not applied after {} s", SEND_WAIT.as_secs());
        let hint = "it is tried on; see `flash ledger tx`";
        Err(ApiError::new(ErrorCode::Timeout, message, hint))
    }

    /// Submits a transfer until it is applied or refused.
    async fn see_through(self, transfer: TransferRecord) -> Result<api::SendResult, ApiError> {
        let TransferRecord { reservation, transaction } = transfer;
        let (id, sent) = (transaction.id(), transaction.essence.outputs.first().copied());
        let result = self.0.client.submit_and_wait(transaction, None).await;
        let mut batch = Batch::new();
        tables::delete_transfer(&mut batch, id);
        let mut wallet = self.0.wallet.lock().await;
        match result {
            Ok(applied) => {
                let (mut events, mut history) = (Vec::new(), Vec::new());
                if let Some(Output { address, amount }) = sent {
                    let details = json!({ "amount": amount, "address": address, "transaction": id });
                    events.push(NewEvent::new("funds_sent", None, &details));
                    history.push(entry("sent", amount, Some(id), Some(address), applied.milestone_index));
                }
                self.keep_with(wallet, batch, events, history).await?;
                self.refresh().await?;
                Ok(api::SendResult { transaction: id, milestone_index: applied.milestone_index })
            }
            Err(error @ (ClientError::Rejected { .. } | ClientError::Refused { .. })) => {
                wallet.release(reservation);
                self.keep_with(wallet, batch, Vec::new(), Vec::new()).await?;
                Err(error.into())
            }
            // Kept: it is tried again at the next start.
            Err(error) => Err(error.into()),
        }
    }

    /// What came and went, newest first.
    pub(crate) fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, ApiError> {
        let newest = tables::history_number(self.0.store.as_ref())?;
        let first = newest.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
        let mut history = tables::history(self.0.store.as_ref(), first, limit)?;
        history.reverse();
        Ok(history)
    }

    /// Has the wallet promise outputs; if those it knows are too few, after a look at the ledger. That nothing else spends
    /// them is known without it: only this daemon has the keys.
    async fn reserve(
        &self,
        amount: Amount,
        expiry_milestone: u64,
    ) -> Result<(Reservation, MutexGuard<'_, Wallet>), ApiError> {
        let output_min = self.0.client.params().output_min;
        // What an earlier life left in the store may be old.
        if amount.is_zero() || self.0.seen.load(Ordering::SeqCst) {
            let mut wallet = self.0.wallet.lock().await;
            if let Ok(reservation) = wallet.reserve(amount, output_min, Some(expiry_milestone)) {
                return Ok((reservation, wallet));
            }
        }
        self.refresh().await?;
        let mut wallet = self.0.wallet.lock().await;
        let reservation = wallet.reserve(amount, output_min, Some(expiry_milestone))?;
        Ok((reservation, wallet))
    }

    /// Reserves a deposit, and gives out a key and an address for the payout.
    pub(crate) async fn prepare_open(
        &self,
        deposit: Amount,
        expiry_milestone: u64,
    ) -> Result<(Prepared, Queued), ApiError> {
        self.wait_for_search().await?;
        let (reservation, mut wallet) = self.reserve(deposit, expiry_milestone).await?;
        let (key_index, key) = wallet.fresh_channel_key()?;
        let payout = wallet.fresh_address()?;
        let funds = Funds::new(reservation, &mut wallet)?;
        let queued = self.queue(wallet).await?;
        Ok((Prepared { key_index, key, payout, funds }, queued))
    }

    /// Reserves what a channel is topped up with.
    pub(crate) async fn prepare_top_up(
        &self,
        amount: Amount,
        expiry_milestone: u64,
    ) -> Result<Funds, ApiError> {
        self.wait_for_search().await?;
        let (reservation, mut wallet) = self.reserve(amount, expiry_milestone).await?;
        let funds = Funds::new(reservation, &mut wallet)?;
        self.keep(wallet).await?;
        Ok(funds)
    }

    /// Signs our part of an Open or a top-up. Which transaction the reservation is for is in the writer's queue then:
    /// durable before the channel, and so before the transaction can leave.
    pub(crate) async fn unlocks(&self, essence: &Essence, funds: &Funds) -> Result<Vec<Unlock>, ApiError> {
        if funds.funding.is_empty() {
            return Ok(Vec::new());
        }
        let id = essence.id();
        let mut wallet = self.0.wallet.lock().await;
        wallet.spends(funds.reservation, id);
        let unlocks = wallet.unlocks(essence, &funds.funding);
        let Queued(_durable) = self.queue(wallet).await?;
        Ok(unlocks)
    }

    /// The transaction never left this machine: what was reserved is free again.
    pub(crate) async fn abandon(&self, funds: &Funds) -> Result<(), ApiError> {
        let mut wallet = self.0.wallet.lock().await;
        wallet.release(funds.reservation);
        self.keep(wallet).await
    }

    /// Looks for money until the daemon stops, so that its events come by themselves.
    pub(crate) async fn follow(self, stop: Stop) {
        match tables::transfers(self.0.store.as_ref()) {
            Ok(transfers) => transfers.into_iter().for_each(|transfer| {
                tokio::spawn(self.clone().see_through(transfer));
            }),
            Err(error) => return stop.fail_store(&error),
        }
        loop {
            let begun = Instant::now();
            let looked = tokio::select! {
                looked = self.refresh() => looked,
                () = stop.stopped() => return,
            };
            let pause = match looked {
                Ok(()) => begun.elapsed().saturating_mul(LOOK_SHARE).clamp(LOOK, LOOK_MAX),
                Err(error) => {
                    tracing::debug!(%error, "the wallet cannot look at the ledger now");
                    LOOK
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.stopped() => return,
            }
        }
    }
}

/// What of the money that came channels have paid out when they closed, and which did.
fn payouts(store: &dyn Store, changes: &[WalletEvent]) -> Result<HashMap<OutputId, ChannelId>, StoreError> {
    let id = |change: &WalletEvent| match change {
        WalletEvent::Received { id, change: false, .. } => Some(*id),
        WalletEvent::Received { .. } | WalletEvent::Spent { .. } => None,
    };
    let came: BTreeSet<OutputId> = changes.iter().filter_map(id).collect();
    if came.is_empty() {
        return Ok(HashMap::new());
    }
    let channels = channel_tables::channels(store)?;
    let of = |channel: ChannelId| Side::BOTH.map(|side| (channel.payout(side), channel));
    Ok(channels.into_iter().flat_map(of).filter(|(id, _)| came.contains(id)).collect())
}

fn entry(
    kind: &str,
    amount: Amount,
    transaction: Option<TransactionId>,
    address: Option<Address>,
    milestone_index: u64,
) -> HistoryEntry {
    HistoryEntry { kind: kind.to_owned(), amount, transaction, address, milestone_index }
}
