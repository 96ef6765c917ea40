//! An open channel: two machines with stores in memory, and what one says handed to the other.

use std::collections::VecDeque;

use flash_channel::{
    Channel,
    machine::{After, Agreement, Effects, Input, LedgerView, Origin},
    store::{MemoryStore, Store},
};
use flash_proto::{
    Action, Address, Amount, ChannelRecord, Essence, NetworkId, Open, Payment, PaymentList, SecretKey, Side,
    Transaction, message::ChannelMessage, record::Party, transaction::commit_inputs,
};

/// The network of everything here.
pub const NETWORK: NetworkId = NetworkId::new([7; 32]);
/// What each side locks: more than any benchmark pays.
const DEPOSIT: Amount = Amount::new(1_000_000_000_000_000);

/// The key of one side.
pub fn key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 1; 32])
}

/// A payment of one base unit.
pub fn payment() -> Payment {
    Payment { amount: Amount::new(1), reference: flash_proto::Reference::default() }
}

/// So many payments of one base unit.
pub fn payments(count: usize) -> PaymentList {
    let mut list = PaymentList::new();
    for _ in 0..count {
        list.push(&payment()).expect("they fit");
    }
    list
}

fn open() -> Open {
    let party = |side: Side| {
        let key = key(side).public();
        Party { key, payout: Address::of(&key), deposit: DEPOSIT }
    };
    Open {
        party_a: party(Side::A),
        party_b: party(Side::B),
        contest_window_milestones: 10,
        expiry_milestone: 50,
    }
}

fn agreement(side: Side) -> Agreement {
    let open = open();
    let essence = Essence {
        network: NETWORK,
        inputs: Vec::new(),
        inputs_commitment: commit_inputs(&[]),
        outputs: Vec::new(),
        action: Action::Open(open),
    };
    Agreement {
        network: NETWORK,
        side,
        peer: key(!side).public(),
        key_index: 0,
        origin: Origin::Agreed(Box::new(Transaction { essence, unlocks: Vec::new() })),
        open,
    }
}

/// One side with its store.
#[derive(Debug)]
pub struct Half {
    channel: Channel,
    store: MemoryStore,
    outbox: VecDeque<ChannelMessage>,
}

impl Half {
    fn new(side: Side) -> Self {
        let mut effects = Effects::default();
        let channel = Channel::new(agreement(side), key(side), &mut effects);
        let mut half = Self { channel, store: MemoryStore::new(), outbox: VecDeque::new() };
        half.perform(effects);
        half
    }

    /// Commits, and only then sends.
    fn perform(&mut self, effects: Effects) {
        let _durable = self.store.commit(&effects.batch).expect("a store in memory takes everything");
        self.outbox.extend(effects.after.into_iter().filter_map(|after| match after {
            After::Send(message) => Some(message),
            After::Event(_) => None,
        }));
    }

    /// Queues payments, signs one update with all of them, and commits it.
    pub fn pay(&mut self, count: usize) {
        for _ in 0..count {
            self.channel.pay(payment(), None).expect("the channel takes payments");
        }
        self.take([]);
    }

    /// Takes inputs, answers them, and commits.
    pub fn take(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut effects = Effects::default();
        for input in inputs {
            self.channel.handle(input, &mut effects).expect("both keep to the protocol");
        }
        self.channel.finish(&mut effects);
        self.perform(effects);
    }

    /// What it has to say.
    pub fn said(&mut self) -> Vec<Input> {
        self.outbox.drain(..).map(Input::Message).collect()
    }
}

/// Both sides of an open channel.
#[derive(Debug)]
pub struct Pair {
    /// Party A.
    pub payer: Half,
    /// Party B.
    pub payee: Half,
}

impl Pair {
    /// An open channel, both sides connected.
    pub fn open() -> Self {
        let view = LedgerView { index: 1, record: Some(ChannelRecord::opened(&open())), payouts: None };
        let mut halves = Side::BOTH.map(Half::new);
        for half in &mut halves {
            half.take([Input::Ledger(view), Input::Fresh(true), Input::Connected]);
        }
        let [a, b] = halves;
        let mut pair = Self { payer: a, payee: b };
        pair.settle();
        pair
    }

    /// Hands over what either says until both are silent.
    pub fn settle(&mut self) {
        loop {
            let (said, answered) = (self.payer.said(), self.payee.said());
            if said.is_empty() && answered.is_empty() {
                return;
            }
            self.payee.take(said);
            self.payer.take(answered);
        }
    }
}
