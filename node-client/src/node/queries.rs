//! Answers to clients, each with what proves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use flash_channel::store::Table;
use flash_proto::{Address, BlockId, ChannelId, OutputId, PublicKey, StateKey, TransactionId};

use super::{
    Node, NodeError,
    pages::Reader,
    records::{self, APPLIED, Confirmed, INCLUDED, MilestoneRecord, Outcome},
};
use crate::{
    ledger::{merkle, merkle::AuditPath},
    protocol::{
        ADDRESSES_MAX, CHANNELS_MAX, Inclusion, NodeInfo, NodeRequest, NodeResponse, OUTPUTS_MAX,
        PARTIES_MAX, Refused, RefusedCode, TransactionAnswer,
    },
};

/// Lists of blocks that milestones commit to of which the trees are kept: whoever waits for a transaction asks when
/// a milestone has come, and with them all others.
const TREES_MAX: usize = 4;

/// A part of what a milestone confirmed has so many bytes, and its last block's, at most.
const CONE_BYTES: usize = 256 * 1024;

/// A part of what a milestone confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConePage {
    /// Blocks, each after those that it approves; the milestone's own comes last of all.
    pub blocks: Vec<Vec<u8>>,
    /// Whether more follow.
    pub more: bool,
}

impl Node {
    /// A block's bytes, if it is here.
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn block(&self, id: &BlockId) -> Result<Option<Vec<u8>>, NodeError> {
        self.read_block(&mut Reader::default(), id)
    }

    pub(super) fn read_block(&self, reader: &mut Reader, id: &BlockId) -> Result<Option<Vec<u8>>, NodeError> {
        let waiting = self.read().waiting.get(id).map(|waiting| waiting.place);
        let place = match waiting {
            Some(place) => Some(place),
            None => self.stored(records::confirmed(self.store(), id))?.map(|confirmed| confirmed.place),
        };
        let Some(place) = place else { return Ok(None) };
        self.stored(reader.block(self.store(), place))
    }

    /// At most `max` blocks that nothing here approves, for a node that may not know them.
    pub fn tips(&self, max: usize) -> Vec<BlockId> {
        self.read().tangle.tips().take(max).collect()
    }

    /// The blocks that milestone `index` confirmed and then its own, after the first `after` of these and at
    /// most `limit`, fewer where they are long; `None` if they are not here: not yet, or not any more ([`Node::past`]).
    ///
    /// # Errors
    /// [`NodeError::Halted`], or the store's failure.
    pub fn cone(&self, index: u64, after: usize, limit: usize) -> Result<Option<ConePage>, NodeError> {
        let (newest, past) = (self.read().index(), self.past());
        if index <= past.blocks || index > newest {
            return Ok(None);
        }
        let Some(record) = self.stored(records::milestone(self.store(), index))? else { return Ok(None) };
        let included = self.stored(records::ids(self.store(), INCLUDED, index).map_err(NodeError::from))?;
        let mut ids = included.map(BlockId::new).chain([record.block]).skip(after);
        let (mut reader, mut blocks, mut bytes) = (Reader::default(), Vec::new(), 0_usize);
        while blocks.len() < limit
            && bytes < CONE_BYTES
            && let Some(id) = ids.next()
        {
            // Pruned between two pages: as if it had never been here.
            let next =
                reader.next(&id).map_or_else(|| self.read_block(&mut reader, &id), |next| Ok(Some(next)));
            let Some(block) = next? else { return Ok(None) };
            bytes = bytes.saturating_add(block.len());
            blocks.push(block);
        }
        Ok(Some(ConePage { blocks, more: ids.next().is_some() }))
    }

    /// Answers one request; [`NodeRequest::Follow`] is no question and refused here, see
    /// [`Node::followed_after`].
    pub fn answer(&self, request: NodeRequest) -> NodeResponse {
        self.try_answer(request).unwrap_or_else(NodeResponse::Refused)
    }

