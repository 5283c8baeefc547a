//! Counters and histograms for metrics, shared by threads. Updates neither wait nor allocate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

// === impl Counter, Histogram ===

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

impl Histogram {
    /// Adds a duration.
    pub(crate) fn observe(&self, duration: Duration) {
        self.buckets[BUCKETS.partition_point(|bucket| *bucket < duration)].add(1);
        let micros = duration.as_secs().saturating_mul(1_000_000);
        self.micros.add(micros.saturating_add(u64::from(duration.subsec_nanos()).div_ceil(1000)));
    }

    /// Reads the current state.
    pub fn read(&self) -> Distribution {
        let mut count = 0;
        let cumulative = std::array::from_fn(|bucket| {
            count += self.buckets[bucket].get();
            count
        });
        count += self.buckets[BUCKETS.len()].get();
        Distribution { cumulative, count, sum: Duration::from_micros(self.micros.get()).as_secs_f64() }
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
}
