//! HTTP Message Signatures (RFC 9421) with `Content-Digest` (RFC 9530): the protocol of the
//! `http-message-signatures` preset.
//!
//! The operator pins what a sender could otherwise choose: label, key id, algorithm and what must be
//! covered. A signature over less is refused, however valid it is; `Content-Digest` is computed anew
//! and counts only where it is covered.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::reason::Reason;
use crate::scheme::digest;
use crate::scheme::keys::Key;
use crate::scheme::primitive::{Digest, Hash, Mac, same_tag};
use crate::scheme::protocol::{Verified, malformed, note};
use crate::scheme::public_key::SignatureAlgorithm;
use crate::scheme::sign::{Draft, SignError};
use crate::scheme::spec::SecretEncoding;
use crate::scheme::structured::{Bare, Dictionary, InnerList, Member, Parameters};
use crate::scheme::trace::Trace;
use crate::scheme::{Content, Message, Params, SignatureError, Tolerance};
use crate::secret::Secret;
use crate::units::UnixTime;

mod component;
mod content_digest;

use component::{Component, QueryParams, authority};
use content_digest::{CONTENT_DIGEST, Digests};

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// What must be covered where the operator says nothing: who is called, for what, with which body.
const REQUIRED_DEFAULT: &[&str] = &["@method", "@authority", "@path", "@query", "content-digest"];
/// The label that RFC 9421 uses in its examples, and most senders with it.
const LABEL_DEFAULT: &str = "sig1";
/// How far `created` may lie from now.
const TOLERANCE_DEFAULT: Tolerance = Tolerance {
    past: Duration::from_mins(5),
    future: Duration::from_mins(5),
};

/// What the operator pinned.
#[derive(Clone, Debug)]
pub struct HttpSignature {
    label: String,
    key_id: Option<String>,
    tag: Option<String>,
    algorithm: Algorithm,
    required: Vec<Component>,
    secret: SecretEncoding,
    /// How far `created` may lie from now.
    pub tolerance: Tolerance,
}

/// Algorithms of RFC 9421 section 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    HmacSha256,
    Public(&'static str, SignatureAlgorithm),
}

const ALGORITHMS: &[Algorithm] = &[
    Algorithm::Public("ecdsa-p256-sha256", SignatureAlgorithm::EcdsaP256Sha256Raw),
    Algorithm::Public("ecdsa-p384-sha384", SignatureAlgorithm::EcdsaP384Sha384Raw),
    Algorithm::Public("ed25519", SignatureAlgorithm::Ed25519),
    Algorithm::HmacSha256,
    Algorithm::Public("rsa-pss-sha512", SignatureAlgorithm::RsaPssSha512),
    Algorithm::Public("rsa-v1_5-sha256", SignatureAlgorithm::RsaSha256),
];

/// A signature as its header fields present it.
#[derive(Debug)]
struct Presented {
    components: Vec<Component>,
    input: InnerList,
    signature: Vec<u8>,
    created: Option<i64>,
    expires: Option<i64>,
    nonce: Option<String>,
    key_id: Option<String>,
}

