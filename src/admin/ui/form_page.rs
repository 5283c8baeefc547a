//! The page of one object: its form, and below it what a change would do.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::address::{Address, NewObject, form_of};
use super::markup::{self, prose};
use super::{DELETE, DELETE_NOW, PREVIEW, Process, SAVE, Visitor};
use crate::admin::api::error::{ApiError, ErrorCode};
use crate::config::form::{self, Control, Entered, FormField, FormOf, UnreadableField};
use crate::config::part_text;
use crate::explain::{self, Configuration, Question};
use crate::objects::{ObjectId, Proposal};
use crate::terminal::{Paint, Width};

/// A page with the form of one object: the entered texts, and the result if the form was sent.
pub(super) struct FormPage {
    address: Address,
    title: String,
    of: FormOf,
    pub(super) entered: Entered,
    /// Version of the object on which the form is based. Empty if it does not exist.
    pub(super) version: String,
    /// Number of the configuration that has the change that was just saved.
    pub(super) saved: Option<u64>,
    pub(super) tried: TriedPage,
    pub(super) outcome: Outcome,
}

/// The result of a sent form.
pub(super) enum Outcome {
    NotSent,
    /// The name of a new object cannot be used.
    Name(&'static str),
    Unreadable(Vec<UnreadableField>),
    Refused(ApiError),
    /// The change is possible. `exchange` explains the request of the tried page.
    Possible {
        proposal: Box<Proposal>,
        exchange: Option<String>,
    },
}

/// A page that a person wants to try with the new policy.
#[derive(Debug, Default)]
pub(super) struct TriedPage {
    origin: String,
    url: String,
    method: String,
}

/// Names of the fields of [`TriedPage`]. No key of an object has such a name.
const TRY_ORIGIN: &str = "try-origin";
const TRY_URL: &str = "try-url";
const TRY_METHOD: &str = "try-method";

impl TriedPage {
    pub(super) fn of(sent: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| sent.get(key).map(|text| text.trim().to_owned()).unwrap_or_default();
        TriedPage { origin: text(TRY_ORIGIN), url: text(TRY_URL), method: text(TRY_METHOD) }
    }

    /// What happens to the request with the new configuration. None if no page is tried.
    pub(super) fn explain(&self, process: &Process, proposal: &Proposal) -> Option<String> {
        if self.origin.is_empty() || self.url.is_empty() {
            return None;
        }
        let question = Question::new(&self.origin, &self.url)
            .and_then(|question| if self.method.is_empty() { Ok(question) } else { question.method(&self.method) });
        let question = match question {
            Ok(question) => question,
            Err(error) => return Some(error.to_string()),
        };
        let load = |text: &str| process.live.source().load_checked(text);
        let configuration =
            Configuration::new("the new configuration", &proposal.text, proposal.snapshot.as_ref()?, &load);
        Some(explain::text(&explain::explain(&question, &configuration), Paint::Plain, Width::DEFAULT))
    }
}

impl FormPage {
    pub(super) fn new_object(new: NewObject) -> Self {
        let of = new.form();
        let mut entered = form::entered(&form::fields(of), &Value::Null);
        entered.insert("name".to_owned(), String::new());
        Self::sent(Address::New(new), of, entered, "", TriedPage::default())
    }

    pub(super) fn of(id: ObjectId, value: &Value, version: &str) -> Self {
        let of = form_of(&id);
        let entered = form::entered(&form::fields(of), value);
        Self::sent(Address::Object(id), of, entered, version, TriedPage::default())
    }

    /// A page at the address of its form.
    pub(super) fn sent(address: Address, of: FormOf, entered: Entered, version: &str, tried: TriedPage) -> Self {
        FormPage {
            title: title(&address),
            address,
            of,
            entered,
            version: version.to_owned(),
            saved: None,
            tried,
            outcome: Outcome::NotSent,
        }
    }

    /// Whether the object exists already.
    fn exists(&self) -> bool {
        !self.version.is_empty()
    }

