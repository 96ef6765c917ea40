//! Two machines, two stores in memory and a link between them that the test moves by hand.

mod bounds;
mod edges;
mod evidence;
mod lists;
mod opening;
mod receipts;
mod rest;
mod restored;
mod signatures;
mod stakes;
mod ticks;
mod told;

use std::collections::VecDeque;

use flash_proto::{
    Action, Address, ChannelPhase, ChannelRecord, Claim, Essence, Hash, LaneClaim, NetworkId, Open, Payment,
    Reference, SignedBalance, Transaction,
    record::Party,
    transaction::{CooperativeClose, UnilateralClose, commit_inputs},
};

use super::*;
use crate::store::{Batch, MemoryStore};

const NETWORK: NetworkId = NetworkId::new([7; 32]);

fn key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 1; 32])
}

fn amount(units: u64) -> Amount {
    Amount::new(units)
}

fn payment(units: u64) -> Payment {
    Payment { amount: amount(units), reference: Reference::default() }
}

fn open(deposits: [u64; 2]) -> Open {
    let party = |side: Side| Party {
        key: key(side).public(),
        payout: Address::of(&key(side).public()),
        deposit: amount(side.pick(deposits[0], deposits[1])),
    };
    Open {
        party_a: party(Side::A),
        party_b: party(Side::B),
        contest_window_milestones: 10,
        expiry_milestone: 50,
    }
}

fn agreement(side: Side, deposits: [u64; 2]) -> Agreement {
    let open = open(deposits);
    let essence = Essence {
        network: NETWORK,
        inputs: Vec::new(),
        inputs_commitment: commit_inputs(&[]),
        outputs: Vec::new(),
        action: Action::Open(open),
    };
    Agreement {
        network: NETWORK,
        side,
        peer: key(!side).public(),
        key_index: 0,
        origin: Origin::Agreed(Box::new(Transaction { essence, unlocks: Vec::new() })),
        open,
    }
}

/// One machine with its store and what waits on its way to the peer.
struct Half {
    channel: Channel,
    store: MemoryStore,
    outbox: VecDeque<ChannelMessage>,
    events: Vec<ChannelEvent>,
}

impl Half {
    fn new(side: Side, deposits: [u64; 2]) -> Self {
        let store = MemoryStore::new();
        let mut effects = Effects::default();
        let channel = Channel::new(agreement(side, deposits), key(side), &mut effects);
        let mut half = Self { channel, store, outbox: VecDeque::new(), events: Vec::new() };
        half.perform(effects);
        half
    }

    fn perform(&mut self, effects: Effects) {
        if !effects.batch.is_empty() {
            let _ = self.store.commit(&effects.batch).unwrap();
        }
        for after in effects.after {
            match after {
                After::Send(message) => self.outbox.push_back(message),
                After::Event(event) => self.events.push(event),
            }
        }
    }

    fn handle(&mut self, inputs: Vec<Input>) -> Result<(), Misbehaviour> {
        let mut effects = Effects::default();
        let result = inputs.into_iter().try_for_each(|input| self.channel.handle(input, &mut effects));
        self.channel.finish(&mut effects);
        self.perform(effects);
        result
    }

    fn pay(&mut self, units: u64) -> u64 {
        self.channel.pay(payment(units), None).unwrap()
    }

    fn restart(&mut self) {
        let side = self.channel.agreement.side;
        self.store = self.store.reopen();
        self.channel = Channel::load(self.channel.id, |_| key(side), &self.store).unwrap();
        self.outbox.clear();
    }

    fn balance(&self) -> u64 {
        self.channel.balances().of(self.channel.agreement.side).units()
    }
}

struct Pair {
    halves: [Half; 2],
    index: u64,
}

impl Pair {
    /// An open channel whose two machines are connected.
    fn open(deposits: [u64; 2]) -> Self {
        let halves = Side::BOTH.map(|side| Half::new(side, deposits));
        let mut pair = Self { halves, index: 1 };
        pair.see(ChannelPhase::Open);
        pair.connect();
        pair
    }

