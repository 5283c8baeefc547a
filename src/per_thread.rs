//! Values with one copy for each thread, so that no two threads write to the same cache line.
//!
//! If all cores write to one cache line, each write waits for the line. So a [`PerThread`] stores the values that requests
//! write, and its readers sum the values of all threads. A [`Shared`] stores the values that requests keep, with a
//! reference count for each thread.
//!
//! Most values of a large configuration are used rarely. So the threads share one value for its first [`SHARED_USES`]
//! uses, and after that each has its own, as long as all these together take at most [`BUDGET`] for each thread. The most
//! used values reach this number first. On one core, all values stay shared.
//!
//! A request may move from thread to thread, and two threads have the same index if there are more threads than cores.
//! So all values are atomic; that costs little while no other core uses the line.

mod header;

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use crossbeam_utils::CachePadded;

pub(crate) use self::header::{FinishedName, FinishedValue};

/// Uses after which each thread gets its own value.
const SHARED_USES: u32 = 256;
/// Most bytes of own values, for each thread. That is enough for some thousand busy routes.
const BUDGET: usize = 8 << 20;

/// Number of values that replace a shared one: one for each core.
static THREADS: LazyLock<usize> = LazyLock::new(|| match cfg!(test) {
    true => 8,
    false => std::thread::available_parallelism().map_or(1, usize::from),
});
/// Bytes of all own values.
static USED: AtomicUsize = AtomicUsize::new(0);

/// One value that the threads share at first, then one for each thread.
pub(crate) struct PerThread<T> {
    shared: T,
    own: Own<T>,
}

/// A reference-counted value. Each thread counts the references that it makes.
pub struct Shared<T> {
    value: Arc<T>,
    own: Own<Counted<T>>,
}

/// A reference to a [`Shared`] value.
pub struct Local<T>(Reference<T>);

enum Reference<T> {
    Shared(Arc<T>),
    /// The outer count is the one of the thread that made the reference.
    Own(Counted<T>),
}

/// The padding keeps the counts of two threads apart: they are in front of the value.
type Counted<T> = Arc<CachePadded<Arc<T>>>;

/// The values of the threads, without the shared one.
struct Own<T> {
    uses: AtomicU32,
    /// One for each index. Empty until the shared value was used often enough.
    values: OnceLock<Box<[CachePadded<T>]>>,
}

/// Number of indices.
pub(crate) fn threads() -> usize {
    *THREADS
}

/// Index of this thread, below [`threads`]. Threads get them in the order of their first call.
#[inline]
pub(crate) fn index() -> usize {
    thread_local! {
        static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    match INDEX.get() {
        usize::MAX => {
            let index = NEXT.fetch_add(1, Ordering::Relaxed) % threads();
            INDEX.set(index);
            index
        }
        index => index,
    }
}

// === impl PerThread ===

impl<T> PerThread<T> {
    pub(crate) fn new(shared: T) -> Self {
        PerThread { shared, own: Own::new() }
    }

    /// The value for this thread. `make` makes the value of each index, when the threads get their own.
    #[inline]
    pub(crate) fn get(&self, make: impl FnMut(usize) -> T) -> &T {
        self.own.get(make).unwrap_or(&self.shared)
    }

    /// The value that the threads share at first.
    pub(crate) fn shared(&self) -> &T {
        &self.shared
    }

    /// All values: the shared one, then those of the threads.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        let own = self.own.values.get();
        std::iter::once(&self.shared).chain(own.into_iter().flatten().map(|value| &**value))
    }
}

impl<T: Default> PerThread<T> {
    /// The value for this thread.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        self.get(|_| T::default())
    }
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        PerThread::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for PerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

// === impl Shared, Local ===

impl<T> Shared<T> {
    /// Shares a value.
    pub fn new(value: Arc<T>) -> Self {
        Shared { value, own: Own::new() }
    }

    /// A reference. In the steady state, making and dropping it writes only to memory of this thread.
    #[inline]
    pub fn local(&self) -> Local<T> {
        let own = self.own.get(|_| Arc::new(CachePadded::new(self.value.clone())));
        Local(own.map_or_else(|| Reference::Shared(self.value.clone()), |own| Reference::Own(own.clone())))
    }

    /// The value, for code that no request runs.
    pub(crate) fn arc(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Local<T> {
    /// The value, for uses that outlast the request.
    pub(crate) fn arc(&self) -> &Arc<T> {
        match &self.0 {
            Reference::Shared(value) => value,
            Reference::Own(counted) => counted,
        }
    }
}

impl<T> Deref for Local<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.arc()
    }
}

impl<T: fmt::Debug> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arc().fmt(f)
    }
}

// === impl Own ===

impl<T> Own<T> {
    const fn new() -> Self {
        Own { uses: AtomicU32::new(0), values: OnceLock::new() }
    }

