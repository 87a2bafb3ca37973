//! What release builds are compiled by: `deploy/pgo/rustc`, in the place of the compiler.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/pgo/rustc");
const RELEASE: &[&str] = &["-C", "opt-level=3", "-C", "linker-plugin-lto"];

/// What the wrapper is run with.
#[derive(Clone, Copy)]
struct World {
    /// Of the compiler.
    version: &'static str,
    llvm: &'static str,
    host: &'static str,
    glibc: &'static str,
    /// Whether lld comes with it.
    has_lld: bool,
    record: Option<&'static str>,
}

/// As the profile was made in.
const WORLD: World = World {
    version: "1.2.3",
    llvm: "7.8.9",
    host: "some-system",
    glibc: "2.35",
    has_lld: false,
    record: None,
};

/// Makes a program. Not written by this process: what it has open for writing, by way of a fork, cannot be executed.
fn program(folder: &Path, name: &str, script: &str) {
    let write = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh"]);
    command.arg(folder.join(name)).arg(script);
    assert!(command.status().unwrap().success());
}

impl World {
    /// What the wrapper has the compiler do when it is asked for this.
    fn passed_on(self, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let wrapper = here.join("wrapper");
        symlink(WRAPPER, &wrapper).unwrap();
        for made in ["profdata", "order"] {
            fs::write(here.join(format!("1.2.3-llvm7-some-system.{made}")), "").unwrap();
        }
        let Self {
            version,
            llvm,
            host,
            glibc,
            ..
        } = self;
        let about = format!("host: {host}\\nrelease: {version}\\nLLVM version: {llvm}\\n");
        let root = here.display();
        let script = format!(
            "case $* in -vV) printf '{about}' ;; '--print sysroot') echo '{root}' ;; *) echo \"$@\" ;; esac"
        );
        program(here, "rustc", &script);
        if self.has_lld {
            let place = here.join("lib/rustlib").join(host).join("bin/gcc-ld");
            fs::create_dir_all(&place).unwrap();
            program(&place, "ld.lld", "");
        }
        let answer = if glibc.is_empty() {
            "exit 1"
        } else {
            "echo glibc $0"
        };
        program(here, "getconf", &answer.replace("$0", glibc));
        let mut command = Command::new("sh");
        command.args(["-c", "PATH=$1:$PATH && shift && exec \"$@\"", "sh"]);
        command.arg(here).arg(wrapper);
        command.arg(here.join("rustc")).args(arguments);
        command.env_remove("HOOKWARD_PGO_RECORD");
        if let Some(place) = self.record {
            command.env("HOOKWARD_PGO_RECORD", place);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end().replace(here.to_str().unwrap(), "HERE")
    }
}

#[test]
fn releases_are_optimised_by_the_profile_of_their_compiler() {
    let release = RELEASE.join(" ");
    let with_profile = "-Cprofile-use=HERE/1.2.3-llvm7-some-system.profdata \
         -Cllvm-args=-no-pgo-warn-mismatch";
    assert_eq!(
        WORLD.passed_on(RELEASE),
        format!("{release} {with_profile}")
    );
    assert_eq!(
        WORLD.passed_on(&["-C", "lto=fat"]),
        format!("-C lto=fat {with_profile}")
    );
    // Another compiler has none, and other builds are not in need of any.
    for other in [
        World {
            version: "1.2.4",
            ..WORLD
        },
        World {
            llvm: "6.0.0",
            ..WORLD
        },
        World {
            host: "other-system",
            ..WORLD
        },
    ] {
        assert_eq!(other.passed_on(RELEASE), release);
    }
    for other in [
        &["-C", "opt-level=3", "-C", "lto=off"][..],
        &["--target", "other-linux-gnu", "-C", "lto=fat"],
        &["-vV"],
    ] {
        let own = WORLD.passed_on(other);
        assert!(!own.contains("profile"), "{own}");
    }
    let record = Some("/counts");
    assert_eq!(
        World { record, ..WORLD }.passed_on(RELEASE),
        format!("{release} -Cprofile-generate=/counts")
    );
}

#[test]
fn what_a_start_runs_is_put_in_one_place_by_lld() {
    const ORDER: &str = "-Clink-arg=--symbol-ordering-file=HERE/1.2.3-llvm7-some-system.order";
    const PLACED: &str = "-Clink-arg=-Xlinker";
    let with_lld = World {
        has_lld: true,
        ..WORLD
    };
    let own = with_lld.passed_on(RELEASE);
    let wanted = format!("{PLACED} {ORDER} -Clink-arg=-Wl,--no-warn-symbol-ordering");
    assert!(own.ends_with(&wanted), "{own}");
    // Other linkers know no such option, and of another compiler's functions nothing is known.
    let version = "1.2.4";
    for world in [
        WORLD,
        World {
            version,
            ..with_lld
        },
    ] {
        let own = world.passed_on(RELEASE);
        assert!(!own.contains("-Clink-arg"), "{own}");
    }
    for another in [
        "-Clinker=clang",
        "linker=clang",
        "-Clink-arg=-fuse-ld=bfd",
        "-Clink-self-contained=-linker",
        "-Clinker-flavor=ld",
        "-Clinker-features=-lld",
    ] {
        let own = with_lld.passed_on(&["-C", "lto=fat", another]);
        assert!(!own.contains(ORDER), "{own}");
    }
}

#[test]
fn the_image_is_built_from_all_that_a_release_is_built_from() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(top.join("deploy/Dockerfile")).unwrap();
    let ignored = fs::read_to_string(top.join("deploy/Dockerfile.dockerignore")).unwrap();
    let copies = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "));
    let own = copies.filter(|copy| !copy.starts_with("--from"));
    let copied: Vec<_> = own.flat_map(|copy| copy.split(' ').rev().skip(1)).collect();
    for wanted in ["Cargo.lock", ".cargo", "deploy/pgo", "src", "rules"] {
        assert!(copied.contains(&wanted), "{wanted}: {copied:?}");
    }
    for source in copied {
        assert!(top.join(source).exists(), "{source}");
        let is_sent = |line: &str| line.strip_prefix('!') == Some(source);
        assert!(ignored.lines().any(is_sent), "{source} is ignored");
    }
}

