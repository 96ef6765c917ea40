//! What is kept of the past, and the payee's signatures for it.

use super::*;
use crate::machine::tables::{Kept, Lane};

const RULE: HistoryRule = HistoryRule { keep: 8, receipt_every: 0 };

impl Half {
    fn kept(&self, lane: Lane, payment: u64) -> Option<Kept> {
        tables::kept_with(&self.store, self.channel.id, lane, payment).unwrap()
    }

    fn receipt(&self, seq: u64) -> Option<flash_proto::Signature> {
        let receipt = tables::receipt_from(&self.store, self.channel.id, seq).unwrap();
        receipt.filter(|(number, _)| *number == seq).map(|(_, signature)| signature)
    }

    /// Answers what the machine asks of its history, as the shell does once all is durable.
    fn answer(&mut self) {
        for event in std::mem::take(&mut self.events) {
            if let ChannelEvent::ReceiptWanted { seq } = event {
                let kept = tables::kept(&self.store, self.channel.id, Lane::Peers, seq).unwrap();
                let state = kept.and_then(|kept| kept.after()).map(Box::new);
                self.handle(vec![Input::GiveReceipt { seq, state }]).unwrap();
            } else {
                self.events.push(event);
            }
        }
    }
}

/// A and B, with so many updates of `each` payments of A's; B keeps only the newest eight.
fn paid(updates: u64, each: u64) -> Pair {
    let mut pair = Pair::open([1_000_000, 0]);
    pair.of(Side::B).channel.set_history(RULE);
    for _ in 0..updates {
        for n in 0..each {
            pair.of(Side::A).pay(n + 1);
        }
        pair.run();
    }
    pair
}

/// A asks for a receipt for the update with this payment; the receipt, if B gave one.
fn ask(pair: &mut Pair, payment: u64) -> Option<flash_proto::Signature> {
    let kept = pair.of(Side::A).kept(Lane::Own, payment).unwrap();
    let state = kept.after().unwrap();
    pair.of(Side::A).events.clear();
    pair.of(Side::A).handle(vec![Input::AskReceipt(Box::new(state))]).unwrap();
    pair.run();
    pair.of(Side::B).answer();
    pair.run();
    let given = pair.of(Side::A).receipt(state.seq);
    let told = ChannelEvent::Receipt { seq: state.seq, given: given.is_some() };
    assert_eq!(pair.of(Side::A).events, [told]);
    given
}

#[test]
fn both_keep_every_payment_and_let_go_of_the_oldest() {
    let mut pair = paid(40, 3);
    for payment in 1..=120 {
        let seq = (payment - 1) / 3 + 1;
        let kept = pair.of(Side::A).kept(Lane::Own, payment).unwrap();
        assert_eq!((kept.update.seq, kept.position(payment).map(u64::from)), (seq, Some((payment - 1) % 3)));
        let theirs = pair.of(Side::B).kept(Lane::Peers, payment);
        assert_eq!(theirs, (seq > 40 - 8).then_some(kept), "payment {payment}");
    }
    for side in Side::BOTH {
        assert_eq!(pair.of(side).kept(Lane::Own, 121), None);
        assert_eq!(pair.of(side).kept(Lane::Peers, 0), None);
        pair.of(side).restart();
    }
    // What was kept is found after a restart; a lower limit is reached in small steps, a limit of none as well.
    for keep in [20, 0] {
        for side in Side::BOTH {
            pair.of(side).channel.set_history(HistoryRule { keep, receipt_every: 0 });
        }
        pair.see(ChannelPhase::Open);
        pair.connect();
        for _ in 0..4 {
            pair.of(Side::A).pay(1);
            pair.run();
        }
        let oldest = pair.of(Side::A).channel.outgoing_seq() - keep.max(1) + 1;
        let id = pair.of(Side::A).channel.id;
        let first = tables::oldest_kept(&pair.of(Side::A).store, id, Lane::Own).unwrap().unwrap();
        assert!(
            first <= oldest && first + 1 >= oldest,
            "{first} is kept, {oldest} is the oldest that must be"
        );
        let theirs = tables::oldest_kept(&pair.of(Side::B).store, id, Lane::Peers).unwrap();
        assert!(keep > 0 || theirs.is_none(), "{theirs:?}");
    }
}

