//! Money is never promised twice, nothing is lost in sums, and words alone find it again.

use std::collections::HashSet;

use flash_proto::{Address, Amount, Essence, NetworkParams, Output, OutputId, TransactionId, limits};
use proptest::prelude::*;

use super::*;
use crate::{
    ledger::Checked,
    light::tests::{key, params},
};

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

fn seed() -> Seed {
    Seed::from_words(WORDS, "").unwrap()
}

fn id(n: u64) -> OutputId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    OutputId { transaction: TransactionId::new(bytes), index: 0 }
}

fn elsewhere() -> Address {
    Address::of(&key(99).public())
}

/// A wallet that has received these amounts, each at its own address, at milestone 1.
fn wallet_with(amounts: &[u64]) -> (Wallet, Vec<(OutputId, Output)>) {
    let mut wallet = Wallet::new(seed());
    let outputs: Vec<(OutputId, Output)> = (0..)
        .zip(amounts)
        .map(|(n, amount)| {
            let address = wallet.fresh_address().unwrap();
            (id(n), Output { address, amount: Amount::new(*amount) })
        })
        .collect();
    let events = wallet.observe(1, outputs.clone()).unwrap();
    assert_eq!(events.len(), amounts.len());
    (wallet, outputs)
}

fn amounts(selection: &Selection) -> Vec<u64> {
    selection.inputs.iter().map(|funding| funding.output.amount.units()).collect()
}

#[test]
fn addresses_are_fresh_also_after_a_restart() {
    let mut wallet = Wallet::new(seed());
    let mut seen = HashSet::new();
    for _ in 0..50 {
        assert!(seen.insert(wallet.fresh_address().unwrap()));
        wallet = Wallet::from_record(seed(), &wallet.record()).unwrap();
    }
    assert!(seen.iter().all(|address| wallet.addresses().contains(address)));
    assert_eq!(wallet.addresses().len(), 50 + usize::try_from(GAP).unwrap());
    let keys: HashSet<u32> = (0..5).map(|_| wallet.fresh_channel_key().unwrap()).collect();
    assert_eq!(keys.len(), 5);
    assert_ne!(wallet.channel_key(0).public(), wallet.channel_key(1).public());
    assert_ne!(wallet.channel_key(0).public(), wallet.node_key().public());
}

#[test]
fn records_of_another_seed_or_damaged_ones_are_refused() {
    let (wallet, _) = wallet_with(&[1_000]);
    let record = wallet.record();
    let other = Seed::from_words(WORDS, "other").unwrap();
    assert_eq!(Wallet::from_record(other, &record).unwrap_err(), WalletError::OtherSeed);
    let short = &record[..record.len() - 1];
    assert!(matches!(Wallet::from_record(seed(), short), Err(WalletError::Record(_))));
}

#[test]
fn what_comes_and_goes_is_told_once() {
    let (mut wallet, outputs) = wallet_with(&[500, 700]);
    assert_eq!(wallet.available(), Amount::new(1_200));
    assert_eq!(wallet.observe(2, outputs.clone()).unwrap(), []);
    let foreign = (id(9), Output { address: elsewhere(), amount: Amount::new(5) });
    let events = wallet.observe(3, [outputs[1], foreign]).unwrap();
    assert_eq!(events, [WalletEvent::Spent { id: outputs[0].0, output: outputs[0].1 }]);
    // A late answer of an older milestone changes nothing.
    assert_eq!(wallet.observe(2, outputs.clone()).unwrap(), []);
    assert_eq!((wallet.available(), wallet.milestone_index()), (Amount::new(700), 3));
    let too_much = Output { amount: Amount::SUPPLY, ..outputs[0].1 };
    assert_eq!(
        wallet.observe(4, [(id(1), too_much), outputs[1], (id(8), too_much)]),
        Err(WalletError::Supply)
    );
    assert_eq!(wallet.milestone_index(), 3);
}

#[test]
fn few_large_outputs_are_chosen_and_change_is_large_enough() {
    let params = params(); // the smallest output is 100
    let (wallet, _) = wallet_with(&[300, 1_000, 30, 500]);
    let select = |amount: u64| wallet.select(Amount::new(amount), &params);
    assert_eq!(amounts(&select(1_000).unwrap()), [1_000]);
    assert_eq!(amounts(&select(900).unwrap()), [1_000]);
    // 50 would be left over of the first alone.
    let with_more = select(950).unwrap();
    assert_eq!((amounts(&with_more), with_more.change), (vec![1_000, 500], Amount::new(550)));
    let dust = select(1_830).unwrap();
    assert_eq!((amounts(&dust), dust.change), (vec![1_000, 500, 300, 30], Amount::ZERO));
    assert_eq!(
        select(1_750),
        Err(WalletError::ChangeTooSmall {
            wanted: Amount::new(1_750),
            change: Amount::new(80),
            min: Amount::new(100),
            all: Amount::new(1_830),
        })
    );
    assert_eq!(
        select(1_831),
        Err(WalletError::Insufficient { wanted: Amount::new(1_831), available: Amount::new(1_830) })
    );
}

