//! The checks for pull requests in docs/ci.md. The steps of the workflow and the hooks run in a real repository.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_yaml::Value;
use tempfile::TempDir;

const CONFIG: &str = "\
listeners: [{ address: 127.0.0.1:9080 }]
upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
services:
  - name: api
    hosts: [api.example]
    upstream: api
    cors: { allow_origins: [https://app.example, https://staging.example], allow_methods: [PUT], allow_headers: [], max_age: 600 }
expect:
  - { page: https://app.example, method: PUT, url: https://api.example/orders, result: allowed }
";

/// Changes of the file on a branch. The last value tells whether `check`, `test` and `diff` accept the change.
const CHANGES: [(&str, &str, &str, [bool; 3]); 5] = [
    ("nothing", "", "", [true, true, true]),
    ("an origin less", ", https://staging.example", "", [true, true, true]),
    ("an origin more", "https://staging.example", "https://staging.example, https://new.example", [true, true, false]),
    ("a broken expectation", "[PUT]", "[]", [false, false, true]),
    ("a mistake", "max_age", "maxage", [false, false, false]),
];

/// A repository with the branch `main`, and with a branch that changes the file.
struct Repository(TempDir);

impl Repository {
    fn with_change(from: &str, to: &str) -> Self {
        let repository = Repository(tempfile::tempdir().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit(CONFIG);
        // The remote branch that a runner and a clone have.
        repository.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        repository.git(&["checkout", "--quiet", "-b", "change"]);
        if !from.is_empty() {
            assert!(CONFIG.contains(from));
            repository.commit(&CONFIG.replacen(from, to, 1));
        }
        // A later commit of `main` is not part of the comparison.
        repository.git(&["update-ref", "refs/heads/change-tip", "HEAD"]);
        repository.git(&["checkout", "--quiet", "main"]);
        repository.commit(&CONFIG.replace("https://app.example, ", "https://app.example, https://later.example, "));
        repository.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        repository.git(&["checkout", "--quiet", "change-tip"]);
        repository
    }

    fn commit(&self, config: &str) {
        fs::write(self.0.path().join("corsgate.yaml"), config).unwrap();
        self.git(&["add", "corsgate.yaml"]);
        self.git(&["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "--message=change"]);
    }

    fn git(&self, arguments: &[&str]) {
        let (success, output) = self.run("git", arguments);
        assert!(success, "git {arguments:?}: {output}");
    }

    /// Runs a program like a CI system, with corsgate in the PATH. Returns whether it succeeded, and its output.
    fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let bin = Path::new(env!("CARGO_BIN_EXE_corsgate")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("PATH", path).env("BASE", "origin/main").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Returns the code blocks of docs/ci.md: the workflow, and the configuration of pre-commit.
fn blocks() -> [Value; 2] {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md")).unwrap();
    let blocks: Vec<Value> = page
        .split("```yml\n")
        .skip(1)
        .map(|rest| serde_yaml::from_str(rest.split("```").next().unwrap()).expect("valid YAML"))
        .collect();
    blocks.try_into().expect("two blocks")
}

#[test]
fn the_steps_of_the_workflow_accept_and_refuse_changes() {
    let [workflow, _] = blocks();
    let steps = workflow["jobs"]["policy"]["steps"].as_sequence().unwrap();
    let scripts: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    let [check, test, diff] = scripts[..] else { panic!("{scripts:?}") };
    for (name, from, to, accepted) in CHANGES {
        let repository = Repository::with_change(from, to);
        for (script, accepted) in [check, test, diff].into_iter().zip(accepted) {
            // GitHub's runners use this shell with these options.
            let (success, output) = repository.run("bash", &["-e", "-c", script]);
            assert_eq!(success, accepted, "{name}: {script}\n{output}");
        }
    }
}

#[test]
fn the_hooks_of_pre_commit_accept_and_refuse_changes() {
    let [_, hooks] = blocks();
    let hooks = hooks["repos"][0]["hooks"].as_sequence().unwrap();
    assert_eq!(hooks.len(), 3);
    let has_pre_commit = Command::new("pre-commit").arg("--version").output().is_ok();
    for (name, from, to, accepted) in CHANGES {
        let repository = Repository::with_change(from, to);
        for (hook, accepted) in hooks.iter().zip(accepted) {
            let entry = hook["entry"].as_str().unwrap();
            let (success, output) = repository.run("sh", &["-c", entry]);
            assert_eq!(success, accepted, "{name}: {entry}\n{output}");
        }
        // pre-commit may not be installed.
        if has_pre_commit {
            let text = serde_yaml::to_string(&blocks()[1]).unwrap();
            fs::write(repository.0.path().join(".pre-commit-config.yaml"), text).unwrap();
            repository.git(&["add", ".pre-commit-config.yaml"]);
            for (hook, accepted) in hooks.iter().zip(accepted) {
                let id = hook["id"].as_str().unwrap();
                let stage = hook["stages"][0].as_str().unwrap_or("pre-commit");
                let (success, output) =
                    repository.run("pre-commit", &["run", id, "--all-files", "--hook-stage", stage]);
                assert_eq!(success, accepted, "{name}: {id}\n{output}");
            }
        }
    }
}
