//! Opening channels: proposing one, and answering those who propose.
//!
//! Both sides have the channel on their disk before the other can act on it: B before it answers, A before
//! the transaction leaves. An Open that is not applied by its expiry milestone never will be, and what
//! was reserved for it is free again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flash_channel::{
    machine::{Agreement, Origin, open},
    store::Batch,
};
use flash_node_client::{client::NodeClient, quic::PeerAddress};
use flash_proto::{
    Amount, ChannelId, PublicKey, Side, limits,
    message::{OpenAccept, OpenParty, OpenProposal, OpenReply, Refusal, RefusalCode},
};

use crate::{
    api::{ApiError, ErrorCode},
    config::Accept,
    engine::{Engine, Views},
    events::now_ms,
    peers::{PeerError, Peers, Proposals},
    tables::{self, LinkRecord},
    wallet::{Prepared, WalletService},
};

/// Milestones that an Open may take to be applied.
const OPEN_EXPIRY_MILESTONES: u64 = 120;
/// Milestones that a peer's proposal may ask us to wait, with a deposit reserved.
const PEER_EXPIRY_MILESTONES_MAX: u64 = 1_000;

/// Channels that may wait for peers to lock what they have proposed, over all peers: a proposal costs its maker
/// nothing, so that many machines can be made up to make many.
const PROPOSED_MAX: usize = 4_096;

/// Opens channels; cheap to clone.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) engine: Engine,
    pub(crate) views: Views,
    pub(crate) wallet: WalletService,
    pub(crate) client: NodeClient,
    accept: Arc<Accept>,
    answering: Answering,
}

/// How many proposals of each peer are being answered: their channels are not listed yet.
#[derive(Clone, Default)]
struct Answering(Arc<Mutex<HashMap<PublicKey, u32>>>);

impl Answering {
    fn counts(&self) -> MutexGuard<'_, HashMap<PublicKey, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more until what is given back is dropped, and says how many there were.
    fn one_more(&self, peer: PublicKey) -> (u32, OneMore<'_>) {
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        let before = *count;
        *count = before.saturating_add(1);
        (before, OneMore(self, peer))
    }
}

struct OneMore<'a>(&'a Answering, PublicKey);

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        let Self(answering, peer) = self;
        let mut counts = answering.counts();
        if let Some(count) = counts.get_mut(peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(peer);
            }
        }
    }
}

/// What a caller wishes to open.
pub(crate) struct Wish {
    pub(crate) peer: PeerAddress,
    pub(crate) deposit: Amount,
    pub(crate) peer_deposit: Amount,
    pub(crate) contest_window_milestones: u32,
}

fn refused(code: ErrorCode, message: impl Into<String>, hint: &str) -> ApiError {
    ApiError::new(code, message, hint)
}

impl Opening {
    /// Opens channels by these parts of the daemon; of what peers propose `accept` says what is taken.
    pub(crate) fn new(
        engine: Engine,
        views: Views,
        wallet: WalletService,
        client: NodeClient,
        accept: Accept,
    ) -> Self {
        Self { engine, views, wallet, client, accept: Arc::new(accept), answering: Answering::default() }
    }

    fn network(&self) -> flash_proto::NetworkId {
        self.client.newest().network
    }

