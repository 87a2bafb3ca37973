//! The shipped presets: each one compiles, has vectors, signs what it verifies, and stands on the
//! page of all presets, which is made from the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use data_encoding::{BASE64, HEXLOWER};
use hookward::document::OneOrMany;
use hookward::scheme::catalog::{Catalog, Preset};
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::sign::Draft;
use hookward::scheme::spec::{
    Algorithm, ClaimTime, Confidence, JwtSpec, Ordered, ParamValue, SchemeSpec, SecretEncoding,
};
use hookward::scheme::{Content, KeyKind, Message, Params, Scheme, SenderUrl};
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::vectors::cases;

const NOW: UnixTime = UnixTime::from_secs(1_767_225_600);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every shipped preset, or what is wrong with it.
fn presets() -> Vec<std::sync::Arc<Preset>> {
    let catalog = Catalog::built_in();
    let mut broken = Vec::new();
    let mut presets = Vec::new();
    for name in catalog.names() {
        match catalog.preset(&name) {
            Ok(preset) => presets.push(preset),
            Err(error) => broken.push(error.to_string()),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    presets
}

fn name(preset: &Preset) -> &str {
    preset.spec.provider.get().unwrap()
}

/// A value for every param: the default, the first that it can have, or an example.
fn example_params(preset: &Preset) -> Params {
    let mut params = Params::new();
    for (name, spec) in preset.params() {
        let known = spec
            .one_of
            .as_ref()
            .and_then(|at| at.get()?.first().cloned());
        let value = match (spec.default.as_ref().and_then(|at| at.get()), known) {
            (Some(ParamValue::Bool(value)), _) => (*value).into(),
            (Some(ParamValue::Int(value)), _) => (*value).into(),
            (Some(ParamValue::Text(value)), _) => value.as_str().into(),
            (Some(ParamValue::List(values)), _) => values.clone().into(),
            (None, Some(known)) => known.into(),
            (None, None) => "https://example.org/hooks".into(),
        };
        params.insert(name.to_owned(), value);
    }
    params
}

/// Each scheme as `NAME` or `NAME/SCHEME`, compiled with example params.
fn schemes(preset: &Preset) -> Vec<(String, Scheme)> {
    let catalog = Catalog::built_in();
    let params = example_params(preset);
    let bind = |(id, _): (&str, &SchemeSpec)| {
        let reference = format!("{}/{id}", name(preset));
        let bound = catalog.find(&reference).unwrap().bind(&params, None);
        let scheme = bound.unwrap_or_else(|wrong| panic!("{reference}: {}", wrong.join("; ")));
        (reference, scheme)
    };
    preset.schemes().map(bind).collect()
}

#[test]
fn every_preset_compiles() {
    let presets = presets();
    assert!(presets.len() > 200, "only {} presets", presets.len());
    for preset in presets {
        assert!(!schemes(&preset).is_empty(), "{}", name(&preset));
    }
}

/// A preset without vectors is a claim without proof.
#[test]
fn every_preset_has_an_accepted_and_a_refused_case() {
    let mut verdicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in cases() {
        let preset = case.preset.split('/').next().unwrap().to_owned();
        verdicts.entry(preset).or_default().insert(case.expect);
    }
    let mut wrong = Vec::new();
    for preset in presets() {
        let has = verdicts.remove(name(&preset)).unwrap_or_default();
        // Where the provider proves nothing, there is nothing to refuse.
        let proves = preset.schemes().any(|(_, scheme)| {
            scheme
                .algorithm
                .get()
                .is_some_and(|own| *own != Algorithm::None)
        });
        if !has.contains("accept") {
            wrong.push(format!("{}: no accepted case", name(&preset)));
        }
        if proves && !has.contains("reject") {
            wrong.push(format!("{}: no refused case", name(&preset)));
        }
    }
    wrong.extend(
        verdicts
            .keys()
            .map(|stray| format!("{stray}: vectors without a preset")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `{SOURCE:NAME}` in the templates of a scheme asks of a request.
#[derive(Default)]
struct Wants {
    form: BTreeSet<String>,
    header: BTreeSet<String>,
    json: BTreeSet<String>,
    query: BTreeSet<String>,
    xml: BTreeSet<String>,
}

impl Wants {
    fn of(scheme: &serde_yaml::Value) -> Self {
        let text = serde_yaml::to_string(scheme).unwrap();
        let mut wants = Self::default();
        if Self::is_of_form(scheme) {
            wants.form.insert("greeting".to_owned());
        }
        for inner in text
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
        {
            let source = inner.split('|').next().unwrap().trim_end_matches('?');
            let Some((word, argument)) = source.split_once(':') else {
                continue;
            };
            let list = match word {
                "form" => &mut wants.form,
                "header" => &mut wants.header,
                "json" | "json_compact" | "json_raw" | "json_sorted" => &mut wants.json,
                "query" => &mut wants.query,
                "xml" => &mut wants.xml,
                _ => continue,
            };
            list.insert(argument.to_owned());
        }
        wants
    }

    /// Whether a form is wanted though no template names a field of it: the signature stands in one,
    /// or its fields are signed as they come.
    fn is_of_form(scheme: &serde_yaml::Value) -> bool {
        let signature = scheme.get("signature");
        if signature.is_some_and(|own| own.get("form").is_some() && own.get("json").is_none()) {
            return true;
        }
        let Some(lists) = scheme.get("fields").and_then(serde_yaml::Value::as_mapping) else {
            return false;
        };
        lists.values().any(|list| match list.get("from") {
            Some(serde_yaml::Value::Sequence(all)) => all.iter().any(|from| from == "form"),
            Some(from) => from == "form",
            None => false,
        })
    }

    /// A request that has all of it.
    fn draft(&self) -> Draft {
        let mut headers = Vec::new();
        headers.extend(
            self.header
                .iter()
                .map(|name| (name.clone(), "example".to_owned())),
        );
        let query: Vec<_> = self
            .query
            .iter()
            .map(|name| format!("{name}=example"))
            .collect();
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        };
        let (media_type, body) = if !self.form.is_empty() {
            let pairs: Vec<_> = self
                .form
                .iter()
                .map(|name| format!("{name}=e%21"))
                .collect();
            ("application/x-www-form-urlencoded", pairs.join("&"))
        } else if !self.xml.is_empty() {
            (
                "application/xml",
                self.xml.iter().map(String::as_str).map(element).collect(),
            )
        } else {
            ("application/json", self.json_body().to_string())
        };
        if !self
            .header
            .iter()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
        {
            headers.push(("Content-Type".to_owned(), media_type.to_owned()));
        }
        Draft {
            method: Method::POST,
            url: SenderUrl {
                origin: "https://hooks.example.org".into(),
                target: format!("/hooks{query}").into(),
            },
            headers,
            body: body.into_bytes(),
        }
    }

    fn json_body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "hello": "world" });
        for pointer in self.json.iter().filter(|pointer| !pointer.is_empty()) {
            let mut at = &mut body;
            for token in pointer.split('/').skip(1) {
                if at.is_null() {
                    *at = serde_json::json!({});
                }
                at = at
                    .as_object_mut()
                    .unwrap()
                    .entry(token)
                    .or_insert_with(|| ().into());
            }
            if at.is_null() {
                *at = "example".into();
            }
        }
        body
    }
}

/// `/a/b` as `<a><b>example</b></a>`.
fn element(path: &str) -> String {
    path.rsplit('/')
        .take_while(|name| !name.is_empty())
        .fold("example".to_owned(), |inner, name| {
            format!("<{name}>{inner}</{name}>")
        })
}

/// A scheme as its file has it.
fn written(preset: &Preset, id: &str) -> serde_yaml::Value {
    let file = fs::read_to_string(root().join(&preset.file)).unwrap();
    let file: serde_yaml::Value = serde_yaml::from_str(&file).unwrap();
    file.get("schemes")
        .and_then(|schemes| schemes.get(id))
        .cloned()
        .unwrap()
}

fn secret_for(scheme: &Scheme, is_basic: bool) -> String {
    let plain = if is_basic {
        "user:password"
    } else {
        "an example of a secret, long enough"
    };
    match scheme.secret_encoding() {
        SecretEncoding::Base64 => BASE64.encode(plain.as_bytes()),
        SecretEncoding::Hex => HEXLOWER.encode(plain.as_bytes()),
        SecretEncoding::Utf8 => plain.to_owned(),
    }
}

/// A scheme with a key, to judge what it signed.
struct Judge<'a> {
    scheme: &'a Scheme,
    key: Key,
}

