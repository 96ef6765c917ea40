//! What makes a snapshot one to start from. It is read once, from beginning to end; whoever takes it over
//! sees each part after it was checked as far as it can be by then, and may use nothing of it before the
//! end is reached.

use std::io::Read;

use flash_proto::{
    Amount, Block, CoordinatorHistory, Hash, Milestone, MilestoneEssence, NetworkParams, Payload, StateKey,
};

use super::format::{Carried, Entries, Header, Parts, Recent, SnapshotError};
use crate::{
    ledger::{LedgerBuilder, LedgerState, StateValue, genesis::genesis_essence, merkle},
    light::Checkpoint,
    tangle::CONFIRMED_MILESTONES,
};

/// A verified snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The milestone, and the coordinators up to it: a light core may start here, too.
    pub checkpoint: Checkpoint,
    /// Unspent outputs.
    pub outputs: u64,
    /// Channels.
    pub channels: u64,
    /// The digest of all bytes: two snapshots with one digest are the same.
    pub digest: Hash,
    /// Bytes.
    pub bytes: u64,
}

/// A part that was checked.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// A milestone from before the recent ones that hands over to others.
    HandOver(&'a Carried),
    Recent(&'a Recent),
    /// The block of the last milestone.
    Block(&'a [u8]),
}

/// The first of the milestones whose blocks new ones may approve when `index` is the newest.
pub(super) const fn first_recent(index: u64) -> u64 {
    let first = index.saturating_sub(CONFIRMED_MILESTONES).saturating_add(1);
    if first == 0 { 1 } else { first }
}

/// Reads and checks a snapshot; hands out its parts as they come, and in the end the state.
pub(super) fn read(
    params: &NetworkParams,
    input: impl Read,
    take: &mut impl FnMut(Part<'_>) -> Result<(), SnapshotError>,
) -> Result<(SnapshotInfo, LedgerState), SnapshotError> {
    let mut parts = Parts::new(input)?;
    let header: Header = parts.next()?.ok_or(SnapshotError::Part("header"))?;
    if header.network != params.id() {
        return Err(SnapshotError::Network(header.network));
    }
    if header.index == 0 {
        return Err(SnapshotError::Genesis);
    }
    let coordinators = hand_overs(&mut parts, params, header.index, take)?;
    let (last, coordinators) = recent(&mut parts, params, header.index, coordinators, take)?;
    if last.milestone.id() != header.milestone {
        return Err(SnapshotError::Part("header"));
    }
    block(&mut parts, params, &last, take)?;
    let essence = last.milestone.essence;
    let state = state(&mut parts, &essence)?;
    let (digest, bytes) = parts.finish()?;
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (outputs, channels) = (count(state.outputs_count()), count(state.channels_count()));
    let checkpoint = Checkpoint { essence, coordinators };
    Ok((SnapshotInfo { checkpoint, outputs, channels, digest, bytes }, state))
}

fn verify(coordinators: &CoordinatorHistory, milestone: &Milestone) -> Result<(), SnapshotError> {
    let index = milestone.essence.index;
    coordinators.verify(milestone).map_err(|error| SnapshotError::Milestone { index, error })
}

/// The chain of trust: each set of coordinators is named by a milestone that the one before it signed.
fn hand_overs(
    parts: &mut Parts<impl Read>,
    params: &NetworkParams,
    newest: u64,
    take: &mut impl FnMut(Part<'_>) -> Result<(), SnapshotError>,
) -> Result<CoordinatorHistory, SnapshotError> {
    let mut coordinators = CoordinatorHistory::new(params);
    let mut after = 0;
    while let Some(carried) = parts.next::<Carried>()? {
        let essence = &carried.milestone.essence;
        if essence.next.is_none() || essence.index <= after || essence.index >= first_recent(newest) {
            return Err(SnapshotError::Part("list of hand-overs"));
        }
        verify(&coordinators, &carried.milestone)?;
        coordinators.follow(essence);
        after = essence.index;
        take(Part::HandOver(&carried))?;
    }
    Ok(coordinators)
}

/// The milestones up to the last one, without a gap, with the blocks and channels to which they commit.
fn recent(
    parts: &mut Parts<impl Read>,
    params: &NetworkParams,
    newest: u64,
    mut coordinators: CoordinatorHistory,
    take: &mut impl FnMut(Part<'_>) -> Result<(), SnapshotError>,
) -> Result<(Carried, CoordinatorHistory), SnapshotError> {
    let first = first_recent(newest);
    let mut before: Option<MilestoneEssence> = (first == 1).then(|| genesis_essence(params));
    let mut last = None;
    let mut wanted = first;
    while let Some(recent) = parts.next::<Recent>()? {
        let milestone = &recent.carried.milestone;
        let index = milestone.essence.index;
        if index != wanted || index > newest {
            return Err(SnapshotError::Part("list of milestones"));
        }
        verify(&coordinators, milestone)?;
        let followed = before.map_or(Ok(()), |before| milestone.essence.follows(&before));
        followed.map_err(|error| SnapshotError::Milestone { index, error })?;
        check_lists(&recent)?;
        coordinators.follow(&milestone.essence);
        take(Part::Recent(&recent))?;
        before = Some(milestone.essence.clone());
        last = Some(recent.carried);
        wanted = wanted.saturating_add(1);
    }
    match last {
        Some(last) if last.milestone.essence.index == newest => Ok((last, coordinators)),
        _ => Err(SnapshotError::Part("list of milestones")),
    }
}

fn check_lists(recent: &Recent) -> Result<(), SnapshotError> {
    let essence = &recent.carried.milestone.essence;
    let lists = [
        ("confirmed blocks", &recent.included, essence.included_root),
        ("changed channels", &recent.touched, essence.channels_root),
    ];
    for (what, ids, root) in lists {
        if merkle::root(ids.iter().copied()) != root {
            return Err(SnapshotError::Root { index: essence.index, what });
        }
    }
    Ok(())
}

/// The block that carries the last milestone: the next one approves it.
fn block(
    parts: &mut Parts<impl Read>,
    params: &NetworkParams,
    last: &Carried,
    take: &mut impl FnMut(Part<'_>) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let wrong = || SnapshotError::Part("last milestone's block");
    let bytes: Vec<u8> = parts.next()?.ok_or_else(wrong)?;
    let block = Block::from_bytes(&bytes, params.pow_bits).map_err(|_| wrong())?;
    let carried = matches!(&block.payload, Payload::Milestone(carried) if **carried == last.milestone);
    if !carried || Block::id_of(&bytes) != last.block {
        return Err(wrong());
    }
    take(Part::Block(&bytes))?;
    match parts.next::<Vec<u8>>()? {
        None => Ok(()),
        Some(_) => Err(wrong()),
    }
}

/// The whole state, to which the milestone commits.
fn state(parts: &mut Parts<impl Read>, essence: &MilestoneEssence) -> Result<LedgerState, SnapshotError> {
    let mut builder = LedgerBuilder::default();
    let mut last: Option<StateKey> = None;
    while let Some(entries) = parts.next::<Entries>()? {
        for (key, value) in &entries {
            // Each key once, and one order for all.
            if last.is_some_and(|last| *key <= last) {
                return Err(SnapshotError::Order);
            }
            last = Some(*key);
            match (key, value) {
                (StateKey::Output(_), StateValue::Output(_))
                | (StateKey::Channel(_), StateValue::Channel(_)) => builder.add(key, value),
                _ => return Err(SnapshotError::Part("state")),
            }
        }
    }
    let state = builder.finish().ok_or(SnapshotError::Supply)?;
    if state.root() != essence.state_root {
        return Err(SnapshotError::Root { index: essence.index, what: "outputs and channels" });
    }
    if state.in_outputs().checked_add(state.in_channels()) != Some(Amount::SUPPLY) {
        return Err(SnapshotError::Supply);
    }
    Ok(state)
}
