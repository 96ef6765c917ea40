//! The REST API.

use std::{collections::BTreeSet, time::Duration};

use flash_node_client::{
    ledger::{merkle::AuditPath, state_tree::Proof},
    node::{Node, NodeError},
};
use flash_proto::{
    Amount, Block, BlockId, Hash, Milestone, Output, OutputId, StateKey, codec, limits::BLOCK_BYTES_MAX,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::{
    api::{ApiError, ErrorCode},
    node_http::{ASKS_MAX, Api, HttpOptions},
    rpc::tests::described,
};

/// The value whose bytes an answer holds in hexadecimal.
fn read<T: bincode::Decode<()>>(text: &Value) -> T {
    let bytes = hex::decode(text.as_str().unwrap()).unwrap();
    codec::decode::<T, BLOCK_BYTES_MAX>(&bytes).unwrap()
}

fn state_root(milestone: &Value) -> Hash {
    let raw: Milestone = read(&milestone["raw"]);
    assert_eq!(milestone["state_root"], raw.essence.state_root.to_string());
    raw.essence.state_root
}

#[tokio::test]
async fn a_transfer_is_submitted_shown_and_proven() {
    let server = Server::start().await;
    let pay = server.transfer(0, someone());
    let genesis = server.dev.params.genesis_block();
    let bytes = worked(vec![genesis], carried(&pay));
    let id = Block::id_of(&bytes);
    let post = || server.http.post(format!("{}/api/v1/blocks", server.base)).body(bytes.clone()).send();
    for _ in 0..2 {
        let response = post().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "id": id }));
    }
    assert_eq!(server.found("/api/v1/tips").await, json!([id]));
    let metadata = server.found(&format!("/api/v1/blocks/{id}/metadata")).await;
    assert_eq!((&metadata["status"], &metadata["tip_score"]), (&json!("pending"), &json!(2)));
    assert_eq!(server.found(&format!("/api/v1/transactions/{}", pay.id())).await["status"], "pending");

    let spent = server.submit(carried(&server.transfer(0, server.dev.params.genesis[0].address)));
    let milestone_block = server.milestone();
    let milestone = server.found("/api/v1/milestones/latest").await;
    assert_eq!((&milestone["index"], &milestone["block"]), (&json!(1), &json!(milestone_block)));
    assert_eq!(server.found("/api/v1/milestones/1").await, milestone);
    let signed: Milestone = read(&milestone["raw"]);
    assert_eq!(milestone["id"], signed.id().to_string());

    // One of the two spends wins; both stand in the milestone, with what became of them.
    let both = server.found("/api/v1/milestones/1/blocks").await;
    let statuses: BTreeSet<&str> =
        both["blocks"].as_array().unwrap().iter().map(|block| block["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, BTreeSet::from(["applied", "rejected"]), "{both}");
    let one = server.found("/api/v1/milestones/latest/blocks?limit=1&skip=1").await;
    assert_eq!((&one["blocks"][0], &one["more"]), (&both["blocks"][1], &json!(true)));
    for block in [id, spent] {
        let mut metadata = server.found(&format!("/api/v1/blocks/{block}/metadata")).await;
        let measures = metadata.as_object_mut().unwrap().remove("measures").unwrap();
        assert_eq!(metadata.as_object_mut().unwrap().remove("tip_score"), Some(Value::Null), "confirmed");
        // Both approve the genesis, and the milestone approves both.
        let wanted = json!({ "own_weight": 1, "cumulative_weight": 2, "score": 1, "height": 1, "depth": 1 });
        assert_eq!(measures, wanted);
        assert!(both["blocks"].as_array().unwrap().contains(&metadata), "{metadata}");
        if metadata["status"] == "rejected" {
            assert_eq!(metadata["conflict"], "input_missing");
            assert!(metadata["reason"].as_str().unwrap().contains("spent already"));
        }
    }

    let shown = server.found(&format!("/api/v1/blocks/{id}")).await;
    assert_eq!((&shown["parents"], &shown["bytes"]), (&json!([genesis]), &json!(bytes.len())));
    assert_eq!(shown["payload"]["kind"], "transaction");
    assert_eq!(shown["payload"]["id"], pay.id().to_string());
    assert_eq!(shown["payload"]["value"], server.coin_amount(0).units().to_string());
    let raw = server.http.get(format!("{}/api/v1/blocks/{id}/raw", server.base)).send().await.unwrap();
    assert_eq!(raw.headers()["content-type"], "application/octet-stream");
    assert_eq!(raw.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn proofs_verify_against_the_milestone() {
    let server = Server::start().await;
    let pay = server.transfer(0, someone());
    server.submit(carried(&pay));
    server.milestone();
    let milestone = server.found("/api/v1/milestones/latest").await;
    let root = state_root(&milestone);

    let id = OutputId { transaction: pay.id(), index: 0 };
    let held = Output { address: someone(), amount: server.coin_amount(0) };
    let answer = server.found(&format!("/api/v1/outputs/{id}")).await;
    assert_eq!(answer["output"]["amount"], held.amount.units().to_string());
    let proof: Proof = read(&answer["proof"]);
    proof.verify(root, &StateKey::Output(id).tree_key(), Some(held.value_hash())).unwrap();
    let at = server.found(&format!("/api/v1/addresses/{}/outputs", someone())).await;
    assert_eq!(
        (&at["outputs"][0]["id"], &at["outputs"][0]["proof"]),
        (&json!(id.to_string()), &answer["proof"])
    );
    assert_eq!((&at["milestone_index"], &at["more"]), (&json!(1), &json!(false)));
    let after = server.found(&format!("/api/v1/addresses/{}/outputs?after={id}", someone())).await;
    assert_eq!(after["outputs"], json!([]));

    let gone = pay.essence.inputs[0];
    let answer = server.found(&format!("/api/v1/outputs/{gone}")).await;
    assert_eq!(answer["output"], Value::Null);
    let proof: Proof = read(&answer["proof"]);
    proof.verify(root, &StateKey::Output(gone).tree_key(), None).unwrap();

    let channel = flash_proto::ChannelId::opened_by(pay.id());
    let answer = server.found(&format!("/api/v1/channels/{channel}")).await;
    assert_eq!((&answer["channel"], &answer["milestone_index"]), (&Value::Null, &json!(1)));
    let proof: Proof = read(&answer["proof"]);
    proof.verify(root, &StateKey::Channel(channel).tree_key(), None).unwrap();

    let answer = server.found(&format!("/api/v1/transactions/{}", pay.id())).await;
    assert_eq!((&answer["status"], &answer["milestone_index"]), (&json!("applied"), &json!(1)));
    let path: AuditPath = read(&answer["proof"]["path"]);
    let signed: Milestone = read(&answer["proof"]["milestone"]);
    let block = hex::decode(answer["proof"]["block"].as_str().unwrap()).unwrap();
    assert!(path.verify(&signed.essence.applied_root, Block::id_of(&block).as_bytes()));
}

#[tokio::test]
async fn a_channel_is_shown() {
    use flash_proto::{Action, Address, Essence, Open, SecretKey, Transaction, record::Party};
    let server = Server::start().await;
    let coin = server.transfer(1, someone());
    let party = |n: u8, deposit| Party {
        key: SecretKey::from_bytes([n; 32]).public(),
        payout: Address::of(&SecretKey::from_bytes([n + 1; 32]).public()),
        deposit,
    };
    let (deposit, rest) = (Amount::new(5_000_000), Amount::new(server.coin_amount(1).units() - 5_000_000));
    let open = Open {
        party_a: party(20, deposit),
        party_b: party(30, rest),
        contest_window_milestones: 10,
        expiry_milestone: 9,
    };
    let essence = Essence { outputs: Vec::new(), action: Action::Open(open), ..coin.essence };
    let unlocks = vec![essence.unlock(&server.dev.treasury)];
    let transaction = Transaction { essence, unlocks };
    let block = server.submit(carried(&transaction));
    server.milestone();
    let id = flash_proto::ChannelId::opened_by(transaction.id());
    let shown = server.found(&format!("/api/v1/blocks/{block}")).await;
    assert_eq!((&shown["payload"]["action"], &shown["payload"]["channel"]), (&json!("open"), &json!(id)));
    let answer = server.found(&format!("/api/v1/channels/{id}")).await;
    assert_eq!(answer["channel"]["phase"], "open", "{answer}");
    assert_eq!(answer["channel"]["parties"][0]["deposit"], "5000000");
    let found = server.found(&format!("/api/v1/blocks?address={}", open.party_b.payout)).await;
    assert_eq!(found["blocks"], json!([block]));
}

#[tokio::test]
async fn blocks_are_found() {
    let server = Server::start().await;
    let pay = server.transfer(0, someone());
    let (meter, carrier) = (server.submit(data("meter", 3)), server.submit(carried(&pay)));
    let genesis = server.dev.params.genesis_block();
    let tag = hex::encode("meter");
    for (query, wanted) in [
        (format!("tag={tag}"), vec![meter]),
        (format!("address={}", someone()), vec![carrier]),
        (format!("transaction={}", pay.id()), vec![carrier]),
        (format!("tag={}", hex::encode("meters")), vec![]),
    ] {
        let answer = server.found(&format!("/api/v1/blocks?{query}")).await;
        assert_eq!(answer, json!({ "blocks": wanted, "more": false }), "{query}");
    }
    let mut both = [meter, carrier];
    both.sort_unstable();
    let first = server.found(&format!("/api/v1/blocks?parent={genesis}&limit=1")).await;
    assert_eq!(first, json!({ "blocks": [both[0]], "more": true }));
    let rest = server.found(&format!("/api/v1/blocks?parent={genesis}&after={}", both[0])).await;
    assert_eq!(rest, json!({ "blocks": [both[1]], "more": false }));
    let shown = server.found(&format!("/api/v1/blocks/{meter}")).await;
    assert_eq!(shown["payload"], json!({ "kind": "data", "tag": tag, "data": "070707" }));
}

#[tokio::test]
async fn a_payload_gets_a_block_and_its_work() {
    let server = Server::start().await;
    let tip = server.submit(data("tip", 1));
    let post = |body: Vec<u8>| server.http.post(format!("{}/api/v1/payloads", server.base)).body(body);
    let response = post(codec::encode(&data("meter", 3))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let id = response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let shown = server.found(&format!("/api/v1/blocks/{id}")).await;
    assert_eq!((&shown["parents"], &shown["payload"]["kind"]), (&json!([tip]), &json!("data")));
    let refused = post(vec![9; 40]).send().await.unwrap();
    assert_eq!(refused.json::<ApiError>().await.unwrap().code, ErrorCode::InvalidRequest);
    let remote = post(codec::encode(&data("meter", 4))).header("host", "example.org").send().await.unwrap();
    assert_eq!(remote.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_node_tells_about_itself() {
    let server = Server::start().await;
    let info = server.found("/api/v1/info").await;
    assert_eq!((&info["network"], &info["network_name"]), (&json!(server.dev.params.id()), &json!("dev")));
    assert_eq!((&info["milestone_index"], &info["pow_bits"]), (&json!(0), &json!(6)));
    assert_eq!(info["outputs_amount"], Amount::SUPPLY.units().to_string());
    assert_eq!(server.found("/api/v1/peers").await, json!([]));
    let key = flash_proto::SecretKey::from_bytes([7; 32]).public();
    server.done("addNeighbors", json!({ "uris": [format!("{key}@192.0.2.1:14265")] })).await;
    let peers = server.found("/api/v1/peers").await;
    assert_eq!(
        (&peers[0]["address"], &peers[0]["new_blocks"]),
        (&json!(format!("{key}@192.0.2.1:14265")), &json!(5))
    );
    assert_eq!(server.found("/api/v1/info").await["peers_connected"], 1);
}

#[tokio::test]
async fn malformed_and_unknown_calls_are_refused() {
    let server = Server::start().await;
    let id = BlockId::new([9; 32]);
    let cases = [
        ("/api/v1/blocks", ErrorCode::InvalidRequest, "exactly one of"),
        ("/api/v1/blocks?tag=00&parent=1", ErrorCode::InvalidRequest, "parent"),
        ("/api/v1/blocks?tag=0", ErrorCode::InvalidRequest, "not hexadecimal"),
        ("/api/v1/blocks?tag=00&limit=0", ErrorCode::InvalidRequest, "it must be 1 to 1000"),
        ("/api/v1/blocks?tag=00&limit=1001", ErrorCode::InvalidRequest, "it must be 1 to 1000"),
        ("/api/v1/blocks?tags=00", ErrorCode::InvalidRequest, "unknown field"),
        ("/api/v1/blocks/12", ErrorCode::InvalidRequest, "64 hexadecimal digits"),
        (&format!("/api/v1/blocks/{id}"), ErrorCode::NotFound, "is not known here"),
        (&format!("/api/v1/blocks/{id}/raw"), ErrorCode::NotFound, "is not known here"),
        (&format!("/api/v1/blocks/{id}/metadata"), ErrorCode::NotFound, "is not known here"),
        (&format!("/api/v1/transactions/{id}"), ErrorCode::NotFound, "is not known here"),
        ("/api/v1/outputs/12", ErrorCode::InvalidRequest, "TRANSACTION:INDEX"),
        ("/api/v1/channels/12", ErrorCode::InvalidRequest, "64 hexadecimal digits"),
        ("/api/v1/addresses/flash1xyz/outputs", ErrorCode::InvalidRequest, "is not an address"),
        (&format!("/api/v1/addresses/{}/outputs?after=1", someone()), ErrorCode::InvalidRequest, "output id"),
        ("/api/v1/milestones/first", ErrorCode::InvalidRequest, "`first` is not a milestone"),
        ("/api/v1/milestones/7", ErrorCode::NotFound, "is not known here"),
        ("/api/v1/milestones/7/blocks", ErrorCode::NotFound, "is not known here"),
        ("/api/v1/milestones/0/blocks?limit=0", ErrorCode::InvalidRequest, "it must be 1 to 1000"),
        ("/api/v1/nothing", ErrorCode::NotFound, "there is nothing at"),
        ("/api/v1/payloads", ErrorCode::WrongMethod, "does not take GET"),
    ];
    for (path, code, what) in cases {
        let (status, answer) = server.get(path).await;
        let refused: ApiError = serde_json::from_value(answer).unwrap();
        assert_eq!((refused.code, status.as_u16()), (code, code.http_status()), "{path}: {refused:?}");
        assert!(refused.message.contains(what) && !refused.hint.is_empty(), "{path}: {refused:?}");
    }
    let unworked = Block::new(vec![server.dev.params.genesis_block()], data("x", 1)).to_bytes();
    let orphan = worked(vec![id], data("x", 1));
    for (body, code) in [
        (unworked, ErrorCode::LedgerRefused),
        (orphan, ErrorCode::LedgerRefused),
        (vec![0; 10], ErrorCode::LedgerRefused),
        (vec![0; BLOCK_BYTES_MAX + 1], ErrorCode::TooLarge),
        (vec![0; 2 * 1024 * 1024], ErrorCode::TooLarge),
    ] {
        let response = server.http.post(format!("{}/api/v1/blocks", server.base)).body(body).send().await;
        assert_eq!(response.unwrap().json::<ApiError>().await.unwrap().code, code);
    }
    let page = server.http.get(format!("{}/api/v1/info", server.base)).header("origin", "http://example.org");
    assert_eq!(page.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

/// The next event of a stream: its kind and data.
async fn next_event(response: &mut reqwest::Response, read: &mut String) -> (String, Value) {
    loop {
        if let Some((event, rest)) = read.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let found = (field("event: "), field("data: "));
            *read = rest.to_owned();
            if let (Some(kind), Some(data)) = found {
                return (kind, serde_json::from_str(&data).unwrap());
            }
            continue;
        }
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await;
        read.push_str(std::str::from_utf8(&chunk.expect("no event came").unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let mut server = Server::start().await;
    let mut stream = server.http.get(format!("{}/api/v1/events", server.base)).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut read = String::new();
    let genesis = server.dev.params.genesis_block();
    let carrier = server.submit(carried(&server.transfer(0, someone())));
    let (kind, block) = next_event(&mut stream, &mut read).await;
    assert_eq!(
        (kind.as_str(), &block["id"], &block["parents"]),
        ("block", &json!(carrier), &json!([genesis]))
    );
    assert_eq!(
        (&block["payload"], &block["value"]),
        (&json!("transaction"), &json!(server.coin_amount(0).units().to_string()),)
    );
    let meter = server.submit(data("meter", 3));
    let milestone = server.milestone();
    // The milestone comes after all that came before it.
    let mut blocks = BTreeSet::new();
    let told = loop {
        match next_event(&mut stream, &mut read).await {
            (kind, data) if kind == "block" => blocks.insert(data["id"].as_str().unwrap().to_owned()),
            (_, data) => break data,
        };
    };
    assert_eq!(blocks, BTreeSet::from([meter.to_string(), milestone.to_string()]));
    assert_eq!((&told["index"], &told["block"]), (&json!(1), &json!(milestone)));
    let confirmed = told["confirmed"].as_array().unwrap();
    let status = |id: BlockId| &confirmed.iter().find(|block| block["id"] == json!(id)).unwrap()["status"];
    assert_eq!((status(carrier), status(meter)), (&json!("applied"), &json!("included")));

    // It ends with the node.
    server.stop.take().unwrap().send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert_eq!(stream.chunk().await.unwrap_or_default(), None);
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let server = Server::start().await;
    let document = server.found("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert!(document["components"]["schemas"]["NewMilestone"].is_object());
    // The router's own words are compared with the document's.
    let source = include_str!("../rest/mod.rs");
    let mut routed = BTreeSet::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once("\", ").unwrap();
        let method = if rest.starts_with("get(") { "get" } else { "post" };
        routed.insert((path.to_owned(), method.to_owned()));
    }
    assert_eq!(routed, described(&document));
    assert_eq!(routed.len(), 17);
}

#[tokio::test]
async fn work_for_callers_that_have_left_still_counts() {
    let api = Api::new(node().0, None, HttpOptions::default(), CancellationToken::new());
    let (begins, starts) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let work = move |_: &Node| {
        begins.send(()).unwrap();
        // It ends, too, if the test fails before it says so.
        let _ = ended.recv();
        Ok::<_, NodeError>(())
    };
    let caller = tokio::spawn({
        let api = api.clone();
        async move { api.ask(work).await }
    });
    tokio::task::spawn_blocking(move || starts.recv().unwrap()).await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(api.asks.available_permits(), ASKS_MAX - 1);
    end.send(()).unwrap();
    let all = u32::try_from(ASKS_MAX).unwrap();
    let _all =
        tokio::time::timeout(Duration::from_secs(30), api.asks.acquire_many(all)).await.unwrap().unwrap();
}
