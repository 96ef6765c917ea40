//! What came out of the demo.

use std::time::Duration;

use flash_proto::{Amount, ChannelId, TransactionId};
use serde::Serialize;

use super::replay::Replayed;

/// All sessions, every sum of which was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The sessions in the order in which the cars were plugged in.
    pub sessions: Vec<Line>,
    /// Payments in all.
    pub payments: u64,
    /// Their sum.
    pub paid: Amount,
    /// Payments per second, from the first car that charges to the last.
    pub payments_per_second: u64,
    /// Transactions on the ledger: two for each channel.
    pub ledger_transactions: usize,
    /// Seconds from the start of the first process to the last check.
    pub seconds: u64,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The charger.
    pub station: String,
    /// Energy, Wh.
    pub energy_wh: u64,
    /// Payments: one per Wh.
    pub payments: u64,
    /// Their sum.
    pub paid: Amount,
    /// What the car had locked.
    pub deposit: Amount,
    /// What the car got back.
    pub car_balance: Amount,
    /// What the operator got.
    pub operator_balance: Amount,
    /// The channel.
    pub channel: ChannelId,
    /// The transaction that opened it.
    pub open_transaction: Option<TransactionId>,
    /// The transaction that closed it.
    pub close_transaction: Option<TransactionId>,
}

impl Report {
    pub(super) fn new(
        replayed: &[Replayed],
        ledger_transactions: usize,
        paid: Amount,
        took: Duration,
    ) -> Self {
        let payments = replayed.iter().map(|session| session.payments).sum();
        let first = replayed.iter().map(|session| session.flowed.0).min();
        let last = replayed.iter().map(|session| session.flowed.1).max();
        let flowed = last.zip(first).map_or(Duration::ZERO, |(last, first)| last.duration_since(first));
        let per_second = u128::from(payments) * 1_000 / flowed.as_millis().max(1);
        Self {
            sessions: replayed.iter().map(Line::new).collect(),
            payments,
            paid,
            payments_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            ledger_transactions,
            seconds: took.as_secs(),
        }
    }
}

impl Line {
    fn new(replayed: &Replayed) -> Self {
        Self {
            station: replayed.session.station.clone(),
            energy_wh: replayed.session.energy_wh,
            payments: replayed.payments,
            paid: replayed.paid,
            deposit: replayed.deposit,
            car_balance: replayed.car.payout.unwrap_or(Amount::ZERO),
            operator_balance: replayed.car.peer_payout.unwrap_or(Amount::ZERO),
            channel: replayed.car.id,
            open_transaction: replayed.car.open_transaction,
            close_transaction: replayed.car.close_transaction,
        }
    }
}
