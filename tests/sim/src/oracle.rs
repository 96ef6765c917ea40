//! What must hold, written down without the code under test: a short model of what was asked for,
//! signed, acknowledged and paid out. The numbers are those of the invariants in `docs/safety.md`.

mod losses;
mod proofs;
mod towers;

use std::collections::BTreeMap;

use flash_channel::machine::{ChannelEvent, Phase};
use flash_node_client::ledger::Conflict;
use flash_proto::{
    Action, Amount, Balances, NetworkId, Side, Signature, SignedBalance,
    message::{ChannelMessage, Update},
    transaction::{CooperativeClose, Withdraw},
};

use super::{
    faults::{FRESH_MILESTONES, Plan, WINDOW_MIN},
    ledger::{By, Confirmed},
    party::Durable,
    setup,
};

/// What is known of one party.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Does what it wants: nothing is asked of it.
    hostile: bool,
    /// Came back with an old store: it may have forgotten what it signed and what it was paid.
    lost_records: bool,
    /// And it knew that before it started.
    noticed: bool,
    /// Since this milestone it takes its records for old ones.
    doubts: Option<u64>,
    /// The newest update that was on its disk then.
    signed_before: u64,
    /// At some time it did, or should have.
    doubted: bool,
    /// Locked by it on the ledger, and taken out again.
    deposit: Amount,
    withdrawn: Amount,
    /// What left under its signature, by number of the update: one signature each.
    bodies: BTreeMap<u64, Signature>,
    /// The most that left under its signature.
    signed: Amount,
    /// The newest update and tick that it acknowledged.
    acknowledged: (u64, u32),
    /// The newest update whose payments its user was told of.
    told: u64,
    /// The newest close under which its signature left.
    close: Option<CooperativeClose>,
    /// What its disk held last.
    durable: Option<Durable>,
    /// The most of the peer's that its disk held while there was time to claim it.
    held_in_time: Amount,
    closes: u64,
    claims: u64,
}

/// A payment that a user asked for.
#[derive(Clone, Debug)]
struct Asked {
    payer: Side,
    amount: Amount,
    /// The update with which it left.
    update: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Oracle {
    network: NetworkId,
    known: [Known; 2],
    asked: BTreeMap<u64, Asked>,
    applied: u64,
    /// The milestone at which one side closed alone.
    closed_alone: Option<u64>,
    window: u64,
    /// What a party says may be changed on the way.
    corrupts: bool,
    towers: Vec<towers::Tower>,
    violation: Option<String>,
}

impl Oracle {
    pub(super) fn new(network: NetworkId, plan: &Plan) -> Self {
        let known = Side::BOTH.map(|side| Known {
            hostile: plan.is_hostile(side),
            deposit: plan.deposit(side),
            ..Known::default()
        });
        Self {
            network,
            known,
            asked: BTreeMap::new(),
            applied: 0,
            closed_alone: None,
            window: u64::from(plan.window),
            corrupts: plan.corrupt > 0,
            towers: towers::Tower::of(plan),
            violation: None,
        }
    }

    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(super) fn into_violation(self) -> Option<String> {
        self.violation
    }

    pub(super) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    fn of(&self, side: Side) -> &Known {
        let [a, b] = &self.known;
        side.pick(a, b)
    }

    fn of_mut(&mut self, side: Side) -> &mut Known {
        let [a, b] = &mut self.known;
        side.pick(a, b)
    }

    /// What `side` owns by its own disk, a withdraw that it signed counted as taken.
    fn owns(side: Side, durable: &Durable) -> Option<Amount> {
        Self::owns_with(side, durable, durable.held())
    }

    /// The same if it had been paid `held`.
    fn owns_with(side: Side, durable: &Durable, held: Amount) -> Option<Amount> {
        let stake = durable.locked.counted(side);
        let gained = stake.deposit.checked_add(held)?;
        gained.checked_sub(stake.withdrawn)?.checked_sub(durable.signed())
    }

    pub(super) fn asked(&mut self, payer: Side, number: u64, amount: Amount) {
        self.asked.entry(number).or_insert(Asked { payer, amount, update: None });
    }