    pub(super) fn markup(&self, visitor: &Visitor) -> Markup {
        let fields = form::fields(self.of);
        let problems = self.problems();
        let place = |path: &str| self.place(&fields, path);
        let csrf = visitor.session.as_ref().map(|session| session.csrf.as_str());
        let may_write = visitor.may_write();
        markup::page(
            &self.title,
            visitor,
            &html! {
                h1 { (self.title) }
                @if let Some(number) = self.saved {
                    p.notice role="status" { "Saved. It is active since generation " (number) "." }
                }
                @if let Outcome::Refused(error) = &self.outcome { (refusal(error)) }
                @if !problems.is_empty() {
                    div.problems role="alert" tabindex="-1" {
                        h2 { "Nothing was changed: " (problems.len()) (if problems.len() == 1 { " problem" } else { " problems" }) }
                        ul {
                            @for problem in &problems {
                                li {
                                @match place(&problem.path) {
                                    Some(field) => a href=(format!("#f-{field}")) { code { (problem.path) } },
                                    None => code { (problem.path) },
                                }
                                ": " (prose(&problem.text()))
                            }
                            }
                        }
                    }
                }
                @if let Outcome::Possible { proposal, exchange } = &self.outcome { (possible(proposal, exchange.as_deref())) }
                form method="post" action=(self.address.path()) {
                    @if let Some(csrf) = csrf { input type="hidden" name="csrf" value=(csrf); }
                    input type="hidden" name="version" value=(self.version);
                    @if matches!(self.address, Address::New(_)) {
                        div.field {
                            label for="f-name" { "name" }
                        @for problem in problems.iter().filter(|problem| place(&problem.path).as_deref() == Some("name")) {
                            p.error { (prose(&problem.text())) }
                        }
                            input #f-name type="text" name="name" value=(self.text("name")) required disabled[!may_write] aria-describedby="h-name";
                            p.hint #h-name { (prose("1 to 128 letters, digits, `-`, `_` and `.`; a route may also have the name of its path.")) }
                        }
                    }
                    @for field in &fields { (self.field(field, &problems, &fields, may_write)) }
                    fieldset {
                        legend { "Try a page" }
                        p.hint { "Optional. The preview shows what the browser and the gateway say to each other." }
                        @for (name, title, example, value) in [
                            (TRY_ORIGIN, "origin of the page", "https://app.example", &self.tried.origin),
                            (TRY_URL, "requested URL", "https://api.example/orders", &self.tried.url),
                            (TRY_METHOD, "method", "GET", &self.tried.method),
                        ] {
                            div.field {
                                label for=(name) { (title) }
                                input id=(name) type="text" name=(name) value=(value) placeholder=(example) disabled[!may_write];
                            }
                        }
                    }
                    @if may_write {
                        div.buttons {
                            button type="submit" name=(PREVIEW) value="1" { "Preview" }
                        @match &self.outcome {
                            Outcome::Possible { proposal, .. } if proposal.after.is_none() => {
                                button.danger type="submit" name=(DELETE_NOW) value="1" { "Delete it now" }
                            }
                            outcome => {
                                @if matches!(outcome, Outcome::Possible { .. }) {
                                    button.main type="submit" name=(SAVE) value="1" { "Save" }
                                }
                                @if self.exists() { button.danger type="submit" name=(DELETE) value="1" { "Delete…" } }
                            }
                        }
                        }
                    } @else if visitor.can_log_in {
                        p { a href=(Address::Login.path()) { "Log in" } " with a token of the role " code { "write" } " to change it." }
                    }
                }
            },
        )
    }

    /// The field of a problem. A problem of a new object as a whole is one of its name.
    fn place(&self, fields: &[FormField], path: &str) -> Option<String> {
        match (&self.address, path) {
            (Address::New(_), "" | "name") if !fields.iter().any(|field| field.path.is_empty()) => {
                Some("name".to_owned())
            }
            (Address::New(_), "name") => Some("name".to_owned()),
            (_, path) => owner(fields, path),
        }
    }

    fn text(&self, path: &str) -> &str {
        self.entered.get(path).map(String::as_str).unwrap_or_default()
    }

