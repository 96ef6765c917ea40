//! What the rest of the daemon sees of the channels: the newest durable state of each, without asking
//! the engine. Of channels at rest it is in their records, and read from there.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    ops::RangeBounds,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use flash_proto::{Address, Amount, ChannelId, Open, PublicKey, Side, tower::Claimable};
use tokio::sync::watch;

use super::records::Records;
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
    /// What the opening transaction says.
    pub open: Arc<Open>,
    /// All the money in the channel, if no change of that is under way.
    pub total: Option<Amount>,
    /// Why the ledger refused the newest transaction of this channel, if it did.
    pub refused: Option<String>,
}

impl View {
    /// Whether the channel still needs its peer or the ledger.
    pub fn is_live(&self) -> bool {
        !matches!(self.info.state.as_str(), "closed" | "lapsed")
    }

    /// Whether the ledger has paid something out since then, or may have if nothing is known of before.
    fn has_paid_out_since(&self, before: Option<&Self>) -> bool {
        match before {
            Some(before) => {
                before.is_live() && !self.is_live() || before.info.withdrawn < self.info.withdrawn
            }
            None => !self.is_live(),
        }
    }
}

/// A new view of a channel, to be shown once it is durable.
#[derive(Debug)]
pub struct Publication {
    sender: Arc<watch::Sender<View>>,
    view: View,
    /// Where the channel is counted.
    channels: Arc<Listing>,
    /// Whether the channel is new, and listed from then on.
    is_new: bool,
}

impl Publication {
    /// Shows it.
    pub fn publish(self) {
        let Self { sender, view, channels, is_new } = self;
        let (id, now) = (view.info.id, Counted::of(&view));
        let (before, has_paid_out) = {
            let before = (!is_new).then(|| sender.borrow());
            (before.as_deref().and_then(Counted::of), view.has_paid_out_since(before.as_deref()))
        };
        if has_paid_out || !is_new && now != before {
            let mut channels = channels.write();
            channels.paid_out.extend(has_paid_out.then(|| view.open.party(view.info.side).payout));
            if !is_new {
                channels.count(before, now);
            }
        }
        sender.send_modify(|shown| {
            // Whether the peer is connected is not stored and follows the links at once.
            let connected = shown.info.connected;
            *shown = view;
            shown.info.connected = connected;
        });
        if is_new {
            channels.list(id, sender, now);
        }
    }
}

/// What is kept of a channel for others.
#[derive(Debug)]
enum Shown {
    /// Its newest view, and who follows it.
    Awake(Arc<watch::Sender<View>>),
    /// Nothing: its records say all.
    Resting(Brief),
}

/// What finds a channel at rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    pub(super) peer: PublicKey,
    pub(super) side: Side,
    /// Another one each time that a channel comes to rest: what was read of its records counts only if it rested all
    /// the while, as they change together.
    rests: u64,
}

impl Brief {
    /// A channel that rests since the start.
    pub(super) const fn new(peer: PublicKey, side: Side) -> Self {
        Self { peer, side, rests: 0 }
    }
}

/// As what a live channel is counted, so that nobody has to look at all of them to know how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    peer: PublicKey,
    /// Whether the peer has proposed it and it is not on the ledger yet.
    is_proposed: bool,
}

impl Counted {
    /// Nothing for a channel that is over.
    fn of(view: &View) -> Option<Self> {
        let is_proposed = view.info.side == Side::B && view.info.state == "opening";
        view.is_live().then_some(Self { peer: view.info.peer, is_proposed })
    }
}

#[derive(Debug, Default)]
struct Channels {
    shown: BTreeMap<ChannelId, Shown>,
    /// In the order in which they were listed.
    listed: Vec<ChannelId>,
    /// How many live channels there are with each peer that has any.
    live_with: HashMap<PublicKey, usize>,
    /// How many of all were proposed by peers and are not on the ledger yet.
    proposed: usize,
    /// How often a channel has come to rest.
    rests: u64,
    /// How often the peer of a channel became another machine.
    moves: u64,
    /// The addresses of this side to which channels have paid out since that was asked last.
    paid_out: Vec<Address>,
}

impl Channels {
    /// Counts a channel as what it is now, no more as what it was before.
    fn count(&mut self, before: Option<Counted>, now: Option<Counted>) {
        if let Some(Counted { peer, is_proposed }) = now {
            let live = self.live_with.entry(peer).or_default();
            *live = live.saturating_add(1);
            self.proposed = self.proposed.saturating_add(usize::from(is_proposed));
        }
        if let Some(Counted { peer, is_proposed }) = before {
            self.proposed = self.proposed.saturating_sub(usize::from(is_proposed));
            if let Entry::Occupied(mut live) = self.live_with.entry(peer) {
                *live.get_mut() = live.get().saturating_sub(1);
                if *live.get() == 0 {
                    live.remove();
                }
            }
        }
    }
}

