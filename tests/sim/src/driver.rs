//! A fuzzer without instrumentation: inputs are made from those that were worth keeping, and kept if something new
//! came of them. It needs no nightly compiler and no other tool.

use std::{
    collections::HashSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use super::{
    command::cpu_seconds,
    fuzz::{self, TARGETS, Target},
    rng::Rng,
};

/// Bytes of an input that is made from nothing.
const NEW_BYTES_MAX: u64 = 64;

/// Inputs that nobody thought of, for one of the targets. Ends with one JSON line; the exit code is 1 if a rule broke.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Args {
    /// Which: duel, message, record or transaction.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.map(|(name, _)| name)))]
    target: String,
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Chooses the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what is worth keeping to the corpus, at most so many inputs.
    #[arg(long, default_value_t = 0)]
    keep: usize,
    /// Run this input only, in hexadecimal.
    #[arg(long)]
    input: Option<String>,
}

/// Runs what the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let Some((name, target)) = TARGETS.into_iter().find(|(name, _)| *name == args.target) else {
        return ExitCode::FAILURE;
    };
    if let Some(input) = &args.input {
        target(&bytes_of(input));
        return ExitCode::SUCCESS;
    }
    match drive(name, target, &args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

fn drive(name: &str, target: Target, args: &Args) -> io::Result<bool> {
    let (mut rng, begun) = (Rng::new(args.seed), Instant::now());
    let (mut seen, mut kept, mut fresh) = (HashSet::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(corpus(name)).into_iter().flatten() {
        let bytes = fs::read(entry?.path())?;
        seen.insert(target(&bytes));
        kept.push(bytes);
    }
    let mut ready = made(name, &mut rng);
    std::panic::set_hook(Box::new(|_| ()));
    let mut runs = 0_u64;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        let bytes = ready.pop().unwrap_or_else(|| mutated(&kept, &mut rng));
        runs += 1;
        match catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            Ok(came) if seen.insert(came) => {
                fresh.push(bytes.clone());
                kept.push(bytes);
            }
            Ok(_) => {}
            Err(panic) => {
                let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
                let said = panic.downcast_ref::<String>().map_or("?", String::as_str);
                eprintln!("{said}\nrepeat it with: {name} --input {hex}");
                return Ok(false);
            }
        }
    }
    for (number, bytes) in fresh.iter().take(args.keep).enumerate() {
        fs::create_dir_all(corpus(name))?;
        fs::write(corpus(name).join(format!("{:x}-{number:03}", args.seed)), bytes)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds().unwrap_or(seconds);
    let rate = f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / cpu;
    println!(
        "{{\"target\":{name:?},\"runs\":{runs},\"seconds\":{seconds:.1},\"runs_per_cpu_second\":{rate:.0},\"different\":{},\
         \"violations\":0}}",
        seen.len()
    );
    Ok(true)
}

/// Inputs to begin with: what the parties of a duel send, store and submit.
fn made(name: &str, rng: &mut Rng) -> Vec<Vec<u8>> {
    let Some(at) = ["message", "record", "transaction"].iter().position(|it| *it == name) else {
        return Vec::new();
    };
    let mut inputs = Vec::new();
    for _ in 0..20 {
        let bytes = mutated(&[], rng);
        let encoded = fuzz::encoded_along(&bytes);
        inputs.extend(encoded.into_iter().nth(at).into_iter().flatten());
    }
    inputs
}

fn mutated(kept: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let byte = |rng: &mut Rng| u8::try_from(rng.below(256)).unwrap_or(0);
    let place =
        |rng: &mut Rng, len: usize| usize::try_from(rng.below(u64::try_from(len).unwrap_or(1))).unwrap_or(0);
    let Some(old) = rng.pick(kept).filter(|_| !rng.chance(10)) else {
        return (0..rng.between(1, NEW_BYTES_MAX)).map(|_| byte(rng)).collect();
    };
    let mut bytes = old.clone();
    for _ in 0..rng.between(1, 4) {
        let at = place(rng, bytes.len());
        match rng.below(6) {
            0 => bytes.insert(at, byte(rng)),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 => bytes.extend(rng.pick(kept).into_iter().flatten().skip(at)),
            _ => {
                let new = byte(rng);
                bytes.get_mut(at).into_iter().for_each(|old| *old = new);
            }
        }
    }
    bytes
}
