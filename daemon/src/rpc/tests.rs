//! The RPC over real HTTP.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::api::{ApiError, ErrorCode};

pub(super) const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

/// A whole daemon on a data directory of its own, which follows a node that is never there.
async fn daemon(dir: &std::path::Path) -> Daemon {
    crate::run::tests::started(dir).await.daemon.clone()
}

/// An RPC server on a port of its own.
pub(super) struct Server {
    pub(super) base: String,
    pub(super) dir: TempDir,
    pub(super) http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path()).await;
        Self::of(dir, daemon).await
    }

    /// Of this daemon.
    pub(super) async fn of(dir: TempDir, daemon: Daemon) -> Self {
        let tokens = Tokens::open(dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, daemon, tokens, async {
            let _ = stopped.await;
        }));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base, dir, http, stop: Some(stop), task }
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        scope: Option<Scope>,
    ) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match scope {
            Some(scope) => request.bearer_auth(read_token(self.dir.path(), scope).unwrap().as_str()),
            None => request,
        }
    }
}

/// The error of an answer, which must be one as it is documented.
pub(super) async fn error(request: reqwest::RequestBuilder) -> (StatusCode, ApiError) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let error: ApiError = response.json().await.unwrap();
    assert_eq!(status.as_u16(), error.code.http_status(), "{error:?}");
    (status, error)
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let server = Server::start().await;
    for (name, value) in [
        ("origin", "http://localhost"),
        ("origin", "null"),
        ("host", "evil.example"),
        ("host", "localhost.evil.example:80"),
    ] {
        for path in ["/v1/info", "/openapi.json", "/nothing"] {
            let request = server.request(Method::GET, path, Some(Scope::Admin)).header(name, value);
            assert_eq!(error(request).await.1.code, ErrorCode::Forbidden, "{name}: {value} at {path}");
        }
    }
    for host in ["localhost:1", "[::1]:15601"] {
        let request = server.request(Method::GET, "/openapi.json", None).header("host", host);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn malformed_requests_say_what_was_wrong() {
    let server = Server::start().await;
    let channel = |rest: &str| format!("/v1/channels/{ID}{rest}");
    let cases = [
        (Method::POST, "/v1/wallet/transfers".to_owned(), "", "EOF"),
        (Method::POST, "/v1/wallet/transfers".to_owned(), "[]", "invalid length 0"),
        (Method::POST, "/v1/wallet/transfers".to_owned(), r#"{"to":"x","amount":"1"}"#, "line 1 column"),
        (Method::POST, "/v1/channels".to_owned(), r#"{"peer":"x","deposit":"1Xi"}"#, "is not a unit"),
        (Method::POST, "/v1/channels".to_owned(), r#"{"peer":"x"}"#, "missing field `deposit`"),
        (Method::POST, "/v1/channels/12/payments".to_owned(), "{}", "64 hexadecimal digits"),
        (Method::POST, channel("/payments"), r#"{"amount":"-5"}"#, "is not an amount"),
        (Method::POST, channel("/payments"), r#"{"amount":5}"#, "expected"),
        (Method::POST, channel("/payments"), r#"{"amount":"5","refrence":"x"}"#, "unknown field `refrence`"),
        (Method::POST, channel("/payments"), "\u{0}", "expected value"),
        (Method::POST, channel("/close"), r#"{"forse":true}"#, "unknown field `forse`"),
        (Method::POST, channel("/close?wait=perhaps"), "", "wait: "),
        (Method::POST, channel("/peer"), r#"{"at":"nowhere"}"#, "unknown field `at`"),
        (Method::POST, "/v1/channels/zz/stream".to_owned(), "1\n", "64 hexadecimal digits"),
        (Method::GET, "/v1/channels/%ff".to_owned(), "", "UTF-8"),
        (Method::GET, "/v1/wallet/history?limit=0".to_owned(), "", "it must be 1 to 10000"),
        (Method::GET, "/v1/wallet/history?limits=1".to_owned(), "", "unknown field `limits`"),
        (Method::GET, "/v1/channels?all=1".to_owned(), "", "all: "),
        (Method::GET, "/v1/events?after=-1".to_owned(), "", "after: "),
        (Method::GET, "/v1/events?after=5".to_owned(), "", "there is no event 5 yet"),
        (Method::GET, "/v1/ledger/milestones/first".to_owned(), "", "`first` is not a milestone"),
        (Method::GET, "/v1/ledger/transactions/12".to_owned(), "", "64 hexadecimal digits"),
    ];
    for (method, path, body, what) in cases {
        let request = server.request(method, &path, Some(Scope::Admin)).body(body);
        let (_, refused) = error(request).await;
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{path} {body}: {refused:?}");
        assert!(refused.message.contains(what), "{path} {body}: {}", refused.message);
        assert!(!refused.hint.is_empty());
    }
    let request = server.request(Method::GET, "/v1/events", Some(Scope::Read)).header("last-event-id", "x");
    assert_eq!(error(request).await.1.code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn unknown_paths_methods_and_large_bodies() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/infos", "/v1/channels/a/b/c", "/v2/info"] {
        let (_, refused) = error(server.request(Method::GET, path, Some(Scope::Admin))).await;
        assert_eq!(refused.code, ErrorCode::NotFound, "{path}");
    }
    let (status, refused) = error(server.request(Method::DELETE, "/v1/info", Some(Scope::Admin))).await;
    assert_eq!((status, refused.code), (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::WrongMethod));
    let large = "x".repeat(request::BODY_BYTES_MAX + 1);
    let (status, refused) =
        error(server.request(Method::POST, "/v1/wallet/transfers", Some(Scope::Admin)).body(large)).await;
    assert_eq!((status, refused.code), (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge));
}

/// The paths and methods that an OpenAPI document describes, each with a summary.
pub(crate) fn described(document: &Value) -> BTreeSet<(String, String)> {
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{path}");
            described.insert((path.clone(), method.clone()));
        }
    }
    described
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let server = Server::start().await;
    let response = server.request(Method::GET, "/openapi.json", None).send().await.unwrap();
    let document: Value = response.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");

    // The router's own words are compared with the document's.
    let source = include_str!("mod.rs");
    let mut routed = BTreeSet::new();
    for line in source.lines().filter(|line| line.trim_start().starts_with(".route(\"")) {
        let path = line.split('"').nth(1).unwrap();
        let method = if line.contains(", get(") { "get" } else { "post" };
        routed.insert((path.to_owned(), method.to_owned()));
    }
    assert_eq!(routed, described(&document));
    assert_eq!(routed.len(), 29);
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let mut server = Server::start().await;
    let response = server.request(Method::GET, "/openapi.json", None).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let _ = server.stop.take().unwrap().send(());
    server.task.await.unwrap().unwrap();
    let refused = server.http.get(format!("{}/openapi.json", server.base)).send().await;
    assert!(refused.unwrap_err().is_connect());
}
