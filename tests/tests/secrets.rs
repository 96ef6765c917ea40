//! I14: no key, seed or token is in what a daemon logs, answers, or writes to any file but those that
//! exist to hold it, and no core file is written that would hold them all.
//!
//! Everything that the daemon says at the most talkative level is searched for every secret that it has, in
//! each form in which such things get printed.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use flash_node_client::wallet::Account;
use flash_proto::Amount;
use flash_tests::{Daemon, Net};
use flashd::{
    api::{CloseRequest, SendRequest},
    client::Ready,
    datadir,
    rpc::Scope,
};
use serde_json::Value;

/// The forms of a secret by which it would be noticed.
fn forms(name: &str, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    vec![
        (format!("{name} as bytes"), bytes.to_vec()),
        (format!("{name} in hexadecimal"), hex.clone().into_bytes()),
        (format!("{name} in capitals"), hex.to_uppercase().into_bytes()),
        (format!("{name} as numbers"), list.into_bytes()),
    ]
}

/// Every secret of a daemon that has one channel and a few addresses.
fn secrets(daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let words = flashd::seedfile::read(&datadir::seed_path(daemon.data()), || Ok(None)).unwrap();
    let first: Vec<&str> = words.split(' ').take(6).collect();
    let mut all = vec![("the words".to_owned(), first.join(" ").into_bytes())];
    for account in [Account::Money, Account::Channels, Account::Node] {
        for index in 0..3 {
            let key = daemon.key(account, index).expose_bytes();
            all.extend(forms(&format!("key {index} of {account:?}"), key.as_slice()));
        }
    }
    for scope in Scope::ALL {
        all.push((format!("the {scope} token"), token(daemon, scope).into_bytes()));
    }
    all
}

fn token(daemon: &Daemon, scope: Scope) -> String {
    let path = daemon.data().join("tokens").join(scope.name());
    fs::read_to_string(path).unwrap().trim().to_owned()
}

fn search(place: &str, content: &[u8], secrets: &[(String, Vec<u8>)]) {
    for (name, secret) in secrets {
        let found = content.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "I14: {name} is in {place}");
    }
}

/// The files below a directory that do not exist to hold secrets.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("seed" | "tokens") => {}
            _ if path.is_dir() => files.extend(self::files(&path)),
            _ => files.push(path),
        }
    }
    files
}

/// All that the RPC's document offers to look at, and what it says to a caller with a bad token.
async fn answers(daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let rpc = Ready::read(daemon.data()).unwrap().rpc;
    let http = reqwest::Client::new();
    let channel = daemon.client().channels(true).await.unwrap()[0].id.to_string();
    let document: Value =
        http.get(format!("http://{rpc}/openapi.json")).send().await.unwrap().json().await.unwrap();
    let mut answers = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() || path == "/v1/events" {
            continue;
        }
        let path = path.replace("{id}", &channel).replace("{index}", "1");
        let url = format!("http://{rpc}{path}");
        for token in [token(daemon, Scope::Admin), "0123".to_owned()] {
            let answer = http.get(&url).bearer_auth(token).send().await.unwrap();
            answers.push((url.clone(), answer.bytes().await.unwrap().to_vec()));
        }
    }
    assert!(answers.len() > 20, "the document has all that can be read");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_answers_files_or_core_files() {
    let net = Net::start().await;
    let charger = net.daemon("charger", Amount::ZERO).await;
    let talkative = ["--log", "trace"];
    let car = Daemon::init(&net, "car").await.with(&talkative);
    let mut car = net.run_with_money(car, Amount::new(5_000_000)).await;
    let channel = car.open(&charger, 1_000_000, 0, 60).await;
    car.pay(channel, 7).await.unwrap();
    charger.pay(channel, 3).await.unwrap();
    let to = charger.client().new_address().await.unwrap().address;
    car.client().send(&SendRequest { to, amount: Amount::new(1_000_000) }).await.unwrap();
    let mut said = answers(&car).await;
    let events = format!("{:?}", car.event_kinds().await);
    said.push(("its events".to_owned(), events.into_bytes()));

    let limits = fs::read_to_string(format!("/proc/{}/limits", car.process().pid())).unwrap();
    let core: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .map(|line| line.split_whitespace().skip(4).take(2).collect())
        .unwrap();
    assert_eq!(core, ["1", "1"], "core files are forbidden");

    let closed = car.client().close(channel, CloseRequest { force: false }, true).await.unwrap();
    assert_eq!(closed.state, "closed");
    let secrets = secrets(&car);
    assert_eq!(car.stop().await.code, Some(0));
    let log = fs::read(car.data().with_extension("log")).unwrap();
    assert!(log.windows(5).any(|window| window == b"TRACE"), "the log is at its most talkative");
    search("its log", &log, &secrets);
    for (place, content) in said {
        search(&place, &content, &secrets);
    }
    let files = files(car.data());
    assert!(files.iter().any(|file| file.starts_with(car.data().join("store"))), "{files:?}");
    for file in files {
        search(&file.display().to_string(), &fs::read(&file).unwrap(), &secrets);
    }
}
