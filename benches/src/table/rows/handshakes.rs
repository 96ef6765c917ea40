//! Handshakes with one daemon, and what an idle connection takes of it.

use std::{net::SocketAddr, time::Instant};

use flash_node_client::quic::{
    Endpoint, PEER_ALPN, PeerAddress, StreamLimits,
    frames::{FrameReader, FrameWriter},
};
use flash_proto::{
    NetworkId, SecretKey, limits,
    message::{Hello, PROTOCOL_VERSION, StreamStart},
};
use flashd::{bench::footprint::usage::Usage, failure::Failure};
use futures_util::{StreamExt, TryStreamExt, stream};
use quinn::Connection;

use crate::table::{
    Bench, Done,
    line::Line,
    meter::Meter,
    pair::{Pair, Wish},
};

pub(super) const NAME: &str = "handshakes";

/// Handshakes that are under way at once: fewer than what a daemon takes before it asks machines to wait.
const AT_ONCE: usize = 32;
/// Connections that are kept: fewer than what a daemon keeps for machines without a channel.
const IDLE: u32 = 400;

pub(super) async fn run(bench: &Bench) -> Done<Vec<Line>> {
    let sides = Pair::start(bench, Wish { embedded: [false; 2], ..Wish::default() }).await?;
    let [daemon, _] = &sides.daemons;
    let (info, pid) = (daemon.client.info().await?, daemon.pid());
    let pid = pid.ok_or_else(|| Failure::new("the daemon has ended"))?;
    let peer: PeerAddress = info.ticket.parse().map_err(Failure::new)?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let limits = StreamLimits { bidirectional: 8 };
    let socket = Endpoint::dialler(&SecretKey::from_bytes([7; 32]), PEER_ALPN, any, limits);
    let dialler = Dialler { socket: socket.map_err(Failure::new)?, peer, network: info.network };

    bench.progress.say("keeping connections");
    let before = Usage::read(pid, None).await?;
    let kept = dialler.dial(0..IDLE).await?;
    let after = Usage::read(pid, None).await?;
    drop(kept);
    let idle_kb = (f64::from(u32::try_from(after.resident_kib).unwrap_or(u32::MAX))
        - f64::from(u32::try_from(before.resident_kib).unwrap_or(u32::MAX)))
        * 1.024
        / f64::from(IDLE);

    let count = bench.options.handshakes();
    bench.progress.say(format!("{count} handshakes"));
    let meter = Meter::start(&[("daemon", daemon)], None, true).await?;
    let started = Instant::now();
    dialler.greet(IDLE..IDLE.saturating_add(count)).await?;
    let took = started.elapsed();
    let spent = meter.stop().await?;
    sides.stop().await?;
    Ok(vec![
        Line::rate(NAME, "handshakes with one daemon", count.into(), took)
            .at_least(1_500.0)
            .cpu(spent.cpu(count.into()))
            .how("each from another machine's key, with the proof of its address and the greeting; both ends on this machine"),
        Line::measured(NAME, "memory of an idle connection", idle_kb, "kB")
            .at_most(40.0)
            .how(format!("resident memory of the daemon that {IDLE} connections add")),
    ])
}

/// Connects to a daemon as many machines.
struct Dialler {
    socket: Endpoint,
    peer: PeerAddress,
    network: NetworkId,
}

impl Dialler {
    /// Connections of so many machines, which greet.
    async fn dial(&self, machines: std::ops::Range<u32>) -> Done<Vec<Connection>> {
        stream::iter(machines)
            .map(|machine| self.machine(machine))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The same, each of which goes as soon as it is greeted.
    async fn greet(&self, machines: std::ops::Range<u32>) -> Done {
        let machines = stream::iter(machines).map(|machine| self.machine(machine)).buffer_unordered(AT_ONCE);
        machines
            .try_for_each(|connection| {
                connection.close(0_u32.into(), b"");
                std::future::ready(Ok(()))
            })
            .await
    }

    async fn machine(&self, machine: u32) -> Done<Connection> {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&machine.to_le_bytes());
        let own = self.socket.as_key(&SecretKey::from_bytes(key));
        let connection = own.dial(&self.peer).await.map_err(Failure::new)?;
        let (send, receive) = connection.open_bi().await.map_err(Failure::new)?;
        let mut writer = FrameWriter::new(send, limits::PEER_FRAME_BYTES_MAX);
        let mut reader = FrameReader::new(receive, limits::PEER_FRAME_BYTES_MAX);
        let hello = Hello { version: PROTOCOL_VERSION, features: 0, network: self.network };
        writer.send(&StreamStart::Control(hello)).await.map_err(Failure::new)?;
        let greeted = reader.message::<Hello, { limits::PEER_FRAME_BYTES_MAX }>().await;
        if greeted.map_err(Failure::new)?.is_none() {
            return Err(Failure::new("the daemon does not greet"));
        }
        Ok(connection)
    }
}