#[test]
fn the_payee_signs_for_what_it_keeps_and_says_what_it_does_not() {
    let mut pair = paid(20, 2);
    let receipt = ask(&mut pair, 40).unwrap();
    let newest = pair.of(Side::A).channel.outgoing_state();
    let network = pair.of(Side::A).channel.agreement.network;
    assert!(key(Side::B).public().verify(&newest.receipt_hash(network), &receipt));
    assert!(!key(Side::B).public().verify(&newest.signing_hash(network), &receipt));
    let older = ask(&mut pair, 30).unwrap();
    let state = pair.of(Side::A).kept(Lane::Own, 30).unwrap().after().unwrap();
    assert!(key(Side::B).public().verify(&state.receipt_hash(network), &older));
    assert_eq!(ask(&mut pair, 1), None, "the payee has let go of it");
    // With its update a receipt goes, too.
    pair.of(Side::A).channel.set_history(HistoryRule { keep: 2, receipt_every: 0 });
    for _ in 0..4 {
        pair.of(Side::A).pay(1);
        pair.run();
    }
    assert_eq!((pair.of(Side::A).receipt(15), pair.of(Side::A).receipt(20)), (None, None));
    assert_eq!(pair.balances(), [1_000_000 - 64, 64], "receipts move no money");
}

#[test]
fn a_receipt_comes_with_every_so_manieth_update_by_itself() {
    let mut pair = paid(0, 0);
    pair.of(Side::A).channel.set_history(HistoryRule { keep: 100, receipt_every: 5 });
    for _ in 0..12 {
        pair.of(Side::A).pay(1);
        pair.run();
    }
    let given: Vec<u64> = (1..=12).filter(|seq| pair.of(Side::A).receipt(*seq).is_some()).collect();
    assert_eq!(given, [5, 10]);
}

#[test]
fn a_forged_receipt_ends_the_stream_and_is_not_kept() {
    let mut pair = paid(3, 1);
    let state = pair.of(Side::A).channel.outgoing_state();
    let network = pair.of(Side::A).channel.agreement.network;
    let forged = [
        key(Side::A).sign(&state.receipt_hash(network)),
        key(Side::B).sign(&state.signing_hash(network)),
        key(Side::B).sign(&LaneState { seq: 2, ..state }.receipt_hash(network)),
    ];
    for signature in forged {
        pair.of(Side::A).handle(vec![Input::AskReceipt(Box::new(state))]).unwrap();
        let receipt = ChannelMessage::Receipt { seq: 3, signature: Some(signature) };
        let result = pair.of(Side::A).handle(vec![Input::Message(receipt)]);
        assert_eq!(result, Err(Misbehaviour::Signature));
        assert_eq!(pair.of(Side::A).receipt(3), None);
    }
    // One that nobody asked for counts for nothing.
    let right = key(Side::B).sign(&LaneState { seq: 2, ..state }.receipt_hash(network));
    let unasked = ChannelMessage::Receipt { seq: 2, signature: Some(right) };
    pair.of(Side::A).handle(vec![Input::Message(unasked)]).unwrap();
    assert_eq!(pair.of(Side::A).receipt(2), None);
}

