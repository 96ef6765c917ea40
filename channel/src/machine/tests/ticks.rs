//! Payments of one hash each.

use flash_proto::{
    TickChain, TickProof, TickStep, TickTerms, limits::TICKS_MAX, limits::UPDATES_UNACKNOWLEDGED_MAX,
    message::Update, payment::PaymentError, ticks::TickError,
};
use proptest::prelude::*;

use super::*;

impl Half {
    fn tick(&mut self, unit: u64, count: u32) -> u64 {
        self.channel.tick(amount(unit), count, None).unwrap()
    }

    /// What it says after these inputs, taken off its way.
    fn says(&mut self, inputs: Vec<Input>) -> Vec<ChannelMessage> {
        self.handle(inputs).unwrap();
        self.outbox.drain(..).collect()
    }

    fn index(&self) -> u32 {
        self.channel.outgoing.ticks.map_or(0, |proof| proof.index)
    }
}

/// A channel with a chain in use on A's lane: ten ticks of 5 were paid.
fn ticking(deposits: [u64; 2]) -> Pair {
    let mut pair = Pair::open(deposits);
    pair.of(Side::A).tick(5, 10);
    pair.run();
    pair
}

fn take(half: &mut Half, message: ChannelMessage) -> Result<(), Misbehaviour> {
    half.handle(vec![Input::Message(message)])
}

#[test]
fn ticks_go_both_ways_at_once_between_payments() {
    let mut pair = Pair::open([1_000, 500]);
    for _ in 0..10 {
        pair.of(Side::A).tick(5, 3);
        pair.of(Side::A).pay(10);
        pair.of(Side::B).tick(7, 1);
        pair.of(Side::B).pay(2);
        pair.of(Side::B).tick(7, 1);
        pair.run();
    }
    assert_eq!(pair.balances(), [1_000 - 250 + 160, 500 + 250 - 160]);
    for (half, made) in pair.halves.iter().zip([40, 30]) {
        let (outgoing, incoming) = (half.channel.outgoing(), half.channel.incoming());
        assert_eq!((outgoing.payments, outgoing.acknowledged_payments), (made, made));
        assert_eq!(incoming.payments, 70 - made);
    }
    let told: u64 = pair.halves[1]
        .events
        .iter()
        .map(|event| match event {
            ChannelEvent::Ticks { count, unit } if *unit == amount(5) => *count,
            ChannelEvent::Received(update) => update.payments.total().unwrap().count,
            _ => 0,
        })
        .sum();
    assert_eq!(told, 40);
}

#[test]
fn a_tick_is_one_message_and_no_signature() {
    let mut pair = ticking([1_000, 0]);
    let signed = pair.of(Side::A).channel.outgoing.signed;
    for count in [1, 1, 20, 3] {
        for _ in 0..2 {
            pair.of(Side::A).tick(5, count);
        }
        let said = pair.of(Side::A).says(Vec::new());
        assert!(matches!(said[..], [ChannelMessage::Tick { seq: 1, .. }]), "{said:?}");
        let answer = pair.of(Side::B).says(said.into_iter().map(Input::Message).collect());
        assert!(matches!(answer[..], [ChannelMessage::TickAck { seq: 1, .. }]), "{answer:?}");
        pair.of(Side::A).handle(answer.into_iter().map(Input::Message).collect()).unwrap();
    }
    assert_eq!(pair.of(Side::A).channel.outgoing.signed, signed);
    assert_eq!(pair.balances(), [1_000 - 60 * 5, 300]);
    assert_eq!(pair.of(Side::A).channel.outgoing.acknowledged_payments, 60);
}

#[test]
fn ticks_of_one_commit_are_told_of_together() {
    let mut pair = ticking([1_000, 0]);
    pair.of(Side::B).events.clear();
    let mut inputs = Vec::new();
    for unit in [5, 5, 5, 8, 8] {
        pair.of(Side::A).tick(unit, 2);
        inputs.extend(pair.of(Side::A).says(Vec::new()).into_iter().map(Input::Message));
    }
    let answer = pair.of(Side::B).says(inputs);
    assert_eq!(answer, [ChannelMessage::Ack { seq: 2 }, ChannelMessage::TickAck { seq: 2, index: 4 }]);
    let told = [(6, 5), (4, 8)].map(|(count, unit)| ChannelEvent::Ticks { count, unit: amount(unit) });
    assert_eq!(pair.of(Side::B).events, told);
}

