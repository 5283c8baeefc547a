//! A table with the buckets of many keys. Its memory has a limit.
//!
//! The state of a bucket is one number: the time at which the bucket is full again. A full bucket needs no state, so
//! another key can use its place at once, and no cleanup is needed.
//!
//! The table has parts, and each part has a lock. A part has sets of eight places. The hash of a key selects two sets,
//! and the key is in one of them. If all places of both sets are taken, the part doubles the number of its sets. So a
//! check looks at no more than sixteen places, whatever clients send. The table is exact until both sets of a new
//! key have no free place. With random keys that happens from about 700,000 buckets on that are not full.
//!
//! Then a new key takes the place of the key whose bucket will be full first. The replaced key gets a full bucket when it
//! comes back. So an attacker with many keys cannot cause the refusal of a request with another key. A key above its
//! limit is usually kept, because the buckets of the attacker's keys will be full earlier than its bucket.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use crate::behavior::rate_limit::{Bucket, BucketOutcome};

/// Number of parts of a table, each with a lock. Two threads rarely need the same lock.
const PARTS: usize = 64;
/// Maximum number of sets of a part. A table with this number of sets has a million places in 16 MiB.
const MAX_SETS: usize = 2048;
/// Number of places of a set.
const PLACES: usize = 8;

/// The buckets of the keys of one limit.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Empty until the first check, because a configuration may have thousands of limits, of which only a few are used.
    parts: OnceLock<Box<[CachePadded<Mutex<Part>>]>>,
    /// The seed of the hasher is secret, so that clients cannot find keys that have the same sets as another key.
    hasher: RandomState,
}

/// The sets of a part. Their number is 0 at first, and later a power of two.
#[derive(Debug, Default)]
struct Part(Vec<Set>);

/// A set of places in two cache lines. A check reads all of the first line, and one number of the second line.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Set {
    /// Hashes of the keys. Among a million keys, the probability that two keys have the same hash is 1 in 40 million.
    hashes: [u64; PLACES],
    /// Time at which the bucket of each key is full again. A place is free if its time has passed.
    full_at: [u64; PLACES],
}

// === impl Table ===

impl Table {
    /// Takes one token from the bucket of the key, if there is one. `now` is the number of nanoseconds since a fixed
    /// time.
    pub(super) fn check(&self, bucket: &Bucket, key: &impl Hash, now: u64) -> BucketOutcome {
        self.check_hash(bucket, self.hasher.hash_one(key), now)
    }

    fn check_hash(&self, bucket: &Bucket, hash: u64, now: u64) -> BucketOutcome {
        let parts = self.parts.get_or_init(|| (0..PARTS).map(|_| CachePadded::default()).collect());
        let part = &parts[index(hash, PARTS)];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.check(part.full_at(hash, now), now)
    }

    /// Returns the size of the table in bytes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let parts = self.parts.get().map(|parts| &**parts).unwrap_or_default();
        let sets: usize = parts.iter().map(|part| part.lock().unwrap().0.capacity()).sum();
        sets * size_of::<Set>() + size_of_val(parts)
    }
}

// === impl Part ===

impl Part {
    /// Returns the time at which the bucket of a key is full again. A new key gets a full bucket.
    fn full_at(&mut self, hash: u64, now: u64) -> &mut u64 {
        let (set, place) = self.find(hash).unwrap_or_else(|| self.make_room(hash, now));
        &mut self.0[set].full_at[place]
    }

    fn find(&self, hash: u64) -> Option<(usize, usize)> {
        let find = |set: usize| Some((set, self.0[set].hashes.iter().position(|known| *known == hash)?));
        let [first, second] = sets_of(hash, self.0.len())?;
        find(first).or_else(|| find(second))
    }

    #[inline(never)]
    fn make_room(&mut self, hash: u64, now: u64) -> (usize, usize) {
        loop {
            if let Some([first, second]) = sets_of(hash, self.0.len()) {
                let (place, time) = self.0[first].earliest();
                let (other_place, other_time) = self.0[second].earliest();
                let is_full = time > now && other_time > now;
                if !is_full || self.0.len() >= MAX_SETS {
                    // The set with more free places, so that all sets fill evenly.
                    let first_is_better = match is_full {
                        true => time <= other_time,
                        false => self.0[first].free(now) >= self.0[second].free(now),
                    };
                    let (set, place) = if first_is_better { (first, place) } else { (second, other_place) };
                    self.0[set].hashes[place] = hash;
                    self.0[set].full_at[place] = 0;
                    return (set, place);
                }
            }
            self.grow();
        }
    }

