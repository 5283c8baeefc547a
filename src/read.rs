//! Reads requests from an accepted connection and hands each one to the application. It decides nothing about a
//! request.
//!
//! - [`connection`] serves the requests of a connection one after the other; Pingora reads HTTP/2.
//! - [`header`] reads HTTP/1 headers, and enforces their timeouts and their size.
//! - [`check`] checks a complete header, and [`chunks`] a chunked body, before Pingora parses them.
//! - [`stream`] is the connection as Pingora reads and writes it; it enforces `limits.send_timeout`.
//! - [`watchdog`] enforces the deadline and the idle timeout of a request.
//! - [`closing`] is the signal that closes waiting connections.
//! - [`client`] has the facts about the connection for the hooks.

mod check;
mod chunks;
mod client;
mod closing;
mod connection;
#[cfg(fuzzing)]
pub mod fuzzing;
mod header;
mod stream;
pub(crate) mod watchdog;

pub(crate) use self::client::{Client, ClientTls};
pub(crate) use self::connection::{
    ClientConnection, LINGERING_CLOSE_BYTES, LINGERING_CLOSE_TIMEOUT, OVER_LIMIT_TIMEOUT, Protocol,
};
pub(crate) use self::stream::ClientStream;
