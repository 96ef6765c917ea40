//! The daemon's own tables in the store, and the only code that knows their keys and encodings.

use bincode::{Decode, Encode};
use flash_channel::{
    machine::tables as channel_tables,
    store::{
        Batch, Store, StoreError, Table,
        records::{corrupt, decode, for_each, load},
    },
};
use flash_node_client::{light::Checkpoint, wallet::WalletChanges};
use flash_proto::{
    Address, ChannelId, Output, OutputId, PublicKey, Transaction, TransactionId, codec, tower::TowerReceipt,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{Event, HistoryEntry},
    backup::restore::Place,
};

/// Single values by name.
const META: Table = Table::large(64, "daemon");
/// Events by number (big-endian), JSON.
const EVENTS: Table = Table::small(65, "events");
/// Bytes that most of them fit in.
const EVENT_BYTES: usize = 512;
/// What the daemon knows of a channel beside the channel's own record.
const LINKS: Table = Table::small(66, "links");
/// The wallet's history by number (big-endian), JSON.
const HISTORY: Table = Table::small(67, "wallet history");
/// The wallet's unspent outputs by their id.
const WALLET_OUTPUTS: Table = Table::small(68, "wallet outputs");

/// Transfers that were signed and are not applied yet, by their id.
const TRANSFERS: Table = Table::large(69, "transfers");

/// What watchtowers have signed for, by their key and the channel's id.
const RECEIPTS: Table = Table::small(70, "tower receipts");

/// What the wallet has promised to transactions, by the reservation's number (big-endian).
const RESERVATIONS: Table = Table::small(71, "wallet reservations");

/// The wallet's addresses by the indices of their keys (big-endian). They can be derived again.
const ADDRESSES: Table = Table::small(72, "wallet addresses");

const EVENT_NUMBER: &[u8] = b"event number";
const CHECKPOINT: &[u8] = b"checkpoint";
const WALLET: &[u8] = b"wallet";
const SEARCHED: &[u8] = b"searched for the seed's channels";
const GENERATION: &[u8] = b"generation";
const PLACE: &[u8] = b"place";

/// Whether a record goes into the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackedUp {
    /// Every change of it does.
    Always,
    /// It goes along with others, and is worth no new file.
    Along,
    /// It does not: it can be found again, or is lost with the store.
    Never,
}

/// The tables of which a backup holds records.
pub fn backed_up() -> impl Iterator<Item = Table> {
    channel_tables::BACKED_UP.into_iter().chain([META, LINKS, TRANSFERS, RESERVATIONS])
}

/// Whether a record goes into the backup.
pub fn backs_up(table: Table, key: &[u8]) -> BackedUp {
    if table == META {
        return match key {
            WALLET => BackedUp::Always,
            CHECKPOINT | EVENT_NUMBER => BackedUp::Along,
            _ => BackedUp::Never,
        };
    }
    let always = is_by_channel(table) || table == TRANSFERS || table == RESERVATIONS;
    if always { BackedUp::Always } else { BackedUp::Never }
}

/// Whether the keys of a table that is backed up are ids of channels.
pub fn is_by_channel(table: Table) -> bool {
    table == LINKS || channel_tables::BACKED_UP.contains(&table)
}

/// How many commits that a backup is about the store has seen.
///
/// # Errors
/// [`StoreError`].
pub fn generation(store: &dyn Store) -> Result<u64, StoreError> {
    Ok(load(store, META, GENERATION)?.unwrap_or(0))
}

/// Counts a commit that a backup is about.
pub fn put_generation(batch: &mut Batch, generation: u64) {
    batch.put(META, GENERATION, codec::encode(&generation));
}

/// Which file the store was when it was opened last.
///
/// # Errors
/// [`StoreError`].
pub fn place(store: &dyn Store) -> Result<Option<Place>, StoreError> {
    load(store, META, PLACE)
}

/// Keeps which file the store is.
pub fn put_place(batch: &mut Batch, place: &Place) {
    batch.put(META, PLACE, codec::encode(place));
}

/// The ledger is to be searched again for what belongs to the seed.
pub fn forget_searched(batch: &mut Batch) {
    batch.delete(META, SEARCHED);
}

/// What the daemon knows of a channel beside the channel's own record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LinkRecord {
    /// Where the peer was reached, `HOST:PORT`; none if only the peer knows how to reach us.
    pub address: Option<String>,
    /// When the channel was agreed on, as an event's time: orders the list of channels.
    pub created_ms: u64,
}

