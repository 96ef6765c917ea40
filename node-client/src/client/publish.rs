//! Data on the ledger, and evidence of it that outlives any node.

use std::collections::VecDeque;

use flash_proto::{BlockId, Payload, block::Data};
use tracing::debug;

use super::{
    ClientError, NodeClient,
    submit::{PENDING_MILESTONES_MAX, retryable, wait},
};
use crate::light::evidence::Evidence;

/// Blocks with the same data that may wait for a milestone; the oldest are given up.
const BLOCKS_MAX: usize = 8;

impl NodeClient {
    /// Puts data into the Tangle and sees it through: again in a fresh block if no milestone confirms it, until
    /// one has. Waits for as long as no node can be reached; drop the future to give up.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if a node refuses the data, [`ClientError::BlockTooLarge`],
    /// [`ClientError::Halted`].
    pub async fn publish(&self, data: Data) -> Result<Evidence, ClientError> {
        let mut view = self.view();
        let mut blocks: VecDeque<BlockId> = VecDeque::new();
        // The newest milestone when the data was last put into a block.
        let mut attached = 0;
        loop {
            view.mark_unchanged();
            for block in &blocks {
                if let Some(Some(evidence)) = retryable(self.evidence(*block).await)? {
                    return Ok(evidence);
                }
            }
            let newest = self.newest().index;
            let overdue = newest.saturating_sub(attached) >= PENDING_MILESTONES_MAX;
            if overdue && !blocks.is_empty() {
                // Perhaps the node keeps it to itself: the next one gets it, too.
                self.leave_node_of(attached);
            }
            if (overdue || blocks.is_empty())
                && let Some(block) = retryable(self.submit(Payload::Data(data.clone())).await)?
            {
                debug!(%block, "published");
                if blocks.len() == BLOCKS_MAX {
                    blocks.pop_front();
                }
                blocks.push_back(block);
                attached = newest;
            }
            wait(&mut view).await;
        }
    }

    /// What proves to everybody that a milestone confirmed this block; `None` if the node does not prove it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn evidence(&self, block: BlockId) -> Result<Option<Evidence>, ClientError> {
        let shared = self.shared();
        let found =
            shared.find(0, |link| async move { shared.proven_inclusion_at(&link, block).await }).await?;
        let Some((inclusion, _)) = found else { return Ok(None) };
        let before = inclusion.milestone.essence.index;
        let indices = shared.core().hand_overs();
        let mut hand_overs = Vec::new();
        for index in indices.into_iter().filter(|index| *index < before) {
            hand_overs.push(self.milestone(Some(index)).await?);
        }
        Ok(Some(Evidence::new(inclusion, hand_overs)))
    }
}
