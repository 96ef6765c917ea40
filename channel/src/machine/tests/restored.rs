//! One side has lost its records and found the channel on the ledger, or comes back with old ones.

use flash_proto::message::Reestablish;

use super::*;

impl Pair {
    /// This side loses everything, and finds the channel as the ledger shows it.
    pub(super) fn lose(&mut self, side: Side) {
        let deposits = Side::BOTH.map(|side| open_terms(self).party(side).deposit.units());
        let lost = agreement(side, deposits);
        let found = Agreement {
            peer: open_terms(self).party(!side).key,
            origin: Origin::Found {
                channel: lost.channel(),
                withdrawn_a: Amount::ZERO,
                withdrawn_b: Amount::ZERO,
            },
            ..lost
        };
        let mut effects = Effects::default();
        let channel = Channel::new(found, key(side), &mut effects);
        let (store, outbox) = (MemoryStore::new(), VecDeque::new());
        *self.of(side) = Half { channel, store, outbox, events: Vec::new() };
        self.of(side).perform(effects);
        self.of(!side).handle(vec![Input::Disconnected]).unwrap();
        self.see(ChannelPhase::Open);
    }

    /// This side comes back with what it had stored then; `noticed` before it was started.
    fn come_back(&mut self, side: Side, then: &MemoryStore, noticed: bool) {
        let half = self.of(side);
        half.store = then.snapshot();
        if noticed {
            let mut batch = Batch::new();
            tables::put_all_in_doubt(&half.store, &mut batch).unwrap();
            let _ = half.store.commit(&batch).unwrap();
        }
        half.restart();
        half.events.clear();
        self.of(!side).handle(vec![Input::Disconnected]).unwrap();
        self.see(ChannelPhase::Open);
    }

    /// Lets the ledger go on until nothing is in doubt any more.
    pub(super) fn wait(&mut self) {
        self.see(ChannelPhase::Open);
        let until = self.halves.iter().filter_map(|half| half.channel.doubt()?.until).max().unwrap();
        while self.index < until {
            assert!(self.halves.iter().any(|half| half.channel.doubt().is_some()), "only at {until}");
            self.see(ChannelPhase::Open);
        }
        self.run();
        assert!(self.halves.iter().all(|half| half.channel.doubt().is_none()));
    }

    fn wish(&mut self, side: Side) {
        self.of(side).handle(vec![Input::Close]).unwrap();
        self.run();
    }

    fn closes_at(&mut self, payouts: [u64; 2]) {
        let close = closed_by_both(self);
        assert_eq!([close.payout_a, close.payout_b], payouts.map(amount));
    }
}

fn open_terms(pair: &Pair) -> Open {
    pair.halves[0].channel.agreement.open
}

/// A channel in which A has 800 and B 700.
fn used() -> Pair {
    let mut pair = Pair::open([1_000, 500]);
    pair.of(Side::A).pay(300);
    pair.run();
    pair.of(Side::B).pay(100);
    pair.run();
    pair
}

#[test]
fn it_learns_the_balances_of_the_peer_and_only_closes() {
    for side in Side::BOTH {
        let mut pair = used();
        pair.lose(side);
        assert_eq!(pair.of(side).events, [ChannelEvent::Found]);
        assert_eq!(
            (pair.of(side).channel.state(), pair.of(side).channel.balances_known()),
            ("recovered", false)
        );
        pair.connect();
        assert_eq!(pair.balances(), [800, 700]);
        assert!(pair.of(side).channel.balances_known());
        pair.of(side).restart();
        assert!(pair.of(side).channel.balances_known());
        pair.see(ChannelPhase::Open);
        pair.connect();
        assert_eq!(pair.balances(), [800, 700]);
        let refused = pair.of(side).channel.pay(payment(1), None);
        assert_eq!(refused, Err(PayError::NotOpen("recovered")));
        pair.wish(side);
        pair.closes_at([800, 700]);
    }
}

#[test]
fn the_peer_is_told_to_pay_no_more_and_what_it_pays_is_no_payment() {
    let mut pair = used();
    // Signed, but never delivered.
    pair.of(Side::A).pay(50);
    pair.of(Side::A).handle(Vec::new()).unwrap();
    pair.lose(Side::B);
    pair.connect();
    assert_eq!(pair.balances(), [750, 750]);
    assert!(!pair.of(Side::B).events.iter().any(|event| matches!(event, ChannelEvent::Received(_))));
    assert_eq!(
        pair.of(Side::A).channel.paused(),
        Some("the peer has lost records and waits for what it had signed to lapse")
    );
    pair.of(Side::A).pay(50);
    pair.run();
    assert_eq!(pair.balances(), [750, 750], "it waits and is not signed");
    pair.wish(Side::B);
    pair.closes_at([750, 750]);
}

