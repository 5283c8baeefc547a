//! A request to what happens to it.

pub mod local_reply;
