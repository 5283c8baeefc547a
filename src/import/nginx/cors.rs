//! The CORS headers of a location: `add_header Access-Control-…`, in the forms that common recipes use.

use std::collections::HashMap;

use super::directives::Directive;
use super::{Scope, inherited};
use crate::cors::PreflightMatch;
use crate::import::finding::{Finding, Kind, Place};
use crate::import::model::{Cors, FOREIGN, Key, Policy};
use crate::import::origins;
use crate::import::witness::{Answer, Witness};

/// The headers that nginx adds for one kind of request.
#[derive(Default)]
struct Sent<'d> {
    /// An empty list means every method.
    methods: Vec<&'d str>,
    /// The condition on the origin.
    origin: Option<Condition<'d>>,
    headers: Vec<&'d Directive>,
    /// The status of `return`, and its line.
    status: Option<(u16, usize)>,
}

/// The condition of an `if` block, if it is about the origin.
#[derive(Clone, Copy)]
enum Condition<'d> {
    /// An expression that matches anywhere in `$http_origin`, and its line.
    Expression(&'d str, usize),
    /// The entries of a map from `$http_origin` that have this value. `None` means any value.
    Map(&'d Directive, Option<&'d str>),
    /// A condition that the import cannot read, and its line.
    Other(usize),
}

impl<'d> Sent<'d> {
    fn header(&self, name: &str) -> Option<(&'d str, &'d Directive)> {
        let found = self.headers.iter().rev().find(|one| one.argument(0).eq_ignore_ascii_case(name))?;
        Some((found.argument(1), found))
    }
}

/// Reads the policy of a location. `headers` are its `add_header`, or those of the level above.
pub(super) fn cors(
    name: &str,
    at: Place,
    location: &[Directive],
    headers: &[&Directive],
    scope: &Scope<'_>,
) -> (Cors, Vec<Finding>) {
    let sent = sent(location, headers, scope);
    let options = sent.iter().find(|one| one.methods == ["OPTIONS"]);
    let others: Vec<&Sent<'_>> = sent.iter().filter(|one| one.methods != ["OPTIONS"]).collect();
    let allows = |one: &&Sent<'_>| one.header("Access-Control-Allow-Origin").is_some();
    let Some(main) = others.iter().copied().find(allows).or(options.filter(allows)) else {
        return (Cors::Off, Vec::new());
    };
    let Some((origin, directive)) = main.header("Access-Control-Allow-Origin") else { return (Cors::Off, Vec::new()) };
    let origin_at = scope.at(directive);
    let mut policy = Policy::new(name.to_owned(), at);
    let of = |name: &str| {
        let first = options.into_iter().chain(others.iter().copied()).chain([main]);
        first.into_iter().find_map(|one| one.header(name))
    };
    policy.credentials = main.header("Access-Control-Allow-Credentials").is_some_and(|(value, _)| value == "true");
    policy.methods = list(of("Access-Control-Allow-Methods").map_or("", |(value, _)| value));
    policy.headers = list(of("Access-Control-Allow-Headers").map_or("", |(value, _)| value));
    policy.expose = list(main.header("Access-Control-Expose-Headers").map_or("", |(value, _)| value));
    if let Err(why) = allow_origin(&mut policy, origin, main.origin, origin_at, scope) {
        let kind = Kind::PolicyWithoutEffect { why: why.into() };
        return (Cors::Off, vec![Finding::new(origin_at, kind)]);
    }
    if policy.is_any_origin() && policy.credentials {
        if origin == "*" {
            policy.credentials = false;
            let witness = Witness::request("GET", FOREIGN, Answer::StarWithCredentials);
            policy.note(Key::Credentials, Finding::new(origin_at, Kind::StarWithCredentials).with(witness));
        } else {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(origin_at, Kind::NullReflected).with(witness));
        }
    }
    // Requests that are not preflights.
    let limited: Vec<&str> =
        others.iter().filter(|one| allows(one)).flat_map(|one| one.methods.iter().copied()).collect();
    let is_limited = others.iter().filter(|one| allows(one)).all(|one| !one.methods.is_empty());
    if is_limited {
        let methods: Vec<String> = limited.iter().map(|method| (*method).to_owned()).collect();
        let witness = Witness::request("DELETE", &policy.sample_origin(), Answer::ServiceDecides);
        policy.note(Key::Policy, Finding::new(origin_at, Kind::MethodsWithoutHeaders { methods }).with(witness));
    }
    if directive.argument(2) != "always" {
        policy.note(Key::Policy, Finding::new(origin_at, Kind::ErrorsWithoutHeaders));
    }
    let hides = location.iter().any(|one| {
        one.name == "proxy_hide_header" && one.argument(0).eq_ignore_ascii_case("access-control-allow-origin")
    });
    if !hides {
        policy.note(Key::Policy, Finding::new(origin_at, Kind::TwoHeaders));
    }
    if !policy.is_any_origin() {
        if main.header("Vary").is_none() {
            policy.note(Key::Policy, Finding::new(origin_at, Kind::VaryAdded));
        }
        // For other origins the variable is empty, and nginx does not send an empty header.
        if !hides && origin.starts_with('$') {
            let witness = Witness::request("GET", FOREIGN, Answer::ServiceDecides);
            policy.note(Key::Policy, Finding::new(origin_at, Kind::ServiceHeadersRemain).with(witness));
        }
    }
    // Preflights.
    match options.and_then(|options| Some((options, options.status?))) {
        Some((options, (status, line))) => {
            let at = Place { line, ..at };
            policy.status = if status == 204 { 204 } else { 200 };
            if options.origin.is_some() {
                policy.preflight = PreflightMatch::Origin;
                let witness = Witness::preflight("POST", FOREIGN, Answer::ServiceDecides);
                policy.note(Key::Preflight, Finding::new(at, Kind::RefusedPreflightForwarded).with(witness));
            } else {
                policy.preflight = PreflightMatch::Any;
                policy.note(Key::Preflight, Finding::new(at, Kind::EveryOptionsAnswered));
            }
            if options.header("Access-Control-Allow-Origin").is_none() {
                let witness = Witness::preflight("POST", &policy.sample_origin(), Answer::Unreadable);
                policy.note(Key::Preflight, Finding::new(at, Kind::PreflightsFail).with(witness));
            }
        }
        None => {
            policy.preflight = PreflightMatch::Standard;
            let witness = Witness::preflight("POST", &policy.sample_origin(), Answer::ServiceDecides);
            policy.note(Key::Preflight, Finding::new(origin_at, Kind::PreflightContinues).with(witness));
        }
    }
    let age = of("Access-Control-Max-Age").and_then(|(value, one)| Some((value.parse().ok()?, scope.at(one))));
    let (seconds, at_age) = age.unwrap_or((crate::cors::Settings::DEFAULT_MAX_AGE, at));
    policy.set_max_age(seconds, at_age);
    Cors::of(policy)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// Returns the headers for each kind of request that the `if` blocks of a location distinguish. The first entry is for
