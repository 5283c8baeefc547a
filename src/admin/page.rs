//! The status page. The server renders it as one HTML document without scripts or other resources.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::json::{Group, ago, effective_routes, explain_command, groups, reports};
use super::{Process, etcd, time};
use crate::explain::effective::EffectiveCors;
use crate::live::{Generation, Reload};
use crate::record::StatusClass;
use crate::snapshot::{Listener, StartupListener};

/// Maximum number of routes on the page.
const MAX_ROUTES: usize = 200;
/// Maximum number of visible groups of refusals, and maximum number of further groups that can be expanded.
const FIRST_GROUPS: usize = 10;
const MAX_GROUPS: usize = 60;
/// Maximum number of nodes on the page.
const MAX_NODES: usize = 200;

const STYLE: &str = include_str!("status.css");

/// Allows the style of the page, and forbids everything else, including frames.
pub(super) static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'");
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Returns the HTML of the page. `now` is the current time.
pub(super) fn page(process: &Process, now: SystemTime) -> String {
    let generation = process.live.current();
    let refused = groups(process.recorder.refusals.newest());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "corsgate" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(process, &generation, now))
                main {
                    @if let Some(status) = etcd::status(process) { (etcd::section(&status, &generation.written.name, now)) }
                    (upstreams(&generation))
                    (refusals(&refused, process, now))
                    (listeners(&generation, process, now))
                    (routes(&generation))
                    (reloads(&process.live.reloads().past(), &generation, now))
                }
                footer {
                    a href="/ui/" { "configuration" } " " a href="/metrics" { "/metrics" } " " a href="/config" { "/config" } " "
                    a href="/routes" { "/routes" } " " a href="/refusals" { "/refusals" }
                }
            }
        }
    }
    .into_string()
}

fn head(process: &Process, generation: &Generation, now: SystemTime) -> Markup {
    let written = &generation.written;
    let refused = process.live.reloads().past().first().is_some_and(|reload| reload.result.is_err());
    let restart = process.live.needs_restart();
    html! {
        header {
            h1 { "corsgate " small { (env!("CARGO_PKG_VERSION")) } }
            @if process.readiness.is_ready() { span.state.good { "ready" } } @else { span.state.bad { "draining" } }
            @if refused { span.state.bad { "last reload refused" } }
            @if !restart.is_empty() {
                span.state.bad { "restart required: " (restart.join(", ")) }
            }
            dl {
                div { dt { "uptime" } dd { (ago(process.started, now)) } }
                div { dt { "open connections" } dd { (process.connections.open()) } }
                div { dt { "running requests" } dd { (process.recorder.running.count()) } }
                div { dt { "configuration" } dd { code { (written.name) } " generation " (generation.number) } }
                div { dt { "loaded" } dd { (when(written.read, now)) } }
                div { dt { "sha256" } dd { code title=(written.hash) { (written.hash[..12]) } } }
                div { dt { "page rendered" } dd { (time(now).to_string()) } }
            }
        }
    }
}

fn refusals(groups: &[Group], process: &Process, now: SystemTime) -> Markup {
    let (first, more) = groups.split_at(groups.len().min(FIRST_GROUPS));
    let (more, rest) = more.split_at(more.len().min(MAX_GROUPS));
    html! {
        section {
            h2 { "Last refusals" }
            @if groups.is_empty() { p.none { "No refused requests." } }
            @for group in first { (refusal(group, process, now)) }
            @if !more.is_empty() {
                details {
                    summary { (more.len()) " more groups" }
                    @for group in more { (refusal(group, process, now)) }
                }
            }
            @if !rest.is_empty() {
                p.none { "and " (rest.len()) " more groups; " a href="/refusals" { "/refusals" } " lists all" }
            }
        }
    }
}

