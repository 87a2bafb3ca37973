//! From what a preset says to a [`Scheme`]: everything that can be decided before a request comes is
//! decided here, and every mistake is a [`Problem`] with its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::aws_sns::AwsSns;
use super::delivery::Identity;
use super::fields::{Fields, Piece};
use super::http_signature::HttpSignature;
use super::jwt::ClaimPath;
use super::primitive::{Digest, Hash};
use super::public_key::SignatureAlgorithm;
use super::spec::{Algorithm, FieldsSpec, Ordered, PartSpec, SchemeSpec, UrlSpec, UrlVariant};
use super::template::{Names, Template};
use super::when::When;
use super::{KeyKind, Loose, Params, Part, Proof, Scheme, UrlForm};
use crate::document::{At, OneOrMany, Place};
use crate::problem::{Mark, Problem, Severity};

mod conditions;
mod jwt;
mod keys;
mod places;

/// Tolerance where neither preset nor operator says otherwise: what most providers document.
const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);

/// Compiles a scheme. `params` are what the operator configured, defaults filled in.
pub(super) fn compile(
    spec: &SchemeSpec,
    params: &Params,
    tolerance: Option<Duration>,
    around: Around<'_>,
) -> Result<Scheme, Vec<Problem>> {
    let mut compiler = Compiler {
        around,
        ..Compiler::new(params)
    };
    let scheme = compiler.scheme(spec, tolerance);
    match scheme {
        Some(scheme) if compiler.problems.is_empty() => Ok(scheme),
        _ if compiler.problems.is_empty() => Err(vec![problem(None, "the scheme is incomplete")]),
        _ => Err(compiler.problems),
    }
}

/// Where stands what a scheme is a part of: nowhere, for one of a preset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The scheme as a whole, which lacks what is missing.
    pub scheme: Option<&'a Place>,
    /// The tolerance that the check has.
    pub tolerance: Option<&'a Place>,
}

/// A problem at a place, or at the start of the file where there is none.
fn problem(place: Option<&Place>, message: impl Into<String>) -> Problem {
    match place {
        Some(place) => place.error(message, None),
        None => Problem {
            file: None,
            mark: Mark::START,
            path: String::new(),
            message: message.into(),
            hint: None,
            severity: Severity::Error,
        },
    }
}

/// Gathers problems while it compiles.
pub(super) struct Compiler<'a> {
    params: &'a Params,
    around: Around<'a>,
    texts: HashMap<String, Arc<Template>>,
    fields: HashMap<String, Arc<Fields>>,
    pub(super) problems: Vec<Problem>,
}

impl Names for Compiler<'_> {
    fn param(&mut self, name: &str) -> Option<String> {
        self.params.get(name).and_then(param_text)
    }

    fn text(&mut self, name: &str) -> Option<Arc<Template>> {
        self.texts.get(name).cloned()
    }

    fn fields(&mut self, name: &str) -> Option<Arc<Fields>> {
        self.fields.get(name).cloned()
    }
}

