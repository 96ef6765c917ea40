//! The limits of what is taken, and the reasons that are given.

use flash_proto::{
    limits,
    message::{Refusal, RefusalCode},
    transaction::TopUp,
};

use super::*;

pub(super) fn balance_of(payer: Side, change: impl FnOnce(&mut LaneState), pair: &Pair) -> SignedBalance {
    let channel = &pair.halves[usize::from(payer.byte())].channel;
    let mut state = channel.outgoing_state();
    change(&mut state);
    state.sign(NETWORK, &key(payer))
}

#[test]
fn so_many_payments_wait_and_no_more() {
    let mut pair = Pair::open([100_000, 0]);
    let long = vec![0; PAYMENT_KEY_BYTES_MAX + 1];
    let payer = &mut pair.of(Side::A).channel;
    assert_eq!(payer.pay(payment(1), Some(long)), Err(PayError::KeyTooLong));
    payer.pay(payment(1), Some(vec![0; PAYMENT_KEY_BYTES_MAX])).unwrap();
    for _ in 1..limits::PAYMENTS_QUEUED_MAX {
        payer.pay(payment(1), None).unwrap();
    }
    assert_eq!(payer.pay(payment(1), None), Err(PayError::Full));
    assert_eq!(payer.queued(), limits::PAYMENTS_QUEUED_MAX);
    assert_eq!(payer.available(), amount(100_000 - 65_536), "what was refused is not counted");
}

#[test]
fn whoever_sees_the_channel_open_first_waits_for_the_other() {
    let mut pair = Pair { halves: Side::BOTH.map(|side| Half::new(side, [1_000, 0])), index: 1 };
    let view = LedgerView { index: 2, record: Some(pair.record(ChannelPhase::Open, [0, 0])), payouts: None };
    pair.of(Side::A).handle(vec![Input::Ledger(view), Input::Fresh(true)]).unwrap();
    pair.of(Side::B).handle(vec![Input::Fresh(true)]).unwrap();
    pair.connect();
    pair.of(Side::A).pay(10);
    pair.run();
    assert_eq!(pair.of(Side::A).channel.paused(), Some("the peer has not seen the channel open yet"));
    assert_eq!(pair.of(Side::B).channel.incoming().held, None);
    pair.see(ChannelPhase::Open);
    pair.run();
    assert_eq!((pair.of(Side::A).channel.paused(), pair.balances()), (None, [990, 10]));
}

#[test]
fn a_pause_says_why() {
    let mut pair = Pair::open([1_000, 0]);
    let paused = |reason| Input::Message(ChannelMessage::Paused { held_seq: 0, reason });
    let payer = pair.of(Side::A);
    assert!(payer.channel.is_fresh());
    assert_eq!(payer.channel.paused(), None);
    payer.handle(vec![Input::Fresh(false)]).unwrap();
    assert!(!payer.channel.is_fresh());
    assert_eq!(payer.channel.paused(), Some("the ledger has not been seen here for too long"));
    payer.handle(vec![paused(PauseReason::Closing)]).unwrap();
    assert_eq!(payer.channel.paused(), Some("the peer is closing the channel"));
    payer.handle(vec![Input::Doubt]).unwrap();
    let waits = "records were lost, and what was signed before may not have lapsed yet";
    assert_eq!(payer.channel.paused(), Some(waits));
}

/// A peer that asked for a signature while the ledger was out of sight here asks again when it hears this.
#[test]
fn the_stakes_are_told_again_once_the_ledger_is_in_sight_again() {
    let mut pair = Pair::open([1_000, 0]);
    let half = pair.of(Side::A);
    let stakes = half.channel.stakes();
    for (fresh, told) in [(true, false), (false, false), (false, false), (true, true), (true, false)] {
        half.handle(vec![Input::Fresh(fresh)]).unwrap();
        let said: Vec<_> = half.outbox.drain(..).collect();
        let wanted = if told { vec![ChannelMessage::Stakes(stakes)] } else { Vec::new() };
        assert_eq!(said, wanted, "{fresh}");
    }
}

