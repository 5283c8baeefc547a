//! What log lines have in common: the quotes of their values, and the limit on lines about frequent events.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines about the same kind of event.
pub(crate) const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A value of a log line in double quotes. Quotes, backslashes and characters that are not printable are escaped, so a
/// value can neither end early nor break the line.
pub(crate) fn quoted<T: fmt::Display>(value: T) -> impl fmt::Display {
    Quoted(value)
}

/// Limits the log to one line per [`LOG_INTERVAL`] about a kind of event that clients can cause at any rate.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    events: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Events that a log line has reported.
    reported: u64,
    /// Earliest time of the next line. None before the first line.
    next: Option<Instant>,
}

struct Quoted<T>(T);

/// Escapes what is written through it.
struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

// === impl LogThrottle ===

impl LogThrottle {
    /// Counts events. Does not wait for a lock.
    pub(crate) fn count(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// All events since the start.
    pub(crate) fn total(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Number of events since the last line. None if there are none, or if the last line was less than [`LOG_INTERVAL`]
    /// ago. The caller logs the number, so they count as reported.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        if state.next.is_some_and(|next| now < next) {
            return None;
        }
        let events = self.unreported(&mut state)?;
        state.next = Some(now + LOG_INTERVAL);
        Some(events)
    }

    /// True if a log line has reported all events.
    pub(crate) fn is_reported(&self) -> bool {
        self.total() == self.lock().reported
    }

    /// Like [`Self::due`], but without the minimum interval. For a caller that has its own interval, and for the last line
    /// of the process.
    pub(crate) fn rest(&self) -> Option<u64> {
        self.unreported(&mut self.lock())
    }

    fn unreported(&self, state: &mut State) -> Option<u64> {
        let total = self.total();
        let events = total - state.reported;
        state.reported = total;
        (events > 0).then_some(events)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Quoted ===

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaped(f), "{}", self.0)?;
        f.write_char('"')
    }
}

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\'' => self.0.write_char(c),
            _ => c.escape_debug().try_for_each(|c| self.0.write_char(c)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_cannot_end_early_or_break_the_line() {
        for (value, expected) in [
            ("status 500", r#""status 500""#),
            (r#"it's "no" \"#, r#""it's \"no\" \\""#),
            ("a\nb\u{1b}[2J", r#""a\nb\u{1b}[2J""#),
            ("", r#""""#),
        ] {
            assert_eq!(quoted(value).to_string(), expected);
        }
    }

    #[test]
    fn many_events_have_one_line_per_interval() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());
        let event = |at| {
            throttle.count(1);
            throttle.due(at)
        };
        assert_eq!(event(now), Some(1));
        assert_eq!([event(now), event(now)], [None, None]);
        assert_eq!(event(now + LOG_INTERVAL), Some(3));
        assert_eq!(throttle.due(now + LOG_INTERVAL * 2), None, "no events");
        assert_eq!(event(now + LOG_INTERVAL * 2), Some(1));
        throttle.count(2);
        assert_eq!((throttle.rest(), throttle.rest()), (Some(2), None), "the last line does not wait");
        assert_eq!(throttle.total(), 7);
    }
}
