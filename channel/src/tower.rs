//! A watchtower: keeps the newest balance of each lane, with its newest tick, for the payees of others, and says which claims are due.
//!
//! It can do nothing but help. A balance is signed by the payer and pays the payee; a claim raises what the ledger
//! knows of the lane and needs no signature of the tower; and the tower has no key of its clients. What it holds
//! of a lane is one balance, whatever the number of payments, in memory and on the disk.
//!
//! It takes a balance only if the payee of that lane, as the ledger names it, has signed that this client speaks
//! for it. So nobody else can fill the place of a lane, look into it or use up its client's share.
//!
//! Like the channel machine it does nothing itself: changes go into a [`Batch`], and what it answers may be told
//! only once that is on the disk.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use flash_proto::{
    Action, Amount, ChannelId, ChannelPhase, ChannelRecord, Essence, Hash, NetworkId, PublicKey, SecretKey,
    Side, Signature, Transaction, Unlock, codec,
    tower::{Claimable, TowerRefusalCode, client_hash, receipt_hash},
};
use thiserror::Error;

use crate::{
    machine::LedgerView,
    store::{
        Batch, Store, StoreError, Table,
        records::{corrupt, decode, for_each},
    },
};

/// What is held of each lane, by the channel's id and the payer.
const LANES: Table = Table::small(24, "watched lanes");

/// How much a tower keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lanes of one client.
    pub client_lanes: usize,
    /// Lanes of all clients together.
    pub lanes: usize,
}

impl Default for Limits {
    /// Less than a kilobyte of memory each: 64 MB for all.
    fn default() -> Self {
        Self { client_lanes: 4_096, lanes: 65_536 }
    }
}

/// What is stored of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Held {
    /// The machine that speaks for the payee.
    client: PublicKey,
    /// What pays the payee the most of all that was shown.
    newest: Claimable,
    /// The milestone at which the channel was seen on the ledger then: in older views it may not be open yet.
    seen: u64,
}

/// A lane: its channel and its payer.
type Lane = (ChannelId, Side);

/// A watchtower.
#[derive(Clone, Debug)]
pub struct Tower {
    network: NetworkId,
    key: SecretKey,
    limits: Limits,
    lanes: BTreeMap<Lane, Held>,
    /// Lanes of each client.
    clients: BTreeMap<PublicKey, usize>,
    /// The channels of the lanes on the ledger, as they were proven last since the start.
    records: BTreeMap<ChannelId, (u64, ChannelRecord)>,
}

/// What a tower answers to a balance. To be told once the batch is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds exactly this balance: its signature over [`receipt_hash`].
    Holds(Signature),
    /// It holds this one, which pays more.
    Newer(Box<Claimable>),
}

/// Why a tower refuses a request. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TowerError {
    /// The ledger has no such channel.
    #[error("the ledger has no such channel: it is not open yet, or paid out")]
    UnknownChannel,
    /// The channel must be proven first: hand in what the ledger shows of it.
    #[error("the channel was not seen on the ledger yet")]
    NotSeen,
    /// The balance does not verify.
    #[error("the balance is not signed by the payer of that lane, on this network")]
    Signature,
    /// The client does not speak for the payee.
    #[error("the payee of that lane did not name this client")]
    NotThePayee,
    /// Ticks or locks that the ledger does not take.
    #[error("the ledger would not take such a balance")]
    Terms,
    /// The client has as many lanes as it may.
    #[error("at most {0} lanes are kept for one client")]
    ClientFull(usize),
    /// The tower has as many lanes as it may.
    #[error("this tower keeps at most {0} lanes; use another one")]
    Full(usize),
}

impl TowerError {
    /// The code by which a client is told.
    pub const fn code(self) -> TowerRefusalCode {
        match self {
            Self::UnknownChannel => TowerRefusalCode::UnknownChannel,
            Self::NotSeen => TowerRefusalCode::Busy,
            Self::Signature => TowerRefusalCode::Signature,
            Self::NotThePayee => TowerRefusalCode::NotThePayee,
            Self::Terms => TowerRefusalCode::Terms,
            Self::ClientFull(_) | Self::Full(_) => TowerRefusalCode::Full,
        }
    }
}

