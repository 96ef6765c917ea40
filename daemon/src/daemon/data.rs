//! Data on the ledger.

use flash_node_client::light::evidence::Evidence;
use flash_proto::{BlockId, block::Data};

use super::{Answer, Daemon, LEDGER_WAIT};
use crate::api::{ApiError, ConfirmedBlock, ErrorCode, PublishRequest};

impl Daemon {
    /// Puts data into a block; returns when a milestone has confirmed it.
    ///
    /// # Errors
    /// [`ApiError`]; [`ErrorCode::Timeout`] if no milestone confirms it in time.
    pub async fn publish(&self, request: PublishRequest) -> Answer<ConfirmedBlock> {
        let data = hex::decode(&request.data).map_err(|error| {
            ApiError::new(ErrorCode::InvalidRequest, format!("data: {error}"), "write it in hexadecimal")
        })?;
        let data = Data { tag: request.tag.into_bytes(), data };
        let waited = tokio::time::timeout(LEDGER_WAIT, self.0.client.publish(data)).await;
        let evidence = waited.map_err(|_| {
            let message = format!("no milestone confirmed the data within {} s", LEDGER_WAIT.as_secs());
            ApiError::new(ErrorCode::LedgerUnavailable, message, "publish it again; twice does no harm")
        })??;
        self.confirmed(evidence)
    }

    /// A block with what proves that a milestone confirmed it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::LedgerUnavailable`].
    pub async fn confirmed_block(&self, id: BlockId) -> Answer<ConfirmedBlock> {
        let evidence = self.0.client.evidence(id).await?;
        self.confirmed(evidence.ok_or_else(|| {
            let hint = "check the id; a block that was just published waits for a milestone";
            ApiError::new(ErrorCode::NotFound, format!("no node proves that block {id} is confirmed"), hint)
        })?)
    }

    fn confirmed(&self, evidence: Evidence) -> Answer<ConfirmedBlock> {
        // What the light core believes holds for those, too, who start from the network's parameters.
        let confirmed = evidence.verify(&self.0.params).map_err(|error| {
            ApiError::new(ErrorCode::Internal, error.to_string(), "this is a defect; report it")
        })?;
        Ok(ConfirmedBlock {
            block: confirmed.id,
            milestone_index: confirmed.milestone_index,
            timestamp_ms: confirmed.timestamp_ms,
            evidence,
        })
    }
}
