//! Compares two configurations by the responses that requests get.
//!
//! The comparison ignores the text of the configurations. It compares the responses to the requests of pages. These
//! requests are grouped into classes. In each routing table, all requests of a class get the same route
//! ([`crate::route::classes`]). So a class has at most one route and at most one policy in each snapshot.
//!
//! A page's request is allowed if it has a route, and if the policy of the route allows its origin, its method, its
//! headers and its credentials. Origins, methods, headers and credentials are compared separately ([`policies`]). This
//! finds every newly allowed request: the old snapshot refuses it for at least one of these reasons, and the new
//! snapshot for none of them. Origins are compared first. A request with a newly allowed origin is reported under its
//! origin. So methods, headers and credentials are compared only for origins that both policies allow.
//!
//! Each difference has a witness: an example request. The code that serves requests runs the witness through both
//! snapshots ([`page`]). If the witness of a newly allowed request is not newly allowed, the difference is reported as
//! unknown. A comparison that reaches its bounds is also reported as unknown. Unknown differences count as newly
//! allowed in [`Difference::is_wider`].
//!
//! Settings of the network (addresses, TLS and timeouts of listeners, accepted clients) and settings that do not
//! concern requests (access log, admin listener) are not compared in detail. If requests can notice a change of such a
//! setting, the report has only the name of the setting.
//!
//! ```
//! use corsgate::diff::{Difference, Side};
//! use corsgate::snapshot::{CompileEnv, load};
//!
//! let text = |origins: &str| format!("\
//! listeners: [{{ address: 127.0.0.1:9080 }}]
//! services:
//!   - name: api
//!     upstream: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }}
//!     cors: {{ allow_origins: [{origins}] }}
//! ");
//! let [old, new] = ["https://a.example", "https://a.example, 'https://*.a.example'"]
//!     .map(|origins| load(&text(origins), CompileEnv::NONE).snapshot.unwrap());
//! let difference = Difference::of(Side { name: "old", snapshot: &old }, Side { name: "new", snapshot: &new });
//! assert!(difference.is_wider());
//! assert!(difference.json().contains("https://*.a.example"));
//! ```

mod page;
mod places;
mod policies;
mod render;
mod routes;

use self::page::{Answers, PageRequest};
use crate::snapshot::Snapshot;

/// A configuration that is compared.
#[derive(Debug, Clone, Copy)]
pub struct Side<'s> {
    /// Name of the file in the report.
    pub name: &'s str,
    /// The compiled configuration.
    pub snapshot: &'s Snapshot,
}

/// The differences between two configurations in the responses to requests. See the [module](self) for its limits.
#[derive(Debug)]
pub struct Difference {
    old: String,
    new: String,
    /// Groups of changes. The most important group is first.
    groups: Vec<Group>,
    /// Top-level keys with different values, if requests can notice the difference.
    settings: Vec<&'static str>,
}

/// Places with the same changes.
#[derive(Debug)]
struct Group {
    places: Vec<Place>,
    /// Changes of all places in the group. The most important change is first.
    changes: Vec<Change>,
    /// True if all places of the group get errors, and if another group with routes of the same hosts has the same
    /// changes. The text leaves out such a group.
    is_repeated: bool,
}

/// A class of requests: one route, or none, in each configuration.
#[derive(Debug, Clone)]
struct Place {
    /// The name of the route in each configuration. None if there is no route.
    routes: [Option<String>; 2],
    /// The position of the route in its file, for the order of the output.
    order: usize,
    /// Patterns of the hosts. `*` stands for all hosts that no pattern covers.
    hosts: Vec<String>,
    /// An example host and an example path of the class.
    host: String,
    path: String,
    /// Pattern of the paths: `{}` stands for any segment, `/*` for any rest of the path.
    pattern: String,
    methods: Methods,
}

/// The methods of a class of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Methods {
    /// Methods that a configuration names, and the usual methods.
    named: Vec<String>,
    /// A method that stands for all other methods. None if the class has no other methods.
    other: Option<String>,
}

/// One difference, with the changed values.
#[derive(Debug, Clone)]
struct Change {
    effect: Effect,
    kind: Kind,
    items: Vec<Item>,
}

/// The effect of a difference on requests. The most important effect is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Effect {
    /// The old configuration refuses the request, the new configuration allows it.
    Allowed,
    /// In the new configuration, the CORS headers of the upstream decide whether the page can read the response.
    Upstream,
    /// The comparison cannot decide whether a request is newly allowed.
    Unknown,
    /// The old configuration allows the request, the new configuration refuses it.
    Refused,
    /// The response changes, but not whether the request is allowed.
    Changed,
}

/// The part of the configuration that is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// The route exists in only one configuration.
    Route,
    /// All paths of a host, because there are too many classes to compare.
    Paths,
    /// The policy exists in only one configuration.
    Policy,
    Origin,
    Credentials,
    Method,
    RequestHeader,
    ExposedHeader,
    /// Origins that get `Timing-Allow-Origin`.
    Timing,
    /// `Cross-Origin-Resource-Policy`.
    ResourcePolicy,
    PrivateNetwork,
    /// Forwarding of requests from refused origins to the upstream.
    RefusedOrigins,
    /// Forwarding of cross-site requests that change state to the upstream.
    CrossSite,
    /// The report-only policy.
    ReportOnly,
    /// The end of a route: an upstream, a split, or an answer of the gateway.
    End,
    UpstreamSettings,
    Behaviors,
    MaxAge,
    /// Caching of preflight answers in browsers.
    Caching,
    PreflightMatch,
    PreflightStatus,
    RefusedStatus,
    /// `Cache-Control` of answers to preflights.
    CacheControl,
}

/// A changed value, such as an origin or a method, with its witness.
#[derive(Debug, Clone)]
struct Item {
    text: String,
    witness: Option<Witness>,
}

/// An example request, and its results in both snapshots.
#[derive(Debug, Clone)]
struct Witness {
    request: PageRequest,
    answers: Answers,
}

// === impl Difference ===

impl Difference {
    /// Compares the configurations `old` and `new`.
    pub fn of(old: Side<'_>, new: Side<'_>) -> Self {
        let groups = places::groups(old.snapshot, new.snapshot);
        let settings = routes::settings(old.snapshot, new.snapshot);
        Difference { old: old.name.to_owned(), new: new.name.to_owned(), groups, settings }
    }

    /// Returns true if every request gets the same response from both configurations.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.settings.is_empty()
    }

    /// Returns true if the new configuration allows more requests, or if the comparison cannot exclude this.
    pub fn is_wider(&self) -> bool {
        self.groups.iter().flat_map(|group| &group.changes).any(|change| change.effect.is_wider())
    }
}

impl Place {
    fn has_route(&self) -> bool {
        self.routes.iter().any(Option::is_some)
    }
}

impl Change {
    fn new(effect: Effect, kind: Kind, items: Vec<Item>) -> Self {
        Change { effect, kind, items }
    }

    /// Creates a change that has a text and no witness.
    fn text(effect: Effect, kind: Kind, text: impl Into<String>) -> Self {
        Change::new(effect, kind, vec![Item { text: text.into(), witness: None }])
    }
}

impl Effect {
    fn is_wider(self) -> bool {
        match self {
            Effect::Allowed | Effect::Upstream | Effect::Unknown => true,
            Effect::Refused | Effect::Changed => false,
        }
    }
}

impl Methods {
    fn all(&self) -> impl Iterator<Item = &str> {
        self.named.iter().chain(&self.other).map(String::as_str)
    }
}
