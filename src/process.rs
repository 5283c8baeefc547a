//! The process: start, listeners, signals, reload, upgrade and graceful shutdown.
//!
//! Pingora can shut down gracefully, exit at once, or hand over its sockets. This module adds three functions. It
//! reloads on SIGHUP. It exits as soon as no request is running, while Pingora waits for the whole grace period. And it
//! returns an error at the start if an address is in use, while Pingora would run without that listener.

mod drain;
mod handover;
mod memory;
mod names;
mod reload;
mod signals;
mod socket_files;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use pingora_core::apps::ServerApp;
use tokio::net::TcpSocket;

use self::drain::DrainService;
use self::names::NamesService;
use self::reload::ReloadService;
pub(crate) use self::reload::{ReloadOn, ReloadSignal};
use self::signals::Signals;
use self::socket_files::{SocketFault, SocketFiles};
use crate::accept::{Acceptor, listener_config};
use crate::admin::metrics::Metrics;
use crate::admin::{self, AdminServer, LimitedAdmin, Readiness};
use crate::forward::Gateway;
use crate::health::Health;
use crate::live::Live;
use crate::logging::quoted;
use crate::record::{AccessLogger, Recorder};
use crate::snapshot::{Address, StartupListener};
use crate::source::system_roots;

/// Maximum number of attempts of a request. Pingora has one limit for all upstreams. `retries` of an upstream is at
/// most 10, so a request tries at most 11 nodes, each a second time if a kept connection was closed.
const MAX_ATTEMPTS: usize = 22;
/// Maximum number of idle connections to nodes in each thread. They are kept for at most `timeouts.idle`. With
/// Pingora's default of 128, a burst of requests would close its connections, and the next burst would open them again.
const IDLE_CONNECTIONS: usize = 1024;
/// Maximum time that the exit waits for queued lines of the access log.
const ACCESS_LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason why the process could not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The signal handler could not be installed.
    Signal(io::Error),
    /// The process cannot listen on an address.
    Bind(SocketAddr, io::Error),
    /// The process cannot listen on the path of a Unix-domain socket.
    BindPath(Box<str>, SocketFault),
    /// The sockets of the running process cannot be taken over.
    Upgrade(String),
    /// The root certificates of this machine cannot be loaded.
    Roots(String),
}

/// Origin of the listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// The process opens them.
    Own,
    /// The running process hands them over on SIGQUIT.
    Inherited,
}

/// Serves until a signal ends the process. Returns only if the start fails.
pub(crate) fn serve(
    live: Arc<Live>,
    reload_signal: ReloadSignal,
    sockets: Sockets,
    reload_on: ReloadOn,
) -> Result<std::convert::Infallible, StartError> {
    serve_with(live, reload_signal, sockets, reload_on, |_| {})
}

