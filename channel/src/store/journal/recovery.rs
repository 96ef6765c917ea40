//! Opening: what the journal has and the tree does not is taken into memory again.

use std::{fs, path::Path};

use super::{
    super::StoreError,
    Writer,
    base::Base,
    segment::{self, Frame, HEADER_BYTES, Segment, body_offset},
    state::{Extent, State},
};

/// How far the tree is, and how much of each file of the journal is needed by what it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the newest commit in the tree.
    pub(super) newest: u64,
    /// Where the frame of the next one is.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Files and the bytes of values that are needed, where there are any.
    pub(super) live: Vec<(u64, u64)>,
}

impl Mark {
    const fn first() -> Self {
        Self { newest: 0, segment: 1, offset: HEADER_BYTES, live: Vec::new() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let live = self.live.iter().flat_map(|(segment, bytes)| [*segment, *bytes]);
        [self.newest, self.segment, self.offset].into_iter().chain(live).flat_map(u64::to_le_bytes).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let ([newest, segment, offset], live) = numbers.split_first_chunk::<3>()?;
        let (pairs, left) = live.as_chunks::<2>();
        let live = pairs.iter().map(|[segment, bytes]| (*segment, *bytes)).collect();
        let mark = Self { newest: *newest, segment: *segment, offset: *offset, live };
        (rest.is_empty() && left.is_empty()).then_some(mark)
    }
}

fn damaged(what: String) -> StoreError {
    StoreError::Damaged(what)
}

/// Reads the journal in `directory` from where the tree is.
pub(super) fn recover(directory: &Path, base: &Base) -> Result<(Writer, State), StoreError> {
    let mark = base.mark()?;
    segment::remove_spares(directory)?;
    let mut numbers = segment::list(directory)?;
    if let Some(newest) = numbers.last().copied()
        && fs::metadata(segment::path(directory, newest))?.len() <= HEADER_BYTES
        && Segment::open(directory, newest)?.is_none()
    {
        // Its making was cut short, so nothing was ever in it.
        fs::remove_file(segment::path(directory, newest))?;
        numbers.pop();
    }
    if numbers.is_empty() && mark.is_none() {
        let segment = Segment::create(directory, 1, 1)?;
        let mut state = State::default();
        state.segments.insert(1, Extent { bytes: HEADER_BYTES, live: 0 });
        return Ok((Writer::new(segment, HEADER_BYTES, 0), state));
    }
    let mark = match mark {
        Some(bytes) => Mark::from_bytes(&bytes).ok_or_else(|| damaged("the tree's mark".to_owned()))?,
        None => Mark::first(),
    };
    let mut state = State::default();
    for number in &numbers {
        let bytes = fs::metadata(segment::path(directory, *number))?.len();
        state.segments.insert(*number, Extent { bytes, live: 0 });
    }
    for (segment, live) in &mark.live {
        state.segments.entry(*segment).or_default().live = *live;
    }
    let writer = replay(directory, base, &mark, &numbers, &mut state)?;
    if let Some((missing, _)) = state
        .segments
        .iter()
        .find(|(number, extent)| extent.live > 0 && numbers.binary_search(number).is_err())
    {
        return Err(damaged(format!("file {missing} of the journal is missing")));
    }
    state.segments.retain(|number, _| numbers.binary_search(number).is_ok());
    Ok((writer, state))
}

/// Takes over all commits behind the mark, and gives back the end of the journal.
fn replay(
    directory: &Path,
    base: &Base,
    mark: &Mark,
    numbers: &[u64],
    state: &mut State,
) -> Result<Writer, StoreError> {
    let missing = |newest: u64| damaged(format!("the commits after {newest} are missing from the journal"));
    let (mut newest, mut last) = (mark.newest, None);
    for number in numbers.iter().copied().filter(|number| *number >= mark.segment) {
        let segment = Segment::open(directory, number)?
            .ok_or_else(|| damaged(format!("the head of file {number} of the journal")))?;
        let offset = if number == mark.segment { mark.offset } else { HEADER_BYTES };
        let first = newest.saturating_add(1);
        if segment.file.metadata()?.len() < offset {
            return Err(missing(newest));
        }
        if number != mark.segment && segment.first != first {
            return Err(damaged(format!("commit {first} of the journal, before its file {number}")));
        }
        let end = replay_segment(&segment, base, offset, &mut newest, state)?;
        let len = segment.file.metadata()?.len();
        let is_last = numbers.last() == Some(&number);
        if is_last && end < len {
            if segment.continues(newest, end)? {
                let commit = newest.saturating_add(1);
                return Err(damaged(format!("commit {commit} in file {number} of the journal")));
            }
            // Room for commits, or one that was cut short and never acknowledged.
            segment.file.set_len(end)?;
            segment.file.sync_all()?;
        }
        state.segments.entry(number).or_default().bytes = if is_last { end } else { len };
        last = Some(Writer::new(segment, end, newest));
    }
    last.ok_or_else(|| missing(newest))
}

/// Takes over the commits of one file from `offset` on, and gives back where they end.
fn replay_segment(
    segment: &Segment,
    base: &Base,
    mut offset: u64,
    newest: &mut u64,
    state: &mut State,
) -> Result<u64, StoreError> {
    loop {
        let number = newest.saturating_add(1);
        let Frame::Whole(body) = segment.read(number, offset)? else { return Ok(offset) };
        state.take_frame(base, segment.number, offset, &body)?;
        *newest = number;
        offset = body_offset(offset).saturating_add(body.len() as u64);
    }
}
