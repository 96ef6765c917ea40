//! Bulk: what takes as long as a hundred small inputs, lists of thousands of payments that are hashed, is worked on beside
//! the engine, by threads of its own: a channel that is saturated must not keep the rest waiting. A channel goes there
//! whole, and is back when it is done.

use std::{
    num::NonZero,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use flash_channel::{machine::Misbehaviour, store::Store};
use flash_proto::message::ChannelMessage;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    Order, Views,
    run::{Timing, Tip},
    slot::Slot,
    writer::{FailOnPanic, Job},
};
use crate::stop::Stop;

/// What takes long.
#[derive(Debug)]
pub(super) enum Bulk {
    /// A message of the peer, of the stream with this number.
    Message { number: u64, message: ChannelMessage, room: OwnedSemaphorePermit },
    /// Payments that somebody asked for.
    Pay(Order),
    /// Payments that wait to be signed.
    Sign,
}

/// A channel that is sent away with what is to be done.
pub(super) struct Work {
    pub(super) slot: Box<Slot>,
    pub(super) bulk: Bulk,
    /// The newest milestone that was told of. It may grow old before the work is begun.
    pub(super) tip: Option<Tip>,
}

/// A channel that comes back.
pub(super) struct Worked {
    pub(super) slot: Box<Slot>,
    /// What it has for the writer.
    pub(super) job: Option<Job>,
    pub(super) result: Result<(), Misbehaviour>,
}

/// What all of the threads have.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) views: Views,
    pub(super) timing: Timing,
    pub(super) stop: Stop,
}

/// Where work is brought, and comes back from, and the threads, which end when nobody brings work any more.
pub(super) struct Workers {
    pub(super) work: std_mpsc::Sender<Work>,
    pub(super) worked: mpsc::UnboundedReceiver<Worked>,
    pub(super) threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(shared: Shared) -> std::io::Result<Self> {
        let (work, waiting) = std_mpsc::channel();
        let (back, worked) = mpsc::unbounded_channel();
        let (shared, waiting) = (Arc::new(shared), Arc::new(Mutex::new(waiting)));
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let mut threads = Vec::with_capacity(count);
        for _ in 0..count {
            let (shared, waiting, back) = (Arc::clone(&shared), Arc::clone(&waiting), back.clone());
            let run = move || {
                let guard = FailOnPanic(shared.stop.clone());
                shared.run(&waiting, &back);
                drop(guard);
            };
            threads.push(thread::Builder::new().name("flash-bulk".to_owned()).spawn(run)?);
        }
        Ok(Self { work, worked, threads })
    }
}

impl Shared {
    fn run(&self, waiting: &Mutex<std_mpsc::Receiver<Work>>, back: &mpsc::UnboundedSender<Worked>) {
        loop {
            let work = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(work) = work else { return };
            if back.send(self.done(work)).is_err() {
                return;
            }
        }
    }

    pub(super) fn done(&self, work: Work) -> Worked {
        let Work { mut slot, bulk, tip } = work;
        if slot.is_live() {
            slot.freshness(tip.as_ref().map(Tip::age), &self.timing);
        }
        let result = match bulk {
            Bulk::Message { number, message, room } => slot.message(number, message, room),
            Bulk::Pay(order) => {
                slot.pay(order, self.store.as_ref());
                Ok(())
            }
            Bulk::Sign => Ok(()),
        };
        let job = if slot.dirty && !slot.committing { slot.job(&self.views) } else { None };
        Worked { slot, job, result }
    }
}
