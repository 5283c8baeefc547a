//! Effects of an edit on other requests.

use std::fmt;

use crate::cors::{CorsRequest, Policy, PolicyAction, Settings};
use crate::explain::Preflight;
use crate::explain::exchange::Head;
use crate::explain::fetch::{Fetch, Stage};
use crate::explain::question::Question;
use crate::explain::simulation::Simulation;
use crate::notation::List;
use crate::snapshot::{Route, Snapshot};

/// An effect of an edit on other requests. `Display` writes it as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Widening {
    /// Routes with the same policy, which then allow the request too.
    Routes(Vec<String>),
    /// The edit allows the page's origin everything that the policy allows.
    WholePolicy {
        origin: String,
        /// Methods, headers and credentials of the policy, as text.
        allows: String,
    },
    /// The edit allows all origins of the policy these actions.
    AllOrigins(Vec<String>),
    /// The edit allows every site, because every site can send the origin `null`.
    EverySite,
    /// Another effect, as one sentence.
    Sentence(String),
    /// The edit replaces `*`, so it refuses other origins.
    OthersRefused,
}

/// Maximum number of route names in a sentence. The number of the other routes follows.
const MAX_SHOWN_ROUTES: usize = 6;

impl Widening {
    /// Adds this effect to a list without duplicates. All [`Widening::AllOrigins`] are merged into one.
    pub(super) fn add_to(self, all: &mut Vec<Widening>) {
        if let Widening::AllOrigins(more) = &self {
            for widening in all.iter_mut() {
                if let Widening::AllOrigins(actions) = widening {
                    actions.extend(more.iter().cloned());
                    return;
                }
            }
        }
        if !all.contains(&self) {
            all.push(self);
        }
    }
}

impl fmt::Display for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Widening::Routes(names) => {
                let shown: Vec<&str> = names.iter().take(MAX_SHOWN_ROUTES).map(String::as_str).collect();
                let more = match names.len().saturating_sub(MAX_SHOWN_ROUTES) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(
                    f,
                    "The policy is shared: the same request then also passes on the routes {}{more}.",
                    shown.join(", ")
                )
            }
            Widening::WholePolicy { origin, allows } => {
                write!(f, "Pages of {origin} can then use everything that the policy allows ({allows}).")
            }
            Widening::AllOrigins(actions) => {
                write!(f, "All origins of this policy can then {}.", actions.join("; "))
            }
            Widening::EverySite => f.write_str(
                "Every site can send the origin null from a sandboxed frame, so this edit allows all sites.",
            ),
            Widening::Sentence(sentence) => f.write_str(sentence),
            Widening::OthersRefused => {
                f.write_str("Pages of other origins are then no longer allowed: add your other origins to the list.")
            }
        }
    }
}

/// Returns the effect that the origin can use everything that the policy allows.
pub(super) fn whole_policy(origin: &str, settings: &Settings) -> Widening {
    let entries = |list: &Option<List>, any: &str| match list.as_ref().map(List::entries) {
        None => any.to_owned(),
        Some(entries) if entries.iter().any(|entry| entry == "*") => any.to_owned(),
        Some(entries) => entries.join(", "),
    };
    let headers = |settings: &Settings| match (&settings.allow_headers, &settings.allow_header_sets) {
        (list, None) => entries(list, "any"),
        (None, Some(sets)) => format!("those of {}", sets.entries().join(", ")),
        (list @ Some(_), Some(sets)) => match &*entries(list, "any") {
            "any" => "any".to_owned(),
            "" => format!("those of {}", sets.entries().join(", ")),
            names => format!("{names}, and those of {}", sets.entries().join(", ")),
        },
    };
    let mut allows = vec![
        format!("methods: {}", entries(&settings.allow_methods, "any")),
        format!("headers: {}", headers(settings)),
    ];
    if settings.allow_credentials {
        allows.push("credentials".to_owned());
    }
    Widening::WholePolicy { origin: origin.to_owned(), allows: allows.join("; ") }
}

/// Returns the names of the other routes whose policy allows the request only after an edit.
pub(super) fn newly_passing_routes(question: &Question, before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let simulation = Simulation::of(question, after);
    if simulation.preflight == Preflight::SameOrigin || before.routes().len() != after.routes().len() {
        return Vec::new();
    }
    let own = simulation.last().exchange.verdict.route.map(|found| found.index as usize);
    let passes = |route: &Route| route.policy.as_ref().is_some_and(|policy| passes(question, &simulation, policy));
    let both = before.routes().iter().zip(after.routes()).enumerate();
    both.filter(|(i, (before, after))| Some(*i) != own && passes(after) && !passes(before))
        .map(|(_, (_, after))| after.name.to_string())
        .collect()
}

/// Returns true if this policy would allow all steps of a simulation.
fn passes(question: &Question, simulation: &Simulation<'_>, policy: &Policy) -> bool {
    simulation.steps.iter().all(|step| {
        let headers: Vec<(String, String)> = match step.stage {
            // The requested header names get a value that is not safelisted.
            Stage::Preflight => step.requested_headers().into_iter().map(|name| (name, "\"".to_owned())).collect(),
            Stage::Request => Vec::new(),
        };
        let fetch = Fetch {
            origin: &step.origin,
            method: &step.routed_method(),
            headers: &headers,
            credentials: question.credentials,
        };
        let decision =
            policy.decide(&CorsRequest { method: &step.method, headers: &step.headers, own_origin: step.own_origin() });
        let mut response = Head::new(http::StatusCode::OK);
        if let PolicyAction::AnswerPreflight(status) = decision.action {
            response.status = status;
        }
        decision.edits.apply(&mut response.headers);
        match step.stage {
            Stage::Preflight => fetch.check_preflight(response.status, &response.headers).is_ok(),
            Stage::Request => {
                let can_read = |name: &String| fetch.can_read(&response.headers, name);
                fetch.check(&response.headers).is_ok() && question.reads.iter().all(can_read)
            }
        }
    })
}
