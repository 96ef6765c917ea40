//! A node in memory that does what a test says.

use std::{collections::BTreeMap, sync::Arc};

use flash_proto::{
    Amount, Block, BlockId, ChannelId, Payload, StateKey, TransactionId, limits::NODE_FRAME_BYTES_MAX,
};
use quinn::Connection;

use super::*;
use crate::{
    ledger::{Checked, merkle},
    light::tests::Ledger,
    protocol::{
        Followed, Inclusion, NodeInfo, NodeRequest, NodeResponse, Refused, RefusedCode, TransactionAnswer,
    },
    quic::frames::{FrameReader, FrameWriter},
};

/// Changes an answer before it is sent: a lie.
pub(super) type Lie = Arc<dyn Fn(&NodeRequest, NodeResponse, &Script) -> Reply + Send + Sync>;

/// What goes out instead of an answer.
pub(super) enum Reply {
    /// This.
    Answer(NodeResponse),
    /// A frame of these bytes, which need not be an answer.
    Bytes(Vec<u8>),
    /// Nothing, ever.
    Silence,
}

pub(super) struct Script {
    pub(super) ledger: Ledger,
    pub(super) followed: Vec<Followed>,
    pub(super) pending: Vec<Vec<u8>>,
    pub(super) blocks: BTreeMap<BlockId, Vec<u8>>,
    pub(super) answers: BTreeMap<TransactionId, TransactionAnswer>,
    pub(super) included: BTreeMap<BlockId, Inclusion>,
    held: bool,
    hurried: bool,
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
            included: BTreeMap::new(),
            held: false,
            hurried: false,
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
        self.milestones.send_replace(lock(&self.script).confirm());
    }

    /// From now on a milestone comes after each list of outputs.
    pub(super) fn hurry(&self) {
        lock(&self.script).hurried = true;
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

    /// Takes over what waits at another node, as if it had been passed on.
    pub(super) fn adopt(&self, other: &Self) {
        let pending = lock(&other.script).pending.clone();
        let mut script = lock(&self.script);
        script.pending.clear();
        for block in pending {
            script.put(block);
        }
    }

    /// The blocks that it has.
    pub(super) fn blocks(&self) -> BTreeMap<BlockId, Vec<u8>> {
        lock(&self.script).blocks.clone()
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
    /// Confirms what is pending; returns how many milestones there are then.
    fn confirm(&mut self) -> usize {
        let blocks = if self.held { Vec::new() } else { std::mem::take(&mut self.pending) };
        let (followed, confirmation) = self.ledger.confirm(&blocks);
        for (place, block) in blocks.iter().enumerate() {
            let leaves = blocks.iter().map(|block| *Block::id_of(block).as_bytes());
            let path = merkle::prove(leaves, place).unwrap();
            let milestone = followed.milestone.clone();
            self.included.insert(Block::id_of(block), Inclusion { block: block.clone(), milestone, path });
        }
        for (place, (block, id)) in confirmation.applied.iter().enumerate() {
            let leaves = confirmation.applied.iter().map(|(block, _)| *block.as_bytes());
            let answer = TransactionAnswer::Applied {
                block: self.blocks[block].clone(),
                milestone: followed.milestone.clone(),
                path: merkle::prove(leaves, place).unwrap(),
            };
            self.answers.insert(*id, answer);
        }
        for (block, id, conflict) in confirmation.conflicts {
            let milestone_index = followed.milestone.essence.index;
            self.answers.insert(id, TransactionAnswer::Rejected { block, milestone_index, conflict });
        }
        self.followed.push(followed);
        self.followed.len()
    }

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
        match request {
            NodeRequest::Follow { .. } => unreachable!("followed elsewhere"),
            NodeRequest::Info => NodeResponse::Info(self.info()),
            NodeRequest::Milestone(index) => {
                let wanted = index.unwrap_or(milestone_index);
                let found = self.followed.iter().find(|followed| followed.milestone.essence.index == wanted);
                NodeResponse::Milestone(found.map(|followed| Box::new(followed.milestone.clone())))
            }
            NodeRequest::Channel(id) => self.channel(id, milestone_index),
            NodeRequest::OutputsOf { addresses, after } => {
                let mut outputs: Vec<_> = addresses
                    .iter()
                    .flat_map(|address| self.ledger.state.outputs_at(address))
                    .filter(|(id, _)| after.is_none_or(|after| *id > after))
                    .collect();
                outputs.sort_unstable_by_key(|(id, _)| *id);
                let prove = |id: &OutputId| self.ledger.state.tree().prove(&StateKey::Output(*id).tree_key());
                let outputs = outputs.into_iter().map(|(id, output)| (id, output, prove(&id))).collect();
                NodeResponse::Outputs { milestone_index, outputs }
            }
            NodeRequest::ChannelsOf { parties, after } => {
                let found: BTreeMap<_, _> =
                    parties.iter().flat_map(|party| self.ledger.state.channels_after(party, after)).collect();
                let prove = |id| self.ledger.state.tree().prove(&StateKey::Channel(id).tree_key());
                let channels = found.into_iter().map(|(id, record)| (id, record, prove(id))).collect();
                NodeResponse::Channels { milestone_index, channels }
            }
            NodeRequest::Records(ids) => self.records(&ids, milestone_index),
            NodeRequest::Tips => NodeResponse::Tips(vec![params.genesis_block()]),
            NodeRequest::SubmitAll(blocks) => self.submit_all(blocks),
            NodeRequest::Submit(bytes) => {
                let block = Block::from_bytes(&bytes, params.pow_bits).unwrap();
                if !block
                    .parents
                    .iter()
                    .all(|parent| *parent == params.genesis_block() || self.blocks.contains_key(parent))
                {
                    let (code, reason) = (RefusedCode::UnknownParent, "unknown parents".to_owned());
                    return NodeResponse::Refused(Refused { code, reason });
                }
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
                let answer = self.answers.get(&id).cloned().unwrap_or(TransactionAnswer::Unknown);
                NodeResponse::Transaction(Box::new(answer))
            }
            NodeRequest::Inclusion(id) => {
                NodeResponse::Inclusion(self.included.get(&id).cloned().map(Box::new))
            }
            NodeRequest::Block(id) => NodeResponse::Block(self.blocks.get(&id).cloned()),
        }
    }

    fn channel(&self, id: ChannelId, milestone_index: u64) -> NodeResponse {
        let record = self.ledger.state.channel(&id).copied().map(Box::new);
        let proof = self.ledger.state.tree().prove(&StateKey::Channel(id).tree_key());
        NodeResponse::Channel { milestone_index, record, proof }
    }

    fn records(&self, ids: &[ChannelId], milestone_index: u64) -> NodeResponse {
        let record = |id: &ChannelId| {
            let proof = self.ledger.state.tree().prove(&StateKey::Channel(*id).tree_key());
            (self.ledger.state.channel(id).copied(), proof)
        };
        NodeResponse::Records { milestone_index, records: ids.iter().map(record).collect() }
    }

    fn submit_all(&mut self, blocks: Vec<Vec<u8>>) -> NodeResponse {
        let answers = blocks.into_iter().map(|block| match self.answer(NodeRequest::Submit(block)) {
            NodeResponse::Refused(refused) => Some(refused),
            _ => None,
        });
        NodeResponse::SubmittedAll(answers.collect())
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

    /// What goes out for an answer.
    fn reply(&self, request: &NodeRequest, answer: NodeResponse) -> Reply {
        match &self.lie {
            Some(lie) => lie(request, answer, self),
            None => Reply::Answer(answer),
        }
    }
}

async fn answer(
    (send, receive): (quinn::SendStream, quinn::RecvStream),
    script: Arc<Mutex<Script>>,
    milestones: watch::Sender<usize>,
    submitted: watch::Sender<usize>,
) {
    let mut writer = FrameWriter::new(send, usize::MAX);
    let mut reader = FrameReader::new(receive, NODE_FRAME_BYTES_MAX);
    let Ok(Some(request)) = reader.message::<NodeRequest, NODE_FRAME_BYTES_MAX>().await else { return };
    if let NodeRequest::Follow { after } = request {
        let mut known = milestones.subscribe();
        for place in usize::try_from(after).unwrap().. {
            if known.wait_for(|count| *count > place).await.is_err() {
                return;
            }
            let reply = {
                let script = lock(&script);
                let followed = Box::new(script.followed[place].clone());
                script.reply(&request, NodeResponse::Followed(followed))
            };
            match reply {
                Reply::Answer(response) if writer.send(&response).await.is_ok() => {}
                Reply::Bytes(bytes) if writer.push_bytes(&bytes).is_ok() && writer.flush().await.is_ok() => {}
                Reply::Silence => {}
                _ => return,
            }
        }
    }
    let reply = {
        let mut script = lock(&script);
        let answer = script.answer(request.clone());
        let reply = script.reply(&request, answer);
        if script.hurried && matches!(request, NodeRequest::OutputsOf { .. }) {
            milestones.send_replace(script.confirm());
        }
        reply
    };
    match reply {
        Reply::Answer(response) => {
            let accepted = match &response {
                NodeResponse::Submitted(_) => 1,
                NodeResponse::SubmittedAll(answers) => {
                    answers.iter().filter(|answer| answer.is_none()).count()
                }
                _ => 0,
            };
            let _ = writer.push(&response);
            let _ = writer.finish().await;
            if accepted > 0 {
                submitted.send_modify(|count| *count += accepted);
            }
        }
        Reply::Bytes(bytes) => {
            let _ = writer.push_bytes(&bytes);
            let _ = writer.finish().await;
        }
        Reply::Silence => std::future::pending().await,
    }
}