    /// The disk of `side` holds this now, `index` being the newest milestone anywhere and `seen` the
    /// newest that its process was shown.
    pub(super) fn durable(&mut self, side: Side, durable: &Durable, index: u64, seen: Option<u64>) {
        if self.of(side).hostile {
            return;
        }
        if let Some(before) = self.of(side).durable.clone() {
            let rose = durable.paid_to() >= before.paid_to()
                && durable.signed() >= before.signed()
                && durable.held_to() >= before.held_to()
                && durable.held() >= before.held()
                && durable.outgoing.payments >= before.outgoing.payments
                && durable.outgoing.acknowledged >= before.outgoing.acknowledged
                && durable.incoming.payments >= before.incoming.payments;
            self.require(rose, || format!("I3: a counter of {side} went down: {before:?} then {durable:?}"));
            self.check_stakes(side, &before, durable);
            if before.held_to() != durable.held_to() {
                self.check_held(side, durable);
                // One milestone until its clock says so, one for the commit.
                let most = FRESH_MILESTONES + 2;
                let in_sight = seen.is_some_and(|seen| index <= seen + most);
                // What a peer shows that was paid before the loss is no payment, and is taken over at any time.
                let in_sight = in_sight || self.of(side).lost_records || before.in_doubt;
                self.require(in_sight, || {
                    format!("I4: {side} takes payments at {index}, but saw {seen:?} last")
                });
            }
        }
        let acknowledged = self.of(side).acknowledged;
        self.require(durable.held_to() >= acknowledged, || {
            format!("I4: {side} acknowledged {acknowledged:?}, but its disk has {:?}", durable.held_to())
        });
        let owns = Self::owns(side, durable);
        // Until the peer has shown why more was taken out than the old records allow, nothing is signed.
        self.require(owns.is_some() || durable.locked.unexplained || !durable.known, || {
            format!("I2: {side} owns less than nothing: {durable:?}")
        });
        if let Some(close) = self.of(side).close.filter(|close| close.expiry_milestone >= index) {
            let payout = side.pick(close.payout_a, close.payout_b);
            self.require(owns == Some(payout) || self.was_shown_more(side, owns >= Some(payout)), || {
                format!("I7: {side} signed a close that pays {payout} and owns {owns:?} now")
            });
        }
        let known = self.of_mut(side);
        if !matches!(durable.phase, Phase::Contested { deadline, .. } if index + u64::from(WINDOW_MIN) > deadline)
        {
            known.held_in_time = durable.held();
        }
        // It is frozen by what it has written down, whether that leaves before a crash or after it.
        if let Phase::ClosingTogether { close, .. } = durable.phase {
            known.close = Some(close);
        }
        known.durable = Some(durable.clone());
    }

    /// Nobody counts more as locked, or less as taken out, than the ledger does or did.
    fn check_stakes(&mut self, side: Side, before: &Durable, durable: &Durable) {
        for of in Side::BOTH {
            let (old, new) = (before.locked.proven.of(of), durable.locked.proven.of(of));
            let rose = new.deposit >= old.deposit && new.withdrawn >= old.withdrawn;
            self.require(rose, || format!("I3: {side} counts {of}'s stake as {new:?} after {old:?}"));
            let true_deposit = self.of(of).deposit;
            self.require(new.deposit <= true_deposit, || {
                format!("I2: {side} counts {of}'s deposit as {}, it is {true_deposit}", new.deposit)
            });
        }
    }

    /// A balance that is held must be one that its payer let go.
    fn check_held(&mut self, side: Side, durable: &Durable) {
        let Some(held) = durable.incoming.held else { return };
        let signed = held.verify(self.network, &setup::channel_key(!side).public());
        self.require(signed, || format!("I11: {side} holds a balance that the peer never signed: {held:?}"));
        let payer = self.of(!side);
        if !payer.hostile && !payer.lost_records {
            let left = payer.bodies.get(&held.state.seq) == Some(&held.signature);
            self.require(left, || format!("I11: {side} holds what never left the peer: {held:?}"));
        }
    }

