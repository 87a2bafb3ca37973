//! The configuration: what is accepted, and the whole diagnostic of what is not.
//!
//! `tests/config/valid/*.yaml` load without an error; `tests/config/invalid/*.yaml` each have a
//! `.snap` beside them with everything that `validate` says.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use hookward::config::{self, Config, Environment, Loaded};
use hookward::route::policy::{OnDuplicate, ReplayPolicy, ReplaysOf};
use hookward::settings::Limits;
use hookward::units::UnixTime;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustix::time::{ClockId, clock_gettime};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// 2026-11-01: what `not_after` and certificates are judged by.
const NOW: i64 = 1_793_491_200;

/// A folder with everything that the files refer to.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    for sub in ["certs", "providers", "broken"] {
        fs::create_dir(folder.path().join(sub)).unwrap();
    }
    let key = KeyPair::generate().unwrap();
    let leaf = |year| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    file(
        "certs/clients.pem",
        &authority.self_signed(&key).unwrap().pem(),
    );
    authority.not_after = date_time_ymd(2021, 1, 1);
    file(
        "certs/expired-ca.pem",
        &authority.self_signed(&key).unwrap().pem(),
    );
    file("certs/server.pem", &leaf(2100));
    file("certs/public.pem", &key.public_key_pem());
    let mut params = CertificateParams::new([
        "localhost".to_owned(),
        "*.example.org".to_owned(),
        "192.0.2.1".to_owned(),
    ])
    .unwrap();
    file(
        "certs/server.csr",
        &params.serialize_request(&key).unwrap().pem().unwrap(),
    );
    params.not_before = date_time_ymd(2026, 8, 14);
    params.not_after = date_time_ymd(2026, 11, 12);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let soon = params.self_signed(&key).unwrap();
    file("certs/soon.pem", &soon.pem());
    fs::write(folder.path().join("certs/server.der"), soon.der()).unwrap();
    fs::write(folder.path().join("certs/key.der"), key.serialized_der()).unwrap();
    fs::write(
        folder.path().join("certs/server.p12"),
        b"\x30\x82\x04\x00\x02\x01\x03\x30",
    )
    .unwrap();
    file("certs/marked.pem", &format!("\u{feff}{}", leaf(2100)));
    file(
        "certs/openssh",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    );
    file("certs/expired.pem", &leaf(2021));
    file("certs/server.key", &key.serialize_pem());
    file(
        "certs/other.key",
        &KeyPair::generate().unwrap().serialize_pem(),
    );
    file("certs/public.key", &key.serialize_pem());
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(folder.path().join("certs/public.key"), open).unwrap();
    file(
        "certs/encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    file(
        "certs/damaged.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    file(
        "certs/joined.pem",
        &format!("{}{}", leaf(2100).trim_end(), leaf(2100)),
    );
    file("certs/rsa.pem", include_str!("../config/rsa.pem"));
    file("broken/acme.yaml", "provider: acme\ntitel: Acme\n");
    file("broken/.acme.yaml.swp", "not for us");
    file("empty", "");
    file("blank", " \n");
    file("crlf", "a secret with a carriage return\r\n");
    file("marked", "\u{feff}a secret of an editor of Windows\n");
    file("quoted", "\"an example secret in quotes\"\n");
    file("assigned", "export A_SECRET=an example secret\n");
    file("two-lines", "an example secret\nand another line\n");
    file("two-ends", "an example secret and two ends\n\n");
    let utf16 = "an example secret of Windows".chars();
    file("utf16", &utf16.flat_map(|c| [c, '\0']).collect::<String>());
    file("nul", "an example secret and a nul\0");
    file("object", "{\"secret\": \"an example secret of JSON\"}");
    file("secret.txt", "an example secret from a file\n");
    let hash = "$2y$05$abcdefghijklmnopqrstuuWvOUsMZ2IJrVQ.f2fOGKZWdJcJEZVEe";
    file(
        "users.htpasswd",
        &format!("# people\nann:{hash}\n\nbob:{hash}\n"),
    );
    file(
        "bad.htpasswd",
        &format!("ann:{hash}\nbob\ncid:plain\n:{hash}\n"),
    );
    folder
});