impl HttpSignature {
    /// Reads `label`, `keyid`, `alg`, `required_components` and `tag`. The messages name what is
    /// wrong, all of it.
    pub fn from_params(params: &Params) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let label = text(params, "label", &mut problems);
        let label = label.unwrap_or_else(|| LABEL_DEFAULT.to_owned());
        let read = Dictionary::parse(label.as_bytes());
        if !read.is_ok_and(|read| read.iter().map(|(key, _)| key).eq([&*label])) {
            problems.push(format!("param `label`: `{label}` cannot be a label"));
        }
        let key_id = text(params, "keyid", &mut problems);
        let tag = text(params, "tag", &mut problems);
        let algorithm = algorithm(params, &mut problems);
        let secret = secret_encoding(params, &mut problems);
        let required = required_components(params, &mut problems);
        match algorithm {
            Some(algorithm) if problems.is_empty() => Ok(Self {
                label,
                key_id,
                tag,
                algorithm,
                required,
                secret,
                tolerance: TOLERANCE_DEFAULT,
            }),
            _ => Err(problems),
        }
    }

    /// Whether it verifies with a secret rather than with public keys.
    pub fn takes_secret(&self) -> bool {
        self.algorithm == Algorithm::HmacSha256
    }

    /// The key that a configured secret is. The message never repeats the secret.
    pub fn secret(&self, written: &[u8]) -> Result<Secret, String> {
        let bytes = match self.secret {
            SecretEncoding::Utf8 => Some(written.to_vec()),
            SecretEncoding::Base64 => BASE64.decode(written).ok(),
            SecretEncoding::Hex => HEXLOWER_PERMISSIVE.decode(written).ok(),
        };
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        bytes
            .map(Secret::new)
            .ok_or_else(|| "the secret is not written as param `secret_encoding` says".to_owned())
    }

    /// Whether whoever verifies by this knows the body to be the sender's.
    pub fn covers_body(&self) -> bool {
        self.required.contains(&Component::Field(CONTENT_DIGEST))
    }

    /// Whether it covers the URL, or a part of it other than the query.
    pub fn covers_url(&self) -> bool {
        self.required.iter().any(Component::is_of_url)
    }

    /// The header fields that must reach it unchanged.
    pub fn header_names(&self) -> Vec<HeaderName> {
        let fields = self
            .required
            .iter()
            .filter_map(|component| match component {
                Component::Field(name) => Some(name.clone()),
                _ => None,
            });
        [SIGNATURE, SIGNATURE_INPUT]
            .into_iter()
            .chain(fields)
            .collect()
    }

    /// What the head alone can tell.
    pub fn precheck(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let presented = self.read(headers)?;
        presented.created()?;
        let fields = presented.components.iter();
        for component in fields.filter(|component| matches!(component, Component::Field(_))) {
            component.value_of_field(headers)?;
        }
        Ok(())
    }

    /// The key that a signature names: which of a published set it wants.
    pub fn wanted_key_id(&self, headers: &HeaderMap) -> Option<String> {
        self.read(headers).ok()?.key_id
    }

    /// Judges a request; answers with the index of the key that signed it.
    pub fn verify(
        &self,
        message: &Message<'_>,
        keys: &[&Key],
        now: UnixTime,
        trace: &mut Trace,
    ) -> Result<(usize, Verified), SignatureError> {
        let presented = note(
            trace,
            "signature-input",
            self.read(message.headers),
            |read| read.input.to_string(),
        )?;
        let base = presented.base(message);
        let base = note(trace, "signature base", base, Clone::clone)?;
        let digests = presented.digests(message.headers)?;
        let created = note(trace, "created", presented.created(), |created| {
            UnixTime::from_secs(*created).to_string()
        })?;
        if keys.is_empty() {
            let detail = "no key is at hand";
            return Err(SignatureError::new(Reason::KeyUnavailable, detail));
        }
        let digests = digests.check(message.body);
        note(trace, "content-digest", digests, |known| {
            format!("{known} digests match the body")
        })?;
        let signer = keys
            .iter()
            .position(|key| {
                self.algorithm
                    .verify(key, base.as_bytes(), &presented.signature)
            })
            .ok_or(SignatureError::new(
                Reason::SignatureMismatch,
                "the signature is not of the covered components under any of the keys",
            ));
        let signer = note(trace, "signature", signer, |index| {
            keys.get(*index)
                .map_or_else(String::new, |key| key.id.to_string())
        })?;
        let timely = self.judge_time(created, presented.expires, now);
        note(trace, "age", timely, |()| "within the tolerance".to_owned())?;
        Ok((
            signer,
            Verified {
                signed_at: Some(UnixTime::from_secs(created)),
                event_id: presented.nonce,
                confirm: None,
            },
        ))
    }

    /// What makes two deliveries the same: the nonce, which is signed, else all that is signed.
    pub fn delivery(&self, message: &Message<'_>) -> Option<[u8; 32]> {
        let presented = self.read(message.headers).ok()?;
        if let Some(nonce) = presented.nonce.as_ref().filter(|nonce| !nonce.is_empty()) {
            return Some(digest(&[b"event id", nonce.as_bytes()]));
        }
        let base = presented.base(message).ok()?;
        Some(digest(&[b"signed content", base.as_bytes()]))
    }

    fn read(&self, headers: &HeaderMap) -> Result<Presented, SignatureError> {
        let missing = |detail| SignatureError::new(Reason::SignatureMissing, detail);
        let inputs = Dictionary::of_field(headers, &SIGNATURE_INPUT)
            .map_err(malformed)?
            .ok_or(missing("there is no `Signature-Input`"))?;
        let signatures = Dictionary::of_field(headers, &SIGNATURE)
            .map_err(malformed)?
            .ok_or(missing("there is no `Signature`"))?;
        let input = match inputs.get(&self.label) {
            Some(Member::List(list)) => list.clone(),
            Some(Member::Item(_)) => {
                return Err(malformed("the label is not a list of components"));
            }
            None => return Err(missing("`Signature-Input` does not have the label")),
        };
        let signature = match signatures.get(&self.label) {
            Some(Member::Item(item)) => item.as_bytes(),
            Some(Member::List(_)) => None,
            None => return Err(missing("`Signature` does not have the label")),
        };
        let signature = signature
            .ok_or(malformed("the signature is not a byte sequence"))?
            .to_vec();
        let mut components = Vec::with_capacity(input.items.len());
        for item in &input.items {
            let component = Component::from_item(item).map_err(malformed)?;
            if components.contains(&component) {
                return Err(malformed("a component is covered twice"));
            }
            components.push(component);
        }
        let presented = Presented {
            created: integer(&input.parameters, "created")?,
            expires: integer(&input.parameters, "expires")?,
            nonce: string(&input.parameters, "nonce")?,
            key_id: string(&input.parameters, "keyid")?,
            components,
            signature,
            input,
        };
        self.check_policy(&presented)?;
        Ok(presented)
    }

    /// What the operator asks of a signature, beside that it be right.
    fn check_policy(&self, presented: &Presented) -> Result<(), SignatureError> {
        let parameters = &presented.input.parameters;
        let algorithm = string(parameters, "alg")?;
        if algorithm.is_some_and(|name| name != self.algorithm.name()) {
            return Err(malformed("`alg` is not the configured algorithm"));
        }
        if self.key_id.is_some() && presented.key_id != self.key_id {
            let detail = "`keyid` is not the configured one";
            return Err(SignatureError::new(Reason::SignatureMismatch, detail));
        }
        if self.tag.is_some() && string(parameters, "tag")? != self.tag {
            return Err(malformed("`tag` is not the configured one"));
        }
        let covered = |required| {
            let mut components = presented.components.iter();
            components.any(|component| component.covers(required))
        };
        if !self.required.iter().all(covered) {
            return Err(malformed("a required component is not covered"));
        }
        Ok(())
    }

    fn judge_time(
        &self,
        created: i64,
        expires: Option<i64>,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        self.tolerance.judge(
            UnixTime::from_secs(created),
            now,
            "`created` is older than the tolerance",
            "`created` is further in the future than the tolerance",
        )?;
        if expires.is_some_and(|expires| now > UnixTime::from_secs(expires)) {
            return Err(SignatureError::new(
                Reason::TimestampStale,
                "`expires` has passed",
            ));
        }
        Ok(())
    }
}

