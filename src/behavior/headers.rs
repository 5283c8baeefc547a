//! `request_headers` and `response_headers`: set, add and remove header fields.
//!
//! The edits of a service come before the edits of its route. Two kinds of fields cannot be edited: CORS fields belong
//! to `cors`, and fields that frame a message or belong to one connection belong to the gateway.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RequestFacts;
use super::template::{self, TemplatePart};
use crate::domain::Scheme;
use crate::notation::{List, Named, forms, given};
use crate::per_thread::{FinishedName, FinishedValue};
use crate::problem::{At, ProblemKind, Problems};

/// Edits of the request header for the upstream, in this order: `remove`, `set`, `add`. A value may contain
/// `{client_ip}`, `{request_id}`, `{host}` and `{route}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Request headers", extend("minProperties" = 1))]
pub(crate) struct RequestHeaderSettings {
    /// Names of fields to remove.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldNames")]
    pub(crate) remove: Option<List>,
    /// Fields with their values. Each replaces all fields of its name.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) set: Named<String>,
    /// Fields with their values. Each is sent in addition to the fields of its name.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) add: Named<String>,
}

/// Edits of each response header of a route, also of the gateway's own replies, in this order: `remove`, `presets`,
/// `set`, `add`. A value may contain `{client_ip}`, `{request_id}`, `{host}` and `{route}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Response headers", extend("minProperties" = 1))]
pub(crate) struct ResponseHeaderSettings {
    /// Names of fields to remove.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldNames")]
    pub(crate) remove: Option<List>,
    /// Fields for security, with values that are safe for most sites.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) presets: Option<Vec<Preset>>,
    /// Fields with their values. Each replaces all fields of its name.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) set: Named<String>,
    /// Fields with their values. Each is sent in addition to the fields of its name.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) add: Named<String>,
}

/// An entry of `presets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// `Strict-Transport-Security: max-age=31536000`, only if the client's URL is https (RFC 6797 section 7.2).
    Hsts,
    /// `X-Content-Type-Options: nosniff`.
    Nosniff,
    /// `X-Frame-Options: DENY`.
    FrameDeny,
}

/// Edits of a header, in the order of their execution.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeaderEdits(Vec<Arc<HeaderEdit>>);

#[derive(Debug, PartialEq)]
enum HeaderEdit {
    Remove(HeaderName),
    Set(FinishedName, FieldValue),
    Add(FinishedName, FieldValue),
    /// Sets the field only if the client's URL is https.
    SetOverTls(FinishedName, FieldValue),
}

