//! Over real sockets on loopback: each end gets to know the other's key, and nothing gets past a wrong one.

use std::net::Ipv4Addr;

use flash_proto::codec::CodecError;

use super::{
    frames::{FrameError, FrameReader, FrameWriter},
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
async fn stream() -> (quinn::SendStream, FrameReader, [Connection; 2], [Endpoint; 2]) {
    let (server, client, address) = pair();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
    let (accepted, dialled) = (accepted.unwrap(), dialled.unwrap());
    let (mut send, _receive) = dialled.open_bi().await.unwrap();
    send.write_all(&[]).await.unwrap();
    send.write_all(&4_u32.to_le_bytes()).await.unwrap();
    send.write_all(&7_u32.to_le_bytes()).await.unwrap();
    let (_, receive) = accepted.accept_bi().await.unwrap();
    let mut reader = FrameReader::new(receive, 64);
    assert_eq!(reader.message::<u32, 64>().await.unwrap(), Some(7));
    (send, reader, [accepted, dialled], [server, client])
}

/// Fails if a socket keeps what the system gives it: on Linux that is 208 KiB, with which one datagram in a hundred is lost
/// while both directions of a channel are saturated.
#[test]
fn sockets_have_room_for_what_comes_in_a_burst() {
    let socket = UdpSocket::bind(loopback()).unwrap();
    let socket = SockRef::from(&socket);
    let given = socket.recv_buffer_size().unwrap();
    widen(&socket);
    let now = socket.recv_buffer_size().unwrap();
    assert!(now > given || given >= RECEIVE_BUFFER_BYTES, "{given} bytes, then {now}");
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
async fn one_socket_tells_several_kinds_apart() {
    let accepted = [GOSSIP_ALPN, NODE_ALPN];
    let server = Endpoint::listen_for_all(&key(1), GOSSIP_ALPN, &accepted, loopback(), LIMITS).unwrap();
    let address = server.local_address().unwrap();
    for alpn in [NODE_ALPN, GOSSIP_ALPN] {
        let client = Endpoint::dialler(&key(2), alpn, loopback(), LIMITS).unwrap();
        let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
        assert_eq!(kind(&accepted.unwrap()).as_deref(), Some(alpn));
        assert_eq!(kind(&dialled.unwrap()).as_deref(), Some(alpn));
    }
    let peer = Endpoint::dialler(&key(2), PEER_ALPN, loopback(), LIMITS).unwrap();
    let (accepted, dialled) = tokio::join!(accept(&server), peer.connect(address, key(1).public()));
    assert!(accepted.is_err() && dialled.is_err());
}

/// One more is allowed at a time, and each is taken at once.
#[tokio::test]
async fn streams_that_are_allowed_one_by_one_can_all_be_opened() {
    let (server, client, address) = pair();
    let (accepted, dialled) = tokio::join!(accept(&server), client.connect(address, key(1).public()));
    let (accepted, dialled) = (accepted.unwrap(), dialled.unwrap());
    let mut streams = Vec::new();
    for allowed in LIMITS.bidirectional + 1..300 {
        allow_streams(&accepted, allowed);
        while streams.len() < usize::try_from(allowed).unwrap() {
            let opened = tokio::time::timeout(Duration::from_secs(20), dialled.open_bi()).await;
            streams
                .push(opened.unwrap_or_else(|_| panic!("{} of {allowed} streams", streams.len())).unwrap());
        }
    }
}

#[tokio::test]
async fn bad_frames_are_refused() {
    for length in [65, u32::MAX] {
        let (mut send, mut reader, _connections, _endpoints) = stream().await;
        send.write_all(&length.to_le_bytes()).await.unwrap();
        let refused = reader.next().await;
        assert!(matches!(refused, Err(FrameError::Oversized { max: 64, .. })), "{refused:?}");
    }
    let (mut send, mut reader, _connections, _endpoints) = stream().await;
    send.write_all(&0_u32.to_le_bytes()).await.unwrap();
    assert!(matches!(reader.next().await, Err(FrameError::Empty)));

    let (mut send, mut reader, _connections, _endpoints) = stream().await;
    send.write_all(&[5, 0, 0, 0, 1, 2]).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(reader.next().await, Err(FrameError::Truncated(6))));

    let (send, mut reader, _connections, _endpoints) = stream().await;
    let mut writer = FrameWriter::new(send, 64);
    assert!(matches!(writer.push(&vec![0_u8; 64]), Err(FrameError::Oversized { .. })));
    writer.send(&(1_u32, 2_u8)).await.unwrap();
    assert!(matches!(reader.message::<u32, 64>().await, Err(FrameError::Codec(CodecError::Trailing(1)))));
    writer.finish().await.unwrap();
    assert!(reader.next().await.unwrap().is_none());
}

/// The sender of the first packet may be made up. Nothing is kept for it: it is only told what to come back
/// with.
#[tokio::test]
async fn an_address_is_shown_to_be_reachable_first() {
    /// The first byte of a Retry packet: long header, packet type 3 (RFC 9000, 17.2.5).
    const RETRY: u8 = 0b1111_0000;
    let (server, client, address) = pair();
    let between = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let to = between.local_addr().unwrap();
    let dialling = tokio::spawn(async move { client.connect(to, key(1).public()).await.map(|_| ()) });
    let mut packet = [0; 2_048];
    let (length, _) = between.recv_from(&mut packet).await.unwrap();
    between.send_to(&packet[..length], address).await.unwrap();
    let first = async {
        loop {
            // The client may send its packet again meanwhile.
            if between.recv_from(&mut packet).await.unwrap().1 == address {
                return packet[0];
            }
        }
    };
    tokio::select! {
        _ = server.accept() => panic!("a connection from an address that was not shown to be reachable"),
        first = first => assert_eq!(first & RETRY, RETRY),
    }
    dialling.abort();
}
