//! Guards who may use whom: the table in src/ARCHITECTURE.md against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Reads the table: module → modules it may import; `None` is everything.
fn table() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let page = fs::read_to_string(Path::new(ROOT).join("src/ARCHITECTURE.md")).unwrap();
    let rows = page
        .split_once("| module | may import |")
        .unwrap()
        .1
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut table = BTreeMap::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let (modules, may) = (cells.next().unwrap(), cells.next().unwrap());
        let may = (!may.contains("everything")).then(|| words(may));
        for module in words(modules) {
            table.insert(module, may.clone());
        }
    }
    table
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    let is_comment = line.trim_start().starts_with("//");
    let code = line.split(" // ").next().filter(|_| !is_comment);
    code.unwrap_or_default()
}

/// Modules that a line names by `crate::`; groups at that level would hide some.
fn imported(line: &str) -> Vec<String> {
    code(line)
        .split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let table = table();
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(Path::new(ROOT).join("src")).unwrap();
        let module = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = module.trim_end_matches(".rs");
        if matches!(module, "main" | "lib") {
            continue;
        }
        let Some(rule) = table.get(module) else {
            wrong.push(format!("src/ARCHITECTURE.md has no row for `{module}`"));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let at = format!("src/{}:{}", relative.display(), number + 1);
            if line.contains("super::super") || line.contains("use crate::{") {
                wrong.push(format!("{at}: write `use crate::module::Item`"));
            }
            for target in imported(line) {
                let allowed =
                    target == module || rule.as_ref().is_none_or(|may| may.contains(&target));
                if !allowed && !target.is_empty() {
                    wrong.push(format!("{at}: {module} -> {target}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Whether a path of this code begins with a crate's name. `rustls::crypto::aws_lc_rs::` is one of rustls.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

/// Crates that only one folder may use: so a reader of the cryptography knows where it ends.
#[test]
fn cryptography_of_schemes_has_one_door() {
    const BEHIND: [&str; 9] = [
        "aws_lc_rs",
        "blake3",
        "hmac",
        "md5",
        "sha1",
        "sha2",
        "sha3",
        "subtle",
        "webpki",
    ];
    const ELSEWHERE: [(&str, &str); 5] = [
        // Passwords of Basic users are not of schemes.
        ("gateway/password.rs", "hmac"),
        ("gateway/password.rs", "sha2"),
        ("gateway/password.rs", "subtle"),
        // The names of files are told apart; nothing is proven.
        ("net/acme/cache.rs", "blake3"),
        // Which mistake of a TLS peer rustls took over from webpki.
        ("net/trust.rs", "webpki"),
    ];
    let root = Path::new(ROOT).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let door = root.join("scheme/primitive");
    assert!(files.iter().any(|file| file.starts_with(&door)));
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| !file.starts_with(&door)) {
        let text = fs::read_to_string(file).unwrap();
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap();
        for line in text.lines() {
            let named = BEHIND.iter().filter(|name| names(code(line), name));
            found.extend(named.map(|name| (relative.to_owned(), *name)));
        }
    }
    let allowed = ELSEWHERE.map(|(file, name)| (file.to_owned(), name));
    assert_eq!(found, BTreeSet::from(allowed));
}

#[test]
fn no_map_has_a_hasher_without_a_key() {
    // SECURITY DS-22: names and values from outside could be made to collide
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    assert!(files.len() > 100);
    let unkeyed = [
        "BuildHasherDefault",
        "DefaultHasher",
        "with_hasher",
        "FxHash",
        "ahash",
    ];
    for file in files {
        // It hashes the keys of configuration files, which come from the operator.
        if file.ends_with("src/document/marks.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for word in unkeyed {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}
