//! What is linked: crates of the registry only, each once, and none that was decided against.
//!
//! `.deny.toml` says the same and more to `cargo deny check`; this needs no tool.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Crates that are linked in two versions, until who asks for the older one moves on.
const TWICE: &[&str] = &["base64", "hashbrown", "syn", "synstructure", "untrusted"];

/// The values of a key that `.deny.toml` gives for each crate of a list: `crate = "NAME@VERSION"`.
fn crates_of(list: &str) -> Vec<String> {
    let file = fs::read_to_string(format!("{ROOT}/.deny.toml")).unwrap();
    let start = format!("\n{list} = [");
    let (_, rest) = file.split_once(&start).expect("the list is there");
    let (entries, _) = rest.split_once("\n]").unwrap();
    let name = |line: &str| Some(line.split('"').nth(1)?.split('@').next()?.to_owned());
    entries.lines().filter_map(name).collect()
}

/// Names and versions of everything in the binary and what builds it.
fn linked() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--edges", "normal,build", "--format", "{p}"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect();
    all.sort();
    all.dedup();
    assert!(all.iter().any(|(name, _)| name == "hyper"), "{text}");
    all
}

#[test]
fn every_dependency_comes_from_the_registry_with_a_checksum() {
    let lock = fs::read_to_string(format!("{ROOT}/Cargo.lock")).unwrap();
    let packages: Vec<_> = lock.split("[[package]]").skip(1).collect();
    assert!(packages.len() > 100);
    for package in packages {
        if package.contains("name = \"hookward\"\n") {
            continue;
        }
        let source = package
            .lines()
            .find_map(|line| line.strip_prefix("source = "));
        assert!(
            source.is_some_and(|source| source.starts_with("\"registry+")),
            "{package}"
        );
        assert!(package.contains("\nchecksum = \""), "{package}");
    }
    let manifest = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    for key in ["git =", "path = \"..", "[patch", "[replace", "= \"*\""] {
        assert!(!manifest.contains(key), "{key}");
    }
}

#[test]
fn nothing_is_linked_that_was_decided_against() {
    let banned = crates_of("deny");
    assert!(banned.iter().any(|name| name == "openssl-sys"));
    for (name, version) in linked() {
        assert!(!banned.contains(&name), "{name} {version} is linked");
    }
}

#[test]
fn nothing_is_linked_twice_but_for_a_few() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in linked() {
        versions.entry(name).or_default().push(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let twice: Vec<&str> = versions.keys().map(String::as_str).collect();
    assert_eq!(twice, TWICE, "{versions:?}");
    assert_eq!(crates_of("skip"), TWICE, "`.deny.toml` says something else");
}

#[test]
fn the_lints_that_promise_no_unsafe_code_and_no_panic_stand() {
    let manifest = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    for line in [
        "unsafe_code = \"forbid\"",
        "unwrap_used = \"deny\"",
        "expect_used = \"deny\"",
        "panic = \"deny\"",
        "indexing_slicing = \"deny\"",
        "string_slice = \"deny\"",
        "overflow-checks = true",
        "panic = \"unwind\"",
    ] {
        assert!(
            manifest
                .lines()
                .any(|own| own.split(" #").next().unwrap().trim() == line),
            "{line}"
        );
    }
}
