//! Who is let in: callers on this machine that are not web pages and bring a token of enough scope.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

use super::{Rpc, tokens::Scope};
use crate::api::{ApiError, ErrorCode};

/// Refuses what only a web page would send: any `Origin`, or a `Host` other than this machine (a page
/// whose name was made to point here).
pub(crate) async fn local(request: Request, next: Next) -> Result<Response, ApiError> {
    let hint = "call the RPC as localhost, 127.0.0.1 or [::1], not from a web page";
    if request.headers().contains_key(header::ORIGIN) {
        let message = "requests of web pages (with an Origin header) are refused";
        return Err(ApiError::new(ErrorCode::Forbidden, message, hint));
    }
    let named = request.uri().authority().is_none_or(|authority| is_local(authority.as_str()));
    if !named || !one_local_host(request.headers()) {
        let message = "the Host header does not name this machine";
        return Err(ApiError::new(ErrorCode::Forbidden, message, hint));
    }
    Ok(next.run(request).await)
}

fn one_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next().and_then(|host| host.to_str().ok());
    first.is_some_and(is_local) && hosts.next().is_none()
}

/// Whether `HOST` or `HOST:PORT` is this machine.
pub(crate) fn is_local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|local| {
        host.get(..local.len()).is_some_and(|start| start.eq_ignore_ascii_case(local))
            && host.get(local.len()..).is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
            })
    })
}

/// Lets requests with a token of at least this scope in.
pub(super) async fn scope(
    State((rpc, needed)): State<(Rpc, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let hint = |scope| format!("send `Authorization: Bearer TOKEN` with the token in DATA/tokens/{scope}");
    let Some(token) = bearer(request.headers()) else {
        return Err(ApiError::new(ErrorCode::Unauthorized, "there is no bearer token", hint(needed)));
    };
    let Some(admitted) = rpc.tokens.admit(token) else {
        return Err(ApiError::new(ErrorCode::Unauthorized, "the token is not known here", hint(needed)));
    };
    if admitted.scope < needed {
        let message = format!("the token allows `{}`; this call needs `{needed}`", admitted.scope);
        return Err(ApiError::new(ErrorCode::Forbidden, message, hint(needed)));
    }
    request.extensions_mut().insert(admitted);
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:15601", "127.0.0.1", "[::1]", "[::1]:1"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "localhost:port",
            "localhost:",
            "evil@localhost",
            "::1",
            "127.0.0.2",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
