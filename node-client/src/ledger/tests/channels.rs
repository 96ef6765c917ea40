//! Channels: opening, and every way to close.

use flash_proto::{
    Action, Address, Amount, BlockId, ChannelId, ChannelPhase, ChannelRecord, Claim, Output, OutputId, Side,
    StateKey, Transaction, TransactionId,
    hash::{Layout, Tag},
    limits,
    transaction::CooperativeClose,
};

use super::support::*;
use crate::ledger::{Checked, Conflict, LedgerState, StateValue};

/// What the payouts of the standard channel hold.
fn payouts(ledger: &Ledger, channel: ChannelId) -> [Option<u64>; 2] {
    Side::BOTH.map(|side| {
        let output = ledger.state.output(&channel.payout(side))?;
        assert_eq!(output.address, address(side.pick(21, 22)));
        Some(output.amount.units())
    })
}

fn deadline(ledger: &Ledger, channel: ChannelId) -> u64 {
    match ledger.state.channel(&channel).unwrap().phase {
        ChannelPhase::Closing { deadline, .. } => deadline,
        ChannelPhase::Open => panic!("the channel is open"),
    }
}

#[test]
fn opening_moves_money_into_the_channel() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let record = ledger.state.channel(&channel).unwrap();
    assert_eq!(record.total(), Some(Amount::new(10_000)));
    assert_eq!((record.phase, record.contest_window_milestones), (ChannelPhase::Open, WINDOW));
    assert_eq!(ledger.state.in_channels(), Amount::new(10_000));
    assert_eq!(ledger.at(1), 990_000);
}

#[test]
fn an_open_has_an_expiry_after_which_the_inputs_are_free() {
    let open = |ledger: &Ledger, expiry| {
        let coin = genesis_coin(&ledger.params, 1);
        spend(&ledger.params, &[coin], vec![output(1, 990_000)], Action::Open(opening(6_000, 4_000, expiry)))
    };
    let mut ledger = Ledger::new();
    ledger.confirm(&[]);
    ledger.confirm(&[]);
    assert_eq!(ledger.conflict(&open(&ledger, 2)), Conflict::Expired);
    let in_time = open(&ledger, 4);
    assert_eq!(ledger.index, 3);
    ledger.apply(&in_time);
}

#[test]
fn deposits_count_as_outputs() {
    let mut ledger = Ledger::new();
    let coin = genesis_coin(&ledger.params, 1);
    for change in [989_999, 990_001] {
        let open = Action::Open(opening(6_000, 4_000, 100));
        let wrong = spend(&ledger.params, &[coin], vec![output(1, change)], open);
        assert_eq!(ledger.conflict(&wrong), Conflict::Sum);
    }
}

#[test]
fn both_close_and_each_gets_exactly_what_both_signed() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let (confirmation, _) = {
        let close = cooperative(&ledger.params, channel, (2_500, 7_500), 100);
        ledger.confirmation(&[close])
    };
    assert_eq!(confirmation.channels, [channel]);
    assert_eq!(payouts(&ledger, channel), [Some(2_500), Some(7_500)]);
    assert_eq!(ledger.state.channel(&channel), None);
    assert_eq!(ledger.state.in_channels(), Amount::ZERO);
    let again = cooperative(&ledger.params, channel, (2_500, 7_500), 100);
    assert_eq!(ledger.conflict(&again), Conflict::ChannelUnknown);
}

#[test]
fn a_payout_of_nothing_makes_no_output() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    ledger.apply(&cooperative(&ledger.params, channel, (0, 10_000), 100));
    assert_eq!(payouts(&ledger, channel), [None, Some(10_000)]);
}

