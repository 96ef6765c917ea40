//! A full disk stops the daemon before anything leaves that is not written down.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use flash_proto::{Amount, ChannelId};
use flash_tests::{Daemon, Ended, Net};

const DEPOSIT: u64 = 500_000_000;

/// A small disk; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Pays until the daemon has stopped, and gives back what was acknowledged.
async fn pay_until_it_stops(car: &mut Daemon, channel: ChannelId) -> (u64, Ended) {
    let mut acknowledged = 0;
    while car.process().ended().is_none() {
        let paid = tokio::time::timeout(Duration::from_secs(5), car.pay(channel, 1_000)).await;
        if matches!(paid, Ok(Ok(_))) {
            acknowledged += 1_000;
        }
        assert!(acknowledged < DEPOSIT, "the disk is never full");
    }
    (acknowledged, car.process().wait().await)
}

/// After the daemon was started again: what was acknowledged is there, nothing had left that is not, and
/// both pay on and close to the unit.
async fn assert_nothing_lost(net: &Net, car: &Daemon, charger: &Daemon, channel: ChannelId, told: u64) {
    for side in [car, charger] {
        side.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    }
    charger.pay(channel, 7).await.expect("it is in use");
    car.pay(channel, 1).await.expect("it is in use");
    let (here, there) = (car.channel(channel).await, charger.channel(channel).await);
    assert_eq!(here.sent.cumulative, there.received.cumulative, "I8");
    assert_eq!(here.balance, there.peer_balance, "I8");
    assert!(here.sent.cumulative > Amount::new(told), "{told} was acknowledged");
    for daemon in [car, charger] {
        daemon.assert_nothing_forgotten().await;
    }
    let closed = car.close(channel).await;
    assert_eq!((closed.payout, closed.peer_payout), (here.balance, here.peer_balance));
    net.assert_supply().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_daemon_and_with_room_again_it_goes_on() {
    let net = Net::start().await;
    let Some(disk) = Disk::mount(&net.path().join("car")) else {
        println!("skipped: mounting a small disk takes root");
        return;
    };
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 100).await;
    car.pay(channel, 1_000).await.expect("there is room");

    disk.fill();
    let (told, ended) = pay_until_it_stops(&mut car, channel).await;
    assert_eq!(ended.code, Some(5), "{}", ended.output);
    assert!(ended.output.contains("the disk is full; make room"), "{}", ended.output);
    println!("{told} acknowledged on the full disk");

    fs::remove_file(disk.filler()).unwrap();
    car.start().await;
    assert_nothing_lost(&net, &car, &charger, channel, told).await;
    drop(car);
}

/// No root is needed for this one: the system refuses to let any file grow beyond a limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_to_write_stops_the_daemon() {
    let net = Net::start().await;
    let money = Amount::new(2 * DEPOSIT);
    let (mut car, charger) = tokio::join!(net.daemon("car", money), net.daemon("charger", money));
    let channel = car.open(&charger, DEPOSIT, DEPOSIT, 200).await;
    assert_eq!(car.stop().await.code, Some(0));

    let daemon = car.command();
    let mut limited = Command::new("sh");
    // In blocks of 512 bytes. With the signal ignored, the write fails instead.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", (2 << 20) / 512);
    limited.args(["-c", &script, "sh"]).arg(daemon.get_program()).args(daemon.get_args());
    car.spawn(limited);
    car.ready().await;
    car.wait(channel, "in use", |info| info.connected && info.paused.is_none()).await;
    let (told, ended) = pay_until_it_stops(&mut car, channel).await;
    assert_eq!(ended.code, Some(5), "{}", ended.output);
    assert!(ended.output.contains("the disk refused"), "{}", ended.output);
    println!("{told} acknowledged before");

    car.start().await;
    assert_nothing_lost(&net, &car, &charger, channel, told).await;
}
