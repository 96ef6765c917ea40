//! Putting many payloads into the Tangle at once: those that come while a request is under way share the next one.
//!
//! The blocks of a batch stand on the same tips, and the last ones tie the others together, so that a batch leaves as few
//! tips as it takes away. A payload that its nodes do not take at once goes its own way ([`NodeClient::submit`]), on
//! which a node that is to blame is found out.

use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use flash_proto::{
    Block, BlockId, Payload, codec,
    limits::{BLOCK_BYTES_MAX, PARENTS_MAX},
};
use futures_util::future::try_join_all;
use tokio::{sync::oneshot, time::timeout};
use tracing::debug;

use super::{
    ClientError, NodeClient, Shared,
    link::Link,
    lock,
    submit::{Attached, SUBMIT_NODES, search},
};
use crate::protocol::{BLOCKS_MAX, NodeRequest, NodeResponse};

/// What a block has beside its payload, and its place in a list.
const AROUND_BYTES: usize = 512;
/// A single payload may keep others waiting for so long.
const ALONE_MAX: Duration = Duration::from_millis(100);

const _: () = assert!(AROUND_BYTES > PARENTS_MAX * 32 + 64, "a batch fits a request");

/// Payloads that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Batches {
    queue: Mutex<Queue>,
    /// Held by whoever hands a batch over.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many have come.
    number: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    payload: Payload,
    bytes: usize,
    /// Told the block, or nothing if the payload has to go its own way.
    done: oneshot::Sender<Option<BlockId>>,
}

impl Batches {
    /// Queues a payload; its number, and where it is told of its block.
    fn queue(&self, payload: Payload) -> (u64, oneshot::Receiver<Option<BlockId>>) {
        let bytes = codec::encode(&payload).len().saturating_add(AROUND_BYTES);
        let (done, taken) = oneshot::channel();
        let mut queue = lock(&self.queue);
        queue.number = queue.number.wrapping_add(1);
        let number = queue.number;
        queue.waiting.push_back(Waiting { number, payload, bytes, done });
        (number, taken)
    }

    /// As many as fit one request of those for which somebody still waits, but at least one if there is any.
    fn next(&self) -> Vec<Waiting> {
        let (mut batch, mut left) = (Vec::new(), BLOCK_BYTES_MAX);
        let waiting = &mut lock(&self.queue).waiting;
        while batch.len() < BLOCKS_MAX
            && let Some(next) = waiting.pop_front()
        {
            if next.done.is_closed() {
                continue;
            }
            match left.checked_sub(next.bytes) {
                Some(rest) => left = rest,
                None if batch.is_empty() => left = 0,
                None => {
                    waiting.push_front(next);
                    break;
                }
            }
            batch.push(next);
        }
        batch
    }
}

