//! Compares routes without their CORS policies, and the settings that apply to all routes.

use super::{Change, Effect, Kind};
use crate::behavior::Behaviors;
use crate::behavior::answer::Answer;
use crate::snapshot::{End, NodeAddress, Route, Snapshot, SplitEnd, Upstream, UpstreamId};

/// Returns the top-level keys with different values, if requests can notice the difference.
pub(super) fn settings(old: &Snapshot, new: &Snapshot) -> Vec<&'static str> {
    let differs = [
        ("listeners", old.listeners() != new.listeners()),
        ("limits", old.limits() != new.limits()),
        ("trusted_proxies", old.trusted_proxies() != new.trusted_proxies()),
        ("underscores_in_headers", old.underscores_in_headers() != new.underscores_in_headers()),
        ("debug_header", old.debug_header() != new.debug_header()),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Returns the changes between two routes, except those of their CORS policies.
pub(super) fn compare(old: (&Snapshot, &Route), new: (&Snapshot, &Route)) -> Vec<Change> {
    let mut changes = Vec::new();
    let ((old_snapshot, old), (new_snapshot, new)) = (old, new);
    match (&old.end, &new.end) {
        (End::Upstream(old), End::Upstream(new)) => {
            let (old, new) = (&old_snapshot.upstreams()[old.0], &new_snapshot.upstreams()[new.0]);
            upstreams(old, new, &mut changes);
        }
        (End::Answer(old), End::Answer(new)) if old == new => {}
        (End::Split(old), End::Split(new)) => {
            let same_upstream = |old: UpstreamId, new: UpstreamId| {
                is_same(&old_snapshot.upstreams()[old.0], &new_snapshot.upstreams()[new.0])
            };
            let same_share =
                |(old, new): ((UpstreamId, u32), (UpstreamId, u32))| same_upstream(old.0, new.0) && old.1 == new.1;
            let (shares, new_shares) = (old.split.shares(), new.split.shares());
            let is_same = old.sticky == new.sticky && shares.clone().count() == new_shares.clone().count();
            if !is_same || !shares.zip(new_shares).all(same_share) {
                let texts = (split(old_snapshot, old), split(new_snapshot, new));
                let (kind, text) = match texts.0 == texts.1 {
                    true => (Kind::UpstreamSettings, format!("settings of {}", texts.0)),
                    false => (Kind::End, format!("{} -> {}", texts.0, texts.1)),
                };
                changes.push(Change::text(Effect::Changed, kind, text));
            }
        }
        _ => {
            let text = format!("{} -> {}", end(old_snapshot, old), end(new_snapshot, new));
            changes.push(Change::text(Effect::Changed, Kind::End, text));
        }
    }
    let none = Behaviors::default();
    let behaviors = [old, new].map(|route| route.behaviors.as_deref().unwrap_or(&none));
    let same_upstream =
        |old: usize, new: usize| is_same(&old_snapshot.upstreams()[old], &new_snapshot.upstreams()[new]);
    let keys = behaviors[0].differences(behaviors[1], &same_upstream);
    if !keys.is_empty() {
        changes.push(Change::text(Effect::Changed, Kind::Behaviors, keys.join(", ")));
    }
    changes
}

/// Returns the end of a route as text: an upstream, a split, or an answer of the gateway.
pub(super) fn end(snapshot: &Snapshot, route: &Route) -> String {
    match &route.end {
        End::Upstream(id) => upstream(&snapshot.upstreams()[id.0]),
        End::Split(end) => split(snapshot, end),
        End::Answer(answer) => answered(answer),
    }
}

fn split(snapshot: &Snapshot, end: &SplitEnd) -> String {
    let share = |(id, weight): (UpstreamId, u32)| format!("{weight} {}", upstream(&snapshot.upstreams()[id.0]));
    let shares: Vec<String> = end.split.shares().map(share).collect();
    let sticky = end.sticky.as_ref().map(|sticky| format!(", sticky by {sticky}")).unwrap_or_default();
    format!("split {}{sticky}", shares.join(", "))
}

fn answered(answer: &Answer) -> String {
    let location = answer.location("{host}", b"/{uri}");
    match location.as_ref().and_then(|location| location.to_str().ok()) {
        Some(location) => format!("redirect {} to {}", answer.status.as_u16(), location.replace("/{uri}", "{uri}")),
        None => format!("respond {} with {} bytes", answer.status.as_u16(), answer.body.len()),
    }
}

/// Returns true if two upstreams have equal settings. Their names may be different.
fn is_same(old: &Upstream, new: &Upstream) -> bool {
    *old == Upstream { name: old.name.clone(), ..new.clone() }
}

/// Adds the changes between two upstreams. A different name alone is not a change.
fn upstreams(old: &Upstream, new: &Upstream, changes: &mut Vec<Change>) {
    let Upstream {
        name: _,
        nodes,
        balance,
        timeouts,
        retries,
        http2,
        tls,
        health_check,
        ejection,
        slow_start,
        proxy_protocol,
        limit,
    } = old;
    if *nodes != new.nodes {
        let text = format!("{} -> {}", upstream(old), upstream(new));
        changes.push(Change::text(Effect::Changed, Kind::End, text));
    }
    let differs = [
        ("balance", *balance != new.balance),
        ("timeouts", *timeouts != new.timeouts),
        ("retries", *retries != new.retries),
        ("http2", *http2 != new.http2),
        ("tls", *tls != new.tls),
        ("health_check", *health_check != new.health_check),
        ("ejection", *ejection != new.ejection),
        ("slow_start", *slow_start != new.slow_start),
        ("proxy_protocol", *proxy_protocol != new.proxy_protocol),
        ("max_connections", *limit != new.limit),
    ];
    let keys: Vec<&str> = differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    if !keys.is_empty() {
        let text = format!("{} of {}", keys.join(", "), new.name);
        changes.push(Change::text(Effect::Changed, Kind::UpstreamSettings, text));
    }
}

/// Maximum number of nodes in the text of an upstream.
const MOST_NODES: usize = 3;

fn upstream(upstream: &Upstream) -> String {
    let node = |address: &NodeAddress| match address {
        NodeAddress::Fixed(address) => address.to_string(),
        NodeAddress::Name { host, port } => format!("{host}:{port}"),
    };
    let mut nodes: Vec<String> = upstream.nodes.iter().take(MOST_NODES).map(|shown| node(&shown.address)).collect();
    if let more @ 1.. = upstream.nodes.len().saturating_sub(MOST_NODES) {
        nodes.push(format!("{more} more"));
    }
    format!("{} ({})", upstream.name, nodes.join(", "))
}
