//! What release builds are compiled by: `deploy/pgo/rustc`, in the place of the compiler.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/pgo/rustc");
const RELEASE: &[&str] = &["-C", "opt-level=3", "-C", "linker-plugin-lto"];

/// A compiler of this version, which prints what it is asked to do.
fn compiler(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join("rustc");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -vV ]; then\n  printf 'host: some-system\\nrelease: {version}\\n'\nelse\n  echo \"$@\"\nfi\n"
    );
    // Not written by this process: what it has open for writing, by way of a fork, cannot be executed.
    let write = "printf %s \"$2\" > \"$1\" && chmod +x \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh"]).arg(&path).arg(script);
    assert!(command.status().unwrap().success());
    path
}

/// What the wrapper makes of these arguments, beside a profile for version 1.2.3.
fn passed_on(version: &str, arguments: &[&str], record: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("wrapper");
    symlink(WRAPPER, &wrapper).unwrap();
    fs::write(folder.path().join("1.2.3-some-system.profdata"), "").unwrap();
    let mut command = Command::new(wrapper);
    command
        .arg(compiler(folder.path(), version))
        .args(arguments);
    command.env_remove("HOOKWARD_PGO_RECORD");
    if let Some(place) = record {
        command.env("HOOKWARD_PGO_RECORD", place);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end()
        .replace(folder.path().to_str().unwrap(), "HERE")
}

#[test]
fn releases_are_optimised_by_the_profile_of_their_compiler() {
    let release = RELEASE.join(" ");
    let with_profile =
        "-Cprofile-use=HERE/1.2.3-some-system.profdata -Cllvm-args=-no-pgo-warn-mismatch";
    assert_eq!(
        passed_on("1.2.3", RELEASE, None),
        format!("{release} {with_profile}")
    );
    assert_eq!(
        passed_on("1.2.3", &["-C", "lto=fat"], None),
        format!("-C lto=fat {with_profile}")
    );
    // Another compiler has none, and other builds are not in need of any.
    assert_eq!(passed_on("1.2.4", RELEASE, None), release);
    for other in [&["-C", "opt-level=3", "-C", "lto=off"][..], &["-vV"]] {
        let own = passed_on("1.2.3", other, None);
        assert!(!own.contains("profile"), "{own}");
    }
    assert_eq!(
        passed_on("1.2.3", RELEASE, Some("/counts")),
        format!("{release} -Cprofile-generate=/counts")
    );
}
