//! The rows of the table, one file for each family.

mod disk;
mod footprint;
mod handshakes;
mod idle;
mod ldk;
mod limits;
mod many;
mod opening;
mod quiet;
mod saturated;
mod single;
mod stream;
mod ticks;

use std::{pin::Pin, time::Duration};

use flashd::bench::load::Limit;

use super::{
    Bench, Done,
    line::Line,
    options::{Options, wrong},
};

/// What becomes the lines of a row.
type Running<'a> = Pin<Box<dyn Future<Output = Done<Vec<Line>>> + 'a>>;

/// A row, or some that are measured together.
pub(crate) struct Row {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: for<'a> fn(&'a Bench) -> Running<'a>,
}

/// All rows, in the order of the table.
pub(crate) const ALL: &[Row] = &[
    Row {
        name: limits::NAME,
        what: "what bounds everything: signatures, hashes, the disk, a plain link",
        run: |it| Box::pin(limits::run(it)),
    },
    Row {
        name: saturated::NAME,
        what: "one channel saturated by the library's calls, and its bytes",
        run: |it| Box::pin(saturated::run(it)),
    },
    Row {
        name: stream::NAME,
        what: "one channel saturated by the RPC's streaming call",
        run: |it| Box::pin(stream::run(it)),
    },
    Row { name: ticks::NAME, what: "ticks on one channel", run: |it| Box::pin(ticks::run(it)) },
    Row {
        name: many::NAME,
        what: "many channels that pay at random times",
        run: |it| Box::pin(many::run(it)),
    },
    Row {
        name: single::NAME,
        what: "one payment at a time, and its bytes",
        run: |it| Box::pin(single::run(it)),
    },
    Row {
        name: quiet::NAME,
        what: "a quiet channel beside one that is saturated",
        run: |it| Box::pin(quiet::run(it)),
    },
    Row {
        name: disk::NAME,
        what: "growth on the disk over a long run on one channel",
        run: |it| Box::pin(disk::run(it)),
    },
    Row {
        name: idle::NAME,
        what: "one daemon with very many idle channels",
        run: |it| Box::pin(idle::run(it)),
    },
    Row { name: opening::NAME, what: "opening channels", run: |it| Box::pin(opening::run(it)) },
    Row {
        name: handshakes::NAME,
        what: "handshakes, and idle connections",
        run: |it| Box::pin(handshakes::run(it)),
    },
    Row { name: ldk::NAME, what: "the channel of LDK, in one process", run: |it| Box::pin(ldk::run(it)) },
    Row {
        name: footprint::NAME,
        what: "the program's size, and a daemon's memory",
        run: |it| Box::pin(footprint::run(it)),
    },
];

/// The rows that are asked for; all, if none is.
pub(crate) fn chosen(options: &Options) -> Done<Vec<&'static Row>> {
    if let Some(unknown) = options.rows.iter().find(|name| !ALL.iter().any(|row| row.name == name.as_str())) {
        let names: Vec<&str> = ALL.iter().map(|row| row.name).collect();
        return Err(wrong(format!("there is no row `{unknown}`; there are: {}", names.join(" "))));
    }
    let is_chosen = |row: &&Row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name);
    Ok(ALL.iter().filter(is_chosen).collect())
}

impl Bench {
    /// For as long as a load is to take.
    pub(crate) fn limit(&self) -> Limit {
        Limit::Time(Duration::from_secs(self.options.seconds()))
    }
}
