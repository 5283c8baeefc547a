//! One-time signals for all connections, sent at the shutdown of the process.
//!
//! All receivers of a `tokio::sync::watch` share its locks. Each wait and each read of the value takes a lock. So a
//! connection registers once, and later only checks whether the value has changed. This check takes no lock.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

/// A signal that becomes true once.
pub(super) struct Signal {
    receiver: watch::Receiver<bool>,
    /// None until the first wait.
    waiting: Option<Waiting>,
    is_true: bool,
}

struct Waiting {
    /// Its drop ends the registration.
    _signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The task that is woken.
    waker: Waker,
}

impl Signal {
    pub(super) fn new(mut receiver: watch::Receiver<bool>) -> Self {
        let is_true = *receiver.borrow_and_update();
        Signal { receiver, waiting: None, is_true }
    }

    /// Whether the signal is true, or can never become true because its sender is gone.
    pub(super) fn is_true(&mut self) -> bool {
        if !self.is_true && self.receiver.has_changed().unwrap_or(true) {
            self.is_true = *self.receiver.borrow_and_update() || self.receiver.has_changed().is_err();
        }
        self.is_true
    }

    /// Ready when the signal is true.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_true() {
            return Poll::Ready(());
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let mut receiver = self.receiver.clone();
        let mut signal = Box::pin(async move {
            let _ = receiver.wait_for(|value| *value).await;
        });
        // A change since the question above makes it ready now.
        let polled = signal.as_mut().poll(cx);
        self.is_true = polled.is_ready();
        self.waiting = Some(Waiting { _signal: signal, waker: cx.waker().clone() });
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_signal_wakes_the_task_that_waited_last() {
        let sender = watch::Sender::new(false);
        let mut signal = Signal::new(sender.subscribe());
        let (one, other) = (Arc::new(Task::default()), Arc::new(Task::default()));
        for task in [&one, &one, &other, &other] {
            assert!(signal.poll(&mut Context::from_waker(&Waker::from(task.clone()))).is_pending());
        }
        assert!(!signal.is_true());
        sender.send_replace(true);
        assert_eq!([&one, &other].map(|task| task.0.load(Ordering::Relaxed)), [0, 1]);
        assert!(signal.is_true());
        assert!(signal.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_signal_that_was_given_before_is_true() {
        let sender = watch::Sender::new(true);
        assert!(Signal::new(sender.subscribe()).is_true());
        let mut signal = Signal::new(watch::Sender::new(false).subscribe());
        assert!(signal.is_true(), "the sender is gone");
    }
}