    /// Doubles the number of sets. The keys of an old set go to two new sets, so there is room for all keys.
    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.0);
        self.0 = vec![Set::EMPTY; (old.len() * 2).max(1)];
        for (index, set) in old.iter().enumerate() {
            for (hash, full_at) in set.hashes.into_iter().zip(set.full_at).filter(|(_, full_at)| *full_at > 0) {
                let new = sets_of(hash, self.0.len());
                let new = new.and_then(|sets| sets.into_iter().find(|new| new % old.len() == index));
                let Some(new) = new.map(|new| &mut self.0[new]) else { continue };
                let (place, _) = new.earliest();
                new.hashes[place] = hash;
                new.full_at[place] = full_at;
            }
        }
    }
}

/// Returns the indices of the two sets of a hash, among `count` sets. Both may be the same set.
fn sets_of(hash: u64, count: usize) -> Option<[usize; 2]> {
    (count > 0).then(|| [index(hash >> 16, count), index(hash >> 40, count)])
}

/// Returns the lowest bits of a hash, as a number below `count`. `count` is a power of two.
fn index(hash: u64, count: usize) -> usize {
    usize::try_from(hash & (count as u64 - 1)).unwrap_or_default()
}

// === impl Set ===

impl Set {
    const EMPTY: Set = Set { hashes: [0; PLACES], full_at: [0; PLACES] };

    /// Returns the number of free places.
    fn free(&self, now: u64) -> usize {
        self.full_at.iter().filter(|time| **time <= now).count()
    }

