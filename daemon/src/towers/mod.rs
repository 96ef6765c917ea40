//! The watchtowers that this daemon hands its newest balances to.
//!
//! | part | what it does |
//! | --- | --- |
//! | `mod.rs` | what each tower has confirmed of each channel; tells when one is behind for long |
//! | [`link`] | the connection to one tower, and what is handed over it |
//!
//! Each tower is handed the newest balance of a channel whenever a newer one is durable here, one at a time for each
//! channel: what comes meanwhile waits in the channel's view, where only the newest is. So no payment ever
//! waits for a tower. What a tower answers is checked; its lies or silence only show.

mod link;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flash_channel::store::{Batch, Store, StoreError};
use flash_node_client::quic::{Endpoint, PeerAddress, StreamLimits, TOWER_ALPN};
use flash_proto::{
    ChannelId, NetworkId, PublicKey,
    tower::{Claimable, TowerReceipt},
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    api::{ApiError, TowerInfo, TowerStanding},
    engine::{ChannelKeys, View, Views, Writer},
    events::{NewEvent, now_ms},
    exit::Exit,
    failure::Failure,
    metrics::Metrics,
    run::Base,
    stop::Stop,
    tables,
};

pub(crate) use self::link::HandError;
use self::link::{Link, Links};

/// How often receipts are stored, and it is looked at who is behind.
const LOOK: Duration = Duration::from_secs(1);
/// A tower that has not confirmed anything newer of a channel for so long is behind for long.
const BEHIND_FOR_LONG: Duration = Duration::from_secs(60);

/// What the towers are started with.
pub(crate) struct Config {
    pub(crate) towers: Vec<PeerAddress>,
    pub(crate) network: NetworkId,
    /// The keys of its sides of channels.
    pub(crate) keys: ChannelKeys,
    /// The local address to dial from.
    pub(crate) bind: SocketAddr,
    pub(crate) views: Views,
    pub(crate) base: Base,
}

/// The towers; cheap to clone.
#[derive(Clone)]
pub(crate) struct Towers(Arc<Vec<Arc<Links>>>);

/// One tower, as it is known here.
struct Tower {
    address: PeerAddress,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The connection, while there is one.
    link: Option<Arc<Link>>,
    /// When it answered last, in milliseconds since 1970.
    answered_ms: Option<u64>,
    channels: BTreeMap<ChannelId, Standing>,
}

/// What a tower has said of a channel.
#[derive(Clone, Default)]
struct Standing {
    /// Its newest receipt.
    receipt: Option<TowerReceipt>,
    /// Whether that is in the store.
    stored: bool,
    /// Why it did not take the newest, if it said so.
    error: Option<String>,
    /// Since when it is behind without getting on, and how new its receipt was then.
    behind: Option<(Instant, Option<Claimable>)>,
}

impl Standing {
    fn holds(&self) -> Option<Claimable> {
        self.receipt.map(|receipt| receipt.held)
    }
}

impl Towers {
    /// Starts to hand balances over; ends with `stop`.
    pub(crate) fn start(config: Config, tasks: &mut JoinSet<()>) -> Result<Self, Failure> {
        let Config { towers, network, keys, bind, views, base } = config;
        let Base { key, store, writer, metrics, stop } = base;
        if towers.is_empty() {
            return Ok(Self(Arc::default()));
        }
        if towers.iter().any(|tower| tower.key == key.public()) {
            let message = "`towers` names this machine; a watchtower must be another one".to_owned();
            return Err(Failure { message, exit: Exit::Usage });
        }
        let known = load(store.as_ref(), &towers, network, &views)?;
        let limits = StreamLimits { bidirectional: 0 };
        let endpoint = Endpoint::dialler(&key, TOWER_ALPN, bind, limits).map_err(Failure::new)?;
        let towers: Vec<_> = towers
            .into_iter()
            .zip(known)
            .map(|(address, known)| {
                let tower = Tower { address, known: Mutex::new(known) };
                let (endpoint, keys, views) = (endpoint.clone(), Arc::clone(&keys), views.clone());
                Arc::new(Links { tower, endpoint, network, client: key.public(), keys, views })
            })
            .collect();
        for links in &towers {
            let (links, stop) = (Arc::clone(links), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = links.run() => {}
                    () = stop.stopped() => {}
                }
            });
        }
        let towers = Self(Arc::new(towers));
        tasks.spawn(towers.clone().look(views, writer, metrics, stop));
        Ok(towers)
    }

    /// What each tower has of a channel.
    pub(crate) fn standings(&self, view: &View) -> Vec<TowerStanding> {
        self.0.iter().map(|links| links.tower.standing(view)).collect()
    }

    /// Asks each tower what it holds of what the peer paid in a channel: each answer with the signature of the
    /// peer's key, or why there is none.
    pub(crate) async fn held(&self, view: &View) -> Vec<(PeerAddress, Result<Option<Claimable>, HandError>)> {
        let ask = |links: &Arc<Links>| {
            let links = Arc::clone(links);
            async move { (links.tower.address.clone(), links.held(view).await) }
        };
        join_all(self.0.iter().map(ask)).await
    }

    /// All towers, in the order of the configuration.
    pub(crate) fn list(&self, views: &Views) -> Result<Vec<TowerInfo>, ApiError> {
        let views: Vec<View> = views.all()?.into_iter().filter(View::is_live).collect();
        let info = |links: &Arc<Links>| {
            let tower = &links.tower;
            let (connected, answered_ms) = {
                let known = tower.known();
                (known.link.is_some(), known.answered_ms)
            };
            let mut info = TowerInfo {
                tower: tower.address.to_string(),
                connected,
                answered_ms,
                newest: 0,
                behind: 0,
                error: None,
            };
            for view in views.iter().filter(|view| view.newest.is_some()) {
                let standing = tower.standing(view);
                let count = if standing.state == "newest" { &mut info.newest } else { &mut info.behind };
                *count = count.saturating_add(1);
                info.error = info.error.or(standing.error);
            }
            info
        };
        Ok(self.0.iter().map(info).collect())
    }

    /// Stores receipts, and tells when a tower is behind for long and when it has caught up.
    async fn look(self, views: Views, writer: Writer, metrics: Metrics, stop: Stop) {
        let mut late: Vec<bool> = vec![false; self.0.len()];
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = stop.stopped() => true,
            };
            let Ok(all) = views.all() else { return }; // the daemon stops
            let live: BTreeMap<ChannelId, Option<Claimable>> =
                all.into_iter().filter(View::is_live).map(|view| (view.info.id, view.newest)).collect();
            let (mut batch, mut events, mut all) = (Batch::new(), Vec::new(), 0_usize);
            for (links, late) in self.0.iter().zip(&mut late) {
                let tower = &links.tower;
                let count = tower.look(&live, &mut batch);
                all = all.saturating_add(count);
                if *late != (count > 0) {
                    *late = count > 0;
                    let kind = if *late { "tower_behind" } else { "tower_caught_up" };
                    tracing::warn!(tower = %tower.address, channels = count, kind);
                    let details = json!({ "tower": tower.address, "channels": count });
                    events.push(NewEvent::new(kind, None, &details));
                }
            }
            metrics.towers_behind.set(i64::try_from(all).unwrap_or(i64::MAX));
            let nothing = batch.is_empty() && events.is_empty();
            if !nothing && writer.commit(batch, events).await.is_err() || stopping {
                return;
            }
        }
    }
}

