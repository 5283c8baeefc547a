//! The data for the record of a request, collected during the request. Nothing is collected if no output needs a
//! record.

use std::time::{Duration, Instant};

use crate::cors::ReportOnly;
use crate::decide::{Refusal, RequestKind, RequestOutcome, Verdict};
use crate::record::MethodClass;

/// The collected data. None before [`RequestTiming::start`] and after [`RequestTiming::finish`].
#[derive(Debug, Default)]
pub(super) struct RequestTiming(Option<Started>);

#[derive(Debug)]
struct Started {
    at: Instant,
    method: MethodClass,
    kind: RequestKind,
    outcome: RequestOutcome,
    refused: bool,
    report_only: Option<ReportOnly>,
    attempts: usize,
    first_attempt: Option<Instant>,
    upstream_took: Option<Duration>,
}

/// The data of a request that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) method: MethodClass,
    pub(super) kind: RequestKind,
    pub(super) outcome: RequestOutcome,
    pub(super) refused: bool,
    pub(super) report_only: Option<ReportOnly>,
    /// Time from the decision to the end of the response.
    pub(super) took: Duration,
    pub(super) attempts: usize,
    /// Time from the first attempt to the response header.
    pub(super) upstream_took: Option<Duration>,
}

impl RequestTiming {
    pub(super) fn start(&mut self, verdict: &Verdict<'_>, method: MethodClass) {
        self.0 = Some(Started {
            at: Instant::now(),
            method,
            kind: verdict.kind(),
            outcome: verdict.outcome,
            refused: verdict.is_refused(),
            report_only: verdict.report_only,
            attempts: 0,
            first_attempt: None,
            upstream_took: None,
        });
    }

    /// Records that the gateway refused the request after its decision.
    pub(super) fn refuse(&mut self, refusal: Refusal<'_>) {
        if let Some(started) = &mut self.0 {
            (started.outcome, started.refused, started.report_only) = (refusal.outcome(), true, None);
        }
    }

    /// Records the start of an attempt.
    pub(super) fn on_attempt(&mut self) {
        if let Some(started) = &mut self.0 {
            started.attempts += 1;
            started.first_attempt.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn on_response_header(&mut self) {
        if let Some(started) = &mut self.0 {
            started.upstream_took = started.first_attempt.map(|first| first.elapsed());
        }
    }

    /// Returns true if [`RequestTiming::finish`] would return None.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Ends the measurement. Returns the data the first time, and then None.
    pub(super) fn finish(&mut self) -> Option<Finished> {
        let Started { at, method, kind, outcome, refused, report_only, attempts, first_attempt: _, upstream_took } =
            self.0.take()?;
        Some(Finished { method, kind, outcome, refused, report_only, took: at.elapsed(), attempts, upstream_took })
    }
}
