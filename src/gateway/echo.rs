//! The built-in upstream: answers with what it got. For demos, tests and first steps.

use std::time::Duration;

use data_encoding::BASE64;
use http::{HeaderValue, Response, header};
use serde_json::json;

use super::forward::{Exchange, Upstream, UpstreamBody};
use super::outgoing::Outgoing;

/// Answers 200 with a JSON account of the request.
#[derive(Debug)]
pub struct Echo;

impl Upstream for Echo {
    fn send(&self, request: Outgoing, _: Option<Duration>) -> Exchange<'_> {
        Box::pin(async move {
            let body = request.body.joined();
            let headers: Vec<_> = request
                .head
                .fields()
                .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
                .collect();
            let account = json!({
                "method": request.method.as_str(),
                "path": request.target.path(),
                "query": request.target.query(),
                "headers": headers,
                "body": std::str::from_utf8(&body).ok(),
                "body_base64": BASE64.encode(&body),
            });
            let body = UpstreamBody::Whole(format!("{account:#}\n").into());
            let mut response = Response::new(body);
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            Ok(response)
        })
    }

    fn patience(&self, _: Option<Duration>) -> Duration {
        Duration::from_secs(1)
    }
}
