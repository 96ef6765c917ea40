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
    limits::{BLOCK_BYTES_MAX, PARENTS_MAX, POW_BITS_MAX},
};
use tokio::{sync::watch, time::timeout};
use tracing::debug;

use super::{ClientError, NodeClient, Shared, TransactionStatus, View, link::Link};
use crate::{
    ledger::Checked,
    protocol::{NodeRequest, NodeResponse, RefusedCode},
};

/// Hashes between two looks at whether the work is still wanted: some milliseconds.
const TRIES_AT_A_TIME: u64 = 10_000;
/// Nodes that get each block.
pub(super) const SUBMIT_NODES: usize = 2;
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

/// A block with its proof of work.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) id: BlockId,
    block: Block,
    pub(super) bytes: Vec<u8>,
    /// What its work was done for.
    pow_bits: u8,
}

/// Stops the work when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl NodeClient {
    /// [`NodeClient::submit`] of one payload by itself.
    pub(super) async fn submit_alone(&self, payload: Payload) -> Result<BlockId, ClientError> {
        let shared = self.shared();
        let (mut tried, mut failed) = (Vec::new(), None);
        let mut taken: Option<(Link, Attached)> = None;
        let mut handed = 0_usize;
        while handed < SUBMIT_NODES {
            let links = if taken.is_some() {
                Ok(shared.nodes.borrow().links(0, &tried))
            } else {
                shared.links(0, &tried).await
            };
            let link = match links.map(|links| links.into_iter().next()) {
                Ok(Some(link)) => link,
                Ok(None) => break,
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            tried.push(link.node.key);
            match self.hand_over(&link, &payload, &mut taken).await {
                Ok(()) => handed = handed.saturating_add(1),
                Err(error) if error.is_of_node() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        let unreachable = || failed.unwrap_or(ClientError::Unreachable);
        taken.map(|(_, attached)| attached.id).ok_or_else(unreachable)
    }

    /// Gives a node the block that another one has `taken`, or, if there is none or it does not know what
    /// that one approves, a block on tips of its own.
    async fn hand_over(
        &self,
        link: &Link,
        payload: &Payload,
        taken: &mut Option<(Link, Attached)>,
    ) -> Result<(), ClientError> {
        let shared = self.shared();
        if let Some((other, mut attached)) = taken.clone() {
            match self.submit_with_work(link, &mut attached).await {
                Err(ClientError::Refused { code: RefusedCode::UnknownParent, .. }) => {
                    if let Err(error) = shared.check_tips(&other, &attached).await {
                        debug!(%error, "the block is made anew");
                        *taken = None;
                    }
                }
                handed => return handed,
            }
        }
        let mut attached = self.attach_at(link, payload.clone()).await?;
        self.submit_with_work(link, &mut attached).await?;
        taken.get_or_insert((link.clone(), attached));
        Ok(())
    }

    /// Makes a block on the tips that a node gives.
    async fn attach_at(&self, link: &Link, payload: Payload) -> Result<Attached, ClientError> {
        let shared = self.shared();
        let block = Block::new(shared.tips_at(link).await?, payload);
        let got = block.to_bytes().len();
        if got > BLOCK_BYTES_MAX {
            return Err(ClientError::BlockTooLarge { got });
        }
        self.worked(block, shared.params.pow_bits).await
    }

    async fn worked(&self, block: Block, pow_bits: u8) -> Result<Attached, ClientError> {
        self.on_a_thread(move |stopped| search(block, pow_bits, stopped)).await
    }

    /// Gives a node a block, with more work if the node is flooded and asks for it, but for no more than can
    /// be done.
    async fn submit_with_work(&self, link: &Link, attached: &mut Attached) -> Result<(), ClientError> {
        loop {
            match self.shared().submit_at(link, attached).await {
                Err(ClientError::Refused { code: RefusedCode::MoreWork { bits }, .. })
                    if (attached.pow_bits.saturating_add(1)..=POW_BITS_MAX).contains(&bits) =>
                {
                    *attached = self.worked(attached.block.clone(), bits).await?;
                }
                done => return done,
            }
        }
    }

    /// Does proofs of work on a thread of its own, until nobody waits for them any more.
    pub(super) async fn on_a_thread<T: Send + 'static>(
        &self,
        search: impl FnOnce(&AtomicBool) -> Option<T> + Send + 'static,
    ) -> Result<T, ClientError> {
        let permit = Arc::clone(&self.shared().work).acquire_owned().await.map_err(|_| ClientError::Work)?;
        let stop = StopOnDrop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let search = move || {
            let _permit = permit;
            search(&stopped)
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
        self.see_through(transaction, deadline, None).await
    }

    /// The same of a transaction that was submitted already, when milestone `attached` was the newest.
    ///
    /// # Errors
    /// As [`NodeClient::submit_and_wait`].
    pub async fn see_through(
        &self,
        transaction: Transaction,
        deadline: Option<u64>,
        mut attached: Option<u64>,
    ) -> Result<Applied, ClientError> {
        let id = transaction.id();
        let mut view = self.view();
        // `attached` is the newest milestone when the transaction was last put into a block.
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
                        // Perhaps the nodes keep it to themselves: another one gets it, too.
                        self.leave_node_of(since);
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

/// A block with its proof of work, unless that is `stopped`.
pub(super) fn search(mut block: Block, pow_bits: u8, stopped: &AtomicBool) -> Option<Attached> {
    let mut bytes = block.to_bytes();
    let (work, mut start) = (Work::of(&bytes), 0_u64);
    while !stopped.load(Ordering::Relaxed) {
        if let Some(nonce) = work.search(pow_bits, start, TRIES_AT_A_TIME) {
            block.nonce = nonce;
            bytes = block.to_bytes();
            return Some(Attached { id: Block::id_of(&bytes), block, bytes, pow_bits });
        }
        start = start.checked_add(TRIES_AT_A_TIME)?;
    }
    None
}

impl Shared {
    /// Blocks to approve, as a node gives them.
    pub(super) async fn tips_at(&self, link: &Link) -> Result<Vec<BlockId>, ClientError> {
        match self.ask(link, &NodeRequest::Tips).await? {
            NodeResponse::Tips(mut tips) => {
                tips.sort_unstable();
                tips.dedup();
                if (1..=PARENTS_MAX).contains(&tips.len()) { Ok(tips) } else { Err(self.unexpected(link)) }
            }
            _ => Err(self.unexpected(link)),
        }
    }

    /// Gives a node a block.
    async fn submit_at(&self, link: &Link, attached: &Attached) -> Result<(), ClientError> {
        match self.ask(link, &NodeRequest::Submit(attached.bytes.clone())).await {
            Ok(NodeResponse::Submitted(id)) if id == attached.id => Ok(()),
            Ok(NodeResponse::Submitted(_)) => Err(self.lied(link, "it says that it took another block")),
            Ok(_) => Err(self.unexpected(link)),
            // Whether a block is valid depends on nothing but its bytes.
            Err(ClientError::Refused { code: RefusedCode::InvalidBlock, reason, .. })
                if self.is_valid(&attached.bytes) =>
            {
                Err(self.lied(link, format!("it calls a valid block invalid: {reason}")))
            }
            Err(error) => Err(error),
        }
    }

    fn is_valid(&self, bytes: &[u8]) -> bool {
        match Block::from_bytes(bytes, self.params.pow_bits).map(|block| block.payload) {
            Ok(Payload::Transaction(transaction)) => Checked::new(*transaction, &self.params).is_ok(),
            Ok(Payload::Milestone(_)) | Err(_) => false,
            Ok(Payload::Empty | Payload::Data(_)) => true,
        }
    }

    /// Whether a node has the blocks that it gave as tips: one that another node does not know.
    async fn check_tips(&self, link: &Link, attached: &Attached) -> Result<(), ClientError> {
        for tip in attached.block.parents.iter().filter(|tip| **tip != self.params.genesis_block()) {
            match self.ask(link, &NodeRequest::Block(*tip)).await? {
                NodeResponse::Block(Some(bytes)) if Block::id_of(&bytes) == *tip => {}
                NodeResponse::Block(_) => {
                    return Err(self.lied(link, format!("it gave tip {tip}, which it does not have")));
                }
                _ => return Err(self.unexpected(link)),
            }
        }
        Ok(())
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
