//! Questions about the ledger.

use std::collections::HashSet;

use flash_proto::{
    Address, Block, BlockId, ChannelId, ChannelRecord, Milestone, Output, OutputId, Transaction,
    TransactionId,
};

use super::{ClientError, NodeClient, Proven, link::Link};
use crate::{
    ledger::Conflict,
    protocol::{ADDRESSES_MAX, NodeInfo, NodeRequest, NodeResponse, OUTPUTS_MAX, TransactionAnswer},
};

/// How often a list of outputs is begun again because a milestone came between its pages.
const LISTINGS_MAX: usize = 8;

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// The node does not know it. (The node's word.)
    Unknown,
    /// It is in a block that no milestone has confirmed. (The node's word.)
    Pending {
        /// The newest block that carries it.
        block: BlockId,
    },
    /// It changed the ledger. This is proven.
    Applied {
        /// The milestone that applied it.
        milestone_index: u64,
        /// The block that carried it.
        block: BlockId,
        /// The transaction.
        transaction: Box<Transaction>,
    },
    /// It was confirmed without changing the ledger. (The node's word.)
    Rejected {
        /// The milestone that confirmed it.
        milestone_index: u64,
        /// Why.
        conflict: Conflict,
    },
}

impl NodeClient {
    /// A channel's record, or that there is none, proven at the newest milestone that was known when this
    /// was called, or at a later one. So whoever calls it after a milestone that changed the channel sees
    /// that change: no node can hide it behind an older proof.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn channel(&self, id: ChannelId) -> Result<Proven<Option<ChannelRecord>>, ClientError> {
        let shared = self.shared();
        let newest = shared.core().newest().index;
        let link = shared.link().await?;
        let answer = shared.ask(&link, &NodeRequest::Channel(id)).await?;
        let NodeResponse::Channel { milestone_index, record, proof } = answer else {
            return Err(shared.unexpected(&link));
        };
        shared.reach(&link, newest, milestone_index).await?;
        let checked = shared.core().channel(id, milestone_index, record.as_deref(), &proof);
        shared.judge(&link, checked)?;
        Ok(Proven { milestone_index, value: record.map(|record| *record) })
    }

    /// The unspent outputs at these addresses, all of one milestone, each proven: the newest milestone
    /// that was known when this was called, or a later one. That the node leaves none out cannot be
    /// proven.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn outputs_of(
        &self,
        addresses: &[Address],
    ) -> Result<Proven<Vec<(OutputId, Output)>>, ClientError> {
        let newest = self.shared().core().newest().index;
        let link = self.shared().link().await?;
        for _ in 0..LISTINGS_MAX {
            if let Some(listing) = self.list_outputs(&link, newest, addresses).await? {
                return Ok(listing);
            }
        }
        let what = "milestones come faster than it lists the outputs".to_owned();
        Err(ClientError::Stale { node: link.node, what })
    }

    /// `None` if a milestone came between two pages.
    async fn list_outputs(
        &self,
        link: &Link,
        newest: u64,
        addresses: &[Address],
    ) -> Result<Option<Proven<Vec<(OutputId, Output)>>>, ClientError> {
        let mut listing: Option<Proven<Vec<(OutputId, Output)>>> = None;
        for chunk in addresses.chunks(ADDRESSES_MAX) {
            let mut after = None;
            loop {
                let page = self.page(link, newest, chunk, after).await?;
                let full = page.value.len() >= OUTPUTS_MAX;
                after = page.value.last().map(|(id, _)| *id);
                match &mut listing {
                    None => listing = Some(page),
                    Some(listing) if listing.milestone_index == page.milestone_index => {
                        listing.value.extend(page.value);
                    }
                    Some(_) => return Ok(None),
                }
                if !full {
                    break;
                }
            }
        }
        let nothing = || Proven { milestone_index: self.shared().core().newest().index, value: Vec::new() };
        Ok(Some(listing.unwrap_or_else(nothing)))
    }

    async fn page(
        &self,
        link: &Link,
        newest: u64,
        addresses: &[Address],
        after: Option<OutputId>,
    ) -> Result<Proven<Vec<(OutputId, Output)>>, ClientError> {
        let shared = self.shared();
        let request = NodeRequest::OutputsOf { addresses: addresses.to_vec(), after };
        let NodeResponse::Outputs { milestone_index, outputs } = shared.ask(link, &request).await? else {
            return Err(shared.unexpected(link));
        };
        shared.reach(link, newest, milestone_index).await?;
        let wanted: HashSet<&Address> = addresses.iter().collect();
        let mut last = after;
        let mut value = Vec::with_capacity(outputs.len());
        for (id, output, proof) in outputs {
            if !wanted.contains(&output.address) || last.is_some_and(|last| id <= last) {
                return Err(shared.lied(link, "an output that was not asked for, or out of order"));
            }
            let checked = shared.core().output(id, milestone_index, Some(&output), &proof);
            shared.judge(link, checked)?;
            last = Some(id);
            value.push((id, output));
        }
        Ok(Proven { milestone_index, value })
    }

    /// What is known of a transaction; that it was applied is proven, all else is the node's word.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn transaction(&self, id: TransactionId) -> Result<TransactionStatus, ClientError> {
        let shared = self.shared();
        let link = shared.link().await?;
        let NodeResponse::Transaction(answer) = shared.ask(&link, &NodeRequest::Transaction(id)).await?
        else {
            return Err(shared.unexpected(&link));
        };
        Ok(match *answer {
            TransactionAnswer::Unknown | TransactionAnswer::Pruned { .. } => TransactionStatus::Unknown,
            TransactionAnswer::Pending { block } => TransactionStatus::Pending { block },
            TransactionAnswer::Applied { block, milestone, path } => {
                let checked = shared.core().applied(id, &block, &milestone, &path);
                let applied = shared.judge(&link, checked)?;
                TransactionStatus::Applied {
                    milestone_index: applied.milestone_index,
                    block: applied.block,
                    transaction: Box::new(applied.transaction),
                }
            }
            TransactionAnswer::Rejected { milestone_index, conflict, .. } => {
                TransactionStatus::Rejected { milestone_index, conflict }
            }
        })
    }

    /// A milestone, the newest if `None`, with valid signatures.
    ///
    /// # Errors
    /// [`ClientError::NoSuchMilestone`], also for milestone 0, which nobody signs, and the others.
    pub async fn milestone(&self, index: Option<u64>) -> Result<Milestone, ClientError> {
        let shared = self.shared();
        let link = shared.link().await?;
        let NodeResponse::Milestone(answer) = shared.ask(&link, &NodeRequest::Milestone(index)).await? else {
            return Err(shared.unexpected(&link));
        };
        let milestone = answer
            .filter(|milestone| milestone.essence.index > 0)
            .ok_or(ClientError::NoSuchMilestone(index))?;
        let checked = shared.core().witness(&milestone);
        shared.judge(&link, checked)?;
        if index.is_some_and(|index| index != milestone.essence.index) {
            return Err(shared.unexpected(&link));
        }
        Ok(*milestone)
    }

    /// What the node says of itself. (Its word.)
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn info(&self) -> Result<NodeInfo, ClientError> {
        let shared = self.shared();
        let link = shared.link().await?;
        match shared.ask(&link, &NodeRequest::Info).await? {
            NodeResponse::Info(info) if info.network == shared.params.id() => Ok(info),
            NodeResponse::Info(info) => {
                let what = format!("it is a node of network {}", info.network);
                let error = ClientError::Malformed { node: link.node.clone(), what };
                shared.blame(&link, &error);
                Err(error)
            }
            _ => Err(shared.unexpected(&link)),
        }
    }

    /// A block, if the node has it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, id: BlockId) -> Result<Option<Block>, ClientError> {
        let shared = self.shared();
        let link = shared.link().await?;
        let NodeResponse::Block(answer) = shared.ask(&link, &NodeRequest::Block(id)).await? else {
            return Err(shared.unexpected(&link));
        };
        let Some(bytes) = answer else { return Ok(None) };
        if Block::id_of(&bytes) != id {
            return Err(shared.lied(&link, "a block with another id than asked for"));
        }
        let checked = Block::from_bytes(&bytes, shared.params.pow_bits).map_err(Into::into);
        shared.judge(&link, checked).map(Some)
    }
}
