//! What a process did to a directory, as `strace` saw it.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Everything that can change a file or make it durable. `?` skips what this machine does not have. A call
/// that touches the directory and is not understood below fails the test, so that nothing is overlooked.
const CALLS: &str = "trace=recvfrom,?open,openat,?creat,write,pwrite64,writev,pwritev,?pwritev2,lseek,fsync,fdatasync,\
    sync,?syncfs,?sync_file_range,ftruncate,truncate,fallocate,?rename,renameat,?renameat2,?unlink,unlinkat,\
    ?mkdir,mkdirat,?rmdir,?link,linkat,?symlink,symlinkat,?copy_file_range,?sendfile,?splice,mmap";
/// Longer than any single write; a shortened one fails the test.
const STRING_BYTES: &str = "16777216";
/// What the writer prints in front of the number of each acknowledged commit. A writer that is a server is told
/// the number instead, by whoever it acknowledged to: a request for `/ACK NUMBER`, written as `/ACK%20NUMBER`.
pub(crate) const ACK: &str = "ACK ";
const TOLD: &str = "GET /ACK%20";

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A file was opened and made if it was not there.
    Create { path: String, truncate: bool },
    /// Bytes were handed to the kernel.
    Write { path: String, offset: usize, data: Vec<u8> },
    /// A file was cut or grown.
    Truncate { path: String, len: usize },
    /// A file's bytes, or a directory's names, were made durable.
    Sync { path: String },
    /// A directory was made.
    MakeDirectory { path: String },
    /// A name was removed.
    Remove { path: String },
    /// A name was changed.
    Rename { from: String, to: String },
    /// The writer was told that commit `n` is durable, and told the world.
    Acknowledged(u64),
}

/// An event and the lines of the trace on which its call began and returned. Between the two it may or may
/// not have happened.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) began: usize,
    pub(crate) returned: usize,
    pub(crate) event: Event,
}

/// Why nothing can be recorded here, if so.
pub(crate) fn unavailable() -> Option<String> {
    match Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            Some(format!("strace cannot trace: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => {
            Some(format!("strace cannot be run ({error}); install it, e.g. apt-get install strace"))
        }
    }
}

/// Runs `writer` under strace and gives back the file with the recording. `root` is the directory that
/// counts, an absolute path.
pub(crate) fn record(writer: &Command, root: &Path) -> PathBuf {
    let recording = root.with_extension("trace");
    let output = recorder(writer, &recording, &["-qq"]).stdout(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "the writer failed: {}", String::from_utf8_lossy(&output.stderr));
    recording
}