    /// `side` sends this while its disk holds `durable`.
    pub(super) fn leaves(&mut self, side: Side, message: &ChannelMessage, durable: &Durable, index: u64) {
        if self.of(side).hostile {
            return;
        }
        let written = match message {
            ChannelMessage::Update(update) => {
                self.update_leaves(side, update, index);
                update.seq <= durable.signed_seq()
            }
            ChannelMessage::Ack { seq } => {
                self.acknowledges(side, (*seq, 0));
                *seq <= durable.held_seq()
            }
            ChannelMessage::TickAck { seq, index } => {
                self.acknowledges(side, (*seq, *index));
                (*seq, *index) <= durable.held_to()
            }
            ChannelMessage::Tick { seq, proof } => {
                let known = self.of_mut(side);
                known.signed = known.signed.max(durable.signed());
                (*seq, proof.index) <= durable.paid_to()
            }
            ChannelMessage::WithdrawSigned { withdraw, .. }
            | ChannelMessage::WithdrawComplete { withdraw, .. } => {
                let counted = durable.locked.counted(withdraw.side);
                // Once it is closing it is never open again, and nothing can be taken out.
                let closing = matches!(durable.phase, Phase::Contested { .. } | Phase::Closed { .. });
                closing || index > withdraw.expiry_milestone || counted.withdrawn >= withdraw.total
            }
            // What is withdrawn may have lapsed in the same batch.
            ChannelMessage::Stakes(stakes) => {
                Side::BOTH.into_iter().all(|of| stakes.of(of).deposit <= durable.locked.counted(of).deposit)
            }
            ChannelMessage::Reestablish(standing) => {
                if let Some(signed) = &standing.signed {
                    self.body_leaves(side, signed.state.seq, signed.state.cumulative, signed.signature);
                }
                if let Some(held) = &standing.held {
                    self.acknowledges(side, (held.state.seq, 0));
                }
                seq_of(standing.signed.as_ref()) <= durable.signed_seq()
                    && seq_of(standing.held.as_ref()) <= durable.held_seq()
            }
            ChannelMessage::Balance(balance) => {
                self.body_leaves(side, balance.state.seq, balance.state.cumulative, balance.signature);
                balance.state.seq <= durable.signed_seq()
            }
            ChannelMessage::CloseSigned { close, .. } => self.close_leaves(side, *close, durable, index),
            ChannelMessage::CloseComplete { .. } => match durable.phase {
                Phase::ClosingTogether { close, .. } => self.close_leaves(side, close, durable, index),
                _ => durable.phase != Phase::Open,
            },
            ChannelMessage::Paused { .. }
            | ChannelMessage::CloseRequest
            | ChannelMessage::Refuse(_)
            | ChannelMessage::ReceiptRequest { .. }
            | ChannelMessage::Receipt { .. } => true,
        };
        self.require(written, || {
            format!("I10: {side} sends what is not on its disk: {message:?}, {durable:?}")
        });
    }

    fn acknowledges(&mut self, side: Side, to: (u64, u32)) {
        let known = self.of_mut(side);
        known.acknowledged = known.acknowledged.max(to);
    }

    fn body_leaves(&mut self, side: Side, seq: u64, cumulative: Amount, signature: Signature) {
        let peer = self.of(!side);
        let held = peer.durable.as_ref().filter(|_| !peer.hostile && !peer.lost_records);
        let held = held.filter(|_| !self.corrupts); // else it may seem to have nothing
        let peer_has = held.map_or(0, Durable::held_seq);
        let known = self.of_mut(side);
        known.signed = known.signed.max(cumulative);
        let first = *known.bodies.entry(seq).or_insert(signature);
        // What an honest peer has it is shown before it signs again.
        let free = known.lost_records && seq > peer_has;
        if free {
            known.bodies.insert(seq, signature);
        }
        let once = first == signature || free;
        self.require(once, || format!("I6: {side} signed two different bodies under number {seq}"));
    }

