//! Where values stand: the signature, the timestamp, ids, and how each is written.

use std::time::Duration;

use http::HeaderName;

use super::{Compiler, TOLERANCE_DEFAULT, get};
use crate::document::{At, OneOrMany};
use crate::scheme::charset::Charset;
use crate::scheme::locate::{Location, Pointer};
use crate::scheme::parse::{List, SignatureForm};
use crate::scheme::primitive::Hash;
use crate::scheme::spec::{Algorithm, ListSpec, LocationSpec, SignatureSpec, TimestampSpec};
use crate::scheme::template::Template;
use crate::scheme::{IdForm, Scheme, Timestamp, Tolerance};
use crate::units::Span;

/// Header fields that a numbered name stands for.
const NUMBERED_MAX: usize = 100;

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

impl Compiler<'_> {
    pub(in crate::scheme) fn header(&mut self, at: &At<String>) -> Option<HeaderName> {
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

    pub(in crate::scheme) fn pointer(&mut self, at: &At<String>) -> Option<Pointer> {
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
    pub(super) fn id_form(&mut self, at: &At<LocationSpec>) -> IdForm {
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
    pub(super) fn locations(&mut self, at: Option<&At<LocationSpec>>) -> Vec<Location> {
        at.map(|at| self.location(at)).unwrap_or_default()
    }

    /// All places of a value.
    pub(super) fn location(&mut self, at: &At<LocationSpec>) -> Vec<Location> {
        let Some(spec) = at.get() else {
            return Vec::new();
        };
        self.places(at, &written!(spec), item(&spec.item), "item")
    }

    pub(super) fn signature(&mut self, at: &At<SignatureSpec>) -> Option<SignatureForm> {
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

    pub(super) fn timestamp(
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
}

fn item(name: &Option<At<String>>) -> Option<Location> {
    get(name).map(|name| Location::Item(name.as_str().into()))
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
