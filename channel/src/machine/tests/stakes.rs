//! Topping up and withdrawing while everything else goes on: two machines, a small ledger of its own rules, and
//! one disturbance at each step in turn.

use flash_proto::{
    OutputId,
    transaction::{TopUp, Withdraw},
};

use super::*;

const DEPOSITS: [u64; 2] = [1_000, 500];
const CHANGE: u64 = 200;

/// What one side does about its stake.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    TopUp,
    Withdraw,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disturbance {
    Nothing,
    Disconnect,
    /// The ledger takes nothing until all that was signed has expired.
    Censored,
    Close([bool; 2]),
    CloseAlone(Side),
    /// One side sees the ledger later than the other.
    Lag(Side, usize),
    OutOfSight(Side),
    /// The other side changes its stake as well.
    Other(Change),
}

/// At which commit of a side its process dies, and whether that was written.
#[derive(Clone, Copy, Debug)]
struct Crash {
    side: Side,
    commit: u32,
    written: bool,
}

struct World {
    pair: Pair,
    record: Option<ChannelRecord>,
    views: Vec<LedgerView>,
    applied: Vec<flash_proto::TransactionId>,
    added: [u64; 2],
    taken: [u64; 2],
    paid_out: Option<[u64; 2]>,
    censored: bool,
    lag: [usize; 2],
    crash: Option<Crash>,
    commits: [u32; 2],
    connected: bool,
}

fn at(side: Side) -> usize {
    usize::from(side.byte())
}

fn top_up(channel: &Channel, units: u64, expiry_milestone: u64, nonce: u8) -> Input {
    let inputs = vec![OutputId { transaction: flash_proto::TransactionId::new([nonce; 32]), index: 0 }];
    let top_up =
        TopUp { channel: channel.id, side: channel.agreement.side, amount: amount(units), expiry_milestone };
    let essence = Essence {
        network: NETWORK,
        inputs,
        inputs_commitment: commit_inputs(&[]),
        outputs: Vec::new(),
        action: Action::TopUp(top_up),
    };
    let unlock = essence.unlock(&SecretKey::from_bytes([99; 32]));
    Input::TopUp { essence: Box::new(essence), unlocks: vec![unlock] }
}

fn withdraw(units: u64) -> Input {
    Input::Withdraw { amount: amount(units), left_min: amount(2) }
}

impl World {
    fn new() -> Self {
        let pair = Pair::open(DEPOSITS);
        let record = pair.record(ChannelPhase::Open, [0, 0]);
        let view = LedgerView { index: pair.index, record: Some(record), payouts: None };
        Self {
            pair,
            record: Some(record),
            views: vec![view],
            applied: Vec::new(),
            added: [0; 2],
            taken: [0; 2],
            paid_out: None,
            censored: false,
            lag: [0; 2],
            crash: None,
            commits: [0; 2],
            connected: true,
        }
    }

    fn channel(&self, side: Side) -> &Channel {
        &self.pair.halves[at(side)].channel
    }

    /// Hands inputs to one side, which an honest peer's never makes refuse, and dies if that is due.
    fn input(&mut self, side: Side, inputs: Vec<Input>) {
        let half = self.pair.of(side);
        let mut effects = Effects::default();
        for input in inputs {
            let shown = format!("{input:?}");
            let result = half.channel.handle(input, &mut effects);
            assert_eq!(result, Ok(()), "{side} was sent {shown}");
        }
        half.channel.finish(&mut effects);
        if !effects.batch.is_empty() {
            self.commits[at(side)] += 1;
        }
        match self.crash {
            Some(crash) if crash.side == side && self.commits[at(side)] == crash.commit => {
                self.crash = None;
                if crash.written {
                    let _ = half.store.commit(&effects.batch).unwrap();
                }
                half.restart();
                self.disconnect();
                self.see(side);
            }
            _ => half.perform(effects),
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        for side in Side::BOTH {
            self.pair.of(side).outbox.clear();
            self.input(side, vec![Input::Disconnected]);
        }
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            for side in Side::BOTH {
                self.input(side, vec![Input::Connected]);
            }
        }
    }

