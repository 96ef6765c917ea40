//! Channels at rest: they leave memory, and nobody can tell.

use flash_proto::{Balances, ChannelPhase, message::Reestablish};
use serde_json::json;

use super::*;
use crate::{api::ChannelInfo, engine::View, stop::Running};

/// A running engine with one channel.
struct Machine {
    started: Started,
    store: MemoryStore,
    stop: Stop,
}

fn id() -> ChannelId {
    agreement(0).channel()
}

fn seen(index: u64) -> LedgerView {
    let record = ChannelRecord::opened(&agreement(0).open);
    LedgerView { index, record: Some(record), payouts: None }
}

/// Age at which a view of the ledger is too old.
fn half() -> Duration {
    Duration::from_millis(u64::from(agreement(0).open.contest_window_milestones) * 1_000 / 2)
}

fn on(store: &MemoryStore) -> Machine {
    let (store, stop) = (store.reopen(), Stop::default());
    let shared: Arc<dyn Store> = Arc::new(store.reopen());
    let started = started(shared, Arc::new(|_| key(Side::A)), &stop);
    Machine { started, store, stop }
}

impl Machine {
    /// The channel is open since milestone 1, and at rest.
    async fn with_channel() -> Self {
        let machine = on(&MemoryStore::new());
        machine.engine().add(agreement(0), key(Side::A), Batch::new(), 7).await.unwrap();
        machine.engine().milestone(1, Duration::ZERO, vec![(id(), seen(1))]).await.unwrap();
        machine.rested().await;
        machine
    }

    const fn engine(&self) -> &Engine {
        &self.started.engine
    }

    async fn rested(&self) {
        while !self.started.views.is_resting(id()) {
            assert_eq!(self.stop.running(), Running::Yes);
            tokio::task::yield_now().await;
        }
    }

    fn shown(&self) -> ChannelInfo {
        self.started.views.get(id()).unwrap().info
    }

    async fn end(self) -> MemoryStore {
        self.stop.stop();
        let Started { engine, writer, threads, submissions, .. } = self.started;
        drop((engine, writer, submissions));
        let ended = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|it| it.join().unwrap()));
        ended.await.unwrap();
        self.store
    }
}

/// The peer, on a stream.
struct Peer {
    number: u64,
    sent: Waiting,
    standing: Box<Reestablish>,
}

impl Peer {
    async fn connect(engine: &Engine) -> Self {
        let (outbox, mut sent, _closed) = Outbox::new();
        let number = engine.linked(id(), outbox).await.unwrap();
        let ChannelMessage::Reestablish(standing) = *sent.recv().await.unwrap() else {
            panic!("not a standing")
        };
        let peer = Self { number, sent, standing };
        let own = Reestablish { signed: peer.standing.held, held: peer.standing.signed, ..*peer.standing };
        peer.says(engine, ChannelMessage::Reestablish(Box::new(own))).await;
        peer
    }

    async fn says(&self, engine: &Engine, message: ChannelMessage) {
        engine.place().await.unwrap().message(id(), self.number, message, room());
    }

    /// Pays 5 and says what came of it.
    async fn pays(&mut self, engine: &Engine) -> Result<u64, PauseReason> {
        let mut payments = PaymentList::new();
        payments.push(&Payment { amount: Amount::new(5), reference: Reference::new(b"r").unwrap() }).unwrap();
        let before = self.standing.held.map_or(LaneState::new(id(), Side::B), |held| held.state);
        let state = before.advance(&payments).unwrap();
        let signature = state.sign(NETWORK, &key(Side::B)).signature;
        let update =
            Update { seq: state.seq, cumulative: state.cumulative, payments, ticks: None, signature };
        self.says(engine, ChannelMessage::Update(update)).await;
        loop {
            match *self.sent.recv().await.unwrap() {
                ChannelMessage::Paused { reason, .. } => return Err(reason),
                ChannelMessage::Ack { seq } => return Ok(seq),
                _ => {}
            }
        }
    }

    /// Waits until it is asked for what was not taken.
    async fn resumed(&mut self) {
        while !matches!(*self.sent.recv().await.unwrap(), ChannelMessage::Reestablish(_)) {}
    }
}

#[tokio::test]
async fn a_channel_wakes_for_its_peer_and_rests_again() {
    let machine = Machine::with_channel().await;
    let engine = machine.engine();
    // Milestones that do not name it let it sleep on, and count for it all the same.
    engine.milestone(2, half(), Vec::new()).await.unwrap();
    engine.milestone(3, Duration::ZERO, Vec::new()).await.unwrap();
    for update in 1..=2 {
        let mut peer = Peer::connect(engine).await;
        assert!(!machine.started.views.is_resting(id()));
        assert_eq!(peer.pays(engine).await, Ok(update));
        let before = machine.shown();
        assert!(before.connected);
        engine.unlinked(id(), peer.number).await;
        machine.rested().await;
        let paused = machine.shown().paused;
        assert_eq!(paused.as_deref(), Some("the peer is not connected"));
        let before = ChannelInfo { connected: false, paused, ..before };
        assert_eq!(json!(machine.shown()), json!(before));
        assert_eq!(machine.shown().received.updates, update);
    }
    machine.end().await;
}

