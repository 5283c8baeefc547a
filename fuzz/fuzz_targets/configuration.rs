//! Any text as a configuration: problems, never a panic. A text without errors gives a snapshot.

#![no_main]

use corsgate::config::Source;
use corsgate::snapshot::{CompileEnv, Loaded};
use corsgate::terminal::Paint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Loaded { snapshot, problems } = corsgate::expect::load("corsgate.yaml", text, CompileEnv::NONE);
    assert_eq!(snapshot.is_some(), !problems.any_errors(), "{problems}");
    let source = Source::new("corsgate.yaml", text);
    let printed = corsgate::report::text(&problems, &source, Paint::Plain);
    assert!(!printed.is_empty());
    let _ = corsgate::report::json(&problems, &source);
});
