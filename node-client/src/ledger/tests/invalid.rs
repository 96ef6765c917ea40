//! What no node lets into the Tangle: each kind of [`Invalid`] once.

use flash_proto::{
    Action, Amount, ChannelId, Claim, Hash, LaneState, NetworkId, Output, PublicKey, Side, TickTerms,
    Transaction, limits,
    payment::PaymentError,
    ticks::TickError,
    transaction::{CooperativeClose, UnilateralClose},
};

use super::support::*;
use crate::ledger::{Checked, Invalid};

fn invalid(transaction: Transaction) -> Invalid {
    Checked::new(transaction, &params()).unwrap_err()
}

fn open_with(change: impl FnOnce(&mut flash_proto::Open)) -> Transaction {
    let params = params();
    let mut open = opening(6_000, 4_000, 100);
    change(&mut open);
    spend(&params, &[genesis_coin(&params, 1)], Vec::new(), Action::Open(open))
}

fn pay(outputs: Vec<Output>) -> Transaction {
    let params = params();
    transfer(&params, &[genesis_coin(&params, 1)], outputs)
}

#[test]
fn other_networks() {
    let mut other = params();
    other.name.push('2');
    let coin = genesis_coin(&other, 1);
    assert_eq!(invalid(transfer(&other, &[coin], vec![output(1, 1_000_000)])), Invalid::Network);
    let mut relabelled = transfer(&other, &[coin], vec![output(1, 1_000_000)]);
    relabelled.essence.network = params().id();
    assert_eq!(invalid(relabelled), Invalid::Signature(0), "the network is part of what is signed");
    assert_ne!(other.id(), NetworkId::new(*params().id().as_bytes()));
}

#[test]
fn counts() {
    let params = params();
    let max = limits::INPUTS_MAX;
    assert_eq!(
        invalid(transfer(&params, &[], vec![output(1, 1_000)])),
        Invalid::Inputs { got: 0, min: 1, max }
    );
    let mut many = Vec::new();
    for index in 0..=limits::INPUTS_MAX {
        let (mut id, held, owner) = genesis_coin(&params, 1);
        id.index = u16::try_from(index).unwrap();
        many.push((id, held, owner));
    }
    let too_many = transfer(&params, &many, vec![output(1, 1_000)]);
    assert_eq!(invalid(too_many), Invalid::Inputs { got: max + 1, min: 1, max });
    let max = limits::OUTPUTS_MAX;
    assert_eq!(invalid(pay(Vec::new())), Invalid::Outputs { got: 0, min: 1, max });
    assert_eq!(invalid(pay(vec![output(1, 1_000); max + 1])), Invalid::Outputs { got: max + 1, min: 1, max });
    let mut acting_with_outputs = unilateral(&params, ChannelId::new([1; 32]), Side::A, None);
    acting_with_outputs.essence.outputs.push(output(1, 1_000));
    assert_eq!(invalid(acting_with_outputs), Invalid::Outputs { got: 1, min: 0, max: 0 });
    let coin = genesis_coin(&params, 1);
    let mut twice = transfer(&params, &[coin, coin], vec![output(1, 2_000_000)]);
    assert_eq!(invalid(twice.clone()), Invalid::InputTwice);
    twice.unlocks.clear();
    assert_eq!(invalid(twice), Invalid::InputTwice);
    let mut without_unlock = pay(vec![output(1, 1_000_000)]);
    without_unlock.unlocks.clear();
    assert_eq!(invalid(without_unlock), Invalid::Unlocks { got: 0, wanted: 1 });
    let mut with_more = pay(vec![output(1, 1_000_000)]);
    with_more.unlocks.push(with_more.unlocks[0]);
    assert_eq!(invalid(with_more), Invalid::Unlocks { got: 2, wanted: 1 });
}

