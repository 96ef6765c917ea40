//! Records as they lie on the disk: damaged, cut off, of an older and of a newer release.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    panic,
    path::{Path, PathBuf},
};

use flash_channel::store::{Batch, SledStore, Store, Table};
use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Net, copy, rounds, run, wait_unlocked};
use flashd::{
    api::{ChannelInfo, ErrorCode, PayRequest, ReceiptRequest},
    client::{Client, Ready},
    rpc::Scope,
};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

/// Bytes in front of a stored value: the number of its further parts, the version, the checksum.
const VERSION_AT: usize = 2;
const VALUE_AT: usize = 7;
const DEPOSIT: u64 = 1_000_000;

/// Does something with a store that no daemon has open.
fn with<T>(store: &Path, work: impl FnOnce(&sled::Db) -> T) -> T {
    let db = sled::open(store).expect("a store");
    let done = work(&db);
    drop(db);
    wait_unlocked(store);
    done
}

/// The newest entry of each table in a store, by the table's number.
fn one_of_each(store: &Path) -> BTreeMap<u8, (sled::IVec, sled::IVec)> {
    with(store, |db| {
        let entries = db.iter().map(|entry| entry.expect("an entry"));
        entries.filter_map(|(key, value)| Some((*key.first()?, (key, value)))).collect()
    })
}

/// Puts a value in its place, or nothing.
fn change(store: &Path, key: &[u8], value: Option<&[u8]>) {
    with(store, |db| {
        match value {
            Some(value) => db.insert(key, value).expect("room"),
            None => db.remove(key).expect("room"),
        };
        db.flush().expect("room");
    });
}

/// A daemon that has used its wallet, a channel and payment keys, and is stopped. Its records are in sled, where a test can
/// put others in their place.
async fn used(net: &Net) -> (Daemon, Daemon, ChannelId) {
    let money = Amount::new(3 * DEPOSIT);
    let car = Daemon::init(net, "car").await;
    car.configure("store = \"sled\"\n");
    let (mut car, charger) = tokio::join!(net.run_with_money(car, money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 400).await;
    car.agree(&charger, channel).await;
    let request = PayRequest { amount: Amount::new(9), reference: None, key: Some("a key".to_owned()) };
    car.client().pay(channel, &request).await.expect("it is in use");
    let update = car.channel(channel).await.sent.updates;
    assert!(update > 0);
    assert_eq!(car.stop().await.code, Some(0));
    (car, charger, channel)
}

/// The numbers and names of all tables of a daemon's store, from where they are declared.
fn declared_tables() -> BTreeMap<u8, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = [
        "channel/src/machine/tables.rs",
        "channel/src/tower.rs",
        "channel/src/store/directory.rs",
        "daemon/src/tables.rs",
    ];
    let declared = |file| {
        let source = fs::read_to_string(root.join(file)).expect("a source file");
        let declarations: Vec<String> =
            source.lines().filter(|line| line.contains(": Table = Table::")).map(str::to_owned).collect();
        assert!(!declarations.is_empty(), "{file} declares tables");
        declarations
    };
    let number_and_name = |line: String| {
        let (number, name) = line.rsplit_once('(')?.1.split_once(", \"")?;
        Some((number.parse().ok()?, name.split_once('"')?.0.to_owned()))
    };
    files.into_iter().flat_map(declared).map(|line| number_and_name(line).expect("a number")).collect()
}

