//! What people read and copy holds: examples are loaded, links lead somewhere, tables match the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hookward::reason::{Fault, Reason};
use hookward::settings::Limits;
use hookward::units::Span;
use serde_yaml::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders that hold nothing of ours.
const FOREIGN: &[&str] = &[".git", ".venv", "dev", "node_modules", "target"];

fn root() -> &'static Path {
    Path::new(ROOT)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of the project whose name ends in one of `ends`, relative to its folder.
fn files(ends: &[&str]) -> Vec<String> {
    fn walk(folder: &Path, ends: &[&str], out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !FOREIGN.contains(&name) {
                    walk(&path, ends, out);
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                let path = path.strip_prefix(ROOT).unwrap();
                out.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk(root(), ends, &mut out);
    out.sort();
    out
}

// === configurations ===

/// A whole configuration and where it stands.
struct Example {
    place: String,
    text: String,
}

/// Code blocks by their info string, with the line that they begin in.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((index + 1, info.trim().to_owned(), String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    blocks
}

const HEAD: &str = "version: 1\nlisteners:\n  http: { address: 127.0.0.1:0, plaintext: allow }\n";

fn indented(text: &str, by: usize) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{:by$}{line}\n", ""),
    });
    lines.collect()
}

/// What a part of a configuration lacks to be a whole one.
fn completed(part: &str) -> String {
    let has = |key: &str| part.lines().any(|line| line.strip_prefix(key) == Some(":"));
    let mut text = if has("listeners") {
        "version: 1\n".to_owned()
    } else {
        HEAD.to_owned()
    };
    if !has("routes") {
        text.push_str("routes: []\n");
    }
    text + part
}

/// Blocks that say `yaml config` are files, `yaml part` some of the top level's keys, `yaml routes`
/// items of `routes`, `yaml verify` items of a route's `verify`.
fn examples_of_page(page: &str) -> Vec<Example> {
    let blocks = blocks(&read(page));
    let examples = blocks.into_iter().filter_map(|(line, info, text)| {
        let text = match info.as_str() {
            "yaml config" => text,
            "yaml part" => completed(&text),
            "yaml routes" => format!("{HEAD}routes:\n{}", indented(&text, 2)),
            "yaml verify" => format!(
                "{HEAD}routes:\n  - name: example\n    match: {{ path: /example }}\n    upstream: echo\n    \
                 verify:\n{}",
                indented(&text, 6)
            ),
            _ => return None,
        };
        Some(Example { place: format!("{page}:{line}"), text })
    });
    examples.collect()
}

fn documents(path: &str) -> Vec<Value> {
    use serde::Deserialize;
    let text = read(path);
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            Value::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}"))
        })
        .collect()
}

/// Every configuration that is shipped, as it stands in its file.
fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = files(&[".md"])
        .iter()
        .flat_map(|page| examples_of_page(page))
        .collect();
    let is_whole = |path: &String| {
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        folder == "rules" || (folder == "deploy" && name.ends_with(".hookward.yaml"))
    };
    let whole = files(&[".yaml"]).into_iter().filter(is_whole);
    examples.extend(whole.map(|place| Example {
        text: read(&place),
        place,
    }));
    for place in files(&[".yaml"])
        .into_iter()
        .filter(|path| path.starts_with("deploy/kubernetes/"))
    {
        for document in documents(&place) {
            if let Some(text) = document["data"]["hookward.yaml"].as_str() {
                examples.push(Example {
                    place: place.clone(),
                    text: text.to_owned(),
                });
            }
        }
    }
    for compose in documents("deploy/compose.yaml") {
        let text = compose["configs"]["app"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        examples.push(Example {
            place: "deploy/compose.yaml".to_owned(),
            text,
        });
    }
    examples
}

/// A machine on which the examples can be loaded: files and variables that they name.
struct Machine {
    dir: tempfile::TempDir,
}