fn from_json<T: DeserializeOwned>(table: Table, key: &[u8], json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|_| corrupt(table, key, "encoding"))
}

/// The newest event's number.
pub fn event_number(store: &dyn Store) -> Result<u64, StoreError> {
    Ok(load(store, META, EVENT_NUMBER)?.unwrap_or(0))
}

/// Keeps the newest event's number.
pub fn put_event_number(batch: &mut Batch, number: u64) {
    batch.put(META, EVENT_NUMBER, codec::encode(&number));
}

/// Keeps an event, of which [`events`] makes an [`Event`] again.
pub fn put_event(batch: &mut Batch, number: u64, event: &impl Serialize) {
    let mut json = Vec::with_capacity(EVENT_BYTES);
    // Its fields are plain; only maps with keys that are no strings fail to become JSON.
    let _ = serde_json::to_writer(&mut json, event);
    batch.put(EVENTS, &number.to_be_bytes(), json);
}

/// Forgets an event.
pub fn delete_event(batch: &mut Batch, number: u64) {
    batch.delete(EVENTS, &number.to_be_bytes());
}

/// At most `limit` events after number `after`, oldest first.
pub fn events(store: &dyn Store, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
    let entries = store.scan(EVENTS, &[], Some(&after.to_be_bytes()), limit)?;
    entries.into_iter().map(|(key, json)| from_json(EVENTS, &key, &json)).collect()
}

/// The milestone that the light core trusts after a restart: it never goes below.
pub fn checkpoint(store: &dyn Store) -> Result<Option<Checkpoint>, StoreError> {
    load(store, META, CHECKPOINT)
}

/// Keeps the newest verified milestone.
pub fn put_checkpoint(batch: &mut Batch, checkpoint: &Checkpoint) {
    batch.put(META, CHECKPOINT, codec::encode(checkpoint));
}

/// The wallet's record.
pub fn wallet(store: &dyn Store) -> Result<Option<Vec<u8>>, StoreError> {
    store.get(META, WALLET)
}

/// Keeps what has changed of the wallet.
pub fn put_wallet(batch: &mut Batch, changes: WalletChanges) {
    batch.put(META, WALLET, changes.record);
    for (number, reservation) in changes.reservations {
        match reservation {
            Some(reservation) => batch.put(RESERVATIONS, &number.to_be_bytes(), reservation),
            None => batch.delete(RESERVATIONS, &number.to_be_bytes()),
        }
    }
    for (index, address) in changes.addresses {
        batch.put(ADDRESSES, &index.to_be_bytes(), codec::encode(&address));
    }
}

