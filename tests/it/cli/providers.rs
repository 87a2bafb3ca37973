//! `providers`: the list, and what is known of one.

use std::path::Path;

use super::{Shell, snapshots};

#[test]
fn the_list_has_every_preset() {
    let shell = Shell::new();
    let json = shell
        .run(&["providers", "list", "--format", "json"])
        .code(0)
        .json();
    let list = json.as_array().unwrap();
    let text = shell.run(&["providers", "list"]).code(0);
    assert_eq!(text.stdout, shell.run(&["providers"]).code(0).stdout);
    assert_eq!(text.stdout.lines().count(), list.len());
    for entry in list {
        assert!(entry["title"].is_string(), "{entry}");
        assert!(!entry["schemes"].as_array().unwrap().is_empty(), "{entry}");
        let name = entry["name"].as_str().unwrap();
        assert!(
            text.stdout
                .lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{name}"
        );
    }
    let github = list.iter().find(|entry| entry["name"] == "github").unwrap();
    assert_eq!(github["title"], "GitHub");
    assert!(list.iter().any(|entry| entry["name"] == "stripe"));
}

#[test]
fn the_list_can_be_searched() {
    let ended = Shell::new().run(&["providers", "list", "GITHUB"]).code(0);
    assert!(ended.stdout.lines().count() >= 1, "{ended:?}");
    assert!(
        ended
            .stdout
            .lines()
            .all(|line| line.to_lowercase().contains("github")),
        "{ended:?}"
    );
    let none = Shell::new()
        .run(&["providers", "list", "no such provider"])
        .code(0);
    assert_eq!(none.stdout, "");
}

#[test]
fn what_is_known_of_one() {
    let shell = Shell::new();
    snapshots(|| {
        insta::assert_snapshot!(
            "show_github",
            shell.run(&["providers", "show", "github"]).code(0).stdout
        );
    });
    let json = shell
        .run(&["providers", "show", "github", "--format", "json"])
        .code(0)
        .json();
    assert_eq!(
        (&json["provider"], &json["title"]),
        (&"github".into(), &"GitHub".into())
    );
    assert_eq!(json["schemes"][0]["id"], "sha256");
    assert!(
        json["sources"].is_array() && json["snippet"].is_string(),
        "{json}"
    );
}

#[test]
fn a_snippet_alone_can_be_json() {
    let shell = Shell::new();
    let snippet = ["providers", "show", "stripe", "--snippet"];
    let text = shell.run(&snippet).code(0).stdout;
    let json = ["--format", "json"];
    for args in [
        [&snippet[..], &json].concat(),
        [&snippet[..1], &json, &snippet[1..]].concat(),
    ] {
        let shown = shell.run(&args).code(0).json();
        assert_eq!(shown, serde_json::json!({ "snippet": text }));
    }
}

#[test]
fn an_unknown_name_exits_2() {
    let shell = Shell::new();
    shell
        .run(&["providers", "show", "gihub"])
        .unable("did you mean `github`");
    shell
        .run(&["providers", "show", "github/no"])
        .unable("has no scheme `no`");
    shell
        .run(&["providers", "--providers-dir", "absent"])
        .unable("absent");
}

/// Whether `show` says of the scheme of a snippet that replays are looked for.
fn is_on_by_default(shown: &serde_json::Value, name: &str) -> bool {
    let schemes = shown["schemes"].as_array().unwrap();
    let id = name.split_once('/').map(|(_, id)| id);
    let is_own = |scheme: &&serde_json::Value| id.is_none_or(|id| scheme["id"] == *id);
    let scheme = schemes.iter().find(is_own).unwrap();
    let said = scheme["replay_memory"].as_str().unwrap();
    said.starts_with("on by default")
}

