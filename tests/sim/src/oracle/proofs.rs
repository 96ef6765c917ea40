//! What a proof of a payment must be about.

use flash_proto::receipt::{ProvenPayment, Signer};

use super::Oracle;
use crate::party::Durable;

impl Oracle {
    /// Somebody can prove this.
    pub(crate) fn proven(&mut self, proven: &ProvenPayment) {
        let (payer, receiver) = (proven.payer, self.of(!proven.payer));
        let held = receiver.durable.as_ref().map_or(0, Durable::held_seq);
        let free = receiver.hostile || receiver.lost_records || proven.signed_by == Signer::Payer;
        let is_held = free || held >= proven.signed.seq;
        self.require(is_held, || {
            format!(
                "I4: a receipt for update {} of {payer}, but the payee's disk has {held}",
                proven.signed.seq
            )
        });
        let known = self.of(payer);
        if proven.tick || known.hostile || known.lost_records {
            return;
        }
        let number = proven.reference.as_bytes().try_into().map_or(0, u64::from_be_bytes);
        let as_asked = self.asked.get_mut(&number).is_some_and(|asked| {
            // A hostile payee may use what it was shown of an update that never left.
            let update = *asked.update.get_or_insert(proven.seq);
            (asked.payer, asked.amount, update) == (payer, proven.amount, proven.seq)
        });
        self.require(as_asked, || format!("I11: a payment is proven that nobody asked for: {proven:?}"));
    }
}
