//! `/apisix/admin`: routes, services and upstreams in the shape of APISIX's Admin API, for scripts that were written for it.

use http::{HeaderMap, Method, StatusCode};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::error::{ApiError, ErrorCode};
use super::{Accepted, Action, Audit, QUEUE_TIMEOUT, body, change_object};
use crate::admin::{AdminServer, Page, Process};
use crate::config::client_values;
use crate::import::{ApisixKind, apisix_routes, from_apisix, to_apisix, to_apisix_in};
use crate::objects::{self, Condition, ObjectChange, ObjectId, ObjectList, Section};
use crate::tokens::{Role, is_name};

/// Paths of this API begin with this.
pub(in crate::admin) const PREFIX: &str = "/apisix/";

/// An object of the configuration, in the shape of APISIX.
struct Shown {
    object: ObjectId,
    value: Value,
}

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
        path.trim_start_matches('/').clone_into(&mut audit.target);
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
            "services" => ApisixKind::Service,
            "upstreams" => ApisixKind::Upstream,
            _ => {
                let message = "only routes, services and upstreams are translated; docs/api.md has the table";
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
            ApisixKind::Route | ApisixKind::Service => Section::Services,
            ApisixKind::Upstream => Section::Upstreams,
        }
    }

    /// The object of the configuration with this id, if it is not in a service of APISIX.
    fn own_object(&self, id: &str) -> ObjectId {
        ObjectId::Named { section: self.section(), name: id.to_owned() }
    }

    fn entry(&self, id: &str, shown: &Value) -> Value {
        let kind = match self.kind {
            ApisixKind::Route => "routes",
            ApisixKind::Service => "services",
            ApisixKind::Upstream => "upstreams",
        };
        json!({ "key": format!("/apisix/{kind}/{id}"), "value": shown })
    }

    /// All objects of this kind with their ids. Objects that were not made here are not among them.
    fn all(&self, text: &str) -> Vec<(String, Shown)> {
        let mut all = Vec::new();
        for (name, object) in objects::list(text, &ObjectList::Section(self.section())).unwrap_or_default() {
            let object = object.value;
            match (self.kind, apisix_routes(&object)) {
                (ApisixKind::Route, Some(routes)) => {
                    all.extend(routes.filter_map(|(route, value)| {
                        let value = to_apisix_in(&name, route, value)?;
                        let object = ObjectId::Route { service: name.clone(), route: route.to_owned() };
                        Some((route.to_owned(), Shown { object, value }))
                    }));
                }
                _ => all.extend(to_apisix(self.kind, &name, &object).map(|value| {
                    let object = self.own_object(&name);
                    (name, Shown { object, value })
                })),
            }
        }
        all
    }

    /// The object with this id.
    fn find(&self, text: &str, id: &str) -> Option<Shown> {
        self.all(text).into_iter().find(|(name, _)| name == id).map(|(_, shown)| shown)
    }

    /// Refuses an object that has settings of another shape. `found` is the same object in the shape of APISIX.
    fn check_shape(&self, text: &str, object: &ObjectId, id: &str, found: Option<&Shown>) -> Result<(), ApiError> {
        match found.is_none() && objects::read(text, object).is_some() {
            true => Err(self.other_shape(id)),
            false => Ok(()),
        }
    }

    fn read(&self, process: &Process) -> Result<Page, ApiError> {
        let text = &process.live.current().written.text;
        let Some(id) = &self.id else {
            let list: Vec<Value> =
                self.all(text).into_iter().map(|(id, shown)| self.entry(&id, &shown.value)).collect();
            return Ok(Page::json(&json!({ "total": list.len(), "list": list })));
        };
        let found = self.find(text, id);
        self.check_shape(text, &self.own_object(id), id, found.as_ref())?;
        let found = found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "Key not found"))?;
        Ok(Page::json(&self.entry(id, &found.value)))
    }

    fn change(&self, process: &Process, action: Action, text: &str, audit: &Audit) -> Result<Page, ApiError> {
        let Some(id) = &self.id else { return Err(ApiError::method_not_allowed("GET, HEAD")) };
        let running = process.live.current();
        let present = &running.written.text;
        let found = self.find(present, id);
        if action == Action::Delete {
            self.check_shape(present, &self.own_object(id), id, found.as_ref())?;
            let object = found.map_or_else(|| self.own_object(id), |found| found.object);
            let service = objects::read(present, &object).filter(|_| self.kind == ApisixKind::Service);
            let user = service.and_then(|service| Some(apisix_routes(&service.value)?.next()?.0.to_owned()));
            if let Some(route) = user {
                let message = format!("the route {route} uses this service; delete the route first");
                return Err(ApiError::new(ErrorCode::InUse, message));
            }
            change_object(process, &object, ObjectChange::Delete, &Condition::Always, audit)?;
            return Ok(Page::json(&json!({ "key": self.entry(id, &Value::Null)["key"], "deleted": "1" })));
        }
        let sent = client_values(text).map_err(|problems| ApiError::new(ErrorCode::BadSyntax, problems.to_string()))?;
        let object = self.place(present, id, &sent)?;
        if found.as_ref().is_some_and(|found| found.object != object) {
            let message = "the route is in another service, or in none; delete it first";
            return Err(ApiError::new(ErrorCode::Invalid, message));
        }
        self.check_shape(present, &object, id, found.as_ref())?;
        let known = objects::read(present, &object).filter(|_| self.kind == ApisixKind::Service);
        let routes = known.and_then(|service| service.value["routes"].as_array().cloned()).unwrap_or_default();
        let wanted =
            from_apisix(self.kind, id, &sent, &routes).map_err(|why| ApiError::new(ErrorCode::Invalid, why))?;
        let change = wanted.to_string();
        let changed = change_object(process, &object, ObjectChange::Put(&change), &Condition::Always, audit)?;
        let Accepted { proposal, .. } = changed;
        let shown = proposal.after.and_then(|after| match &object {
            ObjectId::Route { service, route } => to_apisix_in(service, route, &after.value),
            ObjectId::Named { name, .. } => to_apisix(self.kind, name, &after.value),
        });
        let page = Page::json(&self.entry(id, &shown.ok_or_else(|| self.other_shape(id))?));
        let status = if proposal.before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
        Ok(Page { status, ..page })
    }

    /// The object that is changed: for a route with `service_id`, the route of that service.
    fn place(&self, text: &str, id: &str, sent: &Value) -> Result<ObjectId, ApiError> {
        let service = match (&sent["service_id"], self.kind) {
            (Value::String(service), ApisixKind::Route) => service.clone(),
            (Value::Number(service), ApisixKind::Route) => service.to_string(),
            (Value::Null, _) | (_, ApisixKind::Service | ApisixKind::Upstream) => return Ok(self.own_object(id)),
            _ => return Err(ApiError::new(ErrorCode::Invalid, "`service_id` must be a text or a number")),
        };
        let services = ApisixTarget { kind: ApisixKind::Service, id: None };
        let found = services.find(text, &service);
        services.check_shape(text, &services.own_object(&service), &service, found.as_ref())?;
        match found {
            Some(_) => Ok(ObjectId::Route { service, route: id.to_owned() }),
            None => {
                let message = format!("`service_id`: there is no service {service}; create it first");
                Err(ApiError::new(ErrorCode::Invalid, message))
            }
        }
    }

    fn other_shape(&self, id: &str) -> ApiError {
        let section = self.section().key();
        let message = match self.kind {
            ApisixKind::Upstream => format!("upstreams/{id} has settings that this API cannot show"),
            ApisixKind::Route => format!("services/{id} is a service, or has settings that this API cannot show"),
            ApisixKind::Service => format!("services/{id} is a route, or has settings that this API cannot show"),
        };
        let message = format!("{message}; use another id, or use /api/v1/{section}/{id}");
        ApiError::new(ErrorCode::Invalid, message)
    }
}
