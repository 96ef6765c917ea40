//! One frame there and back over QUIC, to another process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use flash_node_client::quic::{
    Endpoint, PEER_ALPN, StreamLimits,
    frames::{FrameReader, FrameWriter},
};
use flash_proto::{SecretKey, limits::PEER_FRAME_BYTES_MAX};
use flashd::failure::Failure;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
};

use crate::table::{Bench, Done, worker};

/// Bytes of a frame: those of an update with one payment, about.
const FRAME: [u8; 256] = [0x5a; 256];

/// A link to a process that says everything again.
pub(crate) struct PingPong {
    writer: FrameWriter,
    reader: FrameReader,
    _endpoint: Endpoint,
    _child: Child,
}

impl PingPong {
    pub(crate) async fn start(bench: &Bench) -> Done<Self> {
        let mut child = bench.programs.echo().stdout(Stdio::piped()).spawn().map_err(Failure::new)?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("the echo says nothing"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await.map_err(Failure::new)?;
        let port: u16 = line.trim().parse().map_err(Failure::new)?;
        let limits = StreamLimits { bidirectional: 8 };
        let (key, any) = (SecretKey::from_bytes([2; 32]), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let endpoint = Endpoint::dialler(&key, PEER_ALPN, any, limits).map_err(Failure::new)?;
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connection = endpoint.connect(there, worker::echo_key().public()).await.map_err(Failure::new)?;
        let (send, receive) = connection.open_bi().await.map_err(Failure::new)?;
        Ok(Self {
            writer: FrameWriter::new(send, PEER_FRAME_BYTES_MAX),
            reader: FrameReader::new(receive, PEER_FRAME_BYTES_MAX),
            _endpoint: endpoint,
            _child: child,
        })
    }

    /// How long each of so many frames took.
    pub(crate) async fn exchange(&mut self, count: usize) -> Done<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            self.writer.push_bytes(&FRAME).map_err(Failure::new)?;
            self.writer.flush().await.map_err(Failure::new)?;
            let answer = self.reader.next().await.map_err(Failure::new)?;
            if answer.is_none() {
                return Err(Failure::new("the echo has ended"));
            }
            times.push(started.elapsed());
        }
        Ok(times)
    }
}
