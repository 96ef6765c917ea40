//! The channel machine in memory, both sides on one core, with one signature for each payment.

use std::time::Instant;

use flash_benches::channel::Pair;

use super::MEASURED;

/// Payments a second.
pub(crate) fn unbatched() -> f64 {
    let mut pair = Pair::open();
    let (began, mut payments) = (Instant::now(), 0_u32);
    while began.elapsed() < MEASURED {
        pair.payer.pay(1);
        pair.settle();
        payments = payments.saturating_add(1);
    }
    f64::from(payments) / began.elapsed().as_secs_f64()
}