#[derive(Debug)]
struct Listing {
    channels: RwLock<Channels>,
    /// Rises with every channel that is added, so that others learn of it.
    added: watch::Sender<u64>,
}

impl Listing {
    fn read(&self) -> RwLockReadGuard<'_, Channels> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Channels> {
        self.channels.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, id: ChannelId, sender: Arc<watch::Sender<View>>, counted: Option<Counted>) {
        {
            let mut channels = self.write();
            channels.shown.insert(id, Shown::Awake(sender));
            channels.listed.push(id);
            channels.count(None, counted);
        }
        self.tell();
    }

    fn tell(&self) {
        self.added.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// How far somebody has looked through the channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    listed: usize,
    moves: u64,
}

impl Shown {
    fn is_live(&self) -> bool {
        match self {
            Self::Awake(sender) => sender.borrow().is_live(),
            Self::Resting(_) => true,
        }
    }
}

/// All channels as they are seen; cheap to clone.
#[derive(Clone, Debug)]
pub struct Views {
    channels: Arc<Listing>,
    records: Records,
}

/// Whoever names a channel that is not there is told this.
pub(super) fn unknown(id: ChannelId) -> ApiError {
    let message = format!("there is no channel {id}");
    ApiError::new(ErrorCode::UnknownChannel, message, "list the channels with `flash channel list --all`")
}

impl Views {
    /// No channels yet; those at rest are read from here.
    pub(super) fn new(records: Records) -> Self {
        let channels = Listing { channels: RwLock::default(), added: watch::Sender::new(0) };
        Self { channels: Arc::new(channels), records }
    }

    /// Lists channels that rest since the start, in the order of their ids. To be called first.
    pub(super) fn list_resting(&self, resting: Vec<(ChannelId, Brief)>) {
        let mut channels = self.channels.write();
        for (_, brief) in &resting {
            // One that a peer has proposed and that is not on the ledger yet is awake.
            channels.count(None, Some(Counted { peer: brief.peer, is_proposed: false }));
        }
        channels.listed = resting.iter().map(|(id, _)| *id).collect();
        channels.shown = resting.into_iter().map(|(id, brief)| (id, Shown::Resting(brief))).collect();
    }

    /// A view to be shown once it is durable, by the channel's sender. Without one the channel is new: it
    /// gets one, and is listed when the view is shown.
    pub(super) fn publication(
        &self,
        sender: &mut Option<Arc<watch::Sender<View>>>,
        view: View,
    ) -> Publication {
        let is_new = sender.is_none();
        let sender = sender.get_or_insert_with(|| Arc::new(watch::Sender::new(view.clone())));
        Publication { sender: Arc::clone(sender), view, channels: Arc::clone(&self.channels), is_new }
    }

    /// The sender of a channel that wakes; `view` is what its records say. From now on they may change.
    pub(super) fn wake(&self, id: ChannelId, view: View) -> Arc<watch::Sender<View>> {
        let mut channels = self.channels.write();
        if let Some(Shown::Awake(sender)) = channels.shown.get(&id) {
            return Arc::clone(sender); // somebody follows it
        }
        let sender = Arc::new(watch::Sender::new(view));
        channels.shown.insert(id, Shown::Awake(Arc::clone(&sender)));
        sender
    }

    /// The channel comes to rest; what is on the disk is all that there is of it. False if somebody follows it.
    pub(super) fn rest(&self, id: ChannelId, brief: Brief) -> bool {
        let mut channels = self.channels.write();
        if let Some(Shown::Awake(sender)) = channels.shown.get(&id)
            && sender.receiver_count() > 0
        {
            return false;
        }
        channels.rests = channels.rests.wrapping_add(1);
        let rests = channels.rests;
        channels.shown.insert(id, Shown::Resting(Brief { rests, ..brief }));
        true
    }

    /// What `awake` makes of a channel's sender; of a channel at rest what `resting` makes of its view, if it rested while
    /// that was read.
    fn with<T>(
        &self,
        id: ChannelId,
        awake: impl Fn(&Arc<watch::Sender<View>>) -> T,
        resting: impl Fn(&mut Shown, View) -> T,
    ) -> Result<T, ApiError> {
        loop {
            let before = match self.channels.read().shown.get(&id) {
                None => return Err(unknown(id)),
                Some(Shown::Awake(sender)) => return Ok(awake(sender)),
                Some(Shown::Resting(brief)) => brief.rests,
            };
            let view = self.records.view(id);
            let mut channels = self.channels.write();
            if let Some(shown) = channels.shown.get_mut(&id)
                && matches!(shown, Shown::Resting(Brief { rests, .. }) if *rests == before)
            {
                let view = view.inspect_err(|error| self.records.stop.fail_store(error))?;
                return Ok(resting(shown, view));
            }
            // It was woken meanwhile.
        }
    }