/// A param as text; `None` for a list, which has no one text.
fn param_text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn new(params: &'a Params) -> Self {
        Self {
            params,
            around: Around::default(),
            texts: HashMap::new(),
            fields: HashMap::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn error<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.problems.push(problem(at.place(), message));
    }

    fn parts_of_templates(&mut self, spec: &SchemeSpec) {
        if let Some(fields) = get(&spec.fields) {
            self.all_fields(fields);
        }
        if let Some(texts) = get(&spec.texts) {
            self.all_texts(texts);
        }
    }

    fn scheme(&mut self, spec: &SchemeSpec, tolerance: Option<Duration>) -> Option<Scheme> {
        self.parts_of_templates(spec);
        // A wrong algorithm has been reported. What does not depend on it is read all the same.
        let known = spec.algorithm.get().copied();
        let algorithm = known.unwrap_or(Algorithm::None);
        let mut signature = spec.signature.as_ref().and_then(|at| self.signature(at));
        let timestamp_spec = spec.timestamp.as_ref();
        let taken = timestamp_spec.and_then(|at| at.get()?.item.as_ref()?.get().cloned());
        if let Some(list) = signature.as_mut().and_then(|form| form.list.as_mut()) {
            list.others.extend(taken);
            for at in [&spec.id, &spec.event_id] {
                list.others
                    .extend(get(at).and_then(|own| own.item.as_ref()?.get().cloned()));
            }
        }
        let told = self.problems.len();
        let contents = self.contents(spec);
        let is_content_known = self.problems.len() == told;
        let id = self.locations(spec.id.as_ref());
        let event_id_claim = get(&spec.event_id).and_then(|own| get(&own.claim));
        let event_id_claim = event_id_claim.map(|name| ClaimPath::new(name));
        let event_id = match &spec.event_id {
            Some(at) if event_id_claim.is_none() => self.location(at),
            _ => Vec::new(),
        };
        let is_instead = get(&spec.url).is_some_and(|url| url.instead.is_some());
        if let Some(at) = spec.body_digest.as_ref().filter(|_| is_instead) {
            let message = "where `url.instead` is signed, nobody signs the query with the digest";
            self.error(at, message);
        }
        let mut scheme = Scheme {
            proof: self.proof(spec, algorithm, tolerance),
            signature,
            timestamp: None,
            id_form: spec
                .id
                .as_ref()
                .map(|at| self.id_form(at))
                .unwrap_or_default(),
            id,
            challenges: Vec::new(),
            event_id,
            event_id_claim,
            signs_url: depend_on_spelling(&contents),
            contents,
            url: spec.url.as_ref().map(|at| self.url(at)).unwrap_or_default(),
            require: get(&spec.require)
                .map(|all| all.iter().filter_map(|at| self.require(at)).collect())
                .unwrap_or_default(),
            body_digest: get(&spec.body_digest).and_then(|own| own.query.get().cloned()),
            json_from: self.locations(spec.json_from.as_ref()),
            each: spec.each.as_ref().and_then(|at| self.pointer(at)),
            body_decoded: get(&spec.body_decoded).copied().unwrap_or_default(),
            secret: self.secret(spec),
            key_source: spec.key_url.as_ref().and_then(|at| self.key_source(at)),
            identity: Identity::default(),
            loose: Loose::default(),
        };
        // Where `signed` is wrong, which has been reported, nobody knows what it covers.
        if is_content_known && known.is_some() {
            scheme.timestamp = timestamp_spec.and_then(|at| self.timestamp(at, &scheme, tolerance));
        }
        known?;
        scheme.identity = scheme.identity();
        scheme.loose = scheme.loose();
        if timestamp_spec.is_none() && tolerance.is_some() && algorithm != Algorithm::Jwt {
            self.problems.push(problem(
                self.around.tolerance.or(spec.algorithm.place()),
                "this scheme has no timestamp, so it can have no `tolerance`",
            ));
        }
        self.consistent(spec, algorithm, &scheme);
        Some(scheme)
    }

    /// What one key alone cannot tell: what belongs together.
    fn consistent(&mut self, spec: &SchemeSpec, algorithm: Algorithm, scheme: &Scheme) {
        // What lacks a key: the scheme itself.
        let whole = self.around.scheme.or(spec.algorithm.place());
        let mut need_at = |place: Option<&Place>, holds: bool, message: &str| {
            if !holds {
                self.problems.push(problem(place.or(whole), message));
            }
        };
        let at_signed = spec.signed.as_ref().and_then(At::place);
        let at_key_url = spec.key_url.as_ref().and_then(At::place);
        need_at(
            at_key_url,
            scheme.key_source.is_none() || scheme.key_kind() == KeyKind::Public,
            "`key_url` is for public keys; this algorithm wants a secret",
        );
        need_at(
            at_signed,
            !matches!(scheme.proof, Proof::Digest(_))
                || scheme.always_signs(Template::covers_secret),
            "a plain hash proves nothing unless `{secret}` is in all of `signed` and `signed_or`, on no condition",
        );
        let mut need = |holds: bool, message: &str| need_at(None, holds, message);
        let is_code = matches!(
            algorithm,
            Algorithm::AwsSns | Algorithm::HttpMessageSignature
        );
        let bare = matches!(algorithm, Algorithm::Basic | Algorithm::None) || is_code;
        need(
            bare || spec.signature.is_some(),
            "this algorithm needs `signature`: where it stands",
        );
        let contents = matches!(
            scheme.proof,
            Proof::Digest(_) | Proof::Mac(_) | Proof::Public(_)
        );
        need(
            !contents || spec.signed.is_some(),
            "this algorithm needs `signed`: what it covers",
        );
        let covers = |wanted: &dyn Fn(&Template) -> bool| {
            scheme
                .contents
                .iter()
                .flatten()
                .any(|part| wanted(&part.text))
        };
        need(
            !covers(&Template::covers_id) || spec.id.is_some(),
            "`{id}` needs `id`: where it stands",
        );
        need(
            !covers(&Template::covers_timestamp) || spec.timestamp.is_some(),
            "`{timestamp}` needs `timestamp`: where it stands",
        );
        need(
            algorithm != Algorithm::Jwt || spec.jwt.is_some(),
            "`jwt` needs `jwt`: what it must say",
        );
    }

    fn proof(
        &mut self,
        spec: &SchemeSpec,
        algorithm: Algorithm,
        tolerance: Option<Duration>,
    ) -> Proof {
        match algorithm {
            Algorithm::AwsSns => match AwsSns::from_params(self.params) {
                Ok(own) => Proof::AwsSns(own),
                Err(wrong) => self.wrong_params(spec, wrong),
            },
            Algorithm::HttpMessageSignature => match HttpSignature::from_params(self.params) {
                Ok(own) => Proof::HttpSignature(Box::new(own)),
                Err(wrong) => self.wrong_params(spec, wrong),
            },
            Algorithm::Basic => Proof::Basic,
            Algorithm::EcdsaP256Sha1 => Proof::Public(SignatureAlgorithm::EcdsaP256Sha1),
            Algorithm::EcdsaP256Sha256 => Proof::Public(SignatureAlgorithm::EcdsaP256Sha256),
            Algorithm::EcdsaP256Sha256Raw => Proof::Public(SignatureAlgorithm::EcdsaP256Sha256Raw),
            Algorithm::EcdsaP384Sha384 => Proof::Public(SignatureAlgorithm::EcdsaP384Sha384),
            Algorithm::Ed25519 => Proof::Public(SignatureAlgorithm::Ed25519),
            Algorithm::HmacMd5 => Proof::Mac(Hash::Md5),
            Algorithm::HmacSha1 => Proof::Mac(Hash::Sha1),
            Algorithm::HmacSha256 => Proof::Mac(Hash::Sha256),
            Algorithm::HmacSha384 => Proof::Mac(Hash::Sha384),
            Algorithm::HmacSha512 => Proof::Mac(Hash::Sha512),
            Algorithm::Jwt => match &spec.jwt {
                Some(at) => Proof::Jwt(Box::new(self.jwt(at, tolerance))),
                None => Proof::None, // `consistent` says what is missing
            },
            Algorithm::Keccak256 => Proof::Digest(Digest::Keccak256),
            Algorithm::Md5 => Proof::Digest(Digest::Md5),
            Algorithm::None => Proof::None,
            Algorithm::RsaPssSha256 => Proof::Public(SignatureAlgorithm::RsaPssSha256),
            Algorithm::RsaPssSha512 => Proof::Public(SignatureAlgorithm::RsaPssSha512),
            Algorithm::RsaSha1 => Proof::Public(SignatureAlgorithm::RsaSha1),
            Algorithm::RsaSha256 => Proof::Public(SignatureAlgorithm::RsaSha256),
            Algorithm::RsaSha512 => Proof::Public(SignatureAlgorithm::RsaSha512),
            Algorithm::Sha1 => Proof::Digest(Digest::Sha1),
            Algorithm::Sha256 => Proof::Digest(Digest::Sha256),
            Algorithm::Sha512 => Proof::Digest(Digest::Sha512),
            Algorithm::Token => Proof::Token,
        }
    }

    fn wrong_params(&mut self, spec: &SchemeSpec, wrong: Vec<String>) -> Proof {
        for message in wrong {
            self.error(&spec.algorithm, message);
        }
        Proof::None
    }

    fn contents(&mut self, spec: &SchemeSpec) -> Vec<Vec<Part>> {
        let mut contents = Vec::new();
        if let Some(OneOrMany(parts)) = get(&spec.signed) {
            let parts = parts.iter().filter_map(|at| self.part(at));
            // Params decide here: a part that can never stand there covers nothing.
            contents.push(parts.filter(|part| !part.when.is_impossible()).collect());
        }
        for at in get(&spec.signed_or).into_iter().flatten() {
            contents.extend(self.template(at).map(|text| {
                vec![Part {
                    text,
                    when: When::default(),
                }]
            }));
        }
        contents
    }

    fn part(&mut self, at: &At<PartSpec>) -> Option<Part> {
        let PartSpec { text, when } = at.get()?;
        if text.place().is_none() {
            self.error(at, "this part lacks `text`");
        }
        let when = when.as_ref().map(|at| self.when(at)).unwrap_or_default();
        Some(Part {
            text: self.template(text)?,
            when,
        })
    }

    /// A template of anything.
    pub(super) fn template(&mut self, at: &At<String>) -> Option<Template> {
        let text = at.get()?.clone();
        match Template::parse(&text, self) {
            Ok(template) => Some(template),
            Err(message) => {
                self.error(at, message);
                None
            }
        }
    }

    /// A template of params only: a name, a prefix.
    pub(super) fn text(&mut self, at: &At<String>) -> Option<String> {
        let template = self.template(at)?;
        if let Some(text) = template.literal() {
            Some(text.to_owned())
        } else {
            self.error(
                at,
                "only `{param:NAME}` can stand here: it does not depend on a request",
            );
            None
        }
    }

    /// Whether every param of a template has a value: one that is optional may leave it out.
    fn is_set(&self, at: &At<String>) -> bool {
        let params = at
            .get()
            .map(|text| text.split("{param:").skip(1))
            .into_iter()
            .flatten();
        let mut names = params.filter_map(|rest| rest.split(['}', '|', '?']).next());
        names.all(|name| self.params.contains_key(name))
    }

    /// Several templates of which one must match. A param that is a list stands for each of its items.
    pub(super) fn choices(&mut self, at: &At<OneOrMany<String>>) -> Vec<Template> {
        let Some(OneOrMany(all)) = at.get() else {
            return Vec::new();
        };
        let mut choices = Vec::new();
        for one in all {
            // `{param:NAME}` of a list, alone or within a text, gives a text for each of its items.
            let text = one.get().map(String::as_str).unwrap_or_default();
            let list = text.split("{param:").skip(1).find_map(|rest| {
                let name = rest.split_once('}')?.0;
                Some((name, self.params.get(name)?.as_array()?))
            });
            match list {
                Some((name, items)) => {
                    for item in items.iter().filter_map(param_text) {
                        let text = text.replace(&format!("{{param:{name}}}"), &item);
                        let at = At::new(text, one.place().cloned());
                        choices.extend(self.template(&at));
                    }
                }
                None => choices.extend(self.template(one)),
            }
        }
        choices
    }

    /// As [`Compiler::choices`]. An empty list is an error, because it would let no request pass, or any.
    fn some_choices(&mut self, at: &At<OneOrMany<String>>) -> Vec<Template> {
        let choices = self.choices(at);
        if choices.is_empty() {
            self.error(at, "there is no value that it may have");
        }
        choices
    }

    pub(super) fn all_texts(&mut self, texts: &Ordered<String>) {
        for (name, at) in &texts.0 {
            if let Some(template) = self.template(at) {
                self.texts.insert(name.clone(), Arc::new(template));
            }
        }
    }

    fn all_fields(&mut self, all: &Ordered<FieldsSpec>) {
        for (name, at) in &all.0 {
            let Some(spec) = at.get() else { continue };
            let fields = Fields {
                from: spec
                    .from
                    .get()
                    .map(|OneOrMany(from)| copied(from))
                    .unwrap_or_default(),
                listed_in: spec.listed_in.as_ref().and_then(|at| self.header(at)),
                skip: get(&spec.skip).cloned().unwrap_or_default(),
                sort: get(&spec.sort).copied(),
                unique: get(&spec.unique).copied().unwrap_or_default(),
                write: Piece::parse(get(&spec.write).map_or("{name}={value}", String::as_str)),
                join: get(&spec.join).cloned().unwrap_or_default(),
                replace: get(&spec.replace)
                    .map(|all| {
                        all.iter()
                            .map(|(from, to)| (from.to_owned(), to.clone()))
                            .collect()
                    })
                    .unwrap_or_default(),
                escape: get(&spec.escape).copied(),
                join_values: get(&spec.join_values).cloned(),
                before: get(&spec.before).cloned().unwrap_or_default(),
            };
            if fields.from.contains(&super::spec::FieldsFrom::Headers) && fields.listed_in.is_none()
            {
                self.error(
                    at,
                    "`from: headers` needs `listed_in`: the header that names them",
                );
            }
            self.fields.insert(name.clone(), Arc::new(fields));
        }
    }

    fn url(&mut self, at: &At<UrlSpec>) -> UrlForm {
        let Some(spec) = at.get() else {
            return UrlForm::default();
        };
        let variants = get(&spec.variants)
            .map(|all| copied(all))
            .unwrap_or_default();
        let has = |wanted: UrlVariant| variants.contains(&wanted);
        let mut decode = Vec::new();
        for at in get(&spec.decode).into_iter().flatten() {
            let byte = at
                .get()
                .and_then(|text| u8::from_str_radix(text.strip_prefix('%')?, 16).ok());
            match byte {
                Some(byte) if byte.is_ascii_graphic() => decode.push(byte),
                _ => self.error(
                    at,
                    "write a percent escape of a visible character, such as `%3A`",
                ),
            }
        }
        UrlForm {
            with_default_port: has(UrlVariant::WithDefaultPort),
            without_port: has(UrlVariant::WithoutPort),
            without_root_path: has(UrlVariant::WithoutRootPath),
            decode,
            instead: spec
                .instead
                .as_ref()
                .filter(|at| self.is_set(at))
                .and_then(|at| self.template(at)),
        }
    }
}

/// The value of an optional key.
pub(super) fn get<T>(at: &Option<At<T>>) -> Option<&T> {
    at.as_ref().and_then(At::get)
}

fn copied<T: Copy>(all: &[At<T>]) -> Vec<T> {
    all.iter().filter_map(|at| at.get().copied()).collect()
}

/// Whether how the URL is spelt makes a difference to any of these.
fn depend_on_spelling(contents: &[Vec<Part>]) -> bool {
    let mut parts = contents.iter().flatten();
    parts.any(|part| part.text.depends_on_spelling())
}