/// Each preset's configuration is one that `validate` takes, once its secrets are set.
#[test]
fn every_snippet_is_valid() {
    use hookward::config::{self, Environment};
    use hookward::scheme::catalog::Catalog;
    let catalog = Catalog::built_in();
    let mut tried = 0;
    // The default of each preset, and every scheme where one may need what others do not.
    let of_preset = |name: String| {
        let preset = catalog.preset(&name).unwrap();
        let mut names: Vec<String> = Vec::new();
        if preset.params().any(|(_, param)| param.optional.is_some()) {
            names.extend(preset.schemes().map(|(id, _)| format!("{name}/{id}")));
        }
        names.push(name);
        names
    };
    for name in catalog.names().into_iter().flat_map(of_preset) {
        let snippet = Shell::new()
            .run(&["providers", "show", &name, "--snippet"])
            .code(0)
            .stdout;
        let shown = Shell::new()
            .run(&["providers", "show", &name, "--format", "json"])
            .code(0)
            .json();
        // Public keys cannot be made up; such a snippet is the same but for that line.
        if snippet.contains("public_keys") {
            continue;
        }
        let variable = snippet
            .split("env:")
            .nth(1)
            .and_then(|rest| rest.split(']').next());
        // Text or base64, hex, and a user with a password.
        let secrets = [
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3",
            &"0123456789abcdef".repeat(4),
            "user:password of it",
        ];
        let wrong = |secret: &str| {
            let env = Environment::from_pairs(variable.map(|name| (name, secret)));
            let loaded = config::load_text("hookward.yaml", &snippet, Path::new(""), &env);
            let Some(config) = loaded.config else {
                return Some(loaded.report.to_string());
            };
            let looks_for_replays = config.routes.routes()[0].replay.is_some();
            assert_eq!(looks_for_replays, is_on_by_default(&shown, &name), "{name}");
            None
        };
        let reports: Vec<String> = secrets.iter().map_while(|secret| wrong(secret)).collect();
        assert!(
            reports.len() < secrets.len(),
            "{name}:\n{}\n{snippet}",
            reports[0]
        );
        tried += 1;
    }
    assert!(tried > 200, "{tried}");
}

/// What a scheme leaves open is told of every scheme, whichever params it needs.
#[test]
fn every_scheme_says_what_it_leaves_open() {
    let shell = Shell::new();
    let show = |name: &str| {
        let shown = shell.run(&["providers", "show", name, "--format", "json"]);
        shown.code(0).json()
    };
    for name in hookward::scheme::catalog::Catalog::built_in().names() {
        for scheme in show(&name)["schemes"].as_array().unwrap() {
            for fact in ["key", "replay_memory"] {
                assert!(scheme[fact].is_string(), "{name}: {scheme}");
            }
        }
    }
    let iyzico = show("iyzico/v3-subscription");
    let warnings = iyzico["schemes"][2]["warnings"].to_string();
    assert!(warnings.contains("does not cover the body"), "{warnings}");
    let snippet = iyzico["snippet"].as_str().unwrap();
    assert!(
        snippet.contains("merchant_id: \"your-merchant-id\""),
        "{snippet}"
    );
}

#[test]
fn a_preset_of_ones_own() {
    let preset = "\
provider: acme-widgets
title: Acme Widgets
category: test
confidence: high
sources: [made up]
secret: Any text.
schemes:
  v1:
    algorithm: hmac-sha256
    signature: { header: X-Acme-Signature, encoding: hex }
    signed: \"{body}\"
";
    let shell = Shell::new()
        .with("body", "x")
        .with("acme-widgets.yaml", preset);
    let dir = ["--providers-dir", "."];
    let list = shell
        .run(&[&["providers", "list", "acme"][..], &dir].concat())
        .code(0);
    assert_eq!(list.stdout, "acme-widgets  Acme Widgets (v1)\n");
    let args = [
        "--provider",
        "acme-widgets",
        "--secret",
        "value:s3cret",
        "--providers-dir",
        ".",
    ];
    let signed = shell
        .run(&[&["sign", "--body", "body"][..], &args].concat())
        .code(0)
        .stdout;
    let verify = [&["verify", "--request", "-"][..], &args].concat();
    shell.feed(&verify, signed.as_bytes()).code(0);
    let broken = Shell::new().with("acme-widgets.yaml", preset.replace("hmac-sha256", "rot13"));
    broken
        .run(&["providers", "--providers-dir", "."])
        .unable("error: presets cannot be used:\n./acme-widgets.yaml:9:");
}
