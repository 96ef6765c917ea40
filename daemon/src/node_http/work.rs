//! Proof of work done for others: one block at a time, and stopped when told to.

use std::sync::{Arc, Mutex, PoisonError};

use flash_proto::{Block, block::Work};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Hashes between two looks at whether the work is still wanted: some milliseconds.
const TRIES_AT_A_TIME: u64 = 10_000;
/// Blocks that may wait for their work.
const WAITING_MAX: usize = 16;

/// Why a block got no proof of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum WorkError {
    /// Somebody stopped it.
    #[error("the proof of work was interrupted")]
    Interrupted,
    /// No nonce makes so many bits.
    #[error("no nonce gives the block a proof of work of so many bits; attach it to other blocks")]
    Exhausted,
    /// Too many wait already.
    #[error("{WAITING_MAX} blocks wait for their proof of work already; try again later")]
    Busy,
}

/// Where proof of work is done.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Taken while a block is worked on.
    turn: Arc<Semaphore>,
    /// Taken while a block waits or is worked on.
    places: Semaphore,
    /// Stops everything for good.
    closing: CancellationToken,
    /// Stops all that was ordered until now.
    stop: Mutex<CancellationToken>,
}

/// The right to have blocks worked on until somebody interrupts.
#[derive(Debug)]
pub(super) struct Order(CancellationToken);

impl Workshop {
    /// A workshop that is open until `closing` is cancelled.
    pub(super) fn new(closing: CancellationToken) -> Self {
        let stop = Mutex::new(closing.child_token());
        Self { turn: Arc::new(Semaphore::new(1)), places: Semaphore::new(WAITING_MAX), closing, stop }
    }

    /// Begins an order; every [`Workshop::interrupt`] from here on ends it.
    pub(super) fn order(&self) -> Order {
        Order(self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Stops all work that is under way or waits.
    pub(super) fn interrupt(&self) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *stop, self.closing.child_token()).cancel();
    }

    /// Finds a nonce that gives `block` at least `bits` bits of work. Stops with the future.
    pub(super) async fn work(&self, order: &Order, mut block: Block, bits: u8) -> Result<Block, WorkError> {
        let _place = self.places.try_acquire().map_err(|_| WorkError::Busy)?;
        let stop = order.0.child_token();
        let turn = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(WorkError::Interrupted),
            turn = Arc::clone(&self.turn).acquire_owned() => turn.map_err(|_| WorkError::Interrupted)?,
        };
        let _stop_with_the_future = stop.clone().drop_guard();
        let bytes = block.to_bytes();
        let search = move || {
            let _turn = turn;
            let work = Work::of(&bytes);
            let mut start = 0_u64;
            while !stop.is_cancelled() {
                if let Some(nonce) = work.search(bits, start, TRIES_AT_A_TIME) {
                    return Ok(nonce);
                }
                start = start.checked_add(TRIES_AT_A_TIME).ok_or(WorkError::Exhausted)?;
            }
            Err(WorkError::Interrupted)
        };
        let found = tokio::task::spawn_blocking(search).await;
        block.nonce = found.unwrap_or(Err(WorkError::Interrupted))?;
        Ok(block)
    }
}
