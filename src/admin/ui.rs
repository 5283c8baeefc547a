//! `/ui/`: pages on which people read and change the objects of the configuration, without scripts.
//!
//! A change goes the same way as one of the [API](super::api): it is proposed, checked as a whole, shown, and then written.
//! Everybody who may use the admin listener can read; a login with a token of the role `write` is needed for changes.

mod address;
mod form_page;
mod markup;
mod session;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, header};
use maud::Markup;
use pingora_core::protocols::http::ServerSession;
use serde_json::Value;

pub(super) use self::address::PREFIX;
use self::address::{Address, NewObject, form_of};
use self::form_page::{FormPage, Outcome, TriedPage};
use self::session::{Session, Sessions};
use super::api::access::Access;
use super::api::error::{ApiError, ErrorCode};
use super::api::{self, Action, Audit, body};
use super::{AdminServer, Page, Process};
use crate::config::form::{self, FormOf};
use crate::objects::{self, Condition, ObjectChange, ObjectId};
use crate::tokens::{Role, Tokens};

/// State of the pages.
#[derive(Default)]
pub(super) struct Ui {
    sessions: Sessions,
}

/// The client of a page: its login, and whether a login is possible.
pub(super) struct Visitor {
    session: Option<Session>,
    /// Whether `admin.write` is set.
    can_log_in: bool,
}

/// Names of the buttons of a form.
const PREVIEW: &str = "preview";
const SAVE: &str = "save";
const DELETE: &str = "delete";
const DELETE_NOW: &str = "delete-now";

impl Visitor {
    fn may_write(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.token.role() == Role::Write)
    }
}

impl AdminServer {
    /// Answers a request for a page below `/ui/`.
    pub(super) async fn ui(&self, session: &mut ServerSession) -> Page {
        let page = self.ui_page(session).await;
        if !session.is_body_empty() && !session.is_body_done() {
            session.set_keepalive(None);
            body::discard(session).await;
        }
        page
    }