#[test]
fn a_refusal_of_the_peer_ends_the_stream_with_its_words() {
    let mut pair = Pair::open([1_000, 0]);
    let refusal = Refusal::new(RefusalCode::UnknownChannel, "never heard of it");
    let message = Input::Message(ChannelMessage::Refuse(refusal));
    let refused = Err(Misbehaviour::Refused("never heard of it".to_owned()));
    assert_eq!(pair.of(Side::A).handle(vec![message.clone()]), refused);
    // Also before it has said where it stands; nothing else is heard then.
    pair.of(Side::A).handle(vec![Input::Disconnected, Input::Connected]).unwrap();
    assert_eq!(pair.of(Side::A).handle(vec![message.clone()]), refused);
    let ack = Input::Message(ChannelMessage::Ack { seq: 0 });
    assert_eq!(pair.of(Side::A).handle(vec![ack]), Err(Misbehaviour::NotEstablished));
    pair.of(Side::A).handle(vec![Input::Disconnected]).unwrap();
    assert_eq!(pair.of(Side::A).handle(vec![message]), Err(Misbehaviour::NotEstablished));
}

#[test]
fn what_changed_is_said_until_it_is_in_a_batch() {
    let mut pair = Pair::open([1_000, 0]);
    let channel = &mut pair.of(Side::A).channel;
    let marks: [fn(&mut Dirty); 8] = [
        |dirty| dirty.agreement = true,
        |dirty| dirty.phase = true,
        |dirty| dirty.outgoing = true,
        |dirty| dirty.incoming = true,
        |dirty| dirty.doubt = true,
        |dirty| dirty.locked = true,
        |dirty| dirty.acknowledge = true,
        |dirty| dirty.acknowledge_ticks = true,
    ];
    for mark in marks {
        assert!(!channel.has_changed());
        mark(&mut channel.dirty);
        assert!(channel.has_changed());
        channel.finish(&mut Effects::default());
    }
}

#[test]
fn each_phase_allows_its_ways_to_close() {
    let mut pair = Pair { halves: Side::BOTH.map(|side| Half::new(side, [1_000, 0])), index: 1 };
    let ways = |pair: &mut Pair| {
        let channel = &pair.of(Side::A).channel;
        (channel.may_close().is_ok(), channel.may_close_alone().is_ok(), channel.state())
    };
    assert_eq!(ways(&mut pair), (true, false, "opening"));
    pair.see(ChannelPhase::Open);
    pair.connect();
    assert_eq!(ways(&mut pair), (true, true, "open"));
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    assert_eq!(ways(&mut pair), (true, true, "closing"));
    pair.run();
    assert_eq!(ways(&mut pair), (true, true, "closing"));
    let together = pair.of(Side::A).channel.close_transaction_id();
    assert_eq!(together, Some(pair.of(Side::B).channel.wanted().unwrap().id()));
    pair.of(Side::A).handle(vec![Input::CloseAlone]).unwrap();
    assert_eq!(ways(&mut pair), (false, true, "closing"));
    let alone = pair.of(Side::A).channel.wanted().unwrap().id();
    assert_eq!(pair.of(Side::A).channel.close_transaction_id(), Some(alone));
    pair.see(ChannelPhase::Closing { closer: Side::A, deadline: 99 });
    assert_eq!(ways(&mut pair), (false, false, "contested"));
    assert_eq!(pair.of(Side::A).channel.close_transaction_id(), None);
    pair.see_record(None, None);
    assert_eq!(ways(&mut pair), (false, false, "closed"));
    assert_eq!(pair.of(Side::B).channel.close_transaction_id(), None);
    assert_eq!(pair.of(Side::A).channel.may_close(), Err(CommandError::Phase("closed")));
    // A view that shows it again changes nothing about that.
    let events = pair.of(Side::A).events.len();
    pair.see(ChannelPhase::Open);
    assert_eq!((ways(&mut pair), pair.of(Side::A).events.len()), ((false, false, "closed"), events));
    pair.of(Side::A).handle(vec![Input::CloseAlone, Input::Close, Input::Doubt]).unwrap();
    let channel = &pair.of(Side::A).channel;
    assert_eq!((channel.wanted(), channel.wants_close(), channel.doubt()), (None, true, None));
    assert_eq!(ways(&mut pair), (false, false, "closed"));

    let mut never = Pair { halves: Side::BOTH.map(|side| Half::new(side, [1_000, 0])), index: 50 };
    never.see_record(None, None);
    assert_eq!(ways(&mut never), (false, false, "lapsed"));
}

#[test]
fn if_both_wish_to_close_a_signs_first() {
    let mut pair = Pair::open([1_000, 0]);
    for side in Side::BOTH {
        pair.of(side).handle(vec![Input::Close]).unwrap();
    }
    for side in Side::BOTH {
        let request: Vec<Input> = pair.of(side).outbox.drain(..).map(Input::Message).collect();
        assert_eq!(request.len(), 1);
        pair.of(!side).handle(request).unwrap();
    }
    assert!(matches!(pair.of(Side::A).channel.phase, Phase::ClosingTogether { theirs: None, .. }));
    assert_eq!(pair.of(Side::B).channel.phase, Phase::Open);
    assert!(pair.of(Side::B).outbox.is_empty());
    pair.run();
    closed_by_both(&mut pair);
}