    fn of(&mut self, side: Side) -> &mut Half {
        &mut self.halves[usize::from(side.byte())]
    }

    fn record(&self, phase: ChannelPhase, lanes: [u64; 2]) -> ChannelRecord {
        let open = self.halves[0].channel.agreement.open;
        let lane = |cumulative| LaneClaim { seq: 1, cumulative: amount(cumulative) };
        ChannelRecord {
            lane_a: lane(lanes[0]),
            lane_b: lane(lanes[1]),
            phase,
            ..ChannelRecord::opened(&open)
        }
    }

    fn see(&mut self, phase: ChannelPhase) {
        let record = Some(self.record(phase, [0, 0]));
        self.see_record(record, None);
    }

    fn see_record(&mut self, record: Option<ChannelRecord>, payouts: Option<Balances>) {
        self.index += 1;
        let view = LedgerView { index: self.index, record, payouts };
        for half in &mut self.halves {
            half.handle(vec![Input::Ledger(view), Input::Fresh(true)]).unwrap();
        }
    }

    fn connect(&mut self) {
        for half in &mut self.halves {
            half.outbox.clear();
            half.handle(vec![Input::Disconnected, Input::Connected]).unwrap();
        }
        self.run();
    }

    /// Moves messages and lets both machines finish until nothing more happens.
    fn run(&mut self) {
        loop {
            for half in &mut self.halves {
                half.handle(Vec::new()).unwrap();
            }
            let mut moved = false;
            for side in Side::BOTH {
                let messages: Vec<Input> = self.of(side).outbox.drain(..).map(Input::Message).collect();
                moved |= !messages.is_empty();
                self.of(!side).handle(messages).unwrap();
            }
            if !moved {
                return;
            }
        }
    }

    fn balances(&mut self) -> [u64; 2] {
        let [a, b] = &self.halves;
        assert_eq!(a.channel.balances(), b.channel.balances(), "I8: both agree");
        [a.balance(), b.balance()]
    }
}

#[test]
fn payments_both_ways_at_once_add_up() {
    let mut pair = Pair::open([1_000, 500]);
    for _ in 0..10 {
        pair.of(Side::A).pay(90);
        pair.of(Side::B).pay(40);
    }
    pair.run();
    assert_eq!(pair.balances(), [500, 1_000]);
    for half in &pair.halves {
        assert_eq!(
            (half.channel.outgoing().payments, half.channel.outgoing().acknowledged_payments),
            (10, 10)
        );
        assert_eq!(half.channel.incoming().payments, 10);
        // Ten payments went in one update.
        assert_eq!(half.channel.incoming_seq(), 1);
    }
}

