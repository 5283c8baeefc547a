//! Logs invalid fields of trusted proxies. The gateway ignores these fields.
//!
//! A proxy may send an invalid field with every request, so each field has at most one line in 10 s.

use std::net::IpAddr;
use std::time::Instant;

use crate::logging::{LogThrottle, quoted};
use crate::trusted_proxies::IgnoredField;

/// Logs ignored fields. Each field has at most one line in 10 s.
#[derive(Debug, Default)]
pub(super) struct IgnoredFieldLog([LogThrottle; IgnoredField::ALL.len()]);

impl IgnoredFieldLog {
    /// Counts an ignored field. Logs it if the field had no line in the last 10 s. The line does not contain the value,
    /// because the value may be data of a client.
    pub(super) fn log(&self, peer: IpAddr, field: IgnoredField, now: Instant) {
        let throttle = &self.0[field.index()];
        throttle.count(1);
        let reason = quoted(field);
        match throttle.due(now) {
            None => {}
            Some(1) => log::warn!("forwarding header ignored peer={peer} reason={reason}"),
            Some(events) => {
                log::warn!("forwarding header ignored peer={peer} reason={reason} suppressed={}", events - 1);
            }
        }
    }
}
