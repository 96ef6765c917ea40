//! The watcher: follows the ledger and tells the engine, or a watchtower, what its channels are there,
//! milestone by milestone, each proven.
//!
//! A milestone commits to the channels that it changes, so a channel that it does not name is as it was
//! when it was proven last: nothing else has to be asked for, and nobody can hide a close by answering
//! late. If a proof cannot be had the engine hears of no milestone at all, and takes no payments once its
//! view is too old.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use flash_channel::{machine::LedgerView, store::Batch};
use flash_node_client::{
    client::{ClientError, FollowedMilestone, NodeClient, Proven},
    light::Checkpoint,
};
use flash_proto::{Amount, Balances, ChannelId, Open, Side};
use futures_util::{StreamExt, future::try_join_all, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};

use crate::{
    engine::{Engine, Views, Writer},
    events::now_ms,
    metrics::Metrics,
    opening::Opening,
    stop::Stop,
    tables,
};

#[cfg(test)]
mod tests;

/// Channels that are proven by one answer.
const PROVEN_AT_ONCE: usize = 64;
/// Answers that are asked for at a time.
const ANSWERS_AT_A_TIME: usize = 4;
/// Proven channels that are handed on at a time: after a start all are proven, and all at once would take much memory.
const HANDED_AT_A_TIME: usize = 1_024;
/// Pause before proofs that could not be had are asked for again.
const AGAIN: Duration = Duration::from_millis(250);

/// Who wants to know what channels are on the ledger.
pub(crate) trait Watching: Send + Sync {
    /// What tells channels that are new from those that were due before.
    type Known: Default + Send;

    /// Adds to `due` the channels that are not known yet, which are known from then on, and takes out those that need no
    /// proof any more. A milestone that names none of many channels must cost little here.
    fn due(&self, known: &mut Self::Known, due: &mut BTreeSet<ChannelId>) -> impl Future<Output = ()> + Send;

    /// Channels on the ledger, at most [`PROVEN_AT_ONCE`], proven, in this order.
    fn prove(&self, ids: &[ChannelId]) -> impl Future<Output = Result<Vec<LedgerView>, ClientError>> + Send;

    /// Channels that were proven, while others are still due: some milestone that is not told of yet has them like this.
    fn hand(&self, views: Vec<(ChannelId, LedgerView)>) -> impl Future<Output = ()> + Send;

    /// The newest milestone, with all channels that changed up to it and were not handed on yet.
    fn tell(
        &self,
        checkpoint: &Checkpoint,
        views: Vec<(ChannelId, LedgerView)>,
    ) -> impl Future<Output = ()> + Send;
}

/// A channel as it is on the ledger now.
pub(crate) async fn prove(client: &NodeClient, id: ChannelId) -> Result<LedgerView, ClientError> {
    let proven = client.channel(id).await?;
    Ok(LedgerView { index: proven.milestone_index, record: proven.value, payouts: None })
}

/// The same of several, in this order.
pub(crate) async fn prove_all(
    client: &NodeClient,
    ids: &[ChannelId],
) -> Result<Vec<LedgerView>, ClientError> {
    if let [id] = ids {
        return Ok(vec![prove(client, *id).await?]);
    }
    let Proven { milestone_index: index, value: records } = client.channels(ids).await?;
    Ok(records.into_iter().map(|record| LedgerView { index, record, payouts: None }).collect())
}

/// Follows the ledger for somebody.
pub(crate) struct Watcher<W> {
    /// Where the ledger is followed.
    pub client: NodeClient,
    /// Who is told.
    pub watching: W,
    /// Ends it.
    pub stop: Stop,
}

/// The engine, as the one who is told.
pub(crate) struct Channels {
    /// Where payouts are looked up.
    client: NodeClient,
    /// Who is told.
    engine: Engine,
    /// Which channels there are.
    views: Views,
    /// Keeps the newest milestone, so that a restart goes on from it.
    writer: Writer,
    /// Counters.
    metrics: Metrics,
}

/// What is not told yet, and what needs no proof.
#[derive(Default)]
struct Pending<K> {
    newest: Option<Arc<Checkpoint>>,
    /// Of all these a channel that is not due was proven, and no milestone has named it since.
    known: K,
    /// Channels that must be proven before the engine hears of the newest milestone.
    due: BTreeSet<ChannelId>,
    /// Channels that were proven for it and are not handed on yet.
    proven: HashMap<ChannelId, LedgerView>,
}

impl<W: Watching> Watcher<W> {
    /// Runs until the daemon stops.
    pub(crate) async fn run(self) {
        let mut followed = self.client.follow();
        let mut pending = Pending::default();
        loop {
            tokio::select! {
                more = pending.hear(&mut followed) => if !more { return },
                () = tokio::time::sleep(AGAIN), if !pending.due.is_empty() => {}
                () = self.stop.stopped() => return,
            }
            self.round(&mut pending).await;
        }
    }

