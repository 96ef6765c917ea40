//! Topping up and withdrawing while everything else goes on: two machines, a small ledger of its own rules, and
//! one disturbance at each step in turn.

mod cases;
mod ended;
mod messages;
mod rules;

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
    applied: Vec<TransactionId>,
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

pub(super) fn top_up(channel: &Channel, units: u64, expiry_milestone: u64, nonce: u8) -> Input {
    let inputs = vec![OutputId { transaction: TransactionId::new([nonce; 32]), index: 0 }];
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

pub(super) fn withdraw(units: u64) -> Input {
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

/// In the end, closed if it is not yet: everybody has exactly what it should.
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