/// The command that runs `writer` under strace, with these options more.
pub(crate) fn recorder(writer: &Command, recording: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-xx", "--signal=none", "-s", STRING_BYTES, "-e", CALLS])
        .args(options)
        .arg("-o")
        .arg(recording)
        .arg("--")
        .arg(writer.get_program())
        .args(writer.get_args())
        .envs(writer.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The directory that the writer of a recording worked in.
pub(crate) fn root_of(recording: &Path) -> PathBuf {
    recording.with_extension("")
}

/// What the recorded writer did below its directory.
pub(crate) fn read(recording: &Path) -> Vec<Recorded> {
    let directory = root_of(recording).to_str().unwrap().to_owned();
    let mut parser = Parser { directory, ..Parser::default() };
    for (number, line) in BufReader::new(File::open(recording).unwrap()).lines().enumerate() {
        parser.line(number, &line.unwrap());
    }
    parser.recorded
}

#[derive(Default)]
struct Parser {
    directory: String,
    /// Calls that have begun and not returned, by thread.
    unfinished: HashMap<String, (usize, String)>,
    /// Where the next plain `write` to a descriptor goes.
    positions: HashMap<String, usize>,
    recorded: Vec<Recorded>,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) {
        let (thread, text) = line.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            self.unfinished.insert(thread.to_owned(), (number, begun.trim_end().to_owned()));
            return;
        }
        let (began, call) = if text.starts_with("<... ") {
            let (began, start) = self.unfinished.remove(thread).unwrap();
            let rest = text.split_once("resumed>").unwrap().1;
            // What a call reads is written down only when it returns.
            let between = if start.ends_with(',') { " " } else { "" };
            (began, format!("{start}{between}{rest}"))
        } else {
            (number, text.to_owned())
        };
        let Some((call, result)) = call.rsplit_once(" = ") else {
            assert!(text.starts_with("+++") || text.starts_with("---"), "not understood: {text:.200}");
            return;
        };
        // A failed call changed nothing.
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let (name, arguments) = call.split_once('(').unwrap();
        let arguments = arguments.trim_end().strip_suffix(')').unwrap();
        let event = self.event(name, &arguments.split(", ").collect::<Vec<_>>(), result);
        self.recorded.extend(event.map(|event| Recorded { began, returned: number, event }));
    }

    fn event(&mut self, name: &str, arguments: &[&str], result: &str) -> Option<Event> {
        if name == "write" && arguments[0].starts_with("2<") {
            let text = String::from_utf8(text(arguments[1])).unwrap();
            return text.strip_prefix(ACK).map(|number| Event::Acknowledged(number.trim().parse().unwrap()));
        }
        if name == "recvfrom" {
            let text = String::from_utf8_lossy(&text(arguments[1])).into_owned();
            let number = text.strip_prefix(TOLD)?.split(' ').next().unwrap();
            return Some(Event::Acknowledged(number.parse().unwrap()));
        }
        let paths: Vec<String> = arguments.iter().filter_map(|argument| path(argument)).collect();
        if name == "openat" || name == "open" {
            let path = paths.into_iter().rfind(|path| self.is_below(path))?;
            self.positions.insert(descriptor(result), 0);
            let flags = arguments.iter().find(|argument| argument.starts_with("O_")).unwrap();
            assert!(!flags.contains("O_APPEND"), "appending is not modelled");
            let truncate = flags.contains("O_TRUNC");
            return flags.contains("O_CREAT").then_some(Event::Create { path, truncate });
        }
        let mut below = paths.into_iter().filter(|path| self.is_below(path));
        let path = below.next()?;
        Some(match name {
            "write" => {
                let data = text(arguments[1]);
                let position = self.positions.get_mut(&descriptor(arguments[0])).unwrap();
                let offset = *position;
                assert_eq!(data.len().to_string(), result, "a short write is not modelled");
                *position += data.len();
                Event::Write { path, offset, data }
            }
            "pwrite64" => {
                let data = text(arguments[1]);
                assert_eq!(data.len().to_string(), result, "a short write is not modelled");
                Event::Write { path, offset: arguments[3].parse().unwrap(), data }
            }
            "lseek" => {
                self.positions.insert(descriptor(arguments[0]), result.parse().unwrap());
                return None;
            }
            "ftruncate" => Event::Truncate { path, len: arguments[1].parse().unwrap() },
            "fsync" | "fdatasync" => Event::Sync { path },
            // Starts writing out and waits for it, but neither the file's size nor the disk's own cache is
            // covered: after it nothing is promised.
            "sync_file_range" => return None,
            "mmap" if !(arguments[2].contains("PROT_WRITE") && arguments[3].contains("MAP_SHARED")) => {
                return None;
            }
            "mkdir" | "mkdirat" => Event::MakeDirectory { path },
            "unlink" | "unlinkat" | "rmdir" => Event::Remove { path },
            "rename" | "renameat" | "renameat2" => Event::Rename { from: path, to: below.next().unwrap() },
            _ => panic!("a call that is not modelled: {name}({arguments:.200?})"),
        })
    }

    fn is_below(&self, path: &str) -> bool {
        path.strip_prefix(&self.directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The number in front of a descriptor's path.
fn descriptor(argument: &str) -> String {
    argument.split('<').next().unwrap().to_owned()
}

/// The path in an argument: `"path"`, or `7<path>`.
fn path(argument: &str) -> Option<String> {
    let raw = if argument.starts_with('"') {
        argument
    } else if argument.starts_with("AT_FDCWD") {
        return None;
    } else {
        argument.split_once('<')?.1
    };
    String::from_utf8(text(raw)).ok().filter(|path| path.starts_with('/'))
}

/// The bytes of `"\x2f\x74…"`.
fn text(argument: &str) -> Vec<u8> {
    assert!(!argument.ends_with("..."), "the trace shortened a text");
    let mut pairs = argument.split("\\x");
    pairs.next();
    pairs.map(|pair| u8::from_str_radix(&pair[..2], 16).unwrap()).collect()
}
