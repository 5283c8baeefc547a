//! One configuration with everything that runs for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Acceptors, LoadError};
use crate::record::RouteMetricsTable;
use crate::snapshot::{Snapshot, UpstreamId};
use crate::source::SourceText;
use crate::upstream::{RunningUpstream, resolve};

/// One configuration with what runs for it. Requests keep the one they began with.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the one that the process started with.
    pub number: u64,
    /// The configuration.
    pub snapshot: Snapshot,
    /// What it was compiled from.
    pub(crate) written: SourceText,
    upstreams: Vec<Arc<RunningUpstream>>,
    acceptors: Acceptors,
    route_metrics: RouteMetricsTable,
}

impl Generation {
    /// What runs for an upstream that is the same as before goes on running.
    pub(super) fn new(
        number: u64,
        snapshot: Snapshot,
        written: SourceText,
        old: Option<&Generation>,
    ) -> Result<Self, LoadError> {
        let acceptors = Acceptors::new(snapshot.listeners(), old.map(|old| &old.acceptors));
        let acceptors = acceptors.map_err(LoadError::Listeners)?;
        // One that is written inline may have the name of another one.
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

    /// What its listeners need for handshakes.
    pub(crate) fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// What was counted of the requests to its routes.
    pub fn route_metrics(&self) -> &RouteMetricsTable {
        &self.route_metrics
    }

    /// What runs for an upstream of the snapshot.
    pub(crate) fn upstream(&self, id: UpstreamId) -> &RunningUpstream {
        &self.upstreams[id.0]
    }

    /// What runs for all upstreams of the snapshot, in its order.
    pub(crate) fn upstreams(&self) -> &[Arc<RunningUpstream>] {
        &self.upstreams
    }

    /// Whether some upstream has names to look up.
    pub(crate) fn has_names(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.has_names())
    }

    /// Looks up the names of all upstreams, all at the same time. Blocks until the resolver has answered.
    pub(crate) fn refresh_names(&self) {
        std::thread::scope(|scope| {
            for upstream in self.upstreams.iter().filter(|upstream| upstream.has_names()) {
                scope.spawn(|| {
                    for (name, error) in upstream.refresh(Instant::now(), resolve) {
                        log::warn!(
                            "cannot look up name={name} upstream={} error=\"{error}\"",
                            upstream.settings().name
                        );
                    }
                });
            }
        });
    }
}
