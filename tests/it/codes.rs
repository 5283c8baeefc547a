//! The codes of `check --format json` are an interface for programs. This table lists all of them.
//!
//! A new kind of problem needs a line here, and a file in `tests/config` that shows its message. `docs/codes.md` is
//! generated from the table and the messages. `BLESS=1 cargo test --test it codes` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use corsgate::problem::Severity::{self, Error, Hint, Warning};
use corsgate::problem::{KeyPath, Problem, ProblemKind};

use crate::corpus;

/// Every code with its severity, in the order of the codes.
pub const TABLE: &[(&str, Severity)] = &[
    ("address-twice", Error),
    ("admin-exposed", Hint),
    ("all-weights-zero", Error),
    ("allowed-but-denied", Warning),
    ("any-exposed-with-credentials", Error),
    ("any-header-without-authorization", Hint),
    ("any-in-set", Error),
    ("any-method-in-route", Error),
    ("any-origin-with-credentials", Error),
    ("any-with-others", Error),
    ("bad-address", Error),
    ("bad-certificate", Error),
    ("bad-expectation", Error),
    ("bad-header-name", Error),
    ("bad-header-value", Error),
    ("bad-host", Error),
    ("bad-key", Error),
    ("bad-max-age", Error),
    ("bad-media-type", Error),
    ("bad-method", Error),
    ("bad-name", Error),
    ("bad-path", Error),
    ("bad-preflight-status", Error),
    ("bad-redirect", Error),
    ("bad-redirect-status", Error),
    ("bad-refused-status", Error),
    ("bad-replacement", Error),
    ("bad-socket-path", Error),
    ("bad-status-range", Error),
    ("bad-token-file", Error),
    ("bad-variable", Error),
    ("cached-longer-than-max-age", Warning),
    ("certificate-ends-soon", Warning),
    ("certificate-expired", Error),
    ("certificate-not-yet-valid", Error),
    ("cors-true", Error),
    ("debug-header", Hint),
    ("empty-entry", Error),
    ("empty-list", Error),
    ("exclusive-keys", Error),
    ("expectation-failed", Error),
    ("exposed-anyway", Hint),
    ("exposed-without-use", Warning),
    ("file-unreadable", Error),
    ("folder-missing", Warning),
    ("hash-on-unknown", Error),
    ("header-never-read", Warning),
    ("header-never-sent", Warning),
    ("header-of-connection", Error),
    ("header-of-cors", Error),
    ("header-of-upstream-host", Error),
    ("header-other-direction", Warning),
    ("header-removed", Warning),
    ("host-twice", Error),
    ("http2-beside-tls", Error),
    ("insecure-origin-with-credentials", Error),
    ("key-and-alias", Error),
    ("key-mismatch", Error),
    ("key-twice", Error),
    ("listed-twice", Error),
    ("max-age-left-out", Hint),
    ("meaningless-beside-any", Warning),
    ("method-case", Hint),
    ("method-never-sent", Warning),
    ("missing", Error),
    ("mode-without-unix", Error),
    ("name-twice", Error),
    ("needs-another", Error),
    ("nested-report-only", Error),
    ("never-compressed", Error),
    ("never-reached", Warning),
    ("no-origins", Error),
    ("no-pem", Error),
    ("no-roots", Warning),
    ("node-without-tls", Warning),
    ("nothing-to-expose", Error),
    ("null-in-set", Error),
    ("null-origin", Error),
    ("odd-scheme-with-credentials", Warning),
    ("open-by-omission", Hint),
    ("origin-bad-character", Error),
    ("origin-bad-host", Error),
    ("origin-bad-placeholder", Error),
    ("origin-bad-port", Error),
    ("origin-bad-scheme", Error),
    ("origin-default-port", Error),
    ("origin-empty-host", Error),
    ("origin-misplaced-wildcard", Error),
    ("origin-non-ascii", Error),
    ("origin-not-canonical", Error),
    ("origin-of-websocket", Error),
    ("origin-opaque", Error),
    ("origin-path", Error),
    ("origin-query", Error),
    ("origin-reflects-all", Error),
    ("origin-several", Error),
    ("origin-too-long", Error),
    ("origin-trailing-slash", Error),
    ("origin-unknown-placeholder", Error),
    ("origin-upper-case", Error),
    ("origin-userinfo", Error),
    ("origin-without-scheme", Error),
    ("out-of-range", Error),
    ("policies-share-a-path", Hint),
    ("private-network-gone", Warning),
    ("public-suffix", Warning),
    ("public-suffix-with-credentials", Error),
    ("rate-key-unknown", Error),
    ("redirect-over-tls", Error),
    ("regex-alternation", Warning),
    ("regex-does-not-compile", Error),
    ("regex-is-pattern", Warning),
    ("regex-matches-all", Warning),
    ("regex-never-matches", Warning),
    ("regex-open-prefix", Warning),
    ("regex-too-large", Error),
    ("regex-unescaped-dot", Warning),
    ("regex-without-scheme", Warning),
    ("rejects-nothing", Warning),
    ("remote-write", Error),
    ("reports-nothing", Warning),
    ("route-twice", Error),
    ("sni-missing", Error),
    ("status-without-body", Error),
    ("strip-prefix-mismatch", Warning),
    ("syntax", Error),
    ("trusts-everyone", Warning),
    ("unix-not-trusted", Error),
    ("unknown-key", Error),
    ("unknown-name", Error),
    ("unknown-variable", Error),
    ("unknown-word", Error),
    ("unreadable", Error),
    ("unused-danger", Hint),
    ("variable", Error),
    ("variable-in-block", Error),
    ("variable-not-filled", Hint),
    ("variable-not-set", Error),
    ("verify-off", Warning),
    ("word-for-any", Error),
    ("wrong-value", Error),
];

