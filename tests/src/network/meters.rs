//! Two light daemons with a channel between them, who pay each other all the time.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use flash_node_client::quic::PeerAddress;
use flash_proto::{Address, Amount, ChannelId};
use flashd::{
    api::{ErrorCode, NodeStatus, PayRequest},
    client::Client,
};
use tokio::task::JoinHandle;

use super::machines::Machines;
use crate::{Daemon, Random, poll, until};

/// What each locks.
const DEPOSIT: u64 = 20_000_000;
/// What each has at first.
pub(super) const MONEY: u64 = 30_000_000;
/// Milestones of the contest window. Half of it is how long payments go on with no node in reach.
const WINDOW: u32 = 120;

/// Both daemons.
#[derive(Debug)]
pub(super) struct Meters {
    daemons: [Daemon; 2],
    channel: Option<ChannelId>,
    /// What each has paid and the other acknowledged.
    paid: [Arc<AtomicU64>; 2],
    stop: Arc<AtomicBool>,
    paying: Vec<JoinHandle<Result<(), String>>>,
}

impl Meters {
    /// Two daemons that follow these nodes.
    pub(super) async fn start(dir: &Path, machines: &Machines, nodes: &[PeerAddress]) -> Self {
        let mut daemons = Vec::new();
        for name in ["car", "charger"] {
            let daemon = Daemon::init_at(dir.join(name), &machines.network, &[]).await;
            let mut daemon = daemon.following(nodes);
            daemon.start().await;
            daemons.push(daemon);
        }
        let daemons = daemons.try_into().expect("two daemons");
        Self { daemons, channel: None, paid: Default::default(), stop: Arc::default(), paying: Vec::new() }
    }

    /// An address of each for money from outside.
    pub(super) async fn addresses(&self) -> Vec<Address> {
        let [car, charger] = &self.daemons;
        let address =
            async |daemon: &Daemon| daemon.client().new_address().await.expect("an address").address;
        vec![address(car).await, address(charger).await]
    }

    /// Opens the channel and pays from then on.
    pub(super) async fn open_and_pay(&mut self, mut random: Random) {
        for daemon in &self.daemons {
            until("a daemon to see its money", async || {
                let balance = daemon.client().balance().await;
                balance.is_ok_and(|balance| balance.available >= Amount::new(MONEY))
            })
            .await;
        }
        let [car, charger] = &self.daemons;
        let channel = car.open(charger, DEPOSIT, DEPOSIT, WINDOW).await;
        self.channel = Some(channel);
        for (daemon, paid) in self.daemons.iter().zip(&self.paid) {
            let (client, paid, stop) = (daemon.client().clone(), Arc::clone(paid), Arc::clone(&self.stop));
            self.paying.push(tokio::spawn(pay_on(client, channel, paid, stop, random.split())));
        }
    }

    /// The sum of all that was paid and acknowledged, both ways.
    pub(super) fn so_far(&self) -> u64 {
        self.paid.iter().map(|paid| paid.load(Ordering::Relaxed)).sum()
    }

    /// Whether both daemons have caught this node lying.
    pub(super) async fn have_caught(&self, liar: &PeerAddress) -> bool {
        for daemon in &self.daemons {
            let info = poll("a daemon's info", async || daemon.client().info().await.ok()).await;
            let caught = |node: &NodeStatus| node.node == liar.to_string() && node.state == "lying";
            if !info.ledger.nodes.iter().any(caught) {
                return false;
            }
        }
        true
    }

    /// Closes the channel together; what is wrong with what the ledger paid, and what was paid.
    pub(super) async fn close(&mut self) -> (Vec<String>, [u64; 2]) {
        self.stop.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for paying in self.paying.drain(..) {
            if let Err(error) = paying.await.expect("a payer ends") {
                wrong.push(error);
            }
        }
        let Some(channel) = self.channel else { return (wrong, [0, 0]) };
        let [there, back] = [0, 1].map(|side| self.paid[side].load(Ordering::Relaxed));
        let [car, _] = &self.daemons;
        let closed = car.close(channel).await;
        let owned = [DEPOSIT + back - there, DEPOSIT + there - back].map(|amount| Some(Amount::new(amount)));
        if [closed.payout, closed.peer_payout] != owned {
            wrong.push(format!(
                "the channel paid {:?} and {:?}, not {owned:?}",
                closed.payout, closed.peer_payout
            ));
        }
        for (daemon, payout) in self.daemons.iter().zip(owned) {
            let left = Amount::new(MONEY - DEPOSIT).checked_add(payout.unwrap_or_default());
            until("a daemon to see its payout", async || {
                daemon.client().balance().await.is_ok_and(|balance| Some(balance.available) == left)
            })
            .await;
            daemon.assert_nothing_forgotten().await;
        }
        (wrong, [there, back])
    }
}

/// Pays small amounts, each under a key of its own until it is acknowledged.
async fn pay_on(
    client: Client,
    channel: ChannelId,
    paid: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    mut random: Random,
) -> Result<(), String> {
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let amount = random.between(1, 200);
        let request =
            PayRequest { amount: Amount::new(amount), reference: None, key: Some(count.to_string()) };
        loop {
            match client.pay(channel, &request).await {
                Ok(_) => break,
                Err(error) if error.code == ErrorCode::InsufficientBalance => return Err(error.to_string()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        paid.fetch_add(amount, Ordering::Relaxed);
        count += 1;
        tokio::time::sleep(Duration::from_millis(random.between(10, 60))).await;
    }
    Ok(())
}
