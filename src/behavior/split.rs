//! `split`: shares the requests of a route between upstreams, by weight.
//!
//! Without a key, the upstream of each request is random. With a key, rendezvous hashing ([`crate::hash`]) computes the
//! upstream from the key. So all replicas choose the same upstream, and a change of weights moves only as many keys as
//! the new shares require.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hash;
use crate::notation::{forms, given};
use crate::problem::{At, ProblemKind, Problems};

/// Shares the requests between upstreams by weight, for example to send a few requests to a new version first. A
/// request stays at its upstream: retries use other nodes of the same upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Split", extend("required" = ["upstreams"]))]
pub(crate) struct SplitSettings {
    /// The upstreams and their weights. At least one weight must be above 0.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) upstreams: Option<Vec<ShareSettings>>,
    /// Sends requests with the same value to the same upstream. The value is `header:NAME`, `cookie:NAME`,
    /// `client_address` or `path`. If the weights change, only as many values move to another upstream as the new
    /// weights require. Without this key, or if the request does not have the header or cookie, the upstream is random.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::HashKey")]
    pub(crate) sticky: Option<String>,
}

/// An upstream and its share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(crate) struct ShareSettings {
    /// The name of an upstream of `upstreams`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Name")]
    pub(crate) upstream: Option<String>,
    /// Share of the requests, relative to the weights of the other upstreams. 0 means no requests.
    #[schemars(range(max = 1000))]
    pub(crate) weight: u32,
}

impl Default for ShareSettings {
    fn default() -> Self {
        ShareSettings { upstream: None, weight: 1 }
    }
}

/// The compiled form of `split`. `T` identifies an upstream, for example by its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split<T> {
    /// In the order of the configuration.
    shares: Vec<Share<T>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Share<T> {
    upstream: T,
    weight: u32,
    /// Seed of the upstream's scores in rendezvous hashing. The seed depends only on the name of the upstream, so all
    /// replicas have the same seed.
    seed: u64,
}

