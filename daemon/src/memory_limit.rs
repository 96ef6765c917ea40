//! Starting processes that may take only so much memory: in a control group each, which Linux lets root make.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// Where the memory groups are: version 2, then version 1, each with the name of its limit.
const ROOTS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// A control group with a limit; removed when it is dropped, if no process is left in it.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// A group whose processes may take so many bytes together, what they read and write of files
    /// included; the kernel lets go of these first, and ends a process only if that is not enough.
    ///
    /// # Errors
    /// What the system said: this needs root, and memory control groups.
    pub(crate) fn new(name: &str, bytes: u64) -> io::Result<Self> {
        let wanted = bytes.to_string().into_bytes();
        let mut refused = io::Error::other("there are no memory control groups");
        for (root, limit) in ROOTS.map(|(root, limit)| (Path::new(root), limit)) {
            let group = root.join(format!("flash-{}-{name}", std::process::id()));
            // Made by the kernel; a file that had to be made would limit nothing.
            let set = |()| File::options().write(true).open(group.join(limit))?.write_all(&wanted);
            match fs::create_dir(&group).and_then(set) {
                Ok(()) => return Ok(Self { group }),
                Err(error) => {
                    let _ = fs::remove_dir(&group);
                    refused = error;
                }
            }
        }
        Err(refused)
    }

    /// A command that starts `program` in the group, so that its first byte counts.
    pub(crate) fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new("/bin/sh");
        let processes = self.group.join("cgroup.procs");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(processes).arg(program);
        command
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_in_its_group_from_the_start() {
        let limit = match MemoryLimit::new("test", 64_000_000) {
            Ok(limit) => limit,
            Err(error) => return println!("NOT RUN: {error}"),
        };
        let ended = limit.command(OsStr::new("/bin/cat")).arg("/proc/self/cgroup").output().await.unwrap();
        let name = limit.group.file_name().unwrap().to_str().unwrap().to_owned();
        let groups = String::from_utf8(ended.stdout).unwrap();
        assert!(groups.contains(&name), "{groups}");
        let group = limit.group.clone();
        drop(limit);
        assert!(!group.exists());
    }
}
