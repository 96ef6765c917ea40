//! The files of the journal: a header, and behind it one frame for each commit.
//!
//! ```text
//! header   magic 8 ‖ segment u64 ‖ number of its first commit u64 ‖ salt u64 ‖ crc32 u32
//! frame    crc32 u32 ‖ bytes of the body u32 ‖ number of the commit, by xor with the salt u64 ‖ body
//! body     changes: table u8 ‖ kind u8 ‖ bytes of the key u8 ‖ bytes of the value u32 ‖ key ‖ value
//! ```
//!
//! Behind the last frame there may be zeros, or frames of the file that it was before. All integers are
//! little-endian; a value has its envelope around it, so that it can be read where it stands. A frame's checksum begins with
//! the salt of its file, and its number is hidden by it: neither what a peer has put into a payment nor what is left of an older
//! file is ever taken for a frame.

use std::{
    fs::{self, File},
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::super::{Batch, StoreError, envelope};

const MAGIC: [u8; 8] = *b"FLASHJ02";
pub(super) const HEADER_BYTES: u64 = 36;
const FRAME_HEADER_BYTES: usize = 16;
const CHANGE_HEADER_BYTES: usize = 7;
/// Ends the name of a file that is to be written again.
const SPARE: &str = ".spare";
/// The bits of a change's kind.
const PUT: u8 = 1;
const LARGE: u8 = 2;

/// A page of the kernel's cache.
const PAGE_BYTES: u64 = 4_096;
const PAGE: [u8; 4_096] = [0; 4_096];

/// Where a value stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Of the value with its envelope.
    pub(super) len: u32,
}

impl Place {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&self.segment.to_le_bytes()[..], &self.offset.to_le_bytes(), &self.len.to_le_bytes()].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (segment, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        rest.is_empty().then(|| Self {
            segment: u64::from_le_bytes(*segment),
            offset: u64::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
        })
    }
}

/// One change as it is written in a frame.
#[derive(Debug)]
pub(super) struct Written<'a> {
    pub(super) table: u8,
    pub(super) large: bool,
    pub(super) key: &'a [u8],
    /// The value in its envelope and where in the file it stands; `None` deletes.
    pub(super) value: Option<(&'a [u8], u64)>,
}

/// One file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The number of the first commit in it.
    pub(super) first: u64,
    salt: u64,
    pub(super) file: File,
}

/// What stands at a place of a file.
#[derive(Debug)]
pub(super) enum Frame {
    /// A whole frame of this body.
    Whole(Vec<u8>),
    /// Nothing more, or something that is no frame.
    None,
}

/// A number that nobody can know before.
#[allow(
    clippy::disallowed_types,
    reason = "nothing is put in order by it: it is the randomness of the standard library"
)]
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}"))
}

/// Where a file is kept that is to be written again.
pub(super) fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}{SPARE}"))
}

