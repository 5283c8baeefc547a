//! Enforces a request's deadline and idle timeout.
//!
//! [`Watchdog`] is a future around the future that serves the request. The hooks that run inside set the two timeouts
//! with [`set_deadline`] and [`set_idle`]. Without timeouts there is no timer, and no clock is read. Every poll of the
//! inner future counts as activity: all events that a request waits for (a response, a chunk, space in a send buffer)
//! poll it.
//!
//! A request is ended in two steps. First it is asked to end: reads of the connection fail, Pingora takes that for a
//! client that broke off, and the request ends in the usual way, with a line in the access log. After [`END_GRACE`] the
//! inner future is dropped, which closes an HTTP/1 connection and resets an HTTP/2 stream. An HTTP/2 stream cannot be
//! asked: the idle timeout drops it at once, the deadline after [`END_GRACE`].
//!
//! [`super::connection`] and `forward` choose the timeouts.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Time between asking a request to end and dropping it.
const END_GRACE: Duration = Duration::from_secs(1);
/// Number of checks during one idle timeout. The timeout can be late by the time of two checks.
const IDLE_TICKS: u32 = 8;

/// The timeout that ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The deadline passed.
    Deadline,
    /// No activity for the idle timeout.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Timeouts {
    deadline: Option<Instant>,
    idle: Option<Duration>,
}

thread_local! {
    /// Timeouts of the watchdog that is being polled; None outside of a watchdog.
    static CURRENT: Cell<Option<Timeouts>> = const { Cell::new(None) };
}

/// Sets the deadline of the request that is being polled; None removes it. Does nothing outside of a watchdog.
pub(crate) fn set_deadline(deadline: Option<Instant>) {
    change(|timeouts| timeouts.deadline = deadline);
}

/// Sets the idle timeout of the request that is being polled; None removes it. It expires up to a quarter late. Does
/// nothing outside of a watchdog.
pub(crate) fn set_idle(idle: Option<Duration>) {
    change(|timeouts| timeouts.idle = idle);
}

/// Removes both timeouts, before the next request of a connection.
pub(super) fn clear() {
    change(|timeouts| *timeouts = Timeouts::default());
}

fn change(change: impl FnOnce(&mut Timeouts)) {
    CURRENT.with(|current| {
        if let Some(mut timeouts) = current.get() {
            change(&mut timeouts);
            current.set(Some(timeouts));
        }
    });
}

/// A future that ends another one. Its output is None if the inner future must be dropped.
pub(super) struct Watchdog<F: ?Sized, A> {
    inner: Pin<Box<F>>,
    /// Asks the request to end; returns false if that is not possible.
    ask_to_end: A,
    timeouts: Timeouts,
    timer: Timer,
    /// The request was asked to end, or the timeouts of the hooks end it.
    ending: bool,
}

#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether `sleep` is in use. An unused one is kept, because resetting it is cheaper than a new one.
    armed: bool,
    /// The timeouts for which it was set.
    timeouts: Timeouts,
    /// Ticks in a row without activity.
    idle_ticks: u32,
    /// Activity since the last tick.
    active: bool,
}

impl<F: Future + ?Sized, A: Fn(Expired) -> bool + Unpin> Watchdog<F, A> {
    /// `idle` is the first idle timeout, as in [`set_idle`]. `ask_to_end` returns false if it cannot ask.
    pub(super) fn new(inner: Pin<Box<F>>, idle: Option<Duration>, ask_to_end: A) -> Self {
        let timeouts = Timeouts { deadline: None, idle };
        Watchdog { inner, ask_to_end, timeouts, timer: Timer::default(), ending: false }
    }

    /// Polls the inner future, which may change the timeouts.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Restores the timeouts of an outer watchdog, also after a panic.
        struct Restore(Option<Timeouts>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let restore = Restore(CURRENT.replace(Some(self.timeouts)));
        let result = self.inner.as_mut().poll(cx);
        self.timeouts = CURRENT.get().unwrap_or_default();
        drop(restore);
        result
    }
}