#[test]
fn every_profile_comes_with_what_a_start_runs() {
    let folder = Path::new(WRAPPER).parent().unwrap();
    let made = |kind: &str| {
        let files = fs::read_dir(folder).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let of_kind = paths.filter(|path| path.extension().is_some_and(|own| own == kind));
        of_kind.collect::<Vec<_>>()
    };
    // Where else lld is the linker, the compiler's makers decide.
    let by_lld = |path: &PathBuf| {
        path.to_string_lossy()
            .contains("-x86_64-unknown-linux-gnu.")
    };
    let profiles: Vec<_> = made("profdata").into_iter().filter(by_lld).collect();
    assert!(!profiles.is_empty());
    for profile in profiles {
        let order = fs::read_to_string(profile.with_extension("order")).unwrap();
        assert!(order.lines().count() > 1000 && order.contains("hookward"));
    }
    for order in made("order") {
        assert!(order.with_extension("profdata").exists(), "{order:?}");
    }
}

#[test]
fn relocations_are_packed_where_the_loader_can_read_them() {
    for (host, glibc, is_packed) in [
        ("x-linux-gnu", "2.35", false),
        ("x-linux-gnu", "2.36", true),
        ("x-linux-gnu", "2.100", true),
        ("x-linux-gnu", "3.0", true),
        ("x-linux-gnu", "", false),
        ("x-linux-musl", "2.36", false),
    ] {
        let world = World {
            host,
            glibc,
            ..WORLD
        };
        let own = world.passed_on(RELEASE);
        let packed = own.contains("-Clink-arg=-Wl,-z,pack-relative-relocs");
        assert_eq!(packed, is_packed, "{host} {glibc}: {own}");
        assert!(!world.passed_on(&["-C", "lto=off"]).contains("-Clink-arg"));
    }
}
