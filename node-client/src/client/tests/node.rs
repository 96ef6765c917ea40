//! A node in memory that does what a test says.

use std::{collections::BTreeMap, sync::Arc};

use flash_proto::{
    Amount, Block, ChannelId, Hash, Payload, StateKey, TransactionId, limits::NODE_FRAME_BYTES_MAX,
};
use quinn::Connection;

use super::*;
use crate::{
    ledger::{Checked, merkle},
    light::tests::Ledger,
    protocol::{Followed, NodeInfo, NodeRequest, NodeResponse, Refused, RefusedCode, TransactionAnswer},
    quic::frames::{FrameReader, FrameWriter},
};

/// What a node may be told to make up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Another record than the ledger's.
    Record,
    /// The state of the milestone before.
    Old,
    /// No record where there is one.
    NoRecord,
    /// An output that nobody made.
    Output,
    /// A transaction as applied that was not.
    Applied,
    /// Other bytes for a block.
    Block,
    /// A milestone without enough signatures.
    Unsigned,
    /// A milestone without the channels that it changed.
    Channels,
}

impl Lie {
    pub(super) const fn in_milestones(self) -> bool {
        matches!(self, Self::Unsigned | Self::Channels)
    }
}

struct Script {
    ledger: Ledger,
    followed: Vec<Followed>,
    pending: Vec<Vec<u8>>,
    blocks: BTreeMap<flash_proto::BlockId, Vec<u8>>,
    answers: BTreeMap<TransactionId, TransactionAnswer>,
    held: bool,
    lie: Option<Lie>,
}

pub(super) struct ScriptedNode {
    pub(super) address: PeerAddress,
    endpoint: Endpoint,
    n: u8,
    script: Arc<Mutex<Script>>,
    milestones: watch::Sender<usize>,
    submitted: watch::Sender<usize>,
    connections: watch::Sender<Option<Connection>>,
    accepting: AbortHandle,
}

impl Drop for ScriptedNode {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ScriptedNode {
    pub(super) fn start(n: u8) -> Self {
        let script = Script {
            ledger: Ledger::new(),
            followed: Vec::new(),
            pending: Vec::new(),
            blocks: BTreeMap::new(),
            answers: BTreeMap::new(),
            held: false,
            lie: None,
        };
        Self::serve(n, loopback(), Arc::new(Mutex::new(script)))
    }

    fn serve(n: u8, at: SocketAddr, script: Arc<Mutex<Script>>) -> Self {
        let endpoint = Endpoint::listen(&key(n), NODE_ALPN, at, StreamLimits { bidirectional: 16 }).unwrap();
        let at = endpoint.local_address().unwrap();
        let address = PeerAddress::new(key(n).public(), at.ip().to_string(), at.port()).unwrap();
        let milestones = watch::Sender::new(lock(&script).followed.len());
        let (submitted, connections) = (watch::Sender::new(0), watch::Sender::new(None));
        let accepting = tokio::spawn({
            let (endpoint, script) = (endpoint.clone(), Arc::clone(&script));
            let (milestones, submitted, connections) =
                (milestones.clone(), submitted.clone(), connections.clone());
            async move {
                while let Some(incoming) = endpoint.accept().await {
                    let Ok(connection) = incoming.await else { continue };
                    connections.send_replace(Some(connection.clone()));
                    let (script, milestones, submitted) =
                        (Arc::clone(&script), milestones.clone(), submitted.clone());
                    tokio::spawn(async move {
                        while let Ok(streams) = connection.accept_bi().await {
                            let (script, milestones, submitted) =
                                (Arc::clone(&script), milestones.clone(), submitted.clone());
                            let connection = connection.clone();
                            tokio::spawn(async move {
                                tokio::select! {
                                    () = answer(streams, script, milestones, submitted) => {}
                                    _ = connection.closed() => {}
                                }
                            });
                        }
                    });
                }
            }
        })
        .abort_handle();
        Self { address, endpoint, n, script, milestones, submitted, connections, accepting }
    }

