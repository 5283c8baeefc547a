//! The cause of a refusal: a fault in the file, in the page or at the upstream. It also has advice if an edit of the
//! file is not the only fix, or not the best one.

mod diagnosis;
mod near_miss;
mod route_config;

pub(super) use self::diagnosis::{Diagnosis, is_own_behind_tls, known_in_other_case, routes_of_host, routes_of_path};
pub use self::near_miss::NearMiss;
pub(super) use self::near_miss::least_distance;
pub(super) use self::route_config::RouteConfig;

use crate::cors::{MAX_NAMES, MAX_NAMES_BYTES, MAX_ORIGIN, ResourcePolicy};
use crate::explain::fetch::NetworkError;
use crate::snapshot::Level;

/// The cause of a refusal. Each cause has a text, a stable code, and sometimes advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No service matches the host.
    UnknownHost {
        /// The host of the request.
        host: String,
        /// A similar host of a service. None if no host is similar.
        similar: Option<String>,
    },
    /// No route of the host matches the path.
    UnknownPath {
        /// The path of the request.
        path: String,
        /// A similar path of a route. None if no path is similar.
        similar: Option<String>,
    },
    /// Routes match the path, but none accepts the method.
    NoRouteForMethod {
        /// The method that selects the route.
        method: String,
        /// The accepted methods, as in `Allow`.
        allow: String,
        /// The method in another case, if a route accepts it or if it is common. In this case, the page must change,
        /// not the file.
        other_case: Option<String>,
    },
    /// The gateway rejects the request, independent of any policy.
    RefusedByGateway {
        /// The code of the refusal.
        code: &'static str,
        /// The status of the response.
        status: u16,
        /// The text of the response.
        explanation: &'static str,
    },
    /// There is no policy at any level, and the upstream's response does not allow the request.
    NoPolicy(NetworkError),
    /// The route has `cors: false`, and the upstream's response does not allow the request.
    PolicyOff {
        /// The level of the `cors: false`.
        level: Level,
        /// The outer level whose policy it replaces.
        shadowed: Option<Level>,
        /// The result of the browser's check of the upstream's response.
        error: NetworkError,
    },
    /// The policy does not allow the origin.
    OriginNotAllowed {
        /// The origin of the request.
        origin: String,
        /// The origin has the scheme `http`, and the request or the policy has credentials. A policy allows both
        /// only with `dangerously_allow: [insecure_origins]`.
        insecure: bool,
        /// The most similar entry of the policy. None if no entry is similar.
        near_miss: Option<NearMiss>,
        /// The outer level whose policy would allow the origin. The policy of `level` replaces that policy.
        shadowed: Option<Level>,
        /// The level of the policy.
        level: Level,
    },
    /// The page has the opaque origin `null`.
    OriginNull,
    /// A redirect from one foreign origin to another replaced the page's origin by `null`.
    OriginLost {
        /// The URL of the redirect.
        to: String,
    },
    /// The `Origin` field is not a serialised origin.
    OriginInvalid(InvalidOrigin),
    /// `allow_methods` does not have the method.
    MethodNotAllowed {
        /// The normalised method.
        method: String,
        /// The entries of `allow_methods`.
        listed: Vec<String>,
        /// The method in another case, if the policy lists it or if it is common. In this case, the page must change,
        /// not the file.
        other_case: Option<String>,
    },
    /// `allow_headers` does not have all headers.
    HeadersNotAllowed {
        /// The missing names, as the page writes them.
        names: Vec<String>,
        /// True if `allow_headers` has `*`, which does not cover `Authorization`.
        star: bool,
    },
    /// The page sets response headers in its request, and the policy does not allow them.
    ResponseHeaders(Vec<String>),
    /// The preflight requests more headers than the gateway reads.
    HeaderListTooLong,
    /// The request is same-origin over https, but the gateway receives plain http. Another component terminates TLS,
    /// but it is not a trusted proxy that sends the scheme.
    TlsInFront {
        /// The effect on the request.
        effect: TlsEffect,
        /// True if the file has `trusted_proxies`.
        trusted: bool,
    },
    /// The policy rejects a navigation from another site, such as a form of single sign-on.
    Navigation {
        /// The `Origin` of the navigation.
        origin: String,
        /// The key of the policy that causes the rejection.
        key: &'static str,
        /// The reason code of the gateway.
        code: &'static str,
    },
    /// `cross_site: reject` rejects the request. `*` in `allow_origins` does not permit requests that change state.
    CrossSite,
    /// The upstream redirects to a URL that browsers do not follow.
    Redirect(NetworkError),
    /// The response to a WebSocket does not have the status 101.
    NotSwitched {
        /// The status of the response.
        status: u16,
        /// True if the gateway redirects plain requests to https.
        by_gateway: bool,
    },
    /// `Cross-Origin-Resource-Policy` forbids a load without CORS.
    ResourcePolicy {
        /// The value of the header.
        policy: ResourcePolicy,
        /// True if the policy sets the header, false if the upstream sends it.
        by_policy: bool,
    },
    /// The request has credentials, and the policy does not allow them.
    CredentialsNotAllowed {
        /// True if the policy allows any origin with `*`, which browsers do not accept with credentials.
        any_origin: bool,
    },
    /// The policy allows the request, but the upstream's headers in the response prevent it.
    Upstream(NetworkError),
    /// `expose_headers` does not list these names.
    NotExposed(Vec<String>),
}

