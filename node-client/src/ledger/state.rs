//! Outputs and channels, and what a milestone changes in them.
//!
//! A milestone is worked out against the state without touching it ([`LedgerState::confirm`]); whoever
//! did so compares the roots, makes the changes durable, and only then takes them over
//! ([`LedgerState::accept`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use bincode::{Decode, Encode};
use flash_proto::{
    Address, Amount, BlockId, ChannelId, ChannelPhase, ChannelRecord, Hash, Output, OutputId, PublicKey,
    Side, StateKey, TransactionId,
};

use super::{
    Checked, Conflict,
    by_address::ByAddress,
    merkle,
    outputs::{Entry, Outputs},
    overlay::Overlay,
    state_tree::{Change, StateTree},
};

/// What stands under a key of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StateValue {
    /// An unspent output.
    Output(Output),
    /// A channel.
    Channel(ChannelRecord),
}

impl StateValue {
    /// The hash that stands for it in the state tree.
    pub fn value_hash(&self) -> Hash {
        match self {
            Self::Output(output) => output.value_hash(),
            Self::Channel(record) => record.value_hash(),
        }
    }

    /// The money in it.
    pub(crate) fn amount(&self) -> Option<Amount> {
        match self {
            Self::Output(output) => Some(output.amount),
            Self::Channel(record) => record.total(),
        }
    }
}

/// Changes of the state: the new value, or `None` where a key goes.
pub type StateChanges = BTreeMap<StateKey, Option<StateValue>>;

/// The ledger after a milestone.
#[derive(Clone, Debug, Default)]
pub struct LedgerState {
    outputs: Outputs,
    by_address: ByAddress,
    channels: HashMap<ChannelId, ChannelRecord>,
    /// Channels by the keys of their parties, for those who have nothing but their keys.
    by_party: BTreeSet<(PublicKey, ChannelId)>,
    /// Channels that are being closed alone, by the last milestone that may apply a claim.
    deadlines: BTreeMap<u64, BTreeSet<ChannelId>>,
    tree: StateTree,
    in_outputs: Amount,
    in_channels: Amount,
}

/// Builds a state piece by piece, so that what is read from a disk need not be held beside it.
#[derive(Debug, Default)]
pub(crate) struct LedgerBuilder {
    state: LedgerState,
}

impl LedgerBuilder {
    /// Adds an entry that is not stored yet; each key once.
    pub(crate) fn add(&mut self, key: &StateKey, value: &StateValue) {
        match (key, value) {
            (StateKey::Output(id), StateValue::Output(output)) => self.change(*id, Some(*output), 0),
            (StateKey::Channel(id), _) => self.state.change_channel(*id, Some(value)),
            (StateKey::Output(_), StateValue::Channel(_)) => {}
        }
    }

    /// Adds a stored page of outputs; they come in rising order. `None` if its outputs do not belong there.
    pub(crate) fn page(&mut self, start: OutputId, entries: Vec<Entry>) -> Option<()> {
        self.state.outputs.add_page(start, entries)
    }

    /// What milestone `index` did to an output, whether or not the pages hold it already.
    pub(crate) fn change(&mut self, id: OutputId, output: Option<Output>, index: u64) {
        self.state.outputs.set(id, output, index);
    }

    /// The state with all that was added; `None` if the money in it is more than there can be.
    pub(crate) fn finish(self) -> Option<LedgerState> {
        let Self { mut state } = self;
        state.by_address = ByAddress::of(&state.outputs);
        state.in_outputs = Amount::checked_sum(state.outputs.iter().map(|(_, output)| output.amount))?;
        let totals = state.channels.values().map(ChannelRecord::total).collect::<Option<Vec<_>>>()?;
        state.in_channels = Amount::checked_sum(totals)?;
        let outputs = state.outputs.iter();
        let outputs = outputs.map(|(id, output)| (StateKey::Output(*id).tree_key(), output.value_hash()));
        let channels = state.channels.iter();
        let channels = channels.map(|(id, record)| (StateKey::Channel(*id).tree_key(), record.value_hash()));
        let mut leaves = Vec::with_capacity(state.outputs.len().saturating_add(state.channels.len()));
        leaves.extend(outputs.chain(channels).map(|(key, value)| (key, Some(value))));
        state.tree.apply(leaves);
        Some(state)
    }
}

