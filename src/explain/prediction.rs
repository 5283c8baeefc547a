//! The result of a question from the simulation, without the places, texts and edits of an explanation.

use super::cause::{Cause, Diagnosis};
use super::fetch::Stage;
use super::question::Question;
use super::simulation::Simulation;
use super::{FilePosition, Outcome};
use crate::config::{Document, Source};
use crate::decide::Action;
use crate::snapshot::Snapshot;

/// The result of a question. It equals the result of the [`Explanation`](super::Explanation).
pub(crate) struct Prediction<'a> {
    question: &'a Question,
    snapshot: &'a Snapshot,
    simulation: Simulation<'a>,
}

impl<'a> Prediction<'a> {
    pub(crate) fn of(question: &'a Question, snapshot: &'a Snapshot) -> Self {
        Prediction { question, snapshot, simulation: Simulation::of(question, snapshot) }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.simulation.outcome()
    }

    /// Returns true if the upstream gets a request other than a preflight.
    pub(crate) fn reaches_upstream(&self) -> bool {
        let mut requests = self.simulation.steps.iter().filter(|step| step.stage == Stage::Request);
        requests.any(|step| matches!(step.exchange.verdict.action, Action::Forward(_)))
    }

    /// Returns the cause of the refusal, and its place in the text. Returns None if the request is not refused.
    /// `document` and `source` must belong to the snapshot.
    pub(crate) fn cause(&self, document: &Document, source: &Source<'_>) -> Option<(Cause, Option<FilePosition>)> {
        let Diagnosis { cause, at } = Diagnosis::of(self.question, &self.simulation, self.snapshot, document);
        Some((cause?, at.map(|at| FilePosition::of(source, &at))))
    }

    /// Returns the code of the cause, or else the gateway's code. `document` must belong to the snapshot.
    pub(crate) fn code(&self, document: &Document) -> &'static str {
        let cause = match self.outcome() {
            Outcome::Refused => Diagnosis::of(self.question, &self.simulation, self.snapshot, document).cause,
            Outcome::Allowed | Outcome::Undecided => None,
        };
        cause.map_or(self.simulation.last().exchange.verdict.outcome.code(), |cause| cause.code())
    }
}