impl HttpSignature {
    /// Completes `draft` with a signature of what must be covered. The fields among it that follow
    /// from the rest of the request are added where they are absent.
    pub fn sign(&self, mut draft: Draft, key: &Key, now: UnixTime) -> Result<Draft, SignError> {
        for required in &self.required {
            if let Component::Field(name) = required {
                complete(&mut draft, name, now)?;
            }
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &draft.headers {
            let ill_formed = || SignError(format!("`{name}` is not a header field"));
            let field = HeaderName::from_bytes(name.as_bytes()).or(Err(ill_formed()))?;
            let value = HeaderValue::from_str(value).or(Err(ill_formed()))?;
            headers.append(field, value);
        }
        if headers.contains_key(SIGNATURE_INPUT) || headers.contains_key(SIGNATURE) {
            return Err(SignError("the request is signed already".to_owned()));
        }
        let input = self.input(now);
        let body = Content::new(vec![draft.body.clone().into()]);
        let message = Message {
            method: &draft.method,
            url: &draft.url,
            headers: &headers,
            body: &body,
        };
        let base = signature_base(&self.required, &input, &message)
            .map_err(|error| SignError(error.detail.to_owned()))?;
        let signature = Bare::Bytes(self.algorithm.sign(key, base.as_bytes())?);
        let label = &self.label;
        let fields = &mut draft.headers;
        fields.push(("Signature-Input".to_owned(), format!("{label}={input}")));
        fields.push(("Signature".to_owned(), format!("{label}={signature}")));
        Ok(draft)
    }

    fn input(&self, now: UnixTime) -> InnerList {
        let mut parameters = vec![("created".to_owned(), Bare::Integer(now.secs()))];
        for (name, value) in [("keyid", &self.key_id), ("tag", &self.tag)] {
            if let Some(value) = value {
                parameters.push((name.to_owned(), Bare::Text(value.clone())));
            }
        }
        InnerList {
            items: self.required.iter().map(Component::item).collect(),
            parameters,
        }
    }
}

/// Adds a field that must be covered, where the rest of the request says what it is.
fn complete(draft: &mut Draft, name: &HeaderName, now: UnixTime) -> Result<(), SignError> {
    let mut names = draft.headers.iter().map(|(name, _)| name);
    if names.any(|own| own.eq_ignore_ascii_case(name.as_str())) {
        return Ok(());
    }
    let (name, value) = match name.as_str() {
        "content-digest" => {
            let digest = Bare::Bytes(Digest::Sha256.of([&*draft.body]));
            ("Content-Digest", format!("sha-256={digest}"))
        }
        "content-length" => ("Content-Length", draft.body.len().to_string()),
        "date" => ("Date", http_date(now)?),
        "host" => ("Host", authority(&draft.url).1),
        name => {
            return Err(SignError(format!(
                "the request lacks `{name}`, which is signed"
            )));
        }
    };
    draft.headers.push((name.to_owned(), value));
    Ok(())
}

/// RFC 9110 section 5.6.7.
fn http_date(now: UnixTime) -> Result<String, SignError> {
    let moment = jiff::Timestamp::from_second(now.secs());
    let moment = moment.map_err(|error| SignError(error.to_string()))?;
    Ok(moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn text(params: &Params, name: &str, problems: &mut Vec<String>) -> Option<String> {
    match params.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(_) => {
            problems.push(format!("param `{name}` must be a text"));
            None
        }
    }
}

fn algorithm(params: &Params, problems: &mut Vec<String>) -> Option<Algorithm> {
    let Some(name) = text(params, "alg", problems) else {
        problems.push("param `alg` is missing: the algorithm of the key".to_owned());
        return None;
    };
    let found = ALGORITHMS.iter().find(|algorithm| algorithm.name() == name);
    if found.is_none() {
        let known: Vec<&str> = ALGORITHMS.iter().map(Algorithm::name).collect();
        problems.push(format!(
            "param `alg`: `{name}` is none of {}",
            known.join(", ")
        ));
    }
    found.copied()
}

fn secret_encoding(params: &Params, problems: &mut Vec<String>) -> SecretEncoding {
    match text(params, "secret_encoding", problems).as_deref() {
        None | Some("utf8") => SecretEncoding::Utf8,
        Some("base64") => SecretEncoding::Base64,
        Some("hex") => SecretEncoding::Hex,
        Some(other) => {
            problems.push(format!(
                "param `secret_encoding`: `{other}` is none of utf8, base64, hex"
            ));
            SecretEncoding::Utf8
        }
    }
}

fn required_components(params: &Params, problems: &mut Vec<String>) -> Vec<Component> {
    let written: Vec<&str> = match params.get("required_components") {
        None | Some(Value::Null) => REQUIRED_DEFAULT.to_vec(),
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => {
            problems.push(
                "param `required_components` must be a list of texts with at least one".to_owned(),
            );
            Vec::new()
        }
    };
    let mut required = Vec::new();
    for text in written {
        match Component::parse(text) {
            Ok(component) => required.push(component),
            Err(why) => problems.push(format!("param `required_components`: `{text}`: {why}")),
        }
    }
    required
}

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a Bare> {
    parameters
        .iter()
        .find_map(|(own, value)| (own == name).then_some(value))
}

fn integer(parameters: &Parameters, name: &str) -> Result<Option<i64>, SignatureError> {
    match parameter(parameters, name) {
        None => Ok(None),
        Some(Bare::Integer(number)) => Ok(Some(*number)),
        Some(_) => Err(SignatureError::new(
            Reason::TimestampMalformed,
            "`created` or `expires` is not an integer",
        )),
    }
}

fn string(parameters: &Parameters, name: &str) -> Result<Option<String>, SignatureError> {
    match parameter(parameters, name) {
        None => Ok(None),
        Some(Bare::Text(text)) => Ok(Some(text.clone())),
        Some(_) => Err(malformed("a parameter of the signature is not a string")),
    }
}

impl Algorithm {
    fn name(&self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Public(name, _) => name,
        }
    }

    fn verify(&self, key: &Key, base: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::HmacSha256 => key
                .secret_bytes()
                .map(|secret| hmac_sha256(secret, base))
                .is_some_and(|tag| same_tag(&tag, signature)),
            Self::Public(_, algorithm) => key
                .public_key()
                .is_some_and(|key| key.verify(*algorithm, &[base], signature)),
        }
    }

