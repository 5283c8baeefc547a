//! Expectations: requests of pages, and the results that a configuration must give for them.
//!
//! They are written under `expect` in the configuration file, and in the files of `expect_files`. [`load`] loads a text
//! and checks its expectations. A failed expectation is an error of the text, so the start, a reload and `check` refuse
//! the text. `corsgate test` only runs a [`Suite`], also against a server.
//!
//! The simulation of [`crate::explain`] computes the result of a request. [`judge`] compares this result with the
//! expected result. It works in the same way for the result of a server.
//!
//! ```
//! use corsgate::snapshot::CompileEnv;
//!
//! let text = "\
//! listeners: [{ address: 127.0.0.1:9080 }]
//! upstreams: { api: { nodes: [{ address: 127.0.0.1:8000 }] } }
//! services:
//!   - name: api
//!     upstream: api
//!     cors: { allow_origins: https://app.example, allow_methods: [PUT] }
//! expect:
//!   - { page: https://app.example, method: DELETE, url: https://api.example/orders, result: allowed }
//! ";
//! let loaded = corsgate::expect::load("corsgate.yaml", text, CompileEnv::NONE);
//! assert!(loaded.snapshot.is_none());
//! assert!(loaded.problems.to_string().contains("allow_methods has PUT, but not DELETE"));
//! ```

mod failure;
mod judge;
mod parse;
mod render;
mod server;
mod suite;

pub(crate) use self::failure::Depth;
pub(crate) use self::judge::result_of;
pub(crate) use self::render::{json, text};
pub(crate) use self::server::{ServerAnswer, ServerOutcome};
pub(crate) use self::suite::{Suite, Tested};

use crate::config::Document;
use crate::explain::Configuration;
use crate::snapshot::{CompileEnv, Loaded, extend_with_causes, load_with_document};

/// Parses and compiles a text, and checks its expectations. `name` is the name of the file. The function is pure, like
/// [`crate::snapshot::load`].
pub fn load(name: &str, text: &str, env: CompileEnv<'_>) -> Loaded {
    load_to(Depth::Explained, name, text, env)
}

/// Loads a text that is only tried, like [`load`]. The problem of a failed expectation then has no cause and no fix.
pub(crate) fn load_attempt(name: &str, text: &str, env: CompileEnv<'_>) -> Loaded {
    load_to(Depth::Verdict, name, text, env)
}

fn load_to(depth: Depth, name: &str, text: &str, env: CompileEnv<'_>) -> Loaded {
    let (Loaded { snapshot, mut problems }, document) = load_with_document(text, env);
    let Some(document) = document.filter(Document::has_expectations) else {
        return Loaded { snapshot, problems };
    };
    let (suite, found) = Suite::of(name, text, &document, env);
    extend_with_causes(&mut problems, found);
    if let Some(snapshot) = &snapshot {
        let load = |text: &str| crate::snapshot::load(text, env);
        let configuration = Configuration::new(name, text, snapshot, &load).with_document(Some(&document));
        problems.extend(suite.problems(&suite.run(&configuration, &document, depth)));
    }
    let usable = !problems.any_errors();
    Loaded { snapshot: snapshot.filter(|_| usable), problems }
}
