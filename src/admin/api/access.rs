//! Who may use the API: tokens, and the limit of failures.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};

use super::super::Process;
use super::Audit;
use super::error::{ApiError, ErrorCode};
use crate::limiter::ClientLimiter;
use crate::live::Generation;
use crate::logging::LogThrottle;
use crate::snapshot::AdminWrite;
use crate::tokens::Token;

/// A client may fail this many times at once.
const FAILURES: u64 = 10;
/// Time after which it may fail once more.
const FAILURE_INTERVAL: Duration = Duration::from_secs(6);

/// State of the access check.
///
/// Only requests without a valid token are limited. A valid token is accepted at any time, so that no other program of the
/// same machine can lock an operator out. A limit on it would not protect more: a token has 256 random bits.
pub(in crate::admin) struct Access {
    failures: ClientLimiter,
    throttle: LogThrottle,
}

impl Access {
    pub(super) fn new() -> Self {
        Access { failures: ClientLimiter::new(FAILURE_INTERVAL, FAILURES), throttle: LogThrottle::default() }
    }

    /// The token of a request.
    pub(super) fn check(
        &self,
        process: &Process,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Result<Token, ApiError> {
        self.token(process, presented(headers).or(super::apisix::key(headers)), client)
    }

    /// The token with this text.
    pub(in crate::admin) fn token(
        &self,
        process: &Process,
        presented: Option<&str>,
        client: Option<IpAddr>,
    ) -> Result<Token, ApiError> {
        let generation = process.live.current();
        let write = Self::open(process, &generation)?;
        if let Some(token) = presented.and_then(|presented| write.tokens.find(presented)) {
            return Ok(token.clone());
        }
        if let Some(wait) = self.failures.take(client, Instant::now()) {
            let error = ApiError::new(ErrorCode::TooManyFailures, "too many requests without a valid token");
            return Err(error.with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1)));
        }
        let error = ApiError::new(ErrorCode::Unauthorized, "send a token in `Authorization: Bearer TOKEN`");
        Err(error.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"corsgate\"")))
    }

    /// Returns the settings of `admin.write`. Err: `admin.write` is not set, or other machines can reach the listener and the
    /// configuration does not permit that.
    pub(in crate::admin) fn open<'g>(
        process: &Process,
        generation: &'g Generation,
    ) -> Result<&'g AdminWrite, ApiError> {
        let Some(write) = generation.snapshot.admin_write() else {
            let message = "the write API is off; `admin: { write: FILE }` switches it on, with a file of tokens that \
                           `corsgate token` makes";
            return Err(ApiError::new(ErrorCode::NotEnabled, message));
        };
        // The listener may still have the address of the start, which other machines can reach.
        let is_local = process.live.started().admin.is_none_or(|address| address.ip().is_loopback());
        if !is_local && !write.allows_remote {
            let message = "the admin listener still has an address that other machines can reach; restart corsgate";
            return Err(ApiError::new(ErrorCode::RemoteWrite, message));
        }
        Ok(write)
    }

    /// Logs a request that was refused by [`Access::check`].
    pub(in crate::admin) fn log_refusal(&self, audit: &Audit, error: &ApiError) {
        match error.code() {
            // A client can send any number of them.
            ErrorCode::TooManyFailures => {
                self.throttle.count(1);
                if let Some(count) = self.throttle.due(Instant::now()) {
                    log::warn!("{audit} result=refused code=too_many_failures count={count}");
                }
            }
            ErrorCode::NotEnabled => {}
            code => log::warn!("{audit} result=refused code={}", code.code()),
        }
    }
}

/// The token that a request presents. None if it presents several.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
