//! What is refused, what is passed over, and what is known after a loss.

use super::*;

/// A channel in which B has taken out more than it locked.
fn used() -> World {
    let mut world = World::new();
    world.pair.of(Side::A).pay(400);
    world.input(Side::A, Vec::new());
    world.drain();
    world.input(Side::B, vec![withdraw(800)]);
    world.drain();
    assert_eq!((world.taken, world.pair.balances()), ([0, 800], [600, 100]));
    world
}

#[test]
fn what_was_received_can_be_taken_out_and_comes_back_by_paying() {
    let mut world = used();
    let stake = world.channel(Side::A).stakes().b;
    assert_eq!((stake.deposit, stake.withdrawn), (amount(500), amount(800)), "more than it locked");
    world.pair.of(Side::A).pay(600);
    world.input(Side::A, Vec::new());
    world.drain();
    world.input(Side::B, vec![withdraw(650)]);
    world.drain();
    assert_eq!((world.taken, world.pair.balances()), ([0, 1_450], [0, 50]));
    check_end(&mut world, "taken out twice");
}

#[test]
fn what_is_signed_to_be_taken_out_cannot_be_paid() {
    let mut world = World::new();
    world.censored = true;
    world.change(Side::A, Change::Withdraw);
    let refused = world.pair.of(Side::A).channel.pay(payment(801), None);
    assert_eq!(refused, Err(PayError::Insufficient { amount: amount(801), available: amount(800) }));
    // The same from a payer that does not keep to it.
    world.deliver(8);
    let mut list = PaymentList::new();
    list.push(&payment(801)).unwrap();
    let state = world.channel(Side::A).outgoing_state().advance(&list).unwrap();
    let signature = state.sign(NETWORK, &key(Side::A)).signature;
    let update =
        Update { seq: state.seq, cumulative: state.cumulative, payments: list, ticks: None, signature };
    let message = Input::Message(ChannelMessage::Update(update));
    world.input(Side::B, vec![message.clone()]);
    assert_eq!(world.channel(Side::B).incoming_seq(), 0, "not taken while the withdraw may be applied");
    assert_eq!(world.channel(Side::B).paused(), None);
    assert!(matches!(world.pair.of(Side::B).outbox.pop_front(), Some(ChannelMessage::Paused { .. })));
    // Once it has lapsed the same payment is rightly made.
    world.pair.index += WITHDRAW_EXPIRY_MILESTONES;
    world.milestone();
    world.input(Side::B, vec![message]);
    assert_eq!(world.channel(Side::B).incoming_seq(), 1);
}

#[test]
fn commands_are_refused_with_the_reason() {
    let mut world = World::new();
    let may = |world: &World, units, left| {
        world.channel(Side::A).may_withdraw(amount(units), amount(left)).map_err(|error| error.to_string())
    };
    assert_eq!(may(&world, 1_000, 500), Ok(()));
    assert!(may(&world, 1_001, 2).unwrap_err().contains("cannot be taken out"));
    assert!(may(&world, 0, 2).is_err(), "nothing");
    assert!(may(&world, 1_000, 501).unwrap_err().contains("close it instead"));
    world.input(Side::A, vec![Input::Fresh(false)]);
    assert!(may(&world, 1, 2).unwrap_err().contains("seen"));
    world.input(Side::A, vec![Input::Fresh(true)]);
    world.change(Side::A, Change::Withdraw);
    assert!(may(&world, 1, 2).unwrap_err().contains("under way"));
    world.drain();
    world.disconnect();
    assert!(may(&world, 1, 2).unwrap_err().contains("not connected"));
    // To lock more nobody else is needed, but it must be this side of this channel.
    let Input::TopUp { essence, .. } = top_up(world.channel(Side::B), 5, 99, 1) else { panic!() };
    assert_eq!(world.channel(Side::B).may_top_up(&essence), Ok(()));
    assert_eq!(world.channel(Side::A).may_top_up(&essence), Err(CommandError::NotThisTopUp));
    world.input(Side::A, vec![Input::Close]);
    assert!(may(&world, 1, 2).unwrap_err().contains("closing"));
}

