//! The preset language as it is written: shapes only, compiled by `compile/`.
//!
//! `docs/presets.md` explains it to people. The doc comments here end up in the JSON Schema.
//!
//! A *template* is text with `{...}` in it, see `template/`. Wherever a template is allowed,
//! `{param:NAME}` stands for what the operator configured.

use std::fmt;
use std::marker::PhantomData;

#[cfg(test)]
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::document::{At, OneOrMany, Parsed};
use crate::units::{ByteSize, Span};

/// A preset file: one provider, its schemes and what an operator should know.
#[derive(Debug, Deserialize)]
pub struct PresetSpec {
    /// Name that routes use; the same as the file's.
    pub provider: At<String>,
    /// Name as people know it.
    pub title: At<String>,
    /// What kind of service it is.
    pub category: At<String>,
    /// How sure the facts are: `high` or `medium`.
    pub confidence: At<Confidence>,
    /// Where the facts come from.
    pub sources: At<Vec<String>>,
    /// What the secret is and where it is found.
    pub secret: At<String>,
    /// How the provider changes secrets.
    pub rotation: Option<At<String>>,
    /// How long the provider waits, and when it tries again.
    pub retries: Option<At<String>>,
    /// Traps.
    pub gotchas: Option<At<Vec<String>>>,
    /// Largest body that the provider documents.
    pub max_size: Option<At<Parsed<ByteSize>>>,
    /// Methods it uses, where they are not only POST.
    pub methods: Option<At<Vec<At<String>>>>,
    /// Answers that the provider insists on.
    pub answers: Option<At<AnswersSpec>>,
    /// What an operator gives beside secrets.
    pub params: Option<At<Ordered<ParamSpec>>>,
    /// The param whose value names the scheme, where a route names none.
    pub scheme_from: Option<At<String>>,
    /// Its schemes; the first is the default.
    pub schemes: At<Ordered<SchemeSpec>>,
    /// How it asks whether the URL is ours, and the answer it expects.
    pub handshakes: Option<At<Ordered<HandshakeSpec>>>,
}

/// How sure the facts of a preset are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Read in the provider's documentation or library.
    High,
    /// Read second-hand.
    Medium,
    /// Gathered from hints; the provider documents nothing.
    Low,
}

/// Answers that a provider insists on.
#[derive(Debug, Deserialize)]
pub struct AnswersSpec {
    /// Status of a refused request instead of 401.
    pub reject_status: Option<At<u16>>,
    /// Whether a refusal must have an empty body.
    pub reject_empty: Option<At<bool>>,
    /// Status of an acknowledged duplicate instead of 200.
    pub accept_status: Option<At<u16>>,
    /// Body of an acknowledged duplicate.
    pub accept_body: Option<At<String>>,
    /// Media type of that body. Default `text/plain`.
    pub accept_type: Option<At<String>>,
    /// Header fields of every answer to a proven request, the app's own among them: templates.
    pub headers: Option<At<Ordered<String>>>,
    /// What values that those repeat may look like, as in handshakes; another value is not repeated.
    pub charset: Option<At<Ordered<String>>>,
}

/// What an operator gives beside secrets.
#[derive(Debug, Deserialize)]
pub struct ParamSpec {
    /// What it is and where it is found.
    pub about: At<String>,
    /// Value where the operator gives none; a param without one is required, unless `optional`.
    pub default: Option<At<ParamValue>>,
    /// A value such as an operator would write: for documentation, and for checking the preset.
    pub example: Option<At<ParamValue>>,
    /// Whether it may be left out.
    pub optional: Option<At<bool>>,
    /// The only values it can have.
    pub one_of: Option<At<Vec<String>>>,
}

/// A value of a param.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum ParamValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