/// Refused requests with the same origin, route and reason.
fn refusal(Group { newest, count }: &Group, process: &Process, now: SystemTime) -> Markup {
    html! {
        article {
            h3 {
                @if newest.report_only { span.none { "would be refused: " } }
                code.reason { (newest.code) } " "
                @match &newest.origin {
                    Some(origin) => code { (origin) },
                    None => span.none { "no origin" },
                }
                " → "
                @match &newest.route {
                    Some(route) => (route),
                    None => { (newest.authority) " " span.none { "(no route)" } },
                }
            }
            p {
                (count) (if *count == 1 { " request, " } else { " requests, last " })
                (when(newest.at, now)) ": "
                code { (newest.method) " " (newest.path) }
                @if let Some(method) = &newest.requested_method { " requested method " code { (method) } }
                @if let Some(names) = &newest.requested_headers { " requested headers " code { (names) } }
                " · " a href=(format!("/refusals/{}", newest.id)) { "why " code { (newest.id) } }
            }
            @if let Some(command) = file(process).and_then(|file| explain_command(newest, &file)) { pre { (command) } }
        }
    }
}

/// Absolute path of the configuration file.
fn file(process: &Process) -> Option<String> {
    let absolute = std::path::absolute(process.live.source().path()?).ok()?;
    Some(absolute.to_string_lossy().into_owned())
}

fn listeners(generation: &Generation, process: &Process, now: SystemTime) -> Markup {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let protocol = |listener: &Listener| match &listener.tls {
        None => format!("http{}", if listener.http2 { ", HTTP/2" } else { "" }),
        Some(tls) => format!("https{}", if tls.http2 { ", HTTP/2" } else { "" }),
    };
    let started = process.live.started();
    // The addresses are those of the start. The other settings are those of the active configuration, if it has the
    // listener.
    let now_at = |started: &StartupListener| {
        let mut listeners = generation.snapshot.listeners().iter();
        listeners.find(|listener| listener.address == started.address && listener.tls.is_some() == started.tls)
    };
    html! {
        section {
            h2 { "Listeners" }
            table {
                thead { tr { th { "address" } th { "protocol" } th { "certificates" } } }
                tbody {
                    @for place in &started.listeners {
                        tr {
                            td data-label="address" { code { (place.address) } }
                            @match now_at(place) {
                                Some(listener) => {
                                    td data-label="protocol" {
                                        (protocol(listener))
                                        @if let Some(port) = listener.redirect { ", redirects to https on port " (port) }
                                        @if listener.proxy_protocol { ", PROXY protocol" }
                                    }
                                    td {
                                        @for certificate in listener.tls.iter().flat_map(|tls| tls.certificates.all()) {
                                            @let left = certificate.days_left(seconds);
                                            div {
                                                (certificate.names().collect::<Vec<_>>().join(", ")) " "
                                                span.bad[left < 14] { "expires in " (left) " d" }
                                            }
                                        }
                                    }
                                },
                                None => {
                                    td data-label="protocol" { (if place.tls { "https" } else { "http" }) }
                                    td { span.bad { "removed from the file; unchanged until a restart" } }
                                },
                            }
                        }
                    }
                    @if let Some(admin) = started.admin {
                        tr { td data-label="address" { code { (admin) } } td data-label="protocol" { "http, admin" } td {} }
                    }
                }
            }
        }
    }
}

