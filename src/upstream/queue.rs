//! The queue of an upstream: requests that wait because every node has `max_connections` requests.
//!
//! Requests wait in the order of their arrival. Only the first request looks for a free place. It is woken when a place
//! may be free. When it leaves the queue, it wakes the next request. So a place that becomes free wakes one request,
//! however many requests wait. A new request goes to the end of the queue if other requests wait, even if a place is
//! free at that moment.
//!
//! No wake-up is lost. A request that ends first counts its place as free, and then checks whether requests wait. A
//! request that begins to wait is first counted as waiting, and then looks for a place. Both have a memory fence between
//! the two steps, so at least one of them sees the change of the other request.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use crossbeam_utils::CachePadded;

use super::{ActiveRequest, PickError, RunningUpstream};
use crate::counter::Counter;

/// The waiting requests of an upstream.
#[derive(Debug)]
pub(crate) struct NodeQueue {
    /// Maximum number of waiting requests.
    length: usize,
    /// Number of waiting requests. A request that ends reads this number, and takes the lock only if the number is not
    /// 0.
    waiting: CachePadded<AtomicUsize>,
    list: Mutex<List>,
    counts: QueueCounts,
}

/// Numbers of requests that have left the queue.
#[derive(Debug, Default)]
pub(crate) struct QueueCounts {
    /// Requests that got a node.
    pub(crate) served: Counter,
    /// Requests that were refused because the queue was full.
    pub(crate) full: Counter,
    /// Requests that were refused because no place became free in time.
    pub(crate) timeout: Counter,
    /// Requests whose client went away, or that lost their last available node.
    pub(crate) gone: Counter,
}

#[derive(Debug, Default)]
struct List {
    /// The waiting requests, in the order of their tickets.
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    waker: Waker,
}

/// A request that waits for a place at a node. The output of the future is the request at the node, or
/// [`PickError::Full`] if the queue is full. If the future is dropped without [`Wait::give_up`], the request counts as
/// one whose client has gone.
#[derive(Debug)]
pub(crate) struct Wait<'u> {
    upstream: &'u RunningUpstream,
    /// Key of `balance: hash`.
    key: Option<u64>,
    /// Ticket of the request in the queue. None if the request is not in the queue.
    ticket: Option<u64>,
}

// === impl NodeQueue ===

