//! The records of channels in the store, and the only code that knows their keys and encodings.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use flash_proto::{
    Amount, ChannelId, LaneState, Payment, PublicKey, Side, Signature, codec, message::Update,
};

use super::{Agreement, Doubt, Incoming, Item, Locked, Outgoing, Phase, Rest, SignedTwice};
use crate::store::{
    Batch, Store, StoreError, Table,
    records::{corrupt, decode, for_each, load},
};

/// What is fixed about a channel, by its id.
pub(super) const AGREEMENTS: Table = Table::large(1, "channels");
/// Where the channel is in its life, by its id.
pub(super) const PHASES: Table = Table::small(2, "channel phases");
/// This side's lane, by the channel's id.
const OUTGOING: Table = Table::small(3, "outgoing lanes");
/// The peer's lane, by the channel's id.
const INCOMING: Table = Table::small(4, "incoming lanes");
/// Own updates, by the channel's id and their number (big-endian): all that the peer may not hold, and the
/// newest of the others.
const UPDATES: Table = Table::large(5, "updates");
/// Payments by the channel's id and their key.
const KEYS: Table = Table::small(6, "payment keys");
/// What may have been forgotten of a channel, by its id, as long as something may have been.
const DOUBTS: Table = Table::small(16, "channels in doubt");
/// What both sides have locked, by the channel's id; none while that is what the agreement says.
const LOCKED: Table = Table::large(9, "locked");
/// The newest of the peer's updates, by the channel's id and their number (big-endian).
const RECEIVED: Table = Table::large(10, "received updates");
/// The payee's receipts for own updates that are kept, likewise.
const RECEIPTS: Table = Table::small(11, "receipts");
/// Two bodies that the peer has signed under one number, by the channel's id.
const SIGNED_TWICE: Table = Table::small(12, "balances signed twice");

/// What is stored of a channel beside its agreement.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) phase: Phase,
    pub(super) wants_close: bool,
    /// The newest milestone that was seen when the phase was written.
    pub(super) seen: u64,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) doubt: Option<Doubt>,
    pub(super) locked: Option<Locked>,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            phase: Phase::Opening,
            wants_close: false,
            seen: 0,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            doubt: None,
            locked: None,
        }
    }
}

/// One of a channel's lanes, as this side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What this side pays.
    Own,
    /// What the peer pays.
    Peers,
}

/// An update as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// The update.
    pub update: Update,
    /// Payments on the lane up to it.
    pub payments: u64,
    /// The lane's state before it.
    pub before: LaneState,
}

/// A payment, or ticks, made under a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyRecord {
    /// Its number on the lane; of ticks, the last one's.
    pub number: u64,
    /// How much; of ticks, each.
    pub amount: Amount,
    /// Its reference; none of ticks.
    pub reference: Vec<u8>,
    /// How many ticks; 0: a payment.
    pub ticks: u32,
}

impl KeyRecord {
    /// The record of what was made under a number.
    pub fn of(number: u64, item: &Item) -> Self {
        match item {
            Item::Payment(Payment { amount, reference }) => {
                Self { number, amount: *amount, reference: reference.as_bytes().to_vec(), ticks: 0 }
            }
            Item::Ticks { unit, count } => {
                Self { number, amount: *unit, reference: Vec::new(), ticks: *count }
            }
        }
    }
}

pub(super) fn damaged_channel(id: ChannelId, what: &'static str) -> StoreError {
    corrupt(AGREEMENTS, id.as_bytes(), what)
}

/// Whose record it is, by its key in the table that has one of each channel.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn channel_of(key: &[u8]) -> Result<ChannelId, StoreError> {
    <[u8; 32]>::try_from(key).map(ChannelId::new).map_err(|_| corrupt(PHASES, key, "key"))
}

/// A channel as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The channel.
    pub id: ChannelId,
    /// The key by which the peer's machine is known.
    pub peer: PublicKey,
    /// Which party this side is.
    pub side: Side,
    /// What is known of it beside its records, if it is at rest.
    pub rest: Option<Rest>,
}