#[test]
fn a_chain_follows_another_without_a_pause() {
    let mut pair = Pair::open([1_000_000, 0]);
    let (mut made, mut signed) = (0_u32, 0);
    while made < 3 * TICKS_MAX {
        pair.of(Side::A).tick(1, 1_000);
        made += 1_000;
        // All of it leaves at once, whatever is left of the chain.
        let said = pair.of(Side::A).says(Vec::new());
        assert!(matches!(said.last(), Some(ChannelMessage::Tick { .. })), "{said:?}");
        assert_eq!(pair.of(Side::A).channel.queued(), 0);
        signed += said.len() - 1;
        pair.of(Side::B).handle(said.into_iter().map(Input::Message).collect()).unwrap();
        assert_eq!(pair.of(Side::B).balance(), u64::from(made));
        pair.run();
    }
    assert_eq!(signed, 4, "four updates for 13,000 payments");
    assert_eq!(pair.balances(), [1_000_000 - 13_000, 13_000]);
    // To the last tick of a chain, and beyond it with a payment.
    let left = TICKS_MAX - pair.of(Side::A).index();
    pair.of(Side::A).tick(1, left);
    pair.of(Side::A).pay(1);
    pair.of(Side::A).tick(1, 1);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.queued(), 0);
    assert_eq!(pair.balances()[1], 13_000 + u64::from(left) + 2);
}

#[test]
fn a_payment_goes_on_with_the_rest_of_the_chain_and_another_unit_begins_one() {
    let mut pair = ticking([1_000, 0]);
    let chain = pair.of(Side::A).channel.outgoing_state().ticks;
    pair.of(Side::A).tick(5, 2);
    pair.of(Side::A).pay(1);
    pair.of(Side::A).tick(5, 3);
    // All of it leaves at once, with one signature, and in the order in which it is numbered: an update folds ticks
    // before its payments, so those that come after a payment are revealed under the next balance.
    let said = pair.of(Side::A).says(Vec::new());
    let [ChannelMessage::Update(update), ChannelMessage::Tick { seq: 2, proof }] = &said[..] else {
        panic!("{said:?}")
    };
    let step = update.ticks.unwrap();
    assert_eq!((step.folded.unwrap().index, step.terms.max, proof.index), (12, TICKS_MAX - 12, 3));
    assert_eq!(step.terms.anchor, step.folded.unwrap().preimage);
    assert_eq!((step.terms.unit, chain.max), (chain.unit, TICKS_MAX));
    pair.of(Side::B).handle(said.into_iter().map(Input::Message).collect()).unwrap();
    pair.run();
    pair.of(Side::A).tick(5, 1);
    pair.of(Side::A).tick(8, 1);
    let said = pair.of(Side::A).says(Vec::new());
    let [ChannelMessage::Update(update), ChannelMessage::Tick { seq: 3, .. }] = &said[..] else {
        panic!("{said:?}")
    };
    let step = update.ticks.unwrap();
    assert_eq!((step.folded.unwrap().index, step.terms.max, step.terms.unit), (4, TICKS_MAX, amount(8)));
    pair.of(Side::B).handle(said.into_iter().map(Input::Message).collect()).unwrap();
    pair.run();
    assert_eq!(pair.balances(), [1_000 - 16 * 5 - 1 - 8, 89]);
}

#[test]
fn what_cannot_be_paid_in_ticks_is_refused() {
    let mut pair = ticking([100, 0]);
    let half = pair.of(Side::A);
    let insufficient = |unit: u64, count| PayError::Insufficient {
        amount: amount(unit).checked_mul(count).unwrap_or(Amount::MAX),
        available: amount(50),
    };
    assert_eq!(half.channel.tick(amount(5), 11, None), Err(insufficient(5, 11)));
    assert_eq!(half.channel.tick(amount(u64::MAX), 2, None), Err(insufficient(u64::MAX, 2)));
    assert_eq!(half.channel.tick(amount(0), 1, None), Err(PayError::Ticks));
    assert_eq!(half.channel.tick(amount(1), 0, None), Err(PayError::Ticks));
    assert_eq!(half.channel.tick(amount(1), TICKS_MAX + 1, None), Err(PayError::Ticks));
    half.tick(5, 9);
    assert_eq!(
        half.channel.tick(amount(6), 1, None),
        Err(PayError::Insufficient { amount: amount(6), available: amount(5) })
    );
    half.tick(5, 1);
    pair.run();
    assert_eq!(pair.balances(), [0, 100]);
    pair.of(Side::B).tick(100, 1);
    pair.run();
    assert_eq!(pair.balances(), [100, 0], "what came in by ticks can be spent");
}

