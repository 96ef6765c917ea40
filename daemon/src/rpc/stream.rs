//! A stream of payments over one request: lines in, one result line each out, in order, while the
//! request is still being sent.

use std::{convert::Infallible, io};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::header,
    response::{IntoResponse, Response},
};
use flash_proto::ChannelId;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{io::StreamReader, sync::CancellationToken};

use super::{
    Rpc,
    request::{Id, invalid, parse_json},
    tokens::Admitted,
};
use crate::api::{ApiError, ErrorCode, PayRequest, PayResult, StreamLine, StreamOutcome, StreamRequest};

/// Bytes of the longest line.
pub const LINE_BYTES_MAX: usize = 4 * 1024;
/// Payments of one stream that may wait for their acknowledgement.
const IN_FLIGHT_MAX: usize = 8 * 1024;
/// Result lines that may share one write.
const LINES_PER_WRITE_MAX: usize = 1024;

/// A line that was read and handed on.
struct Taken<P> {
    line: u64,
    payment: Result<P, ApiError>,
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
    let daemon = rpc.daemon;
    let queue = move |request| {
        let daemon = daemon.clone();
        async move { daemon.queue_payment(id, request).await }
    };
    Ok(answer(body, queue, admitted.ended))
}

/// Takes the lines of `body` in a task of its own and answers them. `queue` takes a payment and gives
/// back what resolves when it is acknowledged.
pub(super) fn answer<Q, F, P>(body: Body, queue: Q, stop: CancellationToken) -> Response
where
    Q: Fn(StreamRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Result<P, ApiError>> + Send,
    P: Future<Output = Result<PayResult, ApiError>> + Send + 'static,
{
    let (taken, results) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::spawn(async move {
        let lines = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        tokio::select! {
            () = stop.cancelled() => {}
            () = take_lines(queue, lines, &taken) => {}
        }
    });
    let answers = ReceiverStream::new(results)
        .then(result_line)
        .ready_chunks(LINES_PER_WRITE_MAX)
        .map(|lines| Ok::<_, Infallible>(Bytes::from(lines.concat())));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(answers)).into_response()
}

/// Reads to the end of the request, or until the caller no longer listens. What was queued is paid
/// either way.
async fn take_lines<Q, F, P>(queue: Q, mut lines: impl AsyncBufRead + Unpin, taken: &mpsc::Sender<Taken<P>>)
where
    Q: Fn(StreamRequest) -> F,
    F: Future<Output = Result<P, ApiError>>,
{
    let mut text = Vec::new();
    for line in 1_u64.. {
        let (request, last) = match next_line(&mut lines, &mut text).await {
            Ok(Line::End) => break,
            Ok(Line::Whole) if text.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(Line::Whole) => (parse(&text), false),
            Ok(Line::TooLong) => (Err(too_long()), false),
            Err(error) => (Err(invalid(format!("the request broke off: {error}"))), true),
        };
        let payment = match request {
            Ok(request) => queue(request).await,
            Err(error) => Err(error),
        };
        if taken.send(Taken { line, payment }).await.is_err() || last {
            break;
        }
    }
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

async fn result_line<P>(taken: Taken<P>) -> Vec<u8>
where
    P: Future<Output = Result<PayResult, ApiError>>,
{
    let paid = match taken.payment {
        Ok(acknowledged) => acknowledged.await,
        Err(error) => Err(error),
    };
    let outcome = match paid {
        Ok(paid) => StreamOutcome::Paid(paid),
        Err(error) => StreamOutcome::Refused { error },
    };
    let mut text = serde_json::to_vec(&StreamLine { line: taken.line, outcome }).unwrap_or_default();
    text.push(b'\n');
    text
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A line.
    Whole,
    /// A line that was too long, and was read over.
    TooLong,
    /// There are no more.
    End,
}

/// Reads a line without its end into `text`, which never grows beyond [`LINE_BYTES_MAX`].
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin), text: &mut Vec<u8>) -> io::Result<Line> {
    text.clear();
    let (mut too_long, mut any) = (false, false);
    loop {
        let available = reader.fill_buf().await?;
        let ended = available.is_empty();
        let (part, used, found) = match available.iter().position(|byte| *byte == b'\n') {
            Some(at) => (available.get(..at).unwrap_or_default(), at.saturating_add(1), true),
            None => (available, available.len(), false),
        };
        too_long |= text.len().saturating_add(part.len()) > LINE_BYTES_MAX;
        if !too_long {
            text.extend_from_slice(part);
        }
        any |= !ended;
        reader.consume(used);
        if found || ended {
            return Ok(match (any, too_long) {
                (false, _) => Line::End,
                (true, true) => Line::TooLong,
                (true, false) => Line::Whole,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use flash_proto::Amount;
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_found_however_they_arrive() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let text = format!("1\n\n{long}\n{long}y\n2\r\nlast");
        for capacity in [1, 7, 100_000] {
            let mut reader = BufReader::with_capacity(capacity, text.as_bytes());
            let mut line = Vec::new();
            let mut seen = Vec::new();
            loop {
                match next_line(&mut reader, &mut line).await.unwrap() {
                    Line::End => break,
                    Line::TooLong => seen.push("too long".to_owned()),
                    Line::Whole => seen.push(String::from_utf8(line.clone()).unwrap()),
                }
            }
            assert_eq!(seen, ["1", "", &long, "too long", "2\r", "last"], "capacity {capacity}");
        }
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