/// All channels, in the order of their ids, by what tells which of them are at rest. Their lanes are not read.
///
/// # Errors
/// [`StoreError`]; one of which a part is missing is never passed over.
pub fn listed(store: &dyn Store) -> Result<Vec<Listed>, StoreError> {
    let mut quiet = Vec::new();
    for_each(store, PHASES, &[], |(key, value)| {
        let (phase, wants_close, _): (Phase, bool, u64) = decode(PHASES, &key, &value)?;
        quiet.push((channel_of(&key)?, phase == Phase::Open && !wants_close));
        Ok::<_, StoreError>(())
    })?;
    let mut doubted = BTreeSet::new();
    for_each(store, DOUBTS, &[], |(key, _)| {
        doubted.insert(channel_of(&key)?);
        Ok::<_, StoreError>(())
    })?;
    let mut locked = BTreeMap::new();
    for_each(store, LOCKED, &[], |(key, value)| {
        locked.insert(channel_of(&key)?, decode::<Locked>(LOCKED, &key, &value)?);
        Ok::<_, StoreError>(())
    })?;
    let mut listed = Vec::with_capacity(quiet.len());
    let mut phases = quiet.into_iter();
    for_each(store, AGREEMENTS, &[], |(key, value)| {
        // Both are in the order of their ids.
        let id = channel_of(&key)?;
        let quiet = match phases.next() {
            Some((next, quiet)) if next == id => quiet,
            Some((next, _)) if next < id => return Err(damaged_channel(next, "missing")),
            _ => return Err(corrupt(PHASES, id.as_bytes(), "missing")),
        };
        let agreement: Agreement = decode(AGREEMENTS, &key, &value)?;
        let locked = locked.remove(&id).unwrap_or_else(|| Locked::agreed(&agreement));
        let rests = quiet && !doubted.contains(&id) && locked.is_settled() && !locked.unexplained;
        let rest = rests.then(|| Rest::new(locked.proven));
        listed.push(Listed { id, peer: agreement.peer, side: agreement.side, rest });
        Ok(())
    })?;
    match phases.next() {
        Some((id, _)) => Err(damaged_channel(id, "missing")),
        None => Ok(listed),
    }
}

/// Ids of all channels.
///
/// # Errors
/// [`StoreError`]; one of which a part is missing is never passed over.
pub fn channels(store: &dyn Store) -> Result<Vec<ChannelId>, StoreError> {
    let [mut agreed, mut ids] = [Vec::new(), Vec::new()];
    for (table, found) in [(AGREEMENTS, &mut agreed), (PHASES, &mut ids)] {
        for_each(store, table, &[], |(key, _)| {
            found.push(channel_of(&key)?);
            Ok::<_, StoreError>(())
        })?;
    }
    // Both are in the order of their ids. One without an agreement is found when it is loaded.
    match agreed.iter().find(|id| ids.binary_search(id).is_err()) {
        Some(id) => Err(corrupt(PHASES, id.as_bytes(), "missing")),
        None => Ok(ids),
    }
}

/// The payment that was made under a key, if one was.
///
/// # Errors
/// [`StoreError`].
pub fn payment_under(store: &dyn Store, id: ChannelId, key: &[u8]) -> Result<Option<KeyRecord>, StoreError> {
    load(store, KEYS, &[id.as_bytes(), key].concat())
}

pub(super) fn put_key(batch: &mut Batch, id: ChannelId, key: &[u8], number: u64, item: &Item) {
    batch.put(KEYS, &[id.as_bytes(), key].concat(), codec::encode(&KeyRecord::of(number, item)));
}

/// What is fixed about a channel.
///
/// # Errors
/// [`StoreError`]: damaged, or there is none.
pub fn agreement(store: &dyn Store, id: ChannelId) -> Result<Agreement, StoreError> {
    find_agreement(store, id)?.ok_or_else(|| damaged_channel(id, "missing"))
}

/// The same of what may be no channel of this store.
///
/// # Errors
/// [`StoreError`]: damaged.
pub fn find_agreement(store: &dyn Store, id: ChannelId) -> Result<Option<Agreement>, StoreError> {
    load(store, AGREEMENTS, id.as_bytes())
}

pub(super) fn put_agreement(batch: &mut Batch, id: ChannelId, agreement: &Agreement) {
    batch.put(AGREEMENTS, id.as_bytes(), codec::encode(agreement));
}

pub(super) fn stored(store: &dyn Store, id: ChannelId) -> Result<Stored, StoreError> {
    let (phase, wants_close, seen) =
        load(store, PHASES, id.as_bytes())?.ok_or_else(|| corrupt(PHASES, id.as_bytes(), "missing"))?;
    let outgoing = load(store, OUTGOING, id.as_bytes())?.unwrap_or_default();
    let incoming = load(store, INCOMING, id.as_bytes())?.unwrap_or_default();
    let doubt = load(store, DOUBTS, id.as_bytes())?;
    let locked = load(store, LOCKED, id.as_bytes())?;
    Ok(Stored { phase, wants_close, seen, outgoing, incoming, doubt, locked })
}

