//! The configuration as it is written: shapes only, given their meaning by `compile/`.
//!
//! The doc comments here are what `hookward schema` says; `docs/configuration.md` says it at length.

use std::fmt;
use std::marker::PhantomData;

#[cfg(test)]
use schemars::JsonSchema;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::value::{Address, CalledUrl, Network};
use crate::document::{ALL_KEYS, At, FREE_KEYS, OneOrMany, Parsed, TextOr};
use crate::scheme::spec::{Ordered, SchemeSpec};
use crate::units::{ByteSize, Rate, Span, UnixTime};

/// The configuration of Hookward: `hookward.yaml`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct ConfigSpec {
    /// Version of this format: 1.
    #[cfg_attr(test, schemars(range(min = 1, max = 1)))]
    pub(super) version: At<u64>,
    /// The listener for probes and metrics; absent, there is none.
    pub(super) admin: Option<At<AdminSpec>>,
    /// Listeners for senders, by name.
    pub(super) listeners: At<Named<ListenerSpec>>,
    /// Limits that hold for the whole gateway.
    pub(super) limits: Option<At<LimitsSpec>>,
    /// Where replay claims and shared rate limits are kept.
    pub(super) state: Option<At<StateSpec>>,
    /// A folder with presets of your own, in the format of `rules/providers/`.
    pub(super) providers_dir: Option<At<String>>,
    /// Upstreams that routes refer to, by name.
    pub(super) upstreams: Option<At<Named<UpstreamSpec>>>,
    /// Which requests are let through, and where they go.
    pub(super) routes: At<Vec<At<RouteSpec>>>,
}

/// The admin listener.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct AdminSpec {
    /// Address and port for `/livez`, `/readyz` and `/metrics`; never that of a data listener.
    pub(super) address: At<Parsed<Address>>,
}

/// A listener: TLS, or plaintext when that is written out.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct ListenerSpec {
    /// Address and port; port 0 takes a free one.
    pub(super) address: At<Parsed<Address>>,
    /// TLS. A listener without it must say `plaintext`.
    pub(super) tls: Option<At<TlsSpec>>,
    /// What plain HTTP gets.
    pub(super) plaintext: Option<At<PlaintextSpec>>,
    /// The URL that senders call, for schemes that sign the URL and for redirects. A path in it
    /// stands before the path of the request.
    pub(super) public_url: Option<At<Parsed<CalledUrl>>>,
    /// Networks of proxies whose `X-Forwarded-For` is believed. Default: none.
    pub(super) trusted_proxies: Option<At<OneOrMany<Parsed<Network>>>>,
    /// Whether every connection must come from `trusted_proxies` and begin with a PROXY protocol
    /// header, version 1 or 2. Default false.
    pub(super) proxy_protocol: Option<At<bool>>,
}

/// TLS of a listener: exactly one of `certificates`, `self_signed` and `acme`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct TlsSpec {
    /// Certificates from files, chosen by SNI; the first is the default.
    pub(super) certificates: Option<At<OneOrMany<CertificateSpec>>>,
    /// Names or addresses for a certificate that is made at start, for a laptop.
    pub(super) self_signed: Option<At<OneOrMany<String>>>,
    /// Certificates from an ACME authority, ordered and renewed by Hookward.
    pub(super) acme: Option<At<AcmeSpec>>,
    /// Lowest version. Default `1.2`.
    pub(super) min_version: Option<At<TlsVersionSpec>>,
    /// PEM file of the authorities of client certificates. When given, clients are asked for one;
    /// routes demand it with `client_cert`.
    pub(super) client_ca: Option<At<String>>,
}

/// A certificate and its key.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct CertificateSpec {
    /// PEM file of the chain, leaf first.
    pub(super) cert: At<String>,
    /// PEM file of the private key.
    pub(super) key: At<String>,
}

/// An ACME account and the names to get certificates for.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct AcmeSpec {
    /// Names of the certificate, without wildcards.
    pub(super) domains: At<OneOrMany<String>>,
    /// Where the authority writes to.
    pub(super) email: Option<At<String>>,
    /// URL of the authority's directory. Default: Let's Encrypt.
    pub(super) directory: Option<At<String>>,
    /// PEM file of the authorities that the directory itself is trusted by. Default: the system's.
    pub(super) ca: Option<At<String>>,
    /// Folder for the account and the certificates; it must outlive the process.
    pub(super) cache: At<String>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) enum TlsVersionSpec {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// What plain HTTP gets.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum PlaintextSpec {
    /// The same as over TLS: for a listener behind something that ends TLS.
    Allow,
    /// 308 to https.
    Redirect,
    /// 403 `https_required`.
    Reject,
}

