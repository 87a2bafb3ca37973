//! `docs/providers.md`: the page of all presets, made from the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use hookward::document::OneOrMany;
use hookward::scheme::catalog::Preset;
use hookward::scheme::spec::{ClaimTime, Confidence, JwtSpec, Ordered, SchemeSpec};

use super::{name, presets, root, schemes, written};

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

fn by_category(presets: &[Arc<Preset>]) -> BTreeMap<&str, Vec<&Preset>> {
    let mut categories: BTreeMap<&str, Vec<&Preset>> = BTreeMap::new();
    for preset in presets {
        let category = preset.spec.category.get().unwrap();
        categories.entry(category).or_default().push(preset);
    }
    categories
}

/// The page of all presets, grouped by category.
fn page() -> String {
    let presets = presets();
    let schemes: usize = presets.iter().map(|preset| preset.schemes().count()).sum();
    let mut page = INTRODUCTION.to_owned();
    write!(
        page,
        "\n{} presets with {schemes} schemes.\n",
        presets.len()
    )
    .unwrap();
    for (category, presets) in by_category(&presets) {
        write!(page, "\n## {category}\n\n").unwrap();
        page += "| preset | provider | proof | body | age | facts | handshakes |\n";
        page += "|---|---|---|---|---|---|---|\n";
        for preset in presets {
            page += &rows(preset);
        }
    }
    page
}

const BEGIN: &str = "<!-- presets:begin -->\n";
const END: &str = "<!-- presets:end -->\n";

/// The README with its table of all presets.
fn readme(committed: &str) -> String {
    let presets = presets();
    let mut table = format!("{} presets:\n\n", presets.len());
    table += "| for | presets |\n|---|---|\n";
    for (category, presets) in by_category(&presets) {
        let names: Vec<_> = presets.iter().map(|preset| code(name(preset))).collect();
        let row = format!(
            "| [{category}](docs/providers.md#{category}) | {} |\n",
            names.join(", ")
        );
        table += &row;
    }
    let (before, rest) = committed.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    format!("{before}{BEGIN}\n{table}\n{END}{after}")
}

/// Demands that a file says what the presets say, or makes it so where the run was asked to.
fn assert_current(file: &str, made: impl FnOnce(&str) -> String) {
    let path = root().join(file);
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let made = made(&committed);
    if std::env::var_os("HOOKWARD_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
        return;
    }
    let lines = committed.lines().zip(made.lines());
    let same = lines.take_while(|(a, b)| a == b).count();
    assert!(
        committed == made,
        "{file} is not what the presets say, from line {}; run the tests with HOOKWARD_BLESS=1 and \
         commit it",
        same + 1,
    );
}

#[test]
fn the_page_of_all_presets_is_current() {
    assert_current("docs/providers.md", |_committed| page());
}

#[test]
fn the_table_in_the_readme_is_current() {
    assert_current("README.md", readme);
}
