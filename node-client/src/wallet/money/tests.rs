//! What is ours, what is promised, and what is given out once only.

use proptest::prelude::*;

use super::*;
use crate::node::dev::DevNetwork;

const MIN: Amount = Amount::new(1_000);

fn seed() -> Seed {
    Seed::from_words(
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
        "",
    )
    .unwrap()
}

fn id(n: u16) -> OutputId {
    OutputId { transaction: TransactionId::new([9; 32]), index: n }
}

/// What a disk has of a wallet.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    record: Vec<u8>,
    reservations: BTreeMap<u64, Vec<u8>>,
    addresses: Vec<Address>,
}

impl Kept {
    fn keep(&mut self, wallet: &mut Wallet) {
        let changes = wallet.take_changes();
        self.record = changes.record;
        for (number, record) in changes.reservations {
            match record {
                Some(record) => drop(self.reservations.insert(number, record)),
                None => drop(self.reservations.remove(&number)),
            }
        }
        for (index, address) in changes.addresses {
            assert_eq!(usize::try_from(index), Ok(self.addresses.len()), "each once, and none left out");
            self.addresses.push(address);
        }
    }

    fn open(&self, outputs: &Wallet) -> Wallet {
        let (reservations, outputs) = (self.reservations.clone(), outputs.outputs.clone());
        Wallet::from_record(seed(), &self.record, reservations, outputs, self.addresses.clone()).unwrap()
    }
}

/// Shows a wallet all outputs at all its addresses.
fn see(wallet: &mut Wallet, milestone_index: u64, outputs: Vec<(OutputId, Output)>) -> Vec<WalletEvent> {
    let asked = wallet.addresses().to_vec();
    wallet.observe(milestone_index, &asked, outputs)
}

fn with_outputs(amounts: &[u64]) -> Wallet {
    let mut wallet = Wallet::new(seed());
    let outputs = (0..).zip(amounts).map(|(n, amount)| {
        let address = wallet.fresh_address().unwrap();
        (id(n), Output { address, amount: Amount::new(*amount) })
    });
    let outputs = outputs.collect();
    see(&mut wallet, 1, outputs);
    wallet
}

#[test]
fn every_address_and_key_is_given_out_once_across_restarts() {
    let mut wallet = Wallet::new(seed());
    let (mut given, mut kept) = (BTreeSet::new(), Kept::default());
    for _ in 0..50 {
        assert!(given.insert(wallet.fresh_address().unwrap()));
        let (index, key) = wallet.fresh_channel_key().unwrap();
        assert_eq!(key.public(), seed().key(Account::Channels, index).public());
        kept.keep(&mut wallet);
        wallet = kept.open(&wallet);
    }
    assert!(given.is_subset(&wallet.addresses().iter().copied().collect()));
}

#[test]
fn money_at_an_address_within_the_gap_is_found_again_from_the_words() {
    let mut old = Wallet::new(seed());
    let address = (0..19).map(|_| old.fresh_address().unwrap()).last().unwrap();
    let mut recovered = Wallet::new(seed());
    assert!(recovered.addresses().contains(&address));
    see(&mut recovered, 5, vec![(id(0), Output { address, amount: Amount::new(7_000) })]);
    assert_eq!(recovered.available(), Amount::new(7_000));
    assert_ne!(recovered.fresh_address().unwrap(), address, "it is not given out again");
    let far = (0..300).map(|_| old.fresh_address().unwrap()).last().unwrap();
    assert!(!recovered.addresses().contains(&far));
    recovered.watch_until(320);
    assert!(recovered.addresses().contains(&far));
}

#[test]
fn channels_that_were_found_move_both_counters_on() {
    let mut old = Wallet::new(seed());
    let given: Vec<_> = (0..40).map(|_| old.fresh_address().unwrap()).collect();
    let mut recovered = Wallet::new(seed());
    assert!(!recovered.addresses().contains(&given[35]));
    let foreign = Address::new([9; 32]);
    assert_eq!(recovered.found_channels([7, 3], [given[2], given[35], foreign]), BTreeSet::from([foreign]));
    assert!(recovered.addresses().contains(&given[35]));
    assert_eq!(Address::of(&seed().key(Account::Money, 36).public()), recovered.fresh_address().unwrap());
    // Each channel came with an address, so there were at most 36.
    assert_eq!(recovered.fresh_channel_key().unwrap().0, 36);

    let mut recovered = Wallet::new(seed());
    assert!(recovered.found_channels([7, 3], []).is_empty());
    assert_eq!(recovered.fresh_channel_key().unwrap().0, 8);
    let keys = recovered.channel_keys(7..9);
    assert_eq!(keys, [7, 8].map(|index| (index, seed().key(Account::Channels, index).public())));
}

