//! Streams of payments and of events over real HTTP, with the crate's own client at the other end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Query,
    response::Response,
    routing::{get, post},
};
use flash_channel::store::{Batch, MemoryStore, Store};
use flash_proto::{Amount, ChannelId, PaymentList};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{events, stream};
use crate::{
    api::{ApiError, ErrorCode, Event, PayResult, StreamLine, StreamOutcome, StreamRequest},
    client::Client,
    daemon::PaidAll,
    events::{EVENTS_KEPT, EventLog, Events, NewEvent},
};

const ID: ChannelId = ChannelId::new([7; 32]);

async fn client_of(router: Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::new(&address.to_string(), Zeroizing::new(String::new())).unwrap()
}

/// Acknowledges as many payments as there are permits, and refuses those of 13i.
#[derive(Clone)]
struct Acknowledging {
    permits: Arc<Semaphore>,
    number: Arc<Mutex<u64>>,
    /// Calls for many payments at a time.
    together: Arc<Mutex<u64>>,
}

impl Acknowledging {
    fn new(permits: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), number: Arc::default(), together: Arc::default() }
    }

    /// The number of the last of so many payments, if nothing is refused.
    fn queue(&self, amounts: &[Amount]) -> Result<u64, ApiError> {
        if amounts.contains(&Amount::new(13)) {
            return Err(ApiError::new(ErrorCode::InsufficientBalance, "13 is too much", ""));
        }
        let mut number = self.number.lock().unwrap();
        *number += u64::try_from(amounts.len()).unwrap();
        Ok(*number)
    }

    fn once_permitted<T: Send + 'static>(&self, payments: usize, paid: T) -> stream::Pending<T> {
        let permits = Arc::clone(&self.permits);
        let payments = u32::try_from(payments).unwrap();
        let acknowledged = async move { permits.acquire_many(payments).await.unwrap().forget() };
        acknowledged.map(|()| Ok(paid)).boxed()
    }
}

impl stream::Payer for Acknowledging {
    async fn pay(&self, request: StreamRequest) -> Result<stream::Pending<PayResult>, ApiError> {
        let StreamRequest::Payment(request) = request else { panic!("no ticks here") };
        let number = self.queue(&[request.amount])?;
        let paid = PayResult { number, amount: request.amount, ticks: None, repeated: false };
        Ok(self.once_permitted(1, paid))
    }

    async fn pay_all(&self, payments: PaymentList) -> Result<stream::Pending<PaidAll>, ApiError> {
        let amounts: Vec<Amount> = payments.iter().map(|payment| payment.unwrap().amount).collect();
        let last = self.queue(&amounts)?;
        *self.together.lock().unwrap() += 1;
        let amount = Amount::checked_sum(amounts.iter().copied()).unwrap();
        let payments = u64::try_from(amounts.len()).unwrap();
        Ok(self.once_permitted(amounts.len(), PaidAll { last, payments, amount }))
    }
}

fn payee(payer: Acknowledging, stop: CancellationToken) -> Router {
    let handler = move |body: Body| std::future::ready(stream::answer(body, payer.clone(), stop.clone()));
    Router::new().route("/v1/channels/{id}/stream", post(handler))
}

fn summary(line: Result<StreamLine, ApiError>) -> (u64, Result<u64, ErrorCode>) {
    let line = line.unwrap();
    match line.outcome {
        StreamOutcome::Paid(paid) => (line.line, Ok(paid.number)),
        StreamOutcome::Refused { error } => (line.line, Err(error.code)),
    }
}

