//! What lies between the machines: a relay for datagrams that loses, delays and cuts off by a seed.
//!
//! Each node has a door, the only address that others know of it. Whatever comes to a door goes on from a socket
//! that stands for its sender, so that answers find the way back through the same door.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, sync::mpsc, time::Instant};

use crate::Random;

/// Datagrams on their way in one direction between two machines; more are lost.
const ON_THE_WAY_MAX: usize = 4_096;
/// Bytes of the longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Who is at an end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A node, by its number.
    Node(usize),
    /// The light daemons.
    Meters,
}

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storm {
    /// Datagrams of a thousand that are lost.
    pub(super) loss_per_mille: u64,
    /// Every datagram takes so long,
    pub(super) delay: Duration,
    /// and up to so much longer; none overtakes another on the same way.
    pub(super) jitter: Duration,
}

impl Storm {
    /// Nothing between them but the relay.
    pub(super) const NONE: Self = Self { loss_per_mille: 0, delay: Duration::ZERO, jitter: Duration::ZERO };
    /// What is usual.
    pub(super) const MILD: Self =
        Self { loss_per_mille: 5, delay: Duration::from_millis(5), jitter: Duration::from_millis(10) };
    /// What is unusual.
    pub(super) const HEAVY: Self =
        Self { loss_per_mille: 50, delay: Duration::from_millis(60), jitter: Duration::from_millis(80) };
}

/// The relay. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: IpAddr,
    now: Mutex<Now>,
    random: Mutex<Random>,
    passed: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Now {
    storm: Storm,
    /// The nodes' own addresses.
    nodes: HashMap<SocketAddr, usize>,
    /// Nodes that are cut off from all others.
    island: Vec<usize>,
    /// Whether the light daemons reach no node.
    meters_cut: bool,
}

impl Now {
    fn cut(&self, from: Place, to: Place) -> bool {
        match (from, to) {
            (Place::Node(one), Place::Node(other)) => {
                self.island.contains(&one) != self.island.contains(&other)
            }
            _ => self.meters_cut,
        }
    }
}

/// One direction between two machines.
#[derive(Clone, Debug)]
struct Way {
    from: Place,
    to: Place,
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Weather {
    /// A relay with doors at the address `host`, which chooses by `random`.
    pub(super) fn new(host: IpAddr, random: Random) -> Self {
        let now = Now { storm: Storm::MILD, nodes: HashMap::new(), island: Vec::new(), meters_cut: false };
        let (passed, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            shared: Arc::new(Shared { host, now: Mutex::new(now), random: Mutex::new(random), passed, lost }),
        }
    }

    /// A door to a node that listens at `own`: for the other nodes.
    pub(super) async fn door(&self, node: usize, own: SocketAddr) -> SocketAddr {
        self.shared.now().nodes.insert(own, node);
        self.open(node, own, None).await
    }

    /// A door to a node that listens at `own`: for the light daemons.
    pub(super) async fn door_for_meters(&self, node: usize, own: SocketAddr) -> SocketAddr {
        self.open(node, own, Some(Place::Meters)).await
    }

    async fn open(&self, node: usize, own: SocketAddr, from: Option<Place>) -> SocketAddr {
        let socket = UdpSocket::bind((self.shared.host, 0)).await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        tokio::spawn(keep_door(Arc::clone(&self.shared), Arc::new(socket), Place::Node(node), own, from));
        address
    }

    /// Changes the weather.
    pub(super) fn set(&self, storm: Storm) {
        self.shared.now().storm = storm;
    }

    /// Cuts these nodes off from all others; none to join all again.
    pub(super) fn cut_off(&self, island: Vec<usize>) {
        self.shared.now().island = island;
    }

    /// Cuts the light daemons off from all nodes, or joins them again.
    pub(super) fn cut_meters(&self, cut: bool) {
        self.shared.now().meters_cut = cut;
    }

    /// Datagrams that passed, and that were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.passed.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a datagram on its way, or loses it.
    fn take(&self, way: &Way, datagram: &[u8]) {
        let (cut, storm) = {
            let now = self.now();
            (now.cut(way.from, way.to), now.storm)
        };
        let (draw, jitter) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            let jitter_us = u64::try_from(storm.jitter.as_micros()).unwrap_or(u64::MAX);
            (random.between(0, 999), Duration::from_micros(random.between(0, jitter_us)))
        };
        let lost = cut || draw < storm.loss_per_mille;
        let due = Instant::now() + storm.delay + jitter;
        if lost || way.queue.try_send((due, datagram.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A way from one place to another, which ends at `socket` sending to `target`.
fn way(from: Place, to: Place, socket: Arc<UdpSocket>, target: SocketAddr) -> Way {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    tokio::spawn(async move {
        while let Some((due, datagram)) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            // Nobody there is what happens when a machine is killed.
            let _ = socket.send_to(&datagram, target).await;
        }
    });
    Way { from, to, queue }
}

async fn keep_door(
    shared: Arc<Shared>,
    door: Arc<UdpSocket>,
    to: Place,
    own: SocketAddr,
    from: Option<Place>,
) {
    let mut ways: HashMap<SocketAddr, Way> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, sender)) = door.recv_from(&mut buffer).await else { continue };
        if let Entry::Vacant(new) = ways.entry(sender) {
            let known = from.or_else(|| shared.now().nodes.get(&sender).copied().map(Place::Node));
            // Only nodes and those who were told of this door come here.
            let Some(from) = known else { continue };
            let socket = UdpSocket::bind((shared.host, 0)).await.expect("a socket");
            let socket = Arc::new(socket);
            new.insert(way(from, to, Arc::clone(&socket), own));
            let back = way(to, from, Arc::clone(&door), sender);
            tokio::spawn(bring_back(Arc::clone(&shared), socket, back));
        }
        if let (Some(way), Some(datagram)) = (ways.get(&sender), buffer.get(..length)) {
            shared.take(way, datagram);
        }
    }
}

async fn bring_back(shared: Arc<Shared>, socket: Arc<UdpSocket>, back: Way) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(datagram) = buffer.get(..length) {
            shared.take(&back, datagram);
        }
    }
}