/// Calls that read what is not read at the start.
async fn read_the_rest(client: &Client, channel: ChannelId) {
    let request = PayRequest { amount: Amount::new(9), reference: None, key: Some("a key".to_owned()) };
    let _ = client.pay(channel, &request).await;
    let request = ReceiptRequest { payment: 1, received: false };
    let _ = client.receipt(channel, request).await;
    let _ = client.history(100).await;
    if let Ok(events) = client.events(None, false).await {
        let _ = events.try_collect::<Vec<_>>().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_newer_record_of_any_kind_is_named_and_stops_the_daemon() {
    let net = Net::start().await;
    let (car, charger, channel) = used(&net).await;
    let tower = net.node.address.to_string();
    let mut strict =
        Daemon::at(car.data().to_owned()).with(&["--tower-listen", "127.0.0.1:0", "--tower", &tower]);
    let store = car.data().join("store");
    let tables = declared_tables();
    let used = one_of_each(&store);
    // What this daemon has none of, under a key at which it looks.
    let id = channel.as_bytes().as_slice();
    let tower_key = net.node.address.key.as_bytes().as_slice();
    let keys: [(u8, Vec<u8>); 7] = [
        (9, id.to_vec()),
        (11, [id, &1_u64.to_be_bytes()].concat()),
        (12, id.to_vec()),
        (16, id.to_vec()),
        (24, [id, &[0]].concat()),
        (69, id.to_vec()),
        (70, [tower_key, id].concat()),
    ];
    let made_up = keys.map(|(table, key)| {
        (table, ([&[table], &key[..]].concat().into(), vec![0, 0, 1, 0, 0, 0, 0, 7].into()))
    });
    let has_none = |(table, _): &(u8, (sled::IVec, sled::IVec))| !used.contains_key(table);
    let entries: BTreeMap<u8, (sled::IVec, sled::IVec)> =
        used.clone().into_iter().chain(made_up.into_iter().filter(has_none)).collect();
    for (table, name) in &tables {
        assert!(entries.contains_key(table), "table {table} ({name}) is new: add a record of it here");
    }
    let mut at_start = 0;
    for (table, (key, value)) in entries.iter().filter(|(table, _)| tables.contains_key(table)) {
        let name = &tables[table];
        for (at, says) in
            [(VALUE_AT, "is damaged (checksum)"), (VERSION_AT, "newer than this software knows")]
        {
            // The version is looked at in one place for all of them.
            if at == VERSION_AT && usize::from(*table) % rounds(4, 1) != 0 {
                continue;
            }
            let mut bad = value.to_vec();
            bad[at] = if at == VERSION_AT { 2 } else { bad[at] ^ 1 };
            change(&store, key, Some(&bad));
            let command = strict.command();
            strict.spawn(command);
            let ended = flash_tests::poll("the daemon to refuse or to answer", || {
                let ended = strict.process().ended().is_some();
                let pid = strict.process().pid();
                let ready = Ready::read(strict.data()).is_ok_and(|ready| ready.pid == pid);
                std::future::ready((ended || ready).then_some(ended))
            })
            .await;
            if ended {
                at_start += 1;
            } else if let Ok(client) = Client::of_data_dir(strict.data(), Scope::Admin, None, None) {
                read_the_rest(&client, channel).await;
            }
            let ended = strict.process().wait().await;
            assert!(matches!(ended.code, Some(4 | 5)), "{name}: {:?} {}", ended.code, ended.output);
            let last = ended.output.lines().rfind(|line| line.contains("error: ")).unwrap_or_default();
            let named = format!("table {name}");
            assert!(last.contains(&named) && last.contains(says), "{name}: {}", ended.output);
        }
        change(&store, key, used.contains_key(table).then_some(&value[..]));
    }
    println!("{at_start} were found at the start, the others when they were read");
    // With the good ones it goes on as if nothing had been.
    let mut car = car;
    car.start().await;
    car.agree(&charger, channel).await;
    car.close(channel).await;
    net.assert_supply().await;
}

/// Removes all records of a table.
fn lose(store: &Path, table: u8) {
    with(store, |db| {
        for entry in db.scan_prefix([table]) {
            db.remove(entry.expect("an entry").0).expect("room");
        }
        db.flush().expect("room");
    });
}

/// What the ledger knows as well is read from there again, and a channel of which a part is gone is not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_made_anew_or_missed_but_never_passed_over() {
    let net = Net::start().await;
    let (mut car, charger, channel) = used(&net).await;
    let (store, good) = (car.data().join("store"), car.data().with_extension("good"));
    car.start().await;
    let money = car.client().balance().await.expect("its balance").available;
    assert_eq!(car.stop().await.code, Some(0));
    copy(&store, &good);
    for (table, name) in [(1, "channels"), (2, "channel phases")] {
        lose(&store, table);
        let ended = run(car.command()).await;
        assert_eq!(ended.code, Some(5), "{}", ended.output);
        let says = format!("error: table {name}, key {channel}: the stored value is damaged (missing)");
        assert!(ended.output.contains(&says), "{}", ended.output);
        fs::remove_dir_all(&store).unwrap();
        copy(&good, &store);
    }
    // The wallet's outputs are an index of what is on the ledger.
    assert!(one_of_each(&store).contains_key(&68));
    lose(&store, 68);
    car.start().await;
    flash_tests::until("the wallet to find its money", || async {
        car.client().balance().await.is_ok_and(|balance| balance.available == money)
    })
    .await;
    car.client().trust(channel).await.expect("it is a copy");
    car.agree(&charger, channel).await;
}

const HEAD: Table = Table::small(1, "head");
const BODY: Table = Table::large(2, "body");

/// Writes a store in which commit `n` writes `n` in two places, and gives back its file's name.
fn numbered(directory: &Path, commits: u64) -> PathBuf {
    let store = SledStore::open(directory, b"numbered").unwrap();
    for number in 1..=commits {
        let mut batch = Batch::new();
        batch.put(HEAD, b"head", number.to_le_bytes().to_vec());
        batch.put(BODY, &[u8::try_from(number % 7).unwrap()], vec![u8::try_from(number % 251).unwrap(); 300]);
        let _ = store.commit(&batch).unwrap();
    }
    directory.join("db")
}

/// The newest commit in a store, if it can be read and is whole.
fn newest(directory: &Path) -> Result<u64, String> {
    wait_unlocked(directory);
    let store = SledStore::open(directory, b"numbered").map_err(|error| error.to_string())?;
    let head = store.get(HEAD, b"head").map_err(|error| error.to_string())?;
    let number = head.map_or(0, |head| u64::from_le_bytes(head.try_into().unwrap()));
    for written in (1..=number).rev().take(7) {
        let body =
            store.get(BODY, &[u8::try_from(written % 7).unwrap()]).map_err(|error| error.to_string())?;
        assert_eq!(body.unwrap()[0], u8::try_from(written % 251).unwrap(), "commit {number} is not whole");
    }
    Ok(number)
}

#[test]
fn a_store_cut_off_anywhere_near_its_end_holds_whole_commits_only() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("store");
    let file = numbered(&directory, 60);
    let good = dir.path().join("good");
    copy(&directory, &good);
    let content = fs::read(&file).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut whole, mut refused) = (0, 0);
    for lost in (0..4_096_usize).step_by(rounds(61, 1)) {
        for (zeroed, in_order) in [(false, true), (true, true), (false, false), (true, false)] {
            fs::remove_dir_all(&directory).unwrap();
            copy(&good, &directory);
            if !in_order {
                // As after a crash: the store does not say where it ended.
                fs::remove_file(directory.join("closed")).unwrap();
            }
            let end = used.saturating_sub(lost);
            let cut = File::options().write(true).open(&file).unwrap();
            cut.set_len(end as u64).unwrap();
            if zeroed {
                cut.set_len(content.len() as u64).unwrap();
            }
            let found = panic::catch_unwind(|| newest(&directory));
            match found.unwrap_or_else(|_| panic!("{lost} bytes less, zeroed: {zeroed}: a panic")) {
                Ok(number) => {
                    assert!(number <= 60, "{lost} bytes less: commit {number}");
                    assert!(number == 60 || (lost > 0 && !in_order), "{lost} bytes less: commit {number}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(!error.is_empty(), "{lost} bytes less");
                    refused += 1;
                }
            }
        }
    }
    println!("{whole} held an earlier or the newest commit, {refused} were refused");
}

