//! Data on the ledger.

use flash_node_client::light::evidence::Evidence;
use flash_proto::{BlockId, PaymentProof};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A wish to put data on the ledger, where everybody can read it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// What kind of data, for those who search for it: at most 64 bytes.
    pub tag: String,
    /// The data in hexadecimal, at most 31,744 bytes.
    pub data: String,
}

/// A block that a milestone has confirmed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfirmedBlock {
    /// Its id.
    #[schema(value_type = String)]
    pub block: BlockId,
    /// The milestone that confirmed it.
    pub milestone_index: u64,
    /// Milliseconds since 1970 when the coordinators made that milestone.
    pub timestamp_ms: u64,
    /// What proves it to everybody who has the network's file: the block, the path to the milestone, the
    /// milestone with its signatures, and those at which coordinators handed over to others.
    #[schema(value_type = Object)]
    pub evidence: Evidence,
}

/// Which payment is to be proven.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReceiptRequest {
    /// Its number on its lane, from 1.
    pub payment: u64,
    /// Whether it was received; sent if not.
    pub received: bool,
}

/// What proves a payment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PaymentReceipt {
    /// The content of a proof file.
    #[schema(value_type = Object)]
    pub proof: PaymentProof,
}