fn upstreams(generation: &Generation) -> Markup {
    let nodes = || {
        generation
            .upstreams()
            .iter()
            .flat_map(|upstream| upstream.statuses().into_iter().map(move |status| (&upstream.settings().name, status)))
    };
    let all = nodes().count();
    let queues = generation.upstreams().iter().filter_map(|upstream| {
        let queue = upstream.queue()?;
        let refused = queue.counts().full.get() + queue.counts().timeout.get();
        Some((&upstream.settings().name, queue.waiting(), refused))
    });
    html! {
        section {
            h2 { "Upstreams" }
            table {
                thead { tr { th { "upstream" } th { "node" } th { "state" } th.number { "running requests" } th.number { "failed attempts" } th { "last error" } } }
                tbody {
                    @for (name, node) in nodes().take(MAX_NODES) {
                        tr {
                            td data-label="upstream" { (name) }
                            td data-label="node" { code { (node.address) } }
                            td data-label="state" {
                                @match (node.healthy, node.ejected) {
                                    (false, _) => span.bad { "unhealthy" },
                                    (true, true) => span.bad { "ejected" },
                                    (true, false) => span.good[node.failures == 0] { "healthy" },
                                }
                            }
                            td.number data-label="running requests" {
                                (node.active) @if let Some(limit) = node.limit { " of " (limit) }
                            }
                            td.number.bad[node.failures > 0] data-label="failed attempts" { (node.failures) }
                            td data-label="last error" { (node.last_error.as_deref().unwrap_or_default()) }
                        }
                    }
                }
            }
            @for (name, waiting, refused) in queues {
                p { (waiting) " requests wait for a node of " (name) ", and " (refused) " were refused" }
            }
            @if all == 0 { p.none { "No upstream has a known address." } }
            @if all > MAX_NODES { p.none { "and " (all - MAX_NODES) " more; " a href="/metrics" { "/metrics" } " lists all" } }
        }
    }
}

fn routes(generation: &Generation) -> Markup {
    let routes = effective_routes(generation, MAX_ROUTES);
    let all = generation.snapshot.routes().len();
    // Routes and metrics both have the order of the snapshot.
    let counts = |position| {
        let metrics = generation.route_metrics().of(position);
        metrics.map_or((0, 0), |metrics| (metrics.total(), metrics.with(StatusClass::ServerError)))
    };
    html! {
        section {
            h2 { "Routes" }
            table {
                thead {
                    tr {
                        th { "route" } th { "matches" } th { "allowed origins" } th { "upstream" }
                        th.number { "requests" } th.number { "5xx" }
                    }
                }
                tbody {
                    @for (position, route) in routes.iter().enumerate() {
                        @let (requests, errors) = counts(position);
                        tr {
                            td data-label="route" { (route.name) " " span.none { "line\u{a0}" (route.line) } }
                            td data-label="matches" { (route.serves()) }
                            td data-label="allowed origins" {
                                @match &route.cors {
                                    EffectiveCors::Absent | EffectiveCors::Off { .. } => {
                                        span.none { (route.cors.origins()) }
                                    },
                                    EffectiveCors::Policy { name, written, .. } => {
                                        code { (route.cors.origins()) } " "
                                        span.none {
                                            @if let Some(name) = name { (name) ", " }
                                            "policy on line\u{a0}" (written)
                                        }
                                    },
                                }
                                @for (change, count) in reports(generation, position).into_iter().flatten() {
                                    " " span.none { (change.code()) " " (count) }
                                }
                            }
                            td data-label="upstream" {
                                (route.ends_at())
                                @if !route.behaviors.is_empty() { " " span.none { (route.behavior_keys()) } }
                            }
                            td.number data-label="requests" { (requests) }
                            td.number.bad[errors > 0] data-label="5xx" { (errors) }
                        }
                    }
                }
            }
            @if all > routes.len() {
                p.none { "and " (all - routes.len()) " more; " a href="/routes" { "/routes" } " lists all" }
            }
        }
    }
}

fn reloads(past: &[Reload], generation: &Generation, now: SystemTime) -> Markup {
    html! {
        section {
            h2 { "Last reloads" }
            @if past.is_empty() { p.none { "No reloads since the start." } }
            @for reload in past {
                article {
                    @match &reload.result {
                        Ok(number) => p {
                            span.good { "applied" } " generation " (number) ", " (when(reload.at, now))
                        },
                        Err(problems) => {
                            p {
                                span.bad { "refused" } ", " (when(reload.at, now))
                                "; generation " (generation.number) " is active"
                            }
                            pre { (problems) }
                        },
                    }
                }
            }
        }
    }
}

/// Returns an age, with the exact time as the title.
fn when(at: SystemTime, now: SystemTime) -> Markup {
    let exactly = time(at).to_string();
    html! { time datetime=(exactly) title=(exactly) { (ago(at, now)) " ago" } }
}
