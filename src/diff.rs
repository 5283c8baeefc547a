//! What changes for requests between two configurations.
//!
//! Two snapshots are compared by what requests get, not by their text. The requests of pages form classes: hosts and
//! paths that neither routing table tells apart ([`crate::route::classes`]), with the methods that have the same routes.
//! For each class there is one route in each snapshot, or none, and one policy in each.
//!
//! A page's request is allowed if it has a route, and if the policy of the route allows its origin, its method, each of
//! its headers, and its credentials. Each of these is compared alone ([`policies`]). This finds every request that is
//! newly allowed: the old snapshot refuses it for at least one of these reasons, and the new snapshot does not. Origins
//! are compared first. A request whose origin is newly allowed is reported by its origin, so the other reasons need only
//! be compared for the origins that both policies allow.
//!
//! Each difference has a witness, a request that was run through both snapshots with the code that serves requests
//! ([`page`]). A difference that its witness does not show is reported as unknown. What a comparison cannot decide within
//! its bounds is unknown too, and counts as newly allowed for [`Difference::is_wider`].
//!
//! Not compared are what the network decides (addresses, TLS and timeouts of listeners, whether a client is accepted) and
//! what does not concern requests (access log, admin listener). Changed settings of this kind are named, if requests can
//! notice them.
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
    /// The name of its file, for people.
    pub name: &'s str,
    /// Its snapshot.
    pub snapshot: &'s Snapshot,
}

/// What changes for requests between two configurations.
#[derive(Debug)]
pub struct Difference {
    old: String,
    new: String,
    /// The most important group is first.
    groups: Vec<Group>,
    /// Keys of the top level that differ and that requests can notice.
    settings: Vec<&'static str>,
}

/// The same changes at one or more places.
#[derive(Debug)]
struct Group {
    places: Vec<Place>,
    /// The most important change is first.
    changes: Vec<Change>,
    /// Errors of hosts for whose routes another group has the same changes, and more.
    is_repeated: bool,
}

/// A class of requests.
#[derive(Debug, Clone)]
struct Place {
    /// The name of the route in each configuration. None if there is no route.
    routes: [Option<String>; 2],
    /// The position of the route in its file, for the order of the output.
    order: usize,
    /// Patterns of the hosts; `*` for all hosts that no pattern covers.
    hosts: Vec<String>,
    /// A host and a path of the class.
    host: String,
    path: String,
    /// The paths, with `{}` for any segment and `/*` for any rest.
    pattern: String,
    methods: Methods,
}

/// The methods of a class of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Methods {
    /// Those that a configuration names, and the usual ones.
    named: Vec<String>,
    /// A method that stands for all others, if the class has them.
    other: Option<String>,
}

/// One difference.
#[derive(Debug, Clone)]
struct Change {
    effect: Effect,
    kind: Kind,
    items: Vec<Item>,
}

/// What a difference means for requests, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Effect {
    /// The old configuration refuses it, the new one allows it.
    Allowed,
    /// The old configuration refuses the request; with the new one, the upstream decides.
    Upstream,
    /// It could not be decided whether something is newly allowed.
    Unknown,
    /// The old configuration allows it, the new one refuses it.
    Refused,
    /// Another response, which allows neither more nor less.
    Changed,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// Whether there is a route.
    Route,
    /// All paths of a host: there are too many classes.
    Paths,
    /// Whether there is a policy.
    Policy,
    Origin,
    Credentials,
    Method,
    RequestHeader,
    ExposedHeader,
    /// Origins that get `Timing-Allow-Origin`.
    Timing,
    PrivateNetwork,
    /// Whether requests of refused origins reach the upstream.
    RefusedOrigins,
    /// Where the requests of a route end.
    End,
    UpstreamSettings,
    Behaviors,
    MaxAge,
    /// Whether answers to preflights may be cached at all.
    Caching,
    PreflightMatch,
    PreflightStatus,
    RefusedStatus,
}

/// An origin, a method, or another value.
#[derive(Debug, Clone)]
struct Item {
    text: String,
    witness: Option<Witness>,
}

/// A request, and the result of running it through both snapshots.
#[derive(Debug, Clone)]
struct Witness {
    request: PageRequest,
    answers: Answers,
}

// === impl Difference ===

impl Difference {
    /// Compares two configurations.
    pub fn of(old: Side<'_>, new: Side<'_>) -> Self {
        let groups = places::groups(old.snapshot, new.snapshot);
        let settings = routes::settings(old.snapshot, new.snapshot);
        Difference { old: old.name.to_owned(), new: new.name.to_owned(), groups, settings }
    }

    /// Whether no request gets another response.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.settings.is_empty()
    }

    /// Whether something is newly allowed, or can be.
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

    /// A change that is described by a text.
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
