//! QUIC between machines that know each other by their keys.
//!
//! Both ends show an Ed25519 key as a raw public key (RFC 7250), with no certificates, and prove in the
//! TLS 1.3 handshake that they own it. A dialler names the key it expects; nothing is sent to another.
//! What a connection is for is named by its ALPN; links of different kinds never mix, also where one socket
//! accepts several.

mod address;
pub mod frames;
mod jitter;
mod tls;
mod turns;

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

pub use address::{PeerAddress, PeerAddressError};
use flash_proto::{PublicKey, SecretKey};
pub use jitter::jittered;
use quinn::{AckFrequencyConfig, Connection, Incoming, TransportConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;
use socket2::SockRef;
use thiserror::Error;
pub use turns::Last;

/// ALPN of the link between two daemons.
pub const PEER_ALPN: &[u8] = b"flash-peer/1";
/// ALPN of the link between a node and its clients.
pub const NODE_ALPN: &[u8] = b"flash-node/1";
/// ALPN of the link between a watchtower and its clients.
pub const TOWER_ALPN: &[u8] = b"flash-tower/1";
/// ALPN of the link between two nodes.
pub const GOSSIP_ALPN: &[u8] = b"flash-gossip/1";

/// Every datagram carries the receiver's id of the connection. Random ones of so many bytes suffice for thousands of
/// connections: one that is in use is drawn again.
const CONNECTION_ID_BYTES: usize = 4;
/// So many packets go without an acknowledgement of QUIC's own, for 25 ms at most: single payments are answered by
/// messages.
const PACKETS_UNACKNOWLEDGED_MAX: u32 = 10;

/// Room in the kernel for what came while the threads of both directions were busy, if the system allows it (Linux: up to
/// `net.core.rmem_max`, and twice what is asked for). Where it is full datagrams are lost, and sending pauses.
const RECEIVE_BUFFER_BYTES: usize = 512 * 1024;

/// A connection that says nothing for so long is dead.
pub const IDLE_MAX: Duration = Duration::from_secs(10);
/// A quiet connection is kept alive so often.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Bytes that a peer may have sent on one stream and that were not read yet.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket cannot be bound.
    #[error("cannot listen on {0}: {1}; choose another address or stop what uses it")]
    Bind(SocketAddr, std::io::Error),
    /// The host name is not known.
    #[error("`{0}` cannot be resolved; check the name and the network")]
    Host(String),
    /// The key is not one that TLS can use.
    #[error("the key cannot be used for TLS: {0}")]
    Key(String),
    /// The endpoint is closed.
    #[error("the endpoint is closed: {0}")]
    Closed(String),
    /// The machine there shows another key, or none.
    #[error("the machine there does not have the expected key")]
    WrongKey,
    /// The handshake or the connection failed.
    #[error("no connection: {0}")]
    Failed(quinn::ConnectionError),
}

/// How many streams a peer may have open at once.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Bidirectional streams; unidirectional ones are never used.
    pub bidirectional: u32,
}

/// One QUIC socket: dials and, if asked to, accepts.
#[derive(Clone, Debug)]
pub struct Endpoint {
    socket: quinn::Endpoint,
    key: SecretKey,
    alpn: &'static [u8],
    limits: StreamLimits,
}

impl Endpoint {
    /// Binds `address` and accepts connections of any key; the caller looks at [`peer_key`].
    ///
    /// # Errors
    /// [`ConnectError::Bind`], [`ConnectError::Key`].
    pub fn listen(
        key: &SecretKey,
        alpn: &'static [u8],
        address: SocketAddr,
        limits: StreamLimits,
    ) -> Result<Self, ConnectError> {
        Self::listen_for_all(key, alpn, &[alpn], address, limits)
    }

    /// The same for connections of several kinds, which [`kind`] tells apart; dials those of the kind `alpn`.
    ///
    /// # Errors
    /// [`ConnectError::Bind`], [`ConnectError::Key`].
    pub fn listen_for_all(
        key: &SecretKey,
        alpn: &'static [u8],
        accepted: &[&'static [u8]],
        address: SocketAddr,
        limits: StreamLimits,
    ) -> Result<Self, ConnectError> {
        let mut config = quinn::ServerConfig::with_crypto(tls::server(key, accepted)?);
        config.transport_config(transport(limits).into());
        Ok(Self { socket: bind(address, Some(config))?, key: key.clone(), alpn, limits })
    }

    /// Binds `address` to dial only.
    ///
    /// # Errors
    /// [`ConnectError::Bind`].
    pub fn dialler(
        key: &SecretKey,
        alpn: &'static [u8],
        address: SocketAddr,
        limits: StreamLimits,
    ) -> Result<Self, ConnectError> {
        Ok(Self { socket: bind(address, None)?, key: key.clone(), alpn, limits })
    }

    /// Dials from the same socket as the owner of another key.
    #[must_use]
    pub fn as_key(&self, key: &SecretKey) -> Self {
        Self { key: key.clone(), ..self.clone() }
    }

    /// Connects to the machine at `address`, which must show `expected`.
    ///
    /// # Errors
    /// [`ConnectError::WrongKey`] before anything is sent, or why there is no connection.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: PublicKey,
    ) -> Result<Connection, ConnectError> {
        let mut config = quinn::ClientConfig::new(tls::client(&self.key, self.alpn, expected)?);
        config.transport_config(transport(self.limits).into());
        let connecting = self
            .socket
            .connect_with(config, address, tls::SERVER_NAME)
            .map_err(|error| ConnectError::Closed(error.to_string()))?;
        match connecting.await {
            Ok(connection) if peer_key(&connection) == Some(expected) => Ok(connection),
            Ok(connection) => {
                connection.close(VarInt::from_u32(1), b"wrong key");
                Err(ConnectError::WrongKey)
            }
            Err(error) if tls::is_wrong_key(&error) => Err(ConnectError::WrongKey),
            Err(error) => Err(ConnectError::Failed(error)),
        }
    }

