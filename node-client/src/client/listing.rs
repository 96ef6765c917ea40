//! Lists: each entry is proven, but no node can prove that it leaves none out. All nodes that are in step are
//! asked, and what one of them shows counts.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
    hash::Hash,
};

use flash_proto::{Address, ChannelId, ChannelRecord, Output, OutputId, PublicKey, Side};

use futures_util::{TryStreamExt, stream::FuturesUnordered};

use super::{ClientError, NodeClient, Proven, Shared, link::Link};
use crate::{
    ledger::state_tree::Proof,
    light::{LightCore, LightError},
    protocol::{ADDRESSES_MAX, CHANNELS_MAX, NodeRequest, NodeResponse, OUTPUTS_MAX, PARTIES_MAX},
};

/// How often lists are begun again because a milestone came between.
const LISTINGS_MAX: usize = 8;

/// Requests of one list that are under way at once at each node.
const PARTS_AT_ONCE: usize = 8;

/// A part of what a node lists, with its milestone: entries in rising order of their ids.
type Page<L> = (u64, Vec<(<L as Listed>::Id, <L as Listed>::Value, Proof)>);
/// Entries, each proven.
type Listing<L> = Proven<Vec<(<L as Listed>::Id, <L as Listed>::Value)>>;

/// A kind of thing that nodes list.
trait Listed {
    /// What it is found by.
    type By: Copy + Eq + Hash;
    type Id: Copy + Ord + Hash + Display;
    type Value: Clone;
    /// What to call one.
    const NAME: &'static str;
    /// How many a request names.
    const BY_MAX: usize;
    /// How many an answer holds if there are more.
    const PAGE_MAX: usize;

    fn request(by: Vec<Self::By>, after: Option<Self::Id>) -> NodeRequest;
    /// `None` if that is the answer to another question.
    fn page(answer: NodeResponse) -> Option<Page<Self>>
    where
        Self: Sized;
    fn is_found_by(value: &Self::Value, by: &HashSet<&Self::By>) -> bool;
    fn check(
        core: &mut LightCore,
        id: Self::Id,
        milestone_index: u64,
        value: &Self::Value,
        proof: &Proof,
    ) -> Result<(), LightError>;
}

/// Unspent outputs by their address.
struct Outputs;

impl Listed for Outputs {
    type By = Address;
    type Id = OutputId;
    type Value = Output;
    const NAME: &'static str = "output";
    const BY_MAX: usize = ADDRESSES_MAX;
    const PAGE_MAX: usize = OUTPUTS_MAX;

    fn request(addresses: Vec<Address>, after: Option<OutputId>) -> NodeRequest {
        NodeRequest::OutputsOf { addresses, after }
    }

    fn page(answer: NodeResponse) -> Option<Page<Self>> {
        match answer {
            NodeResponse::Outputs { milestone_index, outputs } => Some((milestone_index, outputs)),
            _ => None,
        }
    }

    fn is_found_by(output: &Output, addresses: &HashSet<&Address>) -> bool {
        addresses.contains(&output.address)
    }

    fn check(
        core: &mut LightCore,
        id: OutputId,
        milestone_index: u64,
        output: &Output,
        proof: &Proof,
    ) -> Result<(), LightError> {
        core.output(id, milestone_index, Some(output), proof)
    }
}

/// Channels by the keys of their parties.
struct Channels;

impl Listed for Channels {
    type By = PublicKey;
    type Id = ChannelId;
    type Value = ChannelRecord;
    const NAME: &'static str = "channel";
    const BY_MAX: usize = PARTIES_MAX;
    const PAGE_MAX: usize = CHANNELS_MAX;

    fn request(parties: Vec<PublicKey>, after: Option<ChannelId>) -> NodeRequest {
        NodeRequest::ChannelsOf { parties, after }
    }

    fn page(answer: NodeResponse) -> Option<Page<Self>> {
        match answer {
            NodeResponse::Channels { milestone_index, channels } => Some((milestone_index, channels)),
            _ => None,
        }
    }

    fn is_found_by(record: &ChannelRecord, parties: &HashSet<&PublicKey>) -> bool {
        Side::BOTH.iter().any(|side| parties.contains(&record.party(*side).key))
    }

    fn check(
        core: &mut LightCore,
        id: ChannelId,
        milestone_index: u64,
        record: &ChannelRecord,
        proof: &Proof,
    ) -> Result<(), LightError> {
        core.channel(id, milestone_index, Some(record), proof)
    }
}

impl NodeClient {
    /// The unspent outputs at these addresses, each proven. Those at one address, and at 256 that follow each other here,
    /// are of one milestone: the one that is returned, or a later one; and that is the newest that was known when this
    /// was called, or a later one. All nodes that are in step are asked, and one that leaves an output out is named; an
    /// output that all of them leave out is missed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn outputs_of(
        &self,
        addresses: &[Address],
    ) -> Result<Proven<Vec<(OutputId, Output)>>, ClientError> {
        self.shared().everywhere::<Outputs>(addresses).await
    }

    /// The channels that have one of these keys as a party's, each proven as above. They are open or closing:
    /// one that is paid out has left the ledger.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn channels_of(
        &self,
        parties: &[PublicKey],
    ) -> Result<Proven<Vec<(ChannelId, ChannelRecord)>>, ClientError> {
        self.shared().everywhere::<Channels>(parties).await
    }
}

