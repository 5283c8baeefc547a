//! The learned policies as YAML for `cors_policies`, and as JSON.
//!
//! Values from clients are quoted in YAML. In comments, characters that a terminal interprets are escaped.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::in_force::without_nulls;
use super::suggest::{LearnedPolicy, LeftOut, Lesson, What, Why};
use super::{LogFacts, Observation, Observed, SeenOrigin};
use crate::cors::{PreflightSettings, Settings, UpstreamHeaders};
use crate::notation::{List, scalar};
use crate::terminal::printable;

/// Maximum number of values of each kind in the comments. The JSON has all values.
const MOST_LISTED: usize = 20;
/// Maximum length of the values that determine the column of the comments. Longer values move only their own comment.
const WIDEST: usize = 60;

impl Lesson<'_> {
    /// Returns the policies as YAML. `from` is the URL or the file of the observation. Values below `min_count` are
    /// left out.
    pub(crate) fn yaml(&self, from: &str, min_count: u64) -> String {
        let mut out = Yaml(String::new());
        self.introduction(from, &mut out);
        if self.is_empty() {
            out.comment(0, "No policy: no allowed request needs one.");
        } else {
            out.line(0, "cors_policies:");
        }
        for policy in &self.policies {
            out.0.push('\n');
            policy.yaml(min_count, self.observation, &mut out);
        }
        out.0
    }

    /// Returns the policies as JSON. The arguments are the same as for [`Self::yaml`].
    pub(crate) fn json(&self, from: &str, min_count: u64) -> String {
        let observation = self.observation;
        let value = json!({
            "from": from,
            "seconds": observation.seconds,
            "generation": observation.generation,
            "log": observation.log,
            "min_count": min_count,
            "policies": self.policies.iter().map(LearnedPolicy::json).collect::<Vec<_>>(),
            "unused_policies": observation.unused_policies,
            "ambiguous_routes": observation.ambiguous_routes,
            "same_origin": observation.observed.same_origin,
            "invalid_origins": observation.observed.invalid_origins,
            "missed": observation.observed.missed,
            "dropped": observation.observed.dropped,
            "refused_dropped": observation.observed.refused_dropped,
            "long_names": observation.observed.long_names,
            "other_generation": observation.other_generation,
            "not_counted": observation.not_counted,
        });
        format!("{value:#}\n")
    }

    fn introduction(&self, from: &str, out: &mut Yaml) {
        let observation = self.observation;
        let Observed { same_origin, invalid_origins, missed, dropped, refused_dropped, long_names, .. } =
            observation.observed;
        match &observation.log {
            None => out.comment(
                0,
                &format!(
                    "Seen at {from} in {} s, configuration generation {}.",
                    observation.seconds, observation.generation
                ),
            ),
            Some(LogFacts { lines, malformed, unknown_routes }) => {
                out.comment(0, &format!("Seen in {from}: {}.", counted(*lines, "line")));
                out.comment(0, "The access log has no requested headers and no credentials: those keys are unchanged.");
                let malformed_lines = counted(*malformed, "line");
                out.note(*malformed, &format!("{malformed_lines} ignored: not in the JSON format of the access log."));
                let unknown = counted(*unknown_routes, "request");
                out.note(
                    *unknown_routes,
                    &format!("{unknown} ignored: the configuration has no such route, or the route has no policy."),
                );
            }
        }
        let unused = observation.unused_policies as u64;
        out.note(unused, &format!("Without a cross-origin request: {}.", counted_as(unused, "policy", "policies")));
        out.note(same_origin, &format!("{} of the same origin need no policy.", counted(same_origin, "request")));
        let invalid = counted(invalid_origins, "request");
        out.note(invalid_origins, &format!("{invalid} ignored: browsers do not send such an Origin."));
        out.note(
            missed,
            &format!(
                "Too many origins: {} not counted. Origins with up to {missed} requests may be missing.",
                counted(dropped, "request")
            ),
        );
        let refused = counted(refused_dropped, "refused request");
        out.note(refused_dropped, &format!("Too many refused origins: {refused} not listed."));
        out.note(long_names, &format!("{} ignored: longer than 64 bytes.", counted(long_names, "name")));
        let others = counted(observation.other_generation, "request");
        out.note(
            observation.other_generation,
            &format!("{others} not counted: the configuration was reloaded. Run the command again."),
        );
        let not_counted = counted(observation.not_counted, "request");
        out.note(observation.not_counted, &format!("{not_counted} not counted: too many at the same time."));
        for route in observation.ambiguous_routes.iter().take(MOST_LISTED) {
            out.comment(0, &format!("Route {route} not observed: another route has the same name. Set `name`."));
        }
    }
}

