//! What the rest of the daemon sees of the channels: the newest durable state of each, without asking
//! the engine.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use flash_proto::{ChannelId, Open, PublicKey, Side, tower::Claimable};
use tokio::sync::watch;

use crate::api::{ApiError, ChannelInfo, ErrorCode};

/// What is seen of one channel.
#[derive(Clone, Debug)]
pub struct View {
    /// As the admin RPC shows it.
    pub info: ChannelInfo,
    /// The newest of what the peer paid, as the ledger would be shown it.
    pub newest: Option<Claimable>,
    /// Which of this side's channel keys signs here.
    pub key_index: u32,
    /// When the channel was agreed on, milliseconds since 1970.
    pub created_ms: u64,
    /// What the opening transaction says.
    pub open: Open,
    /// Why the ledger refused the newest transaction of this channel, if it did.
    pub refused: Option<String>,
}

impl View {
    /// Whether the channel still needs its peer or the ledger.
    pub fn is_live(&self) -> bool {
        !matches!(self.info.state.as_str(), "closed" | "lapsed")
    }
}

/// A new view of a channel, to be shown once it is durable.
#[derive(Debug)]
pub struct Publication {
    sender: Arc<watch::Sender<View>>,
    view: View,
    /// Where the channel is listed from then on, if it is new.
    list: Option<Views>,
}

impl Publication {
    /// Shows it.
    pub fn publish(self) {
        let Self { sender, view, list } = self;
        let id = view.info.id;
        sender.send_modify(|shown| {
            // Whether the peer is connected is not stored and follows the links at once.
            let connected = shown.info.connected;
            *shown = view;
            shown.info.connected = connected;
        });
        if let Some(views) = list {
            views.list(id, sender);
        }
    }
}

type Shown = BTreeMap<ChannelId, Arc<watch::Sender<View>>>;

/// All channels as they are seen; cheap to clone.
#[derive(Clone, Debug)]
pub struct Views {
    shown: Arc<RwLock<Shown>>,
    /// Rises with every channel that is added, so that others learn of it.
    added: Arc<watch::Sender<u64>>,
}

impl Default for Views {
    fn default() -> Self {
        Self { shown: Arc::default(), added: Arc::new(watch::Sender::new(0)) }
    }
}

impl Views {
    fn read<T>(&self, read: impl FnOnce(&Shown) -> T) -> T {
        read(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn list(&self, id: ChannelId, sender: Arc<watch::Sender<View>>) {
        self.shown.write().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.added.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A view to be shown once it is durable, by the channel's sender. Without one the channel is new: it
    /// gets one, and is listed when the view is shown.
    pub(super) fn publication(
        &self,
        sender: &mut Option<Arc<watch::Sender<View>>>,
        view: View,
    ) -> Publication {
        let list = sender.is_none().then(|| self.clone());
        let sender = sender.get_or_insert_with(|| Arc::new(watch::Sender::new(view.clone())));
        Publication { sender: Arc::clone(sender), view, list }
    }

    /// How many channels that peers have proposed are not on the ledger yet.
    pub fn proposed(&self) -> usize {
        let waits = |view: &View| view.info.side == Side::B && view.info.state == "opening";
        self.read(|shown| shown.values().filter(|sender| waits(&sender.borrow())).count())
    }

    /// Tells those who follow [`Views::added`] that the peer of a channel is another machine now.
    pub fn moved(&self) {
        self.added.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever a channel is added, or its peer is another machine.
    pub fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// Follows one channel.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`].
    pub fn follow(&self, id: ChannelId) -> Result<watch::Receiver<View>, ApiError> {
        self.read(|shown| shown.get(&id).map(|sender| sender.subscribe())).ok_or_else(|| {
            ApiError::new(
                ErrorCode::UnknownChannel,
                format!("there is no channel {id}"),
                "list the channels with `flash channel list --all`",
            )
        })
    }

    /// One channel as it is now.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`].
    pub fn get(&self, id: ChannelId) -> Result<View, ApiError> {
        Ok(self.follow(id)?.borrow().clone())
    }

    /// All channels, newest first.
    pub fn all(&self) -> Vec<View> {
        let mut all: Vec<View> =
            self.read(|shown| shown.values().map(|sender| sender.borrow().clone()).collect());
        all.sort_by_key(|view| std::cmp::Reverse(view.created_ms));
        all
    }

    /// The live channels with a peer, and which party we are in each.
    pub fn live_with(&self, peer: &PublicKey) -> Vec<(ChannelId, Side)> {
        self.read(|shown| {
            let views = shown.iter().filter_map(|(id, sender)| {
                let view = sender.borrow();
                (view.is_live() && view.info.peer == *peer).then_some((*id, view.info.side))
            });
            views.collect()
        })
    }

    /// Ids of all live channels.
    pub fn live(&self) -> Vec<ChannelId> {
        self.read(|shown| {
            shown.iter().filter(|(_, sender)| sender.borrow().is_live()).map(|(id, _)| *id).collect()
        })
    }
}
