//! Proof of single payments.

use std::{sync::Arc, time::Duration};

use flash_channel::{
    machine::{
        Origin,
        tables::{self, Kept, Lane},
    },
    store::{Store, StoreError},
};
use flash_proto::{
    ChannelId, Essence, LaneState, Signature,
    receipt::{HistoryStep, PROOF_UPDATES_MAX, PaymentProof, ProofParts, Signer},
};

use super::{Answer, Daemon};
use crate::api::{ApiError, ErrorCode, ReceiptRequest};

/// How long a call waits for the payee's signature.
const RECEIPT_WAIT: Duration = Duration::from_secs(10);
/// Packed payments of one proof, in bytes: hexadecimal doubles them.
const PROOF_PAYMENTS_BYTES_MAX: usize = 1024 * 1024;

impl Daemon {
    /// Proof of one payment: a sent one by the payee's receipt, which it is asked for unless it gave one before; a
    /// received one by the payer's own signature.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if there is no such payment, or it is not kept any more, here or by the payee;
    /// [`ErrorCode::PeerUnreachable`] if the payee is not there and gave no receipt before.
    pub async fn receipt(&self, id: ChannelId, request: ReceiptRequest) -> Answer<PaymentProof> {
        let info = self.channel(id)?;
        let ReceiptRequest { payment, received } = request;
        let (lane, made) =
            if received { (Lane::Peers, info.received.payments) } else { (Lane::Own, info.sent.payments) };
        let found = self.look(move |store| {
            let agreement = tables::agreement(store, id)?;
            Ok((agreement.origin, tables::kept_with(store, id, lane, payment)?))
        });
        let (origin, kept) = found.await?;
        let Origin::Agreed(open) = origin else {
            let message = "this side has lost its records of the channel, and can prove no payment";
            return Err(ApiError::new(ErrorCode::ChannelState, message, "ask the peer for the proof"));
        };
        let Some(kept) = kept else {
            let message = if (1..=made).contains(&payment) {
                format!(
                    "payment {payment} is older than what is kept, or a tick that no update has folded yet"
                )
            } else {
                format!("there is no payment {payment}; {made} were made")
            };
            let hint = "`history_keep` in flash.toml says how much is kept; see also --received";
            return Err(ApiError::new(ErrorCode::NotFound, message, hint));
        };
        let damaged = || {
            ApiError::new(ErrorCode::Internal, "a kept update does not follow", "this is a defect; report it")
        };
        let state = kept.after().ok_or_else(damaged)?;
        let position = kept.position(payment).ok_or_else(damaged)?;
        let parts = |signed_by, signature, updates, open: Essence| ProofParts {
            open,
            payment,
            position,
            before: kept.before,
            updates,
            signed_by,
            signature,
        };
        let open = open.essence;
        if received {
            let signature = kept.update.signature;
            return Ok(PaymentProof::new(parts(Signer::Payer, signature, vec![step(&kept)], open)));
        }
        let (updates, signature) = self.receipt_for(id, &kept, state).await?;
        Ok(PaymentProof::new(parts(Signer::Payee, signature, updates, open)))
    }

    /// The payee's receipt for just this update, or, if there is none to be had, for one soon after it.
    async fn receipt_for(
        &self,
        id: ChannelId,
        kept: &Kept,
        state: LaneState,
    ) -> Answer<(Vec<HistoryStep>, Signature)> {
        let seq = state.seq;
        let look = || self.look(move |store| tables::receipt_from(store, id, seq));
        let exact = |found: Option<(u64, Signature)>| found.filter(|(number, _)| *number == seq);
        let one = |(_, signature)| (vec![step(kept)], signature);
        let before = look().await?;
        if let Some(receipt) = exact(before) {
            return Ok(one(receipt));
        }
        let asked = tokio::time::timeout(RECEIPT_WAIT, self.0.engine.ask_receipt(id, state)).await;
        let refused = asked.unwrap_or_else(|_| {
            let message = format!("the payee gave no receipt within {} s", RECEIPT_WAIT.as_secs());
            Err(ApiError::new(ErrorCode::PeerUnreachable, message, "ask again; nothing was changed"))
        });
        match (refused, before) {
            (Ok(()), _) => exact(look().await?).map(one).ok_or_else(|| {
                ApiError::new(ErrorCode::NotFound, "the payment is not kept any more", "see `history_keep`")
            }),
            (Err(error), None) => Err(error),
            (Err(error), Some((number, signature))) => {
                let steps = self.look(move |store| steps_between(store, id, seq, number)).await?;
                steps.map(|steps| (steps, signature)).ok_or(error)
            }
        }
    }

    /// Reads the store beside the engine.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        let store = Arc::clone(&self.0.store);
        let looked = tokio::task::spawn_blocking(move || read(store.as_ref())).await;
        let lost = |error: tokio::task::JoinError| {
            ApiError::new(
                ErrorCode::Internal,
                error.to_string(),
                "this is a defect; the daemon's log says more",
            )
        };
        Ok(looked.map_err(lost)??)
    }
}

fn step(kept: &Kept) -> HistoryStep {
    HistoryStep { payments: kept.update.payments.clone(), ticks: kept.update.ticks }
}

/// What the own history takes in from one update to another; `None` if that is too much, or not kept.
fn steps_between(
    store: &dyn Store,
    id: ChannelId,
    first: u64,
    last: u64,
) -> Result<Option<Vec<HistoryStep>>, StoreError> {
    let (mut steps, mut bytes) = (Vec::new(), 0_usize);
    for seq in first..=last {
        let Some(kept) = tables::kept(store, id, Lane::Own, seq)? else { return Ok(None) };
        bytes = bytes.saturating_add(kept.update.payments.as_bytes().len());
        if steps.len() >= PROOF_UPDATES_MAX || bytes > PROOF_PAYMENTS_BYTES_MAX {
            return Ok(None);
        }
        steps.push(step(&kept));
    }
    Ok(Some(steps))
}
