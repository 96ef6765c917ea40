//! Every rule of the ledger, one by one, and random histories that must keep I1.

mod channels;
mod invalid;
mod random;
pub(crate) mod support;
mod transfers;