/// One way to sign.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SchemeSpec {
    /// A remark for `providers show`.
    pub about: Option<At<String>>,
    /// How the signature is computed.
    pub algorithm: At<Algorithm>,
    /// Where the signature (or token) stands and how it is written.
    pub signature: Option<At<SignatureSpec>>,
    /// The scheme's timestamp.
    pub timestamp: Option<At<TimestampSpec>>,
    /// `{id}` in the signed content.
    pub id: Option<At<LocationSpec>>,
    /// The provider's id of the event. It decides about replays only where the signature covers it.
    pub event_id: Option<At<LocationSpec>>,
    /// Signed content: a template, or a list of parts, each with a condition.
    pub signed: Option<At<OneOrMany<PartSpec>>>,
    /// Further contents that the provider may have signed instead.
    pub signed_or: Option<At<Vec<At<String>>>>,
    /// Templates to use as `{text:NAME}`, so that filters can work on the whole of one.
    pub texts: Option<At<Ordered<String>>>,
    /// Lists of name-value pairs to use as `{fields:NAME}`.
    pub fields: Option<At<Ordered<FieldsSpec>>>,
    /// How `{url}` is written.
    pub url: Option<At<UrlSpec>>,
    /// How the configured secret becomes the key.
    pub secret: Option<At<SecretSpec>>,
    /// Values that must hold before the signature counts.
    pub require: Option<At<Vec<At<RequireSpec>>>>,
    /// A digest of the body in the signed URL, for bodies that are not forms.
    pub body_digest: Option<At<BodyDigestSpec>>,
    /// The form field whose text is the JSON that pointers look into, instead of the body.
    pub json_from: Option<At<LocationSpec>>,
    /// JSON pointer with `*`: each item that it finds must verify by itself, pointers start there.
    pub each: Option<At<String>>,
    /// Whether an encoded (gzip) body is signed as it reads decoded.
    pub body_decoded: Option<At<bool>>,
    /// What a JSON Web Token must say; for `jwt`.
    pub jwt: Option<At<JwtSpec>>,
    /// Where the provider publishes its keys.
    pub key_url: Option<At<KeyUrlSpec>>,
}

/// A part of the signed content: a template, with a condition in the long form.
#[derive(Debug)]
pub struct PartSpec {
    /// Template.
    pub text: At<String>,
    /// When it stands there.
    pub when: Option<At<WhenSpec>>,
}

/// When something applies: every condition given must hold.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct WhenSpec {
    /// The method.
    pub method: Option<At<String>>,
    /// A header field is there.
    pub header: Option<At<String>>,
    /// A query field is there.
    pub query: Option<At<String>>,
    /// A form field is there.
    pub form: Option<At<String>>,
    /// A JSON pointer finds a value.
    pub json: Option<At<String>>,
    /// Whether the URL has a query that is not empty.
    pub any_query: Option<At<bool>>,
    /// What the body is.
    pub body: Option<At<BodyKind>>,
    /// A param is set and not `false`.
    pub param: Option<At<String>>,
    /// Header fields with these values.
    pub header_equals: Option<At<Ordered<String>>>,
    /// Query fields with these values.
    pub query_equals: Option<At<Ordered<String>>>,
    /// JSON pointers with these values.
    pub json_equals: Option<At<Ordered<String>>>,
    /// These must not all hold.
    pub not: Option<At<Box<Self>>>,
}

/// What a body is, by its content type.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// Without a byte.
    Empty,
    /// `application/x-www-form-urlencoded` or `multipart/form-data`.
    Form,
    /// Neither empty nor a form.
    Other,
}