/// What a milestone confirms and changes.
#[derive(Clone, Debug)]
pub struct Confirmation {
    /// The transactions that changed the ledger, with their blocks, in order.
    pub applied: Vec<(BlockId, TransactionId)>,
    /// The transactions that did not, and why.
    pub conflicts: Vec<(BlockId, TransactionId, Conflict)>,
    /// What changed, ready to be made durable.
    pub changes: StateChanges,
    /// The channels that changed, in rising order.
    pub channels: Vec<ChannelId>,
    /// Merkle root of the confirmed blocks.
    pub included_root: Hash,
    /// Merkle root of the blocks whose transaction changed the ledger.
    pub applied_root: Hash,
    /// Merkle root of the channels that changed.
    pub channels_root: Hash,
    /// Root of the state tree afterwards.
    pub state_root: Hash,
    index: u64,
    tree: StateTree,
}

impl LedgerState {
    /// The state in which a network begins: each key once.
    ///
    /// # Panics
    /// If there is more money in it than can be counted.
    pub fn from_entries(entries: impl IntoIterator<Item = (StateKey, StateValue)>) -> Self {
        let mut builder = LedgerBuilder::default();
        entries.into_iter().for_each(|(key, value)| builder.add(&key, &value));
        let state = builder.finish();
        assert!(state.is_some(), "I1: a total of the ledger must not overflow");
        state.unwrap_or_default()
    }

    /// The state root.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The state tree, for proofs. A clone of it is a snapshot.
    pub const fn tree(&self) -> &StateTree {
        &self.tree
    }

    /// An unspent output.
    pub fn output(&self, id: &OutputId) -> Option<&Output> {
        self.outputs.get(id)
    }

    /// A channel.
    pub fn channel(&self, id: &ChannelId) -> Option<&ChannelRecord> {
        self.channels.get(id)
    }