/// Effect of a gateway that receives https requests as plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsEffect {
    /// The gateway treats this origin, which is the site's own, as a foreign origin.
    ForeignOrigin(String),
    /// `redirect_to_https` redirects each request to its own URL.
    RedirectLoop,
}

/// The reason why an `Origin` is not a serialised origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidOrigin {
    /// The request has several `Origin` fields, or one field with a list.
    Several,
    /// The value is longer than 300 bytes.
    TooLong,
    /// The value has characters that an origin cannot have.
    Characters,
}

// === impl Cause ===

impl Cause {
    /// Returns the fault, as a phrase without a full stop.
    pub(crate) fn fault(&self) -> String {
        match self {
            Cause::UnknownHost { host, .. } => format!("no service has the host {host}, so no policy applies"),
            Cause::UnknownPath { path, .. } => format!("no route of this host matches the path {path}"),
            Cause::NoRouteForMethod { method, allow, .. } => {
                format!("the routes of this path accept {allow}, but not {method}")
            }
            Cause::RefusedByGateway { status, explanation, .. } => {
                let explanation = explanation.trim_end_matches('.');
                format!("the gateway rejects the request with {status}, independent of any policy: {explanation}")
            }
            Cause::NoPolicy(error) => {
                format!("there is no `cors` for this route at any level; {}", upstream_decides(error))
            }
            Cause::PolicyOff { level, shadowed, error } => {
                let including = match shadowed {
                    Some(shadowed) => format!(", including the policy {}", of_level(*shadowed)),
                    None => String::new(),
                };
                let level = of_level(*level);
                format!("`cors: false` {level} turns CORS handling off{including}; {}", upstream_decides(error))
            }
            Cause::OriginNotAllowed { origin, near_miss, shadowed, level, insecure: _ } => {
                let fault = match near_miss {
                    Some(near_miss) => near_miss.fault(origin),
                    None => format!("the policy does not allow the origin {origin}"),
                };
                match shadowed {
                    Some(shadowed) => {
                        let (outer, own) = (of_level(*shadowed), of_level(*level));
                        format!("{fault}; the policy {outer} allows it, but the policy {own} replaces that policy")
                    }
                    None => fault,
                }
            }
            Cause::OriginNull => "the page's origin is null: the page is a local file or in a sandboxed frame, or the \
                                  request was redirected from one foreign origin to another"
                .into(),
            Cause::OriginLost { to } => {
                format!(
                    "the redirect to {to} leads from one foreign origin to another, so the browser sends the origin null"
                )
            }
            Cause::OriginInvalid(InvalidOrigin::Several) => {
                "the request has more than one origin, and the gateway accepts none of them".into()
            }
            Cause::OriginInvalid(InvalidOrigin::TooLong) => {
                format!("the Origin is longer than {MAX_ORIGIN} bytes; no browser sends such an Origin")
            }
            Cause::OriginInvalid(InvalidOrigin::Characters) => {
                "the Origin has characters that no browser sends in an Origin".into()
            }
            Cause::MethodNotAllowed { method, listed, .. } if listed.is_empty() => {
                format!("the policy's allow_methods is empty, so it allows only GET, HEAD and POST, but not {method}")
            }
            Cause::MethodNotAllowed { method, listed, .. } => {
                format!("the policy's allow_methods has {}, but not {method}", first_of(listed))
            }
            Cause::HeadersNotAllowed { names, star: true } => {
                format!("`*` in allow_headers, which is also the default, does not cover {}", names.join(", "))
            }
            Cause::HeadersNotAllowed { names, star: false } => {
                format!("the policy's allow_headers does not list {}", names.join(", "))
            }
            Cause::ResponseHeaders(names) => {
                let is = match names.len() {
                    1 => "is a response header, not a request header",
                    _ => "are response headers, not request headers",
                };
                format!("the page sends {}, which {is}", names.join(", "))
            }
            Cause::Navigation { origin, key, .. } => format!(
                "the request is a navigation from {origin}, such as a form. CORS does not apply to navigations, but this \
                 policy has `{key}: reject`"
            ),
            Cause::CrossSite => "the request may change state and comes from a page of another origin, and the policy has \
                                 `cross_site: reject`; `*` in allow_origins lets every page read, and none change state"
                .into(),
            Cause::Redirect(error) => format!("the upstream redirects, but {error}"),
            Cause::NotSwitched { status, by_gateway: true } => format!(
                "the listener redirects plain requests to https with {status}, but browsers do not follow redirects of \
                 WebSockets"
            ),
            Cause::NotSwitched { status, by_gateway: false } => {
                format!("a WebSocket needs a response with the status 101, but the upstream responds with {status}")
            }
            Cause::HeaderListTooLong => format!(
                "the preflight asks for more than {MAX_NAMES} headers, or for more than {MAX_NAMES_BYTES} bytes of \
                 names; the gateway does not allow such a list"
            ),
            Cause::TlsInFront { effect: TlsEffect::ForeignOrigin(origin), .. } => format!(
                "TLS ends in front of corsgate, which sees plain http and so takes the site's own origin {origin} for a \
                 foreign one"
            ),
            Cause::TlsInFront { effect: TlsEffect::RedirectLoop, .. } => {
                "TLS ends in front of corsgate, which sees plain http and redirects every request to the URL that it has"
                    .into()
            }
            Cause::ResourcePolicy { policy, by_policy } => {
                let (owner, pages) = (
                    if *by_policy { "the policy" } else { "the upstream" },
                    match policy {
                        ResourcePolicy::SameOrigin => "the same origin",
                        ResourcePolicy::SameSite | ResourcePolicy::CrossOrigin => "the same site",
                    },
                );
                format!(
                    "{owner} sets Cross-Origin-Resource-Policy: {}, so without CORS only pages of {pages} can load the \
                     response",
                    policy.word()
                )
            }
            Cause::CredentialsNotAllowed { any_origin: true } => {
                "the request has credentials, but the policy allows any origin with `*`, which works only without \
                 credentials"
                    .into()
            }
            Cause::CredentialsNotAllowed { any_origin: false } => {
                "the request has credentials, but the policy does not have allow_credentials: true".into()
            }
            Cause::Upstream(error) => format!("the policy allows the request, but {error}"),
            Cause::NotExposed(names) => {
                let them = if names.len() == 1 { "it" } else { "them" };
                format!(
                    "the page gets the response, but cannot read {}, because Access-Control-Expose-Headers does not list \
                     {them}",
                    names.join(", ")
                )
            }
        }
    }