/// How a signature is computed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The protocol of Amazon SNS: RSA over fields of the JSON body, key by certificate.
    AwsSns,
    /// The secret itself as `user:password` in `Authorization: Basic`.
    Basic,
    /// ECDSA on P-256 with SHA-1, in ASN.1.
    EcdsaP256Sha1,
    /// ECDSA on P-256 with SHA-256, in ASN.1.
    EcdsaP256Sha256,
    /// As `ecdsa-p256-sha256`, the two numbers one after the other (IEEE P1363).
    EcdsaP256Sha256Raw,
    /// ECDSA on P-384 with SHA-384, in ASN.1.
    EcdsaP384Sha384,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// HMAC with MD5; only for providers that have nothing better.
    HmacMd5,
    /// HMAC with SHA-1; only for providers that have nothing better.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// HTTP Message Signatures (RFC 9421).
    HttpMessageSignature,
    /// A JSON Web Token (RFC 7519), see `jwt`.
    Jwt,
    /// Keccak-256 of content that holds `{secret}`.
    Keccak256,
    /// MD5 of content that holds `{secret}`; only for providers that have nothing better.
    Md5,
    /// No proof at all.
    None,
    /// RSA PSS with SHA-256.
    RsaPssSha256,
    /// RSA PSS with SHA-512.
    RsaPssSha512,
    /// RSA PKCS #1 v1.5 with SHA-1; only for providers that have nothing better.
    RsaSha1,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaSha256,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RsaSha512,
    /// SHA-1 of content that holds `{secret}`; only for providers that have nothing better.
    Sha1,
    /// SHA-256 of content that holds `{secret}`.
    Sha256,
    /// SHA-512 of content that holds `{secret}`.
    Sha512,
    /// The secret itself, in a place of its own.
    Token,
}

/// Where a value stands. Several places may be given: the first that is there counts, in the order
/// header, query, form, json, xml. Names are templates of params only.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LocationSpec {
    /// Header field, or several to try in turn.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
    /// Path of element names into an XML body: `/Envelope/Body/Id`.
    pub xml: Option<At<String>>,
    /// Name of an item in the signature's list.
    pub item: Option<At<String>>,
    /// Claim of the token, by name or JSON pointer; for `jwt`.
    pub claim: Option<At<String>>,
    /// Text that it must not contain, since the signed content would be ambiguous.
    pub without: Option<At<String>>,
    /// What it looks like, for the same reason: `[A-Za-z0-9]{64}`.
    pub charset: Option<At<String>>,
}

/// Where a signature stands and how it is written.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SignatureSpec {
    /// Header field, or several to try in turn. `{n}` in a name counts from 1.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
    /// Path of element names into an XML body.
    pub xml: Option<At<String>>,
    /// Whether the whole body is the signature (a token).
    pub body: Option<At<bool>>,
    /// Whether all places count, each for itself: several header fields, one for each key.
    pub repeated: Option<At<bool>>,
    /// With `repeated`: whether the n-th key counts for the n-th place only.
    pub paired: Option<At<bool>>,
    /// Whether the value is base64 of JSON, and where the signature stands in that.
    pub base64_json: Option<At<String>>,
    /// Text before the signature, such as `sha256=`.
    pub prefix: Option<At<String>>,
    /// Whether the prefix may be missing.
    pub prefix_optional: Option<At<bool>>,
    /// Prefixes that name one of several algorithms, such as `sha1=: hmac-sha1`.
    pub prefixes: Option<At<Ordered<Algorithm>>>,
    /// The param that lists which of `prefixes` count, by their text without `=`.
    pub prefixes_from: Option<At<String>>,
    /// The value is a list.
    pub list: Option<At<ListSpec>>,
    /// How the bytes are written: `hex` (default, in either case), `hex-upper`, `base64` or `base64url`.
    pub encoding: Option<At<Encoding>>,
}

/// A list of items in one value.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ListSpec {
    /// Between items, such as `,`. Blanks around items do not count.
    pub separator: At<String>,
    /// Between groups of items, one for each key of a rotation; items that groups repeat count once.
    pub groups: Option<At<String>>,
    /// Between the name and the value of an item, such as `=`. Absent: items are called by their
    /// position, from `0`.
    pub assign: Option<At<String>>,
    /// Names of the items that hold signatures, such as `v1`; others are ignored. Absent: all items
    /// but those that something else takes.
    pub take: Option<At<OneOrMany<String>>>,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// RFC 4648 section 4, with padding.
    Base64,
    /// RFC 4648 section 5, with or without padding.
    Base64url,
    /// Read in either case, signed in lower case.
    #[default]
    Hex,
    /// Read in either case, signed in upper case.
    HexUpper,
}

