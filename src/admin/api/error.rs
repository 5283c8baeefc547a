//! Errors of the API: one JSON shape, and a stable code for programs.

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::super::Page;
use crate::codes::coded_enum;
use crate::live::PublishError;
use crate::objects::{ChangeRefusal, ObjectId};
use crate::source::StoreError;

coded_enum! {
    /// Why a request of the API fails.
    pub(in crate::admin) enum ErrorCode {
        BadQuery = "bad_query",
        TokenInUrl = "token_in_url",
        BadPrecondition = "bad_precondition",
        BadSyntax = "bad_syntax",
        Unauthorized = "unauthorized",
        ForeignPage = "foreign_page",
        ReadOnlyToken = "read_only_token",
        RemoteWrite = "remote_write",
        NotEnabled = "not_enabled",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        BodyTimeout = "body_timeout",
        SourceChanged = "source_changed",
        InUse = "in_use",
        UnknownForm = "unknown_form",
        SourceReadOnly = "source_read_only",
        PreconditionFailed = "precondition_failed",
        BodyTooLarge = "body_too_large",
        UnsupportedMediaType = "unsupported_media_type",
        Invalid = "invalid",
        NameDiffers = "name_differs",
        TooManyFailures = "too_many_failures",
        WriteFailed = "write_failed",
        Internal = "internal",
        Busy = "busy",
        SourceAway = "source_away",
        NotConfirmed = "not_confirmed",
    }
}

/// An error response.
#[derive(Debug)]
pub(in crate::admin) struct ApiError {
    code: ErrorCode,
    pub(in crate::admin) message: String,
    pub(in crate::admin) problems: Vec<Value>,
    field: Option<Box<(HeaderName, HeaderValue)>>,
}

impl ErrorCode {
    pub(in crate::admin) const fn status(self) -> StatusCode {
        match self {
            ErrorCode::BadQuery | ErrorCode::TokenInUrl | ErrorCode::BadPrecondition | ErrorCode::BadSyntax => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::ForeignPage | ErrorCode::ReadOnlyToken | ErrorCode::RemoteWrite => StatusCode::FORBIDDEN,
            ErrorCode::NotEnabled | ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ErrorCode::SourceChanged | ErrorCode::InUse | ErrorCode::UnknownForm | ErrorCode::SourceReadOnly => {
                StatusCode::CONFLICT
            }
            ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::Invalid | ErrorCode::NameDiffers => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::WriteFailed | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Busy | ErrorCode::SourceAway | ErrorCode::NotConfirmed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the code means, for the description of the API.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            ErrorCode::BadQuery => "the query has an unknown parameter or value",
            ErrorCode::TokenInUrl => "the query has a token; revoke it",
            ErrorCode::BadPrecondition => "`If-Match` or `If-None-Match` cannot be read",
            ErrorCode::BadSyntax => "the body is neither JSON nor YAML; `problems` says where",
            ErrorCode::Unauthorized => "no token, or a wrong one",
            ErrorCode::ForeignPage => "the Host is not accepted, or a page of another site sends the request",
            ErrorCode::ReadOnlyToken => "the token has the role `read`",
            ErrorCode::RemoteWrite => "other machines can reach the listener; it needs a restart with its new address",
            ErrorCode::NotEnabled => "the configuration has no `admin.write`",
            ErrorCode::NotFound => "there is no such object or path",
            ErrorCode::MethodNotAllowed => "the resource has no such method; `Allow` lists the methods",
            ErrorCode::BodyTimeout => "the body takes longer than 10 s",
            ErrorCode::SourceChanged => "the source has changed since it was loaded, or another change came first",
            ErrorCode::InUse => "other objects use the object; `problems` lists them",
            ErrorCode::UnknownForm => "the text of the configuration cannot be edited without changing other objects",
            ErrorCode::SourceReadOnly => "the source of the configuration cannot be written",
            ErrorCode::PreconditionFailed => "the object has another version, or exists or does not exist",
            ErrorCode::BodyTooLarge => "the body has more than 1 MiB",
            ErrorCode::UnsupportedMediaType => "the body is not declared as JSON or YAML",
            ErrorCode::Invalid => "the configuration would be invalid; `problems` says where, and what to write",
            ErrorCode::NameDiffers => "the object has another `name` than the URL",
            ErrorCode::TooManyFailures => "too many wrong tokens of this client; `Retry-After` says how long to wait",
            ErrorCode::WriteFailed => "writing the source of the configuration failed; it is unchanged",
            ErrorCode::Internal => "a fault of corsgate",
            ErrorCode::Busy => "another request is running; retry",
            ErrorCode::SourceAway => "etcd cannot be reached; nothing was written",
            ErrorCode::NotConfirmed => "etcd did not confirm the change, or it is not active yet; read the object",
        }
    }
}

