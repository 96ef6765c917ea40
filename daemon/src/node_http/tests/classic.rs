//! The 14 commands.

use std::time::Duration;

use flash_node_client::trytes;
use flash_proto::{Block, BlockId, PublicKey, SecretKey, Transaction};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::*;
use crate::node_http::{BODY_BYTES_MAX, HttpOptions, classic::form};

fn hash(id: &BlockId) -> String {
    trytes::encode_id(id.as_bytes())
}

fn padded(bytes: &[u8]) -> String {
    format!("{:9<2673}", trytes::encode(bytes))
}

/// The block of some trytes that a command answered with.
fn block(trytes: &Value) -> Block {
    form::block(trytes.as_str().unwrap()).unwrap().0
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_envelope_is_as_it_was() {
    let server = Server::start().await;
    let wrong = [
        ("{", "Invalid JSON syntax"),
        ("[]", "COMMAND parameter has not been specified in the request."),
        (r#"{"command":7}"#, "COMMAND parameter has not been specified in the request."),
        (r#"{"command":"getMoney"}"#, "Command [getMoney] is unknown"),
        (&"x".repeat(BODY_BYTES_MAX + 1), "Request too long"),
    ];
    for (body, what) in wrong {
        let call = server.http.post(&server.base).header("X-IOTA-API-Version", "1").body(body.to_owned());
        let response = call.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{what}");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"].as_str().unwrap().contains(what), "{answer}");
    }
    let bare = server.http.post(&server.base).body(r#"{"command":"getNodeInfo"}"#).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::BAD_REQUEST);
    assert_eq!(bare.json::<Value>().await.unwrap()["error"], "Invalid API Version");
}

#[tokio::test]
async fn get_node_info_tells_of_the_newest_milestone() {
    let server = Server::start().await;
    let genesis = server.done("getNodeInfo", json!({})).await;
    assert_eq!(genesis["latestMilestone"], hash(&server.dev.params.genesis_block()));
    let milestone = server.milestone();
    let info = server.done("getNodeInfo", json!({})).await;
    assert_eq!(info["appName"], "Flash");
    assert_eq!(info["latestMilestone"], hash(&milestone));
    assert_eq!(info["latestSolidSubtangleMilestone"], hash(&milestone));
    assert_eq!(
        (&info["latestMilestoneIndex"], &info["latestSolidSubtangleMilestoneIndex"]),
        (&json!(1), &json!(1))
    );
    let coordinator = server.dev.coordinator.public();
    assert_eq!(info["coordinatorAddress"], trytes::encode_id(coordinator.as_bytes()));
    assert_eq!(
        (&info["tips"], &info["neighbors"], &info["jreVersion"]),
        (&json!(1), &json!(0), &json!("none"))
    );
    let fields = [
        "appVersion",
        "jreAvailableProcessors",
        "jreFreeMemory",
        "jreMaxMemory",
        "jreTotalMemory",
        "milestoneStartIndex",
        "lastSnapshottedMilestoneIndex",
        "packetsQueueSize",
        "time",
        "transactionsToRequest",
        "features",
    ];
    assert!(fields.iter().all(|field| info.get(field).is_some()), "{info}");
}

#[tokio::test]
async fn blocks_are_attached_taken_in_found_and_confirmed() {
    let server = Server::start().await;
    let pay = server.transfer(0, someone());
    // Templates: what they approve is replaced.
    let templates = [data("METER", 20), carried(&pay)]
        .map(|payload| padded(&Block::new(vec![BlockId::new([1; 32])], payload).to_bytes()));
    let left = server.submit(data("left", 1));
    let right = server.submit(data("right", 1));

    let approve = server.done("getTransactionsToApprove", json!({ "depth": 3 })).await;
    let mut chosen =
        [&approve["trunkTransaction"], &approve["branchTransaction"]].map(|tip| tip.as_str().unwrap());
    chosen.sort_unstable();
    let mut tips = [hash(&left), hash(&right)];
    tips.sort_unstable();
    assert_eq!(chosen, tips);

    let attached = server
        .done(
            "attachToTangle",
            json!({
                "trunkTransaction": approve["trunkTransaction"],
                "branchTransaction": approve["branchTransaction"],
                "minWeightMagnitude": 9,
                "trytes": templates,
            }),
        )
        .await;
    let [second, first] = strings(&attached["trytes"])[..] else { panic!("{attached}") };
    assert_eq!((first.len(), second.len()), (2_673, 2_673));
    let [first_block, second_block] = [first, second].map(|trytes| block(&json!(trytes)));
    let trunk = BlockId::new(trytes::decode_id(approve["trunkTransaction"].as_str().unwrap()).unwrap());
    assert_eq!(first_block.parents.len(), 2);
    assert!(second_block.parents.contains(&first_block.id()) && second_block.parents.contains(&trunk));
    assert!(Block::from_bytes(&first_block.to_bytes(), 9).is_ok(), "the work that was asked for");

    // Children first, as they were answered.
    server.done("broadcastTransactions", json!({ "trytes": attached["trytes"] })).await;
    server.done("storeTransactions", json!({ "trytes": attached["trytes"] })).await;
    let (first, second) = (hash(&first_block.id()), hash(&second_block.id()));
    assert_eq!(server.done("getTips", json!({})).await["hashes"], json!([second]));

    searched(&server, &first, &second, &pay).await;
    included(&server, &first, &second).await;

    let unknown = hash(&BlockId::new([9; 32]));
    let got = server.done("getTrytes", json!({ "hashes": [second, unknown, &first[..64]] })).await;
    assert_eq!(block(&got["trytes"][0]), second_block);
    assert_eq!(got["trytes"][1], "9".repeat(2_673));
    assert_eq!(block(&got["trytes"][2]), first_block);
}

/// Searches for a block with data and the one after it, which carries `pay`.
async fn searched(server: &Server, first: &str, second: &str, pay: &Transaction) {
    let tag = format!("{:9<27}", trytes::encode(b"METER"));
    let to = trytes::encode_id(someone().as_bytes());
    let bundle = trytes::encode_id(pay.id().as_bytes());
    for (search, wanted) in [
        (json!({ "tags": [tag] }), json!([first])),
        (json!({ "addresses": [to] }), json!([second])),
        (json!({ "bundles": [bundle] }), json!([second])),
        (json!({ "approvees": [first] }), json!([second])),
        (json!({ "approvees": [first], "tags": [tag] }), json!([])),
        (json!({ "addresses": [to], "bundles": [bundle] }), json!([second])),
        (json!({ "tags": [] }), json!([])),
    ] {
        assert_eq!(server.done("findTransactions", search.clone()).await["hashes"], wanted, "{search}");
    }
}

/// Asks for two blocks, the first of which the second approves, before and after a milestone confirms them.
async fn included(server: &Server, first: &str, second: &str) {
    let genesis = server.dev.params.genesis_block();
    let unknown = hash(&BlockId::new([9; 32]));
    let asked = json!({ "transactions": [first, second, unknown, hash(&genesis)] });
    assert_eq!(
        server.done("getInclusionStates", asked.clone()).await["states"],
        json!([false, false, false, true])
    );
    let milestone = server.milestone();
    assert_eq!(
        server.done("getInclusionStates", asked.clone()).await["states"],
        json!([true, true, false, true])
    );
    let late = server.submit(data("late", 1));
    for (tip, wanted) in [
        (hash(&milestone), json!([true, true, false, true])),
        (first.to_owned(), json!([true, false, false, true])),
        (hash(&late), json!([false, false, false, true])),
    ] {
        let mut asked = asked.clone();
        asked["tips"] = json!([tip]);
        assert_eq!(server.done("getInclusionStates", asked).await["states"], wanted, "{tip}");
    }

    let to = trytes::encode_id(someone().as_bytes());
    let none = trytes::encode_id(&[5; 32]);
    let balances = server.done("getBalances", json!({ "addresses": [to, none], "threshold": 100 })).await;
    assert_eq!(balances["balances"], json!([server.coin_amount(0).units().to_string(), "0"]));
    assert_eq!(
        (&balances["references"], &balances["milestoneIndex"]),
        (&json!([hash(&milestone)]), &json!(1))
    );
}

#[tokio::test]
async fn long_blocks_are_not_padded_and_come_in_unpadded() {
    let server = Server::start().await;
    let long = worked(vec![server.dev.params.genesis_block()], data("long", 5_000));
    server.done("storeTransactions", json!({ "trytes": [trytes::encode(&long)] })).await;
    let got = server.done("getTrytes", json!({ "hashes": [hash(&Block::id_of(&long))] })).await;
    assert_eq!(got["trytes"][0], trytes::encode(&long));
}

#[tokio::test]
async fn a_reference_is_approved() {
    let server = Server::start().await;
    let tip = server.submit(data("tip", 1));
    let genesis = hash(&server.dev.params.genesis_block());
    let one = server.done("getTransactionsToApprove", json!({ "depth": 0 })).await;
    assert_eq!(
        (&one["trunkTransaction"], &one["branchTransaction"]),
        (&json!(hash(&tip)), &json!(hash(&tip)))
    );
    let call = json!({ "depth": 15, "reference": genesis });
    let two = server.done("getTransactionsToApprove", call).await;
    assert_eq!((&two["trunkTransaction"], &two["branchTransaction"]), (&json!(hash(&tip)), &json!(genesis)));
}

#[tokio::test]
async fn interrupting_stops_the_proof_of_work() {
    let server = Server::start().await;
    let genesis = hash(&server.dev.params.genesis_block());
    // 2^40 hashes are days.
    let attach = |magnitude: u32| {
        let template = Block::new(vec![BlockId::new([1; 32])], data("x", 1)).to_bytes();
        server.call(&json!({
            "command": "attachToTangle", "trunkTransaction": genesis, "branchTransaction": genesis,
            "minWeightMagnitude": magnitude, "trytes": [padded(&template)],
        }))
    };
    let mut running = [attach(40), attach(41)].map(|call| tokio::spawn(call.send()));
    let interrupted = async {
        // Each interruption stops what has begun; a call may have been on its way still.
        while !running.iter().all(tokio::task::JoinHandle::is_finished) {
            server.done("interruptAttachingToTangle", json!({})).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), interrupted).await.expect("the proof of work goes on");
    for call in &mut running {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"], "the proof of work was interrupted");
    }
    // Nothing of it is left in the way of the next.
    assert_eq!(attach(6).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_its_proof_of_work() {
    let server = Server::start().await;
    let genesis = hash(&server.dev.params.genesis_block());
    let template = padded(&Block::new(vec![BlockId::new([1; 32])], data("x", 1)).to_bytes());
    let attach = |magnitude: u32| {
        json!({
            "command": "attachToTangle", "trunkTransaction": genesis, "branchTransaction": genesis,
            "minWeightMagnitude": magnitude, "trytes": [template],
        })
    };
    let hung_up = server.call(&attach(60)).timeout(Duration::from_millis(300)).send().await;
    assert!(hung_up.unwrap_err().is_timeout());
    let next = server.call(&attach(6)).timeout(Duration::from_secs(20)).send().await.unwrap();
    assert_eq!(next.status(), StatusCode::OK);
}

#[tokio::test]
async fn neighbours_come_and_go() {
    let server = Server::start().await;
    let key: PublicKey = SecretKey::from_bytes([7; 32]).public();
    let uris = json!({ "uris": [format!("udp://{key}@192.0.2.1:14265"), format!("{key}@192.0.2.1:14265")] });
    assert_eq!(server.done("addNeighbors", uris.clone()).await["addedNeighbors"], 1);
    let listed = server.done("getNeighbors", json!({})).await;
    let [neighbor] = &listed["neighbors"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!(neighbor["address"], format!("{key}@192.0.2.1:14265"));
    assert_eq!(neighbor["domain"], "192.0.2.1");
    let counts = ["All", "New", "Invalid", "Stale"]
        .map(|kind| neighbor[format!("numberOf{kind}Transactions")].as_u64().unwrap());
    assert_eq!(counts, [9, 5, 1, 3]);
    assert_eq!(server.done("getNodeInfo", json!({})).await["neighbors"], 1);
    assert_eq!(server.done("removeNeighbors", uris.clone()).await["removedNeighbors"], 1);
    assert_eq!(server.done("removeNeighbors", uris).await["removedNeighbors"], 0);
}

#[tokio::test]
async fn malformed_parameters_are_refused() {
    let server = Server::start().await;
    let genesis = hash(&server.dev.params.genesis_block());
    let template = padded(&Block::new(vec![BlockId::new([1; 32])], data("x", 1)).to_bytes());
    let attach = |trunk: &str, magnitude: u64, trytes: Value| {
        json!({
            "trunkTransaction": trunk, "branchTransaction": genesis, "minWeightMagnitude": magnitude, "trytes": trytes,
        })
    };
    server.milestone();
    let milestone = server.done("getTips", json!({})).await["hashes"].clone();
    let milestone = server.done("getTrytes", json!({ "hashes": milestone })).await["trytes"][0].clone();
    let orphan = worked(vec![BlockId::new([1; 32])], data("x", 1));
    let lazy = Block::new(vec![server.dev.params.genesis_block()], data("x", 1)).to_bytes();
    let many = vec!["9"; 1_001];
    let cases = [
        ("findTransactions", json!({}), "Invalid parameters"),
        ("findTransactions", json!({ "tags": ["abc"] }), "Invalid tags input"),
        ("findTransactions", json!({ "addresses": ["9"] }), "Invalid addresses input"),
        ("findTransactions", json!({ "bundles": [7] }), "Invalid parameters"),
        ("findTransactions", json!({ "approvees": many }), "Could not complete request"),
        ("getTrytes", json!({}), "missing field `hashes`"),
        ("getTrytes", json!({ "hashes": ["A".repeat(81)] }), "Invalid hashes input"),
        ("getTrytes", json!({ "hashes": many }), "Could not complete request"),
        ("getInclusionStates", json!({}), "missing field `transactions`"),
        ("getInclusionStates", json!({ "transactions": [], "tips": ["N".repeat(64)] }), "Invalid tips input"),
        (
            "getInclusionStates",
            json!({ "transactions": [], "tips": ["9".repeat(81)] }),
            "One of the tips is absent",
        ),
        ("getBalances", json!({ "addresses": [], "threshold": 101 }), "Illegal 'threshold'"),
        ("getBalances", json!({ "addresses": ["é"], "threshold": 1 }), "Invalid addresses input"),
        ("getBalances", json!({ "addresses": [], "tips": [genesis] }), "newest milestone only"),
        ("getTransactionsToApprove", json!({}), "missing field `depth`"),
        ("getTransactionsToApprove", json!({ "depth": 16 }), "Invalid depth input"),
        ("getTransactionsToApprove", json!({ "depth": 3, "reference": "9".repeat(81) }), "not known here"),
        ("attachToTangle", attach("9", 9, json!([template])), "Invalid trunkTransaction input"),
        ("attachToTangle", attach(&genesis, 0, json!([template])), "Invalid minWeightMagnitude input"),
        ("attachToTangle", attach(&genesis, 65, json!([template])), "Invalid minWeightMagnitude input"),
        ("attachToTangle", attach(&genesis, 9, json!([])), "Invalid trytes input"),
        (
            "attachToTangle",
            attach(&genesis, 9, json!(["9".repeat(2_673)])),
            "Invalid trytes input: not a block",
        ),
        ("attachToTangle", attach(&genesis, 9, json!([milestone])), "a milestone is not attached"),
        ("broadcastTransactions", json!({}), "missing field `trytes`"),
        ("broadcastTransactions", json!({ "trytes": ["ABC"] }), "Invalid trytes input"),
        ("broadcastTransactions", json!({ "trytes": [padded(&orphan)] }), "not known here"),
        ("storeTransactions", json!({ "trytes": [padded(&lazy)] }), "proof of work"),
        ("addNeighbors", json!({ "uris": ["udp://example.org:14600"] }), "Invalid uris"),
        ("removeNeighbors", json!({}), "missing field `uris`"),
    ];
    for (command, parameters, what) in cases {
        let (status, answer) = server.command(command, parameters.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{command} {parameters}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(what), "{command}: {answer}");
    }
}

#[tokio::test]
async fn what_changes_the_node_is_for_its_own_machine() {
    let (server, open) = (Server::start().await, Server::with(HttpOptions { remote_commands: true }).await);
    let trusted = ["addNeighbors", "removeNeighbors", "attachToTangle", "interruptAttachingToTangle"];
    let others = ["getNodeInfo", "getNeighbors", "getTips"];
    for command in trusted.iter().chain(&others) {
        // A page whose name was made to point here calls from this machine, too.
        let call = json!({ "command": command, "uris": [] });
        let response = server.call(&call).header("host", "example.org").send().await.unwrap();
        let status = response.status();
        assert_eq!(status == StatusCode::UNAUTHORIZED, trusted.contains(command), "{command}: {status}");
        if status == StatusCode::UNAUTHORIZED {
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["error"], format!("COMMAND {command} is not available on this node"));
        }
        let response = open.call(&call).header("host", "example.org").send().await.unwrap();
        assert_ne!(response.status(), StatusCode::UNAUTHORIZED, "{command}");
    }
    let page = server.call(&json!({ "command": "getNodeInfo" })).header("origin", "http://example.org");
    assert_eq!(page.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let own = server.call(&json!({ "command": "getNodeInfo" })).header("origin", server.base.clone());
    assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
}