    /// Returns advice for the page or the upstream, in whole sentences. Returns None if an edit of the file is the only
    /// fix.
    pub(crate) fn advice(&self) -> Option<String> {
        Some(match self {
            Cause::UnknownHost { similar: Some(similar), .. } => {
                format!("If the page means {similar}, correct its URL. Otherwise add the host to a service.")
            }
            Cause::UnknownHost { similar: None, .. } => {
                "Check the URL. If it is correct, add the host to a service.".into()
            }
            Cause::UnknownPath { similar: Some(similar), .. } => {
                format!("If the page means {similar}, correct its URL. Otherwise add the path to a route.")
            }
            Cause::UnknownPath { similar: None, .. } => {
                "Check the URL. If it is correct, add the path to a route.".into()
            }
            Cause::PolicyOff { error: NetworkError::AllowOriginMismatch(value), .. }
            | Cause::NoPolicy(NetworkError::AllowOriginMismatch(value))
                if value.contains(',') =>
            {
                "More than one component behind the gateway sets the header. Let only one of them set it, or give the \
                 route a policy, which replaces all values."
                    .into()
            }
            Cause::PolicyOff { .. } | Cause::NoPolicy(_) => {
                "Let the upstream send the CORS headers, or give the route a policy.".into()
            }
            Cause::OriginNull => {
                "Every site can send the origin null, so it is safer not to allow it: serve the page from \
                                  an origin of its own, or give its frame `allow-same-origin`."
                    .into()
            }
            Cause::OriginLost { to } => format!("Let the page request {to} directly."),
            Cause::OriginInvalid(_) => {
                "Find the component that adds or changes the header: a proxy, a browser extension, or a client that is \
                 not a browser."
                    .into()
            }
            Cause::MethodNotAllowed { method, other_case: Some(other_case), listed } => {
                let advice = case_advice(method, other_case);
                match listed.contains(other_case) {
                    true => format!("{advice}."),
                    false => format!("{advice}, and add `{other_case}` to allow_methods."),
                }
            }
            Cause::NoRouteForMethod { method, other_case: Some(other_case), allow } => {
                let advice = case_advice(method, other_case);
                match allow.split(',').any(|word| word.trim() == other_case) {
                    true => format!("{advice}."),
                    false => format!("{advice}, and add `{other_case}` to the methods of a route."),
                }
            }
            Cause::HeaderListTooLong => "Let the page send fewer headers.".into(),
            Cause::ResponseHeaders(names) => {
                let them = if names.len() == 1 { "it" } else { "them" };
                format!("Delete {them} from the page's request: only the server's response can allow anything.")
            }
            Cause::Navigation { key, .. } => format!(
                "If other sites may send users here, as in single sign-on (SAML, `form_post`), give this path a route of \
                 its own with `{key}: forward` in its policy, or with `cors: false`. Do not add the origin to \
                 allow_origins: its pages could then read every response of this policy."
            ),
            Cause::CrossSite => "If pages of this origin may change state here, replace `*` in allow_origins by the \
                                 origins that may."
                .into(),
            Cause::Redirect(_) => "Correct the Location that the upstream sends.".into(),
            Cause::NotSwitched { by_gateway: true, .. } => "Let the page open the WebSocket with `wss:`.".into(),
            Cause::NotSwitched { by_gateway: false, .. } => {
                "Check that the upstream serves a WebSocket at this path.".into()
            }
            Cause::TlsInFront { trusted: false, .. } => {
                "Set `trusted_proxies` to the address of the component that ends TLS, and let it send \
                 `X-Forwarded-Proto: https`."
                    .into()
            }
            Cause::TlsInFront { trusted: true, .. } => {
                "Check that the component that ends TLS is in `trusted_proxies` and sends `X-Forwarded-Proto: https`."
                    .into()
            }
            Cause::ResourcePolicy { .. } => {
                "If the policy allows the origin, the page can also load it with CORS: with the attribute `crossorigin`, or \
                 with `fetch()` without `mode: 'no-cors'`."
                    .into()
            }
            Cause::CredentialsNotAllowed { .. } => {
                "If the page needs no cookies, remove `credentials: 'include'` from its fetch().".into()
            }
            Cause::Upstream(_) => {
                "Check the CORS headers that the upstream sends. `upstream_headers: replace` removes all of them."
                    .into()
            }
            Cause::OriginNotAllowed { insecure: true, near_miss, origin, .. } => {
                let allowed = near_miss.as_ref().and_then(|near_miss| near_miss.allowed_origin(origin));
                let instead = match allowed.filter(|allowed| allowed.starts_with("https:")) {
                    Some(allowed) => format!("Open the page at {allowed}, which the policy allows."),
                    None => "Serve the page over https.".to_owned(),
                };
                format!(
                    "A page that was loaded over http can be changed on the network, so a policy must not give it \
                     credentials. {instead}"
                )
            }
            Cause::OriginNotAllowed { near_miss: Some(near_miss), origin, .. } => {
                if near_miss.is_regex() {
                    return Some(
                        "A regular expression must match the whole Origin, from its scheme to its end.".into(),
                    );
                }
                if let Some(pattern) = near_miss.pattern(origin) {
                    return Some(format!("To allow every number, write `{pattern}` in the policy."));
                }
                let allowed = near_miss.allowed_origin(origin)?;
                format!("If possible, open the page at {allowed}, which the policy allows.")
            }
            Cause::NoRouteForMethod { other_case: None, .. }
            | Cause::RefusedByGateway { .. }
            | Cause::OriginNotAllowed { near_miss: None, .. }
            | Cause::MethodNotAllowed { other_case: None, .. }
            | Cause::HeadersNotAllowed { .. }
            | Cause::NotExposed(_) => return None,
        })
    }

