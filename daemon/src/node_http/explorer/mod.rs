//! The explorer: pages that draw the Tangle as it grows and show what is in it. They are part of the program,
//! ask nobody but this node, and run no scripts but their own.

use axum::{
    Router,
    extract::Path,
    http::{HeaderName, header},
    response::{IntoResponse, Redirect},
    routing::get,
};

use super::Api;
use crate::api::{ApiError, ErrorCode};

/// Scripts, styles and pictures come from the node itself, and nobody puts the page into another one.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// A part of the page.
pub(super) struct File {
    pub name: &'static str,
    pub kind: &'static str,
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal: $kind:expr),+ $(,)?) => {
        &[$(File { name: $name, kind: $kind, text: include_str!($name) }),+]
    };
}

pub(super) const FILES: &[File] = files![
    "app.js": SCRIPT,
    "ask.js": SCRIPT,
    "dag.js": SCRIPT,
    "draw.js": SCRIPT,
    "feed.js": SCRIPT,
    "live.js": SCRIPT,
    "page.js": SCRIPT,
    "views.js": SCRIPT,
    "style.css": STYLE,
    "icon.svg": PICTURE,
];

/// The page and its parts.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/explorer", get(page)).route("/explorer/{file}", get(part))
}

/// Where people who open the node in a browser are led.
pub(super) async fn lead() -> Redirect {
    Redirect::temporary("/explorer")
}

async fn page() -> impl IntoResponse {
    served(HTML, include_str!("index.html"))
}

async fn part(Path(name): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let file = FILES.iter().find(|file| file.name == name).ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, "the explorer has no such file", "open /explorer")
    })?;
    Ok(served(file.kind, file.text))
}

fn served(kind: &'static str, text: &'static str) -> ([(HeaderName, &'static str); 5], &'static str) {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the node may come with another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
