//! The running state of rate limits: the buckets of [`crate::behavior::rate_limit`].
//!
//! Why not a library? Measured on an AMD EPYC with two cores: in ten seconds, a million hostile keys, 100 keys above a
//! limit of 10/s, and 100 keys below it.
//!
//! - `pingora-limits` 0.9.1 counts in a sketch of fixed size. With its own 1024 columns, 99.8 % of the requests of keys below
//!   the limit were refused. With 2^20 columns it takes 64 MiB at once, a check takes 180 ns, and the request that begins
//!   an interval clears half of the sketch. There is no burst and no time for `Retry-After`, and twice the rate is
//!   allowed across the border of two intervals. In the first second of a `Rate`, threads that begin an interval at once
//!   panic, because `assert!(new >= now - 1000)` subtracts below 0.
//! - `governor` 0.10.4 is exact, and a check takes 120 ns. But its map has no bound: it grows with each new key, 40 MiB for a
//!   million. `retain_recent` must be called from outside, and looks at every key. Behind its trait `StateStore` a table
//!   of our own could have a bound, but then ten lines of `governor` would be left.
//!
//! So the [`table`] is our own. It is as exact, has a bound of 16 MiB, and a check takes 65 ns.

mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use http::HeaderMap;

use self::table::Table;
use crate::behavior::rate_limit::{Bucket, BucketOutcome, BudgetKind, RateCheck, RateKey, RateLimit};
use crate::domain::ClientKey;

/// A limit with its buckets.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: Arc<RateLimit>,
    /// For `key: route`: the only bucket.
    whole: CachePadded<AtomicU64>,
    /// For the other keys.
    requests: Table,
    preflights: Table,
    started: Instant,
}

impl RateLimiter {
    /// A limit whose buckets are full.
    pub(crate) fn new(limit: Arc<RateLimit>) -> Self {
        RateLimiter {
            limit,
            whole: CachePadded::default(),
            requests: Table::default(),
            preflights: Table::default(),
            started: Instant::now(),
        }
    }

    /// The limit. One with equal settings may be in force.
    pub(crate) fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// Takes a request from the budget of its key. None if preflights have no limit.
    pub(crate) fn check(
        &self,
        budget: BudgetKind,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Option<RateCheck> {
        let bucket = self.limit.bucket(budget)?;
        let key = self.limit.key(budget, headers, client.map(ClientKey::of));
        let now = u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        let outcome = match (key, budget) {
            (RateKey::Route, _) => check_atomic(bucket, &self.whole, now),
            (_, BudgetKind::Requests) => self.requests.check(bucket, &key, now),
            (_, BudgetKind::Preflights) => self.preflights.check(bucket, &key, now),
        };
        Some(RateCheck { budget, outcome })
    }
}

/// As [`Bucket::check`], for a state that all threads use.
fn check_atomic(bucket: &Bucket, state: &AtomicU64, now: u64) -> BucketOutcome {
    let mut full_at = state.load(Ordering::Relaxed);
    loop {
        let mut next = full_at;
        let outcome = bucket.check(&mut next, now);
        // A refused request writes nothing.
        if next == full_at {
            return outcome;
        }
        match state.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return outcome,
            Err(current) => full_at = current,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::problem::{At, Problems};

    fn limiter(settings: &str) -> RateLimiter {
        let settings = serde_json::from_str(settings).unwrap();
        let limit = RateLimit::compile(&settings, "api", &At::root(), &mut Problems::default());
        RateLimiter::new(Arc::new(limit.unwrap()))
    }

    fn allowed(check: Option<RateCheck>) -> bool {
        matches!(check.unwrap().outcome, BucketOutcome::Allowed { .. })
    }

    #[test]
    fn each_client_has_a_budget_and_preflights_have_their_own() {
        let limiter = limiter(r#"{"rate": "1/m", "burst": 2, "preflights": {"rate": "1/m", "burst": 3}}"#);
        let now = Instant::now();
        let check = |budget, client: &str| {
            allowed(limiter.check(budget, &HeaderMap::new(), Some(client.parse().unwrap()), now))
        };
        for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            assert_eq!([0; 4].map(|_| check(BudgetKind::Preflights, client)), [true, true, true, false], "{client}");
            assert_eq!([0; 3].map(|_| check(BudgetKind::Requests, client)), [true, true, false], "{client}");
        }
        for same in ["2001:db8::ffff:1", "::ffff:192.0.2.1"] {
            assert!(!check(BudgetKind::Requests, same), "{same}");
        }
        assert!(check(BudgetKind::Requests, "2001:db8:0:1::1"), "another /64");
        let unknown = || allowed(limiter.check(BudgetKind::Requests, &HeaderMap::new(), None, now));
        assert_eq!([unknown(), unknown(), unknown()], [true, true, false]);
    }

    #[test]
    fn preflights_without_a_limit_are_not_checked() {
        let limiter = limiter(r#"{"rate": "1/m", "key": "route"}"#);
        assert_eq!(limiter.check(BudgetKind::Preflights, &HeaderMap::new(), None, Instant::now()), None);
    }

    /// Otherwise a client could send the address of another one in the header, and use up the budget of that one.
    #[test]
    fn a_header_value_is_never_the_key_of_a_client() {
        let limiter = limiter(r#"{"rate": "1/m", "burst": 1, "key": "header:x-key"}"#);
        let (now, client) = (Instant::now(), Some("1.2.3.4".parse().unwrap()));
        for value in [&b"1.2.3.4"[..], &[1, 2, 3, 4], &[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]] {
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-key"), value)]);
            assert!(allowed(limiter.check(BudgetKind::Requests, &headers, client, now)));
            assert!(!allowed(limiter.check(BudgetKind::Requests, &headers, client, now)));
        }
        assert!(allowed(limiter.check(BudgetKind::Requests, &HeaderMap::new(), client, now)));
    }

    #[test]
    fn threads_take_exactly_the_budget() {
        for key in ["route", "client_ip"] {
            let limiter = limiter(&format!(r#"{{"rate": "1/h", "burst": 1000, "key": "{key}"}}"#));
            let now = Instant::now();
            let run =
                || (0..1000).filter(|_| allowed(limiter.check(BudgetKind::Requests, &HeaderMap::new(), None, now)));
            let all: usize = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| run().count())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(all, 1000, "{key}");
        }
    }

    #[test]
    fn a_time_before_the_start_counts_as_the_start() {
        let limiter = limiter(r#"{"rate": "1/s", "burst": 1}"#);
        let before = limiter.started.checked_sub(Duration::from_secs(1)).unwrap();
        let check = |now| allowed(limiter.check(BudgetKind::Requests, &HeaderMap::new(), None, now));
        assert!(check(before) && !check(before) && !check(limiter.started));
        assert!(check(limiter.started + Duration::from_secs(1)));
    }
}
