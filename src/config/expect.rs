//! `expect`: requests of pages, with the results that the configuration must give.
//!
//! The doc comments of the keys are the reference for users, as in [`super::document`].

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::edit::yaml_scalar;
use crate::notation::{List, Named, forms, given};

/// A request of a page, and the result that this configuration must give. The file is refused if the simulation of
/// `corsgate explain` gives another result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["page", "url", "result"]))]
pub(crate) struct Expectation {
    /// The origin of the page, such as `https://app.example`, or `null`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PageOrigin")]
    pub(crate) page: Option<String>,
    /// The method, as the page writes it.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Method", extend("default" = "GET"))]
    pub(crate) method: Option<String>,
    /// The absolute URL that the page requests.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PageUrl")]
    pub(crate) url: Option<String>,
    /// Request headers that the page sets: names with values, or a list of names, or of `Name: value`. A header without
    /// a value is assumed to need a preflight.
    #[serde(deserialize_with = "given")]
    pub(crate) headers: Option<PageHeaders>,
    /// Whether the request has cookies: `credentials: 'include'` in `fetch()`.
    pub(crate) credentials: bool,
    /// The part of the page that makes the request, as for `corsgate explain --as`.
    #[serde(rename = "as", deserialize_with = "given")]
    #[schemars(with = "Initiators", extend("default" = "fetch"))]
    pub(crate) initiator: Option<String>,
    /// Response headers that the page reads.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldNamesOrNone")]
    pub(crate) reads: Option<List>,
    /// The IP address of the client, for `clients`. Without this key every list accepts the client.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PlainText")]
    pub(crate) client: Option<String>,
    /// The assumed response of the upstream. Without this key it has the status 200, or 101 for a WebSocket, and no CORS
    /// headers.
    pub(crate) upstream: AssumedResponse,
    /// The result for the page and the upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) result: Option<ExpectedResult>,
    /// The code of the cause: the word in parentheses in the first line of `corsgate explain`. Without this key any code
    /// is accepted.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Codes")]
    pub(crate) reason: Option<String>,
}

/// `result` of an expectation. A redirect to a server that is not in this file has none of these results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectedResult {
    /// The page gets the response, and can read all headers of `reads`.
    Allowed,
    /// The page does not get the response, and the upstream does not get the request: the gateway rejects it, or the
    /// browser does not send it after the preflight.
    Refused,
    /// The upstream gets the request, which can have an effect there, but the page cannot read the response or a header
    /// of `reads`.
    Unreadable,
}

/// The assumed response of the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AssumedResponse {
    /// The status.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FinalStatus")]
    pub(crate) status: Option<u16>,
    /// Header fields with their values.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) headers: Named<String>,
}

/// Headers that a page sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum PageHeaders {
    /// `Name`, or `Name: value`.
    Lines(Vec<String>),
    Values(Named<String>),
}

/// The contents of a file of `expect_files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExpectationFile {
    #[serde(deserialize_with = "given")]
    pub(crate) expect: Option<Vec<Expectation>>,
}

/// The words of `as`: the codes of [`crate::explain::Initiator`].
pub(crate) const INITIATORS: [&str; 9] =
    ["fetch", "xhr-upload", "no-cors", "image", "module", "font", "eventsource", "websocket", "navigation"];

/// The words of `reason`: the codes of CORS decisions, the codes of refusals that depend on the request alone, and the
/// codes that only `explain` has.
pub(crate) const CODES: [&str; 32] = [
    "allowed_any",
    "allowed_exact",
    "allowed_pattern",
    "allowed_regex",
    "no_origin",
    "same_origin",
    "no_policy",
    "origin_not_allowed",
    "origin_null",
    "origin_invalid",
    "method_not_allowed",
    "header_not_allowed",
    "header_list_too_long",
    "cross_site",
    "bad_host",
    "bad_target",
    "ambiguous_path",
    "client_denied",
    "unknown_host",
    "unknown_path",
    "no_route_for_method",
    "uri_too_long",
    "headers_too_large",
    "credentials_not_allowed",
    "not_exposed",
    "not_switched",
    "origin_lost",
    "policy_off",
    "redirect",
    "resource_policy",
    "tls_in_front",
    "upstream",
];

impl Expectation {
    /// Returns an entry of a list `expect`, in the usual notation, indented by two spaces.
    pub(crate) fn to_yaml(&self) -> String {
        let mut keys = Vec::new();
        let mut key = |name: &str, value: String| keys.push(format!("{name}: {value}"));
        let pairs = |named: &Named<String>| {
            let pairs = named.0.iter().map(|(name, value)| format!("{}: {}", yaml_scalar(name), yaml_scalar(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        };
        let texts = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| yaml_scalar(text)).collect();
            format!("[{}]", texts.join(", "))
        };
        let words = [("page", &self.page), ("method", &self.method), ("url", &self.url), ("as", &self.initiator)];
        for (name, value) in words {
            value.iter().for_each(|value| key(name, yaml_scalar(value)));
        }
        match &self.headers {
            Some(PageHeaders::Lines(lines)) => key("headers", texts(lines)),
            Some(PageHeaders::Values(named)) => key("headers", pairs(named)),
            None => {}
        }
        if self.credentials {
            key("credentials", "true".to_owned());
        }
        if let Some(reads) = &self.reads {
            key("reads", texts(reads.entries()));
        }
        self.client.iter().for_each(|client| key("client", yaml_scalar(client)));
        let AssumedResponse { status, headers } = &self.upstream;
        let status = status.map(|status| format!("status: {status}"));
        let headers = (!headers.0.is_empty()).then(|| format!("headers: {}", pairs(headers)));
        let upstream: Vec<String> = status.into_iter().chain(headers).collect();
        if !upstream.is_empty() {
            key("upstream", format!("{{ {} }}", upstream.join(", ")));
        }
        self.result.iter().for_each(|result| key("result", result.word().to_owned()));
        self.reason.iter().for_each(|reason| key("reason", yaml_scalar(reason)));
        format!("  - {}\n", keys.join("\n    "))
    }
}

impl ExpectedResult {
    /// Returns the word in the configuration.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ExpectedResult::Allowed => "allowed",
            ExpectedResult::Refused => "refused",
            ExpectedResult::Unreadable => "unreadable",
        }
    }
}

impl<'de> Deserialize<'de> for PageHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PageHeadersVisitor;
        impl<'de> Visitor<'de> for PageHeadersVisitor {
            type Value = PageHeaders;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of header names, or a mapping of names to values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PageHeaders, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = seq.next_element()? {
                    lines.push(line);
                }
                Ok(PageHeaders::Lines(lines))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PageHeaders, A::Error> {
                let named = Named::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(PageHeaders::Values(named))
            }
        }
        deserializer.deserialize_any(PageHeadersVisitor)
    }
}

impl JsonSchema for PageHeaders {
    fn schema_name() -> Cow<'static, str> {
        "PageHeaders".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let lines = generator.subschema_for::<Vec<forms::FieldLine>>();
        json_schema!({ "anyOf": [lines, generator.subschema_for::<Named<forms::FieldValue>>()] })
    }
}

/// The schema of `as`.
struct Initiators;

impl JsonSchema for Initiators {
    fn schema_name() -> Cow<'static, str> {
        "Initiators".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": INITIATORS })
    }
}

/// The schema of `reason`.
struct Codes;

impl JsonSchema for Codes {
    fn schema_name() -> Cow<'static, str> {
        "Codes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "reason code",
            "description": "A code of the table in [Configuration](configuration.md#reason-codes), or one that only \
                            [`explain`](explain.md#for-programs) has.",
            "enum": json!(CODES),
        })
    }
}
