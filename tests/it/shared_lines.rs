//! Values that several threads could write on the path of a request.
//!
//! If all cores write to one cache line, each core has to wait. So usual requests write to no shared line, with two
//! exceptions. This table lists each declaration of a value that threads can share. It also lists each clone, because a
//! clone may count references that threads share. The test reads the source, and fails for a declaration or clone that
//! is not listed.
//!
//! `docs/performance.md` has the shared values of Pingora and tokio.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The writers of a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Each thread writes to its own: [`corsgate::per_thread`].
    Own,
    /// Requests read it. Reloads, first uses and failures write it.
    Read,
    /// It belongs to one connection or one request.
    Connection,
    /// Failures, refusals, retries, WebSockets, reloads and observations write it, but usual requests do not.
    Rare,
    /// Requests of a route with a rate limit write it. Each request writes the line of its key, because all threads use
    /// the same budget.
    Budget,
    /// Every request writes it, so it needs a reason.
    Contended(&'static str),
}

use Line::{Budget, Connection, Contended, Own, Rare, Read};

/// File below `src/`, a part of a line, and the writers of its cache line.
const LINES: &[(&str, &str, Line)] = &[
    // Basics of the other values.
    ("per_thread.rs", "static THREADS: LazyLock<usize>", Read),
    ("per_thread.rs", "static USED: AtomicUsize", Rare),
    ("per_thread.rs", "static NEXT: AtomicUsize", Rare),
    ("per_thread.rs", "static INDEX: Cell<usize>", Own),
    ("per_thread.rs", "uses: AtomicU32,", Rare),
    ("per_thread.rs", "values: OnceLock<Box<[CachePadded<T>]>>", Read),
    ("per_thread.rs", "fn reserve(used: &AtomicUsize", Rare),
    ("per_thread.rs", "Arc::new(CachePadded::new(self.value.clone()))", Rare),
    ("per_thread.rs", "Reference::Shared(self.value.clone()), |own| Reference::Own(own.clone())", Own),
    ("counter.rs", "pub(crate) struct Counter(AtomicU64);", Own),
    ("counter.rs", "begun: AtomicUsize,", Own),
    ("counter.rs", "ended: AtomicUsize,", Own),
    ("counter.rs", "buckets: [Counter; BUCKETS.len() + 1],", Own),
    ("counter.rs", "micros: Counter,", Own),
    // The configuration.
    ("live.rs", "current: ArcSwap<Shared<Generation>>,", Read),
    ("live.rs", "retired: Mutex<Vec<Arc<Generation>>>,", Rare),
    ("live.rs", "files: Mutex<Files>,", Rare),
    ("live.rs", "snapshot.startup().clone()", Rare),
    ("live.rs", "self.current.load().arc().clone()", Rare),
    ("live.rs", "push(replaced.arc().clone())", Rare),
    ("live.rs", "self.lock_files().clone()", Rare),
    ("live.rs", "fn lock_retired(&self) -> MutexGuard", Rare),
    ("live.rs", "fn lock_files(&self) -> MutexGuard", Rare),
    ("live/generation.rs", "parts: Vec<OnceBox<Shared<RouteParts>>>,", Read),
    ("live/generation.rs", "split_parts: HashMap<(u32, UpstreamId), OnceBox<Shared<RouteParts>>>,", Read),
    ("live/generation.rs", "namesakes.swap_remove(same).clone()", Rare),
    ("live/generation.rs", "RunningUpstream::new(spec.clone())", Rare),
    ("live/generation.rs", "slot: self.route_metrics.slot(Some(route)).clone(),", Rare),
    ("live/generation.rs", "upstream: self.upstream(upstream).clone(),", Rare),
    ("live/generation.rs", "limits: self.snapshot.limits().clone(),", Rare),
    ("live/generation.rs", "rate_limit.clone()", Rare),
    ("live/generation.rs", "Some(namesakes.remove(same).clone())", Rare),
    ("live/generation.rs", "RateLimiter::new(limit.clone())", Rare),
    ("live/generation.rs", "Some(limiter.clone())", Rare),
    // Rate limits.
    ("limiter.rs", "whole: CachePadded<AtomicU64>,", Budget),
    ("limiter.rs", "state: &AtomicU64", Budget),
    ("limiter/table.rs", "parts: OnceLock<Box<[CachePadded<Mutex<Part>>]>>,", Budget),
    // Behaviors.
    ("behavior/headers.rs", "let mut edits = above.cloned().unwrap_or_default();", Rare),
    ("behavior/clients.rs", "text: entry.clone(),", Rare),
    ("behavior/rewrite.rs", "map_or(message.clone(), str::to_owned);", Rare),
    ("behavior/rewrite.rs", "self.pattern.get(|_| self.pattern.shared().clone());", Rare),
    ("behavior/rewrite.rs", "restored(cookie).unwrap_or_else(|| cookie.clone()))", Own),
    ("behavior/rewrite.rs", "let value = cookie[path.clone()].trim_ascii();", Own),
    ("behavior/forward_auth.rs", "reserved: above.reserved.clone()", Rare),
    ("behavior/forward_auth.rs", "auth.service.clone().map(|service| AuthService { upstream: 0, ..service });", Rare),
    ("behavior/forward_auth.rs", "ForwardAuth { service, ..auth.clone() }", Rare),
    ("behavior/forward_auth.rs", "let mut reserved = response_headers.clone();", Rare),
    (
        "behavior/forward_auth.rs",
        "reserved.extend(above.filter(|name| !response_headers.contains(name)).cloned());",
        Rare,
    ),
    ("behavior/forward_auth.rs", "ProblemKind::BadHeaderName { text: text.clone() },", Rare),
    ("behavior/forward_auth.rs", "ProblemKind::HeaderOfConnection { name: text.clone() },", Rare),
    ("behavior/forward_auth.rs", "ProblemKind::HeaderOfCors { name: text.clone() },", Rare),
    ("behavior/forward_auth.rs", "fields.append(name.clone(), value.clone());", Connection),
    ("behavior/forward_auth.rs", "fields.push((name.clone(), value.clone()));", Connection),
    ("behavior/forward_auth.rs", "cookies.push(value.clone());", Connection),
    ("behavior/forward_auth.rs", "find(|name| is_forged(name)).cloned()", Connection),
    ("behavior/forward_auth.rs", "request.append(name, value.clone());", Connection),
    ("behavior/forward_auth.rs", "response.append(header::SET_COOKIE, cookie.clone());", Connection),
    ("behavior/forward_auth.rs", "find(|name| is_cors(name)).cloned()", Connection),
    // The decision.
    ("cors.rs", "values.set(Field::AllowOrigin, value.clone());", Connection),
    ("cors.rs", "OriginDecision::Granted(value.clone(), reason)", Connection),
    ("cors/edits.rs", "methods.cloned();", Connection),
    ("cors/edits.rs", "headers.insert(field.header_name(), value.clone());", Own),
    ("cors/edits.rs", "headers.insert(header::CACHE_CONTROL, value.clone());", Own),
    ("cors/edits.rs", "headers.insert(REQUEST_ID, id.clone());", Connection),
    ("cors/edits.rs", "which(name)).cloned().collect();", Connection),
    ("cors/edits.rs", "Some(value) => value.clone(),", Read),
    ("cors/edits.rs", "static PREPARED: LazyLock<Vec<PreparedVary>>", Read),
    ("per_thread/header.rs", "(**self).clone())).clone()", Own),
    (
        "per_thread/header.rs",
        "HeaderName::from_bytes(self.as_str().as_bytes()).unwrap_or_else(|_| (**self).clone());",
        Rare,
    ),
    ("per_thread/header.rs", "self.0.get(copy).clone()", Own),
    ("cors/preflight.rs", "set(Field::AllowMethods, method.clone());", Connection),
    ("cors/names.rs", "upper: upper.clone()", Rare),
    ("cors/names.rs", "return Some(first.clone())", Connection),
    ("cors/names.rs", "text: entry.clone()", Rare),
    ("cors/origin.rs", "set.any_host.push((scheme.clone(), port))", Rare),
    ("cors/origin.rs", "schemes.push(scheme.clone());", Rare),
    ("cors/origin.rs", "or_default().push(pattern.clone());", Rare),
    ("cors/origin.rs", "templates.by_tail.values().flatten().cloned()", Rare),
    ("cors/origin.rs", "TuplePattern { scheme: scheme.clone(), host: OriginHost::Any, port: *port });", Rare),
    ("route.rs", "routes.exact.insert(name.clone(), id);", Rare),
    ("route.rs", "choices.push((entry.methods.clone(), entry.route.clone()));", Rare),
    ("behavior/split.rs", "name: name.clone() });", Rare),
    ("decide/local_reply.rs", "ReplyKind::Refused(Refusal::MethodNotAllowed(allow)) =>", Rare),
    ("decide/local_reply.rs", "let extra_fields = vec![(header::ALLOW, allow.clone())];", Rare),
    ("decide/local_reply.rs", "add(name.clone(), value.clone());", Own),
    // The connection of the client.
    ("read/client.rs", "kept: Mutex<Option<ReusedHttpStream>>,", Connection),
    ("read/client.rs", "certificates.find(server_name).clone()", Connection),
    ("read/closing.rs", "receiver: watch::Receiver<bool>,", Read),
    ("read/closing.rs", "pub(super) fn new(mut receiver: watch::Receiver<bool>) -> Self {", Connection),
    ("read/closing.rs", "let mut receiver = self.receiver.clone();", Connection),
    ("read/closing.rs", "waker: cx.waker().clone()", Connection),
    ("read/connection.rs", "streams_opened: AtomicU32,", Connection),
    ("read/connection.rs", "streams_active: AtomicUsize,", Connection),
    ("read/connection.rs", "close: watch::Sender<bool>,", Connection),
    (
        "read/connection.rs",
        "async fn serve(mut self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>)",
        Connection,
    ),
    ("read/connection.rs", "async fn begins_with_preface(&mut self, closing: &watch::Receiver<bool>)", Connection),
    ("read/connection.rs", "Signal::new(closing.clone())", Connection),
    (
        "read/connection.rs",
        "async fn serve_http1(self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>)",
        Connection,
    ),
    ("read/connection.rs", "self.app.client.clone()", Connection),
    ("read/connection.rs", "(Signal::new(closing), Signal::new(shutdown.clone()))", Connection),
    ("read/connection.rs", "(app.close.subscribe(), shutdown.clone())", Connection),
    ("read/connection.rs", "ActiveStream::new(self.clone())", Connection),
    ("read/connection.rs", "Some(self.h2_options.clone())", Connection),
    ("read/stream.rs", "stage: AtomicU8,", Connection),
    ("read/stream.rs", "framing: AtomicU8,", Connection),
    ("read/stream.rs", "Some(self.digest.clone())", Connection),
    ("read/watchdog.rs", "static CURRENT: Cell<Option<Timeouts>>", Own),
    // The hooks.
    ("forward.rs", "let limits = config.map(|config| config.limits().clone());", Rare),
    ("forward/request.rs", "fields.insert(CLIENT_CERT, certificate.clone());", Connection),
    ("forward/auth.rs", "connector: OnceLock<Connector>,", Read),
    ("forward/auth.rs", "picked.set_last_error(why.clone());", Rare),
    ("forward/auth.rs", "failed.push(picked.endpoint().clone());", Rare),
    ("forward/auth.rs", "parts.headers = fields.clone();", Connection),
    ("forward/auth.rs", "Parts::from(header.clone())", Connection),
    ("forward/attempts.rs", "static GROUPS: AtomicU64", Rare),
    ("forward/attempts.rs", "self.failed.push(attempt.endpoint().clone());", Rare),
    ("forward/early_response.rs", "Client::of(session.as_downstream()).cloned()", Connection),
    ("forward/request.rs", "headers.keys().filter(|name| !is_kept(name)).cloned().collect();", Connection),
    ("forward/request.rs", "headers.get(header::HOST).cloned()", Connection),
    ("forward/request.rs", "headers.insert(header::HOST, host.clone());", Connection),
    ("forward/request.rs", "client.forwarded_for().clone()", Connection),
    ("forward/request.rs", "headers.insert(CLIENT_CERT, certificate.clone());", Connection),
    ("forward/response.rs", "is_hop_by_hop(name)).cloned()", Connection),
    // The upstream.
    ("upstream.rs", "pool: ArcSwap<Pool>,", Read),
    ("upstream.rs", "endpoints: ArcSwap<Vec<Arc<Endpoint>>>,", Rare),
    ("upstream.rs", "turn: PerThread<AtomicUsize>,", Own),
    ("upstream.rs", "entries: Mutex<Vec<EndpointEntry>>,", Rare),
    ("upstream.rs", "has_timers: AtomicBool,", Rare),
    ("upstream.rs", "shared_tls: PerThread<OnceLock<SharedTls>>,", Own),
    ("upstream.rs", "pub(crate) retries: Counter,", Rare),
    ("upstream.rs", "pub(crate) reconnects: Counter,", Rare),
    ("upstream.rs", "self.endpoints.load_full()", Rare),
    ("upstream.rs", "split_responses: PerThread<[Counter; 6]>,", Own),
    ("upstream.rs", "EndpointEntry::new(&spec, queue.as_ref(), i, address.clone())", Rare),
    ("upstream.rs", "address: endpoint.address().clone(),", Rare),
    ("upstream.rs", "(entry.endpoint.node(), entry.endpoint.address().clone());", Rare),
    ("upstream.rs", "Places::new(limit.max_connections, queue.clone())", Rare),
    ("upstream.rs", "readmitted.push(endpoint.clone());", Rare),
    ("upstream.rs", "(entry.endpoint.clone(), entry.endpoint.weight() * ramp(entry))", Rare),
    ("upstream.rs", "entries.iter().map(|entry| entry.endpoint.clone()).collect()", Rare),
    ("upstream.rs", "fn lock(&self) -> MutexGuard", Rare),
    ("upstream.rs", "static STATE: LazyLock<RandomState>", Rare),
    (
        "upstream/endpoint.rs",
        "Compared(Box<CachePadded<AtomicUsize>>),",
        Contended("`least_connections` compares the requests of all threads; other balancing has no such value"),
    ),
    ("upstream/endpoint.rs", "connects: Counter,", Own),
    ("upstream/endpoint.rs", "reuses: Counter,", Own),
    ("upstream/endpoint.rs", "pub(crate) connect_failures: Counter,", Rare),
    ("upstream/endpoint.rs", "pub(crate) no_responses: Counter,", Rare),
    ("upstream/endpoint.rs", "pub(crate) ejections: Counter,", Rare),
    ("upstream/endpoint.rs", "failures: AtomicU32,", Read),
    ("upstream/endpoint.rs", "last_error: Mutex<Option<String>>,", Rare),
    ("upstream/endpoint.rs", "template: PerThread<OnceLock<HttpPeer>>,", Own),
    ("upstream/endpoint.rs", "self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()", Rare),
    (
        "upstream/places.rs",
        "taken: CachePadded<AtomicUsize>,",
        Contended("`max_connections` limits the requests of all threads; without it there is no such value"),
    ),
    ("upstream/queue.rs", "waiting: CachePadded<AtomicUsize>,", Read),
    ("upstream/queue.rs", "list: Mutex<List>,", Rare),
    ("upstream/queue.rs", "pub(crate) served: Counter,", Rare),
    ("upstream/queue.rs", "pub(crate) full: Counter,", Rare),
    ("upstream/queue.rs", "pub(crate) timeout: Counter,", Rare),
    ("upstream/queue.rs", "pub(crate) gone: Counter,", Rare),
    ("upstream/queue.rs", "fn lock(&self) -> MutexGuard", Rare),
    ("upstream/queue.rs", "fn wake_first(list: MutexGuard", Rare),
    ("upstream/queue.rs", "first.waker.clone()", Rare),
    ("upstream/queue.rs", "cx.waker().clone()", Rare),
    ("upstream/queue.rs", "list.waiters[at].waker.clone_from(cx.waker());", Rare),
    ("upstream/peer.rs", "endpoint.template(|| new_template(upstream, endpoint)).clone()", Own),
    ("upstream/peer.rs", "options.ca.clone_from(&shared.authorities);", Rare),
    ("upstream/peer.rs", "peer.client_cert_key.clone_from(&shared.identity);", Rare),
    // The record.
    ("record/request_id.rs", "next: PerThread<AtomicU64>,", Own),
    ("record/request_id.rs", "RequestId::Client(id.clone())", Connection),
    ("record/request_id.rs", "RequestId::Client(value) => value.clone(),", Connection),
    ("record/route_metrics.rs", "metrics: OnceBox<RouteMetrics>,", Read),
    ("record/route_metrics.rs", "requests: [[Counter;", Own),
    ("record/route_metrics.rs", "decisions: [[Counter;", Own),
    ("record/route_metrics.rs", "refusals: [Counter;", Own),
    ("record/route_metrics.rs", "reports: OnceBox<ReportCounters>,", Own),
    ("record/route_metrics.rs", "struct ReportCounters([[Counter;", Own),
    ("record/route_metrics.rs", "duration: Histogram,", Own),
    ("record/route_metrics.rs", "upstream_duration: Histogram,", Own),
    ("record/route_metrics.rs", "body_bytes: Counter,", Own),
    ("record/route_metrics.rs", "(&*slot.name, slot.clone())", Rare),
    ("record/route_metrics.rs", "or_insert_with(|| RouteSlot::new(name)).clone()", Rare),
    ("record/refusals.rs", "missed: AtomicU64,", Rare),
    ("record/refusals.rs", "entries: Mutex<Entries>,", Rare),
    ("record/refusals.rs", "newer.iter().rev().chain(older.iter().rev()).cloned().collect()", Rare),
    ("record/observer.rs", "is_open: CachePadded<AtomicBool>,", Read),
    ("record/observer.rs", "current: ArcSwapOption<OpenObservation>,", Read),
    ("record/observer.rs", "tables: Box<[CachePadded<Mutex<Tally>>]>,", Rare),
    ("record/observer.rs", "other_generation: AtomicU64,", Rare),
    ("record/observer.rs", "not_counted: AtomicU64,", Rare),
    ("record/observer.rs", "let take = |table: &CachePadded<Mutex<Tally>>|", Rare),
    ("record/listeners.rs", "pub(crate) unknown: Counter,", Rare),
    ("record/listeners.rs", "pub(crate) refused: [Counter;", Rare),
    ("record/listeners.rs", "pub(crate) handshakes: Counter,", Rare),
    ("record/listeners.rs", "pub(crate) failed_handshakes: Counter,", Rare),
    ("record/listeners.rs", "pub(crate) headers: [Counter;", Rare),
    ("record/listeners.rs", "pub(crate) dropped_fields: Counter,", Rare),
    ("record/listeners.rs", "Open(self.clone())", Rare),
    ("record/access_log.rs", "current: ArcSwapOption<Sink>,", Read),
    ("record/access_log.rs", "writers: Mutex<Vec<Writer>>,", Rare),
    ("record/access_log.rs", "let current = self.current.load_full();", Rare),
    ("record/access_log.rs", "(Some(same), Destination::Stdout) => same.target.clone(),", Rare),
    ("record/access_log.rs", "same.target.clone()", Rare),
    ("record/access_log.rs", "let settings = settings.clone();", Rare),
    ("record/access_log.rs", "map(|writer| writer.thread.clone());", Rare),
    ("record/access_log.rs", "let lines = sink.lines.clone();", Rare),
    ("record/access_log.rs", "writer::start(lines.clone(),", Rare),
    ("record/access_log.rs", "place: sink.place.clone()", Rare),
    ("record/access_log.rs", "let Some(current) = self.current.load_full() else { return };", Rare),
    ("record/access_log.rs", "fn writers(&self) -> MutexGuard", Rare),
    (
        "record/access_log/writer.rs",
        "queue: ArrayQueue<Vec<u8>>,",
        Contended("the access log, if there is one: lines of all requests are written in their order"),
    ),
    ("record/access_log/writer.rs", "spare: ArrayQueue<Vec<u8>>,", Rare),
    ("record/access_log/wakeup.rs", "thread: OnceLock<Thread>,", Read),
    ("record/access_log/wakeup.rs", "asleep: AtomicBool,", Rare),
    ("record/access_log/writer.rs", "closed: AtomicBool,", Rare),
];