impl<F: Future + ?Sized, A: Fn(Expired) -> bool + Unpin> Future for Watchdog<F, A> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let fired = this.timer.fired(cx);
        if let Poll::Ready(output) = this.poll_inner(cx) {
            return Poll::Ready(Some(output));
        }
        if fired && this.ending {
            return Poll::Ready(None);
        }
        // A timer that fired for timeouts that this poll replaced says nothing about the new ones.
        if !this.ending && this.timeouts != this.timer.timeouts {
            this.timer.set_for(this.timeouts, cx);
            return Poll::Pending;
        }
        if fired && let Some(expired) = this.timer.tick() {
            // A request that cannot be asked still gets the grace at its deadline: the timeouts of an attempt expire at
            // the same time and send a 504, which dropping the request would prevent.
            this.ending = (this.ask_to_end)(expired) || expired == Expired::Deadline;
            if !this.ending {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = this.poll_inner(cx) {
                return Poll::Ready(Some(output));
            }
            this.timer.set(Some(Instant::now() + END_GRACE), cx);
        } else if !this.ending && fired {
            this.timer.set_for(this.timeouts, cx);
        }
        Poll::Pending
    }
}

impl Timer {
    /// Whether the timer expired. If not, the poll is activity of the request.
    fn fired(&mut self, cx: &mut Context<'_>) -> bool {
        let fired = self.armed && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        self.active |= !fired;
        fired
    }