    /// The codes that only `explain` uses. The gateway does not detect these causes, or has a more general code.
    pub const CODES: [&'static str; 9] = [
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

    /// Returns a stable code for programs: the gateway's code for this cause, or one of [`CODES`](Self::CODES).
    pub fn code(&self) -> &'static str {
        match self {
            Cause::UnknownHost { .. } => "unknown_host",
            Cause::UnknownPath { .. } => "unknown_path",
            Cause::NoRouteForMethod { .. } => "no_route_for_method",
            Cause::RefusedByGateway { code, .. } => code,
            Cause::NoPolicy(_) => "no_policy",
            Cause::PolicyOff { .. } => "policy_off",
            Cause::OriginNotAllowed { .. } => "origin_not_allowed",
            Cause::OriginNull => "origin_null",
            Cause::OriginLost { .. } => "origin_lost",
            Cause::OriginInvalid(_) => "origin_invalid",
            Cause::MethodNotAllowed { .. } => "method_not_allowed",
            Cause::HeadersNotAllowed { .. } | Cause::ResponseHeaders(_) => "header_not_allowed",
            Cause::Navigation { code, .. } => code,
            Cause::CrossSite => "cross_site",
            Cause::Redirect(_) => "redirect",
            Cause::NotSwitched { .. } => "not_switched",
            Cause::ResourcePolicy { .. } => "resource_policy",
            Cause::HeaderListTooLong => "header_list_too_long",
            Cause::TlsInFront { .. } => "tls_in_front",
            Cause::CredentialsNotAllowed { .. } => "credentials_not_allowed",
            Cause::Upstream(_) => "upstream",
            Cause::NotExposed(_) => "not_exposed",
        }
    }
}