/// The peer's messages, with what each is answered.
#[test]
#[allow(clippy::too_many_lines, reason = "one table of cases")]
fn what_breaks_the_rules_of_ticks_is_refused_and_changes_nothing() {
    let mut pair = Pair::open([1_000, 0]);
    let chain = TickChain::new(Hash::new([9; 32]), amount(100), 20).unwrap();
    let nth = |index| chain.clone().reveal(index);
    let sign = |pair: &Pair, payments: &[u64], ticks: TickStep| {
        let mut list = PaymentList::new();
        for units in payments {
            list.push(&payment(*units)).unwrap();
        }
        let state = pair.halves[1].channel.incoming_state().step(&list, &ticks).unwrap();
        let signature = state.sign(NETWORK, &key(Side::A)).signature;
        let (seq, cumulative) = (state.seq, state.cumulative);
        ChannelMessage::Update(Update { seq, cumulative, payments: list, ticks: Some(ticks), signature })
    };
    let anchor = TickStep { folded: None, terms: chain.terms() };
    let anchored = sign(&pair, &[], anchor);
    take(pair.of(Side::B), anchored).unwrap();
    let fourth = ChannelMessage::Tick { seq: 1, proof: nth(4).unwrap() };
    take(pair.of(Side::B), fourth.clone()).unwrap();
    assert_eq!(pair.of(Side::B).balance(), 400);
    pair.of(Side::B).outbox.clear();

    let tick = |seq, proof| ChannelMessage::Tick { seq, proof };
    let wrong = TickProof { preimage: Hash::new([1; 32]), ..nth(5).unwrap() };
    let shifted = TickProof { index: 6, ..nth(5).unwrap() };
    let beyond = TickProof { index: 21, ..nth(20).unwrap() };
    let preimage =
        |index| Misbehaviour::Payments(PaymentError::Ticks(TickError::Preimage { index, max: 20 }));
    let back = |folded: Option<TickProof>| sign(&pair, &[1], TickStep { folded, terms: TickTerms::NONE });
    let forged = |index| {
        let ChannelMessage::Update(mut update) =
            sign(&pair, &[1], TickStep { folded: nth(5), terms: TickTerms::NONE })
        else {
            panic!()
        };
        update.ticks = Some(TickStep { folded: Some(TickProof { index, ..wrong }), ..TickStep::NONE });
        ChannelMessage::Update(update)
    };
    let ill = {
        let ChannelMessage::Update(mut update) = sign(&pair, &[1], TickStep { folded: nth(4), ..anchor })
        else {
            panic!()
        };
        update.ticks.as_mut().unwrap().terms.max = TICKS_MAX + 1;
        ChannelMessage::Update(update)
    };
    let short = {
        let state = LaneState { seq: 2, cumulative: amount(399), ..pair.halves[1].channel.incoming_state() };
        ChannelMessage::Balance(Box::new(state.sign(NETWORK, &key(Side::A))))
    };
    let unusable = {
        let terms = TickTerms { max: TICKS_MAX + 1, ..chain.terms() };
        let before = pair.halves[1].channel.incoming_state();
        let state = LaneState { seq: 2, cumulative: amount(500), ticks: terms, ..before };
        ChannelMessage::Balance(Box::new(state.sign(NETWORK, &key(Side::A))))
    };
    let cases = [
        ("a wrong preimage", tick(1, wrong), preimage(5)),
        ("the right one for another tick", tick(1, shifted), preimage(6)),
        ("beyond the chain", tick(1, beyond), preimage(21)),
        ("under a balance to come", tick(2, wrong), Misbehaviour::Gap { got: 2, held: 1 }),
        (
            "more than the payer owns",
            tick(1, nth(11).unwrap()),
            Misbehaviour::Overspent { total: amount(1_100), owned: amount(1_000) },
        ),
        ("all ticks taken back", back(None), Misbehaviour::TicksTakenBack { got: 0, held: 4 }),
        ("one taken back", back(nth(3)), Misbehaviour::TicksTakenBack { got: 3, held: 4 }),
        ("a forged tick folded", forged(5), preimage(5)),
        ("another preimage of what is held", forged(4), preimage(4)),
        (
            "folded and paid beyond what is owned",
            sign(&pair, &[1], TickStep { folded: nth(10), terms: TickTerms::NONE }),
            Misbehaviour::Overspent { total: amount(1_001), owned: amount(1_000) },
        ),
        ("terms that no ledger takes", ill, Misbehaviour::Payments(PaymentError::Ticks(TickError::Terms))),
        (
            "a balance below the ticks",
            short,
            Misbehaviour::Cumulative { got: amount(399), wanted: amount(400) },
        ),
        ("a balance that no ledger takes", unusable, Misbehaviour::Terms),
        ("ticks acknowledged that were never paid", ChannelMessage::TickAck { seq: 0, index: 1 }, {
            Misbehaviour::TickAckBeyond { got: 1, sent: 0 }
        }),
    ];
    for (name, message, reason) in cases {
        let before = pair.halves[1].channel.incoming;
        assert_eq!(take(pair.of(Side::B), message), Err(reason), "{name}");
        assert_eq!(pair.halves[1].channel.incoming, before, "{name}");
        assert!(pair.of(Side::B).outbox.drain(..).next().is_none(), "{name} was answered");
    }
    // What was taken before counts once, however often it comes.
    for old in [fourth, tick(1, nth(2).unwrap())] {
        take(pair.of(Side::B), old).unwrap();
        let answer = pair.of(Side::B).outbox.pop_front();
        assert_eq!(answer, Some(ChannelMessage::TickAck { seq: 1, index: 4 }));
    }
    let folding = sign(&pair, &[1], TickStep { folded: nth(6), terms: TickTerms::NONE });
    take(pair.of(Side::B), folding).unwrap();
    take(pair.of(Side::B), tick(1, nth(8).unwrap())).unwrap();
    assert_eq!(pair.of(Side::B).balance(), 601, "a tick under an older balance is none");
    assert_eq!(pair.of(Side::B).channel.incoming().payments, 7);
}

