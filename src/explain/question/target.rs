//! The URL of a request, parsed as in a browser.

use std::fmt;

use url::{Host, Url};

use super::{Initiator, InvalidQuestion, QuestionPart};
use crate::domain::{OwnOrigin, Scheme};

/// The URL of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageUrl {
    pub(crate) scheme: Scheme,
    /// The value of `Host` in a browser: the host, and the port unless it is the default port of the scheme.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
}

impl PageUrl {
    /// Parses a URL as browsers do (URL standard): removes dot segments, default ports and the fragment.
    ///
    /// The URL of a WebSocket has the scheme `ws` or `wss`. They are treated as http and https.
    pub(super) fn parse(text: &str, initiator: Initiator) -> Result<Self, InvalidQuestion> {
        let invalid = |reason| InvalidQuestion::new(QuestionPart::Url, reason);
        let not_a_url = |why: &str| {
            invalid(format!("`{text}` is not a URL: {why}; write for example `https://api.example/orders`"))
        };
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(not_a_url(&format!("it has the character `{}`", c.escape_debug())));
        }
        let url = Url::parse(text).map_err(|error| not_a_url(&error.to_string()))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ws" if initiator == Initiator::WebSocket => Scheme::Http,
            "wss" if initiator == Initiator::WebSocket => Scheme::Https,
            "ws" | "wss" => {
                let reason = format!("`{text}` is the URL of a WebSocket, and fetch() rejects it");
                return Err(InvalidQuestion { instead: Some(QuestionPart::Initiator), ..invalid(reason) });
            }
            _ => return Err(invalid(format!("`{text}` is neither http nor https; write `https://` and the rest"))),
        };
        // Fetch, "new Request", step 5.5.
        if !url.username().is_empty() || url.password().is_some() {
            let reason = format!("`{text}` has a user part, and fetch() rejects it; remove the part before the `@`");
            return Err(invalid(reason));
        }
        Self::of(&url, scheme).ok_or_else(|| not_a_url("it has no host"))
    }

    /// Parses the URL of a server: scheme, host and port, without a path.
    ///
    /// # Errors
    ///
    /// Returns the fault and the remedy, as a phrase.
    pub(crate) fn of_server(text: &str) -> Result<Self, String> {
        let url = Self::parse(text, Initiator::Fetch).map_err(|invalid| invalid.reason)?;
        match url.path_and_query.as_str() {
            "/" => Ok(url),
            path => Err(format!("a server has no path; write it without `{path}`")),
        }
    }

    /// Returns the URL of a `Location` in a response to this URL, and true if it has a user part. Returns None if it is
    /// not an http or https URL.
    pub(in crate::explain) fn join(&self, location: &str) -> Option<(Self, bool)> {
        let next = Url::parse(&self.to_string()).ok()?.join(location).ok()?;
        let scheme = match next.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let has_user_part = !next.username().is_empty() || next.password().is_some();
        Some((Self::of(&next, scheme)?, has_user_part))
    }

    fn of(url: &Url, scheme: Scheme) -> Option<Self> {
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            host @ Host::Ipv6(_) => host.to_string(),
        };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some(PageUrl { scheme, authority: host + &port, path_and_query: format!("{}{query}", url.path()) })
    }

    /// Returns the URL as in the page's code. The URL of a WebSocket has its own scheme.
    pub(in crate::explain) fn as_written(&self, initiator: Initiator) -> String {
        let url = self.to_string();
        match (initiator, url.strip_prefix("http")) {
            (Initiator::WebSocket, Some(rest)) => format!("ws{rest}"),
            _ => url,
        }
    }

    /// Returns the path without its query.
    pub(in crate::explain) fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// Returns the origin of the URL, for a client that connects to the gateway directly.
    pub(in crate::explain) fn own_origin(&self) -> OwnOrigin<'_> {
        OwnOrigin::of(self.scheme, &self.authority)
    }

    /// Returns the serialised origin of the URL.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.authority)
    }

    /// Returns the port to which a client connects.
    pub(crate) fn port(&self) -> u16 {
        let default = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        crate::domain::split_port(&self.authority).1.and_then(|port| port.parse().ok()).unwrap_or(default)
    }
}

impl fmt::Display for PageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path_and_query)
    }
}
