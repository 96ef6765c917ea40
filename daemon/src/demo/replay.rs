//! One session: the car opens a channel with the operator, pays per Wh as the energy flows, and both
//! close.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use flash_proto::{Amount, TransactionId};
use futures_util::{StreamExt, stream};

use super::{PRICE_PER_WH, Progress, sessions::Session};
use crate::{
    api::{ChannelInfo, CloseRequest, OpenRequest, StreamOutcome},
    client::Client,
    failure::Failure,
    local::reached,
};

/// How often the meter is read.
const METER: Duration = Duration::from_millis(10);
/// The smallest deposit, however little is charged.
const DEPOSIT_MIN: Amount = Amount::new(10_000);

/// What all sessions share.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) speed: u32,
    /// When the first car was plugged in, here.
    pub(super) began: Instant,
    /// When it was plugged in on record.
    pub(super) first: Duration,
    pub(super) progress: Arc<Progress>,
}

/// A session that is over.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    pub(super) number: usize,
    pub(super) session: Session,
    pub(super) deposit: Amount,
    /// What the car was answered for: the sum of its acknowledged payments.
    pub(super) paid: Amount,
    pub(super) payments: u64,
    /// When the energy flowed here.
    pub(super) flowed: (Instant, Instant),
    /// The channel as the car sees it at the end.
    pub(super) car: ChannelInfo,
}

/// What the car locks: a tenth more than it will use, for it does not know that.
pub(super) fn deposit(session: &Session) -> Result<Amount, Failure> {
    let cost = PRICE_PER_WH.checked_mul(session.energy_wh).and_then(|cost| cost.checked_mul(11));
    let cost = cost.ok_or_else(|| Failure::new("the deposit does not fit 64 bits"))?;
    Ok(Amount::new(cost.units() / 10).max(DEPOSIT_MIN))
}

pub(super) async fn run(
    number: usize,
    session: Session,
    car: Client,
    operator: Client,
    ticket: String,
    settings: Settings,
) -> Result<Replayed, Failure> {
    let deposit = deposit(&session)?;
    let plugged_in = session.plug_in.saturating_sub(settings.first) / settings.speed;
    tokio::time::sleep_until((settings.began + plugged_in).into()).await;

    let request =
        OpenRequest { peer: ticket, deposit, peer_deposit: Amount::ZERO, contest_window_milestones: None };
    let open = car.open(&request).await?;
    // The charger switches on when it sees the channel open, too.
    reached(&operator, open.id, "open").await?;
    settings.progress.charging.fetch_add(1, Ordering::Relaxed);
    let flowing = Instant::now();
    let (payments, paid) = charge(&session, &car, &open, &settings).await?;
    let flowed = (flowing, Instant::now());
    settings.progress.charging.fetch_sub(1, Ordering::Relaxed);
    let closed = car.close(open.id, CloseRequest { force: false }, true).await?;
    settings.progress.done.fetch_add(1, Ordering::Relaxed);
    Ok(Replayed { number, session, deposit, paid, payments, flowed, car: closed })
}

/// Pays each Wh when it has flowed.
async fn charge(
    session: &Session,
    car: &Client,
    open: &ChannelInfo,
    settings: &Settings,
) -> Result<(u64, Amount), Failure> {
    let meter = Meter {
        began: Instant::now(),
        wh_per_s: u128::from(session.power_w) * u128::from(settings.speed),
        energy_wh: session.energy_wh,
        read: 0,
        tick: tokio::time::interval(METER),
    };
    let lines = stream::unfold(meter, |mut meter| async {
        let wh = meter.next().await?;
        let line = format!(r#"{{"amount":"{}","reference":"Wh {wh}"}}"#, PRICE_PER_WH.units());
        Some((Ok::<_, io::Error>(line), meter))
    });
    let mut results = car.stream(open.id, lines).await?;
    let (mut payments, mut paid) = (0_u64, Amount::ZERO);
    while let Some(result) = results.next().await {
        match result?.outcome {
            StreamOutcome::Paid(payment) => {
                payments = payments.saturating_add(1);
                paid = paid
                    .checked_add(payment.amount)
                    .ok_or_else(|| Failure::new("the payments do not fit 64 bits"))?;
                settings.progress.payments.fetch_add(1, Ordering::Relaxed);
            }
            StreamOutcome::Refused { error } => return Err(error.into()),
        }
    }
    Ok((payments, paid))
}

/// A meter that shows a Wh more whenever one has flowed.
struct Meter {
    began: Instant,
    /// Wh per second here, times 3,600.
    wh_per_s: u128,
    energy_wh: u64,
    read: u64,
    tick: tokio::time::Interval,
}

impl Meter {
    /// Waits for the next Wh and gives its number, from 1; `None` when all have flowed.
    async fn next(&mut self) -> Option<u64> {
        if self.read >= self.energy_wh {
            return None;
        }
        while self.flowed() <= u128::from(self.read) {
            self.tick.tick().await;
        }
        self.read = self.read.saturating_add(1);
        Some(self.read)
    }

    fn flowed(&self) -> u128 {
        self.began.elapsed().as_millis() * self.wh_per_s / 3_600_000
    }
}

impl Replayed {
    /// The transaction that opened it.
    pub(super) fn open_transaction(&self) -> Result<TransactionId, Failure> {
        let unknown = || Failure::new(format!("nothing is known of how channel {} was opened", self.car.id));
        self.car.open_transaction.ok_or_else(unknown)
    }

    /// The transaction by which both closed.
    pub(super) fn close_transaction(&self) -> Result<TransactionId, Failure> {
        self.car
            .close_transaction
            .ok_or_else(|| Failure::new(format!("channel {} was not closed by both", self.car.id)))
    }

    /// Checks every sum of the session, on both sides and on the ledger.
    pub(super) async fn check(&self, operator: &Client) -> Result<(), Failure> {
        let id = self.car.id;
        let off = |what: &str| Failure::new(format!("session {} (channel {id}): {what}", self.number + 1));
        let cost = PRICE_PER_WH.checked_mul(self.session.energy_wh);
        if self.payments != self.session.energy_wh || Some(self.paid) != cost {
            return Err(off("not every Wh was paid exactly once"));
        }
        let theirs = reached(operator, id, "closed").await?;
        let lanes = [&self.car.sent, &theirs.received];
        if lanes.iter().any(|lane| lane.cumulative != self.paid || lane.payments != self.payments) {
            return Err(off("the two sides count different payments"));
        }
        let rest = self.deposit.checked_sub(self.paid);
        if self.car.payout != rest || theirs.peer_payout != rest {
            return Err(off("the car did not get back what it did not pay"));
        }
        if theirs.payout != Some(self.paid) || self.car.peer_payout != Some(self.paid) {
            return Err(off("the operator did not get what was paid"));
        }
        for (transaction, kind) in
            [(self.open_transaction()?, "open"), (self.close_transaction()?, "cooperative_close")]
        {
            let found = operator.transaction(transaction).await?;
            if found.status != "applied" || found.kind != kind || found.channel != Some(id) {
                return Err(off(&format!("transaction {transaction} is {} {}", found.status, found.kind)));
            }
        }
        Ok(())
    }
}