#[test]
fn a_tick_is_on_the_disk_before_it_leaves() {
    let mut pair = ticking([1_000, 0]);
    let half = pair.of(Side::A);
    half.channel.tick(amount(5), 4, Some(b"key".to_vec())).unwrap();
    let mut effects = Effects::default();
    half.channel.finish(&mut effects);
    assert!(matches!(effects.after[..], [After::Send(ChannelMessage::Tick { .. })]));
    // The process dies before the commit.
    half.restart();
    assert_eq!((half.balance(), half.index()), (950, 10));
    assert_eq!(tables::payment_under(&half.store, half.channel.id, b"key").unwrap(), None);
    pair.see(ChannelPhase::Open);
    pair.connect();
    // It dies after the commit and before the message.
    let half = pair.of(Side::A);
    half.channel.tick(amount(5), 4, Some(b"key".to_vec())).unwrap();
    half.handle(Vec::new()).unwrap();
    half.restart();
    assert_eq!(half.balance(), 930);
    let record = tables::payment_under(&half.store, half.channel.id, b"key").unwrap().unwrap();
    assert_eq!((record.number, record.amount, record.ticks), (14, amount(5), 4));
    pair.see(ChannelPhase::Open);
    pair.connect();
    assert_eq!(pair.balances(), [930, 70]);
    assert_eq!(pair.of(Side::A).channel.outgoing.acknowledged_payments, 14);
}

#[test]
fn ticks_wait_while_the_ledger_is_out_of_sight() {
    let mut pair = ticking([1_000, 0]);
    pair.of(Side::B).handle(vec![Input::Fresh(false)]).unwrap();
    pair.of(Side::A).tick(5, 1);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.paused(), Some("the peer has not seen the ledger for too long"));
    pair.of(Side::A).tick(5, 2);
    pair.of(Side::A).tick(6, 2);
    pair.run();
    assert_eq!((pair.of(Side::A).balance(), pair.of(Side::B).balance()), (945, 50));
    pair.of(Side::B).handle(vec![Input::Fresh(true)]).unwrap();
    pair.run();
    assert_eq!(pair.balances(), [923, 77]);
}