/// Limits that hold for the whole gateway. All are optional. Inside a control group with little
/// memory those of connections, requests and bodies are lower, so that they fit into it.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct LimitsSpec {
    /// Open connections of all listeners; further ones are closed. Default 10000.
    pub(super) connections: Option<At<usize>>,
    /// Open connections of one client address (IPv6: /64). Default: a tenth of `connections`, at
    /// least 64; no limit for the loopback.
    pub(super) connections_per_address: Option<At<usize>>,
    /// Requests between their head and the end of their answer; above it 503. From 64 on, three
    /// quarters at most are for one of several upstreams. Default 1024.
    pub(super) requests_in_flight: Option<At<usize>>,
    /// Buffered bodies, all together; above it 503. Three quarters at most are for one of several
    /// upstreams. Default 256MiB.
    pub(super) body_memory: Option<At<Parsed<ByteSize>>>,
    /// Request line and headers of one request, 1KiB to 1MiB. Default 32KiB.
    pub(super) header_bytes: Option<At<Parsed<ByteSize>>>,
    /// From accept to the end of the TLS handshake. Default 10s.
    pub(super) tls_handshake_timeout: Option<At<Parsed<Span>>>,
    /// From the first byte of a head to its last; also from accept to the first head. Default 10s.
    pub(super) header_timeout: Option<At<Parsed<Span>>>,
    /// From the head to the last byte of the body. Default 30s.
    pub(super) body_timeout: Option<At<Parsed<Span>>>,
    /// Bytes a second that a body must come at, on average after its first 10s. 0: any. Default 512.
    pub(super) body_min_rate: Option<At<Parsed<ByteSize>>>,
    /// Between two requests of a connection. Default 75s.
    pub(super) idle_timeout: Option<At<Parsed<Span>>>,
    /// Until a client takes the next part of its answer. Default 30s.
    pub(super) write_timeout: Option<At<Parsed<Span>>>,
    /// Longest that a stop waits for what is under way. Default 30s.
    pub(super) drain_timeout: Option<At<Parsed<Span>>>,
    /// From failing `/readyz` to closing the listeners. Default 0s.
    pub(super) drain_delay: Option<At<Parsed<Span>>>,
}

/// Where replay claims and shared rate limits are kept.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct StateSpec {
    /// `memory` (default) or `redis`.
    pub(super) store: Option<At<StoreSpec>>,
    /// How Redis is reached; read only with `store: redis`.
    pub(super) redis: Option<At<RedisSpec>>,
}

/// A store.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum StoreSpec {
    /// In this process: forgotten when it ends.
    Memory,
    /// In Redis, shared by replicas.
    Redis,
}

/// How Redis or Valkey is reached.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct RedisSpec {
    /// Secret reference to the URL: `redis://`, `rediss://` (TLS) or `redis+unix://`.
    pub(super) url: At<String>,
    /// Whether the URL is that of a node of a cluster. Default false.
    pub(super) cluster: Option<At<bool>>,
    /// PEM file of the authorities of its certificate. Default: those of the system.
    pub(super) ca: Option<At<String>>,
    /// What every key begins with. Default `hookward`.
    pub(super) prefix: Option<At<String>>,
    /// Longest that a request waits for an answer. Default 100ms.
    pub(super) timeout: Option<At<Parsed<Span>>>,
    /// What happens without it: `reject` (default) or `local`.
    pub(super) on_failure: Option<At<OnFailureSpec>>,
}

/// What happens without the shared store.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum OnFailureSpec {
    /// Each replica counts and claims on its own.
    Local,
    /// 503 `state_unavailable`.
    Reject,
}

/// The app behind: one server or several.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct UpstreamSpec {
    /// `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`; several share the load.
    pub(super) servers: At<OneOrMany<String>>,
    /// To connect, TLS included. Default 2s.
    pub(super) connect_timeout: Option<At<Parsed<Span>>>,
    /// To the head of the answer, and again for each wait within it. Default 30s.
    pub(super) timeout: Option<At<Parsed<Span>>>,
    /// Whether connections are kept for further requests. Default true.
    pub(super) keepalive: Option<At<bool>>,
    /// Active health checks; absent, there are none.
    pub(super) health: Option<At<HealthSpec>>,
    /// TLS towards `https` servers.
    pub(super) tls: Option<At<UpstreamTlsSpec>>,
}

/// An active health check: any answer from 200 to 399 is health.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct HealthSpec {
    /// Path to GET.
    pub(super) path: At<String>,
    /// Time between checks. Default 5s.
    pub(super) interval: Option<At<Parsed<Span>>>,
}

