//! Every operation that the OpenAPI document describes, with every kind of bad credential.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};

use super::{
    tests::{ID, Server, error},
    *,
};
use crate::api::ErrorCode;

/// What needs no token: the document itself.
const OPEN: [(&str, &str); 1] = [("/openapi.json", "get")];

/// An operation of the document.
#[derive(Clone, Debug)]
struct Operation {
    method: Method,
    path: String,
    /// The least scope.
    needs: Scope,
}

/// Every operation of the document but those in [`OPEN`]; one without a scope is an error of the document.
fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    let document = serde_json::to_value(document()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if OPEN.contains(&(path, method)) {
                assert!(operation.get("security").is_none(), "{method} {path} needs no token");
                continue;
            }
            let scope = operation["security"][0]["token"][0].clone();
            let needs = serde_json::from_value(scope)
                .unwrap_or_else(|error| panic!("{method} {path} names no scope that it needs: {error}"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{id}", ID).replace("{index}", "latest");
            assert!(!path.contains('{'), "{path}: give this part of the path a value in this test");
            operations.push(Operation { method, path, needs });
        }
    }
    operations
}

/// Adds a bad credential to a request.
type Credential = fn(RequestBuilder, &Server) -> RequestBuilder;

fn authorized(request: RequestBuilder, value: impl AsRef<[u8]>) -> RequestBuilder {
    request.header(header::AUTHORIZATION, header::HeaderValue::from_bytes(value.as_ref()).unwrap())
}

fn admin(server: &Server) -> String {
    read_token(server.dir.path(), Scope::Admin).unwrap().to_string()
}

/// The kinds of credentials that prove nothing.
const BAD: [(&str, Credential); 16] = [
    ("none", |request, _| request),
    ("an empty one", |request, _| authorized(request, "")),
    ("no token", |request, _| authorized(request, "Bearer ")),
    ("no scheme", |request, server| authorized(request, admin(server))),
    ("another scheme", |request, server| authorized(request, format!("Basic {}", admin(server)))),
    ("a password", |request, server| request.basic_auth("admin", Some(admin(server)))),
    ("nonsense", |request, _| authorized(request, "nonsense")),
    ("bytes that are no text", |request, _| authorized(request, b"Bearer \xff\xfe")),
    ("a short token", |request, server| authorized(request, format!("Bearer {}", &admin(server)[1..]))),
    ("a long token", |request, server| authorized(request, format!("Bearer {}0", admin(server)))),
    ("one digit changed", |request, server| {
        let mut token = admin(server);
        let last = if token.pop() == Some('0') { '1' } else { '0' };
        authorized(request, format!("Bearer {token}{last}"))
    }),
    ("zeros", |request, _| authorized(request, format!("Bearer {}", "0".repeat(64)))),
    ("two tokens", |request, server| {
        authorized(request, format!("Bearer {} {}", admin(server), admin(server)))
    }),
    ("a huge one", |request, _| authorized(request, format!("Bearer {}", "a".repeat(60_000)))),
    ("the token in a cookie", |request, server| {
        request.header(header::COOKIE, format!("token={}", admin(server)))
    }),
    ("the token for a proxy", |request, server| {
        request.header(header::PROXY_AUTHORIZATION, format!("Bearer {}", admin(server)))
    }),
];

/// What a caller could have changed.
async fn state(server: &Server) -> Value {
    let mut state = Vec::new();
    for path in ["/v1/channels?all=true", "/v1/wallet/history", "/v1/events?follow=false"] {
        let request = server.request(Method::GET, path, Some(Scope::Admin));
        let answer = request.send().await.unwrap();
        state.push(json!([path, answer.status().as_u16(), answer.text().await.unwrap()]));
    }
    Value::Array(state)
}

