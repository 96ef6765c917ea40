//! Questions whose answers prove themselves: one node's is enough, and if it is of no use the next is asked.

use flash_proto::{Block, BlockId, ChannelId, ChannelRecord, Milestone};

use super::{ClientError, NodeClient, Proven, Shared, link::Link};
use crate::{
    light::IncludedBlock,
    protocol::{Inclusion, NodeInfo, NodeRequest, NodeResponse},
};

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
        shared.first(newest, |link| shared.channel_at(link, newest, id)).await
    }

    /// The same of at most [`CHANNELS_MAX`](crate::protocol::CHANNELS_MAX) channels, in this order, all at one milestone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn channels(
        &self,
        ids: &[ChannelId],
    ) -> Result<Proven<Vec<Option<ChannelRecord>>>, ClientError> {
        let shared = self.shared();
        let newest = shared.core().newest().index;
        shared.first(newest, |link| shared.channels_at(link, newest, ids)).await
    }

    /// A milestone, the newest if `None`, with valid signatures.
    ///
    /// # Errors
    /// [`ClientError::NoSuchMilestone`], also for milestone 0, which nobody signs, and the others.
    pub async fn milestone(&self, index: Option<u64>) -> Result<Milestone, ClientError> {
        let shared = self.shared();
        let least = index.unwrap_or(0).min(shared.core().newest().index);
        let found = shared.find(least, |link| shared.milestone_at(link, index)).await?;
        found.ok_or(ClientError::NoSuchMilestone(index))
    }

    /// What the best node says of itself. (Its word.)
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn info(&self) -> Result<NodeInfo, ClientError> {
        let shared = self.shared();
        shared.first(0, |link| shared.info_at(link)).await
    }

    /// A block, if a node has it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, id: BlockId) -> Result<Option<Block>, ClientError> {
        let shared = self.shared();
        shared.find(0, |link| shared.block_at(link, id)).await
    }

    /// A block and the milestone that confirmed it, which is proven; `None` if no node proves it. It does not
    /// say what became of a transaction in it: see [`NodeClient::transaction`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn inclusion(&self, id: BlockId) -> Result<Option<IncludedBlock>, ClientError> {
        let shared = self.shared();
        let found = shared.find(0, |link| async move { shared.proven_inclusion_at(&link, id).await }).await;
        Ok(found?.map(|(_, included)| included))
    }
}

impl Shared {
    /// `newest` is the newest milestone that was known when the call began.
    pub(super) async fn channel_at(
        &self,
        link: Link,
        newest: u64,
        id: ChannelId,
    ) -> Result<Proven<Option<ChannelRecord>>, ClientError> {
        let answer = self.ask(&link, &NodeRequest::Channel(id)).await?;
        let NodeResponse::Channel { milestone_index, record, proof } = answer else {
            return Err(self.unexpected(&link));
        };
        self.reach(&link, newest, milestone_index).await?;
        let checked = self.core().channel(id, milestone_index, record.as_deref(), &proof);
        self.judge(&link, checked)?;
        Ok(Proven { milestone_index, value: record.map(|record| *record) })
    }

    async fn channels_at(
        &self,
        link: Link,
        newest: u64,
        ids: &[ChannelId],
    ) -> Result<Proven<Vec<Option<ChannelRecord>>>, ClientError> {
        let NodeResponse::Records { milestone_index, records } =
            self.ask(&link, &NodeRequest::Records(ids.to_vec())).await?
        else {
            return Err(self.unexpected(&link));
        };
        if records.len() != ids.len() {
            return Err(self.unexpected(&link));
        }
        self.reach(&link, newest, milestone_index).await?;
        let mut value = Vec::with_capacity(records.len());
        for (id, (record, proof)) in ids.iter().zip(records) {
            let checked = self.core().channel(*id, milestone_index, record.as_ref(), &proof);
            self.judge(&link, checked)?;
            value.push(record);
        }
        Ok(Proven { milestone_index, value })
    }

    async fn milestone_at(&self, link: Link, index: Option<u64>) -> Result<Option<Milestone>, ClientError> {
        let NodeResponse::Milestone(answer) = self.ask(&link, &NodeRequest::Milestone(index)).await? else {
            return Err(self.unexpected(&link));
        };
        let Some(milestone) = answer.filter(|milestone| milestone.essence.index > 0) else { return Ok(None) };
        let checked = self.core().witness(&milestone);
        self.judge(&link, checked)?;
        if index.is_some_and(|index| index != milestone.essence.index) {
            return Err(self.unexpected(&link));
        }
        Ok(Some(*milestone))
    }

    async fn info_at(&self, link: Link) -> Result<NodeInfo, ClientError> {
        match self.ask(&link, &NodeRequest::Info).await? {
            NodeResponse::Info(info) if info.network == self.params.id() => Ok(info),
            NodeResponse::Info(info) => {
                let what = format!("it is a node of network {}", info.network);
                let error = ClientError::Malformed { node: link.node.clone(), what };
                self.blame(&link, &error);
                Err(error)
            }
            _ => Err(self.unexpected(&link)),
        }
    }

    async fn block_at(&self, link: Link, id: BlockId) -> Result<Option<Block>, ClientError> {
        let NodeResponse::Block(answer) = self.ask(&link, &NodeRequest::Block(id)).await? else {
            return Err(self.unexpected(&link));
        };
        let Some(bytes) = answer else { return Ok(None) };
        if Block::id_of(&bytes) != id {
            return Err(self.lied(&link, "a block with another id than asked for"));
        }
        let checked = Block::from_bytes(&bytes, self.params.pow_bits).map_err(Into::into);
        self.judge(&link, checked).map(Some)
    }

    /// Also with what proves it.
    pub(super) async fn proven_inclusion_at(
        &self,
        link: &Link,
        id: BlockId,
    ) -> Result<Option<(Inclusion, IncludedBlock)>, ClientError> {
        let NodeResponse::Inclusion(answer) = self.ask(link, &NodeRequest::Inclusion(id)).await? else {
            return Err(self.unexpected(link));
        };
        let Some(answer) = answer else { return Ok(None) };
        let Inclusion { block, milestone, path } = answer.as_ref();
        // Coordinators of later milestones are only known once these are followed.
        self.reach(link, 0, milestone.essence.index).await?;
        let checked = self.core().included(id, block, milestone, path);
        let included = self.judge(link, checked)?;
        Ok(Some((*answer, included)))
    }
}
