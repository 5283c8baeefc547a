//! `/metrics`: all metrics in the text format of Prometheus.
//!
//! This file stores nothing. The rooms that count keep plain atomic numbers. A scrape reads them on the thread of the
//! admin listener, and no request waits for it.
//!
//! Values of labels are names of the configuration and codes of closed enums. Data from clients never becomes a label,
//! so clients cannot create series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::TextEncoder;
use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use crate::cors::{Reason, ReportedChange};
use crate::counter::{BUCKETS, Counter, Distribution};
use crate::decide::{RefusalCode, RequestKind};
use crate::live::{Generation, Live};
use crate::record::listeners::{BadHeader, Counts, RefusedConnection};
use crate::record::{MethodClass, Recorder, StatusClass};

/// Access to all counters of the process.
pub(crate) struct Metrics {
    live: Arc<Live>,
    recorder: Arc<Recorder>,
    connections: Arc<Counts>,
    #[cfg(target_os = "linux")]
    process: ProcessCollector,
}

/// Description of one metric.
#[derive(Debug)]
pub struct Family {
    /// Name of the metric.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// Text of `# HELP`.
    pub(crate) help: &'static str,
}

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that can grow and fall.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

const REQUESTS: Family = counter(
    "corsgate_requests_total",
    &["service", "route", "method", "status"],
    "Finished requests, by method and status class; none: no response was sent.",
);
const DURATION: Family = histogram(
    "corsgate_request_duration_seconds",
    &["service", "route"],
    "Time from the request header to the end of the response. WebSockets are excluded.",
);
const UPSTREAM_DURATION: Family = histogram(
    "corsgate_upstream_response_seconds",
    &["service", "route"],
    "Time from the first attempt at the upstream to the response header.",
);
const SENT: Family =
    counter("corsgate_response_body_bytes_total", &["service", "route"], "Bytes of response bodies sent to clients.");
const DECISIONS: Family = counter(
    "corsgate_cors_decisions_total",
    &["service", "route", "kind", "reason"],
    "CORS decisions by reason, for preflights and actual requests.",
);
const REPORTS: Family = counter(
    "corsgate_report_only_total",
    &["service", "route", "change", "reason"],
    "Requests that the report-only policy of the route would refuse or allow, by its reason.",
);
const REFUSED: Family = counter(
    "corsgate_refused_requests_total",
    &["service", "route", "code"],
    "Requests refused for reasons other than CORS.",
);
const IN_FLIGHT: Family = gauge("corsgate_requests_in_flight", &[], "Running requests, including WebSockets.");
const NOT_REMEMBERED: Family = counter(
    "corsgate_refusals_not_remembered_total",
    &[],
    "Refused requests that are counted but missing from the list of refusals, because several came at the same instant.",
);
const DROPPED_LINES: Family = counter(
    "corsgate_access_log_dropped_lines_total",
    &[],
    "Access log lines that were not written, because the target was too slow or failed.",
);
const ACCEPTED: Family = counter("corsgate_connections_total", &["listener"], "Client connections.");
const OPEN: Family = gauge("corsgate_connections_open", &["listener"], "Open client connections.");
const LIMIT: Family =
    gauge("corsgate_connections_limit", &[], "The limit of open connections: limits.connections, or its default.");
