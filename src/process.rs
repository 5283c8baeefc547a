//! The process: listeners, signals, and an orderly end.
//!
//! Pingora ends gracefully, at once, or after handing its sockets over. What it lacks is here: SIGHUP, which would kill the process; leaving
//! as soon as nothing is under way, instead of after the whole grace period; and noticing before the start that a port
//! is taken, instead of living on without it.

mod handover;
mod signals;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::listening::Service;
use pingora_core::apps::ServerApp;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use self::signals::Signals;
use crate::accept::admission::Admission;
use crate::accept::{Edge, LINGER, listener_config};
use crate::admin::metrics::Metrics;
use crate::admin::{self, Admin, Bounded, Readiness};
use crate::forward::Gateway;
use crate::health::Health;
use crate::live::Live;
use crate::record::{AccessLog, Telemetry};
use crate::source::watch::Watcher;

/// How often names are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
/// How often the files of the configuration are looked at: a change is in force in one to two of these.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a configuration that was replaced is looked at, whether somebody still uses it.
const FREE_EVERY: Duration = Duration::from_secs(1);
/// How often a process that is to end looks whether it can.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// Pingora counts attempts over all upstreams. Each upstream's own `retries` is at most 10, which makes 11 nodes, and a
/// node is tried once more when a kept connection to it had ended.
const MAX_ATTEMPTS: usize = 22;
/// Connections to nodes that each thread keeps for later requests, as long as their `timeouts.idle` says. Pingora's own
/// 128 would close what a burst of more requests leaves behind, and the next burst make them again.
const KEPT_CONNECTIONS: usize = 1024;
/// How long the end waits for an access log that nobody reads.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);
/// How long Pingora waits for sockets to be handed over.
const UPGRADE_WITHIN: Duration = Duration::from_secs(6);

/// Catches SIGHUP from the first moment on: until its handler is there the signal would kill the process.
#[derive(Debug, Clone)]
pub struct Hangup(Arc<AtomicBool>);

/// Why the process could not start to serve.
#[derive(Debug)]
pub enum StartError {
    /// The signal handler could not be installed.
    Signal(io::Error),
    /// An address cannot be listened on.
    Bind(SocketAddr, io::Error),
    /// There is no place where sockets could change hands.
    Upgrade(String),
}

/// Where a process gets its listening sockets from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// It opens them.
    Own,
    /// From the process that runs already, once that is sent SIGQUIT.
    Inherited,
}

/// What makes the process read its configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOn {
    /// SIGHUP.
    Signal,
    /// SIGHUP, and a change of the configuration or of a file that it names.
    Change,
}

/// Serves until a signal ends the process. Returns only when it could not start.
pub fn serve(
    live: Arc<Live>,
    hangup: Hangup,
    sockets: Sockets,
    reload_on: ReloadOn,
) -> Result<std::convert::Infallible, StartError> {
    serve_with(live, hangup, sockets, reload_on, |_| {})
}

