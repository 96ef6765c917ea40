//! The balance formula, used by the channel machine and by the ledger alike.

use bincode::{Decode, Encode};

use crate::{Amount, Side};

/// What each side of a channel owns right now; never negative (I2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Balances {
    a: Amount,
    b: Amount,
}

/// One side's totals: what went in, what was taken out, what it paid to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Locked by this side.
    pub deposit: Amount,
    /// Withdrawn by this side.
    pub withdrawn: Amount,
    /// Paid by this side on its lane.
    pub sent: Amount,
}

impl Balances {
    /// `balance(A) = deposit_A − withdrawn_A − sent_AB + sent_BA`, and the same mirrored for B;
    /// `None` if either would be negative or a total does not fit.
    pub fn exact(a: Totals, b: Totals) -> Option<Self> {
        let side = |own: Totals, other: Totals| {
            let gained = own.deposit.checked_add(other.sent)?;
            let spent = own.withdrawn.checked_add(own.sent)?;
            gained.checked_sub(spent)
        };
        let balances = Self { a: side(a, b)?, b: side(b, a)? };
        let locked = Amount::checked_sum([a.deposit, b.deposit])?;
        let taken = Amount::checked_sum([a.withdrawn, b.withdrawn])?;
        assert_eq!(balances.total(), locked.checked_sub(taken), "I2: balances must add up to the deposits");
        Some(balances)
    }

    /// What the ledger pays at a settlement: A's balance clamped to `0..=total`, and the rest to B.
    /// `None` only if the record's deposits and withdrawals themselves make no sense.
    ///
    /// The clamp cuts only when one side hid a balance that paid it; an honest side's own claim is
    /// never cut (`docs/safety.md`).
    pub fn settle(a: Totals, b: Totals) -> Option<Self> {
        let locked = a.deposit.checked_add(b.deposit)?;
        let total = locked.checked_sub(a.withdrawn.checked_add(b.withdrawn)?)?;
        let wide = |amount: Amount| i128::from(amount.units());
        // Four 64-bit numbers cannot overflow 128 bits.
        let exact = wide(a.deposit)
            .saturating_sub(wide(a.withdrawn))
            .saturating_sub(wide(a.sent))
            .saturating_add(wide(b.sent));
        let clamped = u64::try_from(exact.clamp(0, wide(total))).ok().map(Amount::new)?;
        let balances = Self { a: clamped, b: total.checked_sub(clamped)? };
        assert_eq!(balances.total(), Some(total), "I2: payouts must add up to the deposits");
        Some(balances)
    }

    /// Balances that somebody names, to be held against what a channel holds.
    pub const fn of_payouts(a: Amount, b: Amount) -> Self {
        Self { a, b }
    }

    /// What `side` owns.
    pub fn of(&self, side: Side) -> Amount {
        side.pick(self.a, self.b)
    }

    /// What both own together.
    pub fn total(&self) -> Option<Amount> {
        self.a.checked_add(self.b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(deposit: u64, sent: u64) -> Totals {
        Totals { deposit: Amount::new(deposit), withdrawn: Amount::ZERO, sent: Amount::new(sent) }
    }

    #[test]
    fn received_money_can_be_spent_again() {
        let balances = Balances::exact(totals(1_000, 5_900), totals(0, 5_000)).unwrap();
        assert_eq!((balances.of(Side::A), balances.of(Side::B)), (Amount::new(100), Amount::new(900)));
        assert_eq!(
            Balances::exact(totals(1_000, 5_901), totals(0, 5_000)).map(|b| b.of(Side::A)),
            Some(Amount::new(99))
        );
        assert_eq!(Balances::exact(totals(1_000, 6_001), totals(0, 5_000)), None);
    }

    #[test]
    fn a_settlement_clamps_what_a_hidden_balance_would_overdraw() {
        let balances = Balances::settle(totals(1_000, 5_900), totals(0, 0)).unwrap();
        assert_eq!((balances.of(Side::A), balances.of(Side::B)), (Amount::ZERO, Amount::new(1_000)));
        let balances = Balances::settle(totals(1_000, 0), totals(7, 5_000)).unwrap();
        assert_eq!((balances.of(Side::A), balances.of(Side::B)), (Amount::new(1_007), Amount::ZERO));
    }

    proptest! {
        #[test]
        fn settling_pays_the_exact_balances_where_they_exist(da in 0..=u64::MAX / 4, db in 0..=u64::MAX / 4, sa: u64, sb: u64) {
            let (a, b) = (totals(da, sa), totals(db, sb));
            let settled = Balances::settle(a, b).unwrap();
            prop_assert_eq!(settled.total(), Some(Amount::new(da + db)));
            if let Some(exact) = Balances::exact(a, b) {
                prop_assert_eq!(settled, exact);
            }
        }

        /// Showing a newer balance of the other's lane never pays the shower less (I7).
        #[test]
        fn a_newer_balance_never_pays_its_payee_less(da in 0..1_000_u64, db in 0..1_000_u64, sa in 0..5_000_u64, sb in 0..5_000_u64, more in 0..5_000_u64) {
            let old = Balances::settle(totals(da, sa), totals(db, sb)).unwrap();
            let new = Balances::settle(totals(da, sa + more), totals(db, sb)).unwrap();
            prop_assert!(new.of(Side::B) >= old.of(Side::B));
        }
    }
}
