//! Receipts: callers who wait for one, and the peer's wishes for older ones.

use flash_channel::{
    machine::{
        Input,
        tables::{self, Lane},
    },
    store::{Store, StoreError},
};
use flash_proto::LaneState;
use tokio::sync::oneshot;

use super::Slot;
use crate::api::{ApiError, ErrorCode};

/// Receipts for older updates that are looked up with one job of a channel: each may cost a large read and its
/// hash, and the engine has other channels. Those beyond it are not given.
const WANTED_MAX: usize = 4;

impl Slot {
    /// Asks the payee for a receipt for a state of the own lane.
    pub(in crate::engine) fn ask_receipt(
        &mut self,
        state: LaneState,
        done: oneshot::Sender<Result<(), ApiError>>,
    ) {
        self.receipts.retain(|(_, waiting)| !waiting.is_closed());
        self.receipts.push((state.seq, done));
        // Only messages can be wrong.
        let _ = self.input(Input::AskReceipt(Box::new(state)));
    }

    pub(super) fn receipt_answered(&mut self, seq: u64, given: bool) {
        for (wanted, done) in std::mem::take(&mut self.receipts) {
            if wanted != seq {
                self.receipts.push((wanted, done));
            } else if given {
                self.reply_once_durable(done);
            } else {
                let _ = done.send(Err(no_receipt(self.channel.is_established())));
            }
        }
    }

    /// Gives the receipts that the peer wanted, now that all that it sent before is on the disk.
    pub(super) fn give_receipts(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        for seq in std::mem::take(&mut self.committing_wanted) {
            let kept = tables::kept(store, self.channel.id(), Lane::Peers, seq)?;
            let state = kept.and_then(|kept| kept.after()).map(Box::new);
            let _ = self.input(Input::GiveReceipt { seq, state });
        }
        Ok(())
    }

    /// The peer wants a receipt for an older update.
    pub(super) fn receipt_wanted(&mut self, seq: u64) {
        if self.wanted.len() < WANTED_MAX {
            self.wanted.push(seq);
        } else {
            // Only messages can be wrong.
            let _ = self.input(Input::GiveReceipt { seq, state: None });
        }
    }
}

fn no_receipt(connected: bool) -> ApiError {
    if connected {
        let message = "the payee keeps no record of this payment any more, or does not hold it yet";
        return ApiError::new(ErrorCode::NotFound, message, "its operator sets `history_keep`");
    }
    let message = "the payee is not connected, and gave no receipt for this payment before";
    ApiError::new(ErrorCode::PeerUnreachable, message, "ask again when it is there")
}
