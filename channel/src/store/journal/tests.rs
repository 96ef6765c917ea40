//! Damage, disks that refuse, and how much room the store takes.

use tempfile::TempDir;

use super::{segment::Place, *};
use std::{fs, os::unix::fs::FileExt};

const SMALL: Table = Table::small(1, "small");
const LARGE: Table = Table::large(2, "large");

fn open(directory: &Path) -> Result<JournalStore, StoreError> {
    JournalStore::open_small(directory, b"me")
}

fn put(store: &JournalStore, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    store.commit(&batch).map(|_durable| ())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let journal = directory.join(JOURNAL);
    segment::list(&journal).unwrap().into_iter().map(|number| segment::path(&journal, number)).collect()
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A store, and a directory beside it to which copies go: what a process finds after `kill -9`.
struct Killed {
    store: JournalStore,
    dir: TempDir,
}

impl Killed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: open(&dir.path().join("store")).unwrap(), dir }
    }

    /// The directory as it is now, with the keeper at rest.
    fn copied(&self) -> PathBuf {
        let shared = &self.store.shared;
        drop(shared.done.wait_while(shared.signal(), |signal| signal.due).unwrap());
        let to = self.dir.path().join("copy");
        let _ = fs::remove_dir_all(&to);
        copy(&self.dir.path().join("store"), &to);
        to
    }

    /// Where the newest commit ends.
    fn end(&self) -> usize {
        usize::try_from(self.store.shared.writer().end).unwrap()
    }

    /// Commits under a few keys until the keeper has moved all that waits so many times.
    fn moved(&self, times: usize) {
        for _ in 0..times {
            let before = self.store.shared.base.mark().unwrap();
            for n in 0_u32.. {
                put(&self.store, SMALL, &[7], vec![7; 4_000]).unwrap();
                let moved = self.store.shared.base.mark().unwrap() != before;
                if moved && !self.store.shared.signal().due {
                    break;
                }
                assert!(n < 100_000, "the keeper does nothing");
            }
        }
    }
}

fn get(store: &JournalStore) -> Option<Vec<u8>> {
    store.get(SMALL, b"k").unwrap()
}

