//! Compares the decisions of the engine with a model of a browser. A request that the engine allows must work in the
//! browser. A refused request must fail there, with an error that names the cause.

use corsgate::cors::Reason;
use corsgate::decide::{Action, ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::fetch::{Credentials, Fetch, NetworkError, PreflightAnswer, PreflightCache};
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::cases;

/// Sends the requests of a browser to a snapshot. Returns the reason of the engine and the verdict of the browser.
fn preflight(
    snapshot: &Snapshot,
    host: &str,
    path: &str,
    fetch: &Fetch<'_>,
) -> (Option<Reason>, Result<(), NetworkError>) {
    let (reason, answer) = preflight_answer(snapshot, host, path, fetch);
    (reason, answer.map(drop))
}

fn preflight_answer(
    snapshot: &Snapshot,
    host: &str,
    path: &str,
    fetch: &Fetch<'_>,
) -> (Option<Reason>, Result<PreflightAnswer, NetworkError>) {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(host).unwrap());
    for (name, value) in fetch.preflight_headers() {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(&value).unwrap());
    }
    let (reason, status, answer) = ask(snapshot, &Method::OPTIONS, host, path, &headers);
    (reason, fetch.check_preflight(status, &answer))
}

fn ask(
    snapshot: &Snapshot,
    method: &Method,
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> (Option<Reason>, StatusCode, HeaderMap) {
    let verdict = snapshot.decide(&Request {
        method,
        path: path.as_bytes(),
        target_length: path.len(),
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Http, host),
        authority: Some(host),
        headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    });
    let mut response = HeaderMap::new();
    verdict.edits.apply(&mut response);
    let status = match verdict.action {
        Action::Forward(_) => StatusCode::OK,
        Action::AnswerPreflight(status) => status,
        Action::AnswerOptions(_) => StatusCode::NO_CONTENT,
        Action::RedirectToHttps(_) => StatusCode::PERMANENT_REDIRECT,
        Action::Answer(answer) => answer.status,
        Action::Refuse(refusal) => refusal.status(),
    };
    (verdict.outcome.reason(), status, response)
}

/// The smallest policy allows everything that a page usually does.
#[test]
fn a_one_line_policy_lets_a_page_post_json() {
    let snapshot = snapshot("allow_origins: https://app.example");
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let fetch = Fetch { origin: "https://app.example", method, headers: &headers, credentials: Credentials::Omit };
        assert_eq!(preflight(&snapshot, "api.example", "/", &fetch), (Some(Reason::AllowedExact), Ok(())));
    }
}

/// Safelisted methods need no entry in `allow_methods`.
#[test]
fn safelisted_methods_need_no_entry() {
    let snapshot = snapshot("{ allow_origins: https://app.example, allow_methods: PUT }");
    let headers = [("X-Custom".to_owned(), "1".to_owned())];
    for (method, verdict) in [
        ("get", Ok(())),
        ("HEAD", Ok(())),
        ("POST", Ok(())),
        ("put", Ok(())),
        ("PATCH", Err(NetworkError::Method("PATCH".into()))),
        ("patch", Err(NetworkError::Method("patch".into()))),
    ] {
        let fetch = Fetch { origin: "https://app.example", method, headers: &headers, credentials: Credentials::Omit };
        assert_eq!(preflight(&snapshot, "api.example", "/", &fetch).1, verdict, "{method}");
    }
}

#[test]
fn a_wildcard_does_not_cover_authorization() {
    let headers = [("Authorization".to_owned(), "Bearer x".to_owned())];
    let page = |credentials| Fetch { origin: "https://app.example", method: "GET", headers: &headers, credentials };
    let star = snapshot("{ allow_origins: https://app.example, allow_headers: '*' }");
    let (reason, verdict) = preflight(&star, "api.example", "/", &page(Credentials::Omit));
    assert_eq!(reason, Some(Reason::HeaderNotAllowed));
    assert_eq!(verdict, Err(NetworkError::Header("authorization".into())));
    let beside = snapshot("{ allow_origins: https://app.example, allow_headers: ['*', Authorization] }");
    assert_eq!(preflight(&beside, "api.example", "/", &page(Credentials::Omit)).1, Ok(()));
    let echoed = snapshot("{ allow_origins: https://app.example, allow_credentials: true }");
    assert_eq!(preflight(&echoed, "api.example", "/", &page(Credentials::Include)).1, Ok(()));
}

