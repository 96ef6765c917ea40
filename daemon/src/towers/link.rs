//! The connection to one tower, and what is handed over it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use flash_node_client::quic::{
    Endpoint,
    frames::{FrameError, FrameReader, FrameWriter},
    jittered,
};
use flash_proto::{
    ChannelId, NetworkId, PublicKey, Signature,
    limits::TOWER_FRAME_BYTES_MAX,
    tower::{Claimable, TowerReceipt, TowerRequest, TowerResponse, client_hash},
};
use quinn::{Connection, VarInt};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::Tower;
use crate::engine::{ChannelKeys, View, Views};

/// Requests that wait for a tower's answer at a time. It takes at most twice as many of one client.
const REQUESTS_MAX: usize = 16;
/// How long a tower may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a tower is dialled again, or is asked again what it refused, and the longest such pause.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Pause after a balance was handed over: of a busy channel a tower is at most so much behind.
const PACE: Duration = Duration::from_millis(100);

/// What the connections to one tower need.
pub(super) struct Links {
    pub(super) tower: Tower,
    pub(super) endpoint: Endpoint,
    pub(super) network: NetworkId,
    /// The key of this machine.
    pub(super) client: PublicKey,
    pub(super) keys: ChannelKeys,
    pub(super) views: Views,
}

/// What the channels share while the connection lasts.
pub(super) struct Link {
    connection: Connection,
    turns: Semaphore,
    /// The channels that have a task.
    served: Mutex<BTreeSet<ChannelId>>,
}

/// Why a balance was not confirmed, or not shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandError {
    #[error("the connection is lost")]
    Lost,
    #[error("no answer in time")]
    Slow,
    #[error("refused: {0}")]
    Refused(String),
    #[error("it holds a newer balance than this daemon: update {0}")]
    Newer(u64),
    #[error("its answer is wrong: {0}")]
    Wrong(&'static str),
}

impl From<FrameError> for HandError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Oversized { .. } | FrameError::Empty | FrameError::Codec(_) => {
                Self::Wrong("it is no message")
            }
            _ => Self::Lost,
        }
    }
}