    fn field(&self, field: &FormField, problems: &[Problem], all: &[FormField], may_write: bool) -> Markup {
        let FormField { path, description, default, control } = field;
        let key = path.rsplit('.').next().unwrap_or_default();
        let title = if key.is_empty() { "origins" } else { key };
        let (id, hint, error) = (format!("f-{path}"), format!("h-{path}"), format!("e-{path}"));
        let own: Vec<&Problem> =
            problems.iter().filter(|problem| owner(all, &problem.path).as_ref() == Some(path)).collect();
        let described = if own.is_empty() { hint.clone() } else { format!("{error} {hint}") };
        let invalid = (!own.is_empty()).then_some("true");
        let text = self.text(path);
        let rows = text.lines().count().clamp(2, 12);
        let errors = html! {
            @if !own.is_empty() { div id=(error) { @for problem in &own { p.error { (prose(&problem.text())) } } } }
        };
        let nested =
            |fields: &[FormField]| html! { @for field in fields { (self.field(field, problems, all, may_write)) } };
        match control {
            Control::Group(fields) => html! {
                fieldset id=(id) { legend { (title) } p.hint id=(hint) { (prose(description)) } (errors) (nested(fields)) }
            },
            Control::Policy(fields) => html! {
                fieldset id=(id) {
                    legend { (title) }
                    p.hint id=(hint) { (prose(description)) }
                    (errors)
                    div.field {
                        label for=(format!("k-{path}")) { "policy" }
                        select id=(format!("k-{path}")) name=(path) disabled[!may_write] aria-describedby=(described) {
                            @for (word, meaning) in [("", "the one of the level above"), ("none", "no CORS handling"), ("named", "a named policy"), ("own", "its own policy, below")] {
                                option value=(word) selected[word == text] { (meaning) }
                            }
                        }
                    }
                    div.field {
                        label for=(format!("f-{path}.name")) { "name of the policy" }
                        input id=(format!("f-{path}.name")) type="text" name=(format!("{path}.name")) value=(self.text(&format!("{path}.name"))) disabled[!may_write];
                    }
                    details open[text == "own" || !own.is_empty()] { summary { "Its own policy" } (nested(fields)) }
                }
            },
            Control::Lines(_) | Control::Yaml => html! {
                div.field {
                    label for=(id) { (title) }
                    (errors)
                    textarea id=(id) name=(path) rows=(rows) spellcheck="false" disabled[!may_write] aria-describedby=(described) aria-invalid=[invalid] { "\n" (text) }
                    p.hint id=(hint) {
                        (prose(description)) " "
                        @if *control == Control::Yaml { "As YAML." } @else { "One on each line." }
                    }
                    @if let Control::Lines(words) = control { (meanings(words)) }
                }
            },
            Control::Text => html! {
                div.field {
                    label for=(id) { (title) }
                    (errors)
                    input id=(id) type="text" name=(path) value=(text) placeholder=[default.as_ref().map(form::word)] disabled[!may_write] aria-describedby=(described) aria-invalid=[invalid];
                    p.hint id=(hint) { (prose(description)) }
                }
            },
            Control::Choice(choices) => html! {
                div.field {
                    label for=(id) { (title) }
                    (errors)
                    select id=(id) name=(path) disabled[!may_write] aria-describedby=(described) aria-invalid=[invalid] {
                        option value="" { (default.as_ref().map_or("not set".to_owned(), |value| format!("{} (default)", form::word(value)))) }
                        @let known = choices.iter().any(|(value, _)| form::word(value) == text);
                        @if !known && !text.is_empty() { option value=(text) selected { (text) } }
                        @for (value, _) in choices {
                            @let word = form::word(value);
                            option value=(word) selected[word == text] { (word) }
                        }
                    }
                    p.hint id=(hint) { (prose(description)) }
                    (meanings(choices))
                }
            },
        }
    }