/// Where the directory of an older release is, and what a daemon must say about it.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/release-0.1")
}

fn numbers(info: &ChannelInfo) -> Value {
    json!({
        "channel": info.id.to_string(),
        "deposit": info.deposit.to_string(),
        "peer_deposit": info.peer_deposit.to_string(),
        "balance": info.balance.map(|it| it.to_string()),
        "sent": [info.sent.payments, info.sent.updates, info.sent.cumulative.units()],
        "received": [info.received.payments, info.received.updates, info.received.cumulative.units()],
        "state": info.state,
    })
}

/// Makes the fixture: `FLASH_MAKE_FIXTURE=1 cargo test -p flash-tests older_release`.
async fn make_fixture() {
    let net = Net::start().await;
    let (mut car, _charger, channel) = used(&net).await;
    car.start().await;
    let info = car.channel(channel).await;
    let events = car.event_kinds().await;
    assert_eq!(car.stop().await.code, Some(0));
    let to = fixture();
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    for part in ["seed", "network.json", "flash.toml", "store"] {
        copy(&car.data().join(part), &to.join(part));
    }
    // Empty, which a repository does not keep.
    fs::remove_dir(to.join("store/blobs")).unwrap();
    let expected = json!({ "channel": numbers(&info), "events": events });
    fs::write(to.join("expected.json"), format!("{expected:#}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_an_older_release_are_read() {
    if std::env::var_os("FLASH_MAKE_FIXTURE").is_some() {
        make_fixture().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("car");
    copy(&fixture(), &data);
    // A repository keeps neither of these modes.
    for (path, mode) in [(data.clone(), 0o700), (data.join("store"), 0o700), (data.join("seed"), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let expected: Value = serde_json::from_slice(&fs::read(data.join("expected.json")).unwrap()).unwrap();
    // Its node is long gone; what it knows by itself it still knows.
    let mut car = Daemon::at(data);
    car.start().await;
    let channels = car.client().channels(true).await.expect("it answers");
    assert_eq!(channels.iter().map(numbers).collect::<Vec<_>>(), [expected["channel"].clone()]);
    let events: Vec<Value> = car.event_kinds().await.into_iter().map(Value::from).collect();
    let before = expected["events"].as_array().unwrap();
    assert_eq!(&events[..before.len()], &before[..]);
    let channel = channels[0].id;
    // It knows what was paid under a key.
    let request = PayRequest { amount: Amount::new(8), reference: None, key: Some("a key".to_owned()) };
    let refused = car.client().pay(channel, &request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::KeyReused, "{refused:?}");
    // And what this release wrote into the directory it reads again.
    assert_eq!(car.stop().await.code, Some(0));
    car.start().await;
    assert_eq!(numbers(&car.channel(channel).await), expected["channel"]);
}