/// A scheme's timestamp.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct TimestampSpec {
    /// Header field, or several to try in turn.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
    /// Path of element names into an XML body.
    pub xml: Option<At<String>>,
    /// Name of the item in the signature's list that holds it.
    pub item: Option<At<String>>,
    /// `s` (default), `ms`, `s_or_ms`, `us`, `ns` or `rfc3339`.
    pub unit: Option<At<TimeUnit>>,
    /// How far it may lie from now, both ways. Default 5m.
    pub tolerance: Option<At<Parsed<Span>>>,
    /// Whether it may be missing; then nothing is said about the age of a request.
    pub optional: Option<At<bool>>,
    /// `false` where the signature does not cover it: then it decides nothing. `true` where it does in a
    /// way that the template does not show.
    pub signed: Option<At<bool>>,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Milliseconds since 1970.
    Ms,
    /// Nanoseconds since 1970.
    Ns,
    /// RFC 3339.
    Rfc3339,
    /// Seconds since 1970.
    #[default]
    S,
    /// Seconds or milliseconds since 1970, told apart by their size: for senders that write both.
    #[serde(rename = "s_or_ms")]
    SOrMs,
    /// Microseconds since 1970.
    Us,
}

/// How `{url}` is written.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct UrlSpec {
    /// Further spellings that the provider may have signed.
    pub variants: Option<At<Vec<At<UrlVariant>>>>,
    /// Percent escapes that the provider decodes before it signs, such as `%3A`.
    pub decode: Option<At<Vec<At<String>>>>,
    /// The URL as a template, where it is not the one called: `{param:registered_url}`.
    pub instead: Option<At<String>>,
}

/// A spelling of a URL.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UrlVariant {
    /// With `:443` or `:80` where no port was written.
    WithDefaultPort,
    /// Without the port.
    WithoutPort,
    /// Without the path, where that is `/` and there is no query.
    WithoutRootPath,
}

/// How a configured secret becomes key bytes.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SecretSpec {
    /// `utf8` (default: the text itself), `base64` or `hex`.
    pub encoding: Option<At<SecretEncoding>>,
    /// Texts that may stand before the encoded key, such as `whsec_`.
    pub prefix: Option<At<OneOrMany<String>>>,
    /// What is done to the bytes: `sha1`, `nfkd` (Unicode form), `html` (entities decoded).
    pub transform: Option<At<SecretTransform>>,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// Either case.
    Hex,
    /// The text itself.
    #[default]
    Utf8,
}

/// What is done to the bytes of a secret.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SecretTransform {
    /// HTML entities of the text are decoded.
    Html,
    /// Unicode normalization form KD.
    Nfkd,
    /// The SHA-1 digest is the key.
    Sha1,
}

/// A value that must hold.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RequireSpec {
    /// Header field.
    pub header: Option<At<String>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// JSON pointer into a JSON body.
    pub json: Option<At<String>>,
    /// Whether the value is base64 of JSON, and where the wanted one stands in that.
    pub base64_json: Option<At<String>>,
    /// Name of an item in its list; absent, the whole value counts.
    pub item: Option<At<String>>,
    /// Between the items of the list (default `,`).
    pub separator: Option<At<String>>,
    /// The value: a template, or several of which one must hold. `{secret}` stands for any secret of the
    /// check; with `*` in `json`, every value that is found must hold.
    pub equals: Option<At<OneOrMany<String>>>,
    /// Items that the value, a list, must contain; compared without case.
    pub contains: Option<At<Vec<String>>>,
    /// Whether the value may be missing.
    pub optional: Option<At<bool>>,
}

/// A hex SHA-256 of the body in a query field.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct BodyDigestSpec {
    /// Query field.
    pub query: At<String>,
}