/// As [`serve`], with services of the caller's own in the same process.
pub fn serve_with(
    live: Arc<Live>,
    hangup: Hangup,
    sockets: Sockets,
    reload_on: ReloadOn,
    add: impl FnOnce(&mut Server),
) -> Result<std::convert::Infallible, StartError> {
    let generation = live.current();
    let fixed = generation.snapshot.fixed().clone();
    let upgrade = live.source().path().map_or_else(
        || Err("the configuration is built in".to_owned()),
        |file| handover::socket(fixed.upgrade_socket.as_deref(), file).map_err(|error| error.to_string()),
    );
    match (sockets, &upgrade) {
        (Sockets::Own, _) => {
            for address in fixed.listeners.iter().map(|(address, _)| address).chain(&fixed.admin) {
                // Pingora would retry for half a minute, and then live on without the listener.
                check_bind(*address).map_err(|error| StartError::Bind(*address, error))?;
            }
        }
        (Sockets::Inherited, Ok(socket)) if handover::someone_waits_at(socket) => {
            return Err(StartError::Upgrade(format!("another process already waits at {}", socket.display())));
        }
        (Sockets::Inherited, Ok(socket)) => {
            log::info!(
                "waiting for the sockets at {}; send SIGQUIT to the running process within {UPGRADE_WITHIN:?}",
                socket.display()
            );
        }
        (Sockets::Inherited, Err(why)) => return Err(StartError::Upgrade(why.clone())),
    }
    end_when_a_listener_fails();

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads: if fixed.threads == 0 { cores } else { fixed.threads },
        // The drain ends the process before Pingora does, and says what was cut.
        grace_period_seconds: Some(fixed.grace_period.as_secs() + 2),
        graceful_shutdown_timeout_seconds: Some(1),
        max_retries: MAX_ATTEMPTS,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        // Pingora's own default is a path that everybody can write to.
        upgrade_sock: upgrade.as_ref().map_or("/dev/null/corsgate".into(), |path| path.to_string_lossy().into_owned()),
        ..ServerConf::default()
    };
    let options = Opt { upgrade: sockets == Sockets::Inherited, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(options, conf);
    server.bootstrap();

    let telemetry = Arc::new(Telemetry::new(fixed.admin.is_some(), live.access_log().clone()));
    let access_log = live.access_log().clone();
    let gateway = Gateway::new(live.clone(), telemetry.clone());
    let proxy = pingora_proxy::http_proxy(&server.configuration, gateway);
    let edge = Edge::new(live.clone(), proxy);
    let (connections, counts) = (edge.admission(), edge.counts());
    let mut edge = Service::new("edge".to_owned(), edge);
    for listener in generation.snapshot.listeners() {
        edge.add_listener(listener_config(listener));
    }
    server.add_service(edge);
    let readiness = Readiness::default();
    if let Some(address) = fixed.admin {
        let admin = Admin::new(admin::Process {
            live: live.clone(),
            readiness: readiness.clone(),
            telemetry: telemetry.clone(),
            connections: connections.clone(),
            metrics: Metrics::new(live.clone(), telemetry.clone(), counts),
            started: SystemTime::now(),
        });
        add_http_service(&mut server, "admin", Bounded::new(admin), address);
    }
    server.add_service(background_service("reload", Reload { live: live.clone(), hangup, on: reload_on }));
    server.add_service(background_service("names", Names { live: live.clone() }));
    server.add_service(background_service("health", Health::new(live)));
    server.add_service(background_service("drain", Drain { telemetry, connections, grace_period: fixed.grace_period }));
    add(&mut server);

    let snapshot = &generation.snapshot;
    let addresses: Vec<String> = (fixed.listeners.iter())
        .map(|(address, tls)| if *tls { format!("{address} (TLS)") } else { address.to_string() })
        .collect();
    let admin = fixed.admin.map(|admin| format!(" admin={admin}")).unwrap_or_default();
    log::info!(
        "serving on {}{admin} routes={} upstreams={}",
        addresses.join(", "),
        snapshot.routes().len(),
        snapshot.upstreams().len()
    );
    drop(generation);
    let signals = Signals { readiness, drain_delay: fixed.drain_delay, upgrade };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    exit(&access_log)
}

/// Ends the process, once what its requests have left behind is written.
fn exit(access_log: &AccessLog) -> ! {
    access_log.finish(LAST_LINES_WITHIN);
    log::logger().flush();
    std::process::exit(0)
}

/// A listener that cannot be opened after all panics in a task, and Pingora would live on without it.
fn end_when_a_listener_fails() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if panic.to_string().contains("Failed to build listeners") {
            log::error!("cannot listen on an address of the configuration, which ends the process");
            std::process::exit(1);
        }
    }));
}

/// Whether an address can be had. Binds and does not listen: a client that connects in between would be accepted here,
/// and cut off.
fn check_bind(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

// === impl Hangup, StartError ===

impl Hangup {
    /// To be called as the first thing in `main`.
    pub fn catch() -> Result<Self, StartError> {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, flag.clone()).map_err(StartError::Signal)?;
        Ok(Hangup(flag))
    }

    /// Whether the signal has come since this was last asked.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Signal(error) => write!(f, "cannot handle SIGHUP: {error}"),
            StartError::Upgrade(why) => write!(f, "cannot take over the sockets of a running process: {why}"),
            StartError::Bind(address, error) => {
                write!(f, "cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(f, "stop what listens there, or write another address"),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "write a port from 1024, or give the program CAP_NET_BIND_SERVICE")
                    }
                    _ => write!(f, "write an address that this machine has"),
                }
            }
        }
    }
}

impl std::error::Error for StartError {}

// === background services ===

/// Reads the configuration again, on SIGHUP or when its files have changed.
struct Reload {
    live: Arc<Live>,
    hangup: Hangup,
    on: ReloadOn,
}

#[async_trait]
impl BackgroundService for Reload {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return log::error!("SIGHUP will not reload: {error}"),
        };
        let mut watcher = Watcher::default();
        let (mut look, mut free) = (every(LOOK_EVERY), every(FREE_EVERY));
        let mut retired = false;
        loop {
            // Signals come together when they come fast. The file is read after the signal, so the last one counts.
            while self.hangup.take() {
                self.reload().await;
                retired = true;
            }
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = hangups.recv() => {}
                _ = look.tick(), if self.on == ReloadOn::Change => retired |= self.look(&mut watcher).await,
                _ = free.tick(), if retired => retired = self.free_retired().await,
            }
        }
    }
}

