//! A daemon with its data directory.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use flash_node_client::{
    quic::PeerAddress,
    wallet::{Account, Seed},
};
use flash_proto::{Amount, ChannelId, SecretKey};
use flashd::{
    api::{ApiError, ChannelInfo, CloseRequest, ErrorCode, OpenRequest, PayRequest, PayResult},
    client::{Client, Ready},
    rpc::Scope,
};
use futures_util::TryStreamExt;

use crate::{Ended, Process, binary, poll, ports::own_address};

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    data: PathBuf,
    process: Option<Process>,
    client: Option<Client>,
    /// Where peers connect; the same after a restart.
    listen: String,
    arguments: Vec<String>,
}

impl Daemon {
    /// A daemon that is not running, on a data directory that is set up.
    pub fn at(data: PathBuf) -> Self {
        let arguments = vec!["--accept-deposit-max".to_owned(), "1Gi".to_owned()];
        Self { data, process: None, client: None, listen: own_address(), arguments }
    }

    /// The same, following these nodes, the first one first.
    #[must_use]
    pub fn following(mut self, nodes: &[PeerAddress]) -> Self {
        self.arguments.extend(nodes.iter().flat_map(|node| ["--node".to_owned(), node.to_string()]));
        self
    }

    /// The same, with these arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Adds lines to its `flash.toml`.
    pub fn configure(&self, lines: &str) {
        let mut file =
            fs::OpenOptions::new().append(true).open(self.data.join("flash.toml")).expect("it has one");
        file.write_all(lines.as_bytes()).expect("room");
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("flashd"));
        command.arg("--data").arg(&self.data);
        command.args(["--listen", &self.listen, "--rpc", "127.0.0.1:0"]).args(&self.arguments);
        command
    }

    /// Starts it with `command` in its place, without waiting for it.
    pub fn spawn(&mut self, command: Command) -> &mut Process {
        self.client = None;
        self.process.insert(Process::start(command, &self.data.with_extension("log")))
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) {
        let command = self.command();
        self.spawn(command);
        self.ready().await;
    }

    /// Waits until it answers, after [`Daemon::spawn`].
    pub async fn ready(&mut self) {
        let (data, process) = (&self.data, self.process.as_mut().expect("it was started"));
        let client = process.ready(|pid| {
            Ready::read(data).ok().filter(|ready| ready.pid == pid)?;
            Client::of_data_dir(data, Scope::Admin, None, None).ok()
        });
        let client = client.await;
        self.client = Some(client);
    }

    /// A client of the running daemon, with the admin's token.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the daemon runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// `kill -9`, and starts it again.
    pub async fn crash(&mut self) {
        self.kill();
        self.start().await;
    }

    /// Stops it in order.
    pub async fn stop(&mut self) -> Ended {
        let process = self.process.as_mut().expect("it was started");
        process.terminate();
        process.wait().await
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// What a peer needs to open a channel.
    pub async fn ticket(&self) -> String {
        self.client().info().await.expect("it answers").ticket
    }

    /// Its seed.
    pub fn seed(&self) -> Seed {
        let words = flashd::seedfile::read(&flashd::datadir::seed_path(&self.data), || Ok(None));
        Seed::from_words(&words.expect("a plain seed file"), "").expect("a seed")
    }

    /// A key that it derives from its seed.
    pub fn key(&self, account: Account, index: u32) -> SecretKey {
        self.seed().key(account, index)
    }

    /// Opens a channel to `peer` with these deposits; both see it open.
    pub async fn open(&self, peer: &Self, deposit: u64, peer_deposit: u64, window: u32) -> ChannelId {
        self.open_by(peer.ticket().await, peer, deposit, peer_deposit, window).await
    }

    /// The same by a ticket that may name another place than the peer's own.
    pub async fn open_by(
        &self,
        ticket: String,
        peer: &Self,
        deposit: u64,
        peer_deposit: u64,
        window: u32,
    ) -> ChannelId {
        let request = OpenRequest {
            peer: ticket,
            deposit: Amount::new(deposit),
            peer_deposit: Amount::new(peer_deposit),
            contest_window_milestones: Some(window),
        };
        let channel = self.client().open(&request).await.expect("the channel opens").id;
        for side in [self, peer] {
            side.wait(channel, "open and connected", |info| info.state == "open" && info.connected).await;
        }
        channel
    }

    /// The channel, once it is so.
    pub async fn wait(
        &self,
        channel: ChannelId,
        what: &str,
        so: impl Fn(&ChannelInfo) -> bool,
    ) -> ChannelInfo {
        let what = format!("channel {channel} of {} to be {what}", self.data.display());
        poll(&what, || async { self.client().channel(channel).await.ok().filter(&so) }).await
    }

    /// Waits until both sides of a channel can pay, and fails the test unless they agree on it (I8).
    pub async fn agree(&self, peer: &Self, channel: ChannelId) {
        for side in [self, peer] {
            side.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
            side.pay(channel, 1).await.expect("it is in use");
        }
        let (here, there) = (self.channel(channel).await, peer.channel(channel).await);
        assert_eq!(here.sent.cumulative, there.received.cumulative, "I8");
        assert_eq!(here.received.cumulative, there.sent.cumulative, "I8");
        assert_eq!((here.balance, here.peer_balance), (there.peer_balance, there.balance), "I8");
    }

    /// The channel now.
    pub async fn channel(&self, channel: ChannelId) -> ChannelInfo {
        self.client().channel(channel).await.expect("the channel is known")
    }

    /// Pays.
    pub async fn pay(&self, channel: ChannelId, amount: u64) -> Result<PayResult, ApiError> {
        let request = PayRequest { amount: Amount::new(amount), reference: None, key: None };
        self.client().pay(channel, &request).await
    }

    /// Pays once, by a key that is used for nothing else, as a user does who asks again while `passing` is the
    /// answer.
    pub async fn pay_after(&self, passing: ErrorCode, channel: ChannelId, amount: u64, key: &str) {
        let request = PayRequest { amount: Amount::new(amount), reference: None, key: Some(key.to_owned()) };
        poll("the payment to be taken", || async {
            match self.client().pay(channel, &request).await {
                Err(error) if error.code == passing => None,
                paid => Some(paid.expect("it pays")),
            }
        })
        .await;
    }

    /// The kinds of the events that it keeps, oldest first.
    pub async fn event_kinds(&self) -> Vec<String> {
        let events = self.client().events(None, false).await.expect("its events");
        events.map_ok(|event| event.kind).try_collect().await.expect("its events")
    }

    /// Fails the test if anything left this daemon or its peer before it was on the disk: the other side
    /// would have shown it what it no longer knew.
    pub async fn assert_nothing_forgotten(&self) {
        let kinds = self.event_kinds().await;
        for wrong in ["balance_recovered", "peer_misbehaved"] {
            assert!(!kinds.iter().any(|kind| kind == wrong), "{}: {wrong}", self.data.display());
        }
    }

    /// Closes together with the peer and waits for the money.
    pub async fn close(&self, channel: ChannelId) -> ChannelInfo {
        let closed = self.client().close(channel, CloseRequest { force: false }, true).await;
        let closed = closed.expect("the channel closes");
        assert_eq!(closed.state, "closed", "{closed:?}");
        closed
    }

    /// Closes alone and waits for the money.
    pub async fn close_alone(&self, channel: ChannelId) -> ChannelInfo {
        let closed = self.client().close(channel, CloseRequest { force: true }, true).await;
        let closed = closed.expect("the channel closes");
        assert_eq!(closed.state, "closed", "{closed:?}");
        closed
    }
}
