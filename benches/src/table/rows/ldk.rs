//! The channel of LDK, measured by a program of its own where it was built: benches/ldk.

use std::path::{Path, PathBuf};

use flashd::failure::Failure;
use serde::Deserialize;

use crate::table::{Bench, Done, line::Line};

pub(super) const NAME: &str = "ldk";

/// A line of that program's JSON.
#[derive(Debug, Deserialize)]
struct Figure {
    what: String,
    value: f64,
    unit: String,
    how: String,
}

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let program = program();
    if !program.exists() {
        let reason = format!("{} is not built; see benches/ldk", program.display());
        return Ok(vec![Line::not_measured(NAME, "payments over a channel of LDK", reason)]);
    }
    bench.progress.say("payments over a channel of LDK");
    let mut command = tokio::process::Command::new(&program);
    command.arg("--json").kill_on_drop(true);
    if bench.options.quick {
        command.arg("--quick");
    }
    let output = command.output().await.map_err(Failure::new)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("it ended with {}: {}", output.status, text.trim())));
    }
    let figures: Vec<Figure> = serde_json::from_slice(&output.stdout).map_err(Failure::new)?;
    let line = |it: Figure| Line::measured(NAME, it.what, it.value, it.unit).how(it.how);
    Ok(figures.into_iter().map(line).collect())
}

/// Where it is once it was built: it is a workspace of its own.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ldk/target/release/flash-ldk")
}