#[test]
fn a_transaction_has_only_so_many_inputs() {
    let (wallet, _) = wallet_with(&[100; limits::FUNDING_INPUTS_MAX + 3]);
    let largest = 100 * u64::try_from(limits::FUNDING_INPUTS_MAX).unwrap();
    let all = wallet.select(Amount::new(largest), &params()).unwrap();
    assert_eq!(all.inputs.len(), limits::FUNDING_INPUTS_MAX);
    let error = wallet.select(Amount::new(largest + 1), &params()).unwrap_err();
    let (wanted, largest) = (Amount::new(largest + 1), Amount::new(largest));
    assert_eq!(error, WalletError::TooManyInputs { wanted, largest });
}

#[test]
fn a_transfer_is_valid_and_reserved_until_it_expires_or_is_spent() {
    let params = params();
    let (mut wallet, outputs) = wallet_with(&[1_000, 400]);
    let transfer =
        |wallet: &mut Wallet, amount: u64| wallet.transfer(elsewhere(), Amount::new(amount), &params, 5);
    assert!(matches!(transfer(&mut wallet, 99), Err(WalletError::BelowMinimum { .. })));
    let transaction = transfer(&mut wallet, 600).unwrap();
    Checked::new(transaction.clone(), &params).unwrap();
    let paid: Vec<u64> = transaction.essence.outputs.iter().map(|output| output.amount.units()).collect();
    assert_eq!(paid, [600, 400]);
    assert!(wallet.addresses().contains(&transaction.essence.outputs[1].address));
    assert!(outputs.iter().all(|(_, output)| output.address != transaction.essence.outputs[1].address));
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(400), Amount::new(1_000)));
    assert!(matches!(transfer(&mut wallet, 401), Err(WalletError::Insufficient { .. })));

    // Kept over a restart and up to the expiry; free after it.
    let restarted = || Wallet::from_record(seed(), &wallet.record()).unwrap();
    let mut expired = restarted();
    expired.observe(5, outputs.clone()).unwrap();
    assert_eq!(expired.reserved(), Amount::new(1_000));
    expired.observe(6, outputs.clone()).unwrap();
    assert_eq!(expired.available(), Amount::new(1_400));
    let mut rejected = restarted();
    rejected.release(transaction.id());
    assert_eq!(rejected.available(), Amount::new(1_400));

    let change = (OutputId { transaction: transaction.id(), index: 1 }, transaction.essence.outputs[1]);
    let events = wallet.observe(2, [outputs[1], change]).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((wallet.available(), wallet.reserved()), (Amount::new(800), Amount::ZERO));
}

#[test]
fn funding_is_reserved_before_its_transaction_is_known() {
    let params = params();
    let (mut wallet, outputs) = wallet_with(&[1_000]);
    let nothing = wallet.fund(Amount::ZERO, &params, 5).unwrap();
    assert_eq!((nothing.inputs.len(), nothing.change), (0, None));
    let funded = wallet.fund(Amount::new(900), &params, 5).unwrap();
    assert_eq!(funded.change.unwrap().amount, Amount::new(100));
    assert!(wallet.fund(Amount::new(100), &params, 5).is_err());

    let mut essence = Essence::acting(params.id(), flash_proto::Action::Transfer);
    let refused = wallet.unlocks(&essence, &funded.inputs).unwrap_err();
    assert_eq!(refused, WalletError::OtherInputs(essence.id()));
    essence.inputs = vec![outputs[0].0];
    let unlocks = wallet.unlocks(&essence, &funded.inputs).unwrap();
    assert_eq!(Address::of(&unlocks[0].key), outputs[0].1.address);
    let mut foreign = funded.inputs.clone();
    foreign[0].output.address = elsewhere();
    assert_eq!(wallet.unlocks(&essence, &foreign), Err(WalletError::NotOurs(elsewhere())));

    wallet.bind(funded.reservation, essence.id());
    wallet.release(essence.id());
    assert_eq!(wallet.available(), Amount::new(1_000));
    let again = wallet.fund(Amount::new(900), &params, 5).unwrap();
    wallet.cancel(again.reservation);
    assert_eq!(wallet.available(), Amount::new(1_000));
}

/// All the ledger holds for these addresses.
fn unspent_at(ledger: &[(OutputId, Output)], wallet: &Wallet) -> Vec<(OutputId, Output)> {
    let at = |(_, output): &&(OutputId, Output)| wallet.addresses().contains(&output.address);
    ledger.iter().filter(at).copied().collect()
}

#[test]
fn words_alone_find_the_money_within_the_gap_and_further_if_asked() {
    let mut original = Wallet::new(seed());
    let addresses: Vec<Address> = (0..400).map(|_| original.fresh_address().unwrap()).collect();
    let output =
        |n: u64, place: usize| (id(n), Output { address: addresses[place], amount: Amount::new(1_000) });
    let ledger = [output(0, 3), output(1, 22), output(2, 42), output(3, 300)];
    let mut recovered = Wallet::new(seed());
    while !recovered.observe(1, unspent_at(&ledger, &recovered)).unwrap().is_empty() {}
    assert_eq!(recovered.available(), Amount::new(3_000));
    recovered.watch_until(350);
    assert_eq!(recovered.observe(1, unspent_at(&ledger, &recovered)).unwrap().len(), 1);
    assert_eq!(recovered.available(), Amount::new(4_000));
    assert_eq!(recovered.fresh_address().unwrap(), addresses[301]);
}

