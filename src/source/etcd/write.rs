//! Writes changed parts of a configuration to etcd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use super::accept::Base;
use super::client::{Client, ClientError, Operation};
use super::keys::{Key, Raw, RawValue};
use super::value::Version;
use super::{Etcd, lock};
use crate::config::{PartChange, part_text};
use crate::source::StoreError;

/// Changes that are made together.
#[derive(Debug)]
pub(crate) struct Transaction(Vec<Operation>);

impl Transaction {
    /// Number of keys.
    pub(crate) fn keys(&self) -> usize {
        self.0.len()
    }

    pub(super) fn new(operations: Vec<Operation>) -> Self {
        Transaction(operations)
    }
}

impl Etcd {
    /// Checks that keys can be written: etcd can be reached, and the active configuration is from it.
    pub(in crate::source) fn check_store(&self) -> Result<(), StoreError> {
        if let Some(why) = self.0.address.layout.read_only() {
            return Err(StoreError::ReadOnly { place: self.name(), why: why.to_owned() });
        }
        let status = lock(&self.0.status);
        match &status.error {
            Some(why) => Err(StoreError::Away { why: why.clone() }),
            None if status.applied.cache.is_some() => {
                Err(StoreError::Away { why: "the active configuration is from the cache".to_owned() })
            }
            None => Ok(()),
        }
    }

    /// The transaction that makes the changes, if the keys still have the versions of the active configuration. It replaces
    /// a refused value.
    pub(crate) fn prepare(&self, changes: &[PartChange]) -> Result<Transaction, StoreError> {
        self.check_store()?;
        let (good, refused) = (lock(&self.0.versions).good.clone(), lock(&self.0.status).refused.clone());
        let state = lock(&self.0.seen).state.clone().unwrap_or_default();
        let mut operations = Vec::new();
        for change in changes {
            let key = Key::new(change.kind, &change.name);
            let raw = state.keys.get(&key);
            let (revision, shown) = (raw.map_or(0, |raw| raw.revision), key.to_string());
            let known = match refused.iter().find(|refusal| refusal.key == shown) {
                Some(refusal) => refusal.revision,
                None => good.get(&key).map_or(0, |version| version.raw.revision),
            };
            // A newer value that is not loaded yet.
            if revision != known {
                return Err(StoreError::Changed);
            }
            operations.push(self.operation(change, revision, raw)?);
        }
        Ok(Transaction(operations))
    }

    /// The change of a key whose last change has this revision. The new value keeps the comments of the present one.
    pub(super) fn operation(
        &self,
        PartChange { kind, name, value }: &PartChange,
        revision: i64,
        raw: Option<&Arc<Raw>>,
    ) -> Result<Operation, StoreError> {
        let key = Key::new(*kind, name);
        let present = raw.and_then(|raw| match &raw.value {
            RawValue::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            RawValue::TooLarge(_) => None,
        });
        let value = value.as_ref().map(|value| part_text(present, value).into_bytes());
        if let Some(bytes) = &value {
            let version = Version::read(&Base::default(), &key, &Raw::new(revision, bytes.clone()));
            if let Some(refusal) = version.fault() {
                return Err(StoreError::Refused { text: refusal.text.clone() });
            }
        }
        Ok(Operation { key: format!("{}/{key}", self.0.address.prefix).into_bytes(), revision, value })
    }

    /// Makes the transaction, if no key has changed since. Returns its revision.
    pub(crate) fn commit(&self, transaction: &Transaction) -> Result<i64, StoreError> {
        self.transact(&transaction.0)?.ok_or(StoreError::Changed)
    }

    /// Waits until the active configuration has the state of this revision. False after `most`.
    pub(crate) fn wait_until_applied(&self, revision: i64, most: Duration) -> bool {
        let until = Instant::now() + most;
        let mut seen = lock(&self.0.seen);
        while lock(&self.0.status).applied.revision < revision {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.seen_changed.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Asks the members one after the other, until one answers. A member that got the transaction and does not answer may
    /// have made it, so no other one is asked then.
    fn transact(&self, operations: &[Operation]) -> Result<Option<i64>, StoreError> {
        let away = |why: String| StoreError::Away { why };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| away(error.to_string()))?;
        let address = &self.0.address;
        runtime.block_on(async {
            let mut last = String::new();
            for endpoint in &address.endpoints {
                let client = match Client::connect(address, endpoint).await {
                    Ok(client) => client,
                    Err(error) => {
                        last = error.to_string();
                        continue;
                    }
                };
                return match client.transact(operations).await {
                    Ok(revision) => Ok(revision),
                    Err(ClientError::Refused { status, .. }) if status.code() == Code::PermissionDenied => {
                        let why = "its user may not write these keys".to_owned();
                        Err(StoreError::ReadOnly { place: self.name(), why })
                    }
                    Err(error) => Err(StoreError::Unanswered { why: error.to_string() }),
                };
            }
            Err(away(last))
        })
    }
}
