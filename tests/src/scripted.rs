//! A peer that follows a script instead of the protocol.

use std::sync::Arc;

use flash_node_client::{
    quic::{ConnectError, Endpoint, PEER_ALPN, PeerAddress, StreamLimits, frames::FrameReader},
    wallet::{Account, Seed},
};
use flash_proto::{
    Address, Amount, ChannelId, LaneState, NetworkParams, Payment, PaymentList, SecretKey, Side,
    SignedBalance, Transaction, codec, limits,
    message::{
        ChannelMessage, Funding, Hello, OpenParty, OpenProposal, OpenReply, PROTOCOL_VERSION, Reestablish,
        Refusal, Stake, Stakes, StreamStart, Update,
    },
};

use crate::Net;

/// What a scripted peer says that is locked: the smaller view decides, so this leaves it to the daemon.
pub const STAKES: Stakes = {
    let stake = Stake { deposit: Amount::MAX, withdrawn: Amount::ZERO };
    Stakes { a: stake, b: stake }
};

const FRAME_BYTES_MAX: usize = limits::PEER_FRAME_BYTES_MAX;
/// Milestones of the contest window unless a test says otherwise.
const CONTEST_WINDOW: u32 = 60;

/// A peer in the hands of a test.
#[derive(Debug)]
pub struct ScriptedPeer {
    /// Signs its side of its channel.
    pub key: SecretKey,
    params: Arc<NetworkParams>,
    endpoint: Endpoint,
    to: PeerAddress,
}

/// A connection that has greeted.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub connection: quinn::Connection,
}

/// A stream to a daemon.
#[derive(Debug)]
pub struct Stream {
    send: quinn::SendStream,
    reader: FrameReader,
}

/// How a daemon ended a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said why.
    Refused(Refusal),
    /// It just ended.
    Silent,
}

impl ScriptedPeer {
    /// A peer with a key of its own, for the daemon with this ticket.
    pub fn new(net: &Net, ticket: &str) -> Self {
        let words = flash_node_client::wallet::new_words().expect("randomness");
        let seed = Seed::from_words(&words, "").expect("a seed");
        let endpoint = Endpoint::dialler(
            &seed.key(Account::Node, 0),
            PEER_ALPN,
            "127.0.0.1:0".parse().expect("an address"),
            StreamLimits { bidirectional: 16 },
        );
        Self {
            key: seed.key(Account::Channels, 0),
            params: Arc::clone(net.params()),
            endpoint: endpoint.expect("a socket"),
            to: ticket.parse().expect("a ticket"),
        }
    }

    /// What it says of itself.
    pub fn hello(&self) -> Hello {
        Hello { version: PROTOCOL_VERSION, features: 0, network: self.params.id() }
    }

    /// Connects without a word.
    pub async fn connect(&self) -> quinn::Connection {
        self.try_connect().await.expect("the daemon accepts")
    }

    /// The same where that may fail.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn try_connect(&self) -> Result<quinn::Connection, ConnectError> {
        self.endpoint.dial(&self.to).await
    }

    /// Connects and greets.
    pub async fn greet(&self) -> Greeted {
        let greeted = Greeted { connection: self.connect().await };
        let mut stream = greeted.stream(&StreamStart::Control(self.hello())).await;
        let theirs: Hello = stream.next().await.expect("a greeting");
        assert_eq!(theirs, self.hello());
        greeted
    }

    /// A wish for a channel that is funded by `funding`.
    pub fn proposal(&self, funding: Vec<Funding>, expiry_milestone: u64) -> OpenProposal {
        let deposit = Amount::checked_sum(funding.iter().map(|it| it.output.amount)).expect("it fits");
        let party_a = OpenParty {
            key: self.key.public(),
            payout: Address::of(&self.key.public()),
            deposit,
            funding,
            change: None,
        };
        OpenProposal {
            party_a,
            deposit_b: Amount::ZERO,
            contest_window_milestones: CONTEST_WINDOW,
            expiry_milestone,
        }
    }

    /// Opens a channel in which this side, A, has all the money; in order, as everybody does.
    pub async fn open(&self, net: &Net, deposit: Amount) -> ChannelId {
        self.open_with(net, deposit, CONTEST_WINDOW).await
    }

    /// The same with this contest window, in milestones.
    pub async fn open_with(&self, net: &Net, deposit: Amount, contest_window_milestones: u32) -> ChannelId {
        let address = Address::of(&self.key.public());
        net.fund(address, deposit).await;
        let outputs = net.client.outputs_of(&[address]).await.expect("the node answers").value;
        let funding: Vec<_> = outputs.into_iter().map(|(id, output)| Funding { id, output }).collect();
        let proposal = self.proposal(funding, net.info().await.milestone_index + 100);
        let proposal = OpenProposal { contest_window_milestones, ..proposal };
        let greeted = self.greet().await;
        let OpenReply::Accept(accept) = greeted.propose(proposal.clone()).await else {
            panic!("the daemon refuses")
        };
        let essence = proposal.essence(self.params.id(), &accept.party_b);
        let unlock = essence.unlock(&self.key);
        let transaction = Transaction { essence, unlocks: vec![unlock] };
        let channel = ChannelId::opened_by(transaction.id());
        net.client.submit_and_wait(transaction, None).await.expect("the channel opens");
        channel
    }

    /// The state of this side's lane before the first payment.
    pub fn lane(&self, channel: ChannelId) -> LaneState {
        LaneState::new(channel, Side::A)
    }

    /// One update after `state` that pays these amounts, and the balance after it.
    pub fn update(&self, state: LaneState, amounts: &[u64]) -> (Update, SignedBalance) {
        let mut payments = PaymentList::new();
        for amount in amounts {
            payments.push(&Payment::new(Amount::new(*amount), b"").expect("a payment")).expect("room");
        }
        let balance = state.advance(&payments).expect("a next state").sign(self.params.id(), &self.key);
        let SignedBalance { state, signature } = balance;
        (Update { seq: state.seq, cumulative: state.cumulative, payments, ticks: None, signature }, balance)
    }
}

