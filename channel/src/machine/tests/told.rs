//! What a channel says of itself to whoever runs it.

use super::*;

#[test]
fn what_waits_and_where_it_stands_is_told() {
    let mut pair = Pair { halves: Side::BOTH.map(|side| Half::new(side, [1_000, 0])), index: 1 };
    let agreement = pair.of(Side::A).channel.agreement.clone();
    let Origin::Agreed(open) = &agreement.origin else { panic!("{agreement:?}") };
    assert_eq!(pair.of(Side::A).channel.open_transaction(), Some(open.id()));
    assert_eq!(pair.of(Side::A).channel.pay(payment(1), None), Err(PayError::NotOpen("opening")));
    assert!(!pair.of(Side::A).channel.is_established());
    pair.see(ChannelPhase::Open);
    assert_eq!(pair.of(Side::A).channel.paused(), Some("the peer is not connected"));
    pair.connect();
    assert!(pair.of(Side::A).channel.is_established());
    pair.of(Side::A).pay(1);
    pair.of(Side::A).pay(2);
    pair.of(Side::A).channel.tick(amount(3), 4, None).unwrap();
    assert_eq!(pair.of(Side::A).channel.payments_waiting(), 6);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.payments_waiting(), 0);
    assert!(!pair.of(Side::A).channel.wants_close());
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    assert!(pair.of(Side::A).channel.wants_close());
    assert_eq!(pair.of(Side::A).channel.pay(payment(1), None), Err(PayError::NotOpen("closing")));
    pair.lose(Side::A);
    assert_eq!(pair.of(Side::A).channel.open_transaction(), None, "nobody knows it");
}

#[test]
fn the_transaction_that_closed_it_is_known_afterwards() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    pair.run();
    let id = pair.of(Side::A).channel.wanted().unwrap().id();
    pair.see_record(None, None);
    for half in &mut pair.halves {
        assert_eq!(half.channel.close_transaction_id(), Some(id));
        half.restart();
        assert_eq!(half.channel.close_transaction_id(), Some(id));
    }
}

#[test]
fn the_end_is_said_once() {
    let mut pair = Pair::open([1_000, 0]);
    let payouts = Some(Balances::of_payouts(amount(1_000), amount(0)));
    pair.see_record(None, payouts);
    pair.of(Side::A).events.clear();
    pair.see_record(None, None);
    let half = pair.of(Side::A);
    assert_eq!((&half.events[..], &half.channel.phase), (&[][..], &Phase::Closed { payouts, close: None }));
    pair.of(Side::A).handle(vec![Input::Close, Input::CloseAlone]).unwrap();
    let half = pair.of(Side::A);
    assert!(!half.channel.wants_close() && half.events.is_empty(), "there is nothing left to close");
}

/// The daemon was away from before it was opened until after it was closed.
#[test]
fn a_channel_that_was_never_seen_open_but_has_paid_out_is_closed() {
    let mut half = Half::new(Side::A, [1_000, 0]);
    let payouts = Some(Balances::of_payouts(amount(1_000), amount(0)));
    half.handle(vec![Input::Ledger(LedgerView { index: 20, record: None, payouts })]).unwrap();
    assert_eq!(half.channel.phase, Phase::Closed { payouts, close: None });
}

#[test]
fn a_claim_is_announced_only_if_there_is_more_to_claim() {
    for (known, announced) in [(399, true), (400, false)] {
        let mut pair = Pair::open([1_000, 0]);
        pair.of(Side::A).pay(400);
        pair.run();
        let record = pair.record(ChannelPhase::Closing { closer: Side::A, deadline: 20 }, [known, 0]);
        pair.see_record(Some(record), None);
        let claims = |event: &ChannelEvent| matches!(event, ChannelEvent::Claiming { .. });
        assert_eq!(pair.of(Side::B).events.iter().any(claims), announced, "{known}");
    }
}
