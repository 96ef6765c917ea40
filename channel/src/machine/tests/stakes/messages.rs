//! Each kind of message, disturbed in each way: lost before it took effect and after it, delivered twice at once and
//! later again, delivered late, and after the one that was sent behind it.
//!
//! A link of the real program is in order and whole while it stands, so some of this would need a peer that is broken.
//! A side may then end the stream, but whatever it does, once the two speak again they agree, and nothing is lost.

use std::collections::BTreeMap;

use flash_proto::message::{Refusal, RefusalCode};

use super::*;

/// A kind of message and who sent it.
type Sent = (Side, &'static str);

/// Every kind of message: one that is new must be added here, and then a life below must need it.
const KINDS: [&str; 16] = [
    "Reestablish",
    "Update",
    "Ack",
    "Balance",
    "Paused",
    "CloseRequest",
    "CloseSigned",
    "CloseComplete",
    "Refuse",
    "Tick",
    "TickAck",
    "Stakes",
    "WithdrawSigned",
    "WithdrawComplete",
    "ReceiptRequest",
    "Receipt",
];

fn kind(message: &ChannelMessage) -> &'static str {
    let number = match message {
        ChannelMessage::Reestablish(_) => 0,
        ChannelMessage::Update(_) => 1,
        ChannelMessage::Ack { .. } => 2,
        ChannelMessage::Balance(_) => 3,
        ChannelMessage::Paused { .. } => 4,
        ChannelMessage::CloseRequest => 5,
        ChannelMessage::CloseSigned { .. } => 6,
        ChannelMessage::CloseComplete { .. } => 7,
        ChannelMessage::Refuse(_) => 8,
        ChannelMessage::Tick { .. } => 9,
        ChannelMessage::TickAck { .. } => 10,
        ChannelMessage::Stakes(_) => 11,
        ChannelMessage::WithdrawSigned { .. } => 12,
        ChannelMessage::WithdrawComplete { .. } => 13,
        ChannelMessage::ReceiptRequest { .. } => 14,
        ChannelMessage::Receipt { .. } => 15,
    };
    KINDS[number]
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The link breaks before it arrives.
    LostBefore,
    /// The link breaks once it has taken effect; the answer is lost.
    LostAfter,
    Twice,
    /// It comes again when all has come to rest.
    Again,
    /// It and all behind it wait while the ledger goes on.
    Late,
    /// The next one overtakes it.
    Overtaken,
}

const FATES: [Fate; 6] =
    [Fate::LostBefore, Fate::LostAfter, Fate::Twice, Fate::Again, Fate::Late, Fate::Overtaken];
/// How many rounds of messages a late one waits, each with a milestone.
const LATE: u32 = 3;
/// Rounds in which everything comes to rest.
const ROUNDS_MAX: usize = 60;

/// A channel's life, in which one message has a fate of its own.
struct Life {
    world: World,
    /// Which message of which kind and sender.
    target: Option<(Sent, u32, Fate)>,
    sent: BTreeMap<Sent, u32>,
    again: Option<(Side, ChannelMessage)>,
    /// Rounds for which what a side sends waits.
    waits: Option<(Side, u32)>,
    overtaken: Option<(Side, ChannelMessage)>,
    broken: bool,
    paid: [u64; 2],
}

impl Life {
    fn new(target: Option<(Sent, u32, Fate)>) -> Self {
        let mut world = World::new();
        world.disconnect();
        let (sent, paid) = (BTreeMap::new(), [0; 2]);
        Self { world, target, sent, again: None, waits: None, overtaken: None, broken: true, paid }
    }

    fn half(&mut self, side: Side) -> &mut Half {
        self.world.pair.of(side)
    }

    /// A message arrives. If it is refused the stream ends, as the shell has it.
    fn arrive(&mut self, to: Side, message: ChannelMessage) {
        if self.half(to).channel.link == Link::Down {
            return; // of a stream that is gone
        }
        let error = match self.half(to).handle(vec![Input::Message(message)]) {
            Ok(()) => return,
            Err(error) => error,
        };
        self.half(to).handle(vec![Input::Disconnected]).unwrap();
        self.broken = true;
        if !matches!(error, Misbehaviour::Refused(_)) {
            let refusal = Refusal::new(RefusalCode::Misbehaved, error.to_string());
            self.half(to).outbox.push_back(ChannelMessage::Refuse(refusal));
        }
    }

    /// A message leaves, and its fate is decided.
    fn carry(&mut self, from: Side, message: ChannelMessage) {
        let what = (from, kind(&message));
        let number = *self.sent.entry(what).and_modify(|count| *count += 1).or_insert(1);
        let fate = self.target.filter(|target| (target.0, target.1) == (what, number)).map(|target| target.2);
        match fate {
            None => self.arrive(!from, message),
            Some(Fate::LostBefore) => self.cut(),
            Some(Fate::LostAfter) => {
                self.arrive(!from, message);
                self.cut();
            }
            Some(Fate::Twice) => {
                self.arrive(!from, message.clone());
                self.arrive(!from, message);
            }
            Some(Fate::Again) => {
                self.again = Some((from, message.clone()));
                self.arrive(!from, message);
            }
            Some(Fate::Late) => {
                self.half(from).outbox.push_front(message);
                self.waits = Some((from, LATE));
            }
            Some(Fate::Overtaken) => self.overtaken = Some((from, message)),
        }
    }

    fn cut(&mut self) {
        self.broken = true;
        (self.overtaken, self.waits) = (None, None);
        self.world.disconnect();
    }

