//! Changes by a command. It reads all keys once, checks the change on a copy of them, and then writes the changed keys.

use std::sync::Arc;

use super::accept::{self, Acceptance, Base, Known};
use super::apisix;
use super::client::Operation;
use super::keys::{Key, Layout, State};
use super::write::Transaction;
use super::{Etcd, lock};
use crate::config::{Part, PartChange, PartKind, Parts, values};
use crate::problem::Problems;
use crate::snapshot::Snapshot;
use crate::source::{Reading, StoreError};

/// A change that is not written yet.
#[derive(Debug)]
pub(crate) struct EtcdPlan {
    /// The configuration of the present keys. None if no configuration can be made of them.
    pub(crate) before: Option<Snapshot>,
    pub(crate) after: Option<Snapshot>,
    /// Errors that the change would cause, as `check` prints them.
    pub(crate) errors: Vec<String>,
    /// Made one after the other: etcd limits the size of a transaction.
    pub(crate) transactions: Vec<Transaction>,
}

/// Most keys of a transaction. The default limit of etcd is 128, and 1.5 MiB.
const MOST_KEYS: usize = 100;
const MOST_BYTES: usize = 1 << 20;

/// All parts in etcd.
#[derive(Debug)]
pub(crate) struct EtcdParts {
    pub(crate) parts: Parts,
    pub(crate) revision: i64,
    /// Keys whose values cannot be read. They are not among the parts.
    pub(crate) unreadable: Vec<String>,
}

impl Etcd {
    /// Reads all keys: their newest values, also those that are refused.
    pub(crate) fn parts(&self) -> Result<EtcdParts, String> {
        let mut state = self.read_state()?;
        if state.layout() == Layout::Apisix {
            let parts = apisix::as_parts(&Base::default(), &state, &Known::default());
            if let Some(why) = parts.whole {
                return Err(why);
            }
            state = Arc::new(parts.state);
        }
        let mut all = EtcdParts { parts: Parts::default(), revision: state.revision, unreadable: Vec::new() };
        for (key, raw) in &state.keys {
            let text = raw.bytes().ok().and_then(|bytes| std::str::from_utf8(bytes).ok());
            let value = text.and_then(|text| values(text).or_else(|| typed(key.kind, text)));
            match (value, key.kind) {
                (Some(serde_json::Value::Object(others)), PartKind::Settings) => all.parts.others = others,
                (Some(mut value), kind) => {
                    if let (PartKind::Service, Some(service)) = (kind, value.as_object_mut()) {
                        service.shift_remove("name");
                    }
                    all.parts.named.insert((kind, key.name.to_string()), value);
                }
                (None, _) => all.unreadable.push(key.to_string()),
            }
        }
        Ok(all)
    }

    /// Tries changes on the keys that [`Etcd::parts`] has read.
    pub(crate) fn plan(&self, changes: &[PartChange]) -> Result<EtcdPlan, StoreError> {
        if let Some(why) = self.0.address.layout.read_only() {
            return Err(StoreError::ReadOnly { place: self.name(), why: why.to_owned() });
        }
        let state = lock(&self.0.seen).state.clone().unwrap_or_default();
        let mut operations = Vec::new();
        let mut new = State::clone(&state);
        for change in changes {
            let key = Key::new(change.kind, &change.name);
            let raw = state.keys.get(&key);
            let operation = self.operation(change, raw.map_or(0, |raw| raw.revision), raw)?;
            match &operation.value {
                Some(value) => drop(new.put(key.to_string().as_bytes(), state.revision + 1, value.clone())),
                None => drop(new.delete(key.to_string().as_bytes())),
            }
            operations.push(operation);
        }
        let (before, after) = (self.try_state(&state)?, self.try_state(&Arc::new(new))?);
        let mut errors: Vec<String> = after
            .refused
            .iter()
            .filter(|refusal| {
                refusal.revision > state.revision || !before.refused.iter().any(|known| known.key == refusal.key)
            })
            .map(|refusal| refusal.text.clone())
            .collect();
        if after.whole != before.whole {
            errors.extend(after.whole);
        }
        Ok(EtcdPlan { before: before.snapshot, after: after.snapshot, errors, transactions: batches(operations) })
    }

    fn try_state(&self, state: &Arc<State>) -> Result<Acceptance, StoreError> {
        let reading = Reading::default();
        let base = self.base(&reading, state).map_err(|refused| {
            let (_, loaded) = *refused;
            StoreError::Refused { text: loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") }
        })?;
        Ok(self.with_env(&reading, |env| accept::accept(&base, state, &Known::default(), env)))
    }
}

/// The value of a text that JSON cannot express, such as one with YAML tags: all keys that corsgate knows.
fn typed(kind: PartKind, text: &str) -> Option<serde_json::Value> {
    let part = Part::parse(kind, text, &mut Problems::default())?;
    serde_json::from_str(&part.with_defaults()).ok()
}

/// Transactions with these operations, in their order.
fn batches(operations: Vec<Operation>) -> Vec<Transaction> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for operation in operations {
        let size = operation.key.len() + operation.value.as_ref().map_or(0, Vec::len);
        if !batch.is_empty() && (batch.len() == MOST_KEYS || bytes + size > MOST_BYTES) {
            all.push(Transaction::new(std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += size;
        batch.push(operation);
    }
    if !batch.is_empty() {
        all.push(Transaction::new(batch));
    }
    all
}