/// `vectors/flash_js_prepare.json`, from the original's own tests and from what was measured on it: each
/// defect comes out right here.
#[test]
fn the_defects_of_the_original_come_out_right() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors/flash_js_prepare.json")).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let deposits = |case: &serde_json::Value| [number(&case["deposits"][0]), number(&case["deposits"][1])];
    let cases = file["cases"].as_array().unwrap().iter();
    for case in cases.filter(|case| case["deposits"].as_array().unwrap().len() == 2) {
        // There the payment took as much again out of the payer's deposit; here it moves what was paid.
        let (locked, value) = (deposits(case), number(&case["pay"]["value"]));
        let mut pair = Pair::open(locked);
        if case.get("error").is_some() {
            assert!(matches!(
                pair.of(Side::A).channel.pay(payment(value), None),
                Err(PayError::Insufficient { .. })
            ));
        } else {
            pair.of(Side::A).pay(value);
            pair.run();
            assert_eq!(pair.balances(), [locked[0] - value, locked[1] + value]);
        }
    }

    let [unequal, odd, refund, alternating] =
        file["measured_defects_on_0.0.2"].as_array().unwrap().as_slice()
    else {
        panic!("four defects")
    };
    let mut pair = Pair::open(deposits(unequal));
    pair.of(Side::A).pay(number(&unequal["pay_0_to_1"]));
    pair.run();
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    pair.run();
    let close = closed_by_both(&mut pair);
    let moved = number(&unequal["expected_moved"]);
    assert_eq!((close.payout_a, close.payout_b), (amount(700 - moved), amount(300 + moved)));

    let mut pair = Pair::open(deposits(odd));
    for _ in 0..2 {
        pair.of(Side::A).pay(number(&odd["two_payments_of"]));
        pair.run();
    }
    assert_eq!(pair.balances(), [998, 1_001]);

    let mut pair = Pair::open(deposits(refund));
    let back = number(&refund["after_pay"]);
    pair.of(Side::A).pay(back);
    pair.run();
    pair.of(Side::B).pay(back);
    pair.run();
    assert_eq!(pair.balances(), deposits(refund), "received money can be given back");

    let mut pair = Pair::open(deposits(alternating));
    for _ in 0..100 * number(&alternating["max_payments"]) {
        for side in Side::BOTH {
            pair.of(side).pay(number(&alternating["alternating"]));
            pair.run();
        }
    }
    assert_eq!(pair.balances(), deposits(alternating), "no limit on the number of payments");
    assert_eq!(pair.of(Side::A).channel.outgoing_state().cumulative, amount(100_000));
}

fn closed_by_both(pair: &mut Pair) -> CooperativeClose {
    let transactions = Side::BOTH.map(|side| pair.of(side).channel.wanted().unwrap());
    assert_eq!(transactions[0], transactions[1], "both submit the same transaction");
    let id = Hash::new(*transactions[0].id().as_bytes());
    for (unlock, side) in transactions[0].unlocks.iter().zip(Side::BOTH) {
        assert_eq!(unlock.key, key(side).public());
        assert!(unlock.key.verify(&id, &unlock.signature));
    }
    match transactions[0].essence.action {
        Action::CooperativeClose(close) => close,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn either_or_both_may_close_together() {
    for wishes in [vec![Side::A], vec![Side::B], vec![Side::A, Side::B]] {
        let mut pair = Pair::open([1_000, 500]);
        pair.of(Side::A).pay(300);
        pair.of(Side::B).pay(100);
        pair.run();
        for side in &wishes {
            pair.of(*side).pay(1); // still waits when the wish comes, and is not made
            pair.of(*side).handle(vec![Input::Close]).unwrap();
            assert_eq!(pair.of(*side).events.last(), Some(&ChannelEvent::NotMade { payments: 1 }));
        }
        pair.run();
        let close = closed_by_both(&mut pair);
        assert_eq!((close.payout_a, close.payout_b), (amount(800), amount(700)));
        assert!(matches!(pair.of(Side::A).channel.pay(payment(1), None), Err(PayError::NotOpen("closing"))));
        let close_id = pair.of(Side::A).channel.wanted().unwrap().id();
        let payouts = Some(Balances::of_payouts(amount(800), amount(700)));
        pair.see_record(None, payouts);
        for half in &pair.halves {
            let close = Some(close_id);
            assert_eq!(half.channel.phase, Phase::Closed { payouts, close });
            assert_eq!(half.channel.wanted(), None);
        }
    }
}

#[test]
fn a_signed_close_survives_restarts_and_breaks() {
    // The messages of a close, cut off after each in turn, with a restart of both sides.
    for delivered in 0..6 {
        let mut pair = Pair::open([1_000, 500]);
        pair.of(Side::A).pay(300);
        pair.run();
        pair.of(Side::B).handle(vec![Input::Close]).unwrap();
        let mut left = delivered;
        'cut: loop {
            for side in Side::BOTH {
                pair.of(side).handle(Vec::new()).unwrap();
                while let Some(message) = pair.of(side).outbox.pop_front() {
                    if left == 0 {
                        break 'cut;
                    }
                    left -= 1;
                    pair.of(!side).handle(vec![Input::Message(message)]).unwrap();
                }
            }
            if pair.halves.iter().all(|half| half.outbox.is_empty()) {
                break;
            }
        }
        for half in &mut pair.halves {
            half.restart();
        }
        pair.see(ChannelPhase::Open);
        pair.connect();
        pair.run();
        let close = closed_by_both(&mut pair);
        assert_eq!((close.payout_a, close.payout_b), (amount(700), amount(800)));
    }
}

#[test]
fn a_close_that_is_not_applied_lapses_and_the_channel_is_in_use_again() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    pair.run();
    let close = closed_by_both(&mut pair);
    pair.index = close.expiry_milestone;
    pair.see(ChannelPhase::Open);
    for half in &mut pair.halves {
        assert_eq!(half.events.last(), Some(&ChannelEvent::CloseLapsed));
    }
    // The wish stands: the close is signed again, with a later expiry.
    pair.run();
    assert!(closed_by_both(&mut pair).expiry_milestone > close.expiry_milestone);
}

