//! The engine over a store whose commits a test lets through.

use std::sync::{Mutex, mpsc as std_mpsc};

use flash_channel::{
    machine::Origin,
    store::{Durable, Entries, Entry, MemoryStore, Table},
};
use flash_proto::{
    Address, Amount, ChannelRecord, Essence, LaneState, NetworkId, Open, Payment, PaymentList, Reference,
    Side,
    message::{PauseReason, Update},
    record::Party,
    transaction::{Action, commit_inputs},
};

use super::*;

const NETWORK: NetworkId = NetworkId::new([9; 32]);

/// A store whose commits wait until the test lets them through.
struct GatedStore {
    inner: MemoryStore,
    began: mpsc::UnboundedSender<()>,
    gate: Mutex<std_mpsc::Receiver<()>>,
}

impl Store for GatedStore {
    fn commit(&self, batch: &Batch) -> Result<Durable, StoreError> {
        self.began.send(()).unwrap();
        // Gone at the end of the test: all is let through then.
        let _ = self.gate.lock().unwrap().recv();
        self.inner.commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, StoreError> {
        self.inner.scan(table, prefix, after, limit)
    }

    fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.inner.last(table, prefix)
    }
}

fn key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.pick(1, 2); 32])
}

fn agreement() -> Agreement {
    let party = |side: Side| {
        let key = key(side).public();
        Party { key, payout: Address::of(&key), deposit: Amount::new(1_000) }
    };
    let open = Open {
        party_a: party(Side::A),
        party_b: party(Side::B),
        contest_window_milestones: 10,
        expiry_milestone: 50,
    };
    let essence = Essence {
        network: NETWORK,
        inputs: Vec::new(),
        inputs_commitment: commit_inputs(&[]),
        outputs: Vec::new(),
        action: Action::Open(open),
    };
    Agreement {
        network: NETWORK,
        side: Side::A,
        peer: key(Side::B).public(),
        key_index: 0,
        origin: Origin::Agreed(Box::new(Transaction { essence, unlocks: Vec::new() })),
        open,
    }
}

fn started(store: Arc<dyn Store>, stop: &Stop) -> Started {
    let (log, _) = EventLog::open(&store).unwrap();
    start(EngineConfig {
        store,
        log,
        backup: None,
        keys: Arc::new(|_| key(Side::A)),
        milestone_interval_ms: 1_000,
        freshness_max: None,
        history: HistoryRule::default(),
        metrics: Metrics::default(),
        stop: stop.clone(),
    })
    .unwrap()
}

#[tokio::test]
async fn a_channel_is_listed_once_it_is_durable() {
    let (began, mut commits) = mpsc::unbounded_channel();
    let (let_through, gate) = std_mpsc::channel();
    let store = Arc::new(GatedStore { inner: MemoryStore::new(), began, gate: Mutex::new(gate) });
    let stop = Stop::default();
    let Started { engine, writer, views, threads, submissions } = started(store, &stop);
    let (id, added) = (agreement().channel(), views.added());

    let adding = tokio::spawn({
        let engine = engine.clone();
        async move { engine.add(agreement(), Batch::new(), 7).await }
    });
    commits.recv().await.unwrap();
    assert!(views.get(id).is_err() && views.live().is_empty(), "it is not on the disk yet");
    assert!(!added.has_changed().unwrap());
    let_through.send(()).unwrap();
    adding.await.unwrap().unwrap();
    assert!(added.has_changed().unwrap());
    assert_eq!((views.live(), views.get(id).unwrap().created_ms), (vec![id], 7));

    stop.stop();
    drop((engine, writer, submissions, let_through));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap())).await.unwrap();
}

/// A machine that slept wakes to all that came meanwhile. Nothing of it is taken by the view of before, though nobody
/// had the time to look at the age yet (§4.7).
#[tokio::test]
async fn what_came_while_the_machine_slept_is_not_taken_by_an_old_view() {
    const SLEPT: Duration = Duration::from_millis(60);
    let stop = Stop::default();
    let Started { engine, writer, views, threads, submissions } =
        started(Arc::new(MemoryStore::new()), &stop);
    let (id, open) = (agreement().channel(), agreement().open);
    engine.add(agreement(), Batch::new(), 7).await.unwrap();
    let half = Duration::from_millis(u64::from(open.contest_window_milestones) * 1_000 / 2);
    let view = LedgerView { index: 1, record: Some(ChannelRecord::opened(&open)), payouts: None };
    let (outbox, mut sent, _closed) = Outbox::new();
    let number = engine.linked(id, outbox).await.unwrap();
    engine.milestone(1, half.checked_sub(SLEPT).unwrap(), vec![(id, view)]).await.unwrap();
    let room = || Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
    let standing = loop {
        if let ChannelMessage::Reestablish(standing) = sent.recv().await.unwrap() {
            break standing;
        }
    };
    engine.message(id, number, ChannelMessage::Reestablish(standing), room()).await.unwrap();

    thread::sleep(SLEPT); // as the whole machine does
    let mut payments = PaymentList::new();
    payments.push(&Payment { amount: Amount::new(5), reference: Reference::new(b"r").unwrap() }).unwrap();
    let state = LaneState::new(id, Side::B).advance(&payments).unwrap();
    let signature = state.sign(NETWORK, &key(Side::B)).signature;
    let update = Update { seq: 1, cumulative: state.cumulative, payments, ticks: None, signature };
    engine.message(id, number, ChannelMessage::Update(update), room()).await.unwrap();
    let answer = loop {
        match sent.recv().await.unwrap() {
            ChannelMessage::Paused { reason, .. } => break Err(reason),
            ChannelMessage::Ack { seq } => break Ok(seq),
            _ => {}
        }
    };
    assert_eq!(answer, Err(PauseReason::StaleLedgerView));
    assert!(views.get(id).unwrap().info.received.cumulative.is_zero());

    stop.stop();
    drop((engine, writer, submissions));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap())).await.unwrap();
}
