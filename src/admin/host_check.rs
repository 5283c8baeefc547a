//! Access check of the admin listener.
//!
//! A page of any site can make a browser send requests to 127.0.0.1. With DNS rebinding (a name of the attacker that
//! resolves to 127.0.0.1), the page can also read the responses. So the Host must be an IP address, `localhost`, or a
//! name in `admin.hosts`. A foreign site cannot use any of these as its own name. Requests are also refused if the
//! browser marks them as sent by a page of another site.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::domain::HostName;
use crate::route::HostPattern;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FOREIGN_HOST: &str = "\
Host not allowed. Use an IP address or localhost, or add the name: `admin: { hosts: [NAME] }`.
";
const FOREIGN_SITE: &str = "Requests from pages of other sites are not allowed.\n";

/// Checks a request. The error is the body of the 403.
pub(super) fn admit(headers: &HeaderMap, hosts: &[HostPattern]) -> Result<(), &'static str> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(HostName::parse).ok_or(FOREIGN_HOST)?,
        _ => return Err(FOREIGN_HOST),
    };
    if !is_own(&host, hosts) {
        return Err(FOREIGN_HOST);
    }
    // Fetch Metadata: `none` means that a user entered the URL, `same-origin` means a page of this listener.
    let site = headers.get_all(SEC_FETCH_SITE);
    if site.iter().any(|site| site != "none" && site != "same-origin") {
        return Err(FOREIGN_SITE);
    }
    // Browsers without Fetch Metadata send at least `Origin`.
    let own = |origin: &HeaderValue| {
        let authority = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        origin.as_bytes().strip_prefix(b"http://") == Some(authority)
    };
    match headers.get_all(header::ORIGIN).iter().all(own) {
        true => Ok(()),
        false => Err(FOREIGN_SITE),
    }
}

fn is_own(host: &HostName, hosts: &[HostPattern]) -> bool {
    let name = host.as_str();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    address || name == "localhost" || hosts.iter().any(|pattern| pattern.covers(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&'static str, &'static str)]) -> Result<(), &'static str> {
        let hosts = [HostPattern::parse("corsgate.internal").unwrap(), HostPattern::parse("*.ops.internal").unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        admit(&headers, &hosts)
    }

    #[test]
    fn only_addresses_localhost_and_configured_names_are_allowed() {
        let own =
            ["127.0.0.1:9180", "10.0.0.7", "[::1]:9180", "[::1]", "localhost", "LocalHost:9180", "localhost.:9180"];
        for host in own.into_iter().chain(["corsgate.internal:9180", "eu.ops.internal", "Corsgate.Internal"]) {
            assert_eq!(asked(&[("host", host)]), Ok(()), "{host}");
        }
        let foreign = [
            "evil.test",
            "evil.test:9180",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "evil-localhost",
            "ops.internal",
            "corsgate.internal.evil.test",
            "127.0.0.1 evil.test",
            "",
        ];
        for host in foreign {
            assert_eq!(asked(&[("host", host)]), Err(FOREIGN_HOST), "{host}");
        }
        assert_eq!(asked(&[]), Err(FOREIGN_HOST));
        assert_eq!(asked(&[("host", "localhost"), ("host", "localhost")]), Err(FOREIGN_HOST));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:9180");
        for own in [("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9180")]
        {
            assert_eq!(asked(&[host, own]), Ok(()), "{own:?}");
        }
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
            ("origin", "https://evil.test"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "https://127.0.0.1:9180"),
            ("origin", ""),
        ] {
            assert_eq!(asked(&[host, foreign]), Err(FOREIGN_SITE), "{foreign:?}");
        }
        let both = [host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(asked(&both), Err(FOREIGN_SITE));
    }
}
