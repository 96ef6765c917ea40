//! What is checked of an opening before it is signed.

use flash_proto::{
    Output, OutputId, PublicKey, TransactionId, Unlock, limits,
    message::{Funding, OpenAccept, OpenParty, OpenProposal},
};

use super::{
    super::open::{self, OpenError},
    *,
};

fn output(owner: &SecretKey, units: u64) -> Output {
    Output { address: Address::of(&owner.public()), amount: amount(units) }
}

/// A party that locks 60 of two outputs of 40 each.
fn party(side: Side) -> OpenParty {
    let owner = key(side);
    let funding = (0..2).map(|index| {
        let transaction = TransactionId::new([side.byte(); 32]);
        Funding { id: OutputId { transaction, index }, output: output(&owner, 40) }
    });
    OpenParty {
        key: owner.public(),
        payout: Address::of(&owner.public()),
        deposit: amount(60),
        funding: funding.collect(),
        change: Some(output(&owner, 20)),
    }
}

fn proposal() -> OpenProposal {
    OpenProposal {
        party_a: party(Side::A),
        deposit_b: amount(60),
        contest_window_milestones: 10,
        expiry_milestone: 50,
    }
}

fn accept(party_b: OpenParty, signer: &SecretKey) -> OpenAccept {
    let essence = proposal().essence(NETWORK, &party_b);
    let unlocks = party_b.funding.iter().map(|_| essence.unlock(signer)).collect();
    OpenAccept { party_b, unlocks }
}

#[test]
fn both_sides_come_to_the_same_transaction() {
    let answered = open::answer(NETWORK, &proposal(), &party(Side::B)).unwrap();
    let accept = accept(party(Side::B), &key(Side::B));
    let checked = open::check_answer(NETWORK, &proposal(), &accept).unwrap();
    assert_eq!(answered, checked);
    let opened = open::opened(&checked).unwrap();
    assert_eq!((opened.party_a.deposit, opened.party_b.deposit), (amount(60), amount(60)));
    let own: Vec<Unlock> = (0..2).map(|_| checked.unlock(&key(Side::A))).collect();
    let transaction = open::transaction(checked.clone(), own.clone(), accept.unlocks.clone());
    assert_eq!(transaction.unlocks, [own, accept.unlocks].concat(), "in the order of the inputs");
    let other = Essence { action: Action::Transfer, ..checked };
    assert_eq!(open::opened(&other), None);
}

#[test]
fn funding_that_is_not_deposit_and_change_to_the_unit_is_refused_of_either() {
    let most = limits::FUNDING_INPUTS_MAX;
    let funded = |count: usize| {
        let one = party(Side::B).funding.remove(0);
        let funding = (0..u16::try_from(count).unwrap())
            .map(|index| Funding { id: OutputId { index, ..one.id }, ..one })
            .collect();
        OpenParty { funding, deposit: amount(40 * count as u64), change: None, ..party(Side::B) }
    };
    assert!(open::answer(NETWORK, &proposal(), &funded(most)).is_ok());
    let overflowing = {
        let mut party = party(Side::B);
        party.funding[0].output.amount = Amount::MAX;
        party
    };
    let sum = |units: u64| OpenError::FundingSum { funding: amount(units) };
    let cases = [
        (funded(most + 1), OpenError::FundingCount { got: most + 1 }),
        (OpenParty { deposit: amount(61), ..party(Side::B) }, sum(80)),
        (OpenParty { deposit: amount(59), ..party(Side::B) }, sum(80)),
        (OpenParty { change: None, ..party(Side::B) }, sum(80)),
        (OpenParty { funding: Vec::new(), ..party(Side::B) }, sum(0)),
        (overflowing, sum(u64::MAX)),
        (OpenParty { deposit: Amount::MAX, ..party(Side::B) }, sum(80)),
    ];
    for (wrong, refused) in cases {
        assert_eq!(open::answer(NETWORK, &proposal(), &wrong), Err(refused.clone()));
        let asked = OpenProposal { party_a: wrong, ..proposal() };
        assert_eq!(open::answer(NETWORK, &asked, &party(Side::B)), Err(refused));
    }
}

#[test]
fn a_peer_with_a_key_that_is_no_point_of_the_curve_is_refused_by_either() {
    let key = PublicKey::new([2; 32]);
    assert!(key.verifier().is_none());
    let asked = OpenProposal { party_a: OpenParty { key, ..party(Side::A) }, ..proposal() };
    assert_eq!(open::answer(NETWORK, &asked, &party(Side::B)), Err(OpenError::Key));
    let accept = OpenAccept { party_b: OpenParty { key, ..party(Side::B) }, unlocks: Vec::new() };
    assert_eq!(open::check_answer(NETWORK, &proposal(), &accept), Err(OpenError::Key));
}

#[test]
fn two_parties_share_neither_key_nor_output() {
    let same_key = OpenParty { key: key(Side::A).public(), ..party(Side::B) };
    assert_eq!(open::answer(NETWORK, &proposal(), &same_key), Err(OpenError::Key));
    let mut shared = party(Side::B);
    shared.funding[1].id = proposal().party_a.funding[0].id;
    assert_eq!(open::answer(NETWORK, &proposal(), &shared), Err(OpenError::FundingTwice));
    let mut twice = party(Side::B);
    twice.funding[1].id = twice.funding[0].id;
    assert_eq!(open::answer(NETWORK, &proposal(), &twice), Err(OpenError::FundingTwice));
}

#[test]
fn an_answer_locks_what_was_asked_and_every_input_of_it_is_signed_by_its_owner() {
    let check = |accept: &OpenAccept| open::check_answer(NETWORK, &proposal(), accept).map(drop);
    let good = accept(party(Side::B), &key(Side::B));
    assert_eq!(check(&good), Ok(()));
    let less = OpenParty { deposit: amount(59), change: Some(output(&key(Side::B), 21)), ..party(Side::B) };
    let wrong = OpenError::Deposit { got: amount(59), wanted: amount(60) };
    assert_eq!(check(&accept(less, &key(Side::B))), Err(wrong));
    let unlocks = &good.unlocks;
    let mut forged = unlocks.clone();
    forged[1].signature = key(Side::B).sign(&Hash::ZERO);
    let other_network = proposal().essence(NetworkId::new([8; 32]), &party(Side::B));
    let elsewhere = other_network.unlock(&key(Side::B));
    for unlocks in [
        unlocks[..1].to_vec(),
        [&unlocks[..], &unlocks[..1]].concat(),
        forged,
        vec![elsewhere; 2],
        accept(party(Side::B), &key(Side::A)).unlocks,
    ] {
        let answer = OpenAccept { unlocks, ..good.clone() };
        assert_eq!(check(&answer), Err(OpenError::Signatures));
    }
}
