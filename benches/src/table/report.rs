//! The table as text and as JSON.

use std::{fmt, path::Path};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use flashd::{datadir::write_atomically, failure::Failure};
use serde::Serialize;

use super::{
    Done,
    line::{Bar, Line, Measured, Outcome},
    machine::Surroundings,
    options::Options,
};

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    surroundings: Surroundings,
    settings: String,
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new(surroundings: Surroundings, options: &Options, lines: Vec<Line>) -> Self {
        Self { surroundings, settings: options.to_string(), lines }
    }

    /// Whether nothing went wrong.
    pub(crate) fn worked(&self) -> bool {
        !self.lines.iter().any(|line| matches!(line.outcome, Outcome::Failed(_)))
    }

    /// Writes the JSON.
    pub(crate) fn write(&self, path: &Path) -> Done {
        let text = serde_json::to_string_pretty(self).map_err(Failure::new)?;
        write_atomically(path, format!("{text}\n").as_bytes())?;
        eprintln!("as JSON in {}", path.display());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nsettings: {}", self.surroundings, self.settings)?;
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["row", "what", "value", "bar", "", "ratio to", "", "CPU each", "how"]);
        for column in [2, 3, 6, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut notes: Vec<&str> = Vec::new();
        for line in &self.lines {
            let note = match &line.outcome {
                Outcome::Measured(_) => line.how.as_str(),
                Outcome::NotMeasured(reason) | Outcome::Failed(reason) => reason.as_str(),
            };
            if !note.is_empty() && !notes.contains(&note) {
                notes.push(note);
            }
            let number = notes.iter().position(|known| *known == note).map(|at| format!("[{}]", at + 1));
            table.add_row(cells(line).into_iter().chain([number.unwrap_or_default()]));
        }
        writeln!(f, "{}", table.trim_fmt())?;
        notes.iter().zip(1..).try_for_each(|(note, number)| writeln!(f, "[{number}] {note}"))
    }
}

/// All but how it was measured.
fn cells(line: &Line) -> [String; 8] {
    let (row, what) = (line.row.to_owned(), line.what.clone());
    let Measured { value, unit, bar, against, cpu } = match &line.outcome {
        Outcome::Measured(measured) => measured,
        Outcome::NotMeasured(_) => return said(row, what, "not measured"),
        Outcome::Failed(_) => return said(row, what, "FAILED"),
    };
    let bar_text = bar.map_or_else(String::new, |bar| match bar {
        Bar::AtLeast(bar) => format!("≥ {}", number(bar)),
        Bar::AtMost(bar) => format!("≤ {}", number(bar)),
    });
    let holds = bar.map_or("", |bar| if bar.holds(*value) { "yes" } else { "no" });
    let (to, ratio) = against
        .as_ref()
        .map_or_else(Default::default, |against| (against.what.clone(), number(against.ratio)));
    let cpu: Vec<String> =
        cpu.iter().map(|cpu| format!("{} {} µs", cpu.process, number(cpu.us_each))).collect();
    let value = format!("{} {unit}", number(*value));
    [row, what, value, bar_text, holds.to_owned(), to, ratio, cpu.join(" + ")]
}

fn said(row: String, what: String, outcome: &str) -> [String; 8] {
    let [bar, holds, to, ratio, cpu] = Default::default();
    [row, what, outcome.to_owned(), bar, holds, to, ratio, cpu]
}

/// Three digits at least, and thousands apart.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let text = match size {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => return format!("{value:.3}"),
    };
    let whole = text.find('.').unwrap_or(text.len());
    let mut shown = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && at < whole && (whole - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.6, "1,000"),
            (12.34, "12.3"),
            (1.5, "1.50"),
            (0.001_23, "0.001"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
