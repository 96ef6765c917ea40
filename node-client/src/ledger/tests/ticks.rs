//! Balances with ticks: what a revealed preimage is worth on the ledger.

use flash_proto::{
    Amount, ChannelId, Hash, LaneState, Payment, PaymentList, Side, SignedBalance, TickChain, TickProof,
    TickStep, TickTerms,
    limits::TICKS_MAX,
    payment::PaymentError,
    ticks::{TickError, tick_hash},
};
use proptest::prelude::*;

use super::support::*;
use crate::ledger::{Checked, Conflict, Invalid};

fn chain(max: u32, unit: u64) -> TickChain {
    TickChain::new(Hash::new([7; 32]), Amount::new(unit), max).unwrap()
}

/// A balance of B's lane with this much paid and a chain in use.
fn ticking(channel: ChannelId, cumulative: u64, terms: TickTerms) -> SignedBalance {
    let params = params();
    let state = LaneState { ticks: terms, ..balance(&params, channel, Side::B, cumulative).state };
    state.sign(params.id(), &key(12))
}

/// What the ledger knows that B paid.
fn paid(ledger: &Ledger, channel: ChannelId) -> u64 {
    ledger.state.channel(&channel).unwrap().lane(Side::B).cumulative.units()
}

#[test]
fn revealed_ticks_count_on_top_of_the_balance() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let params = ledger.params.clone();
    let mut chain = chain(TICKS_MAX, 1);
    let balance = ticking(channel, 100, chain.terms());
    let close = unilateral_with_ticks(&params, channel, Side::A, Some(balance), chain.reveal(3));
    ledger.apply(&close);
    assert_eq!(paid(&ledger, channel), 103);
    // Whoever shows less, or the same, changes nothing; more counts, down to the last tick.
    for less in [None, chain.reveal(2), chain.reveal(3)] {
        assert_eq!(ledger.conflict(&claim_with_ticks(&params, &balance, less)), Conflict::NotHigher);
    }
    ledger.apply(&claim_with_ticks(&params, &balance, chain.reveal(2_000)));
    ledger.apply(&claim_with_ticks(&params, &balance, chain.reveal(TICKS_MAX)));
    assert_eq!(paid(&ledger, channel), 100 + u64::from(TICKS_MAX));
    ledger.pass_until(20);
    // More than B had: its payee gets all of it, and no more.
    assert_eq!((ledger.at(21), ledger.at(22)), (10_000, 0));
}

#[test]
fn ticks_are_no_reason_to_take_a_claim_that_would_not_count_otherwise() {
    let mut ledger = Ledger::new();
    let channel = ledger.open_channel();
    let params = ledger.params.clone();
    let mut chain = chain(10, 5);
    let balance = ticking(channel, 100, chain.terms());
    let claim = claim_with_ticks(&params, &balance, chain.reveal(4));
    assert_eq!(ledger.conflict(&claim), Conflict::ChannelOpen);
    let foreign = balance.state.sign(params.id(), &key(9));
    let mut forged = claim.clone();
    forged.unlocks[0].key = key(9).public();
    forged.unlocks[0].signature = foreign.signature;
    ledger.apply(&unilateral(&params, channel, Side::B, None));
    assert_eq!(ledger.conflict(&forged), Conflict::NotAParty);
    ledger.apply(&claim);
    assert_eq!(paid(&ledger, channel), 120);
    ledger.pass_until(20);
    assert_eq!(
        ledger.conflict(&claim_with_ticks(&params, &balance, chain.reveal(9))),
        Conflict::ChannelUnknown
    );
}

