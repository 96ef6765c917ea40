//! Putting something into the Tangle and seeing it through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flash_proto::{
    Block, BlockId, Payload, Transaction, TransactionId,
    block::Work,
    limits::{BLOCK_BYTES_MAX, PARENTS_MAX},
};
use tokio::{sync::watch, time::timeout};
use tracing::debug;

use super::{ClientError, NodeClient, TransactionStatus, View};
use crate::protocol::{NodeRequest, NodeResponse};

/// Hashes between two looks at whether the work is still wanted: some milliseconds.
const TRIES_AT_A_TIME: u64 = 10_000;
/// A transaction that stays pending for so many milestones gets another block.
pub(super) const PENDING_MILESTONES_MAX: u64 = 5;
/// How long to wait for a milestone before the node is asked again anyway.
const POLL: Duration = Duration::from_secs(5);

/// Where a transaction was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The milestone that applied it.
    pub milestone_index: u64,
    /// The block that carried it.
    pub block: BlockId,
}

/// Stops the work when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl NodeClient {
    /// Puts a payload into a block, does its proof of work and hands it to the node. On return the block
    /// is on the node's disk, but no milestone has confirmed it yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(&self, payload: Payload) -> Result<BlockId, ClientError> {
        let shared = self.shared();
        let link = shared.link().await?;
        let NodeResponse::Tips(tips) = shared.ask(&link, &NodeRequest::Tips).await? else {
            return Err(shared.unexpected(&link));
        };
        let mut block = Block::new(tips, payload);
        if !(1..=PARENTS_MAX).contains(&block.parents.len()) {
            return Err(shared.unexpected(&link));
        }
        let bytes = block.to_bytes();
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(ClientError::BlockTooLarge { got: bytes.len() });
        }
        block.nonce = self.work(bytes).await?;
        let bytes = block.to_bytes();
        let id = Block::id_of(&bytes);
        match shared.ask(&link, &NodeRequest::Submit(bytes)).await? {
            NodeResponse::Submitted(got) if got == id => Ok(id),
            _ => Err(shared.unexpected(&link)),
        }
    }

    /// The proof of work, on a thread of its own.
    async fn work(&self, bytes: Vec<u8>) -> Result<u64, ClientError> {
        let permit = Arc::clone(&self.shared().work).acquire_owned().await.map_err(|_| ClientError::Work)?;
        let pow_bits = self.shared().params.pow_bits;
        let stop = StopOnDrop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let search = move || {
            let _permit = permit;
            let work = Work::of(&bytes);
            let mut start = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                if let Some(nonce) = work.search(pow_bits, start, TRIES_AT_A_TIME) {
                    return Some(nonce);
                }
                start = start.checked_add(TRIES_AT_A_TIME)?;
            }
            None
        };
        tokio::task::spawn_blocking(search).await.ok().flatten().ok_or(ClientError::Work)
    }

    /// Sees a transaction through: submits it, again in a fresh block if the node has forgotten it or no
    /// milestone confirms it, until it is proven to be applied. Finds out at once if it was applied
    /// before. Waits for as long as no node can be reached; drop the future to give up.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the ledger does not apply it, [`ClientError::Deadline`] if milestone
    /// `deadline` passed without it, [`ClientError::Refused`] if it is no valid transaction, and
    /// [`ClientError::Halted`].
    pub async fn submit_and_wait(
        &self,
        transaction: Transaction,
        deadline: Option<u64>,
    ) -> Result<Applied, ClientError> {
        let id = transaction.id();
        let mut view = self.view();
        // The newest milestone when the transaction was last put into a block.
        let mut attached: Option<u64> = None;
        loop {
            view.mark_unchanged();
            let newest = self.newest().index;
            let late = deadline.filter(|deadline| *deadline < newest);
            let again = match retryable(self.transaction(id).await)? {
                Some(TransactionStatus::Applied { milestone_index, block, .. }) => {
                    return Ok(Applied { milestone_index, block });
                }
                // What an earlier attempt met may be otherwise now, so only this one's counts.
                Some(TransactionStatus::Rejected { milestone_index, conflict }) => {
                    if attached.is_some_and(|attached| milestone_index > attached) {
                        return Err(ClientError::Rejected { transaction: id, milestone_index, conflict });
                    }
                    attached.is_none()
                }
                Some(TransactionStatus::Unknown) => true,
                Some(TransactionStatus::Pending { .. }) => {
                    let since = *attached.get_or_insert(newest);
                    let overdue = newest.saturating_sub(since) >= PENDING_MILESTONES_MAX;
                    if overdue {
                        // Perhaps the node keeps it to itself: the next one gets it, too.
                        self.leave_node();
                    }
                    overdue
                }
                None => {
                    wait(&mut view).await;
                    continue;
                }
            };
            if let Some(deadline) = late {
                return Err(ClientError::Deadline { transaction: id, deadline });
            }
            if again && let Some(at) = self.attach(id, &transaction).await? {
                attached = Some(at);
            }
            wait(&mut view).await;
        }
    }

    /// Puts the transaction into a block; the newest milestone before that, or `None` if it is worth
    /// another try.
    async fn attach(&self, id: TransactionId, transaction: &Transaction) -> Result<Option<u64>, ClientError> {
        let newest = self.newest().index;
        let payload = Payload::Transaction(Box::new(transaction.clone()));
        let block = retryable(self.submit(payload).await)?;
        debug!(transaction = %id, ?block, "submitted");
        Ok(block.map(|_| newest))
    }
}

/// `None` for an error that may pass.
pub(super) fn retryable<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_retryable() => {
            debug!(%error, "tried again later");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Waits for news, but not for ever.
pub(super) async fn wait(view: &mut watch::Receiver<View>) {
    // The sender lives as long as the client; after a timeout the node is simply asked again.
    let _ = timeout(POLL, view.changed()).await;
}