/// The wallet's addresses, from that of index 0 on as far as none is missing.
///
/// # Errors
/// [`StoreError`].
pub fn wallet_addresses(store: &dyn Store) -> Result<Vec<Address>, StoreError> {
    let mut addresses = Vec::new();
    for_each(store, ADDRESSES, &[], |(key, bytes)| {
        if u32::try_from(addresses.len()).is_ok_and(|next| next.to_be_bytes() == *key) {
            addresses.push(decode(ADDRESSES, &key, &bytes)?);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(addresses)
}

/// What the wallet has promised to transactions, by number, as [`put_wallet`] was given it.
///
/// # Errors
/// [`StoreError`].
pub fn reservations(store: &dyn Store) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut reservations = Vec::new();
    for_each(store, RESERVATIONS, &[], |(key, record)| {
        let number = key.as_slice().try_into().map_err(|_| corrupt(RESERVATIONS, &key, "key"))?;
        reservations.push((u64::from_be_bytes(number), record));
        Ok::<_, StoreError>(())
    })?;
    Ok(reservations)
}

/// Whether the ledger was searched for what belongs to the seed since this directory has it.
pub fn is_searched(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(load(store, META, SEARCHED)?.unwrap_or(false))
}

/// Keeps that the ledger was searched.
pub fn put_searched(batch: &mut Batch) {
    batch.put(META, SEARCHED, codec::encode(&true));
}

/// The wallet's unspent outputs.
pub fn wallet_outputs(store: &dyn Store) -> Result<Vec<(OutputId, Output)>, StoreError> {
    let mut outputs = Vec::new();
    for_each(store, WALLET_OUTPUTS, &[], |(key, bytes)| {
        outputs.push((decode(WALLET_OUTPUTS, &key, &key)?, decode(WALLET_OUTPUTS, &key, &bytes)?));
        Ok::<_, StoreError>(())
    })?;
    Ok(outputs)
}

/// Keeps an unspent output of the wallet.
pub fn put_wallet_output(batch: &mut Batch, id: &OutputId, output: &Output) {
    batch.put(WALLET_OUTPUTS, &codec::encode(id), codec::encode(output));
}

/// Forgets an output of the wallet: it is spent.
pub fn delete_wallet_output(batch: &mut Batch, id: &OutputId) {
    batch.delete(WALLET_OUTPUTS, &codec::encode(id));
}

/// A transfer that was signed and is not applied yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TransferRecord {
    /// The wallet's reservation of its inputs.
    pub reservation: u64,
    /// The transfer.
    pub transaction: Transaction,
}

/// The transfers that are not applied yet.
pub fn transfers(store: &dyn Store) -> Result<Vec<TransferRecord>, StoreError> {
    let mut transfers = Vec::new();
    for_each(store, TRANSFERS, &[], |(key, bytes)| {
        transfers.push(decode(TRANSFERS, &key, &bytes)?);
        Ok::<_, StoreError>(())
    })?;
    Ok(transfers)
}

/// Keeps a transfer until it is applied.
pub fn put_transfer(batch: &mut Batch, transfer: &TransferRecord) {
    batch.put(TRANSFERS, transfer.transaction.id().as_bytes(), codec::encode(transfer));
}

/// Forgets a transfer: it is applied, or never will be.
pub fn delete_transfer(batch: &mut Batch, id: TransactionId) {
    batch.delete(TRANSFERS, id.as_bytes());
}

/// What is known of a channel's peer.
pub fn link(store: &dyn Store, channel: ChannelId) -> Result<LinkRecord, StoreError> {
    Ok(load(store, LINKS, channel.as_bytes())?.unwrap_or_default())
}

/// What is known of the peers of all channels, in the order of their ids.
pub fn for_each_link(
    store: &dyn Store,
    mut take: impl FnMut(ChannelId, LinkRecord),
) -> Result<(), StoreError> {
    for_each(store, LINKS, &[], |(key, value)| {
        take(channel_tables::channel_of(&key)?, decode(LINKS, &key, &value)?);
        Ok(())
    })
}

/// Keeps what is known of a channel's peer.
pub fn put_link(batch: &mut Batch, channel: ChannelId, link: &LinkRecord) {
    batch.put(LINKS, channel.as_bytes(), codec::encode(link));
}

/// The number of the newest line of the wallet's history.
pub fn history_number(store: &dyn Store) -> Result<u64, StoreError> {
    let last = store.last(HISTORY, &[])?;
    Ok(last.and_then(|(key, _)| key.try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// Keeps a line of the wallet's history.
pub fn put_history(batch: &mut Batch, number: u64, entry: &HistoryEntry) {
    batch.put(HISTORY, &number.to_be_bytes(), serde_json::to_vec(entry).unwrap_or_default());
}

/// At most `limit` lines of the wallet's history after number `after`, oldest first.
pub fn history(store: &dyn Store, after: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
    let entries = store.scan(HISTORY, &[], Some(&after.to_be_bytes()), limit)?;
    entries.into_iter().map(|(key, json)| from_json(HISTORY, &key, &json)).collect()
}

/// What a watchtower has signed for, by channel.
pub fn receipts(store: &dyn Store, tower: &PublicKey) -> Result<Vec<(ChannelId, TowerReceipt)>, StoreError> {
    let mut receipts = Vec::new();
    for_each(store, RECEIPTS, tower.as_bytes(), |(key, bytes)| {
        let receipt: TowerReceipt = decode(RECEIPTS, &key, &bytes)?;
        receipts.push((receipt.held.balance.state.channel, receipt));
        Ok::<_, StoreError>(())
    })?;
    Ok(receipts)
}

/// Keeps what a watchtower has signed for, in place of what it had signed for of this channel before.
pub fn put_receipt(batch: &mut Batch, tower: &PublicKey, channel: ChannelId, receipt: &TowerReceipt) {
    batch.put(RECEIPTS, &receipt_key(tower, channel), codec::encode(receipt));
}

/// Forgets what a watchtower has signed for: the channel is over.
pub fn delete_receipt(batch: &mut Batch, tower: &PublicKey, channel: ChannelId) {
    batch.delete(RECEIPTS, &receipt_key(tower, channel));
}

fn receipt_key(tower: &PublicKey, channel: ChannelId) -> Vec<u8> {
    [tower.as_bytes().as_slice(), channel.as_bytes()].concat()
}