    fn sign(&self, key: &Key, base: &[u8]) -> Result<Vec<u8>, SignError> {
        let other_kind = || SignError(format!("`{}` needs another kind of key", self.name()));
        match self {
            Self::HmacSha256 => key
                .secret_bytes()
                .map(|secret| hmac_sha256(secret, base))
                .ok_or_else(other_kind),
            Self::Public(_, algorithm) => {
                let key = key.private_key().ok_or_else(other_kind)?;
                key.sign(*algorithm, &[base]).map_err(SignError)
            }
        }
    }
}

fn hmac_sha256(secret: &[u8], base: &[u8]) -> Vec<u8> {
    let mut mac = Mac::new(Hash::Sha256, secret);
    mac.update(base);
    mac.finish().into_vec()
}

impl Presented {
    fn created(&self) -> Result<i64, SignatureError> {
        let missing = "the signature does not say when it was created";
        self.created
            .ok_or(SignatureError::new(Reason::TimestampMissing, missing))
    }

    /// The signature base (RFC 9421 section 2.5).
    fn base(&self, message: &Message<'_>) -> Result<String, SignatureError> {
        signature_base(&self.components, &self.input, message)
    }

    /// The digests that the body must have: none where the field is not covered.
    fn digests(&self, headers: &HeaderMap) -> Result<Digests, SignatureError> {
        if !self.components.contains(&Component::Field(CONTENT_DIGEST)) {
            return Ok(Digests::default());
        }
        Digests::of(headers)
    }
}

fn signature_base(
    components: &[Component],
    input: &InnerList,
    message: &Message<'_>,
) -> Result<String, SignatureError> {
    let mut lines = Vec::with_capacity(components.len() + 1);
    let params = QueryParams::default();
    for component in components {
        lines.push(format!(
            "{component}: {}",
            component.value(message, &params)?
        ));
    }
    lines.push(format!("\"@signature-params\": {input}"));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests;