#[test]
fn a_cooperative_close_must_be_right() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    for wrong in [(5_000, 5_001), (5_000, 4_999), (0, 0)] {
        assert_eq!(
            ledger.conflict(&cooperative(&ledger.params, channel, wrong, 100)),
            Conflict::Payouts,
            "{wrong:?}"
        );
    }
    let late = cooperative(&ledger.params, channel, (6_000, 4_000), ledger.index);
    assert_eq!(ledger.conflict(&late), Conflict::Expired);
    let close = CooperativeClose {
        channel,
        final_seq_a: 0,
        final_seq_b: 0,
        payout_a: Amount::new(6_000),
        payout_b: Amount::new(4_000),
        expiry_milestone: 100,
    };
    for signers in [[11, 9], [9, 12], [12, 11], [11, 11]] {
        let foreign = acting(&ledger.params, Action::CooperativeClose(close), &signers);
        assert_eq!(ledger.conflict(&foreign), Conflict::NotAParty, "{signers:?}");
    }
    let expiring_now = cooperative(&ledger.params, channel, (6_000, 4_000), ledger.index + 1);
    ledger.apply(&expiring_now);
}

#[test]
fn both_may_still_close_while_one_closes_alone() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    ledger.apply(&unilateral(&ledger.params, channel, Side::A, None));
    ledger.apply(&cooperative(&ledger.params, channel, (1, 9_999), 100));
    assert_eq!(payouts(&ledger, channel), [Some(1), Some(9_999)]);
    // The deadline that was set before has nothing left to settle.
    ledger.pass_until(20);
    assert_eq!(payouts(&ledger, channel), [Some(1), Some(9_999)]);
}

#[test]
fn a_close_alone_settles_one_milestone_after_its_deadline() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let paid = balance(&ledger.params, channel, Side::B, 1_500);
    ledger.apply(&unilateral(&ledger.params, channel, Side::A, Some(paid)));
    let deadline = deadline(&ledger, channel);
    assert_eq!(deadline, ledger.index + u64::from(WINDOW));
    ledger.pass_until(deadline);
    assert!(ledger.state.channel(&channel).is_some(), "the milestone of the deadline still takes claims");
    let (confirmation, _) = ledger.confirmation(&[]);
    assert_eq!(confirmation.channels, [channel], "who follows sees the settlement");
    assert_eq!(payouts(&ledger, channel), [Some(7_500), Some(2_500)]);
    assert_eq!(ledger.state.channel(&channel), None);
}

#[test]
fn with_no_balance_everyone_gets_the_deposit_back() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    ledger.apply(&unilateral(&ledger.params, channel, Side::B, None));
    ledger.pass_until(20);
    assert_eq!(payouts(&ledger, channel), [Some(6_000), Some(4_000)]);
}

#[test]
fn an_old_balance_is_beaten_by_a_newer_one() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let at = |cumulative| balance(&ledger.params, channel, Side::A, cumulative);
    let [old, newer, newest] = [at(100), at(2_000), at(5_000)];
    // B closes with an old balance of A's lane, which hurts only B; B may correct it by a claim.
    ledger.apply(&unilateral(&ledger.params, channel, Side::B, Some(old)));
    assert_eq!(ledger.conflict(&claim(&ledger.params, &old)), Conflict::NotHigher);
    ledger.apply(&claim(&ledger.params, &newer));
    ledger.apply(&claim(&ledger.params, &newest));
    assert_eq!(ledger.conflict(&claim(&ledger.params, &newer)), Conflict::NotHigher);
    ledger.pass_until(20);
    assert_eq!(payouts(&ledger, channel), [Some(1_000), Some(9_000)]);
}

#[test]
fn both_lanes_count() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let to_b = balance(&ledger.params, channel, Side::A, 5_500);
    let to_a = balance(&ledger.params, channel, Side::B, 3_000);
    ledger.apply(&unilateral(&ledger.params, channel, Side::B, Some(to_b)));
    ledger.apply(&claim(&ledger.params, &to_a));
    ledger.pass_until(20);
    assert_eq!(payouts(&ledger, channel), [Some(3_500), Some(6_500)]);
}

#[test]
fn a_settlement_never_pays_more_than_is_there() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let too_much = balance(&ledger.params, channel, Side::A, 1_000_000);
    ledger.apply(&unilateral(&ledger.params, channel, Side::B, Some(too_much)));
    ledger.pass_until(20);
    assert_eq!(payouts(&ledger, channel), [None, Some(10_000)]);
}

