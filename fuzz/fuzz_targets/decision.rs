//! Any request against fixed policies. The first byte selects the method, each further line is a field; the first line is
//! the target.

#![no_main]

use std::sync::LazyLock;

use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::{Exchange, Head};
use corsgate::snapshot::{CompileEnv, Snapshot, load};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let text = "
listeners: [{ address: 127.0.0.1:9080 }]
debug_header: true
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
services:
  - name: api
    upstream: api
    cors: { allow_origins: [https://app.example, 'https://*.b.example', 'https://pr-{digits}.c.example'], allow_credentials: true, allow_methods: [PUT], allow_headers: [X-A], expose_headers: [X-B] }
    routes:
      - { name: any, paths: [/any/*], cors: { allow_origins: '*' } }
      - { name: reject, paths: [/reject/*], cors: { allow_origins: https://app.example, disallowed_origins: reject, cross_site: reject } }
      - { name: none, paths: [/none/*], cors: false }
      - { name: rest, paths: [/*] }
";
    load(text, CompileEnv::NONE).snapshot.expect("the configuration is valid")
});

/// Origins of `SNAPSHOT` outside of `/any/*`, by the words of the file.
fn is_allowed(origin: &str) -> bool {
    let labels = |text: &str| {
        !text.is_empty() && text.split('.').all(|label| !label.is_empty() && label.len() <= 63)
    };
    let below = |end: &str| origin.strip_prefix("https://").and_then(|rest| rest.strip_suffix(end));
    origin == "https://app.example"
        || below(".b.example").is_some_and(labels)
        || below(".c.example").and_then(|host| host.strip_prefix("pr-")).is_some_and(|digits| {
            !digits.is_empty() && digits.len() <= 60 && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&method, rest)) = bytes.split_first() else { return };
    let methods = [Method::GET, Method::OPTIONS, Method::POST, Method::HEAD, Method::DELETE];
    let method = &methods[usize::from(method) % methods.len()];
    let mut lines = rest.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let Ok(target) = std::str::from_utf8(target) else { return };
    if !target.starts_with('/') || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return;
    }
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let path = target.split('?').next().unwrap_or_default();
    let request = Request {
        method,
        path: path.as_bytes(),
        target_length: target.len(),
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Https, "api.example"),
        authority: Some("api.example"),
        headers: &headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    };
    let upstream = || {
        let mut head = Head::new(StatusCode::OK);
        head.append("access-control-allow-origin", HeaderValue::from_static("https://upstream.example"));
        head.append("access-control-max-age", HeaderValue::from_static("600"));
        head
    };
    let response = Exchange::of(&SNAPSHOT, &request, target, upstream).response;
    let origins: Vec<_> = headers.get_all("origin").iter().collect();
    let allowed: Vec<_> = response.headers.get_all("access-control-allow-origin").iter().collect();
    assert!(allowed.len() <= 1, "{allowed:?}");
    if let (Some(value), false) = (allowed.first(), path.starts_with("/none")) {
        // One field with an allowed origin, or `*`, which never comes with credentials.
        let is_star = *value == "*" && !response.headers.contains_key("access-control-allow-credentials");
        let is_own = matches!(&*origins, [origin] if origin == value)
            && value.to_str().is_ok_and(is_allowed);
        assert!(is_own || is_star && path.starts_with("/any"), "{value:?} for {origins:?} at {path}");
    } else if !path.starts_with("/none") {
        let leaked: Vec<_> =
            response.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).collect();
        assert!(leaked.is_empty(), "{leaked:?} without an allowed origin");
    }
});
