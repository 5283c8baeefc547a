//! How values are written in a configuration file: lists, and the JSON Schema of each kind of value.

pub(crate) mod forms;
mod list;

pub use self::list::{List, given};