impl Tower {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self, view: &View) -> TowerStanding {
        let known = self.known();
        let standing = known.channels.get(&view.info.id).cloned().unwrap_or_default();
        let holds = standing.holds();
        let seq = |what: Option<Claimable>| what.map_or(0, |what| what.balance.state.seq);
        let state = match (&view.newest, &holds) {
            (None, _) => "nothing_received",
            (Some(newest), Some(holds)) if newest == holds => "newest",
            (Some(_), Some(_)) => "behind",
            (Some(_), None) => "never",
        };
        let behind = if state == "newest" { 0 } else { seq(view.newest).saturating_sub(seq(holds)) };
        TowerStanding {
            tower: self.address.to_string(),
            state: state.to_owned(),
            updates_behind: behind,
            error: standing.error,
        }
    }

    /// It confirmed that it holds this.
    fn confirmed(&self, channel: ChannelId, receipt: &TowerReceipt) {
        let mut known = self.known();
        known.answered_ms = Some(now_ms());
        let standing = known.channels.entry(channel).or_default();
        let same = standing.holds() == Some(receipt.held);
        *standing = Standing {
            receipt: Some(*receipt),
            stored: same && standing.stored,
            error: None,
            behind: standing.behind.take(),
        };
    }

    /// It did not confirm the newest.
    fn failed(&self, channel: ChannelId, error: &HandError) {
        let mut known = self.known();
        if !matches!(error, HandError::Slow) {
            known.answered_ms = Some(now_ms());
        }
        let error = error.to_string();
        let standing = known.channels.entry(channel).or_default();
        if standing.error.as_ref() != Some(&error) {
            tracing::warn!(%channel, tower = %self.address, %error, "a watchtower did not confirm");
            standing.error = Some(error);
        }
    }

    /// Brings receipts that are not stored yet, forgets channels that are gone, and counts those of which the
    /// tower is behind for long.
    fn look(&self, live: &BTreeMap<ChannelId, Option<Claimable>>, batch: &mut Batch) -> usize {
        let mut known = self.known();
        let tower = &self.address.key;
        known.channels.retain(|channel, standing| {
            let stays = live.contains_key(channel);
            if !stays && standing.receipt.is_some() {
                tables::delete_receipt(batch, tower, *channel);
            }
            stays
        });
        let mut late = 0_usize;
        for (channel, newest) in live.iter().filter_map(|(id, newest)| Some((*id, newest.as_ref()?))) {
            let standing = known.channels.entry(channel).or_default();
            if let Some(receipt) = standing.receipt.filter(|_| !standing.stored) {
                tables::put_receipt(batch, tower, channel, &receipt);
                standing.stored = true;
            }
            let holds = standing.holds();
            standing.behind = match standing.behind.take() {
                _ if holds.as_ref() == Some(newest) => None,
                Some((since, before)) if before == holds => Some((since, before)),
                _ => Some((Instant::now(), holds)),
            };
            if standing.behind.as_ref().is_some_and(|(since, _)| since.elapsed() >= BEHIND_FOR_LONG) {
                late = late.saturating_add(1);
            }
        }
        late
    }
}

/// What the towers had confirmed before the start, of channels that are live.
fn load(
    store: &dyn Store,
    towers: &[PeerAddress],
    network: NetworkId,
    views: &Views,
) -> Result<Vec<Known>, StoreError> {
    let live = views.live();
    let load = |tower: &PublicKey| {
        let mut known = Known::default();
        for (channel, receipt) in tables::receipts(store, tower)? {
            if live.contains(&channel) && receipt.verify(network, tower) {
                let standing = Standing { receipt: Some(receipt), stored: true, ..Standing::default() };
                known.channels.insert(channel, standing);
            }
        }
        Ok(known)
    };
    towers.iter().map(|tower| load(&tower.key)).collect()
}

#[cfg(test)]
mod tests;
