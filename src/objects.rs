//! Reads and changes single objects of a configuration: services, routes, upstreams, policies and origin sets.
//!
//! A change is proposed first: [`propose`] makes the new text, loads it, and compares it with the present one. It writes
//! nothing. The caller stores the text of the proposal, if it wants to.
//!
//! An object has the values that the text has: names of variables instead of their values, and no defaults. The text
//! outside of the object is kept byte by byte, and the comments and the formatting inside of it where values stay.

mod id;
mod merge;
mod problems;
mod redact;

use serde_json::{Map, Value};

pub(crate) use self::id::{ObjectId, Section};
pub(crate) use self::problems::problems_json;
use crate::config::{Source, client_values, values};
use crate::diff::{Difference, Side};
use crate::problem::{KeyPath, PathStep, Problem, ProblemKind, Problems, Severity};
use crate::snapshot::{Loaded, Snapshot};

/// A configuration whose objects are read or changed.
#[derive(Clone, Copy)]
pub(crate) struct Present<'a> {
    /// The text, as it was read.
    pub(crate) text: &'a str,
    pub(crate) snapshot: &'a Snapshot,
}

/// A requested change of one object. The texts are JSON or YAML, from a client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ObjectChange<'a> {
    /// The object with these values. It is created if it does not exist.
    Put(&'a str),
    /// The object with this merge patch (RFC 7396) applied.
    Patch(&'a str),
    /// Deletes the object.
    Delete,
}

/// The state that the client expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Any state.
    Always,
    /// The object does not exist.
    Absent,
    /// The object exists.
    Exists,
    /// The object has one of these versions.
    Version(Vec<String>),
}

/// A part of the configuration with a name: a service, a route, an upstream, a policy or an origin set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    /// Its values. Paths of private keys are redacted.
    pub(crate) value: Value,
    /// It differs for different values: a hash.
    pub(crate) version: String,
}

/// A change that the configuration accepts.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The new text of the configuration.
    pub(crate) text: String,
    /// None if the caller has taken it.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) before: Option<Object>,
    pub(crate) after: Option<Object>,
    /// Warnings and hints about the object. Their places are inside of it.
    pub(crate) problems: Vec<Value>,
    /// What changes for requests.
    pub(crate) difference: Difference,
    /// Warnings about the whole configuration.
    pub(crate) warnings: Problems,
}

/// Why a change is not possible.
#[derive(Debug, PartialEq)]
pub(crate) enum ChangeRefusal {
    /// There is no such object.
    NotFound,
    /// The object is not in the state that the client expects. It has this version, or does not exist.
    Condition { version: Option<String> },
    /// The client's text cannot be read.
    Syntax { problems: Vec<Value> },
    /// The configuration would have these errors.
    Invalid { problems: Vec<Value> },
    /// Other objects use the object that is to be deleted.
    InUse { problems: Vec<Value> },
    /// The object has another name than the address of the request.
    Name { found: String },
    /// The text cannot be edited: it has another form than the editor understands, such as anchors.
    Form,
}

/// Reads an object. None if it does not exist.
pub(crate) fn read(text: &str, id: &ObjectId) -> Option<Object> {
    let values = values(text)?;
    id.find(&values).map(|at| Object::of(at_path(&values, &at)))
}

/// Reads all objects of a section, or of the routes of a service, with their names. None if there is no such service, or if
/// the text has values that JSON cannot have.
pub(crate) fn list(text: &str, of: &ObjectList) -> Option<Vec<(String, Object)>> {
    let values = values(text)?;
    id::names(&values, of).map(|all| all.into_iter().map(|(name, value)| (name, Object::of(value))).collect())
}

/// What a list contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectList {
    Section(Section),
    /// The routes of a service.
    Routes(String),
}