#[test]
fn wrong_withdraws_are_refused_and_those_that_cannot_be_signed_now_passed_over() {
    let mut world = World::new();
    let seen = world.pair.index;
    let right = Withdraw {
        channel: world.channel(Side::A).id,
        side: Side::A,
        amount: amount(100),
        total: amount(100),
        expiry_milestone: seen + 120,
    };
    let wrong = [
        Withdraw { channel: ChannelId::new([9; 32]), ..right },
        Withdraw { side: Side::B, ..right },
        Withdraw { amount: Amount::ZERO, ..right },
        Withdraw { total: amount(99), ..right },
        Withdraw { expiry_milestone: seen + 121, ..right },
        Withdraw { amount: amount(1_001), total: amount(1_001), ..right },
    ];
    let passed_over =
        [Withdraw { total: amount(101), ..right }, Withdraw { expiry_milestone: seen, ..right }];
    let message = |withdraw: Withdraw, signer: Side| {
        let essence = Essence::acting(NETWORK, Action::Withdraw(withdraw));
        let signature = essence.unlock(&key(signer)).signature;
        Input::Message(ChannelMessage::WithdrawSigned { withdraw, signature })
    };
    let all = wrong.map(|it| (it, Side::A, true)).into_iter().chain([(right, Side::B, true)]);
    for (withdraw, signer, refused) in all.chain(passed_over.map(|it| (it, Side::A, false))) {
        let result = world.pair.of(Side::B).handle(vec![message(withdraw, signer)]);
        assert_eq!(result.is_err(), refused, "{withdraw:?}");
        assert_eq!(world.channel(Side::B).locked.withdraw_a, None, "{withdraw:?}");
        assert!(world.pair.of(Side::B).outbox.is_empty(), "{withdraw:?}");
    }
    for _ in 0..2 {
        world.input(Side::B, vec![message(right, Side::A)]);
        assert_eq!(world.channel(Side::B).stakes().a.withdrawn, amount(100), "counted once");
    }
    let foreign =
        ChannelMessage::WithdrawComplete { withdraw: right, signature: key(Side::A).sign(&Hash::ZERO) };
    world.input(Side::A, vec![Input::Message(foreign.clone())]); // of nothing that was asked for
    world.change(Side::A, Change::Withdraw);
    let asked = world.channel(Side::A).locked.withdraw_a.clone().unwrap();
    let ChannelMessage::WithdrawComplete { signature, .. } = foreign else { panic!() };
    let forged = ChannelMessage::WithdrawComplete { withdraw: asked.withdraw, signature };
    assert_eq!(world.pair.of(Side::A).handle(vec![Input::Message(forged)]), Err(Misbehaviour::Signature));
    assert_eq!(world.channel(Side::A).wanted(), None);
}

/// A close as A signs it once B has asked.
fn signed_close(world: &mut World, change: impl Fn(&mut CooperativeClose)) -> Input {
    let request = world.pair.of(Side::B).outbox.drain(..).map(Input::Message).collect();
    world.input(Side::A, request);
    let signed = world.pair.of(Side::A).outbox.drain(..).find_map(|message| match message {
        ChannelMessage::CloseSigned { close, .. } => Some(close),
        _ => None,
    });
    let mut close = signed.unwrap();
    change(&mut close);
    let essence = Essence::acting(NETWORK, Action::CooperativeClose(close));
    let signature = essence.unlock(&key(Side::A)).signature;
    Input::Message(ChannelMessage::CloseSigned { close, signature })
}

#[test]
fn a_close_that_would_be_valid_for_too_long_is_refused() {
    let mut world = World::new();
    world.input(Side::B, vec![Input::Close]);
    let far = world.pair.index + 2 * CLOSE_EXPIRY_MILESTONES + 1;
    let close = signed_close(&mut world, |close| close.expiry_milestone = far);
    let refused = world.pair.of(Side::B).handle(vec![close]);
    assert_eq!(refused, Err(Misbehaviour::Expiry { got: far, max: far - 1 }));
    assert_eq!(world.channel(Side::B).phase, Phase::Open);
}

