//! A power cut on a whole daemon: what it acknowledged to its peer, and what it told its own user, is there
//! afterwards (I4, I10).
//!
//! The daemon runs under `strace`, which records what it wrote and synced, while it is paid and pays. From the
//! recording the disk is rebuilt as the power may leave it at any moment, as in the same test of the store (in
//! `channel/tests/power_cut`, whose disk and recording these are), and the real daemon is started on it.
//!
//! Needs `strace`. Without it the test says so and passes, unless `FLASH_REQUIRE_STRACE` is set.

#[path = "../../channel/tests/power_cut/disk.rs"]
mod disk;
#[path = "../../channel/tests/power_cut/random.rs"]
#[allow(dead_code, reason = "the bytes are for the store's writer")]
mod random;
#[path = "../../channel/tests/power_cut/recording.rs"]
#[allow(dead_code, reason = "the store's writer runs to its end by itself")]
mod recording;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use disk::{Disk, Unsynced};
use flash_proto::{Amount, ChannelId, SignedBalance, message::ChannelMessage};
use flash_tests::{Daemon, Net, ScriptedPeer, Stream, poll, rounds, strace_missing};
use flashd::{
    api::{ChannelInfo, PayRequest},
    client::{Client, Ready},
};
use random::Random;
use recording::{Event, Recorded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEPOSIT: u64 = 1_000_000;
/// What the peer pays in each step, and what it is paid.
const STEP: (u64, u64) = (3, 1);

/// Writes into the recording that step `number` was acknowledged both ways: the daemon is asked for something
/// that it does not have.
async fn tell(daemon: &Daemon, number: u64) {
    let rpc = Ready::read(daemon.data()).unwrap().rpc;
    let mut stream = tokio::net::TcpStream::connect(&rpc).await.unwrap();
    let request = format!("GET /ACK%20{number} HTTP/1.1\r\nHost: {rpc}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
}

/// One step: the peer pays, then the daemon does.
async fn step(
    client: &Client,
    peer: &ScriptedPeer,
    stream: &mut Stream,
    newest: Option<SignedBalance>,
    channel: ChannelId,
) -> SignedBalance {
    let before = newest.map_or_else(|| peer.lane(channel), |newest| newest.state);
    let (update, balance) = peer.update(before, &[STEP.0]);
    let seq = update.seq;
    stream.say(&ChannelMessage::Update(update)).await;
    stream.acknowledged(seq).await;
    let client = client.clone();
    let paying = tokio::spawn(async move {
        let request = PayRequest { amount: Amount::new(STEP.1), reference: None, key: None };
        client.pay(channel, &request).await
    });
    loop {
        if let ChannelMessage::Update(update) = stream.next().await.expect("an update") {
            stream.say(&ChannelMessage::Ack { seq: update.seq }).await;
            break;
        }
    }
    paying.await.expect("the call ends").expect("it is acknowledged");
    balance
}

/// The whole life of a daemon, recorded. Gives back what the recording begins with, the peer and its balance.
struct Life {
    net: Net,
    daemon: Daemon,
    peer: ScriptedPeer,
    channel: ChannelId,
    newest: SignedBalance,
    disk: Disk,
    recorded: Vec<Recorded>,
}

/// Whether a process runs that was started with this path as an argument.
fn is_argument_of_a_process(path: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let mut commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let path = path.as_os_str().as_encoded_bytes();
    commands.any(|command| command.split(|byte| *byte == 0).any(|argument| argument == path))
}

fn root(data: &Path) -> PathBuf {
    data.canonicalize().expect("it is there")
}

impl Life {
    async fn record(steps: u64) -> Self {
        let net = Net::start().await;
        let mut daemon = Daemon::init(&net, "charger").await;
        let disk = Disk::holding(&root(daemon.data()));
        let recording = root(daemon.data()).with_extension("trace");
        // With `-D` the daemon keeps the process id that the test knows, and strace ends after it.
        let traced = recording::recorder(&daemon.command(), &recording, &["-D", "-qq"]);
        daemon.spawn(traced);
        daemon.ready().await;
        let peer = ScriptedPeer::new(&net, &daemon.ticket().await);
        let channel = peer.open(&net, Amount::new(DEPOSIT)).await;
        daemon.wait(channel, "open", |info| info.state == "open").await;
        let mut stream = peer.greet().await.channel(channel, None).await;
        let mut newest = None;
        for number in 1..=steps {
            newest = Some(step(daemon.client(), &peer, &mut stream, newest, channel).await);
            tell(&daemon, number).await;
        }
        // The power may fail while it stops, too.
        assert_eq!(daemon.stop().await.code, Some(0));
        poll("strace to end", || std::future::ready((!is_argument_of_a_process(&recording)).then_some(())))
            .await;
        let mut recorded = recording::read(&recording);
        recorded.sort_by_key(|recorded| match recorded.event {
            Event::Sync { .. } => recorded.returned,
            _ => recorded.began,
        });
        let told = recorded.iter().filter(|it| matches!(it.event, Event::Acknowledged(_))).count();
        assert_eq!(u64::try_from(told).unwrap(), steps, "the recording is not whole");
        let newest = newest.expect("there was a step");
        Self { net, daemon, peer, channel, newest, disk, recorded }
    }

    /// Puts what the power left in the place of the data directory, and starts the daemon on it.
    async fn start_after_cut(&mut self, unsynced: Unsynced, random: &mut Random) {
        self.daemon.kill();
        let data = self.daemon.data().to_owned();
        fs::remove_dir_all(&data).unwrap();
        self.disk.cut(unsynced, random, &data);
        make_private(&data);
        self.daemon.start().await;
        // Files that a test has put there are a copy. That nothing was signed after them is what is tested here.
        let _ = self.daemon.client().trust(self.channel).await;
    }

    /// What is there must be at least what was told, and the peer can go on.
    async fn check(&mut self, case: &str) {
        let told = self.disk.acknowledged;
        let info = self.daemon.client().channel(self.channel).await;
        // Before the first commit of the channel nothing was said about it; on the ledger it is found all the same.
        let Some(info) = info.ok().filter(|info| !info.recovered) else {
            assert_eq!(told, 0, "{case}: the channel is gone");
            return;
        };
        let (received, sent) = (info.received.cumulative.units(), info.sent.cumulative.units());
        assert!(received >= told * STEP.0, "I4, {case}: {received} received, step {told} was acknowledged");
        assert!(sent >= told * STEP.1, "I10, {case}: {sent} sent, step {told} was acknowledged");
        let channel = self.channel;
        let mut stream = self.peer.greet().await.channel(channel, Some(self.newest)).await;
        let in_use = |info: &ChannelInfo| info.state == "open" && info.connected && info.paused.is_none();
        self.daemon.wait(channel, "in use", in_use).await;
        stream.say(&ChannelMessage::Balance(Box::new(self.newest))).await;
        let (update, _) = self.peer.update(self.newest.state, &[STEP.0]);
        let seq = update.seq;
        stream.say(&ChannelMessage::Update(update)).await;
        stream.acknowledged(seq).await;
    }
}

fn make_private(directory: &Path) {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(directory, 0o700);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_private(&path);
        } else {
            mode(&path, 0o600);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_acknowledged_survives_a_power_cut() {
    if let Some(why) = strace_missing() {
        println!("skipped: {why}");
        return;
    }
    let (steps, cuts) = rounds((30, 20), (400, 200));
    let begun = Instant::now();
    let mut life = Life::record(steps).await;
    let seed = std::env::var("FLASH_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = Random(seed);
    let recorded = std::mem::take(&mut life.recorded);
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.below(recorded.len() + 1)).collect();
    moments.sort_unstable();
    let (mut played, mut told) = (0, 0);
    for moment in moments {
        recorded[played..moment].iter().for_each(|event| life.disk.play(event));
        played = moment;
        let unsynced = match random.below(5) {
            0 | 1 => Unsynced::Lost,
            2 | 3 => Unsynced::Random,
            _ => Unsynced::Kept,
        };
        let case = format!("FLASH_SEED={seed}, cut at {moment} of {}, {unsynced:?}", recorded.len());
        println!("{case}");
        life.start_after_cut(unsynced, &mut random).await;
        life.check(&case).await;
        told += life.disk.acknowledged;
    }
    println!(
        "power cuts (daemon): {{\"seed\":{seed},\"cuts\":{cuts},\"acknowledged\":{told},\"lost\":0,\"seconds\":{:.1}}}",
        begun.elapsed().as_secs_f64()
    );
    life.net.assert_supply().await;
}
