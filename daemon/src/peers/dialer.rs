//! Keeps connected to the peers that we know how to reach, for as long as there are live channels with
//! them.

use std::{sync::Arc, time::Duration};

use flash_node_client::quic::{PeerAddress, jittered};
use flash_proto::PublicKey;
use tokio::sync::watch;

use super::Shared;

/// Pause before a peer is dialled again, and the longest such pause.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Starts to keep connected, or notes the peer's new address.
pub(super) fn keep(shared: &Arc<Shared>, address: PeerAddress) {
    let mut dialers = shared.dialers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = dialers.get(&address.key) {
        known.send_replace(address);
        return;
    }
    let peer = address.key;
    let (sender, receiver) = watch::channel(address);
    dialers.insert(peer, sender);
    tokio::spawn(run(Arc::clone(shared), peer, receiver));
}

async fn run(shared: Arc<Shared>, peer: PublicKey, mut address: watch::Receiver<PeerAddress>) {
    let mut links = shared.changed.subscribe();
    let mut added = shared.views.added();
    let (mut pause, longest) = REDIAL;
    loop {
        links.mark_unchanged();
        added.mark_unchanged();
        let connected = shared.links().contains_key(&peer);
        if connected || shared.views.live_with(&peer) == 0 {
            (pause, _) = REDIAL;
            tokio::select! {
                _ = links.changed() => {}
                _ = added.changed() => {}
                () = shared.stop.stopped() => return,
            }
            continue;
        }
        let to = address.borrow_and_update().clone();
        if let Err(error) = shared.reach(&to).await {
            tracing::debug!(%peer, %error, "dialling again in a while");
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                _ = address.changed() => {}
                _ = links.changed() => {}
                () = shared.stop.stopped() => return,
            }
            pause = pause.saturating_mul(2).min(longest);
        } else {
            // The link appears, or is displaced by another; either way it is told.
            tokio::select! {
                _ = links.changed() => {}
                () = tokio::time::sleep(jittered(pause)) => {}
                () = shared.stop.stopped() => return,
            }
        }
    }
}
