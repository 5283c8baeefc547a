//! Routes with a condition that corsgate cannot express, such as one on header fields. They are left out, because
//! without the condition they would take requests of other routes.

use super::SourceFormat;
use super::finding::{Finding, Kind, Place};
use super::finish::{Sample, left_out, sample_host};
use super::model::{Condition, Cors, EdgeAnswer, FOREIGN, Model};
use super::witness::{Answer, Witness};
use super::{origins, rerouted};
use crate::snapshot::Snapshot;

/// Removes the routes with a condition that corsgate cannot express. Each finding has a witness: a request for such a
/// route, from an origin that its policy allows or from a foreign origin.
pub(super) fn leave_out(model: &mut Model, format: SourceFormat) {
    let of_all = &model.cors;
    for service in &mut model.services {
        let host = sample_host(service.hosts.first().map(String::as_str));
        let of_service = service.cors.again();
        let mut findings = Vec::new();
        service.routes.retain_mut(|route| {
            let Some(Condition { what, fields }) = route.condition.take() else { return true };
            let policy = match (&route.cors, &of_service, of_all) {
                (Cors::Policy(policy), ..) | (Cors::Inherited, Cors::Policy(policy), _) => Some(&**policy),
                (Cors::Inherited, Cors::Inherited, Some(policy)) => Some(policy),
                _ => None,
            };
            let sample = Sample::of(&host, route);
            let request = |origin: &str, before: Answer| {
                let method = sample.method.as_deref().unwrap_or("GET");
                let witness = Witness::request(method, origin, before).to(&sample.host, &sample.path);
                Witness { fields: fields.clone(), ..witness }
            };
            let allowed = match policy {
                Some(policy) => request(&policy.sample_origin(), origins::allowed(policy)),
                None => request("https://app.example", Answer::ServiceDecides),
            };
            let foreign = policy.filter(|policy| !policy.is_any_origin()).map(|_| {
                request(
                    FOREIGN,
                    if format == SourceFormat::GatewayApi { Answer::Unreadable } else { Answer::ServiceDecides },
                )
            });
            let lost = |witness| {
                Finding::new(route.at, Kind::ConditionLost { what: what.clone(), is_refusal: false }).with(witness)
            };
            // Whatever the policies are, another route lets in the clients that this route refuses.
            let refuses = !route.behaviors.allow.is_empty()
                || !route.behaviors.deny.is_empty()
                || matches!(route.answer, Some(EdgeAnswer::Respond(status)) if status >= 400);
            if refuses {
                let witness = rerouted::witness(&sample.host, &sample.path);
                let witness = Witness { fields: fields.clone(), ..witness };
                let kind = Kind::ConditionLost { what: what.clone(), is_refusal: true };
                findings.push(Finding::new(route.at, kind).with(witness));
            }
            findings.extend(foreign.into_iter().chain([allowed.clone()]).map(lost));
            findings.push(Finding::new(route.at, Kind::MatchNotImported { what: what.clone() }).with(allowed));
            left_out(&mut findings, &mut route.findings);
            false
        });
        // A service without routes is left out.
        let into = if service.routes.is_empty() { &mut model.findings } else { &mut service.findings };
        into.append(&mut findings);
    }
}

/// Removes the findings about lost conditions whose witness shows no change: no route takes the request, or the answer
/// is the same. Returns whether a finding was removed.
pub(super) fn seen(model: &mut Model, snapshot: &Snapshot) -> bool {
    let mut has_removed = false;
    let mut retain = |findings: &mut Vec<Finding>| {
        let before = findings.len();
        findings.retain(|finding| {
            let (Kind::ConditionLost { .. }, Some(witness)) = (&finding.kind, &finding.witness) else { return true };
            match (witness.before, witness.answer(snapshot)) {
                (_, None | Some(Answer::NotRouted)) => false,
                // Another policy refuses the foreign origin too.
                (Answer::ServiceDecides, Some(Answer::Unreadable)) => witness.origin.as_deref() != Some(FOREIGN),
                (before, Some(after)) => before != after,
            }
        });
        // One finding for each condition is enough. The first one has the more serious witness, if it has a foreign
        // origin.
        let mut lost: Vec<Place> = Vec::new();
        findings.retain(|finding| match finding.kind {
            Kind::ConditionLost { .. } => {
                let is_first = !lost.contains(&finding.at);
                lost.push(finding.at);
                is_first
            }
            Kind::MatchNotImported { .. } => !lost.contains(&finding.at),
            _ => true,
        });
        has_removed |= findings.len() != before;
    };
    retain(&mut model.findings);
    model.services.iter_mut().for_each(|service| retain(&mut service.findings));
    has_removed
}
