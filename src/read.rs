//! A client's connection to its requests: reads headers, enforces timeouts, and hands each request to the application.
//!
//! HTTP/1 headers are read here, HTTP/2 by Pingora. [`watchdog`] enforces the deadline and the idle timeout of a request.

mod client;
mod connection;
mod requests;
pub(crate) mod watchdog;

pub(crate) use self::client::Client;
pub(crate) use self::client::ClientTls;
pub(crate) use self::connection::ClientStream;
pub(crate) use self::requests::{OVER_LIMIT_TIMEOUT, Requests};
