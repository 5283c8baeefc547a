//! State of an endpoint: healthy, ejected, and slow start.
//!
//! Failed health checks make an endpoint unhealthy, and failed requests eject it. The two states are independent.
//! Passed checks end the first state, and time ends the second. This module reads no clock; callers pass the time.

use std::time::{Duration, Instant};

use crate::snapshot::HealthCheck;

/// Number of steps in which slow start increases the weight.
pub(crate) const RAMP_STEPS: u32 = 10;

/// Health, ejection and slow start of an endpoint.
#[derive(Debug)]
pub(crate) struct State {
    healthy: bool,
    /// Consecutive checks whose result contradicts `healthy`.
    contradictions: u32,
    ejected_until: Option<Instant>,
    /// Start of the slow start. None if the endpoint has its full weight.
    ramp_since: Option<Instant>,
}

/// Change of the state of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// `unhealthy_after` checks have failed.
    Unhealthy,
    /// `healthy_after` checks have passed.
    Healthy,
    /// `ejection.after` requests have failed in a row.
    Ejected,
    /// The time of the ejection has ended.
    Readmitted,
}

impl State {
    /// State of a new endpoint. It is available until checks or requests fail.
    pub(crate) const NEW: State = State { healthy: true, contradictions: 0, ejected_until: None, ramp_since: None };

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// True if requests can pick the endpoint.
    pub(crate) fn is_available(&self) -> bool {
        self.healthy && self.ejected_until.is_none()
    }

    /// True while an ejection or a slow start is running.
    pub(crate) fn has_timer(&self) -> bool {
        self.ejected_until.is_some() || self.ramp_since.is_some()
    }

    /// Records the result of a health check. Returns the change, if there is one.
    pub(crate) fn checked(&mut self, passed: bool, spec: &HealthCheck, now: Instant) -> Option<Change> {
        if passed == self.healthy {
            self.contradictions = 0;
            return None;
        }
        self.contradictions += 1;
        let enough = if passed { spec.healthy_after } else { spec.unhealthy_after };
        if self.contradictions < enough {
            return None;
        }
        (self.healthy, self.contradictions) = (passed, 0);
        self.ramp_since = self.is_available().then_some(now);
        Some(if passed { Change::Healthy } else { Change::Unhealthy })
    }

    pub(crate) fn eject(&mut self, until: Instant) {
        self.ejected_until = Some(until);
        self.ramp_since = None;
    }

    /// Ends an ejection or a slow start whose time is over. `slow_start`: duration of the slow start.
    pub(crate) fn tick(&mut self, now: Instant, slow_start: Option<Duration>) -> Option<Change> {
        let readmitted = self.ejected_until.is_some_and(|until| until <= now);
        if readmitted {
            self.ejected_until = None;
            self.ramp_since = self.is_available().then_some(now);
        }
        if self.ramp(now, slow_start) == RAMP_STEPS {
            self.ramp_since = None;
        }
        readmitted.then_some(Change::Readmitted)
    }

    /// Returns the share of the weight that is in use, in steps from 1 to [`RAMP_STEPS`].
    pub(crate) fn ramp(&self, now: Instant, slow_start: Option<Duration>) -> u32 {
        let (Some(since), Some(over)) = (self.ramp_since, slow_start) else { return RAMP_STEPS };
        let steps = now.saturating_duration_since(since).as_nanos() * u128::from(RAMP_STEPS) / over.as_nanos().max(1);
        u32::try_from(steps).unwrap_or(RAMP_STEPS).saturating_add(1).min(RAMP_STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn check(healthy_after: u32, unhealthy_after: u32) -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { http: None, interval: second, timeout: second, healthy_after, unhealthy_after }
    }

    /// Results of checks (`p`: passed, `f`: failed), and the state after each: `+` available, `-` not.
    #[test]
    fn checks_count_only_in_a_row() {
        for (healthy_after, unhealthy_after, results, expected) in [
            (2, 3, "pppp", "++++"),
            (2, 3, "ffff", "++--"),
            (2, 3, "ffpff", "+++++"),
            (2, 3, "fffpfpp", "++----+"),
            (1, 1, "fpfp", "-+-+"),
            (3, 1, "fppfppp", "------+"),
        ] {
            let (start, spec, mut state) = (Instant::now(), check(healthy_after, unhealthy_after), State::NEW);
            let seen = |result: char| {
                state.checked(result == 'p', &spec, start);
                if state.is_available() { '+' } else { '-' }
            };
            assert_eq!(results.chars().map(seen).collect::<String>(), expected, "{results}");
        }
    }

    #[test]
    fn a_change_is_returned_once() {
        let (start, spec, mut state) = (Instant::now(), check(2, 2), State::NEW);
        let mut check = |passed| state.checked(passed, &spec, start);
        assert_eq!([false, false, false].map(&mut check), [None, Some(Change::Unhealthy), None]);
        assert_eq!([true, true, true].map(&mut check), [None, Some(Change::Healthy), None]);
    }

    #[test]
    fn an_ejection_ends_by_time_and_does_not_change_health() {
        let (start, spec, mut state) = (Instant::now(), check(1, 1), State::NEW);
        state.eject(at(start, 1000));
        assert!(!state.is_available() && state.is_healthy() && state.has_timer());
        assert_eq!(state.tick(at(start, 999), None), None);
        assert_eq!(state.checked(false, &spec, at(start, 999)), Some(Change::Unhealthy));
        assert_eq!(state.tick(at(start, 1000), None), Some(Change::Readmitted));
        assert!(!state.is_available(), "still unhealthy");
        assert_eq!(state.checked(true, &spec, at(start, 1001)), Some(Change::Healthy));
        assert!(state.is_available());
        state.tick(at(start, 1001), None);
        assert!(!state.has_timer());
    }

    #[test]
    fn slow_start_begins_when_the_endpoint_is_available_again() {
        let (start, over, mut state) = (Instant::now(), Some(Duration::from_secs(10)), State::NEW);
        assert_eq!(state.ramp(start, over), RAMP_STEPS, "a new endpoint has its full weight");
        state.eject(at(start, 5000));
        state.tick(at(start, 7000), over);
        let steps =
            |state: &State| [0, 999, 1000, 4999, 8999, 9000, 60_000].map(|ms| state.ramp(at(start, 7000 + ms), over));
        assert_eq!(steps(&state), [1, 1, 2, 5, 9, 10, 10]);
        assert_eq!(state.ramp(at(start, 7000), None), RAMP_STEPS, "without slow_start, the full weight at once");
        state.tick(at(start, 15_999), over);
        assert!(state.has_timer());
        state.tick(at(start, 16_000), over);
        assert!(!state.has_timer() && state.ramp(at(start, 7000), over) == RAMP_STEPS, "the full weight stays");
    }
}