#[test]
fn nothing_is_signed_because_the_peer_wishes() {
    for side in Side::BOTH {
        let mut pair = used();
        pair.lose(side);
        pair.connect();
        pair.wish(!side);
        assert_eq!(pair.of(side).channel.phase, Phase::Open);
        assert_eq!(pair.of(side).channel.wanted(), None);
        pair.wish(side);
        pair.closes_at([800, 700]);
    }
}

#[test]
fn a_close_that_the_peer_had_signed_before_is_completed() {
    let mut pair = used();
    pair.of(Side::B).handle(vec![Input::Close]).unwrap();
    let request: Vec<Input> = pair.of(Side::B).outbox.drain(..).map(Input::Message).collect();
    pair.of(Side::A).handle(request).unwrap();
    assert!(matches!(pair.of(Side::A).channel.phase, Phase::ClosingTogether { theirs: None, .. }));
    pair.lose(Side::B);
    pair.connect();
    assert_eq!(pair.of(Side::B).channel.phase, Phase::Open, "nobody here wishes to close");
    pair.wish(Side::B);
    pair.closes_at([800, 700]);
}

#[test]
fn it_closes_alone_only_with_what_the_peer_has_shown() {
    let mut pair = used();
    pair.lose(Side::B);
    assert_eq!(pair.of(Side::B).channel.may_close_alone(), Err(CommandError::NotShown));
    pair.of(Side::B).handle(vec![Input::CloseAlone]).unwrap();
    assert_eq!(pair.of(Side::B).channel.phase, Phase::Open);
    assert_eq!(pair.of(Side::B).channel.wanted(), None);
    pair.connect();
    pair.of(Side::B).handle(vec![Input::CloseAlone]).unwrap();
    let Action::UnilateralClose(close) = pair.of(Side::B).channel.wanted().unwrap().essence.action else {
        panic!("no close")
    };
    assert_eq!(close.balance.map(|claim| claim.state.cumulative), Some(amount(300)));
}

#[test]
fn what_the_peer_shows_is_claimed_while_it_closes_alone() {
    let mut pair = used();
    pair.lose(Side::B);
    // A shows the ledger what B paid, and not what it paid itself.
    let closing = ChannelPhase::Closing { closer: Side::A, deadline: 30 };
    let record = pair.record(closing, [0, 100]);
    pair.see_record(Some(record), None);
    assert_eq!(pair.of(Side::B).channel.wanted(), None);
    pair.connect();
    let Action::Claim(Claim { state: claimed, .. }) =
        pair.of(Side::B).channel.wanted().unwrap().essence.action
    else {
        panic!("no claim")
    };
    assert_eq!((claimed.payer, claimed.cumulative), (Side::A, amount(300)));
    pair.see_record(None, Some(Balances::of_payouts(amount(800), amount(700))));
    let expected = Some(Balances::of_payouts(amount(800), amount(700)));
    assert_eq!(pair.of(Side::B).events.last(), Some(&ChannelEvent::Closed { payouts: expected, expected }));
}

#[test]
fn without_the_peer_nothing_is_expected_of_a_settlement() {
    let mut pair = used();
    pair.lose(Side::B);
    let payouts = Some(Balances::of_payouts(amount(1_000), amount(500)));
    pair.see_record(None, payouts);
    assert_eq!(pair.of(Side::B).events.last(), Some(&ChannelEvent::Closed { payouts, expected: None }));
}

#[test]
fn a_peer_that_holds_back_what_it_paid_shows_nothing() {
    let mut pair = Pair::open([100, 0]);
    pair.of(Side::A).pay(100);
    pair.run();
    pair.of(Side::B).pay(80);
    pair.run();
    let spent = pair.of(Side::B).channel.outgoing.signed;
    pair.lose(Side::B);
    let standing = Reestablish {
        signed: None,
        signed_ticks: None,
        held: spent,
        held_ticks: None,
        stakes: pair.of(Side::A).channel.stakes(),
    };
    let message = ChannelMessage::Reestablish(Box::new(standing));
    let result = pair.of(Side::B).handle(vec![Input::Connected, Input::Message(message)]);
    assert_eq!(result, Err(Misbehaviour::HeldBack), "80 were paid with what it holds back");
    assert!(!pair.of(Side::B).channel.balances_known());
}

#[test]
fn the_peers_machine_can_be_named_only_after_a_loss() {
    let mut pair = used();
    let machine = SecretKey::from_bytes([77; 32]).public();
    assert_eq!(pair.of(Side::A).channel.meet(machine), Err(CommandError::PeerKnown));
    pair.lose(Side::A);
    pair.of(Side::A).channel.meet(machine).unwrap();
    pair.of(Side::A).handle(Vec::new()).unwrap();
    pair.of(Side::A).restart();
    assert_eq!(pair.of(Side::A).channel.agreement.peer, machine);
}