const REFUSED_CONNECTIONS: Family = counter(
    "corsgate_connections_refused_total",
    &["listener", "reason"],
    "Connections closed before their first request.",
);
const HANDSHAKES: Family = counter(
    "corsgate_tls_handshakes_total",
    &["listener", "result"],
    "TLS handshakes with clients, by result: ok or failed.",
);
const BAD_HEADERS: Family = counter(
    "corsgate_bad_headers_total",
    &["listener", "reason"],
    "HTTP/1 headers that did not become a request: late (408), too_large (431), malformed (400, 405 for CONNECT, or 505 for HTTP/2).",
);
const DROPPED_FIELDS: Family = counter(
    "corsgate_dropped_header_fields_total",
    &["listener"],
    "Request header fields that were not forwarded because their name has an underscore or looks like a forwarding field.",
);
const CERTIFICATES: Family = gauge(
    "corsgate_certificate_expiry_timestamp_seconds",
    &["listener", "certificate"],
    "Expiry time of the certificate of a listener, with the first DNS name of the certificate.",
);
const HEALTHY: Family = gauge(
    "corsgate_upstream_node_healthy",
    &["upstream", "address"],
    "1 if the node is healthy, 0 if health checks have taken it out.",
);
const EJECTED: Family = gauge(
    "corsgate_upstream_node_ejected",
    &["upstream", "address"],
    "1 while the node is ejected because requests failed.",
);
const ACTIVE: Family =
    gauge("corsgate_upstream_node_active", &["upstream", "address"], "Running requests at the node.");
const CONNECTS: Family =
    counter("corsgate_upstream_connects_total", &["upstream", "address"], "Connections made to the node for requests.");
const CONNECT_FAILURES: Family =
    counter("corsgate_upstream_connect_failures_total", &["upstream", "address"], "Failed connections to the node.");
const REUSES: Family = counter(
    "corsgate_upstream_reuses_total",
    &["upstream", "address"],
    "Attempts at the node over a reused connection.",
);
const NO_RESPONSES: Family = counter(
    "corsgate_upstream_no_responses_total",
    &["upstream", "address"],
    "Attempts that had a connection to the node but got no response.",
);
const EJECTIONS: Family = counter(
    "corsgate_upstream_ejections_total",
    &["upstream", "address"],
    "How often the node was ejected because requests failed.",
);
const RETRIES: Family = counter(
    "corsgate_upstream_retries_total",
    &["upstream", "to"],
    "Retries by target: another_node, or same_node if a reused connection had been closed.",
);
const WAITING: Family = gauge(
    "corsgate_upstream_queue_waiting",
    &["upstream"],
    "Requests that wait for a node, because each has max_connections requests.",
);
const QUEUED: Family = counter(
    "corsgate_upstream_queue_requests_total",
    &["upstream", "result"],
    "Requests that found each node full, by result: served, full (no room in the queue), timeout, or gone (client or last node).",
);
const SPLIT: Family = counter(
    "corsgate_split_responses_total",
    &["upstream", "status"],
    "Responses to requests that a split sent to the upstream, by status class: 1xx to 5xx, or none without a response.",
);
const RELOADS: Family =
    counter("corsgate_config_reloads_total", &["result"], "Reloads since the start; a refused reload changes nothing.");
const LAST_REFUSED: Family = gauge("corsgate_config_last_reload_refused", &[], "1 if the last reload was refused.");
const RESTART_REQUIRED: Family = gauge(
    "corsgate_config_restart_required",
    &[],
    "1 while the active configuration has changes that need a restart, such as another address.",
);
const GENERATION: Family =
    gauge("corsgate_config_generation", &[], "Number of the active configuration; 1 at the start.");
const RETAINED: Family = gauge(
    "corsgate_config_generations_retained",
    &[],
    "Replaced configurations that are still in memory, because a request has no response yet.",
);
const CONFIG_READ: Family =
    gauge("corsgate_config_last_reload_success_timestamp_seconds", &[], "When the active configuration was read.");
const CONFIG_INFO: Family =
    gauge("corsgate_config_info", &["hash"], "1, with the SHA-256 of the active configuration file.");
const ETCD_CONNECTED: Family = gauge("corsgate_etcd_connected", &[], "1 while the process follows the keys in etcd.");
const ETCD_REVISION: Family = gauge("corsgate_etcd_revision", &[], "Revision of etcd of the active configuration.");
const ETCD_REFUSED: Family = gauge("corsgate_etcd_refused_keys", &[], "Keys in etcd that are refused.");
const ETCD_REFUSED_KEY: Family =
    gauge("corsgate_etcd_refused_key_revision", &["key"], "Revision of each refused key, of at most 100 keys.");
