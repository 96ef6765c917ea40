//! In which order inputs are taken, and what is checked for many of them at once.

use flash_proto::message::{Reestablish, Stake, Stakes};

use super::*;

/// The engine's task, driven by hand, and channels of which each is open and knows where its peer stands.
struct Driven {
    task: EngineTask,
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
        let (writer, _) = Writer::start(store, log, None, outlets, Metrics::default(), stop).unwrap();
        let timing = Timing { milestone_interval_ms: 1_000, freshness_max: None };
        let task = EngineTask::new(records, timing, false, writer, views, Metrics::default());
        let mut driven = Self { task, links: Vec::new(), touched: Vec::new() };
        for index in 0..channels {
            driven.open(agreement(index));
        }
        driven
    }

    fn take(&mut self, command: Command) {
        self.task.command(command, &mut self.touched);
    }

    fn open(&mut self, agreement: Agreement) {
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
        let ((outbox, sent, _closed), (told, mut number)) = (Outbox::new(), oneshot::channel());
        self.take(Command::Linked { channel, outbox, number: told });
        let number = number.try_recv().unwrap();
        let stake = |side| Stake { deposit: open.party(side).deposit, withdrawn: Amount::ZERO };
        let nothing = Reestablish {
            signed: None,
            signed_ticks: None,
            held: None,
            held_ticks: None,
            stakes: Stakes { a: stake(Side::A), b: stake(Side::B) },
        };
        let message = ChannelMessage::Reestablish(Box::new(nothing));
        self.take(Command::Message { channel, number, message, room: room() });
        self.links.push((channel, number, sent));
    }

    /// The peer's first update of the channel with this index, of so many payments.
    fn update(&self, at: usize, count: u64) -> Command {
        let (channel, number) = (self.links[at].0, self.links[at].1);
        let mut payments = PaymentList::new();
        for _ in 0..count {
            payments.push(&Payment::new(Amount::new(1), &[b'r'; 32]).unwrap()).unwrap();
        }
        let state = LaneState::new(channel, Side::B).advance(&payments).unwrap();
        let signature = state.sign(NETWORK, &key(Side::B)).signature;
        let update = Update { seq: 1, cumulative: state.cumulative, payments, ticks: None, signature };
        Command::Message { channel, number, message: ChannelMessage::Update(update), room: room() }
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

#[tokio::test]
async fn a_large_input_waits_and_only_its_own_channel_with_it() {
    let mut driven = Driven::new(2);
    let (large, small) = (driven.update(0, 1_000), driven.update(1, 1));
    let (channel, number) = (driven.links[0].0, driven.links[0].1);
    assert!(driven.task.unless_large(large).is_none());
    assert!(
        driven.task.unless_large(Command::Unlinked { channel, number }).is_none(),
        "what follows it waits, too"
    );
    let small = driven.task.unless_large(small).expect("another channel does not wait");
    driven.take(small);
    assert_eq!([driven.received(0), driven.received(1)], [0, 1]);
    while let Some((_, command)) = driven.task.large.pop_front() {
        driven.take(command);
    }
    assert_eq!(driven.received(0), 1_000, "it was taken before its stream ended");
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
