//! Ports that stay a test's own while nothing listens there.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ports that a system gives to sockets which ask for any (Linux: from 32,768, others from 49,152): whoever
/// is to come back at the same port after a kill must not find another test's socket there.
const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;
/// Programs that run at once begin so far from each other.
const STEP: u32 = 101;

/// A port for datagrams at `host` that no other test is given.
pub(crate) fn own_port(host: IpAddr) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = process::id() % COUNT * STEP;
    let mut ports = (0..COUNT).map(|_| {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        u16::try_from(port).expect("below 65,536")
    });
    ports.find(|port| UdpSocket::bind((host, *port)).is_ok()).expect("a free port")
}

/// An address on this machine with such a port, `HOST:PORT`.
pub(crate) fn own_address() -> String {
    let host = Ipv4Addr::LOCALHOST;
    format!("{host}:{}", own_port(host.into()))
}
