//! The HTML that all pages share, and the pages for the list of objects, the login and messages.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::address::{Address, NewObject};
use super::{Process, Visitor};
use crate::objects::{self, ObjectId, ObjectList, Section};

const STYLE: &str = concat!(include_str!("../status.css"), include_str!("ui.css"));

/// Maximum number of objects of a section on the first page.
const MOST: usize = 1000;

/// Allows the style of the pages and their own forms, and forbids everything else.
pub(super) static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A page with this title and content.
pub(super) fn page(title: &str, visitor: &Visitor, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – corsgate" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header.bar {
                    nav aria-label="Pages" { a href=(Address::Home.path()) { "Configuration" } " " a href="/" { "Status" } }
                    @match &visitor.session {
                        Some(session) => form method="post" action=(Address::Logout.path()) {
                            input type="hidden" name="csrf" value=(session.csrf);
                            span { (session.token.name()) " (" (session.token.role().word()) ")" }
                            " " button type="submit" { "Log out" }
                        },
                        None if visitor.can_log_in => a href=(Address::Login.path()) { "Log in" },
                        None => span { "read-only" },
                    }
                }
                main { (content) }
            }
        }
    }
}

/// A page without a session, such as an error.
pub(super) fn message(title: &str, text: &str) -> Markup {
    let visitor = Visitor { session: None, can_log_in: true };
    page(title, &visitor, &html! { h1 { (title) } p { (prose(text)) } })
}

pub(super) fn message_with_link(title: &str, text: &str, to: &Address) -> Markup {
    let visitor = Visitor { session: None, can_log_in: true };
    page(title, &visitor, &html! { h1 { (title) } p { (prose(text)) } p { a href=(to.path()) { "Create it" } } })
}

pub(super) fn login(visitor: &Visitor, why: Option<&str>) -> Markup {
    page(
        "Log in",
        visitor,
        &html! {
            h1 { "Log in" }
            @if let Some(why) = why { div.problems role="alert" { p { (prose(why)) } } }
            @if visitor.can_log_in {
                form method="post" action=(Address::Login.path()) {
                    div.field {
                        label for="token" { "token" }
                        input #token type="password" name="token" autocomplete="current-password" required aria-describedby="h-token";
                        p.hint #h-token { "Made by `corsgate token --name NAME --role write`. The login ends after an hour." }
                    }
                    div.buttons { button.main type="submit" { "Log in" } }
                }
            } @else {
                p { (prose("Changes are off. `admin: { write: FILE }` switches them on, with a file of tokens that `corsgate token` makes.")) }
            }
        },
    )
}

/// All objects.
pub(super) fn home(process: &Process, visitor: &Visitor) -> Markup {
    let generation = process.live.current();
    let text = &generation.written.text;
    page(
        "Configuration",
        visitor,
        &html! {
            h1 { "Configuration" }
            p.hint { code { (generation.written.name) } ", generation " (generation.number) }
            @for section in Section::ALL {
                @let objects = objects::list(text, &ObjectList::Section(section)).unwrap_or_default();
                section {
                    h2 { (section.key()) }
                    @if objects.is_empty() { p.none { "none" } }
                    ul.objects {
                        @for (name, object) in objects.iter().take(MOST) {
                            li {
                                a href=(Address::Object(ObjectId::Named { section, name: name.clone() }).path()) { (name) }
                                @if section == Section::Services { (routes(text, name, &object.value, visitor)) }
                            }
                        }
                    }
                    @if objects.len() > MOST { p.none { "and " (objects.len() - MOST) " more; " code { "corsgate get " (section.key()) } " lists all" } }
                    @if visitor.may_write() { p { a href=(Address::New(NewObject::In(section)).path()) { "New entry of " (section.key()) } } }
                }
            }
        },
    )
}

fn routes(text: &str, service: &str, value: &serde_json::Value, visitor: &Visitor) -> Markup {
    let routes = match value["routes"].is_array() {
        true => objects::list(text, &ObjectList::Routes(service.to_owned())).unwrap_or_default(),
        false => Vec::new(),
    };
    html! {
        @if !routes.is_empty() {
            ul {
                @for (route, _) in routes.iter().take(MOST) {
                    @let id = ObjectId::Route { service: service.to_owned(), route: route.clone() };
                    li { a href=(Address::Object(id).path()) { (route) } }
                }
            }
        }
        @if visitor.may_write() { " " a.more href=(Address::New(NewObject::RouteOf(service.to_owned())).path()) { "New route of " (service) } }
    }
}

/// A text in which backquotes mark code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