#[test]
fn payments_go_on_once_all_has_lapsed_that_may_have_been_signed() {
    for side in Side::BOTH {
        let mut pair = used();
        let before = pair.index;
        pair.lose(side);
        pair.connect();
        pair.wait();
        let window = u64::from(open_terms(&pair).contest_window_milestones);
        assert!(pair.index >= before + SIGNED_EXPIRY_MILESTONES_MAX + window);
        for payer in Side::BOTH {
            assert_eq!(pair.of(payer).channel.paused(), None);
            pair.of(payer).pay(10);
        }
        pair.run();
        assert_eq!(pair.balances(), [800, 700]);
        assert_eq!(pair.of(side).channel.incoming().payments, 1);
        pair.of(side).restart();
        assert_eq!(pair.of(side).channel.doubt(), None);
    }
}

#[test]
fn an_old_copy_learns_what_it_forgot_and_waits() {
    for (side, noticed) in [(Side::A, true), (Side::B, true), (Side::A, false), (Side::B, false)] {
        let mut pair = used();
        let then = pair.of(side).store.snapshot();
        pair.of(side).pay(20);
        pair.run();
        pair.of(!side).pay(30);
        pair.run();
        let wanted = pair.balances();
        pair.come_back(side, &then, noticed);
        assert_eq!(pair.of(side).channel.doubt().is_some(), noticed);
        pair.connect();
        assert_eq!(pair.balances(), wanted);
        let told = pair.of(side).events.contains(&ChannelEvent::OldRecords { running: false });
        assert_eq!(told, !noticed);
        let refused = pair.of(side).channel.pay(payment(1), None);
        assert_eq!(refused, Err(PayError::NotOpen("recovered")));
        pair.of(!side).pay(5);
        pair.run();
        assert_eq!(pair.of(side).balance(), side.pick(wanted[0], wanted[1]), "nothing is taken");
        pair.wait();
        let (a, b) = side.pick((5, 0), (0, 5));
        assert_eq!(pair.balances(), [wanted[0] + a - b, wanted[1] + b - a]);
    }
}

#[test]
fn a_noticed_old_copy_signs_nothing_before_it_is_shown_or_trusted() {
    let mut pair = used();
    let then = pair.of(Side::B).store.snapshot();
    pair.come_back(Side::B, &then, true);
    let half = pair.of(Side::B);
    assert_eq!(half.channel.may_close_alone(), Err(CommandError::NotShown));
    half.handle(vec![Input::CloseAlone, Input::Close]).unwrap();
    assert_eq!((&half.channel.phase, half.channel.wanted()), (&Phase::Open, None));
    assert!(half.outbox.is_empty());
    assert_eq!(half.channel.may_trust(), Ok(()));
    half.handle(vec![Input::Trust]).unwrap();
    half.restart();
    assert_eq!((half.channel.doubt(), half.channel.may_trust()), (None, Err(CommandError::NotInDoubt)));
    pair.see(ChannelPhase::Open);
    pair.connect();
    pair.closes_at([800, 700]);
}

#[test]
fn trust_in_nothing_is_leave_to_close_alone() {
    let mut pair = used();
    pair.lose(Side::A);
    let half = pair.of(Side::A);
    half.handle(vec![Input::Trust]).unwrap();
    assert_eq!(half.channel.pay(payment(1), None), Err(PayError::NotOpen("recovered")));
    half.handle(vec![Input::CloseAlone]).unwrap();
    assert!(matches!(half.channel.wanted().unwrap().essence.action, Action::UnilateralClose(_)));
}

/// B took out what A had paid it, and is never heard of again.
#[test]
fn trust_in_records_that_cannot_be_all_is_leave_to_close_alone() {
    let mut pair = Pair::open([1_000, 0]);
    pair.lose(Side::A);
    let taken = ChannelRecord { withdrawn_b: amount(600), ..pair.record(ChannelPhase::Open, [0, 0]) };
    pair.see_record(Some(taken), None);
    let half = pair.of(Side::A);
    assert_eq!(half.channel.may_close_alone(), Err(CommandError::NotShown));
    half.handle(vec![Input::Trust]).unwrap();
    half.restart();
    assert_eq!((half.channel.state(), half.channel.may_close_alone()), ("recovered", Ok(())));
    assert_eq!(half.channel.pay(payment(1), None), Err(PayError::NotOpen("recovered")));
    half.handle(vec![Input::CloseAlone]).unwrap();
    assert!(matches!(half.channel.wanted().unwrap().essence.action, Action::UnilateralClose(_)));
}