impl Greeted {
    /// A new stream on which nothing was said.
    pub async fn silent(&self) -> Stream {
        let (send, receive) = self.connection.open_bi().await.expect("a stream");
        Stream { send, reader: FrameReader::new(receive, FRAME_BYTES_MAX) }
    }

    /// A new stream for a purpose.
    pub async fn stream(&self, start: &StreamStart) -> Stream {
        let mut stream = self.silent().await;
        stream.frame(&codec::encode(start)).await;
        stream
    }

    /// Proposes a channel.
    pub async fn propose(&self, proposal: OpenProposal) -> OpenReply {
        let mut stream = self.stream(&StreamStart::Open(Box::new(proposal))).await;
        stream.next().await.expect("an answer")
    }

    /// A channel's stream on which both sides have said where they stand.
    pub async fn channel(&self, channel: ChannelId, signed: Option<SignedBalance>) -> Stream {
        let mut stream = self.stream(&StreamStart::Channel(channel)).await;
        let standing =
            Reestablish { signed, signed_ticks: None, held: None, held_ticks: None, stakes: STAKES };
        stream.say(&ChannelMessage::Reestablish(Box::new(standing))).await;
        let theirs: ChannelMessage = stream.next().await.expect("where it stands");
        assert!(matches!(theirs, ChannelMessage::Reestablish(_)), "{theirs:?}");
        stream
    }
}

impl Stream {
    /// Writes bytes as they are.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.try_bytes(bytes).await.expect("the stream takes it");
    }

    /// The same where the daemon may have stopped reading.
    ///
    /// # Errors
    /// The daemon has, or the connection is gone.
    pub async fn try_bytes(&mut self, bytes: &[u8]) -> Result<(), quinn::WriteError> {
        self.send.write_all(bytes).await
    }

    /// Writes a frame.
    pub async fn frame(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a length");
        self.bytes(&[&length.to_le_bytes(), body].concat()).await;
    }

    /// Writes a message.
    pub async fn say(&mut self, message: &ChannelMessage) {
        self.frame(&codec::encode(message)).await;
    }

    /// Ends this side.
    pub fn finish(&mut self) {
        self.send.finish().expect("not finished yet");
    }

    /// The next message; `None` when the stream has ended.
    pub async fn next<T: bincode::Decode<()>>(&mut self) -> Option<T> {
        let next = self.reader.message::<T, FRAME_BYTES_MAX>();
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), next).await;
        next.expect("something within 30 seconds").ok().flatten()
    }

    /// How the stream ends; what else is said before that is of no interest.
    pub async fn ending(&mut self) -> Ending {
        loop {
            match self.next::<ChannelMessage>().await {
                Some(ChannelMessage::Refuse(refusal)) => return Ending::Refused(refusal),
                Some(_) => {}
                None => return Ending::Silent,
            }
        }
    }

    /// Waits until an update is acknowledged.
    pub async fn acknowledged(&mut self, wanted: u64) {
        loop {
            match self.next().await.expect("an acknowledgement") {
                ChannelMessage::Ack { seq } if seq == wanted => return,
                ChannelMessage::Paused { reason, .. } => panic!("paused: {reason:?}"),
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{:?}: {}", refusal.code, refusal.detail),
            Self::Silent => f.write_str("it ended without a word"),
        }
    }
}
