//! Mixed traffic for minutes or hours, with reloads, refused reloads, binary upgrades and nodes that come and go: no
//! unexpected result, and no growth of memory and descriptors. `make soak MINUTES=120` runs it.
//!
//! The samples are in `target/soak/samples.csv`; `compare/soak.py` draws them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response};
use crate::support::gateway::{Gateway, Signal};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const APP: (&str, &str) = ("Origin", "https://app.test");
const EVIL: (&str, &str) = ("Origin", "https://evil.test");
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// The configuration number `n`: each one has another `max_age`, and an upstream with another name.
fn config(n: u64, stable: &Upstream, echo: &Upstream, unstable: SocketAddr) -> String {
    format!(
        "
listeners:
  - address: \"{{listen}}\"
  - address: \"{{listen2}}\"
    tls: {{ certificates: [{{ cert: api.crt, key: api.key }}] }}
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log, sample: 0.01 }}
server: {{ grace_period: 20s }}
upstreams:
  stable-{name}: {{ nodes: [{{ address: \"{stable}\" }}] }}
services:
  - name: api
    hosts: [api.test]
    upstream: stable-{name}
    cors: {{ allow_origins: [https://app.test, \"https://*.app.test\"], allow_credentials: true, allow_methods: [PUT], allow_headers: [X-A], max_age: {age} }}
    routes:
      - {{ name: reject, paths: [/reject], cors: {{ allow_origins: https://app.test, disallowed_origins: reject }} }}
      - {{ name: limited, paths: [/limited], rate_limit: {{ rate: 5/s }} }}
      - {{ name: socket, paths: [/socket], upstream: {{ nodes: [{{ address: \"{echo}\" }}] }} }}
      - {{ name: unstable, paths: [/unstable], upstream: {{ nodes: [{{ address: \"{unstable}\" }}, {{ address: \"{stable}\" }}], retries: 1 }} }}
      - {{ name: all, paths: [/*] }}
",
        name = n % 5,
        age = 60 + n % 7,
        stable = stable.address(),
        echo = echo.address(),
    )
}

/// What the threads share.
struct Soak {
    stop: AtomicBool,
    address: SocketAddr,
    tls_address: SocketAddr,
    tls: TlsClient,
    requests: AtomicU64,
    /// Durations of requests since the last sample, in microseconds.
    durations: Mutex<Vec<u32>>,
    /// Between rounds of requests of one client. `SOAK_PAUSE_MS` sets it.
    pause: Duration,
    unexpected: Mutex<Vec<String>>,
}

impl Soak {
    /// Counts a request, and keeps a message if its result is not the expected one.
    fn count(&self, begin: Instant, result: Result<(), String>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let micros = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.durations.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
        if let Err(why) = result {
            self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Whether a response has this status, and CORS headers for this origin only.
fn expect(what: &str, response: &Response, statuses: &[u16], origin: Option<&str>) -> Result<(), String> {
    let allowed = response.header("Access-Control-Allow-Origin");
    match statuses.contains(&response.status) && allowed == origin {
        true => Ok(()),
        false => Err(format!("{what}: {} with {allowed:?}", response.status)),
    }
}

/// Method, path, fields and body of a request, and the expected statuses and allowed origin.
type Row<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)], &'r [u8], &'r [u16], Option<&'r str>);

/// Requests over HTTP/1: allowed and refused, preflights, uploads, errors.
fn http1(soak: &Soak, keep: bool) {
    let app = Some("https://app.test");
    let preflight = [HOST, APP, ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a")];
    let refused = [HOST, EVIL, ("Access-Control-Request-Method", "PUT")];
    let body = vec![b'b'; 200_000];
    let rows: [Row<'_>; 9] = [
        ("GET", "/orders", &[HOST, APP], b"", &[200], app),
        ("GET", "/orders", &[HOST, EVIL], b"", &[200], None),
        ("OPTIONS", "/orders", &preflight, b"", &[200], app),
        ("OPTIONS", "/orders", &refused, b"", &[200], None),
        ("PUT", "/orders", &[HOST, APP], &body, &[200], app),
        ("GET", "/reject", &[HOST, EVIL], b"", &[403], None),
        ("GET", "/limited", &[HOST, APP], b"", &[200, 429], app),
        ("GET", "/unstable", &[HOST, APP], b"", &[200], app),
        ("GET", "/a%2Fb", &[HOST, APP], b"", &[400], app),
    ];
    let mut kept = None;
    while soak.runs() {
        for (method, path, fields, body, statuses, origin) in rows {
            let begin = Instant::now();
            let connection = kept.take().map_or_else(|| Connection::open(soak.address), Ok);
            let result = connection.and_then(|mut connection| {
                let response = connection.request(method, path, fields, body)?;
                Ok((connection, response))
            });
            match result {
                Ok((connection, response)) => {
                    if keep && response.header("Connection") != Some("close") {
                        kept = Some(connection);
                    }
                    soak.count(begin, expect(&format!("{method} {path}"), &response, statuses, origin));
                }
                Err(error) => soak.count(begin, Err(format!("{method} {path}: {error}"))),
            }
        }
        thread::sleep(soak.pause);
    }
}

/// Requests over TLS and HTTP/2, many on one connection, until it is closed gracefully.
fn http2(soak: &Soak) {
    while soak.runs() {
        let begin = Instant::now();
        let client = match H2Client::open(soak.tls_address, &soak.tls) {
            Ok(client) => client,
            Err(error) => {
                soak.count(begin, Err(format!("HTTP/2: {error}")));
                continue;
            }
        };
        for _ in 0..50 {
            let begin = Instant::now();
            let request = H2Request::new("GET", "api.test", "/orders").header("origin", APP.1);
            match client.request(&request) {
                Ok(response) => soak.count(begin, expect("HTTP/2", &response, &[200], Some(APP.1))),
                // A replaced process closes its connections between two requests.
                Err(_) => break,
            }
            thread::sleep(soak.pause);
        }
    }
}

/// WebSockets that stay open for a while.
fn sockets(soak: &Soak) {
    let upgrade = [
        HOST,
        APP,
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    while soak.runs() {
        let begin = Instant::now();
        let opened = Connection::open(soak.address).and_then(|mut socket| {
            let response = socket.request("GET", "/socket", &upgrade, b"")?;
            Ok((socket, response))
        });
        let mut socket = match opened {
            Ok((socket, response)) => {
                soak.count(begin, expect("WebSocket", &response, &[101], Some(APP.1)));
                socket
            }
            Err(error) => {
                soak.count(begin, Err(format!("WebSocket: {error}")));
                continue;
            }
        };
        for n in 0..40 {
            let message = format!("message {n}");
            let echoed = socket.send(message.as_bytes()).and_then(|()| socket.receive(message.len()));
            // The process that a successor replaces ends its WebSockets after the grace period.
            let Ok(echoed) = echoed else { break };
            if echoed != message.as_bytes() {
                soak.count(begin, Err(format!("WebSocket: {echoed:?}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Clients that leave in the middle of a request or of a response.
fn quitters(soak: &Soak) {
    let parts: [&[u8]; 4] = [
        b"GET /orders HT",
        b"PUT /orders HTTP/1.1\r\nHost: api.test\r\nContent-Length: 100000\r\n\r\nabc",
        b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"PUT /orders HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab",
    ];
    while soak.runs() {
        for part in parts {
            if let Ok(mut connection) = Connection::open(soak.address) {
                let _ = connection.send(part);
                thread::sleep(soak.pause);
            }
        }
    }
}

/// A node that listens for a while, and then does not.
fn unstable_node(soak: &Soak, address: SocketAddr) {
    while soak.runs() {
        let node = Upstream::start_at(address, |_| Reply::new(200));
        thread::sleep(Duration::from_secs(2));
        drop(node);
        thread::sleep(Duration::from_secs(1));
    }
}

/// The state of a process at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    pid: u32,
    memory_kib: f64,
    descriptors: f64,
    /// Of requests since the last sample, in microseconds.
    median: u32,
    p99: u32,
}

fn sample(soak: &Soak, begin: Instant, gateway: &Gateway) -> Sample {
    let mut durations = std::mem::take(&mut *soak.durations.lock().unwrap_or_else(PoisonError::into_inner));
    durations.sort_unstable();
    let at = |part: usize| durations.get(durations.len() * part / 100).copied().unwrap_or_default();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).map_or(0, Iterator::count);
    Sample {
        seconds: begin.elapsed().as_secs_f64(),
        pid: gateway.pid(),
        memory_kib: float(gateway.memory()),
        descriptors: float(descriptors as u64),
        median: at(50),
        p99: at(99),
    }
}

/// A count as a number for a line. Counts here are far below 2^52.
#[expect(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// The slope of the line that fits the points best, per minute.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = float(points.len() as u64);
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    60.0 * above / below
}

/// A number from an environment variable.
fn from_env(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "takes minutes: make soak MINUTES=10"]
fn mixed_traffic_has_no_unexpected_result_and_no_growth() {
    let total = Duration::from_secs_f64(from_env("SOAK_MINUTES", 5.0) * 60.0);
    let stable = Upstream::start(|request| match request.target.as_str() {
        "/large" => Reply::new(200).body(vec![b'l'; 4_000_000]),
        _ => Reply::new(200).body("stable"),
    });
    let echo = Upstream::start(|_| Reply::echo());
    let unstable = SocketAddr::from(([127, 0, 0, 1], crate::support::gateway::free_port()));
    let authority = Authority::new("authority");
    let files = authority.issue(&["api.test"]).files("api");
    let first = Gateway::start_with_files(&config(0, &stable, &echo, unstable), &files);
    let soak = Soak {
        stop: AtomicBool::new(false),
        address: first.address(),
        tls_address: first.address2(),
        tls: TlsClient::new(&authority, "api.test").protocols(&["h2"]),
        requests: AtomicU64::new(0),
        durations: Mutex::default(),
        pause: Duration::from_secs_f64(from_env("SOAK_PAUSE_MS", 2.0) / 1000.0),
        unexpected: Mutex::default(),
    };
    // A successor needs the folder of the first process.
    let mut processes = vec![first];
    let (mut samples, mut reloads, mut upgrades) = (Vec::new(), 0_u64, 0);
    thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stopping = Stop(&soak.stop);
        scope.spawn(|| unstable_node(&soak, unstable));
        for keep in [true, true, false] {
            let soak = &soak;
            scope.spawn(move || http1(soak, keep));
        }
        for run in [http2, sockets, quitters] {
            let soak = &soak;
            scope.spawn(move || run(soak));
        }
        let begin = Instant::now();
        // Two upgrades, in the first half, so that the last process runs for long.
        let mut upgrade_at = vec![total / 4, total / 8];
        let mut next_sample = SAMPLE_INTERVAL;
        while begin.elapsed() < total {
            let gateway = processes.last().expect("at least one process");
            reloads += 1;
            match reloads % 4 {
                0 => gateway.reload_with("listeners: [{ address: \"{listen}\" }]\nservices: [{ nmae: api }]\n"),
                _ => gateway.reload_with(&config(reloads, &stable, &echo, unstable)),
            }
            if upgrade_at.last().is_some_and(|at| begin.elapsed() > *at) {
                upgrade_at.pop();
                upgrades += 1;
                // The successor reads the file.
                gateway.reload_with(&config(reloads, &stable, &echo, unstable));
                let successor = gateway.successor();
                gateway.signal(Signal::Quit);
                successor.wait_for_log("serving listeners=");
                processes.push(successor);
            }
            while begin.elapsed() > next_sample {
                samples.push(sample(&soak, begin, processes.last().expect("at least one process")));
                next_sample += SAMPLE_INTERVAL;
                stable.clear();
                echo.clear();
            }
            thread::sleep(Duration::from_secs(1));
        }
    });
    write_samples(&samples);
    let requests = soak.requests.load(Ordering::Relaxed);
    let unexpected = soak.unexpected.into_inner().unwrap_or_else(PoisonError::into_inner);
    let shown = unexpected.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(unexpected.is_empty(), "{} of {requests} results are unexpected:\n{shown}", unexpected.len());
    // The last process, without its first quarter, in which pools and caches fill.
    let last = processes.last().expect("at least one process").pid();
    let of_last: Vec<&Sample> = samples.iter().filter(|sample| sample.pid == last).collect();
    let settled = &of_last[of_last.len() / 4..];
    let line = |value: fn(&Sample) -> f64| {
        slope(&settled.iter().map(|sample| (sample.seconds, value(sample))).collect::<Vec<_>>())
    };
    let (memory, descriptors) = (line(|sample| sample.memory_kib), line(|sample| sample.descriptors));
    let p99 = line(|sample| f64::from(sample.p99));
    println!(
        "{requests} requests, {reloads} reloads, {upgrades} upgrades; per minute: {memory:+.0} KiB, {descriptors:+.2} descriptors, \
         p99 {p99:+.0} us"
    );
    let span =
        settled.last().map_or(0.0, |sample| sample.seconds) - settled.first().map_or(0.0, |sample| sample.seconds);
    let grown = (memory * span / 60.0, descriptors * span / 60.0);
    let memory_now = settled.last().map_or(0.0, |sample| sample.memory_kib);
    assert!(grown.0 < 0.1 * memory_now, "memory grows: {grown:?} KiB over {span:.0} s\n{settled:?}");
    assert!(grown.1 < 30.0, "descriptors grow: {grown:?} over {span:.0} s\n{settled:?}");
    // Processes end in their order: each needs the folder of the first.
    processes.reverse();
}

fn write_samples(samples: &[Sample]) {
    let mut text = "seconds,pid,memory_kib,descriptors,median_us,p99_us\n".to_owned();
    for Sample { seconds, pid, memory_kib, descriptors, median, p99 } in samples {
        let _ = writeln!(text, "{seconds:.0},{pid},{memory_kib},{descriptors},{median},{p99}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak");
    std::fs::create_dir_all(&folder).expect("make a directory");
    std::fs::write(folder.join("samples.csv"), text).expect("write a file");
}