impl Judge<'_> {
    fn sign(&self, draft: Draft) -> Result<Draft, String> {
        let signed = self.scheme.sign(draft, &self.key, NOW);
        signed.map_err(|error| format!("sign: {error}"))
    }

    fn accepts(&self, request: &Draft) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name: HeaderName = name.parse().map_err(|error| format!("{name}: {error}"))?;
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            headers.append(name, value);
        }
        let body = Content::from(request.body.clone());
        let message = Message {
            method: &request.method,
            url: &request.url,
            headers: &headers,
            body: &body,
        };
        let keys = KeySet::new(vec![self.key.clone()]).unwrap();
        let verdict = self.scheme.verify(&message, &keys, NOW);
        verdict
            .map(drop)
            .map_err(|error| format!("verify: {error}"))
    }

    /// Whether it accepts what it signed; and no other body, where it is said to cover the body.
    fn holds(&self, draft: Draft) -> Result<(), String> {
        let signed = self.sign(draft.clone())?;
        self.accepts(&signed)?;
        if !self.scheme.covers_body() {
            return Ok(());
        }
        let mut other = signed;
        let place = other
            .body
            .iter()
            .position(|byte| *byte == b'e')
            .ok_or("no letter to change")?;
        other.body[place] = b'E';
        if self.accepts(&other).is_ok() {
            return Err("the body is said to be covered, but a changed one is accepted".to_owned());
        }
        // Where only the fields of a form are signed, a signature over none must not let in a body
        // of another type.
        let empty = Draft {
            body: Vec::new(),
            ..draft
        };
        if let Ok(mut other) = self.sign(empty) {
            other
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
            other
                .headers
                .push(("Content-Type".to_owned(), "application/json".to_owned()));
            other.body = b"{\"hello\":\"world\"}".to_vec();
            if self.accepts(&other).is_ok() {
                return Err(
                    "a JSON body is accepted under the signature of an empty one".to_owned(),
                );
            }
        }
        Ok(())
    }
}

