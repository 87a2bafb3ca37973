//! The shipped presets: each one compiles, has vectors, signs what it verifies, and stands on the
//! page of all presets, which is made from the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use hookward::scheme::catalog::{Catalog, Preset};
use hookward::scheme::spec::{Algorithm, ParamValue, SchemeSpec};
use hookward::scheme::{Params, Scheme};

use crate::vectors::cases;

mod attacks;
mod own;
mod page;
mod signing;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every shipped preset, or what is wrong with it.
fn presets() -> Vec<Arc<Preset>> {
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

/// A value for every param: the default, the example, the first that it can have, or some URL.
fn example_params(preset: &Preset) -> Params {
    let mut params = Params::new();
    for (name, spec) in preset.params() {
        let written = [&spec.default, &spec.example];
        let written = written.into_iter().flatten().find_map(|at| at.get());
        let known = spec
            .one_of
            .as_ref()
            .and_then(|at| at.get()?.first().cloned());
        let value = match (written, known) {
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

/// Replay protection is off by default where what is signed may be the same for two events: one would be
/// swallowed for the other. These sign a token, or values of which it is not known what they tell.
#[test]
fn of_these_it_is_not_known_whether_they_tell_deliveries_apart() {
    let presets = presets();
    let same = presets
        .iter()
        .flat_map(|preset| schemes(preset))
        .filter(|(_, scheme)| scheme.is_signed() && !scheme.tells_deliveries_apart());
    let same: Vec<_> = same.map(|(reference, _)| reference).collect();
    assert_eq!(
        same,
        [
            "adyen/standard",
            "atlassian-connect/jwt",
            "braintree/bt",
            "dropbox-sign/event-hash",
            "exact-online/hashcode",
            "forgejo/form",
            "forgejo/query",
            "gitea/form",
            "gitea/query",
            "gogs/form",
            "google-chat/project-number",
            "google-chat/endpoint-url",
            "google-pubsub/oidc",
            "iyzico/v3-hpp",
            "iyzico/v3-direct",
            "iyzico/v3-subscription",
            "jira-oauth-webhook/jwt",
            "microsoft-graph-rich/v2",
            "microsoft-graph-rich/v1",
            "midtrans/signature-key",
            "monday/jwt",
            "opennode/hashed-order",
            "transloadit/sha384",
            "transloadit/sha1",
            "travis-ci/rsa"
        ]
    );
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

/// What is said of a scheme must hold: a token covers the body only where it has to hold a digest of
/// it, and none in a list covers what it stands beside.
#[test]
fn a_token_covers_the_body_only_where_it_must() {
    let covers = |reference: &str, params: &[(&str, serde_json::Value)]| {
        let params = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let selected = Catalog::built_in().find(reference).unwrap();
        selected
            .bind(&params.collect(), None)
            .unwrap()
            .covers_body()
    };
    let checked = |value: bool| [("check_payload_hash", value.into())];
    assert!(covers("vonage-messages", &checked(true)));
    assert!(!covers("vonage-messages", &checked(false)));
    assert!(covers("messagebird", &[]) && covers("fireblocks", &[]));
    let ours = ["audience", "tenant"].map(|name| (name, "x".into()));
    assert!(!covers("microsoft-graph-rich", &ours));
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