impl Reload {
    async fn reload(&self) {
        let live = self.live.clone();
        let reload = move || {
            stand_back();
            reload(&live);
        };
        if let Err(panic) = tokio::task::spawn_blocking(reload).await {
            log::error!("the reload failed, the configuration in force stays: {panic}");
        }
    }

    /// Whether there is more to free later.
    async fn free_retired(&self) -> bool {
        let live = self.live.clone();
        let free = move || {
            stand_back();
            live.free_retired()
        };
        tokio::task::spawn_blocking(free).await.unwrap_or(true)
    }

    /// True if it has reloaded. Whatever came of a reading, its files are compared with that reading: what was refused is
    /// not read again until it has changed, and what SIGHUP has read is no change.
    async fn look(&self, watcher: &mut Watcher) -> bool {
        let live = self.live.clone();
        // A `stat` is short, but not on a network mount whose server is away.
        let Ok(look) = tokio::task::spawn_blocking(move || live.look()).await else { return false };
        let Some(changed) = watcher.see(look, Instant::now()) else { return false };
        let paths: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
        log::info!("reloading changed={}", paths.join(","));
        self.reload().await;
        true
    }
}

/// Ticks with that much time between them, the first one included.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The threads that block for this service are no others': requests come first from here on.
fn stand_back() {
    // Elsewhere this would be about the whole process.
    #[cfg(target_os = "linux")]
    {
        /// As `nice` says it: a tenth of a core that requests need, all of one that they do not.
        const NICE: i32 = 10;
        // Who may not do even that reloads as fast as requests are served.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

fn reload(live: &Live) {
    match live.reload() {
        Ok(reloaded) => {
            if !reloaded.remarks.is_empty() {
                log::warn!("the new configuration is in force, with remarks:\n{}", reloaded.remarks.trim_end());
            }
            for key in &reloaded.needs_restart {
                log::warn!(
                    "`{key}` has changed, which needs a restart; everything else of the new configuration is in force"
                );
            }
            log::info!("reloaded generation={}", reloaded.number);
        }
        Err(refused) => log::error!("reload refused, the configuration in force stays:\n{refused}"),
    }
}

/// Looks the names of upstreams up, again and again.
struct Names {
    live: Arc<Live>,
}

#[async_trait]
impl BackgroundService for Names {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(LOOK_UP_EVERY) => {}
            }
            let generation = self.live.current();
            if generation.has_names() {
                // The resolver blocks, and its failure is in the log already.
                let _ = tokio::task::spawn_blocking(move || generation.refresh_names()).await;
            }
        }
    }
}

/// SIGTERM: Pingora closes the listeners and then sleeps; this ends the process as soon as nothing is under way.
struct Drain {
    telemetry: Arc<Telemetry>,
    connections: Arc<Admission>,
    /// Whoever still runs then is cut off.
    grace_period: Duration,
}

#[async_trait]
impl BackgroundService for Drain {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if shutdown.changed().await.is_err() {
            return;
        }
        // Pingora reads signals once. While it sleeps, a second one must still be able to say "now".
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        log::info!("stopping requests={}", self.telemetry.running.count());
        let begin = Instant::now();
        let (idle, end) = (begin + LINGER, begin + self.grace_period);
        loop {
            tokio::select! {
                _ = interrupt.recv() => break log::warn!("stopped at once requests={}", self.telemetry.running.count()),
                _ = terminate.recv() => {}
                () = tokio::time::sleep(DRAIN_POLL) => {}
            }
            // A connection without a request may have one on its way; for how long that is waited for says the edge.
            if self.telemetry.running.count() == 0
                && (self.connections.open() == 0 || Instant::now() > idle + DRAIN_POLL * 10)
            {
                break log::info!("stopped");
            }
            if Instant::now() >= end {
                break log::warn!("stopped after server.grace_period requests={}", self.telemetry.running.count());
            }
        }
        exit(&self.telemetry.access_log)
    }
}

/// Runs a service that answers by itself on an address of its own.
pub fn add_http_service<A>(server: &mut Server, name: &str, app: A, address: SocketAddr)
where
    A: ServerApp + Send + Sync + 'static,
{
    let mut service = Service::new(name.to_owned(), app);
    service.threads = Some(1);
    service.add_tcp(&address.to_string());
    server.add_service(service);
}
