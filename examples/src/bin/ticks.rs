//! A device that pays by ticks: it signs once, and from then on one hash pays.
//!
//! ```text
//! cargo run -p flash-examples --bin ticks
//! ```
//!
//! The payer is as small as it gets here: no daemon, no store, only a [`TickChain`] of 6 KiB. A device that has
//! nothing but a key, a hash function and a counter that survives a reset can do what it does. It signs one balance
//! that commits to the end of a hash chain, and pays by showing one preimage after the other. Its payee checks
//! each with one hash, and may show the ledger the balance and the newest preimage at any time.
//!
//! Two rules keep the payer safe: the counter is stored *before* its preimage is sent, and no chain is used for a
//! second balance. A side that runs the channel machine gets both from it (`two-machines`).

use flash_proto::{
    Amount, ChannelId, Claim, Hash, LaneState, NetworkId, PaymentList, SecretKey, Side, TickChain, TickProof,
    TickStep,
};

type Failure = Box<dyn std::error::Error>;

const NETWORK: NetworkId = NetworkId::new([1; 32]);
const CHANNEL: ChannelId = ChannelId::new([2; 32]);
const TICKS: u32 = 1_000;

fn main() -> Result<(), Failure> {
    let key = SecretKey::from_bytes([3; 32]);
    // A device draws this secret at random, or derives it from its key and the number of the update.
    let mut chain = TickChain::new(Hash::new([4; 32]), Amount::new(25), TICKS)?;

    // One signature: a balance of nothing, with the chain's end.
    let terms = chain.terms();
    let start = LaneState::new(CHANNEL, Side::A);
    let state = start.step(&PaymentList::new(), &TickStep { folded: None, terms })?;
    let balance = state.sign(NETWORK, &key);

    // The payee checks the signature once, and then one hash for each tick.
    assert!(balance.verify(NETWORK, &key.public()), "the payer signed it");
    let mut held = TickProof { index: 0, preimage: terms.anchor };
    for counter in 1..=TICKS {
        let tick = chain.reveal(counter).ok_or("the chain is used up")?;
        let paid = terms.check_after(&held, &tick)?;
        held = tick;
        if counter.is_multiple_of(250) {
            println!("tick {counter}: {paid} paid");
        }
    }

    // What the ledger would be shown: it hashes the preimage as often as it counts ticks.
    let claim = Claim { state: balance.state, ticks: Some(held) };
    println!("one signature, {TICKS} hashes: the ledger counts {}", claim.total()?);
    Ok(())
}
