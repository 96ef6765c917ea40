//! Receipts: the payee's signature for having received all that a lane's state says.
//!
//! The payer asks, on demand or at its own cadence, for what it can prove with one; the payee signs what is on its
//! disk, or says that it does not keep that update any more. Neither moves money, so nothing here is urgent, and
//! what is wrong with a receipt is no danger, but it is misbehaviour all the same.

use std::cmp::Ordering;

use flash_proto::{LaneState, Signature, message::ChannelMessage};

use super::{After, Channel, ChannelEvent, Effects, Link, Misbehaviour, tables};

/// Receipts that are waited for at a time; the oldest is forgotten for a newer one.
const ASKED_MAX: usize = 64;

impl Channel {
    /// Asks the payee for a receipt for this state of the own lane, which comes from this side's records.
    pub(super) fn ask_receipt(&mut self, state: &LaneState, effects: &mut Effects) {
        let ours = state.channel == self.id
            && state.payer == self.agreement.side
            && state.seq <= self.outgoing_seq();
        if !ours || self.link != Link::Established {
            let refused = ChannelEvent::Receipt { seq: state.seq, given: false };
            effects.after.push(After::Event(refused));
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_first();
        }
        self.asked.insert(state.seq, *state);
        effects.after.push(After::Send(ChannelMessage::ReceiptRequest { seq: state.seq }));
    }

    /// Asks with every so-manieth update by itself.
    pub(super) fn ask_at_cadence(&mut self, state: &LaneState, effects: &mut Effects) {
        // Numbers begin with 1, of which none is a multiple of 0.
        if state.seq.is_multiple_of(self.history.rule.receipt_every) {
            self.ask_receipt(state, effects);
        }
    }

    /// The payer asks for a receipt.
    pub(super) fn receipt_wanted(&self, seq: u64, effects: &mut Effects) {
        let held = self.incoming_state();
        match seq.cmp(&held.seq) {
            Ordering::Equal => self.give_receipt(seq, Some(&held), effects),
            Ordering::Less => effects.after.push(After::Event(ChannelEvent::ReceiptWanted { seq })),
            Ordering::Greater => self.give_receipt(seq, None, effects),
        }
    }

    /// Signs for the state of the peer's lane after update `seq`, or says that there is no record of it. A side that
    /// lost its records signs for nothing: it does not know what it had received.
    pub(super) fn give_receipt(&self, seq: u64, state: Option<&LaneState>, effects: &mut Effects) {
        let known = state.filter(|state| {
            let theirs = state.channel == self.id && state.payer == !self.agreement.side;
            theirs && state.seq == seq && (1..=self.incoming_seq()).contains(&seq) && self.doubt.is_none()
        });
        let signature = known.map(|state| self.key.sign(&state.receipt_hash(self.agreement.network)));
        effects.after.push(After::Send(ChannelMessage::Receipt { seq, signature }));
    }

    /// The payee's answer. One that nobody waits for any more is passed over.
    pub(super) fn take_receipt(
        &mut self,
        seq: u64,
        signature: Option<Signature>,
        effects: &mut Effects,
    ) -> Result<(), Misbehaviour> {
        let Some(state) = self.asked.get(&seq) else { return Ok(()) };
        if let Some(signature) = signature {
            let hash = state.receipt_hash(self.agreement.network);
            self.check_signature(&hash, &signature)?;
            tables::put_receipt(&mut effects.batch, self.id, seq, &signature);
        }
        self.asked.remove(&seq);
        let given = signature.is_some();
        effects.after.push(After::Event(ChannelEvent::Receipt { seq, given }));
        Ok(())
    }
}
