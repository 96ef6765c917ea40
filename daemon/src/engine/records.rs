//! Channels that are at rest: they are not in memory, but for what finds them and tells whether the ledger still has
//! them as they are ([`Rest`](flash_channel::machine::Rest)). Whatever touches one reads it first, in full.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use flash_channel::{
    Channel,
    machine::HistoryRule,
    store::{Store, StoreError},
};
use flash_proto::ChannelId;

use super::{ChannelKeys, View, Views, describe};
use crate::{
    stop::{Running, Stop},
    tables,
};

/// Channels that are read before other work gets its turn.
const READ_AT_A_TIME: usize = 64;

/// Reads channels from their records.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: ChannelKeys,
    pub(super) history: HistoryRule,
    pub(super) stop: Stop,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// A channel, and when it was agreed on.
    pub(super) fn channel(&self, id: ChannelId) -> Result<(Channel, u64), StoreError> {
        let mut channel = Channel::load(id, |index| (self.keys)(index), self.store.as_ref())?;
        channel.set_history(self.history);
        Ok((channel, tables::link(self.store.as_ref(), id)?.created_ms))
    }

    /// A channel at rest as others see it.
    pub(super) fn view(&self, id: ChannelId) -> Result<View, StoreError> {
        let (channel, created_ms) = self.channel(id)?;
        let open = Arc::new(channel.agreement().open);
        Ok(describe::view(&channel, open, false, created_ms, None))
    }

    /// Reads every channel that rests since the start once: damage must not be found only when the channel is closed by its
    /// peer. Takes at most half of one core.
    pub(super) fn check(&self, views: &Views) {
        for ids in views.live().chunks(READ_AT_A_TIME) {
            let started = Instant::now();
            let readable = ids.iter().all(|id| views.get(*id).is_ok());
            if !readable || self.stop.running() != Running::Yes {
                return;
            }
            thread::sleep(started.elapsed().min(Duration::from_secs(1)));
        }
    }
}
