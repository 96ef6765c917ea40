//! The records of channels in the store, and the only code that knows their keys and encodings.

use bincode::{Decode, Encode};
use flash_proto::{Amount, ChannelId, Payment, codec, message::Update};

use super::{Agreement, Doubt, Incoming, Item, Locked, Outgoing, Phase};
use crate::store::{
    Batch, Store, StoreError, Table,
    records::{corrupt, decode, for_each, load},
};

/// What is fixed about a channel, by its id.
const AGREEMENTS: Table = Table::large(1, "channels");
/// Where the channel is in its life, by its id.
const PHASES: Table = Table::small(2, "channel phases");
/// This side's lane, by the channel's id.
const OUTGOING: Table = Table::small(3, "outgoing lanes");
/// The peer's lane, by the channel's id.
const INCOMING: Table = Table::small(4, "incoming lanes");
/// Updates that the peer is not known to hold, by the channel's id and their number (big-endian).
const UPDATES: Table = Table::large(5, "updates");
/// Payments by the channel's id and their key.
const KEYS: Table = Table::small(6, "payment keys");
/// What may have been forgotten of a channel, by its id, as long as something may have been.
const DOUBTS: Table = Table::small(16, "channels in doubt");
/// What both sides have locked, by the channel's id; none while that is what the agreement says.
const LOCKED: Table = Table::large(9, "locked");

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

/// Ids of all channels.
///
/// # Errors
/// [`StoreError`].
pub fn channels(store: &dyn Store) -> Result<Vec<ChannelId>, StoreError> {
    let mut ids = Vec::new();
    for_each(store, PHASES, &[], |(key, _)| {
        let id = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| corrupt(PHASES, &key, "key"))?;
        ids.push(ChannelId::new(id));
        Ok::<_, StoreError>(())
    })?;
    Ok(ids)
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
    load(store, AGREEMENTS, id.as_bytes())?.ok_or_else(|| damaged_channel(id, "missing"))
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

/// Forgets the updates of a channel that the peer is not known to hold.
///
/// # Errors
/// [`StoreError`].
pub fn delete_updates(store: &dyn Store, batch: &mut Batch, id: ChannelId) -> Result<(), StoreError> {
    for update in updates(store, id)? {
        delete_update(batch, id, update.seq);
    }
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
        let id = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| corrupt(PHASES, &key, "key"))?;
        if !ends_channel(PHASES, &value) {
            put_in_doubt(batch, ChannelId::new(id));
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

fn update_key(id: ChannelId, seq: u64) -> Vec<u8> {
    [id.as_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

pub(super) fn put_update(batch: &mut Batch, id: ChannelId, update: &Update) {
    batch.put(UPDATES, &update_key(id, update.seq), codec::encode(update));
}

pub(super) fn delete_update(batch: &mut Batch, id: ChannelId, seq: u64) {
    batch.delete(UPDATES, &update_key(id, seq));
}

pub(super) fn updates(store: &dyn Store, id: ChannelId) -> Result<Vec<Update>, StoreError> {
    let mut updates = Vec::new();
    for_each(store, UPDATES, id.as_bytes(), |(key, bytes)| {
        updates.push(decode(UPDATES, &key, &bytes)?);
        Ok::<_, StoreError>(())
    })?;
    Ok(updates)
}
