//! The binaries under test, built the way this test was.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The directory of this program's profile: `target/debug`, `target/release`, …
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a program knows where it is");
    let dir = exe.parent().expect("a file is in a directory");
    // Tests are built in a directory below, programs are not.
    let tests = dir.file_name().is_some_and(|name| name == "deps");
    let dir = if tests { dir.parent().expect("`deps` is in a directory") } else { dir };
    dir.to_owned()
}

fn profile(dir: &Path) -> String {
    dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether this is an optimised build, in which the long versions of tests take little time.
pub fn is_release() -> bool {
    profile(&profile_dir()) == "release"
}

/// The path of a binary, `flashd` or `flash`. The first call has cargo build both, because for a test
/// it builds only the binaries of the test's own package. They are built as a test of the whole workspace does, by the
/// test that needs them: other features of what they depend on would build all of it a second time.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

fn build() -> PathBuf {
    let dir = profile_dir();
    let target = dir.parent().expect("the profile's directory is in the target directory");
    let profile = match profile(&dir).as_str() {
        "debug" => "test".to_owned(),
        other => other.to_owned(),
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["test", "--no-run", "--quiet", "--locked", "--workspace", "--test", "flash"])
        .args(["--profile", &profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo told this test about itself must not look like a change to the build scripts.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if told.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(&*name);
        }
    }
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "the binaries cannot be built: {built}");
    dir
}
