//! What the tests are made with: clients, upstreams, certificates, and the gateway as a process.
//!
//! Each helper that is not trivial has tests of its own at the end of its file.

pub mod certificates;
pub mod client;
pub mod gateway;
pub mod h2_client;
pub mod h2_upstream;
pub mod tls_client;
pub mod upstream;
