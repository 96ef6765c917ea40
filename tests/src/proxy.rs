//! A path between two machines on which datagrams are lost, repeated, delayed and reordered, or swallowed, and
//! which changes the address that one machine sees of the other.
//!
//! What the machines say is encrypted, so this is all that a network can do to it, but to send something of its
//! own: see [`Proxy::replay`].

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, task::AbortHandle};

use crate::Random;

/// Longer than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams that are kept to be sent again.
const RECORDED_MAX: usize = 4_096;

/// What happens to datagrams on their way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// So many in a hundred get lost.
    pub lost_percent: u64,
    /// So many in a hundred arrive twice.
    pub repeated_percent: u64,
    /// Each takes up to so many milliseconds, and so overtakes others.
    pub delay_ms_max: u64,
    /// Nothing gets to the machine behind.
    pub swallows_there: bool,
    /// Nothing comes back from it.
    pub swallows_back: bool,
}

impl Weather {
    /// Nothing gets through, either way.
    pub const BLACK_HOLE: Self = Self {
        lost_percent: 0,
        repeated_percent: 0,
        delay_ms_max: 0,
        swallows_there: true,
        swallows_back: true,
    };
}

/// A path to one machine.
#[derive(Debug)]
pub struct Proxy {
    /// Where it begins.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    reading: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    /// Where the path ends.
    to: SocketAddr,
    weather: Mutex<Weather>,
    random: Mutex<Random>,
    /// By the address of who is in front, what the machine behind sees of it.
    backs: Mutex<HashMap<SocketAddr, Back>>,
    recorded: Mutex<Vec<Vec<u8>>>,
    /// Datagrams that begin a connection.
    begun: AtomicU64,
}

#[derive(Debug)]
struct Back {
    socket: Arc<UdpSocket>,
    reading: AbortHandle,
}

impl Drop for Back {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.reading.abort();
        lock(&self.shared.backs).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A path to the machine with this ticket, `KEY@HOST:PORT`, which lets everything through.
    pub async fn to(ticket: &str, random: Random) -> Self {
        let (_, to) = ticket.split_once('@').expect("a ticket is KEY@HOST:PORT");
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = front.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            front,
            to: to.parse().expect("a ticket is KEY@HOST:PORT"),
            weather: Mutex::default(),
            random: Mutex::new(random),
            backs: Mutex::default(),
            recorded: Mutex::default(),
            begun: AtomicU64::new(0),
        });
        let reading = tokio::spawn(read_front(Arc::clone(&shared))).abort_handle();
        Self { address, shared, reading }
    }

    /// The ticket of the machine behind, with this path's beginning as the place.
    pub fn ticket(&self, ticket: &str) -> String {
        let (key, _) = ticket.split_once('@').expect("a ticket is KEY@HOST:PORT");
        format!("{key}@{}", self.address)
    }

    /// Changes what happens to datagrams from now on.
    pub fn set(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// From now on the machine behind sees other addresses, and what it sends to the old ones is lost.
    pub fn change_addresses(&self) {
        lock(&self.shared.backs).clear();
    }

    /// How many datagrams have come that begin a connection.
    pub fn begun(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Sends all that was sent to the machine behind once more, from an address of nobody. Gives back how many
    /// datagrams that were.
    pub async fn replay(&self) -> usize {
        let datagrams = lock(&self.shared.recorded).clone();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        for datagram in &datagrams {
            socket.send_to(datagram, self.shared.to).await.expect("a datagram");
        }
        datagrams.len()
    }
}

async fn read_front(shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is about an earlier datagram, which is as good as lost.
        let Ok((length, from)) = shared.front.recv_from(&mut buffer).await else { continue };
        let datagram = buffer[..length].to_vec();
        // QUIC's first packets: a long header of the type `Initial`, which no protection hides.
        if datagram.first().is_some_and(|byte| byte & 0xf0 == 0xc0) {
            shared.begun.fetch_add(1, Ordering::Relaxed);
        }
        {
            let mut recorded = lock(&shared.recorded);
            if recorded.len() < RECORDED_MAX {
                recorded.push(datagram.clone());
            }
        }
        let Some(back) = shared.back(from).await else { continue };
        if !lock(&shared.weather).swallows_there {
            let send = |datagram: Vec<u8>| {
                let back = Arc::clone(&back);
                async move { back.send(&datagram).await }
            };
            shared.carry(datagram, send).await;
        }
    }
}

async fn read_back(shared: Arc<Shared>, back: Arc<UdpSocket>, to: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // While the machine behind is down the system says so; that is no end of the path.
        let Ok(length) = back.recv(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if !lock(&shared.weather).swallows_back {
            let send = |datagram: Vec<u8>| {
                let shared = Arc::clone(&shared);
                async move { shared.front.send_to(&datagram, to).await }
            };
            shared.carry(buffer[..length].to_vec(), send).await;
        }
    }
}

impl Shared {
    async fn back(self: &Arc<Self>, from: SocketAddr) -> Option<Arc<UdpSocket>> {
        if let Some(back) = lock(&self.backs).get(&from) {
            return Some(Arc::clone(&back.socket));
        }
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.ok()?);
        socket.connect(self.to).await.ok()?;
        let reading = tokio::spawn(read_back(Arc::clone(self), Arc::clone(&socket), from)).abort_handle();
        lock(&self.backs).insert(from, Back { socket: Arc::clone(&socket), reading });
        Some(socket)
    }

    /// Lets the weather have its way with one datagram. What is not delayed keeps its place.
    async fn carry<F: Future<Output = std::io::Result<usize>> + Send + 'static>(
        &self,
        datagram: Vec<u8>,
        send: impl Fn(Vec<u8>) -> F,
    ) {
        for delay in self.delays() {
            let sending = send(datagram.clone());
            if delay.is_zero() {
                // What cannot be sent is lost.
                let _ = sending.await;
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = sending.await;
                });
            }
        }
    }

    /// How long each copy of a datagram takes; there is none of one that gets lost.
    fn delays(&self) -> Vec<Duration> {
        let weather = *lock(&self.weather);
        let mut random = lock(&self.random);
        let copies = if random.between(0, 99) < weather.lost_percent {
            0
        } else {
            1 + u64::from(random.between(0, 99) < weather.repeated_percent)
        };
        (0..copies).map(|_| Duration::from_millis(random.between(0, weather.delay_ms_max))).collect()
    }
}
