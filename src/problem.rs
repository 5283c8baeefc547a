//! What can be wrong with a configuration, and what to write instead.
//!
//! Every sentence that `corsgate check` or a failed reload can say about a file stands here, one [`ProblemKind`] each: the
//! fault with the user's own text in it, and the remedy. The layers above only say *where* ([`At`]) and *which*.
//! Nothing here knows files or lines: [`crate::config::Source`] turns a [`KeyPath`] into a line and a column.
//!
//! ```
//! use corsgate::problem::{At, ProblemKind, Problems};
//!
//! let mut problems = Problems::default();
//! let root = At::root();
//! let services = root.key("services");
//! problems.add(&services.index(0).key("upstream"), ProblemKind::Missing { example: "upstream: api" });
//! assert_eq!(
//!     problems.iter().next().unwrap().to_string(),
//!     "services[0].upstream: is missing; write for example `upstream: api`",
//! );
//! ```

use std::fmt;

/// A fault, a warning or a hint about one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about; the key need not exist (it may be the one that is missing).
    pub at: KeyPath,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; never fails a check.
    Hint,
    /// Probably not what was meant; fails a check with `--deny-warnings`.
    Warning,
    /// The configuration is refused.
    Error,
}

/// What to write in place of what is wrong, for programs that mend files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// This text, instead of the value.
    Text(String),
    /// This word or number, instead of the value.
    Literal(&'static str),
    /// This name, for the key.
    Key(String),
    /// Nothing: the entry, or the key with its value, goes.
    Nothing,
}

