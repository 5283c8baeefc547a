//! The findings of an import: what it kept, changed and dropped. Each kind of finding is one variant and has one text.

use std::borrow::Cow;

use super::SourceFormat;
use super::witness::Witness;

/// One fact about a place in the source.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) at: Place,
    pub(super) kind: Kind,
    /// A request whose response shows the finding.
    pub(super) witness: Option<Witness>,
}

/// A line of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Index of the file.
    pub(super) file: usize,
    /// Line number, counted from 1.
    pub(super) line: usize,
}

/// What the import does with a part of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Requests get the same answers. The text explains how.
    Kept,
    /// Requests get the same answers, and these answers are unsafe. The imported file names the danger.
    Unsafe,
    /// Some requests get different answers.
    Changed,
    /// The imported file does not have this part.
    Dropped,
}

/// The kind of a finding, with the words of the source that the finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    // --- kept
    EveryOptionsAnswered,
    StarTakesAll { others: Vec<String> },
    OneLabel { pattern: String },
    AnyDepth { pattern: String },
    Default { key: &'static str },
    ClusterAddress { service: String, address: String },
    VaryAdded,
    MetadataKeys { keys: Vec<String> },
    HostHeaderOfNode,
    PathExpression { expression: String, path: String },
    CheckSays { text: String },
    NeverSent { names: Vec<String> },
    BlankEntries { list: String },
    EntryByExpression { entry: String, expression: String },
    ExpressionIsPattern { expression: String, pattern: String },
    EchoesRequestedHeaders,
    ClientAddresses,

    MatchesStar { entry: String },
    FilterNotSeen,
    MergedPolicies,

    // --- unsafe
    ReflectsAnyOrigin,
    Danger { word: &'static str, why: String },

    // --- changed
    StarWithCredentials,
    ListMisread { list: String },
    NullReflected,
    RefusedPreflightForwarded,
    ServiceHeadersRemain,
    MaxAgeCapped { seconds: i64 },
    OptionsNotRouted { methods: Vec<String> },
    ExpressionNotAnchored { expression: String },
    OriginPrefix { prefix: String },
    OriginSuffix { suffix: String },
    AnySchemeAndPort { entry: String },
    PathPrefixEndsInSegment { path: String },
    PathWithoutSlash { path: String },
    PrefixReplaced { path: String, theirs: String, ours: String },
    RedirectWithoutQuery,
    RedirectStatus { status: u16 },
    HostHidesRoutes { host: String, service: String },
    ConditionLost { what: String, is_refusal: bool },
    ClientsDenied { why: String },
    RouteClosed,
    Rerouted { what: String, why: String },
    PathCase { path: String },
    OneListener { listener: String },
    TotalTimeout,
    BodyLimit { size: String, limit: Option<String> },
    NotInFiles { what: &'static str, name: String },
    ErrorsWithoutHeaders,
    MethodsWithoutHeaders { methods: Vec<String> },
    TwoHeaders,
    PreflightContinues,
    PreflightsFail,
    WithoutRoutes,
    PlaceholderNode { text: String },
    UnknownCluster { name: String },
    NamedPort { service: String, port: String },

    // --- dropped
    EntryIgnored { entry: String, why: &'static str },
    EntryNotImported { entry: String, why: String },
    NamesMisread { key: String, text: String },
    PolicyWithoutEffect { why: Cow<'static, str> },
    PolicyWithoutOrigins,
    KeyIgnored { key: String, meant: Option<&'static str> },
    ListSwitchedOff { list: String },
    Feature { name: String },
    Snippet { text: String },
    PathNotImported { path: String, why: String },
    HostNotImported { host: String, why: String },
    RuleNotImported { rule: String, why: String },
    SameRoute { path: String, first: usize },
    RouteNeverReached { first: usize },
    MatchNotImported { what: String },
    HeaderNotImported { name: String, why: String },
    NotAccepted { why: String },
    WithoutUpstream,
    GuardMissing { plugin: String },
    OtherObject { kind: String },
    RefusedByEngine { why: String },
    Priority,
    ExposeWithCredentials,
}

/// The message of a finding.
#[derive(Debug)]
pub(super) struct Described {
    /// A code that programs can compare.
    pub(super) code: &'static str,
    pub(super) outcome: Outcome,
    pub(super) text: Cow<'static, str>,
}

impl Outcome {
    /// Returns the word for the outcome in the report.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Unsafe => "unsafe",
            Outcome::Changed => "changed",
            Outcome::Dropped => "dropped",
        }
    }
}

impl Kind {
    pub(super) fn outcome(&self) -> Outcome {
        // Only the text depends on the engine. The outcome does not, so any format gives the right outcome.
        self.describe(SourceFormat::IngressNginx).outcome
    }

    /// Whether the report lists this kind only once, with all its places.
    pub(super) fn is_reported_once(&self) -> bool {
        matches!(
            self,
            Kind::Feature { .. }
                | Kind::OtherObject { .. }
                | Kind::ClusterAddress { .. }
                | Kind::ClientAddresses
                | Kind::VaryAdded
                | Kind::HostHeaderOfNode
                | Kind::Priority
        )
    }

    /// Returns the message of each kind. The table has one arm for each kind.
    pub(super) fn describe(&self, format: SourceFormat) -> Described {
        use Kind::*;
        let engine = format.engine();
        match self {
            // --- kept
            EveryOptionsAnswered => kept(
                "every-options-answered",
                format!("{engine} answers every OPTIONS request itself, also without Origin: `preflight.match: any`"),
            ),
            StarTakesAll { others } => kept(
                "star-takes-all",
                format!("`*` in the list allows every origin, so these entries have no effect: {}", listed(others)),
            ),
            OneLabel { pattern } => kept(
                "one-label",
                format!(
                    "`*` in `{pattern}` is one label in {engine}. In corsgate and in Gateway API that pattern would \
                     also allow deeper names, so `{{label}}` replaces `*`"
                ),
            ),
            AnyDepth { pattern } => kept(
                "any-depth",
                format!(
                    "`*` in `{pattern}` stands for one or more labels, here and in corsgate. In ingress-nginx it is one"
                ),
            ),
            Default { key } => kept("default", format!("{engine}'s default for `{key}`, written out")),
            ClusterAddress { service, address } => kept(
                "cluster-address",
                format!(
                    "`{address}` is the name of the Kubernetes service `{service}` in cluster DNS; change it if corsgate runs elsewhere"
                ),
            ),
            VaryAdded => kept(
                "vary-added",
                format!(
                    "{engine} sends no complete `Vary`; corsgate adds `Vary: Origin` where the answer depends on it"
                ),
            ),
            MetadataKeys { keys } => kept(
                "metadata-keys",
                format!(
                    "the origins of the metadata keys {} are written out; `*` in `allow_origins` does not count beside them",
                    listed(keys)
                ),
            ),
            HostHeaderOfNode => kept(
                "host-header",
                format!("{engine} sends the host of the node, not that of the client: `upstream_host: node`"),
            ),
            PathExpression { expression, path } => {
                kept("path-expression", format!("the expression `{expression}` is the path `{path}`"))
            }
            CheckSays { text } => kept("check-says", format!("`corsgate check` says: {text}")),
            BlankEntries { list } => {
                kept("blank-entries", format!("blanks and empty entries of `{list}` have no effect, here and there"))
            }
            NeverSent { names } => {
                kept("never-sent", format!("left out, because browsers never ask for them: {}", listed(names)))
            }
            EntryByExpression { entry, expression } => {
                kept("entry-by-expression", format!("`{entry}` is the expression `{expression}`"))
            }
            ExpressionIsPattern { expression, pattern } => kept(
                "expression-is-pattern",
                format!("the pattern `{pattern}` replaces the expression `{expression}`; both allow the same origins"),
            ),
            EchoesRequestedHeaders => kept(
                "echoes-headers",
                format!("{engine} allows every header that a preflight asks for: `*` and Authorization"),
            ),

            ClientAddresses => kept(
                "client-addresses",
                "a list of client addresses. A client is the peer of the connection; behind another proxy set `trusted_proxies`",
            ),
            MatchesStar { entry } => kept(
                "matches-star",
                format!("`{entry}` matches the text `*`, and {engine} takes such an entry for every origin"),
            ),
            FilterNotSeen => kept(
                "filter-not-seen",
                "the files do not show `http_filters`. Without `envoy.filters.http.cors` there this policy has no effect today, and the import opens what is closed: check it",
            ),
            MergedPolicies => kept(
                "merged-policies",
                format!("{engine} takes each key from the nearest level that has it; the import has the result"),
            ),

            // --- unsafe
            ReflectsAnyOrigin => danger(
                "reflects-any-origin",
                format!(
                    "{engine} allows every origin with credentials: any website can read the responses with the \
                     user's cookies. The import does the same and says so with `dangerously_allow`. List the origins \
                     that need it, and remove that word"
                ),
            ),
            Danger { word, why } => danger("danger", format!("imported with `dangerously_allow: [{word}]`: {why}")),

            // --- changed
            StarWithCredentials => changed(
                "star-with-credentials",
                format!(
                    "{engine} answers `*` together with `Access-Control-Allow-Credentials: true`. Browsers refuse that \
                     for requests with cookies, so today no page reads such a response; pages without cookies can read. \
                     The import keeps this: any origin, no credentials. A gateway that reflects the origin instead \
                     would let every website read with the user's cookies. If pages need cookies, list their origins \
                     and set `allow_credentials: true`"
                ),
            ),
            ListMisread { list } => changed(
                "list-misread",
                format!(
                    "{engine} does not accept the list `{list}` because of one of its entries, and then allows every \
                     origin. The import allows what the list means: its valid entries"
                ),
            ),
            NullReflected => changed(
                "null-reflected",
                format!(
                    "{engine} also allows the origin `null`, which any website can send from a sandboxed frame; the import does not"
                ),
            ),
            RefusedPreflightForwarded => changed(
                "refused-preflight-forwarded",
                format!(
                    "{engine} forwards the preflight of an origin that is not allowed to the service, which may allow it; corsgate answers it"
                ),
            ),
            ServiceHeadersRemain => changed(
                "service-headers-remain",
                format!(
                    "if the service sends CORS headers of its own, {engine} leaves them in responses to origins that are not allowed; corsgate removes them"
                ),
            ),
            MaxAgeCapped { seconds } => changed(
                "max-age-capped",
                format!("`max_age` is 86400 instead of {seconds}: no browser caches a preflight for longer"),
            ),
            OptionsNotRouted { methods } => changed(
                "options-not-routed",
                format!(
                    "the route lists {} without OPTIONS, so {engine} answers preflights with 404 and pages cannot send \
                     what needs one. corsgate routes a preflight by the method that it asks for, and answers it",
                    listed(methods)
                ),
            ),
            ExpressionNotAnchored { expression } => changed(
                "expression-not-anchored",
                format!(
                    "{engine} searches `{expression}` anywhere in the origin, so it also allows origins that only contain it. In corsgate it must match the whole origin"
                ),
            ),
            OriginPrefix { prefix } => changed(
                "origin-prefix",
                format!(
                    "the prefix `{prefix}` also allows origins that only begin with it. It is imported as the origin that it means"
                ),
            ),
            OriginSuffix { suffix } => changed(
                "origin-suffix",
                format!(
                    "the suffix `{suffix}` also allows origins that only end with it. It is imported as the origins that it means"
                ),
            ),
            AnySchemeAndPort { entry } => changed(
                "any-scheme-and-port",
                format!(
                    "`{entry}` is compared with the host alone, so {engine} allows every scheme and port. It is imported for http and https, with any port"
                ),
            ),
            PathPrefixEndsInSegment { path } => changed(
                "path-prefix",
                format!("`{path}` also covers paths that only begin with it. In corsgate a prefix ends at a slash"),
            ),
            PathWithoutSlash { path } => changed(
                "path-without-slash",
                format!("`{path}` does not cover the path without the slash. In corsgate it does"),
            ),
            PrefixReplaced { path, theirs, ours } => changed(
                "prefix-replaced",
                format!(
                    "{engine} replaces the prefix as text, and forwards `{path}` as `{theirs}`; corsgate replaces whole segments, and forwards it as `{ours}`"
                ),
            ),
            RedirectWithoutQuery => changed(
                "redirect-without-query",
                format!("{engine} adds the query of the request to this redirect; corsgate does not"),
            ),
            RedirectStatus { status } => changed(
                "redirect-status",
                format!("a redirect with the status {status} for every method; {engine} has another status for GET"),
            ),
            HostHidesRoutes { host, service } => changed(
                "host-hides-routes",
                format!(
                    "in corsgate the host decides first: requests for `{host}` no longer reach the routes of `{service}`, which is for other hosts"
                ),
            ),
            ConditionLost { what, is_refusal } => changed(
                "condition-lost",
                format!(
                    "a route of corsgate has no condition on {what}, so this route is left out. Another route takes its requests, {}",
                    if *is_refusal { "and does not refuse what this one refuses" } else { "with another policy" }
                ),
            ),
            ClientsDenied { why } => changed(
                "clients-denied",
                format!(
                    "these client addresses are not imported: {why}. The route denies all clients; write its `clients`"
                ),
            ),
            RouteClosed => changed(
                "route-closed",
                "another route would take the requests of this route, so the route answers 503: write what it does",
            ),
            Rerouted { what, why } => {
                changed("rerouted", format!("{what} is not imported: {why}. Another route takes its requests"))
            }
            PathCase { path } => {
                changed("path-case", format!("{engine} ignores the case of letters in `{path}`; corsgate does not"))
            }
            OneListener { listener } => changed(
                "one-listener",
                format!(
                    "{engine} has this only at {listener}. In corsgate every listener has every route: set `clients`, or run another process"
                ),
            ),
            TotalTimeout => changed(
                "total-timeout",
                format!(
                    "`timeouts.total` begins with the request. In {engine} it begins after the body, so a slow upload has more time"
                ),
            ),
            BodyLimit { size, limit } => changed(
                "body-limit",
                match limit {
                    Some(limit) => format!(
                        "a request body may have {size} here. corsgate has one limit for all routes, the largest one: {limit}"
                    ),
                    None => format!(
                        "a request body may have {size} here. corsgate has one limit for all routes, and other routes have none: set `limits.body`"
                    ),
                },
            ),
            NotInFiles { what, name } => dropped(
                "not-in-files",
                format!(
                    "the {what} `{name}` of this route is missing. {engine} refuses the requests of such a route. Import the {what} together with the route"
                ),
            ),
            ErrorsWithoutHeaders => changed(
                "errors-without-headers",
                format!(
                    "{engine} adds the headers to successful responses only, because `always` is missing. In corsgate pages can read errors too"
                ),
            ),
            MethodsWithoutHeaders { methods } => changed(
                "methods-without-headers",
                format!(
                    "{engine} adds the headers to {} only; responses to other methods have none. In corsgate the policy is for every method",
                    listed(methods)
                ),
            ),
            TwoHeaders => changed(
                "two-headers",
                format!(
                    "if the service sends CORS headers of its own, {engine} sends both, and browsers refuse two; corsgate \
                     replaces those of the service"
                ),
            ),
            PreflightContinues => changed(
                "preflight-continues",
                format!(
                    "{engine} forwards preflights to the service, which answers them; corsgate answers them by this policy"
                ),
            ),
            PreflightsFail => changed(
                "preflights-fail",
                format!(
                    "{engine} answers preflights without `Access-Control-Allow-Origin`, so pages cannot send what needs one; corsgate answers them by this policy"
                ),
            ),
            WithoutRoutes => changed(
                "without-routes",
                "the source has a policy, and no route that says for which requests. The import has it for every request: write hosts, paths and nodes",
            ),
            PlaceholderNode { text } => changed(
                "placeholder-node",
                format!("`{text}` is not the address of a node. The import has a placeholder: write the address"),
            ),
            UnknownCluster { name } => changed(
                "unknown-cluster",
                format!("the files do not have the upstream `{name}`. The import has a placeholder: write the address"),
            ),
            NamedPort { service, port } => changed(
                "named-port",
                format!(
                    "the number of the port `{port}` is in the Kubernetes service `{service}`, not here. The import has port 80: write the number"
                ),
            ),

            // --- dropped
            EntryIgnored { entry, why } => {
                dropped("entry-ignored", format!("`{entry}` has no effect today, because {why}; it is left out"))
            }
            EntryNotImported { entry, why } => {
                dropped("entry-not-imported", format!("`{entry}` is not imported: {why}"))
            }
            NamesMisread { key, text } => dropped(
                "names-misread",
                format!(
                    "{engine} does not accept `{text}` in `{key}` and uses its default instead; so does the import"
                ),
            ),
            PolicyWithoutEffect { why } => dropped(
                "policy-without-effect",
                format!(
                    "this policy has no effect today, because {why}. The import has no CORS here; a policy would open what is closed"
                ),
            ),
            PolicyWithoutOrigins => dropped(
                "policy-without-origins",
                "the policy allows no origin, so no page can read responses. The import has no policy here: the service's own CORS headers pass, as today",
            ),
            KeyIgnored { key, meant } => dropped(
                "key-ignored",
                match meant {
                    Some(meant) => format!(
                        "{engine} does not know `{key}` and ignores it (its key is `{meant}`), so it has no effect today; it is left out"
                    ),
                    None => format!("{engine} does not know `{key}` and ignores it; it is left out"),
                },
            ),
            ListSwitchedOff { list } => dropped(
                "list-switched-off",
                format!(
                    "an expression switches the list of origins off in {engine}, so `{list}` has no effect today; it is left out"
                ),
            ),
            Feature { name } => {
                dropped("feature", format!("{name}: not about routing or CORS, or without a counterpart in corsgate"))
            }
            Snippet { text } => dropped(
                "snippet",
                format!("not converted: CORS in configuration text, `{text}`. Write the policy by hand"),
            ),
            PathNotImported { path, why } => {
                dropped("path-not-imported", format!("the path `{path}` is not imported: {why}"))
            }
            HostNotImported { host, why } => {
                dropped("host-not-imported", format!("the host `{host}` is not imported: {why}"))
            }
            RuleNotImported { rule, why } => {
                dropped("rule-not-imported", format!("the rule `{rule}` is not imported: {why}"))
            }
            SameRoute { path, first } => {
                dropped("same-route", format!("`{path}` already belongs to the route of line {first}, which wins"))
            }
            RouteNeverReached { first } => dropped(
                "route-never-reached",
                format!(
                    "no request reaches this rule, because the rule of line {first} matches the same requests first. A CORS filter here has no effect: move it to that rule"
                ),
            ),
            MatchNotImported { what } => dropped(
                "match-not-imported",
                format!(
                    "a route of corsgate has no condition on {what}, so this route is left out: its requests go to other routes, or get 404"
                ),
            ),
            HeaderNotImported { name, why } => {
                dropped("header-not-imported", format!("the edit of the header `{name}` is not imported: {why}"))
            }
            NotAccepted { why } => {
                dropped("not-accepted", format!("corsgate does not accept it: {why}; the route is not imported"))
            }
            WithoutUpstream => {
                dropped("without-upstream", "there is no service that could answer; the route is not imported")
            }
            GuardMissing { plugin } => dropped(
                "guard-missing",
                format!(
                    "the plugin `{plugin}` may refuse or change requests, and corsgate does not have it. The route is closed. Switch the plugin off, or serve the route with {engine}"
                ),
            ),
            OtherObject { kind } => dropped("other-object", format!("{kind}: not read")),
            RefusedByEngine { why } => dropped(
                "refused-by-engine",
                format!("{engine} itself refuses this policy: {why}. The import has no CORS here"),
            ),
            Priority => dropped(
                "priority",
                "priorities of routes and of expressions: in corsgate the more specific path wins, and a literal wins over a parameter",
            ),
            ExposeWithCredentials => dropped(
                "expose-star",
                "`*` exposes no header to requests with credentials, so it has no effect today; list the names of the headers",
            ),
        }
    }
}

fn kept(code: &'static str, text: impl Into<Cow<'static, str>>) -> Described {
    Described { code, outcome: Outcome::Kept, text: text.into() }
}

fn danger(code: &'static str, text: impl Into<Cow<'static, str>>) -> Described {
    Described { code, outcome: Outcome::Unsafe, text: text.into() }
}

fn changed(code: &'static str, text: impl Into<Cow<'static, str>>) -> Described {
    Described { code, outcome: Outcome::Changed, text: text.into() }
}

fn dropped(code: &'static str, text: impl Into<Cow<'static, str>>) -> Described {
    Described { code, outcome: Outcome::Dropped, text: text.into() }
}

fn listed(words: &[String]) -> String {
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one finding of each kind, with a typical text of a source.
    fn samples() -> Vec<Kind> {
        use Kind::*;
        let text = |text: &str| text.to_owned();
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        vec![
            EveryOptionsAnswered,
            StarTakesAll { others: list(&["https://a.example", "https://b.example"]) },
            OneLabel { pattern: text("https://*.a.example") },
            AnyDepth { pattern: text("https://*.a.example") },
            Default { key: "allow_methods" },
            ClusterAddress { service: text("api"), address: text("api.web.svc.cluster.local:80") },
            VaryAdded,
            MetadataKeys { keys: list(&["web", "apps"]) },
            HostHeaderOfNode,
            PathExpression { expression: text("/a/([^/]+)$"), path: text("/a/{p1}") },
            CheckSays { text: text("unescaped `.` matches any character") },
            NeverSent { names: list(&["DNT", "Date"]) },
            BlankEntries { list: text("GET, PUT,") },
            EntryByExpression { entry: text("https://pr-"), expression: text("https://pr\\-.*") },
            ExpressionIsPattern {
                expression: text("https://pr-[0-9]+\\.a\\.example"),
                pattern: text("https://pr-{digits}.a.example"),
            },
            EchoesRequestedHeaders,
            ClientAddresses,
            MatchesStar { entry: text(".*") },
            FilterNotSeen,
            MergedPolicies,
            ReflectsAnyOrigin,
            Danger { word: "null_origin", why: text("any website can send it") },
            StarWithCredentials,
            ListMisread { list: text("https://a.example/") },
            NullReflected,
            RefusedPreflightForwarded,
            ServiceHeadersRemain,
            MaxAgeCapped { seconds: 1_728_000 },
            OptionsNotRouted { methods: list(&["GET", "PUT"]) },
            ExpressionNotAnchored { expression: text("^https://a\\.example") },
            OriginPrefix { prefix: text("https://a.example") },
            OriginSuffix { suffix: text("a.example") },
            AnySchemeAndPort { entry: text("(.*)a.example") },
            PathPrefixEndsInSegment { path: text("/v1") },
            PathWithoutSlash { path: text("/v1/") },
            PrefixReplaced { path: text("/v1/x"), theirs: text("//x"), ours: text("/x") },
            RedirectWithoutQuery,
            RedirectStatus { status: 308 },
            HostHidesRoutes { host: text("a.example"), service: text("all") },
            ConditionLost { what: text("headers"), is_refusal: false },
            ClientsDenied { why: text("`office` is not an address or a network") },
            RouteClosed,
            Rerouted {
                what: text("the path `/a.*b`"),
                why: text("it is a regular expression that no pattern of corsgate can say"),
            },
            PathCase { path: text("/admin/*") },
            OneListener { listener: text("`listen 127.0.0.1:8080`") },
            TotalTimeout,
            BodyLimit { size: text("1MiB"), limit: Some(text("10MiB")) },
            NotInFiles { what: "service", name: text("7") },
            ErrorsWithoutHeaders,
            MethodsWithoutHeaders { methods: list(&["GET"]) },
            TwoHeaders,
            PreflightContinues,
            PreflightsFail,
            WithoutRoutes,
            PlaceholderNode { text: text("${HOST}:80") },
            UnknownCluster { name: text("api") },
            NamedPort { service: text("api"), port: text("http") },
            EntryIgnored { entry: text("a.example"), why: "it has no scheme" },
            EntryNotImported { entry: text("https://a.example/"), why: text("it ends with a slash") },
            NamesMisread { key: text("cors-allow-headers"), text: text("*") },
            PolicyWithoutEffect { why: "`filter_enabled` is 0 %".into() },
            PolicyWithoutOrigins,
            KeyIgnored { key: text("allow_credentials"), meant: Some("allow_credential") },
            ListSwitchedOff { list: text("https://a.example") },
            Feature { name: text("plugin `jwt-auth`") },
            Snippet { text: text("add_header Access-Control-Allow-Origin *;") },
            PathNotImported {
                path: text("/a.*b"),
                why: text("it is a regular expression that no pattern of corsgate can say"),
            },
            HostNotImported { host: text("a.*"), why: text("`*` can only replace complete labels at the front") },
            RuleNotImported { rule: text("PathRegexp(`x`)"), why: text("corsgate has no such condition") },
            SameRoute { path: text("/v1/*"), first: 7 },
            RouteNeverReached { first: 7 },
            MatchNotImported { what: text("headers") },
            HeaderNotImported { name: text("Vary"), why: text("it belongs to `cors`") },
            NotAccepted { why: text("`*` is not a method") },
            WithoutUpstream,
            GuardMissing { plugin: text("jwt-auth") },
            OtherObject { kind: text("Gateway") },
            RefusedByEngine { why: text("`max_age` is not a number") },
            Priority,
            ExposeWithCredentials,
        ]
    }

    /// `BLESS=1 cargo test --lib import::finding` rewrites tests/import/findings.txt. Then read the diff.
    #[test]
    fn every_kind_has_one_text() {
        let shown = samples().iter().fold(String::new(), |shown, kind| {
            let Described { code, outcome, text } = kind.describe(SourceFormat::Apisix);
            shown + &format!("{:8} {code}: {text}\n", outcome.word())
        });
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import/findings.txt");
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path, &shown).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), shown);
        let mut codes: Vec<&str> = samples().iter().map(|kind| kind.describe(SourceFormat::Apisix).code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), samples().len(), "two kinds have the same code");
        // Each arm of `describe` calls one of four functions, so the number of calls is the number of kinds.
        let source = include_str!("finding.rs");
        let table =
            source.split_once("match self {\n            // --- kept").unwrap().1.split_once("\nfn kept(").unwrap().0;
        let arms =
            ["kept(", "danger(", "changed(", "dropped("].iter().map(|call| table.matches(&format!(" {call}")).count());
        assert_eq!(arms.sum::<usize>(), samples().len(), "`samples` has one finding for each kind");
    }
}
