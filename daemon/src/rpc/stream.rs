//! A stream of payments over one request: lines in, one result line each out, in order, while the
//! request is still being sent.

mod lines;

use std::{convert::Infallible, io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::header,
    response::{IntoResponse, Response},
};
use flash_proto::{Amount, ChannelId, Payment, PaymentList};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::AsyncBufRead,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::{io::StreamReader, sync::CancellationToken};

pub use self::lines::LINE_BYTES_MAX;
use self::lines::{Line, Lines};

use super::{
    Rpc,
    request::{Id, invalid, parse_json},
    tokens::Admitted,
};
use crate::{
    api::{ApiError, ErrorCode, PayRequest, PayResult, StreamLine, StreamOutcome, StreamRequest},
    daemon::{Daemon, PaidAll},
};

/// Payments of one stream that may wait for their acknowledgement.
const IN_FLIGHT_MAX: usize = 32 * 1024;
/// Payments that are handed on together, at most.
const TOGETHER_MAX: u32 = 4 * 1024;
/// Answers of lines, or of lines that were handed on together, that may share one write.
const ANSWERS_PER_WRITE_MAX: usize = 1024;

/// What resolves when the payee has acknowledged payments.
pub(super) type Pending<T> = BoxFuture<'static, Result<T, ApiError>>;

/// What makes the payments of a stream.
pub(super) trait Payer: Send + Sync + 'static {
    /// Asks for one payment, or ticks.
    fn pay(
        &self,
        request: StreamRequest,
    ) -> impl Future<Output = Result<Pending<PayResult>, ApiError>> + Send;

    /// Asks for many payments, which are all made or none.
    fn pay_all(
        &self,
        payments: PaymentList,
    ) -> impl Future<Output = Result<Pending<PaidAll>, ApiError>> + Send;
}

/// The daemon's side of one channel.
struct Paying {
    daemon: Daemon,
    channel: ChannelId,
}

impl Payer for Paying {
    async fn pay(&self, request: StreamRequest) -> Result<Pending<PayResult>, ApiError> {
        Ok(self.daemon.queue_payment(self.channel, request).await?.boxed())
    }

    async fn pay_all(&self, payments: PaymentList) -> Result<Pending<PaidAll>, ApiError> {
        Ok(self.daemon.pay_all(self.channel, payments).await?.boxed())
    }
}

/// Lines that were read and handed on, and their share of what may wait.
struct Taken {
    /// The number of the first of them.
    line: u64,
    what: What,
    _room: OwnedSemaphorePermit,
}

enum What {
    One(Result<Pending<PayResult>, ApiError>),
    /// A line for each payment, one after the other.
    Many(PaymentList, Pending<PaidAll>),
}

/// Pays a stream of payments. The request is one payment per line: a `PayRequest` as JSON, or only an
/// amount (`250` or `1.5Ki`); or ticks, a `TickRequest` as JSON. The answer is one line per payment, in the same order, as soon as the peer
/// has it on its disk. A line that is refused is answered with its error, and the stream goes on.
/// Blank lines are counted and not answered.
/// Read the answer while writing the request: with too many results unread, no more lines are taken.
#[utoipa::path(post, path = "/v1/channels/{id}/stream", tag = "channels", security(("token" = ["pay"])),
    params(("id" = String, Path, description = "The channel's id, 64 hexadecimal digits")),
    request_body(content = StreamRequest, content_type = "application/x-ndjson",
        description = "One payment per line, at most 4096 bytes each"),
    responses((status = 200, body = StreamLine, content_type = "application/x-ndjson"),
        (status = "default", body = ApiError)))]
pub(super) async fn stream(
    State(rpc): State<Rpc>,
    Extension(admitted): Extension<Admitted>,
    Id(id): Id<ChannelId>,
    body: Body,
) -> Result<Response, ApiError> {
    // One error for the whole request where the channel does not exist, not one per line.
    let id = rpc.daemon.channel(id)?.id;
    Ok(answer(body, Paying { daemon: rpc.daemon, channel: id }, admitted.ended))
}

/// Takes the lines of `body` in a task of its own and answers them.
pub(super) fn answer(body: Body, payer: impl Payer, stop: CancellationToken) -> Response {
    let (taken, results) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let lines = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let stream = Taker { payer, taken, room, together: Together::default() };
        tokio::select! {
            () = stop.cancelled() => {}
            _ended = stream.take_lines(Lines::new(lines)) => {}
        }
    });
    let answers = UnboundedReceiverStream::new(results)
        .then(answers_of)
        .ready_chunks(ANSWERS_PER_WRITE_MAX)
        .map(|lines| Ok::<_, Infallible>(Bytes::from(lines.concat())));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response()
}

