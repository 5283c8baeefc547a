//! Forms of values in the configuration: lists, durations, sizes, names of definitions, and the JSON Schemas of all
//! forms.

mod choices;
pub(crate) mod forms;
mod list;
mod scalar;
mod units;

pub use self::choices::Use;
pub(crate) use self::choices::{Named, OffOr, Toggle, WriteInstead};
pub use self::list::{List, given};
pub(crate) use self::scalar::{quoted, scalar};
pub use self::units::{Duration, Size};
