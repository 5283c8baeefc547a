//! Learns the smallest policy that covers what pages use, for `corsgate learn`.
//!
//! ```text
//! running process:  requests --Tally--> Observation --\
//!                                                      >-- learn --> Lesson --> YAML or JSON
//! access log:       lines    --Tally--> Observation --/
//! ```
//!
//! A [`Tally`] counts in bounded memory, because clients choose the values. An [`Observation`] has the counts and the
//! policies in force. It is also the JSON of the admin listener. A [`Lesson`] has one policy for each policy in force
//! that allowed a request.

mod in_force;
mod log_line;
mod render;
mod suggest;
mod tally;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use self::in_force::{PoliciesInForce, PolicyInForce};
pub(crate) use self::log_line::{LineKind, count};
pub(crate) use self::suggest::Lesson;
pub(crate) use self::tally::{Asked, MAX_ORIGINS, Sighting, Tally, sum};

/// Counts of requests, and the policies in force.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Observation {
    pub(crate) seconds: u64,
    pub(crate) generation: u64,
    /// The policies with at least one request in the window.
    pub(crate) policies: Vec<PolicyInForce>,
    /// Number of policies without a request in the window.
    pub(crate) unused_policies: usize,
    /// Names that several routes with different policies share. Requests to these routes are not counted.
    pub(crate) ambiguous_routes: Vec<String>,
    pub(crate) observed: Observed,
    /// Number of requests that a later configuration served, after a reload.
    pub(crate) other_generation: u64,
    /// Number of requests that were not counted, because other threads held all locks.
    pub(crate) not_counted: u64,
    pub(crate) log: Option<LogFacts>,
}

/// Facts about the access log from which an observation is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogFacts {
    pub(crate) lines: u64,
    pub(crate) malformed: u64,
    /// Number of cross-origin requests whose route does not exist in this configuration, or has no policy in it.
    pub(crate) unknown_routes: u64,
}

/// Counts of requests. `seen` and `refused` are in the order of the policies, with the most frequent origins first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Observed {
    /// Requests that the policy in force allowed.
    pub(crate) seen: Vec<SeenOrigin>,
    /// Requests that the policy in force refused.
    pub(crate) refused: Vec<RefusedOrigin>,
    /// Number of requests from pages of the same origin, which need no policy.
    pub(crate) same_origin: u64,
    /// Number of requests whose Origin no policy looks up: several fields, more than 300 bytes, or forbidden
    /// characters.
    pub(crate) invalid_origins: u64,
    /// Upper bound of the error of each count. It is 0 if all origins fitted into the table.
    pub(crate) missed: u64,
    /// Number of allowed requests whose origins did not fit into the table.
    pub(crate) dropped: u64,
    /// Number of refused requests whose origins did not fit into the table.
    pub(crate) refused_dropped: u64,
    /// Number of methods and header names that were too long to count.
    pub(crate) long_names: u64,
}

/// Allowed requests of one origin to the routes of one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SeenOrigin {
    /// Position in [`Observation::policies`].
    pub(crate) policy: u32,
    pub(crate) origin: String,
    pub(crate) requests: u64,
    pub(crate) preflights: u64,
    /// The part of `requests` that browsers send without permission, such as navigations.
    pub(crate) without_permission: u64,
    /// The part of `requests` with `Cookie`.
    pub(crate) cookies: u64,
    /// The part of `requests` with `Authorization`.
    pub(crate) authorization: u64,
    /// Methods of requests and preflights.
    pub(crate) methods: NameCounts,
    /// Header names that preflights request.
    pub(crate) headers: NameCounts,
}

/// Methods or header names with their counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NameCounts {
    pub(crate) counts: BTreeMap<String, u64>,
    /// Upper bound of the error of each count. It is 0 if all names fitted into the list.
    pub(crate) missed: u64,
}

/// Refused requests of one origin to the routes of one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RefusedOrigin {
    /// Position in [`Observation::policies`].
    pub(crate) policy: u32,
    pub(crate) origin: String,
    /// Number of requests for each reason code.
    pub(crate) reasons: BTreeMap<String, u64>,
}

// === impl Observation, SeenOrigin, RefusedOrigin ===

impl Observation {
    /// Removes the policies without a request.
    pub(crate) fn new(in_force: &PoliciesInForce, mut observed: Observed) -> Self {
        let mut is_used = vec![false; in_force.policies.len()];
        let of_seen = observed.seen.iter().map(|seen| seen.policy);
        for policy in of_seen.chain(observed.refused.iter().map(|refused| refused.policy)) {
            is_used[policy as usize] = true;
        }
        let unused_policies = is_used.iter().filter(|is_used| !**is_used).count();
        let mut position = 0;
        let positions: Vec<u32> = is_used
            .iter()
            .map(|is_used| {
                position += u32::from(*is_used);
                position.saturating_sub(1)
            })
            .collect();
        observed.seen.iter_mut().for_each(|seen| seen.policy = positions[seen.policy as usize]);
        observed.refused.iter_mut().for_each(|refused| refused.policy = positions[refused.policy as usize]);
        let used = in_force.policies.iter().zip(is_used).filter(|(_, is_used)| *is_used);
        Observation {
            policies: used.map(|(policy, _)| policy.clone()).collect(),
            unused_policies,
            ambiguous_routes: in_force.ambiguous.clone(),
            observed,
            ..Observation::default()
        }
    }
}

impl SeenOrigin {
    pub(crate) fn total(&self) -> u64 {
        self.requests + self.preflights
    }
}

impl RefusedOrigin {
    pub(crate) fn total(&self) -> u64 {
        self.reasons.values().sum()
    }
}