/// Makes the new text of a change, and checks it. `load` loads a text as if it were the text of the configuration.
pub(crate) fn propose(
    present: Present<'_>,
    id: &ObjectId,
    change: ObjectChange<'_>,
    condition: &Condition,
    load: &dyn Fn(&str) -> Loaded,
) -> Result<Proposal, ChangeRefusal> {
    let old = values(present.text).ok_or(ChangeRefusal::Form)?;
    let at = id.find(&old);
    let before = at.as_ref().map(|at| at_path(&old, at));
    condition.check(before)?;
    let sent = match change {
        ObjectChange::Put(text) | ObjectChange::Patch(text) => Some(text),
        ObjectChange::Delete => None,
    };
    let wanted = match (change, before) {
        (ObjectChange::Delete | ObjectChange::Patch(_), None) => return Err(ChangeRefusal::NotFound),
        (ObjectChange::Delete, Some(_)) => None,
        (ObjectChange::Put(text), before) => Some(object(id, client_value(text)?, before, text)?),
        (ObjectChange::Patch(text), Some(before)) => {
            let patch = client_value(text)?;
            Some(object(id, merge::merged(before.clone(), &patch), Some(before), text)?)
        }
    };
    let (new, at) = id.replaced(&old, wanted.clone()).ok_or(ChangeRefusal::NotFound)?;
    let text = match new == old {
        true => present.text.to_owned(),
        false => Source::new("", present.text).with_values(&old, &new, at.0.len()).ok_or(ChangeRefusal::Form)?,
    };
    let Loaded { snapshot, problems } = load(&text);
    let shown = |of: &mut dyn Iterator<Item = &Problem>| problems_json(of, &at, sent, &new);
    let Some(snapshot) = snapshot else {
        let is_error = |problem: &&Problem| problem.kind.severity() == Severity::Error;
        let errors = shown(&mut problems.iter().filter(is_error));
        let is_unknown = |problem: &Problem| matches!(problem.kind, ProblemKind::UnknownName { .. });
        return Err(match wanted.is_none() && problems.iter().filter(is_error).all(is_unknown) {
            true => ChangeRefusal::InUse { problems: errors },
            false => ChangeRefusal::Invalid { problems: errors },
        });
    };
    let about_object = shown(&mut problems.iter().filter(|problem| wanted.is_some() && problem.at.is_within(&at)));
    let side = |name, snapshot| Side { name, snapshot };
    let difference = Difference::of(side("before", present.snapshot), side("after", &snapshot));
    let (before, after) = (before.map(Object::of), wanted.as_ref().map(Object::of));
    Ok(Proposal {
        text,
        snapshot: Some(snapshot),
        before,
        after,
        problems: about_object,
        difference,
        warnings: problems,
    })
}

fn client_value(text: &str) -> Result<Value, ChangeRefusal> {
    client_values(text).map_err(|problems| ChangeRefusal::Syntax {
        problems: problems_json(&mut problems.iter(), &KeyPath::default(), Some(text), &Value::Null),
    })
}

/// The values of an object as the text gets them: with its name, and with the paths that a redacted value stands for.
fn object(id: &ObjectId, mut value: Value, before: Option<&Value>, sent: &str) -> Result<Value, ChangeRefusal> {
    if let Err(at) = redact::restore(&mut value, before) {
        let kind = ProblemKind::WrongValue {
            found: format!("the string \"{}\"", redact::REDACTED),
            expected: "the path of a file; the object had no path here".to_owned(),
        };
        return Err(invalid(&Problem { at, kind }, sent));
    }
    if !id.has_form_of(&value) {
        let found = match value {
            Value::Array(_) => "a list",
            Value::Null => "no value",
            Value::Object(_) => "a mapping",
            _ => "a text or a number",
        };
        let expected = if value.is_object() { "a list of origins" } else { "a mapping of keys" };
        let kind = ProblemKind::WrongValue { found: found.to_owned(), expected: expected.to_owned() };
        return Err(invalid(&Problem { at: KeyPath::default(), kind }, sent));
    }
    id.named(value).map_err(|found| ChangeRefusal::Name { found })
}

/// The refusal for a problem of the sent object.
fn invalid(problem: &Problem, sent: &str) -> ChangeRefusal {
    let problems = problems_json(&mut std::iter::once(problem), &KeyPath::default(), Some(sent), &Value::Null);
    ChangeRefusal::Invalid { problems }
}

fn at_path<'v>(values: &'v Value, at: &KeyPath) -> &'v Value {
    at.0.iter().fold(values, |value, step| match step {
        PathStep::Key(key) => &value[key.as_str()],
        PathStep::Index(index) => &value[*index],
    })
}

// === impl Object, Condition ===

impl Object {
    fn of(value: &Value) -> Self {
        let mut shown = value.clone();
        redact::redact(&mut shown);
        Object { value: shown, version: version(value) }
    }
}

/// A hash of the values. Mappings have no order.
fn version(value: &Value) -> String {
    let text = sorted(value).to_string();
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let mut keys: Vec<&String> = entries.keys().collect();
            keys.sort_unstable();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&entries[key]))).collect::<Map<_, _>>())
        }
        Value::Array(entries) => entries.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

impl Condition {
    fn check(&self, present: Option<&Value>) -> Result<(), ChangeRefusal> {
        let version = present.map(version);
        let holds = match self {
            Condition::Always => true,
            Condition::Absent => version.is_none(),
            Condition::Exists => version.is_some(),
            Condition::Version(wanted) => version.as_ref().is_some_and(|version| wanted.contains(version)),
        };
        if holds { Ok(()) } else { Err(ChangeRefusal::Condition { version }) }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
