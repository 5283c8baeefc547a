//! Whether an endpoint may be chosen, and how its share grows when it may again.
//!
//! Two things take an endpoint out: checks that fail (unhealthy), and requests that fail (ejected). They are kept apart,
//! for each ends in its own way. Nothing here reads a clock: every change is told the time.

use std::time::{Duration, Instant};

use crate::snapshot::HealthCheck;

/// In how many steps an endpoint that is back gets to its whole share.
pub(crate) const RAMP_STEPS: u32 = 10;

/// What is known of an endpoint beside its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    healthy: bool,
    /// Checks in a row that say the opposite of `healthy`.
    contradictions: u32,
    ejected_until: Option<Instant>,
    /// Since when it is back; None for one whose share is whole.
    back_since: Option<Instant>,
}

/// What has become of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Checks have failed so often that it is out.
    Down,
    /// Checks have succeeded so often that it counts as healthy again.
    Up,
    /// Requests have failed so often that it is out for a while.
    Ejected,
    /// That while is over.
    Returned,
}

impl State {
    /// Nothing bad is known yet, and until then an endpoint is used.
    pub(crate) const NEW: State = State { healthy: true, contradictions: 0, ejected_until: None, back_since: None };

    /// Whether checks have nothing against it.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether its requests have failed too often, a short while ago.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// Whether it may be chosen.
    pub(crate) fn is_available(&self) -> bool {
        self.healthy && self.ejected_until.is_none()
    }

    /// Whether time alone will change something.
    pub(crate) fn waits(&self) -> bool {
        self.ejected_until.is_some() || self.back_since.is_some()
    }

    /// A check has come to its end.
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
        self.back_since = self.is_available().then_some(now);
        Some(if passed { Change::Up } else { Change::Down })
    }

    /// Its requests have failed too often.
    pub(crate) fn eject(&mut self, until: Instant) {
        self.ejected_until = Some(until);
        self.back_since = None;
    }

    /// Time has passed. `slow_start` is over what time a share grows.
    pub(crate) fn tick(&mut self, now: Instant, slow_start: Option<Duration>) -> Option<Change> {
        let returned = self.ejected_until.is_some_and(|until| until <= now);
        if returned {
            self.ejected_until = None;
            self.back_since = self.is_available().then_some(now);
        }
        if self.ramp(now, slow_start) == RAMP_STEPS {
            self.back_since = None;
        }
        returned.then_some(Change::Returned)
    }

    /// How much of its weight counts, in parts of [`RAMP_STEPS`]; at least one.
    pub(crate) fn ramp(&self, now: Instant, slow_start: Option<Duration>) -> u32 {
        let (Some(since), Some(over)) = (self.back_since, slow_start) else { return RAMP_STEPS };
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

    /// Results of checks, and after each of them: `+` up and usable, `-` down.
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
    fn a_change_is_told_once() {
        let (start, spec, mut state) = (Instant::now(), check(2, 2), State::NEW);
        let mut check = |passed| state.checked(passed, &spec, start);
        assert_eq!([false, false, false].map(&mut check), [None, Some(Change::Down), None]);
        assert_eq!([true, true, true].map(&mut check), [None, Some(Change::Up), None]);
    }

    #[test]
    fn an_ejection_ends_by_time_and_says_nothing_about_health() {
        let (start, spec, mut state) = (Instant::now(), check(1, 1), State::NEW);
        state.eject(at(start, 1000));
        assert!(!state.is_available() && state.is_healthy() && state.waits());
        assert_eq!(state.tick(at(start, 999), None), None);
        assert_eq!(state.checked(false, &spec, at(start, 999)), Some(Change::Down));
        assert_eq!(state.tick(at(start, 1000), None), Some(Change::Returned));
        assert!(!state.is_available(), "checks are still against it");
        assert_eq!(state.checked(true, &spec, at(start, 1001)), Some(Change::Up));
        assert!(state.is_available());
        state.tick(at(start, 1001), None);
        assert!(!state.waits());
    }

    #[test]
    fn a_share_grows_in_steps_from_the_moment_of_coming_back() {
        let (start, over, mut state) = (Instant::now(), Some(Duration::from_secs(10)), State::NEW);
        assert_eq!(state.ramp(start, over), RAMP_STEPS, "one that was never away has all");
        state.eject(at(start, 5000));
        state.tick(at(start, 7000), over);
        let shares =
            |state: &State| [0, 999, 1000, 4999, 8999, 9000, 60_000].map(|ms| state.ramp(at(start, 7000 + ms), over));
        assert_eq!(shares(&state), [1, 1, 2, 5, 9, 10, 10]);
        assert_eq!(state.ramp(at(start, 7000), None), RAMP_STEPS, "without slow_start it has all at once");
        state.tick(at(start, 15_999), over);
        assert!(state.waits());
        state.tick(at(start, 16_000), over);
        assert!(!state.waits() && state.ramp(at(start, 7000), over) == RAMP_STEPS, "once whole, always whole");
    }
}