/// TLS towards an upstream.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct UpstreamTlsSpec {
    /// PEM file of authorities, or of the servers' own self-signed certificates. Default: the authorities of the system.
    pub(super) ca: Option<At<String>>,
    /// Name in the server's certificate, where it is not the host of its URL.
    pub(super) server_name: Option<At<String>>,
    /// PEM file of the client certificate's chain; needs `client_key`.
    pub(super) client_cert: Option<At<String>>,
    /// PEM file of its private key.
    pub(super) client_key: Option<At<String>>,
}

/// A route: which requests it takes, what they must prove and where they go.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct RouteSpec {
    /// Unique name: metric label, log field, `X-Hookward-Route`.
    pub(super) name: At<String>,
    /// Which requests it takes.
    #[serde(rename = "match")]
    pub(super) matches: At<MatchSpec>,
    /// `enforce` (default) or `observe`.
    pub(super) mode: Option<At<ModeSpec>>,
    /// Networks that may call. Default: any.
    pub(super) allow_ips: Option<At<OneOrMany<Parsed<Network>>>>,
    /// Networks that may not call, also when `allow_ips` holds them.
    pub(super) deny_ips: Option<At<OneOrMany<Parsed<Network>>>>,
    /// Rate limits; all must have room.
    pub(super) rate_limits: Option<At<OneOrMany<QuotaSpec>>>,
    /// What a body may be.
    pub(super) body: Option<At<BodySpec>>,
    /// The checks, all of which must hold; or `none`, written out.
    pub(super) verify: At<TextOr<Vec<At<CheckSpec>>>>,
    /// How a delivery that comes again is met; or `off`.
    pub(super) replay: Option<At<TextOr<ReplaySpec>>>,
    /// A URL, a name of `upstreams`, or `echo`.
    pub(super) upstream: At<String>,
    /// How the forwarded request differs from the one received.
    pub(super) forward: Option<At<ForwardSpec>>,
    /// What a request without proof gets instead of 401.
    pub(super) on_reject: Option<At<RejectSpec>>,
}

/// Which requests a route takes. The most specific route wins, whatever the order.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct MatchSpec {
    /// A host, or `*.example.org` for one label before it. Default: any.
    pub(super) host: Option<At<String>>,
    /// A path; `{name}` stands for one segment, `{*rest}` for the tail.
    pub(super) path: At<String>,
    /// Methods. Default `[POST]`.
    pub(super) methods: Option<At<OneOrMany<String>>>,
}

/// Whether a refusal bites.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum ModeSpec {
    /// Refused requests are refused.
    Enforce,
    /// Requests that would be refused for who sent them are counted, marked and forwarded.
    Observe,
}

/// A rate limit.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct QuotaSpec {
    /// `client_ip`: each client, before the body is read; `route`: verified deliveries of the route, without
    /// handshakes and duplicates.
    pub(super) key: At<QuotaKeySpec>,
    /// How fast it refills: `30/s`, `100/m` or `1000/h`.
    pub(super) rate: At<Parsed<Rate>>,
    /// How many at once. Default: what refills in a second, at least 1.
    pub(super) burst: Option<At<u32>>,
}

/// What a rate limit counts by.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum QuotaKeySpec {
    /// Each client address; IPv6 by its /64.
    ClientIp,
    /// The whole route.
    Route,
}

/// What a body may be.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct BodySpec {
    /// Largest body. Default: what the preset's provider documents, else 1MiB.
    pub(super) max_size: Option<At<Parsed<ByteSize>>>,
    /// Accepted media types, without parameters. Default: any, and none.
    pub(super) content_types: Option<At<OneOrMany<String>>>,
    /// Whether JSON and XML bodies must be well formed. Default false.
    pub(super) well_formed: Option<At<bool>>,
}

/// How a delivery that comes again is met.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct ReplaySpec {
    /// How long a delivery is remembered. Default: the tolerance both ways, else 10m.
    pub(super) window: Option<At<Parsed<Span>>>,
    /// `acknowledge` (default), `reject` or `off`.
    pub(super) on_duplicate: Option<At<OnDuplicateSpec>>,
}

/// What a duplicate of a delivered event gets.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum OnDuplicateSpec {
    /// 200, and it is not forwarded.
    Acknowledge,
    /// Replays are not looked for.
    Off,
    /// 409 `replayed`.
    Reject,
}

/// How the forwarded request differs from the one received.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct ForwardSpec {
    /// This path instead of the one received.
    pub(super) path: Option<At<String>>,
    /// Prefix to remove from the path; not with `path`.
    pub(super) strip_prefix: Option<At<String>>,
    /// Goes before the upstream's `timeout`.
    pub(super) timeout: Option<At<Parsed<Span>>>,
    /// Header fields to set.
    pub(super) set_headers: Option<At<Fields>>,
    /// Header fields to remove.
    pub(super) remove_headers: Option<At<OneOrMany<String>>>,
    /// Whether tokens and `Authorization` stay in the forwarded request. Default false.
    pub(super) keep_credentials: Option<At<bool>>,
}

