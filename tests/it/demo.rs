//! `corsgate demo`: the commands that it prints, and their responses.

use std::time::{Duration, Instant};

use crate::support::client::{Response, fetch};
use crate::support::gateway::{Gateway, Signal};

/// A curl command line. It has only the options that the demo uses.
#[derive(Debug, Default)]
struct Curl {
    method: Option<String>,
    target: String,
    fields: Vec<(String, String)>,
}

impl Curl {
    fn parse(line: &str) -> Self {
        let mut curl = Self::default();
        let mut words = words(line).into_iter().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "-i" => {}
                "-X" => curl.method = Some(value()),
                "-H" => {
                    let field = value();
                    let (name, value) = field.split_once(": ").expect("`Name: value`");
                    curl.fields.push((name.to_owned(), value.to_owned()));
                }
                url => {
                    let path = url.strip_prefix("http://127.0.0.1:").expect("a URL of the demo");
                    path[path.find('/').expect("a path")..].clone_into(&mut curl.target);
                }
            }
        }
        curl
    }

    fn send(&self, gateway: &Gateway) -> Response {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fetch(gateway.address(), self.method.as_deref().unwrap_or("GET"), &self.target, &fields)
    }
}

/// The words of a shell command with single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars().chain([' ']) {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words
}

/// The CORS fields of a response and `Vary`, in the order of arrival.
fn cors(response: &Response) -> Vec<(&str, &str)> {
    let fields = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    fields.filter(|(name, _)| name.starts_with("access-control-") || *name == "vary").collect()
}

#[test]
fn the_commands_that_the_demo_prints_give_the_responses_that_it_prints() {
    let mut gateway = Gateway::start_demo();
    let output = gateway.stdout().replace("\\\n", " ");
    let commands: Vec<_> = output.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let [preflight, allowed, refused] = commands[..] else { panic!("three commands in {output}") };

    let origin = format!("http://{}", gateway.address());
    assert_eq!(
        preflight,
        format!("curl {origin}/v1/json -H 'Host: cloud.httpbin.org' -H 'Origin: {origin}' -X OPTIONS -i")
    );
    let response = Curl::parse(preflight).send(&gateway);
    assert_eq!((response.status, response.header("Content-Length"), response.text()), (200, Some("0"), ""));
    let mut fields = cors(&response);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            ("access-control-allow-headers", "*"),
            ("access-control-allow-methods", "GET"),
            ("access-control-allow-origin", &*origin),
            ("access-control-expose-headers", "*"),
            ("access-control-max-age", "5"),
            ("vary", "Origin"),
        ]
    );

    assert!(allowed.contains("/v1/response-headers?Access-Control-Allow-Origin=*"), "{allowed}");
    let response = Curl::parse(allowed).send(&gateway);
    assert_eq!(response.status, 200);
    let mut fields = cors(&response);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [("access-control-allow-origin", &*origin), ("access-control-expose-headers", "*"), ("vary", "Origin"),]
    );
    // The upstream has answered with another Access-Control-Allow-Origin.
    assert!(response.text().contains("\"Access-Control-Allow-Origin\": \"*\""), "{}", response.text());

    assert!(refused.contains("Origin: https://evil.test"), "{refused}");
    let response = Curl::parse(refused).send(&gateway);
    assert_eq!((response.status, cors(&response)), (200, vec![("vary", "Origin")]));

    // The status page has the reasons.
    let page = output.lines().find_map(|line| line.trim().strip_prefix("http://")).expect("the address of a page");
    let page = page.trim_end_matches('/').parse().expect("an address");
    let why = || fetch(page, "GET", "/", &[("Host", "localhost")]).text().contains("origin_not_allowed");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !why() {
        assert!(Instant::now() < deadline, "the page does not show it");
    }

    // The walkthrough has a rule for the upstream's Access-Control-Allow-Credentials.
    let credentials = "/v1/response-headers?Access-Control-Allow-Credentials=true";
    for (origin, expected) in [(&*origin, Some("true")), ("https://evil.test", None)] {
        let fields = [("Host", "cloud.httpbin.org"), ("Origin", origin)];
        let response = fetch(gateway.address(), "GET", credentials, &fields);
        assert_eq!(response.header("access-control-allow-credentials"), expected, "{origin}");
    }

    gateway.signal(Signal::Int);
    assert_eq!(gateway.exit().code(), Some(0), "Ctrl-C ends it");

    // After the introduction, stdout has the access log: one line per request, with the reason.
    let output = gateway.stdout();
    let (introduction, lines) = output.split_once("Press Ctrl-C to stop.\n").expect("an introduction");
    assert!(introduction.contains("Each request has a line here"), "{introduction}");
    let reasons = lines.lines().map(|line| line.split_whitespace().nth(5).expect("a reason in its column"));
    // `start_demo` sends requests without an Origin until the upstream answers.
    let reasons: Vec<&str> = reasons.filter(|reason| *reason != "no_origin").collect();
    let (allowed, refused) = ("allowed_exact", "origin_not_allowed");
    assert_eq!(reasons, [allowed, allowed, refused, allowed, refused], "{lines}");
}
