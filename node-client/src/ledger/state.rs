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
    Checked, Conflict, merkle,
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
    outputs: HashMap<OutputId, Output>,
    /// One set for all addresses: most hold a single output, for which a set of its own takes 400 bytes.
    by_address: BTreeSet<(Address, OutputId)>,
    channels: HashMap<ChannelId, ChannelRecord>,
    /// Channels by the keys of their parties, for those who have nothing but their keys.
    by_party: BTreeSet<(PublicKey, ChannelId)>,
    /// Channels that are being closed alone, by the last milestone that may apply a claim.
    deadlines: BTreeMap<u64, BTreeSet<ChannelId>>,
    tree: StateTree,
    in_outputs: Amount,
    in_channels: Amount,
}

/// Builds a state entry by entry, so that those that are read from a disk need not be held beside it.
#[derive(Debug, Default)]
pub(crate) struct LedgerBuilder {
    state: LedgerState,
    leaves: Vec<Change>,
}

impl LedgerBuilder {
    /// Adds an entry; each key once.
    pub(crate) fn add(&mut self, key: &StateKey, value: &StateValue) {
        self.leaves.push((key.tree_key(), Some(value.value_hash())));
        self.state.set(key, Some(value));
    }

    /// The state with all that was added.
    pub(crate) fn finish(self) -> LedgerState {
        let Self { mut state, leaves } = self;
        state.tree.apply(leaves);
        state
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
    tree: StateTree,
}

impl LedgerState {
    /// The state in which a network begins, or that was stored: each key once.
    pub fn from_entries(entries: impl IntoIterator<Item = (StateKey, StateValue)>) -> Self {
        let mut builder = LedgerBuilder::default();
        entries.into_iter().for_each(|(key, value)| builder.add(&key, &value));
        builder.finish()
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
        let address = *address;
        let first = OutputId { transaction: TransactionId::new([0; 32]), index: 0 };
        let from = after.map_or(Bound::Included((address, first)), |id| Bound::Excluded((address, id)));
        let found = self.by_address.range((from, Bound::Unbounded));
        found
            .take_while(move |(at, _)| *at == address)
            .filter_map(|(_, id)| self.outputs.get(id).map(|output| (*id, *output)))
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
            tree,
        }
    }

    /// Takes over a confirmation that was worked out against this very state.
    pub fn accept(&mut self, confirmation: &Confirmation) {
        self.tree = confirmation.tree.clone();
        self.change(&confirmation.changes);
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

    fn change(&mut self, changes: &StateChanges) {
        for (key, value) in changes {
            self.set(key, value.as_ref());
        }
    }

    fn set(&mut self, key: &StateKey, value: Option<&StateValue>) {
        let old = self.get(key);
        let total = match key {
            StateKey::Output(id) => {
                self.change_output(*id, value);
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

    fn change_output(&mut self, id: OutputId, value: Option<&StateValue>) {
        if let Some(old) = self.outputs.remove(&id) {
            self.by_address.remove(&(old.address, id));
        }
        if let Some(StateValue::Output(output)) = value {
            self.outputs.insert(id, *output);
            self.by_address.insert((output.address, id));
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