#[derive(Clone, Debug)]
enum Step {
    Transfer(u64),
    Fund(u64),
    Apply(usize),
    Reject(usize),
    Restart,
    Milestone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u64..4_000).prop_map(Step::Transfer),
        (0_u64..4_000).prop_map(Step::Fund),
        any::<usize>().prop_map(Step::Apply),
        any::<usize>().prop_map(Step::Reject),
        Just(Step::Restart),
        Just(Step::Milestone),
    ]
}

/// What was promised and neither applied, rejected nor expired.
struct Promise {
    inputs: Vec<OutputId>,
    transaction: Option<flash_proto::Transaction>,
    expiry: u64,
}

fn promise_kept(wallet: &Wallet, promises: &[Promise], params: &NetworkParams) {
    let mut seen = HashSet::new();
    for input in promises.iter().flat_map(|promise| &promise.inputs) {
        assert!(seen.insert(*input), "promised twice: {input}");
    }
    let held = wallet.outputs().map(|(funding, _)| funding.output.amount);
    let total = Amount::checked_sum(held).unwrap();
    assert_eq!(wallet.available().checked_add(wallet.reserved()), Some(total));
    let free: HashSet<OutputId> = wallet.outputs().filter(|(_, taken)| !taken).map(|(f, _)| f.id).collect();
    assert!(free.is_disjoint(&seen));
    for promise in promises {
        let Some(transaction) = &promise.transaction else { continue };
        Checked::new(transaction.clone(), params).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_output_is_promised_twice_and_sums_are_exact(
        received in prop::collection::vec(1_u64..3_000, 1..40),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let params = params();
        let (mut wallet, mut ledger) = wallet_with(&received);
        let mut promises: Vec<Promise> = Vec::new();
        let mut milestone = 1;
        for step in steps {
            let expiry = milestone + 3;
            match step {
                Step::Transfer(amount) => {
                    let before = wallet.clone();
                    let Ok(transaction) = wallet.transfer(elsewhere(), Amount::new(amount), &params, expiry)
                    else {
                        prop_assert_eq!(wallet.record(), before.record());
                        continue;
                    };
                    let inputs = transaction.essence.inputs.clone();
                    let spent = inputs.iter().map(|id| ledger.iter().find(|(at, _)| at == id).unwrap().1.amount);
                    let paid = transaction.essence.outputs.iter().map(|output| output.amount);
                    prop_assert_eq!(Amount::checked_sum(spent), Amount::checked_sum(paid.clone()));
                    prop_assert!(paid.clone().all(|amount| amount >= params.output_min));
                    promises.push(Promise { inputs, transaction: Some(transaction), expiry });
                }
                Step::Fund(amount) => {
                    let Ok(funded) = wallet.fund(Amount::new(amount), &params, expiry) else { continue };
                    let spent = Amount::checked_sum(funded.inputs.iter().map(|funding| funding.output.amount));
                    let change = funded.change.map_or(Amount::ZERO, |change| change.amount);
                    prop_assert_eq!(spent, change.checked_add(Amount::new(amount)));
                    prop_assert!(change.is_zero() || change >= params.output_min);
                    prop_assert!(funded.inputs.len() <= limits::FUNDING_INPUTS_MAX);
                    let inputs = funded.inputs.iter().map(|funding| funding.id).collect();
                    promises.push(Promise { inputs, transaction: None, expiry });
                }
                Step::Apply(n) if !promises.is_empty() => {
                    let promise = promises.swap_remove(n % promises.len());
                    milestone += 1;
                    ledger.retain(|(id, _)| !promise.inputs.contains(id));
                    if let Some(transaction) = promise.transaction {
                        let made = (0..).zip(&transaction.essence.outputs);
                        let id = |index| OutputId { transaction: transaction.id(), index };
                        ledger.extend(made.map(|(index, output)| (id(index), *output)));
                    }
                    wallet.observe(milestone, unspent_at(&ledger, &wallet)).unwrap();
                }
                Step::Reject(n) if !promises.is_empty() => {
                    let place = n % promises.len();
                    let Some(transaction) = &promises[place].transaction else { continue };
                    wallet.release(transaction.id());
                    promises.swap_remove(place);
                }
                Step::Restart => wallet = Wallet::from_record(seed(), &wallet.record()).unwrap(),
                _ => {
                    milestone += 1;
                    wallet.observe(milestone, unspent_at(&ledger, &wallet)).unwrap();
                }
            }
            promises.retain(|promise| milestone <= promise.expiry);
            promise_kept(&wallet, &promises, &params);
        }
    }
}
