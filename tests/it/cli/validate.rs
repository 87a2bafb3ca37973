//! `validate` and `routes test`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Shell, config};

const GOOD: &str = "  - { name: a, match: { path: /a }, verify: [{ token: { query: t, secrets: [env:TOKEN] } }], upstream: echo }\n";
const BAD: &str = "  - { name: a, mtch: { path: /a }, verify: none, upstream: nowhere }\n";

#[test]
fn a_valid_file_exits_0_and_says_so_on_stderr() {
    let shell = Shell::new()
        .with("hookward.yaml", config(GOOD))
        .env("TOKEN", "a token of thirty characters..");
    for verb in ["validate", "check"] {
        let ended = shell.run(&[verb]).code(0);
        assert_eq!(ended.stdout, "");
        assert!(
            ended.stderr.contains("hookward.yaml: valid (0 errors"),
            "{ended:?}"
        );
    }
    let ended = shell.run(&["validate", "--format", "json"]).code(0);
    assert_eq!(ended.json()["valid"], true);
    assert_eq!(ended.json()["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn an_invalid_file_exits_1_with_every_problem() {
    let shell = Shell::new().with("bad.yaml", config(BAD));
    let ended = shell.run(&["validate", "-c", "bad.yaml"]).code(1);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("bad.yaml:7:"), "{ended:?}");
    assert!(ended.stderr.contains("did you mean `match`"), "{ended:?}");
    let ended = shell
        .run(&["validate", "-c", "bad.yaml", "--format", "json"])
        .code(1);
    let json = ended.json();
    assert_eq!(json["valid"], false);
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.len() > 1, "{json}");
    for problem in problems {
        for key in [
            "file", "line", "column", "path", "message", "hint", "severity",
        ] {
            assert!(problem.get(key).is_some(), "{key}: {problem}");
        }
    }
}

#[test]
fn a_value_forges_no_line() {
    let limits = "limits: { body_memory: \"1\\nhookward.yaml: valid\\e[2K\" }\n";
    let shell = Shell::new().with("hookward.yaml", config(GOOD) + limits);
    let ended = shell.run(&["validate"]).code(1);
    let told = "limits.body_memory: `1\\nhookward.yaml: valid\\u{1b}[2K` is not a size";
    assert!(ended.stderr.contains(told), "{ended:?}");
    let ended = shell.run(&["validate", "--format", "json"]).code(1);
    let message = "`1\nhookward.yaml: valid\u{1b}[2K` is not a size";
    let json = ended.json();
    let mut problems = json["problems"].as_array().unwrap().iter();
    let is_told = problems.any(|own| own["message"].as_str().unwrap().starts_with(message));
    assert!(is_told, "{json}");
}

#[test]
fn a_file_that_stands_alone_is_told_how_it_is_named() {
    let shell = Shell::new();
    for verb in ["validate", "check", "run"] {
        let ended = shell.run(&[verb, "my.yaml"]).unable("write `-c my.yaml`");
        assert!(ended.stderr.contains("unexpected argument"), "{ended:?}");
    }
    let ended = shell.run(&["validate", "--confg"]).code(2);
    assert!(
        !ended.stderr.contains("to name the configuration"),
        "{ended:?}"
    );
}

#[test]
fn a_file_that_is_not_there_is_a_problem_in_json_too() {
    for args in [
        &["validate", "--format", "json", "-c", "no.yaml"][..],
        &["check", "--format", "json"],
    ] {
        let ended = Shell::new().run(args).code(2);
        let json = ended.json();
        assert_eq!(json["valid"], false);
        let message = json["problems"][0]["message"].as_str().unwrap();
        assert!(message.contains("there is no"), "{message}");
    }
}

#[test]
fn an_unset_secret_is_an_error() {
    let shell = Shell::new().with("hookward.yaml", config(GOOD));
    let ended = shell.run(&["validate", "--format", "json"]).code(1);
    assert!(ended.stdout.contains("TOKEN"), "{ended:?}");
}

#[test]
fn no_file_exits_2() {
    let shell = Shell::new();
    shell.run(&["validate"]).unable("hookward.yaml");
    shell
        .run(&["validate", "-c", "absent.yaml"])
        .unable("absent.yaml");
    Shell::new()
        .env("HOOKWARD_CONFIG", "elsewhere.yaml")
        .run(&["validate"])
        .unable("elsewhere.yaml");
    let shell = Shell::new();
    let mut cryptic = shell.command(&["validate"]);
    cryptic.env("HOOKWARD_CONFIG", OsStr::from_bytes(b"else\xffwhere.yaml"));
    let output = cryptic.output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("where.yaml:1:1: "),
        "{output:?}"
    );
}

#[test]
fn the_file_is_named_by_flag_then_environment_then_folder() {
    let shell = Shell::new()
        .with("hookward.yaml", config(BAD))
        .with("by-env.yaml", config(GOOD))
        .env("TOKEN", "a token of thirty characters..")
        .env("HOOKWARD_CONFIG", "by-env.yaml");
    shell.run(&["validate"]).code(0);
    shell.run(&["validate", "-c", "hookward.yaml"]).code(1);
    shell.run(&["validate", "--config", "by-env.yaml"]).code(0);
}

