//! Where a network begins.

use flash_proto::{MilestoneEssence, NetworkParams, OutputId, StateKey, TransactionId};

use crate::ledger::{LedgerState, StateValue, merkle};

/// The entries of the first state: the genesis outputs. They are the outputs 0, 1, … of the transaction
/// whose id is the network's id.
pub fn genesis_entries(params: &NetworkParams) -> impl Iterator<Item = (StateKey, StateValue)> + '_ {
    let transaction = TransactionId::new(*params.id().as_bytes());
    (0_u16..).zip(&params.genesis).map(move |(index, output)| {
        (StateKey::Output(OutputId { transaction, index }), StateValue::Output(*output))
    })
}

/// Milestone 0, worked out from the parameters alone.
pub fn genesis_essence(params: &NetworkParams) -> MilestoneEssence {
    let state_root = LedgerState::from_entries(genesis_entries(params)).root();
    params.genesis_milestone(state_root, merkle::root([]))
}
