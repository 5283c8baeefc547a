//! Counters and histograms for metrics. Updates neither wait nor allocate.
//!
//! Each counter is one atomic value. Counters that every request changes are in a [`PerThread`], and readers sum the
//! values of all threads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::per_thread::PerThread;

/// Upper bounds of the buckets of a [`Histogram`]. The first ones are for responses of the gateway itself.
pub(crate) const BUCKETS: [Duration; 17] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// Begins and ends of requests; the difference is running.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// Number of requests that are running, or of connections that are open.
#[derive(Debug, Default)]
pub(crate) struct Running(PerThread<Ends>);

/// Distribution of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations in each bucket, not cumulative. The last bucket has no upper bound.
    buckets: [Counter; BUCKETS.len() + 1],
    /// Sum in microseconds. A sum in nanoseconds could overflow within weeks.
    micros: Counter,
}

/// State of a [`Histogram`] at one point in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Observations up to each bound of [`BUCKETS`].
    pub(crate) cumulative: [u64; BUCKETS.len()],
    /// Number of observations.
    pub count: u64,
    /// Sum of all observations, in seconds.
    pub(crate) sum: f64,
}

// === impl Counter, Ends, Running, Histogram ===

impl Counter {
    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        // Adding 0 would still move the cache line from another thread.
        if n != 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ends {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        // A reader that sees the end also sees the beginning, which another thread may have counted.
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Number of running requests, of all threads. It is never too low: it includes each request that runs during
    /// the whole call.
    pub(crate) fn running<'a, I: Iterator<Item = &'a Ends>>(all: impl Fn() -> I) -> usize {
        // Reads the ends first. So if the end of a request is counted, its beginning is counted too.
        let ended = all().fold(0, |sum: usize, ends| sum.wrapping_add(ends.ended.load(Ordering::Acquire)));
        let begun = all().fold(0, |sum: usize, ends| sum.wrapping_add(ends.begun.load(Ordering::Relaxed)));
        begun.wrapping_sub(ended)
    }
}

impl Running {
    pub(crate) fn count(&self) -> usize {
        Ends::running(|| self.0.all())
    }

    /// Number of all that have begun.
    pub(crate) fn begun(&self) -> usize {
        self.0.all().fold(0, |sum: usize, ends| sum.wrapping_add(ends.begun.load(Ordering::Relaxed)))
    }

    pub(crate) fn begin(&self) {
        self.0.mine().begin();
    }

    pub(crate) fn end(&self) {
        self.0.mine().end();
    }
}

impl Histogram {
    /// Adds a duration.
    pub(crate) fn observe(&self, duration: Duration) {
        self.buckets[BUCKETS.partition_point(|bucket| *bucket < duration)].add(1);
        let micros = duration.as_secs().saturating_mul(1_000_000);
        self.micros.add(micros.saturating_add(u64::from(duration.subsec_nanos()).div_ceil(1000)));
    }

    /// Reads the current state.
    #[cfg(test)]
    fn read(&self) -> Distribution {
        Self::read_all(|| std::iter::once(self))
    }

    /// Reads the current state of one distribution that several threads count.
    pub(crate) fn read_all<'a, I: Iterator<Item = &'a Histogram>>(all: impl Fn() -> I) -> Distribution {
        let mut count = 0;
        let in_bucket = |bucket: usize| all().map(|histogram| histogram.buckets[bucket].get()).sum::<u64>();
        let cumulative = std::array::from_fn(|bucket| {
            count += in_bucket(bucket);
            count
        });
        count += in_bucket(BUCKETS.len());
        let micros = all().map(|histogram| histogram.micros.get()).sum();
        Distribution { cumulative, count, sum: Duration::from_micros(micros).as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_reaches_it() {
        for (took, bucket) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(100), 0),
            (Duration::from_nanos(100_001), 1),
            (Duration::from_millis(1), 2),
            (Duration::from_secs(60), BUCKETS.len() - 1),
            (Duration::from_secs(61), BUCKETS.len()),
            (Duration::MAX, BUCKETS.len()),
        ] {
            let histogram = Histogram::default();
            histogram.observe(took);
            let read = histogram.read();
            let first = read.cumulative.iter().position(|count| *count == 1).unwrap_or(BUCKETS.len());
            assert_eq!((first, read.count), (bucket, 1), "{took:?}");
        }
        let histogram = Histogram::default();
        [1, 20, 300, 4000].iter().for_each(|millis| histogram.observe(Duration::from_millis(*millis)));
        let read = histogram.read();
        assert!((read.sum - 4.321).abs() < 1e-9, "{read:?}");
        assert!(BUCKETS.is_sorted() && read.cumulative.is_sorted());
    }

    /// A request may end on another thread than it began on, and the count grows while it is read.
    #[test]
    fn a_running_request_is_always_counted() {
        let running = Running::default();
        running.begin();
        std::thread::scope(|scope| {
            let (to, from) = std::sync::mpsc::channel();
            let running = &running;
            scope.spawn(move || {
                for _ in 0..100_000 {
                    running.begin();
                    to.send(()).unwrap();
                }
            });
            let ends = scope.spawn(move || from.iter().for_each(|()| running.end()));
            while !ends.is_finished() {
                assert!((1..=100_001).contains(&running.count()));
            }
        });
        assert_eq!(running.count(), 1);
        running.end();
        assert_eq!(running.count(), 0);
    }
}
