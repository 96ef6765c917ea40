//! Do the simulations bite? The rules are broken on purpose, one at a time, in a copy of the sources, and the
//! simulator must notice within a minute.
//!
//! Nothing of this is in the code that is shipped: a sabotage is a replacement of a piece of text, which must stand
//! exactly once in its file. Whoever changes that piece changes the sabotage as well; a test says so.
//!
//! Standard output has one JSON line for each: its name, the seed that found it, the seconds that the search took and
//! what was found. The exit code is 1 if one was not found.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use clap::Parser;

/// What of the sources is built: the simulator with cheap signatures, and what it needs.
const SOURCES: [&str; 6] = ["Cargo.toml", "proto", "channel", "node-client", "tests/sim", "tests/fast"];

/// A rule that is broken.
struct Sabotage {
    name: &'static str,
    file: &'static str,
    /// Stands exactly once in the file.
    right: &'static str,
    wrong: &'static str,
}

const SABOTAGES: [Sabotage; 13] = [
    Sabotage {
        name: "skip the barrier: acknowledge what is not written",
        file: "channel/src/machine/mod.rs",
        right: "if dirty.incoming {",
        wrong: "if dirty.incoming && !dirty.acknowledge {",
    },
    Sabotage {
        name: "skip the check of the update's number",
        file: "channel/src/machine/lanes.rs",
        right: "if update.seq <= before.seq {",
        wrong: "if false {",
    },
    Sabotage {
        name: ">= for >: refuse a payment of all that the payer owns",
        file: "channel/src/machine/lanes.rs",
        right: "if state.cumulative > owned {",
        wrong: "if state.cumulative >= owned {",
    },
    Sabotage {
        name: "forget the sync",
        file: "channel/src/store/memory.rs",
        right: "            self.sync();\n",
        wrong: "",
    },
    Sabotage {
        name: "a contest window one milestone shorter",
        file: "node-client/src/ledger/overlay.rs",
        right: "self.index.saturating_add(window)",
        wrong: "self.index.saturating_add(window).saturating_sub(1)",
    },
    Sabotage {
        name: "sign two bodies under one number",
        file: "channel/src/machine/lanes.rs",
        right: "self.outgoing.signed = Some(signed);\n        self.dirty",
        wrong: "self.outgoing.signed = if state.seq % 7 == 0 { self.outgoing.signed } else { Some(signed) };\n        self.dirty",
    },
    Sabotage {
        name: "accept a foreign signature",
        file: "channel/src/machine/lanes.rs",
        right: ".is_some_and(|verifier| balance.verify_with(self.agreement.network, verifier))",
        wrong: ".is_some()",
    },
    Sabotage {
        name: "drop the claim",
        file: "channel/src/machine/ledger.rs",
        right: "Phase::Contested { peer_lane, .. } => self.claim(*peer_lane),",
        wrong: "Phase::Contested { .. } => None,",
    },
    Sabotage {
        name: "send nothing again after a break",
        file: "channel/src/machine/lanes.rs",
        right: "effects.after.extend(updates.map(After::Send));",
        wrong: "drop(updates);",
    },
    Sabotage {
        name: "clamp a settlement to the deposit",
        file: "proto/src/balance.rs",
        right: "exact.clamp(0, wide(total))",
        wrong: "exact.clamp(0, wide(a.deposit))",
    },
    Sabotage {
        name: "take an old claim in the place of a newer one",
        file: "node-client/src/ledger/overlay.rs",
        right: "if state.cumulative <= lane.cumulative {",
        wrong: "if state.cumulative == lane.cumulative {",
    },
    Sabotage {
        name: ">= for >: a signed close lapses one milestone early",
        file: "channel/src/machine/ledger.rs",
        right: "if index > close.expiry_milestone",
        wrong: "if index >= close.expiry_milestone",
    },
    Sabotage {
        name: "pay what was not received durably: take the peer's word for its balance",
        file: "channel/src/machine/lanes.rs",
        right: "self.check_peers(newer)?;",
        wrong: "",
    },
];

/// Breaks the rules one at a time and lets the simulator find it.
#[derive(Debug, Parser)]
#[command(name = "sabotage")]
struct Args {
    /// How long the simulator may search for each.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Only those with this in their name.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match search(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            eprintln!("{missed} not found: the simulator does not look where it should");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn search(args: &Args) -> io::Result<usize> {
    let copy = root().join("target/sabotage/sources");
    let mut missed = 0;
    synchronise(&copy)?;
    let clean = simulate(&copy, 0.05)?;
    if clean.found.is_some() {
        return Err(io::Error::other(format!("the simulator fails without any sabotage: {clean:?}")));
    }
    for sabotage in SABOTAGES.iter().filter(|sabotage| sabotage.name.contains(&args.only)) {
        synchronise(&copy)?;
        let place = copy.join(sabotage.file);
        fs::write(&place, broken(sabotage, &fs::read_to_string(&place)?)?)?;
        let report = simulate(&copy, args.minutes)?;
        let seed = report.found.map_or("null".to_owned(), |seed| seed.to_string());
        println!(
            "{{\"sabotage\":{:?},\"found_by_seed\":{seed},\"seconds\":{:.1},\"as\":{:?}}}",
            sabotage.name, report.seconds, report.said
        );
        missed += usize::from(report.found.is_none());
    }
    Ok(missed)
}

fn broken(sabotage: &Sabotage, text: &str) -> io::Result<String> {
    match text.matches(sabotage.right).count() {
        1 => Ok(text.replace(sabotage.right, sabotage.wrong)),
        times => Err(io::Error::other(format!(
            "\"{}\" no longer applies: {} has {times} times {:?}",
            sabotage.name, sabotage.file, sabotage.right
        ))),
    }
}

#[derive(Debug)]
struct Report {
    found: Option<u64>,
    seconds: f64,
    said: String,
}

fn simulate(copy: &Path, minutes: f64) -> io::Result<Report> {
    let target = root().join("target/sabotage/target");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "--package", "flash-sim-fast"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(copy.join("tests/fast"))
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the sabotaged sources do not build"));
    }
    let begun = Instant::now();
    let output = Command::new(target.join("release/flash-sim-fast"))
        .args(["--minutes", &minutes.to_string(), "--findings", "1"])
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let finding = said.lines().find_map(|line| line.strip_prefix("seed "));
    let seed = finding.and_then(|line| line.split(':').next()).and_then(|seed| seed.parse().ok());
    if output.status.success() != finding.is_none() {
        return Err(io::Error::other(format!("the simulator ended with {}: {said}", output.status)));
    }
    let said = finding.unwrap_or_default().chars().take(160).collect();
    Ok(Report { found: seed, seconds: begun.elapsed().as_secs_f64(), said })
}

/// Makes the copy equal to the sources, without touching what is equal, so that little is built again.
fn synchronise(copy: &Path) -> io::Result<()> {
    for part in SOURCES {
        synchronise_part(&root().join(part), &copy.join(part))?;
    }
    Ok(())
}

fn synchronise_part(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_file() {
        let wanted = fs::read(from)?;
        return if fs::read(to).is_ok_and(|there| there == wanted) { Ok(()) } else { write(to, &wanted) };
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            synchronise_part(&from.join(&name), &to.join(&name))?;
            names.insert(name);
        }
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write(place: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(place, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sabotage_applies() {
        for sabotage in &SABOTAGES {
            let text = fs::read_to_string(root().join(sabotage.file)).unwrap();
            let broken = broken(sabotage, &text).unwrap();
            assert_ne!(broken, text, "{}", sabotage.name);
        }
    }
}