    pub(super) async fn restart(self) -> Self {
        let at = self.endpoint.local_address().unwrap();
        self.accepting.abort();
        // Every handle keeps the socket open.
        self.connections.send_replace(None);
        self.endpoint.close().await;
        let (n, script) = (self.n, Arc::clone(&self.script));
        drop(self);
        // The socket is free once the endpoint's own task has ended.
        loop {
            if std::net::UdpSocket::bind(at).is_ok() {
                return Self::serve(n, at, script);
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn newest(&self) -> MilestoneEssence {
        lock(&self.script).ledger.newest.clone()
    }

    /// Confirms what is pending.
    pub(super) fn milestone(&self) {
        let mut script = lock(&self.script);
        let blocks = if script.held { Vec::new() } else { std::mem::take(&mut script.pending) };
        let (followed, confirmation) = script.ledger.confirm(&blocks);
        for (place, (block, id)) in confirmation.applied.iter().enumerate() {
            let leaves = confirmation.applied.iter().map(|(block, _)| *block.as_bytes());
            let answer = TransactionAnswer::Applied {
                block: script.blocks[block].clone(),
                milestone: followed.milestone.clone(),
                path: merkle::prove(leaves, place).unwrap(),
            };
            script.answers.insert(*id, answer);
        }
        for (block, id, conflict) in confirmation.conflicts {
            let milestone_index = followed.milestone.essence.index;
            script.answers.insert(id, TransactionAnswer::Rejected { block, milestone_index, conflict });
        }
        script.followed.push(followed);
        self.milestones.send_replace(script.followed.len());
    }

    /// Sends a milestone that the ledger does not have.
    pub(super) fn push(&self, milestone: Milestone) {
        let mut script = lock(&self.script);
        script.followed.push(Followed { milestone, channels: vec![] });
        self.milestones.send_replace(script.followed.len());
    }

    pub(super) fn put(&self, block: Vec<u8>) {
        lock(&self.script).put(block);
    }

    pub(super) fn forget(&self) {
        let mut script = lock(&self.script);
        script.pending.clear();
        script.answers.clear();
    }

    /// From now on nothing is confirmed any more.
    pub(super) fn hold(&self) {
        lock(&self.script).held = true;
    }

    pub(super) fn lie(&self, lie: Lie) {
        lock(&self.script).lie = Some(lie);
    }

    /// Waits until so many blocks have been submitted.
    pub(super) async fn submitted(&self, count: usize) {
        let got = *self.submitted.subscribe().wait_for(|got| *got >= count).await.unwrap();
        assert_eq!(got, count);
    }

    pub(super) async fn connection_closed(&self) {
        let connection = self.connections.borrow().clone().unwrap();
        connection.closed().await;
    }
}

impl Script {
    fn put(&mut self, bytes: Vec<u8>) {
        let block = Block::id_of(&bytes);
        if let Payload::Transaction(transaction) = Block::from_bytes(&bytes, 0).unwrap().payload {
            self.answers.insert(transaction.id(), TransactionAnswer::Pending { block });
        }
        self.blocks.insert(block, bytes.clone());
        self.pending.push(bytes);
    }

    fn answer(&mut self, request: NodeRequest) -> NodeResponse {
        let params = Arc::clone(&self.ledger.params);
        let milestone_index = self.ledger.newest.index;
        let old = u64::from(self.lie == Some(Lie::Old));
        match request {
            NodeRequest::Follow { .. } => unreachable!("followed elsewhere"),
            NodeRequest::Info => NodeResponse::Info(self.info()),
            NodeRequest::Milestone(index) => {
                let wanted = index.unwrap_or(milestone_index);
                let found = self.followed.iter().find(|followed| followed.milestone.essence.index == wanted);
                NodeResponse::Milestone(found.map(|followed| Box::new(followed.milestone.clone())))
            }
            NodeRequest::Channel(id) => self.channel(id, milestone_index - old),
            NodeRequest::OutputsOf { addresses, after } => {
                let mut outputs: Vec<_> = addresses
                    .iter()
                    .flat_map(|address| self.ledger.state.outputs_at(address))
                    .filter(|(id, _)| after.is_none_or(|after| *id > after))
                    .collect();
                outputs.sort_unstable_by_key(|(id, _)| *id);
                if self.lie == Some(Lie::Output) {
                    outputs[0].1.amount = Amount::SUPPLY;
                }
                let prove = |id: &OutputId| self.ledger.state.tree().prove(&StateKey::Output(*id).tree_key());
                let outputs = outputs.into_iter().map(|(id, output)| (id, output, prove(&id))).collect();
                NodeResponse::Outputs { milestone_index: milestone_index - old, outputs }
            }
            NodeRequest::Tips => NodeResponse::Tips(vec![params.genesis_block()]),
            NodeRequest::Submit(bytes) => {
                let block = Block::from_bytes(&bytes, params.pow_bits).unwrap();
                if let Payload::Transaction(transaction) = block.payload
                    && let Err(invalid) = Checked::new(*transaction, &params)
                {
                    let (code, reason) = (RefusedCode::InvalidBlock, invalid.to_string());
                    return NodeResponse::Refused(Refused { code, reason });
                }
                let id = Block::id_of(&bytes);
                self.put(bytes);
                NodeResponse::Submitted(id)
            }
            NodeRequest::Transaction(id) => {
                let mut answer = self.answers.get(&id).cloned().unwrap_or(TransactionAnswer::Unknown);
                if let (Some(Lie::Applied), TransactionAnswer::Applied { path, .. }) = (self.lie, &mut answer)
                {
                    path.siblings.push(Hash::ZERO);
                }
                NodeResponse::Transaction(Box::new(answer))
            }
            NodeRequest::Block(_) if self.lie == Some(Lie::Block) => NodeResponse::Block(Some(vec![1])),
            NodeRequest::Block(id) => NodeResponse::Block(self.blocks.get(&id).cloned()),
            NodeRequest::Inclusion(_) => NodeResponse::Inclusion(None),
        }
    }

    fn channel(&self, id: ChannelId, milestone_index: u64) -> NodeResponse {
        let mut record = self.ledger.state.channel(&id).copied();
        match self.lie {
            Some(Lie::NoRecord) => record = None,
            Some(Lie::Record) => record.as_mut().unwrap().lane_a.seq += 1,
            _ => {}
        }
        let proof = self.ledger.state.tree().prove(&StateKey::Channel(id).tree_key());
        NodeResponse::Channel { milestone_index, record: record.map(Box::new), proof }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            version: "scripted".to_owned(),
            network: self.ledger.params.id(),
            milestone_index: self.ledger.newest.index,
            blocks: 0,
            tips: 1,
            outputs: (0, Amount::ZERO),
            channels: (0, Amount::ZERO),
            state_root: self.ledger.newest.state_root,
        }
    }

    fn followed(&self, place: usize) -> Option<Followed> {
        let mut followed = self.followed.get(place)?.clone();
        match self.lie {
            Some(Lie::Unsigned) => drop(followed.milestone.signatures.pop()),
            Some(Lie::Channels) => followed.channels.clear(),
            _ => {}
        }
        Some(followed)
    }
}

async fn answer(
    (send, receive): (quinn::SendStream, quinn::RecvStream),
    script: Arc<Mutex<Script>>,
    milestones: watch::Sender<usize>,
    submitted: watch::Sender<usize>,
) {
    let mut writer = FrameWriter::new(send, NODE_FRAME_BYTES_MAX);
    let mut reader = FrameReader::new(receive, NODE_FRAME_BYTES_MAX);
    let Ok(Some(request)) = reader.message::<NodeRequest, NODE_FRAME_BYTES_MAX>().await else { return };
    if let NodeRequest::Follow { after } = request {
        let mut known = milestones.subscribe();
        for place in usize::try_from(after).unwrap().. {
            if known.wait_for(|count| *count > place).await.is_err() {
                return;
            }
            let followed = lock(&script).followed(place).unwrap();
            if writer.send(&NodeResponse::Followed(Box::new(followed))).await.is_err() {
                return;
            }
        }
    }
    let is_submission = matches!(request, NodeRequest::Submit(_));
    let response = lock(&script).answer(request);
    let accepted = is_submission && matches!(response, NodeResponse::Submitted(_));
    let _ = writer.push(&response);
    let _ = writer.finish().await;
    if accepted {
        submitted.send_modify(|count| *count += 1);
    }
}
