//! All presets by name: those shipped in `rules/providers/`, and the operator's own over them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{self, Around};
use super::handshake::{self, Answers, Handshake};
use super::spec::{ParamSpec, ParamValue, PresetSpec, SchemeSpec};
use super::template::NO_VALUE;
use super::{Params, Scheme};
use crate::document::Document;
use crate::problem::{Problem, Report, suggest};

/// Name and text of every shipped preset, sorted by name.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// Presets by name. Shipped ones are parsed when they are asked for.
#[derive(Debug, Default)]
pub struct Catalog {
    overlays: BTreeMap<String, Arc<Preset>>,
    /// Those that were to be added and have mistakes: what they would have replaced must not stand in for them.
    broken: BTreeMap<String, Report>,
}

/// One provider: what is known of it, and its schemes.
#[derive(Debug)]
pub struct Preset {
    /// The file it came from, as diagnostics name it.
    pub file: String,
    /// What the file says.
    pub spec: PresetSpec,
}

/// A scheme of a preset.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The preset.
    pub preset: Arc<Preset>,
    /// The scheme that was asked for; `None` leaves it to the preset.
    scheme: Option<usize>,
}

/// Why there is no such preset.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file has mistakes.
    #[error("the preset has mistakes:\n{0}")]
    Broken(Report),
    /// No such name.
    #[error("there is no preset `{name}`")]
    UnknownProvider {
        /// As asked for.
        name: String,
    },
    /// The preset has no such scheme.
    #[error("preset `{provider}` has no scheme `{name}`")]
    UnknownScheme {
        /// The preset.
        provider: String,
        /// As asked for.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
}

impl Catalog {
    /// The shipped presets.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Adds or replaces a preset. `file` is its path; its stem must be the provider's name.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), Report> {
        let stem = Path::new(file)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let preset = Preset::parse(file, &stem, text)
            .inspect_err(|report| drop(self.broken.insert(stem.clone(), report.clone())))?;
        self.overlays.insert(stem, Arc::new(preset));
        Ok(())
    }

    /// Names of all presets, sorted.
    pub fn names(&self) -> Vec<String> {
        let shipped = BUILT_IN.iter().map(|(name, _)| (*name).to_owned());
        let all: BTreeSet<String> = shipped.chain(self.overlays.keys().cloned()).collect();
        all.into_iter().collect()
    }

    /// A preset by name.
    pub fn preset(&self, name: &str) -> Result<Arc<Preset>, CatalogError> {
        if let Some(preset) = self.overlays.get(name) {
            return Ok(Arc::clone(preset));
        }
        if let Some(report) = self.broken.get(name) {
            return Err(CatalogError::Broken(report.clone()));
        }
        let shipped = BUILT_IN.binary_search_by_key(&name, |(name, _)| *name).ok();
        let Some((name, text)) = shipped.and_then(|index| BUILT_IN.get(index)) else {
            return Err(CatalogError::UnknownProvider {
                name: name.to_owned(),
            });
        };
        let file = format!("rules/providers/{name}.yaml");
        Preset::parse(&file, name, text)
            .map(Arc::new)
            .map_err(CatalogError::Broken)
    }

    /// A scheme by `NAME` (its first) or `NAME/SCHEME`.
    pub fn find(&self, reference: &str) -> Result<Selected, CatalogError> {
        let (name, scheme) = match reference.split_once('/') {
            Some((name, scheme)) => (name, Some(scheme)),
            None => (reference, None),
        };
        let preset = self.preset(name)?;
        let scheme = match scheme {
            None => None,
            Some(id) => match preset.schemes().position(|(own, _)| own == id) {
                Some(index) => Some(index),
                None => {
                    return Err(CatalogError::UnknownScheme {
                        provider: name.to_owned(),
                        name: id.to_owned(),
                        known: preset.schemes().map(|(own, _)| own.to_owned()).collect(),
                    });
                }
            },
        };
        Ok(Selected { preset, scheme })
    }
}

