//! Values as people read them.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use flash_proto::Amount;

/// Digits of an id that are shown in lists; enough to name it in the next command.
const ID_DIGITS: usize = 12;

/// An amount as people write it, with its base units: `1.5Mi (1500000i)`.
pub(super) fn amount(amount: Amount) -> String {
    let (short, exact) = (amount.to_string(), format!("{}i", amount.units()));
    if short == exact { exact } else { format!("{short} ({exact})") }
}

/// The first digits of an id.
pub(super) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(ID_DIGITS).collect()
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> String {
    let tenths = ms.checked_div(100).unwrap_or(0);
    format!("{}.{} s", tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0))
}

/// Milliseconds since 1970 as a date and time of day in UTC.
pub(super) fn time(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms));
    // Writing a year beyond 9999 fails, and so does formatting it.
    let mut text = String::new();
    let written = time.map(|time| write!(text, "{}", humantime::format_rfc3339_seconds(time)));
    if matches!(written, Some(Ok(()))) {
        text.replace(['T', 'Z'], " ").trim_end().to_owned()
    } else {
        format!("{ms} ms")
    }
}

/// Names with their values, one per line; those without a value are left out.
pub(super) fn details<const N: usize>(rows: [(&str, Option<String>); N]) -> String {
    let mut table = plain();
    for (name, value) in rows {
        if let Some(value) = value {
            table.add_row([name.to_owned(), value]);
        }
    }
    text(&table)
}

/// A list with a header; the columns at `right` are numbers. `nothing` is said of an empty list.
pub(super) fn list<const N: usize>(
    header: [&str; N],
    right: &[usize],
    rows: Vec<[String; N]>,
    nothing: &str,
) -> String {
    if rows.is_empty() {
        return nothing.to_owned();
    }
    let mut table = plain();
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text(&table)
}

/// Names with their values, one per line.
pub(super) fn rows(rows: &[(String, String)]) -> String {
    let mut table = plain();
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    text(&table)
}

fn plain() -> Table {
    let mut table = Table::new();
    // Lines are never broken: ids must stay whole for copying.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The table without the white space around its lines.
fn text(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_exact() {
        assert_eq!(amount(Amount::new(1_500_000)), "1.5Mi (1500000i)");
        assert_eq!(amount(Amount::new(7)), "7i");
        assert_eq!(amount(Amount::ZERO), "0i");
    }

    #[test]
    fn times_of_day() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_735_689_599_000), "2024-12-31 23:59:59");
        assert_eq!(time(1_735_689_600_000), "2025-01-01 00:00:00");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
        assert_eq!(seconds(1_250), "1.2 s");
    }

    #[test]
    fn tables() {
        let text = details([("id", Some("ab".to_owned())), ("gone", None)]);
        assert!(text.contains("id") && text.contains("ab") && !text.contains("gone"), "{text}");
        let rows = vec![["a".to_owned(), "1".to_owned()], ["b".to_owned(), "200".to_owned()]];
        let text = list(["NAME", "SUM"], &[1], rows, "none");
        assert!(text.lines().all(|line| line.ends_with(['M', '1', '0']) && !line.starts_with(' ')), "{text}");
        assert_eq!(list(["NAME"], &[], Vec::new(), "none"), "none");
    }
}
