//! All instances of a prefix, and whether they run what etcd has.

use super::Etcd;
use super::instance::InstanceRecord;

/// The instances of a prefix at one moment.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Where the keys are.
    pub(crate) name: String,
    pub(crate) revision: i64,
    pub(crate) keys: usize,
    pub(crate) members: Vec<Member>,
}

/// An instance of corsgate that uses these keys.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) record: InstanceRecord,
    /// Whether it has seen all that etcd has.
    pub(crate) is_current: bool,
}

impl Etcd {
    /// Reads the records of all instances.
    pub(crate) fn fleet(&self) -> Result<Fleet, String> {
        if self.0.address.layout.read_only().is_some() {
            return Err("with format=apisix the processes write no records; ask /readyz of each one".to_owned());
        }
        let (state, records) = self.ask(&async |client, prefix| {
            let state = client.read_all(prefix).await?;
            let mut records = Vec::new();
            let instances = [prefix, b"instances/"].concat();
            client
                .read_each(&instances, |kv, name| {
                    // Whatever else stands there is no instance.
                    if let Ok(mut record) = serde_json::from_slice::<InstanceRecord>(&kv.value) {
                        record.id = String::from_utf8_lossy(name).into_owned();
                        records.push(record);
                    }
                })
                .await?;
            Ok((state, records))
        })?;
        let digest = state.digest();
        let member = |record: InstanceRecord| {
            let is_current = record.state == digest && record.error.is_none() && !record.from_cache;
            Member { record, is_current }
        };
        Ok(Fleet {
            name: self.name(),
            revision: state.revision,
            keys: state.len(),
            members: records.into_iter().map(member).collect(),
        })
    }
}

impl Fleet {
    /// Whether there are instances, and all of them run what etcd has.
    pub(crate) fn has_converged(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|member| member.is_current)
    }
}
