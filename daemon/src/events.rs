//! The events that the daemon tells its users: numbered, durable with what they tell of, kept up to a
//! bound.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use flash_channel::store::{Batch, Store, StoreError};
use flash_proto::ChannelId;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;

use crate::{
    api::{ApiError, ErrorCode, Event},
    tables,
};

/// Events that are kept. Whoever is further behind must read the state anew.
pub const EVENTS_KEPT: u64 = 100_000;

/// Something that happened and has no number yet.
#[derive(Clone, Debug)]
pub struct NewEvent {
    kind: &'static str,
    channel: Option<ChannelId>,
    details: Box<RawValue>,
}

/// As an [`Event`] is written.
#[derive(Serialize)]
struct Written<'a> {
    number: u64,
    at_ms: u64,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelId>,
    details: &'a RawValue,
}

impl NewEvent {
    /// Of what kind, as in [`Event::kind`]; the channel, where it is about one; the details of this kind, a struct or map
    /// with names for keys.
    pub fn new(kind: &'static str, channel: Option<ChannelId>, details: &impl Serialize) -> Self {
        // Only maps with keys that are no strings fail to become JSON.
        let details = to_raw_value(details).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { kind, channel, details }
    }
}

/// Gives events their numbers and puts them into the commits of what they tell of. Only the writer has
/// one.
pub struct EventLog {
    newest: u64,
    published: watch::Sender<u64>,
}

/// Reads events.
#[derive(Clone)]
pub struct Events {
    store: Arc<dyn Store>,
    newest: watch::Receiver<u64>,
}

impl EventLog {
    /// Goes on after the newest event in the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(store: &Arc<dyn Store>) -> Result<(Self, Events), StoreError> {
        let newest = tables::event_number(store.as_ref())?;
        let (published, receiver) = watch::channel(newest);
        Ok((Self { newest, published }, Events { store: Arc::clone(store), newest: receiver }))
    }

    /// Numbers the events of a commit and adds them to its batch.
    pub fn record(&mut self, events: impl Iterator<Item = NewEvent>, batch: &mut Batch) {
        let (before, at_ms) = (self.newest, now_ms());
        for NewEvent { kind, channel, details } in events {
            self.newest = self.newest.saturating_add(1);
            let event = Written { number: self.newest, at_ms, kind, channel, details: &details };
            tables::put_event(batch, self.newest, &event);
            if let Some(gone) = self.newest.checked_sub(EVENTS_KEPT).filter(|gone| *gone > 0) {
                tables::delete_event(batch, gone);
            }
        }
        if self.newest != before {
            tables::put_event_number(batch, self.newest);
        }
    }

    /// Tells the readers, once the commit is durable.
    pub fn publish(&self) {
        self.published.send_if_modified(|published| {
            let rose = *published != self.newest;
            *published = self.newest;
            rose
        });
    }
}

impl Events {
    /// The newest durable event's number, whenever it rises.
    pub fn number(&self) -> watch::Receiver<u64> {
        self.newest.clone()
    }

    /// At most `limit` events after number `after`, oldest first.
    ///
    /// # Errors
    /// [`ErrorCode::EventsGone`] if some of those asked for are no longer kept.
    pub fn after(&self, after: u64, limit: usize) -> Result<Vec<Event>, ApiError> {
        let newest = *self.newest.borrow();
        let oldest = newest.saturating_sub(EVENTS_KEPT).saturating_add(1);
        if after.saturating_add(1) < oldest {
            return Err(ApiError::new(
                ErrorCode::EventsGone,
                format!("events up to number {} are no longer kept", oldest.saturating_sub(1)),
                format!("read the channels and the wallet anew, then follow events after {newest}"),
            ));
        }
        // What a commit wrote may be visible in the store before it is durable.
        let mut events = tables::events(self.store.as_ref(), after, limit)?;
        events.retain(|event| event.number <= newest);
        Ok(events)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