#[test]
fn a_close_waits_for_ticks_and_pays_them() {
    for closer in Side::BOTH {
        let mut pair = ticking([1_000, 500]);
        pair.of(Side::B).tick(7, 2);
        pair.run();
        // Revealed, and on its way when the wish comes.
        pair.of(Side::A).tick(5, 1);
        pair.of(Side::A).handle(Vec::new()).unwrap();
        pair.of(Side::A).tick(5, 3);
        pair.of(closer).handle(vec![Input::Close]).unwrap();
        pair.run();
        let close = closed_by_both(&mut pair);
        let made = if closer == Side::A { 11 } else { 14 };
        assert_eq!([close.payout_a, close.payout_b].map(Amount::units), [1_014 - 5 * made, 486 + 5 * made]);
        let not_made = pair.of(Side::A).events.iter().find_map(|event| match event {
            ChannelEvent::NotMade { payments } => Some(*payments),
            _ => None,
        });
        assert_eq!(not_made, (closer == Side::A).then_some(3));
    }
}

#[test]
fn a_close_is_not_signed_before_ticks_are_acknowledged() {
    let mut pair = ticking([1_000, 0]);
    pair.of(Side::A).tick(5, 1);
    let lost = pair.of(Side::A).says(Vec::new());
    assert!(matches!(lost[..], [ChannelMessage::Tick { .. }]), "{lost:?}");
    let request = Input::Message(ChannelMessage::CloseRequest);
    for wish in [Input::Close, request] {
        let said = pair.of(Side::A).says(vec![wish]);
        assert!(said.is_empty(), "{said:?}");
    }
    pair.connect();
    assert_eq!(closed_by_both(&mut pair).payout_a, amount(945));
}

#[test]
fn ticks_are_claimed_with_the_balance_they_are_under() {
    let mut pair = ticking([1_000, 0]);
    let held = pair.of(Side::B).channel.incoming;
    pair.of(Side::B).handle(vec![Input::CloseAlone]).unwrap();
    let Action::UnilateralClose(close) = pair.of(Side::B).channel.wanted().unwrap().essence.action else {
        panic!("no close")
    };
    let claim = close.balance.unwrap();
    assert_eq!((claim.ticks, claim.total()), (held.ticks, Ok(amount(50))));

    let mut pair = ticking([1_000, 0]);
    let closing = ChannelPhase::Closing { closer: Side::A, deadline: 20 };
    let mut record = pair.record(closing, [0, 0]);
    pair.see_record(Some(record), None);
    let known = amount(0);
    assert_eq!(pair.of(Side::B).events.last(), Some(&ChannelEvent::Claiming { known, held: amount(50) }));
    let wanted = pair.of(Side::B).channel.wanted().unwrap();
    assert!(matches!(wanted.essence.action, Action::Claim(claim) if claim.total() == Ok(amount(50))));
    assert!(key(Side::A).public().verify(
        &pair.of(Side::B).channel.incoming_state().signing_hash(NETWORK),
        &wanted.unlocks[0].signature
    ));
    pair.of(Side::B).restart();
    assert_eq!(pair.of(Side::B).channel.wanted(), Some(wanted), "the same after a restart");
    for (known, claims) in [(49, true), (50, false)] {
        record.lane_a.cumulative = amount(known);
        pair.see_record(Some(record), None);
        assert_eq!(pair.of(Side::B).channel.wanted().is_some(), claims, "the ledger knows {known}");
    }
}

#[test]
fn a_side_that_holds_a_chain_of_which_nothing_was_revealed_can_close_alone() {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::A).tick(5, 1);
    let said = pair.of(Side::A).says(Vec::new());
    let [begins @ ChannelMessage::Update(_), ChannelMessage::Tick { .. }] = said.as_slice() else {
        panic!("{said:?}")
    };
    // The payer falls silent between the two.
    take(pair.of(Side::B), begins.clone()).unwrap();
    let b = pair.of(Side::B);
    assert!(b.channel.incoming.held.is_some());
    b.handle(vec![Input::Disconnected, Input::CloseAlone]).unwrap();
    // The ledger refuses a balance that raises nothing.
    let wanted = b.channel.wanted().unwrap();
    let Action::UnilateralClose(close) = wanted.essence.action else { panic!("{wanted:?}") };
    assert_eq!((close.closer, close.balance, wanted.unlocks.len()), (Side::B, None, 1));
}

