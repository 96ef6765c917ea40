//! One payment, and the packed list of payments that an update carries.

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::{Amount, limits, ticks::TickError};

/// What a payment is for, in the payee's own terms: up to 32 bytes, kept in the lane's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reference {
    len: u8,
    bytes: [u8; limits::REFERENCE_BYTES_MAX],
}

impl Reference {
    /// Takes up to 32 bytes.
    ///
    /// # Errors
    /// [`PaymentError::ReferenceTooLong`].
    pub fn new(reference: &[u8]) -> Result<Self, PaymentError> {
        let too_long = || PaymentError::ReferenceTooLong(reference.len());
        let mut bytes = [0; limits::REFERENCE_BYTES_MAX];
        bytes.get_mut(..reference.len()).ok_or_else(too_long)?.copy_from_slice(reference);
        Ok(Self { len: u8::try_from(reference.len()).map_err(|_| too_long())?, bytes })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// The reference as people read it: text where it is text, hexadecimal after `0x` where not.
    pub fn to_text(&self) -> String {
        match std::str::from_utf8(self.as_bytes()) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => format!("0x{}", hex::encode(self.as_bytes())),
        }
    }
}

/// One item on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// How much; never nothing.
    pub amount: Amount,
    /// What for.
    pub reference: Reference,
}

/// Why something is not a payment or a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PaymentError {
    /// The amount is zero.
    #[error("a payment of nothing: the amount must be at least 1i")]
    ZeroAmount,
    /// The reference is longer than 32 bytes.
    #[error("the reference has {0} bytes, at most {max} fit", max = limits::REFERENCE_BYTES_MAX)]
    ReferenceTooLong(usize),
    /// The packed bytes end inside a payment.
    #[error("the packed payments end inside a payment")]
    Truncated,
    /// An update that does nothing.
    #[error("an update must carry a payment or change the ticks")]
    Empty,
    /// No room for another payment in this update.
    #[error("the update is full: at most {max} bytes of payments fit", max = limits::UPDATE_PAYMENTS_BYTES_MAX)]
    Full,
    /// Ticks that are not of the chain in use.
    #[error(transparent)]
    Ticks(#[from] TickError),
    /// The sum of the payments, or the lane's total after them, does not fit 64 bits.
    #[error("the sum of the payments does not fit 64 bits")]
    Overflow,
}

impl Payment {
    /// A payment of `amount` for `reference`.
    ///
    /// # Errors
    /// [`PaymentError::ZeroAmount`], [`PaymentError::ReferenceTooLong`].
    pub fn new(amount: Amount, reference: &[u8]) -> Result<Self, PaymentError> {
        if amount.is_zero() {
            return Err(PaymentError::ZeroAmount);
        }
        Ok(Self { amount, reference: Reference::new(reference)? })
    }
}

/// Payments packed one after the other: `amount u64 LE ‖ reference length u8 ‖ reference`.
///
/// The bytes that are hashed into the lane's history are the bytes on the wire and on the disk; a
/// batch is never copied into another form. A list that came over the wire is checked by
/// [`PaymentList::total`] before anything else is done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PaymentList(Vec<u8>);

impl PaymentList {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes packed bytes as they are; [`PaymentList::total`] checks them.
    pub const fn from_packed(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends a payment.
    ///
    /// # Errors
    /// [`PaymentError::Full`], [`PaymentError::ZeroAmount`]; the list is then unchanged.
    pub fn push(&mut self, payment: &Payment) -> Result<(), PaymentError> {
        if payment.amount.is_zero() {
            return Err(PaymentError::ZeroAmount);
        }
        let reference = payment.reference.as_bytes();
        let len_after = self.0.len().saturating_add(HEADER_BYTES).saturating_add(reference.len());
        if len_after > limits::UPDATE_PAYMENTS_BYTES_MAX {
            return Err(PaymentError::Full);
        }
        self.0.extend_from_slice(&payment.amount.units().to_le_bytes());
        self.0.push(payment.reference.len);
        self.0.extend_from_slice(reference);
        Ok(())
    }

    /// Appends the payments of another list.
    ///
    /// # Errors
    /// [`PaymentError::Full`]; the list is then unchanged.
    pub fn append(&mut self, other: &Self) -> Result<(), PaymentError> {
        if self.0.len().saturating_add(other.0.len()) > limits::UPDATE_PAYMENTS_BYTES_MAX {
            return Err(PaymentError::Full);
        }
        self.0.extend_from_slice(&other.0);
        Ok(())
    }

    /// Whether no payment is in the list.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The payments in order; stops after the first malformed one, which it reports.
    pub fn iter(&self) -> Payments<'_> {
        Payments(&self.0)
    }