    /// The unspent outputs at an address, in rising order of their ids.
    pub fn outputs_at(&self, address: &Address) -> impl Iterator<Item = (OutputId, Output)> + '_ {
        self.outputs_after(address, None)
    }

    /// The same from the first id above `after`.
    pub fn outputs_after(
        &self,
        address: &Address,
        after: Option<OutputId>,
    ) -> impl Iterator<Item = (OutputId, Output)> + '_ {
        self.by_address.outputs_after(&self.outputs, *address, after)
    }

    /// The channels that have this key as a party's, in rising order from the first id above `after`.
    pub fn channels_after(
        &self,
        party: &PublicKey,
        after: Option<ChannelId>,
    ) -> impl Iterator<Item = (ChannelId, ChannelRecord)> + '_ {
        let party = *party;
        let first = Bound::Included((party, ChannelId::new([0; 32])));
        let from = after.map_or(first, |id| Bound::Excluded((party, id)));
        let found = self.by_party.range((from, Bound::Unbounded));
        found
            .take_while(move |(key, _)| *key == party)
            .filter_map(|(_, id)| self.channels.get(id).map(|record| (*id, *record)))
    }

    /// All money in unspent outputs.
    pub const fn in_outputs(&self) -> Amount {
        self.in_outputs
    }

    /// All money in channels.
    pub const fn in_channels(&self) -> Amount {
        self.in_channels
    }

    /// How many channels there are.
    pub fn channels_count(&self) -> usize {
        self.channels.len()
    }

    /// The channels, in no order.
    pub(crate) const fn channels(&self) -> &HashMap<ChannelId, ChannelRecord> {
        &self.channels
    }

    /// The unspent outputs in their pages.
    pub(crate) const fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// The same, to say which pages are stored.
    pub(crate) const fn outputs_mut(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// How many unspent outputs there are.
    pub fn outputs_count(&self) -> usize {
        self.outputs.len()
    }

    /// The channels that settle at `index`: their last claims could come at the milestone before.
    pub(super) fn due(&self, index: u64) -> impl Iterator<Item = ChannelId> + '_ {
        self.deadlines.range(..index).flat_map(|(_, channels)| channels.iter().copied())
    }

    /// Works out what milestone `index` with these confirmed blocks, in white-flag order, changes.
    /// Channels whose contest is over are settled first, then the transactions are applied one by one;
    /// the first spend of an output wins.
    ///
    /// ```
    /// use flash_node_client::ledger::LedgerState;
    /// let confirmation = LedgerState::default().confirm(1, &[]);
    /// assert!(confirmation.applied.is_empty() && confirmation.conflicts.is_empty());
    /// ```
    pub fn confirm(&self, index: u64, blocks: &[(BlockId, Option<&Checked>)]) -> Confirmation {
        let mut overlay = Overlay::new(self, index);
        overlay.settle_due();
        let (mut applied, mut conflicts) = (Vec::new(), Vec::new());
        for (block, transaction) in blocks {
            let Some(transaction) = transaction else { continue };
            match overlay.apply(transaction) {
                Ok(()) => applied.push((*block, transaction.id())),
                Err(conflict) => conflicts.push((*block, transaction.id(), conflict)),
            }
        }
        let (changes, channels) = overlay.finish();
        self.assert_conserved(&changes);
        let mut tree = self.tree.clone();
        tree.apply(tree_changes(&changes));
        Confirmation {
            included_root: merkle::root(blocks.iter().map(|(block, _)| *block.as_bytes())),
            applied_root: merkle::root(applied.iter().map(|(block, _)| *block.as_bytes())),
            channels_root: merkle::root(channels.iter().map(|channel| *channel.as_bytes())),
            state_root: tree.root(),
            applied,
            conflicts,
            changes,
            channels,
            index,
            tree,
        }
    }

    /// Takes over a confirmation that was worked out against this very state.
    pub fn accept(&mut self, confirmation: &Confirmation) {
        self.tree = confirmation.tree.clone();
        for (key, value) in &confirmation.changes {
            self.set(key, value.as_ref(), confirmation.index);
        }
        assert_eq!(
            self.in_outputs.checked_add(self.in_channels),
            Some(Amount::SUPPLY),
            "I1: outputs and channels must hold the supply"
        );
    }

    /// I1 before anything is made durable: what changes holds as much afterwards as before.
    fn assert_conserved(&self, changes: &StateChanges) {
        let before = Amount::checked_sum(changes.keys().filter_map(|key| self.get(key)?.amount()));
        let after = Amount::checked_sum(changes.values().filter_map(|value| value.as_ref()?.amount()));
        assert!(before.is_some() && before == after, "I1: a milestone must neither make nor lose money");
    }

    /// What stands under a key.
    pub fn get(&self, key: &StateKey) -> Option<StateValue> {
        match key {
            StateKey::Output(id) => self.outputs.get(id).copied().map(StateValue::Output),
            StateKey::Channel(id) => self.channels.get(id).copied().map(StateValue::Channel),
        }
    }

    fn set(&mut self, key: &StateKey, value: Option<&StateValue>, index: u64) {
        let old = self.get(key);
        let total = match key {
            StateKey::Output(id) => {
                self.change_output(*id, value, index);
                &mut self.in_outputs
            }
            StateKey::Channel(id) => {
                self.change_channel(*id, value);
                &mut self.in_channels
            }
        };
        let amount = |value: Option<&StateValue>| value.and_then(StateValue::amount).unwrap_or(Amount::ZERO);
        // The genesis and every confirmation hold the supply at most, so no sum here leaves 64 bits.
        let sum = total.checked_add(amount(value)).and_then(|sum| sum.checked_sub(amount(old.as_ref())));
        assert!(sum.is_some(), "I1: a total of the ledger must neither overflow nor go below zero");
        *total = sum.unwrap_or(*total);
    }

    fn change_output(&mut self, id: OutputId, value: Option<&StateValue>, index: u64) {
        let output = match value {
            Some(StateValue::Output(output)) => Some(*output),
            _ => None,
        };
        if let Some(old) = self.outputs.set(id, output, index) {
            self.by_address.remove(&old.address, &id, &self.outputs);
        }
        if let Some(output) = output {
            self.by_address.add(&output.address, &id);
        }
    }

    fn change_channel(&mut self, id: ChannelId, value: Option<&StateValue>) {
        if let Some(old) = self.channels.remove(&id) {
            for side in Side::BOTH {
                self.by_party.remove(&(old.party(side).key, id));
            }
            if let ChannelPhase::Closing { deadline, .. } = old.phase
                && let Some(ids) = self.deadlines.get_mut(&deadline)
            {
                ids.remove(&id);
                if ids.is_empty() {
                    self.deadlines.remove(&deadline);
                }
            }
        }
        if let Some(StateValue::Channel(record)) = value {
            self.channels.insert(id, *record);
            for side in Side::BOTH {
                self.by_party.insert((record.party(side).key, id));
            }
            if let ChannelPhase::Closing { deadline, .. } = record.phase {
                self.deadlines.entry(deadline).or_default().insert(id);
            }
        }
    }
}

fn tree_changes(changes: &StateChanges) -> Vec<Change> {
    changes.iter().map(|(key, value)| (key.tree_key(), value.as_ref().map(StateValue::value_hash))).collect()
}