pub(super) fn put_phase(batch: &mut Batch, id: ChannelId, phase: &Phase, wants_close: bool, seen: u64) {
    batch.put(PHASES, id.as_bytes(), codec::encode(&(phase.clone(), wants_close, seen)));
}

pub(super) fn put_outgoing(batch: &mut Batch, id: ChannelId, outgoing: &Outgoing) {
    batch.put(OUTGOING, id.as_bytes(), codec::encode(outgoing));
}

pub(super) fn put_incoming(batch: &mut Batch, id: ChannelId, incoming: &Incoming) {
    batch.put(INCOMING, id.as_bytes(), codec::encode(incoming));
}

/// The tables whose records a backup holds: each by the channel's id, and one of each channel at most. What comes back
/// from a backup is in doubt in any case.
pub const BACKED_UP: [Table; 5] = [AGREEMENTS, PHASES, OUTGOING, INCOMING, LOCKED];

/// Whether there is a channel if there is a record in the table of this number.
pub const fn makes_channel(table: u8) -> bool {
    table == PHASES.id()
}

/// Whether this record says that its channel is done with, so that nothing of it needs a backup.
pub fn ends_channel(table: Table, value: &[u8]) -> bool {
    table == PHASES
        && decode(PHASES, &[], value).is_ok_and(|(phase, _, _): (Phase, bool, u64)| phase.is_over())
}

/// Puts a record of a backup in its place. The updates that the peer may not have are in no backup: it is shown the
/// balance instead.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn put_backed_up(batch: &mut Batch, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
    if table != OUTGOING {
        batch.put(table, key, value);
        return Ok(());
    }
    let mut outgoing: Outgoing = decode(OUTGOING, key, &value)?;
    outgoing.acknowledged = outgoing.signed.map_or(0, |signed| signed.state.seq);
    outgoing.acknowledged_ticks = outgoing.ticks.map_or(0, |ticks| ticks.index);
    outgoing.acknowledged_payments = outgoing.payments;
    batch.put(OUTGOING, key, codec::encode(&outgoing));
    Ok(())
}

/// Notes of a channel that its records may be older than what this side has signed.
pub fn put_in_doubt(batch: &mut Batch, id: ChannelId) {
    put_doubt(batch, id, Some(&Doubt::default()));
}

/// Notes of all channels that are not done with that their records may be old. To be done before they are loaded.
///
/// # Errors
/// [`StoreError`].
pub fn put_all_in_doubt(store: &dyn Store, batch: &mut Batch) -> Result<(), StoreError> {
    for_each(store, PHASES, &[], |(key, value)| {
        if !ends_channel(PHASES, &value) {
            put_in_doubt(batch, channel_of(&key)?);
        }
        Ok(())
    })
}

pub(super) fn put_doubt(batch: &mut Batch, id: ChannelId, doubt: Option<&Doubt>) {
    match doubt {
        Some(doubt) => batch.put(DOUBTS, id.as_bytes(), codec::encode(doubt)),
        None => batch.delete(DOUBTS, id.as_bytes()),
    }
}

pub(super) fn put_locked(batch: &mut Batch, id: ChannelId, locked: &Locked) {
    batch.put(LOCKED, id.as_bytes(), codec::encode(locked));
}

pub(super) fn signed_twice(store: &dyn Store, id: ChannelId) -> Result<Option<SignedTwice>, StoreError> {
    load(store, SIGNED_TWICE, id.as_bytes())
}

pub(super) fn put_signed_twice(batch: &mut Batch, id: ChannelId, pair: &SignedTwice) {
    batch.put(SIGNED_TWICE, id.as_bytes(), codec::encode(pair));
}