impl Preset {
    /// Reads a preset file and compiles each of its schemes, so that a mistake in any of them shows.
    fn parse(file: &str, stem: &str, text: &str) -> Result<Self, Report> {
        let mut report = Report::new(file);
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(problems) => {
                for problem in problems {
                    report.push(problem);
                }
                return Err(report);
            }
        };
        let mut problems = Vec::new();
        let spec: Option<PresetSpec> = document.decode(&mut problems);
        if let Some(spec) = &spec {
            problems.extend(missing_keys(spec, &document, stem));
        }
        let preset = spec.map(|spec| Self {
            file: file.to_owned(),
            spec,
        });
        if let Some(preset) = preset.as_ref().filter(|_| problems.is_empty()) {
            let examples = preset.example_params();
            for (_, spec) in preset.schemes() {
                problems.extend(
                    compile::compile(spec, &examples, None, Around::default())
                        .err()
                        .unwrap_or_default(),
                );
            }
            let handshakes = preset.handshakes(&examples).err();
            problems.extend(handshakes.unwrap_or_default());
            problems.extend(preset.answers(&examples).err().unwrap_or_default());
        }
        problems.sort_by_key(|problem| problem.mark);
        problems.dedup();
        for problem in problems {
            report.push(problem);
        }
        match preset.filter(|_| !report.has_errors()) {
            Some(preset) => Ok(preset),
            None => Err(report),
        }
    }

    /// Its schemes with their ids, in the order of the file; the first is the default.
    pub fn schemes(&self) -> impl Iterator<Item = (&str, &SchemeSpec)> {
        self.spec
            .schemes
            .get()
            .into_iter()
            .flat_map(super::spec::Ordered::iter)
    }

    /// What it asks for beside secrets.
    pub fn params(&self) -> impl Iterator<Item = (&str, &ParamSpec)> {
        compile::get(&self.spec.params)
            .into_iter()
            .flat_map(super::spec::Ordered::iter)
    }

    fn handshakes(&self, params: &Params) -> Result<Vec<Handshake>, Vec<Problem>> {
        match compile::get(&self.spec.handshakes) {
            Some(specs) => handshake::handshakes(specs, params),
            None => Ok(Vec::new()),
        }
    }

    fn answers(&self, params: &Params) -> Result<Answers, Vec<Problem>> {
        match &self.spec.answers {
            Some(spec) => handshake::answers(spec, params),
            None => Ok(Answers::default()),
        }
    }

    /// A value such as an operator would write: the preset's example, else one that is made up.
    pub fn example(&self, name: &str, param: &ParamSpec) -> serde_json::Value {
        let known = compile::get(&param.one_of).and_then(|known| known.first());
        match (compile::get(&param.example), known) {
            (Some(example), _) => to_json(example),
            (None, Some(known)) => known.as_str().into(),
            (None, None) if self.is_key_url(name) => "https://keys.example.org/".into(),
            (None, None) => format!("your-{}", name.replace('_', "-")).into(),
        }
    }

    /// Whether a param is the URL of the keys of some scheme, or its beginning.
    fn is_key_url(&self, param: &str) -> bool {
        let start = format!("{{param:{param}}}");
        self.schemes().any(|(_, spec)| {
            let url = compile::get(&spec.key_url).and_then(|own| compile::get(&own.url));
            url.is_some_and(|url| url.starts_with(&start))
        })
    }

    /// A value for every param: the default, else the example.
    fn example_params(&self) -> Params {
        let value = |(name, spec): (&str, &ParamSpec)| {
            let default = compile::get(&spec.default).map(to_json);
            let value = default.unwrap_or_else(|| self.example(name, spec));
            (name.to_owned(), value)
        };
        self.params().map(value).collect()
    }

    /// The operator's params with defaults filled in, or all that is wrong with them.
    fn complete(&self, given: &Params) -> Result<Params, Vec<String>> {
        let mut wrong = Vec::new();
        let mut params = Params::new();
        let known: Vec<&str> = self.params().map(|(name, _)| name).collect();
        // Params that every handshake understands.
        let general = ["verify_token", "enrolment_window_open", "enrolment_file"];
        for (name, value) in given {
            if !known.contains(&name.as_str()) && !general.contains(&name.as_str()) {
                let close = suggest(name, known.iter().copied());
                let hint = match (close, known.is_empty()) {
                    (Some(close), _) => format!("; did you mean `{close}`?"),
                    (None, true) => "; this preset takes none".to_owned(),
                    (None, false) => format!("; it takes {}", known.join(", ")),
                };
                wrong.push(format!("there is no param `{name}`{hint}"));
            } else if value.is_null() {
                wrong.push(format!(
                    "param `{name}` has no value; write one, or leave it out"
                ));
            }
            params.insert(name.clone(), value.clone());
        }
        for (name, spec) in self.params() {
            if given.get(name).is_some_and(serde_json::Value::is_null) {
                continue;
            }
            let default = compile::get(&spec.default).map(to_json);
            let like = default
                .clone()
                .or_else(|| compile::get(&spec.example).map(to_json));
            if let (Some(value), Some(like)) = (params.get_mut(name), like)
                && let Err(kind) = take_kind(value, &like)
            {
                wrong.push(format!("param `{name}` is {kind}"));
                continue;
            }
            let optional = compile::get(&spec.optional).copied().unwrap_or_default();
            match (params.get(name), default) {
                (Some(value), _) if value.as_str() == Some("") && !optional => {
                    wrong.push(format!("param `{name}` is empty"));
                }
                // An empty item would ask for nothing, as if it had been left out by mistake.
                (Some(value), default) if holds_empty(value) && default.as_ref() != Some(value) => {
                    wrong.push(format!("param `{name}` holds an empty value; leave it out"));
                }
                (Some(value), _) => {
                    let known = compile::get(&spec.one_of);
                    if known
                        .is_some_and(|known| !known.iter().any(|own| value.as_str() == Some(own)))
                    {
                        let known = known.map(|known| known.join(", ")).unwrap_or_default();
                        wrong.push(format!("param `{name}` can be one of {known}"));
                    }
                }
                (None, Some(default)) => drop(params.insert(name.to_owned(), default)),
                (None, None) if optional => {}
                (None, None) => wrong.push(missing(name, spec)),
            }
        }
        if wrong.is_empty() {
            Ok(params)
        } else {
            Err(wrong)
        }
    }
}