    /// How many channels that peers have proposed are not on the ledger yet.
    pub fn proposed(&self) -> usize {
        self.channels.read().proposed
    }

    /// Tells those who follow [`Views::added`] that the peer of a channel is another machine now.
    pub fn moved(&self) {
        {
            let mut channels = self.channels.write();
            channels.moves = channels.moves.wrapping_add(1);
        }
        self.channels.tell();
    }

    /// Changes whenever a channel is added, or its peer is another machine.
    pub fn added(&self) -> watch::Receiver<u64> {
        self.channels.added.subscribe()
    }

    /// The addresses of this side to which channels have paid out since this was called last; since the start, those of all
    /// channels that are over.
    pub fn take_paid_out(&self) -> Vec<Address> {
        std::mem::take(&mut self.channels.write().paid_out)
    }

    /// Follows one channel.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`]; [`ErrorCode::StoreFailed`].
    pub fn follow(&self, id: ChannelId) -> Result<watch::Receiver<View>, ApiError> {
        self.with(
            id,
            |sender| sender.subscribe(),
            |shown, view| {
                let sender = Arc::new(watch::Sender::new(view));
                let receiver = sender.subscribe();
                *shown = Shown::Awake(sender);
                receiver
            },
        )
    }

    /// One channel as it is now.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`]; [`ErrorCode::StoreFailed`].
    pub fn get(&self, id: ChannelId) -> Result<View, ApiError> {
        self.with(id, |sender| sender.borrow().clone(), |_, view| view)
    }

    /// All channels, newest first.
    ///
    /// # Errors
    /// [`ErrorCode::StoreFailed`].
    pub fn all(&self) -> Result<Vec<View>, ApiError> {
        let ids = self.select(true, .., usize::MAX);
        let mut all = ids.into_iter().map(|id| self.get(id)).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(|view| std::cmp::Reverse(view.info.created_ms));
        Ok(all)
    }

    /// The first ids of channels in a range, in their order; of those that are over as well if `all`.
    pub fn select(&self, all: bool, ids: impl RangeBounds<ChannelId>, limit: usize) -> Vec<ChannelId> {
        let channels = self.channels.read();
        let selected = channels.shown.range(ids).filter(|(_, shown)| all || shown.is_live());
        selected.map(|(id, _)| *id).take(limit).collect()
    }

    /// How many live channels there are with a peer.
    pub fn live_with(&self, peer: &PublicKey) -> usize {
        self.channels.read().live_with.get(peer).copied().unwrap_or(0)
    }

    /// The live channels with a peer among those that were listed since somebody has looked last, and which party we are in
    /// each. Where the peer of any is another machine since then, all are looked at again.
    pub fn new_with(&self, peer: &PublicKey, looked: &mut Looked) -> Vec<(ChannelId, Side)> {
        let channels = self.channels.read();
        let from = if looked.moves == channels.moves { looked.listed } else { 0 };
        *looked = Looked { listed: channels.listed.len(), moves: channels.moves };
        if !channels.live_with.contains_key(peer) {
            return Vec::new();
        }
        let side = |shown: &Shown| match shown {
            Shown::Awake(sender) => {
                let view = sender.borrow();
                (view.is_live() && view.info.peer == *peer).then_some(view.info.side)
            }
            Shown::Resting(brief) => (brief.peer == *peer).then_some(brief.side),
        };
        let listed = channels.listed.get(from..).unwrap_or_default();
        listed.iter().filter_map(|id| Some((*id, side(channels.shown.get(id)?)?))).collect()
    }

    /// Ids of all live channels.
    pub fn live(&self) -> Vec<ChannelId> {
        self.select(false, .., usize::MAX)
    }

    /// How many these are.
    pub fn live_count(&self) -> usize {
        self.channels.read().shown.values().filter(|shown| shown.is_live()).count()
    }

    /// Whether there is a live channel with this id.
    pub fn is_live(&self, id: ChannelId) -> bool {
        self.channels.read().shown.get(&id).is_some_and(Shown::is_live)
    }

    /// Channels that were listed after the first `known` ones; from then on they are among these.
    pub fn listed_from(&self, known: &mut usize) -> Vec<ChannelId> {
        let channels = self.channels.read();
        let listed = channels.listed.get(*known..).unwrap_or_default().to_vec();
        *known = channels.listed.len();
        listed
    }

    /// Whether a channel is at rest and nobody follows it.
    #[cfg(test)]
    pub(super) fn is_resting(&self, id: ChannelId) -> bool {
        matches!(self.channels.read().shown.get(&id), Some(Shown::Resting(_)))
    }
}