#[test]
fn whoever_meets_its_own_unknown_signature_while_it_runs_says_so() {
    let mut pair = used();
    let original = pair.of(Side::B).store.snapshot();
    let held = pair.of(Side::A).channel.incoming().held;
    // A copy elsewhere pays; then the original is heard again.
    pair.of(Side::B).pay(10);
    pair.run();
    let copied = pair.of(Side::A).channel.incoming().held;
    assert_ne!(held, copied);
    pair.come_back(Side::B, &original, false);
    pair.of(Side::B).channel.was_established = true;
    pair.connect();
    assert!(pair.of(Side::B).events.contains(&ChannelEvent::OldRecords { running: true }));
    assert!(pair.of(Side::B).channel.doubt().is_some());
}

#[test]
fn every_unknown_signature_begins_the_wait_anew() {
    let mut pair = used();
    let then = pair.of(Side::A).store.snapshot();
    pair.of(Side::A).pay(10);
    pair.run();
    pair.come_back(Side::A, &then, true);
    assert!(pair.of(Side::A).channel.doubt().unwrap().until.is_some());
    pair.connect();
    assert_eq!(pair.of(Side::A).channel.doubt().unwrap().until, None);
    pair.wait();
    assert_eq!(pair.balances(), [790, 710]);
}

#[test]
fn what_a_watchtower_has_kept_is_enough_to_close_alone() {
    // A pays all it has, gets it back, and pays on: B's lane is above what B locked.
    let mut pair = Pair::open([1_000, 0]);
    for (payer, units) in [(Side::A, 1_000), (Side::B, 900), (Side::A, 800)] {
        pair.of(payer).pay(units);
        pair.run();
    }
    let kept = pair.of(Side::A).channel.incoming().held.unwrap();
    let newest = pair.of(Side::B).channel.incoming().held.unwrap();
    pair.lose(Side::A);
    let half = pair.of(Side::A);
    let shown = |held: SignedBalance| vec![Input::Shown { held: Box::new(held), ticks: None }];
    assert_eq!(half.handle(shown(newest)), Err(Misbehaviour::Terms), "not the peer's lane");
    let forged = SignedBalance { signature: newest.signature, ..kept };
    assert_eq!(half.handle(shown(forged)), Err(Misbehaviour::Signature));
    half.handle(shown(kept)).unwrap();
    half.restart();
    half.handle(vec![Input::Close]).unwrap();
    assert!(!half.channel.balances_known());
    half.handle(vec![Input::CloseAlone]).unwrap();
    let Action::UnilateralClose(close) = half.channel.wanted().unwrap().essence.action else {
        panic!("no close")
    };
    assert_eq!(close.balance.map(|claim| claim.state.cumulative), Some(amount(900)));
}

#[test]
fn records_of_a_backup_come_back_without_the_updates_that_wait() {
    let mut pair = used();
    pair.of(Side::A).pay(50);
    pair.of(Side::A).handle(Vec::new()).unwrap(); // signed, and never delivered
    let (from, to) = (pair.of(Side::A).store.clone(), MemoryStore::new());
    let mut batch = Batch::new();
    for table in tables::BACKED_UP {
        for (key, value) in from.scan(table, &[], None, 10).unwrap() {
            assert!(!tables::ends_channel(table, &value));
            tables::put_backed_up(&mut batch, table, &key, value).unwrap();
        }
    }
    let _ = to.commit(&batch).unwrap();
    pair.come_back(Side::A, &to, true);
    pair.connect();
    assert_eq!(pair.balances(), [750, 750]);
    pair.wait();
}

/// A side that lost its records signed anew while its peer hid the old balances, and now the peer shows one of them:
/// with a later number, but with less under it.
#[test]
fn a_higher_total_is_not_forgotten_for_a_later_number() {
    let mut pair = Pair::open([100, 0]);
    pair.of(Side::A).pay(50);
    pair.run();
    let (stakes, a) = (pair.of(Side::B).channel.stakes(), &pair.of(Side::A).channel);
    let earlier = LaneState { seq: 3, cumulative: amount(20), ..LaneState::new(a.id, Side::A) };
    let held = Some(earlier.sign(a.agreement.network, &a.key));
    let standing = Reestablish { signed: None, signed_ticks: None, held, held_ticks: None, stakes };
    let message = ChannelMessage::Reestablish(Box::new(standing));
    let result = pair.of(Side::A).handle(vec![Input::Connected, Input::Message(message)]);
    assert_eq!(result, Err(Misbehaviour::OwnTwoBodies(3)), "50 were signed");
    assert_eq!(pair.of(Side::A).channel.outgoing.total(), amount(50));
}