/// All that was found, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// The path of a key from the top of the file: `services[0].routes[1].cors.allow_origins`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<PathStep>);

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathStep {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// A place while walking down a document: a [`KeyPath`] that costs nothing until a problem needs it.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Option<AtStep<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum AtStep<'a> {
    Key(&'a str),
    Index(usize),
}

/// A place that a message of the YAML parser names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxPlace {
    /// Offset in the text, from 0.
    Byte(usize),
    /// Line and column, from 1.
    Line {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
}

/// One variant for each thing that can be wrong, holding the user's text.
///
/// The documentation of a variant is its own [`ProblemKind::fault`] and [`ProblemKind::remedy`].
#[allow(missing_docs)] // the sentences below say more than a doc comment could
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    // --- the text
    Unreadable { why: String },
    Syntax { message: String, remedy: &'static str, places: Vec<SyntaxPlace> },
    WrongValue { found: String, expected: String },
    UnknownKey { key: String, known: Vec<String> },
    UnknownWord { word: String, known: Vec<String> },
    KeyTwice { first_line: usize },
    KeyAndAlias { key: String },
    Missing { example: &'static str },
    EmptyList,
    EmptyEntry,
    OutOfRange { value: String, range: String, write: String },

    // --- names
    UnknownName { what: &'static str, name: String, known: Vec<String> },
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
    OriginBadHost { text: String, why: &'static str },
    OriginNotCanonical { text: String, canonical: String },
    OriginDefaultPort { text: String, write: String },
    OriginBadPort { text: String, port: String },
    OriginMisplacedWildcard { text: String },
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
    RegexDoesNotCompile { message: String },
    RegexTooLarge { limit: usize },
    BadMethod { text: String },
    BadHeaderName { text: String },
    BadMaxAge { value: String },
    BadPreflightStatus { value: u16 },
    BadRefusedStatus { value: u16 },
    CorsTrue,
    UnusedDanger { word: &'static str },

    // --- policies: warnings and hints
    RegexUnescapedDot { witness: String },
    RegexOpenPrefix { witness: String },
    RegexAlternation { witness: String },
    RegexWithoutScheme { witness: String },
    RegexMatchesAll { witness: String },
    PublicSuffix { pattern: String, suffix: String },
    OddSchemeWithCredentials { pattern: String },
    MethodNeverSent { method: String },
    MethodCase { method: String, upper: String },
    HeaderNeverSent { name: String },
    HeaderNeverRead { name: String },
    HeaderOtherDirection { name: String, key: &'static str },
    MeaninglessBesideAny { text: String },
    PrivateNetworkGone,
    MaxAgeLeftOut,
    AnyHeaderWithoutAuthorization,

    // --- hosts, paths, methods of routes
    BadHost { text: String, why: &'static str, write: Option<String> },
    BadPath { text: String, why: &'static str, write: Option<String> },
    HostTwice { host: String },
    AnyMethodInRoute,
    RouteTwice { host: String, path: String, other: KeyPath },
    NeverReached { why: String },
    StripPrefixMismatch { prefix: String, path: String },

    // --- listeners, upstreams
    BadAddress { text: String, what: &'static str, example: &'static str },
    AddressTwice { address: String },
    AllWeightsZero,
    AdminExposed { address: String },
    NeedsAnother { key: &'static str, other: &'static str },
    HashOnUnknown { text: String },
    SniMissing { node: String },
    BadStatusRange { text: String },
    RedirectOverTls,
    TrustsEveryone { text: String },
    DebugHeader,
    FolderMissing { path: String },

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
}

// === impl Problems ===

impl Problems {
    /// Notes `kind` at a place.
    pub fn add(&mut self, at: &At<'_>, kind: ProblemKind) {
        self.push(Problem { at: at.path(), kind });
    }

    /// Notes a problem whose path is already known.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// True when something makes the configuration unusable.
    pub fn any_errors(&self) -> bool {
        self.0.iter().any(|p| p.kind.severity() == Severity::Error)
    }

    /// How many of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|p| p.kind.severity() == severity).count()
    }

    /// Nothing at all, not even a hint.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Keeps those for which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.0.retain(keep);
    }

    /// Adds all of `other` behind these.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problem {
    /// One line: place, fault, remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.0.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        write!(f, "{}; {}", self.kind.fault(), self.kind.remedy())
    }
}

impl fmt::Display for Problems {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

// === impl At, KeyPath ===

impl At<'_> {
    /// The top of the file.
    pub const fn root() -> At<'static> {
        At { parent: None, step: None }
    }

    /// The value of a key of this mapping.
    pub const fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        At { parent: Some(self), step: Some(AtStep::Key(key)) }
    }

    /// An entry of this list.
    pub const fn index(&self, index: usize) -> At<'_> {
        At { parent: Some(self), step: Some(AtStep::Index(index)) }
    }

    /// The path, written out.
    pub fn path(&self) -> KeyPath {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(at) = here {
            match at.step {
                Some(AtStep::Key(key)) => steps.push(PathStep::Key(key.to_owned())),
                Some(AtStep::Index(index)) => steps.push(PathStep::Index(index)),
                None => {}
            }
            here = at.parent;
        }
        steps.reverse();
        KeyPath(steps)
    }
}

impl KeyPath {
    /// True when `self` is `other` or lies inside it.
    pub fn is_within(&self, other: &KeyPath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// True for `upstreams.api`: what the key is called is the name itself.
    pub fn names_a_key(&self) -> bool {
        matches!(&*self.0, [PathStep::Key(_), PathStep::Key(_)])
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Key(key) if i == 0 => f.write_str(key)?,
                PathStep::Key(key) => write!(f, ".{key}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

// === impl ProblemKind ===

impl ProblemKind {
    /// Whether it refuses the file, warns, or only hints.
    pub fn severity(&self) -> Severity {
        match self {
            ProblemKind::RegexUnescapedDot { .. }
            | ProblemKind::RegexOpenPrefix { .. }
            | ProblemKind::RegexAlternation { .. }
            | ProblemKind::RegexWithoutScheme { .. }
            | ProblemKind::RegexMatchesAll { .. }
            | ProblemKind::PublicSuffix { .. }
            | ProblemKind::OddSchemeWithCredentials { .. }
            | ProblemKind::MethodNeverSent { .. }
            | ProblemKind::HeaderNeverSent { .. }
            | ProblemKind::HeaderNeverRead { .. }
            | ProblemKind::HeaderOtherDirection { .. }
            | ProblemKind::MeaninglessBesideAny { .. }
            | ProblemKind::PrivateNetworkGone
            | ProblemKind::NeverReached { .. }
            | ProblemKind::CertificateEndsSoon { .. }
            | ProblemKind::VerifyOff
            | ProblemKind::TrustsEveryone { .. }
            | ProblemKind::FolderMissing { .. }
            | ProblemKind::StripPrefixMismatch { .. } => Severity::Warning,
            ProblemKind::MaxAgeLeftOut
            | ProblemKind::UnusedDanger { .. }
            | ProblemKind::AnyHeaderWithoutAuthorization
            | ProblemKind::MethodCase { .. }
            | ProblemKind::DebugHeader
            | ProblemKind::AdminExposed { .. } => Severity::Hint,
            _ => Severity::Error,
        }
    }

    /// Whether this is a misspelt key at `at` that was probably meant to be the key at `meant`, or a merge key that
    /// may have brought it.
    pub fn may_stand_for(&self, meant: &KeyPath, at: &KeyPath) -> bool {
        let ProblemKind::UnknownKey { key, known } = self else { return false };
        let (Some((PathStep::Key(meant), parent)), Some((_, own))) = (meant.0.split_last(), at.0.split_last()) else {
            return false;
        };
        parent == own && (key == "<<" || nearest(key, known) == Some(meant))
    }

    /// A stable name for machines (`check --format json`).
    pub fn code(&self) -> String {
        let debug = format!("{self:?}");
        let name = debug.split([' ', '{']).next().unwrap_or_default();
        let mut code = String::with_capacity(name.len() + 4);
        for c in name.chars() {
            if c.is_ascii_uppercase() && !code.is_empty() {
                code.push('-');
            }
            code.push(c.to_ascii_lowercase());
        }
        code
    }

    /// What is wrong, without a full stop.
    pub fn fault(&self) -> String {
        use ProblemKind::*;
        match self {
            Unreadable { why } => format!("cannot be read: {why}"),
            Syntax { message, .. } => message.clone(),
            WrongValue { found, .. } => format!("found {found}"),
            UnknownKey { key, .. } => format!("unknown key `{key}`"),
            UnknownWord { word, .. } => format!("`{word}` is not known here"),
            KeyTwice { first_line } => format!("the key stands here a second time, first on line {first_line}"),
            KeyAndAlias { key } => format!("`{key}` and its alias are the same key"),
            Missing { .. } => "is missing".into(),
            EmptyList => "the list is empty".into(),
            EmptyEntry => "the entry is empty".into(),
            OutOfRange { value, range, .. } => format!("{value} is out of range, it must be {range}"),

            UnknownName { what, name, .. } => format!("there is no {what} named `{name}`"),
            NameTwice { what, name } => format!("a second {what} named `{name}`"),
            BadName { what, name } => format!("`{name}` is not a usable {what} name"),

            OriginReflectsAll => {
                "`**` means: reflect any origin, also with credentials, which no safe policy does".into()
            }
            OriginSeveral { text } => format!("`{text}` is more than one origin"),
            OriginWithoutScheme { text, .. } => format!("`{text}` has no scheme, and an Origin always has one"),
            OriginBadScheme { text, .. } => format!("`{text}` does not begin with a valid scheme"),
            OriginUpperCase { text, .. } => {
                format!("`{text}` has upper-case letters, which browsers never send in an Origin")
            }
            OriginTrailingSlash { text, .. } => format!("`{text}` ends with a slash, and an Origin never does"),
            OriginPath { text, .. } => format!("`{text}` has a path, and an Origin has none"),
            OriginQuery { text, .. } => format!("`{text}` has a query or fragment, and an Origin has none"),
            OriginUserinfo { text, .. } => format!("`{text}` has a user part, and an Origin has none"),
            OriginNonAscii { text } => format!("`{text}` has a host that is not ASCII, and browsers send punycode"),
            OriginBadCharacter { text, character } => {
                format!("`{text}` has the character {character:?}, which no Origin contains")
            }
            OriginEmptyHost { text } => format!("`{text}` has no host"),
            OriginBadHost { text, why } => format!("`{text}` has an invalid host: {why}"),
            OriginNotCanonical { text, .. } => format!("`{text}` is not how browsers write this address"),
            OriginDefaultPort { text, .. } => {
                format!("`{text}` has the default port of its scheme, which browsers leave out")
            }
            OriginBadPort { text, port } => format!("`{text}` has the bad port `{port}`"),
            OriginMisplacedWildcard { text } => format!("`{text}` has a `*` where none can be"),
            OriginTooLong { limit } => format!("longer than {limit} bytes, the longest Origin that is looked at"),

            NoOrigins => "the policy allows no origin, and nothing opens by omission".into(),
            AnyWithOthers => "`*` cannot be combined with other origins, it already allows them".into(),
            AnyInSet => "`*` cannot be in an origin set".into(),
            NullInSet => "`null` cannot be in an origin set".into(),
            NullOrigin => "`null` is sent by every sandboxed frame, so any site can send it".into(),
            AnyOriginWithCredentials => "\"*\" cannot be combined with allow_credentials: true".into(),
            AnyExposedWithCredentials => {
                "\"*\" cannot be combined with allow_credentials: true: Fetch then reads it as a header named `*`"
                    .into()
            }
            InsecureOriginWithCredentials { pattern } => {
                format!(
                    "`{pattern}` is not encrypted, so whoever sits on the network could read responses with credentials"
                )
            }
            PublicSuffixWithCredentials { pattern, suffix } if suffix == "*" => {
                format!("`{pattern}` trusts every host there is with credentials")
            }
            PublicSuffixWithCredentials { pattern, suffix } => {
                format!(
                    "`{pattern}` trusts with credentials everyone who can register a name under the public suffix `{suffix}`"
                )
            }
            RegexDoesNotCompile { message } => format!("the regular expression does not compile: {message}"),
            RegexTooLarge { limit } => {
                format!("the regular expression needs more than {} KiB when compiled", limit / 1024)
            }
            BadMethod { text } => format!("`{text}` is not a method"),
            BadHeaderName { text } => format!("`{text}` is not a header name"),
            BadMaxAge { value } => format!("{value} is out of range, it must be 0 to 86400 seconds, or -1 for 0"),
            BadPreflightStatus { value } => format!("{value} cannot be the status of an answered preflight"),
            BadRefusedStatus { value } => format!("{value} cannot be the status of a refused preflight"),
            CorsTrue => "`true` says nothing about who is allowed".into(),
            UnusedDanger { word } => format!("`{word}` is not needed by this policy"),

            RegexUnescapedDot { witness } => {
                format!("a dot that is not escaped stands for any character: lets in `{witness}`")
            }
            RegexOpenPrefix { witness } => {
                format!("anything may stand directly in front of the name, without a dot between: lets in `{witness}`")
            }
            RegexAlternation { witness } => {
                format!("an alternative at the top stands for a whole Origin of its own: lets in `{witness}`")
            }
            RegexWithoutScheme { witness } => format!("no scheme is asked for: lets in `{witness}`"),
            RegexMatchesAll { witness } => format!("matches every host: lets in `{witness}`"),
            PublicSuffix { pattern, suffix } => {
                format!("`{pattern}` trusts everyone who can register a name under the public suffix `{suffix}`")
            }
            OddSchemeWithCredentials { pattern } => {
                format!("`{pattern}` is neither https nor http on loopback, and gets responses with credentials")
            }
            MethodNeverSent { method } => format!("`{method}` can never be sent by a page, browsers forbid it"),
            MethodCase { method, .. } => {
                format!(
                    "`{method}` allows only that spelling: methods are case-sensitive, and Fetch does not normalise this one"
                )
            }
            HeaderNeverSent { name } => format!("`{name}` can never be set by a page, browsers forbid it"),
            HeaderNeverRead { name } => format!("`{name}` can never be read by a page, browsers hide it"),
            HeaderOtherDirection { name, key } => match *key {
                "allow_headers" => format!("`{name}` is a response header, and allow_headers lists request headers"),
                _ => format!("`{name}` is a request header, and expose_headers lists response headers"),
            },
            MeaninglessBesideAny { text } => format!("`{text}` changes nothing beside `*`"),
            PrivateNetworkGone => {
                "browsers gave up Private Network Access and ask the user instead, so this answers nobody".into()
            }
            MaxAgeLeftOut => "left out, so browsers ask again after 5 s".into(),
            AnyHeaderWithoutAuthorization => "`*` does not cover `Authorization`".into(),

            BadHost { text, why, .. } => format!("`{text}` is not a host: {why}"),
            BadPath { text, why, .. } => format!("`{text}` is not a path pattern: {why}"),
            HostTwice { host } => format!("the host `{host}` stands here a second time"),
            AnyMethodInRoute => "`*` is not a method".into(),
            RouteTwice { host, path, other } if host == "*" => {
                format!("path `{path}` of any host is already taken by {other}")
            }
            RouteTwice { host, path, other } => format!("path `{path}` of host `{host}` is already taken by {other}"),
            NeverReached { why } => format!("this route can never be reached: {why}"),
            StripPrefixMismatch { prefix, path } => {
                format!("`{prefix}` is not a prefix of the path `{path}`, so nothing is stripped there")
            }

            BadAddress { text, what, .. } => format!("`{text}` is not {what}"),
            AddressTwice { address } => format!("{address} is already listened on"),
            AllWeightsZero => "every node has weight 0, so none could be chosen".into(),
            AdminExposed { address } => {
                format!("{address} is reachable from other machines, and the admin listener asks for no password")
            }
            NeedsAnother { key, other } => format!("`{key}` without `{other}`"),
            HashOnUnknown { text } => format!("`{text}` is nothing that a node can be chosen by"),
            SniMissing { node } => {
                format!("the node {node} is an address, so there is no name to ask for and to verify")
            }
            BadStatusRange { text } => format!("`{text}` is neither a status nor a range of them"),
            RedirectOverTls => "the listener speaks TLS itself, so there is nothing to redirect".into(),
            FolderMissing { path } => format!("the folder of `{path}` is not there, and without it nothing starts"),
            DebugHeader => "every client is told in `X-Corsgate-Reason` what was decided".into(),
            TrustsEveryone { text } => {
                format!("`{text}` is everybody, so that every client can claim to be any other one")
            }

            FileUnreadable { path, why } => format!("cannot read `{path}`: {why}"),
            NoPem { path, what } => format!("`{path}` holds no {what} in PEM form"),
            BadCertificate { path, why } => format!("the certificate in `{path}` cannot be used: {why}"),
            BadKey { path, why } => format!("the private key in `{path}` cannot be used: {why}"),
            KeyMismatch { cert, key } => {
                format!("the key in `{key}` does not belong to the first certificate in `{cert}`")
            }
            CertificateExpired { path, when } => format!("the certificate in `{path}` has expired on {when}"),
            CertificateNotYetValid { path, when } => {
                format!("the certificate in `{path}` is not valid before {when}")
            }
            CertificateEndsSoon { path, days: 0 } => format!("the certificate in `{path}` ends today"),
            CertificateEndsSoon { path, days } => format!("the certificate in `{path}` ends in {days} d"),
            VerifyOff => {
                "the upstream's certificate is not verified, so whoever sits between can read and change everything"
                    .into()
            }
        }
    }

    /// What to write instead, as an order.
    pub fn remedy(&self) -> String {
        use ProblemKind::*;
        match self {
            Unreadable { .. } => "name the file with `--config FILE`".into(),
            Syntax { remedy, .. } => (*remedy).to_owned(),
            WrongValue { expected, .. } => format!("write {expected}"),
            UnknownKey { key, .. } if key == "<<" => {
                "merge keys are not supported; write the keys out, or give the whole value an alias or a name".into()
            }
            UnknownKey { key, known } => match nearest(key, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", listed(known)),
            },
            UnknownWord { word, known } => match nearest(word, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write one of {}", listed(known)),
            },
            KeyTwice { .. } | KeyAndAlias { .. } => "keep one of the two".into(),
            Missing { example } => format!("write for example `{example}`"),
            EmptyList => "list at least one entry, or remove the key".into(),
            EmptyEntry => "remove it, or the comma that makes it".into(),
            OutOfRange { write, .. } => format!("write {write}"),

            UnknownName { what, name, known } => match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if means_off(what, name) => "write `false` for no CORS handling".into(),
                None if known.is_empty() => format!("define the {what} first"),
                None => format!("the names are {}", listed(known)),
            },
            NameTwice { what, .. } => format!("give each {what} a name of its own"),
            BadName { .. } => "use letters, digits, `-`, `_` and `.`".into(),

            OriginReflectsAll => "list the origins, or write `*` without allow_credentials".into(),
            OriginSeveral { .. } => "write each as an entry of its own, or all in one string with commas between".into(),
            OriginWithoutScheme { write, .. } | OriginBadScheme { write: Some(write), .. } => format!("write `{write}`"),
            OriginBadScheme { write: None, .. } => "write `https://` and the host".into(),
            OriginUpperCase { origin, .. }
            | OriginTrailingSlash { origin, .. }
            | OriginPath { origin, .. }
            | OriginQuery { origin, .. }
            | OriginUserinfo { origin, .. } => format!("write `{origin}`"),
            OriginNonAscii { .. } => "write the host in its punycode form (`xn--…`), as the browser's address bar copies it".into(),
            OriginBadCharacter { .. } => "write `scheme://host` or `scheme://host:port`".into(),
            OriginEmptyHost { .. } => "write the host, or `scheme://*` for any".into(),
            OriginBadHost { .. } => "write the host as the browser sends it".into(),
            OriginNotCanonical { canonical, .. } => format!("write `{canonical}`"),
            OriginDefaultPort { write, .. } => format!("write `{write}`"),
            OriginBadPort { .. } => "write a number from 1 to 65535, or `*` for any".into(),
            OriginMisplacedWildcard { .. } => {
                "`*` may stand alone, for the port, for the whole host, or as `*.` in front of a host".into()
            }
            OriginTooLong { .. } => "shorten it".into(),

            NoOrigins => "write allow_origins, allow_origins_by_regex or allow_origin_sets; or `cors: false` for no CORS handling".into(),
            AnyWithOthers => "remove the other origins, or the `*`".into(),
            AnyInSet => "write `allow_origins: \"*\"` in the policy itself".into(),
            NullInSet => "write `null` in allow_origins of the policy that needs it".into(),
            NullOrigin => "remove it, or accept that with `dangerously_allow: [null_origin]`".into(),
            AnyOriginWithCredentials => "list the origins, or remove allow_credentials".into(),
            AnyExposedWithCredentials => "list the header names".into(),
            InsecureOriginWithCredentials { pattern } if pattern.contains("://*:") || pattern.ends_with("://*") => {
                "list https origins, or accept that with `dangerously_allow: [insecure_origins]`".into()
            }
            InsecureOriginWithCredentials { pattern } => format!(
                "write `{}`, or accept that with `dangerously_allow: [insecure_origins]`",
                pattern.replacen("http:", "https:", 1)
            ),
            PublicSuffixWithCredentials { .. } => {
                "list the hosts that are yours, or accept that with `dangerously_allow: [public_suffix_subdomains]`".into()
            }
            RegexDoesNotCompile { .. } => "correct it; look-around and backreferences are not supported, matching takes linear time".into(),
            RegexTooLarge { .. } => "shorten it, or list the origins".into(),
            BadMethod { .. } => "write a method such as `PUT`; separate several with commas".into(),
            BadHeaderName { .. } => "write a name such as `X-Request-Id`; separate several with commas".into(),
            BadMaxAge { .. } => "write `86400` for the longest, `0` for no caching".into(),
            BadPreflightStatus { .. } => "write 200 or 204".into(),
            BadRefusedStatus { .. } => "write 200, 204 or 403".into(),
            CorsTrue => "write a policy, the name of one, or `false`".into(),
            UnusedDanger { word } => format!("remove `{word}`, so that it cannot hide a later mistake"),

            RegexUnescapedDot { .. } => "write `\\.` for a dot".into(),
            RegexOpenPrefix { .. } => "write `([a-z0-9-]+\\.)*` for the subdomains".into(),
            RegexAlternation { .. } => "put the alternatives in parentheses, `https://(a|b)\\.example`".into(),
            RegexWithoutScheme { .. } => "begin it with `https://`".into(),
            RegexMatchesAll { .. } => "narrow it, or write `allow_origins: \"*\"` if that is meant".into(),
            PublicSuffix { .. } => "list the hosts that are yours".into(),
            OddSchemeWithCredentials { .. } => "make sure that only your own program can send it, or remove it".into(),
            MethodNeverSent { .. } => "remove it".into(),
            MethodCase { upper, .. } => format!("write `{upper}`, or both if pages send both"),
            HeaderNeverSent { .. } | HeaderNeverRead { .. } => "remove it".into(),
            HeaderOtherDirection { key, .. } => match *key {
                "allow_headers" => "remove it, or move it to expose_headers".into(),
                _ => "remove it, or move it to allow_headers".into(),
            },
            MeaninglessBesideAny { .. } => "remove it, or the `*`".into(),
            PrivateNetworkGone => "remove it".into(),
            MaxAgeLeftOut => "write for example `max_age: 7200`".into(),
            AnyHeaderWithoutAuthorization => "if pages send it, write `allow_headers: [\"*\", Authorization]`".into(),

            BadHost { write, .. } | BadPath { write, .. } if write.is_some() => {
                format!("write `{}`", write.as_deref().unwrap_or_default())
            }
            BadHost { text, .. } if text == "*" => "remove `hosts`".into(),
            BadHost { .. } => "write `api.example` or `*.example`".into(),
            BadPath { .. } => "write `/users`, `/users/{id}` or `/users/*`".into(),
            HostTwice { .. } => "remove it".into(),
            AnyMethodInRoute => "leave `methods` out for any".into(),
            RouteTwice { .. } => "remove one, or tell them apart by host, path or `methods`".into(),
            NeverReached { .. } => "remove it".into(),
            StripPrefixMismatch { .. } => "write a prefix that the paths of this route begin with".into(),

            BadAddress { example, .. } => format!("write for example `{example}`"),
            AddressTwice { .. } => "remove one of the two".into(),
            AllWeightsZero => "give at least one node a weight of 1 or more".into(),
            AdminExposed { .. } => "write `127.0.0.1:9180`, or make sure that only your monitoring can reach it".into(),
            NeedsAnother { key, other } => format!("write `{other}` too, or remove `{key}`"),
            HashOnUnknown { .. } => "write `header:NAME`, `cookie:NAME`, `path` or `client_address`".into(),
            SniMissing { .. } => "write `sni: api.internal`, the name in its certificate".into(),
            BadStatusRange { .. } => "write `200` or `200-399`".into(),
            TrustsEveryone { .. } => "write the addresses of your proxies".into(),
            FolderMissing { .. } => "make it, or write a path in a folder that is there, from the directory of this file".into(),
            DebugHeader => "leave it out in production".into(),
            RedirectOverTls => "remove it here, and write it at the listener for plain HTTP".into(),

            FileUnreadable { .. } => {
                "write a path from the directory of this file, and let the user that runs corsgate read it".into()
            }
            NoPem { what, .. } => format!("name a file with a {what}, which begins with `-----BEGIN`"),
            BadCertificate { .. } => "name a file with an X.509 certificate, version 3".into(),
            BadKey { .. } => "name a file with an RSA key from 2048 bits, an ECDSA key of P-256 or P-384, or Ed25519".into(),
            KeyMismatch { .. } => "name the two files of one pair; the certificate of the server itself comes first".into(),
            CertificateExpired { .. } => "renew it".into(),
            CertificateNotYetValid { .. } => "wait until then, or set the clock of this machine".into(),
            CertificateEndsSoon { .. } => "renew it, then reload with SIGHUP".into(),
            VerifyOff => "remove `verify: false`; for an authority of your own write `ca: FILE`".into(),
        }
    }
}

impl ProblemKind {
    /// What to write instead, where that is one definite text; None where it is a choice. Agrees with
    /// [`ProblemKind::remedy`].
    pub fn replacement(&self) -> Option<Replacement> {
        use ProblemKind::*;
        match self {
            UnknownKey { key, known } if key != "<<" => {
                nearest(key, known).map(|near| Replacement::Key(near.to_owned()))
            }
            UnknownWord { word, known } => match nearest(word, known) {
                Some(near) => Some(Replacement::Text(near.to_owned())),
                None => match known.as_slice() {
                    [only] => Some(Replacement::Text(only.clone())),
                    _ => None,
                },
            },
            UnknownName { what, name, known } => match nearest(name, known) {
                Some(near) => Some(Replacement::Text(near.to_owned())),
                None => means_off(what, name).then_some(Replacement::Literal("false")),
            },
            OriginWithoutScheme { write, .. }
            | OriginBadScheme { write: Some(write), .. }
            | OriginUpperCase { origin: write, .. }
            | OriginTrailingSlash { origin: write, .. }
            | OriginPath { origin: write, .. }
            | OriginQuery { origin: write, .. }
            | OriginUserinfo { origin: write, .. }
            | OriginNotCanonical { canonical: write, .. }
            | OriginDefaultPort { write, .. }
            | BadHost { write: Some(write), .. }
            | BadPath { write: Some(write), .. }
            | MethodCase { upper: write, .. } => Some(Replacement::Text(write.clone())),
            BadMaxAge { value } => Some(Replacement::Literal(if value.starts_with('-') { "0" } else { "86400" })),
            EmptyEntry
            | HostTwice { .. }
            | UnusedDanger { .. }
            | MethodNeverSent { .. }
            | HeaderNeverSent { .. }
            | HeaderNeverRead { .. }
            | HeaderOtherDirection { .. }
            | PrivateNetworkGone
            | RedirectOverTls => Some(Replacement::Nothing),
            // Whoever wrote it has a choice, or what is to be written is not known.
            Unreadable { .. }
            | Syntax { .. }
            | WrongValue { .. }
            | UnknownKey { .. }
            | KeyTwice { .. }
            | KeyAndAlias { .. }
            | Missing { .. }
            | EmptyList
            | OutOfRange { .. }
            | NameTwice { .. }
            | BadName { .. }
            | OriginReflectsAll
            | OriginSeveral { .. }
            | OriginBadScheme { write: None, .. }
            | OriginNonAscii { .. }
            | OriginBadCharacter { .. }
            | OriginEmptyHost { .. }
            | OriginBadHost { .. }
            | OriginBadPort { .. }
            | OriginMisplacedWildcard { .. }
            | OriginTooLong { .. }
            | NoOrigins
            | AnyWithOthers
            | AnyInSet
            | NullInSet
            | NullOrigin
            | AnyOriginWithCredentials
            | AnyExposedWithCredentials
            | InsecureOriginWithCredentials { .. }
            | PublicSuffixWithCredentials { .. }
            | RegexDoesNotCompile { .. }
            | RegexTooLarge { .. }
            | BadMethod { .. }
            | BadHeaderName { .. }
            | BadPreflightStatus { .. }
            | BadRefusedStatus { .. }
            | CorsTrue
            | RegexUnescapedDot { .. }
            | RegexOpenPrefix { .. }
            | RegexAlternation { .. }
            | RegexWithoutScheme { .. }
            | RegexMatchesAll { .. }
            | PublicSuffix { .. }
            | OddSchemeWithCredentials { .. }
            | MeaninglessBesideAny { .. }
            | MaxAgeLeftOut
            | AnyHeaderWithoutAuthorization
            | BadHost { write: None, .. }
            | BadPath { write: None, .. }
            | AnyMethodInRoute
            | RouteTwice { .. }
            | NeverReached { .. }
            | StripPrefixMismatch { .. }
            | BadAddress { .. }
            | AddressTwice { .. }
            | AllWeightsZero
            | AdminExposed { .. }
            | NeedsAnother { .. }
            | HashOnUnknown { .. }
            | SniMissing { .. }
            | BadStatusRange { .. }
            | TrustsEveryone { .. }
            | DebugHeader
            | FileUnreadable { .. }
            | FolderMissing { .. }
            | NoPem { .. }
            | BadCertificate { .. }
            | BadKey { .. }
            | KeyMismatch { .. }
            | CertificateExpired { .. }
            | CertificateNotYetValid { .. }
            | CertificateEndsSoon { .. }
            | VerifyOff => None,
        }
    }
}

/// Whether the name of a policy was meant to say that there is none.
fn means_off(what: &str, name: &str) -> bool {
    what == "policy" && ["off", "no", "none", "disabled"].contains(&name)
}

/// The known word that `word` was probably meant to be.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        // A word in another case is no other word.
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate.as_str())
}

/// At most eight of them: the reader wants an idea of the choice, not all of a thousand names.
fn listed(words: &[String]) -> String {
    let shown: Vec<String> = words.iter().take(8).map(|w| format!("`{w}`")).collect();
    let more = words.len().saturating_sub(8);
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}
