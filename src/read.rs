//! Reads requests from an accepted connection and hands each one to the application. It decides nothing about a
//! request.
//!
//! - [`connection`] reads HTTP/1 headers, lets Pingora read HTTP/2, and enforces the limits of a connection.
//! - [`stream`] is the connection as Pingora reads and writes it; it enforces `limits.send_timeout`.
//! - [`watchdog`] enforces the deadline and the idle timeout of a request.
//! - [`client`] is what the hooks know about the connection.

mod client;
mod connection;
mod stream;
pub(crate) mod watchdog;

pub(crate) use self::client::{Client, ClientTls};
pub(crate) use self::connection::{ClientConnection, OVER_LIMIT_TIMEOUT};
pub(crate) use self::stream::ClientStream;
