//! Errors as the API tells them.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::types::ErrorReply;
use crate::engine::boundary::DataplaneError;
use crate::engine::{ApplyError, chain};
use crate::model::Refusal;

/// A failed request: the status, and a body of message and hint.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorReply,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorReply { error: error.into(), hint: None } }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// The engine's thread is gone: the daemon is going down.
    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::UnknownPool { .. } | Refusal::UnknownVip { .. } | Refusal::UnknownBackend { .. } => {
                StatusCode::NOT_FOUND
            }
            Refusal::PoolExists { .. }
            | Refusal::VipExists { .. }
            | Refusal::EndpointTaken { .. }
            | Refusal::BackendExists { .. }
            | Refusal::LastBackend { .. }
            | Refusal::AmbiguousBackend { .. } => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let hint = refusal.hint();
        Self { status, body: ErrorReply { error: refusal.to_string(), hint } }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let hint = match &error {
            ApplyError::Publish(cause) | ApplyError::Rollback { publish: cause, .. } => cause.hint.clone(),
            ApplyError::Refused(_) | ApplyError::Rows(_) | ApplyError::Persist(_) => None,
        };
        match error {
            ApplyError::Refused(refusal) => refusal.into(),
            failure => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: ErrorReply { error: chain(&failure), hint },
            },
        }
    }
}

impl From<DataplaneError> for ApiError {
    fn from(error: DataplaneError) -> Self {
        let body = ErrorReply { error: chain(&error), hint: error.hint };
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
