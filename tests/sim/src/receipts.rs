//! Receipts: the payer asks, the payee signs, and what then proves a payment is checked with nothing else at hand.

use flash_channel::machine::{
    Input, Origin,
    tables::{self, Kept, Lane},
};
use flash_proto::{
    Essence, LaneState, Side, Signature,
    receipt::{HistoryStep, PaymentProof, ProofParts, Signer},
};

use super::{party::Party, world::World};

impl Party {
    fn kept(&self, lane: Lane, seq: u64) -> Option<Kept> {
        tables::kept(&self.store, self.id, lane, seq).ok()?
    }

    /// The transaction that opened the channel.
    fn opening(&self) -> Option<Essence> {
        match &self.channel()?.agreement().origin {
            Origin::Agreed(transaction) => Some(transaction.essence.clone()),
            Origin::Found { .. } => None,
        }
    }

    /// Proof of every payment of an update, by this signature.
    fn proofs(&self, lane: Lane, seq: u64, signed_by: Signer, signature: Signature) -> Vec<PaymentProof> {
        let Some((kept, open)) = self.kept(lane, seq).zip(self.opening()) else { return Vec::new() };
        let step = HistoryStep { payments: kept.update.payments.clone(), ticks: kept.update.ticks };
        let of = |payment: u64| {
            Some(PaymentProof::new(ProofParts {
                open: open.clone(),
                payment,
                position: kept.position(payment)?,
                before: kept.before,
                updates: vec![step.clone()],
                signed_by,
                signature,
            }))
        };
        (1..=kept.payments).rev().map_while(of).collect()
    }
}

impl World {
    /// The user of `side` wants to prove one of its payments.
    pub(super) fn asks_for_a_receipt(&mut self, side: Side) {
        let payments = self.party(side).durable.outgoing.payments;
        if payments == 0 {
            return;
        }
        let payment = self.other_rng.between(1, payments);
        let party = self.party(side);
        let kept = tables::kept_with(&party.store, party.id, Lane::Own, payment).ok().flatten();
        if let Some(state) = kept.and_then(|kept| kept.after()) {
            self.stats.count("receipts_asked_for");
            self.input(side, Input::AskReceipt(Box::new(state)));
        }
    }

    /// The payer wants a receipt for an update that is not the newest: `side` looks for it among what it keeps.
    pub(super) fn looks_for_receipt(&mut self, side: Side, seq: u64) {
        let state: Option<LaneState> = self.party(side).kept(Lane::Peers, seq).and_then(|kept| kept.after());
        self.input(side, Input::GiveReceipt { seq, state: state.map(Box::new) });
    }

    /// `side` was given a receipt, and has it on its disk.
    pub(super) fn has_receipt(&mut self, side: Side, seq: u64) {
        let party = self.party(side);
        let stored = tables::receipt_from(&party.store, party.id, seq).ok().flatten();
        let Some((_, signature)) = stored.filter(|(number, _)| *number == seq) else { return };
        let proofs = party.proofs(Lane::Own, seq, Signer::Payee, signature);
        // It proves nothing of another update, such as one that is not acknowledged yet.
        let newest = party.durable.signed_seq();
        let others = if newest == seq {
            Vec::new()
        } else {
            party.proofs(Lane::Own, newest, Signer::Payee, signature)
        };
        let stretched = others.iter().any(|proof| proof.verify().is_ok());
        self.oracle.require(!stretched, || {
            format!("I5: the receipt for update {seq} of {side} proves update {newest}")
        });
        self.stats.count("receipts_given");
        self.check_proofs(side, &proofs);
    }

    /// `side` proves what it was paid last by the payer's own signature.
    pub(super) fn proves_what_it_received(&mut self, side: Side) {
        let party = self.party(side);
        let seq = party.durable.held_seq();
        let Some(kept) = party.kept(Lane::Peers, seq) else { return };
        let proofs = party.proofs(Lane::Peers, seq, Signer::Payer, kept.update.signature);
        self.check_proofs(side, &proofs);
    }

    fn check_proofs(&mut self, side: Side, proofs: &[PaymentProof]) {
        for proof in proofs {
            let proven = proof.verify();
            match proven {
                Ok(proven) => {
                    self.stats.count("payments_proven");
                    self.oracle.proven(&proven);
                }
                Err(error) => {
                    self.oracle.require(false, || format!("a proof of {side} proves nothing: {error}"));
                }
            }
        }
    }
}