    fn try_answer(&self, request: NodeRequest) -> Result<NodeResponse, Refused> {
        self.alive().map_err(|error| refusal(&error))?;
        match request {
            NodeRequest::Info => Ok(NodeResponse::Info(self.info())),
            NodeRequest::Follow { .. } => {
                Err(Refused::new(RefusedCode::Malformed, "following is a stream, not a question"))
            }
            NodeRequest::Milestone(index) => {
                let milestone = self.milestone(index).map_err(|error| refusal(&error))?;
                Ok(NodeResponse::Milestone(milestone.map(|carried| Box::new(carried.milestone))))
            }
            NodeRequest::Channel(id) => Ok(self.channel(id)),
            NodeRequest::OutputsOf { addresses, after } => self.outputs_of(addresses, after),
            NodeRequest::Tips => {
                let seed = self.next_seed();
                Ok(NodeResponse::Tips(self.read().tangle.select_tips_by(self.shared.tips, seed)))
            }
            NodeRequest::Submit(bytes) => self.submit(&bytes).map(NodeResponse::Submitted),
            NodeRequest::Transaction(id) => {
                let answer = self.transaction(id).map_err(|error| refusal(&error))?;
                Ok(NodeResponse::Transaction(Box::new(answer)))
            }
            NodeRequest::Block(id) => {
                let block = self.block(&id).map_err(|error| refusal(&error))?;
                let upto = self.past().blocks;
                if block.is_none() && upto > 0 {
                    return Err(refusal(&NodeError::Pruned { upto }));
                }
                Ok(NodeResponse::Block(block))
            }
            NodeRequest::Inclusion(id) => {
                let inclusion = self.inclusion(id).map_err(|error| refusal(&error))?;
                Ok(NodeResponse::Inclusion(inclusion.map(Box::new)))
            }
            NodeRequest::ChannelsOf { parties, after } => self.channels_of(&parties, after),
            NodeRequest::Records(ids) => self.channel_records(&ids),
            NodeRequest::SubmitAll(blocks) => self.submit_all(&blocks).map(NodeResponse::SubmittedAll),
        }
    }

