//! `compression`: decides which responses are compressed and with which encoding, and changes their headers.
//!
//! This module does not see bodies. `forward` encodes them with the encoding that [`Compression::prepare`] chose.
//!
//! If a response is compressed only for some clients, all clients must get `Vary: Accept-Encoding`. The CORS code
//! writes `Vary`, so [`Prepared::varies`] only reports that this field is needed.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version, request, response};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::notation::{List, Size, Toggle, forms, given};
use crate::problem::{At, ProblemKind, Problems};

/// Compresses responses for clients that accept one of the encodings (`Accept-Encoding`). `true` uses the default of
/// every key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Compression", transform = with_defaults)]
pub(crate) struct CompressionSettings {
    /// Encodings that may be used. The client's preference counts first. If the client prefers several encodings
    /// equally, the first of them in this list is used.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1, "uniqueItems" = true))]
    pub(crate) encodings: Option<Vec<Encoding>>,
    /// Media types that are compressed. `text/html` is one type, `text/*` all subtypes of `text`, and
    /// `application/*+json` all subtypes with the suffix `+json`. `text/event-stream` and gRPC are never compressed.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::MediaTypes")]
    pub(crate) types: Option<List>,
    /// Minimum `Content-Length` of a compressed response. A response without `Content-Length` is compressed.
    pub(crate) min_size: Size,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// Zstandard. Gives the smallest result for its encoding time.
    Zstd,
    /// Brotli. Takes the most time and memory.
    Br,
    /// gzip. All clients support it.
    Gzip,
}

/// The compiled form of `compression`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compression {
    /// In the order of preference. Not empty, without duplicates.
    encodings: Box<[Encoding]>,
    types: Box<[MediaRange]>,
    min_size: u64,
}

/// A media type, or a set of media types.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MediaRange {
    /// The part before the slash, such as `text`. Both parts are in lower case.
    kind: Box<str>,
    subtype: Subtype,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subtype {
    /// Any subtype: `*`.
    Any,
    /// `*+json`. The value is the suffix `json`.
    WithSuffix(Box<str>),
    Exact(Box<str>),
}

/// Decision about a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Whether the response depends on `Accept-Encoding`.
    pub(crate) varies: bool,
    /// Encoding for the body. The header already names this encoding, and has no `Content-Length`. None: the body is
    /// not encoded.
    pub(crate) body: Option<Encoding>,
}

/// Media types that are compressed by default: text, and formats without built-in compression.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
];

/// A smaller body is not worth the time: a gzip header and trailer take 18 bytes, and up to about 1,400 bytes take one
/// packet in any case.
const MIN_SIZE: Size = Size::from_kib(1);

/// Header fields that describe the bytes or the ranges of the body. They are wrong for the encoded body.
const OF_THE_IDENTITY: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

// === impl CompressionSettings, Encoding ===

impl Default for CompressionSettings {
    fn default() -> Self {
        CompressionSettings { encodings: None, types: None, min_size: MIN_SIZE }
    }
}

impl Encoding {
    const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip];

    /// Returns the name of the encoding in header fields.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Encoding::Zstd => "zstd",
            Encoding::Br => "br",
            Encoding::Gzip => "gzip",
        }
    }

    /// Finds the encoding with this name. `x-gzip` is an old name of `gzip` (RFC 9110 section 8.4.1.3).
    fn named(name: &[u8]) -> Option<Encoding> {
        match name.eq_ignore_ascii_case(b"x-gzip") {
            true => Some(Encoding::Gzip),
            false => Encoding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes())),
        }
    }
}

// === impl Compression ===

