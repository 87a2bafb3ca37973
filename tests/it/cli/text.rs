//! What people read: help, manual pages, completions; and usage that is wrong.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use super::{Shell, snapshots};

const VERBS: [&str; 11] = [
    "completions",
    "hash-password",
    "man",
    "providers",
    "routes",
    "run",
    "schema",
    "send",
    "sign",
    "validate",
    "verify",
];

#[test]
fn help_of_every_verb() {
    let shell = Shell::new();
    snapshots(|| {
        insta::assert_snapshot!("help", shell.run(&["--help"]).code(0).stdout);
        for verb in VERBS {
            let ended = shell.run(&[verb, "--help"]).code(0);
            assert_eq!(ended.stderr, "");
            insta::assert_snapshot!(format!("help_{verb}"), ended.stdout);
        }
        for verb in [
            ["providers", "list"],
            ["providers", "show"],
            ["routes", "test"],
        ] {
            let ended = shell.run(&[verb[0], verb[1], "--help"]).code(0);
            insta::assert_snapshot!(format!("help_{}_{}", verb[0], verb[1]), ended.stdout);
        }
    });
}

const WRONG_USAGE: &[&[&str]] = &[
    &[],
    &["no-such-verb"],
    &["run", "--no-such-flag"],
    &["verify"],
    &["verify", "--provider", "github"],
    &[
        "verify",
        "--provider",
        "github",
        "--route",
        "r",
        "--request",
        "x",
    ],
    &[
        "verify",
        "--route",
        "r",
        "--secret",
        "value:x",
        "--request",
        "x",
    ],
    &[
        "verify",
        "--provider",
        "github",
        "--request",
        "x",
        "--now",
        "yesterday",
    ],
    &[
        "verify",
        "--provider",
        "github",
        "--request",
        "x",
        "--client-ip",
        "192.0.2.1",
    ],
    &[
        "sign",
        "--provider",
        "github",
        "--body",
        "-",
        "--param",
        "no-value",
    ],
    &[
        "sign",
        "--provider",
        "github",
        "--body",
        "-",
        "--header",
        "no-colon",
    ],
    &[
        "sign",
        "--provider",
        "github",
        "--body",
        "-",
        "--header",
        "A: b\nC: d",
    ],
    &[
        "sign",
        "--provider",
        "github",
        "--body",
        "-",
        "--method",
        "G T",
    ],
    &["send", "--provider", "github", "--body", "-"],
    &[
        "send",
        "--provider",
        "github",
        "--body",
        "-",
        "--to",
        "x",
        "--timeout",
        "30",
    ],
    &["routes"],
    &["routes", "test"],
    &["providers", "show"],
    &["completions", "no-such-shell"],
    &["man", "no-such-verb"],
    &["validate", "--format", "xml"],
    &["run", "--log-format", "xml"],
];

#[test]
fn wrong_usage_exits_2_and_says_so_on_stderr() {
    // SECURITY S-25
    let shell = Shell::new();
    for args in WRONG_USAGE {
        let ended = shell.run(args).code(2);
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn manual_pages_and_completions_are_there() {
    let shell = Shell::new();
    let page = shell.run(&["man"]).code(0);
    assert!(page.stdout.contains(".TH hookward 1") && page.stderr.is_empty());
    let foot = format!("\"hookward {}\"", env!("CARGO_PKG_VERSION"));
    assert!(page.stdout.contains(&foot), "{}", page.stdout);
    for verb in VERBS {
        assert!(page.stdout.contains(&verb.replace('-', "\\-")), "{verb}");
        let page = shell.run(&["man", verb]).code(0).stdout;
        assert!(
            page.contains(&format!(".TH hookward-{verb} 1")),
            "{verb}: {page}"
        );
        assert!(page.contains(&foot), "{verb}: {page}");
    }
    for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = shell.run(&["completions", name]).code(0);
        assert!(
            script.stdout.contains("hash-password") && script.stderr.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn the_schema_is_json_schema_of_the_configuration() {
    let schema = Shell::new().run(&["schema"]).code(0).json();
    assert!(
        schema["$schema"]
            .as_str()
            .unwrap()
            .contains("json-schema.org")
    );
    for key in ["version", "listeners", "routes", "upstreams", "limits"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let ended = Shell::new().run(&["--version"]).code(0);
    assert_eq!(
        ended.stdout,
        format!("hookward {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let shell = Shell::new();
    for args in [
        &["schema"][..],
        &["completions", "bash"],
        &["--help"],
        &["providers"],
    ] {
        let mut child = shell
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("pipe"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Shell::new()
        .command(&["schema"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
}

#[test]
fn a_password_becomes_an_argon2id_hash() {
    use argon2::{Argon2, PasswordHash, PasswordVerifier};
    let shell = Shell::new();
    let ended = shell.feed(&["hash-password"], b"correct horse\n").code(0);
    assert!(
        ended.stdout.starts_with("$argon2id$v=19$m=") && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let hash = PasswordHash::new(ended.stdout.trim_end()).unwrap();
    let verify = |password: &[u8]| Argon2::default().verify_password(password, &hash).is_ok();
    assert!(verify(b"correct horse") && !verify(b"correct horse\n"));
    assert_ne!(
        shell.feed(&["hash-password"], b"correct horse").stdout,
        ended.stdout
    );
    for empty in ["", "\n", "\r\n"] {
        shell
            .feed(&["hash-password"], empty.as_bytes())
            .unable("empty");
    }
}
