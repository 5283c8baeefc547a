//! The corpus of configurations in `tests/config`, with the exact output of `corsgate check` for each file.
//!
//! - `good/*.yaml` is accepted without an error or a warning; each file shows one form.
//! - `refused/*.txt` and `warned/*.txt` have a configuration, a line `----`, and the output of `check` for it. The file
//!   name names the mistake. `twenty-mistakes.txt` is one file with many of them.
//!
//! After a change of a message, `BLESS=1 cargo test --test it corpus` rewrites the output after each `----`. Review the
//! difference as a user: is the caret under the cause, is one mistake one problem, is the suggested text valid?

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use corsgate::config::Source;
use corsgate::problem::{Problems, Replacement, Severity};
use corsgate::report;
use corsgate::snapshot::{CompileEnv, Loaded};
use corsgate::terminal::Paint;

use crate::codes;
use crate::support::gateway::run;

const DIVIDER: &str = "----\n";

/// The current date of the corpus: 2026-05-31.
const TODAY: i64 = 1_780_185_600;

/// A configuration with this comment is loaded as on a machine without root certificates.
const NO_ROOTS: &str = "# no root certificates\n";

/// The environment variables of the corpus.
const VARIABLES: [(&str, &str); 6] = [
    ("ORIGIN", "https://app.example"),
    ("ORIGINS", "https://app.example, https://admin.example"),
    ("PORT", "9080"),
    ("MAX_AGE", "600"),
    ("EMPTY", ""),
    ("LIST", "[https://app.example]"),
];

/// Reads a configuration, with the files of `tests/config/tls` in its directory.
pub fn read(config: &str) -> Loaded {
    let file = |path: &str| fs::read(folder().join(path)).map_err(|_| "No such file".to_owned());
    let has_folder = |path: &str| !path.starts_with("missing/");
    let socket = |path: &str| PathBuf::from(path);
    let roots = || Ok(usize::from(!config.contains(NO_ROOTS)));
    let variable =
        |name: &str| VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let env = CompileEnv {
        file: &file,
        has_folder: &has_folder,
        socket: &socket,
        variable: &variable,
        roots: &roots,
        now: TODAY,
    };
    corsgate::expect::load("corsgate.yaml", config, env)
}

/// A configuration and the output of `check` that is expected for it.
pub struct Case {
    pub path: PathBuf,
    pub config: String,
    printed: String,
}