/// Payments of lines that follow each other, to be handed on together.
#[derive(Default)]
struct Together {
    /// The number of the first line.
    line: u64,
    payments: PaymentList,
    count: u32,
}

/// Nobody listens to the answers.
struct Unheard;

/// Reads lines and hands on what they ask for.
struct Taker<P> {
    payer: P,
    /// Of no more lines than there is room for.
    taken: mpsc::UnboundedSender<Taken>,
    room: Arc<Semaphore>,
    together: Together,
}

impl<P: Payer> Taker<P> {
    /// Reads to the end of the request, or until the caller no longer listens. What was queued is paid either way.
    /// Plain payments that have arrived already are handed on together.
    async fn take_lines<R: AsyncBufRead + Unpin>(mut self, mut lines: Lines<R>) -> Result<(), Unheard> {
        for line in 1_u64.. {
            let read = if let Some(read) = lines.next().now_or_never() {
                read
            } else {
                self.hand_on().await?;
                lines.next().await
            };
            let request = match read {
                Ok(Line::End) => break,
                Ok(Line::Whole(text)) if text.iter().all(u8::is_ascii_whitespace) => {
                    self.hand_on().await?; // lines that are handed on together follow each other
                    continue;
                }
                Ok(Line::Whole(text)) => parse(text),
                Ok(Line::TooLong) => Err(too_long()),
                Err(error) => {
                    self.hand_on().await?;
                    return self.one(line, Err(invalid(format!("the request broke off: {error}")))).await;
                }
            };
            if let Some(payment) = request.as_ref().ok().and_then(plain) {
                self.with_others(line, &payment).await?;
            } else {
                self.hand_on().await?;
                self.one(line, request).await?;
            }
        }
        self.hand_on().await
    }

    async fn with_others(&mut self, line: u64, payment: &Payment) -> Result<(), Unheard> {
        let full = self.together.count >= TOGETHER_MAX || self.together.payments.push(payment).is_err();
        if full {
            self.hand_on().await?;
            // An empty list has room for any payment.
            let _ = self.together.payments.push(payment);
        }
        if self.together.count == 0 {
            self.together.line = line;
        }
        self.together.count = self.together.count.saturating_add(1);
        Ok(())
    }

    /// Hands on what was collected. If it cannot be paid together, then as much of it as can, one by one.
    async fn hand_on(&mut self) -> Result<(), Unheard> {
        let Together { line, payments, count } = std::mem::take(&mut self.together);
        if count > 1 {
            let room = self.room(count).await?;
            if let Ok(pending) = self.payer.pay_all(payments.clone()).await {
                return self.send(Taken { line, what: What::Many(payments, pending), _room: room });
            }
        }
        for (line, payment) in (line..).zip(payments.iter().flatten()) {
            let reference = String::from_utf8_lossy(payment.reference.as_bytes()).into_owned();
            let request = PayRequest { amount: payment.amount, reference: Some(reference), key: None };
            self.one(line, Ok(StreamRequest::Payment(request))).await?;
        }
        Ok(())
    }

    async fn one(&mut self, line: u64, request: Result<StreamRequest, ApiError>) -> Result<(), Unheard> {
        let room = self.room(1).await?;
        let pending = match request {
            Ok(request) => self.payer.pay(request).await,
            Err(error) => Err(error),
        };
        self.send(Taken { line, what: What::One(pending), _room: room })
    }

    async fn room(&self, lines: u32) -> Result<OwnedSemaphorePermit, Unheard> {
        // Never closed.
        Arc::clone(&self.room).acquire_many_owned(lines).await.map_err(|_| Unheard)
    }

    fn send(&self, taken: Taken) -> Result<(), Unheard> {
        self.taken.send(taken).map_err(|_| Unheard)
    }
}

/// The payment of a request that is one without a key, and well-formed.
fn plain(request: &StreamRequest) -> Option<Payment> {
    let StreamRequest::Payment(PayRequest { amount, reference, key: None }) = request else { return None };
    Payment::new(*amount, reference.as_deref().unwrap_or_default().as_bytes()).ok()
}

