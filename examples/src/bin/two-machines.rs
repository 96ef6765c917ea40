//! The channel machine without any daemon: two of them in one program, with stores in memory and a link
//! that is a queue.
//!
//! ```text
//! cargo run -p flash-examples --bin two-machines
//! ```
//!
//! This is how a device embeds Flash that has its own link, its own storage or no operating system to speak
//! of. [`Channel`] is pure: it knows no clock, no socket and no disk. Whoever runs it does three things:
//!
//! 1. hands in what comes from outside: `handle` and `pay`;
//! 2. calls `finish`, which signs what is queued and writes down what changed;
//! 3. commits the batch, and only then, with the token of that commit, sends and tells.
//!
//! The ledger is left out here: what it shows is one more input, and is made up below. A daemon gets it from
//! a light client, with proofs.

use std::collections::VecDeque;

use flash_channel::{
    Channel,
    machine::{After, Agreement, ChannelEvent, Effects, Input, LedgerView, Origin, Phase, open},
    store::{Barrier, MemoryStore, Store},
};
use flash_proto::{
    Address, Amount, Balances, ChannelRecord, Essence, NetworkId, Output, OutputId, Payment, SecretKey, Side,
    Transaction, TransactionId, Unlock,
    message::{ChannelMessage, Funding, OpenAccept, OpenParty, OpenProposal},
};

type Failure = Box<dyn std::error::Error>;

const NETWORK: NetworkId = NetworkId::new([1; 32]);
const DEPOSITS: [Amount; 2] = [Amount::new(1_000_000), Amount::new(250_000)];

/// One machine: its side of the channel, what it keeps, and what is on its way to the other.
struct Machine {
    name: &'static str,
    channel: Channel,
    store: MemoryStore,
    sent: VecDeque<ChannelMessage>,
}

impl Machine {
    /// The three steps. Everything that happens to a machine goes through here.
    fn step(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), Failure> {
        let mut effects = Effects::default();
        for input in inputs {
            self.channel.handle(input, &mut effects)?;
        }
        self.channel.finish(&mut effects);
        self.perform(effects)
    }

    /// Persist, then send, then tell. The barrier makes it impossible to do it in another order: only a
    /// commit gives the token that opens it.
    fn perform(&mut self, Effects { batch, after }: Effects) -> Result<(), Failure> {
        let after = Barrier::new(after);
        let durable = self.store.commit(&batch)?;
        for after in after.open(&durable) {
            match after {
                After::Send(message) => self.sent.push_back(message),
                After::Event(ChannelEvent::Received(update)) => {
                    for payment in &update.payments {
                        let payment = payment?;
                        println!("{}: got {} for {}", self.name, payment.amount, payment.reference.to_text());
                    }
                }
                After::Event(event) => println!("{}: {event:?}", self.name),
            }
        }
        Ok(())
    }

    /// Queues payments. They go out with the next step, all under one signature.
    fn pay(&mut self, payments: &[(u64, &str)]) -> Result<(), Failure> {
        for (units, reference) in payments {
            let payment = Payment::new(Amount::new(*units), reference.as_bytes())?;
            self.channel.pay(payment, None)?;
        }
        self.step([])
    }

    fn balance(&self) -> Amount {
        self.channel.balances().of(self.channel.agreement().side)
    }
}

/// Carries messages to and fro until there are none.
fn deliver(left: &mut Machine, right: &mut Machine) -> Result<(), Failure> {
    while !(left.sent.is_empty() && right.sent.is_empty()) {
        let (to_right, to_left) = (std::mem::take(&mut left.sent), std::mem::take(&mut right.sent));
        right.step(to_right.into_iter().map(Input::Message))?;
        left.step(to_left.into_iter().map(Input::Message))?;
    }
    Ok(())
}

/// The key of a party: for its channel, and here for the output that it brings as well.
fn key(side: Side) -> SecretKey {
    SecretKey::from_bytes([side.byte() + 1; 32])
}

/// What a party brings: one output of just its deposit. A wallet would choose it, and know its id.
fn party(side: Side) -> OpenParty {
    let key = key(side).public();
    let deposit = side.pick(DEPOSITS[0], DEPOSITS[1]);
    let output = Output { address: Address::of(&key), amount: deposit };
    let id = OutputId { transaction: TransactionId::new([9; 32]), index: u16::from(side.byte()) };
    OpenParty { key, payout: Address::of(&key), deposit, funding: vec![Funding { id, output }], change: None }
}

