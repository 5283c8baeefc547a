//! Keys of other products, and the corresponding keys of corsgate.
//!
//! Users come from Express, FastAPI, Flask, Django, Spring, Kong, Envoy, Traefik, nginx, APISIX and others. A
//! comparison of spellings does not find the corresponding key, because the words differ too much, or another key is
//! more similar.

/// The words of other products for each key, in lower case and without `-` and `_`.
const MEANT: &[(&str, &[&str])] = &[
    (
        "allow_origins",
        &[
            "accesscontrolalloworigin",
            "accesscontrolalloworiginlist",
            "allowedorigin",
            "allowedoriginpatterns",
            "allowedorigins",
            "alloworigin",
            "alloworiginlist",
            "alloworiginstringmatch",
            "alloworiginstrings",
            "corsallowedorigins",
            "corsalloworigin",
            "corsorigins",
            "corsoriginwhitelist",
            "origin",
            "originlist",
            "origins",
        ],
    ),
    (
        "allow_origins_by_regex",
        &[
            "accesscontrolalloworiginlistregex",
            "allowedoriginregex",
            "allowedoriginregexes",
            "alloworiginregex",
            "alloworiginregexes",
            "alloworiginsregex",
            "corsallowedoriginregexes",
            "corsoriginregexwhitelist",
            "originregex",
            "originsregex",
        ],
    ),
    (
        "allow_methods",
        &[
            "accesscontrolallowmethods",
            "allowedmethods",
            "allowmethod",
            "corsallowedmethods",
            "corsallowmethods",
            "methods",
        ],
    ),
    (
        "allow_headers",
        &[
            "accesscontrolallowheaders",
            "allowedheaders",
            "allowheader",
            "corsallowedheaders",
            "corsallowheaders",
            "headers",
        ],
    ),
    (
        "expose_headers",
        &["accesscontrolexposeheaders", "corsexposedheaders", "corsexposeheaders", "exposedheaders", "exposeheader"],
    ),
    ("max_age", &["accesscontrolmaxage", "corsmaxage", "corspreflightmaxage", "maxageseconds", "preflightmaxage"]),
    (
        "allow_credentials",
        &[
            "accesscontrolallowcredentials",
            "allowcredentials",
            "corsallowcredentials",
            "credential",
            "credentials",
            "supportcredentials",
            "supportscredentials",
        ],
    ),
    (
        "allow_private_network",
        &["allowprivatenetworkaccess", "corsallowprivatenetwork", "privatenetwork", "privatenetworkaccess"],
    ),
    ("timing_allow_origins", &["timingalloworigin"]),
    ("preflight", &["optionspassthrough", "optionssuccessstatus", "preflightcontinue"]),
    ("cors_policies", &["policies"]),
    ("cors", &["corspolicy", "policy"]),
    ("listeners", &["listen", "server", "servers"]),
    ("services", &["routes", "virtualhosts"]),
    ("upstreams", &["backends", "clusters"]),
    ("upstream", &["backend", "cluster", "proxypass", "service", "upstreamid"]),
    ("nodes", &["backends", "endpoints", "hosts", "servers", "targets"]),
    ("address", &["endpoint", "host", "listen", "server", "target", "url"]),
    ("rate_limit", &["limitcount", "limitreq", "limitreqzone", "localratelimit", "ratelimiting", "throttle"]),
    ("hosts", &["domain", "domains", "host", "servername"]),
    ("paths", &["location", "path", "prefix", "uri", "uris"]),
    ("certificates", &["certificate", "certs"]),
    ("cert", &["certfile", "certificate", "sslcertificate"]),
    ("key", &["keyfile", "privatekey", "sslcertificatekey"]),
];

/// Returns the key among `known` that corresponds to a key of another product.
pub(super) fn meant(key: &str, known: &[String]) -> Option<&'static str> {
    let plain: String = key.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase();
    let means = |(ours, words): &&(&str, &[&str])| words.contains(&&*plain) && known.iter().any(|known| known == ours);
    MEANT.iter().find(means).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_exists_and_every_word_means_it() {
        let schema = crate::config::schema::json();
        for (ours, words) in MEANT {
            assert!(schema.contains(&format!("\"{ours}\": {{")), "{ours} is no key");
            for word in *words {
                assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
                assert_eq!(meant(word, &[(*ours).to_owned()]), Some(*ours));
            }
        }
    }

    #[test]
    fn a_word_means_a_key_of_its_place_only() {
        let known = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            meant("supports_credentials", &known(&["allow_origins", "allow_credentials"])),
            Some("allow_credentials")
        );
        assert_eq!(meant("Access-Control-Max-Age", &known(&["max_age"])), Some("max_age"));
        assert_eq!(meant("allowedOrigins", &known(&["allow_origins"])), Some("allow_origins"));
        assert_eq!(meant("host", &known(&["name", "hosts"])), Some("hosts"));
        assert_eq!(meant("host", &known(&["address", "weight"])), Some("address"));
        assert_eq!(meant("host", &known(&["name"])), None);
    }
}
