//! The answer to a request that goes nowhere.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};

use super::record::Record;
use super::rejection::{Form, Rejection};
use super::respond::{self, Answer};
use super::select;
use super::snapshot::RouteState;

/// A request that goes nowhere.
pub(super) struct Refusal {
    pub(super) rejection: Rejection,
    /// The route that it would have gone to.
    pub(super) state: Option<Arc<RouteState>>,
}

impl Refusal {
    pub(super) fn of(state: Arc<RouteState>, rejection: Rejection) -> Self {
        Self {
            rejection,
            state: Some(state),
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            state: None,
        }
    }
}

/// Answers a request that goes nowhere: by the route that it would have gone to, where it has one.
pub(super) fn refuse(refusal: Refusal, record: Box<Record>, spare: HeaderMap) -> Response<Answer> {
    let Refusal {
        mut rejection,
        state,
    } = refusal;
    let route = state.as_ref().map(|state| &*state.route);
    let answers = route.map(|route| &*route.answers);
    let (mut is_empty, of_handshake) = match rejection.form {
        Form::Empty(status) => (true, status),
        Form::Problem => (answers.is_some_and(|answers| answers.reject_empty), None),
    };
    // What the operator wrote wins over what the provider wants, and that over the table.
    let of_operator = route.and_then(|route| route.reject_status);
    let of_provider = answers.and_then(|answers| answers.reject_status);
    let status = of_operator
        .filter(|_| rejection.is_unauthorized())
        .or(of_handshake)
        .or(of_provider.filter(|_| rejection.is_unauthorized()))
        .or_else(|| StatusCode::from_u16(rejection.reason.row().status).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status != StatusCode::UNAUTHORIZED {
        // What hides a route must not name what it wants.
        rejection
            .fields
            .retain(|field| field.0 != header::WWW_AUTHENTICATE);
    }
    if let Some(route) = route.filter(|_| status == StatusCode::METHOD_NOT_ALLOWED)
        && rejection.fields.is_empty()
    {
        rejection.fields = select::method_not_allowed([route]).fields;
    }
    // These have no content (RFC 9110 15.3.5 and 15.3.6).
    is_empty |= matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let response = respond::refusal(&rejection, status, is_empty, &record.request_id, spare);
    record.refuse(&rejection, status.as_u16());
    response
}
