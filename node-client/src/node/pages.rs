//! Blocks on the disk: one after the other in pages, in the order in which they came. A page takes a
//! hundredth of the time that as many records would.

use bincode::{Decode, Encode};
use flash_channel::store::{Batch, LARGE_VALUE_BYTES_MAX, Store, Table};
use flash_proto::{Block, BlockId, limits::BLOCK_BYTES_MAX};

use super::NodeError;

/// Page number (big-endian) to blocks, each after its length (u32, little-endian).
pub(super) const PAGES: Table = Table::large(32, "blocks");
/// A page is full at so many bytes.
const PAGE_BYTES: usize = 48 * 1024;
const _: () = assert!(PAGE_BYTES + BLOCK_BYTES_MAX + 4 <= LARGE_VALUE_BYTES_MAX, "a page fits a value");

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Place {
    pub page: u64,
    /// Bytes of the page before it.
    pub offset: u32,
}

/// Writes blocks into new pages.
pub(super) struct Pages {
    next: u64,
    full: Vec<(u64, Vec<u8>)>,
    open: Vec<u8>,
}

impl Pages {
    /// Begins with page `next`.
    pub(super) const fn from(next: u64) -> Self {
        Self { next, full: Vec::new(), open: Vec::new() }
    }

    /// Adds a block, and says where.
    pub(super) fn push(&mut self, block: &[u8]) -> Result<Place, NodeError> {
        if self.open.len() >= PAGE_BYTES {
            self.close()?;
        }
        let too_long = |_| NodeError::Damaged("length of a block");
        let offset = u32::try_from(self.open.len()).map_err(too_long)?;
        self.open.extend(u32::try_from(block.len()).map_err(too_long)?.to_le_bytes());
        self.open.extend(block);
        Ok(Place { page: self.next, offset })
    }

    /// Puts all pages into a batch; the number of the page after them.
    pub(super) fn write(mut self, batch: &mut Batch) -> Result<u64, NodeError> {
        if !self.open.is_empty() {
            self.close()?;
        }
        for (number, page) in self.full {
            batch.put(PAGES, &number.to_be_bytes(), page);
        }
        Ok(self.next)
    }

    fn close(&mut self) -> Result<(), NodeError> {
        self.full.push((self.next, std::mem::take(&mut self.open)));
        self.next = self.next.checked_add(1).ok_or(NodeError::Counter)?;
        Ok(())
    }
}

/// Deletes a page.
pub(super) fn delete(batch: &mut Batch, page: u64) {
    batch.delete(PAGES, &page.to_be_bytes());
}

/// The last page that was read: blocks are mostly read in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Reader {
    last: Option<(u64, Vec<u8>)>,
    /// Where the block behind the last one stands in the page.
    behind: usize,
}

impl Reader {
    /// The block behind the last one in its page, if it is this one: its place need not be looked up then.
    pub(super) fn next(&mut self, id: &BlockId) -> Option<Vec<u8>> {
        let (_, page) = self.last.as_ref()?;
        let (block, rest) = first(page.get(self.behind..)?)?;
        if Block::id_of(block) != *id {
            return None;
        }
        self.behind = page.len().saturating_sub(rest.len());
        Some(block.to_vec())
    }

    /// The block at a place, or `None` if its page is gone.
    pub(super) fn block(&mut self, store: &dyn Store, place: Place) -> Result<Option<Vec<u8>>, NodeError> {
        if self.last.as_ref().is_none_or(|(number, _)| *number != place.page) {
            let Some(page) = store.get(PAGES, &place.page.to_be_bytes())? else { return Ok(None) };
            self.last = Some((place.page, page));
        }
        let page = self.last.as_ref().map_or(&[][..], |(_, page)| page);
        let offset = usize::try_from(place.offset).ok();
        let found = offset.and_then(|offset| page.get(offset..)).and_then(first);
        let (block, rest) = found.ok_or(NodeError::Damaged("page of blocks"))?;
        self.behind = page.len().saturating_sub(rest.len());
        Ok(Some(block.to_vec()))
    }
}

/// Hands every block from page `first_page` on to `take`, in order; the number of the page after the last.
pub(super) fn for_each(
    store: &dyn Store,
    first_page: u64,
    mut take: impl FnMut(Place, &[u8]) -> Result<(), NodeError>,
) -> Result<u64, NodeError> {
    let mut page = first_page;
    while let Some(bytes) = store.get(PAGES, &page.to_be_bytes())? {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let offset = u32::try_from(bytes.len().saturating_sub(rest.len())).unwrap_or(u32::MAX);
            let (block, after) = first(rest).ok_or(NodeError::Damaged("page of blocks"))?;
            take(Place { page, offset }, block)?;
            rest = after;
        }
        page = page.checked_add(1).ok_or(NodeError::Counter)?;
    }
    Ok(page)
}

/// The first block of these bytes, and what follows it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}
