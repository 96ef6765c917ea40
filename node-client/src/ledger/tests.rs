//! Every rule of the ledger, one by one, and random histories that must keep I1.

mod channels;
mod invalid;
mod random;
mod stakes;
pub(crate) mod support;
mod ticks;
mod transfers;
