//! Counts requests of pages by policy and origin, in bounded memory.
//!
//! Clients choose origins, methods and header names, so the number of different values has no bound. A [`Frequent`]
//! table has a fixed number of keys. If a new key does not fit, the table subtracts the median of all weights from each
//! weight, and removes the keys whose weight is then 0 (Misra and Gries, 1982, with the median instead of 1). So rare
//! keys remove each other, and a frequent key stays. `missed` is the upper bound of the error of each count.

use std::borrow::Cow;
use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

use super::{Observed, RefusedOrigin, SeenOrigin};
use crate::cors::Reason;

/// Maximum number of origins in the table of allowed requests, for all policies together. The table of refused requests
/// has the same maximum.
pub(crate) const MAX_ORIGINS: usize = 1024;
/// Maximum number of methods of one origin.
const MAX_METHODS: usize = 8;
/// Maximum number of requested header names of one origin. Real pages use fewer than 20.
const MAX_HEADERS: usize = 24;
/// Maximum length of a method or header name, in bytes.
const MAX_NAME: usize = 64;

/// Counts of one thread, or of one access log.
#[derive(Debug)]
pub(crate) struct Tally {
    seen: Frequent<PolicyOrigin, Seen>,
    refused: Frequent<PolicyOrigin, [u64; Reason::ALL.len()]>,
    same_origin: u64,
    invalid_origins: u64,
    long_names: u64,
}

/// A request with an Origin on a route with a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting<'a> {
    /// Position of the policy in force.
    pub(crate) policy: u32,
    /// None if the Origin has a form that no policy looks up.
    pub(crate) origin: Option<&'a str>,
    pub(crate) asked: Asked<'a>,
    /// Reason of the decision of the policy in force. It is [`Reason::SameOrigin`] if the Origin is the origin of the
    /// request's own URL, even if the policy allows any origin.
    pub(crate) reason: Reason,
    pub(crate) cookies: bool,
    pub(crate) authorization: bool,
    /// False for navigations and other requests that browsers send without permission.
    pub(crate) needs_permission: bool,
}

/// The kind of a request, with its method.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// A preflight that requests this method. None if it requests no method, or if the method is not known.
    Preflight(Option<&'a str>),
    /// An actual request with this method. None if the method is not known.
    Actual(Option<&'a str>),
}

/// Position of a policy, and an origin.
type PolicyOrigin = (u32, Box<str>);

/// A borrowed [`PolicyOrigin`] for lookups.
#[derive(Hash)]
struct BorrowedKey<'a>(u32, &'a str);

/// Allowed requests of one origin.
#[derive(Debug)]
struct Seen {
    requests: u64,
    preflights: u64,
    without_permission: u64,
    cookies: u64,
    authorization: u64,
    methods: Frequent<Box<str>, ()>,
    headers: Frequent<Box<str>, ()>,
}

/// A table of the most frequent keys. Each key has a count and a value.
#[derive(Debug)]
struct Frequent<K, V> {
    most: usize,
    entries: HashMap<K, Entry<V>>,
    /// Upper bound of the error of each count.
    missed: u64,
    /// Sum of the counts of removed keys.
    dropped: u64,
}

#[derive(Debug, Default)]
struct Entry<V> {
    /// The count minus all subtractions.
    weight: u64,
    /// Number of requests since the key was added.
    count: u64,
    value: V,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn new(origins: usize) -> Self {
        Tally {
            seen: Frequent::new(origins),
            refused: Frequent::new(origins),
            same_origin: 0,
            invalid_origins: 0,
            long_names: 0,
        }
    }