impl ApiError {
    pub(in crate::admin) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), problems: Vec::new(), field: None }
    }

    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        ApiError { field: Some(Box::new((name, value))), ..self }
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        ApiError::new(ErrorCode::MethodNotAllowed, format!("allowed methods: {allowed}"))
            .with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    pub(in crate::admin) fn no_object(id: &ObjectId) -> Self {
        ApiError::new(ErrorCode::NotFound, format!("there is no {id}"))
    }

    /// The error for a change that is not possible.
    pub(super) fn of(id: &ObjectId, refusal: ChangeRefusal) -> Self {
        let with_problems = |code, message: &str, problems| ApiError { problems, ..ApiError::new(code, message) };
        match refusal {
            ChangeRefusal::NotFound => Self::no_object(id),
            ChangeRefusal::Condition { version: None } => {
                ApiError::new(ErrorCode::PreconditionFailed, format!("there is no {id}"))
            }
            ChangeRefusal::Condition { version: Some(version) } => {
                let error =
                    ApiError::new(ErrorCode::PreconditionFailed, format!("{id} has another version, or exists"));
                error.with(header::ETAG, super::etag(&version))
            }
            ChangeRefusal::Syntax { problems } => {
                with_problems(ErrorCode::BadSyntax, "the body cannot be read", problems)
            }
            ChangeRefusal::Invalid { problems } => {
                with_problems(ErrorCode::Invalid, "the configuration would be invalid", problems)
            }
            ChangeRefusal::InUse { problems } => {
                with_problems(ErrorCode::InUse, "other objects use this object", problems)
            }
            ChangeRefusal::Name { found } => ApiError::new(
                ErrorCode::NameDiffers,
                format!("the object has the name `{found}`; write the name of the URL, or leave it out"),
            ),
            ChangeRefusal::Form => ApiError::new(
                ErrorCode::UnknownForm,
                "the text cannot be edited without changing other objects; YAML anchors and tags are the usual reason. \
                 Edit the file by hand",
            ),
        }
    }

    pub(in crate::admin) fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message with its problems, as one text.
    pub(super) fn with_problems(self) -> String {
        let problem = |problem: &Value| {
            let part = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}; {}", part("path"), part("fault"), part("remedy"))
        };
        let problems: Vec<String> = self.problems.iter().map(problem).collect();
        [vec![self.message], problems].concat().join("\n")
    }

    pub(super) fn into_page(self) -> Page {
        let ApiError { code, message, problems, field } = self;
        let error = json!({ "error": { "code": code.code(), "message": message, "problems": problems } });
        let mut page = Page { status: code.status(), ..Page::json(&error) };
        page.fields.extend(field.map(|field| *field));
        page
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::Stale | PublishError::Store(StoreError::Changed) => ErrorCode::SourceChanged,
            PublishError::NoStore | PublishError::NoKey | PublishError::Store(StoreError::ReadOnly { .. }) => {
                ErrorCode::SourceReadOnly
            }
            PublishError::Store(StoreError::Away { .. }) => ErrorCode::SourceAway,
            PublishError::Store(StoreError::Unanswered { .. }) | PublishError::NotApplied { .. } => {
                ErrorCode::NotConfirmed
            }
            PublishError::Store(StoreError::Failed { .. }) => ErrorCode::WriteFailed,
            PublishError::Unusable(_) | PublishError::Store(StoreError::Refused { .. }) => ErrorCode::Invalid,
        };
        ApiError::new(code, error.to_string())
    }
}