impl LearnedPolicy<'_> {
    fn yaml(&self, min_count: u64, observation: &Observation, out: &mut Yaml) {
        let more = match self.in_force.route_count.saturating_sub(self.in_force.routes.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        out.comment(1, &format!("For {}{more}: {}", self.in_force.routes.join(", "), self.in_force.place));
        match &self.settings {
            Some(settings) => self.keys(settings, observation, out),
            None => out.comment(1, "No policy: no allowed request needs one."),
        }
        let left_out = self.left_out.iter().map(|left_out| left_out.text(min_count));
        let unused = self.unused.iter().map(|(key, entry)| format!("{key} {entry}: not used"));
        out.list("Left out:", left_out.chain(unused));
        let refused = self.refused.iter().map(|refused| {
            let reasons = refused.reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
            format!("{}: {}", refused.origin, reasons.collect::<Vec<_>>().join(", "))
        });
        out.list("Refused today, and left out:", refused);
    }

    fn keys(&self, settings: &Settings, observation: &Observation, out: &mut Yaml) {
        let from_log = observation.log.is_some();
        out.line(1, &format!("{}:", scalar(&self.in_force.name)));
        let origins: Vec<(&str, String)> =
            self.origins.iter().map(|seen| (seen.origin.as_str(), seen.counts())).collect();
        out.entries("allow_origins", &origins);
        out.entries("allow_methods", &with_counts(&self.methods));
        let keys = without_nulls(settings);
        if from_log {
            let headers = keys.get("allow_headers").map_or("\"*\"".to_owned(), flow);
            out.line(2, &format!("allow_headers: {headers}   # unchanged"));
        } else {
            out.entries("allow_headers", &with_counts(&self.headers));
            let cached = settings.max_age.unwrap_or(Settings::DEFAULT_MAX_AGE);
            if u64::try_from(cached).is_ok_and(|cached| cached > observation.seconds) {
                out.comment(
                    2,
                    &format!(
                        "Browsers cache preflights for up to {cached} s: observe for longer, or headers may be missing."
                    ),
                );
            }
        }
        let had = format!("{} with cookies, {} with Authorization", self.cookies, self.authorization);
        match (settings.allow_credentials, self.in_force.settings.allow_credentials) {
            (true, _) if from_log => out.line(2, "allow_credentials: true   # unchanged"),
            (true, _) => out.line(2, &format!("allow_credentials: true   # requests: {had}")),
            (false, true) => out.comment(2, "No allow_credentials: no request had cookies or Authorization."),
            (false, false) if self.cookies + self.authorization > 0 => {
                out.comment(2, &format!("No allow_credentials, as today. Requests: {had}."));
            }
            (false, false) => {}
        }
        // Beside `*`, browsers ignore the upstream's Access-Control-Allow-Credentials. Beside a listed origin they
        // accept it, so the learned policy would allow more than the policy in force.
        if allows_any_origin(&self.in_force.settings)
            && !settings.allow_credentials
            && settings.upstream_headers == UpstreamHeaders::Override
        {
            out.comment(
                2,
                "Listed origins also get the upstream's Access-Control-Allow-Credentials; `upstream_headers: replace` removes it.",
            );
        }
        let learned = ["allow_origins", "allow_methods", "allow_headers", "allow_credentials"];
        let standard = without_nulls(&Settings::default());
        for (key, value) in keys.as_object().into_iter().flatten() {
            if !learned.contains(&key.as_str()) && standard.get(key) != Some(value) {
                out.line(2, &format!("{key}: {}", flow(&given(key, value))));
            }
        }
        if self.names_missed > 0 {
            out.comment(2, "Too many methods or header names of one origin: rare ones may be missing.");
        }
    }

    fn json(&self) -> Value {
        let names = |names: &[(&str, u64)]| -> Map<String, Value> {
            names.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count))).collect()
        };
        let origin = |seen: &&SeenOrigin| {
            json!({
                "origin": seen.origin, "requests": seen.requests, "preflights": seen.preflights,
                "cookies": seen.cookies, "authorization": seen.authorization,
            })
        };
        let left_out = |left_out: &LeftOut<'_>| {
            let danger = match left_out.why {
                Why::Needs(danger) => Some(danger.word()),
                Why::Rare | Why::NoPermissionNeeded | Why::NotFromBrowsers => None,
            };
            let (kind, why) = (left_out.what.word(), left_out.why.code());
            json!({ "kind": kind, "value": left_out.value, "count": left_out.count, "why": why, "needs": danger })
        };
        json!({
            "name": self.in_force.name,
            "place": self.in_force.place,
            "routes": self.in_force.routes,
            "route_count": self.in_force.route_count,
            "policy": self.settings.as_ref().map(without_nulls),
            "origins": self.origins.iter().map(origin).collect::<Vec<_>>(),
            "methods": names(&self.methods),
            "headers": names(&self.headers),
            "names_missed": self.names_missed,
            "left_out": self.left_out.iter().map(left_out).collect::<Vec<_>>(),
            "unused": self.unused.iter().map(|(key, entry)| json!({ "key": key, "entry": entry })).collect::<Vec<_>>(),
            "refused": self.refused.iter().map(|refused| json!({ "origin": refused.origin, "reasons": refused.reasons })).collect::<Vec<_>>(),
        })
    }
}