#[test]
fn good_files_have_no_errors_and_no_warnings() {
    let mut failures = String::new();
    let files = files("good", "yaml");
    assert!(files.len() > 60, "only {} files were found", files.len());
    for path in files {
        let config = fs::read_to_string(&path).unwrap();
        let Loaded { snapshot, mut problems } = read(&config);
        problems.retain(|problem| problem.kind.severity() > Severity::Hint);
        if snapshot.is_none() || !problems.is_empty() {
            let _ = writeln!(failures, "--- {}\n{}", path.display(), print(&config, &problems));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn refused_files_print_exactly_their_expected_errors() {
    compare(&cases("refused"), |case, problems, snapshot| {
        assert!(problems.any_errors() && !snapshot, "{} is accepted", case.path.display());
    });
}

#[test]
fn warned_files_print_exactly_their_expected_warnings_and_load() {
    compare(&cases("warned"), |case, problems, snapshot| {
        assert!(!problems.any_errors() && snapshot, "{} is refused", case.path.display());
        assert!(!problems.is_empty(), "{} draws no remark", case.path.display());
    });
}

#[test]
fn one_run_reports_all_twenty_mistakes_of_a_file() {
    let case = Case::read(&folder().join("twenty-mistakes.txt"));
    compare(std::slice::from_ref(&case), |_, problems, _| assert!(problems.count(Severity::Error) >= 20));
    let problems = read(&case.config).problems;
    let printed = print(&case.config, &problems);
    // These lines are not part of the blessed text, so BLESS cannot remove one of them.
    let places = [
        "3:14", "5:19", "4:5", "6:25", "7:16", "9:39", "12:20", "14:14", "19:20", "20:44", "21:26", "22:14", "24:5",
        "27:13", "27:34", "28:15", "30:22", "30:43", "30:65", "31:28", "33:23", "36:27", "36:43", "38:32", "39:17",
        "39:32", "39:53", "41:15", "42:5", "43:5", "44:11", "47:37",
    ];
    for place in places {
        assert!(
            printed.contains(&format!("error: corsgate.yaml:{place} ")),
            "nothing is said about {place}\n{printed}"
        );
    }
}

#[test]
fn every_kind_of_problem_occurs_in_the_corpus() {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for case in all_cases() {
        seen.extend(read(&case.config).problems.iter().map(|problem| problem.kind.code()));
    }
    // If the corpus has no message of a kind, nobody has reviewed the message. `unreadable` is about a file without a
    // text.
    let listed = codes::TABLE.iter().map(|(code, _)| *code).filter(|code| *code != "unreadable");
    assert_eq!(seen, listed.collect());
}

/// A program can apply the `fix` of `check --format json`. After that, the problem is solved, and the new text is the
/// text of the remedy.
#[test]
fn every_offered_fix_removes_its_problem() {
    let mut mended = BTreeSet::new();
    for case in all_cases() {
        let problems = read(&case.config).problems;
        let json = report::json(&problems, &Source::new("corsgate.yaml", &case.config));
        let entries: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        for (problem, entry) in problems.iter().zip(&entries).filter(|(_, entry)| !entry["fix"].is_null()) {
            let edited = crate::explain::apply(&case.config, &entry["fix"]);
            let left = read(&edited).problems;
            let name = case.path.display();
            assert!(!left.iter().any(|other| other == problem), "{name}: {problem}\n{edited}");
            if let Some(Replacement::Text(text) | Replacement::Key(text)) = problem.kind.replacement() {
                let remedy = problem.kind.remedy();
                assert!(remedy.contains(&format!("`{text}`")), "{name}: {remedy}, but the fix writes {text}");
            }
            mended.insert(problem.kind.code());
        }
    }
    assert!(mended.len() >= 20, "only {mended:?} were mended");
}

#[test]
fn every_problem_has_a_position() {
    // The parser reports no position for these errors.
    let nowhere = ["two_documents.txt"];
    for case in all_cases() {
        let name = case.path.file_name().unwrap().to_string_lossy().into_owned();
        let problems = read(&case.config).problems;
        let json = report::json(&problems, &Source::new("corsgate.yaml", &case.config));
        let entries: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        let placed = entries.iter().all(|entry| entry["line"].is_u64() && entry["column"].is_u64());
        assert_eq!(placed, !nowhere.contains(&&*name), "{name}\n{json}");
    }
}

/// A message must not suggest an origin, host or path that is refused.
#[test]
fn every_suggested_origin_host_or_path_is_valid() {
    use corsgate::cors::OriginPattern;
    use corsgate::route::{HostPattern, PathPattern};
    let mut tried = 0;
    for case in all_cases() {
        for problem in &read(&case.config).problems {
            let (code, remedy) = (problem.kind.code(), problem.kind.remedy());
            let Some(written) = remedy.strip_prefix("write `").and_then(|rest| rest.strip_suffix('`')) else {
                continue;
            };
            let result = match code {
                // A text with two examples is not a suggestion.
                _ if written.contains('`') => continue,
                // Host names with other characters than ASCII have their own remedy. Every other fault is reported
                // first.
                _ if !written.is_ascii() => continue,
                code if code.starts_with("origin-") => OriginPattern::parse(written).map(drop),
                "bad-host" => HostPattern::parse(written).map(drop),
                "bad-path" => PathPattern::parse(written).map(drop),
                _ => continue,
            };
            tried += 1;
            assert!(result.is_ok(), "{}: {remedy}, but: {result:?}", case.path.display());
        }
    }
    assert!(tried > 30, "only {tried} were tried");
}

#[test]
fn files_that_expand_without_bound_are_refused_in_few_lines() {
    let laughs: String = ('b'..='z')
        .zip('a'..)
        .map(|(name, before)| format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(",")))
        .collect();
    let texts = [
        ("brackets", "[".repeat(100_000)),
        ("closed brackets", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        // This case has fewer braces, because the time of the YAML parser grows with the square of their number.
        ("braces", "{a: ".repeat(4_000)),
        ("dashes", "- ".repeat(50_000)),
        ("block", (0..1000).map(|depth| format!("{}a:\n", "  ".repeat(depth))).collect()),
        ("in a list of ours", format!("listeners: {}{}", "[".repeat(120), "]".repeat(120))),
        ("aliases of aliases", format!("a: &a [x]\n{laughs}")),
        ("one long line", format!("cors: [{}]\n", "a".repeat(100_000))),
        ("a NUL", "cors: \0\n".into()),
        ("many mistakes", format!("services:\n{}", "  - { nme: 7 }\n".repeat(2_000))),
    ];
    for (name, text) in texts {
        let Loaded { snapshot, problems } = read(&text);
        assert!(snapshot.is_none() && problems.any_errors(), "{name}");
        let printed = print(&text, &problems);
        assert!(printed.len() < 60_000, "{name}: {} bytes are printed", printed.len());
    }
}

#[test]
fn check_exits_with_0_for_valid_and_warned_files_and_with_1_for_refused_ones() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, config: &str| {
        let path = dir.path().join(name);
        fs::write(&path, config).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let case = |path: &str| Case::read(&folder().join(path)).config;
    let valid = write("valid.yaml", &fs::read_to_string(folder().join("good/smallest.yaml")).unwrap());
    let warned = write("warned.yaml", &case("warned/private_network.txt"));
    let hinted = write("hinted.yaml", &case("warned/hint_any_header.txt"));
    let refused = write("refused.yaml", &case("refused/no_origins.txt"));
    let absent = dir.path().join("absent.yaml").to_str().unwrap().to_owned();

    let code = |file: &str, more: &[&str]| run(&[&["check", "--config", file], more].concat()).code;
    assert_eq!(code(&valid, &[]), 0);
    assert_eq!(code(&valid, &["--deny-warnings"]), 0);
    assert_eq!(code(&warned, &[]), 0);
    assert_eq!(code(&warned, &["--deny-warnings"]), 1);
    assert_eq!(code(&warned, &["--deny-warnings", "--format", "json"]), 1);
    assert_eq!(code(&hinted, &["--deny-warnings"]), 0);
    assert_eq!(code(&refused, &[]), 1);
    assert_eq!(code(&absent, &[]), 1);
    assert_eq!(code(&valid, &["--format", "xml"]), 2);
    assert_eq!(run(&["check", "--no-such-option"]).code, 2);
    assert_eq!(run(&["no-such-command"]).code, 2);

    let output = run(&["check", "--config", &absent]);
    assert!(output.stdout.is_empty() && output.stderr.contains("cannot read"), "{output:?}");
    // The JSON format reports the unreadable file as one more problem, without a position.
    let output = run(&["check", "--config", &absent, "--format", "json"]);
    let entries: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.code, entries.as_array().unwrap().len()), (1, 1), "{output:?}");
    let entry = &entries[0];
    assert_eq!((&entry["severity"], &entry["code"]), (&"error".into(), &"unreadable".into()), "{output:?}");
    assert_eq!((&entry["file"], &entry["line"]), (&absent.into(), &serde_json::Value::Null), "{output:?}");
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_place_of_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corsgate.yaml");
    // The text is Latin-1.
    fs::write(&path, b"# one\n# caf\xe9\n").unwrap();
    let path = path.to_str().unwrap();
    let wrong = "it is not UTF-8 text: line 2 has the byte 0xe9 in column 6";
    for arguments in [
        &["check", "--config", path][..],
        &["explain", "--config", path, "--origin", "https://app.example", "http://api.example/"],
    ] {
        let output = run(arguments);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
        assert!(output.stderr.ends_with(&format!("{wrong}; save the file as UTF-8\n")), "{output:?}");
    }
    let output = run(&["check", "--config", path, "--format", "json"]);
    let entries: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(entries[0]["fault"], format!("cannot be read: {wrong}"));
    assert_eq!(entries[0]["remedy"], "save the file as UTF-8");
}

#[test]
fn check_prints_the_same_problems_as_text_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corsgate.yaml");
    let case = Case::read(&folder().join("twenty-mistakes.txt"));
    fs::write(&path, &case.config).unwrap();
    let path = path.to_str().unwrap();
    let text = run(&["check", "--config", path]);
    let json = run(&["check", "--config", path, "--format", "json"]);
    assert_eq!(text.stdout, case.printed.replace("corsgate.yaml", path));
    let entries: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).unwrap();
    let mut from_json: Vec<String> = entries
        .iter()
        .map(|e| {
            let word = |key: &str| e[key].as_str().unwrap().to_owned();
            format!(
                "{}: {}:{}:{} {}: {}; {}",
                word("severity"),
                word("file"),
                e["line"],
                e["column"],
                word("path"),
                word("fault"),
                word("remedy")
            )
        })
        .collect();
    let mut from_text: Vec<&str> = text.stdout.lines().filter(|line| line.starts_with("error: ")).collect();
    from_json.sort();
    from_text.sort_unstable();
    assert_eq!(from_json, from_text);
}