    /// One side sees the ledger, as late as it does.
    fn see(&mut self, side: Side) {
        let newest = self.views.len() - 1;
        let view = self.views[newest.saturating_sub(self.lag[at(side)])];
        self.input(side, vec![Input::Ledger(view), Input::Fresh(true)]);
    }

    /// At most so many messages of each side arrive.
    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            for side in Side::BOTH {
                if let Some(message) = self.pair.of(side).outbox.pop_front() {
                    self.input(!side, vec![Input::Message(message)]);
                }
            }
        }
    }

    fn milestone(&mut self) {
        self.pair.index += 1;
        let index = self.pair.index;
        if let Some(record) = self.record
            && matches!(record.phase, ChannelPhase::Closing { deadline, .. } if deadline < index)
        {
            let balances = record.settle().unwrap();
            self.pay_out(balances);
        }
        let wanted: Vec<Transaction> =
            Side::BOTH.into_iter().filter_map(|side| self.channel(side).wanted()).collect();
        for transaction in wanted {
            if !self.censored && !self.applied.contains(&transaction.id()) && self.apply(&transaction) {
                self.applied.push(transaction.id());
            }
        }
        let payouts = self.paid_out.map(|[a, b]| Balances::of_payouts(amount(a), amount(b)));
        self.views.push(LedgerView { index, record: self.record, payouts });
        for side in Side::BOTH {
            self.see(side);
        }
    }

    fn pay_out(&mut self, balances: Balances) {
        assert_eq!(balances.total(), self.record.unwrap().total(), "I1");
        self.record = None;
        self.paid_out = Some(Side::BOTH.map(|side| balances.of(side).units()));
    }

    /// The ledger's rules, as far as they matter here.
    fn apply(&mut self, transaction: &Transaction) -> bool {
        let Some(mut record) = self.record else { return false };
        let index = self.pair.index;
        let open = record.phase == ChannelPhase::Open;
        let id = Hash::new(*transaction.id().as_bytes());
        let by_both =
            || {
                let parties = [record.party_a, record.party_b];
                transaction.unlocks.iter().zip(parties).all(|(unlock, party)| {
                    unlock.key == party.key && unlock.key.verify(&id, &unlock.signature)
                })
            };
        match transaction.essence.action {
            Action::TopUp(top_up) if open && index <= top_up.expiry_milestone => {
                let last = transaction.unlocks.last().unwrap();
                assert!(last.key == record.party(top_up.side).key && last.key.verify(&id, &last.signature));
                let party = top_up.side.pick(&mut record.party_a, &mut record.party_b);
                party.deposit = party.deposit.checked_add(top_up.amount).unwrap();
                self.added[at(top_up.side)] += top_up.amount.units();
            }
            Action::Withdraw(Withdraw { side, amount, total, expiry_milestone, .. })
                if open && index <= expiry_milestone =>
            {
                assert!(by_both());
                let withdrawn = side.pick(&mut record.withdrawn_a, &mut record.withdrawn_b);
                assert_eq!(
                    withdrawn.checked_add(amount),
                    Some(total),
                    "it follows what was taken out before"
                );
                *withdrawn = total;
                self.taken[at(side)] += amount.units();
            }
            Action::CooperativeClose(close) if index <= close.expiry_milestone => {
                assert!(by_both());
                let balances = Balances::of_payouts(close.payout_a, close.payout_b);
                if balances.total() == record.total() {
                    self.pay_out(balances);
                    return true;
                }
                return false;
            }
            Action::UnilateralClose(UnilateralClose { closer, balance, .. }) if open => {
                record.phase = ChannelPhase::Closing { closer, deadline: index + 10 };
                if let Some(claim) = balance {
                    raise(&mut record, &claim);
                }
            }
            Action::Claim(claim) if !open => raise(&mut record, &claim),
            _ => return false,
        }
        self.record = Some(record);
        true
    }

    fn change(&mut self, side: Side, change: Change) {
        let expiry = self.pair.index + WITHDRAW_EXPIRY_MILESTONES;
        let input = match change {
            Change::TopUp => top_up(self.channel(side), CHANGE, expiry, side.byte()),
            Change::Withdraw => withdraw(CHANGE),
        };
        self.input(side, vec![input]);
    }

    fn disturb(&mut self, side: Side, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Nothing => {}
            Disturbance::Disconnect => self.disconnect(),
            Disturbance::Censored => self.censored = true,
            Disturbance::Close(wishes) => {
                for side in Side::BOTH.into_iter().filter(|side| wishes[at(*side)]) {
                    self.input(side, vec![Input::Close]);
                }
            }
            Disturbance::CloseAlone(side) => self.input(side, vec![Input::CloseAlone]),
            Disturbance::Lag(side, milestones) => self.lag[at(side)] = milestones,
            Disturbance::OutOfSight(side) => self.input(side, vec![Input::Fresh(false)]),
            Disturbance::Other(change) => self.change(!side, change),
        }
    }

    /// Everything that is under way comes to its end.
    fn drain(&mut self) {
        (self.censored, self.lag) = (false, [0; 2]);
        for _ in 0..16 {
            self.connect();
            self.deliver(8);
            self.milestone();
        }
    }

    /// What each side must own by all that was locked, taken out and paid; of what was paid counts what the
    /// payee has.
    fn owed(&self) -> [u64; 2] {
        let sent = |side: Side| self.channel(!side).incoming_state().cumulative.units();
        Side::BOTH.map(|side| {
            let gained = DEPOSITS[at(side)] + self.added[at(side)] + sent(!side);
            gained - self.taken[at(side)] - sent(side)
        })
    }
}

