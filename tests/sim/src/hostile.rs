//! What a party does that wants to take more than is its own.

use flash_proto::{
    Action, Amount, Claim, Essence, LaneState, NetworkId, Payment, PaymentList, Reference, SecretKey,
    Signature, SignedBalance, TickTerms, Transaction, Unlock,
    message::{ChannelMessage, Reestablish, Stake, Stakes, Update},
    transaction::{CooperativeClose, UnilateralClose},
};

use super::{
    link::corrupted,
    party::{Party, Shown},
    rng::Rng,
    setup,
};

/// A close or a claim with any balance that was ever held, a close with nothing, or a claim with an old balance
/// of its own.
pub(super) fn on_ledger(party: &Party, network: NetworkId, rng: &mut Rng) -> Transaction {
    let (ours, theirs) = (setup::channel_key(party.side), setup::channel_key(!party.side).public());
    if rng.chance(20)
        && let Some(old) = rng.pick(&party.own)
    {
        let (state, ticks) = (old.0.state, old.1);
        let essence = Essence::acting(network, Action::Claim(Claim { state, ticks }));
        let unlocks = vec![Unlock { key: ours.public(), signature: old.0.signature }];
        return Transaction { essence, unlocks };
    }
    let balance = if rng.chance(25) { None } else { rng.pick(&party.archive).copied() };
    let unlock = balance.map(|(balance, _)| Unlock { key: theirs, signature: balance.signature });
    if let Some((balance, ticks)) = balance.filter(|_| rng.chance(40)) {
        let essence = Essence::acting(network, Action::Claim(Claim { state: balance.state, ticks }));
        return Transaction { essence, unlocks: unlock.into_iter().collect() };
    }
    close(party, network, balance.as_ref())
}

/// A close with the oldest balance that was ever held.
pub(super) fn stale_close(party: &Party, network: NetworkId) -> Transaction {
    close(party, network, party.archive.first())
}

fn close(party: &Party, network: NetworkId, balance: Option<&Shown>) -> Transaction {
    let (ours, theirs) = (setup::channel_key(party.side), setup::channel_key(!party.side).public());
    let action = Action::UnilateralClose(UnilateralClose {
        channel: party.id,
        closer: party.side,
        balance: balance.map(|(balance, ticks)| Claim { state: balance.state, ticks: *ticks }),
    });
    let essence = Essence::acting(network, action);
    let unlock = balance.map(|(balance, _)| Unlock { key: theirs, signature: balance.signature });
    let unlocks = std::iter::once(essence.unlock(&ours)).chain(unlock).collect();
    Transaction { essence, unlocks }
}

fn payments(rng: &mut Rng) -> PaymentList {
    let most = *rng.pick(&[10, 1_000, 1_000_000, u64::MAX / 2]).unwrap_or(&10);
    let mut list = PaymentList::new();
    for _ in 0..rng.between(1, 3) {
        let payment = Payment { amount: Amount::new(rng.between(1, most)), reference: Reference::default() };
        let _ = list.push(&payment);
    }
    list
}

/// An update with a good signature and, mostly, a bad body.
fn bad_update(party: &Party, network: NetworkId, rng: &mut Rng) -> Option<Update> {
    let newest = party.channel()?.outgoing().signed;
    let mut before = newest.map_or(LaneState::new(party.id, party.side), |newest| newest.state);
    let payments = payments(rng);
    let kind = rng.below(9);
    match kind {
        0 => before.seq = before.seq.checked_sub(1)?,
        1 => before.seq = before.seq.saturating_add(rng.between(1, 3)),
        2 => before.cumulative = Amount::new(before.cumulative.units() / 2),
        _ => {}
    }
    let mut state = before.advance(&payments).ok()?;
    match kind {
        3 => state.cumulative = Amount::new(state.cumulative.units().saturating_sub(1)),
        4 => state.ticks = TickTerms { unit: Amount::new(1), max: 5, ..TickTerms::NONE },
        5 => state.payer = !party.side,
        _ => {}
    }
    let key = if kind == 6 { SecretKey::from_bytes([77; 32]) } else { setup::channel_key(party.side) };
    let signature = state.sign(network, &key).signature;
    Some(Update { seq: state.seq, cumulative: state.cumulative, payments, ticks: None, signature })
}

fn bad_standing(party: &Party, network: NetworkId, rng: &mut Rng) -> Option<Reestablish> {
    let channel = party.channel()?;
    let (mut signed, mut signed_ticks) = (channel.outgoing().signed, channel.outgoing().ticks);
    let held = rng.pick(&party.archive).copied().filter(|_| rng.chance(80));
    if rng.chance(30) {
        let before = signed.map_or(LaneState::new(party.id, party.side), |signed| signed.state);
        let seq = before.seq.saturating_add(rng.below(3));
        let cumulative = Amount::new(before.cumulative.units().saturating_add(rng.below(1_000_000)));
        let state = LaneState { seq, cumulative, ..before };
        signed = Some(state.sign(network, &setup::channel_key(party.side)));
        signed_ticks = None;
    }
    let stakes = bad_stakes(rng);
    let (held, held_ticks) = (held.map(|(held, _)| held), held.and_then(|(_, ticks)| ticks));
    Some(Reestablish { signed, signed_ticks, held, held_ticks, stakes })
}

fn bad_stakes(rng: &mut Rng) -> Stakes {
    let mut stake =
        || Stake { deposit: Amount::new(rng.below(200_000)), withdrawn: Amount::new(rng.below(3)) };
    Stakes { a: stake(), b: stake() }
}

/// A balance beyond everything that was agreed on, rightly signed.
fn bad_balance(party: &Party, network: NetworkId, rng: &mut Rng) -> SignedBalance {
    let cumulative = Amount::new(rng.next() >> rng.below(60));
    let state = LaneState { seq: rng.between(1, 200), cumulative, ..LaneState::new(party.id, party.side) };
    state.sign(network, &setup::channel_key(party.side))
}

/// A signed close that pays the signer more than it owns.
fn greedy_close(party: &Party, network: NetworkId, rng: &mut Rng) -> Option<ChannelMessage> {
    let channel = party.channel()?;
    let total = channel.balances().total()?;
    let mine = Amount::new(rng.between(0, total.units()));
    let rest = total.saturating_sub(mine);
    let close = CooperativeClose {
        channel: party.id,
        final_seq_a: rng.below(50),
        final_seq_b: rng.below(50),
        payout_a: party.side.pick(mine, rest),
        payout_b: party.side.pick(rest, mine),
        expiry_milestone: rng.below(1_000),
    };
    let essence = Essence::acting(network, Action::CooperativeClose(close));
    let signature = essence.unlock(&setup::channel_key(party.side)).signature;
    Some(ChannelMessage::CloseSigned { close, signature })
}

/// A message that no honest party would send now.
pub(super) fn message(party: &Party, network: NetworkId, rng: &mut Rng) -> Option<ChannelMessage> {
    Some(match rng.below(10) {
        0..=2 => ChannelMessage::Update(bad_update(party, network, rng)?),
        3 => ChannelMessage::Reestablish(Box::new(bad_standing(party, network, rng)?)),
        4 => ChannelMessage::Ack { seq: rng.below(100) },
        5 => ChannelMessage::Balance(Box::new(bad_balance(party, network, rng))),
        6 => greedy_close(party, network, rng)?,
        7 | 8 => ChannelMessage::CloseRequest,
        _ => match rng.below(2) {
            0 => ChannelMessage::CloseComplete { signature: Signature::new([9; 64]) },
            _ => corrupted(ChannelMessage::CloseRequest, rng),
        },
    })
}
