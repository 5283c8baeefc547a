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
//! The request path: [`accept`], [`read`], [`route`], [`decide`], [`cors`], [`forward`], [`record`].
//! The configuration path: [`source`], [`config`], [`snapshot`], [`live`].

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod accept;
pub mod admin;
pub mod cli;
pub mod codes;
pub mod config;
pub mod cors;
pub mod counter;
pub mod decide;
pub mod demo;
pub mod domain;
pub mod explain;
pub mod forward;
pub mod forwarded;
pub mod health;
pub mod live;
pub mod logging;
pub mod notation;
pub mod problem;
pub mod process;
pub mod read;
pub mod record;
pub mod report;
pub mod route;
pub mod snapshot;
pub mod source;
pub mod terminal;
pub mod tls;
pub mod upstream;
