//! The report of an import of Envoy, compared with the answers of Envoy. tests/import/envoy.yaml is the configuration.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::probe::{Page, Probe, Seen, probes, service};
use super::{import, root};
use crate::support::gateway::{Gateway, free_port};
use crate::support::process::{Process, tools};

/// The virtual hosts of tests/import/envoy.yaml, each with the paths of its routes.
const HOSTS: [(&str, &[&str]); 8] = [
    ("exact.example", &["/"]),
    ("part.example", &["/"]),
    ("expression.example", &["/"]),
    ("open.example", &["/"]),
    ("public.example", &["/"]),
    ("levels.example", &["/", "/v1/x", "/v1", "/v2", "/v2x", "/v3", "/off", "/old"]),
    ("off.example", &["/"]),
    ("none.example", &["/"]),
];

/// Sends the same requests to Envoy with the source and to corsgate with the import. The answers are the same, except
/// where the report names a difference. `make test` installs Envoy.
#[test]
fn the_report_of_an_import_is_true_of_envoy() {
    let service = service();
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let source = fs::read_to_string(root().join("tests/import/envoy.yaml")).unwrap();
    let source = source.replace("LISTEN", &address.port().to_string());
    let source = source.replace("SERVICE", &service.address().port().to_string());
    let imported = import(folder.path(), &source, &["--format", "json"]);
    assert_eq!(imported.code, 4, "{}", imported.stderr);
    let _envoy = start(folder.path(), address);
    let gateway = Gateway::start(&imported.stdout.replace("0.0.0.0:9080", "{listen}"));
    let findings = findings(&imported.stderr);

    let mut faults = Vec::new();
    let mut shown: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut sent = 0;
    for (host, path) in HOSTS.iter().flat_map(|(host, paths)| paths.iter().map(move |path| (*host, *path))) {
        let changes = || findings.iter().filter(|finding| finding.host == host && finding.outcome == "changed");
        for probe in probes(host, path) {
            sent += 1;
            let (theirs, ours) = (probe.send(address), probe.send(gateway.address()));
            if theirs == ours {
                continue;
            }
            let by: Vec<&str> =
                changes().map(|change| &*change.code).filter(|code| explains(code, &probe, &theirs, &ours)).collect();
            if by.is_empty() {
                faults.push(format!("{probe:?}\n  Envoy {theirs:?}\n  corsgate {ours:?}"));
            }
            shown.extend(by.into_iter().map(|code| (host, code)));
        }
        let unseen = changes().filter(|change| !shown.contains(&(host, &*change.code)) && change.path == path);
        faults.extend(unseen.map(|change| format!("{host}: no request shows `{}`", change.code)));
    }
    for finding in &findings {
        for (name, address, said) in
            [("Envoy", address, &finding.before), ("corsgate", gateway.address(), &finding.after)]
        {
            let answer = answer(&finding.witness, address);
            // The probes do not show the route of a request.
            let said = if said == "goes to another route" { "goes to the service" } else { said };
            if answer != said {
                let Finding { code, witness, .. } = finding;
                faults.push(format!("`{code}`: {witness:?}\n  the report says of {name}: {said}\n  {name}: {answer}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}\n{}\n{}", faults.join("\n"), imported.stdout, imported.stderr);
    assert!(sent >= 300 && findings.len() >= 10, "{sent} requests, {} findings", findings.len());
}

/// Returns whether a finding with this code explains the difference of the two answers to a request.
fn explains(code: &str, probe: &Probe, theirs: &Seen, ours: &Seen) -> bool {
    let origin = probe.origin.as_deref().unwrap_or_default();
    let is_preflight = probe.asks_for.is_some();
    match code {
        "refused-preflight-forwarded" => {
            is_preflight && theirs.is_of_service && !ours.is_of_service && ours.page == Page::Nothing
        }
        "service-headers-remain" => {
            !is_preflight && probe.service == "cors" && (theirs.page, ours.page) == (Page::Reads, Page::Nothing)
        }
        "origin-prefix" => origin == "https://a.example.evil.test" && ours.page == Page::Nothing,
        "origin-suffix" => origin == "https://evilc.example" && ours.page == Page::Nothing,
        "null-reflected" => origin == "null" && ours.page == Page::Nothing,
        "path-prefix" => probe.path == "/v2x",
        "max-age-capped" => is_preflight && *ours == Seen { max_age: Some("86400".to_owned()), ..theirs.clone() },
        _ => false,
    }
}

/// A finding of the report with a request that shows it.
struct Finding {
    code: String,
    outcome: String,
    host: String,
    path: String,
    witness: Probe,
    before: String,
    after: String,
}

/// Returns the findings of a report in JSON that have a request.
fn findings(report: &str) -> Vec<Finding> {
    let report: Value = serde_json::from_str(report).unwrap();
    let policies = report["policies"].as_array().unwrap();
    let all = policies.iter().chain([&report]).flat_map(|part| part["findings"].as_array().unwrap());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    all.filter(|finding| !finding["witness"].is_null())
        .map(|finding| {
            let witness = &finding["witness"];
            let names = witness["requested_headers"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let headers = names.collect::<Vec<_>>().join(",");
            Finding {
                code: text(&finding["code"]).unwrap(),
                outcome: text(&finding["outcome"]).unwrap(),
                host: text(&witness["host"]).unwrap(),
                path: text(&witness["path"]).unwrap(),
                witness: Probe {
                    method: text(&witness["method"]).unwrap(),
                    host: text(&witness["host"]).unwrap(),
                    path: text(&witness["path"]).unwrap(),
                    origin: text(&witness["origin"]),
                    fields: witness["headers"]
                        .as_object()
                        .unwrap()
                        .iter()
                        .map(|(name, value)| (name.clone(), text(value).unwrap()))
                        .collect(),
                    asks_for: text(&witness["requested_method"]).map(|method| (method, headers)),
                    service: "plain",
                },
                before: text(&witness["before"]).unwrap(),
                after: text(&witness["after"]).unwrap(),
            }
        })
        .collect()
}

/// Sends the request of a finding to a gateway. Returns the answer in the words of the report.
fn answer(witness: &Probe, address: SocketAddr) -> String {
    let plain = witness.send(address);
    // If the service's own headers decide, a page can read the response only with these headers.
    let cors = Probe { service: "cors", ..witness.clone() }.send(address);
    let answer = match (&witness.origin, plain.page, cors.page) {
        (None, ..) if plain.is_of_service => "goes to the service",
        (None, ..) => "no route: 404 or 405",
        (_, Page::Nothing, Page::Nothing) => "the page may not read the response",
        (_, Page::Nothing, _) => "goes to the service, whose own CORS headers decide",
        (_, Page::Reads, _) => match plain.max_age {
            Some(age) if witness.asks_for.is_some() && age != "5" => return format!("Access-Control-Max-Age: {age}"),
            _ => "the page may read the response, without credentials",
        },
        (_, Page::ReadsWithCredentials, _) => "the page may read the response, with credentials",
        (_, Page::StarWithCredentials, _) => {
            "`*` with credentials: the page may read the response only without credentials"
        }
    };
    answer.to_owned()
}

/// Starts Envoy with the file `source` in the folder, and waits until it accepts connections.
fn start(folder: &Path, address: SocketAddr) -> Process {
    // Envoy reads the format from the extension.
    fs::rename(folder.join("source"), folder.join("envoy.yaml")).unwrap();
    let mut command = Command::new(tools().join("bin/envoy"));
    command.arg("-c").arg(folder.join("envoy.yaml"));
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "critical"]);
    Process::spawn_server(command.stdout(Stdio::null()).stderr(Stdio::null()), address)
}
