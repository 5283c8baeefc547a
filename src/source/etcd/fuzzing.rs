//! Any values in etcd, and any changes of them: what is accepted can be used. For the fuzz target `etcd`, which sees only
//! public items, and for a test with random changes.

use std::sync::Arc;

use super::accept::{Base, Known, accept};
use super::keys::{Key, Layout, State};
use super::{apisix, value};
use crate::config::Document;
use crate::problem::Problems;
use crate::snapshot::{CompileEnv, load};

/// Names of keys that are changed.
const PARTS: [&str; 12] = [
    "services/a",
    "services/b",
    "services/c",
    "cors_policies/p",
    "cors_policies/q",
    "upstreams/u",
    "upstreams/v",
    "origin_sets/s",
    "settings",
    "services/",
    "other",
    "instances/i",
];
const OBJECTS: [&str; 12] = [
    "routes/1",
    "routes/2",
    "routes/a.b",
    "services/1",
    "services/2",
    "upstreams/1",
    "plugin_configs/1",
    "global_rules/1",
    "plugin_metadata/cors",
    "routes/",
    "ssls/1",
    "other",
];
/// Ends a change. No UTF-8 text has this byte.
const END: u8 = 0xff;

/// Makes the changes one after the other, and accepts the state after each of them. The first byte is the layout. The
/// first byte of a change is its key, the rest the value; an empty value deletes the key.
///
/// # Panics
///
/// If a snapshot is not what its text says, a version is used that is neither the newest nor the last good one, or the
/// same state is accepted in another way when nothing has changed.
pub fn changes(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let (layout, names) = match first % 2 {
        0 => (Layout::Parts, PARTS),
        _ => (Layout::Apisix, OBJECTS),
    };
    let listeners = Document::parse("listeners: [{ address: '127.0.0.1:1' }]", &mut Problems::default());
    let base = Base::new(None, listeners.unwrap_or_default());
    let (mut state, mut known) = (State::empty(layout), Known::default());
    for (i, change) in (1..).zip(data.split(|byte| *byte == END).take(20)) {
        let Some((key, value)) = change.split_first() else { continue };
        let name = names[usize::from(*key) % names.len()].as_bytes();
        match value.is_empty() {
            true => drop(state.delete(name)),
            false => drop(state.put(name, i, value.to_vec())),
        }
        state.revision = i;
        known = accepted(&base, &state, known);
    }
}

/// Accepts a state, and returns what is known then.
fn accepted(base: &Base, state: &State, mut known: Known) -> Known {
    let attempt = |known: &Known| match state.layout() {
        Layout::Parts => accept(base, state, known, CompileEnv::NONE),
        Layout::Apisix => apisix::accept(base, state, known, CompileEnv::NONE),
    };
    let acceptance = attempt(&known);
    assert_eq!(acceptance.snapshot.is_some(), acceptance.whole.is_none(), "{:?}", acceptance.whole);
    known.read = acceptance.read;
    let Some(snapshot) = acceptance.snapshot else { return known };
    // Administrators read this text.
    let again = load(&acceptance.text, CompileEnv::NONE);
    let routes = again.snapshot.map(|snapshot| snapshot.routes().len());
    assert_eq!(routes, Some(snapshot.routes().len()), "{}\n{}", again.problems, acceptance.text);
    let is_newest = |key: &Key, version: &Arc<value::Version>| match state.layout() {
        Layout::Parts => state.keys.get(key).is_some_and(|raw| *raw == version.raw),
        Layout::Apisix => true,
    };
    for (key, version) in &acceptance.used {
        let is_last_good = known.good.get(key).is_some_and(|good| good.raw == version.raw);
        assert!(is_newest(key, version) || is_last_good, "{key}: {version:?}");
    }
    for (key, raw) in &acceptance.objects {
        let is_newest = state.objects.get(key).is_some_and(|newest| newest == raw);
        assert!(is_newest || known.objects.get(key).is_some_and(|good| good == raw), "{key}: {raw:?}");
    }
    (known.good, known.objects) = (acceptance.used, acceptance.objects);
    // Nothing has changed, so nothing changes.
    let same = attempt(&known);
    assert_eq!(same.text, acceptance.text);
    let keys = |refused: &[super::KeyRefusal]| refused.iter().map(|key| key.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&same.refused), keys(&acceptance.refused));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 20] = [
        "hosts: [a.test]\nrespond: { status: 200 }\ncors: p",
        "hosts: [a.test]\nupstream: u\ncors: q\nroutes: [{ paths: [/a] }]",
        "hosts: [b.test]\nupstream: v",
        "respond: { status: 204 }",
        r#"{"hosts":["*.c.test"],"respond":{"status":200},"cors":{"allow_origins":"s"}}"#,
        "allow_origins: https://a.test",
        "allow_origins: { set: s }\nallow_credentials: true",
        "allow_origins: '*'\nallow_credentials: true",
        "nodes: [{ address: '127.0.0.1:1' }]",
        "nodes: []",
        "[https://a.test, 'https://*.b.test']",
        "limits: { uri: 1KiB }",
        "listeners: []",
        "[",
        r#"{"uri":"/a","upstream_id":"1","plugins":{"cors":{"allow_origins":"https://a.test"}}}"#,
        r#"{"uri":"/*","service_id":"1","plugin_config_id":"1"}"#,
        r#"{"hosts":["a.test"],"upstream":{"nodes":{"127.0.0.1:1":1}},"plugins":{"key-auth":{}}}"#,
        r#"{"nodes":[{"host":"127.0.0.1","port":1,"weight":1}],"type":"roundrobin"}"#,
        r#"{"plugins":{"cors":{"allow_origins":"**","allow_credential":true}}}"#,
        r#"{"allow_origins":{"shop":"https://shop.example"}}"#,
    ];

    /// Random changes with values that are right somewhere.
    #[test]
    fn what_is_accepted_can_be_used() {
        let mut random = fastrand::Rng::with_seed(7);
        let rounds = std::env::var("ETCD_CHANGES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
        for round in 0..rounds {
            let mut data = vec![u8::from(round % 2 == 1)];
            for _ in 0..random.usize(1..12) {
                data.push(random.u8(..0xff));
                if random.u8(..4) > 0 {
                    data.extend(VALUES[random.usize(..VALUES.len())].as_bytes());
                }
                data.push(END);
            }
            changes(&data);
        }
    }

    /// The corpus of the fuzz target.
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/etcd");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 3);
        files.iter().for_each(|file| changes(&std::fs::read(file).unwrap()));
    }
}