/// A browser caches the answer to a preflight for its URL and all methods. A cached answer must never allow a second
/// request whose own preflight would fail.
#[test]
fn a_cached_answer_opens_nothing_that_a_preflight_would_refuse() {
    let own = |name: &str| (name.to_owned(), "application/json".to_owned());
    let headers = [vec![], vec![own("X-A")], vec![own("Content-Type")], vec![own("Authorization"), own("X-A")]];
    let credentials = [Credentials::Omit, Credentials::Include];
    let (mut covered, mut separated) = (0, 0);
    for policies in [
        (
            "{ allow_origins: https://app.example, max_age: 600 }",
            "{ allow_origins: https://admin.example, max_age: 600 }",
        ),
        (
            "{ allow_origins: https://app.example, allow_methods: [GET], allow_headers: [X-A, Content-Type], max_age: 600 }",
            "{ allow_origins: https://app.example, allow_methods: [DELETE], allow_headers: [X-B] }",
        ),
        (
            "{ allow_origins: https://app.example, allow_credentials: true, max_age: 600 }",
            "{ allow_origins: https://app.example, max_age: 600 }",
        ),
        ("{ allow_origins: https://app.example, max_age: 600 }", "false"),
    ] {
        let snapshot = by_method(policies.0, policies.1);
        let requests = || {
            let methods = ["GET", "POST", "DELETE", "PUT"].into_iter();
            methods.flat_map(|method| headers.iter().map(move |headers| (method, headers))).flat_map(
                |(method, headers)| {
                    credentials.map(|credentials| Fetch { origin: "https://app.example", method, headers, credentials })
                },
            )
        };
        for path in ["/x", "/same"] {
            for first in requests() {
                let mut cache = PreflightCache::default();
                let Ok(answer) = preflight_answer(&snapshot, "api.example", path, &first).1 else { continue };
                cache.store(&first, path, &answer, 1);
                for second in
                    requests().filter(|second| !second.unsafe_headers().is_empty() || second.method == "DELETE")
                {
                    let own = preflight(&snapshot, "api.example", path, &second).1;
                    separated += usize::from(path == "/x" && own.is_err());
                    if cache.covers(&second, path, false).is_some() {
                        covered += 1;
                        assert_eq!(own, Ok(()), "{policies:?} {path}: {first:?}, then {second:?}");
                    }
                }
            }
        }
    }
    assert!(covered > 100 && separated > 100, "only {covered} were covered, {separated} are refused by themselves");
}

/// Returns a snapshot with one path whose methods have two policies, and one path whose methods have the first policy.
fn by_method(read: &str, write: &str) -> Snapshot {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:9080 }}]\n\
         upstreams: {{ origin: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }} }}\n\
         services:\n  - name: api\n    upstream: origin\n    routes:\n\
         \x20     - {{ name: read, paths: [/x], methods: [GET], cors: {read} }}\n\
         \x20     - {{ name: write, paths: [/x], methods: [POST, DELETE], cors: {write} }}\n\
         \x20     - {{ name: same, paths: [/same], cors: {read} }}\n"
    );
    let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
    snapshot.unwrap_or_else(|| panic!("{problems}"))
}

/// Every preflight of the tables, decided by the engine and by the model of a browser.
#[test]
fn engine_and_browser_agree_on_every_preflight_of_the_tables() {
    let mut judged = 0;
    for table in cases::tables() {
        let snapshot = table.snapshot();
        for row in &table.cases {
            let (method, path, headers) = row.request();
            let one = |name: &str| match headers.get_all(name).iter().collect::<Vec<_>>().as_slice() {
                [value] => value.to_str().ok().map(str::to_owned),
                _ => None,
            };
            let asked = (one("origin"), one("access-control-request-method"), one("host"));
            let (Some(origin), Some(wanted), Some(host)) = asked else { continue };
            let lists = headers.get_all("access-control-request-headers").iter().count();
            if method != Method::OPTIONS || lists > 1 {
                continue;
            }
            let names = one("access-control-request-headers").unwrap_or_default();
            // The value is not safelisted, so the browser always requests permission for the name.
            let set: Vec<(String, String)> = names
                .split(',')
                .map(|name| (name.trim().to_owned(), "\"".repeat(129)))
                .filter(|(name, _)| !name.is_empty())
                .collect();
            let (reason, status, answer) = ask(&snapshot, &method, &host, &path, &headers);
            let credentials = match answer.contains_key("access-control-allow-credentials") {
                true => Credentials::Include,
                false => Credentials::Omit,
            };
            let fetch = Fetch { origin: &origin, method: &wanted, headers: &set, credentials };
            // Browsers do not send this preflight, so there is no verdict.
            let is_method = Method::from_bytes(wanted.as_bytes()).is_ok() && fetch.normalised_method() == wanted;
            let sendable = is_method && {
                let mut sent: Vec<String> = set.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
                sent.sort();
                sent.dedup();
                sent == fetch.unsafe_headers()
            };
            let expected = match reason {
                Some(Reason::AllowedAny | Reason::AllowedExact | Reason::AllowedPattern | Reason::AllowedRegex) => true,
                Some(Reason::OriginNotAllowed | Reason::OriginNull | Reason::OriginInvalid) => false,
                Some(Reason::MethodNotAllowed | Reason::HeaderNotAllowed) => false,
                // The engine forwards the request, or refuses it before a policy is chosen, or the list is too long and
                // `*` covers its names.
                _ => continue,
            };
            if sendable {
                judged += 1;
                let verdict = fetch.check_preflight(status, &answer);
                assert_eq!(verdict.is_ok(), expected, "{}: {reason:?}, but {verdict:?}", row.name);
            }
        }
    }
    assert!(judged > 80, "only {judged} were judged");
}

fn snapshot(policy: &str) -> Snapshot {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:9080 }}]\n\
         upstreams: {{ origin: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }} }}\n\
         services:\n  - name: api\n    upstream: origin\n    cors: {policy_line}\n",
        policy_line = if policy.starts_with('{') { policy.to_owned() } else { format!("{{ {policy} }}") },
    );
    let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
    snapshot.unwrap_or_else(|| panic!("{problems}"))
}
