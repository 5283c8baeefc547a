//! corsgate: an edge proxy and small API gateway on Pingora whose speciality is CORS.
//!
//! Two paths meet in one pointer, [`live`]:
//!
//! ```text
//! configuration:  file --source--> text --config--> Document --snapshot--> Snapshot --live--> current configuration
//!                                                                                                  |
//!                                                                                    read once for each request
//!                                                                                                  |
//! request:        connection --accept, read--> request --route, decide, cors--> Verdict <----------+
//!                                                                                  |
//!                                        log, metrics <--record-- response <--forward
//! ```
//!
//! The configuration path runs at start, at each reload and in `corsgate check`, with the same functions. The request
//! path parses no configuration, takes no lock that a reload holds, and cannot fail because of a wrong configuration.
//!
//! # Rooms
//!
//! A room is a top-level module. Request path:
//!
//! | room | what it does |
//! |---|---|
//! | [`accept`] | accepts connections: connection limits, PROXY header, TLS handshake |
//! | [`read`] | reads requests from a connection, checks their bytes before Pingora parses them; timeouts of clients |
//! | [`route`] | finds the route of a host and a path |
//! | [`decide`] | decides what happens to a request: forward, reply or refuse; texts of the gateway's own replies |
//! | [`cors`] | the CORS policy engine, and the edits of response headers |
//! | [`behavior`] | what a route does besides routing and CORS: one file for each behavior |
//! | [`forward`] | Pingora's hooks: attempts, request and response headers, timeouts |
//! | [`limiter`] | the budgets of rate limits while they run: one for each client, header value or cookie |
//! | [`upstream`] | the nodes of upstreams while they run: addresses, balancing, ejection, texts of their failures |
//! | [`record`] | access log, counters, and the last refused requests |
//!
//! Configuration path:
//!
//! | room | what it does |
//! |---|---|
//! | [`source`] | reads the configuration's text and the files it names, and watches them; the root certificates of the machine |
//! | [`config`] | parses the text into a `Document`, knows the line of each key, and the keys of other products |
//! | [`snapshot`] | compiles a `Document` into a `Snapshot`, which is all that a request reads |
//! | [`live`] | has the current configuration, and replaces it as a whole; looks up DNS names |
//!
//! Other readers of snapshots:
//!
//! | room | what it does |
//! |---|---|
//! | [`explain`] | simulates a browser, says why a page's request gets its response, and offers the edit that changes it |
//! | [`expect`] | checks requests of pages with the results that a configuration must give |
//! | [`diff`] | says what changes for requests between two snapshots |
//! | [`objects`] | reads single objects of a configuration, and makes the new text when one changes |
//! | [`import`] | makes a configuration from that of another gateway, and reports what changes in meaning |
//! | [`learn`] | counts what pages use in bounded memory, and makes the smallest policy that covers it |
//!
//! For requests to other servers:
//!
//! | room | what it does |
//! |---|---|
//! | [`probe`] | sends a page's request to any server with the browser of [`explain`], and audits what a server allows |
//! | [`client`] | the HTTP client of [`probe`] |
//!
//! For operators:
//!
//! | room | what it does |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`process`] | start, listeners, signals, reload, shutdown, handover of sockets |
//! | [`admin`] | the admin listener: readiness, metrics, status page |
//! | [`health`] | active health checks of nodes |
//! | [`report`] | problems of a configuration as text and as JSON |
//! | [`demo`] | `corsgate demo`: a configuration and an upstream to try |
//!
//! Ground, which knows nothing of the rooms above:
//!
//! | room | what it does |
//! |---|---|
//! | [`problem`] | everything that can be wrong with a configuration, and the remedy |
//! | [`notation`] | how values are written in a configuration, and their JSON Schema |
//! | [`domain`] | host names, and the origin of a request's own URL |
//! | [`trusted_proxies`] | whose forwarding headers are trusted; from them, the client's address and the origin of its URL |
//! | [`tls`] | certificates and keys |
//! | [`tokens`] | tokens of the write API: their file, their roles |
//! | [`codes`] | enums whose variants have a code for logs and metrics |
//! | [`per_thread`] | values of which each thread has its own |
//! | [`counter`] | counters and histograms |
//! | [`hash`] | consistent hashing |
//! | [`logging`] | one rule for quotes in log lines, and a limit on repeated lines |
//! | [`terminal`] | colours, line breaks and escapes for terminals |
//!
//! # Invariants
//!
//! 1. The rooms that decide and compile are pure: they do no I/O, read no clock and no environment, are not async, and
//!    do not name Pingora or tokio. The caller passes the content of files, the root certificates and the time. These
//!    are [`behavior`], [`config`], [`cors`], [`decide`], [`diff`], [`domain`], [`expect`], [`explain`], [`hash`],
//!    [`import`], [`learn`], [`notation`], [`objects`], [`probe`], [`problem`], [`report`], [`route`], [`snapshot`], [`tls`],
//!    [`tokens`], [`trusted_proxies`], and parts of [`record`].
//! 2. Only [`source`] reads configuration files. Only [`accept`], [`admin`], [`demo`], [`forward`], [`health`],
//!    [`process`], [`read`] and [`upstream`] name Pingora, and [`source`] its loader of root certificates.
//! 3. Every [`snapshot::Snapshot`] comes from [`snapshot::Snapshot::compile`]. If that fails, the running configuration
//!    does not change.
//! 4. A request takes the current configuration once, in its first hook. Later hooks use that one. A connection takes
//!    it once, when it is accepted.
//! 5. Every response to a request, from the upstream or from the gateway, gets its CORS header fields through
//!    [`cors::Edits::apply`], and no other code writes such fields. Interim responses (100, 103) get none. Bytes that
//!    never became a request have no host, so no policy is known, and the responses of [`read`] to them have no such
//!    fields: 408, 414 and 431 for an incomplete header; 400, 405 and 505 for bytes that are not a request.
//! 6. Rooms import each other without circles.
//!
//! `tests/it/layout.rs` checks 1, 2, the second half of 5, and 6 with a table of allowed imports.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

// The request path.
pub mod accept;
pub mod read;
pub mod route;
pub mod decide;
pub mod cors;
pub mod behavior;
pub mod forward;
pub mod limiter;
pub mod upstream;
pub mod record;

// The configuration path.
pub mod source;
pub mod config;
pub mod snapshot;
pub mod live;

// Other readers of snapshots.
pub mod explain;
pub mod expect;
pub mod diff;
pub mod objects;
pub mod import;
pub mod learn;

// Requests to other servers.
pub mod probe;
pub mod client;

// For operators.
pub mod cli;
pub mod process;
pub mod admin;
pub mod health;
pub mod report;
pub mod demo;

// Ground.
pub mod problem;
pub mod codes;
pub mod logging;
pub mod notation;
pub mod domain;
pub mod trusted_proxies;
pub mod tls;
pub mod tokens;
pub mod per_thread;
pub mod counter;
pub mod hash;
pub mod terminal;
