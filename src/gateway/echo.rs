//! The built-in upstream: answers with what it got. For demos, tests and first steps.

use std::time::Duration;

use data_encoding::BASE64;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use serde_json::json;

use super::forward::{Exchange, Frames, Upstream, UpstreamBody};

/// Answers 200 with a JSON account of the request.
#[derive(Debug)]
pub struct Echo;

impl Upstream for Echo {
    fn send(&self, request: Request<Frames>, _: Option<Duration>) -> Exchange<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let headers: Vec<_> = parts
                .headers
                .iter()
                .map(|(name, value)| {
                    json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
                })
                .collect();
            let account = json!({
                "method": parts.method.as_str(),
                "path": parts.uri.path(),
                "query": parts.uri.query(),
                "headers": headers,
                "body": std::str::from_utf8(&body).ok(),
                "body_base64": BASE64.encode(&body),
            });
            let body = Full::from(format!("{account:#}\n"));
            let body = UpstreamBody::new(body.map_err(|never| match never {}));
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
