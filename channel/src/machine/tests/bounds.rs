//! What is taken and what is not, at the very bound.

use flash_proto::{message::Reestablish, transaction::Withdraw};

use super::{
    edges::balance_of,
    stakes::{top_up, withdraw},
    *,
};

/// What `side` says of where it stands.
fn standing(pair: &mut Pair, side: Side) -> Box<Reestablish> {
    let channel = &pair.of(side).channel;
    Box::new(Reestablish {
        signed: channel.outgoing().signed,
        signed_ticks: None,
        held: channel.incoming().held,
        held_ticks: None,
        stakes: channel.stakes(),
    })
}

fn says(standing: Box<Reestablish>) -> Vec<Input> {
    vec![Input::Disconnected, Input::Connected, Input::Message(ChannelMessage::Reestablish(standing))]
}

#[test]
fn what_was_under_way_at_a_break_comes_as_the_payment_that_it_was() {
    let mut pair = Pair::open([1_000, 0]);
    for (units, payments) in [(10, 1), (20, 2)] {
        pair.of(Side::A).pay(units);
        pair.of(Side::A).handle(Vec::new()).unwrap();
        pair.connect();
        assert_eq!(pair.of(Side::B).channel.incoming().payments, payments);
    }
    assert_eq!(pair.balances(), [970, 30]);
}

#[test]
fn an_own_balance_that_the_peer_shows_must_be_signed_here() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let newer = balance_of(Side::A, |state| (state.seq, state.cumulative) = (2, amount(900)), &pair);
    let forged = SignedBalance { signature: newer.state.sign(NETWORK, &key(Side::B)).signature, ..newer };
    let foreign = balance_of(Side::A, |state| state.channel = ChannelId::new([5; 32]), &pair);
    let peers = balance_of(Side::A, |state| state.payer = Side::B, &pair);
    let good = standing(&mut pair, Side::B);
    for (held, wrong) in
        [(forged, Misbehaviour::Signature), (foreign, Misbehaviour::Terms), (peers, Misbehaviour::Terms)]
    {
        let shown = says(Box::new(Reestablish { held: Some(held), ..*good }));
        assert_eq!(pair.of(Side::A).handle(shown), Err(wrong));
        assert_eq!((pair.of(Side::A).balance(), pair.of(Side::A).channel.doubt()), (990, None));
    }
}

/// Such as one that only began a chain of ticks.
#[test]
fn a_later_own_balance_that_pays_no_more_is_learnt_as_well() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let newer = balance_of(Side::A, |state| state.seq = 2, &pair);
    let mut shown = standing(&mut pair, Side::B);
    shown.held = Some(newer);
    pair.of(Side::A).handle(says(shown)).unwrap();
    let half = pair.of(Side::A);
    assert_eq!((half.channel.outgoing().signed, half.balance()), (Some(newer), 990));
}

#[test]
fn whose_lane_was_learnt_again_is_told() {
    let mut pair = Pair::open([1_000, 500]);
    let then = pair.of(Side::A).store.snapshot();
    pair.of(Side::A).pay(10);
    pair.run();
    pair.of(Side::B).pay(20);
    pair.run();
    let half = pair.of(Side::A);
    half.store = then;
    half.restart();
    half.events.clear();
    pair.see(ChannelPhase::Open);
    pair.connect();
    let learnt: Vec<_> = pair
        .of(Side::A)
        .events
        .iter()
        .filter(|event| matches!(event, ChannelEvent::Recovered { .. }))
        .collect();
    let recovered = |payer, units| ChannelEvent::Recovered { payer, cumulative: amount(units) };
    assert_eq!(learnt, [&recovered(Side::A, 10), &recovered(Side::B, 20)]);
}

