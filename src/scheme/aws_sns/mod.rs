//! Amazon SNS over https: the protocol of the `aws-sns` preset.
//!
//! The signature stands in the JSON body, over some of its fields, by a certificate whose URL stands
//! there too. Any AWS account can make such a message, so the topic decides; and a message is only
//! as old as its signed `Timestamp` says, since SNS keeps it over its retries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use http::HeaderMap;
use serde::de::{self, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::https_url::{HttpsUrl, KeyUrl};
use super::keys::Key;
use super::locate::reads_alike;
use super::primitive::digest;
use super::protocol::{Verified, malformed, note};
use super::public_key::SignatureAlgorithm;
use super::sign::{Draft, SignError};
use super::trace::Trace;
use super::{Content, Message, Params, SignatureError, Tolerance};
use crate::reason::Reason;
use crate::units::UnixTime;

/// What the fields of a message are called. Another spelling of one of them is refused: apps that
/// read names without case would take the unsigned one (SECURITY DS-18).
const FIELDS: &[&str] = &[
    "Message",
    "MessageId",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// What is signed, in this order, by kind.
const SIGNED_NOTIFICATION: &[&str] = &[
    "Message",
    "MessageId",
    "Subject",
    "Timestamp",
    "TopicArn",
    "Type",
];
const SIGNED_CONFIRMATION: &[&str] = &[
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// Header fields that repeat a signed field, so that apps can tell messages apart early.
const UNSIGNED_COPIES: &[(&str, &str)] = &[
    ("x-amz-sns-message-id", "MessageId"),
    ("x-amz-sns-message-type", "Type"),
    ("x-amz-sns-topic-arn", "TopicArn"),
];

/// SNS retries for an hour by its default policy, and keeps the timestamp.
const MAX_AGE_DEFAULT: Duration = Duration::from_hours(1);
const MAX_AHEAD: Duration = Duration::from_mins(5);

/// Name in the certificates that SNS signs with.
const CERTIFICATE_NAME: &str = "sns.amazonaws.com";

/// What the operator pinned.
#[derive(Clone, Debug)]
pub struct AwsSns {
    topics: Vec<String>,
    allows_sha1: bool,
    /// How far `Timestamp` may lie from now.
    pub tolerance: Tolerance,
}

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

/// A message whose parts can be read.
#[derive(Debug)]
struct Envelope {
    kind: Kind,
    fields: Fields,
    algorithm: SignatureAlgorithm,
    signature: Vec<u8>,
    certificate: HttpsUrl,
}

/// The fields that count, by name.
#[derive(Debug)]
struct Fields(BTreeMap<&'static str, String>);

impl AwsSns {
    /// Reads `topic_arns`, `max_age_s` and `allow_signature_version_1`. The messages name what is
    /// wrong, all of it.
    pub fn from_params(params: &Params) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let topics: Vec<String> = match params.get("topic_arns") {
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        if topics.is_empty() || topics.iter().any(|topic| region_of(topic).is_none()) {
            problems.push(
                "param `topic_arns` must list the ARNs of the topics: any AWS account can sign \
                 messages of its own"
                    .to_owned(),
            );
        }
        let max_age = match params.get("max_age_s") {
            None | Some(Value::Null) => Some(MAX_AGE_DEFAULT),
            Some(value) => seconds(value),
        };
        if max_age.is_none() {
            problems.push("param `max_age_s` must be a number of seconds above 0".to_owned());
        }
        let allows_sha1 = match params.get("allow_signature_version_1") {
            None | Some(Value::Null) => Some(false),
            Some(value) => boolean(value),
        };
        if allows_sha1.is_none() {
            problems.push("param `allow_signature_version_1` must be true or false".to_owned());
        }
        match (max_age, allows_sha1) {
            (Some(past), Some(allows_sha1)) if problems.is_empty() => Ok(Self {
                topics,
                allows_sha1,
                tolerance: Tolerance {
                    past,
                    future: MAX_AHEAD,
                },
            }),
            _ => Err(problems),
        }
    }

    /// What the head alone can tell.
    pub fn precheck(headers: &HeaderMap) -> Result<(), SignatureError> {
        match header(headers, "x-amz-sns-rawdelivery")? {
            Some("true") => Err(SignatureError::new(
                Reason::SignatureMissing,
                "raw message delivery leaves the signature out: turn it off in the subscription",
            )),
            _ => Ok(()),
        }
    }

    /// Where the certificate is that a message names, for an operator who pinned none. It is looked
    /// for only in the region of a configured topic, so that whoever writes a message does not choose
    /// whom the gateway calls.
    pub fn key_url(&self, message: &Message<'_>) -> Result<KeyUrl, SignatureError> {
        let envelope = self.read(message)?;
        let topic = self.check_topic(&envelope)?;
        let region = sns_region(&envelope.certificate);
        if region.is_none() || region != region_of(topic) {
            return Err(malformed(
                "`SigningCertURL` is of another region than the topic",
            ));
        }
        let names = vec![CERTIFICATE_NAME.into(), envelope.certificate.host().into()];
        Ok(KeyUrl::of_preset(envelope.certificate, names))
    }

    /// Judges a request; answers with the index of the key that signed it.
    pub fn verify(
        &self,
        message: &Message<'_>,
        keys: &[&Key],
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<(usize, Verified), SignatureError> {
        let envelope = note(trace, "message", self.read(message), |read| {
            let algorithm = read.algorithm;
            format!("{:?}, {algorithm:?}", read.kind)
        })?;
        let timestamp = note(
            trace,
            "timestamp",
            envelope.timestamp(),
            UnixTime::to_string,
        )?;
        let topic = self.check_topic(&envelope).map(str::to_owned);
        let topic = note(trace, "topic", topic, Clone::clone)?;
        if keys.is_empty() {
            return Err(SignatureError::new(
                Reason::KeyUnavailable,
                "no certificate is at hand",
            ));
        }
        let content = envelope.content();
        let signer = keys.iter().position(|key| {
            key.public_key()
                .is_some_and(|key| key.verify(envelope.algorithm, &content, &envelope.signature))
        });
        let signer = signer.ok_or(SignatureError::new(
            Reason::SignatureMismatch,
            "the signature is not of these fields under any of the certificates",
        ));
        let signer = note(trace, "signature", signer, |index| {
            keys.get(*index)
                .map_or_else(String::new, |key| key.id.to_string())
        })?;
        let timely = self.judge_time(timestamp, now);
        note(trace, "age", timely, |()| "within the tolerance".to_owned())?;
        let id = envelope.fields.get("MessageId")?;
        Ok((
            signer,
            Verified {
                signed_at: Some(timestamp),
                event_id: Some(id.to_owned()),
                confirm: envelope.confirmation(&topic)?,
            },
        ))
    }

    /// What makes two deliveries the same: topic and message id, which are signed.
    pub fn delivery(&self, message: &Message<'_>) -> Option<[u8; 32]> {
        let fields = Fields::read(message.body).ok()?;
        let (topic, id) = (fields.get("TopicArn").ok()?, fields.get("MessageId").ok()?);
        Some(digest(&[topic.as_bytes(), id.as_bytes()]))
    }

    fn read(&self, message: &Message<'_>) -> Result<Envelope, SignatureError> {
        Self::precheck(message.headers)?;
        let fields = Fields::read(message.body)?;
        let version = match fields.0.get("SignatureVersion").map(String::as_str) {
            Some("1") if self.allows_sha1 => SignatureAlgorithm::RsaSha1,
            Some("1") => {
                return Err(malformed(
                    "signature version 1 (SHA-1) is not allowed: set SignatureVersion 2 in the topic",
                ));
            }
            Some("2") => SignatureAlgorithm::RsaSha256,
            _ => return Err(malformed("the signature version is not known")),
        };
        let kind = fields.kind()?;
        for name in kind.signed() {
            if *name != "Subject" {
                fields.get(name)?;
            }
        }
        for (header_name, name) in UNSIGNED_COPIES {
            let unsigned = header(message.headers, header_name)?;
            if unsigned.is_some_and(|unsigned| fields.get(name) != Ok(unsigned)) {
                return Err(malformed(
                    "an `x-amz-sns-` field contradicts the signed body",
                ));
            }
        }
        let signature = BASE64.decode(fields.get("Signature")?.as_bytes());
        let certificate =
            HttpsUrl::parse_named(fields.get("SigningCertURL")?).map_err(malformed)?;
        if sns_region(&certificate).is_none() || !is_certificate_path(certificate.target()) {
            return Err(malformed("`SigningCertURL` is not a certificate of SNS"));
        }
        Ok(Envelope {
            kind,
            fields,
            algorithm: version,
            signature: signature.or(Err(malformed("the signature is not base64")))?,
            certificate,
        })
    }

    fn check_topic<'e>(&self, envelope: &'e Envelope) -> Result<&'e str, SignatureError> {
        let topic = envelope.fields.get("TopicArn")?;
        if self.topics.iter().any(|own| own == topic) {
            Ok(topic)
        } else {
            let detail = "the topic is none of the configured ones";
            Err(SignatureError::new(Reason::SignatureMismatch, detail))
        }
    }

    fn judge_time(&self, timestamp: UnixTime, now: UnixTime) -> Result<(), SignatureError> {
        self.tolerance.judge(
            timestamp,
            now,
            "the message is older than `max_age_s`",
            "the message is further in the future than the tolerance",
        )
    }
}

impl AwsSns {
    /// Completes `draft` so that it verifies by the public half of `key`, pinned. A body that is no
    /// message of SNS becomes the text of a notification.
    pub fn sign(&self, mut draft: Draft, key: &Key, now: UnixTime) -> Result<Draft, SignError> {
        let mut message = match serde_json::from_slice(&draft.body) {
            Ok(Value::Object(message)) if message.contains_key("Type") => message,
            _ => notification(&draft.body)?,
        };
        let topic = self.topics.first().map_or("", String::as_str);
        let region = region_of(topic).unwrap_or_default();
        let id = digest(&[&draft.body, &now.millis().to_be_bytes()]);
        let mut complete = |name: &str, value: String| {
            message.entry(name).or_insert(Value::String(value));
        };
        complete("MessageId", uuid_of(&id));
        complete("TopicArn", topic.to_owned());
        complete("Timestamp", now.to_string());
        complete(
            "SigningCertURL",
            format!("https://sns.{region}.amazonaws.com/SimpleNotificationService-0.pem"),
        );
        message.insert("SignatureVersion".to_owned(), "2".into());
        message.insert("Signature".to_owned(), "".into());
        let written = |message: &serde_json::Map<String, Value>| {
            serde_json::to_vec(message).map_err(|error| SignError(error.to_string()))
        };
        let fields = Fields::read(&Content::new(vec![written(&message)?.into()]));
        let ill_formed = |error: SignatureError| SignError(error.detail.to_owned());
        let fields = fields.map_err(ill_formed)?;
        let kind = fields.kind().map_err(ill_formed)?;
        let key = key.private_key();
        let key = key.ok_or_else(|| SignError("SNS signs with a private RSA key".to_owned()))?;
        let signature = key.sign(SignatureAlgorithm::RsaSha256, &fields.content(kind));
        let signature = signature.map_err(SignError)?;
        message.insert("Signature".to_owned(), BASE64.encode(&signature).into());
        draft.body = written(&message)?;
        for (header_name, name) in UNSIGNED_COPIES {
            let is_there = |(own, _): &(String, String)| own.eq_ignore_ascii_case(header_name);
            if !draft.headers.iter().any(is_there) {
                let value = fields.get(name).map_err(ill_formed)?;
                draft
                    .headers
                    .push(((*header_name).to_owned(), value.to_owned()));
            }
        }
        Ok(draft)
    }
}

fn notification(text: &[u8]) -> Result<serde_json::Map<String, Value>, SignError> {
    let text = std::str::from_utf8(text);
    let text = text.map_err(|error| SignError(format!("the text of a notification: {error}")))?;
    let fields = [("Type", "Notification"), ("Message", text)];
    Ok(fields
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into_iter()
        .collect())
}

fn uuid_of(bytes: &[u8; 32]) -> String {
    let hex = HEXLOWER.encode(bytes);
    let mut digits = hex.chars();
    let groups = [8, 4, 4, 4, 12].map(|length| digits.by_ref().take(length).collect::<String>());
    groups.join("-")
}

/// A number of seconds, as JSON or as the text of a `--param`.
fn seconds(value: &Value) -> Option<Duration> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    let seconds: u64 = value.as_u64().or(text)?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn boolean(value: &Value) -> Option<bool> {
    match value.as_str() {
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => None,
        None => value.as_bool(),
    }
}

/// The region in the ARN of a topic: `arn:aws:sns:REGION:ACCOUNT:NAME`.
fn region_of(topic: &str) -> Option<&str> {
    let parts: Vec<&str> = topic.split(':').collect();
    match parts.as_slice() {
        ["arn", partition, "sns", region, account, name]
            if [partition, account, name]
                .iter()
                .all(|part| !part.is_empty()) =>
        {
            is_region(region).then_some(*region)
        }
        _ => None,
    }
}

fn is_region(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() >= 3 && text.bytes().all(is_inner)
}

/// The region of an endpoint of SNS: `sns.REGION.amazonaws.com`, in China with `.cn`.
fn sns_region(url: &HttpsUrl) -> Option<&str> {
    let host = url.host().strip_prefix("sns.")?;
    let (region, domain) = host.split_once('.')?;
    let is_amazon = matches!(domain, "amazonaws.com" | "amazonaws.com.cn");
    (is_amazon && is_region(region)).then_some(region)
}

/// `/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem`: the other paths of these hosts
/// are the API, which answers with what its caller wants.
fn is_certificate_path(target: &str) -> bool {
    let name = target.strip_prefix("/SimpleNotificationService");
    name.and_then(|name| name.strip_suffix(".pem"))
        .is_some_and(|id| {
            id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// A header field that stands once, if at all.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, SignatureError> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => match field.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(malformed("an `x-amz-sns-` field is not ASCII")),
        },
        (Some(_), Some(_)) => Err(malformed("an `x-amz-sns-` field stands twice")),
    }
}

impl Kind {
    const fn signed(self) -> &'static [&'static str] {
        match self {
            Self::Notification => SIGNED_NOTIFICATION,
            Self::SubscriptionConfirmation | Self::UnsubscribeConfirmation => SIGNED_CONFIRMATION,
        }
    }
}

impl Envelope {
    fn timestamp(&self) -> Result<UnixTime, SignatureError> {
        UnixTime::from_rfc3339(self.fields.get("Timestamp")?).ok_or(SignatureError::new(
            Reason::TimestampMalformed,
            "`Timestamp` is not RFC 3339",
        ))
    }

    /// What is signed: each name and each value on a line of its own.
    fn content(&self) -> Vec<&[u8]> {
        self.fields.content(self.kind)
    }

    /// The URL that completes a subscription. Only called once the signature holds; the URL is held
    /// to the host of the topic's region and to nothing but this confirmation (SECURITY A-34).
    fn confirmation(&self, topic: &str) -> Result<Option<HttpsUrl>, SignatureError> {
        if self.kind != Kind::SubscriptionConfirmation {
            return Ok(None);
        }
        let invalid = SignatureError::new(
            Reason::HandshakeInvalid,
            "`SubscribeURL` does not confirm this subscription at SNS",
        );
        let url = HttpsUrl::parse_named(self.fields.get("SubscribeURL")?).or(Err(invalid))?;
        let region = sns_region(&url);
        if region.is_none() || region != region_of(topic) || url.path() != "/" {
            return Err(invalid);
        }
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for field in url.query().unwrap_or_default().split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            fields.push((super::locate::decode(name), super::locate::decode(value)));
        }
        fields.sort();
        let token = self.fields.get("Token")?;
        let expected = [
            ("Action", "ConfirmSubscription"),
            ("Token", token),
            ("TopicArn", topic),
        ];
        let own = fields.iter().map(|(name, value)| (&**name, &**value));
        if own.eq(expected
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())))
        {
            Ok(Some(url))
        } else {
            Err(invalid)
        }
    }
}