/// Where deployments mount files.
const MOUNTS: &[&str] = &[
    "/etc/hookward/",
    "/run/secrets/",
    "/run/credentials/hookward.service/",
];

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("bash")
            .arg(root().join("certs/make-dev-certs.sh"))
            .arg("-d")
            .arg(dir.path().join("certs/dev"))
            .arg("hooks.example.org")
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let machine = Self { dir };
        for (made, names) in [
            ("server.pem", ["server.pem", "other.pem"]),
            ("server.key", ["server.key", "other.key"]),
            ("ca.pem", ["clients.pem", "internal.pem"]),
        ] {
            for name in names {
                let file = machine.dir.path().join("certs").join(name);
                fs::copy(machine.certificate(made), file).unwrap();
            }
        }
        machine
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs/dev").join(name)
    }

    /// The example with its mounts in our folder, where every file that it names is made.
    fn prepared(&self, example: &Example) -> String {
        let mut text = example.text.clone();
        for mount in MOUNTS {
            let here = format!("{}{mount}", self.dir.path().display());
            for rest in example.text.split(mount).skip(1) {
                let is_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
                let (name, _) = leading(rest, is_path);
                let file = Path::new(&here).join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                match name.rsplit(['/', '.', '_']).next().unwrap() {
                    "crt" | "cert" => drop(fs::copy(self.certificate("server.pem"), file).unwrap()),
                    "key" => drop(fs::copy(self.certificate("server.key"), file).unwrap()),
                    _ => fs::write(file, secret(name)).unwrap(),
                }
            }
            text = text.replace(mount, &here);
        }
        text
    }

    /// Every variable that the example needs.
    fn variables(&self, text: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for rest in text.split("env:").skip(1) {
            let (name, after) = leading(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            if name.is_empty() || after.starts_with(":-") {
                continue;
            }
            let value = match name {
                "HOOKS_HOST" => "hooks.example.org".to_owned(),
                "REDIS_URL" => "redis://:a-password@redis:6379/0".to_owned(),
                "TLS_CERT" => self.certificate("server.pem").display().to_string(),
                "TLS_KEY" => self.certificate("server.key").display().to_string(),
                name => secret(name),
            };
            variables.insert(name.to_owned(), value);
        }
        variables
    }

    fn validate(&self, example: &Example) -> Result<Vec<String>, String> {
        let text = self.prepared(example);
        let file = self.dir.path().join("hookward.yaml");
        fs::write(&file, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(["validate", "--format", "json", "-c"])
            .arg(&file)
            .env_clear()
            .envs(self.variables(&text))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let judged: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{}: {}: {error}: {stderr}", example.place, output.status))?;
        let problems = judged["problems"].as_array().unwrap();
        let said = problems.iter().map(|problem| {
            let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
            let (line, column) = (&problem["line"], &problem["column"]);
            format!(
                "{}: {line}:{column}: {}: {} {}",
                example.place,
                text("severity"),
                text("path"),
                text("message")
            )
        });
        let said: Vec<_> = said.collect();
        if output.status.code() == Some(0) && judged["valid"] == true {
            Ok(said)
        } else {
            Err(said.join("\n"))
        }
    }
}

/// Splits after the first characters for which `is` holds.
fn leading(text: &str, is: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !is(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A secret for `name`: long, and no other's.
fn secret(name: &str) -> String {
    let digits = name.bytes().map(|byte| format!("{byte:02x}"));
    digits
        .chain(std::iter::repeat_n("a5".to_owned(), 32))
        .take(32)
        .collect()
}

#[test]
fn every_configuration_is_valid() {
    let machine = Machine::new();
    let examples = examples();
    assert!(examples.len() > 20, "only {} found", examples.len());
    let wrong: Vec<_> = examples
        .iter()
        .filter_map(|example| machine.validate(example).err())
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What people copy whole has nothing that they would be warned of.
#[test]
fn ready_configurations_warn_of_nothing() {
    let machine = Machine::new();
    let ready = |example: &&Example| {
        let place = &example.place;
        (place.starts_with("rules/") && !place.ends_with("quickstart.yaml"))
            || place.ends_with(".hookward.yaml")
            || place.starts_with("deploy/kubernetes/")
            || place.starts_with("README.md")
    };
    let examples = examples();
    let ready: Vec<_> = examples.iter().filter(ready).collect();
    assert!(ready.len() >= 8, "only {} found", ready.len());
    let judged = ready.iter().map(|example| machine.validate(example));
    let warnings: Vec<String> = judged
        .flat_map(|judged| judged.unwrap_or_else(|error| vec![error]))
        .collect();
    assert!(warnings.is_empty(), "\n{}", warnings.join("\n"));
}

// === pages ===

/// Text of a page without its code.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.extend(line.split('`').step_by(2));
            text.push('\n');
        }
    }
    text
}

/// How a heading is linked to: lower case, blanks as dashes, punctuation dropped.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = page.lines().filter(|line| {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        !fenced && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

fn links(page: &str) -> Vec<String> {
    let text = prose(page);
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in files(&[".md"]) {
        let text = read(&page);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(&page).parent().unwrap();
            let target = match path {
                "" => root().join(&page),
                path => root().join(folder).join(path),
            };
            let is_known = target.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&target)
                        .is_ok_and(|text| anchors(&text).contains(anchor)));
            if !is_known {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_every_page() {
    let map = links(&read("docs/index.md"));
    for page in files(&[".md"])
        .iter()
        .filter_map(|page| page.strip_prefix("docs/"))
    {
        let named = map.iter().any(|link| link.split('#').next() == Some(page));
        assert!(
            named || page == "index.md",
            "docs/index.md does not name {page}"
        );
    }
}

/// An id of the page of threats, such as `DS-14`: its group and its number.
fn threat(word: &str) -> Option<(&str, u8)> {
    let (group, number) = word.split_once('-')?;
    let is_group = matches!(group.len(), 1 | 2)
        && group.starts_with(|c: char| c.is_ascii_uppercase())
        && !group.contains(|c: char| c.is_ascii_lowercase());
    let number = number.parse().ok().filter(|_| number.len() == 2);
    number.filter(|_| is_group).map(|number| (group, number))
}

/// Ids that a text cites, one by one, and those between the two ends of `DS-01 to DS-04`.
fn cited(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words: Vec<_> = text
        .split(|c| !is_part(c))
        .filter(|word| !word.is_empty())
        .collect();
    let ends = |at: usize| match words.get(at + 1..at + 3) {
        Some(["to", last]) => threat(last),
        _ => None,
    };
    let from = |(at, word): (usize, &&str)| {
        let (group, first) = threat(word)?;
        let last = ends(at)
            .filter(|(other, _)| *other == group)
            .map_or(first, |(_, last)| last);
        let group = group.to_owned();
        Some((first..=last).map(move |number| format!("{group}-{number:02}")))
    };
    words
        .iter()
        .enumerate()
        .filter_map(from)
        .flatten()
        .collect()
}

#[test]
fn every_threat_that_is_cited_has_a_row_and_every_row_is_cited() {
    let ids = |text: &str| cited(text).into_iter().collect::<Vec<_>>();
    assert_eq!(
        ids("DS-01 to DS-03, H2-06, A-10 and (SM-42).\n// L-01; not RT-1, UTF-16, 0.3 or x-A-11"),
        ["A-10", "DS-01", "DS-02", "DS-03", "H2-06", "L-01", "SM-42"]
    );

    let page = read("docs/threats.md");
    let mut rows = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in page.lines() {
        let id = line
            .strip_prefix("| ")
            .and_then(|row| row.split_once(" |"))
            .map_or("", |(id, _)| id);
        if threat(id).is_some() && !rows.insert(id.to_owned()) {
            wrong.push(format!("{id} stands twice on the page"));
        }
    }
    let mut known = BTreeSet::new();
    let citing = |file: &String| {
        let folders = ["src/", "tests/", "benches/"];
        folders.iter().any(|folder| file.starts_with(folder)) && file != "tests/it/docs.rs"
    };
    let files = files(&[".rs", ".py", ".md", "run"]);
    for file in files.iter().filter(|file| citing(file)) {
        let text = read(file);
        for id in cited(&text) {
            if !rows.contains(&id) {
                wrong.push(format!("{file}: {id} has no row"));
            }
            known.insert(id);
        }
        // What stands behind the word is an id, and nothing like `DS-1` or a chapter.
        for rest in text.split("SECURITY ").skip(1) {
            let (first, _) = leading(rest, |c| c.is_ascii_alphanumeric() || "-.".contains(c));
            if !first.is_empty() && threat(first.trim_end_matches('.')).is_none() {
                wrong.push(format!("{file}: {first} is no id"));
            }
        }
    }
    let uncited = rows.difference(&known);
    wrong.extend(uncited.map(|id| format!("nothing cites {id}")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Rows of the tables of a page whose first cell is a code word, cell by cell.
fn rows(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

fn code_words(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_reason_is_explained() {
    let checks = read("docs/checks.md");
    let table = checks.split("## Reasons").nth(1).unwrap();
    let documented: Vec<_> = rows(table)
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[2].clone()))
        .collect();
    let expected: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| {
            let row = reason.row();
            let acts = match row.fault {
                Fault::Gateway => "gateway",
                Fault::Load => "load",
                Fault::Sender => "sender",
                Fault::Upstream => "upstream",
            };
            (
                format!("`{}`", row.code),
                row.status.to_string(),
                acts.to_owned(),
            )
        })
        .collect();
    assert_eq!(documented, expected);

    let operations = read("docs/operations.md");
    let table = operations
        .split("## By reason")
        .nth(1)
        .unwrap()
        .split("## ")
        .next()
        .unwrap();
    let helped: BTreeSet<_> = rows(table)
        .iter()
        .flat_map(|row| code_words(&row[0]))
        .collect();
    let known: BTreeSet<_> = Reason::ALL
        .iter()
        .map(|reason| reason.code().to_owned())
        .collect();
    assert_eq!(helped, known);
}

/// Name, type and labels of every metric on the page that Prometheus reads.
fn metrics() -> BTreeSet<(String, String, Vec<String>)> {
    let page = read("tests/snapshots/metrics_page.snap");
    let labels = |name: &str| {
        let sample = page.lines().find(|line| {
            ["", "_bucket"].iter().any(|suffix| {
                line.strip_prefix(&format!("{name}{suffix}"))
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
        });
        let labels = sample
            .unwrap()
            .split_once('{')
            .map_or("", |(_, rest)| rest)
            .split('"')
            .step_by(2);
        let names = labels.filter_map(|label| label.trim_start_matches(',').strip_suffix('='));
        let mut names: Vec<_> = names
            .filter(|name| *name != "le")
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    let types = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut metrics: BTreeSet<_> = types
        .map(|(name, kind)| (name.to_owned(), kind.to_owned(), labels(name)))
        .collect();
    // Registered when the process starts its logs, which the snapshot's test does not.
    metrics.insert((
        "hookward_log_dropped_total".to_owned(),
        "counter".to_owned(),
        Vec::new(),
    ));
    metrics
}

#[test]
fn every_metric_is_documented() {
    let page = read("docs/metrics.md");
    let rows = rows(&page)
        .into_iter()
        .filter(|row| row[0].starts_with("`hookward_"));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let mut labels = code_words(&row[2]);
            labels.sort();
            (code_words(&row[0])[0].clone(), row[1].clone(), labels)
        })
        .collect();
    assert_eq!(documented, metrics());
}

#[test]
fn nothing_names_a_metric_that_is_not_there() {
    let known: BTreeSet<_> = metrics().into_iter().map(|(name, ..)| name).collect();
    let mut wrong = Vec::new();
    for file in files(&[".md", ".yml", ".yaml", ".json"]) {
        for rest in read(&file).split("hookward_").skip(1) {
            let (name, _) = leading(rest, |c| c.is_ascii_lowercase() || c == '_');
            let name = format!("hookward_{name}");
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            if !known.contains(base.unwrap_or(&name)) {
                wrong.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Every key of `limits`, and its default as it is printed.
fn default_limits() -> Vec<(&'static str, String)> {
    // Whole, so that nobody adds a key and forgets it here.
    let Limits {
        connections,
        connections_per_address: _,
        requests_in_flight,
        body_memory,
        header_bytes,
        tls_handshake_timeout,
        header_timeout,
        body_timeout,
        body_min_rate,
        idle_timeout,
        write_timeout,
        drain_timeout,
        drain_delay,
        deliveries: _,
        clients: _,
        http2_window: _,
        http2_streams: _,
    } = Limits::default();
    let few = Limits {
        connections: 10,
        ..Limits::default()
    };
    let least = few.connections_of([192, 0, 2, 1].into());
    let share = format!("a tenth of `connections`, at least {least}");
    let span = |time: Duration| match time {
        Duration::ZERO => "0s".to_owned(),
        time => Span(time).to_string(),
    };
    vec![
        ("connections", connections.to_string()),
        ("connections_per_address", share),
        ("requests_in_flight", requests_in_flight.to_string()),
        ("body_memory", body_memory.to_string()),
        ("header_bytes", header_bytes.to_string()),
        ("tls_handshake_timeout", span(tls_handshake_timeout)),
        ("header_timeout", span(header_timeout)),
        ("body_timeout", span(body_timeout)),
        ("body_min_rate", body_min_rate.to_string()),
        ("idle_timeout", span(idle_timeout)),
        ("write_timeout", span(write_timeout)),
        ("drain_timeout", span(drain_timeout)),
        ("drain_delay", span(drain_delay)),
    ]
}

#[test]
fn documented_limits_are_the_defaults() {
    let schema: serde_json::Value = serde_json::from_str(hookward::config::SCHEMA).unwrap();
    let described = &schema["$defs"]["LimitsSpec"]["properties"];
    let page = read("docs/configuration.md");
    let (_, section) = page.split_once("\n## Limits\n").unwrap();
    let rows = rows(section.split("\n## ").next().unwrap());
    let defaults = default_limits();
    let mut known: Vec<_> = defaults.iter().map(|(key, _)| *key).collect();
    known.sort_unstable();
    let mut keys: Vec<_> = described.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(known, keys);
    assert_eq!(rows.len(), defaults.len());
    for (key, default) in defaults {
        let row = rows.iter().find(|row| row[0] == format!("`{key}`"));
        let cell = &row.unwrap()[2];
        let says = *cell == format!("`{default}`") || cell.starts_with(&format!("{default};"));
        assert!(says, "{key} is {default}, not {cell}");
        let text = described[key]["description"].as_str().unwrap();
        let text = text.replace('\n', " ");
        let says = [
            format!("Default {default}."),
            format!("Default: {default};"),
        ];
        let says = says.iter().any(|words| text.contains(words));
        assert!(says, "{key} is {default}, not as in: {text}");
    }
}

/// What another page repeats of them.
#[test]
fn limits_on_the_page_of_operations_are_the_defaults() {
    let limits = Limits::default();
    let page = read("docs/operations.md");
    for (name, default) in [
        ("tls_handshake_timeout", limits.tls_handshake_timeout),
        ("header_timeout", limits.header_timeout),
        ("body_timeout", limits.body_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("write_timeout", limits.write_timeout),
    ] {
        let row = format!("| `{name}` | {} s |", default.as_secs());
        assert!(page.contains(&row), "{row}");
    }
    for text in [
        format!(
            "| `body_min_rate` | {} bytes a second",
            limits.body_min_rate
        ),
        format!(
            "`limits.drain_timeout` ({} s)",
            limits.drain_timeout.as_secs()
        ),
        format!(
            "`limits.body_memory`, counted as they arrive | {} MiB",
            limits.body_memory.0 >> 20
        ),
    ] {
        assert!(page.contains(&text), "{text}");
    }
}

// === scripts and deployments ===

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    let readme = read("README.md");
    let screen: Vec<_> = readme.lines().take(24).collect();
    assert!(
        screen
            .iter()
            .any(|line| line.starts_with("cargo run --release -- run"))
    );
    assert!(screen.iter().any(|line| line.starts_with("tests/run")));
    let ci = read(".ci/run");
    assert_eq!(ci.lines().last(), Some("exec tests/run"));
}

#[test]
fn deployments_parse() {
    for path in files(&[".yaml", ".yml"])
        .into_iter()
        .filter(|path| path.starts_with("deploy/"))
    {
        assert!(!documents(&path).is_empty(), "{path}");
    }
    for path in files(&[".yaml"])
        .into_iter()
        .filter(|path| path.starts_with("deploy/kubernetes/"))
    {
        for document in documents(&path) {
            for key in ["apiVersion", "kind"] {
                assert!(document[key].is_string(), "{path}: {key}");
            }
            assert!(document["metadata"]["name"].is_string(), "{path}");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/prometheus/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

/// The rules of alerts in a YAML text: names, and when they fire.
fn alerts(text: &str) -> BTreeMap<String, (Value, Value)> {
    let rules: Value = serde_yaml::from_str(text).unwrap();
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap();
    let rule = |rule: &Value| {
        let name = rule["alert"].as_str().unwrap().to_owned();
        (name, (rule["expr"].clone(), rule["for"].clone()))
    };
    rules.iter().map(rule).collect()
}

#[test]
fn alerts_on_the_page_are_those_that_are_shipped() {
    let shipped = alerts(&read("deploy/prometheus/alerts.yml"));
    let page = read("docs/metrics.md");
    let printed = blocks(&page)
        .into_iter()
        .find(|(_, info, text)| info == "yaml" && text.starts_with("groups:"));
    let printed = alerts(&printed.unwrap().2);
    assert!(printed.contains_key("HookwardAcmeStandIn"));
    for (name, rule) in printed {
        assert_eq!(Some(&rule), shipped.get(&name), "{name}");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    for arguments in [
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["test", "rules", "tests/alerts.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        let output = promtool.args(arguments).current_dir(root()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{said}");
    }
}

/// Seconds of a duration as configurations write it.
fn seconds(value: &Value) -> u64 {
    let span: Span = value.as_str().unwrap().parse().unwrap();
    span.0.as_secs()
}

/// The port that something listens on.
fn port(address: &Value) -> u64 {
    let (_, port) = address.as_str().unwrap().rsplit_once(':').unwrap();
    port.parse().unwrap()
}

/// A pod is not killed while it drains, and probes, Services and Prometheus find what listens.
#[test]
fn kubernetes_agrees_with_the_configuration() {
    for path in files(&[".yaml"])
        .into_iter()
        .filter(|path| path.starts_with("deploy/kubernetes/"))
    {
        let documents = documents(&path);
        let mut of_kind = documents.iter();
        let mut next = |kind: &str| of_kind.find(|document| document["kind"] == kind).unwrap();
        let text = &next("ConfigMap")["data"]["hookward.yaml"];
        let config: Value = serde_yaml::from_str(text.as_str().unwrap()).unwrap();
        let pod = &next("Deployment")["spec"]["template"]["spec"];
        let service = &next("Service")["spec"];

        let limits = &config["limits"];
        let drain = seconds(&limits["drain_delay"]) + seconds(&limits["drain_timeout"]);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > drain + 1, "{path}");

        let mut containers = pod["containers"].as_sequence().unwrap().iter();
        let gateway = containers.find(|container| container["name"] == "hookward");
        let gateway = gateway.unwrap();
        let ports: BTreeMap<&str, u64> = gateway["ports"]
            .as_sequence()
            .unwrap()
            .iter()
            .map(|port| (&port["name"], &port["containerPort"]))
            .map(|(name, port)| (name.as_str().unwrap(), port.as_u64().unwrap()))
            .collect();
        assert_eq!(ports["admin"], port(&config["admin"]["address"]), "{path}");
        for (name, listener) in config["listeners"].as_mapping().unwrap() {
            let name = name.as_str().unwrap();
            assert_eq!(ports[name], port(&listener["address"]), "{path}: {name}");
        }
        for served in service["ports"].as_sequence().unwrap() {
            let target = served["targetPort"].as_str().unwrap();
            assert!(ports.contains_key(target), "{path}: {target}");
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let port = &gateway[probe]["httpGet"]["port"];
            assert_eq!(port, "admin", "{path}: {probe}");
        }
    }
}

#[test]
fn kubernetes_gives_no_rights() {
    for path in files(&[".yaml"])
        .into_iter()
        .filter(|path| path.starts_with("deploy/kubernetes/"))
    {
        let documents = documents(&path);
        let mut deployments = documents
            .iter()
            .filter(|document| document["kind"] == "Deployment");
        let pod = &deployments.next().unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{path}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{path}");
        let mut containers = pod["containers"].as_sequence().unwrap().iter();
        let gateway = containers.find(|container| container["name"] == "hookward");
        let rights = &gateway.unwrap()["securityContext"];
        assert_eq!(rights["readOnlyRootFilesystem"], true, "{path}");
        assert_eq!(rights["allowPrivilegeEscalation"], false, "{path}");
        assert_eq!(rights["capabilities"]["drop"][0], "ALL", "{path}");
    }
}

/// Whoever stops the process waits longer than it drains.
#[test]
fn supervisors_wait_for_the_drain() {
    let limits = Limits::default();
    let drain = limits.drain_delay + limits.drain_timeout + Duration::from_secs(1);
    let unit = read("deploy/hookward.service");
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .unwrap();
    assert!(stop.parse::<Span>().unwrap().0 > drain);
    let compose = &documents("deploy/compose.yaml")[0];
    assert!(seconds(&compose["services"]["hookward"]["stop_grace_period"]) > drain.as_secs());
}