#[test]
fn a_peer_that_is_gone_or_cheats_is_answered_on_the_ledger() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(400);
    pair.run();
    // B closes alone with what it holds.
    pair.of(Side::B).handle(vec![Input::CloseAlone]).unwrap();
    let wanted = pair.of(Side::B).channel.wanted().unwrap();
    let Action::UnilateralClose(UnilateralClose {
        closer: Side::B, balance: Some(Claim { state, .. }), ..
    }) = wanted.essence.action
    else {
        panic!("{wanted:?}")
    };
    assert_eq!(state.cumulative, amount(400));
    let (seq, known) = (state.seq, amount(0));
    // A closes with nothing: B claims what it holds, and stops once the ledger knows.
    let closing = ChannelPhase::Closing { closer: Side::A, deadline: 20 };
    pair.see(closing);
    let half = pair.of(Side::B);
    assert_eq!(half.events.last(), Some(&ChannelEvent::Claiming { known, held: amount(400) }));
    let claim = half.channel.wanted().unwrap();
    assert!(matches!(claim.essence.action, Action::Claim(claim) if claim.state.seq == seq));
    half.restart();
    assert_eq!(half.channel.wanted(), Some(claim), "the same after a restart");
    assert_eq!(pair.of(Side::A).channel.wanted(), None, "A holds nothing of B");
    let mut record = pair.record(closing, [400, 0]);
    record.lane_a.seq = seq;
    pair.see_record(Some(record), None);
    assert_eq!(pair.of(Side::B).channel.wanted(), None);
}

#[test]
fn an_opening_that_is_never_applied_lapses() {
    let mut pair = Pair { halves: Side::BOTH.map(|side| Half::new(side, [1_000, 0])), index: 1 };
    assert!(pair.of(Side::A).channel.wanted().is_some());
    assert!(pair.of(Side::B).channel.wanted().is_none());
    pair.see_record(None, None);
    assert_eq!(pair.of(Side::A).channel.phase, Phase::Opening);
    pair.index = 49;
    pair.see_record(None, None);
    assert_eq!(pair.of(Side::A).channel.phase, Phase::Opening, "milestone 50 may still apply it");
    pair.see_record(None, None);
    pair.see_record(None, None);
    for half in &mut pair.halves {
        assert_eq!(half.events, [ChannelEvent::Lapsed], "it is said once");
        assert_eq!((half.channel.phase.clone(), half.channel.wanted()), (Phase::Lapsed, None));
    }
}

#[test]
fn a_view_from_before_the_opening_does_not_close_a_channel_after_a_restart() {
    let mut pair = Pair::open([1_000, 0]);
    let opened = pair.index;
    for half in &mut pair.halves {
        half.restart();
        let view = LedgerView { index: opened - 1, record: None, payouts: None };
        half.handle(vec![Input::Ledger(view), Input::Fresh(true)]).unwrap();
        assert_eq!(half.channel.phase, Phase::Open);
        assert_eq!(half.channel.refusal(), Some(PauseReason::StaleLedgerView), "nothing was seen yet");
    }
    pair.see(ChannelPhase::Open);
    assert_eq!(pair.of(Side::A).channel.refusal(), None);
}

