//! Each change with each disturbance at each step.

use super::*;

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