#[tokio::test]
async fn every_operation_refuses_every_kind_of_bad_credential_and_changes_nothing() {
    let server = Server::start().await;
    let before = state(&server).await;
    let mut refused = 0;
    for Operation { method, path, needs } in operations() {
        for (kind, credential) in BAD {
            let request = credential(server.request(method.clone(), &path, None), &server).body("{}");
            let (status, answer) = error(request).await;
            let wanted = (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized);
            assert_eq!((status, answer.code), wanted, "{method} {path} with {kind}");
            assert!(answer.hint.contains(&format!("tokens/{needs}")), "{method} {path}: {answer:?}");
            refused += 1;
        }
        let query = format!("{path}?token={}", admin(&server));
        let (status, _) = error(server.request(method.clone(), &query, None)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} with the token in the query");
        for scope in Scope::ALL.into_iter().filter(|scope| *scope < needs) {
            let (status, answer) = error(server.request(method.clone(), &path, Some(scope)).body("{}")).await;
            let wanted = (StatusCode::FORBIDDEN, ErrorCode::Forbidden);
            assert_eq!((status, answer.code), wanted, "{method} {path} with the token for {scope}");
            refused += 1;
        }
    }
    assert!(refused > 21 * BAD.len(), "{refused}");
    assert_eq!(state(&server).await, before, "nothing has changed");
}

/// Methods that the document does not describe are nobody's, whatever token there is.
#[tokio::test]
async fn methods_that_are_not_described_do_nothing() {
    let server = Server::start().await;
    let operations = operations();
    let before = state(&server).await;
    for Operation { path, .. } in &operations {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if operations.iter().any(|it| it.path == *path && it.method == method) {
                continue;
            }
            for scope in [None, Some(Scope::Read), Some(Scope::Admin)] {
                let (status, _) = error(server.request(method.clone(), path, scope)).await;
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}, {scope:?}");
            }
        }
    }
    assert_eq!(state(&server).await, before, "nothing has changed");
}

/// A token that was taken back (its file removed), and another daemon's.
#[tokio::test]
async fn tokens_of_another_time_or_daemon_are_not_known() {
    let (server, other) = tokio::join!(Server::start(), Server::start());
    let foreign = admin(&other);
    let revoked = admin(&server);
    std::fs::remove_file(token_path(server.dir.path(), Scope::Admin)).unwrap();
    while !token_path(server.dir.path(), Scope::Admin).exists() {
        tokio::task::yield_now().await;
    }
    // The file is there a moment before it counts.
    while !server
        .request(Method::GET, "/v1/info", Some(Scope::Admin))
        .send()
        .await
        .unwrap()
        .status()
        .is_success()
    {
        tokio::task::yield_now().await;
    }
    for Operation { method, path, .. } in operations() {
        for token in [&foreign, &revoked] {
            let request = authorized(server.request(method.clone(), &path, None), format!("Bearer {token}"));
            assert_eq!(error(request).await.0, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
}

/// The status of a call that nothing but its scope can keep out.
async fn status(server: &Server, (Operation { method, path, .. }, scope): &(Operation, Scope)) -> StatusCode {
    server.request(method.clone(), path, Some(*scope)).send().await.unwrap().status()
}

#[tokio::test]
async fn a_token_of_enough_scope_is_let_in() {
    let server = Server::start().await;
    let operations = operations().into_iter();
    let allowed = operations.flat_map(|operation| {
        let scopes = Scope::ALL.into_iter().filter(move |scope| *scope >= operation.needs);
        scopes.map(move |scope| (operation.clone(), scope))
    });
    // All at once: many wait for the node that is never there. The daemon's end comes last.
    let (ends, calls): (Vec<_>, Vec<_>) = allowed.partition(|(call, _)| call.path.ends_with("/shutdown"));
    assert_eq!(ends.len(), 1);
    for calls in [calls, ends] {
        let statuses = join_all(calls.iter().map(|call| status(&server, call))).await;
        for (call, status) in calls.iter().zip(statuses) {
            // Whatever the daemon answers, the call was let in.
            assert!(!matches!(status.as_u16(), 401 | 403 | 405), "{call:?}: {status}");
        }
    }
}
