//! The documentation. Every configuration in it and in `conf/` is checked, every command is run, and its output is
//! compared.
//!
//! `BLESS=1 cargo test --test it -- docs` writes the current output of `corsgate explain` and `corsgate diff` into the
//! documents. Review the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use corsgate::config::Source;
use corsgate::cors::Reason;
use corsgate::decide::RefusalCode;
use corsgate::problem::ProblemKind;
use corsgate::report;
use corsgate::snapshot::Loaded;
use corsgate::terminal::Paint;

use crate::corpus;
use crate::support::client;
use crate::support::gateway::{Gateway, run_in};
use crate::support::upstream::{Reply, Upstream};

/// A fenced block of a document.
pub struct Block {
    pub language: String,
    pub text: String,
}

#[test]
fn every_example_in_conf_is_valid_without_warnings() {
    let folder = folder_with_certificates();
    for file in files("conf", "yaml") {
        fs::copy(&file, folder.path().join("corsgate.yaml")).unwrap();
        let output = run_in(folder.path(), &["check", "--deny-warnings", "--config", "corsgate.yaml"]);
        assert_eq!(output.code, 0, "{}\n{}", file.display(), output.stdout);
    }
}

/// An empty folder with the certificates that the examples name.
fn folder_with_certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    for name in ["api.crt", "api.key", "ca.crt"] {
        fs::copy(root().join("tests/config/tls").join(name), folder.path().join("tls").join(name)).unwrap();
    }
    fs::copy(root().join("tests/config/admin.tokens"), folder.path().join("admin.tokens")).unwrap();
    folder
}

/// Returns the keys that the parser accepts at a place. The parser lists them in the message about an unknown key.
fn keys_at(place: &str) -> Vec<String> {
    let problems = corpus::read(&place.replace("HERE", "no_such_key: 1")).problems;
    let known = problems.iter().find_map(|problem| match &problem.kind {
        ProblemKind::UnknownKey { key, known } if key == "no_such_key" => Some(known.words().to_vec()),
        _ => None,
    });
    known.unwrap_or_else(|| panic!("{place} takes any key: {problems}"))
}

#[test]
fn the_reference_and_the_manual_have_every_key() {
    let reference = fs::read_to_string(root().join("conf/reference.yaml")).unwrap();
    let manual = documents().iter().map(|file| fs::read_to_string(file).unwrap()).collect::<String>();
    let places = [
        "HERE",
        "listeners: [{ HERE }]",
        "listeners: [{ tls: { HERE } }]",
        "listeners: [{ tls: { certificates: [{ HERE }] } }]",
        "admin: { HERE }",
        "source: { HERE }",
        "source: { etcd: { HERE } }",
        "source: { etcd: { tls: { HERE } } }",
        "access_log: { HERE }",
        "server: { HERE }",
        "limits: { HERE }",
        "cors_policies: { a: { HERE } }",
        "cors_policies: { a: { preflight: { HERE } } }",
        "upstreams: { a: { HERE } }",
        "upstreams: { a: { nodes: [{ HERE }] } }",
        "upstreams: { a: { timeouts: { HERE } } }",
        "upstreams: { a: { tls: { HERE } } }",
        "upstreams: { a: { health_check: { HERE } } }",
        "upstreams: { a: { ejection: { HERE } } }",
        "upstreams: { a: { queue: { HERE } } }",
        "expect: [{ HERE }]",
        "expect: [{ upstream: { HERE } }]",
        "services: [{ HERE }]",
        "services: [{ compression: { HERE } }]",
        "services: [{ forward_auth: { HERE } }]",
        "services: [{ split: { HERE } }]",
        "services: [{ split: { upstreams: [{ HERE }] } }]",
        "services: [{ routes: [{ HERE }] }]",
    ];
    let mut seen = 0;
    for place in places {
        // The alias is APISIX's spelling of `allow_credentials`.
        for key in keys_at(place).iter().filter(|key| *key != "allow_credential") {
            seen += 1;
            assert!(reference.contains(&format!("{key}:")), "conf/reference.yaml: no `{key}` ({place})");
            assert!(manual.contains(key.as_str()), "docs: no `{key}` ({place})");
        }
    }
    assert!(seen > 80, "only {seen} keys were found");
}

#[test]
fn the_manual_explains_every_reason_code() {
    let manual = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let codes = Reason::ALL.map(Reason::code);
    for code in codes.into_iter().chain(RefusalCode::ALL.map(RefusalCode::code)) {
        assert!(manual.contains(&format!("`{code}`")), "docs/configuration.md: no `{code}`");
    }
}

