//! Compares the result of a request with the expected one.

use crate::config::ExpectedResult;
use crate::explain::Outcome;

/// The part of an expectation that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    Result,
    /// The result is the expected one, but the reason is another one.
    Reason,
}

/// Returns the result of a request, or None if another server decides.
pub(crate) fn result_of(outcome: Outcome, reaches_upstream: bool) -> Option<ExpectedResult> {
    match outcome {
        Outcome::Allowed => Some(ExpectedResult::Allowed),
        Outcome::Refused if reaches_upstream => Some(ExpectedResult::Unreadable),
        Outcome::Refused => Some(ExpectedResult::Refused),
        Outcome::Undecided => None,
    }
}

/// Compares a result with the expected result. `code` is only called if the expectation has a reason.
pub(super) fn judge(
    expected: ExpectedResult,
    reason: Option<&'static str>,
    result: Option<ExpectedResult>,
    code: impl FnOnce() -> &'static str,
) -> Result<(), Mismatch> {
    if result != Some(expected) {
        return Err(Mismatch::Result);
    }
    match reason {
        Some(reason) if code() != reason => Err(Mismatch::Reason),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CODES;
    use crate::cors::Reason;
    use crate::decide::RefusalCode;
    use crate::explain::{Cause, Initiator};

    /// Checks that the configuration and `explain` use the same words.
    #[test]
    fn the_words_of_the_schema_are_those_of_explain() {
        assert_eq!(crate::config::INITIATORS, Initiator::ALL.map(Initiator::code));
        let of_decisions = Reason::ALL.map(Reason::code);
        let of_refusals = RefusalCode::ALL.map(RefusalCode::code);
        assert!(of_decisions.iter().chain(&Cause::CODES).all(|code| CODES.contains(code)));
        let known =
            |code: &&str| of_decisions.iter().chain(&Cause::CODES).chain(&of_refusals).any(|known| known == code);
        assert!(CODES.iter().all(known));
    }

    #[test]
    fn the_results_do_not_overlap() {
        use ExpectedResult::{Allowed, Refused, Unreadable};
        for (outcome, reaches_upstream, result) in [
            (Outcome::Allowed, true, Some(Allowed)),
            (Outcome::Allowed, false, Some(Allowed)),
            (Outcome::Refused, true, Some(Unreadable)),
            (Outcome::Refused, false, Some(Refused)),
            (Outcome::Undecided, true, None),
            (Outcome::Undecided, false, None),
        ] {
            assert_eq!(result_of(outcome, reaches_upstream), result, "{outcome:?}, {reaches_upstream}");
        }
    }
}
