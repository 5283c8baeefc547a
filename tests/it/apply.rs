//! `corsgate get`, `apply`, `delete` and `export`: with files, with a real etcd, and with the write API.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::{CONFIG, Tokens};
use crate::support::client::fetch;
use crate::support::etcd::{CHANGE_TIMEOUT, Etcd};
use crate::support::gateway::{Gateway, Output, run, run_in};
use crate::support::process::poll;

const FILE: &str = "\
# The shop.
listeners: [{ address: '127.0.0.1:9080' }]
cors_policies:
  app: { allow_origins: [https://a.example], max_age: 60 }   # the app
services:
  - name: api
    hosts: [api.test]
    respond: { status: 200, body: one }
    cors: app
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a command in this folder, and checks its exit code.
    #[track_caller]
    fn run(&self, code: i32, args: &[&str]) -> Output {
        let output = run_in(self.path(), args);
        assert_eq!(output.code, code, "{args:?}\n{}{}", output.stdout, output.stderr);
        output
    }
}

#[test]
fn a_file_is_changed_with_its_comments() {
    let new = FILE.replace("max_age: 60", "max_age: 90");
    let folder = Folder::with(&[("corsgate.yaml", FILE), ("new.yaml", &new)]);
    let tried = folder.run(4, &["apply", "-f", "new.yaml", "--config", "corsgate.yaml", "--dry-run"]);
    let shown = "cors_policies/app changed\n  - max_age: 60\n  + max_age: 90\n";
    assert!(tried.stdout.starts_with(shown) && tried.stdout.contains("60 s -> 90 s"), "{}", tried.stdout);
    assert_eq!(tried.stderr, "not applied, because it belongs to the file of each process: listeners\n");
    assert_eq!(folder.read("corsgate.yaml"), FILE);
    // Nobody confirms.
    let asked = folder.run(2, &["apply", "-f", "new.yaml", "--config", "corsgate.yaml"]);
    assert!(asked.stderr.contains("write `--yes`"), "{}", asked.stderr);
    assert_eq!(folder.read("corsgate.yaml"), FILE);
    folder.run(0, &["apply", "-f", "new.yaml", "--config", "corsgate.yaml", "--yes"]);
    assert_eq!(folder.read("corsgate.yaml"), new);
    let again = folder.run(0, &["apply", "-f", "new.yaml", "--config", "corsgate.yaml"]);
    assert_eq!(again.stdout, "nothing to change\n");
}

#[test]
fn without_prune_nothing_is_deleted() {
    let folder =
        Folder::with(&[("corsgate.yaml", FILE), ("sets.yaml", "origin_sets: { partners: [https://b.example] }")]);
    folder.run(0, &["apply", "-f", "sets.yaml", "--config", "corsgate.yaml", "--yes"]);
    let parts = folder.run(0, &["get", "--config", "corsgate.yaml", "--format", "json"]).stdout;
    let parts: serde_json::Value = serde_json::from_str(&parts).unwrap();
    assert_eq!(parts["origin_sets"]["partners"][0], "https://b.example");
    assert_eq!(parts["services"]["api"]["cors"], "app");
    // The service and its policy are not in the file: a configuration without services is refused.
    let refused = folder.run(1, &["apply", "-f", "sets.yaml", "--config", "corsgate.yaml", "--prune", "--yes"]);
    assert!(refused.stderr.contains("the changes are refused, nothing was written"), "{}", refused.stderr);
    folder.write(
        "one.yaml",
        "services: [{ name: api, hosts: [api.test], respond: { status: 200, body: one }, cors: false }]",
    );
    folder.run(0, &["apply", "-f", "one.yaml", "--config", "corsgate.yaml", "--prune", "--yes"]);
    assert_eq!(folder.run(0, &["get", "cors_policies", "--config", "corsgate.yaml"]).stdout, "");
    assert_eq!(
        folder.run(0, &["get", "services/api", "--config", "corsgate.yaml"]).stdout,
        "hosts:\n- api.test\nrespond:\n  status: 200\n  body: one\ncors: false\n"
    );
}

#[test]
fn what_cannot_be_applied_says_why_and_changes_nothing() {
    let folder = Folder::with(&[
        ("corsgate.yaml", FILE),
        ("slash.yaml", "cors_policies: { app: { allow_origins: [https://a.example/] } }"),
        ("key.yaml", "services: [{ name: api, host: [api.test] }]"),
        ("limits.yaml", "limits: { body: 1MiB }"),
        ("list.yaml", "[1]"),
        ("text.yaml", "services: [\n"),
        ("twice.yaml", "cors_policies: { app: { allow_origins: https://b.example } }"),
        ("latin.yaml", "a"),
    ]);
    fs::write(folder.path().join("latin.yaml"), b"\xff\xfe").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    let apply = |file: &'static str| vec!["apply", "--yes", "--config", "corsgate.yaml", "-f", file];
    #[rustfmt::skip]
    let rows: [(Vec<&str>, i32, &str); 18] = [
        (apply("slash.yaml"), 1, "write `https://a.example`"),
        (apply("key.yaml"), 1, "unknown key `host`"),
        (apply("limits.yaml"), 2, "cannot apply limits"),
        (apply("list.yaml"), 2, "list.yaml is no file with services"),
        (apply("text.yaml"), 2, "text.yaml is no file with services"),
        (apply("latin.yaml"), 2, "latin.yaml"),
        (apply("none.yaml"), 2, "none.yaml"),
        (apply("empty"), 2, "no *.yaml, *.yml or *.json in this directory"),
        ([apply("slash.yaml"), vec!["-f", "twice.yaml"]].concat(), 2, "cors_policies/app is in slash.yaml and in twice.yaml; keep one"),
        (vec!["delete", "services/none", "--config", "corsgate.yaml"], 1, "there is no services/none"),
        (vec!["delete", "api", "--config", "corsgate.yaml"], 2, "write SECTION/NAME"),
        (vec!["delete", "routes/api", "--config", "corsgate.yaml"], 2, "`routes` is no section"),
        (vec!["delete", "cors_policies/app", "--config", "corsgate.yaml", "--yes"], 1, "there is no policy named `app`"),
        (vec!["get", "services/none", "--config", "corsgate.yaml"], 1, "there is no services/none"),
        (vec!["get", "service", "--config", "corsgate.yaml"], 2, "write services, upstreams, cors_policies or origin_sets"),
        (vec!["get", "--config", "none.yaml"], 2, "none.yaml"),
        (vec!["get", "--admin", "http://127.0.0.1:1"], 2, "set CORSGATE_TOKEN"),
        (vec!["get", "--config", "etcd://127.0.0.1:1/edge"], 2, "cannot read etcd://127.0.0.1:1/edge"),
    ];
    for (args, code, expected) in rows {
        let output = folder.run(code, &args);
        assert!(output.stderr.contains(expected), "{args:?}: {}", output.stderr);
        assert_eq!(folder.read("corsgate.yaml"), FILE, "{args:?}");
    }
}

fn body(gateway: &Gateway) -> String {
    fetch(gateway.address(), "GET", "/", &[("Host", "api.test")]).text().to_owned()
}

#[test]
fn a_file_fills_etcd_and_a_change_reaches_three_processes() {
    let etcd = Etcd::start();
    let (folder, url) = (Folder::with(&[("corsgate.yaml", FILE)]), etcd.url("/edge"));
    let filled = folder.run(0, &["apply", "-f", "corsgate.yaml", "--config", &url, "--yes"]);
    assert!(filled.stdout.contains("services/api new") && filled.stdout.contains(" as revision "), "{}", filled.stdout);
    let config = format!(
        "listeners: [{{ address: '{{listen}}' }}]\nadmin: {{ address: '{{admin}}' }}\nsource: {{ etcd: {{ endpoints: '{}', prefix: /edge }} }}\n",
        etcd.endpoints()
    );
    let gateways = [(); 3].map(|()| Gateway::start(&config));
    let mut times = Vec::new();
    for i in 0..10 {
        let text = format!("change {i}");
        folder.write("corsgate.yaml", &FILE.replace("body: one", &format!("body: {text}")));
        let output = folder.run(0, &["apply", "-f", "corsgate.yaml", "--config", &url, "--yes"]);
        assert!(output.stdout.contains("services/api changed"), "{}", output.stdout);
        let begin = Instant::now();
        for gateway in &gateways {
            let found = poll(CHANGE_TIMEOUT, || (body(gateway) == text).then_some(()));
            assert!(found.is_some(), "{:?} instead of {text:?}", body(gateway));
        }
        times.push(begin.elapsed());
    }
    times.sort();
    println!("after `apply` has ended, in three processes: median {:?}, worst {:?}", times[5], times[9]);
    assert!(times[9] < Duration::from_secs(20));
    // Settings have a key of their own.
    folder.write("limits.yaml", "limits: { body: 2MiB }\n");
    folder.run(0, &["apply", "-f", "limits.yaml", "--config", &url, "--yes"]);
    assert_eq!(etcd.ctl(&["get", "--print-value-only", "/edge/settings"]), "limits:\n  body: 2MiB\n\n");
    // An error refuses all, and keys of other programs are no obstacle.
    etcd.put("/edge/services/broken", "{ hosts: 7 }");
    let before = etcd.revision_of("/edge/cors_policies/app");
    folder.write("two.yaml", "cors_policies: { app: { allow_origins: [https://c.example] }, bad: { allow_origins: ['https://*'] , max_age: x } }");
    let refused = folder.run(1, &["apply", "-f", "two.yaml", "--config", &url, "--yes"]);
    assert!(refused.stderr.contains("max_age"), "{}", refused.stderr);
    assert_eq!(etcd.revision_of("/edge/cors_policies/app"), before, "nothing is written");
    folder.write("two.yaml", "cors_policies: { app: { allow_origins: [https://c.example] } }");
    folder.run(0, &["apply", "-f", "two.yaml", "--config", &url, "--yes"]);
    let deleted = folder.run(0, &["delete", "services/broken", "--config", &url, "--yes"]);
    assert!(deleted.stdout.contains("services/broken deleted"), "{}", deleted.stdout);
    // More keys than etcd accepts in one transaction.
    let names: String = (0..150).map(|i| format!("  s{i}: {{ allow_origins: https://s{i}.example }}\n")).collect();
    folder.write("many.yaml", &format!("cors_policies:\n{names}"));
    folder.run(0, &["apply", "-f", "many.yaml", "--config", &url, "--yes"]);
    let policies = folder.run(0, &["get", "cors_policies", "--config", &url, "--format", "json"]).stdout;
    assert_eq!(policies.matches("https://s").count(), 150);
    // What is in use is not deleted.
    let used = folder.run(1, &["delete", "cors_policies/app", "--config", &url, "--yes"]);
    assert!(used.stderr.contains("app"), "{}", used.stderr);
}

/// The configurations of the repository: each goes to etcd, is exported, and the export gives the same keys again.
#[test]
fn an_export_is_the_way_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let etcd = Etcd::start();
    let folder = Folder::with(&[]);
    let mut files: Vec<PathBuf> =
        ["walkthrough", "scopes", "corsgate"].map(|name| root.join(format!("conf/{name}.yaml"))).into();
    let good = fs::read_dir(root.join("tests/config/good")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(good);
    files.sort();
    let mut compared = BTreeSet::new();
    for (i, file) in files.iter().enumerate() {
        let (one, two) = (etcd.url(&format!("/one{i}")), etcd.url(&format!("/two{i}")));
        let file_name = file.to_string_lossy().into_owned();
        let output = run_in(folder.path(), &["apply", "-f", &file_name, "--config", &one, "--yes"]);
        if output.code != 0 {
            // It names certificates or files, or variables, which values in etcd cannot have without a file of the process.
            assert_eq!(output.code, 1, "{file_name}: {}", output.stderr);
            continue;
        }
        let export = format!("{i}.yaml");
        folder.run(0, &["export", "--config", &one, "--output", &export]);
        folder.run(0, &["check", "--config", &export]);
        folder.run(0, &["apply", "-f", &export, "--config", &two, "--yes"]);
        let values = |url: &str| folder.run(0, &["get", "--config", url, "--format", "json"]).stdout;
        assert_eq!(values(&one), values(&two), "{file_name}");
        let same = folder.run(0, &["apply", "-f", &export, "--config", &one, "--prune"]);
        assert_eq!(same.stdout, "nothing to change\n", "{file_name}");
        compared.insert(file_name);
    }
    assert!(compared.len() > 20, "{compared:?}");
}

/// JSON has no tags, so such a value is written with its keys only.
#[test]
fn a_value_with_a_yaml_tag_is_exported() {
    let etcd = Etcd::start();
    etcd.put("/edge/upstreams/api", "nodes: [ !local { address: '127.0.0.1:1' } ]");
    etcd.put("/edge/services/web", "{ hosts: [web.test], respond: { status: 200 } }");
    etcd.put("/edge/services/broken", "[");
    let folder = Folder::with(&[]);
    let export = folder.run(0, &["export", "--config", &etcd.url("/edge")]);
    assert!(export.stdout.contains("127.0.0.1:1") && export.stdout.contains("web.test"), "{export:?}");
    assert_eq!(export.stderr, "corsgate: left out: services/broken cannot be read\n");
}

#[test]
fn a_running_process_is_changed_by_its_api() {
    let tokens = Tokens::new();
    let gateway = Gateway::start_with_files(CONFIG, &tokens.files());
    let admin = format!("http://{}", gateway.admin());
    let folder = Folder::with(&[
        ("token", &format!("{}\n", tokens.write)),
        (
            "new.yaml",
            "cors_policies: { apps: { allow_origins: https://b.example } }\nservices: [{ name: web, hosts: [web.test], upstream: api, cors: apps }]",
        ),
        ("bad.yaml", "cors_policies: { apps: { allow_origins: https://b.example/ } }"),
    ]);
    let with_token = |args: &[&'static str]| {
        let admin: &'static str = Box::leak(admin.clone().into_boxed_str());
        [args, &["--admin", admin, "--token-file", "token"]].concat()
    };
    let before = folder.run(0, &with_token(&["get"])).stdout;
    let output = folder.run(0, &with_token(&["apply", "-f", "new.yaml", "--yes"]));
    assert!(output.stdout.starts_with("cors_policies/apps new\n"), "{}", output.stdout);
    let text = fs::read_to_string(gateway.config_path()).unwrap();
    assert!(text.contains("# The shop.") && text.contains("name: web"), "{text}");
    let bad = folder.run(1, &with_token(&["apply", "-f", "bad.yaml", "--yes"]));
    assert!(
        bad.stderr.contains("write `https://b.example`") && bad.stderr.contains("0 of 1 changes"),
        "{}",
        bad.stderr
    );
    folder.run(0, &with_token(&["delete", "cors_policies/apps", "services/web", "--yes"]));
    assert_eq!(folder.run(0, &with_token(&["get"])).stdout, before);
    folder.run(0, &with_token(&["export", "--output", "all.yaml"]));
    folder.run(0, &["check", "--config", "all.yaml"]);
    // A wrong token.
    folder.write("token", "corsgate_0000000000000000000000000000000000000000000");
    let wrong = folder.run(2, &with_token(&["get"]));
    assert!(wrong.stderr.contains("token"), "{}", wrong.stderr);
    let help = run(&["apply", "--help"]).stdout;
    assert!(help.contains("--prune") && help.contains("Exit codes:"), "{help}");
}