/// Files and folders with code that a request runs. `src/accept` is not in the list: it runs for each connection, and
/// counts all connections in one value for the limit.
const PATH: [&str; 32] = [
    "per_thread.rs",
    "counter.rs",
    "live.rs",
    "live/generation.rs",
    "cors.rs",
    "cors/edits.rs",
    "per_thread/header.rs",
    "cors/preflight.rs",
    "cors/names.rs",
    "cors/origin.rs",
    "cors/host_template.rs",
    "route.rs",
    "behavior",
    "behavior.rs",
    "decide",
    "decide.rs",
    "read",
    "forward",
    "forward.rs",
    "limiter",
    "limiter.rs",
    "upstream",
    "upstream.rs",
    "record.rs",
    "record/request_id.rs",
    "record/route_metrics.rs",
    "record/access_log.rs",
    "record/access_log/wakeup.rs",
    "record/access_log/writer.rs",
    "record/listeners.rs",
    "record/observer.rs",
    "record/refusals.rs",
];

/// Words in a line that declares a value of several threads, or clones one. If `::` follows the word, the line creates
/// a value that is declared elsewhere.
const WORDS: [&str; 32] = [
    "Atomic",
    "Mutex",
    "RwLock",
    "ArcSwap",
    "OnceLock",
    "OnceBox",
    "OnceCell",
    "LazyLock",
    "Lazy<",
    "ArrayQueue",
    "SegQueue",
    "Notify",
    "Semaphore",
    "Condvar",
    "Barrier",
    "watch::Sender",
    "watch::Receiver",
    "mpsc::",
    "oneshot::",
    "broadcast::",
    "DashMap",
    "Counter;",
    "Counter,",
    "Histogram,",
    "static ",
    ".clone()",
    ".cloned()",
    "Arc::clone",
    "clone_from",
    "load_full",
    "upgrade()",
    "Rc<",
];