/// A list of name-value pairs, written in one way.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct FieldsSpec {
    /// Where the pairs come from; several: the first that has any.
    pub from: At<OneOrMany<FieldsFrom>>,
    /// For `headers`: the header whose value lists their names, separated by `,`.
    pub listed_in: Option<At<String>>,
    /// Names left out, such as the signature's own.
    pub skip: Option<At<Vec<String>>>,
    /// Order: `name` (then value) by bytes, `name_only` (equal names stay in order); absent, as they stand.
    pub sort: Option<At<FieldsSort>>,
    /// Whether equal pairs count once.
    pub unique: Option<At<bool>>,
    /// How a pair is written, with `{name}` and `{value}`. Default `{name}={value}`.
    pub write: Option<At<String>>,
    /// Between pairs. Default nothing.
    pub join: Option<At<String>>,
    /// Characters of names and values that are replaced, such as `"&": "_"`.
    pub replace: Option<At<Ordered<String>>>,
    /// How names and values are escaped after decoding: absent, they are written decoded.
    pub escape: Option<At<FieldsEscape>>,
    /// Between the values of one name, where they are joined and the name is written once.
    pub join_values: Option<At<String>>,
    /// Text before the whole, where there is any pair.
    pub before: Option<At<String>>,
}

/// Where pairs come from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FieldsFrom {
    /// A form body.
    Form,
    /// Header fields.
    Headers,
    /// Members of a flat JSON object.
    Json,
    /// The query.
    Query,
}

/// Order of pairs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FieldsSort {
    /// By name, then by value.
    Name,
    /// By name; equal names keep their order.
    NameOnly,
}

/// How names and values are escaped.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FieldsEscape {
    /// As forms are (`+` for a blank).
    Form,
    /// RFC 3986: everything but unreserved characters.
    Rfc3986,
}

/// What a JSON Web Token must say.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct JwtSpec {
    /// Algorithms that count, such as `HS256`: the token chooses among these only.
    pub algorithms: At<Vec<At<String>>>,
    /// Claims (or JSON pointers into them) and what they must be.
    pub claims: Option<At<Ordered<ClaimSpec>>>,
    /// Whether the payload is the body and absent from the token (RFC 7515 appendix F).
    pub detached: Option<At<bool>>,
    /// Key from the certificate chain in the token's header, up to a configured root.
    pub x5c: Option<At<X5cSpec>>,
}

/// What a claim must be.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ClaimSpec {
    /// A template, or several of which one must hold. A claim that is a list holds when one item does.
    pub equals: Option<At<OneOrMany<String>>>,
    /// Compare without case.
    pub ignore_case: Option<At<bool>>,
    /// A time: `not_after` (exp), `not_before` (nbf), `issued` (iat, bounded by the tolerance).
    pub time: Option<At<ClaimTime>>,
    /// How far a time may be off. Default nothing for `not_after`, 60s for `not_before`; for `issued`, the
    /// tolerance (default 5m).
    pub leeway: Option<At<Parsed<Span>>>,
    /// Whether it may be missing.
    pub optional: Option<At<bool>>,
    /// When it may be missing.
    pub optional_when: Option<At<WhenSpec>>,
    /// When it is asked for.
    pub when: Option<At<WhenSpec>>,
}

/// What a time in a token means.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClaimTime {
    /// When it was made.
    Issued,
    /// The last moment.
    NotAfter,
    /// The first moment.
    NotBefore,
}

/// A certificate chain in a token.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct X5cSpec {
    /// Object identifier of an extension that the leaf must have.
    pub leaf_oid: Option<At<String>>,
    /// Object identifier of an extension that the intermediate must have.
    pub intermediate_oid: Option<At<String>>,
}

/// Where a provider publishes its keys.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct KeyUrlSpec {
    /// A fixed https URL of a JWKS or PEM; a template of params.
    pub url: Option<At<String>>,
    /// The header field that holds the URL of a certificate.
    pub header: Option<At<String>>,
    /// Hosts that such a URL may name: exact, or `*.example.org`.
    pub hosts: Option<At<Vec<At<String>>>>,
    /// Names of which the fetched certificate must be valid for one, up to a public root.
    pub certificate_name: Option<At<OneOrMany<String>>>,
    /// JSON pointer to the PEM, where the answer is JSON.
    pub json: Option<At<String>>,
}