#[tokio::test]
async fn each_line_is_answered_while_the_next_is_not_yet_written() {
    let client = client_of(payee(Acknowledging::new(1_000), CancellationToken::new())).await;
    let (lines, written) = mpsc::unbounded_channel();
    let mut answers = client.stream(ID, UnboundedReceiverStream::new(written)).await.unwrap();
    let long = "9".repeat(stream::LINE_BYTES_MAX + 1);
    let cases = [
        ("5", (1, Ok(1))),
        ("nonsense", (2, Err(ErrorCode::InvalidRequest))),
        ("{\"amount\":\"1.5Ki\",\"reference\":\"x\"}", (3, Ok(2))),
        ("13", (4, Err(ErrorCode::InsufficientBalance))),
        ("\n  \n6", (7, Ok(3))),
        (long.as_str(), (8, Err(ErrorCode::TooLarge))),
        ("7", (9, Ok(4))),
    ];
    for (text, expected) in cases {
        lines.send(Ok(text.to_owned())).unwrap();
        assert_eq!(summary(answers.next().await.unwrap()), expected, "{text}");
    }
    drop(lines);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn thousands_are_in_flight_and_answered_in_order() {
    const LINES: u64 = 20_000;
    let payer = Acknowledging::new(0);
    let client = client_of(payee(payer.clone(), CancellationToken::new())).await;
    let (lines, written) = mpsc::channel(1);
    let mut answers = client.stream(ID, ReceiverStream::new(written)).await.unwrap();
    let writer = tokio::spawn(async move {
        for line in 1..=LINES {
            let text = if line % 100 == 0 { "13" } else { "1" };
            lines.send(Ok(text.to_owned())).await.unwrap();
        }
    });
    assert!(answers.next().now_or_never().is_none(), "nothing is acknowledged yet");
    payer.permits.add_permits(usize::try_from(LINES).unwrap());
    let mut number = 0;
    for line in 1..=LINES {
        let expected = if line % 100 == 0 {
            Err(ErrorCode::InsufficientBalance)
        } else {
            number += 1;
            Ok(number)
        };
        assert_eq!(summary(answers.next().await.unwrap()), (line, expected));
    }
    assert!(answers.next().await.is_none());
    writer.await.unwrap();
}

#[tokio::test]
async fn payments_that_arrive_together_are_made_together() {
    let payer = Acknowledging::new(1_000);
    let client = client_of(payee(payer.clone(), CancellationToken::new())).await;
    // Together they are refused, so each of them is asked for alone.
    for (amounts, together) in [(["5"; 500].as_slice(), true), (&["5", "13", "6"], false)] {
        let before = *payer.together.lock().unwrap();
        let text = Ok(amounts.join("\n"));
        let lines = futures_util::stream::iter([text]);
        let mut answers = client.stream(ID, lines).await.unwrap();
        let mut number = None;
        for (line, amount) in (1..).zip(amounts) {
            let answer = answers.next().await.unwrap().unwrap();
            assert_eq!(answer.line, line);
            match answer.outcome {
                StreamOutcome::Paid(paid) => {
                    assert_eq!(paid.amount, amount.parse().unwrap());
                    assert!(number.is_none_or(|number| paid.number == number + 1));
                    number = Some(paid.number);
                }
                StreamOutcome::Refused { .. } => assert_eq!(*amount, "13"),
            }
        }
        assert!(answers.next().await.is_none());
        assert_eq!(*payer.together.lock().unwrap() > before, together);
    }
    assert_eq!(*payer.number.lock().unwrap(), 502);
}

#[tokio::test]
async fn a_stop_ends_a_stream_that_is_idle() {
    let stop = CancellationToken::new();
    let client = client_of(payee(Acknowledging::new(10), stop.clone())).await;
    let (lines, written) = mpsc::unbounded_channel();
    let mut answers = client.stream(ID, UnboundedReceiverStream::new(written)).await.unwrap();
    lines.send(Ok("1".to_owned())).unwrap();
    assert_eq!(summary(answers.next().await.unwrap()), (1, Ok(1)));
    stop.cancel();
    assert!(answers.next().await.is_none());
    drop(lines);
}

impl events::Source for Events {
    fn newest(&self) -> watch::Receiver<u64> {
        self.number()
    }

    fn after(&self, after: u64, limit: usize) -> Result<Vec<Event>, ApiError> {
        Self::after(self, after, limit)
    }
}

/// Events from pages that are made up.
struct Pages(Mutex<VecDeque<Vec<u64>>>, watch::Sender<u64>);

impl events::Source for Arc<Pages> {
    fn newest(&self) -> watch::Receiver<u64> {
        self.1.subscribe()
    }

    fn after(&self, _after: u64, _limit: usize) -> Result<Vec<Event>, ApiError> {
        let page = self.0.lock().unwrap().pop_front().unwrap_or_default();
        let event = |number| Event {
            number,
            at_ms: 1,
            kind: "funds_sent".to_owned(),
            channel: None,
            details: serde_json::Value::Null,
        };
        Ok(page.into_iter().map(event).collect())
    }
}

#[derive(Deserialize)]
struct Params {
    after: Option<u64>,
    follow: bool,
}

async fn reader_of<S>(source: S, stop: CancellationToken) -> Client
where
    S: events::Source + Clone + Sync,
{
    let handler = move |Query(params): Query<Params>| {
        let (source, stop) = (source.clone(), stop.clone());
        async move {
            let answer: Result<Response, ApiError> =
                events::answer(source, params.after, params.follow, stop);
            answer
        }
    };
    client_of(Router::new().route("/v1/events", get(handler))).await
}

/// Records this many events durably.
fn record(store: &Arc<dyn Store>, log: &mut EventLog, count: usize) {
    let mut batch = Batch::default();
    let event = NewEvent::new("payments_received", Some(ID), &serde_json::json!({"text": "a\nb"}));
    log.record(std::iter::repeat_n(event, count), &mut batch);
    let _ = store.commit(&batch).unwrap();
    log.publish();
}

#[tokio::test]
async fn events_come_in_order_once_and_as_they_happen() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (mut log, reader) = EventLog::open(&store).unwrap();
    record(&store, &mut log, 600);
    let stop = CancellationToken::new();
    let client = reader_of(reader, stop.clone()).await;

    let kept: Vec<_> = client.events(None, false).await.unwrap().collect().await;
    assert_eq!(kept.len(), 600);
    let last = kept[599].as_ref().unwrap();
    assert_eq!((last.number, last.channel, last.details["text"].as_str()), (600, Some(ID), Some("a\nb")));

    let mut events = client.events(Some(598), true).await.unwrap();
    for number in [599, 600] {
        assert_eq!(events.next().await.unwrap().unwrap().number, number);
    }
    for number in 601..610 {
        record(&store, &mut log, 1);
        assert_eq!(events.next().await.unwrap().unwrap().number, number);
    }
    stop.cancel();
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn events_that_are_gone_are_never_skipped_silently() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (mut log, reader) = EventLog::open(&store).unwrap();
    record(&store, &mut log, usize::try_from(EVENTS_KEPT).unwrap() + 10);
    let client = reader_of(reader, CancellationToken::new()).await;
    let refused = client.events(Some(3), true).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::EventsGone);
    assert!(client.events(Some(11), true).await.is_ok());
    let beyond = client.events(Some(EVENTS_KEPT + 11), true).await.err().unwrap();
    assert_eq!(beyond.code, ErrorCode::InvalidRequest);

    // Pruned between two pages, after the answer has begun.
    let pages = VecDeque::from([vec![1, 2], vec![3], vec![5]]);
    let source = Arc::new(Pages(Mutex::new(pages), watch::Sender::new(5)));
    let client = reader_of(source, CancellationToken::new()).await;
    let seen: Vec<_> = client.events(Some(0), true).await.unwrap().collect().await;
    let numbers: Vec<_> =
        seen.iter().map(|event| event.as_ref().map(|event| event.number).map_err(|e| e.code)).collect();
    assert_eq!(numbers, [Ok(1), Ok(2), Ok(3), Err(ErrorCode::EventsGone)]);
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_said_to_be_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::new(&address, Zeroizing::new(String::new())).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), client.info()).await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable);
    assert!(error.message.contains(&address), "{error}");
    for wrong in ["https://127.0.0.1:1", "ftp://x", "http://", "127.0.0.1:99999"] {
        let error = Client::new(wrong, Zeroizing::new(String::new())).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{wrong}");
    }
}
