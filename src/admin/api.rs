//! `/api/v1`: reads and changes the objects of the configuration.
//!
//! This file maps requests to [`crate::objects`] and its results to responses. A change is made in four steps: the new text
//! is proposed and checked as a whole, compared with the active configuration, written to its source, and published. One
//! change runs at a time. Each request that would change something leaves a line in the log.

pub(super) mod access;
pub(super) mod apisix;
pub(super) mod body;
pub(super) mod error;
mod openapi;
mod target;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::access::Access;
use self::error::{ApiError, ErrorCode};
use self::target::{Options, Target};
use super::{AdminServer, Page, Process};
use crate::live::{Candidate, Generation};
use crate::logging::quoted;
use crate::objects::{self, Condition, Object, ObjectChange, ObjectId, ObjectList, Present, Proposal};
use crate::snapshot::Snapshot;
use crate::source::Reading;
use crate::tokens::Role;

/// Paths of the API begin with this.
pub(super) const PREFIX: &str = "/api/";

/// Maximum time that a change waits for another one. Large configurations take seconds.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// State of the API.
pub(super) struct Api {
    pub(super) access: Access,
    /// One change runs at a time.
    pub(super) changes: Arc<Semaphore>,
}

/// What a client wants to do with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Put,
    Patch,
    Delete,
}

/// A request that may change the configuration, for its line in the log.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    pub(super) token: Option<String>,
    pub(super) client: Option<IpAddr>,
    pub(super) action: Action,
    pub(super) target: String,
    pub(super) dry_run: bool,
}

/// A change that was accepted.
pub(super) struct Accepted {
    pub(super) proposal: Proposal,
    /// Number of the active configuration.
    pub(super) generation: u64,
    applied: bool,
    /// SHA-256 of the old and of the new text.
    hashes: [String; 2],
    pub(super) needs_restart: Vec<&'static str>,
}

type Answer = Result<Page, ApiError>;

impl Api {
    pub(super) fn new() -> Self {
        Api { access: Access::new(), changes: Arc::new(Semaphore::new(1)) }
    }
}

impl AdminServer {
    /// Answers a request of the API.
    pub(super) async fn api(&self, session: &mut ServerSession) -> Page {
        let is_apisix = session.req_header().uri.path().starts_with(apisix::PREFIX);
        let answer = self.api_answer(session).await;
        if !session.is_body_empty() && !session.is_body_done() {
            // The rest of the body is not read.
            session.set_keepalive(None);
            body::discard(session).await;
        }
        answer.unwrap_or_else(if is_apisix { apisix::error_page } else { ApiError::into_page })
    }

    async fn api_answer(&self, session: &mut ServerSession) -> Answer {
        let request = session.req_header();
        self.admit(&request.headers)
            .map_err(|page| ApiError::new(ErrorCode::ForeignPage, String::from_utf8_lossy(&page.body).trim()))?;
        let headers = request.headers.clone();
        let (path, query) = (request.uri.path().to_owned(), request.uri.query().unwrap_or_default().to_owned());
        let method = request.method.clone();
        let client = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
        if path == "/api/v1/openapi.json" {
            return match Action::of(&method) {
                Some(Action::Read) => Ok(Page::json(&openapi::description())),
                _ => Err(ApiError::method_not_allowed("GET, HEAD")),
            };
        }
        let action = Action::of(&method);
        let mut audit = Audit {
            token: None,
            client,
            action: action.unwrap_or(Action::Read),
            target: path.strip_prefix("/api/v1/").unwrap_or(&path).to_owned(),
            dry_run: false,
        };
        let admitted = self.api.access.check(&self.process, &headers, client);
        let token = admitted.inspect_err(|error| self.api.access.log_refusal(&audit, error))?;
        audit.token = Some(token.name().to_owned());
        let result = match path.starts_with(apisix::PREFIX) {
            true => match Options::parse(&query) {
                Ok(_) => self.apisix(session, &method, &path, token.role(), &mut audit).await,
                Err(error) => Err(error),
            },
            false => self.api_run(session, &headers, &path, &query, action, token.role(), &mut audit).await,
        };
        if let (Err(error), true) = (&result, audit.action != Action::Read) {
            log::warn!("{audit} result=refused code={}", error.code().code());
        }
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    async fn api_run(
        &self,
        session: &mut ServerSession,
        headers: &HeaderMap,
        path: &str,
        query: &str,
        action: Option<Action>,
        role: Role,
        audit: &mut Audit,
    ) -> Answer {
        let target = Target::parse(path)?;
        let Options { dry_run } = Options::parse(query)?;
        audit.dry_run = dry_run;
        let action = action.filter(|action| target.allows(*action));
        let action = action.ok_or_else(|| ApiError::method_not_allowed(target.allowed()))?;
        let id = match target {
            Target::List(list) => return self.api_read(move |process| read_list(process, &list)).await,
            Target::Object(id) => id,
        };
        if action == Action::Read {
            return self.api_read(move |process| read_object(process, &id)).await;
        }
        audit.target = id.to_string();
        if role != Role::Write {
            return Err(ApiError::new(ErrorCode::ReadOnlyToken, "this token may only read"));
        }
        let condition = target::condition(headers)?;
        let text = match action {
            Action::Read | Action::Delete => String::new(),
            Action::Put | Action::Patch => {
                body::check_type(headers, action)?;
                body::read(session).await?
            }
        };
        let audit = audit.clone();
        let changed = self.render(&self.api.changes, QUEUE_TIMEOUT, move |process| {
            let change = match action {
                Action::Put => ObjectChange::Put(&text),
                Action::Patch => ObjectChange::Patch(&text),
                Action::Read | Action::Delete => ObjectChange::Delete,
            };
            change_object(process, &id, change, &condition, &audit)
        });
        match changed.await {
            Ok(result) => result.map(Accepted::into_page),
            Err(_) => Err(ApiError::new(ErrorCode::Busy, "another change is running; retry")),
        }
    }

    async fn api_read(&self, read: impl FnOnce(&Process) -> Answer + Send + 'static) -> Answer {
        let page = self.render(&self.pages, super::QUEUE_TIMEOUT, read).await;
        page.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Busy, "another page is being rendered; retry")))
    }
}

