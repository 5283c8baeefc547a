//! The buckets of many keys in memory that has a bound.
//!
//! A bucket is one number: the time at which it is full again. A bucket that is full has no state, so its place is free
//! for another key at once, and nothing has to be cleaned up.
//!
//! The table is divided into parts with a lock each, and a part into sets of eight places. A key may be in two sets,
//! which its hash names. If all places of both are taken, the part doubles its sets. So a check looks at no more than
//! sixteen places, whatever clients send, and is exact as long as less than a million buckets are not full.
//!
//! With more, a new key takes the place of the key whose bucket is full first, and that key begins with a full bucket when
//! it comes back. So however many keys an attacker uses, no request of another key is refused because of them. And a key
//! that is over its limit is not forgotten, if it sends at least a millionth of all requests: it comes back before all
//! places have been taken once, and from then on the buckets of others are full earlier than its own.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use crate::behavior::rate_limit::{Bucket, BucketOutcome};

/// Locks of a table. Two threads rarely want the same one.
const PARTS: usize = 64;
/// Most sets of a part. With them a table has a million places in 16 MiB.
const MAX_SETS: usize = 2048;
/// Places of a set.
const PLACES: usize = 8;

/// The buckets of the keys of one limit.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Empty until the first check, because a file may have thousands of limits of which few are in use.
    parts: OnceLock<Box<[CachePadded<Mutex<Part>>]>>,
    /// Its seed is secret, so that clients cannot choose keys that share their sets with another key.
    hasher: RandomState,
}

/// Sets of a part: none at first, later a power of two.
#[derive(Debug, Default)]
struct Part(Vec<Set>);

/// Two cache lines, of which a check reads the second one at one place.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Set {
    /// Hashes of the keys. Two keys of a million have the same hash with a probability of 1 to 40 million.
    hashes: [u64; PLACES],
    /// When the bucket of each key is full again. A place whose time has passed is free.
    full_at: [u64; PLACES],
}

// === impl Table ===

impl Table {
    /// Takes one request from the bucket of the key. `now` counts nanoseconds from any fixed time.
    pub(super) fn check(&self, bucket: &Bucket, key: &impl Hash, now: u64) -> BucketOutcome {
        self.check_hash(bucket, self.hasher.hash_one(key), now)
    }

    fn check_hash(&self, bucket: &Bucket, hash: u64, now: u64) -> BucketOutcome {
        let parts = self.parts.get_or_init(|| (0..PARTS).map(|_| CachePadded::default()).collect());
        let part = &parts[index(hash, PARTS)];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.check(part.full_at(hash, now), now)
    }

    /// The size in bytes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let parts = self.parts.get().map(|parts| &**parts).unwrap_or_default();
        let sets: usize = parts.iter().map(|part| part.lock().unwrap().0.capacity()).sum();
        sets * size_of::<Set>() + size_of_val(parts)
    }
}

// === impl Part ===

impl Part {
    /// The time at which the bucket of a key is full again. That of a new key is full.
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
                    let first_is_better = time <= now || time <= other_time;
                    let (set, place) = if first_is_better { (first, place) } else { (second, other_place) };
                    self.0[set].hashes[place] = hash;
                    self.0[set].full_at[place] = 0;
                    return (set, place);
                }
            }
            self.grow();
        }
    }

    /// Doubles the number of sets. The keys of a set go to two sets, so there is room for all of them.
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

/// The two sets of a hash, among `count` sets. They may be the same one.
fn sets_of(hash: u64, count: usize) -> Option<[usize; 2]> {
    (count > 0).then(|| [index(hash >> 16, count), index(hash >> 40, count)])
}

/// The lowest bits of a hash. `count` is a power of two.
fn index(hash: u64, count: usize) -> usize {
    usize::try_from(hash & (count as u64 - 1)).unwrap_or_default()
}

// === impl Set ===

impl Set {
    const EMPTY: Set = Set { hashes: [0; PLACES], full_at: [0; PLACES] };

    /// The place whose bucket is full first, and that time.
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

    /// Each millisecond, `rate` of `hostile` keys send a request. One of 100 keys over the limit sends one too, each of
    /// them ten in a second. Each of 100 keys below the limit sends one in 12 s. Returns the requests of the former that
    /// were allowed, relative to buckets outside of the table, and those of the latter that were refused.
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
        // Each hostile key comes every 5 s and is busy for 6 s.
        let (heavy, refused) = attack(&table, |key| table.hasher.hash_one(key), 1_000_000, 200, 8);
        assert_eq!(refused, 0, "no key below its limit is refused");
        assert!((heavy - 1.0).abs() < 0.02, "{heavy}");
        let bytes = table.bytes();
        assert!(bytes <= BOUND, "{bytes}");
    }

    #[test]
    fn more_keys_than_places_free_no_key_that_is_over_its_limit() {
        let table = Table::default();
        // Only hashes of one part, with 16,384 places, so that the attack is short. Of the hostile keys, which never come
        // twice, 60,000 would be busy.
        let hash = |key: u64| table.hasher.hash_one(key) & !(PARTS as u64 - 1);
        let (heavy, refused) = attack(&table, hash, u64::MAX / 2, 10, 120);
        assert_eq!(refused, 0, "no key below its limit is refused");
        assert!((heavy - 1.0).abs() < 0.02, "{heavy}");
        assert!(table.bytes() <= BOUND);
    }

    /// Clients cannot make such hashes, because they do not know the seed. The bounds hold even then.
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
        // Key 1 has the most left, so it is forgotten, and then again one of those with one request.
        for key in 16..4096 {
            assert!(is_allowed(table.check_hash(&bucket, hash(key), SECOND)));
        }
        assert!(!is_allowed(table.check_hash(&bucket, hash(0), SECOND)), "the key with nothing left is not forgotten");
        assert_eq!(table.bytes(), BOUND - (PARTS - 1) * MAX_SETS * size_of::<Set>());
    }

    #[test]
    fn a_full_bucket_takes_no_place() {
        let (table, bucket) = (Table::default(), Bucket::new(SECOND, 10));
        assert_eq!(table.bytes(), 0);
        for key in 0..100_000_u64 {
            // 10 keys are busy at a time.
            table.check(&bucket, &key, key * SECOND / 10);
        }
        let bytes = table.bytes();
        assert!(bytes < 64 << 10, "{bytes}");
    }

    proptest! {
        /// The twin has a number of requests for each key in a map.
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