fn environment() -> Environment {
    let variables = [
        ("GITHUB_SECRET", "an example secret of GitHub"),
        ("STRIPE_SECRET", "whsec_an example secret of Stripe"),
        ("PARTNER_SECRET", "an example secret of a partner"),
        ("OTHER_SECRET", "another example secret of a partner"),
        ("TK", "an example of a token"),
        ("PW", "an example of a password"),
        ("PORT", "8080"),
        ("CANARY", "canary-secret"),
        ("SPACED", "canary secret with blanks:more"),
        ("SHORT", "e"),
        ("PEM", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA"),
        ("QUOTED", "'an example secret in quotes'"),
        ("RETURN", "an example secret of Windows\r"),
        ("LINE_END", "an example secret and its end\n"),
        ("VARIABLE", "${AN_EXAMPLE_SECRET}"),
        ("PLACEHOLDER", "your-github-webhook-secret"),
        ("EMPTY", ""),
        ("BLANK", "  "),
        ("SHORT", "short"),
        ("SAMPLE", "changeme"),
    ];
    Environment::from_pairs(variables).at(UnixTime::from_secs(NOW))
}

fn load(text: &str) -> Loaded {
    config::load_text("hookward.yaml", text, FOLDER.path(), &environment())
}

/// The report as it is printed, without the name of the folder.
fn report(loaded: &Loaded) -> String {
    loaded
        .report
        .to_string()
        .replace(FOLDER.path().to_str().unwrap(), "DIR")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join("tests/config").join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_files_load() {
    for file in files("valid") {
        let loaded = load(&fs::read_to_string(&file).unwrap());
        assert!(
            loaded.config.is_some(),
            "{}:\n{}",
            file.display(),
            report(&loaded)
        );
    }
}

#[test]
fn invalid_files_say_everything_that_is_wrong() {
    // SECURITY A-03: secret_env, secret_file and provider_secret_form; A-06: any_empty, verify_empty,
    // verify_missing; A-50: tls_client_ca; SM-43: basic_users, forward_headers
    let folder = Path::new(ROOT).join("tests/config/invalid");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for file in files("invalid") {
            let text = fs::read_to_string(&file).unwrap();
            let loaded = load(&text);
            assert!(
                loaded.report.has_errors() && loaded.config.is_none(),
                "{}",
                file.display()
            );
            insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), report(&loaded));
        }
    });
}

#[test]
fn warnings_do_not_keep_a_file_from_loading() {
    let folder = Path::new(ROOT).join("tests/config/valid");
    let loaded = load(&fs::read_to_string(folder.join("warnings.yaml")).unwrap());
    assert!(loaded.config.is_some());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("warnings", report(&loaded)));
    let json = loaded.report.to_json();
    assert_eq!(json["valid"], true);
    assert_eq!(json["problems"][0]["severity"], "warning");
}

#[test]
fn a_path_that_no_target_can_have_is_an_error() {
    let route = |bytes| {
        let path = format!("/{}", "a".repeat(bytes));
        report(&load(&with_routes(&format!(
            "  - {{ name: a, match: {{ path: {path} }}, verify: none, upstream: echo }}\n"
        ))))
    };
    let told = route(8 * 1024);
    assert!(
        told.contains("error: routes[0].match.path: longer than the 8 KiB"),
        "{told}"
    );
    assert!(!route(8 * 1024 - 1).contains("error"));
}

