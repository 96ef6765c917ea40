//! Paying on one lane, and how long each payment took.

use std::time::{Duration, Instant};

use flash_proto::{Amount, ChannelId};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{api::StreamOutcome, client::Client, failure::Failure};

/// When a lane ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Limit {
    /// After so many payments.
    Payments(u64),
    /// After this time.
    Time(Duration),
}

impl Limit {
    /// Whether it is not reached yet by a load that began at `started`.
    pub fn goes_on(self, made: u64, started: Instant) -> bool {
        match self {
            Self::Payments(payments) => made < payments,
            Self::Time(time) => started.elapsed() < time,
        }
    }
}

/// One direction of one channel.
#[derive(Debug)]
pub struct Lane {
    /// The payer's daemon.
    pub client: Client,
    /// The channel.
    pub channel: ChannelId,
    /// Of each payment.
    pub amount: Amount,
    /// Payments that may wait for their answer at once.
    pub in_flight: usize,
}

/// What a lane paid.
#[derive(Debug)]
pub struct Paid {
    /// All of it.
    pub sum: Amount,
    /// Microseconds of each payment, from its line to its answer.
    pub latencies_us: Vec<u32>,
}

impl Lane {
    /// Pays over one stream until the limit is reached and everything is answered.
    ///
    /// # Errors
    /// [`Failure`]: a payment was refused, or an answer is wrong.
    pub async fn pay(self, limit: Limit, started: Instant) -> Result<Paid, Failure> {
        // The times of the payments that wait for their answer; no more of them than may wait.
        let (asked, mut waiting) = mpsc::channel::<Instant>(self.in_flight);
        let line = self.amount.units().to_string();
        let lines = stream::unfold((asked, 0_u64), move |(asked, made)| {
            let line = line.clone();
            async move {
                if !limit.goes_on(made, started) {
                    return None;
                }
                asked.reserve().await.ok()?.send(Instant::now());
                Some((Ok(line), (asked, made.saturating_add(1))))
            }
        });
        let mut answers = self.client.stream(self.channel, lines).await?;
        let mut paid = Paid { sum: Amount::ZERO, latencies_us: Vec::new() };
        let mut number = 0_u64;
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            let line = answer.line;
            let result = match answer.outcome {
                StreamOutcome::Paid(result) => result,
                StreamOutcome::Refused { error } => return Err(error.into()),
            };
            number = number.saturating_add(1);
            let asked = waiting.try_recv().ok();
            let right =
                (line, result.number, result.amount, result.repeated) == (number, number, self.amount, false);
            let Some(asked) = asked.filter(|_| right) else {
                let message = format!("payment {number} was answered as line {line}, {result:?}");
                return Err(Failure::new(message));
            };
            paid.latencies_us.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            paid.sum = paid
                .sum
                .checked_add(result.amount)
                .ok_or_else(|| Failure::new("a sum does not fit 64 bits"))?;
        }
        if waiting.try_recv().is_ok() {
            return Err(Failure::new("a stream ended with payments that were not answered"));
        }
        Ok(paid)
    }
}
