//! Do the simulations bite? The rules are broken on purpose, one at a time, in a copy of the sources, and the
//! simulator must notice within a minute.
//!
//! Nothing of this is in the code that is shipped: a sabotage is a replacement of a piece of text, which must stand
//! exactly once in its file. Whoever changes that piece changes the sabotage as well; a test says so. All of them are
//! built into one program, which an environment variable tells which one to commit.
//!
//! Standard output has one JSON line for each: its name, the seed that found it, the seconds that the search took and
//! what was found. The exit code is 1 if one was not found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use clap::Parser;

/// What of the sources is built: the simulator with cheap signatures, and what it needs.
const SOURCES: [&str; 6] = ["Cargo.toml", "proto", "channel", "node-client", "tests/sim", "tests/fast"];

/// Stands in the texts for the question whether this sabotage is to be committed.
const ASKED: &str = "SABOTAGED";
/// The answer, at the end of each crate that has sabotages.
const ANSWER: &str = "
/// Whether the rules are to be broken in this way.
#[doc(hidden)]
pub fn sabotaged(number: usize) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var(\"FLASH_SABOTAGE\").ok()?.parse().ok()) == Some(number)
}
";

/// A rule that is broken.
struct Sabotage {
    name: &'static str,
    file: &'static str,
    /// Stands exactly once in the file.
    right: &'static str,
    /// Stands there instead.
    wrong: &'static str,
}

const fn sabotage(
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Sabotage {
    Sabotage { name, file, right, wrong }
}

const SABOTAGES: [Sabotage; 14] = [
    sabotage(
        "skip the barrier: acknowledge what is not written",
        "channel/src/machine/mod.rs",
        "if dirty.incoming {",
        "if dirty.incoming && !(SABOTAGED && dirty.acknowledge) {",
    ),
    sabotage(
        "skip the check of an update's number",
        "channel/src/machine/lanes.rs",
        "if update.seq <= before.seq {",
        "if update.seq <= before.seq && !SABOTAGED {",
    ),
    sabotage(
        ">= for >: refuse a payment of all that the payer owns",
        "channel/src/machine/lanes.rs",
        "if total > owned {",
        "if total > owned || SABOTAGED && total == owned {",
    ),
    sabotage(
        "forget the sync",
        "channel/src/store/memory.rs",
        "        if synced {\n",
        "        if synced && (!SABOTAGED || map.len() <= 2) {\n",
    ),
    sabotage(
        "a contest window one milestone shorter",
        "node-client/src/ledger/overlay.rs",
        "self.index.saturating_add(window)",
        "self.index.saturating_add(window).saturating_sub(u64::from(SABOTAGED))",
    ),
    sabotage(
        "sign two bodies under one number",
        "channel/src/machine/lanes.rs",
        "        effects.after.push(After::Send(ChannelMessage::Update(update)));\n",
        "        if SABOTAGED {\n            let other = LaneState { history: Hash::ZERO, ..state };\n            \
         let signature = other.sign(self.agreement.network, &self.key).signature;\n            \
         let update = Update { signature, ..update.clone() };\n            \
         effects.after.push(After::Send(ChannelMessage::Update(update)));\n        }\n        \
         effects.after.push(After::Send(ChannelMessage::Update(update)));\n",
    ),
    sabotage(
        "accept a foreign signature",
        "channel/src/machine/signatures.rs",
        "known || self.peer_verifier",
        "SABOTAGED || known || self.peer_verifier",
    ),
    sabotage(
        "drop the claim",
        "channel/src/machine/ledger.rs",
        "self.claim(*peer_lane),",
        "self.claim(*peer_lane).filter(|_| !SABOTAGED),",
    ),
    sabotage(
        "drop the tower",
        "channel/src/tower.rs",
        ".filter(|newest| *index <= deadline &&",
        ".filter(|newest| !SABOTAGED && *index <= deadline &&",
    ),
    sabotage(
        "confirm what the tower does not keep",
        "channel/src/tower.rs",
        "        batch.put(LANES, &lane_key(lane), codec::encode(&held));\n",
        "        if !(SABOTAGED && before.is_some()) {\n            batch.put(LANES, &lane_key(lane), \
         codec::encode(&held));\n        }\n",
    ),
    sabotage(
        "send nothing again after a break",
        "channel/src/machine/reestablish.rs",
        "effects.after.extend(updates.map(After::Send));",
        "effects.after.extend(updates.map(After::Send).filter(|_| !SABOTAGED));",
    ),
    sabotage(
        "clamp a settlement to A's deposit",
        "proto/src/balance.rs",
        "exact.clamp(0, wide(total))",
        "exact.clamp(0, if SABOTAGED { wide(a.deposit) } else { wide(total) })",
    ),
    sabotage(
        "take an old claim in the place of a newer one",
        "node-client/src/ledger/overlay.rs",
        "if cumulative <= lane.cumulative {",
        "if cumulative <= lane.cumulative && !SABOTAGED {",
    ),
    sabotage(
        ">= for >: a signed close lapses one milestone early",
        "channel/src/machine/ledger.rs",
        "if index > close.expiry_milestone",
        "if index > close.expiry_milestone || SABOTAGED && index == close.expiry_milestone",
    ),
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

/// Runs what the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
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
    let sources = sabotaged_sources()?;
    synchronise(&copy, &sources)?;
    let program = build(&copy)?;
    let clean = simulate(&program, None, args.minutes / 10.0)?;
    if clean.found.is_some() {
        return Err(io::Error::other(format!("the simulator fails without any sabotage: {clean:?}")));
    }
    let mut missed = 0;
    for (number, sabotage) in SABOTAGES.iter().enumerate() {
        if !sabotage.name.contains(&args.only) {
            continue;
        }
        let report = simulate(&program, Some(number), args.minutes)?;
        let seed = report.found.map_or("null".to_owned(), |seed| seed.to_string());
        println!(
            "{{\"sabotage\":{:?},\"found_by_seed\":{seed},\"seconds\":{:.1},\"as\":{:?}}}",
            sabotage.name, report.seconds, report.said
        );
        missed += usize::from(report.found.is_none());
    }
    Ok(missed)
}

/// The files that are other than in the sources, by their path: all sabotages are in them.
fn sabotaged_sources() -> io::Result<BTreeMap<&'static str, String>> {
    let mut files = BTreeMap::new();
    for file in ["proto/src/lib.rs", "channel/src/lib.rs", "node-client/src/lib.rs"] {
        files.insert(file, fs::read_to_string(root().join(file))? + ANSWER);
    }
    for (number, Sabotage { name, file, right, wrong }) in SABOTAGES.iter().enumerate() {
        let text = match files.remove(file) {
            Some(text) => text,
            None => fs::read_to_string(root().join(file))?,
        };
        let times = text.matches(right).count();
        if times != 1 {
            let message = format!("\"{name}\" no longer applies: {file} has {times} times {right:?}");
            return Err(io::Error::other(message));
        }
        let asked = format!("crate::sabotaged({number})");
        files.insert(*file, text.replace(right, &wrong.replace(ASKED, &asked)));
    }
    Ok(files)
}

