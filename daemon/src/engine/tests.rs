//! The engine over a store whose commits a test lets through.

mod order;
mod rest;

use std::sync::{Mutex, mpsc as std_mpsc};

use flash_channel::{
    Channel,
    machine::{Effects, Origin},
    store::{Barrier, Durable, Entries, Entry, MemoryStore, Table},
};
use flash_proto::{
    Address, Amount, ChannelRecord, Essence, LaneState, NetworkId, Open, Payment, PaymentList, Reference,
    Side,
    message::{PauseReason, Update},
    record::Party,
    transaction::{Action, commit_inputs},
};

use super::{
    records::Records,
    slot::Slot,
    view::Publication,
    writer::{Afterwards, Job},
    *,
};
use crate::api::LaneInfo;

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

/// Another channel for each index.
fn agreement(key_index: u32) -> Agreement {
    agreement_with(key_index, 10)
}

fn agreement_with(key_index: u32, contest_window_milestones: u32) -> Agreement {
    let party = |side: Side| {
        let key = key(side).public();
        Party { key, payout: Address::of(&key), deposit: Amount::new(1_000_000) }
    };
    let open = Open {
        party_a: party(Side::A),
        party_b: party(Side::B),
        contest_window_milestones,
        expiry_milestone: 50 + u64::from(key_index),
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
        key_index,
        origin: Origin::Agreed(Box::new(Transaction { essence, unlocks: Vec::new() })),
        open,
    }
}

/// What a message of the peer takes of its share.
fn room() -> OwnedSemaphorePermit {
    Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap()
}

fn started(store: Arc<dyn Store>, keys: ChannelKeys, stop: &Stop) -> Started {
    let (log, _) = EventLog::open(&store).unwrap();
    start(EngineConfig {
        store,
        log,
        backup: None,
        keys,
        milestone_interval_ms: 1_000,
        freshness_max: None,
        history: HistoryRule::default(),
        rests: true,
        metrics: Metrics::default(),
        stop: stop.clone(),
    })
    .unwrap()
}

/// Nobody looks at all channels to know how many there are with a peer, and how many it has only proposed.
#[tokio::test]
async fn channels_are_counted_from_their_listing_to_their_end() {
    let stop = Stop::default();
    let Started { engine, writer, views, threads, submissions } =
        started(Arc::new(MemoryStore::new()), Arc::new(|_| key(Side::B)), &stop);
    let (peer, other) = (key(Side::A).public(), key(Side::B).public());
    let counts = || (views.live_with(&peer), views.proposed());
    assert_eq!(counts(), (0, 0));
    let proposed = |index| Agreement { side: Side::B, peer, ..agreement(index) };
    let [opened, lapsed] = [0, 1].map(|index| proposed(index).channel());
    for index in [0, 1] {
        engine.add(proposed(index), key(Side::B), Batch::new(), 0).await.unwrap();
    }
    let mut looked = Looked::default();
    assert_eq!(counts(), (2, 2));
    assert_eq!(views.new_with(&peer, &mut looked).len(), 2);
    assert_eq!((views.live_with(&other), views.new_with(&other, &mut Looked::default())), (0, vec![]));

    let shown = |id, state: &'static str| {
        let mut view = views.follow(id).unwrap();
        async move { drop(view.wait_for(|view| view.info.state == state).await.unwrap()) }
    };
    let record = Some(ChannelRecord::opened(&agreement(0).open));
    let open = LedgerView { index: 1, record, payouts: None };
    engine.milestone(1, Duration::ZERO, vec![(opened, open)]).await.unwrap();
    shown(opened, "open").await;
    assert_eq!(counts(), (2, 1));
    let past = agreement(1).open.expiry_milestone + 1;
    let gone = LedgerView { index: past, record: None, payouts: None };
    engine.milestone(past, Duration::ZERO, vec![(lapsed, gone)]).await.unwrap();
    shown(lapsed, "lapsed").await;
    assert_eq!(counts(), (1, 0));
    // Nothing is new, unless some peer is another machine: then all that live are looked at.
    assert_eq!(views.new_with(&peer, &mut looked), []);
    views.moved();
    assert_eq!(views.new_with(&peer, &mut looked), [(opened, Side::B)]);
    stop.stop();
    drop((engine, writer, submissions));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_channel_is_listed_once_it_is_durable() {
    let (began, mut commits) = mpsc::unbounded_channel();
    let (let_through, gate) = std_mpsc::channel();
    let store = Arc::new(GatedStore { inner: MemoryStore::new(), began, gate: Mutex::new(gate) });
    let stop = Stop::default();
    let Started { engine, writer, views, threads, submissions } =
        started(store, Arc::new(|_| key(Side::A)), &stop);
    let (id, added) = (agreement(0).channel(), views.added());

    let adding = tokio::spawn({
        let engine = engine.clone();
        async move { engine.add(agreement(0), key(Side::A), Batch::new(), 7).await }
    });
    commits.recv().await.unwrap();
    assert!(views.get(id).is_err() && views.live().is_empty(), "it is not on the disk yet");
    assert!(!added.has_changed().unwrap());
    let_through.send(()).unwrap();
    adding.await.unwrap().unwrap();
    assert!(added.has_changed().unwrap());
    assert_eq!((views.live(), views.get(id).unwrap().info.created_ms), (vec![id], 7));

    stop.stop();
    drop((engine, writer, submissions, let_through));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap())).await.unwrap();
}

