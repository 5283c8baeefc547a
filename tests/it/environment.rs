//! `environment: true` in a process. The responses have the values of its environment variables. Its output has only
//! their names.
//!
//! cargo sets the variables of this package for the tests, and their processes inherit them.

use crate::support::client::fetch;
use crate::support::gateway::{Gateway, run_in};
use crate::support::upstream::{Reply, Upstream};

const NAME: (&str, &str) = ("CARGO_PKG_NAME", env!("CARGO_PKG_NAME"));
const ORIGIN: (&str, &str) = ("Origin", "https://corsgate.example");

fn config(upstream: &str) -> String {
    format!(
        "
environment: true
listeners: [{{ address: '{{listen}}' }}]
admin: {{ address: '{{admin}}' }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: '{upstream}' }}], timeouts: {{ total: \"3${{CARGO_PKG_VERSION_MINOR}}s\" }} }}
    request_headers: {{ set: {{ X-Secret: \"secret-${{CARGO_PKG_NAME}}\" }} }}
    response_headers: {{ set: {{ X-Text: \"$${{CARGO_PKG_NAME}}\" }} }}
    cors:
      allow_origins: https://${{CARGO_PKG_NAME}}.example
      max_age: 6${{CARGO_PKG_VERSION_MINOR}}
"
    )
}

#[test]
fn the_process_uses_the_values_and_shows_the_names() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&config(&upstream.address().to_string()));
    let response = fetch(gateway.address(), "GET", "/", &[("Host", "api.test"), ORIGIN]);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1));
    assert_eq!(response.header("X-Text"), Some("${CARGO_PKG_NAME}"));
    let received = upstream.received().pop().unwrap();
    assert_eq!(received.header("X-Secret"), Some(format!("secret-{}", NAME.1).as_str()));
    let preflight = [("Host", "api.test"), ORIGIN, ("Access-Control-Request-Method", "PUT")];
    let response = fetch(gateway.address(), "OPTIONS", "/", &preflight);
    let max_age = format!("6{}", env!("CARGO_PKG_VERSION_MINOR"));
    assert_eq!(response.header("Access-Control-Max-Age"), Some(max_age.as_str()));

    for path in ["/config", "/routes", "/"] {
        let page = fetch(gateway.admin(), "GET", path, &[("Host", "127.0.0.1")]).text().to_owned();
        assert!(!page.contains("secret-corsgate") && !page.contains("//corsgate.example"), "{path}\n{page}");
        assert!(page.contains("https://${CARGO_PKG_NAME}.example"), "{path}\n{page}");
    }
    // A value of a fixed form is shown with its value.
    let page = fetch(gateway.admin(), "GET", "/config", &[("Host", "127.0.0.1")]).text().to_owned();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let service = &page["config"]["services"][0];
    assert_eq!(service["cors"]["max_age"].to_string(), max_age);
    assert_eq!(service["upstream"]["timeouts"]["total"], format!("3{}s", env!("CARGO_PKG_VERSION_MINOR")));

    // The command has the same environment as the process.
    let admin = format!("http://{}", gateway.admin());
    let output = run_in(gateway.dir(), &["diff", "--admin", &admin, &gateway.config_path().to_string_lossy()]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", output.stdout);
}

#[test]
fn an_edit_keeps_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("127.0.0.1:8000").replace("{listen}", "127.0.0.1:9080").replace("{admin}", "127.0.0.1:9180");
    std::fs::write(folder.path().join("corsgate.yaml"), &config).unwrap();
    let explain = ["explain", "--config", "corsgate.yaml", "--origin", "https://other.example", "http://api.test/"];
    let output = run_in(folder.path(), &explain);
    assert_eq!(output.code, 3, "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("https://${CARGO_PKG_NAME}.example, https://other.example"), "{}", output.stdout);
    let output = run_in(folder.path(), &["check", "--effective", "--config", "corsgate.yaml"]);
    assert!(!output.stdout.contains("secret-corsgate") && output.stdout.contains("secret-${"), "{}", output.stdout);
}

#[test]
fn a_variable_that_is_not_set_is_an_error_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("127.0.0.1:8000").replace("{listen}", "127.0.0.1:9080").replace("{admin}", "127.0.0.1:9180");
    let config = config.replace("CARGO_PKG_NAME}.example", "CORSGATE_TEST_NOT_SET}.example");
    std::fs::write(folder.path().join("corsgate.yaml"), config).unwrap();
    let output = run_in(folder.path(), &["check", "--config", "corsgate.yaml"]);
    let expected = "error: corsgate.yaml:11:22 services[0].cors.allow_origins: the environment variable \
                    `CORSGATE_TEST_NOT_SET` is not set";
    assert!(output.code == 1 && output.stdout.contains(expected), "{}", output.stdout);
    assert!(output.stdout.contains("corsgate.yaml: 1 error"), "{}", output.stdout);
}