#[test]
fn a_claim_counts_up_to_the_deadline_and_not_after() {
    for late in [0, 1] {
        let mut ledger = Ledger::new();
        let channel = ledger.open_channel();
        let claimed = claim(&ledger.params, &balance(&ledger.params, channel, Side::B, 4_000));
        ledger.apply(&unilateral(&ledger.params, channel, Side::B, None));
        let last_before = deadline(&ledger, channel) - 1 + late;
        ledger.pass_until(last_before);
        let result = ledger.confirm(&[claimed])[0];
        ledger.confirm(&[]);
        if late == 0 {
            assert_eq!(result, Ok(()));
            assert_eq!(payouts(&ledger, channel), [Some(10_000), None]);
        } else {
            assert_eq!(result, Err(Conflict::ChannelUnknown), "settled before the claim was looked at");
            assert_eq!(payouts(&ledger, channel), [Some(6_000), Some(4_000)]);
        }
    }
}

/// Whichever of its old balances the peer shows, and however late: a claim in the last milestone that still counts
/// makes it good to the unit, while the closer's own lane counts as the closer would have it not.
#[test]
fn after_a_close_with_any_old_balance_the_last_milestone_is_enough_for_a_claim() {
    for old in 0..100 {
        let mut ledger = Ledger::new();
        let channel = ledger.open_channel();
        let shown = (old > 0).then(|| balance(&ledger.params, channel, Side::A, old * 10));
        let newest = [Side::A, Side::B].map(|side| {
            let cumulative = side.pick(1_000, 3_000 + old);
            claim(&ledger.params, &balance(&ledger.params, channel, side, cumulative))
        });
        ledger.apply(&unilateral(&ledger.params, channel, Side::B, shown));
        let last_before = deadline(&ledger, channel) - 1;
        ledger.pass_until(last_before);
        assert_eq!(ledger.confirm(&newest), [Ok(()), Ok(())], "old balance {old}");
        ledger.confirm(&[]);
        let paid = [Some(6_000 - 1_000 + 3_000 + old), Some(4_000 + 1_000 - 3_000 - old)];
        assert_eq!(payouts(&ledger, channel), paid, "old balance {old}");
    }
}

#[test]
fn closing_alone_and_claiming_need_the_right_keys_and_phase() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let params = ledger.params.clone();
    let paid = balance(&params, channel, Side::B, 10);
    assert_eq!(ledger.conflict(&claim(&params, &paid)), Conflict::ChannelOpen);

    let mut foreign = unilateral(&params, channel, Side::A, None);
    foreign.unlocks = vec![foreign.essence.unlock(&key(12))];
    assert_eq!(ledger.conflict(&foreign), Conflict::NotAParty);
    // A balance of B's lane, signed by A itself.
    let mut forged = unilateral(&params, channel, Side::A, Some(paid));
    let signed = paid.state.sign(params.id(), &key(11));
    forged.unlocks[1].key = key(11).public();
    forged.unlocks[1].signature = signed.signature;
    assert_eq!(ledger.conflict(&forged), Conflict::NotAParty);

    // A balance of nothing is not above what the ledger knows.
    let nothing = balance(&params, channel, Side::B, 0);
    assert_eq!(ledger.conflict(&unilateral(&params, channel, Side::A, Some(nothing))), Conflict::NotHigher);
    ledger.apply(&unilateral(&params, channel, Side::A, Some(paid)));
    assert_eq!(ledger.conflict(&unilateral(&params, channel, Side::B, None)), Conflict::ChannelClosing);
    let mut forged = claim(&params, &balance(&params, channel, Side::B, 500));
    let Action::Claim(Claim { state, .. }) = forged.essence.action else { panic!("it is a claim") };
    forged.unlocks[0].key = key(9).public();
    forged.unlocks[0].signature = state.sign(params.id(), &key(9)).signature;
    assert_eq!(ledger.conflict(&forged), Conflict::NotAParty);
    let unknown = ChannelId::new([9; 32]);
    assert_eq!(ledger.conflict(&unilateral(&params, unknown, Side::A, None)), Conflict::ChannelUnknown);
    let foreign_claim = claim(&params, &balance(&params, unknown, Side::A, 5));
    assert_eq!(ledger.conflict(&foreign_claim), Conflict::ChannelUnknown);
}

