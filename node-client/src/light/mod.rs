//! Believing the ledger without keeping it: pure, knows no clock and no socket.
//!
//! A [`LightCore`] starts from the network's parameters and goes from milestone to milestone. Whatever a
//! node says about a channel, an output or a transaction is checked against what the coordinators
//! signed. A node can stay silent; it cannot make anything up.
//!
//! ```
//! use std::sync::Arc;
//! use flash_node_client::light::LightCore;
//! use flash_proto::{Address, Amount, NetworkParams, Output, SecretKey};
//!
//! let params = NetworkParams {
//!     name: "example".to_owned(),
//!     coordinators: vec![SecretKey::from_bytes([1; 32]).public()],
//!     threshold: 1,
//!     pow_bits: 0,
//!     output_min: Amount::new(1),
//!     milestone_interval_ms: 1_000,
//!     genesis_ms: 0,
//!     genesis: vec![Output { address: Address::new([2; 32]), amount: Amount::SUPPLY }],
//! };
//! let core = LightCore::new(Arc::new(params), None)?;
//! assert_eq!(core.newest().index, 0);
//! # Ok::<(), flash_node_client::light::LightError>(())
//! ```

mod error;
pub mod evidence;
pub mod notary;
#[cfg(test)]
mod sizes;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::VecDeque, sync::Arc};

use bincode::{Decode, Encode};
pub use error::{Fault, Fork, LightError};
use flash_proto::{
    Block, BlockId, ChannelId, ChannelRecord, CoordinatorHistory, Hash, Milestone, MilestoneEssence,
    NetworkParams, Output, OutputId, Payload, StateKey, Transaction, TransactionId,
    milestone::MilestoneError,
};

use crate::{
    ledger::{
        genesis::genesis_essence,
        merkle,
        merkle::AuditPath,
        state_tree::{Landmarks, Proof},
    },
    protocol::Followed,
};

/// Milestones that a core remembers, the newest included.
pub const REMEMBERED: usize = 128;
/// A proof about the state counts while its milestone is at most so many milestones behind the newest.
pub const PROOF_AGE_MAX: u64 = 8;

/// A transaction that is proven to have changed the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedTransaction {
    /// The milestone that applied it.
    pub milestone_index: u64,
    /// The block that carried it.
    pub block: BlockId,
    /// The transaction itself.
    pub transaction: Transaction,
}

/// A block that is proven to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludedBlock {
    /// The milestone that confirmed it.
    pub milestone_index: u64,
    /// The block itself.
    pub block: Block,
}

/// Where a core may start: a milestone that an earlier one has verified, and who could sign which milestones
/// up to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// The milestone.
    pub essence: MilestoneEssence,
    /// The coordinators up to it and after it.
    pub coordinators: CoordinatorHistory,
}

/// What is known and believed of a network.
#[derive(Clone, Debug)]
pub struct LightCore {
    params: Arc<NetworkParams>,
    coordinators: CoordinatorHistory,
    newest: Arc<Milestone>,
    /// Milestones before the newest, oldest first, without gaps.
    before: VecDeque<Arc<Milestone>>,
    /// Of the newest state of which something was proven.
    landmarks: (u64, Landmarks),
    fork: Option<Arc<Fork>>,
}

impl LightCore {
    /// Starts after `checkpoint`, which an earlier core has verified, or from the beginning.
    ///
    /// # Errors
    /// [`LightError::Network`], [`LightError::Checkpoint`].
    pub fn new(params: Arc<NetworkParams>, checkpoint: Option<Checkpoint>) -> Result<Self, LightError> {
        params.check()?;
        let network = params.id();
        let Checkpoint { essence, coordinators } = match checkpoint {
            Some(Checkpoint { essence, coordinators })
                if essence.network != network || coordinators.network() != network =>
            {
                return Err(LightError::Checkpoint { index: essence.index });
            }
            Some(checkpoint) => checkpoint,
            None => Checkpoint {
                essence: genesis_essence(&params),
                coordinators: CoordinatorHistory::new(&params),
            },
        };
        // What it starts from is not signed: the genesis by nobody, a checkpoint was checked before.
        let newest = Arc::new(Milestone { essence, signatures: Vec::new() });
        let landmarks = (newest.essence.index, Landmarks::new(newest.essence.state_root));
        Ok(Self { params, coordinators, newest, before: VecDeque::new(), landmarks, fork: None })
    }

