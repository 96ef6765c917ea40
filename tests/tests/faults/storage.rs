//! What a disk does to a daemon: delays it or stops it, but never makes it say what is not so.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Flow, Net, Process, Random, Tampering, copy, poll, rounds, strace_missing};
use flashd::api::{PayRequest, PayResult};

const DEPOSIT: u64 = 100_000_000;

struct Scene {
    net: Net,
    car: Daemon,
    charger: Daemon,
    channel: ChannelId,
}

impl Scene {
    async fn set() -> Self {
        let net = Net::start().await;
        let money = Amount::new(2 * DEPOSIT);
        let (car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
        let channel = car.open(&charger, DEPOSIT, DEPOSIT, 400).await;
        Self { net, car, charger, channel }
    }

    /// A payment under a key, as a call that goes on by itself.
    fn paying(&self, request: PayRequest) -> tokio::task::JoinHandle<bool> {
        let (car, channel) = (self.car.client().clone(), self.channel);
        tokio::spawn(async move { car.pay(channel, &request).await.is_ok() })
    }

    /// Asks until the payment is acknowledged.
    async fn paid(&self, request: &PayRequest) -> PayResult {
        poll("the payment to be acknowledged", || async {
            self.car.client().pay(self.channel, request).await.ok()
        })
        .await
    }

    async fn end(self) {
        self.car.agree(&self.charger, self.channel).await;
        for daemon in [&self.car, &self.charger] {
            daemon.assert_nothing_forgotten().await;
        }
        let balance = self.car.channel(self.channel).await.balance;
        assert_eq!(self.car.close(self.channel).await.payout, balance);
        self.net.assert_supply().await;
    }
}

/// Whether this machine cannot do it; then it says so.
fn skipped() -> bool {
    let missing = strace_missing();
    if let Some(why) = &missing {
        println!("skipped: {why}");
    }
    missing.is_some()
}

async fn dead(process: &mut Process) {
    poll("the daemon to be killed", || std::future::ready(process.ended().map(drop))).await;
}

/// The boundaries of one commit: before its bytes are handed to the system, before they are on the disk, and
/// after that, when nothing has left yet.
const BOUNDARIES: [(&str, &str); 3] = [
    ("pwrite64", "signal=KILL:when=1"),
    ("fdatasync", "signal=KILL:when=1"),
    ("fdatasync", "delay_exit=5000000:when=1"),
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Payer,
    Payee,
    /// The payer dies as soon as the payee has.
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_boundary_of_a_commit_an_update_is_made_once() {
    if skipped() {
        return;
    }
    let mut scene = Scene::set().await;
    let mut paid = 0;
    for (calls, how) in BOUNDARIES {
        for victim in [Victim::Payer, Victim::Payee, Victim::Both] {
            paid += 1;
            let request = PayRequest {
                amount: Amount::new(1_000 + paid),
                reference: None,
                key: Some(format!("{calls} {how} {victim:?}")),
            };
            let daemon = match victim {
                Victim::Payer => &mut scene.car,
                Victim::Payee | Victim::Both => &mut scene.charger,
            };
            let data = daemon.data().to_owned();
            let tampering = Tampering::with(daemon.process(), calls, how, &data).await;
            let paying = scene.paying(request.clone());
            let daemon = match victim {
                Victim::Payer => &mut scene.car,
                Victim::Payee | Victim::Both => &mut scene.charger,
            };
            if how.starts_with("signal") {
                dead(daemon.process()).await;
            } else {
                // The sync has been begun and takes a moment; the thread is held back for far longer.
                poll("the sync", || std::future::ready((!tampering.calls().is_empty()).then_some(()))).await;
                daemon.kill();
            }
            drop(tampering);
            if matches!(victim, Victim::Both) {
                scene.car.kill();
                tokio::join!(scene.car.start(), scene.charger.start());
            } else {
                daemon.start().await;
            }
            let told = paying.await.expect("the call ends");
            let before = scene.charger.channel(scene.channel).await.received.payments;
            assert!(!told || before == paid, "I4: an acknowledged payment, {victim:?} at {calls}");
            assert_eq!(scene.paid(&request).await.number, paid, "{victim:?} at {calls}");
            let received = scene.charger.channel(scene.channel).await.received;
            assert_eq!(received.payments, paid, "once: {victim:?} at {calls}");
        }
    }
    scene.end().await;
}

/// The system may forget what it could not write: a sync that is tried again may succeed and be worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_once_stops_the_daemon_which_never_tries_again() {
    if skipped() {
        return;
    }
    let mut scene = Scene::set().await;
    for stops in ["car", "charger"] {
        scene.car.agree(&scene.charger, scene.channel).await;
        let before = scene.charger.channel(scene.channel).await.received.payments;
        let daemon = if stops == "car" { &mut scene.car } else { &mut scene.charger };
        let data = daemon.data().to_owned();
        let tampering = Tampering::with(daemon.process(), "fdatasync", "error=EIO:when=1", &data).await;
        let request = PayRequest {
            amount: Amount::new(77),
            reference: None,
            key: Some(format!("while the disk of the {stops} fails")),
        };
        let paying = scene.paying(request.clone());
        let daemon = if stops == "car" { &mut scene.car } else { &mut scene.charger };
        let ended = daemon.process().wait().await;
        assert_eq!(ended.code, Some(5), "{}", ended.output);
        assert!(ended.output.contains("Input/output error"), "{}", ended.output);
        let syncs: Vec<_> =
            tampering.calls().into_iter().filter(|call| call.contains("store/journal")).collect();
        assert!(syncs.len() <= 1, "{syncs:?}");
        drop(tampering);
        if stops == "car" {
            // Nothing that was not on the disk has left.
            let received = scene.charger.channel(scene.channel).await.received;
            assert_eq!(received.payments, before, "I10");
            scene.car.start().await;
        } else {
            scene.charger.start().await;
        }
        let told = paying.await.expect("the call ends");
        assert!(stops == "charger" || !told, "I10: nobody was told that it is paid");
        scene.paid(&request).await;
        let received = scene.charger.channel(scene.channel).await.received;
        assert_eq!(received.payments, before + 1);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_keeps_the_order_and_starves_nobody() {
    const SYNC_MS: u64 = 100;
    if skipped() {
        return;
    }
    let mut scene = Scene::set().await;
    let van = scene.net.daemon("van", Amount::new(DEPOSIT)).await;
    let second = van.open(&scene.charger, DEPOSIT / 2, 0, 400).await;
    let data = scene.charger.data().to_owned();
    let how = format!("delay_enter={}", SYNC_MS * 1_000);
    let tampering = Tampering::with(scene.charger.process(), "fdatasync", &how, &data).await;
    let before = scene.charger.process().resident_bytes();

    let (car, channel) = (scene.car.client().clone(), scene.channel);
    let count = rounds(20_000, 1_000_000);
    // The flow fails the test itself unless all are acknowledged, in order.
    let flow = Flow { count, amount_max: 10 };
    let flood = tokio::spawn(async move { flow.pay(&car, channel, Random::seeded(6)).await });
    scene.charger.wait(channel, "being paid", |info| info.received.payments > 0).await;
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..5 {
        let asked = Instant::now();
        van.pay(second, 10).await.expect("the second channel is in use");
        slowest = slowest.max(asked.elapsed());
    }
    println!("beside the flood a payment took up to {slowest:?}, a sync {SYNC_MS} ms");
    // Its own commit, the one before it, and what the machine is busy with besides.
    assert!(slowest.as_millis() < u128::from(20 * SYNC_MS), "{slowest:?}");
    assert_eq!(flood.await.expect("the flood ends").payments, count);
    let grown = scene.charger.process().resident_bytes().saturating_sub(before);
    println!("the memory grew by {} KiB", grown / 1024);
    assert!(grown < 64 << 20, "I12: {grown}");
    assert!(tampering.calls().len() > 10, "it was slow");
    drop(tampering);
    van.close(second).await;
    scene.end().await;
}

/// Puts a copy in the place of a directory.
fn replace(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A flipped bit in the files of a store that was closed: wherever it is, it is found, or it is where nothing is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_the_disk_never_becomes_another_number() {
    let mut random = Random::new();
    let mut scene = Scene::set().await;
    for amount in 1..=20 {
        scene.car.pay(scene.channel, amount).await.expect("it is in use");
        scene.charger.pay(scene.channel, amount).await.expect("it is in use");
    }
    let before = scene.charger.channel(scene.channel).await;
    assert_eq!(scene.charger.stop().await.code, Some(0));
    let store = scene.charger.data().join("store");
    let kept = scene.charger.data().with_extension("kept");
    copy(&store, &kept);
    let mut used = Vec::new();
    for file in files(&store) {
        let bytes = fs::read(&file).expect("one of the store's files");
        used.extend((0..bytes.len()).filter(|at| bytes[*at] != 0).map(|at| (file.clone(), at)));
    }
    let mut found = 0;
    for _ in 0..rounds(10, 300) {
        let (file, at) = &used[usize::try_from(random.between(0, used.len() as u64 - 1)).unwrap()];
        replace(&kept, &store);
        let mut bad = fs::read(file).unwrap();
        bad[*at] ^= 1 << random.between(0, 7);
        fs::write(file, bad).unwrap();
        let at = format!("{at} of {}", file.display());
        let command = scene.charger.command();
        scene.charger.spawn(command);
        let started = poll("the daemon to start or to refuse", || {
            let ended = scene.charger.process().ended();
            let ready = flashd::client::Ready::read(scene.charger.data()).is_ok();
            std::future::ready(if ended.is_some() { Some(false) } else { ready.then_some(true) })
        })
        .await;
        if started {
            scene.charger.ready().await;
            let after = scene.charger.channel(scene.channel).await;
            let numbers = |info: &flashd::api::ChannelInfo| (info.sent.cumulative, info.received.cumulative);
            assert_eq!(numbers(&after), numbers(&before), "I13: a bit at {at}");
            scene.charger.kill();
        } else {
            let ended = scene.charger.process().wait().await;
            assert!(matches!(ended.code, Some(4 | 5)), "a bit at {at}: {:?}: {}", ended.code, ended.output);
            assert!(ended.output.contains("error: "), "a bit at {at}: {}", ended.output);
            found += 1;
        }
        let _ = fs::remove_file(scene.charger.data().join("ready.json"));
    }
    println!("{found} were found at the start");
    replace(&kept, &store);
    scene.charger.start().await;
    // It is a copy, but the newest.
    scene.charger.client().trust(scene.channel).await.expect("it is in doubt");
    scene.end().await;
}
