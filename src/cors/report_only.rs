//! Report-only policies: compares the decision of a report-only policy with the decision of the policy in force.

use super::{Decision, PolicyAction, Reason};
use crate::codes::coded_enum;

/// A request for which a report-only policy and the policy in force have different results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportOnly {
    /// Change of the result.
    pub change: ReportedChange,
    /// The reason code of the report-only policy.
    pub reason: Reason,
}

coded_enum! {
    /// A change that a report-only policy would make to the result of a request.
    pub enum ReportedChange {
        /// The report-only policy would refuse the request, or reject a request whose response the page cannot read
        /// now.
        WouldRefuse = "would_refuse",
        /// The report-only policy would allow the request, or forward a request that is rejected now.
        WouldAllow = "would_allow",
    }
}

/// Result of a decision for a page, from the widest to the narrowest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Allowed,
    /// The preflight fails, or the page cannot read the response.
    Blocked,
    /// The request does not reach the upstream.
    Rejected,
}

impl ReportOnly {
    /// Compares the decisions of both policies. None if the result is the same.
    pub(crate) fn of(in_force: &Decision, reported: &Decision) -> Option<Self> {
        let change = match Reach::of(reported).cmp(&Reach::of(in_force)) {
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => ReportedChange::WouldRefuse,
            std::cmp::Ordering::Less => ReportedChange::WouldAllow,
        };
        Some(ReportOnly { change, reason: reported.reason })
    }

    /// Whether the report-only policy would refuse the request.
    pub(crate) fn would_refuse(self) -> bool {
        self.change == ReportedChange::WouldRefuse
    }
}

impl Reach {
    fn of(decision: &Decision) -> Self {
        match decision.action {
            PolicyAction::Reject => Reach::Rejected,
            PolicyAction::Forward | PolicyAction::AnswerPreflight(_) if decision.reason.is_refusal() => Reach::Blocked,
            PolicyAction::Forward | PolicyAction::AnswerPreflight(_) => Reach::Allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, header};

    use super::super::{CorsRequest, OriginSets, Policy, Settings};
    use super::*;
    use crate::domain::{OwnOrigin, Scheme};
    use crate::problem::{At, Problems};

    fn decide(policy: &str) -> Decision {
        let settings: Settings = serde_yaml::from_str(policy).unwrap();
        let policy = Policy::compile(&settings, &OriginSets::default(), &At::root(), &mut Problems::default()).unwrap();
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://a.example"))]);
        let own_origin = OwnOrigin::of(Scheme::Https, "api.example");
        policy.decide(&CorsRequest { method: &Method::GET, headers: &headers, own_origin })
    }

    /// Every pair of an allowed, a blocked and a rejected request.
    #[test]
    fn a_change_is_reported_if_another_page_can_read_or_another_request_is_forwarded() {
        let policies = [
            ("allow_origins: https://a.example", "allowed_exact"),
            ("allow_origins: https://b.example", "origin_not_allowed"),
            ("{ allow_origins: https://b.example, disallowed_origins: reject }", "origin_not_allowed"),
        ];
        for (i, (in_force, _)) in policies.iter().enumerate() {
            for (k, (reported, reason)) in policies.iter().enumerate() {
                let found = ReportOnly::of(&decide(in_force), &decide(reported));
                let expected = match k.cmp(&i) {
                    std::cmp::Ordering::Equal => None,
                    std::cmp::Ordering::Greater => Some((ReportedChange::WouldRefuse, *reason)),
                    std::cmp::Ordering::Less => Some((ReportedChange::WouldAllow, *reason)),
                };
                assert_eq!(found.map(|found| (found.change, found.reason.code())), expected, "{in_force}, {reported}");
                let would_refuse = expected.is_some_and(|(change, _)| change == ReportedChange::WouldRefuse);
                assert_eq!(found.is_some_and(ReportOnly::would_refuse), would_refuse);
            }
        }
    }
}
