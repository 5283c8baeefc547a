//! Paths of private keys are not shown. A client that sends the shown object back keeps the path.

use serde_json::Value;

use super::id::route_name;
use crate::problem::{KeyPath, PathStep};

/// Stands for the path of a private key.
pub(super) const REDACTED: &str = "[redacted]";

/// Replaces the paths of private keys: `key` inside of `tls`.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                match value {
                    Value::Object(tls) if name == "tls" => {
                        if let Some(Value::String(path)) = tls.get_mut("key") {
                            REDACTED.clone_into(path);
                        }
                    }
                    _ => redact(value),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Replaces [`REDACTED`] by the path that the old object has at the same place. Entries of lists are paired by their
/// names, because their positions may have changed. Err: the first place for which the old object has no path.
pub(super) fn restore(new: &mut Value, old: Option<&Value>) -> Result<(), KeyPath> {
    restore_at(new, old, &mut KeyPath::default())
}

fn restore_at(new: &mut Value, old: Option<&Value>, at: &mut KeyPath) -> Result<(), KeyPath> {
    match new {
        Value::Object(entries) => {
            for (name, value) in entries {
                at.0.push(PathStep::Key(name.clone()));
                let old = old.and_then(|old| old.get(name.as_str()));
                match value {
                    Value::Object(tls) if name == "tls" => {
                        if let Some(key @ Value::String(_)) = tls.get_mut("key")
                            && *key == REDACTED
                        {
                            at.0.push(PathStep::Key("key".to_owned()));
                            *key = old.and_then(|old| old.get("key")).cloned().ok_or_else(|| at.clone())?;
                            at.0.pop();
                        }
                    }
                    _ => restore_at(value, old, at)?,
                }
                at.0.pop();
            }
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter_mut().enumerate() {
                at.0.push(PathStep::Index(index));
                let name = route_name(entry);
                let same = |old: &&Value| name.is_some() && route_name(old) == name;
                let old = old.and_then(Value::as_array).and_then(|old| old.iter().find(same));
                restore_at(entry, old, at)?;
                at.0.pop();
            }
        }
        _ => {}
    }
    Ok(())
}
