//! Payments of one hash each.

use flash_proto::Amount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PayRequest;

/// A wish to pay by ticks: payments of one hash each, under one signature for thousands of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TickRequest {
    /// What each tick pays. Another unit than the one before takes a signature.
    #[schema(value_type = String)]
    pub unit: Amount,
    /// How many ticks, 1 to 4096; 1 if left out.
    #[serde(default = "one")]
    pub count: u32,
    /// Repeating a call with the same key never pays twice. At most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

const fn one() -> u32 {
    1
}

/// Ticks under a lane's newest signature.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TicksInfo {
    /// What each tick pays.
    #[schema(value_type = String)]
    pub unit: Amount,
    /// How many were paid.
    pub paid: u32,
    /// How many can be paid before the next signature.
    pub left: u32,
}

/// One line of a stream of payments.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StreamRequest {
    /// A payment.
    Payment(PayRequest),
    /// Ticks.
    Ticks(TickRequest),
}
