//! A channel as the admin RPC shows it, and its events.

use std::sync::Arc;

use flash_channel::{
    Channel,
    machine::{self, ChannelEvent, Misbehaviour, Phase},
};
use flash_proto::{
    Amount, Balances, Open, PaymentList, SignedBalance, TickProof, TickTerms, codec, message::Update,
    tower::Claimable,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::View;
use crate::{
    api::{ChannelInfo, LaneInfo, SignedTwice, TicksInfo},
    events::NewEvent,
};

/// Payments that an event lists one by one; of more it gives the number and the sum. So many fit a stored
/// event whatever their references hold.
const ITEMS_MAX: usize = 16;

/// The channel as others see it.
pub(super) fn view(
    channel: &Channel,
    open: Arc<Open>,
    connected: bool,
    created_ms: u64,
    refused: Option<String>,
) -> View {
    View {
        info: info(channel, connected, created_ms),
        open,
        total: total(channel),
        newest: newest(channel),
        key_index: channel.agreement().key_index,
        refused,
    }
}

fn info(channel: &Channel, connected: bool, created_ms: u64) -> ChannelInfo {
    let agreement = channel.agreement();
    let (side, open, locked) = (agreement.side, &agreement.open, channel.locked());
    let (known, balances) = (channel.balances_known() && !locked.unexplained, channel.balances());
    let (own, peers) = (locked.proven.of(side), locked.proven.of(!side));
    let withdrawing = |side| locked.withdraw(side).map(|pending| pending.withdraw.amount);
    let (outgoing, incoming) = (channel.outgoing(), channel.incoming());
    let updates = |balance: Option<SignedBalance>| balance.map_or(0, |balance| balance.state.seq);
    let payouts = match channel.phase() {
        Phase::Closed { payouts, .. } => *payouts,
        _ => None,
    };
    let deadline_milestone = match channel.phase() {
        Phase::Contested { deadline, .. } => Some(*deadline),
        _ => None,
    };
    ChannelInfo {
        id: channel.id(),
        peer: agreement.peer,
        connected,
        created_ms,
        side,
        state: channel.state().to_owned(),
        recovered: channel.is_found() || channel.doubt().is_some(),
        resumes_at_milestone: channel.doubt().and_then(|doubt| doubt.until),
        paused: channel.paused().map(str::to_owned),
        deposit: own.deposit,
        peer_deposit: peers.deposit,
        withdrawn: own.withdrawn,
        peer_withdrawn: peers.withdrawn,
        topping_up: locked.topping_up(),
        withdrawing: withdrawing(side),
        peer_withdrawing: withdrawing(!side),
        balance: known.then(|| balances.of(side)),
        peer_balance: known.then(|| balances.of(!side)),
        payable: channel.available(),
        sent: LaneInfo {
            payments: outgoing.payments,
            acknowledged: outgoing.acknowledged_payments,
            updates: updates(outgoing.signed),
            cumulative: outgoing.total(),
            ticks: ticks(outgoing.signed, outgoing.ticks),
        },
        received: LaneInfo {
            payments: incoming.payments,
            acknowledged: incoming.payments,
            updates: updates(incoming.held),
            cumulative: incoming.total(),
            ticks: ticks(incoming.held, incoming.ticks),
        },
        contest_window_milestones: open.contest_window_milestones,
        deadline_milestone,
        open_transaction: channel.open_transaction(),
        close_transaction: channel.close_transaction_id(),
        payout: payouts.map(|payouts| payouts.of(side)),
        peer_payout: payouts.map(|payouts| payouts.of(!side)),
        signed_twice: channel.signed_twice().map(|pair| Box::new(signed_twice(channel, pair))),
        towers: Vec::new(),
    }
}

/// The newest of what the peer paid, as the ledger would be shown it.
fn newest(channel: &Channel) -> Option<Claimable> {
    let incoming = channel.incoming();
    incoming.held.map(|balance| Claimable { balance, ticks: incoming.ticks })
}

/// All the money in the channel, if no change of that is under way.
fn total(channel: &Channel) -> Option<Amount> {
    let locked = channel.locked();
    let (a, b) = (locked.proven.a, locked.proven.b);
    let gone = a.withdrawn.checked_add(b.withdrawn)?;
    locked.is_settled().then(|| a.deposit.checked_add(b.deposit))??.checked_sub(gone)
}

/// The chain under a balance and how far it is.
fn ticks(balance: Option<SignedBalance>, newest: Option<TickProof>) -> Option<TicksInfo> {
    let terms = balance?.state.ticks;
    let paid = newest.map_or(0, |proof| proof.index);
    let left = terms.max.saturating_sub(paid);
    (terms != TickTerms::NONE).then_some(TicksInfo { unit: terms.unit, paid, left })
}

fn signed_twice(channel: &Channel, pair: &machine::SignedTwice) -> SignedTwice {
    let (agreement, both) = (channel.agreement(), [pair.held, pair.other]);
    SignedTwice {
        update: pair.held.state.seq,
        key: agreement.open.party(!agreement.side).key,
        cumulative: both.map(|balance| balance.state.cumulative),
        balances: both.map(|balance| hex::encode(codec::encode(&balance))),
    }
}

pub(super) fn misbehaved(channel: &Channel, error: &Misbehaviour) -> NewEvent {
    new(channel, "peer_misbehaved", &json!({ "reason": error.to_string() }))
}

fn new(channel: &Channel, kind: &'static str, details: &impl Serialize) -> NewEvent {
    NewEvent::new(kind, Some(channel.id()), details)
}

fn pair(balances: Balances, channel: &Channel) -> Value {
    let side = channel.agreement().side;
    json!({ "ours": balances.of(side), "peers": balances.of(!side) })
}

/// The event as users see it; of some they need not know.
pub(super) fn event(channel: &Channel, event: ChannelEvent) -> Option<NewEvent> {
    let ours = |side| if side == channel.agreement().side { "us" } else { "the peer" };
    let (kind, details) = match event {
        ChannelEvent::Opened => {
            let balances = channel.balances();
            (
                "channel_opened",
                json!({ "peer": channel.agreement().peer, "balances": pair(balances, channel) }),
            )
        }
        ChannelEvent::OldRecords { running } => ("records_old", json!({ "running": running })),
        ChannelEvent::SignedTwice(pair) => ("peer_signed_twice", json!(signed_twice(channel, &pair))),
        ChannelEvent::Found => ("channel_recovered", json!({})),
        ChannelEvent::Lapsed => ("channel_lapsed", json!({})),
        ChannelEvent::Received(update) => {
            return Some(new(channel, "payments_received", &Received::by(&update)));
        }
        ChannelEvent::ReceiptWanted { .. } | ChannelEvent::Receipt { .. } => return None,
        ChannelEvent::Ticks { count, unit } => {
            let amount = unit.checked_mul(count).unwrap_or(Amount::MAX);
            ("ticks_received", json!({ "ticks": count, "unit": unit, "amount": amount }))
        }
        ChannelEvent::Recovered { payer, cumulative } => {
            ("balance_recovered", json!({ "payer": ours(payer), "cumulative": cumulative }))
        }
        ChannelEvent::NotMade { payments } => ("payments_not_made", json!({ "payments": payments })),
        ChannelEvent::ToppingUp { amount } => ("topping_up", json!({ "amount": amount })),
        ChannelEvent::ToppedUp { side, amount } => {
            ("topped_up", json!({ "by": ours(side), "amount": amount }))
        }
        ChannelEvent::TopUpLapsed { amount } => ("top_up_lapsed", json!({ "amount": amount })),
        ChannelEvent::Withdrawing { side, amount } => {
            ("withdrawing", json!({ "by": ours(side), "amount": amount }))
        }
        ChannelEvent::Withdrawn { side, amount } => {
            ("withdrawn", json!({ "by": ours(side), "amount": amount }))
        }
        ChannelEvent::WithdrawLapsed { side, amount } => {
            ("withdraw_lapsed", json!({ "by": ours(side), "amount": amount }))
        }
        ChannelEvent::ClosingTogether => {
            ("channel_closing", json!({ "together": true, "balances": pair(channel.balances(), channel) }))
        }
        ChannelEvent::ClosingAlone => {
            ("channel_closing", json!({ "together": false, "balances": pair(channel.balances(), channel) }))
        }
        ChannelEvent::CloseLapsed => ("close_lapsed", json!({})),
        ChannelEvent::Contested { closer, deadline } => {
            ("channel_contested", json!({ "closer": ours(closer), "deadline_milestone": deadline }))
        }
        ChannelEvent::Claiming { known, held } => {
            ("claim_submitted", json!({ "known_to_the_ledger": known, "held": held }))
        }
        ChannelEvent::Closed { payouts, expected } => {
            let paid = payouts.map(|payouts| pair(payouts, channel));
            let expected = expected.map(|expected| pair(expected, channel));
            ("channel_closed", json!({ "payouts": paid, "expected": expected }))
        }
    };
    Some(new(channel, kind, &details))
}

/// The payments of an update, of which there may be thousands in a second.
#[derive(Serialize)]
struct Received<'a> {
    update: u64,
    payments: u64,
    amount: Amount,
    cumulative: Amount,
    #[serde(serialize_with = "items")]
    items: &'a PaymentList,
}