    fn check(&self, wish: &Wish) -> Result<(), ApiError> {
        let window = limits::CONTEST_WINDOW_MILESTONES_MIN..=limits::CONTEST_WINDOW_MILESTONES_MAX;
        if !window.contains(&wish.contest_window_milestones) {
            let message = format!("a contest window of {} milestones", wish.contest_window_milestones);
            let hint = format!("choose {} to {} milestones", window.start(), window.end());
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint));
        }
        self.check_deposits(wish.deposit, wish.peer_deposit).map_err(|hint| {
            let message = format!("deposits of {} and {}", wish.deposit, wish.peer_deposit);
            ApiError::new(ErrorCode::InvalidRequest, message, hint)
        })
    }

    /// What deposits must be, if the ledger does not take these.
    fn check_deposits(&self, a: Amount, b: Amount) -> Result<(), String> {
        let min = flash_node_client::ledger::check::deposits_min(self.client.params());
        let taken = |total| (min..=Amount::SUPPLY).contains(&total);
        if a.checked_add(b).is_some_and(taken) {
            return Ok(());
        }
        Err(format!("together they must be {min} to {}", Amount::SUPPLY))
    }

    /// Agrees on a channel with a peer; returns once it is durable here and on its way to the ledger.
    pub(crate) async fn open(&self, peers: &Peers, wish: Wish) -> Result<ChannelId, ApiError> {
        self.check(&wish)?;
        let expiry_milestone = self.client.newest().index.saturating_add(OPEN_EXPIRY_MILESTONES);
        let (prepared, queued) = self.wallet.prepare_open(wish.deposit, expiry_milestone).await?;
        queued.durable().await?;
        let result = self.negotiate(peers, &wish, &prepared, expiry_milestone).await;
        if result.is_err() {
            self.wallet.abandon(&prepared.funds).await?;
        }
        result
    }

    async fn negotiate(
        &self,
        peers: &Peers,
        wish: &Wish,
        prepared: &Prepared,
        expiry_milestone: u64,
    ) -> Result<ChannelId, ApiError> {
        let proposal = OpenProposal {
            party_a: party(prepared, wish.deposit),
            deposit_b: wish.peer_deposit,
            contest_window_milestones: wish.contest_window_milestones,
            expiry_milestone,
        };
        let accept =
            match peers.propose(&wish.peer, proposal.clone()).await.map_err(|error| peer_error(&error))? {
                OpenReply::Accept(accept) => accept,
                OpenReply::Refuse(Refusal { detail, .. }) => {
                    return Err(refused(
                        ErrorCode::PeerRefused,
                        format!("the peer refused: {detail}"),
                        "ask its operator, or change what you ask for",
                    ));
                }
            };
        let essence = open::check_answer(self.network(), &proposal, &accept).map_err(|error| {
            refused(
                ErrorCode::PeerRefused,
                error.to_string(),
                "the peer does not follow the protocol; choose another",
            )
        })?;
        let ours = self.wallet.unlocks(&essence, &prepared.funds).await?;
        let transaction = open::transaction(essence, ours, accept.unlocks);
        let link = LinkRecord { address: Some(wish.peer.to_string()), created_ms: now_ms() };
        let id = self.add(transaction, Side::A, wish.peer.key, prepared, link).await?;
        peers.keep(wish.peer.clone());
        Ok(id)
    }

    async fn add(
        &self,
        transaction: flash_proto::Transaction,
        side: Side,
        peer: PublicKey,
        prepared: &Prepared,
        link: LinkRecord,
    ) -> Result<ChannelId, ApiError> {
        let opened = open::opened(&transaction.essence).ok_or_else(|| {
            refused(ErrorCode::Internal, "not an opening transaction", "this is a defect; report it")
        })?;
        let origin = Origin::Agreed(Box::new(transaction));
        let (network, key_index) = (self.network(), prepared.key_index);
        let agreement = Agreement { network, side, peer, key_index, origin, open: opened };
        let id = agreement.channel();
        let mut batch = Batch::new();
        tables::put_link(&mut batch, id, &link);
        self.engine.add(agreement, prepared.key.clone(), batch, link.created_ms).await?;
        Ok(id)
    }

    /// What the operator does not accept of a proposal.
    /// `answering` other proposals of the peer are being answered.
    fn policy(&self, peer: &PublicKey, answering: u32, proposal: &OpenProposal) -> Result<(), Refusal> {
        let refuse = |detail: String| Err(Refusal::new(RefusalCode::Policy, detail));
        let Accept { deposit_max, contest_window_min, contest_window_max, channels_per_peer_max } =
            *self.accept;
        if proposal.deposit_b > deposit_max {
            return refuse(format!("at most {deposit_max} is locked here, not {}", proposal.deposit_b));
        }
        let window = contest_window_min..=contest_window_max;
        if !window.contains(&proposal.contest_window_milestones) {
            return refuse(format!(
                "the contest window must be {contest_window_min} to {contest_window_max} milestones"
            ));
        }
        let live = u32::try_from(self.views.live_with(peer)).unwrap_or(u32::MAX);
        if live.saturating_add(answering) >= channels_per_peer_max {
            return refuse(format!("at most {channels_per_peer_max} channels with one peer"));
        }
        if self.views.proposed() >= PROPOSED_MAX {
            let detail = format!("{PROPOSED_MAX} proposed channels wait for their deposits; try later");
            return Err(Refusal::new(RefusalCode::Busy, detail));
        }
        let newest = self.client.newest().index;
        let expiry = newest.saturating_add(1)..=newest.saturating_add(PEER_EXPIRY_MILESTONES_MAX);
        if !expiry.contains(&proposal.expiry_milestone) {
            return refuse(format!("the expiry must be milestone {} to {}", expiry.start(), expiry.end()));
        }
        self.check_deposits(proposal.party_a.deposit, proposal.deposit_b)
            .or_else(|what| refuse(format!("the deposits: {what}")))
    }

    async fn accept(&self, peer: PublicKey, proposal: OpenProposal) -> Result<OpenAccept, Refusal> {
        let (answering, _one_more) = self.answering.one_more(peer);
        self.policy(&peer, answering, &proposal)?;
        let busy = |error: ApiError| Refusal::new(RefusalCode::Busy, error.message);
        // Nothing of it leaves before the channel is durable, which comes after it in the writer's queue.
        let (prepared, queued) =
            self.wallet.prepare_open(proposal.deposit_b, proposal.expiry_milestone).await.map_err(busy)?;
        let result = self.agree(peer, &proposal, &prepared).await;
        if result.is_err() {
            self.wallet.abandon(&prepared.funds).await.map_err(busy)?;
        }
        queued.durable().await.map_err(busy)?;
        result
    }

    async fn agree(
        &self,
        peer: PublicKey,
        proposal: &OpenProposal,
        prepared: &Prepared,
    ) -> Result<OpenAccept, Refusal> {
        let party_b = party(prepared, proposal.deposit_b);
        let essence = open::answer(self.network(), proposal, &party_b)
            .map_err(|error| Refusal::new(RefusalCode::Misbehaved, error.to_string()))?;
        let busy = |error: ApiError| Refusal::new(RefusalCode::Busy, error.message);
        let unlocks = self.wallet.unlocks(&essence, &prepared.funds).await.map_err(busy)?;
        let transaction = open::transaction(essence, Vec::new(), unlocks.clone());
        let link = LinkRecord { address: None, created_ms: now_ms() };
        self.add(transaction, Side::B, peer, prepared, link).await.map_err(busy)?;
        Ok(OpenAccept { party_b, unlocks })
    }
}

impl Proposals for Opening {
    fn answer(
        &self,
        peer: PublicKey,
        proposal: OpenProposal,
    ) -> std::pin::Pin<Box<dyn Future<Output = OpenReply> + Send + '_>> {
        Box::pin(async move {
            match self.accept(peer, proposal).await {
                Ok(accept) => OpenReply::Accept(Box::new(accept)),
                Err(refusal) => {
                    tracing::info!(%peer, detail = refusal.detail, "refused a channel");
                    OpenReply::Refuse(refusal)
                }
            }
        })
    }
}

fn party(prepared: &Prepared, deposit: Amount) -> OpenParty {
    OpenParty {
        key: prepared.key.public(),
        payout: prepared.payout,
        deposit,
        funding: prepared.funds.funding.clone(),
        change: prepared.funds.change,
    }
}

fn peer_error(error: &PeerError) -> ApiError {
    let message = error.to_string();
    match error {
        PeerError::Unreachable(_) => refused(
            ErrorCode::PeerUnreachable,
            message,
            "check its ticket, and that it runs and can be reached",
        ),
        PeerError::Refused(_) => {
            refused(ErrorCode::PeerRefused, message, "both must be of one network and version")
        }
    }
}