#[test]
fn every_scheme_with_a_secret_accepts_what_it_signed() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for preset in presets() {
        let specs: BTreeMap<&str, &SchemeSpec> = preset.schemes().collect();
        for (reference, scheme) in schemes(&preset) {
            let id = reference.split_once('/').unwrap().1;
            let spec = specs[id];
            // `sign` refuses to write into items of a body and into XML: the sender must.
            let signature = spec.signature.as_ref().and_then(|at| at.get());
            let by_hand = spec.each.is_some() || signature.is_some_and(|own| own.xml.is_some());
            if scheme.key_kind() != KeyKind::Secret || by_hand {
                continue;
            }
            count += 1;
            let is_basic = spec
                .algorithm
                .get()
                .is_some_and(|own| *own == Algorithm::Basic);
            let draft = Wants::of(&written(&preset, id)).draft();
            let secret = secret_for(&scheme, is_basic);
            let key = scheme.secret_key("example".into(), secret.as_bytes(), None);
            let held = key.and_then(|key| {
                Judge {
                    scheme: &scheme,
                    key,
                }
                .holds(draft)
            });
            wrong.extend(held.err().map(|error| format!("{reference}: {error}")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A cell of a table: code that Markdown leaves alone.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('\n', "\\n").replace('|', "\\|"))
}

/// Where a token stands: `header X or query y`.
fn places(signature: &serde_yaml::Value) -> String {
    let mut places = Vec::new();
    for kind in ["header", "query", "form", "json", "xml"] {
        let names = match signature.get(kind) {
            Some(serde_yaml::Value::Sequence(names)) => names.clone(),
            Some(name) => vec![name.clone()],
            None => continue,
        };
        let names = names.iter().filter_map(serde_yaml::Value::as_str);
        places.extend(names.map(|name| format!("{kind} {}", code(name))));
    }
    if signature.get("body").is_some() {
        places.push("the body".to_owned());
    }
    places.join(" or ")
}

/// What proves the sender, in the words of the file.
fn proof(preset: &Preset, id: &str, spec: &SchemeSpec) -> String {
    let written = written(preset, id);
    let name = written
        .get("algorithm")
        .and_then(serde_yaml::Value::as_str)
        .unwrap();
    if let Some(jwt) = spec.jwt.as_ref().and_then(|at| at.get()) {
        let known: Vec<_> = jwt.algorithms.get().into_iter().flatten().collect();
        let known: Vec<_> = known.iter().filter_map(|at| at.get().cloned()).collect();
        return format!("{name} ({})", known.join(", "));
    }
    let Some(OneOrMany(parts)) = spec.signed.as_ref().and_then(|at| at.get()) else {
        let places = written.get("signature").map(places).unwrap_or_default();
        return if places.is_empty() {
            name.to_owned()
        } else {
            format!("{name} in {places}")
        };
    };
    let mut text = String::new();
    for part in parts.iter().filter_map(|at| at.get()) {
        let own = part.text.get().unwrap();
        match part.when {
            Some(_) => write!(text, "[{own}]").unwrap(),
            None => text.push_str(own),
        }
    }
    format!("{name} of {}", code(&text))
}

/// What says how old a request is.
fn age(spec: &SchemeSpec) -> String {
    if let Some(timestamp) = spec.timestamp.as_ref().and_then(|at| at.get()) {
        if timestamp.signed.as_ref().and_then(|at| at.get()) == Some(&false) {
            return "unsigned".to_owned();
        }
        let tolerance = timestamp.tolerance.as_ref().and_then(|at| at.get());
        return tolerance.map_or("5m".to_owned(), |parsed| parsed.0.to_string());
    }
    let claims = spec
        .jwt
        .as_ref()
        .and_then(|at| at.get())
        .map(claim_times)
        .unwrap_or_default();
    if claims.contains(&ClaimTime::Issued) {
        "in the token".to_owned()
    } else if claims.contains(&ClaimTime::NotAfter) {
        "until it ends".to_owned()
    } else {
        "–".to_owned()
    }
}

fn claim_times(jwt: &JwtSpec) -> Vec<ClaimTime> {
    let claims = jwt.claims.as_ref().and_then(|at| at.get());
    let claims = claims.into_iter().flat_map(Ordered::iter);
    claims
        .filter_map(|(_, claim)| claim.time.as_ref()?.get().copied())
        .collect()
}

fn rows(preset: &Preset) -> String {
    let confidence = match preset.spec.confidence.get().unwrap() {
        Confidence::High => "high",
        Confidence::Medium => "medium",
    };
    let handshakes = preset.spec.handshakes.as_ref().and_then(|at| at.get());
    let handshakes = handshakes.into_iter().flat_map(Ordered::iter);
    let handshakes: Vec<_> = handshakes.map(|(id, _)| id).collect();
    let rest = format!("{confidence} | {}", handshakes.join(", "));
    let title = preset.spec.title.get().unwrap();
    let mut rows = String::new();
    for ((reference, scheme), (id, spec)) in schemes(preset).iter().zip(preset.schemes()) {
        let (reference, title, rest) = if rows.is_empty() {
            (name(preset), title.as_str(), rest.as_str())
        } else {
            (reference.as_str(), "", " | ")
        };
        let (proof, age) = (proof(preset, id, spec), age(spec));
        let body = if scheme.covers_body() { "yes" } else { "no" };
        let row = format!("| `{reference}` | {title} | {proof} | {body} | {age} | {rest} |\n");
        rows += &row;
    }
    rows
}

const INTRODUCTION: &str = "\
# Presets

Made from the files in `rules/providers/` by a test, so it says what the gateway does. `hookward providers show NAME`
says more of each: where the secret is found, how it is changed, what to watch out for.

- **preset**: what `provider:` in a route takes. A second row of a preset is another of its schemes, `NAME/SCHEME`.
- **proof**: what proves the sender. `hmac-sha256 of` a content says what is signed, in the words of
  [presets.md](presets.md); parts in `[]` stand there only at times. `{param:NAME}` is what a route gives as `params`.
- **body**: whether the proof covers the body. Where it does not, add another check: `allow_ips`, a token in the URL.
- **age**: how old a request may be, where a signed time says so. Without one, a captured request stays good.
- **facts**: `high` when read in the provider's documentation or library, `medium` when second-hand.
- **handshakes**: questions of the provider that the gateway answers by itself.
";

/// The page of all presets, grouped by category.
fn page() -> String {
    let presets = presets();
    let mut categories: BTreeMap<&str, Vec<&Preset>> = BTreeMap::new();
    for preset in &presets {
        let category = preset.spec.category.get().unwrap();
        categories.entry(category).or_default().push(preset);
    }
    let schemes: usize = presets.iter().map(|preset| preset.schemes().count()).sum();
    let mut page = INTRODUCTION.to_owned();
    write!(
        page,
        "\n{} presets with {schemes} schemes.\n",
        presets.len()
    )
    .unwrap();
    for (category, presets) in categories {
        write!(page, "\n## {category}\n\n").unwrap();
        page += "| preset | provider | proof | body | age | facts | handshakes |\n";
        page += "|---|---|---|---|---|---|---|\n";
        for preset in presets {
            page += &rows(preset);
        }
    }
    page
}

#[test]
fn the_page_of_all_presets_is_current() {
    let file = root().join("docs/providers.md");
    let page = page();
    if std::env::var_os("HOOKWARD_BLESS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    let same = committed
        .lines()
        .zip(page.lines())
        .take_while(|(a, b)| a == b)
        .count();
    assert!(
        committed == page,
        "docs/providers.md is not what the presets say, from line {}; run the tests with \
         HOOKWARD_BLESS=1 and commit it",
        same + 1,
    );
}
