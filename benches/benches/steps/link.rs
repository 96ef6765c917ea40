//! Frames over QUIC on loopback.

use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use flash_node_client::quic::{
    Endpoint, PEER_ALPN, StreamLimits,
    frames::{FrameReader, FrameWriter},
};
use flash_proto::{SecretKey, limits::PEER_FRAME_BYTES_MAX};
use tokio::runtime::Runtime;

pub(crate) fn all(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (mut writer, mut reader) = runtime.block_on(echo());
    let mut group = criterion.benchmark_group("link");
    for count in [1_u64, 1_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("frames of 100 bytes there and back", count), |bench| {
            bench.iter(|| runtime.block_on(there_and_back(&mut writer, &mut reader, count)));
        });
    }
    group.finish();
}

async fn there_and_back(writer: &mut FrameWriter, reader: &mut FrameReader, count: u64) {
    for _ in 0..count {
        writer.push_bytes(&[0x5a; 100]).expect("a frame");
    }
    writer.flush().await.expect("a stream");
    for _ in 0..count {
        reader.next().await.expect("a stream").expect("a frame");
    }
}

/// A stream to an endpoint that says everything again.
async fn echo() -> (FrameWriter, FrameReader) {
    let limits = StreamLimits { bidirectional: 8 };
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let key = SecretKey::from_bytes([1; 32]);
    let server = Endpoint::listen(&key, PEER_ALPN, address, limits).expect("an endpoint");
    let dialler = Endpoint::dialler(&SecretKey::from_bytes([2; 32]), PEER_ALPN, address, limits);
    let dialler = dialler.expect("an endpoint");
    let listening = server.local_address().expect("an address");
    tokio::spawn(async move {
        let connection = server.accept().await.expect("a connection").await.expect("a connection");
        let (send, receive) = connection.accept_bi().await.expect("a stream");
        let mut writer = FrameWriter::new(send, PEER_FRAME_BYTES_MAX);
        let mut reader = FrameReader::new(receive, PEER_FRAME_BYTES_MAX);
        while let Ok(Some(frame)) = reader.next().await {
            writer.push_bytes(&frame).expect("it was a frame");
            while let Ok(Some(frame)) = reader.take_frame() {
                writer.push_bytes(&frame).expect("it was a frame");
            }
            if writer.flush().await.is_err() {
                return;
            }
        }
    });
    let connection = dialler.connect(listening, key.public()).await.expect("a connection");
    let (send, receive) = connection.open_bi().await.expect("a stream");
    // Both live as long as the benchmark.
    std::mem::forget((dialler, connection));
    (FrameWriter::new(send, PEER_FRAME_BYTES_MAX), FrameReader::new(receive, PEER_FRAME_BYTES_MAX))
}