#[test]
fn a_transfer_is_signed_reserved_and_done_when_its_inputs_are_gone() {
    let params =
        DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 }.make(0, [[1; 32], [2; 32], [3; 32]]).params;
    let mut wallet = with_outputs(&[5_000, 20_000]);
    let to = Address::new([7; 32]);
    let (transaction, reservation) = wallet.transfer(to, Amount::new(12_000), &params).unwrap();
    crate::ledger::Checked::new(transaction.clone(), &params).unwrap();
    assert_eq!((reservation.funding.len(), reservation.change), (1, Amount::new(8_000)));
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(5_000), Amount::new(20_000)));
    let refused = wallet.transfer(to, Amount::new(12_000), &params).unwrap_err();
    assert!(matches!(refused, WalletError::Insufficient { .. }));

    let mut kept = Kept::default();
    kept.keep(&mut wallet);
    let mut wallet = kept.open(&wallet);
    assert_eq!(wallet.reserved(), Amount::new(20_000), "reserved across a restart");
    let change = OutputId { transaction: transaction.id(), index: 1 };
    let left: Vec<_> =
        wallet.outputs.iter().map(|(id, output)| (*id, *output)).filter(|(it, _)| *it == id(0)).collect();
    let events = see(&mut wallet, 2, [left, vec![(change, transaction.essence.outputs[1])]].concat());
    assert!(events.contains(&WalletEvent::Received {
        id: change,
        output: transaction.essence.outputs[1],
        change: true
    }));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, WalletEvent::Spent { id: spent, by, .. } if *spent == id(1) && *by == Some(transaction.id())))
    );
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(13_000), Amount::ZERO));
    kept.keep(&mut wallet);
    assert_eq!(kept.reservations, BTreeMap::new(), "what is over is not kept");
}

/// A list of many addresses goes across milestones.
#[test]
fn what_is_spent_together_is_gone_together_and_change_may_be_seen_later() {
    let params =
        DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 }.make(0, [[1; 32], [2; 32], [3; 32]]).params;
    let mut wallet = with_outputs(&[5_000, 6_000, 7_000]);
    let (transaction, reservation) =
        wallet.transfer(Address::new([7; 32]), Amount::new(10_000), &params).unwrap();
    let [first, second] = reservation.funding[..] else { panic!("two inputs: {reservation:?}") };
    let [first, second] = [first, second].map(|funding| (funding.id, funding.output));
    let other = (id(0), wallet.outputs[&id(0)]);
    assert_eq!(
        see(&mut wallet, 2, vec![other, first]),
        [],
        "the address of the second is of a later milestone"
    );
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(5_000), Amount::new(13_000)));

    let by = Some(transaction.id());
    let spent = |(id, output): (OutputId, Output)| WalletEvent::Spent { id, output, by };
    let mut events = see(&mut wallet, 3, vec![other]);
    events.sort_by_key(|event| matches!(event, WalletEvent::Spent { id, .. } if *id == second.0));
    assert_eq!(events, [spent(first), spent(second)]);
    let (change, output) =
        (OutputId { transaction: transaction.id(), index: 1 }, transaction.essence.outputs[1]);
    let came = WalletEvent::Received { id: change, output, change: true };
    assert_eq!(see(&mut wallet, 4, vec![other, (change, output)]), [came]);
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(8_000), Amount::ZERO));
}

/// Whoever else has the seed may spend a part of what is reserved here.
#[test]
fn what_is_left_of_a_reservation_that_cannot_be_used_any_more_is_free_once_it_expires() {
    let mut wallet = with_outputs(&[5_000, 6_000]);
    wallet.reserve(Amount::new(11_000), MIN, Some(10)).unwrap();
    let left = (id(0), wallet.outputs[&id(0)]);
    let spent = WalletEvent::Spent { id: id(1), output: wallet.outputs[&id(1)], by: None };
    assert_eq!(see(&mut wallet, 10, vec![left]), []);
    assert_eq!(wallet.available(), Amount::ZERO);
    assert_eq!(see(&mut wallet, 11, vec![left]), [spent]);
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(5_000), Amount::ZERO));
}

