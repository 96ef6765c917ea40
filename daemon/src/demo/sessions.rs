//! The records of real charging sessions.

use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;

/// See `data/README.md` for where they come from.
const RECORDS: &str = include_str!("../../data/ev_sessions.csv");

/// One charging session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The charger.
    pub(super) station: String,
    /// When the car was plugged in, since 1970.
    pub(super) plug_in: Duration,
    /// What was delivered, Wh.
    pub(super) energy_wh: u64,
    /// The charger's power, W.
    pub(super) power_w: u64,
}

#[derive(Deserialize)]
struct Row {
    station_id: String,
    plug_in_utc: String,
    energy_kwh: String,
    max_power_kw: String,
}

/// The first `count` sessions on record, in the order in which the cars were plugged in.
pub(super) fn read(count: usize) -> Result<Vec<Session>, Failure> {
    let mut reader = csv::Reader::from_reader(RECORDS.as_bytes());
    let mut sessions =
        reader.deserialize().map(|row| session(row.map_err(Failure::new)?)).collect::<Result<Vec<_>, _>>()?;
    sessions.sort_by_key(|session: &Session| session.plug_in);
    sessions.truncate(count);
    Ok(sessions)
}

fn session(row: Row) -> Result<Session, Failure> {
    let malformed = |what: &str| Failure::new(format!("a session on record has no valid {what}"));
    let plug_in = humantime::parse_rfc3339(&row.plug_in_utc).map_err(|_| malformed("plug-in time"))?;
    let plug_in = plug_in.duration_since(std::time::UNIX_EPOCH).map_err(|_| malformed("plug-in time"))?;
    let energy_wh = thousandths(&row.energy_kwh).filter(|wh| *wh > 0).ok_or_else(|| malformed("energy"))?;
    let power_w = thousandths(&row.max_power_kw).filter(|w| *w > 0).ok_or_else(|| malformed("power"))?;
    Ok(Session { station: row.station_id, plug_in, energy_wh, power_w })
}

/// The whole thousandths of a decimal number, as a meter counts them; `None` if it is no such number.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{fraction:0<3.3}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_read_in_whole_wh() {
        assert_eq!(thousandths("4.216"), Some(4_216));
        assert_eq!(thousandths("6.6"), Some(6_600));
        assert_eq!(thousandths("7"), Some(7_000));
        assert_eq!(thousandths("0.7066547192350353"), Some(706));
        for wrong in ["", ".", "a", "1.-1", "1e3"] {
            assert_eq!(thousandths(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_records_are_sessions() {
        let all = read(usize::MAX).unwrap();
        assert_eq!(all.len(), 467);
        assert!(all.is_sorted_by_key(|session| session.plug_in));
        assert_eq!((all[0].energy_wh, all[0].power_w, all[0].station.as_str()), (4_216, 6_600, "CA-315"));
    }
}