#[test]
fn a_close_that_the_peer_changes_after_it_was_signed_is_refused() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    pair.run();
    let close = closed_by_both(&mut pair);
    let signed = |close: CooperativeClose| {
        let essence = Essence::acting(NETWORK, Action::CooperativeClose(close));
        let signature = essence.unlock(&key(Side::B)).signature;
        Input::Message(ChannelMessage::CloseSigned { close, signature })
    };
    let changed = [
        CooperativeClose { payout_b: amount(1), payout_a: amount(999), ..close },
        CooperativeClose { expiry_milestone: close.expiry_milestone - 1, ..close },
    ];
    for wrong in changed {
        assert_eq!(pair.of(Side::A).handle(vec![signed(wrong)]), Err(Misbehaviour::WrongClose));
    }
    let later = CooperativeClose { expiry_milestone: close.expiry_milestone + 1, ..close };
    pair.of(Side::A).handle(vec![signed(close)]).unwrap();
    let again = pair.of(Side::A).outbox.drain(..).next();
    assert!(matches!(again, Some(ChannelMessage::CloseComplete { .. })), "the same again is answered again");
    pair.of(Side::A).handle(vec![Input::CloseAlone, signed(later)]).unwrap();
    assert_eq!(pair.of(Side::A).channel.phase, Phase::ClosingAlone, "of no interest any more");
}

#[test]
fn a_close_that_is_signed_again_before_the_other_side_sees_it_lapse_is_taken_then() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::B).handle(vec![Input::Close]).unwrap();
    pair.run();
    let first = closed_by_both(&mut pair);
    // The peer asks once more, as after a break: the same is said again, once, and another one follows should it lapse.
    let again = |pair: &mut Pair| {
        pair.of(Side::A).handle(vec![Input::Message(ChannelMessage::CloseRequest)]).unwrap();
        pair.of(Side::A).outbox.drain(..).collect::<Vec<_>>()
    };
    assert_eq!(again(&mut pair), [], "both have signed it");

    // It is not applied. A sees that first and signs another one, which B passes over.
    pair.index = first.expiry_milestone + 1;
    let record = Some(pair.record(ChannelPhase::Open, [0, 0]));
    let view = LedgerView { index: pair.index, record, payouts: None };
    pair.of(Side::A).handle(vec![Input::Ledger(view)]).unwrap();
    let signed: Vec<_> = pair.of(Side::A).outbox.drain(..).collect();
    assert!(matches!(signed[..], [ChannelMessage::CloseSigned { .. }]), "{signed:?}");
    pair.of(Side::B).handle(signed.iter().cloned().map(Input::Message).collect()).unwrap();
    assert!(pair.of(Side::B).outbox.is_empty());
    assert!(matches!(pair.of(Side::B).channel.phase, Phase::ClosingTogether { close, .. } if close == first));

    // B sees it, too, and asks: it is told again, at once, but not as often as it asks.
    assert_eq!(again(&mut pair), signed);
    assert_eq!(again(&mut pair), []);
    pair.of(Side::B).handle(vec![Input::Ledger(view)]).unwrap();
    assert!(matches!(pair.of(Side::B).outbox.front(), Some(ChannelMessage::CloseRequest)));
    pair.of(Side::B).handle(signed.into_iter().map(Input::Message).collect()).unwrap();
    pair.run();
    assert!(closed_by_both(&mut pair).expiry_milestone > first.expiry_milestone);
}

#[test]
fn records_that_make_no_sense_together_are_not_used() {
    let mut pair = Pair::open([1_000, 500]);
    let id = pair.halves[0].channel.id;
    let too_much = balance_of(Side::B, |state| (state.seq, state.cumulative) = (1, amount(501)), &pair);
    let store = pair.of(Side::A).store.snapshot();
    let mut batch = Batch::new();
    let incoming = Incoming { held: Some(too_much), ..Incoming::default() };
    tables::put_incoming(&mut batch, id, &incoming);
    let _ = store.commit(&batch).unwrap();
    let error = Channel::load(id, |_| key(Side::A), &store).unwrap_err();
    assert!(error.to_string().contains("balances make no sense"), "{error}");
}