// --- reading and comparing

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The configuration may be empty; otherwise its last line ends before the divider.
        let at = match text.starts_with(DIVIDER) {
            true => 0,
            false => text.find(&format!("\n{DIVIDER}")).map(|end| end + 1).expect("a line `----`"),
        };
        Case { path: path.to_owned(), config: text[..at].to_owned(), printed: text[at + DIVIDER.len()..].to_owned() }
    }
}

/// Fails and lists all files that differ. With `BLESS=1`, rewrites them instead. `look` gets the problems of each file,
/// and whether the file is valid.
fn compare(cases: &[Case], look: impl Fn(&Case, &Problems, bool)) {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut failures = String::new();
    for case in cases {
        let Loaded { snapshot, problems } = read(&case.config);
        look(case, &problems, snapshot.is_some());
        let printed = print(&case.config, &problems);
        if printed == case.printed {
            continue;
        }
        if bless {
            fs::write(&case.path, format!("{}{DIVIDER}{printed}", case.config)).unwrap();
            continue;
        }
        let _ = writeln!(failures, "--- {}", case.path.display());
        let (expected, got): (Vec<&str>, Vec<&str>) = (case.printed.lines().collect(), printed.lines().collect());
        for line in expected.iter().filter(|line| !got.contains(line)) {
            let _ = writeln!(failures, "- {line}");
        }
        for line in got.iter().filter(|line| !expected.contains(line)) {
            let _ = writeln!(failures, "+ {line}");
        }
    }
    assert!(failures.is_empty(), "`-` was expected, `+` is printed\n{failures}");
}

fn print(config: &str, problems: &Problems) -> String {
    report::text(problems, &Source::new("corsgate.yaml", config), Paint::Plain)
}

/// All cases whose output has a problem, in order.
pub fn all_cases() -> Vec<Case> {
    let mut cases = cases("refused");
    cases.extend(self::cases("warned"));
    cases.push(Case::read(&folder().join("twenty-mistakes.txt")));
    cases
}

/// The cases in `refused` or `warned`, in order.
pub fn cases(name: &str) -> Vec<Case> {
    files(name, "txt").iter().map(|path| Case::read(path)).collect()
}

/// The cases in a directory of the corpus, in order.
pub fn files(name: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(name)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let stray = paths.iter().find(|path| path.extension().is_none_or(|found| found != extension));
    assert_eq!(stray, None, "not a .{extension} file, so nothing would look at it");
    assert!(!paths.is_empty(), "tests/config/{name} is empty");
    paths
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}