impl SeenOrigin {
    /// Returns the counts in words: `3 requests, 1 preflight`.
    fn counts(&self) -> String {
        let both = [(self.requests, "request"), (self.preflights, "preflight")];
        let some = both.into_iter().filter(|(count, _)| *count > 0).map(|(count, one)| counted(count, one));
        some.collect::<Vec<_>>().join(", ")
    }
}

impl LeftOut<'_> {
    fn text(&self, min_count: u64) -> String {
        let why = match self.why {
            Why::Rare => format!("seen fewer than {min_count} times"),
            Why::NoPermissionNeeded => "only navigations and requests that need no permission".to_owned(),
            Why::Needs(danger) => format!("needs dangerously_allow: [{}]", danger.word()),
            Why::NotFromBrowsers => "no browser sends it".to_owned(),
        };
        format!("{} {} ({}): {why}", self.what.word(), self.value, counted(self.count, "time"))
    }
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            What::Origin => "origin",
            What::Method => "method",
            What::Header => "header",
        }
    }
}

impl Why {
    const fn code(self) -> &'static str {
        match self {
            Why::Rare => "rare",
            Why::NoPermissionNeeded => "needs_no_permission",
            Why::Needs(_) => "needs_danger",
            Why::NotFromBrowsers => "not_from_browsers",
        }
    }
}

/// The YAML text.
struct Yaml(String);

impl Yaml {
    fn line(&mut self, level: usize, text: &str) {
        let _ = writeln!(self.0, "{}{text}", "  ".repeat(level));
    }

    fn comment(&mut self, level: usize, text: &str) {
        self.line(level, &format!("# {}", printable(text)));
    }

    /// Writes a comment about a number, unless the number is 0.
    fn note(&mut self, count: u64, text: &str) {
        if count > 0 {
            self.comment(0, text);
        }
    }

    /// Writes a list with a comment for each entry.
    fn entries<T: AsRef<str>>(&mut self, key: &str, entries: &[(T, String)]) {
        if entries.is_empty() {
            return self.line(2, &format!("{key}: []"));
        }
        self.line(2, &format!("{key}:"));
        let written: Vec<(String, &str)> =
            entries.iter().map(|(entry, comment)| (scalar(entry.as_ref()), comment.as_str())).collect();
        let width = written.iter().map(|(entry, _)| entry.len()).filter(|width| *width <= WIDEST).max().unwrap_or(0);
        for (entry, comment) in written {
            self.line(3, &format!("- {entry:width$}   # {comment}"));
        }
    }