#[test]
fn nothing_is_taken_while_the_ledger_is_out_of_sight() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::B).handle(vec![Input::Fresh(false)]).unwrap();
    pair.of(Side::A).pay(10);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.paused(), Some("the peer has not seen the ledger for too long"));
    pair.of(Side::A).pay(20);
    pair.run();
    assert_eq!((pair.of(Side::A).balance(), pair.of(Side::B).balance()), (990, 0));
    pair.of(Side::B).handle(vec![Input::Fresh(true)]).unwrap();
    pair.run();
    assert_eq!(pair.balances(), [970, 30]);
}

#[test]
fn what_is_paid_before_the_peer_has_said_where_it_stands_waits_for_that() {
    let mut pair = Pair::open([1_000, 0]);
    let payer = pair.of(Side::A);
    payer.handle(vec![Input::Disconnected]).unwrap();
    assert_eq!(payer.channel.pay(payment(10), None), Err(PayError::NotConnected));
    payer.outbox.clear();
    payer.handle(vec![Input::Connected]).unwrap();
    payer.pay(10);
    payer.handle(Vec::new()).unwrap();
    let said: Vec<_> = payer.outbox.drain(..).collect();
    assert!(matches!(said[..], [ChannelMessage::Reestablish(_)]), "no payment is among {said:?}");
    pair.connect();
    assert_eq!(pair.balances(), [990, 10]);
}

#[test]
fn a_side_that_lost_its_records_learns_them_from_its_own_signature() {
    for loser in Side::BOTH {
        let mut pair = Pair::open([1_000, 1_000]);
        let old = pair.of(loser).store.snapshot();
        for _ in 0..5 {
            // More than the deposit in total, so that the one lane only makes sense with the other.
            pair.of(Side::A).pay(900);
            pair.run();
            pair.of(Side::B).pay(950);
            pair.run();
        }
        let before = pair.balances();
        pair.of(loser).store = old;
        pair.of(loser).restart();
        pair.see(ChannelPhase::Open);
        pair.connect();
        assert_eq!(pair.balances(), before);
        assert!(pair.of(loser).events.iter().any(|event| matches!(event, ChannelEvent::Recovered { .. })));
        pair.wait();
        pair.of(loser).pay(1);
        pair.run();
        pair.balances();
        pair.of(loser).restart();
    }
}

/// The old records hold a close that was signed and has lapsed since; more was paid afterwards.
/// An honest peer signs it for a side that had asked and lost the records of that, so nobody is accused.
#[test]
fn a_close_that_nobody_knows_to_have_asked_for_is_passed_over_until_it_lapses() {
    let mut pair = Pair::open([1_000, 1_000]);
    let before = pair.of(Side::B).store.snapshot();
    pair.of(Side::B).handle(vec![Input::Close]).unwrap();
    pair.of(Side::B).handle(Vec::new()).unwrap();
    pair.of(Side::A).handle(vec![Input::Message(ChannelMessage::CloseRequest)]).unwrap();
    pair.of(Side::B).store = before;
    pair.of(Side::B).restart();
    pair.see(ChannelPhase::Open);
    pair.connect();
    assert!(matches!(pair.of(Side::A).channel.phase, Phase::ClosingTogether { theirs: None, .. }));
    assert_eq!(pair.of(Side::B).channel.phase, Phase::Open);
    pair.index += CLOSE_EXPIRY_MILESTONES;
    pair.see(ChannelPhase::Open);
    pair.of(Side::A).pay(10);
    pair.run();
    assert_eq!(pair.balances(), [990, 1_010]);
}