/// What waits for the disk together with thousands of payments of another channel does not wait for them.
#[tokio::test]
async fn small_jobs_are_on_the_disk_before_bulk() {
    let (began, mut commits) = mpsc::unbounded_channel();
    let (let_through, gate) = std_mpsc::channel();
    let store: Arc<dyn Store> =
        Arc::new(GatedStore { inner: MemoryStore::new(), began, gate: Mutex::new(gate) });
    let (log, _) = EventLog::open(&store).unwrap();
    let outlets =
        writer::Outlets { submissions: mpsc::unbounded_channel().0, durable: mpsc::unbounded_channel().0 };
    let (writer, thread) =
        Writer::start(store, log, None, outlets, Metrics::default(), Stop::default()).unwrap();
    let job = |key: u8, bulk| {
        let mut batch = Batch::new();
        batch.put(Table::small(1, "test"), &[key], Vec::new());
        let (reply, done) = oneshot::channel();
        let after = Barrier::new(Afterwards { replies: vec![reply], ..Afterwards::default() });
        (Job { batch, events: Vec::new(), bulk, after }, done)
    };
    let [(first, first_done), (bulk, mut bulk_done), (small, small_done)] =
        [(1, false), (2, true), (3, false)].map(|(key, bulk)| job(key, bulk));
    writer.bring(vec![first]).await.unwrap();
    commits.recv().await.unwrap();
    writer.bring(vec![bulk, small]).await.unwrap();
    for done in [first_done, small_done] {
        let_through.send(()).unwrap();
        done.await.unwrap();
    }
    assert!(bulk_done.try_recv().is_err(), "it is a commit of its own");
    let_through.send(()).unwrap();
    bulk_done.await.unwrap();

    drop((writer, let_through));
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}

/// A payer's channel in the engine, driven by hand: it is open, and knows where its peer stands.
struct Payer {
    slot: Slot,
    store: MemoryStore,
    views: Views,
    _sent: Waiting,
}

impl Payer {
    fn new() -> Self {
        let (store, agreement) = (MemoryStore::new(), agreement(0));
        let records = Records {
            store: Arc::new(store.reopen()),
            keys: Arc::new(|_| key(Side::A)),
            history: HistoryRule::default(),
            stop: Stop::default(),
        };
        let mut effects = Effects::default();
        let channel = Channel::new(agreement.clone(), key(Side::A), &mut effects);
        let mut slot = Slot::new(channel, effects, 7);
        let (outbox, sent, _) = Outbox::new();
        slot.link(1, outbox);
        let record = Some(ChannelRecord::opened(&agreement.open));
        slot.milestone(1, Some(LedgerView { index: 1, record, payouts: None }));
        slot.freshness(Some(Duration::ZERO), &Timing { milestone_interval_ms: 1_000, freshness_max: None });
        let mut payer = Self { slot, store, views: Views::new(records), _sent: sent };
        let said = payer.commit();
        let standing = said.into_iter().find(|it| matches!(it, ChannelMessage::Reestablish(_))).unwrap();
        payer.slot.durable(&payer.store).unwrap();
        payer.hear(standing);
        payer
    }

    fn hear(&mut self, message: ChannelMessage) {
        self.slot.message(1, message, room()).unwrap();
    }

    /// The next job comes to the disk, which the engine is not told yet: what is sent then.
    fn commit(&mut self) -> Vec<ChannelMessage> {
        let Job { batch, after, .. } = self.slot.job(&self.views).unwrap();
        let after = after.open(&self.store.commit(&batch).unwrap());
        after.publications.into_iter().for_each(Publication::publish);
        after.sends.into_iter().map(|(_, message)| message).collect()
    }

    /// The numbers of the updates that the next job sends.
    fn updates(&mut self) -> Vec<u64> {
        let seq = |message| match message {
            ChannelMessage::Update(update) => Some(update.seq),
            _ => None,
        };
        self.commit().into_iter().filter_map(seq).collect()
    }

    fn pay(&mut self, count: u64) -> oneshot::Receiver<Result<(), ApiError>> {
        let mut payments = PaymentList::new();
        for _ in 0..count {
            payments.push(&Payment { amount: Amount::new(1), reference: Reference::default() }).unwrap();
        }
        let ((queued, _), (acknowledged, told)) = (oneshot::channel(), oneshot::channel());
        let order = Order { pays: Pays::All(payments), callers: Callers { queued, acknowledged } };
        self.slot.pay(order, &self.store);
        told
    }

    fn shown(&self) -> LaneInfo {
        self.views.get(agreement(0).channel()).unwrap().info.sent
    }
}