#[test]
fn every_configuration_in_the_documents_gives_the_shown_report() {
    let mut seen = 0;
    for file in documents() {
        let blocks = blocks(&file);
        for (i, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "yaml") {
            let Loaded { snapshot, problems } = corpus::read(&block.text);
            let shown = blocks.get(i + 1).filter(|next| next.language == "text");
            match shown {
                Some(shown) => {
                    let source = Source::new("corsgate.yaml", &block.text);
                    let mut errors = problems;
                    errors.retain(|problem| problem.kind.severity() == corsgate::problem::Severity::Error);
                    assert_eq!(report::text(&errors, &source, Paint::Plain), shown.text, "{}", file.display());
                }
                None => assert!(snapshot.is_some(), "{}: {problems}\n{}", file.display(), block.text),
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} were found");
}

/// Does the same as `check --deny-warnings`, without a process for each recipe.
#[test]
fn every_recipe_is_valid_without_warnings() {
    let pages = files("docs/migrate", "md").into_iter().chain([root().join("docs/recipes.md")]);
    let mut recipes: Vec<Block> = pages.flat_map(|page| blocks(&page)).collect();
    recipes.retain(|block| block.language == "yaml");
    assert!(recipes.len() >= 18, "only {} were found", recipes.len());
    for recipe in recipes {
        let Loaded { snapshot, mut problems } = corpus::read(&recipe.text);
        problems.retain(|problem| problem.kind.severity() > corsgate::problem::Severity::Hint);
        assert!(snapshot.is_some() && problems.is_empty(), "{problems}\n{}", recipe.text);
    }
}

/// nginx and HAProxy may not be installed.
#[test]
fn nginx_and_haproxy_accept_the_examples_that_are_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let example = |language: &str| {
        let mut blocks = blocks(&root().join(format!("docs/migrate/{language}.md")));
        blocks.retain(|block| block.language == language);
        assert!(!blocks.is_empty(), "{language}");
        blocks.iter().map(|block| block.text.as_str()).collect::<String>()
    };
    // `nginx -t` binds the listeners.
    let http = example("nginx").replace("listen 80;", &format!("listen unix:{};", path("socket")));
    let nginx = format!("events {{}}\npid {};\nerror_log stderr;\nhttp {{\n{http}}}\n", path("pid"));
    let timeouts = "timeout connect 1s\n timeout client 1s\n timeout server 1s\n";
    let haproxy = format!("defaults\n mode http\n {timeouts}{}", example("haproxy"));
    for (program, arguments, config) in [("nginx", ["-t", "-c"], nginx), ("haproxy", ["-c", "-f"], haproxy)] {
        fs::write(path(program), &config).unwrap();
        let checked = Command::new(program).args(arguments).arg(path(program)).stdin(Stdio::null()).output();
        if let Ok(checked) = checked {
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}

#[test]
fn every_command_in_the_documents_prints_the_shown_output() {
    let upstream = Upstream::start(|request| {
        // The authentication service refuses every user.
        if ["/api/authz/forward-auth", "/oauth2/auth"].contains(&request.target.as_str()) {
            return Reply::new(401).body("Unauthorized");
        }
        let query = request.target.split_once('?').map_or("", |(_, query)| query).to_owned();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let reply = match request.target.as_str() {
            "/catalogue" => {
                let json = Reply::new(200).header("Content-Type", "application/json");
                json.header("ETag", "\"7\"").header("Content-Length", "5000")
            }
            _ => Reply::new(200),
        };
        pairs.fold(reply, |reply, (name, value)| reply.header(name, value))
    });
    let walkthrough = fs::read_to_string(root().join("conf/walkthrough.yaml")).unwrap();
    let walkthrough = walkthrough.replace("127.0.0.1:9080\n\nup", "{listen}\n\nup");
    let walkthrough = Gateway::start(&walkthrough.replace("127.0.0.1:8000", &upstream.address().to_string()));
    let folder = folder_with_certificates();
    let (mut curls, mut explained) = (0, 0);
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    for file in documents() {
        let blocks = blocks(&file);
        // The configuration for curl commands. It is the last configuration of the document, or else of the
        // walkthrough.
        let mut served = None;
        for (i, block) in blocks.iter().enumerate() {
            if block.language == "yaml" {
                // Commands use the last valid configuration before them.
                if corpus::read(&block.text).snapshot.is_some() {
                    // The configuration before that one is the old file of `corsgate diff`.
                    let _ = fs::rename(folder.path().join("corsgate.yaml"), folder.path().join("old.yaml"));
                    fs::write(folder.path().join("corsgate.yaml"), &block.text).unwrap();
                    served = Some(&block.text);
                }
            }
            // tests/it/etcd.rs runs the page about fleets.
            let is_fleet = file.ends_with("docs/fleet.md");
            for command in block.text.lines().filter(|_| block.language == "sh" && !is_fleet) {
                let words: Vec<&str> = command.split_whitespace().collect();
                match words.as_slice() {
                    ["make", target] => {
                        let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
                        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "{command}");
                    }
                    ["corsgate", "check", arguments @ ..] => {
                        let output = run_in(folder.path(), &[&["check"], arguments].concat());
                        assert_eq!(output.code, 0, "{command}\n{}{}", output.stdout, output.stderr);
                    }
                    ["corsgate", "schema", ">", file] => {
                        let output = run_in(folder.path(), &["schema"]);
                        assert_eq!(output.code, 0, "{command}\n{}", output.stderr);
                        let shown = blocks.get(i + 1).map(|next| next.text.as_str()).unwrap_or_default();
                        assert!(shown.contains(&format!("$schema={file}\n")), "{command}");
                    }
                    // Tested with a process in tests/it/api.rs.
                    ["corsgate", "token", ..] | ["curl", "-X", _, _, "-H", "\"Authorization:", ..] => {}
                    // Tested with processes in tests/it/learn.rs.
                    ["corsgate", "learn", ..] => {}
                    // Tested with a process in tests/it/diff.rs.
                    ["corsgate", "diff", "--admin", ..] | ["git", "show", ..] => {}
                    ["corsgate", name @ ("explain" | "diff" | "test"), ..] => {
                        explained += usize::from(*name == "explain");
                        let words = shell_words(command);
                        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
                        let in_package = words.iter().any(|word| word.starts_with("conf/"));
                        let output = run_in(if in_package { root() } else { folder.path().into() }.as_path(), &words);
                        let codes = if *name == "explain" { [0, 3] } else { [0, 1] };
                        assert!(codes.contains(&output.code), "{command}\n{}{}", output.stdout, output.stderr);
                        if let Some(shown) = blocks.get(i + 1).filter(|next| next.language == "text") {
                            if bless {
                                let document = fs::read_to_string(&file).unwrap();
                                let block = |text: &str| format!("```text\n{text}```\n");
                                fs::write(&file, document.replacen(&block(&shown.text), &block(&output.stdout), 1))
                                    .unwrap();
                            } else {
                                assert_eq!(output.stdout, shown.text, "{command}");
                            }
                        }
                    }
                    ["corsgate", "probe", ..] => {
                        // Replaces the port of the walkthrough, but not the port of the origin in its policy.
                        let (own, port) = (":9080", format!(":{}", walkthrough.address().port()));
                        let host = "cloud.httpbin.org";
                        let words = shell_words(&command.replace(&format!("{host}{own}"), &format!("{host}{port}")));
                        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
                        let output = run_in(folder.path(), &words);
                        assert!([0, 1].contains(&output.code), "{command}\n{}{}", output.stdout, output.stderr);
                        let printed = output.stdout.replace(&port, own);
                        let shown = blocks.get(i + 1).filter(|next| next.language == "text").expect("its output");
                        if bless {
                            let document = fs::read_to_string(&file).unwrap();
                            let block = |text: &str| format!("```text\n{text}```\n");
                            fs::write(&file, document.replacen(&block(&shown.text), &block(&printed), 1)).unwrap();
                        } else {
                            assert_eq!(printed, shown.text, "{command}");
                        }
                    }
                    ["corsgate", "run"] | ["corsgate", "run", "--config", _] => {
                        let file = words.get(3).unwrap_or(&"corsgate.yaml");
                        let config = fs::read_to_string(folder.path().join(file)).unwrap();
                        drop(Gateway::start(&config.replace("127.0.0.1:9080", "{listen}")));
                    }
                    ["curl", ..] => {
                        curls += 1;
                        let shown = blocks.get(i + 1).filter(|next| next.language == "http");
                        let shown = &shown.expect("what a curl prints is shown").text;
                        match served {
                            Some(config) => compare(&curl(command, &serve(config, &upstream)), shown, command),
                            None => compare(&curl(command, &walkthrough), shown, command),
                        }
                    }
                    ["docker", ..] => check_docker(command),
                    // Tested with real processes in tests/it/upgrade.rs.
                    ["corsgate", "run", "--config", _, "--upgrade", "&"]
                    | ["sleep", "1"]
                    | ["kill", "-QUIT", "$OLD"] => {}
                    // Tested in tests/it/deployment.rs.
                    ["apt" | "certbot" | "install" | "systemctl" | "useradd", ..] => {}
                    // tests/it/deployment.rs compares the manifests with each other.
                    ["kubectl", "apply", "--kustomize", folder] => assert!(root().join(folder).is_dir(), "{command}"),
                    ["kubectl", "rollout", "status", "deployment/corsgate"] => {}
                    // Tested in tests/it/deployment.rs.
                    ["corsgate", "import", "httproute.yaml", ..] | ["cat", "settings.yaml", ..] => {}
                    _ => panic!("{}: no test knows how to run `{command}`", file.display()),
                }
            }
        }
    }
    assert!(curls >= 3, "only {curls} were found");
    assert!(explained >= 4, "only {explained} were explained");
}

#[test]
fn every_link_between_the_documents_has_a_target() {
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (name, fragment) = target.split_once('#').map_or((target, None), |(name, rest)| (name, Some(rest)));
            let path = if name.is_empty() { file.clone() } else { file.parent().unwrap().join(name) };
            assert!(path.exists(), "{}: {target}", file.display());
            if let Some(fragment) = fragment {
                let headings = headings(&fs::read_to_string(path).unwrap());
                assert!(
                    headings.iter().any(|heading| heading == fragment),
                    "{}: {target}: {headings:?}",
                    file.display()
                );
            }
        }
    }
}