fn assert_damaged(directory: &Path, what: &str) {
    for _ in 0..2 {
        match open(directory) {
            Err(StoreError::Damaged(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_torn_end_is_cut_off_and_a_damaged_middle_is_refused() {
    let killed = Killed::new();
    put(&killed.store, SMALL, b"k", vec![1; 30]).unwrap();
    let middle = killed.end();
    put(&killed.store, SMALL, b"k", vec![2; 30]).unwrap();
    let end = killed.end();
    for byte in middle..end {
        let directory = killed.copied();
        File::options().write(true).open(&segments(&directory)[0]).unwrap().set_len(byte as u64).unwrap();
        let store = open(&directory).unwrap();
        assert_eq!(get(&store), Some(vec![1; 30]), "cut off at {byte}");
        put(&store, SMALL, b"k", vec![3]).unwrap();
        drop(store);
        assert_eq!(get(&open(&directory).unwrap()), Some(vec![3]), "cut off at {byte}");
        let directory = killed.copied();
        flip(&segments(&directory)[0], byte);
        assert_eq!(get(&open(&directory).unwrap()), Some(vec![1; 30]), "torn at {byte}");
    }
    for byte in [middle, middle + 10, end - 30] {
        // What was not written is as it was before: zeros.
        let directory = killed.copied();
        let file = &segments(&directory)[0];
        let mut bytes = fs::read(file).unwrap();
        assert!(bytes.len() >= end + SMALL_SIZES.small, "there is no room behind the commit");
        bytes[byte..].fill(0);
        fs::write(file, bytes).unwrap();
        let store = open(&directory).unwrap();
        assert_eq!(get(&store), Some(vec![1; 30]), "zeros from {byte} on");
        assert_eq!(fs::metadata(file).unwrap().len(), middle as u64, "nothing is left of it");
        put(&store, SMALL, b"k", vec![3]).unwrap();
        let again = killed.dir.path().join("again");
        let _ = fs::remove_dir_all(&again);
        copy(&directory, &again);
        assert_eq!(get(&open(&again).unwrap()), Some(vec![3]), "zeros from {byte} on");
    }
    for byte in 0..middle {
        let directory = killed.copied();
        flip(&segments(&directory)[0], byte);
        assert_damaged(&directory, &format!("byte {byte} is flipped"));
    }
    assert_eq!(get(&open(&killed.copied()).unwrap()), Some(vec![2; 30]));
}

#[test]
fn small_commits_are_written_into_room_that_is_there_already() {
    let killed = Killed::new();
    let len = || fs::metadata(segments(&killed.dir.path().join("store")).last().unwrap()).unwrap().len();
    let bytes = |bytes: usize| put(&killed.store, SMALL, b"k", vec![7; bytes]).unwrap();
    // The first commit, which says whose the store is, has made some.
    let filled = len();
    assert_eq!(filled, killed.end() as u64 + SMALL_SIZES.room);
    while killed.end() + 100 < usize::try_from(filled).unwrap() {
        bytes(30);
        assert_eq!(len(), filled, "the file does not grow");
    }
    bytes(100);
    assert_eq!(len(), killed.end() as u64 + SMALL_SIZES.room, "new room");
    put(&killed.store, LARGE, b"l", vec![7; 20_000]).unwrap();
    assert_eq!(len(), killed.end() as u64, "a large commit comes without");
    bytes(30);
    assert!(len() > killed.end() as u64);
    killed.store.shared.begin_segment(&mut killed.store.shared.writer()).unwrap();
    let lens: Vec<u64> =
        segments(&killed.copied()).iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    let ends: Vec<u64> = killed.store.shared.state().segments.values().map(|extent| extent.bytes).collect();
    assert_eq!(lens, ends, "a file that is full has nothing but commits");
    assert_eq!(get(&open(&killed.copied()).unwrap()), Some(vec![7; 30]));
}

fn spares(directory: &Path) -> usize {
    let files = fs::read_dir(directory.join(JOURNAL)).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some()).count()
}

/// A store whose newest file was another one before, and the bytes of that behind its header.
fn on_a_file_of_before() -> (Killed, Vec<u8>) {
    let killed = Killed::new();
    let shared = &killed.store.shared;
    while shared.state().spares.is_empty() {
        killed.moved(2);
    }
    assert!(shared.state().spares.len() <= SMALL_SIZES.spares, "no more are kept");
    let (spare, _) = *shared.state().spares.last().unwrap();
    let before = fs::read(segment::spare_path(&shared.directory, spare)).unwrap();
    shared.begin_segment(&mut shared.writer()).unwrap();
    let now = fs::read(segments(&killed.dir.path().join("store")).last().unwrap()).unwrap();
    let header = usize::try_from(HEADER_BYTES).unwrap();
    assert!(now.len() as u64 >= SMALL_SIZES.segment && now[header..] == before[header..]);
    (killed, before)
}

#[test]
fn files_that_go_are_written_again_as_long_as_the_store_is_open() {
    let (killed, _) = on_a_file_of_before();
    let store = killed.dir.path().join("store");
    let len = || fs::metadata(segments(&store).last().unwrap()).unwrap().len();
    let filled = len();
    for (table, bytes) in [(SMALL, 30), (LARGE, 20_000)] {
        put(&killed.store, table, b"k", vec![7; bytes]).unwrap();
        assert_eq!(len(), filled, "the file does not grow");
    }
    let on_the_disk = |directory: &Path| -> u64 {
        let files = fs::read_dir(directory.join(JOURNAL)).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let told = killed.store.disk_bytes() - killed.store.shared.base.disk_bytes();
    assert_eq!(told, on_the_disk(&store), "all files are counted");
    let copied = killed.copied();
    assert_eq!(spares(&copied), killed.store.shared.state().spares.len());
    let opened = open(&copied).unwrap();
    assert_eq!(get(&opened), Some(vec![7; 30]));
    assert_eq!(spares(&copied), 0, "they were those of another process");
    drop((opened, killed.store));
    assert_eq!((spares(&store), get(&open(&store).unwrap())), (0, Some(vec![7; 30])));
    assert!(len() < SMALL_SIZES.segment, "nothing is left of what it was");
}

#[test]
fn what_a_file_was_before_is_never_taken_for_what_it_is() {
    let (killed, before) = on_a_file_of_before();
    put(&killed.store, SMALL, b"k", vec![1; 30]).unwrap();
    let middle = killed.end();
    put(&killed.store, SMALL, b"k", vec![2; 30]).unwrap();
    let end = killed.end();
    for byte in middle..end {
        // What was not written is as it was before.
        let directory = killed.copied();
        let file = segments(&directory).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        bytes[byte..end].copy_from_slice(&before[byte..end]);
        fs::write(&file, bytes).unwrap();
        let store = open(&directory).unwrap();
        assert_eq!(get(&store), Some(vec![1; 30]), "torn at {byte}");
        assert_eq!(fs::metadata(&file).unwrap().len(), middle as u64, "nothing is left of it");
    }
    for byte in 0..middle {
        let directory = killed.copied();
        flip(segments(&directory).last().unwrap(), byte);
        assert_damaged(&directory, &format!("byte {byte} is flipped"));
    }
    // As far as its header it may be the old file that lost its new name only.
    let directory = killed.copied();
    let file = segments(&directory).pop().unwrap();
    fs::write(&file, before).unwrap();
    assert_damaged(&directory, "the old file under a new name");
}

#[test]
fn what_is_read_where_a_file_is_written_again_is_looked_for_once_more() {
    let killed = Killed::new();
    put(&killed.store, LARGE, b"k", vec![1; 5_000]).unwrap();
    let shared = &killed.store.shared;
    let slot = shared.state().slot(&shared.base, LARGE.id, b"k").unwrap();
    let Slot::At(place) = slot else { panic!("{slot:?}") };
    put(&killed.store, LARGE, b"k", vec![2; 5_000]).unwrap();
    shared.writer().segment.file.write_all_at(&[9; 100], place.offset).unwrap();
    let found = shared.values(LARGE, vec![(b"k".to_vec(), Slot::At(place))]).unwrap();
    assert_eq!(found, [(b"k".to_vec(), vec![2; 5_000])]);
}

#[test]
fn what_is_missing_of_the_files_is_missed() {
    let killed = Killed::new();
    killed.moved(2);
    let old = killed.dir.path().join("old base");
    copy(&killed.copied().join(BASE), &old);
    put(&killed.store, LARGE, b"large", vec![8; 50_000]).unwrap();
    killed.moved(2);
    // Each copy waits for the keeper, so that there are four files at some time, however slow it is: that of the large
    // value, that up to which the tree is, and two more.
    let (mut files, mut newest) = (Vec::new(), None);
    for n in 0..100 {
        newest = Some(vec![n; 4_000]);
        put(&killed.store, SMALL, b"k", vec![n; 4_000]).unwrap();
        files = segments(&killed.copied());
        if files.len() >= 4 {
            break;
        }
    }
    assert!(files.len() >= 4, "{files:?}");
    // That the newest is gone after a crash nothing can tell, as nothing is known of what was in it.
    let mut needed = 0;
    for file in &files[..files.len() - 1] {
        let directory = killed.copied();
        fs::remove_file(directory.join(JOURNAL).join(file.file_name().unwrap())).unwrap();
        match open(&directory) {
            Err(StoreError::Damaged(_)) => needed += 1,
            // All of it that counts is in the tree.
            Ok(store) => {
                assert_eq!(get(&store), newest, "{} is gone", file.display());
                assert_eq!(store.get(LARGE, b"large").unwrap(), Some(vec![8; 50_000]));
            }
            Err(other) => panic!("{} is gone: {other}", file.display()),
        }
    }
    assert!(needed >= 2, "{needed} of {files:?} are needed");
    let cut = killed.copied();
    let file = &segments(&cut)[files.len() - 2];
    let mut bytes = fs::read(file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(end);
    fs::write(file, bytes).unwrap();
    assert_damaged(&cut, "the end of a file that is not the last");
    let directory = killed.copied();
    fs::remove_dir_all(directory.join(BASE)).unwrap();
    assert_damaged(&directory, "the tree is gone");
    copy(&old, &directory.join(BASE));
    assert_damaged(&directory, "the tree is old");
    let directory = killed.copied();
    fs::remove_dir_all(directory.join(JOURNAL)).unwrap();
    assert_damaged(&directory, "the journal is gone");
}

#[test]
fn a_file_whose_making_was_cut_short_is_made_again() {
    let killed = Killed::new();
    put(&killed.store, SMALL, b"k", vec![1]).unwrap();
    for len in 0..=HEADER_BYTES {
        let directory = killed.copied();
        let next = segment::path(&directory.join(JOURNAL), 2);
        fs::write(&next, vec![0; usize::try_from(len).unwrap()]).unwrap();
        let store = open(&directory).unwrap();
        assert_eq!(get(&store), Some(vec![1]));
        assert!(!next.exists());
    }
    // The very first one.
    let directory = killed.dir.path().join("first");
    fs::create_dir_all(directory.join(JOURNAL)).unwrap();
    fs::write(segment::path(&directory.join(JOURNAL), 1), [0; 20]).unwrap();
    put(&open(&directory).unwrap(), SMALL, b"k", vec![1]).unwrap();
    assert_eq!(get(&open(&directory).unwrap()), Some(vec![1]));
}

#[test]
fn what_looks_like_a_frame_in_a_value_is_none() {
    let killed = Killed::new();
    let writer = Segment::create(killed.dir.path(), 1, 1).unwrap();
    let mut inner = Batch::new();
    inner.put(SMALL, b"k", vec![9]);
    let mut frame = Vec::new();
    writer.frame(9, &inner, &mut frame).unwrap();
    put(&killed.store, SMALL, b"k", vec![1]).unwrap();
    let begin = killed.end();
    put(&killed.store, SMALL, b"k", frame).unwrap();
    let directory = killed.copied();
    flip(&segments(&directory)[0], begin);
    assert_eq!(get(&open(&directory).unwrap()), Some(vec![1]), "torn, with a stranger's frame in it");
}

#[test]
fn a_flipped_bit_is_found_wherever_a_value_stands() {
    let killed = Killed::new();
    put(&killed.store, LARGE, b"large", vec![8; 50_000]).unwrap();
    put(&killed.store, SMALL, b"k", vec![8; 500]).unwrap();
    drop(killed.store);
    let [store, copied] = ["store", "copy"].map(|name| killed.dir.path().join(name));
    copy(&store, &copied);
    let file = segments(&copied).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    flip(&file, 20_000);
    let opened = open(&copied).unwrap();
    assert!(matches!(opened.get(LARGE, b"large"), Err(StoreError::Corrupt { .. })));
    assert!(opened.scan(LARGE, b"", None, 9).is_err());
    assert_eq!(get(&opened), Some(vec![8; 500]), "the others are as they were");
    drop(opened);
    File::options().write(true).open(&file).unwrap().set_len(20_000).unwrap();
    assert_damaged(&copied, "a file that was closed is shorter");
    // A bit of the tree.
    let tables = || fs::read_dir(store.join(BASE).join("tables")).unwrap().map(|file| file.unwrap().path());
    for table in tables() {
        let bytes = fs::read(&table).unwrap();
        let at = bytes.windows(100).position(|window| window == [8; 100]);
        let Some(at) = at else { continue };
        flip(&table, at + 50);
        assert!(open(&store).and_then(|store| store.get(SMALL, b"k")).is_err());
        return;
    }
    panic!("the value is in no table");
}

#[test]
fn a_disk_that_refuses_poisons_the_store_and_loses_nothing_acknowledged() {
    // A file that takes nothing, one that takes it and cannot be synced, one that may not be written.
    for (file, full) in [("/dev/full", true), ("/dev/null", false), ("/dev/zero", false)] {
        let killed = Killed::new();
        put(&killed.store, SMALL, b"k", vec![1]).unwrap();
        killed.store.shared.writer().segment.file =
            File::options().read(true).write(file != "/dev/zero").open(file).unwrap();
        let refused = put(&killed.store, SMALL, b"k", vec![2]).unwrap_err();
        assert_eq!(matches!(refused, StoreError::Full), full, "{file}: {refused}");
        assert_eq!(matches!(refused, StoreError::Io(_)), !full, "{file}: {refused}");
        assert!(matches!(put(&killed.store, SMALL, b"k", vec![3]), Err(StoreError::Poisoned)));
        assert!(matches!(killed.store.get(SMALL, b"k"), Err(StoreError::Poisoned)));
        let directory = killed.dir.path().join("store");
        drop(killed.store);
        assert_eq!(get(&open(&directory).unwrap()), Some(vec![1]), "{file}");
    }
}

#[test]
fn a_tree_that_takes_nothing_stops_the_store() {
    let killed = Killed::new();
    fs::remove_dir_all(killed.dir.path().join("store").join(BASE).join("tables")).unwrap();
    let refused =
        (0..100_000_u32).find_map(|n| put(&killed.store, SMALL, &n.to_be_bytes(), vec![7; 500]).err());
    assert!(matches!(refused, Some(StoreError::Io(_))), "{refused:?}");
    assert!(matches!(killed.store.get(SMALL, b"k"), Err(StoreError::Poisoned)));
}

#[test]
fn old_values_give_their_room_back_whichever_stay() {
    let value = |n: u32| vec![u8::try_from(n % 251).unwrap(); 20_000];
    let killed = Killed::new();
    let store = &killed.store;
    for n in 0..600_u32 {
        let mut batch = Batch::new();
        batch.put(LARGE, &n.to_be_bytes(), value(n));
        // Of the old ones each tenth stays, so that no file is without a value that is needed.
        if let Some(old) = n.checked_sub(5).filter(|old| old % 10 != 0) {
            batch.delete(LARGE, &old.to_be_bytes());
        }
        let _ = store.commit(&batch).unwrap();
    }
    let kept: Vec<u32> = (0..600).filter(|n| n % 10 == 0 || *n >= 595).collect();
    killed.moved(3);
    let bytes = store.disk_bytes();
    let needed = kept.len() as u64 * 20_000;
    let spare = SMALL_SIZES.spare + 2 * SMALL_SIZES.journal;
    assert!(bytes < 2 * needed + spare, "{bytes} bytes for {needed}");
    for store in [&open(&killed.copied()).unwrap(), store] {
        let found = store.scan(LARGE, b"", None, usize::MAX).unwrap();
        let wanted: Vec<_> = kept.iter().map(|n| (n.to_be_bytes().to_vec(), value(*n))).collect();
        assert!(found == wanted, "{} of {}", found.len(), wanted.len());
    }
}

#[test]
fn what_is_replaced_again_and_again_takes_room_a_few_times_at_most() {
    let killed = Killed::new();
    killed.moved(1);
    let once = killed.store.shared.base.disk_bytes();
    assert!(once > 4_000, "{once} bytes with a value of 4,000");
    killed.moved(40);
    let bytes = killed.store.shared.base.disk_bytes();
    assert!(bytes < 10 * once, "{bytes} bytes after 41 runs of {once}");
}

#[test]
fn what_waits_in_memory_is_moved_before_it_takes_much() {
    let killed = Killed::new();
    let shared = &killed.store.shared;
    let before = shared.base.mark().unwrap();
    let mut batch = Batch::new();
    for n in 0..2_000_u32 {
        batch.put(SMALL, &n.to_be_bytes(), vec![7]);
    }
    let _ = killed.store.commit(&batch).unwrap();
    drop(shared.done.wait_while(shared.signal(), |signal| signal.due).unwrap());
    assert!(shared.state().since < SMALL_SIZES.journal, "the journal alone is no reason");
    assert_ne!(shared.base.mark().unwrap(), before);
    assert_eq!(shared.state().overlay.bytes(), 0);
}

#[test]
fn a_closed_store_has_no_more_files_than_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = || -> Vec<u64> {
        segments(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).collect()
    };
    let store = open(dir.path()).unwrap();
    put(&store, SMALL, b"k", vec![1; 30]).unwrap();
    drop(store);
    assert_eq!(bytes(), [HEADER_BYTES], "the tree has it all");
    let file = segments(dir.path());
    drop(open(dir.path()).unwrap());
    assert_eq!(segments(dir.path()), file, "nothing was to be done");
    let store = open(dir.path()).unwrap();
    put(&store, LARGE, b"k", vec![1; 30_000]).unwrap();
    drop(store);
    assert!(bytes()[..] > [30_000][..], "the value is in it: {:?}", bytes());
}

/// Values in one full file, each in a commit of its own.
fn one_full_file(count: usize, bytes: usize) -> (Killed, u64) {
    let killed = Killed::new();
    let first = killed.store.shared.writer().segment.number;
    for n in 0..count {
        put(&killed.store, LARGE, &n.to_be_bytes(), vec![1; bytes]).unwrap();
    }
    assert_eq!(killed.store.shared.writer().segment.number, first, "it is still the same file");
    killed.store.shared.begin_segment(&mut killed.store.shared.writer()).unwrap();
    (killed, first)
}

#[test]
fn values_are_written_again_many_at_a_time_and_only_if_they_are_in_the_way() {
    let (killed, first) = one_full_file(12, 5_000);
    let shared = &killed.store.shared;
    let newest = || shared.writer().newest;
    // Half of it is not needed, but that is less than there may be to spare.
    for n in 0..6_usize {
        put(&killed.store, LARGE, &n.to_be_bytes(), vec![2; 10]).unwrap();
    }
    let commits = newest();
    keeper::keep(shared).unwrap();
    assert_eq!(newest(), commits, "nothing is written again");
    keeper::write_again(shared, first).unwrap();
    assert!((1..=3).contains(&(newest() - commits)), "30,000 bytes, 16 KiB at a time");
    for n in 0..12_usize {
        let value = if n < 6 { vec![2; 10] } else { vec![1; 5_000] };
        assert_eq!(killed.store.get(LARGE, &n.to_be_bytes()).unwrap(), Some(value));
    }
}

#[test]
fn a_file_that_should_have_more_values_than_are_found_is_damaged() {
    let (killed, first) = one_full_file(3, 5_000);
    let shared = &killed.store.shared;
    shared.state_mut().segments.get_mut(&first).unwrap().live += 1;
    let error = keeper::write_again(shared, first).unwrap_err();
    assert!(error.to_string().contains("1 bytes of values in file"), "{error}");
}

#[test]
fn a_file_that_has_gone_is_no_damage_and_all_else_is() {
    let (killed, first) = one_full_file(1, 5_000);
    let (directory, place) = (&killed.store.shared.directory, Place { segment: first, offset: 40, len: 8 });
    let read = |directory: &Path, place| segment::read_value(directory, place).map_err(|error| error.kind());
    assert!(matches!(read(directory, place), Ok(Some(value)) if value.len() == 8));
    assert_eq!(read(directory, Place { segment: 99, ..place }), Ok(None));
    assert_eq!(read(directory, Place { offset: 1 << 40, ..place }), Ok(Some(Vec::new())), "cut off");
    let file = segment::path(directory, first);
    assert_eq!(read(&file, place), Err(io::ErrorKind::NotADirectory));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(read(directory, place), Err(io::ErrorKind::IsADirectory));
}

#[test]
fn a_mark_has_its_numbers_and_nothing_else() {
    let bytes: Vec<u8> = (0..5_u64).flat_map(u64::to_le_bytes).collect();
    let mark = recovery::Mark::from_bytes(&bytes).unwrap();
    assert_eq!((mark.to_bytes(), mark.live), (bytes.clone(), vec![(3, 4)]));
    for wrong in [&bytes[..16], &bytes[..32], &[&bytes[..], &[0]].concat(), &[]] {
        assert!(recovery::Mark::from_bytes(wrong).is_none(), "{} bytes", wrong.len());
    }
}

#[test]
fn readers_see_whole_commits_while_they_are_made_and_moved() {
    let killed = Killed::new();
    let store = &killed.store;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut newest = 0;
            while !done.load(Ordering::Acquire) {
                let number = |entry: &Entry| u64::from_le_bytes(*entry.1.first_chunk().unwrap());
                let Some(last) = store.last(LARGE, b"").unwrap() else { continue };
                assert!(number(&last) >= newest, "{} after {newest}", number(&last));
                newest = number(&last);
                let found = store.scan(LARGE, b"", None, 100).unwrap();
                let numbers: Vec<u64> = found.iter().map(number).collect();
                assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
                assert!(found.iter().all(|(_, value)| value.len() >= 3_000));
            }
        });
        for n in 1..=1_500_u64 {
            let mut batch = Batch::new();
            let value = [&n.to_le_bytes()[..], &[7; 3_000]].concat();
            batch.put(LARGE, &n.to_be_bytes(), value);
            batch.delete(LARGE, &n.saturating_sub(8).to_be_bytes());
            let _ = store.commit(&batch).unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(store.scan(LARGE, b"", None, 100).unwrap().len(), 8);
}