#[test]
fn doubt_while_connected_stops_payments_both_ways_until_all_has_lapsed() {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::A).pay(10);
    pair.of(Side::A).handle(vec![Input::Doubt, Input::Doubt]).unwrap();
    assert_eq!(pair.of(Side::A).events.last(), Some(&ChannelEvent::NotMade { payments: 1 }));
    pair.of(Side::B).pay(20);
    pair.run();
    let why = pair.of(Side::B).channel.paused();
    assert_eq!(why, Some("the peer has lost records and waits for what it had signed to lapse"));
    assert!(pair.of(Side::A).channel.balances_known(), "the peer has shown them on this stream");
    assert_eq!(pair.of(Side::A).channel.incoming().held, None);
    pair.of(Side::A).restart();
    assert!(pair.of(Side::A).channel.doubt().is_some(), "it is on the disk");
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.wait();
    assert_eq!(pair.balances(), [1_020, 480]);
    // Nobody doubts any more: to trust says nothing.
    pair.of(Side::A).handle(vec![Input::Trust]).unwrap();
    assert_eq!(pair.of(Side::A).channel.doubt(), None);
}

#[test]
fn a_peer_that_shows_another_body_of_this_sides_is_refused() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let other = balance_of(Side::A, |state| state.cumulative = amount(11), &pair);
    let standing = flash_proto::message::Reestablish {
        signed: None,
        signed_ticks: None,
        held: Some(other),
        held_ticks: None,
        stakes: pair.of(Side::B).channel.stakes(),
    };
    let shown = Input::Message(ChannelMessage::Reestablish(Box::new(standing)));
    let half = pair.of(Side::A);
    half.handle(vec![Input::Disconnected, Input::Connected]).unwrap();
    assert_eq!(half.handle(vec![shown]), Err(Misbehaviour::OwnTwoBodies(1)));
    assert_eq!(half.balance(), 990);
}

#[test]
fn what_a_watchtower_shows_is_taken_only_in_need_and_only_if_it_is_more() {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::B).pay(100);
    pair.run();
    let newer = balance_of(Side::B, |state| (state.seq, state.cumulative) = (2, amount(150)), &pair);
    let less = balance_of(Side::B, |state| (state.seq, state.cumulative) = (3, amount(149)), &pair);
    let shown = |held| vec![Input::Shown { held: Box::new(held), ticks: None }];
    pair.of(Side::A).handle(shown(newer)).unwrap();
    assert_eq!(pair.of(Side::A).channel.incoming().total(), amount(100), "nothing was lost here");
    pair.lose(Side::A);
    pair.of(Side::A).handle(shown(newer)).unwrap();
    assert_eq!(pair.of(Side::A).channel.incoming().total(), amount(150));
    let refused = Misbehaviour::Cumulative { got: amount(149), wanted: amount(150) };
    assert_eq!(pair.of(Side::A).handle(shown(less)), Err(refused));
    // Another body under the number that is held, with ticks so that it seems newer.
    let mut chain = flash_proto::TickChain::new(Hash::new([7; 32]), amount(1), 5).unwrap();
    let ticking = |state: &mut LaneState| {
        (state.seq, state.cumulative, state.ticks) = (2, amount(150), chain.terms());
    };
    let other = balance_of(Side::B, ticking, &pair);
    let ticked = Input::Shown { held: Box::new(other), ticks: chain.reveal(1) };
    assert_eq!(pair.of(Side::A).handle(vec![ticked]), Err(Misbehaviour::TwoBodies(2)));
    assert_eq!(pair.of(Side::A).channel.incoming().held, Some(newer));
}

/// The payer knows already that its withdraw has lapsed, and spends what comes back; the payee does not.
#[test]
fn ticks_and_balances_wait_for_the_view_that_explains_them() {
    for by_tick in [true, false] {
        let mut pair = Pair::open([100, 0]);
        pair.of(Side::A).handle(vec![Input::Withdraw { amount: amount(60), left_min: amount(2) }]).unwrap();
        pair.run();
        assert_eq!(pair.of(Side::B).channel.balances(), Balances::of_payouts(amount(40), amount(0)));
        pair.of(Side::A).channel.tick(amount(10), 4, None).unwrap();
        pair.run();
        let open = pair.record(ChannelPhase::Open, [0, 0]);
        let lapsed = LedgerView { index: pair.index + 100, record: Some(open), payouts: None };
        pair.of(Side::A).handle(vec![Input::Ledger(lapsed)]).unwrap();
        pair.of(Side::A).outbox.clear();
        let ahead = pair.of(Side::A).channel.stakes();
        pair.of(Side::A).channel.stated = Some(ahead); // so that it pays from it at once
        let more = if by_tick {
            pair.of(Side::A).channel.tick(amount(10), 1, None).unwrap();
            pair.of(Side::A).handle(Vec::new()).unwrap();
            pair.of(Side::A).outbox.pop_front().unwrap()
        } else {
            let total = |state: &mut LaneState| (state.seq, state.cumulative) = (9, amount(50));
            ChannelMessage::Balance(Box::new(balance_of(Side::A, total, &pair)))
        };
        let half = pair.of(Side::B);
        half.handle(vec![Input::Message(more.clone())]).unwrap();
        assert_eq!(half.channel.incoming().total(), amount(40), "not taken yet");
        half.handle(vec![Input::Ledger(lapsed), Input::Message(more)]).unwrap();
        assert_eq!(half.channel.incoming().total(), amount(50));
    }
}

