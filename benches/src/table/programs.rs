//! The programs that are run: the daemon as it is shipped, and this one as a daemon that pays.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use flashd::{failure::Failure, local::Program};

use super::{Done, options::Options, worker};

/// Where they are.
pub(crate) struct Programs {
    flashd: PathBuf,
    this: PathBuf,
}

impl Programs {
    /// Builds the daemon as this program was built, unless another one is given.
    pub(crate) fn find(options: &Options) -> Done<Self> {
        let this = std::env::current_exe().map_err(Failure::new)?;
        let flashd = match &options.flashd {
            Some(path) => path
                .canonicalize()
                .map_err(|error| super::options::wrong(format!("{}: {error}", path.display())))?,
            None => build(parent(&this)?)?,
        };
        Ok(Self { flashd, this })
    }

    /// The daemon's file.
    pub(crate) fn flashd_path(&self) -> &Path {
        &self.flashd
    }

    /// The daemon and the node as they are shipped.
    pub(crate) fn flashd(&self) -> Program {
        Program::new(self.flashd.clone(), Vec::new())
    }

    /// This program with the same daemon in it, which takes its load at `socket`.
    pub(crate) fn embedded(&self, socket: &Path) -> Program {
        let before: Vec<OsString> = vec![worker::EMBEDDED.into(), socket.into()];
        Program::new(self.this.clone(), before)
    }

    /// This program as the other end of a plain link.
    pub(crate) fn echo(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.this);
        command.arg(worker::ECHO).kill_on_drop(true);
        command
    }
}

/// The directory that holds all that is built.
pub(crate) fn target_dir() -> Done<PathBuf> {
    let this = std::env::current_exe().map_err(Failure::new)?;
    parent(parent(&this)?).map(Path::to_path_buf)
}

fn parent(path: &Path) -> Done<&Path> {
    path.parent().ok_or_else(|| Failure::new(format!("{} is nowhere", path.display())))
}

/// Has cargo build the daemon into `dir`, the directory of a profile.
fn build(dir: &Path) -> Done<PathBuf> {
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => {
            return Err(Failure::new("this program is in no target directory; name a daemon with --flashd"));
        }
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "flashd",
            "--bin",
            "flashd",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(parent(dir)?)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo told this program about itself must not look like a change to the build scripts.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if told.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let built = cargo.status().map_err(Failure::new)?;
    if !built.success() {
        return Err(Failure::new(format!("the daemon cannot be built: {built}")));
    }
    Ok(dir.join("flashd"))
}