#[derive(Serialize)]
struct Item {
    amount: Amount,
    reference: String,
}

impl<'a> Received<'a> {
    /// By an update that was taken, so that its payments are well-formed.
    fn by(update: &'a Update) -> Self {
        let total = update.payments.total();
        Self {
            update: update.seq,
            payments: total.map_or(0, |total| total.count),
            amount: total.map_or(Amount::ZERO, |total| total.amount),
            cumulative: update.cumulative,
            items: &update.payments,
        }
    }
}

/// The first of them, one by one.
fn items<S: Serializer>(payments: &PaymentList, serializer: S) -> Result<S::Ok, S::Error> {
    let first = payments.iter().filter_map(Result::ok).take(ITEMS_MAX);
    serializer.collect_seq(first.map(|it| Item { amount: it.amount, reference: it.reference.to_text() }))
}

#[cfg(test)]
mod tests {
    use flash_channel::store::SMALL_VALUE_BYTES_MAX;
    use flash_proto::{Payment, Signature};

    use super::*;

    #[test]
    fn the_largest_event_of_payments_can_be_stored() {
        let mut payments = PaymentList::new();
        for _ in 0..100 {
            // Every byte of this reference is escaped in JSON.
            payments.push(&Payment::new(Amount::MAX, &[b'"'; 32]).unwrap()).unwrap();
        }
        let signature = Signature::new([0; 64]);
        let update = Update { seq: u64::MAX, cumulative: Amount::MAX, payments, ticks: None, signature };
        let bytes = serde_json::to_vec(&Received::by(&update)).unwrap();
        assert!(bytes.len() + 512 < SMALL_VALUE_BYTES_MAX, "{} bytes", bytes.len());
    }
}
