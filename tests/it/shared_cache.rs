//! A shared cache in front of corsgate, such as a CDN that caches OPTIONS. With `preflight.cache_control`, each
//! response from the cache must equal the response that corsgate would send.

use std::collections::HashMap;

use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::{Exchange, Head};
use corsgate::snapshot::{CompileEnv, Snapshot, load};
use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// A cache with the necessary rules of RFC 9111. It stores a response if `Cache-Control` allows it, and selects a
/// stored response by `Vary`.
#[derive(Default)]
struct Cache {
    /// Stored responses by path. Each response has the request fields that its `Vary` names.
    stored: HashMap<&'static str, Vec<(Selecting, Head)>>,
    /// Names of `Vary` that the cache ignores. The test must then find a wrong response.
    ignored: Option<&'static str>,
}

/// Names and values of the request fields that select a stored response.
type Selecting = Vec<(HeaderName, Vec<HeaderValue>)>;

impl Cache {
    fn find(&self, path: &str, request: &HeaderMap) -> Option<&Head> {
        let selects = |selecting: &Selecting| selecting.iter().all(|(name, values)| all(request, name) == *values);
        self.stored.get(path)?.iter().find(|(selecting, _)| selects(selecting)).map(|(_, response)| response)
    }

    fn store(&mut self, path: &'static str, request: &HeaderMap, response: &Head) {
        let control = response.headers.get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
        if !control.is_some_and(|control| control.contains("max-age=") && !control.contains("no-store")) {
            return;
        }
        let vary = response.headers.get(header::VARY).map_or("", |value| value.to_str().unwrap());
        let names = vary.split(',').map(str::trim).filter(|name| !name.is_empty() && Some(*name) != self.ignored);
        let names = names.map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
        let selecting = names.map(|name| (name.clone(), all(request, &name))).collect();
        self.stored.entry(path).or_default().push((selecting, response.clone()));
    }
}

fn all(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

fn answer(snapshot: &Snapshot, path: &str, headers: &HeaderMap) -> Head {
    let host = "api.example";
    let request = Request {
        method: &Method::OPTIONS,
        path: path.as_bytes(),
        target_length: path.len(),
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Https, host),
        authority: Some(host),
        headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    };
    Exchange::of(snapshot, &request, path, || {
        let mut head = Head::new(StatusCode::IM_A_TEAPOT);
        head.append("allow", HeaderValue::from_static("GET"));
        head
    })
    .response
}

fn random_request(random: &mut Rng) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let choices: [(&'static str, &[&[&'static str]]); 4] = [
        (
            "origin",
            &[
                &[],
                &["https://app.example"],
                &["https://b.app.example"],
                &["https://other.example"],
                &["https://api.example"],
                &["null"],
                &[""],
                &["https://app.example", "https://app.example"],
            ],
        ),
        ("access-control-request-method", &[&[], &["GET"], &["PUT"], &["PATCH"], &["HEAD"], &["G T"], &["GET", "PUT"]]),
        (
            "access-control-request-headers",
            &[&[], &["x-trace"], &["x-evil"], &["x-trace,authorization"], &["x-trace", "x-trace"], &["x y"]],
        ),
        ("access-control-request-private-network", &[&[], &["true"], &["false"]]),
    ];
    for (name, values) in choices {
        for value in *random.choice(values).unwrap() {
            headers.append(name, HeaderValue::from_static(value));
        }
    }
    headers
}

const PATHS: [&str; 5] = ["/all", "/get", "/two", "/three", "/missing"];

/// Sends random requests through the cache. Returns the number of responses from the cache, and the first wrong one.
fn run(snapshot: &Snapshot, ignored: Option<&'static str>, random: &mut Rng) -> (usize, Option<String>) {
    let (mut cache, mut hits) = (Cache { ignored, ..Cache::default() }, 0);
    for _ in 0..1_000 {
        let path: &'static str = random.choice(PATHS).unwrap();
        let request = random_request(random);
        let fresh = answer(snapshot, path, &request);
        match cache.find(path, &request) {
            None => cache.store(path, &request, &fresh),
            Some(stored) if (stored.status, &stored.headers) == (fresh.status, &fresh.headers) => hits += 1,
            Some(stored) => return (hits, Some(format!("{path} {request:?}\nstored {stored:?}\nfresh {fresh:?}"))),
        }
    }
    (hits, None)
}

/// Every combination of the settings on which the answer to a preflight depends.
fn configurations() -> Vec<String> {
    let mut all = Vec::new();
    for origins in ["'*'", "['https://app.example', 'https://*.app.example']"] {
        for credentials in ["", ", allow_credentials: true"] {
            for lists in ["", ", allow_methods: [PUT], allow_headers: [X-Trace]"] {
                for statuses in ["200, refused_status: 200", "204, refused_status: 403"] {
                    for rule in ["standard", "origin", "any"] {
                        for private in ["", ", allow_private_network: true"] {
                            if origins == "'*'" && !credentials.is_empty() {
                                continue;
                            }
                            all.push(format!(
                                "allow_origins: {origins}{credentials}{lists}{private}, max_age: 60, preflight: {{ status: \
                                 {statuses}, match: {rule}, cache_control: 'public, max-age=60' }}"
                            ));
                        }
                    }
                }
            }
        }
    }
    all
}

fn compiled(policy: &str) -> Snapshot {
    let text = format!(
        "
listeners: [{{ address: 127.0.0.1:9080 }}]
services:
  - name: api
    hosts: [api.example]
    upstream: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }}
    cors: {{ {policy} }}
    routes:
      - {{ name: all, paths: [/all] }}
      - {{ name: get, paths: [/get], methods: [GET] }}
      - {{ name: read, paths: [/two], methods: [GET] }}
      - {{ name: write, paths: [/two], methods: [PUT], cors: {{ allow_origins: '*' }} }}
      - {{ name: own, paths: [/three], methods: [OPTIONS], cors: false }}
      - {{ name: rest, paths: [/three] }}
"
    );
    let loaded = load(&text, CompileEnv::NONE);
    loaded.snapshot.unwrap_or_else(|| panic!("{}\n{text}", loaded.problems))
}

#[test]
fn a_shared_cache_gives_every_request_the_answer_of_corsgate() {
    let mut random = Rng::with_seed(11);
    let (mut all_hits, configurations) = (0, configurations());
    for policy in &configurations {
        let (hits, wrong) = run(&compiled(policy), None, &mut random);
        assert_eq!(wrong, None, "{policy}");
        all_hits += hits;
    }
    assert!(configurations.len() == 72 && all_hits > 2_000, "{all_hits} hits of {} policies", configurations.len());
}

#[test]
fn a_cache_that_ignores_a_name_of_vary_gives_wrong_answers() {
    let mut random = Rng::with_seed(12);
    for ignored in [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
        "Access-Control-Request-Private-Network",
    ] {
        let wrong =
            configurations().iter().any(|policy| run(&compiled(policy), Some(ignored), &mut random).1.is_some());
        assert!(wrong, "no answer depends on {ignored}");
    }
}
