//! Over real sockets on loopback: each end gets to know the other's key, and nothing gets past a wrong one.

use std::net::Ipv4Addr;

use flash_proto::codec::CodecError;

use super::{
    frames::{FrameError, FrameReader, send_message},
    *,
};

const LIMITS: StreamLimits = StreamLimits { bidirectional: 8 };

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn pair() -> (Endpoint, Endpoint, SocketAddr) {
    let server = Endpoint::listen(&key(1), PEER_ALPN, loopback(), LIMITS).unwrap();
    let client = Endpoint::dialler(&key(2), PEER_ALPN, loopback(), LIMITS).unwrap();
    let address = server.local_address().unwrap();
    (server, client, address)
}

async fn accept(server: &Endpoint) -> Result<Connection, quinn::ConnectionError> {
    server.accept().await.unwrap().await
}

/// A stream from client to server whose bytes the test writes itself.
async fn stream() -> (quinn::SendStream, FrameReader<64>, [Connection; 2], [Endpoint; 2]) {
    let (server, client, address) = pair();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
    let (accepted, dialled) = (accepted.unwrap(), dialled.unwrap());
    let (mut send, _receive) = dialled.open_bi().await.unwrap();
    send.write_all(&[]).await.unwrap();
    send.write_all(&4_u32.to_le_bytes()).await.unwrap();
    send.write_all(&7_u32.to_le_bytes()).await.unwrap();
    let (_, receive) = accepted.accept_bi().await.unwrap();
    let mut reader = FrameReader::<64>::new(receive);
    assert_eq!(reader.message::<u32>().await.unwrap(), Some(7));
    (send, reader, [accepted, dialled], [server, client])
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let (server, client, address) = pair();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
    assert_eq!(peer_key(&accepted.unwrap()), Some(key(2).public()));
    assert_eq!(peer_key(&dialled.unwrap()), Some(key(1).public()));
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let (server, client, address) = pair();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(3).public()));
    assert!(matches!(dialled, Err(ConnectError::WrongKey)), "{dialled:?}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (server, _, address) = pair();
    let client = Endpoint::dialler(&key(2), NODE_ALPN, loopback(), LIMITS).unwrap();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
    assert!(matches!(dialled, Err(ConnectError::Failed(_))), "{dialled:?}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn bad_frames_are_refused() {
    for (bytes, finish) in [(0_u32, false), (65, false), (u32::MAX, false)] {
        let (mut send, mut reader, _connections, _endpoints) = stream().await;
        send.write_all(&bytes.to_le_bytes()).await.unwrap();
        assert!(!finish && matches!(reader.next().await, Err(FrameError::Length { .. })), "{bytes}");
    }
    let (mut send, mut reader, _connections, _endpoints) = stream().await;
    send.write_all(&[5, 0, 0, 0, 1, 2]).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(reader.next().await, Err(FrameError::Truncated)));

    let (mut send, mut reader, _connections, _endpoints) = stream().await;
    send_message(&mut send, &(1_u32, 2_u8)).await.unwrap();
    assert!(matches!(reader.message::<u32>().await, Err(FrameError::Codec(CodecError::Trailing(1)))));
    send.finish().unwrap();
    assert!(reader.next().await.unwrap().is_none());
}

#[test]
fn malformed_tickets_are_refused() {
    let key = "ab".repeat(32);
    for text in ["", "x", &key, &format!("{key}@"), &format!("{key}@host"), &format!("{key}@:1"), "ab@host:1"]
    {
        assert!(text.parse::<PeerAddress>().is_err(), "{text}");
    }
    let v6 = format!("{key}@[::1]:99999");
    assert!(v6.parse::<PeerAddress>().is_err());
}