/// What a request without proof gets.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct RejectSpec {
    /// Status instead of 401.
    #[cfg_attr(test, schemars(range(min = 200, max = 599)))]
    pub(super) status: At<u64>,
}

/// One check: exactly one of `token`, `basic`, `provider`, `scheme`, `client_cert` and `any`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct CheckSpec {
    /// A static token.
    pub(super) token: Option<At<TokenSpec>>,
    /// HTTP Basic.
    pub(super) basic: Option<At<BasicSpec>>,
    /// A preset: `NAME`, or `NAME/SCHEME` for another of its schemes.
    pub(super) provider: Option<At<String>>,
    /// A scheme of your own, in the language of presets.
    pub(super) scheme: Option<At<Box<SchemeSpec>>>,
    /// A client certificate.
    pub(super) client_cert: Option<At<ClientCertSpec>>,
    /// Checks of which one must hold.
    pub(super) any: Option<At<Vec<At<Self>>>>,
    /// Secrets of `provider` or `scheme`; any of them may have signed.
    pub(super) secrets: Option<At<Secrets>>,
    /// Public keys of `provider` or `scheme`, as references.
    pub(super) public_keys: Option<At<Secrets>>,
    /// URL of a JWKS with the public keys, which are fetched and kept fresh: https.
    pub(super) jwks_url: Option<At<String>>,
    /// What the preset asks for beside secrets.
    pub(super) params: Option<At<Ordered<serde_json::Value>>>,
    /// How far the signed timestamp may lie from now, both ways. Default: the preset's, mostly 5m.
    pub(super) tolerance: Option<At<Parsed<Span>>>,
}

/// One secret, or several.
pub(super) type Secrets = OneOrMany<TextOr<SecretSpec>>;

/// A secret with its id and its end. The short form is the reference alone.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct SecretSpec {
    /// Name in logs, metrics and `X-Hookward-Key-Id`. Default: the variable's or the file's name.
    pub(super) id: Option<At<String>>,
    /// `env:NAME`, `file:PATH` or `value:TEXT`.
    pub(super) from: At<String>,
    /// From this moment on it no longer counts: RFC 3339 or Unix seconds.
    pub(super) not_after: Option<At<Parsed<UnixTime>>>,
}

/// A static token: exactly one of `query`, `header`, `bearer` and `path`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct TokenSpec {
    /// Query field that holds it.
    pub(super) query: Option<At<String>>,
    /// Header field that holds it.
    pub(super) header: Option<At<String>>,
    /// `true`: it stands in `Authorization: Bearer`.
    pub(super) bearer: Option<At<bool>>,
    /// Name of the `{name}` segment of `match.path` that holds it.
    pub(super) path: Option<At<String>>,
    /// Tokens that are accepted.
    pub(super) secrets: At<Secrets>,
}

/// HTTP Basic: `users`, or `htpasswd`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct BasicSpec {
    /// Shown by clients that ask for a password. Default: the route's name.
    pub(super) realm: Option<At<String>>,
    /// Users with their passwords.
    pub(super) users: Option<At<OneOrMany<UserSpec>>>,
    /// File of `name:hash` lines, with bcrypt or Argon2id hashes.
    pub(super) htpasswd: Option<At<String>>,
}

/// A user: exactly one of `password` and `password_hash`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct UserSpec {
    /// User name.
    pub(super) name: At<String>,
    /// Secret reference to the password.
    pub(super) password: Option<At<String>>,
    /// Argon2id or bcrypt hash of the password; `hookward hash-password` makes one.
    pub(super) password_hash: Option<At<String>>,
}

/// A client certificate, issued by the listener's `client_ca`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub(super) struct ClientCertSpec {
    /// DNS names, addresses, e-mail addresses or URIs of which the certificate must carry one.
    pub(super) san: At<OneOrMany<String>>,
}

/// Header fields by name. Every key counts, also one that begins with `x-`.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Vec<(String, At<String>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor(PhantomData<Fields>);

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_newtype_struct(ALL_KEYS, FieldsVisitor(PhantomData))
    }
}

#[cfg(test)]
impl JsonSchema for Fields {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fields".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

/// A mapping by names that the operator chose, in the order of the file. Keys that begin with `x-` are free, for anchors.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, At<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.starts_with(FREE_KEYS) {
                map.next_value::<IgnoredAny>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Named(entries))
    }
}

#[cfg(test)]
impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({
            "type": "object",
            "patternProperties": { "^x-": {} },
            "additionalProperties": value
        })
    }
}
