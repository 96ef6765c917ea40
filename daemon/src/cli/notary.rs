//! Files on the ledger: notarizing them through the daemon, and verifying them without anybody.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use flash_channel::store::directory_of;
use flash_node_client::light::notary::{
    FILES_MAX, FileDigest, FileHasher, FileProof, Notarized, NotaryError, Note,
};
use flash_proto::{BlockId, Hash, NetworkParams, limits::DATA_TAG_BYTES_MAX};
use serde::{Serialize, de::DeserializeOwned};

use super::{Context, output::Failure, view, wait::wait};
use crate::{
    api::{ApiError, ConfirmedBlock, ErrorCode, PublishRequest},
    datadir::{network_path, read_network},
    rpc::Scope,
    setup::SetupError,
};

/// What a proof file's name ends with.
const PROOF_SUFFIX: &str = "flash-proof";
/// Bytes of the largest proof file.
const PROOF_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Put the hash of files on the ledger.
#[derive(Debug, Args)]
pub struct Notarize {
    /// Files, or directories whose files are all meant; up to 1024 share one block
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What kind of files, for everybody to read: at most 64 bytes
    #[arg(long, default_value = "notary", value_parser = tag)]
    tag: String,
    /// Where the proof of a single file goes [default: FILE.flash-proof]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Check a file against its proof, without any node.
#[derive(Debug, Args)]
pub struct Verify {
    /// The file
    file: PathBuf,
    /// Its proof [default: FILE.flash-proof]
    #[arg(long, value_name = "FILE", conflicts_with = "block")]
    proof: Option<PathBuf>,
    /// Ask the daemon for the block that notarized this file alone, instead of reading a proof
    #[arg(long, value_name = "ID")]
    block: Option<BlockId>,
    /// The network's file [default: the data directory's]
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
}

/// What is said of a notarized file.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    bytes: u64,
    hash: Hash,
    tag: String,
    block: BlockId,
    milestone_index: u64,
    timestamp_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a Path>,
}

fn tag(text: &str) -> Result<String, String> {
    if text.len() > DATA_TAG_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {DATA_TAG_BYTES_MAX} are allowed", text.len()));
    }
    Ok(text.to_owned())
}

impl Notarize {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let params = network(None, context)?;
        let work = async {
            let files = tokio::task::spawn_blocking(move || self.read()).await;
            let (tag, files) = files.map_err(|error| unreadable(Path::new("the files"), &error))??;
            let digests: Vec<FileDigest> = files.iter().map(|file| file.digest).collect();
            let (note, paths) = Note::over(&digests).ok_or_else(|| too_many(digests.len()))?;
            let request = PublishRequest { tag, data: hex::encode(note.to_data()) };
            let published = context.client(Scope::Pay)?.publish(&request).await?;
            Ok((files, paths, published))
        };
        let goes_on = "the hash may be on the ledger, but without its proof; notarize again";
        let (files, paths, ConfirmedBlock { evidence, .. }) =
            wait("publishing and waiting for a milestone", goes_on, work).await?;
        let mut reports = Vec::new();
        for (file, path) in files.iter().zip(paths) {
            let proof = FileProof::new(params.id(), file.digest, path, evidence.clone());
            // What the daemon says is not taken on trust, either.
            let proven = proof.verify(&params, file.digest).map_err(|error| refused(&file.path, &error))?;
            let text = serde_json::to_string_pretty(&proof).map_err(io::Error::other)?;
            write_proof(&file.proof, &text).map_err(|error| unwritable(&file.proof, proven.block, &error))?;
            reports.push(report(&file.path, file.digest, &proven, Some(&file.proof)));
        }
        context.output.value(&reports, |reports| reports.iter().map(text).collect::<Vec<_>>().join("\n\n"))
    }

    /// Hashes all files, and makes sure that no proof is overwritten: it may be of an older time.
    fn read(self) -> Result<(String, Vec<Hashed>), ApiError> {
        let mut paths = Vec::new();
        for path in &self.files {
            list(path, &mut paths)?;
        }
        if self.out.is_some() && paths.len() != 1 {
            let hint = "leave --out out: each proof goes beside its file";
            return Err(ApiError::new(ErrorCode::InvalidRequest, "--out is for a single file", hint));
        }
        let hashed = |path: PathBuf| {
            let proof = self.out.clone().unwrap_or_else(|| proof_path(&path));
            if proof.exists() {
                let message = format!("{} exists already", proof.display());
                let hint = "it may prove an earlier time: move it away, or name another with --out";
                return Err(ApiError::new(ErrorCode::InvalidRequest, message, hint));
            }
            Ok(Hashed { digest: digest(&path)?, path, proof })
        };
        // One that is named twice has one proof.
        let mut seen = BTreeSet::new();
        let mut once = Vec::new();
        for path in paths {
            if seen.insert(fs::canonicalize(&path).map_err(|error| unreadable(&path, &error))?) {
                once.push(path);
            }
        }
        let files = once.into_iter().map(hashed).collect::<Result<_, _>>()?;
        Ok((self.tag, files))
    }
}

/// A file that is being notarized.
struct Hashed {
    path: PathBuf,
    digest: FileDigest,
    /// Where its proof goes.
    proof: PathBuf,
}