impl Links {
    /// Connects, hands over until the connection is lost, and connects again, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let links = self;
        let (mut pause, longest) = AGAIN;
        loop {
            let started = Instant::now();
            match timeout(PATIENCE, links.endpoint.dial(&links.tower.address)).await {
                Ok(Ok(connection)) => {
                    links.serve(connection).await;
                    links.tower.known().link = None;
                    if started.elapsed() > longest {
                        (pause, _) = AGAIN;
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(tower = %links.tower.address, %error, "the watchtower is dialled again");
                }
                Err(_) => tracing::debug!(tower = %links.tower.address, "the watchtower does not answer"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = pause.saturating_mul(2).min(longest);
        }
    }

    /// Hands over what every live channel has, until the connection is lost. A tower that comes back is handed
    /// everything again: it may have lost what it had.
    async fn serve(self: &Arc<Self>, connection: Connection) {
        tracing::info!(tower = %self.tower.address, "connected to a watchtower");
        let (turns, served) = (Semaphore::new(REQUESTS_MAX), Mutex::default());
        let link = Arc::new(Link { connection, turns, served });
        self.tower.known().link = Some(Arc::clone(&link));
        // Everything of this connection ends with it: dropping the set ends its tasks.
        let mut tasks = JoinSet::new();
        let mut added = self.views.added();
        loop {
            added.mark_unchanged();
            for channel in self.views.live() {
                if link.served().insert(channel) {
                    tasks.spawn(Arc::clone(self).hand_all(Arc::clone(&link), channel));
                }
            }
            tokio::select! {
                _ = added.changed() => {}
                Some(_) = tasks.join_next() => {}
                reason = link.connection.closed() => {
                    tracing::info!(tower = %self.tower.address, %reason, "disconnected from a watchtower");
                    return;
                }
            }
        }
    }

    /// Hands over what one channel has, whenever it has something newer, for as long as the channel lives.
    async fn hand_all(self: Arc<Self>, link: Arc<Link>, channel: ChannelId) {
        let Ok(mut view) = self.views.follow(channel) else { return };
        let (mut pause, longest) = AGAIN;
        let (mut confirmed, mut permit) = (None, None);
        loop {
            let (live, waiting) = {
                let view = view.borrow_and_update();
                (view.is_live(), view.newest != confirmed)
            };
            if !live {
                break;
            }
            if waiting {
                // Never closed. What came while it waited for its turn goes along.
                let Ok(turn) = link.turns.acquire().await else { return };
                let now = view.borrow_and_update().clone();
                let Some(newest) = now.newest else { continue };
                let permit = *permit.get_or_insert_with(|| self.permit(&now));
                let handed = timeout(PATIENCE, self.hand(&link, &now, &newest, permit)).await;
                drop(turn);
                match handed.unwrap_or(Err(HandError::Slow)) {
                    Ok(receipt) => {
                        self.tower.confirmed(channel, &receipt);
                        confirmed = Some(newest);
                        (pause, _) = AGAIN;
                        tokio::time::sleep(PACE).await;
                    }
                    Err(HandError::Lost) => {
                        link.connection.close(VarInt::from_u32(0), b"");
                        return;
                    }
                    Err(error) => {
                        self.tower.failed(channel, &error);
                        tokio::time::sleep(jittered(pause)).await;
                        pause = pause.saturating_mul(2).min(longest);
                    }
                }
            } else if view.changed().await.is_err() {
                break;
            }
        }
        link.served().remove(&channel);
    }

    /// What makes this machine the one that speaks for its side of a channel.
    fn permit(&self, view: &View) -> Signature {
        let named = client_hash(self.network, view.info.id, !view.info.side, &self.client);
        (self.keys)(view.key_index).sign(&named)
    }

    /// Hands one balance over, and checks the tower's word for it.
    async fn hand(
        &self,
        link: &Link,
        view: &View,
        newest: &Claimable,
        permit: Signature,
    ) -> Result<TowerReceipt, HandError> {
        let request = TowerRequest::Keep { newest: Box::new(*newest), permit };
        match link.ask(&request).await? {
            TowerResponse::Holds(signature) => {
                let receipt = TowerReceipt { held: *newest, signature };
                if receipt.verify(self.network, &self.tower.address.key) {
                    Ok(receipt)
                } else {
                    Err(HandError::Wrong("the signature is not the tower's over this balance"))
                }
            }
            TowerResponse::Newer(newer) => {
                let is_newer = newer.rank().is_ok_and(|rank| newest.rank().is_ok_and(|own| rank > own));
                if is_newer && self.is_of_the_peer(view, &newer) {
                    Err(HandError::Newer(newer.balance.state.seq))
                } else {
                    Err(HandError::Wrong("what it says is newer is not"))
                }
            }
            response => Err(unexpected(response)),
        }
    }

    /// What the tower holds of what the peer paid in a channel.
    pub(super) async fn held(&self, view: &View) -> Result<Option<Claimable>, HandError> {
        let link = self.tower.known().link.clone().ok_or(HandError::Lost)?;
        let (channel, payer) = (view.info.id, !view.info.side);
        let request = TowerRequest::Show { channel, payer, permit: self.permit(view) };
        let _turn = link.turns.acquire().await.map_err(|_| HandError::Lost)?;
        match timeout(PATIENCE, link.ask(&request)).await.unwrap_or(Err(HandError::Slow))? {
            TowerResponse::Shown(None) => Ok(None),
            TowerResponse::Shown(Some(held)) if self.is_of_the_peer(view, &held) => Ok(Some(*held)),
            TowerResponse::Shown(_) => Err(HandError::Wrong("the peer did not sign what it shows")),
            response => Err(unexpected(response)),
        }
    }

    /// Whether it is of the channel's incoming lane, and the ledger would take it.
    fn is_of_the_peer(&self, view: &View, shown: &Claimable) -> bool {
        let (state, payer) = (&shown.balance.state, !view.info.side);
        (state.channel, state.payer) == (view.info.id, payer)
            && shown.balance.verify(self.network, &view.open.party(payer).key)
            && shown.claim().total().is_ok()
    }
}

/// Why an answer is none to what was asked.
fn unexpected(response: TowerResponse) -> HandError {
    match response {
        // It is shown on terminals.
        TowerResponse::Refused(refusal) => HandError::Refused(refusal.detail.replace(char::is_control, " ")),
        _ => HandError::Wrong("it answers another question"),
    }
}

impl Link {
    fn served(&self) -> std::sync::MutexGuard<'_, BTreeSet<ChannelId>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, request: &TowerRequest) -> Result<TowerResponse, HandError> {
        let (send, receive) = self.connection.open_bi().await.map_err(|_| HandError::Lost)?;
        let mut writer = FrameWriter::new(send, TOWER_FRAME_BYTES_MAX);
        writer.push(request)?;
        writer.finish().await?;
        let mut reader = FrameReader::new(receive, TOWER_FRAME_BYTES_MAX);
        let answer = reader.message::<TowerResponse, TOWER_FRAME_BYTES_MAX>().await?;
        answer.ok_or(HandError::Lost)
    }
}
