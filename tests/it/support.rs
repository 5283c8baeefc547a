//! Helpers of the tests: clients, upstreams, certificates, and the gateway as a process.
//!
//! The tests of a helper are at the end of its file.

pub mod apache;
pub mod certificates;
pub mod chromium;
pub mod client;
pub mod etcd;
pub mod fields;
pub mod firefox;
pub mod gateway;
pub mod h2_client;
pub mod h2_upstream;
pub mod nginx;
pub mod process;
pub mod tls_client;
pub mod unix_relay;
pub mod upstream;