/// Returns advice about a method in the wrong case, without a full stop.
pub(super) fn case_advice(method: &str, other_case: &str) -> String {
    format!("Methods are case-sensitive: let the page write '{other_case}' instead of '{method}'")
}

/// Returns the first words of a list, because a long list does not help.
fn first_of(words: &[String]) -> String {
    let shown: Vec<&str> = words.iter().take(8).map(String::as_str).collect();
    let more = if words.len() > shown.len() { ", and more" } else { "" };
    shown.join(", ") + more
}

/// Returns the level as a phrase that follows "the policy".
pub(super) fn of_level(level: Level) -> &'static str {
    match level {
        Level::Top => "at the top of the file",
        Level::Service => "of the service",
        Level::Route => "of the route",
    }
}

/// Returns the reason why the upstream's response does not allow a request whose route has no policy.
fn upstream_decides(error: &NetworkError) -> String {
    match error {
        NetworkError::NoAllowOrigin => {
            "only the upstream can allow the request, and its response has no Access-Control-Allow-Origin".into()
        }
        NetworkError::AllowOriginMismatch(value) if value.contains(',') => {
            format!("the upstream's Access-Control-Allow-Origin applies, and it has more than one value: {value}")
        }
        other => format!("the upstream's response applies, and {other}"),
    }
}
