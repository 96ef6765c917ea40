//! Transfers: what may be spent, by whom, and how often.

use flash_proto::{Amount, OutputId};

use super::support::*;
use crate::ledger::Conflict;

#[test]
fn a_transfer_moves_money_and_leaves_the_rest_alone() {
    let mut ledger = Ledger::new();
    let coin = genesis_coin(&ledger.params, 1);
    let pay = transfer(&ledger.params, &[coin], vec![output(4, 300_000), output(1, 700_000)]);
    let (confirmation, _) = ledger.confirmation(std::slice::from_ref(&pay));
    assert_eq!(confirmation.applied.len(), 1);
    assert_eq!((ledger.at(4), ledger.at(1), ledger.at(2)), (300_000, 700_000, 500_000));
    assert_eq!(ledger.state.output(&coin.0), None);
    let made = OutputId { transaction: pay.id(), index: 1 };
    assert_eq!(ledger.state.output(&made), Some(&output(1, 700_000)));
    assert_eq!(confirmation.state_root, ledger.state.root());
    assert_eq!(ledger.state.in_channels(), Amount::ZERO);
}

#[test]
fn of_a_double_spend_the_first_in_white_flag_order_wins() {
    for swapped in [false, true] {
        let mut ledger = Ledger::new();
        let coin = genesis_coin(&ledger.params, 1);
        let mut spends = [4, 5].map(|to| transfer(&ledger.params, &[coin], vec![output(to, 1_000_000)]));
        if swapped {
            spends.reverse();
        }
        assert_eq!(ledger.confirm(&spends), [Ok(()), Err(Conflict::InputMissing)]);
        assert_eq!((ledger.at(4), ledger.at(5)), if swapped { (0, 1_000_000) } else { (1_000_000, 0) });
        // The same again in a later milestone changes nothing either.
        assert_eq!(ledger.confirm(&spends), [Err(Conflict::InputMissing); 2]);
    }
}

#[test]
fn money_can_move_on_within_one_milestone() {
    let mut ledger = Ledger::new();
    let first = transfer(&ledger.params, &[genesis_coin(&ledger.params, 2)], vec![output(4, 500_000)]);
    let second = transfer(&ledger.params, &[coin_of(&first, 0, 4)], vec![output(5, 500_000)]);
    let (confirmation, results) = ledger.confirmation(&[first.clone(), second.clone()]);
    assert_eq!(results, [Ok(()), Ok(())]);
    assert_eq!(ledger.at(5), 500_000);
    assert_eq!(confirmation.changes.len(), 2, "what came and went within the milestone never was");

    let mut ledger = Ledger::new();
    assert_eq!(ledger.confirm(&[second, first]), [Err(Conflict::InputMissing), Ok(())]);
}

#[test]
fn inputs_and_outputs_must_add_up() {
    let mut ledger = Ledger::new();
    let coin = genesis_coin(&ledger.params, 1);
    for outputs in [vec![output(4, 1_000_001)], vec![output(4, 999_999)], vec![output(4, 1_000_000); 2]] {
        let wrong = transfer(&ledger.params, &[coin], outputs);
        assert_eq!(ledger.conflict(&wrong), Conflict::Sum);
    }
    let coins = [coin, genesis_coin(&ledger.params, 2)];
    ledger.apply(&transfer(&ledger.params, &coins, vec![output(4, 1_500_000)]));
}

#[test]
fn only_the_owner_spends() {
    let mut ledger = Ledger::new();
    let (id, held, _) = genesis_coin(&ledger.params, 1);
    let stolen = transfer(&ledger.params, &[(id, held, 9)], vec![output(9, 1_000_000)]);
    assert_eq!(ledger.conflict(&stolen), Conflict::WrongKey);
    // One right key among the inputs is not enough.
    let coins = [genesis_coin(&ledger.params, 2), (id, held, 2)];
    let stolen = transfer(&ledger.params, &coins, vec![output(2, 1_500_000)]);
    assert_eq!(ledger.conflict(&stolen), Conflict::WrongKey);
}

#[test]
fn a_signer_who_was_shown_other_inputs_spends_nothing() {
    let mut ledger = Ledger::new();
    let (id, mut shown, owner) = genesis_coin(&ledger.params, 1);
    shown.amount = Amount::new(500_000);
    let lied_to = transfer(&ledger.params, &[(id, shown, owner)], vec![output(4, 1_000_000)]);
    assert_eq!(ledger.conflict(&lied_to), Conflict::InputsCommitment);
}

#[test]
fn outputs_of_an_address_can_be_read_page_by_page() {
    let mut ledger = Ledger::new();
    let coin = genesis_coin(&ledger.params, 1);
    ledger.apply(&transfer(&ledger.params, &[coin], vec![output(4, 100_000); 10]));
    let all: Vec<_> = ledger.state.outputs_at(&address(4)).collect();
    assert!(all.len() == 10 && all.is_sorted_by_key(|(id, _)| *id));
    assert!(ledger.state.outputs_after(&address(4), None).eq(all.iter().copied()));
    let rest = ledger.state.outputs_after(&address(4), Some(all[6].0));
    assert!(rest.eq(all[7..].iter().copied()));
}
