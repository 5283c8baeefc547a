//! Timeouts and the largest request body.

use super::SourceFormat;
use super::finding::{Finding, Kind};
use super::model::{Model, Timeouts};
use super::value::Value;
use crate::notation::Size;

/// The largest request body of nginx and ingress-nginx without a setting.
pub(super) const BODY_OF_NGINX: u64 = 1 << 20;
/// The largest time that corsgate accepts, in milliseconds.
const LONGEST: u64 = 24 * 3_600_000;
/// The timeout of corsgate between two reads or writes, in milliseconds.
const BETWEEN: u64 = 60_000;
/// The time in milliseconds after which Envoy ends a stream without progress.
const IDLE_OF_ENVOY: u64 = 300_000;

/// Parses a time such as `90`, `1m 30s`, `1h30m`, `500ms` or `0.25s`. Without a unit it is in seconds. Returns
/// milliseconds.
pub(super) fn time(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut sum = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let factor = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().ok()?;
        let part: u64 = if part.is_empty() { 0 } else { format!("{part:0<3}").get(..3)?.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(factor)?)?.checked_add(part.checked_mul(factor)? / 1_000)?;
        rest = after.trim_start();
    }
    Some(sum)
}

/// Parses a size of nginx, such as `8k` or `1m`. Returns bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, shift) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(number) if text.ends_with('k') => (number, 10),
        Some(number) if text.ends_with('m') => (number, 20),
        Some(number) => (number, 30),
        None => (&*text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Reads a map of times in seconds or milliseconds, with the keys for `connect`, `read` and `write`.
pub(super) fn of_map(settings: &Value, [connect, read, write]: [&str; 3], per_second: u64) -> Timeouts {
    let of = |key: &str| Some(time(settings.text_of(key)?)? * per_second / 1_000).filter(|time| *time > 0);
    Timeouts { connect: of(connect), read: of(read), write: of(write), total: None }
}

/// Returns the timeouts for a limit of the whole request, for Envoy and those who use it. No limit is 0.
pub(super) fn whole(total: u64) -> Timeouts {
    let total = Some(total).filter(|total| *total > 0);
    // Without these, a slow response would end before the limit of the source.
    let between = Some(total.unwrap_or(IDLE_OF_ENVOY)).filter(|total| *total > BETWEEN);
    Timeouts { connect: None, read: between, write: between, total }
}

/// Completes the timeouts, and sets the limit of request bodies. corsgate has one limit for all routes, so the import
/// has the largest one.
pub(super) fn finish(model: &mut Model, format: SourceFormat) {
    for service in &mut model.services {
        let of_routes = service.routes.iter_mut().map(|route| &mut route.upstream);
        for upstream in of_routes.chain([&mut service.upstream]).flatten() {
            let Timeouts { connect, read, write, total } = &mut upstream.timeouts;
            [connect, read, write, total].into_iter().flatten().for_each(|time| *time = (*time).min(LONGEST));
        }
    }
    let routes = || model.services.iter().flat_map(|service| &service.routes).filter(|route| route.answer.is_none());
    let limit = routes()
        .map(|route| route.body_limit)
        .reduce(|one, other| match (one, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        })
        .flatten();
    let is_default = limit == Some(BODY_OF_NGINX) && matches!(format, SourceFormat::Nginx | SourceFormat::IngressNginx);
    if is_default && let Some(service) = model.services.first() {
        model.findings.push(Finding::new(service.at, Kind::Default { key: "limits.body" }));
    }
    model.body_limit = limit;
    for service in &mut model.services {
        for route in service.routes.iter_mut().filter(|route| route.answer.is_none()) {
            if let Some(own) = route.body_limit.filter(|own| Some(*own) != limit) {
                let kind = Kind::BodyLimit { size: size_text(own), limit: limit.map(size_text) };
                route.findings.push(Finding::new(route.at, kind));
            }
        }
    }
}

/// Returns the text of a limit in the configuration.
pub(super) fn size_text(bytes: u64) -> String {
    Size::parse(&format!("{bytes}B")).map(|size| size.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;

    /// A source of each engine, a part of the import, and the code of a finding.
    #[test]
    fn timeouts_and_body_limits_are_kept() {
        let nginx = |more: &str| format!("server {{ {more} location / {{ proxy_pass http://127.0.0.1:1; }} }}\n");
        let ingress = |name: &str, value: &str| {
            format!(
                "kind: Ingress\nmetadata: {{ name: i, annotations: {{ nginx.ingress.kubernetes.io/{name}: '{value}' }} }}\n\
                 spec: {{ defaultBackend: {{ service: {{ name: s, port: {{ number: 80 }} }} }} }}\n"
            )
        };
        let envoy = |action: &str| {
            format!(
                "virtual_hosts:\n- {{ name: h, domains: ['*'], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: c, {action} }} }}] }}\n\
                 clusters: [{{ name: c, connect_timeout: 0.25s, load_assignment: {{ endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: \
                 {{ socket_address: {{ address: n, port_value: 1 }} }} }} }}] }}] }} }}]\n"
            )
        };
        let apisix = |more: &str| format!("routes:\n- {{ uri: '/*', {more} }}\n");
        let nodes = "nodes: { 'n:1': 1 }";
        for (source, part, code) in [
            (nginx(""), "limits: { body: 1MiB }", "default"),
            (nginx("client_max_body_size 0;"), "", ""),
            (nginx("client_max_body_size 10m;"), "limits: { body: 10MiB }", ""),
            (
                nginx("location /x { client_max_body_size 2g; proxy_pass http://127.0.0.1:1; }"),
                "limits: { body: 2GiB }",
                "body-limit",
            ),
            (nginx("location /x { client_max_body_size 0; proxy_pass http://127.0.0.1:1; }"), "have none", "body-limit"),
            (
                nginx("proxy_connect_timeout 1; proxy_read_timeout 1m 30s; proxy_send_timeout 500ms;"),
                "timeouts: { connect: 1s, read: 90s, write: 500ms }",
                "",
            ),
            (ingress("proxy-body-size", "8m"), "limits: { body: 8MiB }", ""),
            (ingress("proxy-send-timeout", "120"), "timeouts: { write: 120s }", ""),
            (envoy("timeout: 5s"), "timeouts: { connect: 250ms, total: 5s }", "total-timeout"),
            (envoy("timeout: 90s"), "timeouts: { connect: 250ms, read: 90s, write: 90s, total: 90s }", "total-timeout"),
            (envoy("timeout: 0s"), "timeouts: { connect: 250ms, read: 300s, write: 300s }", ""),
            (
                "kind: VirtualService\nspec: { hosts: [a], http: [{ timeout: 5s, route: [{ destination: { host: s } }] }] }\n".into(),
                "timeouts: { total: 5s }",
                "total-timeout",
            ),
            (
                "kind: HTTPRoute\nspec: { rules: [{ timeouts: { request: 5s, backendRequest: 1s }, backendRefs: [{ name: b }] }] }\n".into(),
                "timeouts: { total: 5s }",
                "feature",
            ),
            (
                "_format_version: '3.0'\nservices: [{ name: s, url: 'http://n:1', read_timeout: 1500, routes: [{ name: r }], plugins: [{ name: \
                 request-size-limiting, config: { allowed_payload_size: 2 } }] }]\n"
                    .into(),
                "limits: { body: 2MiB }",
                "",
            ),
            (
                apisix(&format!("plugins: {{ client-control: {{ max_body_size: 1024 }} }}, upstream: {{ {nodes} }}")),
                "limits: { body: 1KiB }",
                "",
            ),
            (apisix(&format!("upstream: {{ timeout: {{ connect: 1, send: 2, read: 90 }}, {nodes} }}")), "timeouts: { connect: 1s, read: 90s, write: 2s }", ""),
            (
                format!("routes: [{{ uri: '/*', service_id: s, timeout: {{ read: 0.5 }} }}]\nservices: [{{ id: s, upstream: {{ {nodes} }} }}]\n"),
                "timeouts: { read: 500ms }",
                "",
            ),
            (
                "http:\n  routers: { r: { rule: 'PathPrefix(`/`)', service: s, middlewares: [b] } }\n  middlewares: { b: { buffering: { \
                 maxRequestBodyBytes: 2048 } } }\n  services: { s: { loadBalancer: { servers: [{ url: 'http://n:1' }] } } }\n"
                    .into(),
                "limits: { body: 2KiB }",
                "",
            ),
        ] {
            let (text, codes) = table("a", &source, &source, &[]);
            assert!(text.contains(part), "no `{part}`: {codes:?}\n{source}\n{text}");
            assert!(code.is_empty() || codes.contains(&code), "no `{code}`: {codes:?}\n{source}\n{text}");
            assert!(!part.is_empty() || !text.contains("limits:"), "{source}\n{text}");
        }
    }

    #[test]
    fn times_and_sizes_have_their_units() {
        for (text, expected) in [
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            ("1m 30s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("0.25s", Some(250)),
            ("1.5", Some(1_500)),
            ("0s", Some(0)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("1y", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for (text, expected) in [
            ("1024", Some(1024)),
            ("8k", Some(8192)),
            ("1M", Some(1 << 20)),
            ("2g", Some(2 << 30)),
            ("0", Some(0)),
            ("", None),
            ("1x", None),
            ("m", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