    /// Proves what is due; if nothing is left due the engine hears of it.
    async fn round(&self, pending: &mut Pending<W::Known>) {
        let Some(newest) = pending.newest.clone() else { return };
        self.watching.due(&mut pending.known, &mut pending.due).await;
        let due: Vec<ChannelId> = pending.due.iter().copied().collect();
        let due: Vec<Vec<ChannelId>> = due.chunks(PROVEN_AT_ONCE).map(<[_]>::to_vec).collect();
        let mut proofs = stream::iter(due)
            .map(|ids| async move {
                let proof = self.watching.prove(&ids).await;
                (ids, proof)
            })
            .buffer_unordered(ANSWERS_AT_A_TIME);
        while let Some((ids, proof)) = proofs.next().await {
            match proof {
                Ok(views) => {
                    for (id, view) in ids.iter().zip(views) {
                        pending.due.remove(id);
                        pending.proven.insert(*id, view);
                    }
                }
                Err(error) => {
                    let (channels, first) = (ids.len(), ids.first());
                    tracing::warn!(channels, ?first, %error, "no proof yet; it is asked for again");
                }
            }
            if pending.proven.len() >= HANDED_AT_A_TIME {
                self.watching.hand(pending.proven.drain().collect()).await;
            }
        }
        if pending.due.is_empty() {
            let views = pending.proven.drain().collect();
            pending.newest = None;
            self.watching.tell(&newest, views).await;
        }
    }
}

impl Watching for Channels {
    /// How many channels had been listed.
    type Known = usize;

    async fn due(&self, known: &mut usize, due: &mut BTreeSet<ChannelId>) {
        due.extend(self.views.listed_from(known));
        due.retain(|id| self.views.is_live(*id));
    }

    async fn hand(&self, views: Vec<(ChannelId, LedgerView)>) {
        // Gone only while the daemon stops.
        let _ = self.engine.proven(views).await;
    }

    async fn tell(&self, checkpoint: &Checkpoint, views: Vec<(ChannelId, LedgerView)>) {
        let newest = &checkpoint.essence;
        // A node that delays milestones cannot make them look new. A clock that is behind only takes
        // this check away; the time since the arrival counts in any case.
        let age = Duration::from_millis(now_ms().saturating_sub(newest.timestamp_ms));
        self.metrics.milestone_index.set(i64::try_from(newest.index).unwrap_or(i64::MAX));
        if self.engine.milestone(newest.index, age, views).await.is_err() {
            return;
        }
        let mut batch = Batch::new();
        tables::put_checkpoint(&mut batch, checkpoint);
        let _ = self.writer.commit(batch, Vec::new()).await;
    }

    async fn prove(&self, ids: &[ChannelId]) -> Result<Vec<LedgerView>, ClientError> {
        let views = prove_all(&self.client, ids).await?;
        let paid = ids.iter().zip(views).map(|(id, view)| async move {
            let payouts = self.payouts(*id, &view).await?;
            Ok(LedgerView { payouts, ..view })
        });
        try_join_all(paid).await
    }
}

impl Channels {
    /// The engine and the channels that are opened into it.
    pub(crate) fn new(opening: &Opening, writer: Writer, metrics: Metrics) -> Self {
        let Opening { client, engine, views, .. } = opening.clone();
        Self { client, engine, views, writer, metrics }
    }

    /// What a channel that is gone has paid, as far as its payouts are not spent yet.
    async fn payouts(&self, id: ChannelId, view: &LedgerView) -> Result<Option<Balances>, ClientError> {
        if view.record.is_some() {
            return Ok(None);
        }
        match self.views.get(id) {
            Ok(shown) if shown.info.state != "opening" || view.index > shown.open.expiry_milestone => {
                self.paid(id, &shown.open, shown.total).await
            }
            _ => Ok(None),
        }
    }

    /// The same of one that is gone for certain. `total` is what it paid in all, if that is known.
    async fn paid(
        &self,
        id: ChannelId,
        open: &Open,
        total: Option<Amount>,
    ) -> Result<Option<Balances>, ClientError> {
        let addresses = [open.party_a.payout, open.party_b.payout];
        let outputs = self.client.outputs_of(&addresses).await?.value;
        let paid = |side: Side| -> Option<Amount> {
            outputs.iter().find(|(output, _)| *output == id.payout(side)).map(|(_, output)| output.amount)
        };
        let rest = |paid: Amount| total.and_then(|total| total.checked_sub(paid));
        Ok(match (paid(Side::A), paid(Side::B)) {
            (Some(a), Some(b)) => Some(Balances::of_payouts(a, b)),
            (Some(a), None) => rest(a).map(|b| Balances::of_payouts(a, b)),
            (None, Some(b)) => rest(b).map(|a| Balances::of_payouts(a, b)),
            (None, None) => None,
        })
    }
}

impl<K: Default> Pending<K> {
    /// Waits for a milestone and takes all that are here: after a break only the newest needs proofs.
    /// False once none will come any more.
    async fn hear(&mut self, followed: &mut Receiver<Arc<FollowedMilestone>>) -> bool {
        let mut heard = followed.recv().await;
        loop {
            match heard {
                Ok(milestone) => self.take(&milestone),
                Err(RecvError::Lagged(_)) => self.missed(),
                Err(RecvError::Closed) => return false,
            }
            heard = match followed.try_recv() {
                Ok(milestone) => Ok(milestone),
                Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return true,
            };
        }
    }

    fn take(&mut self, milestone: &FollowedMilestone) {
        self.newest = Some(Arc::clone(&milestone.checkpoint));
        for id in &milestone.channels {
            // What was proven before this milestone may be old now.
            self.proven.remove(id);
            self.due.insert(*id);
        }
    }

    /// Milestones were missed, and with them the channels that they changed: nothing that was proven
    /// counts any more.
    fn missed(&mut self) {
        self.proven.clear();
        self.known = K::default();
    }
}
