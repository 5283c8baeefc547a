//! Lists in the form of the configuration, and the JSON Schemas of all forms of values.

pub(crate) mod forms;
mod list;

pub use self::list::{List, given};
