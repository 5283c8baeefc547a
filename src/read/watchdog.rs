//! A guard around what serves a request: it ends what takes too long, or what nothing moves on any more.
//!
//! The guard is a future around another. What it watches for is said from inside, by the hooks that the other one
//! calls ([`set_deadline`], [`set_idle`]); while nothing is said it costs no timer and reads no clock. Movement is
//! being polled: whatever a request waits for, an answer, a chunk, room to write, polls its future when it comes.
//!
//! It ends a request in two steps. First it asks: the connection lets no more reads through, which Pingora takes for a
//! client that broke off, so that the request comes to its usual end, in the log too. What does not end by that is
//! dropped, which closes an HTTP/1 connection and resets an HTTP/2 stream.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a request has to come to its end after it was asked to.
const NOTICE: Duration = Duration::from_secs(1);
/// Into how many parts an idle time is cut: it is kept to within two of them.
const TICKS: u32 = 8;

/// What ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Its deadline.
    Deadline,
    /// Nothing moved for too long.
    Idle,
}

/// What is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Timeouts {
    deadline: Option<Instant>,
    idle: Option<Duration>,
}

thread_local! {
    /// Those of the guard that is being polled.
    static CURRENT: Cell<Option<Timeouts>> = const { Cell::new(None) };
}

/// Ends the request that is being polled at this time; None: at no time. Does nothing outside of a guard.
pub(crate) fn set_deadline(deadline: Option<Instant>) {
    change(|timeouts| timeouts.deadline = deadline);
}

/// Ends the request that is being polled when nothing moves on it for so long, and up to a quarter longer; None: never.
/// Does nothing outside of a guard.
pub(crate) fn set_idle(idle: Option<Duration>) {
    change(|timeouts| timeouts.idle = idle);
}

/// A new request: what was said for the one before is over.
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

/// The future. Its output is None if it had to drop the one within.
pub(super) struct Watchdog<F: ?Sized, A> {
    inner: Pin<Box<F>>,
    /// Asks the request to end; false when that is not possible.
    ask: A,
    timeouts: Timeouts,
    timer: Timer,
    /// It was asked to end, or should by itself.
    asked: bool,
}

#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether it runs; one that does not is kept for the next time.
    runs: bool,
    /// What it was set for.
    timeouts: Timeouts,
    /// Ticks of the idle time in which nothing moved.
    idle_ticks: u32,
    /// Something moved since the last tick.
    moved: bool,
}

impl<F: Future + ?Sized, A: Fn(Expired) -> bool + Unpin> Watchdog<F, A> {
    /// `ask` asks the request to end; it gives false when that is not possible. `idle` is as in [`set_idle`].
    pub(super) fn new(inner: Pin<Box<F>>, idle: Option<Duration>, ask: A) -> Self {
        Watchdog { inner, ask, timeouts: Timeouts { deadline: None, idle }, timer: Timer::default(), asked: false }
    }

    /// Polls the future within, which may say what to watch for.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Puts back what was there, also when the future panics.
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
        if fired && this.asked {
            return Poll::Ready(None);
        }
        // A timer that fired for timeouts that this poll replaced says nothing about the new ones.
        if !this.asked && this.timeouts != this.timer.timeouts {
            this.timer.set_for(this.timeouts, cx);
            return Poll::Pending;
        }
        if fired && let Some(expired) = this.timer.tick() {
            // The hooks have timeouts that end with the deadline: where there is no asking, those come first.
            this.asked = (this.ask)(expired) || expired == Expired::Deadline;
            if !this.asked {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = this.poll_inner(cx) {
                return Poll::Ready(Some(output));
            }
            this.timer.set(Some(Instant::now() + NOTICE), cx);
        } else if !this.asked && fired {
            this.timer.set_for(this.timeouts, cx);
        }
        Poll::Pending
    }
}

impl Timer {
    /// Whether its time has come. If not, it is something else that has moved.
    fn fired(&mut self, cx: &mut Context<'_>) -> bool {
        let fired = self.runs && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        self.moved |= !fired;
        fired
    }

