//! From an HTTP request to typed values, and from an error to an HTTP answer.

use std::{fmt, str::FromStr};

use axum::{
    Json, RequestExt,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use crate::api::{ApiError, ErrorCode};

/// Bytes of the largest request, streams of payments apart.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A malformed request: what was wrong with it.
pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message, "GET /openapi.json describes every request")
}

pub(crate) async fn unknown_path(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", request.uri().path());
    ApiError::new(ErrorCode::NotFound, message, "GET /openapi.json lists every path")
}

pub(crate) async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(ErrorCode::WrongMethod, message, "GET /openapi.json lists the methods of every path")
}

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        Ok(Self(parse_json(&read(request).await?)?))
    }
}

/// A JSON body that may be left out.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse_json(&bytes)?))
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    request.extract::<Bytes, _>().await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the request has more than {BODY_BYTES_MAX} bytes");
            ApiError::new(ErrorCode::TooLarge, message, "send less in one request")
        } else {
            invalid(rejection.body_text())
        }
    })
}

/// The value of a JSON text.
pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("the JSON is not as it must be: {error}")))
}

/// The query of the URL.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| invalid(rejection.body_text()))?;
        Ok(Self(params))
    }
}

/// The one parameter in the URL's path.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr<Err: fmt::Display>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text): Path<String> = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| invalid(rejection.body_text()))?;
        text.parse().map(Self).map_err(|error: T::Err| invalid(error.to_string()))
    }
}
