//! The link between the two parties: in order and whole unless a fault says otherwise.

use flash_proto::{Amount, Hash, Side, Signature, message::ChannelMessage};

use super::{faults::Plan, report::Stats, rng::Rng};

#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Counts the streams. Messages of an older stream are lost.
    pub(super) number: u64,
    pub(super) up: bool,
    /// When the last message of each direction arrives.
    last: [u64; 2],
}

/// When a message arrives, and what.
pub(super) type Arrival = (u64, ChannelMessage);

impl Link {
    pub(super) const fn new() -> Self {
        Self { number: 0, up: false, last: [0; 2] }
    }

    pub(super) const fn connect(&mut self) {
        self.number += 1;
        self.up = true;
        self.last = [0; 2];
    }

    /// When, how often and in which state a message arrives.
    pub(super) fn carry(
        &mut self,
        from: Side,
        message: ChannelMessage,
        now: u64,
        (plan, rng, stats): (&Plan, &mut Rng, &mut Stats),
    ) -> Vec<Arrival> {
        let mut delay = rng.between(1, plan.delay);
        if plan.heavy_tail && rng.chance(2) {
            stats.count("messages_very_late");
            delay *= 10;
        }
        let mut at = now + delay;
        let [last_a, last_b] = &mut self.last;
        let last = from.pick(last_a, last_b);
        if rng.chance(plan.reorder) {
            stats.count("messages_reordered");
        } else {
            at = at.max(*last);
            *last = at;
        }
        let mut arrivals = Vec::with_capacity(2);
        if rng.chance(plan.duplicates) {
            stats.count("messages_duplicated");
            // One that comes late is out of order as well.
            let late = if plan.reorder > 0 { rng.below(plan.delay) } else { 0 };
            arrivals.push((at + late, message.clone()));
        }
        let message = if rng.chance(plan.corrupt) {
            stats.count("messages_corrupted");
            corrupted(message, rng)
        } else {
            message
        };
        arrivals.push((at, message));
        arrivals
    }
}

fn flip<const N: usize>(bytes: &[u8; N], rng: &mut Rng) -> [u8; N] {
    let mut bytes = *bytes;
    let bit = rng.below(8);
    let at = usize::try_from(rng.below(u64::try_from(N).unwrap_or(1))).unwrap_or(0);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
    bytes
}

fn off(amount: Amount, rng: &mut Rng) -> Amount {
    Amount::new(amount.units() ^ (1 << rng.below(64)))
}

fn off_balance(balance: &mut flash_proto::SignedBalance, rng: &mut Rng) {
    match rng.below(4) {
        0 => balance.state.seq ^= 1 << rng.below(8),
        1 => balance.state.cumulative = off(balance.state.cumulative, rng),
        2 => balance.state.history = Hash::new(flip(balance.state.history.as_bytes(), rng)),
        _ => balance.signature = Signature::new(flip(balance.signature.as_bytes(), rng)),
    }
}

/// The message with something in it changed.
pub(super) fn corrupted(mut message: ChannelMessage, rng: &mut Rng) -> ChannelMessage {
    match &mut message {
        ChannelMessage::Reestablish(standing) => {
            let first = rng.chance(50);
            let half = if first { &mut standing.signed } else { &mut standing.held };
            match half {
                Some(balance) if rng.chance(70) => off_balance(balance, rng),
                half => *half = None,
            }
        }
        ChannelMessage::Update(update) => match rng.below(4) {
            0 => update.seq ^= 1 << rng.below(8),
            1 => update.cumulative = off(update.cumulative, rng),
            2 => update.signature = Signature::new(flip(update.signature.as_bytes(), rng)),
            _ => {
                let mut packed = update.payments.as_bytes().to_vec();
                if let Some(byte) = packed.first_mut() {
                    *byte ^= 1 << rng.below(8);
                }
                update.payments = flash_proto::PaymentList::from_packed(packed);
            }
        },
        ChannelMessage::Ack { seq }
        | ChannelMessage::ReceiptRequest { seq }
        | ChannelMessage::Receipt { seq, signature: None } => *seq ^= 1 << rng.below(8),
        ChannelMessage::Balance(balance) => off_balance(balance, rng),
        ChannelMessage::Paused { held_seq, .. } => *held_seq ^= 1,
        ChannelMessage::CloseRequest | ChannelMessage::Refuse(_) => {
            return ChannelMessage::Ack { seq: rng.below(5) };
        }
        ChannelMessage::Tick { seq, proof } => match rng.below(3) {
            // Under a number near it a tick may be valid, too: only its payer can do that, and stops its own channel.
            0 => *seq ^= 1 << (20 + rng.below(8)),
            1 => proof.index ^= 1 << rng.below(8),
            _ => proof.preimage = Hash::new(flip(proof.preimage.as_bytes(), rng)),
        },
        ChannelMessage::TickAck { index, .. } => *index ^= 1 << rng.below(8),
        ChannelMessage::Stakes(stakes) => stakes.a.deposit = off(stakes.a.deposit, rng),
        ChannelMessage::WithdrawSigned { withdraw, signature }
        | ChannelMessage::WithdrawComplete { withdraw, signature } => match rng.below(4) {
            0 => withdraw.amount = off(withdraw.amount, rng),
            1 => withdraw.total = off(withdraw.total, rng),
            2 => withdraw.expiry_milestone ^= 1 << rng.below(8),
            _ => *signature = Signature::new(flip(signature.as_bytes(), rng)),
        },
        ChannelMessage::CloseSigned { close, signature } => match rng.below(3) {
            0 => close.payout_a = off(close.payout_a, rng),
            1 => close.expiry_milestone ^= 1 << rng.below(8),
            _ => *signature = Signature::new(flip(signature.as_bytes(), rng)),
        },
        ChannelMessage::CloseComplete { signature }
        | ChannelMessage::Receipt { signature: Some(signature), .. } => {
            *signature = Signature::new(flip(signature.as_bytes(), rng));
        }
    }
    message
}