/// How two parties come to a channel. Each message would travel; each check is the receiver's.
fn agree() -> Result<[Agreement; 2], Failure> {
    let proposal = OpenProposal {
        party_a: party(Side::A),
        deposit_b: DEPOSITS[1],
        contest_window_milestones: 60,
        expiry_milestone: 100,
    };
    // B checks the proposal, signs the transaction that follows from it, and answers.
    let essence = open::answer(NETWORK, &proposal, &party(Side::B))?;
    let unlock = |side: Side, essence: &Essence| -> Vec<Unlock> { vec![essence.unlock(&key(side))] };
    let accept = OpenAccept { party_b: party(Side::B), unlocks: unlock(Side::B, &essence) };
    // A checks the answer, comes to the same transaction, and signs it, too. Only A submits it.
    let essence = open::check_answer(NETWORK, &proposal, &accept)?;
    let open = open::opened(&essence).ok_or("not an opening transaction")?;
    let unlocks = unlock(Side::A, &essence);
    let agreement = |side: Side| {
        let ours = side.pick(unlocks.clone(), Vec::new());
        let transaction = open::transaction(essence.clone(), ours, accept.unlocks.clone());
        let origin = Origin::Agreed(Box::new(transaction));
        Agreement { network: NETWORK, side, peer: key(!side).public(), key_index: 0, origin, open }
    };
    Ok(Side::BOTH.map(agreement))
}

fn machine(name: &'static str, agreement: &Agreement) -> Result<Machine, Failure> {
    let mut effects = Effects::default();
    let key = key(agreement.side);
    let channel = Channel::new(agreement.clone(), key, &mut effects);
    let mut machine = Machine { name, channel, store: MemoryStore::new(), sent: VecDeque::new() };
    machine.perform(effects)?;
    Ok(machine)
}

fn main() -> Result<(), Failure> {
    let [for_a, for_b] = agree()?;
    // What the ledger shows once it has applied the opening transaction.
    let record = ChannelRecord::opened(&for_a.open);
    let (mut a, mut b) = (machine("A", &for_a)?, machine("B", &for_b)?);

    // Both see the channel open, and their view of the ledger is young enough. Then they meet.
    let seen = LedgerView { index: 5, record: Some(record), payouts: None };
    for machine in [&mut a, &mut b] {
        machine.step([Input::Ledger(seen), Input::Fresh(true), Input::Connected])?;
    }
    deliver(&mut a, &mut b)?;

    // Both pay at the same time. Three payments of A go out under one signature.
    a.pay(&[(300, "Wh 1"), (300, "Wh 2"), (300, "Wh 3")])?;
    b.pay(&[(50, "heat returned")])?;
    deliver(&mut a, &mut b)?;
    assert_eq!(a.channel.outgoing().acknowledged_payments, 3, "B has all three in its store");

    // What was received can be spent again at once: B pays out more than it ever locked.
    b.pay(&[(250_500, "everything but 350")])?;
    deliver(&mut a, &mut b)?;
    assert_eq!((a.balance(), b.balance()), (Amount::new(1_249_650), Amount::new(350)));

    // A's machine loses power and starts again from its store; what follows goes on from there.
    let store = a.store.reopen();
    let channel = Channel::load(a.channel.id(), |_| key(Side::A), &store)?;
    a = Machine { channel, store, ..a };
    for machine in [&mut a, &mut b] {
        machine.step([Input::Disconnected, Input::Ledger(seen), Input::Fresh(true), Input::Connected])?;
    }
    deliver(&mut a, &mut b)?;

    // A wishes to close, both sign, and each has the same transaction for the ledger.
    a.step([Input::Close])?;
    deliver(&mut a, &mut b)?;
    let close = |machine: &Machine| machine.channel.wanted().ok_or("both have signed");
    let (close_a, close_b): (Transaction, Transaction) = (close(&a)?, close(&b)?);
    assert_eq!(close_a, close_b);

    // The ledger pays out, and the channel is gone.
    let payouts = Balances::of_payouts(a.balance(), b.balance());
    let seen = LedgerView { index: 7, record: None, payouts: Some(payouts) };
    for machine in [&mut a, &mut b] {
        machine.step([Input::Ledger(seen)])?;
        assert!(
            matches!(machine.channel.phase(), Phase::Closed { payouts: Some(paid), .. } if *paid == payouts)
        );
    }
    println!("closed by {}: A got {}, B got {}", close_a.id(), payouts.of(Side::A), payouts.of(Side::B));
    Ok(())
}
