//! Numbers that several threads add to: counters, and histograms of durations.
//!
//! Adding neither waits nor allocates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Up to where the buckets of a [`Histogram`] reach, and the first of them for what the gateway answers by itself.
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

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many took as long as each bucket, and not as long as the one before; the last one has no end.
    buckets: [Counter; BUCKETS.len() + 1],
    /// In all. In nanoseconds it could come to its end within weeks.
    micros: Counter,
}

/// What is read of a [`Histogram`].
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// How many took at most as long as each of [`BUCKETS`].
    pub(crate) cumulative: [u64; BUCKETS.len()],
    /// How many there were.
    pub count: u64,
    /// How long all of them took, in seconds.
    pub(crate) sum: f64,
}

// === impl Counter, Histogram ===

impl Counter {
    /// It grows by this much.
    pub(crate) fn add(&self, more: u64) {
        // What another thread has just written is slow to get at, and not needed to add nothing.
        if more != 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// As far as it has grown.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// Something took this long.
    pub(crate) fn observe(&self, took: Duration) {
        self.buckets[BUCKETS.partition_point(|bucket| *bucket < took)].add(1);
        let micros = took.as_secs().saturating_mul(1_000_000);
        self.micros.add(micros.saturating_add(u64::from(took.subsec_nanos()).div_ceil(1000)));
    }

    /// What was observed so far.
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
