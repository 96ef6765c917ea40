//! A channel that ended while a change of what is locked was under way: what it paid tells what became of that.

use super::*;

/// A has 800 and B 700, and A changes its stake by 200; nobody sees what the ledger does about it.
fn changing(change: Change) -> Pair {
    let mut pair = Pair::open(DEPOSITS);
    pair.of(Side::A).pay(300);
    pair.of(Side::B).pay(100);
    pair.run();
    let index = pair.index;
    let input = match change {
        Change::TopUp => top_up(&pair.of(Side::A).channel, CHANGE, index + 9, 1),
        Change::Withdraw => withdraw(CHANGE),
    };
    pair.of(Side::A).handle(vec![input]).unwrap();
    pair.run();
    assert!(pair.of(Side::A).channel.wanted().is_some());
    for half in &mut pair.halves {
        half.events.clear();
    }
    pair
}

fn ended(pair: &mut Pair, payouts: Option<[u64; 2]>) -> [Vec<ChannelEvent>; 2] {
    let payouts = payouts.map(|[a, b]| Balances::of_payouts(amount(a), amount(b)));
    pair.see_record(None, payouts);
    Side::BOTH.map(|side| {
        pair.of(side).restart();
        assert!(matches!(pair.of(side).channel.phase, Phase::Closed { .. }));
        std::mem::take(&mut pair.of(side).events)
    })
}

fn closed(payouts: Option<[u64; 2]>, expected: [u64; 2]) -> ChannelEvent {
    let balances = |[a, b]: [u64; 2]| Balances::of_payouts(amount(a), amount(b));
    ChannelEvent::Closed { payouts: payouts.map(balances), expected: Some(balances(expected)) }
}

#[test]
fn a_withdraw_that_nobody_saw_applied_is_told_by_the_payouts() {
    let mut pair = changing(Change::Withdraw);
    let taken = Some([600, 700]);
    let told = ChannelEvent::Withdrawn { side: Side::A, amount: amount(CHANGE) };
    for events in ended(&mut pair, taken) {
        assert_eq!(events, [told.clone(), closed(taken, [600, 700])]);
    }
    assert_eq!(pair.balances(), [600, 700]);
    assert!(pair.halves.iter().all(|half| half.channel.locked().is_settled()));
}

#[test]
fn a_withdraw_that_was_never_applied_is_told_by_the_payouts() {
    let mut pair = changing(Change::Withdraw);
    let kept = Some([800, 700]);
    let told = ChannelEvent::WithdrawLapsed { side: Side::A, amount: amount(CHANGE) };
    for events in ended(&mut pair, kept) {
        assert_eq!(events, [told.clone(), closed(kept, [800, 700])]);
    }
    assert_eq!(pair.balances(), [800, 700]);
}

#[test]
fn a_top_up_is_told_to_the_side_that_made_it() {
    for (payouts, told) in [
        ([1_000, 700], ChannelEvent::ToppedUp { side: Side::A, amount: amount(CHANGE) }),
        ([800, 700], ChannelEvent::TopUpLapsed { amount: amount(CHANGE) }),
    ] {
        let mut pair = changing(Change::TopUp);
        let [own, peers] = ended(&mut pair, Some(payouts));
        assert_eq!(own, [told, closed(Some(payouts), payouts)]);
        assert_eq!(peers, [closed(Some(payouts), [800, 700])], "it was never asked");
    }
}

#[test]
fn payouts_that_nothing_explains_change_nothing() {
    for payouts in [None, Some([601, 699])] {
        let mut pair = changing(Change::Withdraw);
        for events in ended(&mut pair, payouts) {
            assert_eq!(events, [closed(payouts, [600, 700])]);
        }
        assert!(pair.halves.iter().all(|half| half.channel.locked().withdraw(Side::A).is_some()));
    }
}