    fn update_leaves(&mut self, side: Side, update: &Update, index: u64) {
        // What was written before it doubted may have been sent, and is said again.
        let again = update.seq <= self.of(side).signed_before;
        self.require(again || !self.waits(side, index), || {
            format!(
                "I6: {side} pays at {index}, but what it may have forgotten can still be used: {update:?}"
            )
        });
        self.body_leaves(side, update.seq, update.cumulative, update.signature);
        if self.of(side).lost_records {
            return;
        }
        for payment in &update.payments {
            let Ok(payment) = payment else {
                self.require(false, || format!("{side} sends malformed payments"));
                return;
            };
            let number = payment.reference.as_bytes().try_into().map_or(0, u64::from_be_bytes);
            let as_asked = self.asked.get_mut(&number).is_some_and(|asked| {
                let update = *asked.update.get_or_insert(update.seq) == update.seq;
                update && asked.payer == side && asked.amount == payment.amount
            });
            self.require(as_asked, || {
                format!("I11: {side} pays {number} in update {} otherwise than asked, or twice", update.seq)
            });
        }
    }

    /// Whether `side` may own something else by now than when it signed a close, `more` or not. Who takes its records for
    /// old ones takes what it is shown at any time; what it is shown may be its own payments if they are old.
    fn was_shown_more(&self, side: Side, more: bool) -> bool {
        let known = self.of(side);
        known.doubted && (more || known.lost_records)
    }

    fn close_leaves(&mut self, side: Side, close: CooperativeClose, durable: &Durable, index: u64) -> bool {
        if close.expiry_milestone < index {
            // Said again after a break, while the ledger showed that it had lapsed: it can do nothing.
            return true;
        }
        let payout = side.pick(close.payout_a, close.payout_b);
        let owns = Self::owns(side, durable);
        // It says again what it signed, and was shown more since.
        let again = self.of(side).close == Some(close) && self.was_shown_more(side, owns >= Some(payout));
        self.require(owns == Some(payout) || again, || {
            format!("I7: {side} signs a close that pays {payout}, but owns {owns:?}")
        });
        let before = self.of(side).close.filter(|before| before.expiry_milestone >= index);
        let one = before.is_none_or(|before| before == close);
        self.require(one, || {
            format!("I6: {side} signs two closes that are valid at once: {before:?}, {close:?}")
        });
        self.of_mut(side).close = Some(close);
        // The phase that remembers the signature is on the disk, or one that follows it.
        durable.phase != Phase::Open
    }

    /// The user of `side` is told this.
    pub(super) fn told(&mut self, side: Side, event: &ChannelEvent, index: u64) {
        if self.of(side).hostile {
            return;
        }
        if let ChannelEvent::OldRecords { .. } = event {
            self.doubts(side, index);
            let known = self.of_mut(side);
            known.signed_before = known.durable.as_ref().map_or(0, Durable::signed_seq);
        }
        if let ChannelEvent::Received(update) = event {
            self.require(!self.waits(side, index), || {
                format!(
                    "I7: {side} takes payments at {index}, but what it may have forgotten can still be used"
                )
            });
            let before = self.of(side).told;
            self.require(update.seq > before, || {
                format!("I11: {side} is told twice of update {}", update.seq)
            });
            self.of_mut(side).told = update.seq;
        }
    }

    /// A milestone dealt with these transactions and the ledger holds this much.
    pub(super) fn milestone(&mut self, index: u64, confirmed: &[Confirmed], money: Option<Amount>) {
        self.require(money == Some(Amount::SUPPLY), || format!("I1: the ledger holds {money:?}"));
        for Confirmed { by, transaction, conflict } in confirmed {
            if conflict.is_some() {
                continue;
            }
            match transaction.essence.action {
                Action::TopUp(top_up) => {
                    let known = self.of_mut(top_up.side);
                    known.deposit = known.deposit.checked_add(top_up.amount).unwrap_or(Amount::MAX);
                }
                Action::Withdraw(withdraw) => self.withdrawn(withdraw),
                _ if matches!(by, By::Party(_)) => self.applied += 1,
                _ => {}
            }
            match transaction.essence.action {
                Action::UnilateralClose(_) => self.closed_alone = Some(index),
                Action::CooperativeClose(_) => self.closed_alone = None,
                _ => {}
            }
            let By::Party(by) = by else { continue };
            let known = self.of_mut(*by);
            match transaction.essence.action {
                Action::UnilateralClose(_) => known.closes += 1,
                Action::Claim(_) => known.claims += 1,
                _ => {}
            }
            // An old balance is claimed first by whoever learns only then of the newer one.
            let few = known.hostile || known.doubted || (known.closes <= 1 && known.claims <= 1);
            self.require(few, || format!("I15: {by} needs more than one close and one claim"));
        }
    }

