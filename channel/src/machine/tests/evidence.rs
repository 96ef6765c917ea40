//! Two bodies under one number, shown in every way in which the peer can show a balance.

use flash_proto::{
    PaymentList,
    message::{Reestablish, Update},
};

use super::*;

/// The peer's newest balance in another form, and the update that leads to it.
fn other_body(pair: &Pair, units: u64, signer: Side) -> (Update, SignedBalance) {
    let mut payments = PaymentList::new();
    payments.push(&payment(units)).unwrap();
    let state = LaneState::new(pair.halves[0].channel.id, Side::A).advance(&payments).unwrap();
    let balance = state.sign(NETWORK, &key(signer));
    let (seq, cumulative, signature) = (state.seq, state.cumulative, balance.signature);
    (Update { seq, cumulative, payments, ticks: None, signature }, balance)
}

fn shown(half: &Half) -> usize {
    half.events.iter().filter(|event| matches!(event, ChannelEvent::SignedTwice(_))).count()
}

/// A has paid 100 in one update; B holds it.
fn paid() -> Pair {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(100);
    pair.run();
    pair
}

#[test]
fn a_second_body_is_kept_once_however_it_is_shown() {
    type Show = fn(&Pair, u64, Side) -> ChannelMessage;
    let standing: Show = |pair, units, signer| {
        let stakes = pair.halves[0].channel.stakes();
        let signed = Some(other_body(pair, units, signer).1);
        let standing = Reestablish { signed, signed_ticks: None, held: None, held_ticks: None, stakes };
        ChannelMessage::Reestablish(Box::new(standing))
    };
    let ways: [(&str, bool, Show); 4] = [
        ("an update", false, |pair, units, signer| ChannelMessage::Update(other_body(pair, units, signer).0)),
        ("an update after a restart", true, |pair, units, signer| {
            ChannelMessage::Update(other_body(pair, units, signer).0)
        }),
        ("a balance", false, |pair, units, signer| {
            ChannelMessage::Balance(Box::new(other_body(pair, units, signer).1))
        }),
        ("the first message on a stream", true, standing),
    ];
    for (name, restarts, show) in ways {
        let mut pair = paid();
        let held = pair.halves[1].channel.incoming.held.unwrap();
        if restarts {
            pair.of(Side::B).restart();
            pair.see(ChannelPhase::Open);
            pair.connect();
        }
        // Without the peer's signature it proves nothing.
        let forged = show(&pair, 99, Side::B);
        assert!(pair.of(Side::B).handle(vec![Input::Message(forged)]).is_err(), "{name}");
        assert_eq!(pair.halves[1].channel.signed_twice(), None, "{name}");

        let first = SignedTwice { held, other: other_body(&pair, 99, Side::A).1 };
        for units in [99, 98, 99] {
            let message = show(&pair, units, Side::A);
            let refused = pair.of(Side::B).handle(vec![Input::Message(message)]);
            assert_eq!(refused, Err(Misbehaviour::TwoBodies(1)), "{name}");
            assert_eq!(pair.halves[1].channel.signed_twice(), Some(&first), "{name}: the first pair stays");
        }
        let half = pair.of(Side::B);
        assert_eq!(shown(half), 1, "{name}: I12, the user is told once");
        assert_eq!((half.channel.incoming.held, half.balance()), (Some(held), 100), "{name}");
        half.restart();
        assert_eq!(half.channel.signed_twice(), Some(&first), "{name}: it is on the disk");
        let again = show(&pair, 97, Side::A);
        let half = pair.of(Side::B);
        let _ = half.handle(vec![Input::Connected, Input::Message(again)]);
        assert_eq!((half.channel.signed_twice(), shown(half)), (Some(&first), 1), "{name}: after a restart");
        for body in [first.held, first.other] {
            assert!(body.verify(NETWORK, &key(Side::A).public()) && body.state.seq == 1, "{name}");
        }
        assert_ne!(first.held.state, first.other.state, "{name}");
    }
}

/// What an honest peer says again is no second body.
#[test]
fn the_same_body_again_is_no_evidence() {
    let mut pair = paid();
    let (update, balance) = other_body(&pair, 100, Side::A);
    for message in [ChannelMessage::Update(update), ChannelMessage::Balance(Box::new(balance))] {
        pair.of(Side::B).handle(vec![Input::Message(message)]).unwrap();
    }
    for half in &mut pair.halves {
        half.restart();
    }
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.of(Side::A).pay(5);
    pair.run();
    assert_eq!(pair.balances(), [895, 105]);
    assert_eq!(pair.halves[1].channel.signed_twice(), None);
}

/// Somebody runs a copy of the payer as well, and both sign before either has heard of the other.
#[test]
fn one_identity_that_runs_twice_is_found_out_and_its_payee_loses_nothing() {
    let mut pair = paid();
    let mut twin = Half::new(Side::A, [1_000, 0]);
    twin.store = pair.of(Side::A).store.snapshot();
    twin.restart();
    let record = Some(pair.record(ChannelPhase::Open, [0, 0]));
    let view = LedgerView { index: pair.index, record, payouts: None };
    twin.handle(vec![Input::Ledger(view), Input::Fresh(true)]).unwrap();
    // What each of the two says to the other at the beginning of a stream, and what comes of it.
    let meet = |twin: &mut Half, payee: &mut Half| {
        for half in [&mut *twin, &mut *payee] {
            half.outbox.clear();
            half.handle(vec![Input::Disconnected, Input::Connected]).unwrap();
        }
        let standings = [twin.outbox.pop_front().unwrap(), payee.outbox.pop_front().unwrap()];
        let [of_twin, of_payee] = standings.map(|standing| vec![Input::Message(standing)]);
        (twin.handle(of_payee), payee.handle(of_twin))
    };
    assert_eq!(meet(&mut twin, pair.of(Side::B)), (Ok(()), Ok(())));
    // The other one takes the peer over and pays; the twin has not heard yet that its stream is gone.
    pair.connect();
    pair.of(Side::A).pay(7);
    pair.run();
    twin.pay(9);
    twin.handle(Vec::new()).unwrap();
    let found = (Err(Misbehaviour::OwnTwoBodies(2)), Err(Misbehaviour::TwoBodies(2)));
    assert_eq!(meet(&mut twin, pair.of(Side::B)), found);
    let payee = pair.of(Side::B);
    let proof = *payee.channel.signed_twice().expect("the payee has both");
    assert_eq!([proof.held, proof.other].map(|it| it.state.cumulative), [amount(107), amount(109)]);
    assert_eq!((payee.balance(), payee.channel.outgoing_seq()), (107, 0), "I4");
    payee.handle(vec![Input::CloseAlone]).unwrap();
    let Action::UnilateralClose(UnilateralClose { balance: Some(shown), .. }) =
        payee.channel.wanted().unwrap().essence.action
    else {
        panic!("a close")
    };
    assert_eq!(shown.state, proof.held.state);
}