    fn info(&self) -> NodeInfo {
        let core = self.read();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: core.last.milestone.essence.network,
            milestone_index: core.index(),
            blocks: core.confirmed.saturating_add(count(core.waiting.len())),
            tips: count(core.tangle.tips_count()),
            outputs: (count(core.ledger.outputs_count()), core.ledger.in_outputs()),
            channels: (count(core.ledger.channels_count()), core.ledger.in_channels()),
            state_root: core.ledger.root(),
        }
    }

    fn channel(&self, id: ChannelId) -> NodeResponse {
        let core = self.read();
        NodeResponse::Channel {
            milestone_index: core.index(),
            record: core.ledger.channel(&id).copied().map(Box::new),
            proof: core.ledger.tree().prove(&StateKey::Channel(id).tree_key()),
        }
    }

    fn channel_records(&self, ids: &[ChannelId]) -> Result<NodeResponse, Refused> {
        if ids.len() > CHANNELS_MAX {
            let reason = format!("{} channels, but at most {CHANNELS_MAX} at once", ids.len());
            return Err(Refused::new(RefusedCode::Malformed, &reason));
        }
        let core = self.read();
        let prove = |id: &ChannelId| core.ledger.tree().prove(&StateKey::Channel(*id).tree_key());
        let records = ids.iter().map(|id| (core.ledger.channel(id).copied(), prove(id))).collect();
        Ok(NodeResponse::Records { milestone_index: core.index(), records })
    }

    fn outputs_of(&self, addresses: Vec<Address>, after: Option<OutputId>) -> Result<NodeResponse, Refused> {
        if addresses.len() > ADDRESSES_MAX {
            let reason = format!("{} addresses, but at most {ADDRESSES_MAX} at once", addresses.len());
            return Err(Refused::new(RefusedCode::Malformed, &reason));
        }
        let addresses: BTreeSet<Address> = addresses.into_iter().collect();
        let core = self.read();
        // The first so many of all are among the first so many of each.
        let mut found: Vec<_> = addresses
            .iter()
            .flat_map(|address| core.ledger.outputs_after(address, after).take(OUTPUTS_MAX))
            .collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        found.truncate(OUTPUTS_MAX);
        let prove = |id: OutputId| core.ledger.tree().prove(&StateKey::Output(id).tree_key());
        Ok(NodeResponse::Outputs {
            milestone_index: core.index(),
            outputs: found.into_iter().map(|(id, output)| (id, output, prove(id))).collect(),
        })
    }

    fn channels_of(&self, parties: &[PublicKey], after: Option<ChannelId>) -> Result<NodeResponse, Refused> {
        if parties.len() > PARTIES_MAX {
            let reason = format!("{} keys, but at most {PARTIES_MAX} at once", parties.len());
            return Err(Refused::new(RefusedCode::Malformed, &reason));
        }
        let core = self.read();
        // A channel between two of the keys is there twice; the first so many of all are among the first so
        // many of each.
        let found: BTreeMap<_, _> = parties
            .iter()
            .flat_map(|party| core.ledger.channels_after(party, after).take(CHANNELS_MAX))
            .collect();
        let prove = |id: ChannelId| core.ledger.tree().prove(&StateKey::Channel(id).tree_key());
        let channels = found.into_iter().take(CHANNELS_MAX).map(|(id, record)| (id, record, prove(id)));
        Ok(NodeResponse::Channels { milestone_index: core.index(), channels: channels.collect() })
    }

    fn inclusion(&self, id: BlockId) -> Result<Option<Inclusion>, NodeError> {
        let confirmed = self.stored(records::confirmed(self.store(), &id))?;
        // One of a later milestone is on the disk already, but not yet taken over.
        let Some(Confirmed { milestone: index, .. }) =
            confirmed.filter(|confirmed| confirmed.milestone <= self.read().index())
        else {
            return Ok(None);
        };
        let record = self.stored(records::milestone(self.store(), index))?;
        match (self.block(&id)?, record, self.path_to(INCLUDED, index, &id)?) {
            (Some(block), Some(MilestoneRecord { milestone, .. }), Some(path)) => {
                Ok(Some(Inclusion { block, milestone, path }))
            }
            // Let go of in the meantime.
            _ if index <= self.past().blocks => Ok(None),
            _ => Err(self.halt(&NodeError::Damaged("list of included blocks"))),
        }
    }

    fn transaction(&self, id: TransactionId) -> Result<TransactionAnswer, NodeError> {
        let (index, carried, outcome) = {
            // Held while the disk is read: what stands there was then taken over, or is of a later milestone.
            let core = self.read();
            let outcome = records::outcome(self.store(), id);
            (core.index(), core.carried.get(&id).map(|carried| carried.block), outcome)
        };
        let pending = |block| Ok(TransactionAnswer::Pending { block });
        match (self.stored(outcome)?, carried) {
            (Some(Outcome::Applied { block, milestone }), _) if milestone <= index => {
                self.applied(block, milestone)
            }
            (_, Some(carried)) => pending(carried),
            // On the disk already, but not yet taken over: who hears of it must find it in the state.
            (Some(Outcome::Applied { block, .. }), None) => pending(block),
            (Some(Outcome::Rejected { block, milestone, .. }), None) if milestone > index => pending(block),
            (Some(Outcome::Rejected { block, milestone, conflict }), None) => {
                Ok(TransactionAnswer::Rejected { block, milestone_index: milestone, conflict })
            }
            (None, None) => Ok(self.unknown()),
        }
    }

    /// With what proves it, unless that was let go of in the meantime.
    fn applied(&self, block: BlockId, milestone: u64) -> Result<TransactionAnswer, NodeError> {
        let path = self.path_to(APPLIED, milestone, &block)?;
        let block = self.block(&block)?;
        let record = self.stored(records::milestone(self.store(), milestone))?;
        match (block, record, path) {
            (Some(block), Some(MilestoneRecord { milestone, .. }), Some(path)) => {
                Ok(TransactionAnswer::Applied { block, milestone, path })
            }
            _ if milestone <= self.past().blocks => Ok(self.unknown()),
            _ => Err(self.halt(&NodeError::Damaged("list of applied blocks"))),
        }
    }

    /// The path of a block among those that a milestone commits to.
    fn path_to(&self, table: Table, milestone: u64, block: &BlockId) -> Result<Option<AuditPath>, NodeError> {
        let trees = || self.shared.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = trees().iter().find(|(of, _)| *of == (table, milestone)).map(|(_, tree)| Arc::clone(tree));
        if let Some(tree) = kept {
            return Ok(tree.prove(block.as_bytes()));
        }
        let leaves = self.stored(records::ids(self.store(), table, milestone).map_err(NodeError::from))?;
        let tree = Arc::new(merkle::Tree::new(leaves));
        let path = tree.prove(block.as_bytes());
        // A list that is not there yet, or not any more, is not remembered.
        if path.is_some() {
            let mut trees = trees();
            trees.truncate(TREES_MAX.saturating_sub(1));
            trees.push_front(((table, milestone), tree));
        }
        Ok(path)
    }

    /// What is said of a transaction of which nothing is known here.
    fn unknown(&self) -> TransactionAnswer {
        match self.past().blocks {
            0 => TransactionAnswer::Unknown,
            upto => TransactionAnswer::Pruned { upto },
        }
    }
}

/// How a client hears of an error.
fn refusal(error: &NodeError) -> Refused {
    let code = match error {
        NodeError::Pruned { .. } => RefusedCode::Pruned,
        _ => RefusedCode::Halted,
    };
    Refused::new(code, error)
}
