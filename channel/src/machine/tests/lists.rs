//! Many payments at a time.

use flash_proto::{PaymentList, limits, payment::PaymentError};

use super::*;

fn list(amounts: impl IntoIterator<Item = u64>) -> PaymentList {
    let mut list = PaymentList::new();
    for units in amounts {
        list.push(&payment(units)).unwrap();
    }
    list
}

#[test]
fn all_are_made_by_one_signature() {
    let mut pair = Pair::open([1_000, 0]);
    assert_eq!(pair.of(Side::A).channel.pay_all(list([10, 20, 30])), Ok(3));
    assert_eq!(pair.of(Side::A).channel.available(), amount(940));
    pair.run();
    let outgoing = *pair.of(Side::A).channel.outgoing();
    assert_eq!((outgoing.acknowledged_payments, outgoing.acknowledged), (3, 1));
    assert_eq!(pair.of(Side::B).channel.incoming().payments, 3);
    assert_eq!(pair.balances(), [940, 60]);
}

#[test]
fn or_none_of_them() {
    let mut pair = Pair::open([1_000, 0]);
    let payer = &mut pair.of(Side::A).channel;
    let nothing = PaymentError::Empty.into();
    assert_eq!(payer.pay_all(PaymentList::new()), Err(nothing));
    let cut = PaymentList::from_packed(list([1, 2]).as_bytes()[1..].to_vec());
    assert!(matches!(payer.pay_all(cut), Err(PayError::Payments(_))));
    let (wanted, available) = (amount(1_001), amount(1_000));
    let too_much = PayError::Insufficient { amount: wanted, available };
    assert_eq!(payer.pay_all(list([1_000, 1])), Err(too_much));
    assert_eq!((payer.queued(), payer.available()), (0, available));
    pair.run();
    assert_eq!(pair.balances(), [1_000, 0]);
}

#[test]
fn they_keep_their_place_among_others() {
    let mut pair = Pair::open([1_000, 0]);
    let payer = &mut pair.of(Side::A).channel;
    let numbers = [
        payer.pay(payment(1), None),
        payer.pay_all(list([2, 3])),
        payer.tick(amount(1), 4, None),
        payer.pay_all(list([5])),
        payer.pay(payment(6), None),
    ];
    assert_eq!(numbers, [Ok(1), Ok(3), Ok(7), Ok(8), Ok(9)]);
    while pair.of(Side::A).channel.queued() > 0 {
        pair.run();
    }
    assert_eq!(pair.of(Side::B).channel.incoming().payments, 9);
    assert_eq!(pair.of(Side::A).channel.outgoing().acknowledged_payments, 9);
    assert_eq!(pair.balances(), [1_000 - 21, 21]);
}

#[test]
fn they_take_room_in_the_queue() {
    const EACH: usize = 4_096;
    let mut pair = Pair::open([1_000_000, 0]);
    let payer = &mut pair.of(Side::A).channel;
    for _ in 0..limits::PAYMENTS_QUEUED_MAX / EACH {
        payer.pay_all(list(vec![1; EACH])).unwrap();
    }
    assert_eq!(payer.pay_all(list([1])), Err(PayError::Full));
    assert_eq!(payer.pay(payment(1), None), Err(PayError::Full));
    pair.run();
    assert!(pair.of(Side::A).channel.pay(payment(1), None).is_ok());
    // Given up, they take none.
    pair.of(Side::A).handle(vec![Input::Close]).unwrap();
    assert_eq!(pair.of(Side::A).channel.queue_room, 0);
}
