//! Prints a difference as text or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::page::{Answer, Answers, PageRequest, Upstreams};
use super::{Change, Difference, Effect, Group, Item, Kind, Methods, Place, Witness};
use crate::explain::fetch::Credentials;
use crate::terminal::{Paint, Width, printable};

const RED: &str = "1;31";
const GREEN: &str = "1;32";
const YELLOW: &str = "1;33";

/// Width of the column of effects: the longest effect and a gap.
const EFFECT: usize = 16;
/// Width of the column of kinds.
const KIND: usize = 17;
/// Maximum number of items or places in a line of the text. The JSON lists all of them.
const MOST: usize = 6;

/// All effects. The most important effect is first.
const EFFECTS: [Effect; 5] = [Effect::Allowed, Effect::Upstream, Effect::Unknown, Effect::Refused, Effect::Changed];

impl Difference {
    /// Returns the difference as text, with a curl command for each witness.
    pub fn text(&self, paint: Paint, width: Width) -> String {
        let mut out = String::new();
        for group in self.shown() {
            heading(group, paint, width, &mut out);
            group.changes.iter().for_each(|change| line(change, paint, width, &mut out));
            out.push('\n');
        }
        if !self.settings.is_empty() {
            let text = format!("of the whole file: {}", self.settings.join(", "));
            let _ = writeln!(out, "{}\n", width.wrap("changed settings ", &text));
        }
        out + &self.summary()
    }

    /// Returns the groups in the text.
    fn shown(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.is_repeated)
    }

    /// Returns the last line of the text.
    fn summary(&self) -> String {
        let names = format!("{} -> {}", printable(&self.old), printable(&self.new));
        if self.is_empty() {
            return format!("{names}: no request gets another response\n");
        }
        let mut counts = Vec::new();
        for (effect, (_, count)) in EFFECTS.into_iter().zip(self.counts()) {
            if count > 0 {
                counts.push(format!("{count} {}", effect.word()));
            }
        }
        format!("{names}: {}\n", counts.join(", "))
    }

    /// Returns the difference as one JSON object.
    pub fn json(&self) -> String {
        format!("{:#}\n", self.value())
    }

    /// The number of changes with each effect, by the code of the effect. Settings of the whole file count as changed.
    pub(crate) fn counts(&self) -> Vec<(&'static str, usize)> {
        let count = |effect| {
            let changes = self.shown().flat_map(|group| &group.changes);
            let settings = if effect == Effect::Changed { self.settings.len() } else { 0 };
            changes.filter(|change| change.effect == effect).count() + settings
        };
        EFFECTS.map(|effect| (effect.code(), count(effect))).to_vec()
    }

    /// The difference as values.
    pub(crate) fn value(&self) -> Value {
        json!({
            "old": self.old,
            "new": self.new,
            "same": self.is_empty(),
            "wider": self.is_wider(),
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "settings": self.settings,
        })
    }
}

// --- text

fn heading(group: &Group, paint: Paint, width: Width, out: &mut String) {
    let mut names: Vec<String> = group.places.iter().map(name).collect();
    names.dedup();
    let _ = writeln!(out, "{}", paint.bold(&width.wrap("", &printable(&shortened(&names, MOST)))));
    let places: Vec<String> = group.places.iter().map(pattern).collect();
    let _ = writeln!(out, "{}", paint.dim(&width.wrap("  ", &printable(&shortened(&places, MOST)))));
}

fn line(change: &Change, paint: Paint, width: Width, out: &mut String) {
    let effect = change.effect.word();
    let colour = match change.effect {
        Effect::Allowed => RED,
        Effect::Upstream | Effect::Unknown => YELLOW,
        Effect::Refused => GREEN,
        Effect::Changed => "0",
    };
    let texts: Vec<String> = change.items.iter().map(|item| shown(change.kind, item)).collect();
    let beginning = format!("  {effect:<EFFECT$}{:<KIND$}", change.kind.words());
    let text = width.wrap(&beginning, &printable(&shortened(&texts, MOST)));
    let painted = format!("  {}", paint.with(colour, effect));
    let _ = writeln!(out, "{painted}{}", &text[2 + effect.len()..]);
    let Some(Witness { request, answers }) = change.items.iter().find_map(|item| item.witness.as_ref()) else { return };
    let indent = " ".repeat(2 + EFFECT);
    let _ = writeln!(out, "{indent}{}", printable(&request.curl()));
    let Answers { old, new } = answers;
    let assumed = match request.upstream {
        Upstreams::Silent => "",
        Upstreams::Permissive => ", if the upstream's CORS headers allow it",
        Upstreams::Restrictive => ", if the upstream sends Cross-Origin-Resource-Policy: same-origin",
    };
    let _ = writeln!(out, "{indent}{}", paint.dim(&format!("old: {}, new: {}{assumed}", result(*old), result(*new))));
}

fn result(answer: Answer) -> String {
    let word = if answer.is_allowed { "allowed" } else { "refused" };
    format!("{word} ({}, {})", answer.status.as_u16(), answer.reason)
}

