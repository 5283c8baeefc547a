//! The integration tests: one binary, one module for each thing that the product promises.
//!
//! `client`, `upstream` and `gateway` are the tools; everything else is tests. All of it stays on 127.0.0.1.

mod browser;
mod cases;
mod client;
mod corpus;
mod demo;
mod deployment;
mod docs;
mod errors;
mod forwarding;
mod framing;
mod gateway;
mod layout;
mod lifecycle;
mod mutation;
mod twins;
mod upstream;
