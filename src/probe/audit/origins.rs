//! The origins that an audit sends.

use std::net::IpAddr;

use super::LookAlike;
use crate::domain::split_port;
use crate::explain::PageUrl;

/// A host name that cannot be registered (RFC 6761).
const ATTACKER: &str = "corsgate-probe.example";

/// A label that is unlikely to exist in the zone of the server.
const LABEL: &str = "corsgate-probe";

/// The origins that an audit sends, except `null` and the trusted origin.
#[derive(Debug)]
pub(super) struct Origins {
    foreign: String,
    look_alikes: Vec<(LookAlike, String)>,
}

impl Origins {
    pub(super) fn of(url: &PageUrl, trusted: Option<&str>) -> Self {
        use LookAlike::{Localhost, SharedHost};
        let own = url.origin();
        let mut look_alikes: Vec<(LookAlike, String)> = Vec::new();
        for origin in trusted.into_iter().chain([own.as_str()]) {
            let Some((scheme, authority)) = origin.split_once("://") else { continue };
            look_alikes.extend(of_host(scheme, split_port(authority).0, Some(origin) == trusted));
        }
        let others = [
            (SharedHost, "https://corsgate-probe.github.io"),
            (SharedHost, "https://codepen.io"),
            (SharedHost, "https://jsfiddle.net"),
            (Localhost, "http://localhost:3000"),
            (Localhost, "https://localhost"),
        ];
        look_alikes.extend(others.map(|(kind, origin)| (kind, origin.to_owned())));
        let mut known: Vec<String> = trusted.into_iter().map(str::to_owned).chain([own]).collect();
        look_alikes.retain(|(_, origin)| {
            let is_new = !known.contains(origin);
            known.push(origin.clone());
            is_new
        });
        Origins { foreign: format!("https://{ATTACKER}"), look_alikes }
    }

    pub(super) fn foreign(&self) -> &str {
        &self.foreign
    }

    pub(super) fn look_alikes(&self) -> &[(LookAlike, String)] {
        &self.look_alikes
    }
}

/// Returns the look-alikes of an origin.
fn of_host(scheme: &str, host: &str, is_trusted: bool) -> Vec<(LookAlike, String)> {
    use LookAlike::{Dot, Downgrade, Part, Port, Prefix, Special, Subdomain, Suffix};
    let mut all = vec![
        (Prefix, format!("{scheme}://{host}.{ATTACKER}")),
        (Special, format!("{scheme}://{host}_.{ATTACKER}")),
        (Special, format!("{scheme}://{host}`.{ATTACKER}")),
    ];
    if scheme == "https" {
        all.push((Downgrade, format!("http://{host}")));
    }
    if is_trusted {
        all.push((Port, format!("{scheme}://{host}:4433")));
    }
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address {
        return all;
    }
    // The registrable domain. A suffix that is not in the public suffix list counts as a public suffix.
    let site = psl::domain_str(host).unwrap_or(host);
    all.push((Suffix, format!("{scheme}://{LABEL}{site}")));
    all.push((Subdomain, format!("{scheme}://{LABEL}.{host}")));
    if site != host {
        // These names belong to the same owner.
        all.push((Subdomain, format!("{scheme}://{LABEL}{host}")));
        all.push((Subdomain, format!("{scheme}://{LABEL}.{site}")));
    }
    let dots: Vec<usize> = host.match_indices('.').map(|(at, _)| at).collect();
    for at in [dots.first(), dots.last()].into_iter().flatten() {
        all.push((Dot, format!("{scheme}://{}x{}", &host[..*at], &host[at + 1..])));
    }
    if site.len() > 3 && !site.starts_with(|c: char| !c.is_ascii()) {
        all.push((Part, format!("{scheme}://{}", &site[1..])));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Question;
    use crate::probe::audit::MOST_REQUESTS;

    fn origins(url: &str, trusted: Option<&str>) -> Origins {
        let question = Question::new("https://app.example", url).unwrap();
        Origins::of(question.url(), trusted)
    }

    #[test]
    fn look_alikes_are_of_the_server_and_of_the_trusted_origin() {
        let origins = origins("https://api.shop.co.uk/x", Some("https://www.other.com"));
        let all: Vec<&str> = origins.look_alikes().iter().map(|(_, origin)| origin.as_str()).collect();
        for expected in [
            "https://api.shop.co.uk.corsgate-probe.example",
            "https://corsgate-probeshop.co.uk",
            "https://corsgate-probe.shop.co.uk",
            "https://apixshop.co.uk",
            "https://api.shop.coxuk",
            "https://hop.co.uk",
            "http://api.shop.co.uk",
            "https://www.other.com.corsgate-probe.example",
            "https://corsgate-probeother.com",
            "https://wwwxother.com",
            "https://www.other.com:4433",
            "http://www.other.com",
        ] {
            assert!(all.contains(&expected), "{expected} {all:#?}");
        }
    }

    /// The limit must not remove a test. The audit sends 4 GET and 4 OPTIONS requests besides the look-alikes.
    #[test]
    fn all_requests_are_within_the_limit() {
        for (url, trusted) in [
            ("https://a.b.example.com/x", Some("https://c.d.other.co.uk")),
            ("http://127.0.0.1:8080/", Some("https://c.d.other.co.uk")),
            ("https://[::1]/", None),
            ("https://a.b.example.com/x", Some("null")),
            ("http://localhost:3000/", Some("http://localhost:5173")),
        ] {
            let count = origins(url, trusted).look_alikes().len() + 8;
            assert!(count <= MOST_REQUESTS, "{count} {url}");
        }
    }

    #[test]
    fn no_origin_is_sent_twice_or_is_the_servers_own() {
        let origins = origins("https://app.example.com/", Some("https://app.example.com"));
        let mut all: Vec<&str> = origins.look_alikes().iter().map(|(_, origin)| origin.as_str()).collect();
        assert!(!all.contains(&"https://app.example.com"));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