/// Returns the text of an item. A pattern of origins also gets an example origin.
fn shown(kind: Kind, item: &Item) -> String {
    let example = item.witness.as_ref().map(|witness| &witness.request.origin);
    match example.filter(|_| matches!(kind, Kind::Origin | Kind::Timing)) {
        Some(origin) if *origin != item.text => format!("{} (such as {origin})", item.text),
        _ => item.text.clone(),
    }
}

fn name(place: &Place) -> String {
    match &place.routes {
        [Some(old), Some(new)] if old == new => new.clone(),
        [Some(old), Some(new)] => format!("{old} -> {new}"),
        [None, Some(new)] => new.clone(),
        [Some(old), None] => old.clone(),
        [None, None] => "requests without a route".to_owned(),
    }
}

/// Returns the hosts, the path and the methods of a place, such as `api.example/orders/* (GET, PUT)`.
fn pattern(place: &Place) -> String {
    let hosts: Vec<String> =
        place.hosts.iter().map(|host| if host == "*" { "any other host".to_owned() } else { host.clone() }).collect();
    let methods = match &place.methods {
        Methods { other: Some(_), .. } => "",
        Methods { named, .. } => &format!(" ({})", named.join(", ")),
    };
    format!("{}{}{methods}", shortened(&hosts, 2), place.pattern)
}

/// Joins the first texts of a list, and adds the number of the remaining texts.
pub(super) fn shortened(texts: &[String], most: usize) -> String {
    let more = match texts.len().saturating_sub(most) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    texts.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ") + &more
}

impl Effect {
    fn word(self) -> &'static str {
        match self {
            Effect::Allowed => "newly allowed",
            Effect::Upstream => "up to upstream",
            Effect::Unknown => "unknown",
            Effect::Refused => "newly refused",
            Effect::Changed => "changed",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Effect::Allowed => "newly_allowed",
            Effect::Upstream => "up_to_upstream",
            Effect::Unknown => "unknown",
            Effect::Refused => "newly_refused",
            Effect::Changed => "changed",
        }
    }
}

impl Kind {
    pub(super) fn words(self) -> &'static str {
        match self {
            Kind::Route => "route",
            Kind::Paths => "paths",
            Kind::Policy => "policy",
            Kind::Origin => "origin",
            Kind::Credentials => "credentials",
            Kind::Method => "method",
            Kind::RequestHeader => "request header",
            Kind::ExposedHeader => "exposed header",
            Kind::Timing => "timing origin",
            Kind::ResourcePolicy => "resource policy",
            Kind::PrivateNetwork => "private network",
            Kind::RefusedOrigins => "refused origins",
            Kind::CrossSite => "cross_site",
            Kind::ReportOnly => "report_only",
            Kind::End => "goes to",
            Kind::UpstreamSettings => "upstream",
            Kind::Behaviors => "behaviors",
            Kind::MaxAge => "max_age",
            Kind::Caching => "caching",
            Kind::PreflightMatch => "preflight match",
            Kind::PreflightStatus => "preflight status",
            Kind::RefusedStatus => "refused_status",
            Kind::CacheControl => "cache_control",
        }
    }

    fn code(self) -> String {
        self.words().replace(' ', "_")
    }
}

// --- JSON

fn group(group: &Group) -> Value {
    json!({
        "places": group.places.iter().map(place).collect::<Vec<_>>(),
        "changes": group.changes.iter().map(change).collect::<Vec<_>>(),
        "repeated": group.is_repeated,
    })
}

fn place(place: &Place) -> Value {
    let Place { routes: [old, new], order: _, hosts, host, path, pattern, methods: Methods { named, other } } = place;
    json!({
        "old_route": old,
        "new_route": new,
        "hosts": hosts,
        "path": pattern,
        "example": { "host": host, "path": path },
        "methods": named,
        "other_methods": other.is_some(),
    })
}

fn change(change: &Change) -> Value {
    json!({
        "effect": change.effect.code(),
        "what": change.kind.code(),
        "items": change.items.iter().map(item).collect::<Vec<_>>(),
    })
}

fn item(item: &Item) -> Value {
    json!({ "text": item.text, "witness": item.witness.as_ref().map(witness) })
}

fn witness(witness: &Witness) -> Value {
    let Witness { request, answers: Answers { old, new } } = witness;
    let PageRequest { method, origin, headers, credentials, upstream, .. } = request;
    json!({
        "curl": request.curl(),
        "url": request.url(),
        "method": method,
        "origin": origin,
        "headers": headers,
        "credentials": *credentials == Credentials::Include,
        "upstream_allows": *upstream == Upstreams::Permissive,
        "old": answer(*old),
        "new": answer(*new),
    })
}

fn answer(answer: Answer) -> Value {
    let Answer { is_allowed, status, reason } = answer;
    json!({ "allowed": is_allowed, "status": status.as_u16(), "reason": reason })
}
