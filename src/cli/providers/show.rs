//! What `providers show` tells of a preset.

use std::fmt;

use serde_json::{Value, json};

use crate::cli::sign::unknown;
use crate::document::{At, OneOrMany};
use crate::scheme::catalog::{Catalog, Preset, Selected};
use crate::scheme::spec::{
    AnswersSpec, Confidence, HandshakeSpec, KeyUrlSpec, Ordered, ParamSpec, ParamValue, PresetSpec,
    ProofSpec, SchemeSpec, SecretSpec, SignatureSpec, TimestampSpec,
};
use crate::scheme::{KeyKind, Params, Scheme};

/// Everything that is known of one preset.
#[derive(Debug)]
pub(super) struct About {
    facts: Vec<Fact>,
    schemes: Vec<SchemeFacts>,
    snippet: String,
}

/// A line, or several.
#[derive(Debug)]
struct Fact {
    name: &'static str,
    values: Vec<String>,
}

#[derive(Debug)]
struct SchemeFacts {
    id: String,
    facts: Vec<Fact>,
}

impl About {
    /// `scheme` is the one that the snippet is for; the first by default.
    pub(super) fn new(
        catalog: &Catalog,
        preset: &Preset,
        name: &str,
        scheme: Option<&str>,
    ) -> anyhow::Result<Self> {
        let reference = match scheme {
            Some(scheme) => format!("{name}/{scheme}"),
            None => name.to_owned(),
        };
        let chosen = catalog
            .find(&reference)
            .map_err(|error| unknown(error, catalog))?;
        let mut schemes = Vec::new();
        for (id, spec) in preset.schemes() {
            let selected = catalog
                .find(&format!("{name}/{id}"))
                .map_err(|error| unknown(error, catalog))?;
            schemes.push(SchemeFacts {
                id: id.to_owned(),
                facts: scheme_facts(spec, &selected),
            });
        }
        Ok(Self {
            facts: preset_facts(&preset.spec),
            schemes,
            snippet: snippet(&reference, name, &chosen),
        })
    }

    /// A configuration to start from.
    pub(super) fn snippet(&self) -> &str {
        &self.snippet
    }

    /// The form for machines.
    pub(super) fn to_json(&self) -> Value {
        let mut about = facts_json(&self.facts);
        let schemes: Vec<Value> = self
            .schemes
            .iter()
            .map(|scheme| {
                let mut facts = facts_json(&scheme.facts);
                facts.insert("id".to_owned(), json!(scheme.id));
                Value::Object(facts)
            })
            .collect();
        about.insert("schemes".to_owned(), json!(schemes));
        about.insert("snippet".to_owned(), json!(self.snippet));
        Value::Object(about)
    }
}

fn facts_json(facts: &[Fact]) -> serde_json::Map<String, Value> {
    let entry = |fact: &Fact| {
        let value = match fact.values.as_slice() {
            [one] if !is_list(fact.name) => json!(one),
            values => json!(values),
        };
        (fact.name.replace(' ', "_"), value)
    };
    facts.iter().map(entry).collect()
}

fn is_list(name: &str) -> bool {
    matches!(
        name,
        "answers"
            | "gotchas"
            | "sources"
            | "params"
            | "warnings"
            | "headers"
            | "signed"
            | "handshakes"
    )
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_facts(f, "", &self.facts)?;
        for scheme in &self.schemes {
            writeln!(f, "\nscheme {}", scheme.id)?;
            write_facts(f, "  ", &scheme.facts)?;
        }
        write!(f, "\n# A configuration to start from:\n{}", self.snippet)
    }
}

