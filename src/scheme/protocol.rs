//! What the protocols that are code have in common: the shape of a verdict and the notes on it.

use super::SignatureError;
use super::https_url::HttpsUrl;
pub(super) use super::malformed;
use super::trace::{StepResult, Trace};
use crate::units::UnixTime;

/// What a protocol found in a request whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed timestamp.
    pub signed_at: Option<UnixTime>,
    /// The provider's id of the event, signed.
    pub event_id: Option<String>,
    /// The URL to call so that a subscription takes effect, where the request asks for that.
    pub confirm: Option<HttpsUrl>,
}

/// Notes how a step went and passes its outcome on.
pub(super) fn note<T>(
    trace: &mut Trace,
    step: &'static str,
    outcome: Result<T, SignatureError>,
    detail: impl FnOnce(&T) -> String,
) -> Result<T, SignatureError> {
    match &outcome {
        Ok(value) => trace.note(step, StepResult::Ok, || detail(value)),
        Err(error) => trace.note(step, StepResult::Failed, || error.detail.to_owned()),
    }
    outcome
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use data_encoding::BASE64;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use serde_json::Value;

    use super::*;
    use crate::scheme::keys::Key;
    use crate::scheme::public_key::PublicKey;
    use crate::scheme::sign::Draft;
    use crate::scheme::{Content, Message, Params, SenderUrl};

    /// A request that a test judges.
    pub(in crate::scheme) struct Case {
        pub(in crate::scheme) name: String,
        pub(in crate::scheme) accepted: bool,
        pub(in crate::scheme) now: UnixTime,
        pub(in crate::scheme) params: Params,
        pub(in crate::scheme) secrets: Vec<String>,
        pub(in crate::scheme) headers: HeaderMap,
        public_keys: Vec<String>,
        method: Method,
        url: SenderUrl,
        body: Content,
    }

    /// The requests of a file of vectors.
    pub(in crate::scheme) fn cases(lines: &str) -> Vec<Case> {
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let requests = lines.filter(|line: &Value| line["kind"] == "request");
        requests.map(|line| Case::read(&line)).collect()
    }

    fn headers<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn texts(list: &Value) -> Vec<String> {
        serde_json::from_value(list.clone()).unwrap()
    }

    impl Case {
        fn read(line: &Value) -> Self {
            let url = line["url"]
                .as_str()
                .unwrap()
                .strip_prefix("https://")
                .unwrap();
            let (authority, path) = url.split_once('/').unwrap();
            let fields: Vec<(String, String)> =
                serde_json::from_value(line["headers"].clone()).unwrap();
            let fields = fields.iter().map(|(name, value)| (&**name, &**value));
            let body = BASE64.decode(line["body_base64"].as_str().unwrap().as_bytes());
            Self {
                name: line["case"].as_str().unwrap().to_owned(),
                accepted: line["expect"] == "accept",
                now: UnixTime::from_secs(line["now"].as_i64().unwrap()),
                params: serde_json::from_value(line["params"].clone()).unwrap(),
                secrets: texts(&line["secrets"]),
                public_keys: texts(&line["public_keys"]),
                headers: headers(fields),
                method: line["method"].as_str().unwrap().parse().unwrap(),
                url: SenderUrl {
                    origin: format!("https://{authority}").into(),
                    target: format!("/{path}").into(),
                },
                body: Content::new(vec![Bytes::from(body.unwrap())]),
            }
        }

        /// The request that `draft` is.
        pub(in crate::scheme) fn of(draft: &Draft) -> Self {
            let fields = draft
                .headers
                .iter()
                .map(|(name, value)| (&**name, &**value));
            Self {
                name: String::new(),
                accepted: true,
                now: UnixTime::from_secs(0),
                params: Params::new(),
                secrets: Vec::new(),
                public_keys: Vec::new(),
                headers: headers(fields),
                method: draft.method.clone(),
                url: draft.url.clone(),
                body: Content::new(vec![draft.body.clone().into()]),
            }
        }

        pub(in crate::scheme) fn message(&self) -> Message<'_> {
            Message {
                method: &self.method,
                url: &self.url,
                headers: &self.headers,
                body: &self.body,
            }
        }

        pub(in crate::scheme) fn public_keys(&self) -> Vec<Key> {
            let parsed = self.public_keys.iter();
            let parsed = parsed.map(|written| PublicKey::parse_all(written.as_bytes()).unwrap());
            parsed
                .flatten()
                .map(|key| Key::public("public_keys[0]".into(), key, None))
                .collect()
        }
    }
}