#[test]
fn what_was_taken_over_is_told_and_acknowledged_if_the_peer_can_hear_it() {
    for connected in [false, true] {
        let mut pair = Pair::open([1_000, 500]);
        pair.of(Side::B).pay(100);
        pair.run();
        let kept = pair.of(Side::A).channel.incoming().held.unwrap();
        pair.lose(Side::A);
        let half = pair.of(Side::A);
        if connected {
            half.handle(vec![Input::Connected]).unwrap();
        }
        (half.events, half.outbox) = (Vec::new(), VecDeque::new());
        half.handle(vec![Input::Shown { held: Box::new(kept), ticks: None }]).unwrap();
        let recovered = ChannelEvent::Recovered { payer: Side::B, cumulative: amount(100) };
        assert_eq!(half.events, [recovered]);
        let acknowledged = half.outbox.contains(&ChannelMessage::Ack { seq: 1 });
        assert_eq!(acknowledged, connected);
        // The same again is nothing new.
        (half.events, half.outbox) = (Vec::new(), VecDeque::new());
        half.handle(vec![Input::Shown { held: Box::new(kept), ticks: None }]).unwrap();
        assert_eq!((half.events.len(), half.outbox.len()), (0, 0));
    }
}

#[test]
fn what_a_watchtower_shows_is_not_taken_once_the_peer_has_shown_where_it_stands() {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::B).pay(100);
    pair.run();
    pair.lose(Side::A);
    pair.connect();
    assert!(pair.of(Side::A).channel.doubt().is_some() && pair.of(Side::A).channel.balances_known());
    let newer = balance_of(Side::B, |state| (state.seq, state.cumulative) = (2, amount(150)), &pair);
    pair.of(Side::A).handle(vec![Input::Shown { held: Box::new(newer), ticks: None }]).unwrap();
    assert_eq!(pair.of(Side::A).channel.incoming().total(), amount(100));
}

#[test]
fn a_balance_without_its_payments_may_pay_nothing_and_waits_for_a_young_view() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).pay(10);
    pair.run();
    let as_much = balance_of(Side::A, |state| state.seq = 2, &pair);
    let more = balance_of(Side::A, |state| (state.seq, state.cumulative) = (3, amount(11)), &pair);
    let shown = |balance| Input::Message(ChannelMessage::Balance(Box::new(balance)));
    let half = pair.of(Side::B);
    half.handle(vec![shown(as_much)]).unwrap();
    assert_eq!(half.channel.incoming().held, Some(as_much));
    half.handle(vec![Input::Fresh(false), shown(more)]).unwrap();
    assert_eq!(half.channel.incoming().held, Some(as_much), "the ledger is out of sight");
    half.handle(vec![Input::Fresh(true), shown(more)]).unwrap();
    assert_eq!(half.channel.incoming().held, Some(more));
}

#[test]
fn what_a_watchtower_shows_may_pay_no_more_if_it_is_later() {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::B).pay(100);
    pair.run();
    let kept = pair.of(Side::A).channel.incoming().held.unwrap();
    let later = balance_of(Side::B, |state| state.seq = 2, &pair);
    pair.lose(Side::A);
    for held in [kept, later] {
        pair.of(Side::A).handle(vec![Input::Shown { held: Box::new(held), ticks: None }]).unwrap();
        assert_eq!(pair.of(Side::A).channel.incoming().held, Some(held));
    }
}

#[test]
fn ticks_that_an_update_folds_at_once_need_no_word_of_their_own() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).channel.tick(amount(5), 2, None).unwrap();
    pair.run();
    pair.of(Side::A).channel.tick(amount(5), 3, None).unwrap();
    pair.of(Side::A).handle(Vec::new()).unwrap();
    pair.of(Side::A).pay(7);
    pair.of(Side::A).handle(Vec::new()).unwrap();
    let said: Vec<Input> = pair.of(Side::A).outbox.drain(..).map(Input::Message).collect();
    assert_eq!(said.len(), 2, "a tick, and an update: {said:?}");
    pair.of(Side::B).handle(said).unwrap();
    assert_eq!(pair.of(Side::B).outbox, [ChannelMessage::Ack { seq: 2 }]);
    pair.run();
    assert_eq!(pair.balances(), [968, 32]);
}

/// The secret of a chain is in no record.
#[test]
fn a_chain_that_was_begun_in_an_earlier_life_ends_with_the_next_update() {
    let mut pair = Pair::open([1_000, 0]);
    pair.of(Side::A).channel.tick(amount(5), 2, None).unwrap();
    pair.run();
    pair.of(Side::A).restart();
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.of(Side::A).pay(1);
    pair.run();
    assert_eq!(
        pair.of(Side::B).channel.incoming().held.unwrap().state.ticks,
        flash_proto::ticks::TickTerms::NONE
    );
    assert_eq!(pair.balances(), [989, 11]);
}