const ETCD_CACHE: Family = gauge(
    "corsgate_etcd_cache_written_timestamp_seconds",
    &[],
    "When the cache was written that the active configuration is from. Absent if it is from etcd.",
);
const ETCD_MISSED: Family = counter(
    "corsgate_etcd_missed_changes_total",
    &[],
    "Changes that a watch did not report, found by reading all keys. Should be 0.",
);
const BUILD_INFO: Family = gauge("corsgate_build_info", &["version"], "1, with the version of corsgate.");

/// All metrics in the order of the output. Metrics of the operating system process follow them.
pub const FAMILIES: [&Family; 44] = [
    &REQUESTS,
    &DURATION,
    &UPSTREAM_DURATION,
    &SENT,
    &DECISIONS,
    &REPORTS,
    &REFUSED,
    &IN_FLIGHT,
    &NOT_REMEMBERED,
    &DROPPED_LINES,
    &ACCEPTED,
    &OPEN,
    &LIMIT,
    &REFUSED_CONNECTIONS,
    &HANDSHAKES,
    &BAD_HEADERS,
    &DROPPED_FIELDS,
    &CERTIFICATES,
    &HEALTHY,
    &EJECTED,
    &ACTIVE,
    &CONNECTS,
    &CONNECT_FAILURES,
    &REUSES,
    &NO_RESPONSES,
    &EJECTIONS,
    &RETRIES,
    &WAITING,
    &QUEUED,
    &SPLIT,
    &RELOADS,
    &LAST_REFUSED,
    &RESTART_REQUIRED,
    &GENERATION,
    &RETAINED,
    &CONFIG_READ,
    &CONFIG_INFO,
    &ETCD_CONNECTED,
    &ETCD_REVISION,
    &ETCD_REFUSED,
    &ETCD_REFUSED_KEY,
    &ETCD_CACHE,
    &ETCD_MISSED,
    &BUILD_INFO,
];

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(live: Arc<Live>, recorder: Arc<Recorder>, connections: Arc<Counts>) -> Self {
        Metrics {
            live,
            recorder,
            connections,
            #[cfg(target_os = "linux")]
            process: ProcessCollector::for_self(),
        }
    }

    /// All metrics with their current values.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        let generation = self.live.current();
        let mut page = Page::default();
        self.requests(&generation, &mut page)?;
        self.connections(&generation, &mut page)?;
        upstreams(&generation, &mut page)?;
        self.configuration(&generation, &mut page)?;
        #[cfg(target_os = "linux")]
        page.encode(&self.process.collect())?;
        Ok(page.text)
    }

    fn requests(&self, generation: &Generation, page: &mut Page) -> prometheus::Result<()> {
        let all = generation.route_metrics().all();
        page.write(&REQUESTS, |series| {
            for (service, route, metrics) in &all {
                for method in MethodClass::ALL {
                    for status in StatusClass::ALL {
                        let count = metrics.requests(method, status);
                        series.counted(&[service, route, method.code(), status.code()], count);
                    }
                }
            }
        })?;
        page.write(&DURATION, |series| {
            all.iter().for_each(|(service, route, metrics)| series.histogram(&[service, route], &metrics.duration()));
        })?;
        page.write(&UPSTREAM_DURATION, |series| {
            all.iter().for_each(|(service, route, metrics)| {
                series.histogram(&[service, route], &metrics.upstream_duration());
            });
        })?;
        page.write(&SENT, |series| {
            all.iter().for_each(|(service, route, metrics)| series.value(&[service, route], metrics.body_bytes()));
        })?;
        page.write(&DECISIONS, |series| {
            for (service, route, metrics) in &all {
                for kind in RequestKind::ALL {
                    for reason in Reason::ALL {
                        let count = metrics.decisions(kind, reason);
                        series.counted(&[service, route, kind.code(), reason.code()], count);
                    }
                }
            }
        })?;
        page.write(&REPORTS, |series| {
            for (service, route, metrics) in &all {
                for change in ReportedChange::ALL {
                    for reason in Reason::ALL {
                        let count = metrics.reports(change, reason);
                        series.counted(&[service, route, change.code(), reason.code()], count);
                    }
                }
            }
        })?;
        page.write(&REFUSED, |series| {
            for (service, route, metrics) in &all {
                for code in RefusalCode::ALL {
                    series.counted(&[service, route, code.code()], metrics.refusals(code));
                }
            }
        })?;
        page.write(&IN_FLIGHT, |series| series.value(&[], self.recorder.running.count() as u64))?;
        page.write(&NOT_REMEMBERED, |series| series.value(&[], self.recorder.refusals.missed()))?;
        page.write(&DROPPED_LINES, |series| series.value(&[], self.recorder.access_log.dropped()))
    }

    fn connections(&self, generation: &Generation, page: &mut Page) -> prometheus::Result<()> {
        let listeners: Vec<_> =
            self.connections.listeners.iter().map(|(address, counts)| (address.to_string(), counts)).collect();
        page.write(&ACCEPTED, |series| {
            listeners.iter().for_each(|(listener, counts)| series.value(&[listener], counts.accepted() as u64));
        })?;
        page.write(&OPEN, |series| {
            listeners.iter().for_each(|(listener, counts)| series.value(&[listener], counts.open() as u64));
        })?;
        page.write(&LIMIT, |series| {
            let limit = generation.snapshot.limits().connections.or(self.connections.default_limit);
            limit.iter().for_each(|limit| series.value(&[], *limit as u64));
        })?;
        page.write(&REFUSED_CONNECTIONS, |series| {
            for (listener, counts) in &listeners {
                for (reason, count) in RefusedConnection::ALL.iter().zip(&counts.refused) {
                    series.counted(&[listener, reason.code()], count.get());
                }
            }
            series.counted(&["-", "unknown"], self.connections.unknown.get());
        })?;
        page.write(&HANDSHAKES, |series| {
            for (listener, counts) in &listeners {
                series.counted(&[listener, "ok"], counts.handshakes.get());
                series.counted(&[listener, "failed"], counts.failed_handshakes.get());
            }
        })?;
        page.write(&BAD_HEADERS, |series| {
            for (listener, counts) in &listeners {
                for (reason, count) in BadHeader::ALL.iter().zip(&counts.headers) {
                    series.counted(&[listener, reason.code()], count.get());
                }
            }
        })?;
        page.write(&DROPPED_FIELDS, |series| {
            listeners.iter().for_each(|(listener, counts)| series.value(&[listener], counts.dropped_fields.get()));
        })?;
        page.write(&CERTIFICATES, |series| {
            for (listener, name, ends) in certificates(generation) {
                series.value(&[&listener, &name], ends);
            }
        })
    }

    fn configuration(&self, generation: &Generation, page: &mut Page) -> prometheus::Result<()> {
        let reloads = self.live.reloads();
        page.write(&RELOADS, |series| {
            series.value(&["applied"], reloads.applied.load(Ordering::Relaxed));
            series.value(&["refused"], reloads.refused.load(Ordering::Relaxed));
        })?;
        page.write(&LAST_REFUSED, |series| series.value(&[], reloads.last_refused.load(Ordering::Relaxed)))?;
        page.write(&RESTART_REQUIRED, |series| series.value(&[], u64::from(!self.live.needs_restart().is_empty())))?;
        page.write(&GENERATION, |series| series.value(&[], generation.number))?;
        page.write(&RETAINED, |series| series.value(&[], self.live.retired() as u64))?;
        page.write(&CONFIG_READ, |series| series.value(&[], seconds(generation.written.read)))?;
        page.write(&CONFIG_INFO, |series| series.value(&[&generation.written.hash], true))?;
        if let Some(etcd) = self.live.source().etcd() {
            let status = etcd.status();
            page.write(&ETCD_CONNECTED, |series| series.value(&[], status.endpoint.is_some()))?;
            page.write(&ETCD_REVISION, |series| series.value(&[], status.applied.revision.unsigned_abs()))?;
            page.write(&ETCD_REFUSED, |series| series.value(&[], status.refused_count as u64))?;
            page.write(&ETCD_REFUSED_KEY, |series| {
                for refusal in &status.refused {
                    series.value(&[&refusal.key], refusal.revision.unsigned_abs());
                }
            })?;
            page.write(&ETCD_CACHE, |series| {
                status.applied.cache.iter().for_each(|written| series.value(&[], seconds(*written)));
            })?;
            page.write(&ETCD_MISSED, |series| series.value(&[], status.missed))?;
        }
        page.write(&BUILD_INFO, |series| series.value(&[env!("CARGO_PKG_VERSION")], true))
    }
}

