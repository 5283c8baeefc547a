//! Where a configuration comes from.

pub mod watch;