const ROUTES: &str = "  - { name: exact, match: { host: hooks.example.org, path: /a/b }, verify: none, upstream: echo }
  - { name: wildcard, match: { host: '*.example.org', path: /a/b }, verify: none, upstream: echo }
  - { name: literal, match: { path: /a/b }, verify: none, upstream: echo }
  - { name: named, match: { path: '/a/{x}', methods: [POST, PUT] }, verify: none, upstream: echo }
  - { name: rest, match: { path: '/a/{*rest}' }, verify: none, upstream: echo }
";

#[test]
fn the_winning_route_stands_first() {
    let shell = Shell::new().with("hookward.yaml", config(ROUTES));
    for (method, url, winner) in [
        ("POST", "https://hooks.example.org/a/b", "exact"),
        ("POST", "https://HOOKS.example.org:8443/a/b?x=1", "exact"),
        ("POST", "https://other.example.org/a/b", "wildcard"),
        ("POST", "https://example.org/a/b", "literal"),
        ("POST", "/a/b", "literal"),
        ("PUT", "https://example.net/a/c", "named"),
        ("POST", "https://example.net/a/c/d", "rest"),
        ("POST", "https://example.net/a/", "rest"),
    ] {
        let ended = shell.run(&["routes", "test", method, url]).code(0);
        assert_eq!(
            ended.stdout.lines().next(),
            Some(winner),
            "{url}: {ended:?}"
        );
        assert_eq!(ended.stderr, "", "{url}");
        for other in ["exact", "wildcard", "literal", "named", "rest"] {
            let told = ended.stdout.contains(&format!("not {other}: "));
            assert_eq!(told, other != winner, "{url}: {other}: {ended:?}");
        }
    }
}

#[test]
fn why_a_route_lost() {
    let shell = Shell::new().with("hookward.yaml", config(ROUTES));
    insta::assert_snapshot!(
        shell.run(&["routes", "test", "POST", "https://hooks.example.org/a/b"]).stdout,
        @r"
    exact
      POST hooks.example.org/a/b
      not wildcard: `*.example.org` is less specific than `hooks.example.org`, and hosts come first
      not literal: any host is less specific than `hooks.example.org`, and hosts come first
      not named: any host is less specific than `hooks.example.org`, and hosts come first
      not rest: any host is less specific than `hooks.example.org`, and hosts come first
    "
    );
    insta::assert_snapshot!(
        shell.run(&["routes", "test", "POST", "https://h.example.net/a/c"]).stdout,
        @r"
    named
      POST, PUT (any host) /a/{x}
      not exact: host `h.example.net` is not `hooks.example.org`
      not wildcard: host `h.example.net` is not `*.example.org`
      not literal: segment 2 is `c`, not `b`
      not rest: at segment 2 `{*rest}` gives way to `{x}`
    "
    );
}

#[test]
fn no_route_exits_1() {
    let shell = Shell::new().with("hookward.yaml", config(ROUTES));
    let ended = shell
        .run(&["routes", "test", "POST", "https://example.net/b"])
        .code(1);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("route_not_found"), "{ended:?}");
    let ended = shell
        .run(&["routes", "test", "GET", "https://example.net/a/b"])
        .code(1);
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.contains("method_not_allowed") && ended.stderr.contains("literal"),
        "{ended:?}"
    );
}

/// A path that listeners refuse finds no route, though a pattern would take it.
#[test]
fn a_refused_path_exits_1() {
    let shell = Shell::new().with("hookward.yaml", config(ROUTES));
    for (path, why) in [
        ("/a/../x", "dot segment"),
        ("/a/%2e%2E/x", "dot segment"),
        ("/a/..;v=1/x?y", "dot segment"),
        ("/a/%00", "control character"),
        ("/a/%zz", "no escape"),
        ("/a/%2", "no escape"),
    ] {
        for url in [path.to_owned(), format!("https://hooks.example.org{path}")] {
            let ended = shell.run(&["routes", "test", "POST", &url]).code(1);
            assert_eq!(ended.stdout, "", "{url}");
            assert!(
                ended.stderr.contains("malformed_request: ") && ended.stderr.contains(why),
                "{url}: {ended:?}"
            );
        }
    }
    for host in [
        ".example.org",
        "x..example.org",
        "*.example.org",
        "example.org:99999",
    ] {
        let url = format!("https://{host}/a/b");
        let ended = shell.run(&["routes", "test", "POST", &url]).code(1);
        assert!(
            ended.stderr.contains("malformed_request: Host is"),
            "{ended:?}"
        );
    }
    let long = format!("/a/{}", "x".repeat(9000));
    let ended = shell.run(&["routes", "test", "POST", &long]).code(1);
    assert!(ended.stderr.contains("uri_too_long: "), "{ended:?}");
    for path in ["/a/b%2fc", "/a/...", "/a/x?y=%zz#/../z", "/a/%68"] {
        shell.run(&["routes", "test", "POST", path]).code(0);
    }
}

#[test]
fn what_cannot_be_asked_exits_2() {
    let shell = Shell::new()
        .with("hookward.yaml", config(ROUTES))
        .with("bad.yaml", config(BAD));
    shell
        .run(&["routes", "test", "POST", "not-a-url"])
        .unable("not a URL");
    shell
        .run(&["routes", "test", "POST", "/a", "-c", "absent.yaml"])
        .unable("absent.yaml");
    shell
        .run(&["routes", "test", "POST", "/a", "-c", "bad.yaml"])
        .unable("cannot be used");
}
