//! What may be lost by a side that comes back with old records, and what never.

use flash_channel::machine::SIGNED_EXPIRY_MILESTONES_MAX;
use flash_proto::{Amount, Balances, Side};

use super::{Durable, Oracle};
use crate::faults::FRESH_MILESTONES;

impl Oracle {
    pub(crate) fn lost_records(&mut self, side: Side) {
        let known = self.of_mut(side);
        known.lost_records = true;
        known.doubted = true;
        known.doubts = None; // that it did is among what it forgot
        known.durable = None;
        known.held_in_time = Amount::ZERO;
        known.acknowledged = (0, 0);
        known.told = 0;
        known.close = None;
    }

    /// A side starts with old records, and may have `noticed` that.
    pub(crate) fn put_back(&mut self, side: Side, noticed: bool) {
        self.of_mut(side).noticed = noticed;
    }

    /// A side takes its records for old ones from milestone `index` on.
    pub(crate) fn doubts(&mut self, side: Side, index: u64) {
        let known = self.of_mut(side);
        known.doubts = Some(index);
        known.doubted = true;
    }

    /// A side starts with old records, or such that it takes for old ones.
    pub(crate) fn starts_with(&mut self, side: Side, durable: &Durable) {
        self.of_mut(side).signed_before = durable.signed_seq();
    }

    /// The user says that the records are the newest.
    pub(crate) fn trusts(&mut self, side: Side) {
        self.of_mut(side).doubts = None;
    }

    /// Whether something that `side` may have signed and forgotten can still be used at milestone `index`.
    pub(super) fn waits(&self, side: Side, index: u64) -> bool {
        let lapse = SIGNED_EXPIRY_MILESTONES_MAX + self.window;
        let known = self.of(side);
        known.doubts.is_some_and(|since| !known.hostile && index + FRESH_MILESTONES < since + lapse)
    }

    /// What was paid out to a side with old records that holds `held` now: whatever the peer hid, it gets what it locked,
    /// less the most that it ever signed, and what it holds. What the peer shows only when it is too late to be claimed
    /// is as good as hidden.
    pub(super) fn check_lost(&mut self, side: Side, payouts: Balances, held: Amount, durable: &Durable) {
        let known = self.of(side);
        if !known.noticed && self.closed_alone.is_none() {
            // A close that it has forgotten may be played over what it takes meanwhile.
            return;
        }
        let signed = known.signed.max(durable.signed());
        let held = held.min(known.held_in_time);
        let gained = known.deposit.checked_add(held).unwrap_or(Amount::MAX);
        let owns = gained.saturating_sub(known.withdrawn).saturating_sub(signed);
        // So may a withdraw, if it does not know that there may be one.
        let most = if known.noticed { Amount::MAX } else { payouts.total().unwrap_or(Amount::MAX) };
        let (payout, owns) = (payouts.of(side), owns.min(most).min(self.agreed_to(side)));
        self.require(payout >= owns, || {
            format!("I7: {side} came back with old records and gets {payout}, but owns {owns}: {durable:?}")
        });
    }
}