impl NodeQueue {
    /// Creates a queue for at most `length` requests.
    pub(super) fn new(length: usize) -> Self {
        NodeQueue { length, waiting: CachePadded::default(), list: Mutex::default(), counts: QueueCounts::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Returns the number of waiting requests.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> &QueueCounts {
        &self.counts
    }

    /// Wakes the first request, because a place at a node may be free. The place must already be counted as free.
    pub(super) fn on_free(&self) {
        // This fence and the fence of a request that begins to wait form a pair: this thread sees that the request
        // waits, or the request sees the free place.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            wake_first(self.lock());
        }
    }

    /// Removes a request from the queue. Does nothing if the request is not in the queue.
    fn leave(&self, ticket: u64) {
        let mut list = self.lock();
        let Some(at) = list.position(ticket) else { return };
        list.waiters.remove(at);
        self.waiting.store(list.waiters.len(), Ordering::Relaxed);
        if at == 0 {
            wake_first(list);
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the first request, if there is one.
fn wake_first(list: MutexGuard<'_, List>) {
    let first = list.waiters.front().map(|first| first.waker.clone());
    drop(list);
    if let Some(first) = first {
        first.wake();
    }
}

impl List {
    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }
}

// === impl Wait ===

impl<'u> Wait<'u> {
    pub(super) fn new(upstream: &'u RunningUpstream, key: Option<u64>) -> Self {
        Wait { upstream, key, ticket: None }
    }

    /// Removes the request from the queue because its time is over.
    pub(crate) fn give_up(&mut self) {
        self.leave(|counts| &counts.timeout);
    }

    fn leave(&mut self, count: impl FnOnce(&QueueCounts) -> &Counter) {
        if let (Some(ticket), Some(queue)) = (self.ticket.take(), self.upstream.queue()) {
            queue.leave(ticket);
            count(&queue.counts).add(1);
        }
    }
}

impl Future for Wait<'_> {
    type Output = Result<ActiveRequest, PickError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(queue) = self.upstream.queue() else { return Poll::Ready(self.upstream.pick(self.key, &[])) };
        let mut list = queue.lock();
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None if list.waiters.len() >= queue.length => {
                drop(list);
                queue.counts.full.add(1);
                return Poll::Ready(Err(PickError::Full));
            }
            None => {
                let ticket = list.next_ticket;
                list.next_ticket += 1;
                list.waiters.push_back(Waiter { ticket, waker: cx.waker().clone() });
                self.ticket = Some(ticket);
                queue.waiting.store(list.waiters.len(), Ordering::Relaxed);
                // The other fence is in `on_free`.
                fence(Ordering::SeqCst);
                ticket
            }
        };
        let Some(at) = list.position(ticket) else { return Poll::Ready(Err(PickError::Full)) };
        list.waiters[at].waker.clone_from(cx.waker());
        if at > 0 {
            return Poll::Pending;
        }
        let result = self.upstream.pick_now(self.key, &[]);
        drop(list);
        match result {
            Err(PickError::Full) => Poll::Pending,
            Ok(request) => {
                self.leave(|counts| &counts.served);
                Poll::Ready(Ok(request))
            }
            Err(error) => {
                self.leave(|counts| &counts.gone);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.leave(|counts| &counts.gone);
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::Wake;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::upstream::tests::limited;

    /// Counts the wake-ups of a request.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A waiting request.
    struct Request<'u> {
        wait: Option<Wait<'u>>,
        woken: Arc<Woken>,
    }

    impl<'u> Request<'u> {
        fn new(upstream: &'u RunningUpstream) -> Self {
            let mut request = Request { wait: Some(upstream.wait(None)), woken: Arc::default() };
            assert!(request.poll().is_pending());
            request
        }

        fn poll(&mut self) -> Poll<Result<ActiveRequest, PickError>> {
            let waker = self.woken.clone().into();
            Pin::new(self.wait.as_mut().unwrap()).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(SeqCst)
        }
    }

    fn counts(upstream: &RunningUpstream) -> [u64; 4] {
        let counts = upstream.queue().unwrap().counts();
        [&counts.served, &counts.full, &counts.timeout, &counts.gone].map(Counter::get)
    }

    #[test]
    fn a_free_place_wakes_the_request_that_waits_longest_and_no_other() {
        let upstream = limited(&["10.0.0.1"], 1, 10);
        let running = upstream.pick(None, &[]).unwrap();
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::Full);
        let mut waiting = [(); 3].map(|()| Request::new(&upstream));
        drop(running);
        assert_eq!(waiting.each_ref().map(Request::woken), [1, 0, 0]);
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::Full, "the place is for a request that waits");
        assert!(waiting[1].poll().is_pending(), "the request is not the first in the queue");
        for (i, request) in waiting.iter_mut().enumerate() {
            let Poll::Ready(Ok(running)) = request.poll() else { panic!("{i} has no place") };
            assert_eq!(upstream.statuses()[0].active, 1);
            drop(running);
        }
        assert_eq!((upstream.queue().unwrap().waiting(), counts(&upstream)), (0, [3, 0, 0, 0]));
        upstream.pick(None, &[]).unwrap();
    }

    #[test]
    fn a_request_that_leaves_passes_its_wake_up_on() {
        let upstream = limited(&["10.0.0.1"], 1, 10);
        let running = upstream.pick(None, &[]).unwrap();
        let mut waiting = [(); 4].map(|()| Request::new(&upstream));
        drop(waiting[1].wait.take());
        drop(running);
        assert_eq!(waiting.each_ref().map(Request::woken), [1, 0, 0, 0]);
        waiting[0].wait.as_mut().unwrap().give_up();
        assert_eq!(waiting.each_ref().map(Request::woken), [1, 0, 1, 0]);
        drop(waiting[2].wait.take());
        assert_eq!(waiting.each_ref().map(Request::woken), [1, 0, 1, 1]);
        assert!(waiting[3].poll().is_ready());
        drop(waiting);
        assert_eq!((upstream.queue().unwrap().waiting(), counts(&upstream)), (0, [1, 0, 1, 2]));
    }