#[test]
fn the_table_lists_the_code_of_every_kind() {
    let source = fs::read_to_string(root().join("src/problem/describe.rs")).unwrap();
    // `describe` matches every variant, and each of its arms calls one of these with a literal.
    let calls = ["error(", "warning(", "hint("].into_iter().flat_map(|call| source.split(call).skip(1));
    let literals = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    let listed: Vec<&str> = TABLE.iter().map(|(code, _)| *code).collect();
    assert_eq!(literals.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), listed);
}

#[test]
fn every_code_has_its_severity() {
    for problem in examples() {
        let (code, severity) = (problem.kind.code(), problem.kind.severity());
        assert!(TABLE.contains(&(code, severity)), "{code} is now: {severity}");
    }
}

#[test]
fn the_page_of_codes_is_up_to_date() {
    let path = root().join("docs/codes.md");
    let page = page();
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &page).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == page, "docs/codes.md is stale: BLESS=1 cargo test --test it codes");
}

fn page() -> String {
    let examples = examples();
    let mut page = INTRODUCTION.to_owned();
    for (code, severity) in TABLE {
        // The shortest message of a kind is the clearest example, unless it is about an empty text.
        let of_code = examples.iter().map(|problem| problem.kind.describe()).filter(|found| found.code == *code);
        let of_code = of_code.filter(|found| !found.fault.contains("``"));
        let example = of_code.min_by_key(|found| (found.fault.len() + found.remedy.len(), found.fault.clone()));
        let example = example.unwrap_or_else(|| panic!("no file in tests/config has the problem {code}"));
        let cell = |text: &str| text.replace('|', "\\|");
        let (fault, remedy) = (cell(&example.fault), cell(&example.remedy));
        let _ = writeln!(page, "| `{code}` | {severity} | {fault} | {remedy} |");
    }
    assert!(!page.contains(|c: char| c.is_control() && c != '\n'));
    page
}

const INTRODUCTION: &str = "\
# Codes of `corsgate check`

With `--format json`, `corsgate check` and `corsgate explain` give each problem of a configuration a code. The codes are
stable, so that a program can match on them; the texts can change. Each code has one severity: an error refuses the file,
a warning fails `check` only with `--deny-warnings`, and a hint never fails it.

This page is made from the messages in `src/problem/describe.rs`. Each row has one example; `check` writes it behind the
path of the key, as `PATH: FAULT; REMEDY`.

| code | severity | fault | remedy |
|---|---|---|---|
";

/// Returns the problems of all files of the corpus, and the problem of a file without a text. The corpus has every kind
/// of problem.
fn examples() -> Vec<Problem> {
    let why = "No such file or directory (os error 2)".to_owned();
    let remedy = "write the path of a readable file, `--config FILE`";
    let mut all = vec![Problem { at: KeyPath::default(), kind: ProblemKind::Unreadable { why, remedy } }];
    all.extend(corpus::all_cases().iter().flat_map(|case| corpus::read(&case.config).problems));
    all
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
