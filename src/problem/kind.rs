//! The kinds of problems.

use std::borrow::Cow;

use super::path::{KeyPath, PathStep};
use super::words::Known;

/// The kind of a problem, with the user's text.
///
/// [`ProblemKind::describe`] documents each variant: the arm of the variant has its message.
#[allow(missing_docs)] // the messages say more than a doc comment could
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    // --- the text
    Unreadable { why: String, remedy: &'static str },
    Syntax { message: String, remedy: Cow<'static, str>, places: Vec<SyntaxPlace> },
    Variable { text: String },
    VariableNotFilled { text: String },
    VariableNotSet { name: String },
    VariableInBlock,
    BadVariable { text: String },
    WrongValue { found: String, expected: String },
    UnknownKey { key: String, known: Known },
    UnknownWord { word: String, known: Known },
    KeyTwice { first_line: usize },
    KeyAndAlias { key: String },
    Missing { example: &'static str },
    NoKeys { example: &'static str },
    EmptyList { required: bool },
    EmptyEntry,
    EmptyPath { most: usize },
    OutOfRange { value: String, range: String, write: String },

    // --- names
    UnknownName { what: &'static str, name: String, known: Known },
    NameTwice { what: &'static str, name: String },
    BadName { what: &'static str, name: String },

    // --- origin patterns
    OriginReflectsAll,
    OriginSeveral { text: String },
    OriginWithoutScheme { text: String, write: String },
    OriginBadScheme { text: String, write: Option<String> },
    OriginUpperCase { text: String, origin: String },
    OriginTrailingSlash { text: String, origin: String },
    OriginPath { text: String, origin: String },
    OriginQuery { text: String, origin: String },
    OriginUserinfo { text: String, origin: String },
    OriginNonAscii { text: String },
    OriginBadCharacter { text: String, character: char },
    OriginEmptyHost { text: String },
    OriginOpaque { text: String },
    OriginOfWebSocket { text: String, write: String },
    OriginBadHost { text: String, why: &'static str },
    OriginNotCanonical { text: String, canonical: String },
    OriginDefaultPort { text: String, write: String },
    OriginBadPort { text: String, port: String },
    OriginMisplacedWildcard { text: String, write: Option<String> },
    OriginUnknownPlaceholder { text: String, name: String, known: Known },
    OriginBadPlaceholder { text: String, why: &'static str, remedy: &'static str },
    OriginTooLong { limit: usize },

    // --- policies
    NoOrigins,
    AnyWithOthers,
    AnyInSet,
    NullInSet,
    NullOrigin,
    AnyOriginWithCredentials,
    AnyExposedWithCredentials,
    InsecureOriginWithCredentials { pattern: String },
    PublicSuffixWithCredentials { pattern: String, suffix: String },
    AnyOriginRegexWithCredentials { witness: String },
    InsecureRegexWithCredentials { witness: String },
    PublicSuffixRegexWithCredentials { witness: String, suffix: String },
    RegexDoesNotCompile { message: String, is_pattern: bool },
    RegexTooLarge { limit: usize },
    BadMethod { text: String },
    BadHeaderName { text: String },
    WordForAny { text: String },
    BadMaxAge { value: String },
    BadPreflightStatus { value: u16 },
    BadRefusedStatus { value: u16 },
    NothingToExpose { set: &'static str },
    CorsTrue,
    UnusedDanger { word: &'static str },

    // --- policies: warnings and hints
    RegexIsPattern { text: String },
    RegexUnescapedDot { witness: String },
    RegexOpenPrefix { witness: String },
    RegexAlternation { witness: String },
    RegexWithoutScheme { witness: String },
    RegexMatchesAll { witness: String },
    RegexNeverMatches { part: Option<String>, write: Option<String> },
    PublicSuffixRegex { witness: String, suffix: String },
    PublicSuffix { pattern: String, suffix: String },
    OddSchemeWithCredentials { pattern: String },
    MethodNeverSent { method: String },
    MethodCase { method: String, upper: String },
    HeaderNeverSent { name: String },
    HeaderNeverRead { name: String },
    HeaderOtherDirection { name: String, key: &'static str, move_to: Option<&'static str> },
    ExposedWithoutUse { name: String },
    ExposedAnyway { name: String },
    RejectsNothing,
    NestedReportOnly,
    ReportsNothing,
    OpenByOmission { keys: &'static [&'static str] },
    MeaninglessBesideAny { text: String },
    PrivateNetworkGone,
    MaxAgeLeftOut,
    CachedLongerThanMaxAge { directive: String, max_age: i64 },
    AnyHeaderWithoutAuthorization,

    // --- hosts, paths, methods of routes
    BadHost { text: String, why: &'static str, write: Option<String> },
    PathWithScheme { text: String, path: String },
    BadPrefix { text: String, why: &'static str, remedy: &'static str },
    BadPath { text: String, why: &'static str, write: Option<String> },
    HostTwice { host: String },
    AnyMethodInRoute,
    RouteTwice { host: String, path: String, other: KeyPath },
    NeverReached,
    PoliciesShareAPath { shared: Vec<(String, [String; 2])>, more: usize },
    StripPrefixMismatch { prefix: String, path: String },

    // --- behaviors of routes
    ExclusiveKeys { one: &'static str, other: &'static str },
    AllowedButDenied { network: String, by: String },
    HeaderOfCors { name: String },
    HeaderOfConnection { name: String },
    HeaderOfUpstreamHost,
    BadHeaderValue { text: String },
    UnknownVariable { name: String, known: Known },
    PathRegexTooLarge { limit: usize },
    BadReplacement { text: String, why: String },
    StatusWithoutBody { status: u16 },
    BadRedirectStatus { value: u16 },
    BadRedirect { text: String, why: &'static str },

    // --- listeners, upstreams
    HeaderRemoved { name: String, by: RemovedBecause },
    BadAddress { text: String, what: &'static str, example: &'static str },
    NodeUrl { text: String, write: String, needs_tls: bool },
    BadSocketPath { text: String, why: Cow<'static, str>, write: Option<String> },
    NodeWithoutTls { address: String },
    AddressTwice { address: String, other: String },
    ModeWithoutUnix,
    UnixNotTrusted,
    AllWeightsZero { what: &'static str },
    AdminExposed { address: String },
    RemoteWrite { address: String },
    BadTokenFile { path: String, line: usize, why: &'static str },
    NeedsAnother { key: &'static str, other: &'static str },
    HashOnUnknown { key: &'static str, text: String },
    RateKeyUnknown { text: String },
    SniMissing { node: String, what: &'static str },
    BadStatusRange { text: String },
    RedirectOverTls,
    Http2BesideTls,
    TrustsEveryone { text: String },
    DebugHeader,
    FolderMissing { path: String },

    // --- expectations
    BadExpectation { why: String, remedy: String },
    ExpectationFailed { request: String, expected: String, found: String, cause: Option<String>, remedy: String },
    MoreExpectationsFailed { count: usize },

    // --- compression
    ListedTwice { text: String },
    BadMediaType { text: String },
    NeverCompressed { text: String },

    // --- certificates
    FileUnreadable { path: String, why: String },
    NoPem { path: String, what: &'static str },
    BadCertificate { path: String, why: String },
    BadKey { path: String, why: String },
    KeyMismatch { cert: String, key: String },
    CertificateExpired { path: String, when: String },
    CertificateNotYetValid { path: String, when: String },
    CertificateEndsSoon { path: String, days: i64 },
    VerifyOff,
    NoRoots { why: Option<String> },

    // --- another file
    InOtherFile(Box<OtherFile>),
}

/// A problem in a file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherFile {
    /// Name of the file, as the configuration names it.
    pub name: String,
    /// Path of the key with the problem, from the top of that file.
    pub at: KeyPath,
    /// Line of the problem, from 1.
    pub line: usize,
    /// Column of the problem in characters, from 1.
    pub column: usize,
    /// Number of characters to mark.
    pub width: usize,
    /// Text of the line, without its end.
    pub excerpt: String,
    /// The kind of the problem.
    pub kind: ProblemKind,
}

/// The reason why a request header field is removed before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedBecause {
    /// The name has an underscore, and `underscores_in_headers` is `drop`.
    Underscore,
    /// The name looks like the name of a field that only a trusted proxy may send.
    Lookalike,
    /// Only a trusted proxy may send the field, and no trusted proxy is configured.
    NoTrustedProxy,
}

/// The position of a syntax error in a message of the YAML parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxPlace {
    /// Offset in the text in bytes, from 0.
    Byte(usize),
    /// Line and column in the text.
    Line {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
}

impl ProblemKind {
    /// Returns true if this problem at `at` can explain why the key at `meant` is missing. Then `at` is a misspelling
    /// of that key, or a merge key whose mapping may contain it.
    pub fn may_stand_for(&self, meant: &KeyPath, at: &KeyPath) -> bool {
        let ProblemKind::UnknownKey { key, known } = self else { return false };
        let (Some((PathStep::Key(meant), parent)), Some((_, own))) = (meant.0.split_last(), at.0.split_last()) else {
            return false;
        };
        parent == own && (key == "<<" || known.nearest() == Some(meant))
    }
}
