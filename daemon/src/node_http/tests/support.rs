//! A node of a development network behind the API.

use std::sync::{Arc, Mutex};

use flash_channel::store::MemoryStore;
use flash_node_client::{
    node::{Node, dev::DevKeys, dev::DevNetwork},
    quic::PeerAddress,
};
use flash_proto::{
    Action, Address, Amount, Block, BlockId, Essence, Output, OutputId, Payload, PublicKey, SecretKey,
    Transaction, TransactionId,
    block::{Data, Work},
    transaction::commit_inputs,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::node_http::{
    HttpOptions,
    neighbours::{Neighbour, Neighbours},
    serve,
};

/// Neighbours that only stand in a list.
#[derive(Debug, Default)]
struct Listed(Mutex<Vec<Neighbour>>);

impl Neighbours for Listed {
    fn list(&self) -> Vec<Neighbour> {
        self.0.lock().unwrap().clone()
    }

    fn add(&self, address: PeerAddress) {
        let mut list = self.0.lock().unwrap();
        list.retain(|neighbour| neighbour.key != address.key);
        list.push(Neighbour {
            key: address.key,
            address: Some(address),
            inbound: false,
            score: 3,
            newest_milestone: 4,
            received_blocks: 9,
            new_blocks: 5,
            invalid_blocks: 1,
            dropped_blocks: 0,
            connected_seconds: 60,
        });
    }

    fn remove(&self, key: &PublicKey) -> bool {
        let mut list = self.0.lock().unwrap();
        let before = list.len();
        list.retain(|neighbour| neighbour.key != *key);
        list.len() < before
    }
}

pub(super) struct Server {
    pub base: String,
    pub http: reqwest::Client,
    pub node: Node,
    pub dev: DevKeys,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<std::io::Result<()>>,
}

/// A node of a development network of its own, and its keys.
pub(super) fn node() -> (Node, DevKeys) {
    let dev = DevNetwork { milestone_interval_ms: 1_000, pow_bits: 6 };
    let dev = dev.make(1_000, [[1; 32], [2; 32], [3; 32]]);
    (Node::with_store(dev.params.clone(), Box::new(MemoryStore::new())).unwrap(), dev)
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(HttpOptions::default()).await
    }

    pub(super) async fn with(options: HttpOptions) -> Self {
        let (node, dev) = node();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let neighbours: Arc<dyn Neighbours> = Arc::new(Listed::default());
        let task = tokio::spawn(serve(listener, node.clone(), Some(neighbours), options, async {
            let _ = stopped.await;
        }));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base, http, node, dev, stop: Some(stop), task }
    }

    /// Issues the next milestone and returns its block.
    pub(super) fn milestone(&self) -> BlockId {
        self.node.issue_milestone(5_000, std::slice::from_ref(&self.dev.coordinator)).unwrap();
        self.node.milestone(None).unwrap().unwrap().block
    }

    /// A classic call with its header.
    pub(super) fn call(&self, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(&self.base).header("X-IOTA-API-Version", "1").body(body.to_string())
    }

    /// The answer of a classic command.
    pub(super) async fn command(&self, command: &str, mut parameters: Value) -> (StatusCode, Value) {
        parameters["command"] = json!(command);
        let response = self.call(&parameters).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(answer["duration"].is_u64(), "{answer}");
        (status, answer)
    }

    /// The answer of a classic command that must be done.
    pub(super) async fn done(&self, command: &str, parameters: Value) -> Value {
        let (status, answer) = self.command(command, parameters).await;
        assert_eq!(status, StatusCode::OK, "{command}: {answer}");
        answer
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    /// The answer of a REST route that must be there.
    pub(super) async fn found(&self, path: &str) -> Value {
        let (status, answer) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// A transfer of one of the treasury's outputs.
    pub(super) fn transfer(&self, coin: u16, to: Address) -> Transaction {
        let transaction = TransactionId::new(*self.dev.params.id().as_bytes());
        let spent = self.dev.params.genesis[usize::from(coin)];
        let essence = Essence {
            network: self.dev.params.id(),
            inputs: vec![OutputId { transaction, index: coin }],
            inputs_commitment: commit_inputs(&[spent]),
            outputs: vec![Output { address: to, amount: spent.amount }],
            action: Action::Transfer,
        };
        let unlocks = vec![essence.unlock(&self.dev.treasury)];
        Transaction { essence, unlocks }
    }

    pub(super) fn coin_amount(&self, coin: usize) -> Amount {
        self.dev.params.genesis[coin].amount
    }

    /// Submits a payload on the genesis.
    pub(super) fn submit(&self, payload: Payload) -> BlockId {
        let genesis = self.dev.params.genesis_block();
        self.node.submit(&worked(vec![genesis], payload)).unwrap()
    }
}

/// A block with its proof of work.
pub(super) fn worked(parents: Vec<BlockId>, payload: Payload) -> Vec<u8> {
    let mut block = Block::new(parents, payload);
    block.nonce = Work::of(&block.to_bytes()).search(6, 0, u64::MAX).unwrap();
    block.to_bytes()
}

pub(super) fn data(tag: &str, len: usize) -> Payload {
    Payload::Data(Data { tag: tag.as_bytes().to_vec(), data: vec![7; len] })
}

pub(super) fn carried(transaction: &Transaction) -> Payload {
    Payload::Transaction(Box::new(transaction.clone()))
}

pub(super) fn someone() -> Address {
    Address::of(&SecretKey::from_bytes([9; 32]).public())
}