/// requests that match no block.
fn sent<'d>(location: &'d [Directive], headers: &[&'d Directive], scope: &Scope<'d>) -> Vec<Sent<'d>> {
    let mut all = vec![Sent { headers: headers.to_vec(), ..Sent::default() }];
    // Variables that `if ($http_origin ~ …) { set $cors true; }` sets. `None` means that a variable is set without a
    // condition.
    let mut flags: HashMap<&str, Option<Condition<'_>>> = HashMap::new();
    for block in location {
        if block.name == "set" && !["", "0"].contains(&block.argument(1)) {
            flags.insert(block.argument(0), None);
        }
        if block.name != "if" {
            continue;
        }
        let mut one = Sent { headers: inherited(block.inner(), headers), ..Sent::default() };
        let of_flag = |flag: &str, value: Option<&'d str>| match (flags.get(flag), scope.maps.get(flag)) {
            (Some(known), _) => *known,
            (None, Some(map)) if map.argument(0) == ORIGIN => Some(Condition::Map(map, value)),
            _ => Some(Condition::Other(block.line)),
        };
        match condition(block)[..] {
            ["$request_method", "=", method] => one.methods.extend(METHODS.iter().find(|known| **known == method)),
            ["$request_method", "~" | "~*", methods] => {
                let named: Vec<&str> = methods.trim_matches(['^', '$', '(', ')']).split('|').collect();
                one.methods.extend(METHODS.iter().filter(|known| named.contains(known)));
            }
            [ORIGIN, "~" | "~*", expression] => one.origin = Some(Condition::Expression(expression, block.line)),
            [flag, "=", value] => {
                one.origin = of_flag(flag, Some(value));
                // The value comes from `set $cors "${cors}options";`.
                one.methods.extend(value.to_ascii_lowercase().contains("option").then_some("OPTIONS"));
            }
            [flag] => one.origin = of_flag(flag, None),
            _ => one.origin = Some(Condition::Other(block.line)),
        }
        if one.methods.is_empty() {
            for flag in block.inner().iter().filter(|inner| inner.name == "set") {
                flags.insert(flag.argument(0), one.origin);
            }
        }
        let returns = block.inner().iter().find(|inner| inner.name == "return");
        one.status = returns.and_then(|one| Some((one.argument(0).parse().ok()?, one.line)));
        let has_headers = block.inner().iter().any(|inner| inner.name == "add_header");
        if has_headers || one.status.is_some() {
            all.push(one);
        }
    }
    all
}

