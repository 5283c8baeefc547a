//! The running state of rate limits: the buckets of [`crate::behavior::rate_limit`].
//!
//! The code does not use a library. Two libraries were measured on an AMD EPYC with two cores, for ten seconds, with a
//! million hostile keys, 100 keys above a limit of 10/s, and 100 keys below the limit:
//!
//! - `pingora-limits` 0.9.1 counts in a sketch of fixed size. With its default of 1024 columns, it refused 99.8 % of
//!   the requests of keys below the limit. With 2^20 columns, it takes 64 MiB from the start, a check takes 180 ns, and
//!   the first request of each interval clears half of the sketch. It has no burst and no time for `Retry-After`, and
//!   it allows twice the rate around the border of two intervals. In the first second of a `Rate`, threads that begin
//!   an interval at the same time panic, because `assert!(new >= now - 1000)` subtracts below 0.
//! - `governor` 0.10.4 is exact, and a check takes 120 ns. But the size of its map has no limit: the map grows with
//!   each new key, and takes 40 MiB for a million keys. The application must call `retain_recent`, which looks at every
//!   key. A table of our own behind the trait `StateStore` could have a limit, but then only ten lines of `governor`
//!   would be used.
//!
//! So the [`table`] is our own. It takes at most 16 MiB, and a check takes 65 ns. Up to some 700,000 keys
//! that are not full, it is as exact as `governor`.

mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use http::HeaderMap;

use self::table::Table;
use crate::behavior::rate_limit::{Bucket, BucketOutcome, BudgetKind, RateCheck, RateKey, RateLimit};
use crate::domain::ClientKey;

/// A limit with its buckets.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: Arc<RateLimit>,
    /// The only bucket of `key: route`.
    whole: CachePadded<AtomicU64>,
    /// Buckets of requests, for the other kinds of keys.
    requests: Table,
    preflights: Table,
    started: Instant,
}

impl RateLimiter {
    /// Creates a limiter with full buckets.
    pub(crate) fn new(limit: Arc<RateLimit>) -> Self {
        RateLimiter {
            limit,
            whole: CachePadded::default(),
            requests: Table::default(),
            preflights: Table::default(),
            started: Instant::now(),
        }
    }

    /// Returns the limit. After a reload, the snapshot may have another `RateLimit` with equal settings.
    pub(crate) fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// Checks a request against the budget of its key. Returns None for a preflight if preflights have no limit.
    pub(crate) fn check(
        &self,
        budget: BudgetKind,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Option<RateCheck> {
        let bucket = self.limit.bucket(budget)?;
        let key = self.limit.key(budget, headers, client.map(ClientKey::of));
        let now = nanoseconds(now.saturating_duration_since(self.started));
        let outcome = match (key, budget) {
            (RateKey::Route, _) => check_atomic(bucket, &self.whole, now),
            (_, BudgetKind::Requests) => self.requests.check(bucket, &key, now),
            (_, BudgetKind::Preflights) => self.preflights.check(bucket, &key, now),
        };
        Some(RateCheck { budget, outcome })
    }
}

/// A limit of events for each client.
#[derive(Debug)]
pub(crate) struct ClientLimiter {
    bucket: Bucket,
    clients: Table,
    started: Instant,
}

impl ClientLimiter {
    /// Each client has `burst` events at once, and one more after each interval.
    pub(crate) fn new(interval: Duration, burst: u64) -> Self {
        let bucket = Bucket::new(nanoseconds(interval), burst);
        ClientLimiter { bucket, clients: Table::default(), started: Instant::now() }
    }

    /// Counts an event of a client. If the client is above the limit, returns the time after which it is not.
    pub(crate) fn take(&self, client: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let now = nanoseconds(now.saturating_duration_since(self.started));
        match self.clients.check(&self.bucket, &client.map(ClientKey::of), now) {
            BucketOutcome::Allowed { .. } => None,
            BucketOutcome::Refused { wait } => Some(Duration::from_nanos(wait)),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Does the same as [`Bucket::check`], for a state that all threads share.
fn check_atomic(bucket: &Bucket, state: &AtomicU64, now: u64) -> BucketOutcome {
    let mut outcome = BucketOutcome::Refused { wait: 0 };
    let check = |full_at: u64| {
        let mut next = full_at;
        outcome = bucket.check(&mut next, now);
        // A refused request does not change the state.
        (next != full_at).then_some(next)
    };
    let _ = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, check);
    outcome
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

    /// Otherwise a client could send the address of another client in the header, and use up the budget of that client.
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