#[test]
fn a_url_that_the_signature_covers_needs_a_public_url() {
    // SECURITY A-42
    let twilio = "{ provider: twilio, secrets: [env:STRIPE_SECRET] }";
    let told = |listeners: &str, host: &str| {
        let told = report(&load(&format!(
            "version: 1\nlisteners:\n{listeners}routes:\n  - {{ name: a, match: {{ path: /a{host} }}, \
             verify: [{twilio}], upstream: echo }}\n"
        )));
        assert!(!told.contains("error"), "{told}");
        told
    };
    let called = ", public_url: https://hooks.example.org";
    let tls = |more: &str| {
        format!("  s: {{ address: 127.0.0.1:1, tls: {{ self_signed: [a.example] }}{more} }}\n")
    };
    let plain = |how: &str, more: &str| {
        format!("  p: {{ address: 127.0.0.1:2, plaintext: {how}{more} }}\n")
    };
    let of_host = "the request itself says with which host";
    let of_plain = "begins with `http://` and the request's Host";
    let allow = plain("allow", "");
    for (listeners, any_host, one_host) in [
        (tls(""), Some(of_host), None),
        (tls("") + &plain("redirect", ""), Some(of_host), None),
        (tls("") + &allow, Some(of_plain), Some(of_plain)),
        (tls(called) + &allow, Some(of_plain), Some(of_plain)),
        (allow, Some(of_plain), Some(of_plain)),
        (tls(called) + &plain("redirect", ""), None, None),
        (plain("allow", called), None, None),
    ] {
        for (host, part) in [("", any_host), (", host: a.example", one_host)] {
            let told = told(&listeners, host);
            match part {
                Some(part) => assert!(told.contains(part), "{listeners}{host}: {told}"),
                None => assert!(
                    !told.contains("covers the URL"),
                    "{listeners}{host}: {told}"
                ),
            }
            let offers_host = told.contains("`match.host`");
            assert_eq!(
                offers_host,
                part == Some(of_host),
                "{listeners}{host}: {told}"
            );
        }
    }
}

#[test]
fn redis_that_nothing_uses_is_told() {
    let routes =
        with_routes("  - { name: a, match: { path: /a }, verify: none, upstream: echo }\n");
    let file = |state: &str| format!("{routes}state: {{ {state} }}\n");
    let redis = "redis: { url: \"value:redis://a\" }";
    let told = report(&load(&file(redis)));
    assert!(
        told.contains("warning: state.redis: Redis is not used"),
        "{told}"
    );
    for state in ["store: memory, ", "store: redis, "] {
        let told = report(&load(&file(&format!("{state}{redis}"))));
        assert!(!told.contains("is not used"), "{told}");
    }
}

#[test]
fn a_file_that_is_no_text_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hookward.yaml");
    for (bytes, told) in [
        (&b"version: 1\n# \xff\n"[..], "2:3: error: not UTF-8"),
        (b"\xff\xfev\0e\0", "1:1: error: UTF-16, and not UTF-8"),
    ] {
        fs::write(&file, bytes).unwrap();
        let report = config::load(&file, &environment()).report.to_string();
        assert!(report.contains(told), "{report}");
        assert!(report.contains("save the file as UTF-8"), "{report}");
    }
}

/// A configuration of one listener and these routes.
fn with_routes(routes: &str) -> String {
    format!(
        "version: 1\nlisteners:\n  http: {{ address: 127.0.0.1:0, plaintext: allow }}\nroutes:\n{routes}"
    )
}

fn config(text: &str) -> Config {
    let loaded = load(text);
    let report = report(&loaded);
    loaded.config.unwrap_or_else(|| panic!("{report}"))
}

