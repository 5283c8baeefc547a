//! The integration tests: one binary, one module for each subject. [`support`] has the helpers.
//!
//! All connections stay on loopback addresses.

mod access_log;
mod admin;
mod balancing;
mod browser;
mod cases;
mod chromium;
mod codes;
mod compression;
mod config_mutations;
mod connection_age;
mod corpus;
mod demo;
mod deployment;
mod docs;
mod early_responses;
mod effective;
mod errors;
mod explain;
mod forwarding;
mod framing;
mod h2c;
mod header_names;
mod http2;
mod layout;
mod lifecycle;
mod limits;
mod metrics;
mod node_limits;
mod oracles;
mod origin_expressions;
mod peers;
mod rate_limits;
mod regressions;
mod schema;
mod shared_lines;
mod support;
mod tls;
mod unix_nodes;
mod unix_listeners;
mod upgrade;
mod upstream_failures;
mod upstream_tls;
mod watch;
mod websocket;