/// Gives `value` the kind that the param has, as far as they say the same: one text for a list of one, the text
/// that an environment variable has for `true`, `false` or a number.
fn take_kind(value: &mut serde_json::Value, like: &serde_json::Value) -> Result<(), &'static str> {
    use serde_json::Value as V;
    let read = match (&*value, like) {
        (V::String(text), V::Array(_)) => Some(vec![text.clone()].into()),
        (V::String(text), V::Bool(_)) => text.parse::<bool>().ok().map(V::from),
        (V::String(text), V::Number(_)) => text.parse::<i64>().ok().map(V::from),
        // A list in place of a text is a choice of several.
        (V::Bool(_), V::Bool(_))
        | (V::Number(_), V::Number(_))
        | (V::Array(_), V::Array(_))
        | (V::String(_) | V::Number(_) | V::Bool(_) | V::Array(_), V::String(_)) => return Ok(()),
        _ => None,
    };
    match (read, like) {
        (Some(read), _) => *value = read,
        (None, V::Array(_)) => return Err("not a list of texts"),
        (None, V::Bool(_)) => return Err("neither `true` nor `false`"),
        (None, V::Number(_)) => return Err("not a whole number"),
        (None, _) => return Err("not a text"),
    }
    Ok(())
}

/// Whether it is empty, or one of its items is, or is no value at all. A list without items may mean that nothing
/// is allowed.
fn holds_empty(value: &serde_json::Value) -> bool {
    let is_no_item = |item: &serde_json::Value| {
        item.as_str() == Some("") || item.is_array() || item.is_object() || item.is_null()
    };
    value.as_str() == Some("")
        || value
            .as_array()
            .is_some_and(|items| items.iter().any(is_no_item))
}