/// How new it is ([`Claimable::rank`]); the least if it makes no sense, which nothing that is held does.
fn rank(what: &Claimable) -> (Amount, u64, u32) {
    what.rank().unwrap_or_default()
}

impl Tower {
    /// The tower with what is in the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(
        store: &dyn Store,
        network: NetworkId,
        key: SecretKey,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let (lanes, clients, records) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut tower = Self { network, key, limits, lanes, clients, records };
        for_each(store, LANES, &[], |(key, bytes)| {
            let held: Held = decode(LANES, &key, &bytes)?;
            let lane = lane_of(&held.newest);
            if lane_key(lane) != key {
                return Err(corrupt(LANES, &key, "another lane's"));
            }
            tower.insert(lane, held);
            Ok(())
        })?;
        Ok(tower)
    }

    /// The channels of which lanes are kept.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> {
        let mut last = None;
        self.lanes
            .keys()
            .map(|(channel, _)| *channel)
            .filter(move |channel| last.replace(*channel) != Some(*channel))
    }

    /// How many lanes are kept.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// How many clients they belong to.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Takes what is `newest` of a lane from a client that is connected by the key `client`. `proven` is what the
    /// ledger shows of the channel; it is needed if the channel was not seen since the start.
    ///
    /// # Errors
    /// [`TowerError`]; [`TowerError::NotSeen`] asks for `proven`.
    pub fn keep(
        &mut self,
        client: PublicKey,
        newest: &Claimable,
        permit: &Signature,
        proven: Option<&LedgerView>,
        batch: &mut Batch,
    ) -> Result<Answer, TowerError> {
        let lane = lane_of(newest);
        if newest.balance.state.locks_root != Hash::ZERO || newest.rank().is_err() {
            return Err(TowerError::Terms);
        }
        let seen = self.seen(lane.0, proven)?;
        self.check_client(lane, &seen.1, client, permit)?;
        let own = self.lanes.get(&lane).filter(|held| held.client == client);
        if let Some(held) = own.filter(|held| rank(&held.newest) >= rank(newest)) {
            return Ok(self.answer(&held.newest, newest));
        }
        if !newest.balance.verify(self.network, &seen.1.party(lane.1).key) {
            return Err(TowerError::Signature);
        }
        newest.balance.state.ticks.check_form().map_err(|_| TowerError::Terms)?;
        newest.claim().total().map_err(|_| TowerError::Terms)?;
        self.check_room(lane, client)?;
        // Of a client that takes another's place it may be the older one.
        let before = self.lanes.get(&lane).map(|held| held.newest);
        let kept = before.filter(|held| rank(held) >= rank(newest)).unwrap_or(*newest);
        let held = Held { client, newest: kept, seen: seen.0 };
        batch.put(LANES, &lane_key(lane), codec::encode(&held));
        self.insert(lane, held);
        self.records.insert(lane.0, seen);
        assert!(
            before.is_none_or(|before| rank(&kept) >= rank(&before)),
            "I3: what is held must not go down"
        );
        Ok(self.answer(&kept, newest))
    }

    /// What is held of a lane, for a client that is connected by the key `client`. `proven` as in
    /// [`Tower::keep`].
    ///
    /// # Errors
    /// [`TowerError`]; [`TowerError::NotSeen`] asks for `proven`.
    pub fn show(
        &self,
        client: PublicKey,
        channel: ChannelId,
        payer: Side,
        permit: &Signature,
        proven: Option<&LedgerView>,
    ) -> Result<Option<Claimable>, TowerError> {
        let Some(held) = self.lanes.get(&(channel, payer)) else { return Ok(None) };
        let (_, record) = self.seen(channel, proven)?;
        self.check_client((channel, payer), &record, client, permit)?;
        Ok(Some(held.newest))
    }

    /// What the ledger shows of a channel, verified against a milestone. A channel that is gone is paid out, and
    /// is forgotten. Views older than what was seen before are of no interest, also not after a restart.
    pub fn ledger(&mut self, channel: ChannelId, view: &LedgerView, batch: &mut Batch) {
        let held = Side::BOTH.into_iter().filter_map(|side| self.lanes.get(&(channel, side)));
        let stored = held.map(|held| held.seen);
        let seen = self.records.get(&channel).map(|(index, _)| *index).into_iter().chain(stored).max();
        if seen.is_some_and(|seen| view.index < seen) {
            return;
        }
        match view.record {
            Some(record) if Side::BOTH.iter().any(|side| self.lanes.contains_key(&(channel, *side))) => {
                self.records.insert(channel, (view.index, record));
            }
            Some(_) => {}
            None => {
                self.records.remove(&channel);
                for side in Side::BOTH {
                    self.forget((channel, side), batch);
                }
            }
        }
    }

    /// The claims that a channel needs on the ledger now: it is being closed, and less is known of a lane there
    /// than is held here. The same whenever it is asked for; each may be submitted any number of times.
    pub fn wanted(&self, channel: ChannelId) -> Vec<Transaction> {
        let Some((index, record)) = self.records.get(&channel) else { return Vec::new() };
        let ChannelPhase::Closing { deadline, .. } = record.phase else { return Vec::new() };
        let held = Side::BOTH.into_iter().filter_map(|side| self.lanes.get(&(channel, side)));
        held.map(|held| held.newest)
            .filter(|newest| *index <= deadline && rank(newest).0 > record.lane(lane_of(newest).1).cumulative)
            .map(|newest| {
                let essence = Essence::acting(self.network, Action::Claim(newest.claim()));
                let key = record.party(lane_of(&newest).1).key;
                Transaction { essence, unlocks: vec![Unlock { key, signature: newest.balance.signature }] }
            })
            .collect()
    }

    /// What a client is told that has handed over `newest`.
    fn answer(&self, held: &Claimable, newest: &Claimable) -> Answer {
        if held == newest {
            Answer::Holds(self.key.sign(&receipt_hash(self.network, newest)))
        } else {
            Answer::Newer(Box::new(*held))
        }
    }

    fn seen(
        &self,
        channel: ChannelId,
        proven: Option<&LedgerView>,
    ) -> Result<(u64, ChannelRecord), TowerError> {
        if let Some(seen) = self.records.get(&channel) {
            return Ok(*seen);
        }
        let view = proven.ok_or(TowerError::NotSeen)?;
        Ok((view.index, view.record.ok_or(TowerError::UnknownChannel)?))
    }

    /// The payee of the lane, as the ledger names it, has signed that this client speaks for it.
    fn check_client(
        &self,
        lane: Lane,
        record: &ChannelRecord,
        client: PublicKey,
        permit: &Signature,
    ) -> Result<(), TowerError> {
        let (channel, payer) = lane;
        let known = self.lanes.get(&lane).is_some_and(|held| held.client == client);
        let key = record.party(!payer).key;
        if known || key.verify(&client_hash(self.network, channel, payer, &client), permit) {
            Ok(())
        } else {
            Err(TowerError::NotThePayee)
        }
    }

    fn check_room(&self, lane: Lane, client: PublicKey) -> Result<(), TowerError> {
        let Limits { client_lanes, lanes } = self.limits;
        let held = self.lanes.get(&lane);
        if held.is_some_and(|held| held.client == client) {
            return Ok(());
        }
        if held.is_none() && self.lanes.len() >= lanes {
            return Err(TowerError::Full(lanes));
        }
        if self.clients.get(&client).is_some_and(|count| *count >= client_lanes) {
            return Err(TowerError::ClientFull(client_lanes));
        }
        Ok(())
    }

    fn insert(&mut self, lane: Lane, held: Held) {
        let client = held.client;
        if let Some(before) = self.lanes.insert(lane, held) {
            self.leave(before.client);
        }
        let count = self.clients.entry(client).or_default();
        *count = count.saturating_add(1);
    }

    fn forget(&mut self, lane: Lane, batch: &mut Batch) {
        if let Some(held) = self.lanes.remove(&lane) {
            self.leave(held.client);
            batch.delete(LANES, &lane_key(lane));
        }
    }

    /// One lane less of a client.
    fn leave(&mut self, client: PublicKey) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

const fn lane_of(what: &Claimable) -> Lane {
    (what.balance.state.channel, what.balance.state.payer)
}

fn lane_key((channel, payer): Lane) -> Vec<u8> {
    [channel.as_bytes().as_slice(), &[payer.byte()]].concat()
}

#[cfg(test)]
mod tests;
