//! From what a preset says to a [`Scheme`]: everything that can be decided before a request comes is
//! decided here, and every mistake is a [`Problem`] with its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::aws_sns::AwsSns;
use super::charset::Charset;
use super::delivery::Identity;
use super::fields::{Fields, Piece};
use super::http_signature::HttpSignature;
use super::https_url::{HttpsUrl, KeyUrl, NamedKeyUrl, Reach};
use super::jws::JwsAlgorithm;
use super::jwt::{Claim, ClaimPath, Jwt};
use super::key_source::KeySource;
use super::locate::{Location, Pointer};
use super::parse::{List, SecretForm, SignatureForm};
use super::primitive::{Digest, Hash};
use super::public_key::SignatureAlgorithm;
use super::spec::{
    Algorithm, ClaimTime, FieldsSpec, JwtSpec, KeyUrlSpec, ListSpec, LocationSpec, Ordered,
    PartSpec, RequireSpec, SchemeSpec, SignatureSpec, TimestampSpec, UrlSpec, UrlVariant, WhenSpec,
};
use super::template::{Names, Template};
use super::when::When;
use super::x5c::ChainRules;
use super::{
    IdForm, KeyKind, Loose, Params, Part, Proof, Require, Scheme, Timestamp, Tolerance, UrlForm,
};
use crate::document::{At, OneOrMany, Place};
use crate::problem::{Mark, Problem, Severity};
use crate::units::Span;

/// Tolerance where neither preset nor operator says otherwise: what most providers document.
const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);

/// How far the clock of a token's maker may be ahead of ours (RFC 7519 section 4.1.5).
const NOT_BEFORE_LEEWAY: Duration = Duration::from_mins(1);

/// Header fields that a numbered name stands for.
const NUMBERED_MAX: usize = 100;

/// Compiles a scheme. `params` are what the operator configured, defaults filled in.
pub(super) fn compile(
    spec: &SchemeSpec,
    params: &Params,
    tolerance: Option<Duration>,
) -> Result<Scheme, Vec<Problem>> {
    let mut compiler = Compiler::new(params);
    let scheme = compiler.scheme(spec, tolerance);
    match scheme {
        Some(scheme) if compiler.problems.is_empty() => Ok(scheme),
        _ if compiler.problems.is_empty() => Err(vec![problem(None, "the scheme is incomplete")]),
        _ => Err(compiler.problems),
    }
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
    texts: HashMap<String, Arc<Template>>,
    fields: HashMap<String, Arc<Fields>>,
    pub(super) problems: Vec<Problem>,
}

/// What a spec says about where a value stands.
struct Written<'s> {
    header: Option<&'s At<OneOrMany<String>>>,
    form: Option<&'s At<String>>,
    json: Option<&'s At<String>>,
    xml: Option<&'s At<String>>,
    query: Option<&'s At<String>>,
}