    async fn ui_page(&self, session: &mut ServerSession) -> Page {
        let request = session.req_header();
        if let Err(refusal) = self.admit(&request.headers) {
            return refusal;
        }
        let (method, headers) = (request.method.clone(), request.headers.clone());
        let client = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
        let Some(address) = Address::parse(request.uri.path()) else {
            return html(StatusCode::NOT_FOUND, &markup::message("No such page", "There is no such page."));
        };
        let saved = request.uri.query().and_then(|query| query.strip_prefix("saved=")?.parse::<u64>().ok());
        let visitor = self.visitor(&headers);
        match (&method, address) {
            (&(Method::GET | Method::HEAD), Address::Login) => html(StatusCode::OK, &markup::login(&visitor, None)),
            (&(Method::GET | Method::HEAD), Address::Home) => {
                self.shown(move |process| html(StatusCode::OK, &markup::home(process, &visitor))).await
            }
            (&(Method::GET | Method::HEAD), Address::New(new)) => {
                let page = FormPage::new_object(new);
                html(StatusCode::OK, &page.markup(&visitor))
            }
            (&(Method::GET | Method::HEAD), Address::Object(id)) => {
                self.shown(move |process| object_page(process, id, saved, &visitor)).await
            }
            (&Method::POST, address) => {
                let text = match body::read(session).await {
                    Ok(text) => text,
                    Err(error) => return error_page(&error),
                };
                let fields: BTreeMap<String, String> =
                    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
                self.posted(address, fields, &headers, client, visitor).await
            }
            _ => html(StatusCode::METHOD_NOT_ALLOWED, &markup::message("Not possible", "Use GET or POST."))
                .with(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST")),
        }
    }

    async fn posted(
        &self,
        address: Address,
        mut fields: BTreeMap<String, String>,
        headers: &http::HeaderMap,
        client: Option<IpAddr>,
        visitor: Visitor,
    ) -> Page {
        if address == Address::Login {
            return self.log_in(fields.get("token").map(|token| token.trim()), client);
        }
        let csrf = fields.remove("csrf").unwrap_or_default();
        let Some(session) = visitor.session.clone().filter(|session| session.has_form(&csrf)) else {
            let why = "You are not logged in, or your login has ended. Log in, go back to the form, and send it again.";
            return html(StatusCode::FORBIDDEN, &markup::login(&visitor, Some(why)));
        };
        let name = fields.get("name").map(|name| name.trim()).unwrap_or_default();
        let (id, of) = match &address {
            Address::Logout => {
                let gone = self.ui.sessions.end(headers);
                return redirect(&Address::Home.path()).with(header::SET_COOKIE, gone);
            }
            Address::Object(id) => (id.clone(), form_of(id)),
            Address::New(new) => (new.named(name), new.form()),
            Address::Home | Address::Login => {
                return html(StatusCode::METHOD_NOT_ALLOWED, &markup::message("Not possible", "Use GET."));
            }
        };
        if !visitor.may_write() {
            let why = "This token may only read. Log in with a token of the role `write`.";
            return html(StatusCode::FORBIDDEN, &markup::login(&visitor, Some(why)));
        }
        let audit = Audit {
            token: Some(session.token.name().to_owned()),
            client,
            action: if [DELETE, DELETE_NOW].iter().any(|button| fields.contains_key(*button)) {
                Action::Delete
            } else {
                Action::Put
            },
            target: id.to_string(),
            dry_run: !fields.contains_key(SAVE) && !fields.contains_key(DELETE_NOW),
        };
        let changed = self.render(&self.api.changes, api::QUEUE_TIMEOUT, move |process| {
            change(process, &Sent { address, id, of, fields }, &audit, &visitor)
        });
        let busy = |_| error_page(&ApiError::new(ErrorCode::Busy, "another change is running; send the form again"));
        changed.await.unwrap_or_else(busy)
    }

    fn log_in(&self, token: Option<&str>, client: Option<IpAddr>) -> Page {
        let visitor = Visitor { session: None, can_log_in: true };
        match self.api.access.token(&self.process, token, client) {
            Ok(token) => match self.ui.sessions.start(token, Instant::now()) {
                Some(cookie) => redirect(&Address::Home.path()).with(header::SET_COOKIE, cookie),
                None => error_page(&ApiError::new(ErrorCode::Internal, "the system has no randomness")),
            },
            Err(error) => {
                let audit =
                    Audit { token: None, client, action: Action::Read, target: "login".to_owned(), dry_run: false };
                self.api.access.log_refusal(&audit, &error);
                let why = match error.code() {
                    ErrorCode::Unauthorized => "This is not a token that the gateway accepts.",
                    _ => &error.message,
                };
                html(error.code().status(), &markup::login(&visitor, Some(why)))
            }
        }
    }

    fn visitor(&self, headers: &http::HeaderMap) -> Visitor {
        let generation = self.process.live.current();
        let tokens: Option<&Tokens> = Access::open(&self.process, &generation).ok().map(|write| &write.tokens);
        let session = tokens.and_then(|tokens| self.ui.sessions.find(headers, tokens, Instant::now()));
        Visitor { session, can_log_in: tokens.is_some() }
    }

    async fn shown(&self, page: impl FnOnce(&Process) -> Page + Send + 'static) -> Page {
        self.render(&self.pages, super::QUEUE_TIMEOUT, page).await.unwrap_or_else(|busy| busy)
    }
}

/// The page of an object that exists.
fn object_page(process: &Process, id: ObjectId, saved: Option<u64>, visitor: &Visitor) -> Page {
    let text = &process.live.current().written.text;
    let Some(object) = objects::read(text, &id) else {
        let new = match &id {
            ObjectId::Named { section, .. } => NewObject::In(*section),
            ObjectId::Route { service, .. } => NewObject::RouteOf(service.clone()),
        };
        let page = markup::message_with_link("No such object", &format!("There is no {id}."), &Address::New(new));
        return html(StatusCode::NOT_FOUND, &page);
    };
    let mut page = FormPage::of(id, &object.value, &object.version);
    page.saved = saved;
    html(StatusCode::OK, &page.markup(visitor))
}

/// A form that was sent.
struct Sent {
    /// The page of the form.
    address: Address,
    id: ObjectId,
    of: FormOf,
    fields: BTreeMap<String, String>,
}

/// Tries or makes the change of a sent form.
fn change(process: &Process, sent: &Sent, audit: &Audit, visitor: &Visitor) -> Page {
    let Sent { address, id, of, fields: entered } = sent;
    let is_new = matches!(address, Address::New(_));
    let present = objects::read(&process.live.current().written.text, id);
    let version = entered.get("version").cloned().unwrap_or_default();
    let fields = form::fields(*of);
    let present_value = present.as_ref().map_or(Value::Null, |object| object.value.clone());
    let mut page = FormPage::sent(address.clone(), *of, entered.clone(), &version, TriedPage::of(entered));
    if is_new && let Some(fault) = name_fault(id, present.is_some()) {
        page.outcome = Outcome::Name(fault);
        return html(StatusCode::UNPROCESSABLE_ENTITY, &page.markup(visitor));
    }
    let condition = match version.is_empty() {
        true => Condition::Absent,
        false => Condition::Version(vec![version]),
    };
    let text = match (audit.action, form::value_of(&fields, &page.entered, &present_value)) {
        (Action::Delete, _) => String::new(),
        (_, Ok(value)) => value.to_string(),
        (_, Err(faults)) => {
            page.outcome = Outcome::Unreadable(faults);
            return html(StatusCode::UNPROCESSABLE_ENTITY, &page.markup(visitor));
        }
    };
    let wanted = match audit.action {
        Action::Delete => ObjectChange::Delete,
        Action::Read | Action::Put | Action::Patch => ObjectChange::Put(&text),
    };
    match api::change_object(process, id, wanted, &condition, audit) {
        Ok(accepted) if audit.dry_run => {
            let exchange = page.tried.explain(process, &accepted.proposal);
            page.outcome = Outcome::Possible { proposal: Box::new(accepted.proposal), exchange };
            html(StatusCode::OK, &page.markup(visitor))
        }
        Ok(_) if audit.action == Action::Delete => redirect(&Address::Home.path()),
        Ok(accepted) => redirect(&format!("{}?saved={}", Address::Object(id.clone()).path(), accepted.generation)),
        Err(error) => {
            log::warn!("{audit} result=refused code={}", error.code().code());
            let status = error.code().status();
            if error.code() == ErrorCode::PreconditionFailed {
                // The next preview compares with what there is now.
                page.version = present.map(|object| object.version).unwrap_or_default();
            }
            page.outcome = Outcome::Refused(error);
            html(status, &page.markup(visitor))
        }
    }
}

/// Why a new object cannot have its name. The configuration checks the characters.
fn name_fault(id: &ObjectId, exists: bool) -> Option<&'static str> {
    let (ObjectId::Named { name, .. } | ObjectId::Route { route: name, .. }) = id;
    match name.as_str() {
        "" => Some("the object needs a name"),
        // Browsers remove such segments from URLs.
        "." | ".." => Some("`.` and `..` cannot be names; write another name"),
        _ if exists => Some("there is already an object with this name; write another name, or open that object"),
        _ => None,
    }
}

fn error_page(error: &ApiError) -> Page {
    html(error.code().status(), &markup::message("Not possible", &error.message))
}

fn html(status: StatusCode, markup: &Markup) -> Page {
    let page = Page {
        status,
        content_type: "text/html; charset=utf-8",
        body: markup.0.clone().into_bytes(),
        fields: Vec::new(),
    };
    page.with(header::CONTENT_SECURITY_POLICY, markup::CONTENT_SECURITY_POLICY.clone())
        // With `no-referrer`, browsers send `Origin: null` with forms, and the host check refuses it.
        .with(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"))
}

fn redirect(path: &str) -> Page {
    let location = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/ui/"));
    html(StatusCode::SEE_OTHER, &markup::message("Done", "Go on.")).with(header::LOCATION, location)
}
