//! The places and the queue of corsgate, at an upstream with one node.

#[path = "../../src/upstream/places.rs"]
mod places;
#[path = "../../src/upstream/queue.rs"]
#[expect(dead_code, reason = "the metrics of the queue")]
mod queue;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use loom::future::block_on;
use loom::thread;

use self::places::Places;
use self::queue::{NodeQueue, Wait};

#[derive(Debug)]
pub(crate) struct RunningUpstream {
    places: Arc<Places>,
    queue: Arc<NodeQueue>,
}

/// A request at the node.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Arc<Places>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PickError {
    Full,
    /// A reason of `src/upstream.rs` that this node never has.
    #[expect(dead_code)]
    AllUnhealthy,
}

impl RunningUpstream {
    fn with_places(limit: usize) -> Arc<Self> {
        let queue = Arc::new(NodeQueue::new(8));
        Arc::new(RunningUpstream { places: Arc::new(Places::new(limit, queue.clone())), queue })
    }

    fn queue(&self) -> Option<&NodeQueue> {
        Some(&self.queue)
    }

    fn pick(&self, key: Option<u64>, tried: &[()]) -> Result<ActiveRequest, PickError> {
        if self.queue.is_empty() { self.pick_now(key, tried) } else { Err(PickError::Full) }
    }

    fn pick_now(&self, _key: Option<u64>, _tried: &[()]) -> Result<ActiveRequest, PickError> {
        match !self.places.are_taken() && self.places.take() {
            true => Ok(ActiveRequest(self.places.clone())),
            false => Err(PickError::Full),
        }
    }

    /// A request from its begin to its end. Waits for a place if there is none.
    fn serve(&self) {
        let request = self.pick(None, &[]).or_else(|_| block_on(Wait::new(self, None)));
        drop(request.unwrap());
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.free();
    }
}

#[test]
fn a_place_that_becomes_free_wakes_a_request_that_waits() {
    loom::model(|| {
        let upstream = RunningUpstream::with_places(1);
        let other = upstream.clone();
        let request = thread::spawn(move || other.serve());
        upstream.serve();
        request.join().unwrap();
        assert_eq!(upstream.queue.waiting(), 0);
    });
}

/// The second request is behind the first one in the queue, or is the first one itself.
#[test]
fn a_request_that_leaves_the_queue_wakes_the_next() {
    // All orders of three threads take hours.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let upstream = RunningUpstream::with_places(1);
        let running = upstream.pick(None, &[]).unwrap();
        let (leaving, staying) = (upstream.clone(), upstream.clone());
        let leaving = thread::spawn(move || {
            block_on(async {
                let mut wait = pin!(Wait::new(&leaving, None));
                if poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await.is_pending() {
                    wait.give_up();
                }
            });
        });
        let staying = thread::spawn(move || staying.serve());
        drop(running);
        leaving.join().unwrap();
        staying.join().unwrap();
        assert_eq!(upstream.queue.waiting(), 0);
    });
}