/// The nginx variable for the Origin of the request.
const ORIGIN: &str = "$http_origin";
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Returns the words of `if (…)`, without the parentheses.
pub(super) fn condition(block: &Directive) -> Vec<&str> {
    let mut words: Vec<&str> = block.arguments.iter().map(String::as_str).collect();
    if let Some(first) = words.first_mut() {
        *first = first.strip_prefix('(').unwrap_or(first);
    }
    if let Some(last) = words.last_mut() {
        *last = last.strip_suffix(')').unwrap_or(last);
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().map(|word| word.trim_matches(['\'', '"'])).collect()
}

/// Adds the origins that `Access-Control-Allow-Origin: VALUE` allows. The error says why the policy has no effect.
fn allow_origin(
    policy: &mut Policy,
    value: &str,
    condition: Option<Condition<'_>>,
    at: Place,
    scope: &Scope<'_>,
) -> Result<(), String> {
    match (value, condition) {
        (_, Some(Condition::Other(line))) => {
            return Err(format!("its condition in line {line} is not about the origin"));
        }
        ("*" | ORIGIN | "${http_origin}", None) => policy.origins.push("*".to_owned()),
        ("*" | ORIGIN | "${http_origin}", Some(Condition::Expression(expression, line))) => {
            searched(policy, expression, Place { line, ..at });
        }
        ("*" | ORIGIN | "${http_origin}", Some(Condition::Map(map, wanted))) => {
            let is_wanted = |value: &str| match wanted {
                Some(wanted) => value == wanted,
                None => !["", "0"].contains(&value),
            };
            mapped(policy, map, scope, &|_, value| is_wanted(value));
        }
        (variable, _) if variable.starts_with('$') => {
            let Some(map) = scope.maps.get(variable).filter(|map| map.argument(0) == ORIGIN) else {
                return Err(format!("`{variable}` is never the origin of a page"));
            };
            mapped(policy, map, scope, &|key, value| [ORIGIN, "${http_origin}", key].contains(&value));
        }
        (origin, _) => origins::exact(policy, origin),
    }
    Ok(())
}

/// Adds an expression that matches anywhere in the origin.
fn searched(policy: &mut Policy, expression: &str, at: Place) {
    origins::expression(policy, expression, &format!(".*(?:{expression}).*"), expression, at);
}

/// Adds the entries of `map $http_origin $variable { … }` whose key and value allow the origin.
fn mapped(policy: &mut Policy, map: &Directive, scope: &Scope<'_>, allows: &dyn Fn(&str, &str) -> bool) {
    for entry in map.inner() {
        let (at, key, value) = (scope.at(entry), entry.name.as_str(), entry.argument(0));
        match key {
            "hostnames" | "volatile" | "include" => {}
            _ if value.is_empty() => {}
            // `default` is for every other origin. Its value is the origin of the request, or one fixed origin.
            "default" if allows(ORIGIN, value) => policy.origins.push("*".to_owned()),
            "default" if value.contains("://") => origins::exact(policy, value),
            "default" => {}
            _ if !allows(key, value) => {
                let kind = Kind::EntryIgnored { entry: key.to_owned(), why: "its value is not the origin" };
                policy.note(Key::Origins, Finding::new(at, kind));
            }
            key => match key.strip_prefix("~*").or(key.strip_prefix('~')) {
                Some(expression) => searched(policy, expression, at),
                // nginx ignores case. Browsers send origins in lower case.
                None => origins::exact(policy, &key.to_ascii_lowercase()),
            },
        }
    }
}