    /// The timeout that expired, if any, after the timer fired.
    fn tick(&mut self) -> Option<Expired> {
        if self.timeouts.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Expired::Deadline);
        }
        self.idle_ticks = if self.active { 0 } else { self.idle_ticks + 1 };
        self.active = false;
        // Activity in the poll of a tick is not noticed, so one more tick is waited for.
        (self.timeouts.idle.is_some() && self.idle_ticks > IDLE_TICKS).then_some(Expired::Idle)
    }

    fn set_for(&mut self, timeouts: Timeouts, cx: &mut Context<'_>) {
        if timeouts != self.timeouts {
            (self.timeouts, self.idle_ticks, self.active) = (timeouts, 0, false);
        }
        let tick = timeouts.idle.map(|idle| Instant::now() + idle / IDLE_TICKS);
        self.set(timeouts.deadline.into_iter().chain(tick).min(), cx);
    }

    fn set(&mut self, next: Option<Instant>, cx: &mut Context<'_>) {
        self.armed = next.is_some();
        let Some(next) = next else { return };
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(next),
            None => self.sleep = Some(Box::pin(sleep_until(next))),
        }
        if self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::mpsc;

    use super::*;

    const IDLE: Duration = Duration::from_millis(80);

    /// With a paused clock, which advances when all tasks wait. The load of the machine does not matter.
    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    fn cannot_ask(_: Expired) -> bool {
        false
    }

    async fn pending() {
        std::future::pending::<()>().await;
    }

    #[test]
    fn a_request_that_ends_in_time_keeps_its_output() {
        run(async {
            let work = async {
                set_idle(Some(IDLE));
                set_deadline(Some(Instant::now() + 4 * IDLE));
                tokio::time::sleep(IDLE / 2).await;
                7
            };
            assert_eq!(Watchdog::new(Box::pin(work), None, cannot_ask).await, Some(7));
        });
    }

    #[test]
    fn without_timeouts_there_is_no_timer() {
        run(async {
            let (send, mut receive) = mpsc::channel::<()>(1);
            let mut watchdog = Watchdog::new(Box::pin(async move { receive.recv().await }), None, cannot_ask);
            assert!(poll_once(&mut watchdog).await.is_pending());
            assert!(watchdog.timer.sleep.is_none());
            drop(send);
            assert_eq!(watchdog.await, Some(None));
        });
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }

    #[test]
    fn a_request_without_activity_is_dropped() {
        run(async {
            let begin = Instant::now();
            assert_eq!(Watchdog::new(Box::pin(pending()), Some(IDLE), cannot_ask).await, None);
            assert!(begin.elapsed() >= IDLE, "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn activity_restarts_the_idle_timeout() {
        run(async {
            let begin = Instant::now();
            // Not a multiple of a tick, because activity at the instant of a tick is not noticed.
            let step = IDLE * 37 / 80;
            let work = async {
                set_idle(Some(IDLE));
                for _ in 0..9 {
                    tokio::time::sleep(step).await;
                }
                pending().await;
            };
            assert_eq!(Watchdog::new(Box::pin(work), None, cannot_ask).await, None);
            assert!(begin.elapsed() >= step * 9 + IDLE, "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn a_deadline_ends_an_active_request() {
        run(async {
            let begin = Instant::now();
            let work = async {
                set_deadline(Some(Instant::now() + IDLE));
                loop {
                    tokio::time::sleep(IDLE / 10).await;
                }
            };
            let output: Option<()> = Watchdog::new(Box::pin(work), None, cannot_ask).await;
            assert_eq!(output, None);
            let end = IDLE + END_GRACE;
            assert!(begin.elapsed() >= end, "{:?}", begin.elapsed());
        });
    }

    /// The bytes of a request arrive in the moment in which the keepalive timeout of its connection fires.
    #[test]
    fn a_timeout_that_was_replaced_while_it_fired_ends_nothing() {
        run(async {
            for replace in [|| set_deadline(None), || set_deadline(Some(Instant::now() + 4 * IDLE)), clear] {
                let deadline = Instant::now() + IDLE;
                let work = async move {
                    set_deadline(Some(deadline));
                    // Ready in the same poll as the timer of the watchdog.
                    sleep_until(deadline).await;
                    replace();
                    tokio::time::sleep(IDLE).await;
                    "done"
                };
                let asked = RefCell::new(Vec::new());
                let ask = |expired| {
                    asked.borrow_mut().push(expired);
                    true
                };
                assert_eq!(Watchdog::new(Box::pin(work), None, &ask).await, Some("done"));
                assert_eq!(*asked.borrow(), []);
            }
        });
    }

    #[test]
    fn a_request_is_asked_to_end_before_it_is_dropped() {
        run(async {
            let asked = Rc::new(RefCell::new(Vec::new()));
            let ask = |expired| {
                asked.borrow_mut().push(expired);
                true
            };
            let seen = asked.clone();
            let ends_when_asked =
                std::future::poll_fn(
                    move |_| {
                        if seen.borrow().is_empty() { Poll::Pending } else { Poll::Ready("bye") }
                    },
                );
            assert_eq!(Watchdog::new(Box::pin(ends_when_asked), Some(IDLE), &ask).await, Some("bye"));
            let begin = Instant::now();
            assert_eq!(Watchdog::new(Box::pin(pending()), Some(IDLE), &ask).await, None);
            assert!(begin.elapsed() >= END_GRACE, "{:?}", begin.elapsed());
            assert_eq!(*asked.borrow(), [Expired::Idle, Expired::Idle]);
        });
    }

    #[test]
    fn timeouts_can_be_removed_and_belong_to_the_innermost_watchdog() {
        run(async {
            let inner = async {
                set_idle(Some(IDLE));
                set_deadline(Some(Instant::now() + IDLE));
                clear();
                tokio::time::sleep(IDLE * 2).await;
                "done"
            };
            let outer = async {
                let inner = Watchdog::new(Box::pin(inner), None, cannot_ask).await;
                (inner, CURRENT.get())
            };
            let result = Watchdog::new(Box::pin(outer), None, cannot_ask).await;
            assert_eq!(result, Some((Some("done"), Some(Timeouts::default()))));
            set_idle(Some(IDLE));
            assert_eq!(CURRENT.get(), None, "outside of a watchdog nothing is set");
        });
    }
}