fn write_facts(f: &mut fmt::Formatter<'_>, indent: &str, facts: &[Fact]) -> fmt::Result {
    for fact in facts {
        match fact.values.as_slice() {
            [one] if !one.contains('\n') => writeln!(f, "{indent}{}: {one}", fact.name)?,
            values => {
                writeln!(f, "{indent}{}:", fact.name)?;
                for value in values {
                    writeln!(
                        f,
                        "{indent}  - {}",
                        value.trim_end().replace('\n', "\n      ")
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// Facts in the making: what is not known is left out.
#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn one(&mut self, name: &'static str, value: Option<impl Into<String>>) {
        self.many(name, value.into_iter().map(Into::into).collect());
    }

    fn many(&mut self, name: &'static str, values: Vec<String>) {
        if !values.is_empty() {
            self.0.push(Fact { name, values });
        }
    }
}

fn text(at: &At<String>) -> Option<String> {
    at.get().cloned()
}

fn optional(at: Option<&At<String>>) -> Option<String> {
    at.and_then(text)
}

fn preset_facts(spec: &PresetSpec) -> Vec<Fact> {
    let mut facts = Facts::default();
    facts.one("provider", text(&spec.provider));
    facts.one("title", text(&spec.title));
    facts.one("category", text(&spec.category));
    facts.one(
        "confidence",
        spec.confidence.get().map(|confidence| match confidence {
            Confidence::High => "high: read in the provider's documentation or library",
            Confidence::Medium => "medium: read second-hand; try it before you rely on it",
            Confidence::Low => "low: the provider documents nothing; try it before you rely on it",
        }),
    );
    facts.one("secret", text(&spec.secret));
    facts.one("rotation", optional(spec.rotation.as_ref()));
    facts.one("retries", optional(spec.retries.as_ref()));
    facts.one(
        "methods",
        spec.methods
            .as_ref()
            .and_then(At::get)
            .map(|methods| joined(methods)),
    );
    facts.one(
        "max size",
        spec.max_size
            .as_ref()
            .and_then(At::get)
            .map(|size| size.0.to_string()),
    );
    let answer_lines = spec.answers.as_ref().and_then(At::get).map(answers);
    facts.many("answers", answer_lines.unwrap_or_default());
    facts.many("params", param_lines(spec));
    let handshakes = spec.handshakes.as_ref().and_then(At::get);
    let handshakes = handshakes.into_iter().flat_map(Ordered::iter);
    facts.many(
        "handshakes",
        handshakes
            .map(|(name, spec)| handshake(name, spec))
            .collect(),
    );
    let list = |at: Option<&At<Vec<String>>>| at.and_then(At::get).cloned().unwrap_or_default();
    facts.many("gotchas", list(spec.gotchas.as_ref()));
    facts.many("sources", list(Some(&spec.sources)));
    facts.0
}

fn answers(spec: &AnswersSpec) -> Vec<String> {
    let status = |at: &Option<At<u16>>, what: &str| {
        let status = at.as_ref().and_then(At::get)?;
        Some(format!("{what} gets {status}"))
    };
    let is_empty = spec.reject_empty.as_ref().and_then(At::get) == Some(&true);
    let lines = [
        status(&spec.reject_status, "a refused request"),
        is_empty.then(|| "a refusal has no body".to_owned()),
        status(&spec.accept_status, "a duplicate"),
    ];
    lines.into_iter().flatten().collect()
}

/// How a handshake comes, what proves it and what is answered.
fn handshake(name: &str, spec: &HandshakeSpec) -> String {
    let when = spec.when.get();
    let method = when.and_then(|when| optional(when.method.as_ref()));
    let proof = spec.proof.get().map(proofs).unwrap_or_default();
    let reply = spec.reply.get();
    let status = reply.and_then(|reply| reply.status.as_ref()?.get().copied());
    let kind = match reply {
        Some(reply) if reply.json.is_some() => " with JSON",
        Some(reply) if reply.text.is_some() => " with text",
        Some(reply) if reply.headers.is_some() => " with header fields",
        Some(_) | None => "",
    };
    let mut line = format!(
        "{name}: {}, proven by {}, answered {}{kind}",
        method.unwrap_or_default(),
        proof.join(" and "),
        status.unwrap_or(200),
    );
    if let Some(about) = optional(spec.about.as_ref()) {
        line = format!("{line}. {about}");
    }
    line
}

fn proofs(spec: &ProofSpec) -> Vec<String> {
    let is_set = |at: &Option<At<bool>>| at.as_ref().and_then(At::get) == Some(&true);
    let mut proofs = Vec::new();
    if is_set(&spec.signature) {
        proofs.push("the signature".to_owned());
    }
    if let Some(name) = optional(spec.token_query.as_ref()) {
        proofs.push(format!(
            "the verify token in query field `{name}` (param `verify_token`, else any secret)"
        ));
    }
    if spec.require.is_some() {
        proofs.push("values that params name".to_owned());
    }
    if let Some(enrolment) = spec.enrolment.as_ref().and_then(At::get) {
        proofs.push(if is_set(&enrolment.answered_when_closed) {
            "nothing, its secret told while the enrolment window is open".to_owned()
        } else {
            "an open enrolment window".to_owned()
        });
    }
    if proofs.is_empty() {
        proofs.push("nothing".to_owned());
    }
    proofs
}

fn joined(values: &[At<String>]) -> String {
    values
        .iter()
        .filter_map(text)
        .collect::<Vec<_>>()
        .join(", ")
}

fn params(spec: &PresetSpec) -> impl Iterator<Item = (&str, &ParamSpec)> {
    spec.params
        .as_ref()
        .and_then(At::get)
        .into_iter()
        .flat_map(Ordered::iter)
}

fn param_lines(spec: &PresetSpec) -> Vec<String> {
    let line = |(name, param): (&str, &ParamSpec)| {
        let default = param.default.as_ref().and_then(At::get);
        let need = match default {
            Some(value) => format!("default {}", param_json(value)),
            None if is_optional(param) => "optional".to_owned(),
            None => "required".to_owned(),
        };
        let about = text(&param.about).unwrap_or_default();
        let choices = param.one_of.as_ref().and_then(At::get);
        let choices = choices.map(|choices| format!("; one of {}", choices.join(", ")));
        format!("{name} ({need}): {about}{}", choices.unwrap_or_default())
    };
    params(spec).map(line).collect()
}

fn is_optional(param: &ParamSpec) -> bool {
    param
        .optional
        .as_ref()
        .and_then(At::get)
        .copied()
        .unwrap_or(false)
}

fn param_json(value: &ParamValue) -> Value {
    match value {
        ParamValue::Bool(value) => json!(value),
        ParamValue::Int(value) => json!(value),
        ParamValue::Text(value) => json!(value),
        ParamValue::List(values) => json!(values),
    }
}

/// Values for the params that a scheme cannot do without: those of the preset that are required, and
/// the optional ones that this scheme does not compile without.
fn example_params(selected: &Selected) -> Params {
    let given = params(&selected.preset.spec).filter(|(_, param)| param.default.is_none());
    let (optional, required): (Vec<_>, Vec<_>) = given.partition(|(_, param)| is_optional(param));
    let examples = |all: &[(&str, &ParamSpec)]| -> Params {
        let all = all.iter();
        all.map(|(name, param)| ((*name).to_owned(), selected.preset.example(name, param)))
            .collect()
    };
    let binds = |params: &Params| selected.bind(params, None).is_ok();
    let mut needed = examples(&required);
    if binds(&needed) {
        return needed;
    }
    needed.extend(examples(&optional));
    for (name, _) in optional {
        if let Some((name, value)) = needed.remove_entry(name)
            && !binds(&needed)
        {
            needed.insert(name, value);
        }
    }
    needed
}

fn scheme_facts(spec: &SchemeSpec, selected: &Selected) -> Vec<Fact> {
    let mut facts = Facts::default();
    facts.one("about", optional(spec.about.as_ref()));
    facts.one("algorithm", spec.algorithm.get().map(kebab));
    facts.one(
        "signature",
        spec.signature.as_ref().and_then(At::get).map(signature),
    );
    facts.many("signed", signed(spec));
    facts.one(
        "secret form",
        spec.secret.as_ref().and_then(At::get).map(secret),
    );
    facts.one(
        "timestamp",
        spec.timestamp.as_ref().and_then(At::get).map(timestamp),
    );
    if let Ok(scheme) = selected.bind(&example_params(selected), None) {
        let mut names: Vec<_> = scheme
            .header_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort_unstable();
        names.dedup();
        facts.many("headers", names);
        facts.one(
            "key",
            Some(match scheme.key_kind() {
                KeyKind::None => "none: this provider proves nothing",
                KeyKind::Public if scheme.takes_secrets_too() => "public_keys and secrets",
                KeyKind::Public => "public_keys",
                KeyKind::Secret => "secrets",
            }),
        );
        if scheme.publishes_keys() {
            let source = spec.key_url.as_ref().and_then(At::get).map(key_source);
            let named_by_message = || "where the message says".to_owned();
            facts.one(
                "fetched from",
                Some(source.unwrap_or_else(named_by_message)),
            );
        }
        facts.one("replay memory", Some(replay_memory(&scheme)));
        facts.many(
            "warnings",
            scheme.weaknesses().into_iter().map(str::to_owned).collect(),
        );
    }
    facts.0
}

/// Whether a route that does not say so looks for replays, and why.
fn replay_memory(scheme: &Scheme) -> &'static str {
    if !scheme.is_signed() {
        "none: nothing is signed that would tell a copy from another delivery"
    } else if scheme.is_shared_token() {
        "off by default: several events may carry the same token"
    } else if scheme.signed_tolerance().is_none() {
        "off by default: no signed timestamp is judged; `replay: { window: 10m }` in the route switches it on"
    } else if !scheme.tells_deliveries_apart() {
        "off by default: neither the body nor an id is signed with the timestamp, so that two events may look alike"
    } else {
        "on by default: a timestamp is signed, with the body or an id"
    }
}

/// Where a provider publishes its keys.
fn key_source(spec: &KeyUrlSpec) -> String {
    let header = optional(spec.header.as_ref()).map(|name| format!("the URL in header {name}"));
    let source = optional(spec.url.as_ref()).or(header).unwrap_or_default();
    let hosts = spec.hosts.as_ref().and_then(At::get);
    match hosts.map(|hosts| joined(hosts)) {
        Some(hosts) if spec.url.is_none() => format!("{source}, at {hosts}"),
        _ => source,
    }
}

/// A name as the preset language writes it.
fn kebab(value: &impl fmt::Debug) -> String {
    let mut out = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn signed(spec: &SchemeSpec) -> Vec<String> {
    let parts = spec.signed.as_ref().and_then(At::get);
    let parts = parts.into_iter().flat_map(|OneOrMany(parts)| parts);
    let parts = parts.filter_map(|part| {
        let part = part.get()?;
        let condition = if part.when.is_some() {
            " (on a condition)"
        } else {
            ""
        };
        Some(format!("{:?}{condition}", part.text.get()?))
    });
    let alternatives = spec
        .signed_or
        .as_ref()
        .and_then(At::get)
        .into_iter()
        .flatten();
    let alternatives = alternatives.filter_map(|or| Some(format!("or {:?}", or.get()?)));
    parts.chain(alternatives).collect()
}

fn names(at: Option<&At<OneOrMany<String>>>) -> Option<String> {
    at.and_then(At::get).map(|OneOrMany(names)| joined(names))
}

/// `header X`, `query y` and so on, the places in the order they are tried.
fn places(places: [(&str, Option<String>); 5]) -> String {
    let known = places
        .into_iter()
        .filter_map(|(kind, name)| match name?.as_str() {
            "" => Some(format!("{kind}, the whole of it")),
            name => Some(format!("{kind} {name}")),
        });
    known.collect::<Vec<_>>().join(", ")
}

fn signature(spec: &SignatureSpec) -> String {
    let mut out = places([
        ("header", names(spec.header.as_ref())),
        ("query", optional(spec.query.as_ref())),
        ("form", optional(spec.form.as_ref())),
        ("json", optional(spec.json.as_ref())),
        ("xml", optional(spec.xml.as_ref())),
    ]);
    if let Some(prefix) = optional(spec.prefix.as_ref()) {
        out = format!("{out}, after `{prefix}`");
    }
    match spec.encoding.as_ref().and_then(At::get) {
        Some(encoding) => format!("{out}, {}", kebab(encoding)),
        None => out,
    }
}

fn secret(spec: &SecretSpec) -> String {
    let encoding = spec.encoding.as_ref().and_then(At::get);
    let encoding = encoding.map_or_else(|| "utf8".to_owned(), kebab);
    match names(spec.prefix.as_ref()) {
        Some(prefixes) => format!("{encoding}, after `{}`", prefixes.replace(", ", "` or `")),
        None => encoding,
    }
}

fn timestamp(spec: &TimestampSpec) -> String {
    let mut out = places([
        ("header", names(spec.header.as_ref())),
        ("query", optional(spec.query.as_ref())),
        ("form", optional(spec.form.as_ref())),
        ("json", optional(spec.json.as_ref())),
        ("item", optional(spec.item.as_ref())),
    ]);
    let unit = spec
        .unit
        .as_ref()
        .and_then(At::get)
        .map_or_else(|| "s".to_owned(), kebab);
    out = format!("{out}, in {unit}");
    match spec.tolerance.as_ref().and_then(At::get) {
        Some(tolerance) => format!("{out}, tolerance {}", tolerance.0),
        None => out,
    }
}

fn snippet(reference: &str, name: &str, chosen: &Selected) -> String {
    let params = example_params(chosen);
    let bound = chosen.bind(&params, None).ok();
    let kind = bound.as_ref().map_or(KeyKind::Secret, Scheme::key_kind);
    let is_open = bound.as_ref().is_some_and(Scheme::admits_everybody);
    let is_published = bound.as_ref().is_some_and(Scheme::publishes_keys);
    let takes_secrets = kind == KeyKind::Secret || bound.is_some_and(|own| own.takes_secrets_too());
    // No variable of a shell begins with a digit.
    let prefix = if name.starts_with(|c: char| c.is_ascii_digit()) {
        "WEBHOOK_"
    } else {
        ""
    };
    let variable: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    let mut out = format!(
        "version: 1\n\
         listeners:\n  https:\n    address: 0.0.0.0:8443\n    tls:\n      \
         self_signed: [localhost]   # or certificates: [{{ cert: FILE, key: FILE }}]\n\
         routes:\n  - name: {name}\n    match:\n      path: /hooks/{name}\n"
    );
    let mut line = |text: fmt::Arguments<'_>| out.extend([text.to_string(), "\n".to_owned()]);
    if let Some(methods) = chosen.preset.spec.methods.as_ref().and_then(At::get) {
        line(format_args!("      methods: [{}]", joined(methods)));
    }
    line(format_args!("    verify:\n      - provider: {reference}"));
    if is_published {
        line(format_args!(
            "        # public_keys: [file:key.pem]   # only to pin a key: it is fetched without"
        ));
    } else if kind == KeyKind::Public {
        line(format_args!(
            "        public_keys: [env:{prefix}{variable}_PUBLIC_KEY]"
        ));
    }
    if takes_secrets {
        line(format_args!(
            "        secrets: [env:{prefix}{variable}_SECRET]"
        ));
    }
    if !params.is_empty() {
        line(format_args!("        params:"));
        for (name, value) in &params {
            line(format_args!("          {name}: {value}"));
        }
    }
    if is_open {
        // The provider proves nothing: a secret in the URL that it is given does.
        line(format_args!(
            "      - token: {{ query: auth, secrets: [env:{prefix}{variable}_TOKEN] }}"
        ));
    }
    line(format_args!("    upstream: http://127.0.0.1:3000"));
    out
}