    /// Returns the place whose bucket is full first, and the time at which this bucket is full.
    fn earliest(&self) -> (usize, u64) {
        let times = self.full_at.iter().copied().enumerate();
        times.min_by_key(|(_, time)| *time).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// Size of a full table: 16 MiB of places, and the locks.
    const BOUND: usize = (16 << 20) + PARTS * 128;

    fn is_allowed(checked: BucketOutcome) -> bool {
        matches!(checked, BucketOutcome::Allowed { .. })
    }

    /// Sends requests with three groups of keys. Each millisecond, `rate` of the `hostile` keys send a request. Each of
    /// 100 keys above the limit sends ten requests per second. Each of 100 keys below the limit sends one request in 12
    /// s. The first result is the number of allowed requests of the keys above the limit, relative to the number that
    /// buckets outside of the table allow. The second result is the number of refused requests of the keys below the
    /// limit.
    fn attack(table: &Table, hash: impl Fn(u64) -> u64, hostile: u64, rate: u64, seconds: u64) -> (f64, usize) {
        let bucket = Bucket::new(6 * SECOND, 10);
        let (mut heavy, mut right, mut refused) = (0_u32, 0_u32, 0);
        let mut states = [0; 100];
        for tick in 0..seconds * 1000 {
            let now = 1_000 * SECOND + tick * SECOND / 1000;
            for key in tick * rate..(tick + 1) * rate {
                table.check_hash(&bucket, hash(1000 + key % hostile), now);
            }
            let key = tick % 100;
            heavy += u32::from(is_allowed(table.check_hash(&bucket, hash(key), now)));
            right += u32::from(is_allowed(bucket.check(&mut states[key as usize], now)));
            if tick % 120 == 0 {
                refused += usize::from(!is_allowed(table.check_hash(&bucket, hash(500 + tick / 120 % 100), now)));
            }
        }
        (f64::from(heavy) / f64::from(right), refused)
    }

    #[test]
    fn a_million_busy_keys_change_nothing_for_other_keys_and_take_16_mib() {
        let table = Table::default();
        // Each hostile key sends a request every 5 s, and its bucket is not full for 6 s.
        let (heavy, refused) = attack(&table, |key| table.hasher.hash_one(key), 1_000_000, 200, 8);
        assert_eq!(refused, 0, "no key below its limit is refused");
        assert!((heavy - 1.0).abs() < 0.02, "{heavy}");
        let bytes = table.bytes();
        assert!(bytes <= BOUND, "{bytes}");
    }

    #[test]
    fn seven_hundred_thousand_busy_keys_are_all_remembered() {
        // The keys of one part, with a constant seed instead of the table's own.
        for seed in 0..8 {
            let (mut part, mut random) = (Part::default(), fastrand::Rng::with_seed(seed));
            let hashes: Vec<u64> = std::iter::repeat_with(|| random.u64(1..)).take(700_000 / PARTS).collect();
            for hash in &hashes {
                *part.full_at(*hash, SECOND) = 2 * SECOND;
            }
            let lost = hashes.iter().filter(|hash| *part.full_at(**hash, SECOND) != 2 * SECOND).count();
            assert_eq!((lost, part.0.len()), (0, MAX_SETS), "seed {seed}");
        }
    }

    #[test]
    fn more_keys_than_places_free_no_key_that_is_over_its_limit() {
        let table = Table::default();
        // Uses only hashes of one part with 16,384 places, so that the test is short. No hostile key comes twice. In a
        // table without a limit, the buckets of 60,000 hostile keys would not be full.
        let hash = |key: u64| table.hasher.hash_one(key) & !(PARTS as u64 - 1);
        let (heavy, refused) = attack(&table, hash, u64::MAX / 2, 10, 120);
        assert_eq!(refused, 0, "no key below its limit is refused");
        assert!((heavy - 1.0).abs() < 0.02, "{heavy}");
        assert!(table.bytes() <= BOUND);
    }

    /// Clients cannot find keys with such hashes, because they do not know the seed. Even with such keys, the limit of
    /// the memory holds.
    #[test]
    fn keys_that_share_their_sets_have_sixteen_places() {
        let (table, bucket) = (Table::default(), Bucket::new(SECOND, 2));
        let hash = |key: u64| key << 52 | 1 << 40;
        for key in 0..16 {
            assert!(is_allowed(table.check_hash(&bucket, hash(key), SECOND)));
        }
        assert!(
            is_allowed(table.check_hash(&bucket, hash(0), SECOND))
                && !is_allowed(table.check_hash(&bucket, hash(0), SECOND))
        );
        // Key 0 has no token left, and all other keys have one. Each new key replaces a key with one token.
        for key in 16..4096 {
            assert!(is_allowed(table.check_hash(&bucket, hash(key), SECOND)));
        }
        assert!(!is_allowed(table.check_hash(&bucket, hash(0), SECOND)), "the key with no token left is not replaced");
        assert_eq!(table.bytes(), BOUND - (PARTS - 1) * MAX_SETS * size_of::<Set>());
    }

    #[test]
    fn a_full_bucket_takes_no_place() {
        let (table, bucket) = (Table::default(), Bucket::new(SECOND, 10));
        assert_eq!(table.bytes(), 0);
        for key in 0..100_000_u64 {
            // The buckets of 10 keys are not full at a time.
            table.check(&bucket, &key, key * SECOND / 10);
        }
        let bytes = table.bytes();
        assert!(bytes < 64 << 10, "{bytes}");
    }

    proptest! {
        /// Compares the table with a model that has the number of tokens of each key in a map.
        #[test]
        fn a_table_agrees_with_a_map(
            keys in 1..5_000_u64,
            burst in 1..4_u64,
            steps in prop::collection::vec((any::<u64>(), 0..1_000_000_u64), 1..5_000),
        ) {
            let (table, bucket) = (Table::default(), Bucket::new(SECOND, burst));
            let mut map: HashMap<u64, (u64, u64)> = HashMap::new();
            let mut now = SECOND;
            for (key, step) in steps {
                let key = key % keys;
                now += step;
                let (tokens, last) = map.entry(key).or_insert((burst * SECOND, now));
                *tokens = (*tokens + now - *last).min(burst * SECOND);
                *last = now;
                let expected = *tokens >= SECOND;
                if expected {
                    *tokens -= SECOND;
                }
                let checked = table.check(&bucket, &key, now);
                prop_assert_eq!(is_allowed(checked), expected);
                if let BucketOutcome::Allowed { left, .. } = checked {
                    prop_assert_eq!(left, *tokens / SECOND);
                }
            }
        }
    }
}