/// A lane is not idle while an update of it syncs: what fills others is signed meanwhile, and goes out with the next job.
#[tokio::test]
async fn large_updates_are_signed_while_the_one_before_syncs() {
    let mut payer = Payer::new();
    payer.pay(5_000);
    assert_eq!(payer.updates(), [1]);
    for _ in 0..2 {
        payer.pay(5_000);
    }
    payer.pay(1);
    payer.slot.durable(&payer.store).unwrap();
    assert_eq!(payer.updates(), [2, 3, 4]);
}

/// Nothing is written for an acknowledgement, so nothing waits for the disk.
#[tokio::test]
async fn an_acknowledgement_is_told_and_shown_without_a_job() {
    let mut payer = Payer::new();
    let mut told = payer.pay(3);
    assert_eq!(payer.updates(), [1]);
    payer.slot.durable(&payer.store).unwrap();
    assert_eq!(payer.shown().acknowledged, 0);
    payer.hear(ChannelMessage::Ack { seq: 1 });
    assert!(payer.slot.job(&payer.views).is_none());
    assert!(!payer.slot.dirty && !payer.slot.committing);
    assert_eq!((payer.shown().payments, payer.shown().acknowledged), (3, 3));
    told.try_recv().unwrap().unwrap();
}

/// What a peer's payment gets that comes to a machine after it slept until its view of the ledger was too old (§4.7).
/// It may have slept before it came to the milestone that it was told of.
async fn paid_after_a_sleep(before_the_milestone: bool) -> Result<u64, PauseReason> {
    const SLEPT: Duration = Duration::from_millis(60);
    const SLEEPS: u32 = 1;
    let stop = Stop::default();
    let (wake, asleep) = std_mpsc::channel::<()>();
    let asleep = Mutex::new(asleep);
    let keys: ChannelKeys = Arc::new(move |index| {
        if index == SLEEPS {
            let _ = asleep.lock().unwrap().recv();
        }
        key(Side::A)
    });
    let Started { engine, writer, views, threads, submissions } =
        started(Arc::new(MemoryStore::new()), keys, &stop);
    let view = |of: &Agreement| {
        let record = Some(ChannelRecord::opened(&of.open));
        (of.channel(), LedgerView { index: 1, record, payouts: None })
    };
    // The engine sleeps while it wakes this one.
    let sleeper = agreement(SLEEPS);
    engine.add(sleeper.clone(), key(Side::A), Batch::new(), 7).await.unwrap();
    engine.milestone(1, Duration::ZERO, vec![view(&sleeper)]).await.unwrap();
    while !views.is_resting(sleeper.channel()) {
        tokio::task::yield_now().await;
    }
    let (id, open) = (agreement(0).channel(), agreement(0).open);
    engine.add(agreement(0), key(Side::A), Batch::new(), 7).await.unwrap();
    let (outbox, mut sent, _closed) = Outbox::new();
    let number = engine.linked(id, outbox).await.unwrap();
    let standing = loop {
        if let ChannelMessage::Reestablish(standing) = *sent.recv().await.unwrap() {
            break standing;
        }
    };

    let closing = before_the_milestone.then(|| {
        let (done, closed) = oneshot::channel();
        engine.mailbox.try_send(Command::Close { channel: sleeper.channel(), alone: false, done }).unwrap();
        closed
    });
    let half = Duration::from_millis(u64::from(open.contest_window_milestones) * 1_000 / 2);
    engine.milestone(1, half.checked_sub(SLEPT).unwrap(), vec![view(&agreement(0))]).await.unwrap();
    engine.place().await.unwrap().message(id, number, ChannelMessage::Reestablish(standing), room());
    thread::sleep(SLEPT); // as the whole machine does
    drop(wake);
    if let Some(closing) = closing {
        closing.await.unwrap().unwrap();
    }

    let mut payments = PaymentList::new();
    payments.push(&Payment { amount: Amount::new(5), reference: Reference::new(b"r").unwrap() }).unwrap();
    let state = LaneState::new(id, Side::B).advance(&payments).unwrap();
    let signature = state.sign(NETWORK, &key(Side::B)).signature;
    let update = Update { seq: 1, cumulative: state.cumulative, payments, ticks: None, signature };
    engine.place().await.unwrap().message(id, number, ChannelMessage::Update(update), room());
    let answer = loop {
        match *sent.recv().await.unwrap() {
            ChannelMessage::Paused { reason, .. } => break Err(reason),
            ChannelMessage::Ack { seq } => break Ok(seq),
            _ => {}
        }
    };
    assert_eq!(views.get(id).unwrap().info.received.cumulative.is_zero(), answer.is_err());

    stop.stop();
    drop((engine, writer, submissions));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap())).await.unwrap();
    answer
}

/// A machine that slept wakes to all that came meanwhile. Nothing of it is taken by the view of before, though nobody
/// had the time to look at the age yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_the_machine_slept_is_not_taken_by_an_old_view() {
    assert_eq!(paid_after_a_sleep(false).await, Err(PauseReason::StaleLedgerView));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_milestone_grows_old_in_the_queue_as_well() {
    assert_eq!(paid_after_a_sleep(true).await, Err(PauseReason::StaleLedgerView));
}