/// Keeps a file to be written again. Linux forgets what it has of it in memory: it keeps that in large pages, as which it was
/// written, and of one that is written to in two commits it counts all as written twice.
pub(super) fn keep_spare(directory: &Path, number: u64) -> io::Result<()> {
    let spare = spare_path(directory, number);
    fs::rename(path(directory, number), &spare)?;
    // Advice only: a file system that takes none keeps the file as well.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(File::open(spare)?, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Removes the files that were kept to be written again.
pub(super) fn remove_spares(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(SPARE)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The numbers of the files in a directory, rising.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    /// Makes a file; it and its name are on the disk when this returns.
    pub(super) fn create(directory: &Path, number: u64, first: u64) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path(directory, number))?;
        let segment = Self { number, first, salt: random(), file };
        segment.write_header()?;
        File::open(directory)?.sync_all()?;
        Ok(segment)
    }

    /// Makes a file of one that is kept. What was in it stays behind the header, so that commits need not grow it. It is
    /// on the disk when this returns.
    pub(super) fn create_from(spare: &Path, directory: &Path, number: u64, first: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(spare)?;
        let segment = Self { number, first, salt: random(), file };
        // The name comes last: under it there is always a whole header.
        segment.write_header()?;
        fs::rename(spare, path(directory, number))?;
        File::open(directory)?.sync_all()?;
        Ok(segment)
    }

    fn write_header(&self) -> io::Result<()> {
        let mut header = MAGIC.to_vec();
        for field in [self.number, self.first, self.salt] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        self.file.write_all_at(&header, 0)?;
        self.file.sync_all()
    }

    /// Opens a file; `None` if its header is not whole.
    pub(super) fn open(directory: &Path, number: u64) -> io::Result<Option<Self>> {
        let file = File::options().read(true).write(true).open(path(directory, number))?;
        let mut header = [0; 36];
        if file.metadata()?.len() < HEADER_BYTES {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let Some((fields, crc)) = header.split_last_chunk::<4>() else { return Ok(None) };
        let field = |index: usize| {
            let bytes = fields.get(index..).and_then(<[u8]>::first_chunk::<8>);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let whole = crc32fast::hash(fields).to_le_bytes() == *crc && fields.starts_with(&MAGIC);
        Ok((whole && field(8) == number).then(|| Self { number, first: field(16), salt: field(24), file }))
    }

    /// Writes a frame at `offset`. Where the file has a whole page at its end already, up to `filled`, zeros fill that page: of a
    /// page that it has not in memory Linux would read the rest from the disk first.
    pub(super) fn write(&self, frame: &mut Vec<u8>, offset: u64, filled: u64) -> io::Result<()> {
        let bytes = frame.len();
        let end = offset.saturating_add(bytes as u64);
        let page = end.next_multiple_of(PAGE_BYTES);
        if page <= filled {
            let zeros = usize::try_from(page.saturating_sub(end)).unwrap_or_default();
            frame.resize(bytes.saturating_add(zeros), 0);
        }
        let written = self.file.write_all_at(frame, offset);
        frame.truncate(bytes);
        written
    }

    /// Writes zeros, so that commits are written there without growing the file. A page at a time: in one piece Linux keeps
    /// them as one large page, and counts all of it as written with each commit in it.
    pub(super) fn make_room(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let next = at.saturating_add(1).next_multiple_of(PAGE_BYTES).min(to);
            let zeros = usize::try_from(next.saturating_sub(at)).unwrap_or_default();
            self.file.write_all_at(PAGE.get(..zeros).unwrap_or_default(), at)?;
            at = next;
        }
        Ok(())
    }

    /// Makes the frame of a commit, in `buffer`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a batch is larger than a frame can say.
    pub(super) fn frame(&self, number: u64, batch: &Batch, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES, 0);
        for (table, key, value) in batch.changes() {
            let kind = if value.is_some() { PUT } else { 0 } | if table.large { LARGE } else { 0 };
            let len = value.map_or(0, |value| value.len().saturating_add(envelope::HEADER_BYTES));
            buffer.extend_from_slice(&[table.id, kind, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
            buffer.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
            buffer.extend_from_slice(key);
            if let Some(value) = value {
                envelope::wrap_into(table, key, value, buffer);
            }
        }
        let bytes = body(buffer).len();
        let len = u32::try_from(bytes).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes are too many for one commit"))
        })?;
        let fields = [&len.to_le_bytes()[..], &(number ^ self.salt).to_le_bytes()].concat();
        let crc = self.checksum(&fields, body(buffer)).to_le_bytes();
        for (to, from) in buffer.iter_mut().zip(crc.iter().chain(&fields)) {
            *to = *from;
        }
        Ok(())
    }

    fn checksum(&self, fields: &[u8], body: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(fields);
        hasher.update(body);
        hasher.finalize()
    }

    /// The frame of commit `number` at `offset`.
    pub(super) fn read(&self, number: u64, offset: u64) -> io::Result<Frame> {
        let left = self.file.metadata()?.len().saturating_sub(offset);
        let mut header = [0; FRAME_HEADER_BYTES];
        if left < header.len() as u64 {
            return Ok(Frame::None);
        }
        self.file.read_exact_at(&mut header, offset)?;
        let (Some((crc, fields)), Some(len)) =
            (header.split_first_chunk::<4>(), body_len(&header, number ^ self.salt))
        else {
            return Ok(Frame::None);
        };
        if u64::from(len) > left.saturating_sub(header.len() as u64) {
            return Ok(Frame::None);
        }
        let mut body = vec![0; usize::try_from(len).unwrap_or_default()];
        self.file.read_exact_at(&mut body, body_offset(offset))?;
        let whole = self.checksum(fields, &body).to_le_bytes() == *crc;
        Ok(if whole { Frame::Whole(body) } else { Frame::None })
    }

    /// Whether anywhere behind `offset` there is a frame of a commit later than `number`: then what is at
    /// `offset` is not the end.
    pub(super) fn continues(&self, number: u64, offset: u64) -> io::Result<bool> {
        let len = self.file.metadata()?.len();
        let mut rest = vec![0; usize::try_from(len.saturating_sub(offset)).unwrap_or_default()];
        self.file.read_exact_at(&mut rest, offset)?;
        // No file has room for more frames than bytes.
        let numbers = number.saturating_add(1)..=number.saturating_add(len);
        for (at, window) in (offset..).zip(rest.windows(FRAME_HEADER_BYTES)) {
            let Some(hidden) = window.last_chunk::<8>() else { continue };
            let found = u64::from_le_bytes(*hidden) ^ self.salt;
            if numbers.contains(&found) && matches!(self.read(found, at)?, Frame::Whole(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads a value where it stands; `None` if its file is gone.
pub(super) fn read_value(directory: &Path, place: Place) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path(directory, place.segment)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut value = vec![0; usize::try_from(place.len).unwrap_or_default()];
    match file.read_exact_at(&mut value, place.offset) {
        // Cut off: what is missing shows as damage to whoever looks at the value.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Vec::new())),
        read => read.map(|()| Some(value)),
    }
}

/// The body in a frame.
pub(super) fn body(frame: &[u8]) -> &[u8] {
    frame.get(FRAME_HEADER_BYTES..).unwrap_or_default()
}

/// Where the body of the frame at `offset` begins.
pub(super) const fn body_offset(offset: u64) -> u64 {
    offset.saturating_add(FRAME_HEADER_BYTES as u64)
}

/// Bytes of the body, if the header has this number.
fn body_len(header: &[u8; FRAME_HEADER_BYTES], hidden: u64) -> Option<u32> {
    let (_crc, fields) = header.split_first_chunk::<4>()?;
    let (len, found) = fields.split_first_chunk::<4>()?;
    (found == hidden.to_le_bytes()).then(|| u32::from_le_bytes(*len))
}

/// The changes in a body that stands at `offset` of its file; `None` for one that makes no sense.
pub(super) fn changes(body: &[u8], offset: u64) -> impl Iterator<Item = Option<Written<'_>>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let change = change(rest, offset.saturating_add((body.len().saturating_sub(rest.len())) as u64));
        rest = change.as_ref().map_or(&[], |(_, rest)| rest);
        Some(change.map(|(written, _)| written))
    })
}

fn change(bytes: &[u8], offset: u64) -> Option<(Written<'_>, &[u8])> {
    let ([table, kind, key_len, value_len @ ..], rest) = bytes.split_first_chunk::<CHANGE_HEADER_BYTES>()?;
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_len)).ok()?)?;
    let before = CHANGE_HEADER_BYTES.saturating_add(key.len()) as u64;
    let value = (kind & PUT != 0).then_some((value, offset.saturating_add(before)));
    Some((Written { table: *table, large: kind & LARGE != 0, key, value }, rest))
}