#[test]
fn a_side_that_lost_its_records_signs_nothing_twice_after_a_close_that_lapsed() {
    let mut pair = Pair::open([1_000, 1_000]);
    pair.of(Side::B).handle(vec![Input::Close]).unwrap();
    pair.run();
    let close = closed_by_both(&mut pair);
    let old = pair.of(Side::A).store.snapshot();
    pair.index = close.expiry_milestone;
    for half in &mut pair.halves {
        half.channel.wants_close = false;
    }
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.of(Side::A).pay(10);
    pair.run();
    let before = pair.balances();
    pair.of(Side::A).store = old;
    pair.of(Side::A).restart();
    pair.connect();
    pair.see(ChannelPhase::Open);
    assert_eq!(pair.of(Side::A).channel.phase, Phase::Open);
    assert_eq!(pair.balances(), before, "A has learnt what it paid before it may pay again");
    pair.wait();
    pair.of(Side::A).pay(1);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.outgoing_seq(), 2, "and goes on after it");
}

/// Every message that is wrong is refused with its reason, and nothing changes.
#[test]
#[allow(clippy::too_many_lines, reason = "one table of cases")]
fn what_breaks_the_protocol_is_refused_and_changes_nothing() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(100);
    pair.run();
    let good = |pair: &Pair, units: u64, seq_step: u64| {
        let mut list = PaymentList::new();
        list.push(&payment(units)).unwrap();
        let mut state = pair.halves[0].channel.outgoing_state();
        state.seq += seq_step;
        let state = state.advance(&list).unwrap();
        let signature = state.sign(NETWORK, &key(Side::A)).signature;
        Update { seq: state.seq, cumulative: state.cumulative, payments: list, ticks: None, signature }
    };
    let base = good(&pair, 50, 0);
    let resigned = |pair: &Pair, change: &dyn Fn(&mut LaneState)| {
        let mut state = pair.halves[0].channel.outgoing_state().advance(&base.payments).unwrap();
        change(&mut state);
        let signature = state.sign(NETWORK, &key(Side::A)).signature;
        Update { seq: state.seq, cumulative: state.cumulative, signature, ..base.clone() }
    };
    let foreign = {
        let state = pair.halves[0].channel.outgoing_state().advance(&base.payments).unwrap();
        Update { signature: state.sign(NETWORK, &key(Side::B)).signature, ..base.clone() }
    };
    let other_network = {
        let state = pair.halves[0].channel.outgoing_state().advance(&base.payments).unwrap();
        let network = NetworkId::new([8; 32]);
        Update { signature: state.sign(network, &key(Side::A)).signature, ..base.clone() }
    };
    let held = pair.halves[1].channel.incoming.held.unwrap();
    let replay_other_body = Update { seq: 1, ..base.clone() };
    let overspend = good(&pair, 901, 0);
    let gap = good(&pair, 50, 1);
    let wrong_total = Update { cumulative: amount(151), ..base.clone() };
    let packed = |bytes: &[u8]| Update { payments: PaymentList::from_packed(bytes.to_vec()), ..base.clone() };
    let other_channel = SignedBalance {
        state: LaneState { channel: ChannelId::new([9; 32]), ..held.state },
        signature: held.signature,
    };
    let cases: Vec<(&str, ChannelMessage)> = vec![
        ("foreign signature", ChannelMessage::Update(foreign)),
        ("other network", ChannelMessage::Update(other_network)),
        ("locks", ChannelMessage::Update(resigned(&pair, &|state| state.locks_root = Hash::new([1; 32])))),
        (
            "other channel",
            ChannelMessage::Update(resigned(&pair, &|state| state.channel = ChannelId::new([1; 32]))),
        ),
        ("other side", ChannelMessage::Update(resigned(&pair, &|state| state.payer = Side::B))),
        ("gap", ChannelMessage::Update(gap)),
        ("two bodies", ChannelMessage::Update(replay_other_body)),
        ("overspend", ChannelMessage::Update(overspend)),
        ("wrong total", ChannelMessage::Update(wrong_total)),
        ("no payments", ChannelMessage::Update(packed(&[]))),
        ("truncated payments", ChannelMessage::Update(packed(&[1, 0, 0]))),
        ("zero amount", ChannelMessage::Update(packed(&[0; 9]))),
        (
            "overflow",
            ChannelMessage::Update(packed(&[[255_u8; 8].as_slice(), &[0], &[255; 8], &[0]].concat())),
        ),
        ("ack beyond", ChannelMessage::Ack { seq: 1 }),
        ("balance of another channel", ChannelMessage::Balance(Box::new(other_channel))),
    ];
    for (name, message) in cases {
        let before = (pair.halves[1].channel.incoming, pair.halves[1].channel.phase.clone());
        let refused = pair.of(Side::B).handle(vec![Input::Message(message)]);
        assert!(refused.is_err(), "{name} was taken");
        assert_eq!(before, (pair.halves[1].channel.incoming, pair.halves[1].channel.phase.clone()), "{name}");
        assert!(pair.of(Side::B).outbox.drain(..).next().is_none(), "{name} was answered");
    }
    // The same update again counts once and is acknowledged again.
    let again = Update { seq: 1, cumulative: amount(100), signature: held.signature, ..base.clone() };
    pair.of(Side::B).handle(vec![Input::Message(ChannelMessage::Update(again))]).unwrap();
    assert_eq!(pair.of(Side::B).outbox.pop_front(), Some(ChannelMessage::Ack { seq: 1 }));
    pair.of(Side::B).handle(vec![Input::Message(ChannelMessage::Update(base))]).unwrap();
    assert_eq!(pair.of(Side::B).balance(), 150);
}