    /// The network.
    pub const fn params(&self) -> &Arc<NetworkParams> {
        &self.params
    }

    /// The newest milestone.
    pub fn newest(&self) -> &MilestoneEssence {
        &self.newest.essence
    }

    /// Where another core may start after this one.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { essence: self.newest.essence.clone(), coordinators: self.coordinators.clone() }
    }

    /// A remembered milestone.
    pub fn essence(&self, index: u64) -> Option<&MilestoneEssence> {
        self.remembered(index).map(|milestone| &milestone.essence)
    }

    /// The fork that has stopped this core, if one has.
    pub const fn fork(&self) -> Option<&Arc<Fork>> {
        self.fork.as_ref()
    }

    /// Takes the next milestone and the channels that it changed.
    ///
    /// # Errors
    /// [`LightError`]; only a fork changes anything: it stops this core for ever.
    pub fn advance(&mut self, followed: &Followed) -> Result<(), LightError> {
        let Followed { milestone, channels } = followed;
        self.witness(milestone)?;
        match milestone.essence.follows(&self.newest.essence) {
            Ok(()) => {}
            Err(MilestoneError::Previous { .. }) => {
                let known = Arc::clone(&self.newest);
                return Err(self.halt(&known, milestone));
            }
            Err(MilestoneError::Index { got, after }) => {
                return Err(LightError::OutOfOrder { got, after });
            }
            Err(error) => return Err(error.into()),
        }
        check_channels(milestone, channels)?;
        self.coordinators.follow(&milestone.essence);
        let old = std::mem::replace(&mut self.newest, Arc::new(milestone.clone()));
        self.before.push_back(old);
        if self.before.len() >= REMEMBERED {
            self.before.pop_front();
        }
        Ok(())
    }

    /// Takes a milestone that is not after the newest from one more node: it must be the known one, with
    /// the channels that it changed.
    ///
    /// # Errors
    /// [`LightError`]; a fork stops this core for ever.
    pub fn confirm(&mut self, followed: &Followed) -> Result<(), LightError> {
        self.witness(&followed.milestone)?;
        check_channels(&followed.milestone, &followed.channels)
    }

    /// Checks a milestone of any age: its form, its signatures, and that it is no other than a
    /// remembered one.
    ///
    /// # Errors
    /// [`LightError`]; a fork stops this core for ever.
    pub fn witness(&mut self, milestone: &Milestone) -> Result<(), LightError> {
        self.check_halted()?;
        let known = self.remembered(milestone.essence.index);
        // Bit by bit the one whose signatures were checked. Only what this core starts from has none.
        if known.is_some_and(|known| **known == *milestone && !known.signatures.is_empty()) {
            return Ok(());
        }
        self.coordinators.verify(milestone)?;
        match known {
            Some(known) if known.id() != milestone.id() => {
                let known = Arc::clone(known);
                Err(self.halt(&known, milestone))
            }
            // Nobody signs the genesis: only a fork of it could be signed.
            None if milestone.essence.index == 0 => Err(LightError::OutOfOrder { got: 0, after: 0 }),
            _ => Ok(()),
        }
    }

    /// Checks what a channel's record was at a milestone, or that there was none.
    ///
    /// # Errors
    /// [`LightError`].
    pub fn channel(
        &mut self,
        id: ChannelId,
        milestone_index: u64,
        record: Option<&ChannelRecord>,
        proof: &Proof,
    ) -> Result<(), LightError> {
        self.state(&StateKey::Channel(id), milestone_index, record.map(ChannelRecord::value_hash), proof)
    }

    /// Checks that an output was unspent at a milestone, or (`None`) that it was not there.
    ///
    /// # Errors
    /// [`LightError`].
    pub fn output(
        &mut self,
        id: OutputId,
        milestone_index: u64,
        output: Option<&Output>,
        proof: &Proof,
    ) -> Result<(), LightError> {
        self.state(&StateKey::Output(id), milestone_index, output.map(Output::value_hash), proof)
    }

    fn state(
        &mut self,
        key: &StateKey,
        milestone_index: u64,
        expected: Option<Hash>,
        proof: &Proof,
    ) -> Result<(), LightError> {
        self.check_halted()?;
        let newest = self.newest.essence.index;
        let Some(age) = newest.checked_sub(milestone_index) else {
            return Err(LightError::Ahead { milestone_index, newest });
        };
        if age > PROOF_AGE_MAX {
            return Err(LightError::Stale { milestone_index, newest });
        }
        let milestone =
            self.remembered(milestone_index).ok_or(LightError::Stale { milestone_index, newest })?;
        let root = milestone.essence.state_root;
        let (of, landmarks) = &mut self.landmarks;
        if milestone_index > *of {
            *of = milestone_index;
            if landmarks.root() != root {
                *landmarks = Landmarks::new(root);
            }
        }
        // Where lists of two milestones are checked by turns the landmarks of the newer one stay.
        if landmarks.root() == root {
            landmarks.verify(proof, &key.tree_key(), expected)?;
        } else {
            proof.verify(root, &key.tree_key(), expected)?;
        }
        Ok(())
    }

    /// Checks that the block with these bytes carried transaction `id` and that `milestone`, of any age,
    /// applied it.
    ///
    /// # Errors
    /// [`LightError`]; a fork stops this core for ever.
    pub fn applied(
        &mut self,
        id: TransactionId,
        block: &[u8],
        milestone: &Milestone,
        path: &AuditPath,
    ) -> Result<AppliedTransaction, LightError> {
        self.witness(milestone)?;
        let transaction = match Block::from_bytes(block, self.params.pow_bits)?.payload {
            Payload::Transaction(transaction) if transaction.id() == id => transaction,
            _ => return Err(LightError::WrongTransaction { wanted: id }),
        };
        let block = Block::id_of(block);
        if !path.verify(&milestone.essence.applied_root, block.as_bytes()) {
            return Err(LightError::NotApplied { block, milestone_index: milestone.essence.index });
        }
        Ok(AppliedTransaction { milestone_index: milestone.essence.index, block, transaction: *transaction })
    }

    /// Checks that these are the bytes of block `id` and that `milestone`, of any age, confirmed it.
    ///
    /// # Errors
    /// [`LightError`]; a fork stops this core for ever.
    pub fn included(
        &mut self,
        id: BlockId,
        block: &[u8],
        milestone: &Milestone,
        path: &AuditPath,
    ) -> Result<IncludedBlock, LightError> {
        self.witness(milestone)?;
        let milestone_index = milestone.essence.index;
        if Block::id_of(block) != id {
            return Err(LightError::WrongBlock { wanted: id });
        }
        let parsed = Block::from_bytes(block, self.params.pow_bits)?;
        if !path.verify(&milestone.essence.included_root, id.as_bytes()) {
            return Err(LightError::NotIncluded { block: id, milestone_index });
        }
        Ok(IncludedBlock { milestone_index, block: parsed })
    }

    /// The milestones at which coordinators handed over to others, in rising order.
    pub fn hand_overs(&self) -> Vec<u64> {
        self.coordinators.hand_overs().collect()
    }

    fn remembered(&self, index: u64) -> Option<&Arc<Milestone>> {
        match self.newest.essence.index.checked_sub(index)? {
            0 => Some(&self.newest),
            age => self.before.get(self.before.len().checked_sub(usize::try_from(age).ok()?)?),
        }
    }

    fn check_halted(&self) -> Result<(), LightError> {
        self.fork.as_ref().map_or(Ok(()), |fork| Err(LightError::Fork(Arc::clone(fork))))
    }

    fn halt(&mut self, known: &Milestone, other: &Milestone) -> LightError {
        let fork = Arc::new(Fork { known: known.clone(), other: other.clone() });
        self.fork = Some(Arc::clone(&fork));
        LightError::Fork(fork)
    }
}

/// Checks that these are the channels that the milestone commits to.
fn check_channels(milestone: &Milestone, channels: &[ChannelId]) -> Result<(), LightError> {
    let rising = channels.is_sorted_by(|left, right| left < right);
    let root = merkle::root(channels.iter().map(|channel| *channel.as_bytes()));
    if !rising || root != milestone.essence.channels_root {
        return Err(LightError::Channels { index: milestone.essence.index });
    }
    Ok(())
}
