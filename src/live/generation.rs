//! Generation: one loaded configuration with its running upstreams, TLS settings and metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Acceptors, LoadError};
use crate::logging::quoted;
use crate::record::RouteMetricsTable;
use crate::snapshot::{Snapshot, UpstreamId};
use crate::source::SourceText;
use crate::upstream::{RunningUpstream, resolve};

/// One loaded configuration and its running parts. A request uses the generation that it began with until its end.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the first configuration of the process; each applied reload adds 1.
    pub number: u64,
    /// The configuration.
    pub snapshot: Snapshot,
    /// Text from which the snapshot was compiled.
    pub(crate) written: SourceText,
    upstreams: Vec<Arc<RunningUpstream>>,
    acceptors: Acceptors,
    route_metrics: RouteMetricsTable,
}

impl Generation {
    /// Upstreams whose configuration has not changed continue from `old`, with their state and counters.
    pub(super) fn new(
        number: u64,
        snapshot: Snapshot,
        written: SourceText,
        old: Option<&Generation>,
    ) -> Result<Self, LoadError> {
        let acceptors = Acceptors::new(snapshot.listeners(), old.map(|old| &old.acceptors));
        let acceptors = acceptors.map_err(LoadError::Listeners)?;
        // An inline upstream may have the same name as another upstream.
        let mut running: HashMap<&str, Vec<&Arc<RunningUpstream>>> = HashMap::new();
        for upstream in old.iter().flat_map(|old| &old.upstreams) {
            running.entry(&*upstream.settings().name).or_default().push(upstream);
        }
        let mut take = |spec: &crate::snapshot::Upstream| {
            let namesakes = running.get_mut(&*spec.name)?;
            let same = namesakes.iter().position(|upstream| upstream.settings() == spec)?;
            Some(namesakes.swap_remove(same).clone())
        };
        let upstreams = snapshot
            .upstreams()
            .iter()
            .map(|spec| take(spec).unwrap_or_else(|| Arc::new(RunningUpstream::new(spec.clone()))))
            .collect();
        let route_metrics =
            RouteMetricsTable::new(snapshot.routes(), old.map(|old| (old.snapshot.routes(), &old.route_metrics)));
        let generation = Generation { number, snapshot, written, upstreams, acceptors, route_metrics };
        generation.refresh_names();
        Ok(generation)
    }

    pub(crate) fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// Metrics of the routes.
    pub fn route_metrics(&self) -> &RouteMetricsTable {
        &self.route_metrics
    }

    /// Running upstream of the snapshot.
    pub(crate) fn upstream(&self, id: UpstreamId) -> &RunningUpstream {
        &self.upstreams[id.0]
    }

    /// All running upstreams, in the order of the snapshot.
    pub(crate) fn upstreams(&self) -> &[Arc<RunningUpstream>] {
        &self.upstreams
    }

    /// True if some upstream has DNS names.
    pub(crate) fn has_names(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.has_names())
    }

    /// Looks up the DNS names of all upstreams in parallel. Blocks until the resolver has answered.
    pub(crate) fn refresh_names(&self) {
        std::thread::scope(|scope| {
            for upstream in self.upstreams.iter().filter(|upstream| upstream.has_names()) {
                scope.spawn(|| {
                    for (name, error) in upstream.refresh(Instant::now(), resolve) {
                        let upstream = &upstream.settings().name;
                        log::warn!("name lookup failed upstream={upstream} name={name} error={}", quoted(error));
                    }
                });
            }
        });
    }
}