/// Checks that the places and tests in the table of docs/pingora.md exist.
#[test]
fn the_page_about_pingora_names_code_and_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/pingora.md")).unwrap();
    let tests = sources(&root().join("tests"));
    let rows: Vec<Vec<&str>> =
        page.lines().map(|line| line.split(" | ").collect()).filter(|r: &Vec<_>| r.len() == 5).collect();
    let mut named = 0;
    for row in &rows {
        let mut code = String::new();
        for word in row[2].split('`').skip(1).step_by(2) {
            if Path::new(word).extension().is_some_and(|extension| extension == "rs") {
                code =
                    fs::read_to_string(root().join("src").join(word)).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                let name = word.rsplit("::").next().unwrap();
                assert!(code.contains(name), "{}: no `{word}`", row[2]);
            }
        }
        for name in row[4].split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2) {
            assert!(tests.contains(&format!("fn {name}(")), "no test `{name}`");
            named += 1;
        }
    }
    assert!(named > 30, "only {named} tests in {} rows", rows.len());
}

/// Checks that both pages have the figures of docs/performance/results. `BLESS=1` writes the pages, like `make
/// performance-page`.
#[test]
fn the_performance_pages_have_the_figures_of_the_results() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    python(if bless { &["compare/report.py"] } else { &["compare/report.py", "--check"] });
}