#[test]
fn a_payer_that_lost_its_index_learns_it_from_the_payee() {
    let mut pair = ticking([1_000, 0]);
    let old = pair.of(Side::A).store.snapshot();
    pair.of(Side::A).tick(5, 20);
    pair.run();
    pair.of(Side::A).store = old;
    pair.of(Side::A).restart();
    assert_eq!(pair.of(Side::A).balance(), 950);
    pair.see(ChannelPhase::Open);
    pair.connect();
    assert_eq!(pair.balances(), [850, 150]);
    assert_eq!(pair.of(Side::A).channel.outgoing.payments, 30);
    pair.wait();
    pair.of(Side::A).tick(5, 1);
    pair.run();
    assert_eq!(pair.balances(), [845, 155]);
    pair.of(Side::A).restart();
    assert_eq!(pair.of(Side::A).balance(), 845);
}

/// Each has paid more than its deposit, so the one lane only makes sense with the ticks of the other.
#[test]
fn a_side_that_lost_its_records_learns_both_lanes_with_their_ticks() {
    for loser in Side::BOTH {
        for lost_after in 0..4 {
            let mut pair = Pair::open([1_000, 0]);
            let mut old = None;
            for round in 0..5 {
                if round == lost_after {
                    old = Some(pair.of(loser).store.snapshot());
                }
                pair.of(Side::A).tick(90, 10);
                pair.run();
                pair.of(Side::B).tick(100, 9);
                pair.run();
            }
            let before = pair.balances();
            pair.of(loser).store = old.unwrap();
            pair.of(loser).restart();
            pair.see(ChannelPhase::Open);
            pair.connect();
            assert_eq!(pair.balances(), before, "{loser:?} lost all after {lost_after}");
            let recovered = |event: &ChannelEvent| matches!(event, ChannelEvent::Recovered { .. });
            assert!(pair.of(loser).events.iter().any(recovered));
            pair.wait();
            pair.of(Side::A).tick(90, 1);
            pair.run();
            pair.of(Side::B).tick(9, 10);
            pair.run();
            pair.balances();
            pair.of(loser).restart();
        }
    }
}

#[test]
fn after_the_loss_of_everything_the_ticks_are_shown_too() {
    let mut pair = ticking([1_000, 500]);
    pair.of(Side::B).tick(7, 3);
    pair.run();
    pair.lose(Side::B);
    pair.connect();
    assert_eq!(pair.balances(), [971, 529]);
    assert!(!pair.of(Side::B).events.iter().any(|event| matches!(event, ChannelEvent::Ticks { .. })));
    pair.of(Side::B).handle(vec![Input::Close]).unwrap();
    pair.run();
    assert_eq!(closed_by_both(&mut pair).payout_b, amount(529));
}

/// A chain ends with the life that began it: what goes on from the same records later has another one.
#[test]
fn no_two_lives_have_one_chain() {
    let mut pair = Pair::open([1_000, 0]);
    let old = pair.of(Side::A).store.snapshot();
    let mut terms = Vec::new();
    for _ in 0..3 {
        pair.of(Side::A).tick(5, 1);
        pair.of(Side::A).handle(Vec::new()).unwrap();
        terms.push(pair.of(Side::A).channel.outgoing_state().ticks);
        pair.of(Side::A).store = old.snapshot();
        pair.of(Side::A).restart();
        pair.see(ChannelPhase::Open);
        for half in &mut pair.halves {
            half.outbox.clear();
        }
        pair.connect();
    }
    assert!(terms[0] != terms[1] && terms[1] != terms[2] && terms[0] != terms[2]);
    pair.of(Side::A).tick(5, 1);
    pair.run();
    let before = pair.of(Side::A).channel.outgoing_state();
    pair.of(Side::A).restart();
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.of(Side::A).tick(5, 1);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.outgoing_seq(), before.seq + 1, "it begins another");
    assert_eq!(pair.balances(), [990, 10]);
}

