//! What a disk may hold after the power was cut.
//!
//! A file's bytes are safe once the file was synced after they were written, its name once its directory was
//! synced after the name was made. Whatever came later may be there, or not, or in part: any subset of the
//! writes, each whole or torn at sectors of 512 bytes, and of the changes of names in a directory any first
//! few (journals keep their order).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::{
    random::Random,
    recording::{Event, Recorded},
};

const SECTOR_BYTES: usize = 512;

/// How much of what was never synced the cut leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsynced {
    /// Nothing.
    Lost,
    /// Any part of it.
    Random,
    /// All of it: the process died, the machine did not.
    Kept,
}

#[derive(Clone, Copy)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// Something not synced yet, and the line on which its call returned.
struct Pending<T>(usize, T);

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending<Change>>,
}

#[derive(Clone)]
enum Naming {
    Made(String, Node),
    Removed(String),
    Renamed(String, String),
}

/// A disk while a recording plays.
pub(crate) struct Disk {
    root: String,
    files: Vec<File>,
    /// Names as the running process sees them.
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    /// By directory.
    pending: BTreeMap<String, Vec<Pending<Naming>>>,
    /// The newest commit that the writer acknowledged.
    pub(crate) acknowledged: u64,
}

impl Disk {
    /// A disk on which only the directory `root` exists.
    pub(crate) fn new(root: &Path) -> Self {
        let root = root.to_str().unwrap().to_owned();
        let names = BTreeMap::from([(root.clone(), Node::Directory)]);
        Self {
            root,
            files: Vec::new(),
            live: names.clone(),
            durable: names,
            pending: BTreeMap::new(),
            acknowledged: 0,
        }
    }

    /// A disk on which everything is as it is in the directory `root` now.
    #[allow(dead_code, reason = "the store's own test begins with an empty directory")]
    pub(crate) fn holding(root: &Path) -> Self {
        let mut disk = Self::new(root);
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.to_str().unwrap().to_owned();
                let node = if path.is_dir() {
                    directories.push(path);
                    Node::Directory
                } else {
                    disk.files.push(File { durable: fs::read(&path).unwrap(), pending: Vec::new() });
                    Node::File(disk.files.len() - 1)
                };
                disk.live.insert(name.clone(), node);
                disk.durable.insert(name, node);
            }
        }
        disk
    }

    /// Plays the next event. Syncs must be played when they return, everything else when it begins.
    pub(crate) fn play(&mut self, Recorded { began, returned, event }: &Recorded) {
        match event {
            Event::Acknowledged(number) => self.acknowledged = *number,
            Event::Create { path, truncate } => {
                if let Some(Node::File(_)) = self.live.get(path) {
                    if *truncate {
                        self.change(path, *returned, Change::Truncate(0));
                    }
                } else {
                    let node = Node::File(self.files.len());
                    self.files.push(File::default());
                    self.name(*returned, path, Naming::Made(path.clone(), node));
                }
            }
            Event::MakeDirectory { path } => {
                self.name(*returned, path, Naming::Made(path.clone(), Node::Directory));
            }
            Event::Remove { path } => self.name(*returned, path, Naming::Removed(path.clone())),
            Event::Rename { from, to } => {
                assert_eq!(parent(from), parent(to), "renaming across directories is not modelled");
                self.name(*returned, from, Naming::Renamed(from.clone(), to.clone()));
            }
            Event::Write { path, offset, data } => {
                self.change(path, *returned, Change::Write(*offset, data.clone()));
            }
            Event::Truncate { path, len } => self.change(path, *returned, Change::Truncate(*len)),
            Event::Sync { path } => self.sync(path, *began),
        }
    }

    fn name(&mut self, returned: usize, path: &str, naming: Naming) {
        naming.apply(&mut self.live);
        self.pending.entry(parent(path)).or_default().push(Pending(returned, naming));
    }

    fn change(&mut self, path: &str, returned: usize, change: Change) {
        let Some(Node::File(file)) = self.live.get(path) else { panic!("{path} is not a file") };
        self.files[*file].pending.push(Pending(returned, change));
    }

    /// Makes durable what had returned before the sync began.
    fn sync(&mut self, path: &str, began: usize) {
        match self.live.get(path) {
            Some(Node::File(file)) => {
                let file = &mut self.files[*file];
                for Pending(_, change) in file.pending.extract_if(.., |pending| pending.0 < began) {
                    change.apply(&mut file.durable);
                }
            }
            Some(Node::Directory) => {
                let pending = self.pending.entry(path.to_owned()).or_default();
                for Pending(_, naming) in pending.extract_if(.., |pending| pending.0 < began) {
                    naming.apply(&mut self.durable);
                }
            }
            None => panic!("{path} is not there"),
        }
    }

    /// Cuts the power and writes what is left into the directory `to`.
    pub(crate) fn cut(&self, unsynced: Unsynced, random: &mut Random, to: &Path) {
        let mut names = self.durable.clone();
        for pending in self.pending.values() {
            let kept = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::Random => random.below(pending.len() + 1),
                Unsynced::Kept => pending.len(),
            };
            pending.iter().take(kept).for_each(|Pending(_, naming)| naming.apply(&mut names));
        }
        let mut made = BTreeSet::new();
        for (path, node) in &names {
            let target = to.join(path.strip_prefix(&self.root).unwrap().trim_start_matches('/'));
            // What is in a directory whose own name was lost cannot be found.
            if *path != self.root && !made.contains(&parent(path)) {
                continue;
            }
            match node {
                Node::Directory => {
                    fs::create_dir_all(&target).unwrap();
                    made.insert(path.clone());
                }
                Node::File(file) => fs::write(&target, self.files[*file].cut(unsynced, random)).unwrap(),
            }
        }
    }
}

impl File {
    fn cut(&self, unsynced: Unsynced, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        for Pending(_, change) in &self.pending {
            match (unsynced, change) {
                (Unsynced::Lost, _) => {}
                (Unsynced::Kept, change) => change.apply(&mut content),
                (Unsynced::Random, Change::Write(offset, data)) => match random.below(3) {
                    0 => {}
                    1 => change.apply(&mut content),
                    _ => tear(&mut content, *offset, data, random),
                },
                (Unsynced::Random, change) => {
                    if random.below(2) == 0 {
                        change.apply(&mut content);
                    }
                }
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write(content, *offset, data),
            Self::Truncate(len) => content.resize(*len, 0),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Made(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Removed(path) => {
                names.remove(path);
            }
            Self::Renamed(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// Writes about half of the sectors.
fn tear(content: &mut Vec<u8>, offset: usize, data: &[u8], random: &mut Random) {
    let mut at = 0;
    while at < data.len() {
        let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let end = data.len().min(sector_end - offset);
        if random.below(2) == 0 {
            write(content, offset + at, &data[at..end]);
        }
        at = end;
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').unwrap().0.to_owned()
}