    /// Writes a comment with one line for each value.
    fn list(&mut self, title: &str, values: impl Iterator<Item = String>) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return;
        }
        self.comment(1, title);
        for value in values.by_ref().take(MOST_LISTED) {
            self.comment(1, &format!("  {value}"));
        }
        if let more @ 1.. = values.count() {
            self.comment(1, &format!("  and {more} more; `--format json` lists all"));
        }
    }
}

fn allows_any_origin(settings: &Settings) -> bool {
    settings.allow_origins.iter().flat_map(List::entries).any(|origin| origin == "*")
}

/// Returns the value of a key. `preflight` loses the keys that have their default.
fn given(key: &str, value: &Value) -> Value {
    let mut value = value.clone();
    if let ("preflight", Some(keys)) = (key, value.as_object_mut()) {
        let standard = serde_json::to_value(PreflightSettings::default()).unwrap_or_default();
        keys.retain(|key, value| standard.get(key) != Some(value));
    }
    value
}

/// Formats a value of the configuration on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(entries) => format!("[{}]", entries.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(keys) => {
            let pairs = keys.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn with_counts<'n>(names: &[(&'n str, u64)]) -> Vec<(&'n str, String)> {
    names.iter().map(|(name, count)| (*name, counted(*count, "time"))).collect()
}

fn counted(count: u64, one: &str) -> String {
    counted_as(count, one, &format!("{one}s"))
}