#[test]
fn an_older_view_changes_nothing_and_the_same_milestone_may_tell_more() {
    let mut pair = Pair::open([1_000, 0]);
    let at = pair.index;
    let half = pair.of(Side::A);
    let gone = |index| LedgerView { index, record: None, payouts: None };
    let later =
        LedgerView { index: at + 5, record: Some(ChannelRecord::opened(&open([1_000, 0]))), payouts: None };
    half.handle(vec![Input::Ledger(later)]).unwrap();
    // Newer than all that is written down, and older than what was seen.
    half.handle(vec![Input::Ledger(gone(at + 4))]).unwrap();
    assert_eq!((&half.channel.phase, half.channel.seen), (&Phase::Open, Some(at + 5)));
    half.handle(vec![Input::Ledger(gone(at + 5))]).unwrap();
    assert!(matches!(half.channel.phase, Phase::Closed { .. }));
}

#[test]
fn the_past_is_let_go_of_after_a_restart_as_before() {
    let rule = HistoryRule { keep: 4, receipt_every: 0 };
    let mut pair = Pair::open([1_000, 0]);
    for restarts in [false, true] {
        for _ in 0..40 {
            if restarts {
                for half in &mut pair.halves {
                    half.restart();
                }
                pair.see(ChannelPhase::Open);
                pair.connect();
            }
            for half in &mut pair.halves {
                half.channel.set_history(rule);
            }
            pair.of(Side::A).pay(1);
            pair.run();
        }
        let last = pair.of(Side::A).channel.outgoing_seq();
        let id = pair.of(Side::A).channel.id;
        for (side, lane) in [(Side::A, tables::Lane::Own), (Side::B, tables::Lane::Peers)] {
            let half = pair.of(side);
            let kept: Vec<u64> = (1..=last)
                .filter(|seq| tables::kept(&half.store, id, lane, *seq).unwrap().is_some())
                .collect();
            let oldest = last - 3;
            assert_eq!(kept, (oldest..=last).collect::<Vec<_>>(), "{side}, {restarts}");
            let pruned = side.pick(half.channel.history.pruned_own, half.channel.history.pruned_peers);
            assert_eq!(pruned, oldest - 1, "{side}, {restarts}");
        }
    }
}

#[test]
fn without_a_history_the_payee_writes_no_payment_down() {
    let mut written = Vec::new();
    for keep in [0, 1] {
        let mut pair = Pair::open([1_000, 0]);
        let rule = HistoryRule { keep, receipt_every: 0 };
        pair.of(Side::B).channel.set_history(rule);
        pair.of(Side::A).pay(1);
        pair.of(Side::A).handle(Vec::new()).unwrap();
        let update = pair.of(Side::A).outbox.pop_front().unwrap();
        let mut effects = Effects::default();
        pair.of(Side::B).channel.handle(Input::Message(update), &mut effects).unwrap();
        pair.of(Side::B).channel.finish(&mut effects);
        written.push(effects.batch.len());
    }
    // The lane, and without a history the removal of what another rule may have left.
    assert_eq!(written, [2, 2]);
}

#[test]
fn what_waits_is_signed_once_both_count_enough() {
    let mut pair = Pair::open([1_000, 0]);
    let stakes = pair.of(Side::A).channel.stakes();
    let mut less = stakes;
    less.a.deposit = amount(599);
    let half = pair.of(Side::A);
    half.pay(600);
    half.handle(vec![Input::Message(ChannelMessage::Stakes(less))]).unwrap();
    assert_eq!((half.outbox.len(), half.channel.payments_waiting()), (0, 1));
    less.a.deposit = amount(600);
    half.handle(vec![Input::Message(ChannelMessage::Stakes(less))]).unwrap();
    assert!(matches!(half.outbox.front(), Some(ChannelMessage::Update(_))));

    let waits: [fn(&mut Channel); 2] =
        [|channel| channel.behind = true, |channel| channel.locked.unexplained = true];
    for wait in waits {
        let mut pair = Pair::open([1_000, 0]);
        let half = pair.of(Side::A);
        half.pay(1);
        wait(&mut half.channel);
        assert!(!half.channel.queue_is_covered(), "the view of the ledger does not explain what there is");
    }
}