#[test]
fn the_comparison_passes_its_own_tests() {
    python(&["-m", "unittest", "discover", "--start-directory", "compare"]);
}

/// Runs a script of the package. `make test` installs python3.
fn python(arguments: &[&str]) {
    let mut command = Command::new("python3");
    let output = command.arg("-B").args(arguments).current_dir(root()).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&text));
}

/// Checks that docs/cases.md has a row for each case, in order, and that each row names a test that exists.
#[test]
fn the_page_of_cases_is_complete_and_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/cases.md")).unwrap();
    let code = sources(&root().join("tests")) + &sources(&root().join("src"));
    let mut expected = Vec::new();
    for (section, last) in [("A", 8), ("B", 7), ("T", 6), ("D", 9), ("E", 14), ("F", 12), ("G", 16), ("R", 11)] {
        expected.extend((1..=last).map(|n| format!("{section}{n}")));
    }
    // These are not solved yet.
    expected.retain(|id| !["G4", "G9", "G10"].contains(&id.as_str()));
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| id |"))
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
        .collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(ids, expected);
    for row in &rows {
        assert_eq!(row.len(), 5, "{row:?}");
        let mut tests = 0;
        for name in row[4].split('`').skip(1).step_by(2) {
            let exists =
                if name.contains('/') { root().join("tests").join(name).is_file() } else { is_test(&code, name) };
            assert!(exists, "{}: no test `{name}`", row[0]);
            tests += 1;
        }
        assert!(tests > 0 || row[4].contains("decided otherwise"), "{}: no test", row[0]);
    }
}