fn counted_as(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::learn::{NameCounts, PolicyInForce, RefusedOrigin};

    fn observation(settings: &str, seen: Vec<SeenOrigin>) -> Observation {
        let settings = serde_yaml::from_str(settings).unwrap();
        let (name, place, routes) =
            ("pages".into(), "cors_policies.pages".into(), vec!["api/orders".into(), "api/users".into()]);
        Observation {
            seconds: 600,
            generation: 1,
            policies: vec![PolicyInForce { name, place, routes, route_count: 2, settings }],
            observed: Observed { seen, ..Observed::default() },
            ..Observation::default()
        }
    }

    fn seen(origin: &str, requests: u64) -> SeenOrigin {
        SeenOrigin { origin: origin.to_owned(), requests, ..SeenOrigin::default() }
    }

    fn names(counts: &[(&str, u64)]) -> NameCounts {
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        NameCounts { counts, missed: 0 }
    }

    /// Checks the output that docs/change.md shows.
    #[test]
    fn the_policy_of_the_manual() {
        let settings =
            "{ allow_origins: '*', allow_methods: [GET, PUT, DELETE], expose_headers: [X-Total], max_age: 600 }";
        let app = SeenOrigin {
            preflights: 97,
            methods: names(&[("GET", 1691), ("PUT", 113)]),
            headers: names(&[("content-type", 97)]),
            ..seen("https://app.example", 1804)
        };
        let rest = [("https://staging.example", 12), ("null", 9), ("https://try.example", 1)];
        let all = std::iter::once(app).chain(rest.into_iter().map(|(origin, count)| seen(origin, count)));
        let mut observation = observation(settings, all.collect());
        let reasons = BTreeMap::from([("origin_not_allowed".to_owned(), 40)]);
        observation.observed.refused =
            vec![RefusedOrigin { policy: 0, origin: "https://evil.example".to_owned(), reasons }];
        let text = Lesson::of(&observation, 5).yaml("http://127.0.0.1:9180", 5);
        let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/change.md");
        let manual = std::fs::read_to_string(manual).unwrap();
        assert!(manual.contains(&format!("```text\n{text}```\n")), "docs/change.md must show:\n{text}");
    }

    /// The values of clients, and the values of a server that is not corsgate, are quoted or escaped.
    #[test]
    fn hostile_values_stay_values() {
        let settings = "{ allow_origins: '*', allow_headers: '*', expose_headers: [X-A] }";
        let hostile =
            ["*", "null", "~", "#", "'", "\"", "a: b", "{x", "- x", "\u{1b}[2J", "x\n  evil: 1", "&a", "yes", "1e3"];
        let all = hostile.iter().map(|value| seen(value, 3)).chain(hostile.iter().map(|value| SeenOrigin {
            methods: names(&[(value, 2)]),
            headers: names(&[(value, 2)]),
            ..seen("https://app.example", 3)
        }));
        let mut observation = observation(settings, all.collect());
        observation.policies[0].name = "x\ny: 1".to_owned();
        observation.policies[0].place = "a\nb: \u{202e}".to_owned();
        observation.policies[0].routes = vec!["r\n- x".to_owned()];
        let text = Lesson::of(&observation, 1).yaml("http://\nx: 1", 1);
        assert!(!text.chars().any(|c| c != '\n' && crate::terminal::is_invisible(c)), "{text}");
        let read: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let keys = |value: &serde_yaml::Value| -> Vec<String> {
            value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(keys(&read), ["cors_policies"]);
        assert_eq!(keys(&read["cors_policies"]), ["x\ny: 1"]);
        let policy = &read["cors_policies"]["x\ny: 1"];
        let settings: Settings = serde_yaml::from_value(policy.clone()).unwrap();
        assert!(settings.allow_origins.unwrap().entries().iter().all(|origin| origin == "https://app.example"));
        let tokens = ["#", "'", "~", "1e3", "&a", "yes"].map(str::to_owned);
        let (methods, headers) = (settings.allow_methods.unwrap(), settings.allow_headers.unwrap());
        for list in [methods, headers] {
            assert!(list.entries().iter().all(|entry| tokens.contains(entry) || entry == "null"), "{list:?}");
            assert!(["#", "'"].iter().all(|token| list.entries().iter().any(|entry| entry == token)), "{list:?}");
        }
    }

    #[test]
    fn credentials_are_allowed_only_if_they_are_allowed_and_used() {
        let with_cookies = || SeenOrigin { cookies: 2, ..seen("https://app.example", 3) };
        for (in_force, seen, allowed) in [
            (true, with_cookies(), true),
            (true, seen("https://app.example", 3), false),
            (false, with_cookies(), false),
        ] {
            let settings = format!(
                "{{ allow_origins: https://app.example, allow_credentials: {in_force}, allow_methods: [], allow_headers: [] }}"
            );
            let observation = observation(&settings, vec![seen]);
            let text = Lesson::of(&observation, 1).yaml("x", 1);
            assert_eq!(text.contains("\n    allow_credentials: true"), allowed, "{text}");
            assert_eq!(text.contains("# No allow_credentials"), !allowed, "{text}");
        }
    }

    #[test]
    fn a_short_observation_can_miss_headers() {
        for (max_age, is_short) in [("601", true), ("600", false), ("-1", false)] {
            let settings = format!("{{ allow_origins: '*', max_age: {max_age} }}");
            let observation = observation(&settings, vec![seen("https://app.example", 1)]);
            let text = Lesson::of(&observation, 1).yaml("x", 1);
            assert_eq!(text.contains("# Browsers cache preflights for up to 601 s"), is_short, "{text}");
        }
    }

    /// A learned policy accepts a danger only if an origin needs it and the policy in force accepts it.
    #[test]
    fn dangers_are_never_added() {
        for (dangers, origin, kept) in [
            ("", "http://intranet.example", None),
            ("dangerously_allow: [insecure_origins]", "http://intranet.example", Some("[insecure_origins]")),
            ("dangerously_allow: [insecure_origins, null_origin]", "null", Some("[null_origin]")),
            ("dangerously_allow: [insecure_origins]", "https://app.example", Some("")),
            ("", "null", None),
        ] {
            let settings = format!(
                "{{ allow_origins: https://app.example, allow_credentials: true, allow_methods: [], allow_headers: [], {dangers} }}"
            );
            let observation = observation(&settings, vec![SeenOrigin { cookies: 3, ..seen(origin, 3) }]);
            let text = Lesson::of(&observation, 1).yaml("x", 1);
            let written = text.lines().find_map(|line| line.strip_prefix("    dangerously_allow: "));
            match kept {
                Some(kept) => assert_eq!(written.unwrap_or_default(), kept, "{text}"),
                None => assert!(text.contains(": needs dangerously_allow: [") && written.is_none(), "{text}"),
            }
        }
    }
}
