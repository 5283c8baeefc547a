//! Reads the body of a request, with limits.

use std::time::Duration;

use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;
use tokio::time::timeout;

use super::Action;
use super::error::{ApiError, ErrorCode};

/// Largest body. A policy with 10,000 origins has about half of it.
const LARGEST: usize = 1 << 20;
/// Longest time for the whole body.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time in which the rest of a refused body is read, so that the client can read the response.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

const PATCH_TYPES: [&str; 1] = ["application/merge-patch+json"];
const TYPES: [&str; 5] = ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

/// Checks the type of the body. A page can send a body of another type without a preflight.
pub(super) fn check_type(headers: &HeaderMap, action: Action) -> Result<(), ApiError> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let essence = match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) => value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
        _ => String::new(),
    };
    let is_patch = action == Action::Patch && PATCH_TYPES.contains(&&*essence);
    if is_patch || TYPES.contains(&&*essence) {
        return Ok(());
    }
    let message = "write `Content-Type: application/json` or `Content-Type: application/yaml`";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// The body as text.
pub(in crate::admin) async fn read(session: &mut ServerSession) -> Result<String, ApiError> {
    let too_large = || ApiError::new(ErrorCode::BodyTooLarge, "the body has more than 1 MiB");
    let headers = &session.req_header().headers;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST as u64) {
        return Err(too_large());
    }
    if headers.get(header::EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        // Without it, the client would wait before it sends the body.
        let _ = session.write_continue_response().await;
    }
    let whole = async {
        let mut body = Vec::new();
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) if body.len() + bytes.len() > LARGEST => return Err(too_large()),
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => return Ok(body),
                Err(_) => return Err(ApiError::new(ErrorCode::BadSyntax, "the body is incomplete")),
            }
        }
    };
    let body = timeout(TIMEOUT, whole).await;
    let body =
        body.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::BodyTimeout, "the body takes longer than 10 s")))?;
    String::from_utf8(body).map_err(|_| ApiError::new(ErrorCode::BadSyntax, "the body is not UTF-8"))
}

/// Reads and drops the rest of a body for a moment. A connection that is closed with unread data would lose the response.
pub(in crate::admin) async fn discard(session: &mut ServerSession) {
    let rest = async { while let Ok(Some(_)) = session.read_request_body().await {} };
    let _ = timeout(DISCARD_TIMEOUT, rest).await;
}
