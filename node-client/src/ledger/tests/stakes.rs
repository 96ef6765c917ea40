//! Topping up and withdrawing: what a channel holds changes while it is in use.

use flash_proto::{
    Action, Amount, ChannelId, OutputId, Side, Transaction,
    transaction::{TopUp, Withdraw},
};

use super::support::*;
use crate::ledger::{Checked, Conflict, Invalid};

const EXPIRY: u64 = 50;

/// Key 2, who has nothing to do with the channel, adds to A's deposit; A signs as well.
fn topping(ledger: &Ledger, channel: ChannelId, amount: u64) -> Transaction {
    let coin = genesis_coin(&ledger.params, 2);
    let top_up = TopUp { channel, side: Side::A, amount: Amount::new(amount), expiry_milestone: EXPIRY };
    super::support::top_up(&ledger.params, &[coin], vec![output(2, 500_000 - amount)], top_up)
}

/// Deposit and withdrawn total of a side.
fn stake(ledger: &Ledger, channel: ChannelId, side: Side) -> (u64, u64) {
    let totals = ledger.state.channel(&channel).unwrap().totals(side);
    (totals.deposit.units(), totals.withdrawn.units())
}

fn invalid(transaction: Transaction) -> Invalid {
    Checked::new(transaction, &params()).unwrap_err()
}

#[test]
fn a_top_up_raises_one_deposit_and_keeps_the_rest_of_the_channel() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let before = *ledger.state.channel(&channel).unwrap();
    let top_up = topping(&ledger, channel, 2_500);
    let (confirmation, results) = ledger.confirmation(std::slice::from_ref(&top_up));
    assert_eq!((results, confirmation.channels), (vec![Ok(())], vec![channel]), "who follows sees it");
    let after = *ledger.state.channel(&channel).unwrap();
    let mut wanted = before;
    wanted.party_a.deposit = Amount::new(8_500);
    assert_eq!(after, wanted);
    assert_eq!(ledger.state.in_channels(), Amount::new(12_500));
    assert_eq!(ledger.at(2), 497_500);
    for n in [11, 12] {
        let found: Vec<_> = ledger.state.channels_after(&key(n).public(), None).collect();
        assert_eq!(found, [(channel, after)], "it is found by its parties as before");
    }
    assert_eq!(ledger.conflict(&top_up), Conflict::InputMissing, "it counts once");
    ledger.apply(&cooperative(&ledger.params, channel, (8_500, 4_000), 100));
    assert_eq!((ledger.at(21), ledger.at(22)), (8_500, 4_000));
}

#[test]
fn a_top_up_adds_exactly_what_the_inputs_leave_over() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let coin = genesis_coin(&ledger.params, 2);
    for wrong in [2_499, 2_501] {
        let amount = Amount::new(wrong);
        let top_up = TopUp { channel, side: Side::A, amount, expiry_milestone: EXPIRY };
        let wrong = super::support::top_up(&ledger.params, &[coin], vec![output(2, 497_500)], top_up);
        assert_eq!(ledger.conflict(&wrong), Conflict::Sum);
    }
    // Without change, and down to the smallest amount.
    let top_up = TopUp { channel, side: Side::B, amount: Amount::new(500_000), expiry_milestone: EXPIRY };
    ledger.apply(&super::support::top_up(&ledger.params, &[coin], Vec::new(), top_up));
    assert_eq!(stake(&ledger, channel, Side::B), (504_000, 0));
    let coin = genesis_coin(&ledger.params, 3);
    let rest = vec![output(3, coin.1.amount.units() - 1)];
    let least = TopUp { amount: Amount::new(1), ..top_up };
    ledger.apply(&super::support::top_up(&ledger.params, &[coin], rest, least));
    assert_eq!(stake(&ledger, channel, Side::B), (504_001, 0));
}

#[test]
fn nobody_but_the_side_itself_changes_what_a_close_must_add_up_to() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    for signer in [2, 12, 1] {
        let mut foreign = topping(&ledger, channel, 2_500);
        foreign.unlocks[1] = foreign.essence.unlock(&key(signer));
        assert_eq!(ledger.conflict(&foreign), Conflict::NotAParty, "signed by {signer}");
    }
    let mut unsigned = topping(&ledger, channel, 2_500);
    unsigned.unlocks.pop();
    assert_eq!(invalid(unsigned), Invalid::Unlocks { got: 1, wanted: 2 });
    let mut forged = topping(&ledger, channel, 2_500);
    forged.unlocks[1].signature = forged.unlocks[0].signature;
    assert_eq!(invalid(forged), Invalid::Signature(1));
    // The side's unlock does not stand for the input's.
    let mut stolen = topping(&ledger, channel, 2_500);
    stolen.unlocks[0] = stolen.unlocks[1];
    assert_eq!(ledger.conflict(&stolen), Conflict::WrongKey);
    // A close that was signed before a top-up by the other side no longer adds up: nothing is paid wrongly.
    let close = cooperative(&ledger.params, channel, (6_000, 4_000), 100);
    let top_up = topping(&ledger, channel, 2_500);
    assert_eq!(ledger.confirm(&[top_up, close]), [Ok(()), Err(Conflict::Payouts)]);
}

