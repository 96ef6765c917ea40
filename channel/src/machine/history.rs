//! What was paid, update by update: the neighbourhood in which a single payment is proven.
//!
//! Both sides keep the updates of both lanes, each in the batch that made it count, and let go of the oldest in
//! small steps with later ones. An own update that the peer may not hold is always kept.

use flash_proto::{ChannelId, LaneState, SignedBalance, message::Update};

use super::{
    Channel, Effects,
    tables::{self, Lane, Stored},
};
use crate::store::{Store, StoreError};

/// Updates that are let go of with one that is kept: more than one, so that a lower limit is reached some day.
const PRUNED_AT_ONCE: usize = 16;

/// How much of the past a side keeps, and how often it asks for receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// Updates of each lane; 0: none, beside own ones that the peer may not hold.
    pub keep: u64,
    /// The payee is asked for a receipt with every so-manieth own update; 0: never.
    pub receipt_every: u64,
}

impl Default for HistoryRule {
    /// An idle lane's updates of a day at one in 20 seconds; at the very most, 0.5 GiB.
    fn default() -> Self {
        Self { keep: 4_096, receipt_every: 0 }
    }
}

/// Where the history stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    pub(super) rule: HistoryRule,
    /// Own updates up to this number are no longer in the store.
    pub(super) pruned_own: u64,
    /// The same of the peer's.
    pub(super) pruned_peers: u64,
}

impl History {
    /// As it is in the store; the rule is the default one.
    pub(super) fn load(store: &dyn Store, id: ChannelId, stored: &Stored) -> Result<Self, StoreError> {
        let held = |balance: Option<SignedBalance>| balance.map_or(0, |balance| balance.state.seq);
        let pruned = |lane, newest: u64| {
            let oldest = tables::oldest_kept(store, id, lane)?;
            Ok::<_, StoreError>(oldest.map_or(newest, |oldest| oldest.saturating_sub(1)))
        };
        Ok(Self {
            rule: HistoryRule::default(),
            pruned_own: pruned(Lane::Own, stored.outgoing.acknowledged)?,
            pruned_peers: pruned(Lane::Peers, held(stored.incoming.held))?,
        })
    }
}

impl Channel {
    /// Says how much of the past is kept, and how often receipts are asked for.
    pub const fn set_history(&mut self, rule: HistoryRule) {
        self.history.rule = rule;
    }

    /// Keeps an own update, whose payments were counted already, until it is too old.
    pub(super) fn keep_own(&mut self, update: &Update, before: &LaneState, effects: &mut Effects) {
        let kept = (update, self.outgoing.payments, before);
        tables::put_kept(&mut effects.batch, self.id, Lane::Own, &kept);
        let old = update.seq.saturating_sub(self.history.rule.keep).min(self.outgoing.acknowledged);
        self.prune(Lane::Own, old, effects);
    }

    /// Keeps an update of the peer's, whose payments were counted already, until it is too old.
    pub(super) fn keep_peers(&mut self, update: &Update, before: &LaneState, effects: &mut Effects) {
        if self.history.rule.keep > 0 {
            let kept = (update, self.incoming.payments, before);
            tables::put_kept(&mut effects.batch, self.id, Lane::Peers, &kept);
        }
        let old = update.seq.saturating_sub(self.history.rule.keep);
        self.prune(Lane::Peers, old, effects);
    }

    fn prune(&mut self, lane: Lane, upto: u64, effects: &mut Effects) {
        let pruned = match lane {
            Lane::Own => &mut self.history.pruned_own,
            Lane::Peers => &mut self.history.pruned_peers,
        };
        for _ in 0..PRUNED_AT_ONCE {
            if *pruned >= upto {
                return;
            }
            *pruned = pruned.saturating_add(1);
            tables::delete_kept(&mut effects.batch, self.id, lane, *pruned);
        }
    }
}