#[test]
fn an_update_is_on_the_disk_before_it_leaves() {
    let mut pair = Pair::open([1_000, 0]);
    let half = pair.of(Side::A);
    half.channel.pay(payment(10), Some(b"key".to_vec())).unwrap();
    let mut effects = Effects::default();
    half.channel.finish(&mut effects);
    assert!(matches!(effects.after[..], [After::Send(ChannelMessage::Update(_))]));
    // The process dies before the commit: nothing was signed as far as anyone can know.
    half.restart();
    assert_eq!((half.balance(), half.channel.outgoing_seq()), (1_000, 0));
    assert_eq!(tables::payment_under(&half.store, half.channel.id, b"key").unwrap(), None);
    // It dies after the commit and before the message: the update is sent again.
    pair.see(ChannelPhase::Open);
    pair.connect();
    let half = pair.of(Side::A);
    half.channel.pay(payment(10), Some(b"key".to_vec())).unwrap();
    half.handle(Vec::new()).unwrap();
    half.restart();
    let record = tables::payment_under(&half.store, half.channel.id, b"key").unwrap().unwrap();
    assert_eq!((record.number, record.amount), (1, amount(10)));
    pair.see(ChannelPhase::Open);
    pair.connect();
    assert_eq!(pair.balances(), [990, 10]);
}

#[test]
fn the_store_stays_flat() {
    let mut pair = Pair::open([1_000_000, 0]);
    for half in &mut pair.halves {
        half.channel.set_history(HistoryRule { keep: 0, receipt_every: 0 });
    }
    for _ in 0..300 {
        pair.of(Side::A).pay(1);
        pair.run();
    }
    let store = &pair.halves[0].store;
    assert!(tables::kept_after(store, pair.halves[0].channel.id, 0).unwrap().len() <= 2);
    assert_eq!(tables::channels(store).unwrap(), [pair.halves[0].channel.id]);
}

#[test]
fn a_damaged_record_is_named_and_never_used() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let id = pair.halves[0].channel.id;
    let store = pair.halves[0].store.snapshot();
    let mut batch = Batch::new();
    tables::put_outgoing(&mut batch, id, &Outgoing::default());
    let _ = store.commit(&batch).unwrap();
    let error = Channel::load(id, |_| key(Side::A), &store).unwrap_err();
    assert!(error.to_string().contains("updates and balance differ"), "{error}");
}