#[test]
fn a_top_up_is_under_way_until_the_ledger_shows_more_or_it_has_lapsed() {
    for (deposit, later, under_way) in
        [(1_000, 10, true), (1_050, 10, false), (1_000, 90, true), (1_000, 91, false)]
    {
        let mut pair = Pair::open([1_000, 0]);
        let half = pair.of(Side::A);
        half.handle(vec![top_up(&half.channel, 50, 90, 1)]).unwrap();
        assert!(half.channel.changes_stake());
        let record = ChannelRecord::opened(&open([deposit, 0]));
        let view = LedgerView { index: later, record: Some(record), payouts: None };
        half.handle(vec![Input::Ledger(view)]).unwrap();
        assert_eq!(half.channel.changes_stake(), under_way, "{deposit} at {later}");
    }
}

/// A withdraw of 200 that A has signed, on its way to B.
fn withdraw_signed(pair: &mut Pair) -> (Withdraw, Input) {
    pair.of(Side::A).handle(vec![withdraw(200)]).unwrap();
    let mut messages = pair.of(Side::A).outbox.drain(..);
    let signed = messages.rfind(|it| matches!(it, ChannelMessage::WithdrawSigned { .. })).unwrap();
    let ChannelMessage::WithdrawSigned { withdraw, .. } = signed else { panic!("{signed:?}") };
    (withdraw, Input::Message(signed))
}

#[test]
fn both_bring_a_withdraw_to_the_ledger_and_only_the_one_that_was_asked_for() {
    let mut pair = Pair::open([1_000, 500]);
    let (withdraw, signed) = withdraw_signed(&mut pair);
    let complete = |withdraw: Withdraw| {
        let essence = Essence::acting(NETWORK, Action::Withdraw(withdraw));
        let signature = essence.unlock(&key(Side::B)).signature;
        Input::Message(ChannelMessage::WithdrawComplete { withdraw, signature })
    };
    let other = Withdraw { amount: amount(100), total: amount(100), ..withdraw };
    pair.of(Side::A).handle(vec![complete(other)]).unwrap();
    assert_eq!(pair.of(Side::A).channel.wanted(), None);
    pair.of(Side::A).handle(vec![complete(withdraw)]).unwrap();
    let wanted = pair.of(Side::A).channel.wanted();
    assert_eq!(wanted.as_ref().map(|it| it.essence.action), Some(Action::Withdraw(withdraw)));
    pair.of(Side::B).handle(vec![signed]).unwrap();
    assert_eq!(pair.of(Side::B).channel.wanted(), wanted);
}

#[test]
fn whoever_is_closing_signs_no_withdraw() {
    let mut pair = Pair::open([1_000, 500]);
    let (_, signed) = withdraw_signed(&mut pair);
    let half = pair.of(Side::B);
    half.handle(vec![Input::CloseAlone]).unwrap();
    half.outbox.clear();
    half.handle(vec![signed]).unwrap();
    assert_eq!((half.outbox.len(), half.channel.locked().withdraw(Side::A)), (0, None));
}

/// As soon as the withdraw has lapsed A may pay all of its deposit, and what it was paid.
#[test]
fn what_a_lapsed_withdraw_and_a_payment_back_allow_is_waited_for() {
    for (units, is_owned) in [(1_300, true), (1_301, false)] {
        let mut pair = Pair::open([1_000, 500]);
        pair.of(Side::B).pay(300);
        pair.run();
        let (_, signed) = withdraw_signed(&mut pair);
        pair.of(Side::B).handle(vec![signed]).unwrap();
        let balance = balance_of(Side::A, |state| (state.seq, state.cumulative) = (1, amount(units)), &pair);
        let half = pair.of(Side::B);
        half.outbox.clear();
        let result = half.handle(vec![Input::Message(ChannelMessage::Balance(Box::new(balance)))]);
        assert_eq!(half.channel.incoming().held, None, "{units}");
        if is_owned {
            assert_eq!(result, Ok(()), "it is not held against A");
            assert!(matches!(half.outbox.front(), Some(ChannelMessage::Paused { .. })));
        } else {
            assert!(matches!(result, Err(Misbehaviour::Overspent { .. })), "{result:?}");
        }
    }
}
