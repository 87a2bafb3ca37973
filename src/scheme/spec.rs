//! The preset language as it is written: shapes only, compiled by `compile.rs`.
//!
//! `docs/presets.md` explains it to people. The doc comments here end up in the JSON Schema.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::document::{At, OneOrMany, Parsed};
use crate::units::{ByteSize, Span};

/// A preset file: one provider, its schemes and what an operator should know.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PresetSpec {
    /// Name that routes use.
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
    /// Its schemes; the first is the default.
    pub schemes: At<Ordered<SchemeSpec>>,
}

/// How sure the facts of a preset are.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Read in the provider's documentation or library.
    High,
    /// Read second-hand.
    Medium,
}

/// One way to sign.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SchemeSpec {
    /// How the signature is computed.
    pub algorithm: At<Algorithm>,
    /// Where the signature (or token) stands and how it is written.
    pub signature: Option<At<SignatureSpec>>,
    /// The scheme's timestamp.
    pub timestamp: Option<At<TimestampSpec>>,
    /// The provider's id of the event. Signed when the template holds `{id}` or the body it lies in
    /// is signed.
    pub event_id: Option<At<LocationSpec>>,
    /// Signed content: text with `{body}`, `{timestamp}`, `{id}`, `{method}`, `{url}`, `{path}`,
    /// `{header:NAME}`, `{query:NAME}`, `{form:NAME}`, `{json:/POINTER}`, `{form_sorted}`,
    /// `{param:NAME}`.
    pub signed: Option<At<String>>,
    /// How `{url}` is written.
    pub url: Option<At<UrlSpec>>,
    /// How the configured secret becomes the key.
    pub secret: Option<At<SecretSpec>>,
    /// Header values that must hold before the signature counts.
    pub require: Option<At<Vec<At<RequireSpec>>>>,
    /// A digest of the body in the signed URL, for bodies that are not forms.
    pub body_digest: Option<At<BodyDigestSpec>>,
}

/// How a signature is computed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The secret itself as `user:password` in `Authorization: Basic`.
    Basic,
    /// HMAC with SHA-1; only for providers that have nothing better.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// The secret itself, in a place of its own.
    Token,
}

/// Where a value stands. Several places may be given: the first that is there counts, in the order
/// header, query, form, json.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct LocationSpec {
    /// Header field, or several to try in turn.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
}

/// Where a signature stands and how it is written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SignatureSpec {
    /// Header field, or several to try in turn.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
    /// Text before the signature, such as `sha256=`.
    pub prefix: Option<At<String>>,
    /// The value is a list of `name=signature` items.
    pub list: Option<At<ListSpec>>,
    /// How the bytes are written: `hex` (default), `base64` or `base64url`.
    pub encoding: Option<At<Encoding>>,
}

/// A list of items in one value.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListSpec {
    /// Between items, such as `,`.
    pub separator: At<String>,
    /// Between the name and the value of an item, such as `=`.
    pub assign: At<String>,
    /// Name of the items that hold signatures, such as `v1`. Others are ignored.
    pub take: At<String>,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// RFC 4648 section 4, with padding.
    Base64,
    /// RFC 4648 section 5, with or without padding.
    Base64url,
    /// Either case.
    #[default]
    Hex,
}

/// A scheme's timestamp.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TimestampSpec {
    /// Header field, or several to try in turn.
    pub header: Option<At<OneOrMany<String>>>,
    /// Query field.
    pub query: Option<At<String>>,
    /// Field of a form body.
    pub form: Option<At<String>>,
    /// JSON pointer (RFC 6901) into a JSON body.
    pub json: Option<At<String>>,
    /// Name of the item in the signature's list that holds it.
    pub item: Option<At<String>>,
    /// `s` (default), `ms` or `rfc3339`.
    pub unit: Option<At<TimeUnit>>,
    /// How far it may lie from now, both ways. Default 5m.
    pub tolerance: Option<At<Parsed<Span>>>,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Milliseconds since 1970.
    Ms,
    /// RFC 3339.
    Rfc3339,
    /// Seconds since 1970.
    #[default]
    S,
}

/// How `{url}` is written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UrlSpec {
    /// Further spellings that the provider may have signed.
    pub variants: Option<At<Vec<At<UrlVariant>>>>,
    /// Percent escapes that the provider decodes before it signs, such as `%3A`.
    pub decode: Option<At<Vec<At<String>>>>,
}

/// A spelling of a URL.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum UrlVariant {
    /// With `:443` or `:80` where no port was written.
    WithDefaultPort,
    /// Without the port.
    WithoutPort,
}

/// How a configured secret becomes key bytes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct SecretSpec {
    /// `utf8` (default: the text itself), `base64` or `hex`.
    pub encoding: Option<At<SecretEncoding>>,
    /// Text that may stand before the encoded key, such as `whsec_`.
    pub prefix: Option<At<String>>,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
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

/// A header value that must hold.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RequireSpec {
    /// Header field.
    pub header: At<String>,
    /// Name of an item in its `,` and `=` list; absent, the whole value counts.
    pub item: Option<At<String>>,
    /// The value.
    pub equals: At<String>,
}

/// A hex SHA-256 of the body in a query field.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BodyDigestSpec {
    /// Query field.
    pub query: At<String>,
}

/// A mapping whose order counts.
#[derive(Debug)]
pub struct Ordered<T>(pub Vec<(String, At<T>)>);

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
