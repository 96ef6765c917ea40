//! The loads: how an embedded daemon pays.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use flash_proto::{Amount, ChannelId, Payment, PaymentList};
use flashd::{
    api::{ApiError, OpenRequest, PayRequest, StreamRequest, TickRequest},
    bench::load::Limit,
    daemon::Daemon,
    failure::Failure,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::table::{Done, pair::AMOUNT};

/// Of all calls that are under way on a saturated lane, so many are timed.
const TIMED: u32 = 256;

/// How to pay. Each payment is of one [`AMOUNT`], and so is each tick.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// As fast as it goes on one channel, so many payments by each call.
    Saturate { channel: ChannelId, list: u16, in_flight: u32, reference_bytes: u8, limit: Limit },
    /// As fast as it goes, so many ticks by each call.
    Ticks { channel: ChannelId, each: u32, in_flight: u32, limit: Limit },
    /// One after the other, with a pause between.
    Single { channel: ChannelId, pause_us: u64, limit: Limit },
    /// Channels opened as the request says, so many calls at once.
    Open { request: OpenRequest, channels: u32, at_once: usize },
    /// On each channel at random times, so long apart on average.
    Spread { channels: Vec<ChannelId>, pause_us: u64, seed: u64, limit: Limit },
}

/// What was paid, all of it acknowledged; or what was opened, all of it on the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Paid {
    /// Payments or ticks on each channel; or channels.
    pub(crate) counts: Vec<u64>,
    /// From the first call to the last acknowledgement.
    pub(crate) time: Duration,
    /// Microseconds from a call to its acknowledgement; of a saturated lane, of some of the calls.
    pub(crate) latencies_us: Vec<u32>,
}

impl Paid {
    /// On all channels.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Load {
    /// Pays.
    pub(crate) async fn make(self, daemon: &Daemon) -> Done<Paid> {
        match self {
            Self::Saturate { channel, list, in_flight, reference_bytes, limit } => {
                let payment =
                    Payment::new(AMOUNT, &vec![b'x'; reference_bytes.into()]).map_err(Failure::new)?;
                let mut payments = PaymentList::new();
                for _ in 0..list {
                    payments.push(&payment).map_err(Failure::new)?;
                }
                let call = || async {
                    let paid = daemon.pay_all(channel, payments.clone()).await?;
                    Ok::<_, ApiError>(async { paid.await.map(|paid| paid.amount) })
                };
                saturate(call, u32::from(list), in_flight, limit).await
            }
            Self::Ticks { channel, each, in_flight, limit } => {
                let request = StreamRequest::Ticks(TickRequest { unit: AMOUNT, count: each, key: None });
                let call = || async {
                    let paid = daemon.queue_payment(channel, request.clone()).await?;
                    Ok::<_, ApiError>(async { paid.await.map(|paid| paid.amount) })
                };
                saturate(call, each, in_flight, limit).await
            }
            Self::Single { channel, pause_us, limit } => {
                single(daemon, channel, Duration::from_micros(pause_us), limit).await
            }
            Self::Open { request, channels, at_once } => open(daemon, &request, channels, at_once).await,
            Self::Spread { channels, pause_us, seed, limit } => {
                spread(daemon, &channels, Duration::from_micros(pause_us), seed, limit).await
            }
        }
    }
}

fn payment() -> PayRequest {
    PayRequest { amount: AMOUNT, reference: None, key: None }
}