#[test]
fn what_expired_or_was_given_up_is_free_again() {
    let mut wallet = with_outputs(&[5_000]);
    let outputs: Vec<_> = wallet.outputs.iter().map(|(id, output)| (*id, *output)).collect();
    wallet.reserve(Amount::new(5_000), MIN, Some(10)).unwrap();
    see(&mut wallet, 10, outputs.clone());
    assert_eq!(wallet.available(), Amount::ZERO);
    see(&mut wallet, 11, outputs);
    assert_eq!(wallet.available(), Amount::new(5_000));
    let reservation = wallet.reserve(Amount::new(4_000), MIN, None).unwrap();
    wallet.release(reservation.id);
    assert_eq!(wallet.available(), Amount::new(5_000));
}

#[test]
fn however_much_is_reserved_little_is_written_for_each_and_all_is_read_again() {
    let outputs = 5_000;
    let mut wallet = with_outputs(&vec![5_000; outputs]);
    let (mut kept, mut largest) = (Kept::default(), 0);
    for _ in 1..outputs {
        let reservation = wallet.reserve(Amount::new(5_000), MIN, Some(u64::MAX)).unwrap();
        wallet.spends(reservation.id, TransactionId::new([7; 32]));
        let before = kept.reservations.len();
        kept.keep(&mut wallet);
        assert_eq!(kept.reservations.len(), before + 1);
        largest = largest.max(kept.record.len() + kept.reservations[&reservation.id].len());
    }
    assert!(largest < 256, "{largest} bytes");
    let mut wallet = kept.open(&wallet);
    assert_eq!(wallet.available(), Amount::new(5_000), "what is reserved is not free after a restart");
    let changes = wallet.take_changes();
    assert_eq!(
        (changes.reservations, changes.addresses),
        (Vec::new(), Vec::new()),
        "all of it is on the disk"
    );
    wallet.release(17);
    assert_eq!(wallet.available(), Amount::new(10_000));
    kept.keep(&mut wallet);
    assert_eq!(kept.open(&wallet).available(), Amount::new(10_000));
}

#[test]
fn the_largest_reservation_can_be_read_again() {
    let mut wallet = with_outputs(&[5_000; limits::FUNDING_INPUTS_MAX]);
    let all = Amount::new(5_000 * u64::try_from(limits::FUNDING_INPUTS_MAX).unwrap());
    let reservation = wallet.reserve(all, MIN, Some(u64::MAX)).unwrap();
    wallet.spends(reservation.id, TransactionId::new([7; 32]));
    let mut kept = Kept::default();
    kept.keep(&mut wallet);
    assert!(kept.reservations[&reservation.id].len() <= RESERVATION_BYTES_MAX);
    assert_eq!(kept.open(&wallet).reserved(), all);
}

#[test]
fn a_record_from_before_reservations_had_their_own_is_read() {
    let mut wallet = with_outputs(&[5_000, 7_000]);
    let reservation = wallet.reserve(Amount::new(7_000), MIN, Some(10)).unwrap();
    let old = State { reservations: wallet.reservations.clone(), ..wallet.state.clone() };
    let mut kept = Kept { record: codec::encode(&old), ..Kept::default() };
    let mut wallet = kept.open(&wallet);
    assert_eq!(wallet.available(), Amount::new(5_000));
    // From the first change on each has its own.
    kept.keep(&mut wallet);
    assert_eq!(kept.reservations.keys().copied().collect::<Vec<_>>(), [reservation.id]);
    assert_eq!(kept.open(&wallet).available(), Amount::new(5_000));
    wallet.release(reservation.id);
    kept.keep(&mut wallet);
    assert_eq!(kept.open(&wallet).available(), Amount::new(12_000));
}

#[test]
fn change_is_nothing_or_an_output_of_its_own() {
    let mut wallet = with_outputs(&[5_000]);
    let refused = wallet.reserve(Amount::new(4_500), MIN, None).unwrap_err();
    assert_eq!(refused, WalletError::Change { left: Amount::new(500), min: MIN });
    // A further output makes it fit.
    let mut wallet = with_outputs(&[5_000, 900]);
    let reservation = wallet.reserve(Amount::new(4_500), MIN, None).unwrap();
    assert_eq!((reservation.funding.len(), reservation.change), (2, Amount::new(1_400)));
    assert!(with_outputs(&[]).reserve(Amount::ZERO, MIN, None).unwrap().funding.is_empty());
}