impl Shared {
    /// What all nodes that are in step prove, with the milestone of the oldest part: as many as a request names are of one.
    async fn everywhere<L: Listed>(&self, by: &[L::By]) -> Result<Listing<L>, ClientError> {
        let newest = self.core().newest().index;
        let (mut oldest, mut all) = (None, BTreeMap::new());
        for chunks in by.chunks(L::BY_MAX.saturating_mul(PARTS_AT_ONCE)) {
            let mut parts = FuturesUnordered::new();
            for chunk in chunks.chunks(L::BY_MAX) {
                parts.push(self.together::<L>(newest, chunk));
            }
            while let Some(Proven { milestone_index, value }) = parts.try_next().await? {
                oldest = Some(oldest.map_or(milestone_index, |oldest: u64| oldest.min(milestone_index)));
                all.extend(value);
            }
        }
        Ok(Proven { milestone_index: oldest.unwrap_or(newest), value: all.into_iter().collect() })
    }

    /// What all nodes that are in step prove together of one milestone, for as many as a request names.
    async fn together<L: Listed>(
        &self,
        newest: u64,
        by: &[L::By],
    ) -> Result<Proven<BTreeMap<L::Id, L::Value>>, ClientError> {
        let mut listings = Vec::new();
        for _ in 0..LISTINGS_MAX {
            listings = self.all(newest, |link| self.listing::<L>(link, newest, by)).await?;
            let first = listings.first().map(|(_, listing)| listing.milestone_index);
            if listings.iter().all(|(_, listing)| Some(listing.milestone_index) == first) {
                break;
            }
        }
        let index = listings.iter().map(|(_, listing)| listing.milestone_index).max().unwrap_or(newest);
        listings.retain(|(_, listing)| listing.milestone_index == index);
        let entries = listings.iter().flat_map(|(_, listing)| listing.value.iter().cloned());
        let all: BTreeMap<L::Id, L::Value> = entries.collect();
        for (link, listing) in listings.iter().filter(|(_, listing)| listing.value.len() < all.len()) {
            let shown: HashSet<L::Id> = listing.value.iter().map(|(id, _)| *id).collect();
            if let Some(missing) = all.keys().find(|id| !shown.contains(id)) {
                let name = L::NAME;
                self.lied(link, format!("it leaves out {name} {missing}, there at milestone {index}"));
            }
        }
        Ok(Proven { milestone_index: index, value: all })
    }

    /// What one node lists, all of one milestone.
    async fn listing<L: Listed>(
        &self,
        link: Link,
        newest: u64,
        by: &[L::By],
    ) -> Result<Listing<L>, ClientError> {
        for _ in 0..LISTINGS_MAX {
            if let Some(listing) = self.pages::<L>(&link, newest, by).await? {
                return Ok(listing);
            }
        }
        let what = format!("milestones come faster than it lists each {}", L::NAME);
        Err(ClientError::Stale { node: link.node, what })
    }

    /// `None` if a milestone came between two pages.
    async fn pages<L: Listed>(
        &self,
        link: &Link,
        newest: u64,
        by: &[L::By],
    ) -> Result<Option<Listing<L>>, ClientError> {
        let mut listing = self.page::<L>(link, newest, by, None).await?;
        let mut full = listing.value.len() >= L::PAGE_MAX;
        while full {
            let after = listing.value.last().map(|(id, _)| *id);
            let page = self.page::<L>(link, newest, by, after).await?;
            if page.milestone_index != listing.milestone_index {
                return Ok(None);
            }
            full = page.value.len() >= L::PAGE_MAX;
            listing.value.extend(page.value);
        }
        Ok(Some(listing))
    }

    async fn page<L: Listed>(
        &self,
        link: &Link,
        newest: u64,
        by: &[L::By],
        after: Option<L::Id>,
    ) -> Result<Listing<L>, ClientError> {
        let answer = self.ask(link, &L::request(by.to_vec(), after)).await?;
        let Some((milestone_index, entries)) = L::page(answer) else { return Err(self.unexpected(link)) };
        self.reach(link, newest, milestone_index).await?;
        let wanted: HashSet<&L::By> = by.iter().collect();
        let mut last = after;
        let mut value = Vec::with_capacity(entries.len());
        for (id, entry, proof) in entries {
            if !L::is_found_by(&entry, &wanted) || last.is_some_and(|last| id <= last) {
                let what = format!("in a list, {} {id} that was not asked for, or out of order", L::NAME);
                return Err(self.lied(link, what));
            }
            let checked = L::check(&mut self.core(), id, milestone_index, &entry, &proof);
            self.judge(link, checked)?;
            last = Some(id);
            value.push((id, entry));
        }
        Ok(Proven { milestone_index, value })
    }
}
