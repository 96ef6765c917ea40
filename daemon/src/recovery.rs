//! Finding the channels of a seed on the ledger when nothing but the seed is left.
//!
//! A new data directory is searched for once, before it gives out any address or channel key; after that when
//! the user asks. The ledger shows who the parties are by their channel keys, which come from the seed. It
//! does not show what was paid, nor which machine the peer is: the user names that, and the peer shows the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flash_channel::{
    machine::{Agreement, Origin},
    store::Batch,
};
use flash_node_client::{client::NodeClient, quic::PeerAddress};
use flash_proto::{ChannelId, ChannelRecord, Open, Side};
use tokio::task::JoinSet;

use crate::{
    api::{ApiError, ErrorCode},
    engine::{Engine, View, Views},
    events::now_ms,
    opening::Opening,
    peers::Peers,
    stop::Stop,
    tables::{self, LinkRecord},
    towers::Towers,
    wallet::WalletService,
};

/// Channel keys beyond the last one that is known to be used that are looked for, too. Channels that were paid
/// out leave nothing on the ledger, so a gap says little.
const KEYS_GAP: u32 = 256;
/// Keys that are derived and asked about at a time.
const KEYS_AT_A_TIME: u32 = 1_024;
/// Pause before watchtowers are asked again for channels of which the peer has shown nothing.
const ASK_TOWERS: Duration = Duration::from_secs(5);
/// Pause before the first search is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Searches the ledger; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recovery {
    wallet: WalletService,
    client: NodeClient,
    engine: Engine,
    views: Views,
    /// One search at a time.
    searching: Arc<tokio::sync::Mutex<()>>,
}

/// A channel on the ledger of which one party is ours.
struct Found {
    channel: ChannelId,
    record: ChannelRecord,
    side: Side,
    key_index: u32,
}

impl Recovery {
    /// Begins the first search, if this data directory was never searched for; it is repeated until it is done.
    pub(crate) fn start(opening: &Opening, tasks: &mut JoinSet<()>, stop: &Stop) -> Self {
        let Opening { wallet, client, engine, views, .. } = opening.clone();
        let recovery = Self { wallet, client, engine, views, searching: Arc::default() };
        tasks.spawn(recovery.clone().first(stop.clone()));
        recovery
    }

    async fn first(self, stop: Stop) {
        let search = async {
            while !self.wallet.is_searched()
                && let Err(error) = self.search(0).await
            {
                tracing::debug!(%error, "the ledger cannot be searched now");
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = search => {}
            () = stop.stopped() => {}
        }
    }

    /// Asks the watchtowers for what the peer has paid in channels whose records are lost, as long as nothing else
    /// is known of them: a peer that is gone for good cannot keep it then.
    pub(crate) async fn ask_towers(self, towers: Towers, stop: Stop) {
        let ask = async {
            let mut answered = BTreeSet::new();
            loop {
                let unknown =
                    |view: &View| view.is_live() && view.info.recovered && view.info.balance.is_none();
                let Ok(all) = self.views.all() else { return }; // the daemon stops
                let views: Vec<View> = all.into_iter().filter(unknown).collect();
                for view in &views {
                    if !answered.contains(&view.info.id) && self.shown_by(&towers, view).await {
                        answered.insert(view.info.id);
                    }
                }
                tokio::time::sleep(ASK_TOWERS).await;
            }
        };
        tokio::select! {
            () = ask => {}
            () = stop.stopped() => {}
        }
    }

    /// Takes over what each tower holds; true once all have said so.
    async fn shown_by(&self, towers: &Towers, view: &View) -> bool {
        let mut all = true;
        for (tower, held) in towers.held(view).await {
            let taken = match held {
                Ok(Some(newest)) => {
                    self.engine.shown(view.info.id, newest).await.map_err(|error| error.message)
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = taken {
                tracing::warn!(%tower, channel = %view.info.id, error, "no balance from a watchtower");
                all = false;
            }
        }
        all
    }

    /// Searches for the money at the watched addresses, and for the channels of at least the first `count` keys.
    pub(crate) async fn search(&self, count: u32) -> Result<(), ApiError> {
        let _one = self.searching.lock().await;
        self.wallet.look_everywhere().await?;
        let found = self.channels(count).await?;
        let payouts = found.iter().map(|it| it.record.party(it.side).payout);
        let foreign = self.wallet.found_channels(found.iter().map(|it| it.key_index), payouts).await?;
        for found in found {
            let Found { channel, record, side, .. } = &found;
            if foreign.contains(&record.party(*side).payout) {
                // Anybody may open a channel in the name of a key that is known, for another one's address.
                tracing::warn!(%channel, "it does not pay out to an address of the first of this seed");
            } else if self.views.get(*channel).is_err() {
                self.add(&found).await?;
            }
        }
        // What was paid out to an address that only a channel has led to.
        self.wallet.look_everywhere().await?;
        self.wallet.searched().await
    }

    async fn channels(&self, count: u32) -> Result<Vec<Found>, ApiError> {
        let mut all = Vec::new();
        let (mut from, mut end) =
            (0, count.max(self.wallet.channel_keys_given().await).saturating_add(KEYS_GAP));
        while from < end {
            let to = end.min(from.saturating_add(KEYS_AT_A_TIME));
            let keys = self.wallet.channel_keys(from..to).await;
            let keys: BTreeMap<_, _> = keys.into_iter().map(|(index, key)| (key, index)).collect();
            let asked: Vec<_> = keys.keys().copied().collect();
            from = to;
            for (channel, record) in self.client.channels_of(&asked).await?.value {
                let of = |side: Side| keys.get(&record.party(side).key).map(|index| (side, *index));
                let Some((side, key_index)) = Side::BOTH.into_iter().find_map(of) else { continue };
                end = end.max(key_index.saturating_add(1).saturating_add(KEYS_GAP));
                all.push(Found { channel, record, side, key_index });
            }
        }
        Ok(all)
    }

    async fn add(&self, found: &Found) -> Result<(), ApiError> {
        let Found { channel, record, side, key_index } = *found;
        let open = Open {
            party_a: record.party_a,
            party_b: record.party_b,
            contest_window_milestones: record.contest_window_milestones,
            expiry_milestone: 0,
        };
        let agreement = Agreement {
            network: self.client.params().id(),
            side,
            peer: record.party(!side).key,
            key_index,
            origin: Origin::Found {
                channel,
                withdrawn_a: record.withdrawn_a,
                withdrawn_b: record.withdrawn_b,
            },
            open,
        };
        let link = LinkRecord { address: None, created_ms: now_ms() };
        let mut batch = Batch::new();
        tables::put_link(&mut batch, channel, &link);
        tracing::warn!(%channel, key_index, "found a channel whose records are lost");
        let key = self.wallet.channel_key(key_index).await;
        self.engine.add(agreement, key, batch, link.created_ms).await
    }

    /// The peer of a recovered channel is the machine with this ticket: connects to it.
    pub(crate) async fn meet(
        &self,
        peers: &Peers,
        channel: ChannelId,
        peer: PeerAddress,
    ) -> Result<(), ApiError> {
        let view = self.views.get(channel)?;
        if !view.is_live() {
            let message = format!("channel {channel} is {}", view.info.state);
            return Err(ApiError::new(ErrorCode::ChannelState, message, "its peer is not needed any more"));
        }
        let link = LinkRecord { address: Some(peer.to_string()), created_ms: view.info.created_ms };
        let mut batch = Batch::new();
        tables::put_link(&mut batch, channel, &link);
        self.engine.meet(channel, peer.key, batch).await?;
        self.views.moved();
        peers.keep(peer);
        Ok(())
    }
}
