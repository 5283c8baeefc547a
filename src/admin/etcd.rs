//! The state of etcd as a source: on `/readyz`, `/config`, `/metrics` and the status page.

use std::fmt::Write as _;
use std::time::SystemTime;

use maud::{Markup, html};
use serde_json::{Value, json};

use super::json::ago;
use super::{Process, time};
use crate::source::{Etcd, EtcdStatus, Kept};
use crate::terminal::printable;

/// Whether the process has not had a configuration yet.
pub(super) fn is_waiting(process: &Process) -> bool {
    status(process).is_some_and(|status| status.applied.is_none())
}

/// The state of the source. None if the configuration is not in etcd.
pub(super) fn status(process: &Process) -> Option<EtcdStatus> {
    process.live.source().etcd().map(Etcd::status)
}

/// One line for each fact that needs attention. Empty if all is well.
pub(super) fn notices(status: &EtcdStatus, now: SystemTime) -> String {
    let mut out = String::new();
    if let (Some(error), Some(since)) = (&status.error, status.disconnected_since) {
        let _ = writeln!(out, "etcd: not connected for {}: {}", ago(since, now), printable(error));
    }
    if let Some(written) = status.applied.cache {
        let _ = writeln!(out, "etcd: running from the cache, which is {} old", ago(written, now));
    }
    if let Some(whole) = &status.whole {
        let first = whole.lines().next().unwrap_or_default();
        let _ = writeln!(out, "etcd: the newest keys are refused as a whole: {}", printable(first));
    }
    for refusal in &status.refused {
        let first = refusal.text.lines().next().unwrap_or_default();
        let kept = kept(refusal.kept);
        let _ = writeln!(
            out,
            "etcd: {} at revision {} is refused, {kept}: {}",
            printable(&refusal.key),
            refusal.revision,
            printable(first)
        );
    }
    if let more @ 1.. = status.refused_count.saturating_sub(status.refused.len()) {
        let _ = writeln!(out, "etcd: {more} more keys are refused");
    }
    out
}

pub(super) fn json(status: &EtcdStatus) -> Value {
    let refused = status.refused.iter().map(|refusal| {
        json!({
            "key": refusal.key,
            "revision": refusal.revision,
            "kept_revision": match refusal.kept {
                Kept::Revision(revision) => Some(revision),
                Kept::Nothing => None,
            },
            "problems": refusal.json_of_check(),
        })
    });
    json!({
        "instance": status.id,
        "connected": status.endpoint,
        "error": status.error,
        "revision": status.applied.revision,
        "keys": status.applied.keys,
        "cache_written": status.applied.cache.map(|written| time(written).to_string()),
        "refused": refused.collect::<Vec<_>>(),
        "refused_count": status.refused_count,
        "refused_as_a_whole": status.whole,
    })
}

/// The section of the status page.
pub(super) fn section(status: &EtcdStatus, name: &str, now: SystemTime) -> Markup {
    html! {
        section {
            h2 { "etcd" }
            p {
                code { (name) } " "
                @match (&status.endpoint, status.disconnected_since) {
                    (Some(endpoint), _) => { span.good { "connected" } " to " code { (endpoint) } },
                    (None, Some(since)) => {
                        span.bad { "not connected" } " for " (ago(since, now))
                        @if let Some(error) = &status.error { ": " (error) }
                    },
                    (None, None) => span.bad { "not connected" },
                }
                "; revision " (status.applied.revision) ", " (status.applied.keys) " keys; instance " code { (status.id) }
                @if let Some(written) = status.applied.cache {
                    "; " span.bad { "from the cache, " (ago(written, now)) " old" }
                }
            }
            @if let Some(whole) = &status.whole { p { span.bad { "newest keys refused as a whole" } } pre { (whole) } }
            @for refusal in &status.refused {
                article {
                    p {
                        span.bad { "refused" } " " code { (refusal.key) } " at revision " (refusal.revision) ", "
                        (kept(refusal.kept))
                    }
                    pre { (refusal.text) }
                }
            }
            @if status.refused_count > status.refused.len() {
                p.none { "and " (status.refused_count - status.refused.len()) " more refused keys" }
            }
        }
    }
}

fn kept(kept: Kept) -> String {
    match kept {
        Kept::Revision(revision) => format!("revision {revision} stays"),
        Kept::Nothing => "it is left out".into(),
    }
}