fn update_key(id: ChannelId, seq: u64) -> Vec<u8> {
    [id.as_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

impl Lane {
    const fn table(self) -> Table {
        match self {
            Self::Own => UPDATES,
            Self::Peers => RECEIVED,
        }
    }
}

impl Kept {
    /// The lane's state after the update; `None` if it does not follow, which no update that was kept does not.
    pub fn after(&self) -> Option<LaneState> {
        self.update.after(&self.before).ok()
    }

    /// Payments on the lane before the update.
    fn payments_before(&self) -> Option<u64> {
        self.payments.checked_sub(self.update.count().ok()?)
    }

    /// Where in the update a payment is, from 0, by its number on the lane.
    pub fn position(&self, payment: u64) -> Option<u32> {
        let position = payment.checked_sub(self.payments_before()?)?.checked_sub(1)?;
        (payment <= self.payments).then(|| u32::try_from(position).ok())?
    }
}

/// Stores an update as [`Kept`], without a copy of it.
pub(super) fn put_kept(batch: &mut Batch, id: ChannelId, lane: Lane, kept: &(&Update, u64, &LaneState)) {
    batch.put(lane.table(), &update_key(id, kept.0.seq), codec::encode(kept));
}

pub(super) fn delete_kept(batch: &mut Batch, id: ChannelId, lane: Lane, seq: u64) {
    batch.delete(lane.table(), &update_key(id, seq));
    if lane == Lane::Own {
        batch.delete(RECEIPTS, &update_key(id, seq));
    }
}

pub(super) fn put_receipt(batch: &mut Batch, id: ChannelId, seq: u64, receipt: &Signature) {
    batch.put(RECEIPTS, &update_key(id, seq), codec::encode(receipt));
}

/// Own updates above a number.
pub(super) fn kept_after(store: &dyn Store, id: ChannelId, seq: u64) -> Result<Vec<Kept>, StoreError> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut after = seq;
    while let Some(next) = next_kept(store, id, Lane::Own, after)? {
        after = next.update.seq;
        kept.push(next);
    }
    Ok(kept)
}

/// The first update above a number.
fn next_kept(store: &dyn Store, id: ChannelId, lane: Lane, seq: u64) -> Result<Option<Kept>, StoreError> {
    let page = store.scan(lane.table(), id.as_bytes(), Some(&update_key(id, seq)), 1)?;
    page.first().map(|(key, bytes)| decode(lane.table(), key, bytes)).transpose()
}

/// The number of the oldest update that is kept.
pub(super) fn oldest_kept(store: &dyn Store, id: ChannelId, lane: Lane) -> Result<Option<u64>, StoreError> {
    Ok(next_kept(store, id, lane, 0)?.map(|kept| kept.update.seq))
}

/// An update by its number, if it is kept.
///
/// # Errors
/// [`StoreError`].
pub fn kept(store: &dyn Store, id: ChannelId, lane: Lane, seq: u64) -> Result<Option<Kept>, StoreError> {
    load(store, lane.table(), &update_key(id, seq))
}

/// The update that made a payment, by the payment's number on the lane, if it is kept.
///
/// # Errors
/// [`StoreError`].
pub fn kept_with(
    store: &dyn Store,
    id: ChannelId,
    lane: Lane,
    payment: u64,
) -> Result<Option<Kept>, StoreError> {
    let Some((key, bytes)) = store.last(lane.table(), id.as_bytes())? else { return Ok(None) };
    let newest: Kept = decode(lane.table(), &key, &bytes)?;
    // It is above `low` and at most `high`. Numbers may be missing where records were lost.
    let (mut low, mut high) = (0, newest.update.seq);
    while low < high {
        let middle = low.midpoint(high.saturating_sub(1));
        let Some(kept) = next_kept(store, id, lane, middle)? else { return Ok(None) };
        if kept.position(payment).is_some() {
            return Ok(Some(kept));
        }
        if payment > kept.payments {
            low = kept.update.seq;
        } else {
            high = middle;
        }
    }
    Ok(None)
}

/// The payee's receipt for the first own update from this number on that there is one for, and its number.
///
/// # Errors
/// [`StoreError`].
pub fn receipt_from(
    store: &dyn Store,
    id: ChannelId,
    seq: u64,
) -> Result<Option<(u64, Signature)>, StoreError> {
    let after = update_key(id, seq.saturating_sub(1));
    let page = store.scan(RECEIPTS, id.as_bytes(), Some(&after), 1)?;
    let Some((key, bytes)) = page.first() else { return Ok(None) };
    let number = key.last_chunk().map(|number| u64::from_be_bytes(*number));
    Ok(Some((number.ok_or_else(|| corrupt(RECEIPTS, key, "key"))?, decode(RECEIPTS, key, bytes)?)))
}
