//! Paying, as the RPC and whoever embeds the daemon sees it.

use std::time::Duration;

use flash_channel::machine::{Item, PaymentKey};
use flash_proto::{Amount, ChannelId, Payment, PaymentList, payment::PaymentError};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

use super::{Answer, Daemon};
use crate::{
    api::{self, ApiError, ErrorCode},
    engine::{Callers, Order, Pays, Placed, stopping},
};

/// How long a call waits for a peer's acknowledgement.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(30);
/// Pause before a payment of a stream is offered again to a full queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);

impl Daemon {
    /// Returns when the payee has acknowledged the payment.
    ///
    /// # Errors
    /// [`ApiError`]; [`ErrorCode::Timeout`] if it is queued but not acknowledged yet.
    pub async fn pay(&self, id: ChannelId, request: api::PayRequest) -> Answer<api::PayResult> {
        self.order(id, api::StreamRequest::Payment(request)).await?.placed().await?.acknowledged().await
    }

    /// Pays by ticks; returns when the payee has acknowledged the last of them.
    ///
    /// # Errors
    /// As for [`Daemon::pay`].
    pub async fn tick(&self, id: ChannelId, request: api::TickRequest) -> Answer<api::PayResult> {
        self.order(id, api::StreamRequest::Ticks(request)).await?.placed().await?.acknowledged().await
    }

    /// For streams of payments: asks for the payment, so that thousands can be on their way, in the order
    /// of the calls. What it gives back waits until the payee has acknowledged the payment; one that finds
    /// the queue full is asked for again, behind those that came meanwhile.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn queue_payment(
        &self,
        id: ChannelId,
        request: api::StreamRequest,
    ) -> Answer<impl Future<Output = Answer<api::PayResult>> + use<>> {
        let mut ordered = self.order(id, request.clone()).await?;
        let daemon = self.clone();
        Ok(async move {
            loop {
                match ordered.placed().await {
                    Err(error) if error.code == ErrorCode::Busy => tokio::time::sleep(QUEUE_PAUSE).await,
                    placed => return placed?.acknowledged().await,
                }
                ordered = daemon.order(id, request.clone()).await?;
            }
        })
    }

    /// Hands a payment to the engine and does not wait for its answer: whoever has many wakes the engine
    /// once for all of them.
    async fn order(&self, id: ChannelId, request: api::StreamRequest) -> Answer<Ordered> {
        let (item, key) = match request {
            api::StreamRequest::Payment(api::PayRequest { amount, reference, key }) => {
                let reference = reference.unwrap_or_default();
                let payment = Payment::new(amount, reference.as_bytes());
                let payment = payment.map_err(|error| malformed(&error))?;
                (Item::Payment(payment), key)
            }
            api::StreamRequest::Ticks(api::TickRequest { unit, count, key }) => {
                (Item::Ticks { unit, count }, key)
            }
        };
        let key: Option<PaymentKey> = key.map(String::into_bytes);
        if key.as_ref().is_some_and(Vec::is_empty) {
            let hint = "leave it out, or use a new one for each payment";
            return Err(ApiError::new(ErrorCode::InvalidRequest, "the payment key is empty", hint));
        }
        let (callers, placed, acknowledged) = callers();
        self.0.engine.pay(id, Order { pays: Pays::One(item, key), callers }).await?;
        let queued = self.0.metrics.payments_queued.clone();
        Ok(Ordered { item, placed, acknowledged, queued })
    }

    /// Makes all these payments by one update, or none of them: the way to pay as fast as the machine allows. Returns
    /// once they are queued, which is waited for while too many are; what it gives back waits until the payee has
    /// acknowledged them.
    ///
    /// # Errors
    /// [`ApiError`]: none of them is made.
    pub async fn pay_all(
        &self,
        id: ChannelId,
        payments: PaymentList,
    ) -> Answer<impl Future<Output = Answer<PaidAll>> + use<>> {
        let total = payments.total().map_err(|error| malformed(&error))?;
        let (placed, acknowledged) = loop {
            let (callers, placed, acknowledged) = callers();
            let pays = Pays::All(payments.clone());
            self.0.engine.pay(id, Order { pays, callers }).await?;
            match placed.await.map_err(stopping)? {
                Err(error) if error.code == ErrorCode::Busy => tokio::time::sleep(QUEUE_PAUSE).await,
                placed => break (placed?, acknowledged),
            }
        };
        self.0.metrics.payments_queued.inc_by(total.count);
        let paid = PaidAll { last: placed.number, payments: total.count, amount: total.amount };
        Ok(async move { self::acknowledged(placed.number, acknowledged).await.map(|()| paid) })
    }
}

/// A payment that the engine was asked for.
struct Ordered {
    item: Item,
    placed: oneshot::Receiver<Answer<Placed>>,
    acknowledged: oneshot::Receiver<Answer<()>>,
    queued: Counter,
}

impl Ordered {
    /// Waits until it is queued.
    async fn placed(self) -> Answer<PendingPayment> {
        let Self { item, placed, acknowledged, queued } = self;
        let Placed { number, repeated } = placed.await.map_err(stopping)??;
        let (payments, amount) = item.worth();
        if !repeated {
            queued.inc_by(payments);
        }
        let ticks = match item {
            Item::Payment(_) => None,
            Item::Ticks { count, .. } => Some(count),
        };
        Ok(PendingPayment { result: api::PayResult { number, amount, ticks, repeated }, acknowledged })
    }
}

/// A payment on its way.
struct PendingPayment {
    result: api::PayResult,
    acknowledged: oneshot::Receiver<Answer<()>>,
}

impl PendingPayment {
    async fn acknowledged(self) -> Answer<api::PayResult> {
        acknowledged(self.result.number, self.acknowledged).await?;
        Ok(self.result)
    }
}

/// Payments that were made together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidAll {
    /// The number of the last of them on the lane.
    pub last: u64,
    /// How many there are.
    pub payments: u64,
    /// What they pay in all.
    pub amount: Amount,
}

/// Waits until the payee has payment `number` on its disk; fails with [`ErrorCode::Timeout`] if that takes too long,
/// though it may still come.
async fn acknowledged(number: u64, acknowledged: oneshot::Receiver<Answer<()>>) -> Answer<()> {
    let waited = tokio::time::timeout(ACKNOWLEDGE_WAIT, acknowledged).await;
    let waited = waited.map_err(|_| {
        let message = format!("payment {number} is not acknowledged after {} s", ACKNOWLEDGE_WAIT.as_secs());
        let hint = "it may still be: ask again with the same --key, which never pays twice";
        ApiError::new(ErrorCode::Timeout, message, hint)
    })?;
    waited.map_err(stopping)?
}

/// Callers, and what they wait for: the number, and the acknowledgement.
fn callers() -> (Callers, oneshot::Receiver<Answer<Placed>>, oneshot::Receiver<Answer<()>>) {
    let (queued, placed) = oneshot::channel();
    let (acknowledge, acknowledged) = oneshot::channel();
    (Callers { queued, acknowledged: acknowledge }, placed, acknowledged)
}

fn malformed(error: &PaymentError) -> ApiError {
    let hint = "an amount is at least 1i, and a reference has at most 32 bytes";
    ApiError::new(ErrorCode::InvalidRequest, error.to_string(), hint)
}
