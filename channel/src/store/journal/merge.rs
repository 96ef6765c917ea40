//! Three ordered sources of what stands under keys, as one.

use super::{super::StoreError, overlay::Slot};

/// The first `limit` entries that are not gone. Where sources know the same key, the first of them counts. All of them rise, or fall if
/// `reverse`.
pub(super) fn newest<'a>(
    overlay: impl Iterator<Item = (&'a [u8], &'a Slot)>,
    moving: impl Iterator<Item = (&'a [u8], &'a Slot)>,
    base: impl Iterator<Item = Result<(Vec<u8>, Slot), StoreError>>,
    reverse: bool,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Slot)>, StoreError> {
    let (mut overlay, mut moving, mut base) = (overlay.peekable(), moving.peekable(), base.peekable());
    let mut found = Vec::new();
    while found.len() < limit {
        let below = match base.peek() {
            Some(Ok((key, _))) => Some(key.as_slice()),
            None => None,
            Some(Err(_)) => return base.next().map_or(Ok(found), |error| error.map(|_| Vec::new())),
        };
        let known = [overlay.peek().map(|(key, _)| *key), moving.peek().map(|(key, _)| *key), below];
        let known = known.into_iter().flatten();
        let Some(key) = (if reverse { known.max() } else { known.min() }).map(<[u8]>::to_vec) else { break };
        // All sources go past the key.
        let newest = overlay.next_if(|(known, _)| *known == key).map(|(_, slot)| slot.clone());
        let newer = moving.next_if(|(known, _)| *known == key).map(|(_, slot)| slot.clone());
        let old = base.next_if(|known| known.as_ref().is_ok_and(|(known, _)| *known == key));
        let old = old.and_then(|known| known.ok().map(|(_, slot)| slot));
        if let Some(slot) = newest.or(newer).or(old).filter(|slot| *slot != Slot::Gone) {
            found.push((key, slot));
        }
    }
    Ok(found)
}