#[test]
fn nothing_is_signed_that_was_not_received() {
    let mut pair = paid(3, 1);
    let held = pair.of(Side::B).channel.incoming_state();
    let foreign = LaneState { payer: Side::B, ..held };
    let later = LaneState { seq: 4, ..held };
    for (seq, state) in [(3, foreign), (4, later), (2, held), (0, LaneState { seq: 0, ..held })] {
        pair.of(Side::B).handle(vec![Input::GiveReceipt { seq, state: Some(Box::new(state)) }]).unwrap();
    }
    for seq in [0, 4, u64::MAX] {
        pair.of(Side::B).handle(vec![Input::Message(ChannelMessage::ReceiptRequest { seq })]).unwrap();
        pair.of(Side::B).answer();
    }
    let answers: Vec<ChannelMessage> = pair.of(Side::B).outbox.drain(..).collect();
    assert_eq!(answers.len(), 7);
    let unsigned = |it: &ChannelMessage| matches!(it, ChannelMessage::Receipt { signature: None, .. });
    assert!(answers.iter().all(unsigned), "{answers:?}");
    // Nobody is asked without a link.
    pair.of(Side::A).handle(vec![Input::Disconnected]).unwrap();
    let state = pair.of(Side::A).channel.outgoing_state();
    pair.of(Side::A).events.clear();
    pair.of(Side::A).handle(vec![Input::AskReceipt(Box::new(state))]).unwrap();
    assert_eq!(pair.of(Side::A).events, [ChannelEvent::Receipt { seq: 3, given: false }]);
}

/// Payments and ticks mixed: each is found where its number says, by both sides.
#[test]
fn ticks_and_payments_are_kept_in_the_order_of_their_numbers() {
    let mut pair = paid(0, 0);
    pair.of(Side::B).channel.set_history(HistoryRule::default());
    let mut made: Vec<Option<u64>> = Vec::new(); // the amount of a payment; none of a tick
    for round in 0..6_u64 {
        for (ticks, payments) in [(2, 1), (0, 2), (3, 0), (1, 1)] {
            for n in 0..payments {
                made.push(Some(100 + round * 10 + n));
                assert_eq!(pair.of(Side::A).pay(100 + round * 10 + n), u64::try_from(made.len()).unwrap());
            }
            if ticks > 0 {
                let last = pair.of(Side::A).channel.tick(amount(5), ticks, None).unwrap();
                made.resize(made.len() + usize::try_from(ticks).unwrap(), None);
                assert_eq!(last, u64::try_from(made.len()).unwrap());
            }
        }
        pair.run();
    }
    pair.of(Side::A).pay(1); // folds the ticks that are left
    pair.run();
    for (number, made) in (1..).zip(&made) {
        let kept = pair.of(Side::A).kept(Lane::Own, number).unwrap();
        let position = kept.position(number).unwrap();
        let folded = kept.update.ticks.and_then(|ticks| ticks.folded).map_or(0, |folded| folded.index);
        let listed = position.checked_sub(folded).map(|at| usize::try_from(at).unwrap());
        let found = listed.map(|at| kept.update.payments.iter().nth(at).unwrap().unwrap().amount.units());
        assert_eq!(found, *made, "payment {number}");
        assert_eq!(pair.of(Side::B).kept(Lane::Peers, number), Some(kept), "payment {number}");
    }
}

/// An update that only begins a chain of ticks has no payment.
#[test]
fn a_payment_is_found_beside_an_update_without_any() {
    let mut pair = paid(1, 1);
    pair.of(Side::A).channel.tick(amount(5), 1, None).unwrap();
    pair.run();
    pair.of(Side::A).pay(7);
    pair.run();
    let found: Vec<u64> =
        (1..=3).map(|payment| pair.of(Side::A).kept(Lane::Own, payment).unwrap().update.seq).collect();
    assert_eq!(found, [1, 3, 3]);
}

#[test]
fn receipts_are_asked_for_only_for_own_updates_that_are_there() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let half = pair.of(Side::A);
    let state = half.channel.outgoing_state();
    let asked = |half: &mut Half, state: LaneState| {
        half.handle(vec![Input::AskReceipt(Box::new(state))]).unwrap();
        half.outbox.pop_front()
    };
    assert_eq!(asked(half, LaneState { channel: ChannelId::new([5; 32]), ..state }), None);
    assert_eq!(asked(half, LaneState { payer: Side::B, ..state }), None);
    assert_eq!(asked(half, LaneState { seq: 2, ..state }), None);
    assert_eq!(asked(half, state), Some(ChannelMessage::ReceiptRequest { seq: 1 }));
}