fn raise(record: &mut ChannelRecord, claim: &Claim) {
    let lane = claim.state.payer.pick(&mut record.lane_a, &mut record.lane_b);
    if claim.state.cumulative > lane.cumulative {
        *lane = LaneClaim { seq: claim.state.seq, cumulative: claim.state.cumulative };
    }
}

const STEPS: usize = 14;

/// A change of `side`'s stake, a disturbance at step `when`, payments both ways all the while, and in the end a
/// close: everybody has exactly what it should.
fn play(side: Side, change: Change, disturbance: Disturbance, when: usize, crash: Option<Crash>) -> World {
    let mut world = World::new();
    world.crash = crash;
    for step in 0..STEPS {
        if step == when {
            world.disturb(side, disturbance);
        }
        if step == 2 {
            world.change(side, change);
        }
        for payer in Side::BOTH {
            // All that it can now and then, so that what the peer counts matters.
            let available = world.channel(payer).available().units();
            let units = if step % 4 == 3 { available } else { 7.min(available) };
            let _ = world.pair.of(payer).channel.pay(payment(units.max(1)), None);
            world.input(payer, Vec::new());
        }
        world.deliver(2);
        if step % 3 == 2 {
            world.milestone();
        }
        if step > when + 3 {
            world.connect();
        }
    }
    if disturbance == Disturbance::Censored {
        world.connect();
        world.deliver(20);
        world.pair.index += WITHDRAW_EXPIRY_MILESTONES + 3;
        world.milestone();
    }
    world.drain();
    world
}

fn check_end(world: &mut World, what: &str) {
    world.crash = None;
    if world.paid_out.is_none() {
        for half in Side::BOTH {
            let channel = world.channel(half);
            assert_eq!(channel.phase, Phase::Open, "{what}: in use");
            assert!(!channel.changes_stake() && channel.agrees_on_stakes(), "{what}: nothing is under way");
            assert_eq!(channel.paused(), None, "{what}: payments flow");
        }
        let owed = world.owed();
        assert_eq!(world.pair.balances(), owed, "{what}: I2, I8");
        for payer in Side::BOTH {
            let all = world.channel(payer).available().units();
            assert_eq!(all, owed[at(payer)], "{what}: all of it can be paid");
        }
        world.input(Side::A, vec![Input::Close]);
        world.drain();
    }
    assert_eq!(world.paid_out, Some(world.owed()), "{what}: paid out to the unit");
    for half in &world.pair.halves {
        assert!(matches!(half.channel.phase, Phase::Closed { .. }), "{what}");
        // A side that died with the last commit never told.
        if let Some(ChannelEvent::Closed { payouts, expected }) = half.events.last() {
            let more = half.channel.outgoing.acknowledged < half.channel.outgoing_seq();
            assert!(more || payouts == expected, "{what}: {payouts:?}, {expected:?}");
        }
    }
}