impl Verify {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let params = network(self.network.as_deref(), context)?;
        let file = self.file.clone();
        let work = async {
            let hashed = tokio::task::spawn_blocking(move || digest(&file)).await;
            hashed.map_err(|error| unreadable(&self.file, &error))?
        };
        let digest = wait("reading the file", "nothing was changed", work).await?;
        let proof = if let Some(block) = self.block {
            let confirmed = context.client(Scope::Read)?.confirmed_block(block).await?;
            FileProof::of_one(params.id(), digest, confirmed.evidence)
        } else {
            let path = self.proof.unwrap_or_else(|| proof_path(&self.file));
            let hint = "name the proof with --proof, or the block with --block";
            read_proof(&path, PROOF_BYTES_MAX, hint)?
        };
        let proven = proof.verify(&params, digest).map_err(|error| refused(&self.file, &error))?;
        context.output.value(&report(&self.file, digest, &proven, None), text)
    }
}

fn network(file: Option<&Path>, context: &Context) -> Result<NetworkParams, SetupError> {
    let own = network_path(&context.data);
    Ok(read_network(file.unwrap_or(&own))?)
}

/// The files at or below `path`, sorted, proofs left out.
fn list(path: &Path, found: &mut Vec<PathBuf>) -> Result<(), ApiError> {
    if found.len() > FILES_MAX {
        return Err(too_many(found.len()));
    }
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let failed = |error| unreadable(path, &error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (kind, path) = (entry.file_type().map_err(failed)?, entry.path());
        // Links could lead out of the directory, or around in a circle; and what is neither a file nor a directory
        // may have no end.
        let is_proof = path.extension().is_some_and(|it| it == PROOF_SUFFIX);
        if kind.is_dir() || kind.is_file() && !is_proof {
            entries.push(path);
        }
    }
    entries.sort_unstable();
    entries.iter().try_for_each(|entry| list(entry, found))
}

fn proof_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(PROOF_SUFFIX);
    name.into()
}

fn digest(path: &Path) -> Result<FileDigest, ApiError> {
    let hash = || {
        let (mut file, mut hasher) = (File::open(path)?, FileHasher::default());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = file.read(&mut piece)?;
            match piece.get(..read) {
                Some([]) | None => return Ok::<_, io::Error>(hasher.finish()),
                Some(piece) => hasher = hasher.update(piece),
            }
        }
    };
    hash().map_err(|error| unreadable(path, &error))
}

/// A proof file of at most so many bytes; the hint is for one that cannot be opened.
pub(super) fn read_proof<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
    hint: &str,
) -> Result<T, ApiError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("{}: {error}", path.display()), hint)
    })?;
    file.take(bytes_max)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| {
            let message = format!("{} is no proof: {error}", path.display());
            ApiError::new(ErrorCode::ProofInvalid, message, "get the proof again from whoever made it")
        })
}

/// There is either the whole proof afterwards or none, and none that was there before is lost.
pub(super) fn write_proof(path: &Path, text: &str) -> io::Result<()> {
    let dir = directory_of(path);
    let readable = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

fn unwritable(path: &Path, block: BlockId, error: &io::Error) -> ApiError {
    let message =
        format!("the files are in block {block}, but {} cannot be written: {error}", path.display());
    ApiError::new(ErrorCode::InvalidRequest, message, "see to the disk, then notarize again")
}

fn too_many(files: usize) -> ApiError {
    let message = format!("{files} files; a note is over 1 to {FILES_MAX}");
    ApiError::new(ErrorCode::InvalidRequest, message, "notarize fewer at a time, or an archive of them")
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> ApiError {
    let message = format!("{}: {error}", path.display());
    ApiError::new(ErrorCode::InvalidRequest, message, "see that the file is there and can be read")
}

/// What is wrong with a file or its proof, each with a code of its own.
fn refused(path: &Path, error: &NotaryError) -> ApiError {
    let (code, what, hint) = match error {
        NotaryError::File { .. } => (
            ErrorCode::FileChanged,
            "was changed, or is not the file of this proof",
            "the proof itself is good; find the file that was notarized",
        ),
        NotaryError::Signatures(_) => (
            ErrorCode::SignaturesInvalid,
            "is not proven",
            "no milestone of this network is signed like that: do not trust the proof",
        ),
        NotaryError::Network { .. } => (
            ErrorCode::OtherNetwork,
            "is not proven on this network",
            "name the file of the proof's network with --network, from its operator",
        ),
        _ => (
            ErrorCode::ProofInvalid,
            "is not proven",
            "the proof was changed, or is of another file; get it again from whoever made it",
        ),
    };
    ApiError::new(code, format!("{} {what}: {error}", path.display()), hint)
}

fn report<'a>(file: &'a Path, digest: FileDigest, proven: &Notarized, proof: Option<&'a Path>) -> Report<'a> {
    Report {
        file,
        bytes: digest.bytes,
        hash: digest.hash,
        tag: String::from_utf8_lossy(&proven.tag).into_owned(),
        block: proven.block,
        milestone_index: proven.milestone_index,
        timestamp_ms: proven.timestamp_ms,
        proof,
    }
}

fn text(report: &Report<'_>) -> String {
    view::details([
        ("file", Some(report.file.display().to_string())),
        ("hash", Some(report.hash.to_string())),
        // Anybody can write a tag.
        ("tag", Some(report.tag.escape_debug().to_string())),
        ("on the ledger before", Some(format!("{} UTC", view::time(report.timestamp_ms)))),
        ("at milestone", Some(report.milestone_index.to_string())),
        ("block", Some(report.block.to_string())),
        ("proof", report.proof.map(|path| path.display().to_string())),
    ])
}