    /// The problems that belong to fields.
    fn problems(&self) -> Vec<Problem> {
        match &self.outcome {
            Outcome::NotSent | Outcome::Possible { .. } => Vec::new(),
            Outcome::Name(fault) => {
                vec![Problem { path: "name".to_owned(), fault: (*fault).to_owned(), remedy: String::new() }]
            }
            Outcome::Unreadable(faults) => faults
                .iter()
                .map(|UnreadableField { path, fault, remedy }| Problem {
                    path: path.clone(),
                    fault: fault.clone(),
                    remedy: remedy.clone(),
                })
                .collect(),
            Outcome::Refused(error) => {
                let part = |problem: &Value, key: &str| problem[key].as_str().unwrap_or_default().to_owned();
                let each = |problem: &Value| Problem {
                    path: part(problem, "path"),
                    fault: part(problem, "fault"),
                    remedy: part(problem, "remedy"),
                };
                error.problems.iter().filter(|problem| problem["severity"] == "error").map(each).collect()
            }
        }
    }
}

/// A list of words with their meanings.
fn meanings(words: &[(Value, String)]) -> Markup {
    html! {
        @if words.iter().any(|(_, meaning)| !meaning.is_empty()) {
            ul.hint { @for (value, meaning) in words { li { code { (form::word(value)) } ": " (prose(meaning)) } } }
        }
    }
}

fn title(address: &Address) -> String {
    match address {
        Address::Object(id) => id.to_string(),
        Address::New(NewObject::In(section)) => format!("New entry of {}", section.key()),
        Address::New(NewObject::RouteOf(service)) => format!("New route of {service}"),
        Address::Home | Address::Login | Address::Logout => String::new(),
    }
}

struct Problem {
    /// Place in the object.
    path: String,
    fault: String,
    remedy: String,
}

impl Problem {
    fn text(&self) -> String {
        if self.remedy.is_empty() { self.fault.clone() } else { format!("{}; {}", self.fault, self.remedy) }
    }
}

/// The field that has a place of the object: `allow_origins[0]` is in `allow_origins`. None if no field has it.
fn owner(fields: &[FormField], path: &str) -> Option<String> {
    let has = |field: &FormField| {
        let rest = path.strip_prefix(field.path.as_str());
        field.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let field = fields.iter().find(|field| has(field))?;
    match &field.control {
        Control::Group(inner) | Control::Policy(inner) if inner.iter().any(has) => owner(inner, path),
        _ => Some(field.path.clone()),
    }
}

fn refusal(error: &ApiError) -> Markup {
    let is_conflict = error.code() == ErrorCode::PreconditionFailed;
    html! {
        @if is_conflict {
            div.problems role="alert" {
                h2 { "Somebody else has changed or deleted it" }
                p { "Nothing was saved. The form below has your values. Open the object in another tab to see its present state. \
                     A preview now compares your values with it, and saving replaces it." }
            }
        } @else if error.problems.iter().all(|problem| problem["severity"] != "error") {
            div.problems role="alert" { h2 { "Nothing was changed" } p { (prose(&error.message)) } }
        }
    }
}

fn possible(proposal: &Proposal, exchange: Option<&str>) -> Markup {
    html! {
        section.preview role="status" {
            h2 { "Preview: nothing is saved yet" }
            @if !proposal.problems.is_empty() {
                ul {
                    @for problem in &proposal.problems {
                        li { (problem["severity"].as_str().unwrap_or_default()) ": " code { (problem["path"].as_str().unwrap_or_default()) } " " (prose(problem["fault"].as_str().unwrap_or_default())) "; " (prose(problem["remedy"].as_str().unwrap_or_default())) }
                    }
                }
            }
            h3 { "What changes for requests" }
            pre tabindex="0" { (proposal.difference.text(Paint::Plain, Width::DEFAULT)) }
            @if let Some(exchange) = exchange {
                h3 { "The tried page" }
                pre tabindex="0" { (exchange) }
            }
            @match &proposal.after {
                Some(after) => { h3 { "The object" } pre tabindex="0" { (part_text(None, &after.value)) } },
                None => p { "The object is deleted." },
            }
        }
    }
}