    /// Checks the whole list and returns how many payments it holds and their sum.
    ///
    /// # Errors
    /// [`PaymentError`]: too long, malformed, a zero amount, or a sum that does not fit.
    pub fn total(&self) -> Result<Total, PaymentError> {
        if self.0.len() > limits::UPDATE_PAYMENTS_BYTES_MAX {
            return Err(PaymentError::Full);
        }
        let mut total = Total { count: 0, amount: Amount::ZERO };
        let mut payments = self.iter();
        while let Some((amount, _)) = payments.step()? {
            total.amount = total.amount.checked_add(amount).ok_or(PaymentError::Overflow)?;
            total.count = total.count.checked_add(1).ok_or(PaymentError::Overflow)?;
        }
        Ok(total)
    }
}

impl<'a> IntoIterator for &'a PaymentList {
    type Item = Result<Payment, PaymentError>;
    type IntoIter = Payments<'a>;

    fn into_iter(self) -> Payments<'a> {
        self.iter()
    }
}

/// Bytes of a packed payment before its reference.
const HEADER_BYTES: usize = 9;

/// How many payments, and how much in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Number of payments.
    pub count: u64,
    /// Their sum.
    pub amount: Amount,
}

/// The payments of a [`PaymentList`] in order.
#[derive(Clone, Debug)]
pub struct Payments<'a>(&'a [u8]);