/// Checks that the tests in docs/reliability.md exist.
#[test]
fn the_page_of_promises_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let code = sources(&root().join("tests")) + &sources(&root().join("src"));
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains(" | `")) {
        let tests = row.rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(is_test(&code, name), "no test `{name}`");
            named += 1;
        }
    }
    assert!(named > 40, "only {named}");
}

/// Returns whether the code has a test function with this name.
fn is_test(code: &str, name: &str) -> bool {
    // The first line is the text before `fn`.
    let is_attribute = |line: &str| line.is_empty() || line == "async" || line.starts_with("#[");
    code.split(&format!("fn {name}(")).next().filter(|before| before.len() < code.len()).is_some_and(|before| {
        let mut lines = before.lines().rev().map(str::trim).take_while(|line| is_attribute(line));
        lines.any(|line| line == "#[test]" || line == "#[tokio::test]")
    })
}

/// The text of all Rust files below a folder.
fn sources(folder: &Path) -> String {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = paths.map(|path| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(&path).unwrap(),
        _ => String::new(),
    });
    text.collect()
}

/// The headings of a document, in the form that GitHub uses in links.
fn headings(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
    let slug = |heading: &str| {
        let mut slug = heading.to_lowercase().replace(' ', "-");
        slug.retain(|c| c.is_alphanumeric() || "-_".contains(c));
        slug
    };
    headings.map(slug).collect()
}

/// The tests have no container engine, so only the parts of the Dockerfile that the commands need are checked.
fn check_docker(command: &str) {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    for promise in [
        "STOPSIGNAL SIGTERM",
        "USER 10001",
        "HEALTHCHECK",
        "ENTRYPOINT [\"/usr/local/bin/corsgate\"]",
        "CMD [\"run\", \"--config\", \"/etc/corsgate/corsgate.yaml\"]",
    ] {
        assert!(dockerfile.contains(promise), "{command}: no {promise}");
    }
    assert!(!command.contains("--volume") || command.contains(":/etc/corsgate:ro"), "{command}");
}

/// Sends the request of a curl command to the gateway. It has only the options that the documents use.
fn curl(command: &str, gateway: &Gateway) -> client::Response {
    let (mut method, mut target, mut headers) = ("GET", None, Vec::new());
    let words = shell_words(command);
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-i" => {}
            "-I" => method = "HEAD",
            "-X" => method = words.next().unwrap(),
            "-H" => headers.push(words.next().unwrap().split_once(": ").unwrap()),
            url => target = Some(url.strip_prefix("http://127.0.0.1:9080").unwrap()),
        }
    }
    if headers.iter().all(|(name, _)| *name != "Host") {
        headers.push(("Host", "127.0.0.1:9080"));
    }
    client::fetch(gateway.address(), method, target.unwrap(), &headers)
}

/// Starts a gateway with a configuration of a document. The listener is 127.0.0.1:9080, and all nodes are this
/// upstream.
fn serve(config: &str, upstream: &Upstream) -> Gateway {
    let config = config.replace("address: 127.0.0.1:9080", "address: \"{listen}\"");
    let config = config.replace("admin: {}", "admin: { address: \"{admin}\" }");
    let nodes = regex::Regex::new(r"nodes: \[\{ address: [^ ]+ \}\]").unwrap();
    let node = format!("nodes: [{{ address: \"{}\" }}]", upstream.address());
    Gateway::start(&nodes.replace_all(&config, node.as_str()))
}

/// Compares the status and every shown field, and asserts that there is no other CORS field.
fn compare(response: &client::Response, shown: &str, command: &str) {
    let mut lines = shown.lines();
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(response.status, status, "{command}");
    let mut expected: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let mut got = response.headers.clone();
    got.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
    got.retain(|field| field.0.starts_with("access-control-") || field.0 == "vary" || expected.contains(field));
    expected.sort();
    got.sort();
    assert_eq!(got, expected, "{command}");
}

/// Splits a shell command into its words. The documents quote with single quotes only.
pub fn shell_words(line: &str) -> Vec<String> {
    line.split('\'')
        .enumerate()
        .flat_map(|(i, part)| match i % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

pub fn blocks(file: &Path) -> Vec<Block> {
    let text = fs::read_to_string(file).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                inside = true;
                blocks.push(Block { language: language.to_owned(), text: String::new() });
            }
            None if inside => {
                let block = blocks.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Returns the documents, with the README first, because the other documents use its configuration.
fn documents() -> Vec<PathBuf> {
    let mut documents = vec![root().join("README.md")];
    documents.extend(files("docs", "md"));
    documents.extend(files("docs/migrate", "md"));
    documents
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
