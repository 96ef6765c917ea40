//! From the disk into memory, with everything checked that the last milestone vouches for.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use flash_channel::store::{
    Batch, Store,
    records::{decode, for_each},
};
use flash_proto::{
    Amount, Block, BlockId, ChannelId, CoordinatorHistory, Milestone, NetworkParams, Payload, StateKey, codec,
};

use super::{
    NodeError,
    core::{Core, Waiting},
    outputs::{self, Journal},
    pages,
    records::{self, CHANNELS, INCLUDED, MILESTONES, MilestoneRecord},
};
use crate::{
    ledger::{
        Checked, LedgerBuilder, LedgerState, StateValue,
        genesis::{genesis_entries, genesis_essence},
    },
    tangle::{CONFIRMED_MILESTONES, Tangle},
};

/// Channels in one commit of a whole ledger.
const CHANNELS_TOGETHER: usize = 16_384;

/// Reads all that a node holds in memory, but for the ledger if it is here already; a new directory gets the
/// genesis first.
pub(super) fn load(
    store: &dyn Store,
    params: &NetworkParams,
    ledger: Option<LedgerState>,
) -> Result<Core, NodeError> {
    if let Some(fork) = records::fork(store)? {
        return Err(NodeError::Fork(Box::new(fork)));
    }
    if records::is_unfinished(store)? {
        return Err(NodeError::Unfinished);
    }
    let index = match store.last(MILESTONES, &[])? {
        Some((key, _)) => index_of(&key)?,
        None => begin(store, params)?,
    };
    let coordinators = records::coordinators(store)?.ok_or(NodeError::Damaged("list of coordinators"))?;
    let last = records::milestone(store, index)?.ok_or(NodeError::Damaged("milestone"))?;
    if index > 0 {
        coordinators.verify(&last.milestone)?;
    }
    let (ledger, journal) = match ledger {
        Some(ledger) => (ledger, Journal::default()),
        None => load_ledger(store)?,
    };
    check_ledger(&ledger, &last.milestone)?;
    let mut core = Core {
        tangle: Tangle::new(params.genesis_block(), 0),
        ledger,
        journal,
        coordinators,
        waiting: HashMap::new(),
        past: records::past(store)?,
        waiting_bytes: 0,
        carried: HashMap::new(),
        next_number: 1,
        next_page: 0,
        confirmed: last.confirmed,
        recent: VecDeque::new(),
        last: Arc::new(records::followed(store, index)?.ok_or(NodeError::Damaged("milestone"))?),
    };
    core.recent.push_back(Arc::clone(&core.last));
    let kept = index.saturating_sub(CONFIRMED_MILESTONES).saturating_add(1);
    for index in kept.max(1)..=index {
        let included = records::ids(store, INCLUDED, index)?;
        core.tangle.restore(index, included.map(BlockId::new).collect());
    }
    core.tangle.set_milestone_block(last.block);
    load_waiting(store, params, last.waiting_page, &mut core)?;
    Ok(core)
}

/// Stores the genesis: its state and milestone 0, which nobody signs.
fn begin(store: &dyn Store, params: &NetworkParams) -> Result<u64, NodeError> {
    let mut batch = Batch::new();
    let mut ledger = LedgerState::from_entries(genesis_entries(params));
    put_ledger(&mut ledger, &mut batch, |_| Ok::<_, NodeError>(()))?;
    let milestone = Milestone { essence: genesis_essence(params), signatures: Vec::new() };
    let record = MilestoneRecord { milestone, block: params.genesis_block(), waiting_page: 0, confirmed: 0 };
    records::put_coordinators(&mut batch, &CoordinatorHistory::new(params));
    batch.put(MILESTONES, &0_u64.to_be_bytes(), codec::encode(&record));
    let _durable = store.commit(&batch)?;
    Ok(0)
}

/// Stores a whole ledger; `commit` gets the batch, to empty it, each time that it is large.
pub(super) fn put_ledger<E>(
    ledger: &mut LedgerState,
    batch: &mut Batch,
    mut commit: impl FnMut(&mut Batch) -> Result<(), E>,
) -> Result<(), E> {
    for (number, (id, record)) in (1_usize..).zip(ledger.channels()) {
        batch.put(CHANNELS, id.as_bytes(), codec::encode(record));
        if number.is_multiple_of(CHANNELS_TOGETHER) {
            commit(batch)?;
        }
    }
    outputs::put_all(ledger.outputs_mut(), batch, commit)
}

fn load_ledger(store: &dyn Store) -> Result<(LedgerState, Journal), NodeError> {
    let mut builder = LedgerBuilder::default();
    let journal = outputs::read(store, &mut builder)?;
    for_each(store, CHANNELS, &[], |(key, record)| {
        let id = ChannelId::new(key.as_slice().try_into().map_err(|_| NodeError::Damaged("channel"))?);
        builder.add(&StateKey::Channel(id), &StateValue::Channel(decode(CHANNELS, &key, &record)?));
        Ok::<_, NodeError>(())
    })?;
    let ledger = builder.finish().ok_or(NodeError::Damaged("money of the ledger"))?;
    Ok((ledger, journal))
}

fn check_ledger(ledger: &LedgerState, last: &Milestone) -> Result<(), NodeError> {
    if ledger.root() != last.essence.state_root {
        let (wanted, got) = (last.essence.state_root, ledger.root());
        return Err(NodeError::StateRoot { index: last.essence.index, wanted, got });
    }
    let (outputs, channels) = (ledger.in_outputs(), ledger.in_channels());
    if outputs.checked_add(channels) != Some(Amount::SUPPLY) {
        return Err(NodeError::Supply { outputs, channels });
    }
    Ok(())
}

/// The blocks that wait for a milestone, in the order in which they came: all from the first page with one of
/// them on that are not confirmed.
fn load_waiting(
    store: &dyn Store,
    params: &NetworkParams,
    first_page: u64,
    core: &mut Core,
) -> Result<(), NodeError> {
    core.next_page = pages::for_each(store, first_page, |place, bytes| {
        let id = Block::id_of(bytes);
        if core.tangle.contains(&id) || records::confirmed(store, &id)?.is_some() {
            return Ok(());
        }
        let block = Block::from_bytes(bytes, params.pow_bits)?;
        let transaction = match block.payload {
            Payload::Transaction(transaction) => {
                let checked = Checked::new(*transaction, params);
                Some(checked.map_err(|_| NodeError::Damaged("waiting transaction"))?)
            }
            _ => None,
        };
        // What it approves is only not here if it has expired.
        let _ = core.hold(id, block.parents, Waiting { bytes: bytes.len(), place, transaction });
        Ok(())
    })?;
    Ok(())
}

fn index_of(key: &[u8]) -> Result<u64, NodeError> {
    let bytes = key.try_into().map_err(|_| NodeError::Damaged("index"))?;
    Ok(u64::from_be_bytes(bytes))
}