impl<T: Copy> Split<T> {
    /// Compiles the settings. `find` returns the upstream with a name, and adds a problem if no upstream has the name.
    /// The result is None if no upstream has a weight above 0.
    pub(crate) fn compile(
        settings: &SplitSettings,
        at: &At<'_>,
        problems: &mut Problems,
        mut find: impl FnMut(&str, &At<'_>, &mut Problems) -> Option<T>,
    ) -> Option<Self> {
        let at = at.key("upstreams");
        let entries = match settings.upstreams.as_deref() {
            None => {
                let example = "upstreams: [{ upstream: stable, weight: 95 }, { upstream: canary, weight: 5 }]";
                problems.add(&at, ProblemKind::Missing { example });
                return None;
            }
            Some([]) => {
                problems.add(&at, ProblemKind::EmptyList { required: true });
                return None;
            }
            Some(entries) => entries,
        };
        let mut shares = Vec::with_capacity(entries.len());
        for (i, ShareSettings { upstream, weight }) in entries.iter().enumerate() {
            let at = at.index(i);
            if *weight > 1000 {
                let (value, range) = (weight.to_string(), "0 to 1000".to_owned());
                let write = "a weight such as `10`".to_owned();
                problems.add(&at.key("weight"), ProblemKind::OutOfRange { value, range, write });
            }
            let at = at.key("upstream");
            let Some(name) = upstream else {
                problems.add(&at, ProblemKind::Missing { example: "upstream: canary" });
                continue;
            };
            if entries[..i].iter().any(|other| other.upstream.as_ref() == Some(name)) {
                problems.add(&at, ProblemKind::NameTwice { what: "upstream", name: name.clone() });
            }
            if let Some(upstream) = find(name, &at, problems) {
                shares.push(Share { upstream, weight: *weight, seed: hash::key(name.as_bytes()) });
            }
        }
        if entries.iter().all(|entry| entry.weight == 0) {
            problems.add(&at, ProblemKind::AllWeightsZero { what: "upstream" });
        }
        let chosen = shares.iter().any(|share| share.weight > 0);
        chosen.then_some(Split { shares })
    }

    /// Chooses the upstream of a request. `key` is the hash key of a sticky request. `random` has 64 random bits.
    pub(crate) fn choose(&self, key: Option<u64>, random: u64) -> T {
        let weighted = self.shares.iter().filter(|share| share.weight > 0);
        let chosen = match key {
            Some(key) => {
                let scores = weighted.map(|share| (hash::score(key, share.seed, share.weight), share));
                scores.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, share)| share)
            }
            None => {
                let sum: u64 = self.shares.iter().map(|share| u64::from(share.weight)).sum();
                // The upper half of the product is a random number below the sum.
                let mut draw = u64::try_from((u128::from(random) * u128::from(sum)) >> 64).unwrap_or(0);
                weighted.into_iter().find(|share| match draw.checked_sub(u64::from(share.weight)) {
                    Some(rest) => {
                        draw = rest;
                        false
                    }
                    None => true,
                })
            }
        };
        // The fallback is never used, because a split has at least one weight above 0.
        chosen.unwrap_or(&self.shares[0]).upstream
    }

    /// Returns the upstreams with their weights, in the order of the configuration.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (T, u32)> + Clone {
        self.shares.iter().map(|share| (share.upstream, share.weight))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const REQUESTS: u64 = 100_000;

    fn split(weights: &[(&str, u32)]) -> Split<usize> {
        let entry =
            |(name, weight): &(&str, u32)| ShareSettings { upstream: Some((*name).to_owned()), weight: *weight };
        let settings = SplitSettings { upstreams: Some(weights.iter().map(entry).collect()), sticky: None };
        let mut problems = Problems::default();
        let mut next = 0..;
        let split = Split::compile(&settings, &At::root(), &mut problems, |_, _, _| next.next());
        assert!(problems.is_empty(), "{problems:?}");
        split.unwrap()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..REQUESTS).map(|i| hash::key(format!("session-{i}").as_bytes()))
    }

    /// Returns the share of each upstream in percent.
    fn shares(chosen: impl Iterator<Item = usize>) -> HashMap<usize, f64> {
        let mut shares = HashMap::new();
        #[allow(clippy::cast_precision_loss)]
        chosen.for_each(|upstream| *shares.entry(upstream).or_default() += 100.0 / REQUESTS as f64);
        shares
    }

    #[test]
    fn shares_follow_the_weights_with_and_without_a_key() {
        for weights in [&[1][..], &[95, 5], &[1, 1, 2], &[0, 1], &[1000, 1], &[3, 0, 7]] {
            let names: Vec<String> = (0..weights.len()).map(|i| format!("upstream-{i}")).collect();
            let named: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
            let split = split(&named);
            let sum: u32 = weights.iter().sum();
            let mut random = fastrand::Rng::with_seed(7);
            let by_chance = shares((0..REQUESTS).map(|_| split.choose(None, random.u64(..))));
            let by_key = shares(keys().map(|key| split.choose(Some(key), 0)));
            for (upstream, weight) in weights.iter().enumerate() {
                let share = f64::from(*weight) * 100.0 / f64::from(sum);
                for (how, seen) in [("by chance", &by_chance), ("by key", &by_key)] {
                    let seen = seen.get(&upstream).copied().unwrap_or(0.0);
                    assert!((seen - share).abs() < 0.6, "{how}, {weights:?}: {seen} instead of {share}");
                    assert!(*weight > 0 || seen == 0.0);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_the_first_and_the_last_share() {
        let split = split(&[("none", 0), ("a", 1), ("b", 1), ("zero", 0)]);
        assert_eq!(
            [0, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX].map(|random| split.choose(None, random)),
            [1, 1, 2, 2]
        );
    }

    /// If a share grows from 5 % to 10 %, one key of twenty moves, and only to the upstream whose share grows.
    #[test]
    fn a_change_of_weights_moves_only_as_many_keys_as_it_must() {
        let steps: Vec<Split<usize>> =
            [(95, 5), (90, 10), (50, 50), (0, 100)].map(|(a, b)| split(&[("stable", a), ("canary", b)])).into();
        for pair in steps.windows(2) {
            let (mut moved, mut back) = (0_u64, 0);
            for key in keys() {
                let (before, after) = (pair[0].choose(Some(key), 0), pair[1].choose(Some(key), 0));
                moved += u64::from(before != after);
                back += u64::from(before > after);
            }
            assert_eq!(back, 0, "no key moves to the upstream whose share shrinks");
            let grown = |split: &Split<usize>| split.shares().nth(1).map_or(0, |(_, weight)| u64::from(weight));
            let must = (grown(&pair[1]) - grown(&pair[0])) * REQUESTS / 100;
            assert!(moved.abs_diff(must) < REQUESTS / 150, "{moved} keys instead of {must}");
        }
        // The order of the upstreams in the file does not matter.
        let (one, other) = (split(&[("stable", 9), ("canary", 1)]), split(&[("canary", 1), ("stable", 9)]));
        assert!(keys().all(|key| one.choose(Some(key), 0) == 1 - other.choose(Some(key), 0)));
    }
}
