//! corsgate: an edge proxy and small API gateway on Pingora whose speciality is CORS.
//!
//! The whole product in one line:
//!
//! ```text
//! text --parse--> Document --compile--> Snapshot --swap--> Live     request --judge--> Verdict --edits--> headers
//! ```
//!
//! The left half runs at start, on reload and in `check`, the same functions each time. The right half runs for each
//! request; it parses no configuration, takes no lock and cannot fail for reasons of configuration.
//!
//! | module | what it is |
//! |---|---|
//! | [`problem`] | what can be wrong with a configuration, and what to write instead |
//! | [`cors`] | the policy engine: settings, policy, decision, edits |
//! | [`route`] | host and path to a route |
//! | [`config`] | the file: its shape, how text becomes it, where its keys stand |
//! | [`tls`], [`forwarded`] | certificates, from the text of their files; who a request really comes from |
//! | [`snapshot`] | a configuration, compiled; what happens to a request |
//! | [`answer`] | what the gateway answers by itself |
//! | [`upstream`] | running upstreams: addresses, how they are, and whose turn it is |
//! | [`health`] | asks nodes whether they can serve |
//! | [`live`] | the configuration in force, and how it is replaced |
//! | [`edge`] | where clients connect: limits, PROXY headers, TLS, time |
//! | [`proxy`] | Pingora's hooks |
//! | [`server`] | the process: listeners, signals, the end |
//! | [`telemetry`] | what requests leave behind: counts, log lines, the last refusals |
//! | [`browser`] | what a page's `fetch()` sends, and what it gets to see |
//! | [`explain`] | why a request gets what it gets, and the edit that lets it pass |
//! | [`admin`], [`demo`], [`cli`], [`report`], [`effective`], [`schema`] | what operators see |
//!
//! What must stay true:
//!
//! 1. [`problem`], [`list`], [`domain`], [`forwarded`], [`tls`], [`cors`], [`route`], [`config`], [`snapshot`], [`answer`],
//!    [`browser`], [`explain`], [`effective`], [`schema`], [`report`] and the lines of [`telemetry::access_log`] do no I/O,
//!    read no clock and no environment, name nothing of Pingora or tokio, and are not async. What files hold and what day
//!    it is, the compiler is told. A test reads the files and says so.
//! 2. Only [`live`] and [`cli`] read configuration files. Only [`edge`], [`proxy`], [`health`], [`server`], [`admin`]
//!    and [`demo`] name Pingora.
//! 3. Every [`snapshot::Snapshot`] came from [`snapshot::Snapshot::compile`]. A failed one changes nothing that runs.
//! 4. A request looks at the live configuration once, in its first filter; later ones read what it found.
//! 5. Every response, ours or the upstream's, gets its CORS headers through [`cors::Edits::apply`].

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod admin;
pub mod answer;
pub mod browser;
pub mod cli;
pub mod config;
pub mod cors;
pub mod demo;
pub mod domain;
pub mod edge;
pub mod effective;
pub mod explain;
pub mod forwarded;
pub mod health;
pub mod list;
pub mod live;
pub mod problem;
pub mod proxy;
pub mod report;
pub mod request_id;
pub mod route;
pub mod schema;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