fn to_json(value: &ParamValue) -> serde_json::Value {
    match value {
        ParamValue::Bool(value) => (*value).into(),
        ParamValue::Int(value) => (*value).into(),
        ParamValue::Text(value) => value.as_str().into(),
        ParamValue::List(values) => values.clone().into(),
    }
}

/// Required keys that are absent, and a name that is not the file's.
fn missing_keys(spec: &PresetSpec, document: &Document, stem: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let top = document.place("");
    let present = [
        ("provider", spec.provider.place().is_some()),
        ("title", spec.title.place().is_some()),
        ("category", spec.category.place().is_some()),
        ("confidence", spec.confidence.place().is_some()),
        ("sources", spec.sources.place().is_some()),
        ("secret", spec.secret.place().is_some()),
        ("schemes", spec.schemes.place().is_some()),
    ];
    for (key, _) in present.iter().filter(|(_, present)| !present) {
        problems.push(top.error(format!("the key `{key}` is missing"), None));
    }
    if let (Some(name), Some(place)) = (spec.provider.get(), spec.provider.place())
        && name != stem
    {
        let hint = format!("write `{stem}`, or rename the file");
        problems.push(place.error("the provider is not called as its file is", Some(hint)));
    }
    if let (Some(schemes), Some(place)) = (spec.schemes.get(), spec.schemes.place())
        && schemes.0.is_empty()
    {
        problems.push(place.error("a preset has at least one scheme", None));
    }
    for (id, at) in spec
        .schemes
        .get()
        .into_iter()
        .flat_map(|schemes| &schemes.0)
    {
        let lacks = at
            .get()
            .is_some_and(|scheme| scheme.algorithm.place().is_none());
        if let Some(place) = at.place().filter(|_| lacks) {
            problems.push(place.error(format!("scheme `{id}` lacks `algorithm`"), None));
        }
    }
    problems
}

impl Selected {
    /// Id of the scheme, with the operator's `params`.
    fn index(&self, params: &Params) -> usize {
        let named = || {
            let from = compile::get(&self.preset.spec.scheme_from)?;
            let id = params.get(from)?.as_str()?;
            self.preset.schemes().position(|(own, _)| own == id)
        };
        self.scheme.or_else(named).unwrap_or_default()
    }

    /// Id of the scheme, where no param chooses.
    pub fn scheme_id(&self) -> &str {
        self.preset
            .schemes()
            .nth(self.scheme.unwrap_or_default())
            .map_or("", |(id, _)| id)
    }

    /// What the file says about the scheme, where no param chooses.
    pub fn spec(&self) -> Option<&SchemeSpec> {
        self.preset
            .schemes()
            .nth(self.scheme.unwrap_or_default())
            .map(|(_, spec)| spec)
    }

    /// Whether a param says which scheme it is.
    pub fn is_chosen_by_param(&self) -> bool {
        self.scheme.is_none() && self.preset.spec.scheme_from.is_some()
    }

    /// Compiles the scheme with the operator's `params`; `tolerance` replaces the preset's. Each
    /// message is one thing that is wrong with what the operator gave.
    pub fn bind(
        &self,
        params: &Params,
        tolerance: Option<Duration>,
    ) -> Result<Scheme, Vec<String>> {
        let params = self.preset.complete(params)?;
        let (_, spec) = self
            .preset
            .schemes()
            .nth(self.index(&params))
            .ok_or_else(|| vec!["the preset has no scheme".to_owned()])?;
        let scheme = compile::compile(spec, &params, tolerance, Around::default());
        let mut scheme =
            scheme.map_err(|problems| self.preset.explained(messages(problems), &params))?;
        let handshakes = self.preset.handshakes(&params).map_err(messages)?;
        let answers = self.preset.answers(&params).map_err(messages)?;
        scheme.challenges = handshakes.iter().flat_map(Handshake::challenges).collect();
        scheme.challenges.extend(answers.challenges());
        Ok(scheme)
    }

