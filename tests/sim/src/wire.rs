//! What goes over the link, and when the link breaks and comes back.

use flash_channel::machine::Input;
use flash_proto::{Side, codec, message::ChannelMessage};

use super::{
    hostile,
    ledger::By,
    world::{Event, World},
};

impl World {
    pub(super) fn send(&mut self, side: Side, link: u64, message: ChannelMessage) {
        let index = self.ledger.index();
        let [a, b] = &self.parties;
        self.oracle.leaves(side, &message, &side.pick(a, b).durable, index);
        self.trace.add(&codec::encode(&message));
        if !self.link.up || link != self.link.number {
            self.stats.count("messages_lost");
            return;
        }
        let mut message = message;
        if self.plan.is_hostile(side) && self.now < self.silent_until {
            self.stats.count("messages_withheld");
            return;
        }
        if self.plan.is_hostile(side) && self.plan.script.is_none() && self.rng.chance(10) {
            let [a, b] = &self.parties;
            if let Some(bad) = hostile::message(side.pick(a, b), self.network, &mut self.rng) {
                self.stats.count("hostile_messages");
                message = bad;
            }
        }
        self.deliver(side, message);
        if self.rng.below(1_000) < self.plan.breaks {
            self.stats.count("links_broken");
            let ticks = self.rng.between(1, 30);
            self.break_link(ticks);
        }
    }

    pub(super) fn deliver(&mut self, from: Side, message: ChannelMessage) {
        if let ChannelMessage::Update(_) = message {
            self.stats.count("updates_sent");
        }
        let faults = (&self.plan, &mut self.rng, &mut self.stats);
        let arrivals = self.link.carry(from, message, self.now, faults);
        let link = self.link.number;
        for (at, message) in arrivals {
            self.schedule(at, Event::Arrives(!from, link, message));
        }
    }

    /// The stream ends on both sides; a new one is tried later.
    pub(super) fn break_link(&mut self, ticks: u64) {
        if self.link.up {
            self.link.up = false;
            for side in Side::BOTH {
                self.party_mut(side).disconnect();
                self.turn_soon(side);
            }
        }
        self.later(ticks, Event::Connect);
    }

    pub(super) fn connect(&mut self) {
        let still = Side::BOTH.into_iter().map(|side| self.party(side).paused_until).max().unwrap_or(0);
        if self.link.up || !Side::BOTH.into_iter().all(|side| self.party(side).is_up()) {
            return;
        }
        if self.now < still {
            self.schedule(still, Event::Connect);
            return;
        }
        self.link.connect();
        self.stats.count("connections");
        for side in Side::BOTH {
            self.input(side, Input::Connected);
        }
    }

    pub(super) fn hostile_acts(&mut self, side: Side) {
        let ticks = self.rng.between(5, 200);
        self.later(ticks, Event::Hostile(side));
        if !self.party(side).is_up() {
            return;
        }
        if self.rng.chance(10) {
            self.silent_until = self.now + self.rng.between(1, 100);
        }
        let [a, b] = &self.parties;
        let party = side.pick(a, b);
        if self.rng.chance(80) {
            if let Some(message) = hostile::message(party, self.network, &mut self.rng)
                && self.link.up
            {
                self.stats.count("hostile_messages");
                self.deliver(side, message);
            }
        } else if self.ledger.newest().record.is_some() && self.rng.chance(40) {
            let transaction = hostile::on_ledger(party, self.network, &mut self.rng);
            let from = self.ledger.index() + 1;
            if self.ledger.submit(By::Party(side), transaction, from) {
                self.stats.count("hostile_transactions");
            }
        }
    }
}