    /// Counts a request. `headers` has the header names that a preflight requests.
    pub(crate) fn count<'a>(&mut self, sighting: &Sighting<'_>, headers: impl Iterator<Item = &'a str>) {
        let Sighting { policy, origin, asked, reason, cookies, authorization, needs_permission } = *sighting;
        if matches!(reason, Reason::NoOrigin | Reason::NoPolicy) {
            return;
        }
        let Some(origin) = origin else {
            self.invalid_origins += 1;
            return;
        };
        if reason == Reason::SameOrigin {
            self.same_origin += 1;
            return;
        }
        let (key, own) = (BorrowedKey(policy, origin), || (policy, origin.into()));
        if reason.is_refusal() {
            return self.refused.count(&key, own, |reasons| reasons[reason.index()] += 1);
        }
        let long_names = &mut self.long_names;
        self.seen.count(&key, own, |seen| {
            let method = match asked {
                Asked::Preflight(method) => {
                    seen.preflights += 1;
                    method
                }
                Asked::Actual(method) => {
                    seen.requests += 1;
                    seen.without_permission += u64::from(!needs_permission);
                    method
                }
            };
            seen.cookies += u64::from(cookies);
            seen.authorization += u64::from(authorization);
            let mut count = |names: &mut Frequent<Box<str>, ()>, name: &str| match name.len() {
                0 => {}
                1..=MAX_NAME => names.count(name, || name.into(), |()| ()),
                _ => *long_names += 1,
            };
            method.into_iter().for_each(|method| count(&mut seen.methods, method));
            headers.for_each(|name| count(&mut seen.headers, &lower_case(name)));
        });
    }
}

/// Adds up the counts of several tallies.
pub(crate) fn sum(tallies: impl IntoIterator<Item = Tally>) -> Observed {
    let mut sum = Observed::default();
    let mut seen: HashMap<PolicyOrigin, SeenOrigin> = HashMap::new();
    let mut refused: HashMap<PolicyOrigin, RefusedOrigin> = HashMap::new();
    for tally in tallies {
        sum.same_origin += tally.same_origin;
        sum.invalid_origins += tally.invalid_origins;
        sum.long_names += tally.long_names;
        sum.missed += tally.seen.missed;
        sum.dropped += tally.seen.dropped;
        sum.refused_dropped += tally.refused.dropped;
        for (key, Entry { value: one, .. }) in tally.seen.entries {
            let (policy, origin) = (key.0, key.1.to_string());
            let all = seen.entry(key).or_insert_with(|| SeenOrigin { policy, origin, ..SeenOrigin::default() });
            all.requests += one.requests;
            all.preflights += one.preflights;
            all.without_permission += one.without_permission;
            all.cookies += one.cookies;
            all.authorization += one.authorization;
            for (names, all) in [(one.methods, &mut all.methods), (one.headers, &mut all.headers)] {
                all.missed += names.missed;
                for (name, entry) in names.entries {
                    *all.counts.entry(name.into()).or_default() += entry.count;
                }
            }
        }
        for (key, Entry { value: one, .. }) in tally.refused.entries {
            let (policy, origin) = (key.0, key.1.to_string());
            let all =
                refused.entry(key).or_insert_with(|| RefusedOrigin { policy, origin, ..RefusedOrigin::default() });
            for (reason, count) in Reason::ALL.into_iter().zip(one).filter(|(_, count)| *count > 0) {
                *all.reasons.entry(reason.code().to_owned()).or_default() += count;
            }
        }
    }
    sum.seen.extend(seen.into_values());
    sum.seen.sort_by(|a, b| (a.policy, b.total(), &a.origin).cmp(&(b.policy, a.total(), &b.origin)));
    sum.refused.extend(refused.into_values());
    sum.refused.sort_by(|a, b| (a.policy, b.total(), &a.origin).cmp(&(b.policy, a.total(), &b.origin)));
    sum
}

/// Converts a header name to lower case. Browsers send lower case, so the result is nearly always borrowed.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

// === impl BorrowedKey, Seen, Frequent ===

impl Equivalent<PolicyOrigin> for BorrowedKey<'_> {
    fn equivalent(&self, (policy, origin): &PolicyOrigin) -> bool {
        self.0 == *policy && *self.1 == **origin
    }
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            requests: 0,
            preflights: 0,
            without_permission: 0,
            cookies: 0,
            authorization: 0,
            methods: Frequent::new(MAX_METHODS),
            headers: Frequent::new(MAX_HEADERS),
        }
    }
}

