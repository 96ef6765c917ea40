//! A watchtower's clients over QUIC: one request on each stream, everything bounded.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flash_channel::tower::Answer;
use flash_node_client::quic::{
    Endpoint,
    frames::{FrameError, FrameReader, FrameWriter},
    peer_key,
};
use flash_proto::{
    PublicKey,
    limits::TOWER_FRAME_BYTES_MAX,
    tower::{TowerRefusal, TowerRefusalCode, TowerRequest, TowerResponse},
};
use quinn::{Connection, Incoming, VarInt};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{AskError, Handle};
use crate::stop::Stop;

/// Streams, and with them requests, of one client at a time.
pub(super) const CLIENT_REQUESTS_MAX: u32 = 32;
/// Requests in work at a time, over all clients; the others wait for their turn.
const REQUESTS_MAX: usize = 256;
/// Clients that are connected at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a handshake, a request's bytes or an answer's may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all connections share.
struct Service {
    tower: Handle,
    /// Who may be a client; everybody if this is empty.
    clients: BTreeSet<PublicKey>,
    /// One connection for each client: a new one takes the place of the old one.
    connections: Mutex<HashMap<PublicKey, Connection>>,
    requests: Semaphore,
}

/// Serves clients until the daemon stops.
pub(super) async fn serve(tower: Handle, clients: BTreeSet<PublicKey>, endpoint: Endpoint, stop: Stop) {
    let requests = Semaphore::new(REQUESTS_MAX);
    let service = Arc::new(Service { tower, clients, connections: Mutex::default(), requests });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.stopped() => break,
            Some(_) = connections.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(Arc::clone(&service), incoming));
                }
                Some(incoming) => incoming.refuse(),
                None => break,
            },
        }
    }
    connections.shutdown().await;
    endpoint.close().await;
}

async fn connection(service: Arc<Service>, incoming: Incoming) {
    let Ok(Ok(connection)) = timeout(PATIENCE, incoming).await else { return };
    let Some(client) = peer_key(&connection) else { return };
    let displaced = service.connections().insert(client, connection.clone());
    if let Some(displaced) = displaced {
        displaced.close(VarInt::from_u32(0), b"another connection of this client");
    }
    tracing::debug!(%client, "a client of the tower connected");
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = streams.join_next() => {}
            accepted = connection.accept_bi() => match accepted {
                Ok((send, receive)) => {
                    let reader = FrameReader::new(receive, TOWER_FRAME_BYTES_MAX);
                    let writer = FrameWriter::new(send, TOWER_FRAME_BYTES_MAX);
                    streams.spawn(stream(Arc::clone(&service), client, reader, writer));
                }
                Err(_) => break,
            },
        }
    }
    let mut connections = service.connections();
    if connections.get(&client).is_some_and(|current| current.stable_id() == connection.stable_id()) {
        connections.remove(&client);
    }
}

async fn stream(service: Arc<Service>, client: PublicKey, mut reader: FrameReader, mut writer: FrameWriter) {
    let request = timeout(PATIENCE, reader.message::<TowerRequest, TOWER_FRAME_BYTES_MAX>()).await;
    let response = match request {
        Ok(Ok(Some(request))) => service.answer(client, request).await,
        Ok(Err(error @ (FrameError::Oversized { .. } | FrameError::Empty | FrameError::Codec(_)))) => {
            reader.stop(1);
            refused(TowerRefusalCode::Malformed, &error)
        }
        Ok(Ok(None) | Err(_)) | Err(_) => return,
    };
    // A client that does not read its answer in time is given up; it sees that itself.
    let answered = async {
        writer.push(&response)?;
        writer.finish().await
    };
    if !matches!(timeout(PATIENCE, answered).await, Ok(Ok(()))) {
        tracing::debug!(%client, "a client of the tower was not answered");
    }
}

impl Service {
    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, client: PublicKey, request: TowerRequest) -> TowerResponse {
        if !self.clients.is_empty() && !self.clients.contains(&client) {
            return refused(
                TowerRefusalCode::NotAClient,
                &"this tower serves the clients of its operator only",
            );
        }
        // Never closed.
        let Ok(_turn) = self.requests.acquire().await else {
            return refused(TowerRefusalCode::Busy, &"the tower is stopping");
        };
        let answered = match request {
            TowerRequest::Keep { newest, permit } => {
                self.tower.keep(client, &newest, permit).await.map(|answer| match answer {
                    Answer::Holds(signature) => TowerResponse::Holds(signature),
                    Answer::Newer(newer) => TowerResponse::Newer(newer),
                })
            }
            TowerRequest::Show { channel, payer, permit } => {
                let shown = self.tower.show(client, (channel, payer), permit).await;
                shown.map(|held| TowerResponse::Shown(held.map(Box::new)))
            }
        };
        answered.unwrap_or_else(|error| {
            let code = match &error {
                AskError::Tower(error) => error.code(),
                AskError::Ledger(_) | AskError::Stopping => TowerRefusalCode::Busy,
            };
            refused(code, &error)
        })
    }
}

fn refused(code: TowerRefusalCode, detail: &impl ToString) -> TowerResponse {
    TowerResponse::Refused(TowerRefusal::new(code, detail.to_string()))
}
