//! In which order inputs are taken, and what is checked for many of them at once.

use flash_proto::{
    SignedBalance,
    message::{Reestablish, Stake, Stakes},
    record::ChannelPhase,
};

use super::*;
use crate::engine::bulk::Work;

/// The engine's task, driven by hand, and channels of which each is open and knows where its peer stands.
struct Driven {
    task: EngineTask,
    /// What is sent away, and who does it.
    work: std_mpsc::Receiver<Work>,
    worker: Shared,
    links: Vec<(ChannelId, u64, Waiting)>,
    touched: Vec<ChannelId>,
}

impl Driven {
    fn new(channels: u32) -> Self {
        let stop = Stop::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let keys: ChannelKeys = Arc::new(|_| key(Side::A));
        let records =
            Records { store: Arc::clone(&store), keys, history: HistoryRule::default(), stop: stop.clone() };
        let views = Views::new(records.clone());
        let (log, _) = EventLog::open(&store).unwrap();
        let outlets = writer::Outlets {
            submissions: mpsc::unbounded_channel().0,
            durable: mpsc::unbounded_channel().0,
        };
        let (writer, _) =
            Writer::start(Arc::clone(&store), log, None, outlets, Metrics::default(), stop.clone()).unwrap();
        let timing = Timing { milestone_interval_ms: 1_000, freshness_max: None };
        let (send, work) = std_mpsc::channel();
        let worker = Shared { store, views: views.clone(), timing, stop };
        let task = EngineTask::new(records, timing, false, writer, send, views, Metrics::default());
        let mut driven = Self { task, work, worker, links: Vec::new(), touched: Vec::new() };
        for index in 0..channels {
            driven.open(agreement(index));
        }
        driven
    }

    fn take(&mut self, command: Command) {
        self.task.take(command, &mut self.touched);
    }

    /// Does what was sent away first, and has the channel back.
    fn work(&mut self) {
        let work = self.work.try_recv().expect("something was sent away");
        self.back(work);
    }

    fn back(&mut self, work: Work) {
        self.task.back(self.worker.done(work), &mut self.touched).unwrap();
    }

    fn open(&mut self, agreement: Agreement) {
        self.open_with(agreement, None);
    }

    /// Opens a channel whose peer holds an update of ours with this amount, if there is one.
    fn open_with(&mut self, agreement: Agreement, holds: Option<u64>) {
        let (done, _) = oneshot::channel();
        let (channel, open) = (agreement.channel(), agreement.open);
        let new = NewChannel { agreement, key: key(Side::A), with: Batch::new(), created_ms: 7 };
        self.take(Command::Add { new: Box::new(new), done });
        let view = LedgerView { index: 1, record: Some(ChannelRecord::opened(&open)), payouts: None };
        self.take(Command::Milestone {
            index: 1,
            tip: Tip::told(Duration::ZERO),
            views: vec![(channel, view)],
        });
        let linked = self.link(channel);
        self.links.push(linked);
        let held = holds.map(|amount| {
            let mut payments = PaymentList::new();
            payments.push(&Payment::new(Amount::new(amount), b"r").unwrap()).unwrap();
            let state = LaneState::new(channel, Side::A).advance(&payments).unwrap();
            state.sign(NETWORK, &key(Side::A))
        });
        self.reestablish(open, held);
    }

    fn link(&mut self, channel: ChannelId) -> (ChannelId, u64, Waiting) {
        let ((outbox, sent, _closed), (told, mut number)) = (Outbox::new(), oneshot::channel());
        self.take(Command::Linked { channel, outbox, number: told });
        (channel, number.try_recv().unwrap(), sent)
    }

    /// The peer of the channel that was linked last says where it stands.
    fn reestablish(&mut self, open: Open, held: Option<SignedBalance>) {
        let stake = |side| Stake { deposit: open.party(side).deposit, withdrawn: Amount::ZERO };
        let standing = Reestablish {
            signed: None,
            signed_ticks: None,
            held,
            held_ticks: None,
            stakes: Stakes { a: stake(Side::A), b: stake(Side::B) },
        };
        let message = ChannelMessage::Reestablish(Box::new(standing));
        let &(channel, number, _) = self.links.last().unwrap();
        self.take(Command::Message { channel, number, message, room: room() });
    }

    /// The peer's first update of the channel with this index, of so many payments.
    fn update(&self, at: usize, count: u64) -> Command {
        let [update] = self.updates(at, [count]);
        update
    }

    /// The peer's first updates.
    fn updates<const N: usize>(&self, at: usize, counts: [u64; N]) -> [Command; N] {
        let (channel, number) = (self.links[at].0, self.links[at].1);
        let mut state = LaneState::new(channel, Side::B);
        counts.map(|count| {
            let mut payments = PaymentList::new();
            for _ in 0..count {
                payments.push(&Payment::new(Amount::new(1), &[b'r'; 32]).unwrap()).unwrap();
            }
            state = state.advance(&payments).unwrap();
            let signature = state.sign(NETWORK, &key(Side::B)).signature;
            let update =
                Update { seq: state.seq, cumulative: state.cumulative, payments, ticks: None, signature };
            Command::Message { channel, number, message: ChannelMessage::Update(update), room: room() }
        })
    }

    fn received(&self, at: usize) -> u64 {
        self.task.slots[&self.links[at].0].channel.incoming().payments
    }
}