#[test]
fn a_withdraw_pays_the_partys_address_and_the_channel_goes_on() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let first = withdraw(&ledger.params, channel, Side::A, (1_500, 1_500), EXPIRY);
    ledger.apply(&first);
    let paid = ledger.state.output(&OutputId { transaction: first.id(), index: 0 }).copied();
    assert_eq!(paid, Some(output(21, 1_500)));
    assert_eq!(stake(&ledger, channel, Side::A), (6_000, 1_500));
    assert_eq!(ledger.state.in_channels(), Amount::new(8_500));
    // What it received, a side may take out as well, so the total may exceed its deposit.
    ledger.apply(&withdraw(&ledger.params, channel, Side::B, (4_000, 4_000), EXPIRY));
    ledger.apply(&withdraw(&ledger.params, channel, Side::B, (1_000, 5_000), EXPIRY));
    assert_eq!(stake(&ledger, channel, Side::B), (4_000, 5_000));
    let owed = balance(&ledger.params, channel, Side::A, 3_000);
    ledger.apply(&unilateral(&ledger.params, channel, Side::B, Some(owed)));
    ledger.pass_until(20);
    assert_eq!((ledger.at(21), ledger.at(22)), (1_500 + 1_500, 5_000 + 2_000));
}

#[test]
fn a_withdraw_applies_once_and_in_its_turn() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let at = |side, amounts, expiry| withdraw(&params(), channel, side, amounts, expiry);
    let first = at(Side::A, (1_000, 1_000), EXPIRY);
    let second = at(Side::A, (1_200, 2_200), EXPIRY);
    // Two that both follow the same total: whichever is first in a milestone's order.
    let instead = at(Side::A, (2_000, 2_000), EXPIRY);
    assert_eq!(ledger.conflict(&second), Conflict::Withdrawn, "before the first");
    let results = ledger.confirm(&[first.clone(), instead.clone(), second.clone(), first.clone()]);
    let again = Err(Conflict::Withdrawn);
    assert_eq!(results, [Ok(()), again, Ok(()), again]);
    for old in [first, instead, second] {
        assert_eq!(ledger.conflict(&old), Conflict::Withdrawn);
    }
    // The same step with another expiry is another transaction, and the same step.
    assert_eq!(ledger.conflict(&at(Side::A, (1_200, 2_200), EXPIRY + 1)), Conflict::Withdrawn);
    assert_eq!(
        ledger.conflict(&at(Side::B, (1_200, 2_200), EXPIRY)),
        Conflict::Withdrawn,
        "the other's total"
    );
    assert_eq!(stake(&ledger, channel, Side::A), (6_000, 2_200));
}

#[test]
fn a_withdraw_needs_both_keys() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let (amount, total) = (Amount::new(1_000), Amount::new(1_000));
    let step = Withdraw { channel, side: Side::A, amount, total, expiry_milestone: EXPIRY };
    for signers in [[11, 11], [12, 11], [9, 12], [11, 9]] {
        let foreign = acting(&ledger.params, Action::Withdraw(step), &signers);
        assert_eq!(ledger.conflict(&foreign), Conflict::NotAParty, "{signers:?}");
    }
    let alone = acting(&ledger.params, Action::Withdraw(step), &[11]);
    assert_eq!(invalid(alone), Invalid::Unlocks { got: 1, wanted: 2 });
    let mut raised = withdraw(&ledger.params, channel, Side::A, (1_000, 1_000), EXPIRY);
    raised.essence.action = Action::Withdraw(Withdraw { expiry_milestone: EXPIRY + 1, ..step });
    assert_eq!(invalid(raised), Invalid::Signature(0));
}

#[test]
fn a_withdraw_leaves_neither_dust_nor_an_empty_channel() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let at = |amount, total| withdraw(&params(), channel, Side::A, (amount, total), EXPIRY);
    for small in [0, 999] {
        assert_eq!(invalid(at(small, 2_000)), Invalid::OutputBelowMinimum(Amount::new(small)));
    }
    let (amount, total) = (Amount::new(2_000), Amount::new(1_999));
    assert_eq!(invalid(at(2_000, 1_999)), Invalid::WithdrawnTotal { amount, total });
    for too_much in [8_001, 10_000, 10_001, u64::MAX] {
        assert_eq!(ledger.conflict(&at(too_much, too_much)), Conflict::Deposits, "{too_much}");
    }
    assert_eq!(ledger.conflict(&at(u64::MAX - 1, u64::MAX)), Conflict::Withdrawn);
    ledger.apply(&at(8_000, 8_000));
    assert_eq!(ledger.conflict(&at(1_000, 9_000)), Conflict::Deposits);
    assert_eq!(ledger.conflict(&at(u64::MAX - 8_000, u64::MAX)), Conflict::Deposits);
}