    /// One message of each side arrives, if there is one. False if all is at rest.
    fn round(&mut self) -> bool {
        for side in Side::BOTH {
            self.half(side).handle(Vec::new()).unwrap();
        }
        let mut moved = false;
        for side in Side::BOTH {
            if let Some((waiting, rounds)) = self.waits.filter(|(waiting, _)| *waiting == side) {
                self.waits = (rounds > 1).then_some((waiting, rounds - 1));
                self.world.milestone();
                moved = true;
                continue;
            }
            let behind = self.overtaken.take_if(|(from, _)| *from == side);
            for message in [self.half(side).outbox.pop_front(), behind.map(|(_, message)| message)] {
                let Some(message) = message else { continue };
                moved = true;
                self.carry(side, message);
            }
        }
        moved
    }

    /// All messages arrive, and the two connect again if the link broke.
    fn rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.round() {
                continue;
            }
            if let Some((from, message)) = self.again.take().filter(|_| !self.broken) {
                self.arrive(!from, message);
            } else if std::mem::take(&mut self.broken) {
                self.world.disconnect();
                self.world.connect();
            } else {
                return;
            }
        }
        panic!("I9: the two never come to rest");
    }

    /// The ledger goes on, and both see it.
    fn milestones(&mut self, count: usize) {
        for _ in 0..count {
            self.world.milestone();
            self.rest();
        }
    }

    fn pays(&mut self, side: Side, units: u64) {
        self.half(side).pay(units);
        self.paid[at(side)] += units;
        self.rest();
        self.all_is_acknowledged();
    }

    /// At rest nothing waits for what comes next to bring it along.
    fn all_is_acknowledged(&self) {
        for half in &self.world.pair.halves {
            let outgoing = half.channel.outgoing;
            assert_eq!(outgoing.acknowledged_payments, outgoing.payments, "I4");
        }
    }

    /// All kinds of messages are sent, and the channel is closed by both.
    fn live(&mut self) {
        self.rest();
        self.pays(Side::A, 100);
        self.pays(Side::B, 50);
        self.half(Side::A).channel.tick(amount(5), 10, None).unwrap();
        self.paid[at(Side::A)] += 50;
        self.rest();
        self.all_is_acknowledged();
        self.pays(Side::A, 7);

        let newest = self.half(Side::A).channel.outgoing_state();
        let id = newest.channel;
        while tables::receipt_from(&self.half(Side::A).store, id, newest.seq).unwrap().is_none() {
            self.half(Side::A).handle(vec![Input::AskReceipt(Box::new(newest))]).unwrap();
            self.rest();
        }

        for (side, change) in [(Side::A, Change::Withdraw), (Side::B, Change::TopUp)] {
            self.world.change(side, change);
            self.rest();
            let taken = self.world.taken != [0; 2];
            assert!(self.world.channel(side).wanted().is_some() || taken, "it is signed");
            self.milestones(3);
        }

        // B is out of sight of the ledger for a while.
        self.half(Side::B).handle(vec![Input::Fresh(false)]).unwrap();
        self.half(Side::A).pay(10);
        self.paid[at(Side::A)] += 10;
        self.rest();
        self.half(Side::B).handle(vec![Input::Fresh(true)]).unwrap();
        self.rest();
        self.all_is_acknowledged();

        // B forgets a payment that it has acknowledged.
        let old = self.half(Side::B).store.snapshot();
        self.pays(Side::A, 9);
        self.half(Side::B).store = old;
        self.half(Side::B).restart();
        self.world.see(Side::B);
        self.cut();
        self.rest();

        // A says what makes no sense, and B ends the stream.
        self.arrive(Side::B, ChannelMessage::Ack { seq: 99 });
        self.rest();
        self.pays(Side::B, 3);

        self.half(Side::B).handle(vec![Input::Close]).unwrap();
        self.rest();
        self.milestones(3);
    }

    fn check(&self) {
        self.all_is_acknowledged();
        let owed = [DEPOSITS[0] + self.paid[1], DEPOSITS[1] + self.paid[0]];
        let owed = [owed[0] - CHANGE - self.paid[0], owed[1] + CHANGE - self.paid[1]];
        assert_eq!(self.world.paid_out, Some(owed), "paid out to the unit");
        for (half, paid) in self.world.pair.halves.iter().zip(self.paid) {
            let channel = &half.channel;
            assert!(matches!(channel.phase, Phase::Closed { .. }), "{:?}", channel.phase);
            assert_eq!(channel.outgoing.total(), amount(paid), "I11: each payment counts once");
            assert_eq!(channel.signed_twice(), None, "I6");
        }
    }
}

#[test]
fn each_kind_of_message_may_be_lost_repeated_or_late_before_and_after_it_takes_effect() {
    let mut calm = Life::new(None);
    calm.live();
    calm.check();
    for wanted in KINDS {
        assert!(calm.sent.keys().any(|(_, kind)| *kind == wanted), "nobody sends {wanted} in this life");
    }
    let mut lives = 0;
    for (what, count) in calm.sent {
        // The first and the last of them.
        for number in [1, count].into_iter().take(usize::try_from(count).unwrap()) {
            for fate in FATES {
                println!("{} {number} of {}: {fate:?}", what.1, what.0);
                let mut life = Life::new(Some((what, number, fate)));
                life.live();
                life.check();
                lives += 1;
            }
        }
    }
    println!("{lives} lives");
    assert!(lives > KINDS.len() * FATES.len());
}