#[test]
fn a_close_is_not_signed_while_a_change_of_this_side_is_under_way() {
    for changing in [true, false] {
        let mut pair = Pair::open([1_000, 500]);
        let half = pair.of(Side::A);
        let transfer = Essence { action: Action::Transfer, ..half.channel.close_essence(close(half, 30)) };
        assert_eq!(half.channel.may_top_up(&transfer), Err(CommandError::NotThisTopUp));
        if changing {
            let top_up = Action::TopUp(TopUp { channel: half.channel.id, ..TOP_UP });
            let essence = Box::new(Essence::acting(NETWORK, top_up));
            half.handle(vec![Input::TopUp { essence, unlocks: Vec::new() }]).unwrap();
        }
        let close = close(half, 30);
        let signature = half.channel.close_essence(close).unlock(&key(Side::B)).signature;
        let signed = Input::Message(ChannelMessage::CloseSigned { close, signature });
        half.handle(vec![Input::Close, signed]).unwrap();
        let together = matches!(half.channel.phase, Phase::ClosingTogether { .. });
        assert_eq!(together, !changing, "it would pay out without what was added");
    }
}

const TOP_UP: TopUp =
    TopUp { channel: ChannelId::new([0; 32]), side: Side::A, amount: Amount::new(50), expiry_milestone: 90 };

/// The close of a channel without payments.
fn close(half: &Half, expiry_milestone: u64) -> CooperativeClose {
    CooperativeClose {
        channel: half.channel.id,
        final_seq_a: 0,
        final_seq_b: 0,
        payout_a: amount(1_000),
        payout_b: amount(500),
        expiry_milestone,
    }
}

#[test]
fn an_unknown_signature_before_the_ledger_was_seen_says_nothing_new_to_who_doubts() {
    let mut pair = Pair::open([1_000, 500]);
    let then = pair.of(Side::A).store.snapshot();
    pair.of(Side::A).pay(10);
    pair.run();
    let half = pair.of(Side::A);
    half.store = then;
    half.restart();
    half.handle(vec![Input::Doubt]).unwrap();
    half.events.clear();
    pair.connect();
    assert_eq!(pair.balances(), [990, 510]);
    let half = pair.of(Side::A);
    assert_eq!(half.channel.doubt().map(|doubt| (doubt.known, doubt.until)), Some((Known::Balances, None)));
    let told = half.events.iter().any(|event| matches!(event, ChannelEvent::OldRecords { .. }));
    assert!(!told, "the user was told when the doubt began");
}

#[test]
fn so_many_receipts_are_waited_for_and_the_oldest_is_forgotten() {
    let mut pair = Pair::open([1_000, 0]);
    let mut states = Vec::new();
    for _ in 0..=64 {
        pair.of(Side::A).pay(1);
        pair.run();
        states.push(pair.of(Side::A).channel.outgoing_state());
    }
    let asked = states.iter().map(|state| Input::AskReceipt(Box::new(*state))).collect();
    pair.of(Side::A).handle(asked).unwrap();
    let seqs: Vec<u64> = pair.of(Side::A).channel.asked.keys().copied().collect();
    assert_eq!(seqs, (2..=65).collect::<Vec<_>>());
}

#[test]
fn only_channels_in_use_are_put_in_doubt() {
    let mut pair = Pair::open([1_000, 0]);
    let in_doubt = |half: &Half| {
        let mut batch = Batch::new();
        tables::put_all_in_doubt(&half.store, &mut batch).unwrap();
        !batch.is_empty()
    };
    assert!(in_doubt(pair.of(Side::A)));
    pair.see_record(None, None);
    assert!(!in_doubt(pair.of(Side::A)));
    let makes = |table: &&crate::store::Table| tables::makes_channel(table.id());
    assert_eq!(tables::BACKED_UP.iter().filter(makes).count(), 1, "one record says that there is a channel");
}
