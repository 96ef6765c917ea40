//! Many payments one way over a channel.

use std::{collections::VecDeque, io, path::PathBuf};

use flash_proto::{Amount, ChannelId};
use flashd::{
    api::{ErrorCode, PayRequest, PayResult, StreamOutcome, TickRequest},
    client::Client,
    rpc::Scope,
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::{Daemon, Random, poll};

/// Payments on their way at a time.
const ON_THE_WAY_MAX: usize = 4_096;

/// What somebody wishes to pay, under a key.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A payment.
    Payment(PayRequest),
    /// Ticks.
    Ticks(TickRequest),
}

/// Somebody who pays through a daemon that may be killed at any moment.
#[derive(Clone, Debug)]
pub struct Payer {
    data: PathBuf,
    /// The channel that it pays on.
    pub channel: ChannelId,
}

impl Payer {
    /// One who pays through this daemon.
    pub fn of(daemon: &Daemon, channel: ChannelId) -> Self {
        Self { data: daemon.data().to_owned(), channel }
    }

    /// Asks until it is acknowledged, always with the same key.
    pub async fn insist(&self, wish: &Wish) -> PayResult {
        poll("a payment to be acknowledged", || async {
            // A new client each time: a daemon that was restarted answers elsewhere.
            let client = Client::of_data_dir(&self.data, Scope::Pay, None, None).ok()?;
            let paid = match wish {
                Wish::Payment(request) => client.pay(self.channel, request).await,
                Wish::Ticks(request) => client.tick(self.channel, request).await,
            };
            match paid {
                Ok(paid) => Some(paid),
                Err(error) => {
                    let passes = !matches!(
                        error.code,
                        ErrorCode::KeyReused | ErrorCode::InsufficientBalance | ErrorCode::InvalidRequest
                    );
                    assert!(passes, "{wish:?}: {error:?}");
                    None
                }
            }
        })
        .await
    }
}

/// Random payments one way.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// How many.
    pub count: u64,
    /// Each is from 1 to so much.
    pub amount_max: u64,
}

/// What became of a [`Flow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Payments that were acknowledged.
    pub payments: u64,
    /// Their sum.
    pub sum: u64,
    /// How often a payment was refused for too small a balance, and offered again.
    pub refused: u64,
}

impl Flow {
    /// Pays all of them with one stream. A payment that the balance does not suffice for is offered
    /// again, at first alone, until it is taken: the other side is paying too.
    pub async fn pay(self, client: &Client, channel: ChannelId, random: Random) -> Lane {
        self.pay_after(0, client, channel, random).await
    }

    /// The same on a lane that has so many payments already.
    pub async fn pay_after(
        self,
        before: u64,
        client: &Client,
        channel: ChannelId,
        mut random: Random,
    ) -> Lane {
        let (offer, offered) = mpsc::channel::<io::Result<String>>(ON_THE_WAY_MAX);
        let lines = stream::unfold(offered, |mut lines| async { Some((lines.recv().await?, lines)) });
        let mut answers = client.stream(channel, lines).await.expect("the stream begins");
        let (mut lane, mut left) = (Lane::default(), self.count);
        let (mut waiting, mut again) = (VecDeque::new(), VecDeque::new());
        let mut on_the_way_max = ON_THE_WAY_MAX;
        loop {
            while waiting.len() < on_the_way_max {
                let amount = if let Some(amount) = again.pop_front() {
                    amount
                } else if left > 0 {
                    left -= 1;
                    random.between(1, self.amount_max)
                } else {
                    break;
                };
                offer.send(Ok(amount.to_string())).await.expect("the stream goes on");
                waiting.push_back(amount);
            }
            let Some(amount) = waiting.pop_front() else { return lane };
            let answer = answers.next().await.expect("an answer to every line").expect("the stream goes on");
            match answer.outcome {
                StreamOutcome::Paid(PayResult { number, amount: paid, repeated, .. }) => {
                    lane.payments += 1;
                    lane.sum += amount;
                    on_the_way_max = (2 * on_the_way_max).min(ON_THE_WAY_MAX);
                    let place = (before + lane.payments, Amount::new(amount), false);
                    assert_eq!((number, paid, repeated), place);
                }
                StreamOutcome::Refused { error } if error.code == ErrorCode::InsufficientBalance => {
                    lane.refused += 1;
                    again.push_back(amount);
                    on_the_way_max = 1;
                }
                StreamOutcome::Refused { error } => panic!("payment {}: {error:?}", lane.payments + 1),
            }
        }
    }
}