impl NodeClient {
    /// Puts a payload into a block, does its proof of work and hands it to two nodes, if there are so many:
    /// one alone could keep it to itself. On return the block is on a node's disk, but no milestone has
    /// confirmed it yet. Payloads that come while others are handed over go together.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(&self, payload: Payload) -> Result<BlockId, ClientError> {
        let batches = &self.shared().batches;
        let (number, mut taken) = batches.queue(payload.clone());
        loop {
            let turn = tokio::select! {
                biased;
                told = &mut taken => return match told {
                    Ok(Some(block)) => Ok(block),
                    // Or whoever had taken it has given up.
                    Ok(None) | Err(_) => Box::pin(self.submit_alone(payload)).await,
                },
                turn = batches.turn.lock() => turn,
            };
            let batch = batches.next();
            if batch.first().is_some_and(|first| first.number == number) && batch.len() == 1 {
                let mut alone = Box::pin(self.submit_alone(payload));
                let submitted = timeout(ALONE_MAX, &mut alone).await;
                drop(turn);
                return match submitted {
                    Ok(submitted) => submitted,
                    Err(_) => alone.await,
                };
            }
            Box::pin(self.submit_batch(batch)).await;
        }
    }

    async fn submit_batch(&self, batch: Vec<Waiting>) {
        let (payloads, done): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.payload, waiting.done)).unzip();
        let count = payloads.len();
        let submitted = self.hand_over_all(payloads).await;
        let blocks = submitted.unwrap_or_else(|error| {
            debug!(%error, count, "each goes its own way");
            vec![None; count]
        });
        for (done, block) in done.into_iter().zip(blocks) {
            let _ = done.send(block);
        }
    }

    /// The blocks of payloads that two nodes have, or one if there is no more; nothing for each of the others.
    async fn hand_over_all(&self, payloads: Vec<Payload>) -> Result<Vec<Option<BlockId>>, ClientError> {
        let shared = self.shared();
        let links = shared.links(0, &[]).await?;
        let Some(first) = links.first() else { return Err(ClientError::Unreachable) };
        let attached = self.attach_all(first, payloads).await?;
        let mut blocks: Vec<Option<BlockId>> = attached.iter().map(|attached| Some(attached.id)).collect();
        let bytes: Vec<Vec<u8>> = attached.into_iter().map(|attached| attached.bytes).collect();
        for link in links.iter().take(SUBMIT_NODES) {
            let taken = shared.submit_all_at(link, bytes.clone()).await?;
            for (block, taken) in blocks.iter_mut().zip(taken) {
                *block = block.filter(|_| taken);
            }
        }
        Ok(blocks)
    }

    /// Makes a block for each payload on the tips that a node gives; the last of them stand on the others.
    async fn attach_all(
        &self,
        link: &Link,
        mut payloads: Vec<Payload>,
    ) -> Result<Vec<Attached>, ClientError> {
        let tips = self.shared().tips_at(link).await?;
        let tied = payloads.len() / PARENTS_MAX;
        let tying = payloads.split_off(payloads.len().saturating_sub(tied));
        let mut blocks: Vec<Block> =
            payloads.into_iter().map(|payload| Block::new(tips.clone(), payload)).collect();
        let half = blocks.split_off(blocks.len() / 2);
        let halves = try_join_all([self.worked_all(blocks), self.worked_all(half)]).await?;
        let mut attached = halves.concat();
        if tying.is_empty() {
            return Ok(attached);
        }
        let pow_bits = self.shared().params.pow_bits;
        let mut heads: VecDeque<BlockId> = attached.iter().map(|attached| attached.id).collect();
        let tied = self.on_a_thread(move |stopped| {
            let mut tied = Vec::with_capacity(tying.len());
            for payload in tying {
                let parents = heads.drain(..heads.len().min(PARENTS_MAX)).collect();
                let block = search(Block::new(parents, payload), pow_bits, stopped)?;
                heads.push_back(block.id);
                tied.push(block);
            }
            Some(tied)
        });
        attached.extend(tied.await?);
        Ok(attached)
    }

    async fn worked_all(&self, blocks: Vec<Block>) -> Result<Vec<Attached>, ClientError> {
        let pow_bits = self.shared().params.pow_bits;
        let search_all = move |stopped: &AtomicBool| {
            blocks.into_iter().map(|block| search(block, pow_bits, stopped)).collect()
        };
        self.on_a_thread(search_all).await
    }
}

impl Shared {
    /// Gives a node blocks, of which later ones may approve earlier ones; which of them it has then.
    async fn submit_all_at(&self, link: &Link, blocks: Vec<Vec<u8>>) -> Result<Vec<bool>, ClientError> {
        let count = blocks.len();
        match self.ask(link, &NodeRequest::SubmitAll(blocks)).await? {
            NodeResponse::SubmittedAll(answers) if answers.len() == count => {
                Ok(answers.into_iter().map(|refused| refused.is_none()).collect())
            }
            _ => Err(self.unexpected(link)),
        }
    }
}