/// §4.7 holds for a channel that was at rest as for any other.
#[tokio::test]
async fn a_channel_that_wakes_knows_how_old_its_view_is() {
    let machine = Machine::with_channel().await;
    let engine = machine.engine();
    engine.milestone(2, half(), Vec::new()).await.unwrap();
    machine.rested().await;
    let mut peer = Peer::connect(engine).await;
    assert_eq!(peer.pays(engine).await, Err(PauseReason::StaleLedgerView));
    engine.milestone(3, Duration::ZERO, Vec::new()).await.unwrap();
    peer.resumed().await;
    assert_eq!(peer.pays(engine).await, Ok(1));
    machine.end().await;
}

/// What was true before a restart is proven anew first, and by a view of the time after it.
#[tokio::test]
async fn a_channel_that_rests_since_the_start_takes_nothing_before_it_was_proven() {
    let store = Machine::with_channel().await.end().await;
    let machine = on(&store);
    let engine = machine.engine();
    assert!(machine.started.views.is_resting(id()), "it was not even loaded");
    assert_eq!((machine.shown().state.as_str(), machine.started.views.live()), ("open", vec![id()]));
    let (views, peer) = (&machine.started.views, key(Side::B).public());
    assert_eq!(views.live_with(&peer), 1);
    assert_eq!(views.new_with(&peer, &mut Looked::default()), [(id(), Side::A)]);
    engine.milestone(2, Duration::ZERO, Vec::new()).await.unwrap();
    let mut peer = Peer::connect(engine).await;
    assert_eq!(peer.pays(engine).await, Err(PauseReason::StaleLedgerView));
    engine.unlinked(id(), peer.number).await;
    machine.rested().await;
    engine.proven(vec![(id(), seen(3))]).await.unwrap();
    let mut peer = Peer::connect(engine).await;
    assert_eq!(peer.pays(engine).await, Ok(1));
    machine.end().await;
}

#[tokio::test]
async fn a_close_wakes_a_channel_also_if_somebody_looks_at_it() {
    for follows in [false, true] {
        let machine = Machine::with_channel().await;
        let followed = follows.then(|| machine.started.views.follow(id()).unwrap());
        let phase = ChannelPhase::Closing { closer: Side::B, deadline: 12 };
        let record = seen(2).record.map(|record| ChannelRecord { phase, ..record });
        let view = LedgerView { record, ..seen(2) };
        machine.engine().milestone(2, Duration::ZERO, vec![(id(), view)]).await.unwrap();
        let mut followed = followed.unwrap_or_else(|| machine.started.views.follow(id()).unwrap());
        let contested = followed.wait_for(|view| view.info.state == "contested").await.unwrap().clone();
        assert_eq!(contested.info.deadline_milestone, Some(12));
        machine.end().await;
    }
}

#[tokio::test]
async fn a_record_of_a_channel_at_rest_that_cannot_be_read_stops_the_daemon() {
    let store = Machine::with_channel().await.end().await;
    let mut batch = Batch::new();
    batch.put(Table::small(3, "outgoing lanes"), id().as_bytes(), vec![1]);
    let _ = store.commit(&batch).unwrap();
    let machine = on(&store);
    // Nobody asks for it.
    machine.stop.stopped().await;
    let Running::Failed { reason, store: true } = machine.stop.running() else { panic!("it goes on") };
    assert!(reason.contains("table outgoing lanes") && reason.contains(&id().to_string()), "{reason}");
    let connecting = machine.engine().linked(id(), Outbox::new().0).await;
    assert!(connecting.is_err());
    machine.end().await;
}

/// The wallet asks for outputs at very many addresses by turns, and must know of which one now.
#[tokio::test]
async fn where_a_channel_has_paid_out_is_told() {
    let machine = Machine::with_channel().await;
    let payout = agreement(0).open.party_a.payout;
    let paid = |machine: &Machine| machine.started.views.take_paid_out();
    assert_eq!(paid(&machine), []);

    let taken =
        ChannelRecord { withdrawn_a: Amount::new(5_000), ..ChannelRecord::opened(&agreement(0).open) };
    let less = LedgerView { index: 2, record: Some(taken), payouts: None };
    let gone = LedgerView {
        index: 3,
        record: None,
        payouts: Some(Balances::of_payouts(Amount::new(995_000), Amount::new(1_000_000))),
    };
    for view in [less, gone] {
        let mut followed = machine.started.views.follow(id()).unwrap();
        machine.engine().milestone(view.index, Duration::ZERO, vec![(id(), view)]).await.unwrap();
        let shows = |shown: &View| {
            shown.info.withdrawn == Amount::new(5_000) && shown.is_live() == view.record.is_some()
        };
        drop(followed.wait_for(shows).await.unwrap());
        assert_eq!((paid(&machine), paid(&machine)), (vec![payout], vec![]), "once");
    }
    let again = on(&machine.end().await);
    assert_eq!(paid(&again), [payout], "whether the wallet has seen it before is not known here");
    again.end().await;
}
