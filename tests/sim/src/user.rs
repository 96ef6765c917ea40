//! What users do: pay either way, ask again under a key, close.

use flash_channel::machine::{Input, PayError};
use flash_proto::{Amount, Side};

use super::{setup, world::World};

impl World {
    /// One act of the user of `side`.
    pub(super) fn user_acts(&mut self, side: Side) {
        let Some(channel) = self.party(side).channel() else { return };
        let (is_established, doubts) = (channel.is_established(), channel.doubt().is_some());
        if doubts && !self.party(side).lost_records && self.other_rng.chance(2) {
            self.stats.count("records_trusted");
            self.oracle.trusts(side);
            self.input(side, Input::Trust);
            return;
        }
        // Where no payment can be made, few are tried.
        if self.is_calm() || (!is_established && self.rng.chance(90)) {
            return;
        }
        if self.rng.below(1_000) < self.plan.early_close {
            let alone = self.rng.chance(50);
            self.stats.count(if alone { "early_closes_alone" } else { "early_closes_together" });
            self.input(side, if alone { Input::CloseAlone } else { Input::Close });
            return;
        }
        if self.rng.below(1_000) < self.plan.stakes {
            self.change_stake(side);
            return;
        }
        if self.plan.receipts > 0 && self.other_rng.chance(self.plan.receipts) {
            self.asks_for_a_receipt(side);
            return;
        }
        if self.rng.chance(self.plan.ticks) {
            // A change of the unit begins a new chain, which takes thousands of hashes.
            let unit = Amount::new(if self.rng.chance(2) { 2 } else { 1 });
            let count = self.rng.between(1, 5);
            self.tick(side, unit, u32::try_from(count).unwrap_or(1));
            return;
        }
        if self.rng.chance(10) {
            let asked: Vec<(u64, Amount)> =
                self.party(side).keyed.iter().map(|(number, amount)| (*number, *amount)).collect();
            if let Some((number, amount)) = self.rng.pick(&asked).copied() {
                self.stats.count("payments_asked_for_again");
                self.pay(side, number, amount, true);
                return;
            }
        }
        for _ in 0..self.rng.between(1, 3) {
            self.payments += 1;
            let amount = self.some_amount(side);
            let keyed = self.rng.chance(30);
            self.pay(side, self.payments, amount, keyed);
        }
    }

    /// Mostly small, sometimes all there is, sometimes more.
    fn some_amount(&mut self, side: Side) -> Amount {
        let available = self.party(side).channel().map_or(0, |channel| channel.available().units());
        let most = match self.rng.below(20) {
            0 => return Amount::new(available.max(1)),
            1 => return Amount::new(available + 1),
            2..=5 => available,
            _ => available / 20,
        };
        Amount::new(self.rng.between(1, most.max(1)))
    }

    /// The user locks more, or takes something out.
    fn change_stake(&mut self, side: Side) {
        let input = if self.rng.chance(50) {
            let amount = Amount::new(self.rng.between(1, 10_000));
            let expiry = self.ledger.index() + self.rng.between(1, 20);
            let Some(top_up) = self.ledger.top_up(side, amount, expiry) else { return };
            top_up
        } else {
            let available = self.party(side).channel().map_or(0, |channel| channel.available().units());
            let amount = Amount::new(self.rng.between(1, (available / 2).max(1)));
            Input::Withdraw { amount, left_min: setup::left_min() }
        };
        self.stats.count("changes_of_stakes_asked_for");
        self.input(side, input);
    }

    pub(super) fn tick(&mut self, side: Side, unit: Amount, count: u32) {
        if let Some(Ok(_)) = self.party_mut(side).tick(unit, count) {
            self.stats.add("ticks_taken", u64::from(count));
            self.turn_soon(side);
        }
    }

    pub(super) fn pay(&mut self, side: Side, number: u64, amount: Amount, keyed: bool) {
        let available =
            self.party(side).channel().map_or(Amount::ZERO, flash_channel::machine::Channel::available);
        match self.party_mut(side).pay(number, amount, keyed) {
            Some(Ok(_)) => {
                self.stats.count("payments_taken");
                self.oracle.require(amount <= available, || format!("I2: {side} pays more than it owns"));
                self.oracle.asked(side, number, amount);
                self.turn_soon(side);
            }
            Some(Err(error)) => self.stats.count(match error {
                PayError::Insufficient { .. } => "payments_refused_insufficient",
                PayError::NotOpen(_) => "payments_refused_not_open",
                PayError::NotConnected => "payments_refused_not_connected",
                _ => "payments_refused_otherwise",
            }),
            None => self.stats.count("payments_under_a_used_key"),
        }
    }
}