#[test]
fn a_network_without_a_smallest_output_has_no_empty_withdraw_either() {
    let free = flash_proto::NetworkParams { output_min: Amount::ZERO, ..params() };
    let nothing = withdraw(&free, ChannelId::new([1; 32]), Side::A, (0, 5), EXPIRY);
    assert_eq!(Checked::new(nothing, &free), Err(Invalid::OutputBelowMinimum(Amount::ZERO)));
}

#[test]
fn both_end_with_their_expiry_and_with_the_use_of_the_channel() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let params = ledger.params.clone();
    let coin = genesis_coin(&params, 2);
    let changes = |expiry_milestone| {
        let top_up = TopUp { channel, side: Side::A, amount: Amount::new(2_000), expiry_milestone };
        let top_up = super::support::top_up(&params, &[coin], vec![output(2, 498_000)], top_up);
        [top_up, withdraw(&params, channel, Side::B, (1_000, 1_000), expiry_milestone)]
    };
    for late in changes(ledger.index) {
        assert_eq!(ledger.conflict(&late), Conflict::Expired);
    }
    // In time while the channel is in use; not after a close in the same milestone.
    let [top_up, take] = changes(ledger.index + 1);
    let alone = unilateral(&params, channel, Side::A, None);
    assert_eq!(ledger.confirm(&[take, alone, top_up]), [Ok(()), Ok(()), Err(Conflict::ChannelClosing)]);
    for closing in changes(EXPIRY) {
        assert_eq!(ledger.conflict(&closing), Conflict::ChannelClosing);
    }
    ledger.pass_until(20);
    for closed in changes(EXPIRY) {
        assert_eq!(ledger.conflict(&closed), Conflict::ChannelUnknown);
    }
    assert_eq!((ledger.at(2), ledger.at(21), ledger.at(22)), (500_000, 6_000, 4_000));
}

#[test]
fn a_channel_may_be_opened_changed_and_closed_within_one_milestone() {
    let mut ledger = Ledger::new();
    let params = ledger.params.clone();
    let open = Action::Open(opening(6_000, 4_000, 1));
    let open = spend(&params, &[genesis_coin(&params, 1)], vec![output(1, 990_000)], open);
    let channel = ChannelId::opened_by(open.id());
    let top_up = topping(&ledger, channel, 2_500);
    let take = withdraw(&params, channel, Side::A, (3_000, 3_000), 1);
    let onward = transfer(
        &params,
        &[(OutputId { transaction: take.id(), index: 0 }, output(21, 3_000), 21)],
        vec![output(5, 3_000)],
    );
    let close = cooperative(&params, channel, (5_500, 4_000), 1);
    assert_eq!(ledger.confirm(&[open, top_up, take, onward, close]), [Ok(()); 5]);
    assert_eq!((ledger.at(5), ledger.at(21), ledger.at(22)), (3_000, 5_500, 4_000));
}

#[test]
fn sums_that_do_not_fit() {
    let params = params();
    let coin = genesis_coin(&params, 2);
    let channel = ChannelId::new([1; 32]);
    let with = |amount, outputs| {
        let top_up = TopUp { channel, side: Side::A, amount: Amount::new(amount), expiry_milestone: EXPIRY };
        super::support::top_up(&params, &[coin], outputs, top_up)
    };
    let supply = Amount::SUPPLY.units();
    assert_eq!(invalid(with(0, vec![output(2, 500_000)])), Invalid::NothingAdded);
    assert_eq!(invalid(with(supply + 1, Vec::new())), Invalid::Supply);
    assert_eq!(invalid(with(supply, vec![output(2, 1_000)])), Invalid::Supply);
    assert_eq!(invalid(with(u64::MAX, vec![output(2, 1_000)])), Invalid::Supply);
    assert_eq!(invalid(with(5_000, vec![output(2, 999)])), Invalid::OutputBelowMinimum(Amount::new(999)));
    let mut bare = with(5_000, Vec::new());
    bare.essence.inputs.clear();
    assert!(matches!(invalid(bare), Invalid::Inputs { got: 0, min: 1, .. }));
    let mut making = withdraw(&params, channel, Side::A, (1_000, 1_000), EXPIRY);
    making.essence.outputs.push(output(2, 1_000));
    assert_eq!(invalid(making), Invalid::Outputs { got: 1, min: 0, max: 0 });
}