/// Like [`serve`], with additional services in the same process.
pub(crate) fn serve_with(
    live: Arc<Live>,
    reload_signal: ReloadSignal,
    sockets: Sockets,
    reload_on: ReloadOn,
    add: impl FnOnce(&mut Server),
) -> Result<std::convert::Infallible, StartError> {
    let generation = live.current();
    let fixed = generation.snapshot.startup().clone();
    let upgrade = live.source().path().map_or_else(
        || Err("the configuration has no file".to_owned()),
        |file| handover::socket(fixed.upgrade_socket.as_deref(), file).map_err(|error| error.to_string()),
    );
    for listener in &fixed.listeners {
        // If an address is in use, Pingora retries for half a minute, and then runs without the listener.
        match &listener.address {
            Address::Ip(address) if sockets == Sockets::Own => check_bind(*address)?,
            Address::Ip(_) => {}
            Address::Unix(path) => {
                let checked = socket_files::check(Path::new(&**path), sockets);
                checked.map_err(|fault| StartError::BindPath((**path).into(), fault))?;
            }
        }
    }
    match (sockets, &upgrade) {
        (Sockets::Own, _) => fixed.admin.map_or(Ok(()), check_bind)?,
        // If /proc cannot be read, the start continues. In the worst case, Pingora reports that no sockets were handed
        // over.
        (Sockets::Inherited, Ok(socket)) if handover::is_waiting_at(socket).unwrap_or(false) => {
            return Err(StartError::Upgrade(format!("another process already waits at {}", socket.display())));
        }
        (Sockets::Inherited, Ok(socket)) => {
            log::info!(
                "waiting for listening sockets, send SIGQUIT to the running process socket={} timeout={:?}",
                quoted(socket.display()),
                handover::UPGRADE_TIMEOUT
            );
        }
        (Sockets::Inherited, Err(why)) => return Err(StartError::Upgrade(why.clone())),
    }
    // Pingora loads the certificates for every configuration, and panics if they cannot be loaded.
    system_roots().map_err(StartError::Roots)?;
    end_when_a_listener_fails();

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads: if fixed.threads == 0 { cores } else { fixed.threads },
        // The drain service ends the process first, and logs how many requests it cut off.
        grace_period_seconds: Some(fixed.grace_period.as_secs() + 2),
        graceful_shutdown_timeout_seconds: Some(1),
        max_retries: MAX_ATTEMPTS,
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        // Pingora's default is a path that every user can write to.
        upgrade_sock: upgrade.as_ref().map_or("/dev/null/corsgate".into(), |path| path.to_string_lossy().into_owned()),
        ..ServerConf::default()
    };
    let options = Opt { upgrade: sockets == Sockets::Inherited, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(options, conf);
    let timeout = match (sockets, &upgrade) {
        (Sockets::Inherited, Ok(socket)) => Some(handover::explain_timeout(socket.clone())),
        _ => None,
    };
    server.bootstrap();
    drop(timeout);

    let recorder = Arc::new(Recorder::new(fixed.admin.is_some(), live.access_log().clone()));
    let access_log = live.access_log().clone();
    let gateway = Gateway::new(live.clone(), recorder.clone());
    let proxy = pingora_proxy::http_proxy(&server.configuration, gateway);
    let edge = Acceptor::new(live.clone(), proxy, memory::default_connections());
    let (connections, counts) = (edge.admission(), edge.counts());
    let mut edge = Service::new("edge".to_owned(), edge);
    for listener in generation.snapshot.listeners() {
        edge.add_listener(socket_files::with_mode(listener_config(listener), listener));
    }
    server.add_service(edge);
    let readiness = Readiness::default();
    if let Some(address) = fixed.admin {
        let admin = AdminServer::new(admin::Process {
            live: live.clone(),
            readiness: readiness.clone(),
            recorder: recorder.clone(),
            connections: connections.clone(),
            metrics: Metrics::new(live.clone(), recorder.clone(), counts),
            started: SystemTime::now(),
        });
        add_http_service(&mut server, "admin", LimitedAdmin::new(admin), address);
    }
    server
        .add_service(background_service("reload", ReloadService { live: live.clone(), reload_signal, on: reload_on }));
    server.add_service(background_service("names", NamesService { live: live.clone() }));
    server.add_service(background_service("health", Health::new(live)));
    server.add_service(background_service(
        "drain",
        DrainService { recorder, connections, grace_period: fixed.grace_period },
    ));
    add(&mut server);

    let snapshot = &generation.snapshot;
    let addresses: Vec<String> = (fixed.listeners.iter())
        .map(|StartupListener { address, tls, .. }| format!("{address}{}", if *tls { "/tls" } else { "" }))
        .collect();
    let admin = fixed.admin.map(|admin| format!(" admin={admin}")).unwrap_or_default();
    log::info!(
        "serving listeners={}{admin} routes={} upstreams={}",
        addresses.join(","),
        snapshot.routes().len(),
        snapshot.upstreams().len()
    );
    drop(generation);
    let socket_files = SocketFiles::of(&fixed.listeners);
    let signals = Signals { readiness, drain_delay: fixed.drain_delay, upgrade, socket_files };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    exit(&access_log)
}

/// Ends the process after the queued lines of the access log are written.
fn exit(access_log: &AccessLogger) -> ! {
    access_log.finish(ACCESS_LOG_TIMEOUT);
    log::logger().flush();
    std::process::exit(0)
}

/// Ends the process if Pingora cannot open a listener. Otherwise Pingora panics in a task, and runs without the
/// listener.
fn end_when_a_listener_fails() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if panic.to_string().contains("Failed to build listeners") {
            log::error!("listener failed, exiting");
            std::process::exit(1);
        }
    }));
}

/// Checks that an address can be bound. It does not listen, because a client of this socket would be disconnected.
fn check_bind(address: SocketAddr) -> Result<(), StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    bind().map_err(|error| StartError::Bind(address, error))
}

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Signal(error) => write!(f, "cannot handle SIGHUP: {error}"),
            StartError::Upgrade(why) => write!(f, "cannot take over the sockets of a running process: {why}"),
            StartError::Roots(why) => write!(
                f,
                "cannot load the root certificates of this machine: {why}; correct SSL_CERT_FILE and SSL_CERT_DIR, or, \
                 if neither is set, the system's own certificates"
            ),
            StartError::BindPath(path, fault) => write!(f, "cannot listen on unix:{path}: {fault}"),
            StartError::Bind(address, error) => {
                write!(f, "cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "stop the process that listens there, or write another address")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "write a port of 1024 or above, or give the program CAP_NET_BIND_SERVICE")
                    }
                    _ => write!(f, "write an address of this machine"),
                }
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Adds an HTTP service on its own address, with one thread.
pub(crate) fn add_http_service<A>(server: &mut Server, name: &str, app: A, address: SocketAddr)
where
    A: ServerApp + Send + Sync + 'static,
{
    let mut service = Service::new(name.to_owned(), app);
    service.threads = Some(1);
    service.add_tcp(&address.to_string());
    server.add_service(service);
}