    /// Looks the machine's host up and connects to it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn dial(&self, machine: &PeerAddress) -> Result<Connection, ConnectError> {
        let unknown = || ConnectError::Host(machine.host().to_owned());
        let ipv4 = self.local_address()?.is_ipv4();
        let mut found =
            tokio::net::lookup_host((machine.host(), machine.port())).await.map_err(|_| unknown())?;
        let address = found.find(|address| address.is_ipv4() == ipv4).ok_or_else(unknown)?;
        self.connect(address, machine.key).await
    }

    /// The next connection attempt; `None` once the endpoint is closed.
    ///
    /// Whoever connects has to show first that it receives what is sent to its address (QUIC's Retry): made-up
    /// senders cost no memory here and take nobody's place.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.socket.accept().await?;
            if incoming.remote_address_validated() {
                return Some(incoming);
            }
            if let Err(validated) = incoming.retry() {
                return Some(validated.into_incoming());
            }
        }
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// [`ConnectError::Closed`].
    pub fn local_address(&self) -> Result<SocketAddr, ConnectError> {
        self.socket.local_addr().map_err(|error| ConnectError::Closed(error.to_string()))
    }

    /// This end's public key.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Closes all connections and waits until the other ends know, or a few round trips have passed.
    pub async fn close(&self) {
        self.socket.close(VarInt::from_u32(0), b"");
        self.socket.wait_idle().await;
    }
}

/// Lets the other end have so many bidirectional streams of its own at a time, and no fewer than before.
///
/// quinn tells it of more only once they are more than an eighth of all that it may have, so that an eighth is added here:
/// without it the last of a hundred channels, opened one by one, would wait for their streams.
pub fn allow_streams(connection: &Connection, at_once: u32) {
    let streams = at_once.saturating_add(at_once / 7).saturating_add(1);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
}

/// The key that the other end has proven to own.
pub fn peer_key(connection: &Connection) -> Option<PublicKey> {
    tls::key_of_identity(connection.peer_identity())
}

/// The ALPN that both ends agreed on.
pub fn kind(connection: &Connection) -> Option<Vec<u8>> {
    tls::alpn_of(connection.handshake_data()?)
}

/// Binds a socket, which serves whoever connects if there is a configuration for that.
fn bind(address: SocketAddr, config: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint, ConnectError> {
    let failed = |error| ConnectError::Bind(address, error);
    let socket = UdpSocket::bind(address).map_err(failed)?;
    let same = socket.try_clone().map_err(failed)?;
    let mut endpoint = quinn::EndpointConfig::default();
    endpoint.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)));
    let endpoint =
        quinn::Endpoint::new(endpoint, config, socket, Arc::new(turns::Together)).map_err(failed)?;
    let same = SockRef::from(&same);
    widen(&same);
    pass_over_ecn(&same, address);
    Ok(endpoint)
}

/// Has the kernel keep more of what has come; a system that gives more already is left as it is.
fn widen(socket: &SockRef<'_>) {
    if socket.recv_buffer_size().is_ok_and(|bytes| bytes < RECEIVE_BUFFER_BYTES) {
        // Where it cannot be done sending pauses more often, and nothing else.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
}

/// Has the kernel keep to itself how the network marked a datagram. Otherwise each acknowledgement counts the marks, which
/// is a twentieth of a single payment's bytes; congestion shows by loss.
fn pass_over_ecn(socket: &SockRef<'_>, address: SocketAddr) {
    // Where it cannot be done acknowledgements are longer, and nothing else.
    let _ = socket.set_recv_tos_v4(false);
    if address.is_ipv6() {
        let _ = socket.set_recv_tclass_v6(false);
    }
}

fn transport(limits: StreamLimits) -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(PACKETS_UNACKNOWLEDGED_MAX));
    let mut config = TransportConfig::default();
    config
        .ack_frequency_config(Some(acknowledgements))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_MAX.try_into().ok());
    config
}

#[cfg(test)]
mod tests;
