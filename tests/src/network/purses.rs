//! Four wallets that pay each other all the time, sometimes the same money twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flash_node_client::{
    client::NodeClient,
    wallet::{Seed, Wallet, new_words},
};
use flash_proto::{Address, Amount, Essence, NetworkParams, Output, OutputId, Transaction};
use tokio::task::JoinHandle;

use super::book::Book;
use crate::Random;

/// The largest payment.
const AMOUNT_MAX: u64 = 2_000_000;
/// Pause between two payments of one wallet, in milliseconds.
const PAUSE_MS: (u64, u64) = (200, 1_000);
/// Of a hundred payments, so many are made twice.
const DOUBLE_PERCENT: u64 = 15;
/// Of a hundred payments, so many are put into several blocks.
const AGAIN_PERCENT: u64 = 30;

/// All wallets, and whom they reach.
#[derive(Clone, Debug)]
pub(super) struct Purses {
    all: Vec<Arc<Purse>>,
    /// One client for each node.
    nodes: Vec<NodeClient>,
    params: Arc<NetworkParams>,
    book: Book,
    stop: Arc<AtomicBool>,
}

/// One wallet.
#[derive(Debug)]
struct Purse {
    wallet: Mutex<Wallet>,
    /// Follows some of the nodes.
    client: NodeClient,
}

impl Purse {
    /// Never held across an await.
    fn wallet(&self) -> MutexGuard<'_, Wallet> {
        self.wallet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_address(&self) -> Address {
        self.wallet().fresh_address().expect("an address")
    }

    /// Looks at the ledger; whether it could.
    async fn refresh(&self) -> bool {
        let due = self.wallet().due();
        let Ok(proven) = self.client.outputs_of(&due).await else { return false };
        self.wallet().observe(proven.milestone_index, &due, proven.value);
        true
    }
}

impl Purses {
    /// Wallets that are empty, each with its client.
    pub(super) fn new(
        clients: Vec<NodeClient>,
        nodes: Vec<NodeClient>,
        params: &Arc<NetworkParams>,
        book: &Book,
    ) -> Self {
        let purse = |client| {
            let seed = Seed::from_words(&new_words().expect("words"), "").expect("a seed");
            Arc::new(Purse { wallet: Mutex::new(Wallet::new(seed)), client })
        };
        let all = clients.into_iter().map(purse).collect();
        Self { all, nodes, params: Arc::clone(params), book: book.clone(), stop: Arc::default() }
    }

    /// Fresh addresses for money from outside: so many of each wallet.
    pub(super) fn addresses(&self, each: usize) -> Vec<Address> {
        self.all.iter().flat_map(|purse| (0..each).map(|_| purse.fresh_address())).collect()
    }

    /// Pays until [`Purses::stop`].
    pub(super) fn start(&self, mut random: Random) -> Vec<JoinHandle<()>> {
        let payer = |place| tokio::spawn(self.clone().pay_on(place, random.split()));
        (0..self.all.len()).map(payer).collect()
    }

    /// No more payments.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    async fn pay_on(self, place: usize, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let purse = &self.all[place];
            if purse.refresh().await {
                self.pay(purse, &mut random);
            }
            tokio::time::sleep(Duration::from_millis(random.between(PAUSE_MS.0, PAUSE_MS.1))).await;
        }
    }

    fn pay(&self, purse: &Purse, random: &mut Random) {
        let (to, amount) = (self.somebody(random), random.between(2_000, AMOUNT_MAX));
        let other = self.somebody(random);
        let mut wallet = purse.wallet();
        // With too little that is not under way already, there is nothing to do this time.
        let Ok((transaction, reservation)) = wallet.transfer(to, Amount::new(amount), &self.params) else {
            return;
        };
        if random.between(0, 99) >= DOUBLE_PERCENT {
            drop(wallet);
            if random.between(0, 99) < AGAIN_PERCENT {
                for _ in 0..random.between(1, 3) {
                    let after = Duration::from_millis(random.between(0, 3_000));
                    self.book.attach_again(self.node(random), transaction.clone(), after);
                }
            }
            self.book.issue(&purse.client, transaction, None);
            return;
        }
        let sum = Amount::checked_sum(reservation.funding.iter().map(|funding| funding.output.amount));
        let outputs = vec![Output { address: other, amount: sum.expect("less than the supply") }];
        let essence = Essence { outputs, ..transaction.essence.clone() };
        let unlocks = wallet.unlocks(&essence, &reservation.funding);
        drop(wallet);
        let twin = Transaction { essence, unlocks };
        let ids = (transaction.id(), twin.id());
        self.book.issue(self.node(random), transaction, Some(ids.1));
        self.book.issue(self.node(random), twin, Some(ids.0));
    }

    /// A fresh address of any wallet.
    fn somebody(&self, random: &mut Random) -> Address {
        self.all[pick(random, self.all.len())].fresh_address()
    }

    fn node(&self, random: &mut Random) -> &NodeClient {
        &self.nodes[pick(random, self.nodes.len())]
    }

    /// The outputs of each wallet, as a node shows them with proofs.
    pub(super) async fn shown(&self, client: &NodeClient) -> Result<Vec<BTreeMap<OutputId, Output>>, String> {
        let mut all = Vec::new();
        for purse in &self.all {
            let addresses = purse.wallet().addresses().to_vec();
            let shown = client.outputs_of(&addresses).await.map_err(|error| error.to_string())?;
            all.push(shown.value.into_iter().collect());
        }
        Ok(all)
    }

    /// Every address of the wallets, and whose it is.
    pub(super) fn owners(&self) -> BTreeMap<Address, usize> {
        let all = self.all.iter().enumerate();
        all.flat_map(|(place, purse)| {
            purse.wallet().addresses().to_vec().into_iter().map(move |it| (it, place))
        })
        .collect()
    }

    /// Sees what the wallets themselves believe to own once nothing is under way.
    pub(super) async fn balances(&self) -> Vec<Amount> {
        let mut balances = Vec::new();
        for purse in &self.all {
            purse.refresh().await;
            balances.push(purse.wallet().available());
        }
        balances
    }
}

fn pick(random: &mut Random, length: usize) -> usize {
    let last = u64::try_from(length).expect("a length") - 1;
    usize::try_from(random.between(0, last)).expect("a place")
}