    #[test]
    fn several_free_places_are_taken_one_after_the_other() {
        let upstream = limited(&["10.0.0.1", "10.0.0.2"], 2, 10);
        let running: Vec<_> = (0..4).map(|_| upstream.pick(None, &[]).unwrap()).collect();
        let mut waiting = [(); 5].map(|()| Request::new(&upstream));
        drop(running);
        let mut served = Vec::new();
        for request in &mut waiting[..4] {
            assert!(request.woken() >= 1);
            let Poll::Ready(Ok(request)) = request.poll() else { panic!("no place") };
            served.push(request);
        }
        assert!(waiting[4].poll().is_pending());
        assert_eq!(upstream.statuses().iter().map(|status| status.active).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_full_queue_takes_no_request() {
        let upstream = limited(&["10.0.0.1"], 1, 1);
        let _running = upstream.pick(None, &[]).unwrap();
        let first = Request::new(&upstream);
        let refused = |upstream: &RunningUpstream| {
            let mut request = Request { wait: Some(upstream.wait(None)), woken: Arc::default() };
            matches!(request.poll(), Poll::Ready(Err(PickError::Full)))
        };
        assert!(refused(&upstream));
        drop(first);
        let _second = Request::new(&upstream);
        assert_eq!(counts(&upstream), [0, 1, 0, 1]);
        let upstream = limited(&["10.0.0.1"], 1, 0);
        let _running = upstream.pick(None, &[]).unwrap();
        assert!(refused(&upstream), "without a queue");
    }

    #[test]
    fn a_node_that_becomes_available_or_unavailable_wakes_a_request() {
        let (upstream, now) = (limited(&["10.0.0.1", "10.0.0.2"], 1, 10), Instant::now());
        let endpoints = upstream.endpoints();
        upstream.checked(&endpoints[1], false, now);
        let running = upstream.pick(None, &[]).unwrap();
        let mut waiting = [(); 2].map(|()| Request::new(&upstream));
        upstream.checked(&endpoints[1], true, now);
        assert_eq!(waiting[0].woken(), 1);
        let Poll::Ready(Ok(second)) = waiting[0].poll() else { panic!("no place") };
        assert_eq!(second.node(), 1);
        endpoints.iter().for_each(|endpoint| _ = upstream.checked(endpoint, false, now));
        assert!(matches!(waiting[1].poll(), Poll::Ready(Err(PickError::AllUnhealthy))));
        drop((running, second));
        assert_eq!(upstream.statuses().iter().map(|status| status.active).sum::<usize>(), 0);
    }

    /// Every request ends, and a node never has more requests than its limit.
    #[test]
    fn many_threads_wait_give_up_and_go() {
        const LIMIT: usize = 3;
        const TASKS: usize = 64;
        let upstream = Arc::new(limited(&["10.0.0.1", "10.0.0.2"], LIMIT, TASKS));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(4).enable_time().build().unwrap();
        let tasks: Vec<_> = (0..TASKS as u64)
            .map(|task| {
                let upstream = upstream.clone();
                runtime.spawn(async move {
                    let mut random = fastrand::Rng::with_seed(task);
                    for _ in 0..300 {
                        let picked = match upstream.pick(None, &[]) {
                            Err(PickError::Full) => {
                                let mut wait = upstream.wait(None);
                                if random.u8(..) < 40 {
                                    // This client goes away.
                                    let _ = tokio::time::timeout(Duration::from_micros(random.u64(..300)), wait).await;
                                    continue;
                                }
                                (&mut wait).await
                            }
                            picked => picked,
                        };
                        let request = picked.unwrap();
                        assert!(request.active() <= LIMIT);
                        for _ in 0..random.u8(..4) {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await }).expect("no request hangs");
        assert_eq!(upstream.queue().unwrap().waiting(), 0);
        assert_eq!(upstream.statuses().iter().map(|status| status.active).sum::<usize>(), 0);
        assert!(counts(&upstream)[0] > 0 && counts(&upstream)[3] > 0, "{:?}", counts(&upstream));
    }
}