impl Fields {
    fn read(body: &Content) -> Result<Self, SignatureError> {
        let bytes = body.contiguous();
        // All of the body must be UTF-8, also what is skipped: then it is JSON to every reader, or to none.
        let text = std::str::from_utf8(&bytes).or(Err(malformed("the body is not UTF-8")))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let fields = json.deserialize_map(FieldsVisitor).and_then(|fields| {
            json.end()?;
            Ok(fields)
        });
        let fields = fields.or(Err(malformed(
            "the body is not one JSON object with each field once",
        )))?;
        // Each value is one line, except `Message`, which comes first: so a sender cannot move text from one
        // signed field to another.
        let is_line =
            |name: &str, value: &str| name == "Message" || !value.contains(char::is_control);
        if !fields.0.iter().all(|(name, value)| is_line(name, value)) {
            return Err(malformed("a field of the message is more than one line"));
        }
        Ok(fields)
    }

    fn get(&self, name: &str) -> Result<&str, SignatureError> {
        let missing = match name {
            "Signature" => SignatureError::new(Reason::SignatureMissing, "there is no `Signature`"),
            "Timestamp" => SignatureError::new(Reason::TimestampMissing, "there is no `Timestamp`"),
            _ => malformed("a field that is signed is not in the message"),
        };
        self.0.get(name).map(String::as_str).ok_or(missing)
    }

    fn kind(&self) -> Result<Kind, SignatureError> {
        match self.get("Type")? {
            "Notification" => Ok(Kind::Notification),
            "SubscriptionConfirmation" => Ok(Kind::SubscriptionConfirmation),
            "UnsubscribeConfirmation" => Ok(Kind::UnsubscribeConfirmation),
            _ => Err(malformed("the type of the message is not known")),
        }
    }

    fn content(&self, kind: Kind) -> Vec<&[u8]> {
        let mut content: Vec<&[u8]> = Vec::new();
        for name in kind.signed() {
            if let Some(value) = self.0.get(name) {
                content.extend([name.as_bytes(), b"\n", value.as_bytes(), b"\n"]);
            }
        }
        content
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message of SNS")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = BTreeMap::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match FIELDS.iter().find(|name| reads_alike(&key, name)) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(name) if **name != key => {
                    return Err(de::Error::custom("a field is spelt in another way"));
                }
                Some(name) if !seen.insert(*name) => {
                    return Err(de::Error::custom("a field stands twice"));
                }
                Some(name) => {
                    if let Some(value) = map.next_value::<Option<String>>()? {
                        fields.insert(*name, value);
                    }
                }
            }
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests;