fn every_case(disturbances: &[Disturbance]) {
    for side in Side::BOTH {
        for change in [Change::TopUp, Change::Withdraw] {
            for disturbance in disturbances {
                for when in 0..STEPS {
                    let what = format!("{side} {change:?} {disturbance:?} at {when}");
                    let mut world = play(side, change, *disturbance, when, None);
                    check_end(&mut world, &what);
                }
            }
        }
    }
}

#[test]
fn a_stake_changes_while_payments_flow() {
    for side in Side::BOTH {
        for change in [Change::TopUp, Change::Withdraw] {
            let mut world = play(side, change, Disturbance::Nothing, 0, None);
            let changed = match change {
                Change::TopUp => world.added[at(side)],
                Change::Withdraw => world.taken[at(side)],
            };
            assert_eq!(changed, CHANGE);
            check_end(&mut world, "nothing disturbs");
        }
    }
    every_case(&[
        Disturbance::Disconnect,
        Disturbance::Other(Change::TopUp),
        Disturbance::Other(Change::Withdraw),
    ]);
}

#[test]
fn what_is_not_applied_lapses_and_blocks_nothing() {
    every_case(&[Disturbance::Censored]);
    for side in Side::BOTH {
        for change in [Change::TopUp, Change::Withdraw] {
            let world = play(side, change, Disturbance::Censored, 0, None);
            assert_eq!((world.added, world.taken), ([0; 2], [0; 2]));
            let events = &world.pair.halves[at(side)].events;
            let lapsed = match change {
                Change::TopUp => ChannelEvent::TopUpLapsed { amount: amount(CHANGE) },
                Change::Withdraw => ChannelEvent::WithdrawLapsed { side, amount: amount(CHANGE) },
            };
            assert!(events.contains(&lapsed), "{events:?}");
        }
    }
}

#[test]
fn it_may_be_closed_together_before_during_and_after() {
    every_case(&[[true, false], [false, true], [true, true]].map(Disturbance::Close));
}

#[test]
fn it_may_be_closed_alone_before_during_and_after() {
    every_case(&Side::BOTH.map(Disturbance::CloseAlone));
}

#[test]
fn either_may_see_the_ledger_late() {
    every_case(&Side::BOTH.map(|side| Disturbance::Lag(side, 1)));
    every_case(&Side::BOTH.map(|side| Disturbance::Lag(side, 3)));
    every_case(&Side::BOTH.map(Disturbance::OutOfSight));
}

#[test]
fn either_may_die_at_each_commit() {
    for side in Side::BOTH {
        for change in [Change::TopUp, Change::Withdraw] {
            for dies in Side::BOTH {
                for (commit, written) in (1..40).flat_map(|commit| [(commit, false), (commit, true)]) {
                    let crash = Crash { side: dies, commit, written };
                    let mut world = play(side, change, Disturbance::Nothing, 0, Some(crash));
                    check_end(&mut world, &format!("{side} {change:?} {crash:?}"));
                }
            }
        }
    }
}

#[test]
fn a_crash_and_a_close_may_come_together() {
    for change in [Change::TopUp, Change::Withdraw] {
        for (when, wishes) in [(2, [true, false]), (4, [false, true]), (5, [true, true])] {
            for dies in Side::BOTH {
                for (commit, written) in (1..30).flat_map(|commit| [(commit, false), (commit, true)]) {
                    let crash = Crash { side: dies, commit, written };
                    let mut world = play(Side::A, change, Disturbance::Close(wishes), when, Some(crash));
                    check_end(&mut world, &format!("{change:?} {wishes:?} at {when} {crash:?}"));
                }
            }
        }
    }
}

/// A channel in which B locked nothing, got 400 and has taken out 300 of them.
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
    let mut list = flash_proto::PaymentList::new();
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
    let asked = world.channel(Side::A).locked.withdraw_a.unwrap();
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
        Some(PendingWithdraw { withdraw, taker: signature, other: Some(signature) });
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