#[tokio::test]
async fn of_signatures_that_are_checked_together_only_the_wrong_ones_are_refused() {
    let mut driven = Driven::new(9);
    let mut updates: Vec<Command> = (0..9).map(|at| driven.update(at, 1)).collect();
    let Command::Message { message: ChannelMessage::Update(update), .. } = &mut updates[4] else { panic!() };
    update.signature = flash_proto::Signature::new([5; 64]);
    // The first four are checked with the wrong one, the others without it.
    for updates in [updates.drain(..5).collect::<Vec<_>>(), updates] {
        driven.task.verify_together(&updates);
        for update in updates {
            driven.take(update);
        }
    }
    let received: Vec<u64> = (0..9).map(|at| driven.received(at)).collect();
    assert_eq!(received, [1, 1, 1, 1, 0, 1, 1, 1, 1]);
}

/// What comes for a channel in which bulk is worked on waits, and only that.
#[tokio::test]
async fn bulk_is_sent_away_and_what_comes_for_its_channel_waits() {
    let mut driven = Driven::new(2);
    let (large, small) = (driven.update(0, 1_000), driven.update(1, 1));
    let (channel, number) = (driven.links[0].0, driven.links[0].1);
    driven.take(large);
    driven.take(Command::Unlinked { channel, number });
    driven.take(small);
    assert!(!driven.task.slots.contains_key(&channel), "it is away");
    assert_eq!(driven.received(1), 1);
    driven.work();
    assert_eq!(driven.received(0), 1_000, "it was taken before its stream ended");
    assert!(driven.work.try_recv().is_err());
}

/// More bulk for a channel that is away sends it away again, and what came after that waits on.
#[tokio::test]
async fn bulk_after_bulk_is_taken_in_order() {
    let mut driven = Driven::new(1);
    let [first, second, third] = driven.updates(0, [1_000, 2_000, 1]);
    driven.take(first);
    driven.take(second);
    driven.take(third);
    driven.work();
    assert!(driven.task.slots.is_empty(), "away again");
    driven.work();
    assert_eq!(driven.received(0), 3_001);
}

/// What the ledger has of a channel that is away it sees when it is back.
#[tokio::test]
async fn the_ledger_reaches_a_channel_that_is_away() {
    let mut driven = Driven::new(1);
    let (large, channel, open) = (driven.update(0, 1_000), driven.links[0].0, agreement(0).open);
    driven.take(large);
    let phase = ChannelPhase::Closing { closer: Side::B, deadline: 30 };
    let record = Some(ChannelRecord { phase, ..ChannelRecord::opened(&open) });
    driven.take(Command::Proven { views: vec![(channel, LedgerView { index: 2, record, payouts: None })] });
    driven.work();
    assert_eq!(driven.received(0), 1_000, "it was on its way before");
    assert_eq!(driven.task.slots[&channel].channel.state(), "contested");
}

/// Where one channel's records are old all are, and those that are away doubt theirs before they do anything else.
#[tokio::test]
async fn a_channel_that_is_away_hears_that_its_records_are_old() {
    let mut driven = Driven::new(1);
    let [large, next] = driven.updates(0, [1_000, 1]);
    driven.take(large);
    driven.take(next);
    // The peer of another one shows a signature that is not known here.
    driven.open_with(agreement(1), Some(1));
    assert!(driven.task.slots[&agreement(1).channel()].channel.doubt().is_some());
    driven.work();
    assert!(driven.task.slots[&driven.links[0].0].channel.doubt().is_some());
    assert_eq!(driven.received(0), 1_000);
}

/// What waits to be worked on must not be taken by a view of the ledger that grew too old meanwhile.
#[tokio::test]
async fn bulk_is_not_taken_by_an_old_view() {
    let mut driven = Driven::new(1);
    let large = driven.update(0, 1_000);
    driven.take(large);
    let mut work = driven.work.try_recv().unwrap();
    let half = Duration::from_secs(u64::from(agreement(0).open.contest_window_milestones) / 2);
    work.tip = Some(Tip::told(half));
    driven.back(work);
    assert_eq!(driven.received(0), 0);
}

/// Not all channels are looked at each time, but each pauses when the view of the ledger is too old for its own window.
#[tokio::test]
async fn each_channel_grows_old_at_its_own_time() {
    let mut driven = Driven::new(0);
    let agreements = [(0, 10), (1, 20)].map(|(index, window)| agreement_with(index, window));
    for agreement in &agreements {
        driven.open(agreement.clone());
    }
    let fresh_at = |driven: &mut Driven, seconds: f64| {
        driven.task.tip = Some(Tip::told(Duration::from_secs_f64(seconds)));
        driven.task.grow_old(&mut driven.touched);
        [0, 1].map(|at| driven.task.slots[&driven.links[at].0].channel.is_fresh())
    };
    assert_eq!(fresh_at(&mut driven, 0.0), [true, true]);
    assert_eq!(fresh_at(&mut driven, 4.0), [true, true]);
    assert_eq!(fresh_at(&mut driven, 5.0), [false, true]);
    assert_eq!(fresh_at(&mut driven, 9.0), [false, true]);
    assert_eq!(fresh_at(&mut driven, 10.0), [false, false]);

    // One that is proven between two milestones is young at once, and grows old again.
    fresh_at(&mut driven, 3.0);
    let [Agreement { open, .. }, _] = agreements;
    let view = LedgerView { index: 1, record: Some(ChannelRecord::opened(&open)), payouts: None };
    driven.take(Command::Proven { views: vec![(driven.links[0].0, view)] });
    assert!(fresh_at(&mut driven, 4.0)[0]);
    assert!(!fresh_at(&mut driven, 5.0)[0]);
}