#[test]
fn only_the_chain_that_was_signed_pays() {
    let params = params();
    let channel = ChannelId::new([1; 32]);
    let (mut chain, terms) = (chain(100, 5), chain(100, 5).terms());
    let fifth = chain.reveal(5).unwrap();
    let no_preimage = |index| Invalid::Ticks(PaymentError::Ticks(TickError::Preimage { index, max: 100 }));
    let cases = [
        (terms, TickProof { index: 6, ..fifth }, no_preimage(6)),
        (terms, TickProof { index: 4, ..fifth }, no_preimage(4)),
        (terms, TickProof { preimage: tick_hash(&fifth.preimage), ..fifth }, no_preimage(5)),
        (terms, TickProof { index: 0, preimage: terms.anchor }, no_preimage(0)),
        (terms, TickProof { index: 101, ..fifth }, no_preimage(101)),
        (terms, TickProof { index: u32::MAX, ..fifth }, no_preimage(u32::MAX)),
        (
            TickTerms::NONE,
            fifth,
            Invalid::Ticks(PaymentError::Ticks(TickError::Preimage { index: 5, max: 0 })),
        ),
        (
            TickTerms { unit: Amount::MAX, ..terms },
            fifth,
            Invalid::Ticks(PaymentError::Ticks(TickError::Overflow)),
        ),
        (
            TickTerms { unit: Amount::new(u64::MAX / 5), ..terms },
            fifth,
            Invalid::Ticks(PaymentError::Overflow),
        ),
        (
            TickTerms { max: TICKS_MAX + 1, ..terms },
            fifth,
            Invalid::Ticks(PaymentError::Ticks(TickError::Terms)),
        ),
    ];
    for (terms, proof, wrong) in cases {
        let balance = ticking(channel, 100, terms);
        let claim = claim_with_ticks(&params, &balance, Some(proof));
        assert_eq!(Checked::new(claim, &params), Err(wrong.clone()), "{proof:?}");
        let close = unilateral_with_ticks(&params, channel, Side::A, Some(balance), Some(proof));
        assert_eq!(Checked::new(close, &params), Err(wrong), "{proof:?}");
    }
    // The terms are part of what the payer signed, the proof is part of the transaction's id.
    let mut dearer = claim_with_ticks(&params, &ticking(channel, 100, terms), Some(fifth));
    let flash_proto::Action::Claim(claim) = &mut dearer.essence.action else { unreachable!("it is a claim") };
    claim.state.ticks.unit = Amount::new(6);
    assert_eq!(Checked::new(dearer, &params), Err(Invalid::Signature(0)));
    let with = |proof| claim_with_ticks(&params, &ticking(channel, 100, terms), proof).id();
    assert!(with(None) != with(Some(fifth)) && with(chain.reveal(6)) != with(Some(fifth)));
}

/// What a payer does next: payments, and whether the chain goes on, is a new one, or ends.
#[derive(Clone, Debug)]
struct Step {
    revealed: u32,
    payments: Vec<u64>,
    next: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u32..8, proptest::collection::vec(1_u64..50, 0..3), 0_u8..3);
    let step = step.prop_map(|(revealed, payments, next)| Step { revealed, payments, next });
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever was revealed up to now, the newest balance with the newest of its own ticks is worth as much as
    /// any older balance with any of all ticks (I5): nobody gains by showing an old one, and a payee that shows
    /// the newest loses nothing.
    #[test]
    fn an_old_balance_with_later_ticks_is_never_above_the_newest(steps in steps()) {
        let mut number = 1_u8;
        let mut fresh = || {
            number += 1;
            TickChain::new(Hash::new([number; 32]), Amount::new(u64::from(number)), 24).unwrap()
        };
        let mut chain = fresh();
        // Ticks of the chain that were folded before, and those revealed under the newest balance.
        let (mut folded, mut revealed) = (0, 0);
        let first = TickStep { folded: None, terms: chain.terms() };
        let mut states = vec![LaneState::new(ChannelId::new([1; 32]), Side::A).step(&PaymentList::new(), &first).unwrap()];
        let mut known: Vec<Hash> = Vec::new();
        for step in steps {
            let state = *states.last().unwrap();
            for index in revealed + 1..=(revealed + step.revealed).min(state.ticks.max) {
                known.push(chain.reveal(folded + index).unwrap().preimage);
                revealed = index;
            }
            let newest = (revealed > 0).then(|| TickProof { index: revealed, preimage: *known.last().unwrap() });
            let worth = state.with_ticks(newest.as_ref()).unwrap();
            for old in &states {
                for preimage in &known {
                    let mut hash = *preimage;
                    let index = (1..=old.ticks.max).find(|_| {
                        hash = tick_hash(&hash);
                        hash == old.ticks.anchor
                    });
                    let Some(index) = index else { continue };
                    let shown = old.with_ticks(Some(&TickProof { index, preimage: *preimage })).unwrap();
                    prop_assert!(shown <= worth, "{old:?} with tick {index}: {shown} above {worth}");
                }
            }
            let mut payments = PaymentList::new();
            for amount in &step.payments {
                payments.push(&Payment::new(Amount::new(*amount), b"").unwrap()).unwrap();
            }
            let rest = TickTerms {
                anchor: newest.map_or(state.ticks.anchor, |newest| newest.preimage),
                max: state.ticks.max - revealed,
                ..state.ticks
            };
            let terms = match step.next {
                0 if rest.max > 0 => {
                    folded += revealed;
                    rest
                }
                1 => TickTerms::NONE,
                _ => {
                    (chain, folded) = (fresh(), 0);
                    chain.terms()
                }
            };
            let Ok(next) = state.step(&payments, &TickStep { folded: newest, terms }) else { continue };
            prop_assert!(next.cumulative >= worth, "what was revealed is paid for ever");
            states.push(next);
            revealed = 0;
        }
    }
}