impl<K: Eq + Hash, V: Default> Frequent<K, V> {
    /// Creates a table for `most` keys. It allocates no memory before the first key.
    fn new(most: usize) -> Self {
        Frequent { most, entries: HashMap::new(), missed: 0, dropped: 0 }
    }

    fn count<Q: Hash + Equivalent<K> + ?Sized>(
        &mut self,
        key: &Q,
        own: impl FnOnce() -> K,
        change: impl FnOnce(&mut V),
    ) {
        if !self.entries.contains_key(key) {
            self.make_room();
            self.entries.insert(own(), Entry::default());
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.weight += 1;
            entry.count += 1;
            change(&mut entry.value);
        }
    }

    fn make_room(&mut self) {
        if self.entries.len() < self.most {
            return;
        }
        let mut weights: Vec<u64> = self.entries.values().map(|entry| entry.weight).collect();
        let middle = weights.len() / 2;
        let median = *weights.select_nth_unstable(middle).1;
        self.missed += median;
        let dropped = &mut self.dropped;
        self.entries.retain(|_, entry| {
            entry.weight = entry.weight.saturating_sub(median);
            *dropped += if entry.weight == 0 { entry.count } else { 0 };
            entry.weight > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GET: Sighting<'_> = Sighting {
        policy: 0,
        origin: Some("https://app.example"),
        asked: Asked::Actual(Some("GET")),
        reason: Reason::AllowedAny,
        cookies: false,
        authorization: false,
        needs_permission: true,
    };

    fn preflight<'a>(origin: &'a str, method: &'a str) -> Sighting<'a> {
        Sighting { origin: Some(origin), asked: Asked::Preflight(Some(method)), ..GET }
    }

    /// Returns the maximum memory of a tally, from the sizes of its parts. A hash table has at most 16/7 buckets for
    /// each key.
    fn largest(tally: &Tally) -> usize {
        fn table<K, V>(keys: usize, heap: usize) -> usize {
            keys * ((size_of::<(K, Entry<V>)>() + 1) * 16 / 7 + heap)
        }
        let name = |most| table::<Box<str>, ()>(most, MAX_NAME);
        let seen = crate::cors::MAX_ORIGIN + name(MAX_METHODS) + name(MAX_HEADERS);
        table::<PolicyOrigin, Seen>(tally.seen.most, seen)
            + table::<PolicyOrigin, [u64; Reason::ALL.len()]>(tally.refused.most, crate::cors::MAX_ORIGIN)
    }

    /// Counts random origins, methods and header names, and one frequent origin among them.
    #[test]
    fn a_flood_neither_grows_the_tables_nor_removes_a_frequent_origin() {
        const FLOOD: u64 = 1_000_000;
        let mut tally = Tally::new(MAX_ORIGINS);
        let mut random = fastrand::Rng::with_seed(7);
        let (mut app, mut refused_app) = (0, 0);
        for n in 0..FLOOD {
            let origin = format!("https://{:x}.test", random.u64(..));
            let method = format!("M{}", random.u16(..));
            let header = format!("X-{}", random.u32(..));
            // Half of the requests have the same origin.
            let origin = if n % 2 == 0 { &*origin } else { "https://spoofed.example" };
            let sighting = preflight(origin, &method);
            let reason = if n % 4 < 2 { Reason::AllowedAny } else { Reason::OriginNotAllowed };
            tally.count(&Sighting { reason, ..sighting }, [&*header, &"y".repeat(300)].into_iter());
            if n % 100 == 0 {
                app += 1;
                tally.count(&preflight("https://app.example", "PUT"), ["x-api-key"].into_iter());
                refused_app += 1;
                tally.count(&Sighting { reason: Reason::OriginNull, ..preflight("null", "GET") }, [].into_iter());
            }
        }
        assert!(tally.seen.entries.len() <= MAX_ORIGINS && tally.refused.entries.len() <= MAX_ORIGINS);
        for entry in tally.seen.entries.values() {
            let Seen { methods, headers, .. } = &entry.value;
            assert!(methods.entries.len() <= MAX_METHODS && headers.entries.len() <= MAX_HEADERS);
            assert!(methods.entries.keys().chain(headers.entries.keys()).all(|name| name.len() <= MAX_NAME));
        }
        assert!(largest(&tally) <= 6 << 20, "{} bytes", largest(&tally));
        // Each removal subtracts the median from at least half of the keys.
        let bound = 2 * FLOOD / MAX_ORIGINS as u64;
        assert!((1..=bound).contains(&tally.seen.missed), "{} of {bound}", tally.seen.missed);
        let observed = sum([tally]);
        let of = |origin: &str| observed.seen.iter().find(|seen| seen.origin == origin).unwrap();
        assert_eq!(of("https://app.example").preflights, app, "it was counted from the start");
        assert_eq!(of("https://app.example").headers.counts, BTreeMap::from([("x-api-key".to_owned(), app)]));
        assert_eq!(of("https://spoofed.example").preflights, FLOOD / 4);
        assert!(of("https://spoofed.example").headers.missed > 0);
        let refused = observed.refused.iter().find(|refused| refused.origin == "null").unwrap();
        assert_eq!(refused.reasons, BTreeMap::from([("origin_null".to_owned(), refused_app)]));
        let counted: u64 = observed.seen.iter().map(SeenOrigin::total).sum();
        assert_eq!(counted + observed.dropped, FLOOD / 2 + app, "what does not fit is counted");
        assert_eq!(observed.long_names, FLOOD / 2);
    }

    #[test]
    fn requests_that_need_no_policy_are_not_origins() {
        let mut tally = Tally::new(8);
        for sighting in [
            Sighting { reason: Reason::SameOrigin, ..GET },
            Sighting { origin: None, ..GET },
            Sighting { origin: None, reason: Reason::OriginInvalid, ..GET },
            Sighting { reason: Reason::NoOrigin, ..GET },
            Sighting { reason: Reason::NoPolicy, ..GET },
        ] {
            tally.count(&sighting, [].into_iter());
        }
        let observed = sum([tally]);
        assert_eq!((observed.same_origin, observed.invalid_origins), (1, 2));
        assert!(observed.seen.is_empty() && observed.refused.is_empty());
    }

    proptest! {
        /// Compares the table with a map that counts every key.
        #[test]
        fn counts_lack_at_most_what_was_missed(keys in vec(prop_oneof![0..4_u8, any::<u8>()], 0..600), most in 1..40_usize) {
            let mut all: BTreeMap<String, u64> = BTreeMap::new();
            let mut frequent: Frequent<Box<str>, ()> = Frequent::new(most);
            for key in keys.iter().map(u8::to_string) {
                frequent.count(&*key, || key.as_str().into(), |()| ());
                *all.entry(key).or_default() += 1;
            }
            prop_assert!(frequent.entries.len() <= most);
            for (key, count) in &all {
                let kept = frequent.entries.get(key.as_str()).map_or(0, |entry| entry.count);
                prop_assert!(kept <= *count && *count <= kept + frequent.missed, "{key}: {kept} of {count}");
            }
            let kept: u64 = frequent.entries.values().map(|entry| entry.count).sum();
            prop_assert_eq!(kept + frequent.dropped, keys.len() as u64);
            if all.len() <= most {
                prop_assert_eq!(frequent.missed, 0, "everything fits");
            }
        }

        /// Several tallies have the same sum as one tally with all requests.
        #[test]
        fn tallies_sum_up(requests in vec((0..3_u32, 0..5_u8, 0..4_u8, any::<bool>()), 0..200)) {
            let (mut one, mut several) = (Tally::new(64), [(); 3].map(|()| Tally::new(64)));
            for (i, (policy, origin, method, refused)) in requests.iter().enumerate() {
                let (origin, method) = (format!("https://{origin}.example"), format!("M{method}"));
                let reason = if *refused { Reason::MethodNotAllowed } else { Reason::AllowedExact };
                let sighting = Sighting { policy: *policy, reason, cookies: i % 3 == 0, ..preflight(&origin, &method) };
                one.count(&sighting, ["x-a"].into_iter());
                several[i % 3].count(&sighting, ["x-a"].into_iter());
            }
            prop_assert_eq!(sum([one]), sum(several));
        }
    }
}
