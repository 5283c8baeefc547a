//! Tests of the command `corsgate import` and of its documentation, and comparisons of its report with other gateways.
//!
//! The tests of each engine's behavior are in the module of its format, in `src/import`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::gateway::{Output, run_in};

mod conformance;
mod envoy;
mod nginx;
mod probe;

const INGRESS: &str = "kind: Ingress\nmetadata:\n  name: shop\n  annotations:\n    nginx.ingress.kubernetes.io/enable-cors: \"true\"\n    \
    nginx.ingress.kubernetes.io/cors-allow-origin: \"*\"\n    nginx.ingress.kubernetes.io/cors-allow-credentials: \"false\"\n    \
    nginx.ingress.kubernetes.io/cors-max-age: \"600\"\nspec: { rules: [{ host: a.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { \
    name: s, port: { number: 80 } } } }] } }] }\n";

fn import(folder: &Path, text: &str, more: &[&str]) -> Output {
    fs::write(folder.join("source"), text).unwrap();
    run_in(folder, &[&["import", "source"], more].concat())
}

#[test]
fn the_exit_code_says_whether_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let kept = import(folder.path(), INGRESS, &[]);
    assert_eq!(kept.code, 0, "{}{}", kept.stdout, kept.stderr);
    assert!(
        kept.stderr.ends_with("source: ingress-nginx, 1 policy, 0 unsafe, 0 changed, 0 dropped\n"),
        "{}",
        kept.stderr
    );
    let changed = import(folder.path(), &INGRESS.replace("\"false\"", "\"true\""), &[]);
    assert_eq!(changed.code, 4, "{}", changed.stderr);
    for (text, message) in [
        ("a: [1\n", "corsgate: source:2: "),
        ("kind: Pod\n", "the format is not known"),
        ("kind: Ingress\nspec: {}\n", "there is no route to import"),
        ("server {\n  add_header 'X '*'\n}\n", "corsgate: source:2: unexpected `*` after the quoted text `X `"),
    ] {
        let refused = import(folder.path(), text, &[]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{text}");
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
    }
    assert_eq!(import(folder.path(), INGRESS, &["--from", "caddy"]).code, 2);
    assert_eq!(run_in(folder.path(), &["import", "absent"]).code, 1);
    let two = [folder.path().join("two"), folder.path().join("source")];
    fs::write(&two[0], "_format_version: '3.0'\n").unwrap();
    let mixed = run_in(folder.path(), &["import", "source", "two"]);
    assert!(mixed.code == 1 && mixed.stderr.contains("import them one after the other"), "{}", mixed.stderr);
}

#[test]
fn the_configuration_goes_to_a_new_file_and_the_report_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), INGRESS, &["--output", "corsgate.yaml", "--format", "json"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{}", output.stderr);
    let report: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!((report["format"].as_str(), report["changes"].as_bool()), (Some("ingress-nginx"), Some(false)));
    assert_eq!(report["policies"][0]["place"], "source:5");
    let checked = run_in(folder.path(), &["check", "--deny-warnings", "--config", "corsgate.yaml"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let again = import(folder.path(), INGRESS, &["--output", "corsgate.yaml"]);
    assert!(
        again.code == 1 && again.stderr.contains("corsgate.yaml: "),
        "an existing file is not overwritten: {}",
        again.stderr
    );
}

/// Checks that the pages in docs/migrate show the current import and report of each source. To rewrite the pages:
/// `BLESS=1 cargo test --test it -- import`.
#[test]
fn the_pages_about_other_gateways_show_what_import_prints() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let folder = tempfile::tempdir().unwrap();
    let mut samples = 0;
    for entry in fs::read_dir(root().join("docs/migrate")).unwrap() {
        let page = entry.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let (mut written, mut last) = (String::new(), None);
        let mut parts = text.split("```");
        written += parts.next().unwrap();
        while let (Some(block), after) = (parts.next(), parts.next().unwrap_or_default()) {
            let (language, body) = block.split_once('\n').unwrap();
            let body = match language.split_once(' ') {
                Some(("yaml" | "nginx" | "json", name)) if name.contains('.') => {
                    fs::write(folder.path().join(name), body).unwrap();
                    let output = run_in(folder.path(), &["import", name]);
                    assert!([0, 4].contains(&output.code), "{}: {}", page.display(), output.stderr);
                    last = Some(output);
                    samples += 1;
                    body.to_owned()
                }
                Some(("text", "report")) => last.as_ref().expect("a source before its report").stderr.clone(),
                Some(("yaml", "imported")) => last.as_ref().expect("a source before its import").stdout.clone(),
                _ => body.to_owned(),
            };
            written.extend(["```", language, "\n", &body, "```", after]);
        }
        match bless {
            true => fs::write(&page, &written).unwrap(),
            false => assert_eq!(written, text, "{}", page.display()),
        }
    }
    assert!(samples >= 9, "only {samples} samples were found");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
