//! Lists of channels. One answer has so many at most, however many there are: each of them is read from its records.

use std::{
    cmp::Reverse,
    ops::{Bound, RangeBounds},
};

use flash_proto::ChannelId;

use super::{Answer, Daemon};
use crate::api::{ApiError, ChannelInfo, ErrorCode, LISTED_MAX, ListRequest};

/// Hexadecimal digits of a channel's id.
const DIGITS: usize = 64;

fn invalid(message: String, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message, hint)
}

/// The ids that a list is of.
fn range(request: &ListRequest) -> Answer<impl RangeBounds<ChannelId> + use<>> {
    let end = |filler: &str| {
        let rest = DIGITS.checked_sub(request.prefix.len()).map(|missing| filler.repeat(missing));
        rest.and_then(|rest| format!("{}{rest}", request.prefix).parse::<ChannelId>().ok())
    };
    let (Some(first), Some(last)) = (end("0"), end("f")) else {
        let message = format!("no channel's id begins with {:?}", request.prefix);
        return Err(invalid(message, "ids have 64 hexadecimal digits"));
    };
    // It must not begin behind its end: maps panic at such a range.
    let after = request.after.filter(|after| *after >= first).map(|after| after.min(last));
    Ok((after.map_or(Bound::Included(first), Bound::Excluded), Bound::Included(last)))
}

/// How many ids are looked for; without a limit one more than are listed, which shows that there are too many.
fn limit(request: &ListRequest) -> Answer<usize> {
    match request.limit {
        None => Ok(LISTED_MAX.saturating_add(1)),
        Some(limit) if limit <= LISTED_MAX => Ok(limit),
        Some(limit) => {
            let message = format!("a limit of {limit} channels; {LISTED_MAX} are listed at once at most");
            Err(invalid(message, "ask for the next ones with `after`, the id of the last"))
        }
    }
}

impl Daemon {
    /// The channels that are asked for: newest first, or with a limit in the order of their ids.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`]: without a limit, and there are more than [`LISTED_MAX`]; or a limit above that, or a
    /// prefix of no id.
    pub fn channels(&self, request: &ListRequest) -> Answer<Vec<ChannelInfo>> {
        let (range, limit) = (range(request)?, limit(request)?);
        let ids = self.0.views.select(request.all, range, limit);
        if request.limit.is_none() && ids.len() == limit {
            let message = format!("there are more than {LISTED_MAX} channels");
            return Err(invalid(message, "ask for parts with `limit`, and `after` for the next ones"));
        }
        let views = ids.into_iter().map(|id| self.0.views.get(id));
        let mut channels = views.map(|view| Ok(self.shown(view?))).collect::<Answer<Vec<_>>>()?;
        if request.limit.is_none() {
            channels.sort_by_key(|channel| Reverse(channel.created_ms));
        }
        Ok(channels)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(first: u8, rest: u8) -> ChannelId {
        let mut bytes = [rest; 32];
        bytes[0] = first;
        ChannelId::new(bytes)
    }

    fn has(request: &ListRequest) -> Answer<Vec<ChannelId>> {
        let ids = [id(0, 0), id(0, 9), id(0xab, 0), id(0xab, 1), id(0xab, 0xff), id(0xac, 0), id(0xff, 0xff)];
        Ok(BTreeSet::from(ids).range(range(request)?).copied().collect())
    }

    #[test]
    fn ranges_are_those_of_a_prefix_and_what_comes_after() {
        let of = |prefix: &str, after| ListRequest { prefix: prefix.to_owned(), after, ..Default::default() };
        assert_eq!(has(&of("", None)).unwrap().len(), 7);
        let ab = [id(0xab, 0), id(0xab, 1), id(0xab, 0xff)];
        assert_eq!(has(&of("ab", None)).unwrap(), ab);
        assert_eq!(has(&of("AB", None)).unwrap(), ab);
        assert_eq!(has(&of("ab", Some(id(0, 9)))).unwrap(), ab);
        assert_eq!(has(&of("ab", Some(ab[0]))).unwrap(), ab[1..]);
        assert_eq!(has(&of("ab", Some(ab[2]))).unwrap(), []);
        assert_eq!(has(&of("ab", Some(id(0xac, 0)))).unwrap(), []);
        assert_eq!(has(&of("a", None)).unwrap().len(), 4);
        assert_eq!(has(&of(&ab[1].to_string(), None)).unwrap(), [ab[1]]);
        assert_eq!(has(&of("", Some(id(0xff, 0xff)))).unwrap(), []);
        for wrong in ["x", &"a".repeat(65), "é"] {
            let refused = has(&of(wrong, None)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{wrong}");
        }
    }
}