#[test]
fn a_payee_that_never_acknowledges_gets_no_more_than_the_limits() {
    let mut pair = Pair::open([1_000_000, 0]);
    for _ in 0..UPDATES_UNACKNOWLEDGED_MAX + 5 {
        let half = pair.of(Side::A);
        half.channel.tick(amount(1), 2_000, None).unwrap();
        half.channel.pay(payment(1), None).unwrap();
        half.handle(Vec::new()).unwrap();
    }
    assert_eq!(pair.of(Side::A).channel.sent.len(), UPDATES_UNACKNOWLEDGED_MAX);
    assert!(pair.of(Side::A).channel.queued() > 0);
    pair.run();
    let made = u64::try_from(UPDATES_UNACKNOWLEDGED_MAX).unwrap() + 5;
    assert_eq!(pair.balances()[1], made * 2_001, "and all of it once it does");
}

/// What happens to one side in the middle of a script.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It dies before its commit.
    Before,
    /// It dies after its commit and before anything leaves.
    Unsent,
    /// The link breaks.
    Break,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Tick(Side, u64, u32),
    Pay(Side, u64),
    /// Moves what one side has said.
    Move(Side),
    Fault(Side, Fault),
}

impl Pair {
    /// Does one step. Nothing is lost but what was on its way.
    fn step(&mut self, step: Step) {
        match step {
            Step::Tick(side, unit, count) => {
                let _ = self.of(side).channel.tick(amount(unit), count, None);
                self.of(side).handle(Vec::new()).unwrap();
            }
            Step::Pay(side, units) => {
                let _ = self.of(side).channel.pay(payment(units), None);
                self.of(side).handle(Vec::new()).unwrap();
            }
            Step::Move(side) => {
                let said = self.of(side).says(Vec::new());
                self.of(!side).handle(said.into_iter().map(Input::Message).collect()).unwrap();
            }
            Step::Fault(side, fault) => {
                let _ = self.of(side).channel.tick(amount(3), 2, None);
                match fault {
                    Fault::Before => {
                        // What the peer had said was taken, and died with it.
                        let said = self.of(!side).says(Vec::new());
                        let mut effects = Effects::default();
                        for message in said {
                            self.of(side).channel.handle(Input::Message(message), &mut effects).unwrap();
                        }
                        self.of(side).channel.finish(&mut effects);
                    }
                    Fault::Unsent => self.of(side).handle(Vec::new()).unwrap(),
                    Fault::Break => {}
                }
                if !matches!(fault, Fault::Break) {
                    self.of(side).restart();
                }
                self.again();
            }
        }
    }

    /// Both are there again, with nothing on its way.
    fn again(&mut self) {
        for half in &mut self.halves {
            half.outbox.clear();
            half.handle(vec![Input::Disconnected, Input::Connected]).unwrap();
        }
        self.see(ChannelPhase::Open);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = prop_oneof![Just(Side::A), Just(Side::B)];
    let fault = prop_oneof![Just(Fault::Before), Just(Fault::Unsent), Just(Fault::Break)];
    let step = prop_oneof![
        4 => (side.clone(), 1_u64..4, prop_oneof![8 => 1_u32..5, 1 => 1_000_u32..4_096]).prop_map(|(s, u, n)| Step::Tick(s, u, n)),
        2 => (side.clone(), 1_u64..50).prop_map(|(s, n)| Step::Pay(s, n)),
        4 => side.clone().prop_map(Step::Move),
        1 => (side, fault).prop_map(|(s, f)| Step::Fault(s, f)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever dies whenever: no acknowledged tick is lost, no counter falls, and both agree in the end.
    #[test]
    fn ticks_survive_every_interruption(steps in steps()) {
        let mut pair = Pair::open([40_000, 10_000]);
        let mut totals = [amount(0); 2];
        for step in steps {
            pair.step(step);
            for (half, before) in pair.halves.iter().zip(&mut totals) {
                let incoming = half.channel.incoming();
                prop_assert!(incoming.total() >= *before, "I3");
                *before = incoming.total();
            }
            let [a, b] = &pair.halves;
            for (payer, payee) in [(a, b), (b, a)] {
                let acknowledged = payer.channel.outgoing().acknowledged_payments;
                prop_assert!(acknowledged <= payee.channel.incoming().payments, "I4");
                prop_assert!(payee.channel.incoming().total() <= payer.channel.outgoing().total(), "I5");
            }
        }
        pair.again();
        pair.run();
        pair.balances();
        for half in &pair.halves {
            prop_assert_eq!(half.channel.queued(), 0);
            let outgoing = half.channel.outgoing();
            prop_assert_eq!(outgoing.payments, outgoing.acknowledged_payments);
        }
    }
}