/// The key ids of the first route of `verify`.
fn key_ids(verify: &str) -> Vec<String> {
    let route =
        format!("  - {{ name: r, match: {{ path: /x }}, verify: {verify}, upstream: echo }}\n");
    let config = config(&with_routes(&route));
    let ids = config.routes.routes()[0].auth.key_ids();
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn ids_default_to_a_name_that_is_no_secret() {
    let ids = key_ids(
        "[{ token: { bearer: true, secrets: [env:TK, file:secret.txt, 'value:an example of a secret'] } }]",
    );
    assert_eq!(ids, ["TK", "secret", "key-3"]);
    let ids = key_ids("[{ provider: codecov }, { token: { bearer: true, secrets: [env:TK] } }]");
    assert_eq!(ids, ["TK"]);
    let ids = key_ids("[{ token: { bearer: true, secrets: [env:PW, { id: PW, from: env:TK }] } }]");
    assert_eq!(ids, ["PW-2", "PW"]);
    let ids = key_ids("[{ basic: { htpasswd: users.htpasswd } }]");
    assert_eq!(ids, ["ann", "bob"]);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = config(&with_routes(
        "  - name: stripe
    match: { path: /stripe }
    rate_limits: [{ key: route, rate: 30/s }, { key: client_ip, rate: 100/m }]
    verify: [{ provider: stripe, secrets: [env:STRIPE_SECRET] }]
    upstream: http://127.0.0.1:3000
  - name: github
    match: { path: /github }
    verify: [{ provider: github, secrets: [env:GITHUB_SECRET] }]
    upstream: http://127.0.0.1:3000
  - name: off
    match: { path: /off }
    verify: [{ provider: stripe, secrets: [env:STRIPE_SECRET] }]
    replay: off
    upstream: http://127.0.0.1:3000
  - name: window
    match: { path: /window }
    verify: [{ provider: github, secrets: [env:GITHUB_SECRET] }]
    replay: { on_duplicate: reject }
    upstream: echo
",
    ));
    assert_eq!(config.limits, Limits::default());
    let names: Vec<_> = config
        .upstreams
        .iter()
        .map(|upstream| &*upstream.name)
        .collect();
    assert_eq!(names, ["http://127.0.0.1:3000"]);
    assert_eq!(config.upstreams[0].timeout, Duration::from_secs(30));
    let routes = config.routes.routes();
    assert_eq!(routes[0].matches.methods, [http::Method::POST]);
    assert_eq!(routes[0].body.size_max.0, 1 << 20);
    let bursts: Vec<_> = routes[0]
        .quotas
        .iter()
        .map(|quota| quota.burst.get())
        .collect();
    assert_eq!(bursts, [30, 1]);
    let replays: Vec<_> = routes.iter().map(|route| route.replay).collect();
    let policy = |seconds, on_duplicate, of| {
        Some(ReplayPolicy {
            window: Duration::from_secs(seconds),
            on_duplicate,
            of,
        })
    };
    assert_eq!(
        replays,
        [
            // A timestamp is judged in whole seconds.
            policy(601, OnDuplicate::Acknowledge, ReplaysOf::SignedWithTime),
            None,
            None,
            policy(600, OnDuplicate::Reject, ReplaysOf::Signed)
        ]
    );
}

#[test]
fn every_file_is_watched_also_when_it_is_missing() {
    let text = with_routes(
        "  - name: r
    match: { path: /x }
    verify:
      - token: { bearer: true, secrets: [file:secret.txt, file:not-there-yet] }
      - basic: { htpasswd: users.htpasswd }
    upstream: echo
",
    );
    let folder = FOLDER.path();
    let file = folder.join("watched.yaml");
    fs::write(
        &file,
        text.replace("version: 1", "version: 1\nproviders_dir: providers"),
    )
    .unwrap();
    let loaded = config::load(&file, &environment());
    assert!(loaded.config.is_none() && !loaded.unreadable);
    let names = [
        "watched.yaml",
        "providers",
        "secret.txt",
        "not-there-yet",
        "users.htpasswd",
    ];
    let watched: Vec<_> = loaded.watched.into_iter().map(|(file, _)| file).collect();
    assert_eq!(watched, names.map(|name| folder.join(name)));
}

#[test]
fn a_file_that_cannot_be_read_is_told_from_a_wrong_one() {
    for file in ["none.yaml", "certs"] {
        let loaded = config::load(&FOLDER.path().join(file), &environment());
        assert!(loaded.unreadable && loaded.config.is_none() && loaded.report.has_errors());
    }
    let file = FOLDER.path().join("latin1.yaml");
    fs::write(&file, b"version: 1\n# caf\xe9\n").unwrap();
    let loaded = config::load(&file, &environment());
    assert!(!loaded.unreadable);
    let problem = &loaded.report.problems()[0];
    assert_eq!((problem.mark.line, problem.mark.column), (2, 6));
}

#[test]
fn presets_of_a_folder_join_the_shipped_ones() {
    let folder = tempfile::tempdir().unwrap();
    let preset = fs::read_to_string(Path::new(ROOT).join("rules/providers/github.yaml")).unwrap();
    let own = preset.replace("provider: github", "provider: our-github");
    fs::write(folder.path().join("our-github.yaml"), own).unwrap();
    let catalog = config::catalog(Some(folder.path())).unwrap();
    assert!(catalog.find("our-github").is_ok() && catalog.find("github").is_ok());
    fs::write(folder.path().join("misnamed.yaml"), preset).unwrap();
    let reports = config::catalog(Some(folder.path())).unwrap_err();
    assert!(
        reports[0].to_string().contains("misnamed.yaml:1:"),
        "{}",
        reports[0]
    );
}

#[test]
fn references_of_the_command_line() {
    let secret = |reference| config::secret(reference, &environment(), FOLDER.path());
    assert_eq!(secret("env:TK").unwrap().expose(), b"an example of a token");
    assert_eq!(
        secret("file:secret.txt").unwrap().expose(),
        b"an example secret from a file"
    );
    assert_eq!(secret("value:changeme").unwrap().expose(), b"changeme");
    for reference in ["canary", "env:NO_SUCH", "value:"] {
        let error = secret(reference).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    // SECURITY L-03, L-04
    for folder in ["valid", "invalid"] {
        for file in files(folder) {
            let loaded = load(&fs::read_to_string(&file).unwrap());
            let shown = format!("{loaded:?}\n{}\n{}", loaded.report, loaded.report.to_json());
            for secret in [
                "an example",
                "an-actual-secret",
                "a-secret-in-the-",
                "hunter2",
                "KEY-----\n",
            ] {
                assert!(!shown.contains(secret), "{secret} in {}", file.display());
            }
        }
    }
}

#[test]
fn ten_thousand_routes_load() {
    // SECURITY S-15. The bound is loose: this is a debug build on a busy machine.
    let mut routes = String::new();
    for n in 0..10_000 {
        let provider = if n % 2 == 0 { "github" } else { "slack" };
        writeln!(
            routes,
            "  - {{ name: r{n}, match: {{ path: /hooks/{n}, host: h{}.example.org }}, \
             verify: [{{ provider: {provider}, secrets: [env:S{}] }}], upstream: http://127.0.0.1:3000 }}",
            n % 100,
            n % 1000,
        )
        .unwrap();
    }
    let secrets = (0..1000).map(|n| (format!("S{n}"), format!("an example secret, number {n}")));
    let start = time_on_cpu();
    let loaded = config::load_text(
        "many.yaml",
        &with_routes(&routes),
        FOLDER.path(),
        &Environment::from_pairs(secrets),
    );
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));
    assert_eq!(config.routes.routes().len(), 10_000);
    let took = time_on_cpu().saturating_sub(start);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn many_wrong_routes_are_not_more_problems_than_anybody_reads() {
    let mut same = String::new();
    for n in 0..3000 {
        writeln!(
            same,
            "  - {{ name: r{n}, match: {{ path: /a }}, verify: none, upstream: echo }}"
        )
        .unwrap();
    }
    let loaded = load(&with_routes(&same));
    // Each of them but the first says which one it is like.
    assert_eq!(loaded.report.counts().0, 2999);
    let empty = with_routes(&"  - {}\n".repeat(200_000));
    let loaded = load(&empty);
    let (errors, warnings) = loaded.report.counts();
    assert!(errors + warnings < 10_010, "{errors} and {warnings}");
    let all = loaded.report.to_string();
    assert!(all.contains("there are too many errors: from here on, routes were not read"));
}

/// How long this thread has run, however many others share the machine.
fn time_on_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

#[test]
fn bombs_are_errors_at_once() {
    // SECURITY DS-21
    let aliases = {
        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (name, before) in ('b'..='z').zip('a'..) {
            let refs = vec![format!("*{before}"); 9].join(", ");
            writeln!(bomb, "{name}: &{name} [{refs}]").unwrap();
        }
        bomb
    };
    for bomb in [
        aliases,
        "[".repeat(1_000_000),
        "a: {".repeat(100_000),
        format!("a: [{}]", "x, ".repeat(3_000_000)),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        format!("x-{}: 1", "k".repeat(4_000_000)),
        "&a [*a]".to_owned(),
        "\u{feff}".repeat(10_000),
    ] {
        let start = time_on_cpu();
        let loaded = load(&bomb);
        assert!(loaded.report.has_errors());
        let shown: String = bomb.chars().take(20).collect();
        let took = time_on_cpu().saturating_sub(start);
        assert!(took < Duration::from_secs(20), "{shown}: {took:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    let text = "version: 1\nlisteners: { http: { address: 127.0.0.1:0, plaintext: allow } }\n";
    let (with, without) = (load(&format!("\u{feff}{text}")), load(text));
    assert_eq!(report(&with), report(&without));
}

/// What YAML 1.1 and 1.2 read as different lines is refused: no reader is deceived about what is a
/// comment, a key or a value.
#[test]
fn line_ends_that_readers_disagree_about_are_errors() {
    for separator in ['\u{85}', '\u{2028}', '\u{2029}'] {
        for text in [
            format!("𑄶:{separator}﹨"),
            format!("{separator}"),
            format!(":{separator}"),
            format!("a{separator}:"),
            format!("version: 1 # a comment{separator}routes: []\n"),
            format!("version: 1\r\nx-a: \"{separator}\"\r\n"),
            format!("version: 1\rx-a: '{separator}'"),
            format!("{separator}{separator}: [{separator}"),
        ] {
            let loaded = load(&text);
            let code = format!("U+{:04X}", u32::from(separator));
            assert!(
                report(&loaded).contains(&code),
                "{text:?}:\n{}",
                report(&loaded)
            );
            says_where(&text).unwrap();
        }
    }
    let two = load("version: 1\nx-a: \"ä\u{2028}\"\n# \u{85}\n");
    let problems = two.report.problems().iter();
    let breaks = problems.filter(|problem| problem.message.starts_with("U+"));
    let marks: Vec<_> = breaks
        .map(|problem| (problem.mark.line, problem.mark.column))
        .collect();
    assert_eq!(marks, [(2, 8), (3, 3)]);
    // Escaped, it is a character as any other; and a byte order mark may open a file.
    for text in [
        "x-a: \"\\u2028\"\n",
        "\u{feff}x-a: 1\n",
        "x-a: \"\u{feff}\"\n",
    ] {
        let text = text.replace("x-a", "version: 1\nx-a");
        says_where(&text).unwrap();
        assert!(!report(&load(&text)).contains("U+"), "{text:?}");
    }
}

/// Lines of valid files, put together at random: closer to the mark than random text.
fn lines() -> Vec<String> {
    let all = files("valid").into_iter().chain(files("invalid"));
    all.flat_map(|file| {
        fs::read_to_string(file)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // SECURITY Z-08
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,200}") {
        says_where(&text)?;
    }

    #[test]
    fn no_shape_makes_the_loader_panic(text in "[a-c:{}\\[\\], \n&*?!|>'\"#$-]{0,80}") {
        says_where(&text)?;
    }

    #[test]
    fn no_end_of_line_makes_the_loader_panic(
        text in "[ab:\\[{}\\-#'\"|> \t\r\n\u{feff}\u{85}\u{a0}\u{2028}]{0,60}"
    ) {
        says_where(&text)?;
    }

    #[test]
    fn no_mixture_of_lines_makes_the_loader_panic(
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let lines = lines();
        let mut text: String = picks.iter().map(|pick| pick.get(&lines).clone() + "\n").collect();
        let cut = (0..=cut.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or_default());
        says_where(&text)?;
        says_where(&with_routes(&text))?;
    }
}

/// Loading ends, and each problem has a place in the text.
fn says_where(text: &str) -> Result<(), TestCaseError> {
    let loaded = load(text);
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    prop_assert_eq!(loaded.config.is_some(), !loaded.report.has_errors());
    for problem in loaded.report.problems() {
        prop_assert!(problem.mark.line >= 1 && problem.mark.column >= 1);
        prop_assert!(problem.mark.line <= lines + 1, "{:?}", problem);
    }
    Ok(())
}
