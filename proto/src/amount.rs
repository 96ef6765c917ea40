//! Money.

use std::{fmt, str::FromStr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// An amount of money in base units (1 i). 1 Ki = 1,000 i, 1 Mi = 1,000,000 i.
///
/// There are no operators: every sum is checked, and a result that does not fit is `None`.
///
/// As text an amount is a decimal number and a unit, and is printed exactly, in the largest unit
/// that leaves at least one whole unit; without a unit a number means base units. In JSON it is the
/// decimal string of its base units, because a 64-bit number does not survive every JSON reader.
///
/// ```
/// use flash_proto::Amount;
/// assert_eq!("1.5Ki".parse::<Amount>()?, Amount::new(1_500));
/// assert_eq!(Amount::new(1_500).to_string(), "1.5Ki");
/// assert_eq!(Amount::new(2_000_000).to_string(), "2Mi");
/// assert!("0.5i".parse::<Amount>().is_err());
/// # Ok::<(), flash_proto::amount::AmountError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Amount(u64);

/// Units in falling order: name and base units.
const UNITS: [(&str, u64); 6] = [
    ("Pi", 1_000_000_000_000_000),
    ("Ti", 1_000_000_000_000),
    ("Gi", 1_000_000_000),
    ("Mi", 1_000_000),
    ("Ki", 1_000),
    ("i", 1),
];

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// Everything there is: (3^33 − 1) / 2 base units, the supply of the original Tangle.
    pub const SUPPLY: Self = Self(2_779_530_283_277_761);
    /// The largest value the type holds; only a lane's cumulative total can come near it.
    pub const MAX: Self = Self(u64::MAX);

    /// An amount of `units` base units.
    pub const fn new(units: u64) -> Self {
        Self(units)
    }

    /// The amount in base units.
    pub const fn units(self) -> u64 {
        self.0
    }

    /// Whether this is no money at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` if it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The difference, or `None` if `other` is the larger.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The amount `count` times, or `None` if it does not fit.
    pub const fn checked_mul(self, count: u64) -> Option<Self> {
        match self.0.checked_mul(count) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The difference, or nothing if `other` is the larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum of all, or `None` if it does not fit.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AmountError {
    /// No number at the start, or something else than digits and one point in it.
    #[error("`{0}` is not an amount: write digits and a unit, such as 1500i, 1.5Ki or 2Mi")]
    NotANumber(String),
    /// The unit is not one of i, Ki, Mi, Gi, Ti, Pi.
    #[error("`{0}` is not a unit: use i, Ki, Mi, Gi, Ti or Pi (upper and lower case as written)")]
    UnknownUnit(String),
    /// The number has a part smaller than one base unit.
    #[error("`{0}` is finer than one base unit (1i), the smallest amount there is")]
    TooFine(String),
    /// The number does not fit 64 bits.
    #[error("`{0}` is more than can be expressed (at most {max}i)", max = u64::MAX)]
    TooLarge(String),
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(unit_at);
        let number = number.trim_end();
        let base = match unit {
            "" => 1,
            name => {
                UNITS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .ok_or_else(|| AmountError::UnknownUnit(name.to_owned()))?
                    .1
            }
        };
        parse_decimal(number, base, text)
    }
}

/// `number` (digits with at most one point) times `base`, exactly.
fn parse_decimal(number: &str, base: u64, text: &str) -> Result<Amount, AmountError> {
    let not_a_number = || AmountError::NotANumber(text.to_owned());
    let too_large = || AmountError::TooLarge(text.to_owned());
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(not_a_number()),
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() || !whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit()) {
        return Err(not_a_number());
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let mut units = whole.checked_mul(base).ok_or_else(too_large)?;
    let mut place = base;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        let finer = place.checked_div(10).unwrap_or(0);
        if finer == 0 && digit != 0 {
            return Err(AmountError::TooFine(text.to_owned()));
        }
        place = finer;
        let part = place.checked_mul(u64::from(digit)).ok_or_else(too_large)?;
        units = units.checked_add(part).ok_or_else(too_large)?;
    }
    Ok(Amount(units))
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, base) = UNITS.iter().find(|(_, base)| self.0 >= *base).unwrap_or(&("i", 1));
        let whole = self.0.checked_div(*base).unwrap_or(0);
        let rest = self.0.checked_rem(*base).unwrap_or(0);
        if rest == 0 {
            return f.pad(&format!("{whole}{name}"));
        }
        let digits = base.ilog10();
        let fraction = format!("{rest:0width$}", width = usize::try_from(digits).unwrap_or(0));
        f.pad(&format!("{whole}.{}{name}", fraction.trim_end_matches('0')))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_shown_in_the_largest_unit_that_they_fill() {
        let shown = [
            (0, "0i"),
            (999, "999i"),
            (1_000, "1Ki"),
            (1_500, "1.5Ki"),
            (999_999, "999.999Ki"),
            (1_073_741_825, "1.073741825Gi"),
        ];
        for (units, text) in shown {
            assert_eq!(Amount::new(units).to_string(), text);
        }
        assert_eq!(format!("{:>8}", Amount::new(1_500)), "   1.5Ki");
    }

    #[test]
    fn texts_with_units() {
        for (text, units) in [
            ("0", 0),
            ("0i", 0),
            ("1500i", 1_500),
            ("1500", 1_500),
            ("1.5Ki", 1_500),
            (" 2 Mi ", 2_000_000),
            ("2.000001Mi", 2_000_001),
            ("1.50000000Ki", 1_500),
            ("2.779530283277761Pi", Amount::SUPPLY.units()),
            ("18446744073709551615i", u64::MAX),
        ] {
            assert_eq!(text.parse::<Amount>(), Ok(Amount::new(units)), "{text}");
        }
    }

    #[test]
    fn malformed_texts_are_refused_with_the_reason() {
        use AmountError as E;
        type Kind = fn(String) -> AmountError;
        for (text, kind) in [
            ("", E::NotANumber as Kind),
            ("Mi", E::NotANumber),
            ("-1i", E::NotANumber),
            ("+1i", E::NotANumber),
            ("1.i", E::NotANumber),
            (".5Ki", E::NotANumber),
            ("1.2.3Mi", E::NotANumber),
            ("1,5Ki", E::NotANumber),
            ("0x10", E::UnknownUnit),
            ("1e3", E::UnknownUnit),
            ("1mi", E::UnknownUnit),
            ("1 EUR", E::UnknownUnit),
            ("0.5i", E::TooFine),
            ("1.0001Ki", E::TooFine),
            ("18446744073709551616i", E::TooLarge),
            ("18446.744073709551616Pi", E::TooLarge),
            ("99999999999999999999999Mi", E::TooLarge),
        ] {
            let err = text.parse::<Amount>().expect_err(text);
            let kind_matches = std::mem::discriminant(&err) == std::mem::discriminant(&kind(String::new()));
            assert!(kind_matches, "{text}: {err:?}");
        }
    }

    #[test]
    fn json_is_a_decimal_string_and_never_a_number() {
        assert_eq!(serde_json::to_string(&Amount::new(1_500)).unwrap(), "\"1500\"");
        assert_eq!(serde_json::from_str::<Amount>("\"1.5Ki\"").unwrap(), Amount::new(1_500));
        assert!(serde_json::from_str::<Amount>("1500").is_err());
    }

    proptest! {
        #[test]
        fn printed_amounts_read_back_exactly(units: u64) {
            let amount = Amount::new(units);
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }

        #[test]
        fn any_text_is_an_amount_or_a_typed_error(text in "\\PC{0,24}") {
            let _ = text.parse::<Amount>();
        }
    }
}
