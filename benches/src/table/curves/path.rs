//! A path to a daemon on which each datagram takes the same time, in order, and some are lost.
//!
//! Threads instead of tasks: a thread sleeps to the nearest fifty microseconds, a timer of the runtime to the
//! millisecond.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use flashd::failure::Failure;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::table::Done;

/// Longer than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
const SEED: u64 = 11;

/// What the path does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Of each datagram, each way.
    pub(super) delay: Duration,
    pub(super) lost_percent: u8,
}

/// The path; gone with the drop.
pub(super) struct Path {
    ticket: String,
    ended: Arc<AtomicBool>,
}

/// A datagram and when it is due.
type Due = (Instant, Vec<u8>);

impl Drop for Path {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Path {
    /// To the daemon with this ticket.
    pub(super) fn to(ticket: &str, weather: Weather) -> Done<Self> {
        let (key, place) = ticket.split_once('@').ok_or_else(|| Failure::new("not a ticket"))?;
        let place: SocketAddr = place.parse().map_err(Failure::new)?;
        let [front, back] = [socket()?, socket()?];
        back.connect(place).map_err(Failure::new)?;
        let ticket = format!("{key}@{}", front.local_addr().map_err(Failure::new)?);
        let ended = Arc::new(AtomicBool::new(false));
        let caller: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let [front, back] = [Arc::new(front), Arc::new(back)];

        let (there, to_daemon) = mpsc::channel();
        let (known, from) = (Arc::clone(&caller), Arc::clone(&front));
        take(from, Arc::clone(&ended), weather, there, move |from| {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        });
        let out = Arc::clone(&back);
        give(to_daemon, move |datagram| drop(out.send(datagram)));

        let (back_again, to_caller) = mpsc::channel();
        take(back, Arc::clone(&ended), weather, back_again, |_| ());
        give(to_caller, move |datagram| {
            let caller = *caller.lock().unwrap_or_else(PoisonError::into_inner);
            drop(caller.map(|caller| front.send_to(datagram, caller)));
        });
        Ok(Self { ticket, ended })
    }

    /// Where it begins.
    pub(super) fn ticket(&self) -> &str {
        &self.ticket
    }
}

fn socket() -> Done<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(Failure::new)?;
    socket.set_read_timeout(Some(LOOK)).map_err(Failure::new)?;
    Ok(socket)
}

/// Takes what comes, unless it is lost.
fn take(
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    weather: Weather,
    due: mpsc::Sender<Due>,
    came_from: impl Fn(SocketAddr) + Send + 'static,
) {
    thread::spawn(move || {
        let (mut buffer, mut random) = (vec![0; DATAGRAM_BYTES_MAX], StdRng::seed_from_u64(SEED));
        while !ended.load(Ordering::Relaxed) {
            // An error is that nothing came, or is about an earlier datagram.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            came_from(from);
            let lost = random.random_range(0..100) < weather.lost_percent;
            if !lost && due.send((Instant::now() + weather.delay, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Hands on what is due.
fn give(due: mpsc::Receiver<Due>, send: impl Fn(&[u8]) + Send + 'static) {
    thread::spawn(move || {
        for (when, datagram) in due {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            send(&datagram);
        }
    });
}
