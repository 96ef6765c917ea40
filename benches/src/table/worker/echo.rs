//! The other end of a plain link: says every frame again, over QUIC with the settings of the peer link.

use std::{net::Ipv4Addr, process::ExitCode};

use flash_node_client::quic::{
    Endpoint, PEER_ALPN, StreamLimits,
    frames::{FrameReader, FrameWriter},
};
use flash_proto::{SecretKey, limits::PEER_FRAME_BYTES_MAX};
use flashd::failure::Failure;

use crate::table::Done;

/// The key that it shows.
pub(crate) fn key() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

/// Prints its port and serves one connection.
pub(crate) fn echo() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new);
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Done {
    let limits = StreamLimits { bidirectional: 8 };
    let endpoint = Endpoint::listen(&key(), PEER_ALPN, (Ipv4Addr::LOCALHOST, 0).into(), limits);
    let endpoint = endpoint.map_err(Failure::new)?;
    println!("{}", endpoint.local_address().map_err(Failure::new)?.port());
    let incoming = endpoint.accept().await.ok_or_else(|| Failure::new("the endpoint is closed"))?;
    let connection = incoming.await.map_err(Failure::new)?;
    let (send, receive) = connection.accept_bi().await.map_err(Failure::new)?;
    let mut writer = FrameWriter::new(send, PEER_FRAME_BYTES_MAX);
    let mut reader = FrameReader::new(receive, PEER_FRAME_BYTES_MAX);
    while let Ok(Some(frame)) = reader.next().await {
        writer.push_bytes(&frame).map_err(Failure::new)?;
        if writer.flush().await.is_err() {
            break;
        }
    }
    Ok(())
}
