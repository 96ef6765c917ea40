//! The command line `flash` as its users run it, against an RPC that answers what the tests say.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use axum::{
    Json, Router,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use flash_proto::{Address, Amount, NetworkParams, Output as LedgerOutput, SecretKey};
use flashd::rpc::{Scope, Tokens, read_token};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

const ONE: &str = "abcd000000000000000000000000000000000000000000000000000000000001";
const TWO: &str = "abcd000000000000000000000000000000000000000000000000000000000002";
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// A data directory whose `ready.json` leads to an RPC with made-up answers.
struct Fake {
    dir: TempDir,
    _runtime: Runtime,
}

impl Fake {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::open(dir.path()).unwrap());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: String| {
            let token =
                headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
            std::future::ready(answers(&format!("{method} {uri}"), tokens.scope(&token), &body))
        };
        runtime.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let ready = json!({"rpc": address.to_string(), "pid": 1, "more": "is ignored"});
        fs::write(dir.path().join("ready.json"), ready.to_string()).unwrap();
        Self { dir, _runtime: runtime }
    }

    fn flash(&self, arguments: &[&str]) -> Output {
        flash(self.dir.path(), arguments, "")
    }
}

/// Runs the command line with nothing but these arguments and this standard input.
fn flash(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = command(data).args(arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flash"));
    command.env_clear().env("FLASH_DATA", data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn error_text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn channel(id: &str) -> Value {
    let lane = json!({"payments": 3, "acknowledged": 2, "updates": 1, "cumulative": "1500"});
    json!({
        "id": id, "peer": KEY, "connected": true, "side": "A", "state": "open", "recovered": false,
        "paused": null,
        "deposit": "2000000", "peer_deposit": "0", "balance": "1998500", "peer_balance": "1500", "payable": "1998500",
        "sent": lane, "received": lane, "contest_window_milestones": 60, "deadline_milestone": null,
        "open_transaction": ONE, "close_transaction": null, "payout": null, "peer_payout": null,
    })
}

fn refused(status: u16, code: &str) -> Response {
    let error = json!({"code": code, "message": "made up", "hint": "do something else"});
    (StatusCode::from_u16(status).unwrap(), Json(error)).into_response()
}

fn answers(call: &str, scope: Option<Scope>, body: &str) -> Response {
    let needed = if call.contains("payments") || call.contains("/stream") {
        Scope::Pay
    } else if call.starts_with("GET") {
        Scope::Read
    } else {
        Scope::Admin
    };
    assert_eq!(scope, Some(needed), "the least scope that is enough for {call}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    let pay = format!("POST /v1/channels/{ONE}/payments");
    let stream = format!("POST /v1/channels/{ONE}/stream");
    match call {
        "POST /v1/shutdown" => (StatusCode::ACCEPTED, Json(json!({"pid": 1}))).into_response(),
        "GET /v1/channels?all=false&limit=1000" | "GET /v1/channels?all=true&prefix=ffff&limit=16" => {
            Json(json!([])).into_response()
        }
        call if call == format!("GET /v1/channels?all=true&prefix={}&limit=16", &TWO[..63]) => {
            Json(json!([channel(ONE), channel(TWO)])).into_response()
        }
        "POST /v1/channels" => {
            assert_eq!(body["deposit"], "2000000");
            Json(channel(ONE)).into_response()
        }
        "GET /v1/wallet/balance" => {
            Json(json!({"available": "1500000", "reserved": "0", "milestone_index": 7})).into_response()
        }
        "GET /v1/ledger/milestones/latest" => refused(503, "ledger_unavailable"),
        "POST /v1/wallet/transfers" => refused(409, "insufficient_balance"),
        "GET /v1/info" => (StatusCode::OK, "<html>").into_response(),
        "GET /v1/events?follow=false&after=4" => {
            let event = json!({"number": 5, "at_ms": 0, "kind": "funds_sent", "details": {"amount": "1"}});
            format!(": comment\n\nid: 5\nevent: funds_sent\ndata: {event}\n\n").into_response()
        }
        "GET /v1/events?follow=true&after=1" => refused(410, "events_gone"),
        call if call == pay => {
            assert_eq!(body, json!({"amount": "1500", "reference": "kWh", "key": "k"}));
            Json(json!({"number": 4, "amount": "1500", "repeated": false})).into_response()
        }
        call if call == stream => {
            assert_eq!(body, "5\nx\n");
            let paid = json!({"line": 1, "number": 1, "amount": "5", "repeated": false});
            let error = json!({"code": "invalid_request", "message": "m", "hint": "h"});
            format!("{paid}\n{}\n", json!({"line": 2, "error": error})).into_response()
        }
        call if call == format!("GET /v1/channels/{TWO}") => Json(channel(TWO)).into_response(),
        _ => panic!("unexpected call {call}"),
    }
}

#[test]
fn values_are_json_where_nobody_reads_a_table() {
    let fake = Fake::start();
    let balance = fake.flash(&["wallet", "balance"]);
    assert_eq!((code(&balance), &json(&balance)["available"]), (0, &json!("1500000")));
    let opened = fake.flash(&["channel", "open", &format!("{KEY}@localhost:15600"), "2Mi"]);
    assert_eq!((code(&opened), &json(&opened)["id"]), (0, &json!(ONE)));
    let paid = fake.flash(&["pay", ONE, "1.5Ki", "--reference", "kWh", "--key", "k"]);
    assert_eq!((code(&paid), &json(&paid)["number"]), (0, &json!(4)));
    assert_eq!(json(&fake.flash(&["channel", "list"])), json!([]));
}

#[test]
fn channels_are_named_by_their_first_digits() {
    let fake = Fake::start();
    let prefix = &TWO[..63];
    let ambiguous = fake.flash(&["channel", "show", prefix]);
    assert_eq!(code(&ambiguous), 2);
    let text = error_text(&ambiguous);
    assert!(text.contains(ONE) && text.contains(TWO), "{text}");
    assert_eq!(json(&fake.flash(&["channel", "show", TWO]))["id"], TWO);
    let unknown = fake.flash(&["channel", "show", "ffff"]);
    assert_eq!(code(&unknown), 8, "{unknown:?}");
    assert_eq!(code(&fake.flash(&["channel", "show", "abc"])), 2);
}

#[test]
fn errors_say_what_to_do_and_have_their_exit_code() {
    let fake = Fake::start();
    let address = Address::of(&SecretKey::from_bytes([1; 32]).public()).to_string();
    let broke = fake.flash(&["wallet", "send", &address, "1"]);
    assert_eq!((code(&broke), error_text(&broke).as_str()), (8, "error: made up\nhint: do something else\n"));
    let later = fake.flash(&["--json", "ledger", "milestone"]);
    assert_eq!(code(&later), 9);
    let error: Value = serde_json::from_slice(&later.stderr).unwrap();
    assert_eq!(error["code"], "ledger_unavailable");
    let foreign = fake.flash(&["info"]);
    assert_eq!(code(&foreign), 1);
    assert!(error_text(&foreign).contains("does not speak like this daemon"), "{foreign:?}");
    assert_eq!(code(&fake.flash(&["pay", ONE, "0.5i"])), 2);
    assert_eq!(code(&fake.flash(&["nonsense"])), 2);
}

#[test]
fn streams_and_events_are_one_value_per_line() {
    let fake = Fake::start();
    let streamed = flash(fake.dir.path(), &["stream", ONE, "--from-stdin"], "5\nx\n");
    let lines: Vec<Value> = String::from_utf8(streamed.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((&lines[0]["number"], &lines[1]["error"]["code"]), (&json!(1), &json!("invalid_request")));
    assert_eq!((code(&streamed), error_text(&streamed).as_str()), (8, "1 paid, 5i in all; 1 refused\n"));
    let events = fake.flash(&["events", "--after", "4"]);
    assert_eq!((code(&events), &json(&events)["number"]), (0, &json!(5)));
    assert_eq!(code(&fake.flash(&["events", "--after", "1", "--follow"])), 8);
}

#[test]
fn the_daemon_is_found_or_said_to_be_missing() {
    let fake = Fake::start();
    let data = fake.dir.path();
    let token = data.join("tokens/read");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = fake.flash(&["wallet", "balance"]);
    assert_eq!(code(&exposed), 7);
    assert!(error_text(&exposed).contains("chmod 600"), "{exposed:?}");

    let empty = tempfile::tempdir().unwrap();
    let missing = flash(empty.path(), &["wallet", "balance"], "");
    assert_eq!(code(&missing), 6);
    assert!(error_text(&missing).contains("no daemon runs on"), "{missing:?}");

    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let ready: Value = serde_json::from_slice(&fs::read(data.join("ready.json")).unwrap()).unwrap();
    let found = command(empty.path())
        .args(["wallet", "balance", "--rpc", ready["rpc"].as_str().unwrap()])
        .env("FLASH_TOKEN", read_token(data, Scope::Read).unwrap().as_str())
        .output()
        .unwrap();
    assert_eq!(code(&found), 0, "{found:?}");
    let nobody = command(empty.path())
        .args(["wallet", "balance", "--rpc", "127.0.0.1:1"])
        .env("FLASH_TOKEN", "00")
        .output()
        .unwrap();
    assert_eq!(code(&nobody), 6, "{nobody:?}");
}

#[test]
fn a_stop_waits_until_the_data_directory_is_free() {
    let fake = Fake::start();
    assert_eq!(json(&fake.flash(&["stop"]))["pid"], 1);
    let lock = fs::File::create(fake.dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let mut waiting = command(fake.dir.path()).args(["--json", "stop"]).spawn().unwrap();
    let watched = std::time::Instant::now();
    while watched.elapsed().as_millis() < 500 {
        assert!(waiting.try_wait().unwrap().is_none(), "it said that the daemon had stopped");
        std::thread::yield_now();
    }
    lock.unlock().unwrap();
    assert_eq!(code(&waiting.wait_with_output().unwrap()), 0);
}

#[test]
fn init_sets_up_once_and_shows_words_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let network = dir.path().join("network.json");
    let params = NetworkParams {
        name: "test".to_owned(),
        coordinators: vec![SecretKey::from_bytes([7; 32]).public()],
        threshold: 1,
        pow_bits: 8,
        output_min: Amount::new(1),
        milestone_interval_ms: 1_000,
        genesis_ms: 1_700_000_000_000,
        genesis: vec![LedgerOutput {
            address: Address::of(&SecretKey::from_bytes([8; 32]).public()),
            amount: Amount::SUPPLY,
        }],
    };
    fs::write(&network, serde_json::to_string(&params).unwrap()).unwrap();
    let network = network.to_str().unwrap();
    let (quiet, shown) = (dir.path().join("quiet"), dir.path().join("shown"));
    let silent = flash(&quiet, &["init", "--network", network], "");
    assert_eq!((code(&silent), json(&silent).get("words")), (0, None));
    assert!(error_text(&silent).contains("--show-words"), "{silent:?}");
    let told = flash(&shown, &["init", "--network", network, "--show-words"], "");
    let words = json(&told)["words"].as_str().unwrap().to_owned();
    assert_eq!(words.split(' ').count(), 24);

    let again = flash(&shown, &["init", "--network", network], "");
    assert_eq!(code(&again), 4);
    assert!(error_text(&again).starts_with("error: ") && error_text(&again).contains("set up already"));
    let missing = flash(&dir.path().join("none"), &["init", "--network", "/nonexistent"], "");
    assert_eq!(code(&missing), 1);

    let file = dir.path().join("words");
    fs::write(&file, &words).unwrap();
    let copy = dir.path().join("copy");
    let restored = command(&copy)
        .args(["init", "--network", network, "--words", file.to_str().unwrap()])
        .env("FLASH_PASSPHRASE", "secret")
        .output()
        .unwrap();
    assert_eq!(json(&restored)["encrypted"], true);
    assert!(!fs::read_to_string(copy.join("seed")).unwrap().contains(&words));
    let untyped = flash(&dir.path().join("typed"), &["init", "--network", network, "--passphrase"], "");
    assert_eq!(code(&untyped), 2, "{untyped:?}");
}

#[test]
fn help_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let help = flash(dir.path(), &["--help"], "");
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        text.contains("Exit codes:") && text.contains("channel") && text.contains("FLASH_TOKEN"),
        "{text}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = flash(dir.path(), &["completions", shell], "");
        assert!(code(&script) == 0 && script.stdout.len() > 1_000, "{shell}");
    }
}
