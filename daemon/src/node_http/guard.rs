//! Who calls: this machine or another one, and no page of another site.

use std::net::SocketAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

use crate::{
    api::{ApiError, ErrorCode},
    rpc::is_local_host,
};

/// Refuses what pages of other sites send through a browser on this machine.
pub(super) async fn same_site(request: Request, next: Next) -> Result<Response, ApiError> {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
        if site.is_none() || site != host(headers) {
            let message = "requests of other sites' web pages (by their Origin header) are refused";
            return Err(ApiError::new(ErrorCode::Forbidden, message, "call the API from no other web page"));
        }
    }
    Ok(next.run(request).await)
}

/// Whether the call comes from this machine, and not from a page whose name was made to point here.
pub(super) fn is_this_machine(peer: SocketAddr, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback() && host(headers).is_some_and(is_local_host)
}

/// The one `Host` of the call.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(first)
}