#[test]
fn addresses_that_are_not_on_the_disk_are_derived_and_written() {
    let mut wallet = with_outputs(&[5_000, 6_000]);
    let mut kept = Kept::default();
    kept.keep(&mut wallet);
    for missing in [0, 1, kept.addresses.len()] {
        let left = kept.addresses.len() - missing;
        let mut some = Kept { addresses: kept.addresses[..left].to_vec(), ..kept.clone() };
        let mut opened = some.open(&wallet);
        assert_eq!(opened.addresses(), wallet.addresses());
        some.keep(&mut opened);
        assert_eq!(some, kept);
    }
}

#[test]
fn an_output_at_an_address_that_was_not_asked_stays_as_it_was() {
    let mut wallet = with_outputs(&[5_000, 6_000]);
    let asked = wallet.outputs[&id(0)].address;
    let events = wallet.observe(2, &[asked], Vec::new());
    assert!(matches!(events[..], [WalletEvent::Spent { id: spent, .. }] if spent == id(0)), "{events:?}");
    assert_eq!(wallet.available(), Amount::new(6_000));
}

#[test]
fn what_a_reservation_may_leave_over_is_due_however_many_addresses_follow() {
    let mut wallet = with_outputs(&[5_000, 6_000]);
    let (first, second) = (id(0), id(1));
    let [kept, spent] = [first, second].map(|id| (id, wallet.outputs[&id]));
    let params =
        DevNetwork { milestone_interval_ms: 1_000, pow_bits: 0 }.make(0, [[1; 32], [2; 32], [3; 32]]).params;
    let before = wallet.fresh_address().unwrap();
    wallet.watch_until(5_000);
    let (transaction, _) = wallet.transfer(Address::new([7; 32]), Amount::new(4_000), &params).unwrap();
    let change = transaction.essence.outputs[1];
    wallet.watch_until(15_000);
    // Those that have turns are not due three times in a row.
    let is_due = |wallet: &mut Wallet| {
        let due = [wallet.due(), wallet.due(), wallet.due()];
        [before, change.address].map(|address| due.iter().all(|due| due.contains(&address)))
    };
    assert_eq!(is_due(&mut wallet), [false, true]);
    let mut disk = Kept::default();
    disk.keep(&mut wallet);
    let mut restarted = disk.open(&wallet);
    assert_eq!(is_due(&mut restarted), [true, true], "nobody knows any more what was given out before");

    see(&mut wallet, 2, vec![kept, spent]);
    see(&mut wallet, 3, vec![kept]);
    assert_eq!(is_due(&mut wallet), [false, true], "the list may have been older where the change is");
    let output = (OutputId { transaction: transaction.id(), index: 1 }, change);
    let events = see(&mut wallet, 4, vec![kept, output]);
    assert!(matches!(events[..], [WalletEvent::Received { change: true, .. }]), "{events:?}");
    see(&mut wallet, 5, vec![kept]);
    assert_eq!(is_due(&mut wallet), [false, false], "spent, and nothing is under way");
}

proptest! {
    #[test]
    fn nothing_is_promised_twice(
        amounts in proptest::collection::vec(1_u64..50_000, 0..40),
        wishes in proptest::collection::vec((0_u64..60_000, proptest::bool::ANY), 0..20),
    ) {
        let mut wallet = with_outputs(&amounts);
        let total: u64 = amounts.iter().sum();
        let mut promised = BTreeSet::new();
        for (wish, keep) in wishes {
            let before = (wallet.state.clone(), wallet.reservations.clone());
            if let Ok(reservation) = wallet.reserve(Amount::new(wish), MIN, None) {

                    let sum: u64 = reservation.funding.iter().map(|it| it.output.amount.units()).sum();
                    prop_assert_eq!(sum, wish + reservation.change.units());
                    prop_assert!(reservation.change.is_zero() || reservation.change >= MIN);
                    if keep {
                        for funding in &reservation.funding {
                            prop_assert!(promised.insert(funding.id));
                        }
                    } else {
                        wallet.release(reservation.id);
                    }
            } else {
                let after = (wallet.state.clone(), wallet.reservations.clone());
                prop_assert_eq!(after, before, "a refusal changes nothing");
            }
            prop_assert_eq!(wallet.available().units() + wallet.reserved().units(), total);
        }
    }
}