    /// What has become expired, now that its time has come.
    fn tick(&mut self) -> Option<Expired> {
        if self.timeouts.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Expired::Deadline);
        }
        self.idle_ticks = if self.moved { 0 } else { self.idle_ticks + 1 };
        self.moved = false;
        // What moves while a tick is handled is not seen, so that one more is waited for.
        (self.timeouts.idle.is_some() && self.idle_ticks > TICKS).then_some(Expired::Idle)
    }

    fn set_for(&mut self, timeouts: Timeouts, cx: &mut Context<'_>) {
        if timeouts != self.timeouts {
            (self.timeouts, self.idle_ticks, self.moved) = (timeouts, 0, false);
        }
        let tick = timeouts.idle.map(|idle| Instant::now() + idle / TICKS);
        self.set(timeouts.deadline.into_iter().chain(tick).min(), cx);
    }

    fn set(&mut self, next: Option<Instant>, cx: &mut Context<'_>) {
        self.runs = next.is_some();
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

    /// With a clock that goes on when everybody waits: how busy the machine is changes nothing.
    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    fn never_asks(_: Expired) -> bool {
        false
    }

    async fn pending() {
        std::future::pending::<()>().await;
    }

    #[test]
    fn what_ends_in_time_is_left_alone() {
        run(async {
            let work = async {
                set_idle(Some(IDLE));
                set_deadline(Some(Instant::now() + 4 * IDLE));
                tokio::time::sleep(IDLE / 2).await;
                7
            };
            assert_eq!(Watchdog::new(Box::pin(work), None, never_asks).await, Some(7));
        });
    }

    #[test]
    fn without_terms_there_is_no_timer() {
        run(async {
            let (send, mut receive) = mpsc::channel::<()>(1);
            let mut guard = Watchdog::new(Box::pin(async move { receive.recv().await }), None, never_asks);
            assert!(futures_poll(&mut guard).await.is_pending());
            assert!(guard.timer.sleep.is_none());
            drop(send);
            assert_eq!(guard.await, Some(None));
        });
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }

    #[test]
    fn what_does_not_move_is_dropped() {
        run(async {
            let begin = Instant::now();
            assert_eq!(Watchdog::new(Box::pin(pending()), Some(IDLE), never_asks).await, None);
            assert!(begin.elapsed() >= IDLE, "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn what_moves_goes_on_until_it_stops() {
        run(async {
            let begin = Instant::now();
            // No multiple of a tick: what moves in the instant of one is not seen.
            let step = IDLE * 37 / 80;
            let work = async {
                set_idle(Some(IDLE));
                for _ in 0..9 {
                    tokio::time::sleep(step).await;
                }
                pending().await;
            };
            assert_eq!(Watchdog::new(Box::pin(work), None, never_asks).await, None);
            assert!(begin.elapsed() >= step * 9 + IDLE, "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn a_deadline_ends_what_moves() {
        run(async {
            let begin = Instant::now();
            let work = async {
                set_deadline(Some(Instant::now() + IDLE));
                loop {
                    tokio::time::sleep(IDLE / 10).await;
                }
            };
            let output: Option<()> = Watchdog::new(Box::pin(work), None, never_asks).await;
            assert_eq!(output, None);
            let end = IDLE + NOTICE;
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
    fn it_asks_before_it_drops() {
        run(async {
            let asked = Rc::new(RefCell::new(Vec::new()));
            let ask = |expired| {
                asked.borrow_mut().push(expired);
                true
            };
            let seen = asked.clone();
            let polite =
                std::future::poll_fn(
                    move |_| {
                        if seen.borrow().is_empty() { Poll::Pending } else { Poll::Ready("bye") }
                    },
                );
            assert_eq!(Watchdog::new(Box::pin(polite), Some(IDLE), &ask).await, Some("bye"));
            let begin = Instant::now();
            assert_eq!(Watchdog::new(Box::pin(pending()), Some(IDLE), &ask).await, None);
            assert!(begin.elapsed() >= NOTICE, "{:?}", begin.elapsed());
            assert_eq!(*asked.borrow(), [Expired::Idle, Expired::Idle]);
        });
    }

    #[test]
    fn terms_can_be_taken_back_and_are_those_of_the_innermost_guard() {
        run(async {
            let inner = async {
                set_idle(Some(IDLE));
                set_deadline(Some(Instant::now() + IDLE));
                clear();
                tokio::time::sleep(IDLE * 2).await;
                "done"
            };
            let outer = async {
                let inner = Watchdog::new(Box::pin(inner), None, never_asks).await;
                (inner, CURRENT.get())
            };
            let result = Watchdog::new(Box::pin(outer), None, never_asks).await;
            assert_eq!(result, Some((Some("done"), Some(Timeouts::default()))));
            set_idle(Some(IDLE));
            assert_eq!(CURRENT.get(), None, "outside of a guard nothing is remembered");
        });
    }
}