fn read_list(process: &Process, list: &ObjectList) -> Answer {
    let generation = process.live.current();
    let objects = objects::list(&generation.written.text, list);
    let objects = objects.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no such service"))?;
    let item = |(name, object): (String, Object)| json!({ "name": name, "etag": etag_text(&object.version), "object": object.value });
    let items: Vec<Value> = objects.into_iter().map(item).collect();
    Ok(Page::json(&json!({ "items": items, "generation": generation.number, "sha256": generation.written.hash })))
}

fn read_object(process: &Process, id: &ObjectId) -> Answer {
    let generation = process.live.current();
    let object = objects::read(&generation.written.text, id).ok_or_else(|| ApiError::no_object(id))?;
    Ok(Page::json(&object.value).with(header::ETAG, etag(&object.version)))
}

/// Makes a change, or with `dry_run` only tries it. Leaves a line in the log if it was made.
pub(super) fn change_object(
    process: &Process,
    id: &ObjectId,
    change: ObjectChange<'_>,
    condition: &Condition,
    audit: &Audit,
) -> Result<Accepted, ApiError> {
    let live = &process.live;
    let base: Arc<Generation> = live.current();
    live.check_store(&base)?;
    let reading = Reading::default();
    let load = |text: &str| live.load_candidate(&reading, text);
    let present = Present { text: &base.written.text, snapshot: &base.snapshot };
    let proposal =
        objects::propose(present, id, change, condition, &load).map_err(|refusal| ApiError::of(id, refusal))?;
    let from = base.written.hash.clone();
    let (dry_run, same) = (audit.dry_run, proposal.text == base.written.text);
    let startup = proposal.snapshot.as_ref().map(Snapshot::startup);
    let needs_restart = startup.map(|startup| live.started().differences(startup)).unwrap_or_default();
    let mut accepted =
        Accepted { proposal, generation: base.number, applied: !dry_run, hashes: [from.clone(), from], needs_restart };
    if !same {
        accepted.publish(process, id, &base, reading, dry_run)?;
    }
    let [from, to] = &accepted.hashes;
    let result = if dry_run { "accepted" } else { "applied" };
    log::info!("{audit} result={result} from={from} to={to} generation={}", accepted.generation);
    Ok(accepted)
}

// === impl Accepted ===

impl Accepted {
    fn publish(
        &mut self,
        process: &Process,
        id: &ObjectId,
        base: &Generation,
        reading: Reading,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        self.hashes[1] = crate::source::hash_of(&self.proposal.text);
        if dry_run {
            return Ok(());
        }
        let Proposal { text, snapshot, warnings, .. } = &mut self.proposal;
        let snapshot =
            snapshot.take().ok_or_else(|| ApiError::new(ErrorCode::Internal, "the change was made twice"))?;
        let candidate = Candidate { text: text.clone(), snapshot, problems: std::mem::take(warnings), reading };
        self.generation = process.live.publish(base, candidate)?.number;
        let active = process.live.current();
        if active.number == self.generation {
            // The text from etcd has another form than that of the client, so the version differs too.
            self.hashes[1].clone_from(&active.written.hash);
            self.proposal.after = objects::read(&active.written.text, id);
        }
        Ok(())
    }

    fn into_page(self) -> Page {
        let Accepted { proposal, generation, applied, hashes: [from, to], needs_restart } = self;
        let Proposal { before, after, problems, difference, .. } = proposal;
        let mut changes = difference.value();
        let counts = difference.counts().into_iter().map(|(effect, count)| (effect.to_owned(), count.into()));
        changes["counts"] = Value::Object(counts.collect());
        for side in ["old", "new"] {
            changes.as_object_mut().and_then(|changes| changes.remove(side));
        }
        let is_new = before.is_none() && applied;
        let page = Page::json(&json!({
            "object": after.as_ref().map(|object| &object.value),
            "applied": applied,
            "generation": generation,
            "sha256": { "from": from, "to": to },
            "changes": changes,
            "problems": problems,
            "needs_restart": needs_restart,
        }));
        let page = if is_new { Page { status: StatusCode::CREATED, ..page } } else { page };
        match after {
            Some(object) => page.with(header::ETAG, etag(&object.version)),
            None => page,
        }
    }
}

fn etag_text(version: &str) -> String {
    format!("\"{version}\"")
}

fn etag(version: &str) -> HeaderValue {
    // A version has only digits.
    HeaderValue::from_str(&etag_text(version)).unwrap_or(HeaderValue::from_static("\"\""))
}

// === impl Action, Audit ===

impl Action {
    fn of(method: &Method) -> Option<Self> {
        Some(match *method {
            Method::GET | Method::HEAD => Action::Read,
            Method::PUT => Action::Put,
            Method::PATCH => Action::Patch,
            Method::DELETE => Action::Delete,
            _ => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete => "delete",
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { token, client, action, target, dry_run } = self;
        let client = client.map_or("unix".to_owned(), |client| client.to_string());
        write!(f, "api {} {}", action.word(), quoted(target))?;
        if let Some(token) = token {
            write!(f, " token={token}")?;
        }
        write!(f, " client={client}")?;
        if *dry_run { f.write_str(" dry_run=true") } else { Ok(()) }
    }
}
