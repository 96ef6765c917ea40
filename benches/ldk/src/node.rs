//! One node: a channel manager with what it needs.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use lightning::{
    bitcoin::{
        Network, Transaction,
        blockdata::constants::genesis_block,
        secp256k1::{self, PublicKey, Secp256k1},
    },
    blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs},
    chain::{
        BestBlock, ChannelMonitorUpdateStatus, Filter,
        chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    ln::{
        channel_state::ChannelDetails,
        channelmanager::{ChainParameters, ChannelManager},
    },
    onion_message::messenger::NullMessageRouter,
    routing::router::{InFlightHtlcs, Route, RouteParameters, Router},
    sign::{InMemorySigner, KeysManager, NodeSigner},
    util::{
        config::{MaxDustHTLCExposure, UserConfig},
        logger::{Logger, Record},
        persist::{MonitorName, MonitorUpdatingPersister},
    },
};
use lightning_persister::fs_store::FilesystemStore;

pub const NETWORK: Network = Network::Regtest;
/// Satoshis for a thousand units of weight: the least.
const FEE: u32 = 253;
/// Updates of a monitor that are written before it is written as a whole.
const UPDATES_MAX: u64 = 100;

type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Quiet>,
    Arc<dyn Persist<InMemorySigner> + Send + Sync>,
    Arc<KeysManager>,
>;

/// The part that pays.
pub type Manager = ChannelManager<
    Arc<Monitor>,
    Arc<Broadcaster>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Fees>,
    Arc<NoRouter>,
    Arc<NullMessageRouter>,
    Arc<Quiet>,
>;

/// Where the state of channels is kept.
#[derive(Clone, Copy)]
pub enum Kept {
    InMemory,
    InFiles,
}

/// Makes a node with the keys of this seed.
pub fn node(seed: u8, kept: Kept, dir: &Path) -> (Manager, PublicKey) {
    let (logger, fees, broadcaster) = (Arc::new(Quiet), Arc::new(Fees), Arc::new(Broadcaster::default()));
    let keys = Arc::new(KeysManager::new(&[seed; 32], 42, 42, true));
    let persister: Arc<dyn Persist<InMemorySigner> + Send + Sync> = match kept {
        Kept::InMemory => Arc::new(Nowhere),
        Kept::InFiles => Arc::new(MonitorUpdatingPersister::new(
            Arc::new(FilesystemStore::new(dir.join(seed.to_string()))),
            Arc::clone(&logger),
            UPDATES_MAX,
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&broadcaster),
            Arc::clone(&fees),
        )),
    };
    let monitor = Arc::new(ChainMonitor::new(
        None,
        Arc::clone(&broadcaster),
        Arc::clone(&logger),
        Arc::clone(&fees),
        persister,
        Arc::clone(&keys),
        keys.get_peer_storage_key(),
    ));
    let mut config = UserConfig::default();
    // Many small payments may be on their way.
    config.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FeeRateMultiplier(20_000);
    config.channel_handshake_config.minimum_depth = 1;
    let genesis = genesis_block(NETWORK);
    let chain = ChainParameters { network: NETWORK, best_block: BestBlock::from_network(NETWORK) };
    let manager = ChannelManager::new(
        fees,
        monitor,
        broadcaster,
        Arc::new(NoRouter),
        Arc::new(NullMessageRouter {}),
        logger,
        Arc::clone(&keys),
        Arc::clone(&keys),
        keys,
        config,
        chain,
        genesis.header.time,
    );
    let id = manager.get_our_node_id();
    (manager, id)
}

/// Keeps nothing.
struct Nowhere;

impl Persist<InMemorySigner> for Nowhere {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// Says nothing.
pub struct Quiet;

impl Logger for Quiet {
    fn log(&self, _: Record) {}
}

/// A fee that never changes.
pub struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        FEE
    }
}

/// Keeps what would go out.
#[derive(Default)]
pub struct Broadcaster(Mutex<Vec<Transaction>>);

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        let mut kept = self.0.lock().expect("nobody panics");
        kept.extend(transactions.iter().map(|transaction| (*transaction).clone()));
    }
}

/// Routes are given with each payment.
pub struct NoRouter;

impl Router for NoRouter {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("none is searched")
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}
