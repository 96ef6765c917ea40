//! Where every run begins: a network, two funded parties, and a channel that both have agreed on.

use std::sync::LazyLock;

use flash_channel::machine::{Agreement, Origin, open};
use flash_proto::{
    Address, Amount, NetworkParams, Output, OutputId, SecretKey, Side, Transaction, TransactionId, Unlock,
    message::{Funding, OpenParty, OpenProposal},
};

use super::faults::Plan;

/// What each party owns on the ledger before the channel.
const FUNDS: u64 = 1_000_000;

pub(super) fn channel_key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 1; 32])
}

/// What the ledger wants to stay in a channel.
pub(super) fn left_min() -> Amount {
    params().output_min.checked_mul(2).unwrap_or(Amount::MAX)
}

pub(super) fn money_key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 11; 32])
}

pub(super) fn payout_address(side: Side) -> Address {
    Address::of(&SecretKey::from_bytes([side.byte() + 21; 32]).public())
}

pub(super) fn change_address(side: Side) -> Address {
    Address::of(&money_key(side).public())
}

pub(super) fn bank_address() -> Address {
    Address::of(&SecretKey::from_bytes([99; 32]).public())
}

/// Every address that may own money.
pub(super) static ADDRESSES: LazyLock<[Address; 5]> = LazyLock::new(|| {
    let [a, b] = Side::BOTH.map(|side| [change_address(side), payout_address(side)]);
    let ([change_a, payout_a], [change_b, payout_b]) = (a, b);
    [change_a, payout_a, change_b, payout_b, bank_address()]
});

pub(super) fn params() -> NetworkParams {
    let funds = Amount::new(FUNDS);
    let rest = Amount::new(Amount::SUPPLY.units() - 2 * FUNDS);
    let genesis = vec![
        Output { address: change_address(Side::A), amount: funds },
        Output { address: change_address(Side::B), amount: funds },
        Output { address: bank_address(), amount: rest },
    ];
    NetworkParams {
        name: "sim".into(),
        coordinators: vec![SecretKey::from_bytes([98; 32]).public()],
        threshold: 1,
        pow_bits: 0,
        output_min: Amount::new(1),
        milestone_interval_ms: 1_000,
        genesis_ms: 0,
        genesis,
    }
}

fn open_party(params: &NetworkParams, side: Side, deposit: Amount) -> OpenParty {
    let transaction = TransactionId::new(*params.id().as_bytes());
    let output = Output { address: change_address(side), amount: Amount::new(FUNDS) };
    let id = OutputId { transaction, index: u16::from(side.byte()) };
    let change = Output { amount: output.amount.saturating_sub(deposit), ..output };
    let used = !deposit.is_zero();
    OpenParty {
        key: channel_key(side).public(),
        payout: payout_address(side),
        deposit,
        funding: used.then_some(Funding { id, output }).into_iter().collect(),
        change: Some(change).filter(|change| used && !change.amount.is_zero()),
    }
}

/// What both parties keep of the channel they agreed on: A's has all the signatures, B's only its own.
pub(super) fn agreements(params: &NetworkParams, plan: &Plan) -> [Agreement; 2] {
    let parties = Side::BOTH.map(|side| open_party(params, side, plan.deposit(side)));
    let [party_a, party_b] = &parties;
    let proposal = OpenProposal {
        party_a: party_a.clone(),
        deposit_b: party_b.deposit,
        contest_window_milestones: plan.window,
        expiry_milestone: plan.open_expiry,
    };
    let network = params.id();
    let essence = open::answer(network, &proposal, party_b).expect("the parties agree");
    let unlocks = |side: Side, party: &OpenParty| -> Vec<Unlock> {
        party.funding.iter().map(|_| essence.unlock(&money_key(side))).collect()
    };
    let (unlocks_a, unlocks_b) = (unlocks(Side::A, party_a), unlocks(Side::B, party_b));
    let opened = open::opened(&essence).expect("an open");
    Side::BOTH.map(|side| Agreement {
        network,
        side,
        peer: SecretKey::from_bytes([(!side).byte() + 31; 32]).public(),
        key_index: 0,
        origin: Origin::Agreed(Box::new(match side {
            Side::A => open::transaction(essence.clone(), unlocks_a.clone(), unlocks_b.clone()),
            Side::B => Transaction { essence: essence.clone(), unlocks: unlocks_b.clone() },
        })),
        open: opened,
    })
}
