//! `/apisix/admin`: routes and upstreams in the shape of APISIX's Admin API, for scripts that were written for it.

use http::{HeaderMap, Method, StatusCode};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::error::{ApiError, ErrorCode};
use super::{Accepted, Action, Audit, QUEUE_TIMEOUT, body, change_object};
use crate::admin::{AdminServer, Page, Process};
use crate::config::client_values;
use crate::import::{ApisixKind, from_apisix, to_apisix};
use crate::objects::{self, Condition, ObjectChange, ObjectId, ObjectList, Section};
use crate::tokens::{Role, is_name};

/// Paths of this API begin with this.
pub(in crate::admin) const PREFIX: &str = "/apisix/";

/// An object or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ApisixTarget {
    kind: ApisixKind,
    id: Option<String>,
}

impl AdminServer {
    pub(super) async fn apisix(
        &self,
        session: &mut ServerSession,
        method: &Method,
        path: &str,
        role: Role,
        audit: &mut Audit,
    ) -> Result<Page, ApiError> {
        let target = ApisixTarget::parse(path)?;
        let action = Action::of(method).filter(|action| *action != Action::Patch);
        let action = action.filter(|action| target.id.is_some() || *action == Action::Read);
        let action = action.ok_or_else(|| ApiError::method_not_allowed("GET, HEAD, PUT, DELETE"))?;
        if action == Action::Read {
            return self.api_read(move |process| target.read(process)).await;
        }
        let Some(id) = target.object() else { return Err(ApiError::method_not_allowed("GET, HEAD")) };
        audit.target = id.to_string();
        if role != Role::Write {
            return Err(ApiError::new(ErrorCode::ReadOnlyToken, "this token may only read"));
        }
        let text = if action == Action::Put { body::read(session).await? } else { String::new() };
        let audit = audit.clone();
        let changed =
            self.render(&self.api.changes, QUEUE_TIMEOUT, move |process| target.change(process, action, &text, &audit));
        changed.await.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Busy, "another change is running; retry")))
    }
}

/// The error in the shape of APISIX.
pub(super) fn error_page(error: ApiError) -> Page {
    let (code, message) = (error.code(), error.with_problems());
    let body = match code {
        ErrorCode::NotFound => json!({ "message": message, "error_msg": message }),
        _ => json!({ "error_msg": message }),
    };
    // APISIX has no 422.
    let status = match code.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    Page { status, ..Page::json(&body) }
}

/// Whether the headers of a request have several or no key.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("x-api-key").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

// === impl ApisixTarget ===

impl ApisixTarget {
    fn parse(path: &str) -> Result<Self, ApiError> {
        let unknown = |message: &str| ApiError::new(ErrorCode::NotFound, message);
        let rest = path.strip_prefix("/apisix/admin/").ok_or_else(|| unknown("not found"))?;
        let (kind, id) = rest.split_once('/').map_or((rest, None), |(kind, id)| (kind, Some(id)));
        let kind = match kind {
            "routes" => ApisixKind::Route,
            "upstreams" => ApisixKind::Upstream,
            _ => {
                let message = "only routes and upstreams are translated; write the upstream and the plugin `cors` of a \
                               service into its routes, or use /api/v1";
                return Err(ApiError::new(ErrorCode::Invalid, message));
            }
        };
        if id.is_some_and(|id| !is_name(id)) {
            return Err(ApiError::new(ErrorCode::Invalid, "wrong id: write 1 to 64 letters, digits, `-`, `_` and `.`"));
        }
        Ok(ApisixTarget { kind, id: id.map(str::to_owned) })
    }

    fn section(&self) -> Section {
        match self.kind {
            ApisixKind::Route => Section::Services,
            ApisixKind::Upstream => Section::Upstreams,
        }
    }

    fn object(&self) -> Option<ObjectId> {
        Some(ObjectId::Named { section: self.section(), name: self.id.clone()? })
    }

    fn key(&self, id: &str) -> String {
        match self.kind {
            ApisixKind::Route => format!("/apisix/routes/{id}"),
            ApisixKind::Upstream => format!("/apisix/upstreams/{id}"),
        }
    }

    fn entry(&self, id: &str, object: &Value) -> Option<Value> {
        Some(json!({ "key": self.key(id), "value": to_apisix(self.kind, id, object)? }))
    }

    fn read(&self, process: &Process) -> Result<Page, ApiError> {
        let text = &process.live.current().written.text;
        let Some(id) = &self.id else {
            // Objects that were not made here are not listed.
            let all = objects::list(text, &ObjectList::Section(self.section())).unwrap_or_default();
            let list: Vec<Value> = all.iter().filter_map(|(name, object)| self.entry(name, &object.value)).collect();
            return Ok(Page::json(&json!({ "total": list.len(), "list": list })));
        };
        let object = self.object().and_then(|id| objects::read(text, &id));
        let object = object.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "Key not found"))?;
        self.entry(id, &object.value).map(|entry| Page::json(&entry)).ok_or_else(|| self.other_shape(id))
    }

    fn change(&self, process: &Process, action: Action, text: &str, audit: &Audit) -> Result<Page, ApiError> {
        let (Some(id), Some(object)) = (&self.id, self.object()) else {
            return Err(ApiError::method_not_allowed("GET, HEAD"));
        };
        let present = objects::read(&process.live.current().written.text, &object);
        if present.is_some_and(|present| to_apisix(self.kind, id, &present.value).is_none()) {
            return Err(self.other_shape(id));
        }
        if action == Action::Delete {
            change_object(process, &object, ObjectChange::Delete, &Condition::Always, audit)?;
            return Ok(Page::json(&json!({ "key": self.key(id), "deleted": "1" })));
        }
        let sent = client_values(text).map_err(|problems| ApiError::new(ErrorCode::BadSyntax, problems.to_string()))?;
        let wanted = from_apisix(self.kind, id, &sent).map_err(|why| ApiError::new(ErrorCode::Invalid, why))?;
        let change = wanted.to_string();
        let changed = change_object(process, &object, ObjectChange::Put(&change), &Condition::Always, audit)?;
        let Accepted { proposal, .. } = changed;
        let entry = proposal.after.and_then(|after| self.entry(id, &after.value));
        let page = Page::json(&entry.ok_or_else(|| self.other_shape(id))?);
        let status = if proposal.before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
        Ok(Page { status, ..page })
    }

    fn other_shape(&self, id: &str) -> ApiError {
        let section = self.section().key();
        let message = format!("{section}/{id} has settings that this API cannot show; use /api/v1/{section}/{id}");
        ApiError::new(ErrorCode::Invalid, message)
    }
}