#[test]
fn amounts() {
    let params = params();
    assert_eq!(invalid(pay(vec![output(1, 999)])), Invalid::OutputBelowMinimum(Amount::new(999)));
    assert_eq!(invalid(pay(vec![output(1, 0)])), Invalid::OutputBelowMinimum(Amount::ZERO));
    let supply = Amount::SUPPLY.units();
    assert_eq!(invalid(pay(vec![output(1, supply + 1)])), Invalid::Supply);
    assert_eq!(invalid(pay(vec![output(1, supply), output(1, 1_000)])), Invalid::Supply);
    assert_eq!(invalid(pay(vec![output(1, u64::MAX), output(1, u64::MAX)])), Invalid::Supply);
    assert_eq!(invalid(open_with(|open| open.party_a.deposit = Amount::new(supply))), Invalid::Supply);
    assert_eq!(invalid(open_with(|open| open.party_a.deposit = Amount::MAX)), Invalid::Supply);
    let with_outputs = spend(
        &params,
        &[genesis_coin(&params, 1)],
        vec![output(1, supply)],
        Action::Open(opening(6_000, 4_000, 9)),
    );
    assert_eq!(invalid(with_outputs), Invalid::Supply);
    let close = CooperativeClose {
        channel: ChannelId::new([1; 32]),
        final_seq_a: 0,
        final_seq_b: 0,
        payout_a: Amount::MAX,
        payout_b: Amount::new(1),
        expiry_milestone: 9,
    };
    assert_eq!(invalid(acting(&params, Action::CooperativeClose(close), &[11, 12])), Invalid::Supply);
}

#[test]
fn openings() {
    for got in [limits::CONTEST_WINDOW_MILESTONES_MIN - 1, limits::CONTEST_WINDOW_MILESTONES_MAX + 1] {
        let wrong = open_with(|open| open.contest_window_milestones = got);
        assert_eq!(invalid(wrong), Invalid::ContestWindow { got });
    }
    let poor = open_with(|open| {
        open.party_a.deposit = Amount::new(1_999);
        open.party_b.deposit = Amount::ZERO;
    });
    assert_eq!(invalid(poor), Invalid::Deposits { got: Amount::new(1_999), min: Amount::new(2_000) });
    let just_enough = open_with(|open| {
        open.party_a.deposit = Amount::ZERO;
        open.party_b.deposit = Amount::new(2_000);
    });
    assert!(Checked::new(just_enough, &params()).is_ok());
    assert_eq!(invalid(open_with(|open| open.party_b.key = open.party_a.key)), Invalid::PartyKeys);
    let no_point = PublicKey::new([2; 32]);
    assert!(no_point.verifier().is_none());
    assert_eq!(invalid(open_with(|open| open.party_b.key = no_point)), Invalid::PartyKeys);
}

#[test]
fn signatures() {
    let mut changed = pay(vec![output(1, 1_000_000)]);
    changed.essence.outputs[0] = output(9, 1_000_000);
    assert_eq!(invalid(changed), Invalid::Signature(0));
    let params = params();
    let channel = ChannelId::new([1; 32]);
    let mut raised = claim(&params, &balance(&params, channel, Side::A, 10));
    raised.essence.action = Action::Claim(Claim::of(balance(&params, channel, Side::A, 11).state));
    assert_eq!(invalid(raised), Invalid::Signature(0));
    let mut unsigned = unilateral(&params, channel, Side::A, Some(balance(&params, channel, Side::B, 5)));
    unsigned.unlocks[1].signature = unsigned.unlocks[0].signature;
    assert_eq!(invalid(unsigned), Invalid::Signature(1));
}

#[test]
fn balances() {
    let params = params();
    let (channel, other) = (ChannelId::new([1; 32]), ChannelId::new([2; 32]));
    let of = |channel, payer| Some(balance(&params, channel, payer, 5));
    assert_eq!(invalid(unilateral(&params, channel, Side::A, of(other, Side::B))), Invalid::WrongLane);
    assert_eq!(invalid(unilateral(&params, channel, Side::A, of(channel, Side::A))), Invalid::WrongLane);
    let with_terms = |change: fn(&mut LaneState)| {
        let mut state = balance(&params, channel, Side::B, 5).state;
        change(&mut state);
        state
    };
    let no_chain = Invalid::Ticks(PaymentError::Ticks(TickError::Terms));
    for (state, wrong) in [
        (with_terms(|state| state.locks_root = Hash::new([1; 32])), Invalid::Locks),
        (with_terms(|state| state.ticks = TickTerms { max: 1, ..TickTerms::NONE }), no_chain),
    ] {
        assert_eq!(invalid(claim(&params, &state.sign(params.id(), &key(12)))), wrong);
        let close = UnilateralClose { channel, closer: Side::A, balance: Some(Claim::of(state)) };
        let closing = acting(&params, Action::UnilateralClose(close), &[11, 12]);
        assert_eq!(invalid(closing), wrong);
    }
}
