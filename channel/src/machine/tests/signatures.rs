//! Signatures that are checked together with those of other channels.

use flash_proto::{Signature, Verified};

use super::*;

/// The update that pays what waits at A, on its way.
fn next_update(pair: &mut Pair) -> Update {
    pair.of(Side::A).handle(Vec::new()).unwrap();
    match pair.of(Side::A).outbox.pop_front() {
        Some(ChannelMessage::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

/// The first update of a channel in which A pays, on its way.
fn update(pair: &mut Pair) -> Update {
    pair.of(Side::A).pay(10);
    next_update(pair)
}

#[test]
fn what_is_to_be_verified_is_what_the_machine_wants_signed() {
    let mut pair = Pair::open([1_000, 0]);
    let update = update(&mut pair);
    let payee = &mut pair.of(Side::B).channel;
    let check = payee.to_verify(&update).unwrap();
    // The machine believes what was found elsewhere: its own check would fail without a key.
    payee.peer_verifier = None.into();
    let verified = Verified::all(&[check]).unwrap().next().unwrap();
    payee.knows(verified);
    pair.of(Side::B).handle(vec![Input::Message(ChannelMessage::Update(update.clone()))]).unwrap();
    assert_eq!(pair.of(Side::B).channel.incoming().total(), amount(10));
    assert_eq!(pair.of(Side::B).channel.to_verify(&update), None, "it is held already");
}

#[test]
fn only_the_very_signature_that_was_verified_counts() {
    let mut pair = Pair::open([1_000, 0]);
    let right = update(&mut pair);
    let (peers, hash, signature) = pair.of(Side::B).channel.to_verify(&right).unwrap();
    let stranger = SecretKey::from_bytes([77; 32]);
    let known = [(stranger.public(), hash, stranger.sign(&hash)), (peers, hash, signature)];
    let forged = [stranger.sign(&hash), Signature::new([3; 64])];
    for (known, signature) in Verified::all(&known).unwrap().zip(forged) {
        pair.of(Side::B).channel.knows(known);
        let update = Update { signature, ..right.clone() };
        let result = pair.of(Side::B).handle(vec![Input::Message(ChannelMessage::Update(update))]);
        assert_eq!(result, Err(Misbehaviour::Signature));
    }
    assert_eq!(pair.of(Side::B).channel.incoming().total(), amount(0));
}

#[test]
fn only_small_plain_updates_that_come_next_are_checked_with_those_of_others() {
    let mut pair = Pair::open([100_000, 0]);
    let first = update(&mut pair);
    pair.of(Side::A).pay(20);
    let second = next_update(&mut pair);
    let payee = &mut pair.of(Side::B).channel;
    assert!(payee.to_verify(&first).is_some());
    assert!(payee.to_verify(&second).is_none(), "not the next");
    let ticking = Update { ticks: Some(flash_proto::ticks::TickStep::default()), ..first.clone() };
    assert!(payee.to_verify(&ticking).is_none());
    payee.fresh = false;
    assert!(payee.to_verify(&first).is_none(), "it is not going to be taken");

    for (count, small) in [(56, true), (57, false)] {
        let mut pair = Pair::open([100_000, 0]);
        for _ in 0..count {
            pair.of(Side::A).pay(1);
        }
        let update = next_update(&mut pair);
        assert_eq!(update.payments.as_bytes().len(), count * 9);
        assert_eq!(pair.of(Side::B).channel.to_verify(&update).is_some(), small, "{count}");
    }
}