/// Only a peer that sees more of the ledger can sign so; it is asked again when that is seen here, too.
#[test]
fn a_close_by_a_view_that_is_ahead_is_signed_once_this_side_has_seen_as_much() {
    let mut world = World::new();
    world.input(Side::B, vec![Input::Close]);
    let close = signed_close(&mut world, |_| {});
    // B believes that A has taken out 100 that A knows to have lapsed.
    let expiry_milestone = world.pair.index + 1;
    let (channel, amount) = (world.channel(Side::B).id, amount(100));
    let withdraw = Withdraw { channel, side: Side::A, amount, total: amount, expiry_milestone };
    let signature = key(Side::A).sign(&Hash::ZERO);
    world.pair.of(Side::B).channel.locked.withdraw_a =
        Some(Box::new(PendingWithdraw { withdraw, taker: signature, other: Some(signature) }));
    world.input(Side::B, vec![close]);
    assert_eq!(world.channel(Side::B).phase, Phase::Open, "neither signed nor refused");
    world.censored = true;
    world.milestone();
    world.milestone();
    world.deliver(8);
    assert!(matches!(world.channel(Side::A).phase, Phase::ClosingTogether { theirs: Some(_), .. }));
    world.drain();
    check_end(&mut world, "closed");
}

/// The old records do not know how the money was received that was taken out since.
#[test]
fn a_side_that_lost_its_records_signs_nothing_before_the_peer_has_shown_what_explains_the_ledger() {
    for loser in Side::BOTH {
        let mut world = World::new();
        let old = world.pair.of(loser).store.snapshot();
        world.pair.of(!loser).pay(450);
        world.input(!loser, Vec::new());
        world.drain();
        let all = world.channel(loser).available().units();
        world.input(loser, vec![withdraw(all - 3)]);
        world.drain();
        let half = world.pair.of(loser);
        half.store = old;
        half.restart();
        world.disconnect();
        world.see(loser);
        assert!(world.channel(loser).locked.unexplained);
        assert!(world.channel(loser).paused().unwrap().contains("until the peer has shown"));
        world.pair.of(loser).restart();
        world.drain();
        assert!(!world.channel(loser).locked.unexplained);
        check_end(&mut world, "lost");
    }
}

#[test]
fn a_channel_that_was_found_again_counts_what_was_taken_out() {
    for holds_back in [false, true] {
        let mut world = used();
        let lost = agreement(Side::B, DEPOSITS);
        let channel = lost.channel();
        let origin = Origin::Found { channel, withdrawn_a: Amount::ZERO, withdrawn_b: amount(800) };
        let mut effects = Effects::default();
        let channel = Channel::new(Agreement { origin, ..lost }, key(Side::B), &mut effects);
        let (store, outbox) = (MemoryStore::new(), VecDeque::new());
        *world.pair.of(Side::B) = Half { channel, store, outbox, events: Vec::new() };
        world.pair.of(Side::B).perform(effects);
        world.disconnect();
        world.see(Side::B);
        if holds_back {
            let stakes = world.channel(Side::A).stakes();
            let standing = flash_proto::message::Reestablish {
                signed: None,
                signed_ticks: None,
                held: None,
                held_ticks: None,
                stakes,
            };
            let message = ChannelMessage::Reestablish(Box::new(standing));
            let result = world.pair.of(Side::B).handle(vec![Input::Connected, Input::Message(message)]);
            assert_eq!(result, Err(Misbehaviour::HeldBack), "what was taken out must have been paid by it");
            assert!(!world.channel(Side::B).balances_known());
            continue;
        }
        world.connect();
        world.deliver(8);
        assert_eq!(world.pair.balances(), [600, 100]);
        assert!(world.channel(Side::B).may_withdraw(amount(1), amount(2)).is_err());
        world.input(Side::B, vec![Input::Close]);
        world.drain();
        assert_eq!(world.paid_out, Some([600, 100]));
    }
}
