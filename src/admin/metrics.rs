//! Prometheus text, made from the counts at the time it is asked for.

use std::sync::atomic::Ordering;

use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Process;

pub(super) fn text(process: &Process) -> prometheus::Result<Vec<u8>> {
    let live = &process.live;
    let registry = Registry::new();
    let reloads = live.reloads();
    let help = "Reloads since the start; a refused one has changed nothing.";
    let counter = IntCounterVec::new(Opts::new("corsgate_config_reloads_total", help), &["result"])?;
    counter.with_label_values(&["applied"]).inc_by(reloads.applied.load(Ordering::Relaxed));
    counter.with_label_values(&["refused"]).inc_by(reloads.refused.load(Ordering::Relaxed));
    registry.register(Box::new(counter))?;
    let last = IntGauge::new("corsgate_config_last_reload_refused", "1 when the newest reload was refused.")?;
    last.set(i64::from(reloads.last_refused.load(Ordering::Relaxed)));
    registry.register(Box::new(last))?;
    let help = "Number of the configuration in force; 1 is the one of the start.";
    let generation = IntGauge::new("corsgate_config_generation", help)?;
    generation.set(i64::try_from(live.current().number).unwrap_or(i64::MAX));
    registry.register(Box::new(generation))?;
    let node = |name, help| IntGaugeVec::new(Opts::new(name, help), &["upstream", "address"]);
    let healthy = node("corsgate_upstream_node_healthy", "1 unless health checks have taken the node out.")?;
    let ejected = node("corsgate_upstream_node_ejected", "1 while the node is out because requests have failed.")?;
    let active = node("corsgate_upstream_node_active", "Requests under way at the node.")?;
    for upstream in live.current().upstreams() {
        for condition in upstream.conditions() {
            let labels = [&*upstream.spec().name, &condition.address.to_string()];
            healthy.with_label_values(&labels).set(i64::from(condition.healthy));
            ejected.with_label_values(&labels).set(i64::from(condition.ejected));
            active.with_label_values(&labels).set(i64::try_from(condition.active).unwrap_or(i64::MAX));
        }
    }
    for gauge in [healthy, ejected, active] {
        registry.register(Box::new(gauge))?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
