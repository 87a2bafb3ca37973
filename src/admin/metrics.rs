//! `/metrics`: every metric, as Prometheus text.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{AdminState, respond};

/// The text exposition format.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn page(state: &AdminState) -> Response<Full<Bytes>> {
    respond(
        StatusCode::OK,
        MEDIA_TYPE,
        state.telemetry.metrics.render().into(),
    )
}