#[derive(Debug, PartialEq)]
enum FieldValue {
    Fixed(FinishedValue),
    /// A value with at least one variable.
    Parts(Vec<TemplatePart<HeaderVariable>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderVariable {
    ClientIp,
    RequestId,
    Host,
    Route,
}

/// The header that is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// The reason why a header field cannot be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// The policy of `cors` sets the field.
    Cors,
    /// The field belongs to one connection, or frames the message.
    Framing,
    /// `upstream_host` sets the field.
    Host,
}

const VARIABLES: [(&str, HeaderVariable); 4] = [
    ("client_ip", HeaderVariable::ClientIp),
    ("request_id", HeaderVariable::RequestId),
    ("host", HeaderVariable::Host),
    ("route", HeaderVariable::Route),
];

// === compile ===

impl HeaderEdits {
    /// Compiles `request_headers`. `above` has the edits of the service.
    pub(crate) fn of_requests(
        settings: &RequestHeaderSettings,
        above: Option<&Self>,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Self {
        let RequestHeaderSettings { remove, set, add } = settings;
        let mut edits = above.cloned().unwrap_or_default();
        if remove.is_none() && set.0.is_empty() && add.0.is_empty() {
            problems.add(at, ProblemKind::NoKeys { example: "set: { X-Tenant: acme }" });
        }
        edits.remove(remove.as_ref(), Side::Request, at, problems);
        edits.values(set, add, Side::Request, at, problems);
        edits
    }

    /// Compiles `response_headers`. `above` has the edits of the service.
    pub(crate) fn of_responses(
        settings: &ResponseHeaderSettings,
        above: Option<&Self>,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Self {
        let ResponseHeaderSettings { remove, presets, set, add } = settings;
        let mut edits = above.cloned().unwrap_or_default();
        if remove.is_none() && presets.is_none() && set.0.is_empty() && add.0.is_empty() {
            problems.add(at, ProblemKind::NoKeys { example: "presets: [hsts, nosniff]" });
        }
        if presets.as_ref().is_some_and(Vec::is_empty) {
            problems.add(&at.key("presets"), ProblemKind::EmptyList { required: false });
        }
        edits.remove(remove.as_ref(), Side::Response, at, problems);
        edits.0.extend(presets.iter().flatten().map(|preset| Arc::new(preset.edit())));
        edits.values(set, add, Side::Response, at, problems);
        edits
    }

    fn remove(&mut self, names: Option<&List>, side: Side, at: &At<'_>, problems: &mut Problems) {
        let at = at.key("remove");
        if names.is_some_and(|names| names.entries().is_empty()) {
            problems.add(&at, ProblemKind::EmptyList { required: false });
        }
        for (i, name) in names.iter().flat_map(|names| names.entries()).enumerate() {
            if let Some(name) = field_name(name, side, &at.index(i), problems) {
                self.0.push(Arc::new(HeaderEdit::Remove(name)));
            }
        }
    }

    fn values(&mut self, set: &Named<String>, add: &Named<String>, side: Side, at: &At<'_>, problems: &mut Problems) {
        type Make = fn(FinishedName, FieldValue) -> HeaderEdit;
        for (key, fields, edit) in [("set", set, HeaderEdit::Set as Make), ("add", add, HeaderEdit::Add)] {
            let at = at.key(key);
            for (name, value) in &fields.0 {
                let at = at.key(name);
                let name = field_name(name, side, &at, problems);
                let value = FieldValue::parse(value, &at, problems);
                if let (Some(name), Some(value)) = (name, value) {
                    self.0.push(Arc::new(edit(FinishedName::new(name), value)));
                }
            }
        }
    }
}

impl Preset {
    fn edit(self) -> HeaderEdit {
        let fixed = |value| FieldValue::Fixed(FinishedValue::new(HeaderValue::from_static(value)));
        let name = FinishedName::new;
        match self {
            Preset::Hsts => HeaderEdit::SetOverTls(name(header::STRICT_TRANSPORT_SECURITY), fixed("max-age=31536000")),
            Preset::Nosniff => HeaderEdit::Set(name(header::X_CONTENT_TYPE_OPTIONS), fixed("nosniff")),
            Preset::FrameDeny => HeaderEdit::Set(name(header::X_FRAME_OPTIONS), fixed("DENY")),
        }
    }
}

/// Parses a name, and checks that the field may be edited.
pub(super) fn field_name(text: &str, side: Side, at: &At<'_>, problems: &mut Problems) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        problems.add(at, ProblemKind::BadHeaderName { text: text.to_owned() });
        return None;
    };
    let Some(reserved) = reserved(&name, side) else { return Some(name) };
    let name = text.to_owned();
    problems.add(
        at,
        match reserved {
            Reserved::Cors => ProblemKind::HeaderOfCors { name },
            Reserved::Framing => ProblemKind::HeaderOfConnection { name },
            Reserved::Host => ProblemKind::HeaderOfUpstreamHost,
        },
    );
    None
}

/// Parses a value without variables.
pub(super) fn field_value(text: &str, at: &At<'_>, problems: &mut Problems) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.trim() == text);
    if value.is_none() {
        problems.add(at, ProblemKind::BadHeaderValue { text: text.to_owned() });
    }
    value
}

fn reserved(name: &HeaderName, side: Side) -> Option<Reserved> {
    let name = name.as_str();
    match (name, side) {
        ("vary" | "timing-allow-origin", Side::Response) => Some(Reserved::Cors),
        // In requests, a browser sends these fields, and an upstream may need them removed.
        (name, Side::Response) if name.starts_with("access-control-") => Some(Reserved::Cors),
        ("host", Side::Request) => Some(Reserved::Host),
        (name, _) if is_of_connection(name) => Some(Reserved::Framing),
        _ => None,
    }
}

/// Returns true for hop-by-hop fields (RFC 9110 section 7.6.1), and for fields that frame a message (RFC 9112 section
/// 6).
pub(crate) fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

impl FieldValue {
    fn parse(text: &str, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let value = field_value(text, at, problems)?;
        let parts = template::parse(text, &VARIABLES, at, problems)?;
        let is_fixed = parts.iter().all(|part| matches!(part, TemplatePart::Text(_)));
        Some(if is_fixed { FieldValue::Fixed(FinishedValue::new(value)) } else { FieldValue::Parts(parts) })
    }
}

// === what the edits do ===

impl HeaderEdits {
    /// Edits the header of one request or response.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, facts: &impl RequestFacts) {
        for edit in &self.0 {
            match &**edit {
                HeaderEdit::Remove(name) => drop(headers.remove(name)),
                HeaderEdit::Set(name, value) => set(headers, name, value, facts),
                HeaderEdit::Add(name, value) => {
                    if let Some(value) = value.of(facts) {
                        headers.append(name.for_message(), value);
                    }
                }
                HeaderEdit::SetOverTls(name, value) if facts.own_origin().scheme == Scheme::Https => {
                    set(headers, name, value, facts);
                }
                HeaderEdit::SetOverTls(..) => {}
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: &FinishedName, value: &FieldValue, facts: &impl RequestFacts) {
    match value.of(facts) {
        Some(value) => drop(headers.insert(name.for_message(), value)),
        // If the gateway cannot set the field, the field of the client must be removed too.
        None => drop(headers.remove(&**name)),
    }
}

impl FieldValue {
    /// Returns the value for one request. Returns None if the host of the request is not a valid header value.
    fn of(&self, facts: &impl RequestFacts) -> Option<HeaderValue> {
        let parts = match self {
            FieldValue::Fixed(value) => return Some(value.for_message()),
            FieldValue::Parts(parts) => parts,
        };
        let mut value = Vec::new();
        for part in parts {
            match part {
                TemplatePart::Text(text) => value.extend_from_slice(text.as_bytes()),
                TemplatePart::Variable(HeaderVariable::ClientIp) => {
                    let address = facts.client_ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
                    value.extend_from_slice(address.as_bytes());
                }
                TemplatePart::Variable(HeaderVariable::RequestId) => {
                    value.extend_from_slice(facts.request_id().as_bytes());
                }
                TemplatePart::Variable(HeaderVariable::Host) => {
                    value.extend_from_slice(facts.own_origin().host.as_bytes());
                }
                TemplatePart::Variable(HeaderVariable::Route) => value.extend_from_slice(facts.route().as_bytes()),
            }
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::OwnOrigin;

    struct Facts(Scheme);

    impl RequestFacts for Facts {
        fn client_ip(&self) -> Option<IpAddr> {
            "192.0.2.7".parse().ok()
        }
        fn own_origin(&self) -> OwnOrigin<'_> {
            OwnOrigin::of(self.0, "api.example")
        }
        fn route(&self) -> &'static str {
            "api/users"
        }
        fn request_id(&self) -> HeaderValue {
            HeaderValue::from_static("id-1")
        }
    }

    fn edits(yaml: &str) -> Result<HeaderEdits, String> {
        let settings: ResponseHeaderSettings = serde_json::from_str(yaml).map_err(|error| error.to_string())?;
        let mut problems = Problems::default();
        let edits = HeaderEdits::of_responses(&settings, None, &At::root(), &mut problems);
        if problems.is_empty() { Ok(edits) } else { Err(problems.to_string()) }
    }

    fn applied(edits: &HeaderEdits, scheme: Scheme) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in [("server", "old"), ("x-a", "1"), ("x-a", "2")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        edits.apply(&mut headers, &Facts(scheme));
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        fields.sort();
        fields.join(" ")
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let cases = [
            (r#"{ "remove": ["Server"] }"#, "x-a=1 x-a=2"),
            (r#"{ "set": { "X-A": "3" } }"#, "server=old x-a=3"),
            (r#"{ "add": { "X-A": "3" } }"#, "server=old x-a=1 x-a=2 x-a=3"),
            (r#"{ "remove": ["x-a"], "add": { "X-A": "3" } }"#, "server=old x-a=3"),
            (r#"{ "set": { "X-A": "3" }, "add": { "X-A": "4" }, "remove": ["server"] }"#, "x-a=3 x-a=4"),
            (
                r#"{ "set": { "X-A": "{client_ip} at {host}: {route} {request_id}" } }"#,
                "server=old x-a=192.0.2.7 at api.example: api/users id-1",
            ),
            (
                r#"{ "set": { "X-A": "{\"group\":{}} {A} {{host}}" } }"#,
                "server=old x-a={\"group\":{}} {A} {api.example}",
            ),
        ];
        for (settings, fields) in cases {
            assert_eq!(applied(&edits(settings).unwrap(), Scheme::Http), fields, "{settings}");
        }
    }

    #[test]
    fn hsts_is_sent_over_tls_only() {
        let edits = edits(r#"{ "presets": ["hsts", "nosniff", "frame_deny"], "remove": ["server", "x-a"] }"#).unwrap();
        let others = "x-content-type-options=nosniff x-frame-options=DENY";
        assert_eq!(applied(&edits, Scheme::Http), others);
        assert_eq!(applied(&edits, Scheme::Https), format!("strict-transport-security=max-age=31536000 {others}"));
    }

    #[test]
    fn a_route_edits_after_its_service() {
        let service = edits(r#"{ "set": { "X-A": "service", "X-B": "service" } }"#).unwrap();
        let settings = serde_json::from_str(r#"{ "set": { "X-A": "route" } }"#).unwrap();
        let both = HeaderEdits::of_responses(&settings, Some(&service), &At::root(), &mut Problems::default());
        assert_eq!(applied(&both, Scheme::Http), "server=old x-a=route x-b=service");
    }
}
