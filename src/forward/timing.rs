//! What is noted of a request while it is served, to be told when it has ended.

use std::time::{Duration, Instant};

use crate::decide::{Outcome, RequestKind, Verdict};
use crate::record::MethodClass;

/// What is known of a request so far. The default knows nothing, and has nothing to tell.
#[derive(Debug, Default)]
pub(super) struct RequestTiming(Option<Begun>);

#[derive(Debug)]
struct Begun {
    at: Instant,
    method: MethodClass,
    kind: RequestKind,
    outcome: Outcome,
    refused: bool,
    tries: usize,
    first_try: Option<Instant>,
    upstream_took: Option<Duration>,
}

/// What there is to tell of a request that has ended.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) method: MethodClass,
    pub(super) kind: RequestKind,
    pub(super) outcome: Outcome,
    pub(super) refused: bool,
    pub(super) took: Duration,
    pub(super) tries: usize,
    pub(super) upstream_took: Option<Duration>,
}

impl RequestTiming {
    /// The request was decided.
    pub(super) fn begin(&mut self, verdict: &Verdict<'_>, method: MethodClass) {
        self.0 = Some(Begun {
            at: Instant::now(),
            method,
            kind: verdict.kind(),
            outcome: verdict.outcome,
            refused: verdict.is_refused(),
            tries: 0,
            first_try: None,
            upstream_took: None,
        });
    }

    /// It goes to a node.
    pub(super) fn try_begins(&mut self) {
        if let Some(begun) = &mut self.0 {
            begun.tries += 1;
            begun.first_try.get_or_insert_with(Instant::now);
        }
    }

    /// The header of the response is there.
    pub(super) fn header_came(&mut self) {
        if let Some(begun) = &mut self.0 {
            begun.upstream_took = begun.first_try.map(|first| first.elapsed());
        }
    }

    /// Whether there is nothing to tell, because nobody would hear it or it was told.
    pub(super) fn are_empty(&self) -> bool {
        self.0.is_none()
    }

    /// It has ended. There is something to tell once.
    pub(super) fn end(&mut self) -> Option<Noted> {
        let Begun { at, method, kind, outcome, refused, tries, first_try: _, upstream_took } = self.0.take()?;
        Some(Noted { method, kind, outcome, refused, took: at.elapsed(), tries, upstream_took })
    }
}