    /// The handshakes of the preset, with the operator's `params`.
    pub fn handshakes(&self, params: &Params) -> Result<Vec<Handshake>, Vec<String>> {
        let params = self.preset.complete(params)?;
        self.preset.handshakes(&params).map_err(messages)
    }

    /// What the provider wants to read in answers, with the operator's `params`.
    pub fn answers(&self, params: &Params) -> Result<Answers, Vec<String>> {
        let params = self.preset.complete(params)?;
        self.preset.answers(&params).map_err(messages)
    }
}

impl Preset {
    /// What is wrong with the params that a scheme wants; all else may follow from it.
    fn explained(&self, messages: Vec<String>, params: &Params) -> Vec<String> {
        let mut wanted: Vec<String> = Vec::new();
        for message in &messages {
            let name = message.strip_prefix("param `");
            let name = name.and_then(|rest| rest.strip_suffix(NO_VALUE));
            let param = name.and_then(|name| self.params().find(|(own, _)| *own == name));
            let told = match param {
                Some((name, _)) if params.contains_key(name) => {
                    format!("param `{name}` holds a list where the scheme wants one value")
                }
                Some((name, spec)) => missing(name, spec),
                None => continue,
            };
            if !wanted.contains(&told) {
                wanted.push(told);
            }
        }
        if wanted.is_empty() { messages } else { wanted }
    }
}

fn missing(name: &str, param: &ParamSpec) -> String {
    let about = param.about.get().map(String::as_str).unwrap_or_default();
    format!("param `{name}` is missing: {about}")
}

fn messages(problems: Vec<Problem>) -> Vec<String> {
    problems
        .into_iter()
        .map(|problem| problem.message)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A preset whose keys are at `url`, a template of the param `keys`.
    fn preset(url: &str, param: &str) -> Result<Catalog, String> {
        let text = format!(
            "provider: x\ntitle: X\ncategory: x\nconfidence: high\nsources: [x]\nsecret: x\n\
             params:\n  keys: {{ {param} }}\n\
             schemes:\n  s:\n    algorithm: ed25519\n    signature: {{ header: X-Sig }}\n    \
             signed: \"{{body}}\"\n    key_url: {{ url: \"{url}\" }}\n"
        );
        let mut catalog = Catalog::built_in();
        let added = catalog.add("x.yaml", &text);
        added.map(|()| catalog).map_err(|report| report.to_string())
    }

    #[test]
    fn a_url_of_keys_may_be_the_operators() {
        for url in [
            "{param:keys}",
            "{param:keys}/jwks.json",
            "https://{param:keys}/jwks.json",
        ] {
            let catalog = preset(url, "about: Where the keys are.").expect(url);
            let selected = catalog.find("x").unwrap();
            assert!(selected.bind(&Params::new(), None).is_err(), "{url}");
        }
        let catalog = preset("{param:keys}", "about: Where the keys are.").unwrap();
        let bind = |url: &str| {
            let params = Params::from([("keys".to_owned(), url.into())]);
            catalog.find("x").unwrap().bind(&params, None)
        };
        let scheme = bind("https://keys.example.org/a").unwrap();
        assert!(scheme.fixed_key_url().is_some());
        assert_eq!(
            bind("http://keys.example.org/a").err(),
            Some(vec!["the URL is not https".to_owned()])
        );
    }

    #[test]
    fn what_makes_no_url_of_keys_is_told_how_it_would() {
        let wrong = preset("https://keys.example.org:{param:keys}/", "about: A port.").unwrap_err();
        assert!(wrong.contains("x.yaml:14:21"), "{wrong}");
        assert!(
            wrong.contains(
                "it reads `https://keys.example.org:your-keys/`; give the param an `example`"
            ),
            "{wrong}"
        );
        let port = preset(
            "https://keys.example.org:{param:keys}/",
            "about: A port., example: 8443",
        );
        assert!(port.is_ok());
    }
}
