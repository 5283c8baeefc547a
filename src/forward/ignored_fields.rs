//! Logs invalid fields of trusted proxies, which count as absent.
//!
//! A proxy may send such a field with every request, so there is at most one line in 10 s for each field.

use std::net::IpAddr;
use std::time::Instant;

use crate::logging::{LogThrottle, quoted};
use crate::trusted_proxies::IgnoredField;

/// Logs ignored fields, at most one line in 10 s for each.
#[derive(Debug, Default)]
pub(super) struct IgnoredFieldLog([LogThrottle; IgnoredField::ALL.len()]);

impl IgnoredFieldLog {
    /// Counts an ignored field, and logs it if the field has had no line for 10 s. The line does not contain the value,
    /// because it may be data of a client.
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