#[derive(Debug)]
struct Report {
    found: Option<u64>,
    seconds: f64,
    said: String,
}

fn build(copy: &Path) -> io::Result<PathBuf> {
    let target = root().join("target/sabotage/target");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "--package", "flash-sim-fast"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(copy.join("tests/fast"))
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the sabotaged sources do not build"));
    }
    Ok(target.join("release/flash-sim-fast"))
}

fn simulate(program: &Path, sabotage: Option<usize>, minutes: f64) -> io::Result<Report> {
    let begun = Instant::now();
    let mut command = Command::new(program);
    if let Some(number) = sabotage {
        command.env("FLASH_SABOTAGE", number.to_string());
    }
    let output = command
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

/// Makes the copy equal to the sources but for these files, without touching what is right, so that little is built
/// again.
fn synchronise(copy: &Path, other: &BTreeMap<&'static str, String>) -> io::Result<()> {
    for part in SOURCES {
        synchronise_part(Path::new(part), copy, other)?;
    }
    Ok(())
}

fn synchronise_part(part: &Path, copy: &Path, other: &BTreeMap<&'static str, String>) -> io::Result<()> {
    let (from, to) = (root().join(part), copy.join(part));
    if from.is_file() {
        let wanted = match part.to_str().and_then(|part| other.get(part)) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(from)?,
        };
        return if fs::read(&to).is_ok_and(|there| there == wanted) { Ok(()) } else { write(&to, &wanted) };
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&from)? {
        let name = entry?.file_name();
        if name != "target" {
            synchronise_part(&part.join(&name), copy, other)?;
            names.insert(name);
        }
    }
    for entry in fs::read_dir(&to)? {
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
        let files = sabotaged_sources().unwrap();
        let asked: usize = files.values().map(|text| text.matches("crate::sabotaged(").count()).sum();
        assert_eq!(asked, SABOTAGES.len());
    }
}