/// A provider's URL validation.
#[derive(Debug, Deserialize)]
pub struct HandshakeSpec {
    /// A remark for `providers show`.
    pub about: Option<At<String>>,
    /// What makes a request this handshake; `method` is required.
    pub when: At<WhenSpec>,
    /// What proves it.
    pub proof: At<ProofSpec>,
    /// What values that the reply repeats may look like: `SOURCE: PATTERN`, sources as in templates,
    /// patterns such as `[A-Za-z0-9_-]{1,128}`.
    pub charset: Option<At<Ordered<String>>>,
    /// Status where the proof fails. Default 403; 401 where the signature is the proof.
    pub refuse_status: Option<At<u16>>,
    /// A URL to GET once the handshake is proven, such as a confirmation.
    pub fetch: Option<At<FetchSpec>>,
    /// Templates to use as `{text:NAME}`.
    pub texts: Option<At<Ordered<String>>>,
    /// The answer.
    pub reply: At<ReplySpec>,
}

/// What proves a handshake: all that is given must hold.
#[derive(Debug, Deserialize)]
pub struct ProofSpec {
    /// Nothing: the reply tells nothing that its asker did not send.
    pub none: Option<At<bool>>,
    /// The scheme of the route, as for any delivery.
    pub signature: Option<At<bool>>,
    /// A query field that holds the verify token: param `verify_token`, else any secret.
    pub token_query: Option<At<String>>,
    /// Values that must hold.
    pub require: Option<At<Vec<At<RequireSpec>>>>,
    /// The secret that the request itself brings, while the operator has opened the window (param
    /// `enrolment_window_open`).
    pub enrolment: Option<At<EnrolmentSpec>>,
}

/// A secret that a request brings.
#[derive(Debug, Deserialize)]
pub struct EnrolmentSpec {
    /// Header field.
    pub header: Option<At<String>>,
    /// JSON pointer.
    pub json: Option<At<String>>,
    /// Whether the request is signed with that same secret. Default true.
    pub signed: Option<At<bool>>,
    /// Whether the request is answered while the window is closed too; its secret is then not taken.
    pub answered_when_closed: Option<At<bool>>,
}

/// A URL to GET.
#[derive(Debug, Deserialize)]
pub struct FetchSpec {
    /// JSON pointer to the URL.
    pub json: At<String>,
    /// Hosts that it may name; `*` stands for one label.
    pub hosts: At<Vec<At<String>>>,
}

/// The answer to a handshake.
#[derive(Debug, Deserialize)]
pub struct ReplySpec {
    /// Status. Default 200.
    pub status: Option<At<u16>>,
    /// Header fields: templates.
    pub headers: Option<At<Ordered<String>>>,
    /// A plain text body: a template.
    pub text: Option<At<String>>,
    /// A JSON object body of texts: templates.
    pub json: Option<At<Ordered<String>>>,
}

impl<'de> Deserialize<'de> for PartSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Full {
            text: At<String>,
            when: Option<At<WhenSpec>>,
        }
        let part = At::<crate::document::TextOr<Full>>::deserialize(deserializer)?;
        let place = part.place().cloned();
        match part.into_inner() {
            Some(crate::document::TextOr::Full(Full { text, when })) => Ok(Self { text, when }),
            Some(crate::document::TextOr::Text(text)) => Ok(Self {
                text: At::new(text, place),
                when: None,
            }),
            None => Ok(Self {
                text: At::absent(),
                when: None,
            }),
        }
    }
}

#[cfg(test)]
impl JsonSchema for PartSpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Part".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let when = generator.subschema_for::<WhenSpec>();
        schemars::json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "text": { "type": "string" }, "when": when },
                "required": ["text"],
                "additionalProperties": false
            }
        ] })
    }
}

/// A mapping whose order counts.
#[derive(Debug)]
pub struct Ordered<T>(pub Vec<(String, At<T>)>);

impl<T> Ordered<T> {
    /// Names and values that could be read.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.get()?)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedVisitor<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(OrderedVisitor(PhantomData))
    }
}

#[cfg(test)]
impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": value })
    }
}
