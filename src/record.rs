//! What is kept of requests: who looks at the gateway from outside learns it from here.
//!
//! Each request is noted once, when it has ended, as one [`RequestRecord`]. Everything that is counted, written or remembered
//! comes from that, so that no two of them can disagree. Nothing here makes a request wait.

pub(crate) mod access_log;
pub(crate) mod listeners;
mod refusals;
pub mod request_id;
mod route_metrics;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};

pub use self::access_log::AccessLogger;
pub(crate) use self::refusals::{CUT, Refusals, RefusedRequest};
pub use self::route_metrics::MethodClass;
pub(crate) use self::route_metrics::RouteMetricsTable;
pub(crate) use self::route_metrics::StatusClass;

use crate::cors::{Reason, Scheme};
use crate::decide::RequestKind;
use crate::record::request_id::RequestId;
use crate::snapshot::{Route, Snapshot};

/// Everything that requests leave behind in this process.
#[derive(Debug)]
pub struct Recorder {
    /// Whether there is an admin listener, where it can be asked for.
    admin: bool,
    /// Requests under way.
    pub(crate) running: Running,
    /// The last ones that were refused.
    pub(crate) refusals: Refusals,
    /// A line for each.
    pub(crate) access_log: Arc<AccessLogger>,
}

/// How many requests are under way: what a graceful stop waits for.
#[derive(Debug, Default)]
pub(crate) struct Running(AtomicUsize);

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct RequestRecord<'a> {
    /// Number of the configuration generation that served it.
    pub generation: u64,
    /// The route that it belongs to, with its position; None when it got no further than its form, host or path.
    pub route: Option<(u32, &'a Route)>,
    /// What it was to CORS.
    pub kind: RequestKind,
    /// Why CORS was as it was; None when it got no further than its form, host or path.
    pub reason: Option<Reason>,
    /// The reason, or else why the gateway refused, in one word.
    pub code: &'static str,
    /// Whether the gateway refused it, or refused it to the page that made it.
    pub refused: bool,
    /// Who it came from.
    pub client: IpAddr,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Its method, as far as it is told apart.
    pub method: MethodClass,
    /// What the client sent; None when it was cut off, and nobody has it any more.
    pub request: Option<RequestLine<'a>>,
    /// The status that the client was given; None when it was given none.
    pub status: Option<StatusCode>,
    /// Bytes of the response's body.
    pub sent: usize,
    /// From when its header was understood until its response had ended.
    pub took: Duration,
    /// How it fared with its upstream; None when it was not forwarded.
    pub upstream: Option<UpstreamAttempt<'a>>,
    /// What went wrong after it was judged, in a word or two.
    pub failure: Option<&'a str>,
    /// By which it is found.
    pub id: &'a RequestId,
}

/// What a client has asked for.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Host and port, as the client wrote them; empty when there are none.
    pub authority: &'a [u8],
    /// The path, without query, byte for byte.
    pub path: &'a [u8],
    /// The version of HTTP.
    pub version: Version,
    /// All header fields.
    pub headers: &'a HeaderMap,
}

/// How a request fared with its upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamAttempt<'a> {
    /// The upstream's name.
    pub name: &'a str,
    /// The node that answered, or was tried last; None when there was none to try.
    pub address: Option<SocketAddr>,
    /// From the first try until the header of the response; None when there was no response.
    pub took: Option<Duration>,
    /// Tries, 1 for a request that went well at once.
    pub tries: usize,
}

// === impl Recorder, Running ===

impl Recorder {
    /// For a process with an admin listener, or without. Reloads change the access log.
    pub fn new(admin: bool, access_log: Arc<AccessLogger>) -> Self {
        Recorder { admin, running: Running::default(), refusals: Refusals::default(), access_log }
    }

    /// Whether anybody can ever learn of a request. If not, none has to be told of.
    pub(crate) fn is_recording(&self, snapshot: &Snapshot) -> bool {
        self.admin || snapshot.access_log().is_some()
    }

    /// Whether there is anybody to count for.
    pub(crate) fn counts(&self) -> bool {
        self.admin
    }

    /// To be called once for each request, when it has ended. `route_metrics` are those of its configuration.
    pub fn note(&self, route_metrics: &RouteMetricsTable, record: &RequestRecord<'_>) {
        if self.admin {
            route_metrics.count(record);
            if record.refused {
                self.refusals.remember(record);
            }
        }
        self.access_log.write(record);
    }
}

impl Running {
    /// Requests under way now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One begins.
    pub(crate) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended.
    pub(crate) fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