    /// The value of this thread. None while the shared one is used.
    #[inline]
    fn get(&self, make: impl FnMut(usize) -> T) -> Option<&T> {
        match self.values.get() {
            Some(values) => values.get(index()).map(|value| &**value),
            None => self.use_shared(make),
        }
    }

    #[inline(never)]
    fn use_shared(&self, make: impl FnMut(usize) -> T) -> Option<&T> {
        // If there was no room, this tries again later.
        if threads() == 1 || !self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_multiple_of(SHARED_USES) {
            return None;
        }
        if !reserve(&USED, Self::bytes(), threads() * BUDGET) {
            return None;
        }
        let values = (0..threads()).map(make).map(CachePadded::new).collect();
        if self.values.set(values).is_err() {
            USED.fetch_sub(Self::bytes(), Ordering::Relaxed);
        }
        self.values.get()?.get(index()).map(|value| &**value)
    }

    fn bytes() -> usize {
        threads() * size_of::<CachePadded<T>>()
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.values.get().is_some() {
            USED.fetch_sub(Self::bytes(), Ordering::Relaxed);
        }
    }
}

/// Takes bytes of the budget. False if there are not enough.
fn reserve(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let more = |used: usize| Some(used + bytes).filter(|used| *used <= limit);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Uses a value until each thread has its own.
    fn warm<T>(values: &PerThread<T>, make: impl Fn(usize) -> T) {
        (0..SHARED_USES).for_each(|_| _ = values.get(&make));
    }

    #[test]
    fn threads_share_a_value_that_is_used_rarely() {
        let values = PerThread::new(usize::MAX);
        for _ in 1..SHARED_USES {
            assert_eq!(*values.get(|index| index), usize::MAX);
        }
        assert_eq!(values.all().count(), 1);
        assert_eq!(*values.get(|index| index), index(), "each thread has its own from here");
        assert_eq!(values.all().copied().collect::<Vec<_>>(), [&[usize::MAX][..], &[0, 1, 2, 3, 4, 5, 6, 7]].concat());
    }

    #[test]
    fn values_of_two_threads_are_not_in_one_cache_line() {
        let values = PerThread::<AtomicUsize>::default();
        warm(&values, |_| AtomicUsize::new(0));
        let mut places: Vec<usize> = values.all().map(|value| std::ptr::from_ref(value) as usize / 128).collect();
        assert!(values.all().skip(1).all(|value| (std::ptr::from_ref(value) as usize).is_multiple_of(128)));
        let shared = Shared::new(Arc::new(()));
        let counted: Vec<Counted<()>> = (0..SHARED_USES)
            .filter_map(|_| match shared.local().0 {
                Reference::Own(counted) => Some(counted),
                Reference::Shared(_) => None,
            })
            .collect();
        assert_eq!(counted.len(), 1);
        places.extend(shared.own.values.get().unwrap().iter().map(|own| Arc::as_ptr(own).addr() / 128 - 1));
        places.sort_unstable();
        let all = places.len();
        places.dedup();
        assert_eq!((all, places.len()), (2 * threads() + 1, all));
    }

    #[test]
    fn the_value_of_a_reference_lives_as_long_as_the_reference() {
        let shared = Shared::new(Arc::new(7));
        let early = shared.local();
        let late: Vec<Local<i32>> = (0..2 * SHARED_USES).map(|_| shared.local()).collect();
        assert!(matches!(early.0, Reference::Shared(_)) && matches!(late[SHARED_USES as usize].0, Reference::Own(_)));
        let value = Arc::downgrade(shared.arc());
        drop((shared, early));
        assert_eq!(value.upgrade().as_deref(), Some(&7));
        // Another thread may drop the last one.
        thread::spawn(move || drop(late)).join().unwrap();
        assert_eq!(value.upgrade(), None);
    }

    #[test]
    fn the_memory_of_own_values_has_a_limit_and_is_given_back() {
        type Block = [u64; 2048];
        let used = AtomicUsize::new(0);
        assert!(reserve(&used, 60, 100) && !reserve(&used, 41, 100) && reserve(&used, 40, 100));
        // More than all other tests use together.
        let blocks: Vec<Own<Block>> = (0..64).map(|_| Own::new()).collect();
        let bytes = 64 * threads() * size_of::<Block>();
        for block in &blocks {
            (0..SHARED_USES).for_each(|_| _ = block.get(|_| [0; 2048]));
        }
        assert!(blocks.iter().all(|block| block.values.get().is_some()) && USED.load(Ordering::Relaxed) >= bytes);
        drop(blocks);
        assert!(USED.load(Ordering::Relaxed) < bytes);
    }

    #[test]
    fn indices_are_below_the_number_of_threads() {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..3 * threads()).map(|_| scope.spawn(|| (index(), index()))).collect();
            for thread in threads {
                let (first, second) = thread.join().unwrap();
                assert!(first == second && first < super::threads());
            }
        });
    }
}