fn too_long() -> ApiError {
    let message = format!("the line has more than {LINE_BYTES_MAX} bytes");
    ApiError::new(ErrorCode::TooLarge, message, "write one payment per line")
}

fn parse(text: &[u8]) -> Result<StreamRequest, ApiError> {
    let text = text.trim_ascii();
    if text.starts_with(b"{") {
        return parse_json(text).map(StreamRequest::Payment).or_else(|error| {
            // Not told apart by trying both, so that the error is about what was meant.
            let ticks = parse_json::<Value>(text).is_ok_and(|value| value.get("unit").is_some());
            if ticks { parse_json(text).map(StreamRequest::Ticks) } else { Err(error) }
        });
    }
    let text = std::str::from_utf8(text).map_err(|_| invalid("the line is not text in UTF-8"))?;
    let amount =
        text.parse().map_err(|error: flash_proto::amount::AmountError| invalid(error.to_string()))?;
    Ok(StreamRequest::Payment(PayRequest { amount, reference: None, key: None }))
}

/// The answers to lines, once they are paid or not.
async fn answers_of(taken: Taken) -> Vec<u8> {
    let mut text = Vec::new();
    match taken.what {
        What::One(pending) => {
            let paid = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let outcome = paid.map_or_else(|error| StreamOutcome::Refused { error }, StreamOutcome::Paid);
            write_line(&mut text, &StreamLine { line: taken.line, outcome });
        }
        What::Many(payments, pending) => {
            let paid = pending.await;
            for (at, payment) in (0_u64..).zip(payments.iter().flatten()) {
                let line = taken.line.saturating_add(at);
                match &paid {
                    Ok(PaidAll { last, payments, .. }) => {
                        let number = last.saturating_sub(*payments).saturating_add(at).saturating_add(1);
                        let paid = PaidLine { line, number, amount: payment.amount, repeated: false };
                        write_line(&mut text, &paid);
                    }
                    Err(error) => {
                        let outcome = StreamOutcome::Refused { error: error.clone() };
                        write_line(&mut text, &StreamLine { line, outcome });
                    }
                }
            }
        }
    }
    text
}

/// A [`StreamLine`] of a payment without a key, written in a fraction of the time.
#[derive(Serialize)]
struct PaidLine {
    line: u64,
    number: u64,
    amount: Amount,
    repeated: bool,
}

fn write_line(text: &mut Vec<u8>, line: &impl Serialize) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *text, line);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_payment_is_answered_as_any_other() {
        let (number, amount) = (7, Amount::new(1_500));
        let outcome = StreamOutcome::Paid(PayResult { number, amount, ticks: None, repeated: false });
        let (mut one, mut other) = (Vec::new(), Vec::new());
        write_line(&mut one, &StreamLine { line: 3, outcome });
        write_line(&mut other, &PaidLine { line: 3, number, amount, repeated: false });
        assert_eq!(one, other);
    }

    #[test]
    fn a_line_is_json_or_an_amount() {
        let payment = |text: &[u8]| match parse(text).unwrap() {
            StreamRequest::Payment(request) => request,
            StreamRequest::Ticks(request) => panic!("{request:?}"),
        };
        assert_eq!(payment(b" 1.5Ki\r").amount, Amount::new(1_500));
        let request = payment(br#"{"amount":"7","reference":"kwh 12","key":"k1"}"#);
        assert_eq!(
            (request.amount, request.reference.as_deref(), request.key.as_deref()),
            (Amount::new(7), Some("kwh 12"), Some("k1"))
        );
        let StreamRequest::Ticks(ticks) = parse(br#"{"unit":"5","key":"unit"}"#).unwrap() else { panic!() };
        assert_eq!((ticks.unit, ticks.count, ticks.key.as_deref()), (Amount::new(5), 1, Some("unit")));
        for (line, what) in [
            (&b"seven"[..], "is not a unit"),
            (b"-7", "is not an amount"),
            (b"0.5i", "finer than one base unit"),
            (b"{\"amount\":7}", "expected"),
            (b"{\"amount\":\"7\",\"refrence\":\"x\"}", "unknown field `refrence`"),
            (b"{\"amount\":\"7\"", "EOF"),
            (b"{\"unit\":\"7\",\"cuont\":3}", "unknown field `cuont`"),
            (b"\xff", "UTF-8"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            assert!(error.message.contains(what), "{}", error.message);
        }
    }
}