impl Compression {
    /// Compiles the settings. Returns None if compression is off.
    pub(crate) fn compile(
        settings: &Toggle<CompressionSettings>,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Option<Compression> {
        let settings = match settings {
            Toggle::Off => return None,
            Toggle::On => Cow::Owned(CompressionSettings::default()),
            Toggle::With(settings) => Cow::Borrowed(settings),
        };
        let CompressionSettings { encodings, types, min_size } = &*settings;
        let encodings = match encodings {
            None => Encoding::ALL.into(),
            Some(listed) => {
                let at = at.key("encodings");
                if listed.is_empty() {
                    problems.add(&at, ProblemKind::EmptyList { required: false });
                }
                for (i, encoding) in listed.iter().enumerate() {
                    if listed[..i].contains(encoding) {
                        problems.add(&at.index(i), ProblemKind::ListedTwice { text: encoding.name().to_owned() });
                    }
                }
                listed.as_slice().into()
            }
        };
        let types = match types {
            None => TYPES.into_iter().filter_map(MediaRange::parse).collect(),
            Some(listed) => media_ranges(listed, &at.key("types"), problems),
        };
        Some(Compression { encodings, types, min_size: min_size.bytes() })
    }

    /// Decides whether a final response is compressed, and changes its header if the body will be encoded.
    pub(crate) fn prepare(&self, request: &request::Parts, response: &mut response::Parts) -> Prepared {
        if response.status == StatusCode::NOT_MODIFIED {
            return not_modified(request, &mut response.headers);
        }
        if !self.covers(response) {
            return Prepared::default();
        }
        let Some(encoding) = self.choose(request) else { return Prepared { varies: true, body: None } };
        let headers = &mut response.headers;
        for name in &OF_THE_IDENTITY {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        weaken_tag(headers);
        // The response to HEAD has the header of the response to GET (RFC 9110 section 9.3.2).
        Prepared { varies: true, body: (request.method != Method::HEAD).then_some(encoding) }
    }

    /// Checks whether the response is compressed for clients that accept an encoding.
    fn covers(&self, response: &response::Parts) -> bool {
        use StatusCode as S;
        let response::Parts { status, headers, .. } = response;
        !status.is_informational()
            && ![S::NO_CONTENT, S::RESET_CONTENT, S::PARTIAL_CONTENT].contains(status)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && self.covers_length(headers)
            && self.covers_type(headers)
            && !forbids_transformation(headers)
    }

    fn covers_length(&self, headers: &HeaderMap) -> bool {
        match headers.get(header::CONTENT_LENGTH) {
            None => true,
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
                length.is_some_and(|length| length != 0 && length >= self.min_size)
            }
        }
    }

    fn covers_type(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let essence = field.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        !is_never_compressed(essence) && self.types.iter().any(|range| range.contains(essence))
    }

    /// Chooses the encoding for a client. Returns None if the body is not encoded.
    fn choose(&self, request: &request::Parts) -> Option<Encoding> {
        // HTTP/1.0 has no chunked bodies. Without `Content-Length`, the client could not detect that a response was
        // cut.
        if request.version < Version::HTTP_11 || forbids_transformation(&request.headers) {
            return None;
        }
        let accepted = Accepted::of(&request.headers);
        let mut best = (0, None);
        for encoding in &self.encodings {
            let weight = accepted.weight(*encoding);
            if weight > best.0 {
                best = (weight, Some(*encoding));
            }
        }
        best.1.filter(|_| best.0 >= accepted.weight_of_identity())
    }
}

/// Prepares a 304, which updates the header of a response in a cache. The media type of that response is not known
/// here, so the 304 counts as a response that varies. If the client names the weak tag, its cache has the encoded
/// response, so the 304 gets the weak tag too.
fn not_modified(request: &request::Parts, headers: &mut HeaderMap) -> Prepared {
    let weak = headers.get(header::ETAG).and_then(|tag| weak(tag.as_bytes()));
    if let Some(weak) = weak {
        // A tag has quotes only around its text, so this tag cannot be a part of another tag.
        let names_it = |field: &HeaderValue| memchr::memmem::find(field.as_bytes(), weak.as_bytes()).is_some();
        if request.headers.get_all(header::IF_NONE_MATCH).iter().any(names_it) {
            headers.insert(header::ETAG, weak);
        }
    }
    Prepared { varies: !headers.contains_key(header::CONTENT_ENCODING), body: None }
}

/// Makes a strong `ETag` weak, because a strong tag identifies the exact bytes of the body, and the encoding changes
/// them (RFC 9110 section 8.8.1). Removes an invalid `ETag`.
fn weaken_tag(headers: &mut HeaderMap) {
    let weakened = match headers.get(header::ETAG).map(HeaderValue::as_bytes) {
        None | Some([b'W', b'/', b'"', ..]) => return,
        Some(tag) => weak(tag),
    };
    match weakened {
        Some(tag) => headers.insert(header::ETAG, tag),
        None => headers.remove(header::ETAG),
    };
}

/// Returns the weak form of a strong tag, or None if the tag is not strong.
fn weak(tag: &[u8]) -> Option<HeaderValue> {
    tag.starts_with(b"\"").then(|| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok())?
}

/// Checks for `Cache-Control: no-transform` (RFC 9110 section 7.7) in a request or a response.
fn forbids_transformation(headers: &HeaderMap) -> bool {
    let mut directives =
        headers.get_all(header::CACHE_CONTROL).iter().flat_map(|field| field.as_bytes().split(|b| *b == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Checks for media types that are never compressed: server-sent events, because an event must not wait for the next
/// event, and gRPC, because it has its own compression.
fn is_never_compressed(essence: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    essence.eq_ignore_ascii_case(b"text/event-stream")
        || essence.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

fn media_ranges(listed: &List, at: &At<'_>, problems: &mut Problems) -> Box<[MediaRange]> {
    if listed.entries().is_empty() {
        problems.add(at, ProblemKind::EmptyList { required: false });
    }
    let mut ranges = Vec::with_capacity(listed.entries().len());
    for (i, text) in listed.entries().iter().enumerate() {
        let kind = match MediaRange::parse(text) {
            Some(_) if is_never_compressed(text.as_bytes()) => ProblemKind::NeverCompressed { text: text.to_owned() },
            Some(range) => {
                ranges.push(range);
                continue;
            }
            None if text.is_empty() => ProblemKind::EmptyEntry,
            None => ProblemKind::BadMediaType { text: text.to_owned() },
        };
        problems.add(&at.index(i), kind);
    }
    ranges.into()
}

// === impl MediaRange ===

impl MediaRange {
    fn parse(text: &str) -> Option<MediaRange> {
        let is_name = |name: &str| {
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
            !name.is_empty() && name.bytes().all(is_token)
        };
        let text = text.to_ascii_lowercase();
        let (kind, subtype) = text.split_once('/')?;
        let subtype = match subtype.strip_prefix('*') {
            Some("") => Subtype::Any,
            Some(suffix) => Subtype::WithSuffix(suffix.strip_prefix('+').filter(|suffix| is_name(suffix))?.into()),
            None => Subtype::Exact(Some(subtype).filter(|subtype| is_name(subtype))?.into()),
        };
        is_name(kind).then(|| MediaRange { kind: kind.into(), subtype })
    }

    /// Checks whether the range contains the media type of a response, given without parameters.
    fn contains(&self, essence: &[u8]) -> bool {
        let Some(slash) = essence.iter().position(|b| *b == b'/') else { return false };
        let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
        kind.eq_ignore_ascii_case(self.kind.as_bytes())
            && match &self.subtype {
                Subtype::Any => true,
                Subtype::Exact(name) => subtype.eq_ignore_ascii_case(name.as_bytes()),
                Subtype::WithSuffix(suffix) => {
                    let plus = subtype.iter().rposition(|b| *b == b'+');
                    plus.is_some_and(|plus| subtype[plus + 1..].eq_ignore_ascii_case(suffix.as_bytes()))
                }
            }
    }
}

// === Accept-Encoding ===

/// The weights in `Accept-Encoding` (RFC 9110 section 12.5.3), in thousandths. None: the field does not name the
/// coding.
#[derive(Debug, Default)]
struct Accepted {
    codings: [Option<u16>; Encoding::ALL.len()],
    identity: Option<u16>,
    /// Weight of `*`: of all codings that the field does not name.
    others: Option<u16>,
}

impl Accepted {
    /// Reads all `Accept-Encoding` fields in one pass. If a coding is named twice, its first weight counts. An element
    /// with an invalid weight is ignored.
    fn of(headers: &HeaderMap) -> Accepted {
        let mut accepted = Accepted::default();
        let fields = headers.get_all(header::ACCEPT_ENCODING).iter();
        for element in fields.flat_map(|field| field.as_bytes().split(|b| *b == b',')) {
            let (name, weight) = match element.iter().position(|b| *b == b';') {
                None => (element.trim_ascii(), Some(1000)),
                Some(at) => (element[..at].trim_ascii(), weight(element[at + 1..].trim_ascii())),
            };
            let Some(weight) = weight else { continue };
            let place = match name {
                b"*" => &mut accepted.others,
                name if name.eq_ignore_ascii_case(b"identity") => &mut accepted.identity,
                name => match Encoding::named(name) {
                    Some(encoding) => &mut accepted.codings[encoding as usize],
                    None => continue,
                },
            };
            place.get_or_insert(weight);
        }
        accepted
    }

    fn weight(&self, encoding: Encoding) -> u16 {
        self.codings[encoding as usize].or(self.others).unwrap_or(0)
    }

    /// Returns the weight of identity. If the client gives no weight for identity, identity is acceptable, but every
    /// other accepted coding is preferred.
    fn weight_of_identity(&self) -> u16 {
        self.identity.or(self.others).unwrap_or(0)
    }
}

/// Parses a weight such as `q=0.5` to thousandths (RFC 9110 section 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let (whole, decimals) = match parameter {
        [b'q' | b'Q', b'=', whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0') * 1000;
    for (digit, place) in decimals.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * place;
    }
    (thousandths <= 1000).then_some(thousandths)
}

// === the schema ===

/// Adds the defaults of `encodings` and `types`, which the derived schema does not have.
fn with_defaults(schema: &mut Schema) {
    let names: Vec<&str> = Encoding::ALL.into_iter().map(Encoding::name).collect();
    for (key, default) in [("encodings", &names[..]), ("types", &TYPES)] {
        if let Some(property) = schema.pointer_mut(&format!("/properties/{key}")).and_then(|p| p.as_object_mut()) {
            property.insert("default".into(), default.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(settings: CompressionSettings) -> Compression {
        let mut problems = Problems::default();
        let compiled = Compression::compile(&Toggle::With(settings), &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        compiled.unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        map.extend(fields.iter().map(field));
        map
    }

    fn chosen(compression: &Compression, accept: &[&str], version: Version, cache_control: &str) -> Option<Encoding> {
        let mut fields: Vec<(&'static str, &str)> = accept.iter().map(|value| ("accept-encoding", *value)).collect();
        fields.push(("cache-control", cache_control));
        compression.choose(&request(Method::GET, version, &headers(&fields)))
    }

    #[test]
    fn the_client_chooses_by_weight_and_the_order_of_the_configuration_decides_the_rest() {
        use Encoding::*;
        let long = format!("{}gzip", "x-unknown;q=0.999, ".repeat(5_000));
        let commas = format!("{}br", ",".repeat(60_000));
        #[rustfmt::skip]
        let cases: &[(&[&str], Option<Encoding>)] = &[
            // Values that browsers and tools send.
            (&["gzip, deflate, br, zstd"],            Some(Zstd)),
            (&["gzip, deflate, br"],                  Some(Br)),
            (&["gzip, deflate"],                      Some(Gzip)),
            (&["gzip"],                               Some(Gzip)),
            (&["deflate, gzip;q=1.0, *;q=0.5"],       Some(Gzip)),
            (&[],                                     None),
            (&[""],                                   None),
            (&["identity"],                           None),
            (&["deflate"],                            None),
            // Weights.
            (&["zstd;q=0.5, gzip"],                   Some(Gzip)),
            (&["zstd;q=0.001, br;q=0.002"],           Some(Br)),
            (&["gzip;q=0"],                           None),
            (&["gzip;q=0.000, br;q=0.0"],             None),
            (&["GZIP ; Q=0.3"],                       Some(Gzip)),
            (&["gzip;q=1.000"],                       Some(Gzip)),
            (&["x-gzip"],                             Some(Gzip)),
            (&["gzip", "br"],                         Some(Br)),
            (&["gzip;q=0, gzip"],                     None),
            // `*` and identity.
            (&["*"],                                  Some(Zstd)),
            (&["*;q=0"],                              None),
            (&["gzip, *;q=0"],                        Some(Gzip)),
            (&["zstd;q=0, *"],                        Some(Br)),
            (&["zstd;q=0, br;q=0, gzip;q=0, *"],      None),
            (&["identity;q=0"],                       None),
            (&["identity;q=0, gzip;q=0.1"],           Some(Gzip)),
            (&["identity, gzip;q=0.5"],               None),
            (&["identity;q=0.5, gzip;q=0.5"],         Some(Gzip)),
            (&["gzip;q=0.5, *;q=0.8"],                Some(Zstd)),
            (&["gzip;q=0.5, zstd;q=0, br;q=0, *;q=0.8"], None),
            // Invalid elements do not count.
            (&["gzip;q=2"],                           None),
            (&["gzip;q=1.001"],                       None),
            (&["gzip;q=-1"],                          None),
            (&["gzip;q="],                            None),
            (&["gzip;q"],                             None),
            (&["gzip;"],                              None),
            (&["gzip;q=0.1234"],                      None),
            (&["gzip;q=0,5"],                         None),
            (&["gzip;q=.5"],                          None),
            (&["gzip;level=9"],                       None),
            (&["gzip;q=1;q=0"],                       None),
            (&["gzip br"],                            None),
            (&["\"gzip\""],                           None),
            (&["gzipx, xgzip, brr"],                  None),
            (&["gzip;q=nan, br;q=0.1"],               Some(Br)),
            (&[",,;,;;,, ,gzip"],                     Some(Gzip)),
            (&[&long],                                Some(Gzip)),
            (&[&commas],                              Some(Br)),
        ];
        let all = compile(CompressionSettings::default());
        for (accept, expected) in cases {
            let shown = accept.iter().map(|field| &field[..field.len().min(80)]).collect::<Vec<_>>();
            assert_eq!(chosen(&all, accept, Version::HTTP_11, "no-cache"), *expected, "{shown:?}");
            assert_eq!(chosen(&all, accept, Version::HTTP_2, ""), *expected, "{shown:?}");
            // HTTP/1.0 clients and clients that send `no-transform` get no compression.
            assert_eq!(chosen(&all, accept, Version::HTTP_10, ""), None, "{shown:?}");
            assert_eq!(chosen(&all, accept, Version::HTTP_11, "no-store, No-Transform"), None, "{shown:?}");
        }
        let gzip_first =
            compile(CompressionSettings { encodings: Some(vec![Gzip, Zstd]), ..CompressionSettings::default() });
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Gzip)),
            ("zstd, gzip;q=0.9", Some(Zstd)),
            ("br", None),
            ("*", Some(Gzip)),
            ("br, *;q=0.1", Some(Gzip)),
        ] {
            assert_eq!(chosen(&gzip_first, &[accept], Version::HTTP_11, ""), expected, "{accept}");
        }
    }

    #[test]
    fn only_complete_unencoded_responses_of_the_listed_types_are_compressed() {
        type Case = (u16, &'static [(&'static str, &'static str)], bool);
        const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
        #[rustfmt::skip]
        let cases: &[Case] = &[
            (200, &[HTML],                                                    true),
            (200, &[HTML, ("content-length", "1024")],                        true),
            (201, &[HTML],                                                    true),
            (404, &[HTML],                                                    true),
            (500, &[HTML],                                                    true),
            (200, &[HTML, ("cache-control", "public, max-age=60")],           true),
            (200, &[("content-type", "Application/JSON")],                    true),
            (200, &[("content-type", "application/problem+json")],            true),
            (200, &[("content-type", "application/vnd.api+x+JSON ;a=b")],     true),
            (200, &[("content-type", "image/svg+xml")],                       true),
            // The length is too small or invalid.
            (200, &[HTML, ("content-length", "1023")],                        false),
            (200, &[HTML, ("content-length", "0")],                           false),
            (200, &[HTML, ("content-length", "2000, 2000")],                  false),
            (200, &[HTML, ("content-length", "-5000")],                       false),
            // The response has no body, or only a part of a body.
            (101, &[HTML],                                                    false),
            (103, &[HTML],                                                    false),
            (204, &[HTML],                                                    false),
            (205, &[HTML],                                                    false),
            (206, &[HTML],                                                    false),
            (200, &[HTML, ("content-range", "bytes 0-1023/2048")],            false),
            (416, &[HTML, ("content-range", "bytes */2048")],                 false),
            // The body must not be changed.
            (200, &[HTML, ("content-encoding", "gzip")],                      false),
            (200, &[HTML, ("content-encoding", "identity")],                  false),
            (200, &[HTML, ("cache-control", "no-transform")],                 false),
            (200, &[HTML, ("cache-control", "public"), ("cache-control", "max-age=1 , NO-TRANSFORM")], false),
            // The type is not listed, or is never compressed.
            (200, &[],                                                        false),
            (200, &[("content-type", "")],                                    false),
            (200, &[("content-type", "text")],                                false),
            (200, &[("content-type", "image/png")],                           false),
            (200, &[("content-type", "application/jsonp")],                   false),
            (200, &[("content-type", "application/json+zip")],                false),
            (200, &[("content-type", "application/octet-stream")],            false),
            (200, &[HTML, ("content-type", "text/plain")],                    false),
            (200, &[("content-type", "text/event-stream")],                   false),
            (200, &[("content-type", "Text/Event-Stream;charset=utf-8")],     false),
            (200, &[("content-type", "application/grpc")],                    false),
            (200, &[("content-type", "application/grpc+json")],               false),
            (200, &[("content-type", "application/grpc-web+json")],           false),
        ];
        let compression = compile(CompressionSettings::default());
        let accept = headers(&[("accept-encoding", "gzip")]);
        let no_accept = HeaderMap::new();
        for (status, fields, expected) in cases {
            for (accept, body) in [(&accept, Some(Encoding::Gzip)), (&no_accept, None)] {
                let request = request(Method::GET, Version::HTTP_11, accept);
                let mut response = response(*status, fields);
                let before = response.headers.clone();
                let prepared = compression.prepare(&request, &mut response);
                let body = body.filter(|_| *expected);
                // The response also varies if only another client would get it compressed.
                assert_eq!(prepared, Prepared { varies: *expected, body }, "{status} {fields:?}");
                match body {
                    None => assert_eq!(response.headers, before, "{status} {fields:?}"),
                    Some(_) => assert_eq!(response.headers["content-encoding"], "gzip", "{status} {fields:?}"),
                }
            }
        }
    }

    fn request(method: Method, version: Version, headers: &HeaderMap) -> request::Parts {
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.method, parts.version, parts.headers) = (method, version, headers.clone());
        parts
    }

    fn response(status: u16, fields: &[(&'static str, &str)]) -> response::Parts {
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers = headers(fields);
        parts
    }

    #[test]
    fn the_listed_types_replace_the_default() {
        let types = ["application/pdf", "text/*", "application/*+cbor"].map(str::to_owned);
        let min_size = Size::parse("0B").unwrap();
        let settings = CompressionSettings { types: Some(types.into_iter().collect()), encodings: None, min_size };
        let compression = compile(settings);
        for (media_type, length, covered) in [
            ("application/pdf", "1", true),
            ("application/pdf", "0", false),
            ("text/x-anything", "1", true),
            ("text/event-stream", "1", false),
            ("application/senml+cbor", "1", true),
            ("application/cbor", "1", false),
            ("application/json", "1", false),
        ] {
            let response = response(200, &[("content-type", media_type), ("content-length", length)]);
            assert_eq!(compression.covers(&response), covered, "{media_type} {length}");
        }
    }

    #[test]
    fn fields_about_the_bytes_of_the_body_change_or_go() {
        let fields = [
            ("content-type", "text/css"),
            ("content-length", "5000"),
            ("accept-ranges", "bytes"),
            ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
            ("digest", "md5=x"),
            ("content-digest", "sha-256=:x:"),
            ("repr-digest", "sha-256=:x:"),
            ("last-modified", "Sat, 01 Nov 2025 00:00:00 GMT"),
            ("access-control-allow-origin", "*"),
            ("vary", "Origin"),
        ];
        let kept = [
            ("content-type", "text/css"),
            ("last-modified", "Sat, 01 Nov 2025 00:00:00 GMT"),
            ("access-control-allow-origin", "*"),
            ("vary", "Origin"),
            ("content-encoding", "br"),
        ];
        let accept = headers(&[("accept-encoding", "br")]);
        for (method, body) in [(Method::GET, Some(Encoding::Br)), (Method::HEAD, None)] {
            let mut response = response(200, &fields);
            let request = request(method.clone(), Version::HTTP_2, &accept);
            let prepared = compile(CompressionSettings::default()).prepare(&request, &mut response);
            assert_eq!(prepared, Prepared { varies: true, body }, "{method}");
            assert_eq!(response.headers, headers(&kept), "{method}");
        }
    }

    #[test]
    fn a_strong_tag_becomes_weak() {
        for (tag, expected) in [
            ("\"abc\"", Some("W/\"abc\"")),
            ("\"\"", Some("W/\"\"")),
            ("W/\"abc\"", Some("W/\"abc\"")),
            ("abc", None),
            ("w/\"abc\"", None),
            ("", None),
        ] {
            let mut headers = headers(&[("etag", tag)]);
            weaken_tag(&mut headers);
            let weak = headers.get(header::ETAG).map(HeaderValue::as_bytes);
            assert_eq!(weak, expected.map(str::as_bytes), "{tag}");
        }
    }

    #[test]
    fn a_304_has_the_tag_that_the_client_has() {
        #[rustfmt::skip]
        let cases = [
            // If-None-Match, ETag of the upstream, ETag for the client
            ("W/\"a\"",              "\"a\"",   "W/\"a\""),
            ("\"x\", W/\"a\",W/\"b\"", "\"a\"", "W/\"a\""),
            ("\"a\"",                "\"a\"",   "\"a\""),
            ("\"a\", W/\"ab\"",      "\"a\"",   "\"a\""),
            ("*",                    "\"a\"",   "\"a\""),
            ("W/\"a\"",              "W/\"a\"", "W/\"a\""),
        ];
        let compression = compile(CompressionSettings::default());
        for (named, tag, expected) in cases {
            let asked = headers(&[("if-none-match", named), ("accept-encoding", "gzip")]);
            let request = request(Method::GET, Version::HTTP_11, &asked);
            let mut response = response(304, &[("etag", tag)]);
            let prepared = compression.prepare(&request, &mut response);
            assert_eq!(prepared, Prepared { varies: true, body: None }, "{named} {tag}");
            assert_eq!(response.headers, headers(&[("etag", expected)]), "{named} {tag}");
        }
    }

    #[test]
    fn types_are_parsed_strictly() {
        for text in ["text/html", "text/*", "application/*+json", "Image/SVG+xml", "application/vnd.api+json"] {
            assert!(MediaRange::parse(text).is_some(), "{text}");
        }
        for text in
            ["", "*", "*/*", "text", "text/", "/html", "text/html; q=1", "text/h*", "text/*json", "text/*+", "a b/c"]
        {
            assert_eq!(MediaRange::parse(text), None, "{text}");
        }
        assert!(TYPES.iter().all(|text| MediaRange::parse(text).is_some()));
    }
}
