//! Two parties in one process: the real machine, its store, and a network in which both have money.

use std::collections::VecDeque;

use flash_channel::{
    Channel,
    machine::{After, Agreement, Effects, Input, LedgerView, Origin, open},
    store::{MemoryStore, Store},
};
use flash_proto::{
    Address, Amount, NetworkParams, Output, OutputId, Payment, SecretKey, Side, Transaction, TransactionId,
    message::{ChannelMessage, Funding, OpenParty, OpenProposal},
};

pub(super) const DEPOSIT: u64 = 1_000_000;
pub(super) const WINDOW: u32 = 10;

pub(super) fn key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 1; 32])
}

fn money_key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 11; 32])
}

pub(super) fn params() -> NetworkParams {
    let of =
        |key: &SecretKey, units| Output { address: Address::of(&key.public()), amount: Amount::new(units) };
    let rest = Amount::SUPPLY.units() - 2 * DEPOSIT;
    let genesis = vec![
        of(&money_key(Side::A), DEPOSIT),
        of(&money_key(Side::B), DEPOSIT),
        of(&SecretKey::from_bytes([99; 32]), rest),
    ];
    NetworkParams {
        name: "contest".into(),
        coordinators: vec![SecretKey::from_bytes([98; 32]).public()],
        threshold: 1,
        pow_bits: 0,
        output_min: Amount::new(1),
        milestone_interval_ms: 1_000,
        genesis_ms: 0,
        genesis,
    }
}

/// What both keep of a channel into which each puts its one output.
pub(super) fn agreements(params: &NetworkParams) -> [Agreement; 2] {
    let deposit = Amount::new(DEPOSIT);
    let [party_a, party_b] = Side::BOTH.map(|side| {
        let transaction = TransactionId::new(*params.id().as_bytes());
        let id = OutputId { transaction, index: u16::from(side.byte()) };
        let output = Output { address: Address::of(&money_key(side).public()), amount: deposit };
        let key = key(side).public();
        let funding = vec![Funding { id, output }];
        OpenParty { key, payout: Address::of(&key), deposit, funding, change: None }
    });
    let proposal =
        OpenProposal { party_a, deposit_b: deposit, contest_window_milestones: WINDOW, expiry_milestone: 50 };
    let essence = open::answer(params.id(), &proposal, &party_b).expect("they agree");
    let unlocks = Side::BOTH.map(|side| vec![essence.unlock(&money_key(side))]);
    let opened = open::opened(&essence).expect("it opens a channel");
    Side::BOTH.map(|side| Agreement {
        network: params.id(),
        side,
        peer: key(!side).public(),
        key_index: 0,
        origin: Origin::Agreed(Box::new(match side {
            Side::A => open::transaction(essence.clone(), unlocks[0].clone(), unlocks[1].clone()),
            Side::B => Transaction { essence: essence.clone(), unlocks: unlocks[1].clone() },
        })),
        open: opened,
    })
}

/// A party with its store.
pub(super) struct Party<S> {
    pub(super) channel: Channel,
    pub(super) store: S,
    outbox: VecDeque<ChannelMessage>,
}

/// With a disk of its own.
impl Clone for Party<MemoryStore> {
    fn clone(&self) -> Self {
        let (channel, store) = (self.channel.clone(), self.store.snapshot());
        Self { channel, store, outbox: self.outbox.clone() }
    }
}

impl Party<MemoryStore> {
    /// The same from what is on its disk.
    pub(super) fn restarted(&self) -> Self {
        Self::loaded(self.channel.agreement(), self.store.snapshot())
    }
}

impl<S: Store> Party<S> {
    pub(super) fn new(agreement: &Agreement, store: S) -> Self {
        let mut effects = Effects::default();
        let channel = Channel::new(agreement.clone(), key(agreement.side), &mut effects);
        let mut party = Self { channel, store, outbox: VecDeque::new() };
        party.perform(effects);
        party
    }

    /// As it is in its store.
    pub(super) fn loaded(agreement: &Agreement, store: S) -> Self {
        let key = key(agreement.side);
        let channel = Channel::load(agreement.channel(), |_| key, &store).expect("its records are whole");
        Self { channel, store, outbox: VecDeque::new() }
    }

    pub(super) fn pays(&mut self, units: u64) {
        let payment = Payment::new(Amount::new(units), b"").expect("a payment");
        let _ = self.channel.pay(payment, None).expect("the channel is in use");
    }

    /// Takes inputs, of which nothing is on the disk yet.
    pub(super) fn decide(&mut self, inputs: Vec<Input>) -> Effects {
        let mut effects = Effects::default();
        for input in inputs {
            self.channel.handle(input, &mut effects).expect("an honest peer");
        }
        self.channel.finish(&mut effects);
        effects
    }

    pub(super) fn perform(&mut self, effects: Effects) {
        if !effects.batch.is_empty() {
            let _ = self.store.commit(&effects.batch).expect("room");
        }
        self.outbox.extend(effects.after.into_iter().filter_map(|after| match after {
            After::Send(message) => Some(message),
            After::Event(_) => None,
        }));
    }

    pub(super) fn take(&mut self, inputs: Vec<Input>) {
        let effects = self.decide(inputs);
        self.perform(effects);
    }

    pub(super) fn sees(&mut self, view: LedgerView) {
        self.take(vec![Input::Ledger(view), Input::Fresh(true)]);
    }
}

/// All messages arrive.
pub(super) fn run<S: Store>([a, b]: &mut [Party<S>; 2]) {
    loop {
        for party in [&mut *a, &mut *b] {
            party.take(Vec::new());
        }
        let (to_b, to_a): (Vec<_>, Vec<_>) = (a.outbox.drain(..).collect(), b.outbox.drain(..).collect());
        if to_a.is_empty() && to_b.is_empty() {
            return;
        }
        a.take(to_a.into_iter().map(Input::Message).collect());
        b.take(to_b.into_iter().map(Input::Message).collect());
    }
}
