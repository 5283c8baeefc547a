//! Parses the settings of an expectation to a question for `explain`.

use crate::config::{AssumedResponse, CODES, Expectation, ExpectedResult, INITIATORS, PageHeaders};
use crate::explain::fetch::Credentials;
use crate::explain::{Initiator, InvalidQuestion, Question, QuestionPart};
use crate::notation::List;
use crate::problem::{At, KeyPath, Known, ProblemKind, Problems};

/// An expectation without problems.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path of the expectation, such as `expect[0]`.
    pub(super) at: KeyPath,
    pub(super) question: Question,
    pub(super) result: ExpectedResult,
    pub(super) reason: Option<&'static str>,
}

/// Returns the valid expectations of a list. Adds a problem for each other one.
pub(super) fn entries(list: Option<&[Expectation]>, at: &At<'_>, problems: &mut Problems) -> Vec<Entry> {
    if list.is_some_and(<[Expectation]>::is_empty) {
        problems.add(at, ProblemKind::EmptyList { required: false });
    }
    let list = list.unwrap_or_default().iter().enumerate();
    list.filter_map(|(i, settings)| entry(settings, &at.index(i), problems)).collect()
}

fn entry(settings: &Expectation, at: &At<'_>, problems: &mut Problems) -> Option<Entry> {
    let Expectation { page, method, url, headers, credentials, initiator, reads, client, upstream, result, reason } =
        settings;
    let mut found = Problems::default();
    for (key, is_missing, example) in [
        ("page", page.is_none(), "page: https://app.example"),
        ("url", url.is_none(), "url: https://api.example/orders"),
        ("result", result.is_none(), "result: allowed"),
    ] {
        if is_missing {
            found.add(&at.key(key), ProblemKind::Missing { example });
        }
    }
    let initiator = known(initiator.as_deref(), &INITIATORS, &at.key("as"), &mut found);
    let initiator = Initiator::ALL.into_iter().find(|known| Some(known.code()) == initiator);
    let reason = known(reason.as_deref(), &CODES, &at.key("reason"), &mut found);
    let initiator = initiator.unwrap_or(Initiator::Fetch);
    let question = match (page, url) {
        (Some(page), Some(url)) => match Question::of(initiator, page, url) {
            Ok(question) => Some(question),
            Err(invalid) => {
                let key = if invalid.part == QuestionPart::Origin { "page" } else { "url" };
                found.add(&at.key(key), kind_of(invalid));
                None
            }
        },
        _ => None,
    };
    let question = question.map(|question| {
        let mut asked = Asked { question, problems: &mut found };
        if let Some(method) = method {
            asked.set(&at.key("method"), |question| question.method(method));
        }
        let at_headers = at.key("headers");
        match headers {
            Some(PageHeaders::Lines(lines)) => {
                for (i, line) in lines.iter().enumerate() {
                    asked.set(&at_headers.index(i), |question| question.header(line));
                }
            }
            Some(PageHeaders::Values(fields)) => {
                for (name, value) in &fields.0 {
                    asked.set(&at_headers.key(name), |question| question.header(&format!("{name}: {value}")));
                }
            }
            None => {}
        }
        if *credentials {
            asked.set(&at.key("credentials"), |question| question.credentials(Credentials::Include));
        }
        for (i, name) in reads.iter().flat_map(List::entries).enumerate() {
            asked.set(&at.key("reads").index(i), |question| question.reads(name));
        }
        match client.as_ref().map(|client| (client, client.parse())) {
            Some((_, Ok(address))) => asked.question = asked.question.client(address),
            Some((client, Err(_))) => asked.problems.add(
                &at.key("client"),
                ProblemKind::BadAddress { text: client.clone(), what: "an IP address", example: "192.0.2.7" },
            ),
            None => {}
        }
        let AssumedResponse { status, headers } = upstream;
        let at_upstream = at.key("upstream");
        if let Some(status) = *status {
            asked.set(&at_upstream.key("status"), |question| question.upstream_status(status));
        }
        let at_headers = at_upstream.key("headers");
        for (name, value) in &headers.0 {
            asked.set(&at_headers.key(name), |question| question.upstream_header(&format!("{name}: {value}")));
        }
        asked.question
    });
    let usable = found.is_empty();
    problems.extend(found);
    Some(Entry { at: at.path(), question: question.filter(|_| usable)?, result: (*result)?, reason })
}

/// A question that gets its parts one after the other.
struct Asked<'p> {
    question: Question,
    problems: &'p mut Problems,
}

impl Asked<'_> {
    /// Sets a part of the question. If the part is invalid, adds a problem and does not change the question.
    fn set(&mut self, at: &At<'_>, change: impl FnOnce(Question) -> Result<Question, InvalidQuestion>) {
        match change(self.question.clone()) {
            Ok(question) => self.question = question,
            Err(invalid) => self.problems.add(at, kind_of(invalid)),
        }
    }
}

fn kind_of(InvalidQuestion { part: _, reason, instead }: InvalidQuestion) -> ProblemKind {
    let instead = instead.map(|part| match part {
        QuestionPart::Credentials => "write `credentials: true`",
        QuestionPart::Origin => "write the origin under `page`",
        _ => "write `as: websocket`",
    });
    match (instead, reason.rsplit_once("; ")) {
        (Some(remedy), _) => ProblemKind::BadExpectation { why: reason, remedy: remedy.to_owned() },
        (None, Some((why, remedy))) => ProblemKind::BadExpectation { why: why.to_owned(), remedy: remedy.to_owned() },
        (None, None) => ProblemKind::BadExpectation { why: reason, remedy: "correct it".to_owned() },
    }
}

/// Returns the word if it is in the list. Otherwise adds a problem.
fn known(
    word: Option<&str>,
    words: &'static [&'static str],
    at: &At<'_>,
    problems: &mut Problems,
) -> Option<&'static str> {
    let word = word?;
    let found = words.iter().find(|known| **known == word);
    if found.is_none() {
        let known = Known::instead_of(word, words.iter().map(|word| (*word).to_owned()).collect());
        problems.add(at, ProblemKind::UnknownWord { word: word.to_owned(), known });
    }
    found.copied()
}
