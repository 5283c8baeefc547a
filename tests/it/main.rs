//! The integration tests: one binary, one module for each thing that the product promises.
//!
//! `client`, `upstream`, `gateway`, their HTTP/2 and TLS counterparts and `certificates` are the tools; everything else
//! is tests. All of it stays on 127.0.0.1.

mod access_log;
mod admin;
mod balancing;
mod browser;
mod cases;
mod certificates;
mod client;
mod corpus;
mod demo;
mod deployment;
mod docs;
mod effective;
mod errors;
mod explain;
mod faults;
mod forwarding;
mod framing;
mod gateway;
mod h2_client;
mod h2_upstream;
mod http2;
mod layout;
mod lifecycle;
mod limits;
mod metrics;
mod mutation;
mod regressions;
mod schema;
mod tls;
mod tls_client;
mod twins;
mod upgrade;
mod upstream;
mod upstream_tls;
mod watch;
mod websocket;