    /// The ledger has paid out a part. Whoever is honest has counted it as taken before.
    fn withdrawn(&mut self, withdraw: Withdraw) {
        let known = self.of_mut(withdraw.side);
        let follows = known.withdrawn.checked_add(withdraw.amount) == Some(withdraw.total);
        known.withdrawn = withdraw.total;
        self.require(follows, || format!("I3: a withdraw is applied out of turn: {withdraw:?}"));
        for side in Side::BOTH {
            let known = self.of(side);
            let Some(durable) = known.durable.as_ref().filter(|_| !known.hostile && !known.lost_records)
            else {
                continue;
            };
            let counted = durable.locked.counted(withdraw.side).withdrawn >= withdraw.total;
            self.require(counted, || format!("I2: {side} does not count what is withdrawn: {withdraw:?}"));
        }
    }

    /// An honest party submits what its own view of the ledger says is of no use.
    pub(super) fn useless(&mut self, by: Side, conflict: Conflict) {
        self.require(self.of(by).hostile, || format!("I15: {by} submits what cannot apply: {conflict}"));
    }

    /// The ledger has paid out at milestone `index`, and had been shown so much of both lanes. Of what was paid to those
    /// who are `absent`, what working towers had been handed counts.
    pub(super) fn paid_out(&mut self, index: u64, payouts: Balances, shown: [Amount; 2], absent: [bool; 2]) {
        if let Some(closed) = self.closed_alone {
            let settles = closed + self.window + 1;
            self.require(index == settles, || {
                format!("I7: closed alone at {closed}, paid out at {index} instead of {settles}")
            });
            self.towers_did_their_work(index, shown);
        }
        for side in Side::BOTH {
            let payout = payouts.of(side);
            let gained = self.of(side).deposit.checked_add(self.of(!side).signed);
            let most = gained.and_then(|gained| gained.checked_sub(self.of(side).withdrawn));
            let bounded = self.of(!side).hostile || self.of(!side).lost_records || Some(payout) <= most;
            self.require(bounded, || format!("I5: {side} gets {payout}, at most {most:?} was signed to it"));
            let [absent_a, absent_b] = absent;
            let known = self.of(side);
            let Some(durable) = known.durable.clone().filter(|_| !known.hostile) else { continue };
            let held = if side.pick(absent_a, absent_b) && self.closed_alone.is_some() {
                self.handed_over(side, index)
            } else {
                durable.held()
            };
            if known.lost_records {
                self.check_lost(side, payouts, held, &durable);
                continue;
            }
            // What a side in doubt is shown too late to claim it was no payment.
            let held = if known.doubted { held.min(known.held_in_time) } else { held };
            let owns = Self::owns_with(side, &durable, held).unwrap_or(Amount::ZERO);
            let owns = owns.min(self.agreed_to(side));
            self.require(payout >= owns, || {
                format!("I7: {side} gets {payout}, but owns {owns:?} by its records: {durable:?}")
            });
        }
    }

    /// What `side` has signed a close for, if it may have been shown more since and the close was played.
    fn agreed_to(&self, side: Side) -> Amount {
        let known = self.of(side);
        let close = known.close.filter(|_| known.doubted && self.closed_alone.is_none());
        close.map_or(Amount::MAX, |close| side.pick(close.payout_a, close.payout_b))
    }

    /// The run is over: how many transactions the channel took, if nobody was hostile or claimed what it was shown late.
    pub(super) fn over(&mut self) {
        if self.known.iter().all(|known| !known.hostile && !known.doubted) {
            let alone = self.known.iter().any(|known| known.closes > 0);
            let (applied, most) = (self.applied, if alone { 4 } else { 2 });
            self.require(applied <= most, || format!("I15: the channel took {applied} transactions"));
        }
    }
}

fn seq_of(balance: Option<&SignedBalance>) -> u64 {
    balance.map_or(0, |balance| balance.state.seq)
}