#[test]
fn a_payout_can_be_spent_and_a_channel_lives_within_one_milestone() {
    let mut ledger = Ledger::new();
    let params = ledger.params.clone();
    let open = spend(
        &params,
        &[genesis_coin(&params, 1)],
        vec![output(1, 990_000)],
        Action::Open(opening(6_000, 4_000, 1)),
    );
    let channel = ChannelId::opened_by(open.id());
    let close = cooperative(&params, channel, (6_000, 4_000), 1);
    let paid = Output { address: Address::of(&key(21).public()), amount: Amount::new(6_000) };
    let onward: Transaction =
        transfer(&params, &[(channel.payout(Side::A), paid, 21)], vec![output(5, 6_000)]);
    let (confirmation, results) = ledger.confirmation(&[open, close, onward]);
    assert_eq!(results, [Ok(()); 3]);
    assert_eq!(confirmation.channels, [channel]);
    assert_eq!((ledger.at(5), ledger.at(22)), (6_000, 4_000));
}

#[test]
fn the_longest_window_fits() {
    let mut ledger = Ledger::new();
    let mut open = opening(6_000, 4_000, 100);
    open.contest_window_milestones = limits::CONTEST_WINDOW_MILESTONES_MAX;
    let coin = genesis_coin(&ledger.params, 1);
    let opened = spend(&ledger.params, &[coin], vec![output(1, 990_000)], Action::Open(open));
    let channel = ChannelId::opened_by(opened.id());
    ledger.apply(&opened);
    ledger.apply(&unilateral(&ledger.params, channel, Side::A, None));
    assert_eq!(deadline(&ledger, channel), 2 + u64::from(limits::CONTEST_WINDOW_MILESTONES_MAX));
}

/// A ledger with so many channels of 2,000 whose contests ended with milestone 5.
fn many_due(count: usize) -> (LedgerState, Vec<ChannelId>) {
    let record = ChannelRecord {
        phase: ChannelPhase::Closing { closer: Side::A, deadline: 5 },
        ..ChannelRecord::opened(&opening(1_500, 500, 5))
    };
    let ids: Vec<ChannelId> = (0_u64..)
        .take(count)
        .map(|n| {
            ChannelId::opened_by(TransactionId::new(*Layout::new(Tag::TRANSACTION).u64(n).hash().as_bytes()))
        })
        .collect();
    let locked = Amount::new(2_000).checked_mul(u64::try_from(count).unwrap()).unwrap();
    let rest = Output { address: address(1), amount: Amount::SUPPLY.checked_sub(locked).unwrap() };
    let output = OutputId { transaction: TransactionId::new([7; 32]), index: 0 };
    let channels = ids.iter().map(|id| (StateKey::Channel(*id), StateValue::Channel(record)));
    let rest = [(StateKey::Output(output), StateValue::Output(rest))];
    (LedgerState::from_entries(channels.chain(rest)), ids)
}

/// More contests that end at once than one milestone settles: the rest is settled by the next, and takes
/// no more claims meanwhile.
#[test]
fn many_settlements_at_once_are_spread_over_milestones() {
    let (mut ledger, mut ids) = many_due(limits::SETTLEMENTS_PER_MILESTONE_MAX + 1);
    ids.sort_unstable();
    let left = *ids.last().unwrap();
    let params = params();
    let transaction = claim(&params, &balance(&params, left, Side::A, 9));
    let claim = Checked::new(transaction, &params).unwrap();
    let confirmation = ledger.confirm(6, &[(BlockId::new([1; 32]), Some(&claim))]);
    assert_eq!(confirmation.channels.len(), limits::SETTLEMENTS_PER_MILESTONE_MAX);
    assert!(matches!(confirmation.conflicts[..], [(_, _, Conflict::Expired)]));
    ledger.accept(&confirmation);
    assert!(ledger.channel(&left).is_some());
    let confirmation = ledger.confirm(7, &[]);
    assert_eq!(confirmation.channels, [left]);
    ledger.accept(&confirmation);
    assert_eq!(ledger.channels_count(), 0);
}