/// Metrics of all upstreams. Inline upstreams may have the same name as another upstream; their values are then added.
fn upstreams(generation: &Generation, page: &mut Page) -> prometheus::Result<()> {
    #[derive(Default)]
    struct Node {
        unhealthy: bool,
        ejected: bool,
        active: u64,
        /// In the order of [`COUNTERS`].
        counts: [u64; 5],
    }
    const COUNTERS: [Family; 5] = [CONNECTS, CONNECT_FAILURES, REUSES, NO_RESPONSES, EJECTIONS];
    let mut nodes: BTreeMap<(&str, String), Node> = BTreeMap::new();
    let mut retries: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut queues: BTreeMap<&str, (u64, [u64; 4])> = BTreeMap::new();
    let mut splits: BTreeMap<&str, [u64; 6]> = BTreeMap::new();
    for upstream in generation.upstreams() {
        let name = &*upstream.settings().name;
        let (again, same) = retries.entry(name).or_default();
        *again += upstream.counts().retries.get();
        *same += upstream.counts().reconnects.get();
        let split = upstream.split_responses();
        if split.iter().any(|count| *count > 0) {
            splits.entry(name).or_default().iter_mut().zip(split).for_each(|(sum, count)| *sum += count);
        }
        if let Some(queue) = upstream.queue() {
            let (waiting, results) = queues.entry(name).or_default();
            *waiting += queue.waiting() as u64;
            let counts = queue.counts();
            let counts = [&counts.served, &counts.full, &counts.timeout, &counts.gone].map(Counter::get);
            results.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        for status in upstream.statuses() {
            let node = nodes.entry((name, status.address.to_string())).or_default();
            node.unhealthy |= !status.healthy;
            node.ejected |= status.ejected;
            node.active += status.active as u64;
        }
        for endpoint in upstream.endpoints().iter() {
            let node = nodes.entry((name, endpoint.address().to_string())).or_default();
            let counts = endpoint.counts();
            let counts = [
                endpoint.connects(),
                counts.connect_failures.get(),
                endpoint.reuses(),
                counts.no_responses.get(),
                counts.ejections.get(),
            ];
            node.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    page.write(&HEALTHY, |series| {
        nodes.iter().for_each(|((name, address), node)| series.value(&[name, address], !node.unhealthy));
    })?;
    page.write(&EJECTED, |series| {
        nodes.iter().for_each(|((name, address), node)| series.value(&[name, address], node.ejected));
    })?;
    page.write(&ACTIVE, |series| {
        nodes.iter().for_each(|((name, address), node)| series.value(&[name, address], node.active));
    })?;
    for (i, family) in COUNTERS.iter().enumerate() {
        page.write(family, |series| {
            nodes.iter().for_each(|((name, address), node)| series.value(&[name, address], node.counts[i]));
        })?;
    }
    page.write(&RETRIES, |series| {
        for (name, (again, same)) in &retries {
            series.value(&[name, "another_node"], *again);
            series.value(&[name, "same_node"], *same);
        }
    })?;
    page.write(&WAITING, |series| queues.iter().for_each(|(name, (waiting, _))| series.value(&[name], *waiting)))?;
    page.write(&SPLIT, |series| {
        for (name, counts) in &splits {
            for (status, count) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(counts) {
                series.value(&[name, status], *count);
            }
        }
    })?;
    page.write(&QUEUED, |series| {
        for (name, (_, results)) in &queues {
            for (result, count) in ["served", "full", "timeout", "gone"].iter().zip(results) {
                series.value(&[name, result], *count);
            }
        }
    })
}

/// Listener, first name and expiry of each certificate. If several share both, the earliest expiry.
fn certificates(generation: &Generation) -> impl Iterator<Item = (String, String, u64)> {
    let mut ends: BTreeMap<(String, String), u64> = BTreeMap::new();
    for listener in generation.snapshot.listeners() {
        for certificate in listener.tls.iter().flat_map(|tls| tls.certificates.all()) {
            let name = certificate.names().next().unwrap_or_else(|| "-".to_owned());
            let end = u64::try_from(certificate.expires()).unwrap_or(0);
            let first = ends.entry((listener.address.to_string(), name)).or_insert(end);
            *first = end.min(*first);
        }
    }
    ends.into_iter().map(|((listener, name), end)| (listener, name, end))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

// === output ===

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: MetricKind::Histogram, labels, help }
}

/// Collects the output.
#[derive(Default)]
struct Page {
    text: String,
}

/// The series of one metric.
struct Series {
    labels: &'static [&'static str],
    metrics: Vec<proto::Metric>,
}

/// A value: all numbers of Prometheus are floats.
struct Number(f64);

impl Page {
    /// Writes a metric, unless it has no series.
    fn write(&mut self, family: &Family, fill: impl FnOnce(&mut Series)) -> prometheus::Result<()> {
        let mut series = Series { labels: family.labels, metrics: Vec::new() };
        fill(&mut series);
        let mut written = MetricFamily::default();
        written.set_name(family.name.to_owned());
        written.set_help(family.help.to_owned());
        written.set_field_type(match family.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        written.set_metric(series.metrics);
        self.encode(&[written])
    }

    fn encode(&mut self, families: &[MetricFamily]) -> prometheus::Result<()> {
        // The encoder returns an error for a metric without series.
        for family in families.iter().filter(|family| !family.get_metric().is_empty()) {
            TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut self.text)?;
        }
        Ok(())
    }
}

impl Series {
    /// Adds a series only if its count is not 0. For combinations of labels that may never occur.
    fn counted(&mut self, labels: &[&str], count: u64) {
        if count > 0 {
            self.value(labels, count);
        }
    }

    fn value(&mut self, labels: &[&str], value: impl Into<Number>) {
        let Number(value) = value.into();
        let (mut counter, mut gauge) = (proto::Counter::default(), proto::Gauge::default());
        counter.set_value(value);
        gauge.set_value(value);
        let metric = self.metric(labels);
        // The encoder writes the one that matches the type of the family.
        metric.set_counter(counter);
        metric.set_gauge(gauge);
    }

    fn histogram(&mut self, labels: &[&str], read: &Distribution) {
        if read.count == 0 {
            return;
        }
        let bucket = |(bound, count): (&std::time::Duration, &u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(BUCKETS.iter().zip(&read.cumulative).map(bucket).collect());
        histogram.set_sample_count(read.count);
        histogram.set_sample_sum(read.sum);
        self.metric(labels).set_histogram(histogram);
    }

    /// Adds a series without a value.
    fn metric(&mut self, labels: &[&str]) -> &mut proto::Metric {
        debug_assert_eq!(labels.len(), self.labels.len());
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.metrics.push(proto::Metric::from_label(self.labels.iter().zip(labels).map(pair).collect()));
        self.metrics.last_mut().unwrap_or_else(|| unreachable!("one was pushed"))
    }
}

impl From<u64> for Number {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and nothing that is counted here gets there")]
    fn from(value: u64) -> Self {
        Number(value as f64)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Number(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Number(f64::from(u8::from(value)))
    }
}
