//! Events as they happen (server-sent events), without gaps.
#![allow(unused_qualifications, reason = "what utoipa generates for query parameters")]

use std::{collections::VecDeque, convert::Infallible};

use axum::{
    extract::{Extension, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{self, KeepAlive},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::{
    Rpc,
    request::{Params, invalid},
    tokens::Admitted,
};
use crate::{
    api::{ApiError, ErrorCode, Event},
    daemon::Daemon,
    events::EVENTS_KEPT,
};

/// Events that are read from the store at a time.
const PAGE: usize = 256;
/// How far a caller that names no event stays away from those that are about to be pruned.
const MARGIN: u64 = 1_000;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsParams {
    /// The number of the last event that the caller has; the header `Last-Event-ID` wins over it. If both
    /// are left out, the events start with the oldest ones that are kept.
    after: Option<u64>,
    /// Whether to wait for those to come; `true` if left out. Otherwise the answer ends with the newest.
    #[serde(default = "yes")]
    follow: bool,
}

const fn yes() -> bool {
    true
}

/// Events in order and without gaps: `id:` is the number, `event:` the kind, `data:` the event as JSON.
/// If some of those asked for are no longer kept, the answer is `events_gone`; if that happens on the way
/// to a caller that reads too slowly, the last event has the kind `error` and an `ApiError` as its data.
#[utoipa::path(get, path = "/v1/events", tag = "events", security(("token" = ["read"])),
    params(EventsParams, ("Last-Event-ID" = Option<u64>, Header, description = "Like `after`")),
    responses((status = 200, body = Event, content_type = "text/event-stream"),
        (status = "default", body = ApiError)))]
pub(super) async fn events(
    State(rpc): State<Rpc>,
    Extension(admitted): Extension<Admitted>,
    Params(params): Params<EventsParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = last_event_id(&headers)?.or(params.after);
    answer(rpc.daemon, after, params.follow, admitted.ended)
}

/// Where events come from.
pub(super) trait Source: Send + 'static {
    /// The newest event's number, whenever it rises.
    fn newest(&self) -> watch::Receiver<u64>;
    /// Events after a number, oldest first.
    fn after(&self, after: u64, limit: usize) -> Result<Vec<Event>, ApiError>;
}

impl Source for Daemon {
    fn newest(&self) -> watch::Receiver<u64> {
        self.event_number()
    }

    fn after(&self, after: u64, limit: usize) -> Result<Vec<Event>, ApiError> {
        self.events(after, limit)
    }
}

pub(super) fn answer<S: Source>(
    source: S,
    after: Option<u64>,
    follow: bool,
    stop: CancellationToken,
) -> Result<Response, ApiError> {
    let mut follower = Follower::new(source, after, follow, stop)?;
    // The first page is read before the answer begins, so that an error has its own status.
    follower.read()?;
    let stream = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(text) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = text.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| invalid("Last-Event-ID is not an event's number"))
}

/// One caller's way through the events.
struct Follower<S> {
    source: S,
    newest: watch::Receiver<u64>,
    stop: CancellationToken,
    follow: bool,
    /// The number of the last event that was read, and whether the next one must follow on it.
    after: u64,
    gapless: bool,
    page: VecDeque<Event>,
    failed: bool,
}

impl<S: Source> Follower<S> {
    fn new(source: S, after: Option<u64>, follow: bool, stop: CancellationToken) -> Result<Self, ApiError> {
        let newest = source.newest();
        let number = *newest.borrow();
        if let Some(after) = after.filter(|after| *after > number) {
            let message = format!("there is no event {after} yet: the newest is {number}");
            let hint = "the number is of another daemon or of another copy of its data; start without one";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint));
        }
        let oldest = number.saturating_sub(EVENTS_KEPT.saturating_sub(MARGIN));
        Ok(Self {
            source,
            newest,
            stop,
            follow,
            after: after.unwrap_or(oldest),
            gapless: after.is_some(),
            page: VecDeque::new(),
            failed: false,
        })
    }

    /// Reads the next page, which is empty if there is nothing new.
    fn read(&mut self) -> Result<(), ApiError> {
        // First, so that an event that comes while the page is read is noticed afterwards.
        self.newest.borrow_and_update();
        let page = self.source.after(self.after, PAGE)?;
        for event in &page {
            if self.gapless && Some(event.number) != self.after.checked_add(1) {
                let message = format!("the events after number {} are no longer kept", self.after);
                let hint = "read the channels and the wallet anew, then follow the events without a number";
                return Err(ApiError::new(ErrorCode::EventsGone, message, hint));
            }
            self.gapless = true;
            self.after = event.number;
        }
        self.page = page.into();
        Ok(())
    }

    /// The next event; `None` when there will be none.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.page.pop_front() {
                let id = event.number.to_string();
                return Some(sse_event(&event.kind, &event).id(id));
            }
            if self.failed || self.stop.is_cancelled() {
                return None;
            }
            if let Err(error) = self.read() {
                self.failed = true;
                return Some(sse_event("error", &error));
            }
            if !self.page.is_empty() {
                continue;
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = self.stop.cancelled() => return None,
            }
        }
    }
}

fn sse_event(kind: &str, data: &impl serde::Serialize) -> sse::Event {
    // JSON has no line ends outside of its strings, and escapes those inside.
    let data = serde_json::to_string(data).unwrap_or_default();
    sse::Event::default().event(kind).data(data)
}