/// The keys of a spec that name a place of the request. Each spec repeats them, because serde loses the positions of
/// what is flattened into it.
macro_rules! written {
    ($spec:expr) => {
        Written {
            header: $spec.header.as_ref(),
            form: $spec.form.as_ref(),
            json: $spec.json.as_ref(),
            xml: $spec.xml.as_ref(),
            query: $spec.query.as_ref(),
        }
    };
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

/// Whether a param says no: `false`, also as the environment writes it.
fn is_off(value: &serde_json::Value) -> bool {
    *value == serde_json::Value::Bool(false) || value.as_str() == Some("false")
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
        // Where it is wrong, which has been reported, what does not depend on it is read all the same.
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
        // What is signed has been reported as wrong: what it covers is not known.
        if is_content_known && known.is_some() {
            scheme.timestamp = timestamp_spec.and_then(|at| self.timestamp(at, &scheme, tolerance));
        }
        known?;
        scheme.identity = scheme.identity();
        scheme.loose = scheme.loose();
        if timestamp_spec.is_none() && tolerance.is_some() && algorithm != Algorithm::Jwt {
            self.problems.push(problem(
                spec.algorithm.place(),
                "this scheme has no timestamp, so it can have no `tolerance`",
            ));
        }
        self.consistent(spec, algorithm, &scheme);
        Some(scheme)
    }

    /// What one key alone cannot tell: what belongs together.
    fn consistent(&mut self, spec: &SchemeSpec, algorithm: Algorithm, scheme: &Scheme) {
        let place = spec.algorithm.place();
        let mut need = |holds: bool, message: &str| {
            if !holds {
                self.problems.push(problem(place, message));
            }
        };
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
            !matches!(scheme.proof, Proof::Digest(_))
                || scheme.always_signs(Template::covers_secret),
            "a plain hash proves nothing unless `{secret}` is in all of `signed` and `signed_or`, on no condition",
        );
        need(
            !covers(&Template::covers_id) || spec.id.is_some(),
            "`{id}` needs `id`: where it stands",
        );
        need(
            !covers(&Template::covers_timestamp) || spec.timestamp.is_some(),
            "`{timestamp}` needs `timestamp`: where it stands",
        );
        need(
            scheme.key_source.is_none() || scheme.key_kind() == KeyKind::Public,
            "`key_url` is for public keys; this algorithm wants a secret",
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

    fn jwt(&mut self, at: &At<JwtSpec>, tolerance: Option<Duration>) -> Jwt {
        let mut jwt = Jwt {
            algorithms: Vec::new(),
            claims: Vec::new(),
            detached: false,
            x5c: None,
        };
        let Some(spec) = at.get() else { return jwt };
        for at in spec.algorithms.get().into_iter().flatten() {
            match at.get().and_then(|name| JwsAlgorithm::from_name(name)) {
                Some(algorithm) => jwt.algorithms.push(algorithm),
                None => self.error(
                    at,
                    "not an algorithm of tokens; write `HS256`, `RS256`, `ES256` ...",
                ),
            }
        }
        let symmetric = jwt
            .algorithms
            .iter()
            .filter(|own| own.is_symmetric())
            .count();
        if jwt.algorithms.is_empty() || (symmetric > 0 && symmetric < jwt.algorithms.len()) {
            self.error(
                at,
                "`algorithms` are one or more that verify with the same kind of key",
            );
        }
        for (name, at) in get(&spec.claims)
            .map(|all| all.0.as_slice())
            .unwrap_or_default()
        {
            let Some(claim) = at.get() else { continue };
            let meaning = get(&claim.time).copied();
            let fallback = match meaning {
                Some(ClaimTime::Issued) => tolerance.unwrap_or(TOLERANCE_DEFAULT),
                Some(ClaimTime::NotBefore) => NOT_BEFORE_LEEWAY,
                Some(ClaimTime::NotAfter) | None => Duration::ZERO,
            };
            let leeway = get(&claim.leeway).map_or(fallback, |parsed| parsed.0.0);
            jwt.claims.push(Claim {
                path: ClaimPath::new(name),
                equals: claim.equals.as_ref().map(|at| self.some_choices(at)),
                ignore_case: get(&claim.ignore_case).copied().unwrap_or_default(),
                time: meaning.map(|meaning| (meaning, leeway)),
                optional: get(&claim.optional).copied().unwrap_or_default(),
                optional_when: claim.optional_when.as_ref().map(|at| self.when(at)),
                when: claim
                    .when
                    .as_ref()
                    .map(|at| self.when(at))
                    .unwrap_or_default(),
            });
        }
        jwt.detached = get(&spec.detached).copied().unwrap_or_default();
        jwt.x5c = get(&spec.x5c).map(|own| ChainRules {
            leaf_oid: get(&own.leaf_oid).cloned(),
            intermediate_oid: get(&own.intermediate_oid).cloned(),
        });
        jwt
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

    /// As [`Compiler::choices`], where none would let nobody, or anybody, pass.
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

    pub(super) fn header(&mut self, at: &At<String>) -> Option<HeaderName> {
        let name = self.text(at)?;
        if let Ok(name) = name.parse() {
            return Some(name);
        }
        self.error(at, format!("`{name}` is not a header name"));
        None
    }

    fn headers(&mut self, at: Option<&At<OneOrMany<String>>>) -> Vec<Location> {
        let Some(OneOrMany(names)) = at.and_then(At::get) else {
            return Vec::new();
        };
        let mut places = Vec::new();
        for at in names {
            let Some(text) = at.get() else { continue };
            if text.contains("{n}") {
                let numbered = (1..=NUMBERED_MAX)
                    .filter_map(|n| text.replace("{n}", &n.to_string()).parse().ok());
                places.extend(numbered.map(Location::Header));
            } else {
                places.extend(self.header(at).map(Location::Header));
            }
        }
        places
    }

    pub(super) fn pointer(&mut self, at: &At<String>) -> Option<Pointer> {
        let text = self.text(at)?;
        let pointer = Pointer::parse(&text);
        if pointer.is_none() {
            self.error(
                at,
                format!("`{text}` is not a JSON pointer (RFC 6901); it begins with `/`"),
            );
        }
        pointer
    }

    fn xml(&mut self, at: &At<String>) -> Option<Location> {
        let text = self.text(at)?;
        let place = Location::xml(&text);
        if place.is_none() {
            self.error(
                at,
                format!("`{text}` is not a path of elements; write `/Envelope/Body/Id`"),
            );
        }
        place
    }

    /// What the value may look like.
    fn id_form(&mut self, at: &At<LocationSpec>) -> IdForm {
        let Some(spec) = at.get() else {
            return IdForm::default();
        };
        let charset = spec.charset.as_ref().and_then(|at| {
            let parsed = Charset::parse(at.get()?);
            parsed.map_err(|message| self.error(at, message)).ok()
        });
        IdForm {
            without: get(&spec.without).cloned(),
            charset,
        }
    }

    /// Places in the order they are tried: the query comes last, since a stranger can add to that of a
    /// request whose body is signed; and then what `word` may name besides.
    fn places<T>(
        &mut self,
        at: &At<T>,
        written: &Written<'_>,
        besides: Option<Location>,
        word: &str,
    ) -> Vec<Location> {
        let mut places = self.headers(written.header);
        let form = written.form.and_then(|at| self.text(at));
        places.extend(form.map(|name| Location::Form(name.into())));
        let json = written.json.and_then(|at| self.pointer(at));
        places.extend(json.map(Location::Json));
        places.extend(written.xml.and_then(|at| self.xml(at)));
        let query = written.query.and_then(|at| self.text(at));
        places.extend(query.map(|name| Location::Query(name.into())));
        places.extend(besides);
        if places.is_empty() {
            let known = "`header`, `query`, `form`, `json`, `xml`";
            self.error(at, format!("say where it stands: {known} or `{word}`"));
        }
        places
    }

    /// All places of a value that a scheme may leave out.
    fn locations(&mut self, at: Option<&At<LocationSpec>>) -> Vec<Location> {
        at.map(|at| self.location(at)).unwrap_or_default()
    }

    /// All places of a value.
    fn location(&mut self, at: &At<LocationSpec>) -> Vec<Location> {
        let Some(spec) = at.get() else {
            return Vec::new();
        };
        self.places(at, &written!(spec), item(&spec.item), "item")
    }

    fn signature(&mut self, at: &At<SignatureSpec>) -> Option<SignatureForm> {
        let spec = at.get()?;
        let body = get(&spec.body).filter(|is_body| **is_body);
        let body = body.map(|_| Location::Body);
        let places = self.places(at, &written!(spec), body, "body");
        let numbered = get(&spec.header).is_some_and(|OneOrMany(names)| {
            names
                .iter()
                .any(|name| name.get().is_some_and(|name| name.contains("{n}")))
        });
        Some(SignatureForm {
            places,
            repeated: get(&spec.repeated).copied().unwrap_or_default() || numbered,
            paired: get(&spec.paired).copied().unwrap_or_default(),
            base64_json: spec.base64_json.as_ref().and_then(|at| self.pointer(at)),
            prefix: spec.prefix.as_ref().and_then(|at| self.text(at)),
            prefix_optional: get(&spec.prefix_optional).copied().unwrap_or_default(),
            prefixes: self.prefixes(spec),
            list: spec.list.as_ref().and_then(|at| self.list(at)),
            encoding: get(&spec.encoding).copied().unwrap_or_default(),
        })
    }

    fn list(&mut self, at: &At<ListSpec>) -> Option<List> {
        let spec = at.get()?;
        if spec.separator.get().is_none_or(String::is_empty) {
            self.error(at, "say what stands between items: `separator`");
        }
        let take = get(&spec.take).map(|OneOrMany(names)| names.as_slice());
        let take = take.unwrap_or_default().iter();
        Some(List {
            separator: spec.separator.get()?.clone(),
            groups: get(&spec.groups).cloned(),
            assign: get(&spec.assign).cloned(),
            take: take.filter_map(|at| self.text(at)).collect(),
            others: Vec::new(),
        })
    }

    fn prefixes(&mut self, spec: &SignatureSpec) -> Vec<(String, Hash)> {
        let Some(at) = &spec.prefixes else {
            return Vec::new();
        };
        let allowed = get(&spec.prefixes_from).and_then(|name| self.params.get(name)?.as_array());
        let is_allowed = |prefix: &str| {
            let name = prefix.trim_end_matches(['=', ':', ' ']);
            allowed.is_none_or(|all| all.iter().any(|own| own.as_str() == Some(name)))
        };
        let mut known = Vec::new();
        for (prefix, own) in at.get().map(|all| all.0.as_slice()).unwrap_or_default() {
            match own.get().copied().map(hash_of) {
                Some(Some(hash)) if is_allowed(prefix) => known.push((prefix.clone(), hash)),
                Some(Some(_)) | None => {}
                Some(None) => {
                    self.error(own, "only the `hmac-...` algorithms can have a prefix each");
                }
            }
        }
        if known.is_empty() {
            self.error(at, "no algorithm is left to verify with");
        }
        known
    }

    fn timestamp(
        &mut self,
        at: &At<TimestampSpec>,
        scheme: &Scheme,
        tolerance: Option<Duration>,
    ) -> Option<Timestamp> {
        let spec = at.get()?;
        let places = self.places(at, &written!(spec), item(&spec.item), "item");
        let covered = places
            .iter()
            .all(|place| scheme.covers_place(place) || scheme.covers_pair(place))
            || scheme.always_signs(Template::covers_timestamp);
        let signed = get(&spec.signed).copied().unwrap_or(true);
        if signed && !covered && spec.signed.is_none() {
            self.error(
                at,
                "nothing in `signed` shows that the signature covers this timestamp; write `signed: false`, or \
                 `signed: true` where you know that it does",
            );
        }
        if !signed && tolerance.is_some() {
            self.error(
                at,
                "the timestamp is not signed, so a `tolerance` would prove nothing",
            );
        }
        let own = get(&spec.tolerance).map(|parsed| {
            let Span(span) = parsed.0;
            span
        });
        let span = tolerance.or(own).unwrap_or(TOLERANCE_DEFAULT);
        Some(Timestamp {
            places,
            unit: get(&spec.unit).copied().unwrap_or_default(),
            optional: get(&spec.optional).copied().unwrap_or_default(),
            tolerance: signed.then_some(Tolerance {
                past: span,
                future: span,
            }),
        })
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

    pub(super) fn require(&mut self, at: &At<RequireSpec>) -> Option<Require> {
        let spec = at.get()?;
        let header = spec
            .header
            .as_ref()
            .and_then(|at| self.header(at))
            .map(Location::Header);
        let query = spec.query.as_ref().and_then(|at| self.text(at));
        let query = query.map(|name| Location::Query(name.into()));
        let json = spec
            .json
            .as_ref()
            .and_then(|at| self.pointer(at))
            .map(Location::Json);
        let place = header.or(query).or(json);
        if place.is_none() {
            self.error(
                at,
                "say where the value stands: `header`, `query` or `json`",
            );
        }
        if spec.equals.is_none() && spec.contains.is_none() {
            self.error(at, "say what the value must be: `equals` or `contains`");
        }
        let is_secret = |at: &At<String>| at.get().is_some_and(|text| text == "{secret}");
        let secret = get(&spec.equals).is_some_and(|OneOrMany(all)| all.iter().any(is_secret));
        let pointer = get(&spec.json).filter(|text| text.split('/').any(|token| token == "*"));
        Some(Require {
            place: place?,
            secret,
            each: pointer.and_then(|text| Pointer::parse(text)),
            contains: get(&spec.contains).cloned().unwrap_or_default(),
            base64_json: spec.base64_json.as_ref().and_then(|at| self.pointer(at)),
            item: get(&spec.item).cloned(),
            separator: get(&spec.separator)
                .cloned()
                .unwrap_or_else(|| ",".to_owned()),
            equals: match &spec.equals {
                Some(at) if !secret => self.choices(at),
                _ => Vec::new(),
            },
            optional: get(&spec.optional).copied().unwrap_or_default(),
        })
    }

    pub(super) fn when(&mut self, at: &At<WhenSpec>) -> When {
        at.get().map(|spec| self.when_of(spec)).unwrap_or_default()
    }

    fn when_of(&mut self, spec: &WhenSpec) -> When {
        let mut when = When {
            body: get(&spec.body).copied(),
            ..When::default()
        };
        if let Some(at) = &spec.method {
            when.method = at
                .get()
                .and_then(|text| Method::from_bytes(text.as_bytes()).ok());
        }
        if let Some(at) = &spec.header {
            when.present.extend(self.header(at).map(Location::Header));
        }
        if let Some(at) = &spec.query {
            when.present
                .extend(self.text(at).map(|name| Location::Query(name.into())));
        }
        if let Some(at) = &spec.form {
            when.present
                .extend(self.text(at).map(|name| Location::Form(name.into())));
        }
        when.any_query = get(&spec.any_query).copied().unwrap_or_default();
        if let Some(at) = &spec.not {
            let not = at.get().map(|own| self.when_of(own));
            when.not = not.map(Box::new);
        }
        if let Some(at) = &spec.json {
            when.present.extend(self.pointer(at).map(Location::Json));
        }
        if let Some(name) = get(&spec.param) {
            let value = self.params.get(name);
            when.never = value.is_none_or(is_off);
        }
        for (name, value) in get(&spec.header_equals)
            .map(Ordered::iter)
            .into_iter()
            .flatten()
        {
            when.equal.extend(
                name.parse()
                    .ok()
                    .map(|name| (Location::Header(name), value.clone())),
            );
        }
        for (name, value) in get(&spec.query_equals)
            .map(Ordered::iter)
            .into_iter()
            .flatten()
        {
            when.equal
                .push((Location::Query(name.into()), value.clone()));
        }
        for (name, value) in get(&spec.json_equals)
            .map(Ordered::iter)
            .into_iter()
            .flatten()
        {
            let pointer = Pointer::parse(name);
            when.equal
                .extend(pointer.map(|pointer| (Location::Json(pointer), value.clone())));
        }
        when
    }

    fn key_source(&mut self, at: &At<KeyUrlSpec>) -> Option<KeySource> {
        let spec = at.get()?;
        let inside = spec.json.as_ref().and_then(|at| self.text(at));
        if let Some(url) = &spec.url {
            if !self.is_set(url) {
                return None; // the operator gives the URL, or keys
            }
            let is_written = url.get().is_some_and(|text| text.contains("{param:"));
            let text = self.text(url)?;
            return match HttpsUrl::parse(&text) {
                Ok(parsed) => {
                    let mut key_url = KeyUrl::of_preset(parsed, Vec::new());
                    // A URL that the operator wrote may be in the operator's own network.
                    if is_written {
                        key_url.reach = Reach::Any;
                    }
                    key_url.inside = inside.map(Into::into);
                    Some(KeySource::Fixed(key_url))
                }
                Err(message) => {
                    let hint = is_written.then(|| {
                        format!("it reads `{text}`; give the param an `example` that makes it one")
                    });
                    let problem = problem(url.place(), message);
                    self.problems.push(Problem { hint, ..problem });
                    None
                }
            };
        }
        let header = spec.header.as_ref().and_then(|at| self.header(at));
        let Some(header) = header else {
            self.error(at, "keys are at one `url`, or at one that a `header` names");
            return None;
        };
        let hosts: Vec<String> = get(&spec.hosts)
            .into_iter()
            .flatten()
            .filter_map(|at| self.text(at))
            .collect();
        let names =
            get(&spec.certificate_name).map(|OneOrMany(all)| all.iter().collect::<Vec<_>>());
        let names: Vec<_> = names
            .unwrap_or_default()
            .into_iter()
            .filter_map(|at| self.text(at))
            .map(Into::into)
            .collect();
        if names.is_empty() {
            self.error(at, "a URL that a request names needs `certificate_name`");
        }
        match NamedKeyUrl::new(header, hosts.iter().map(String::as_str), names) {
            Ok(named) => Some(KeySource::Named(named)),
            Err(message) => {
                self.error(at, message);
                None
            }
        }
    }

    fn secret(&mut self, spec: &SchemeSpec) -> SecretForm {
        let Some(secret) = get(&spec.secret) else {
            return SecretForm::default();
        };
        let prefixes = get(&secret.prefix).map(|OneOrMany(all)| all.iter().collect::<Vec<_>>());
        SecretForm {
            encoding: get(&secret.encoding).copied().unwrap_or_default(),
            prefixes: prefixes
                .unwrap_or_default()
                .into_iter()
                .filter_map(|at| self.text(at))
                .collect(),
            transform: get(&secret.transform).copied(),
        }
    }
}

/// The value of an optional key.
pub(super) fn get<T>(at: &Option<At<T>>) -> Option<&T> {
    at.as_ref().and_then(At::get)
}

fn item(name: &Option<At<String>>) -> Option<Location> {
    get(name).map(|name| Location::Item(name.as_str().into()))
}

fn copied<T: Copy>(all: &[At<T>]) -> Vec<T> {
    all.iter().filter_map(|at| at.get().copied()).collect()
}

fn hash_of(algorithm: Algorithm) -> Option<Hash> {
    Some(match algorithm {
        Algorithm::HmacMd5 => Hash::Md5,
        Algorithm::HmacSha1 => Hash::Sha1,
        Algorithm::HmacSha256 => Hash::Sha256,
        Algorithm::HmacSha384 => Hash::Sha384,
        Algorithm::HmacSha512 => Hash::Sha512,
        _ => return None,
    })
}

/// Whether how the URL is spelt makes a difference to any of these.
fn depend_on_spelling(contents: &[Vec<Part>]) -> bool {
    let mut parts = contents.iter().flatten();
    parts.any(|part| part.text.depends_on_spelling())
}