/// For [`Latency`](flashd::bench::latency::Latency).
pub(crate) fn microseconds(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Fails unless so many units were paid.
fn check(paid: Amount, count: u32) -> Done {
    if Some(paid) != AMOUNT.checked_mul(u64::from(count)) {
        return Err(Failure::new(format!("{paid} were paid, not {count} times {AMOUNT}")));
    }
    Ok(())
}

/// Keeps as many calls under way as may be; each pays `count`.
async fn saturate<C, A>(call: impl Fn() -> C, count: u32, in_flight: u32, limit: Limit) -> Done<Paid>
where
    C: Future<Output = Result<A, ApiError>>,
    A: Future<Output = Result<Amount, ApiError>>,
{
    let in_flight = in_flight.div_ceil(count);
    let every = u64::from(in_flight.div_ceil(TIMED));
    let in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX);
    let mut calls = 0_u64;
    let mut waiting = VecDeque::new();
    let (mut made, mut latencies_us) = (0_u64, Vec::new());
    let started = Instant::now();
    loop {
        let goes_on = limit.goes_on(made, started);
        if goes_on {
            let asked = calls.is_multiple_of(every).then(Instant::now);
            calls = calls.saturating_add(1);
            waiting.push_back((asked, call().await?));
            made = made.saturating_add(u64::from(count));
        }
        if waiting.len() < in_flight && goes_on {
            continue;
        }
        let Some((asked, acknowledged)) = waiting.pop_front() else { break };
        check(acknowledged.await?, count)?;
        latencies_us.extend(asked.map(microseconds));
    }
    Ok(Paid { counts: vec![made], time: started.elapsed(), latencies_us })
}

async fn single(daemon: &Daemon, channel: ChannelId, pause: Duration, limit: Limit) -> Done<Paid> {
    let (mut made, mut latencies_us) = (0_u64, Vec::new());
    let started = Instant::now();
    while limit.goes_on(made, started) {
        let asked = Instant::now();
        check(daemon.pay(channel, payment()).await?.amount, 1)?;
        latencies_us.push(microseconds(asked));
        made = made.saturating_add(1);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(Paid { counts: vec![made], time: started.elapsed(), latencies_us })
}

/// Returns once all are open on the ledger.
async fn open(daemon: &Daemon, request: &OpenRequest, channels: u32, at_once: usize) -> Done<Paid> {
    let started = Instant::now();
    let opening = stream::iter(0..channels).map(|_| async {
        let asked = Instant::now();
        let opened = daemon.open(request.clone()).await?;
        if opened.state != "open" {
            return Err(Failure::new(format!("channel {} is {}", opened.id, opened.state)));
        }
        Ok(microseconds(asked))
    });
    let latencies_us: Vec<u32> = opening.buffer_unordered(at_once).try_collect().await?;
    Ok(Paid { counts: vec![channels.into()], time: started.elapsed(), latencies_us })
}

async fn spread(
    daemon: &Daemon,
    channels: &[ChannelId],
    pause: Duration,
    seed: u64,
    limit: Limit,
) -> Done<Paid> {
    let started = Instant::now();
    let mut paying = JoinSet::new();
    for (at, channel) in channels.iter().copied().enumerate() {
        let (daemon, seed) = (daemon.clone(), seed.wrapping_add(u64::try_from(at).unwrap_or(u64::MAX)));
        paying.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut made, mut latencies_us) = (0_u64, Vec::new());
            loop {
                // Evenly between nothing and twice the average. A sleep of nothing takes a millisecond.
                if !pause.is_zero() {
                    tokio::time::sleep(pause.mul_f64(2.0 * random.random::<f64>())).await;
                }
                if !limit.goes_on(made, started) {
                    return Ok::<_, Failure>((at, made, latencies_us));
                }
                let asked = Instant::now();
                check(daemon.pay(channel, payment()).await?.amount, 1)?;
                latencies_us.push(microseconds(asked));
                made = made.saturating_add(1);
            }
        });
    }
    let (mut counts, mut latencies_us) = (vec![0; channels.len()], Vec::new());
    while let Some(ended) = paying.join_next().await {
        let (at, made, times) = ended.map_err(Failure::new)??;
        if let Some(count) = counts.get_mut(at) {
            *count = made;
        }
        latencies_us.extend(times);
    }
    Ok(Paid { counts, time: started.elapsed(), latencies_us })
}