#[test]
fn every_value_that_threads_share_on_the_path_of_a_request_is_listed() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files() {
        for line in super::layout::code(&src().join(&file)).lines().filter(|line| shares(line)) {
            let rows: Vec<usize> =
                (0..LINES.len()).filter(|row| LINES[*row].0 == file && line.contains(LINES[*row].1)).collect();
            if rows.is_empty() {
                faults.push(format!("src/{file}: `{}` is not listed: what writes to its cache line?", line.trim()));
            }
            seen.extend(rows);
        }
    }
    let gone = (0..LINES.len()).filter(|row| !seen.contains(row));
    faults.extend(gone.map(|row| format!("src/{}: `{}` is listed and does not exist", LINES[row].0, LINES[row].1)));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn usual_requests_write_at_most_two_values_of_all_threads() {
    let contended: Vec<&str> = LINES
        .iter()
        .filter_map(|(_, _, line)| match line {
            Contended(reason) => Some(*reason),
            Own | Read | Connection | Rare | Budget => None,
        })
        .collect();
    // An upstream has one of the first two, or none.
    assert!(contended.len() <= 3, "{contended:?}");
}

#[test]
fn the_reader_finds_declarations_and_clones() {
    for (line, found) in [
        ("    hits: AtomicU64,", true),
        ("    pub(crate) hits: [Counter; 3],", true),
        ("    static HITS: AtomicU64 = AtomicU64::new(0);", true),
        ("    let recorder = self.recorder.clone();", true),
        ("    let route = found.cloned();", true),
        ("    cache: Arc<RwLock<HashMap<u8, u8>>>,", true),
        ("        hits: AtomicU64::new(0),", false),
        ("use std::sync::atomic::AtomicU64;", false),
        ("    let x: &'static str = y;", false),
        ("    self.hits.add(1);", false),
    ] {
        assert_eq!(shares(line), found, "{line}");
    }
}

/// Whether a line of code declares a value that threads may share, or clones one.
fn shares(line: &str) -> bool {
    let line = line.trim();
    let is_import = line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ");
    !is_import
        && WORDS.iter().any(|word| {
            line.match_indices(word).any(|(at, _)| {
                let rest = line[at + word.len()..].trim_start_matches(|c: char| c.is_alphanumeric());
                !(rest.starts_with("::") || (*word == "static " && line[..at].ends_with('\'')))
            })
        })
}

fn files() -> Vec<String> {
    let mut files = Vec::new();
    for part in &PATH {
        let path = src().join(part);
        if path.is_file() {
            files.push((*part).to_owned());
            continue;
        }
        for entry in fs::read_dir(&path).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.push(format!("{part}/{name}"));
        }
    }
    assert!(files.len() > 40, "the sources were not found: {files:?}");
    files
}

fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