impl<'a> Payments<'a> {
    /// The next payment where it stands, checked and not copied.
    fn step(&mut self) -> Result<Option<(Amount, &'a [u8])>, PaymentError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (header, rest) = self.0.split_first_chunk::<HEADER_BYTES>().ok_or(PaymentError::Truncated)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, len] = *header;
        let len = usize::from(len);
        let (reference, rest) = rest.split_at_checked(len).ok_or(PaymentError::Truncated)?;
        let amount = Amount::new(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
        if amount.is_zero() {
            return Err(PaymentError::ZeroAmount);
        }
        if len > limits::REFERENCE_BYTES_MAX {
            return Err(PaymentError::ReferenceTooLong(len));
        }
        self.0 = rest;
        Ok(Some((amount, reference)))
    }
}

impl Iterator for Payments<'_> {
    type Item = Result<Payment, PaymentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.step().transpose()?;
        let payment = taken
            .and_then(|(amount, reference)| Ok(Payment { amount, reference: Reference::new(reference)? }));
        if payment.is_err() {
            self.0 = &[];
        }
        Some(payment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payment(amount: u64, reference: &[u8]) -> Payment {
        Payment::new(Amount::new(amount), reference).unwrap()
    }

    #[test]
    fn packed_bytes_are_as_specified() {
        let mut list = PaymentList::new();
        list.push(&payment(258, b"ab")).unwrap();
        list.push(&payment(1, b"")).unwrap();
        assert_eq!(hex::encode(list.as_bytes()), "0201000000000000026162010000000000000000");
        assert_eq!(list.total(), Ok(Total { count: 2, amount: Amount::new(259) }));
    }

    #[test]
    fn a_list_takes_payments_to_its_last_byte_and_no_more() {
        let most = limits::UPDATE_PAYMENTS_BYTES_MAX;
        for missing in [0, 1] {
            let paid = payment(1, &[b'r'; 20]);
            let mut list = PaymentList::from_packed(vec![0; most - HEADER_BYTES - 20 + missing]);
            let before = list.clone();
            if missing == 0 {
                list.push(&paid).unwrap();
                assert_eq!(list.as_bytes().len(), most);
                assert_eq!(list.push(&payment(1, b"")), Err(PaymentError::Full));
            } else {
                assert_eq!((list.push(&paid), &list), (Err(PaymentError::Full), &before));
            }
            // The same of whole lists.
            let mut list = before;
            let mut more = PaymentList::new();
            more.push(&paid).unwrap();
            let wanted = if missing == 0 { Ok(()) } else { Err(PaymentError::Full) };
            assert_eq!(list.append(&more), wanted);
        }
        let mut full = PaymentList::new();
        while most - full.as_bytes().len() > 2 * (HEADER_BYTES + limits::REFERENCE_BYTES_MAX) {
            full.push(&payment(1, &[b'r'; limits::REFERENCE_BYTES_MAX])).unwrap();
        }
        let left = most - full.as_bytes().len() - 2 * HEADER_BYTES;
        for bytes in [left / 2, left - left / 2] {
            full.push(&payment(1, &vec![b'r'; bytes])).unwrap();
        }
        assert_eq!(full.as_bytes().len(), most);
        assert_eq!(full.total().map(|total| total.count), Ok(full.iter().count() as u64));
    }

    #[test]
    fn malformed_lists_are_refused() {
        assert_eq!(PaymentList::new().total(), Ok(Total { count: 0, amount: Amount::ZERO }));
        let mut list = PaymentList::new();
        list.push(&payment(258, b"ab")).unwrap();
        for cut in 1..list.0.len() {
            assert_eq!(PaymentList(list.0[..cut].to_vec()).total(), Err(PaymentError::Truncated), "{cut}");
        }
        assert_eq!(PaymentList(vec![0; 9]).total(), Err(PaymentError::ZeroAmount));
        let nothing = Payment { amount: Amount::ZERO, ..payment(1, b"") };
        assert_eq!(list.clone().push(&nothing), Err(PaymentError::ZeroAmount));
        let mut long_reference = vec![1; 8];
        long_reference.push(33);
        long_reference.extend([0; 33]);
        assert_eq!(PaymentList(long_reference).total(), Err(PaymentError::ReferenceTooLong(33)));
        let mut overflow = PaymentList::new();
        overflow.push(&payment(u64::MAX, b"")).unwrap();
        overflow.push(&payment(1, b"")).unwrap();
        assert_eq!(overflow.total(), Err(PaymentError::Overflow));
        assert_eq!(
            PaymentList(vec![1; limits::UPDATE_PAYMENTS_BYTES_MAX + 1]).total(),
            Err(PaymentError::Full)
        );
    }

    #[test]
    fn a_full_list_stays_as_it_was() {
        let mut list = PaymentList::new();
        while list.push(&payment(1, &[7; 32])).is_ok() {}
        let before = list.clone();
        assert_eq!(list.push(&payment(1, &[7; 32])), Err(PaymentError::Full));
        assert_eq!(list, before);
        assert!(list.as_bytes().len() <= limits::UPDATE_PAYMENTS_BYTES_MAX);
        assert_eq!(
            (list.append(&before), list.append(&PaymentList::new())),
            (Err(PaymentError::Full), Ok(()))
        );
        assert_eq!(list, before);
    }

    #[test]
    fn a_list_is_appended_as_if_payment_by_payment() {
        let (mut one, mut other, mut both) = (PaymentList::new(), PaymentList::new(), PaymentList::new());
        for (list, amount) in [(&mut one, 1), (&mut other, 2)] {
            list.push(&payment(amount, b"r")).unwrap();
            both.push(&payment(amount, b"r")).unwrap();
        }
        one.append(&other).unwrap();
        assert_eq!(one, both);
    }

    #[test]
    fn references_read_as_text_where_they_are_text() {
        assert_eq!(Reference::new("Wh 3 à".as_bytes()).unwrap().to_text(), "Wh 3 à");
        assert_eq!(Reference::new(&[0xff, 1]).unwrap().to_text(), "0xff01");
        assert_eq!(Reference::new(b"a\nb").unwrap().to_text(), "0x610a62");
        assert_eq!(Reference::new(&[0; 33]), Err(PaymentError::ReferenceTooLong(33)));
    }

    proptest! {
        #[test]
        fn a_list_gives_back_what_was_pushed(
            items in proptest::collection::vec((1_u64.., proptest::collection::vec(any::<u8>(), 0..=32)), 1..50)
        ) {
            let payments: Vec<_> = items.iter().map(|(amount, reference)| payment(*amount, reference)).collect();
            let mut list = PaymentList::new();
            for payment in &payments {
                list.push(payment).unwrap();
            }
            prop_assert_eq!(list.iter().collect::<Result<Vec<_>, _>>().unwrap(), payments);
        }

        #[test]
        fn any_bytes_are_a_list_or_a_typed_error(bytes: Vec<u8>) {
            let _ = PaymentList(bytes).total();
        }
    }
}
