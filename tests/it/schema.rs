//! The JSON Schema of the configuration: it accepts what loads, refuses what does not even have the
//! right shape, and has no key that the documentation does not explain.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hookward::config;
use serde_json::{Map, Value};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn schema() -> Value {
    serde_json::from_str(config::SCHEMA).unwrap()
}

/// Validates by the part of JSON Schema that the schema is written in. Any other keyword fails.
struct Validator {
    root: Value,
}

impl Validator {
    fn new() -> Self {
        Self { root: schema() }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        self.node(&self.root, value, "")
    }

    fn node(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Value::Object(rules) = schema else {
            return if schema == &Value::Bool(true) {
                Ok(())
            } else {
                Err(format!("{at}: not allowed"))
            };
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.node(&self.root["$defs"][name], value, at)?;
                }
                "anyOf" | "oneOf" => {
                    let choices = rule.as_array().unwrap();
                    let tried = choices.iter().map(|one| self.node(one, value, at));
                    let failed: Vec<_> = tried.filter_map(Result::err).collect();
                    if failed.len() == choices.len() {
                        return Err(format!("{at}: none of {failed:?}"));
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.node(rule, item, &format!("{at}[{index}]"))?;
                    }
                }
                "properties"
                | "additionalProperties"
                | "patternProperties"
                | "$schema"
                | "$id"
                | "$defs"
                | "title"
                | "description"
                | "format" => {}
                keyword if holds(keyword, rule, value) => {}
                keyword => return Err(format!("{at}: {value} is not of {keyword} {rule}")),
            }
        }
        self.properties(rules, value, at)
    }

    fn properties(
        &self,
        rules: &Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let Value::Object(map) = value else {
            return Ok(());
        };
        for (key, value) in map {
            let at = format!("{at}.{key}");
            let known = rules.get("properties").and_then(|known| known.get(key));
            let free = key.starts_with("x-") && rules.contains_key("patternProperties");
            match (known, rules.get("additionalProperties")) {
                (Some(rule), _) => self.node(rule, value, &at)?,
                (None, Some(rule)) if !free => self.node(rule, value, &at)?,
                (None, _) => {}
            }
        }
        Ok(())
    }
}

/// Whether a value fulfils a rule that looks at nothing else.
fn holds(keyword: &str, rule: &Value, value: &Value) -> bool {
    match keyword {
        "type" => match rule {
            Value::Array(names) => names
                .iter()
                .any(|name| has_type(value, name.as_str().unwrap())),
            name => has_type(value, name.as_str().unwrap()),
        },
        "const" => rule == value,
        "enum" => rule.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
        "pattern" => {
            let known: fn(&str) -> bool = match rule.as_str().unwrap() {
                "\\$\\{env:" => |_| false,
                "^\\s*[+-]?[0-9]+\\s*$|\\$\\{env:" => |text| text.trim().parse::<i64>().is_ok(),
                "^\\s*(true|false)\\s*$|\\$\\{env:" => |text| text.trim().parse::<bool>().is_ok(),
                other => panic!("the test does not know `{other}`"),
            };
            let fits = |text: &str| known(text) || text.contains("${env:");
            value.as_str().is_none_or(fits)
        }
        "required" => {
            let mut keys = rule
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key.as_str().unwrap());
            value
                .as_object()
                .is_none_or(|map| keys.all(|key| map.contains_key(key)))
        }
        other => panic!("the test does not know `{other}`"),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("no type `{other}`"),
    }
}

fn read(file: &Path) -> Value {
    let mut yaml: serde_yaml::Value =
        serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    yaml.apply_merge().unwrap();
    serde_json::to_value(yaml).unwrap()
}

fn config_file(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/config").join(name)
}

#[test]
fn what_loads_is_valid() {
    let validator = Validator::new();
    for entry in fs::read_dir(config_file("valid")).unwrap() {
        let file = entry.unwrap().path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let verdict = validator.check(&read(&file));
            assert_eq!(verdict, Ok(()), "{}", file.display());
        }
    }
}

#[test]
fn what_has_the_wrong_shape_is_not() {
    let validator = Validator::new();
    for name in [
        "everything_at_once",
        "file_is_a_list",
        "file_keys_without_value",
        "file_nothing_but_version",
        "file_unknown_keys",
        "file_wrong_types",
        "listener_plaintext_word",
        "match_path_missing",
        "mode_unknown",
        "on_reject_status",
        "replay_on_duplicate",
        "route_upstream_missing",
        "routes_is_a_mapping",
        "scheme_algorithm",
        "scheme_unknown_keys",
        "verify_mapping",
        "verify_missing",
        "verify_unknown_check",
        "version_missing",
        "version_unknown",
    ] {
        let verdict = validator.check(&read(&config_file(&format!("invalid/{name}.yaml"))));
        assert!(verdict.is_err(), "{name}");
    }
}

#[test]
fn the_environment_may_stand_for_any_scalar() {
    let mut value = read(&config_file("valid/contract.yaml"));
    value["limits"]["connections"] = "${env:CONNECTIONS:-100}".into();
    value["listeners"]["http"]["plaintext"] = "${env:PLAINTEXT}".into();
    value["routes"][0]["body"]["well_formed"] = "${env:STRICT}".into();
    assert_eq!(Validator::new().check(&value), Ok(()));
    value["limits"]["connections"] = "many".into();
    assert!(Validator::new().check(&value).is_err());
}

#[test]
fn a_scalar_is_of_the_kind_that_is_wanted() {
    let validator = Validator::new();
    let loads = |text: &str| {
        let env = config::Environment::from_pairs([("TK", "an example of a token")]);
        let loaded = config::load_text("hookward.yaml", text, Path::new(""), &env);
        assert!(loaded.config.is_some(), "{}", loaded.report);
        let yaml: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        validator.check(&serde_json::to_value(yaml).unwrap())
    };
    let text = "version: '1 '
listeners:
  http: { address: 127.0.0.1:0, plaintext: allow }
  tls: { address: 127.0.0.1:0, tls: { self_signed: [a], min_version: 1.2 } }
routes:
  - name: 1
    match: { path: /x }
    verify: [{ token: { bearer: ' true', secrets: env:TK } }]
    upstream: echo
    forward: { set_headers: { X-Version: 1.10, X-Test: true } }
    on_reject: { status: '404' }
";
    assert_eq!(loads(text), Ok(()));
}

/// Every key of the schema, with the title of what it belongs to.
fn keys(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(rules) => {
            if let Some(Value::Object(properties)) = rules.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            rules.values().for_each(|rule| self::keys(rule, keys));
        }
        Value::Array(rules) => rules.iter().for_each(|rule| self::keys(rule, keys)),
        _ => {}
    }
}

#[test]
fn every_key_says_what_it_is() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        let Value::Object(rules) = schema else { return };
        if let Some(Value::Object(properties)) = rules.get("properties") {
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                if property.get("description").is_none() {
                    found.push(path);
                }
            }
        }
        for (name, rule) in rules {
            undescribed(rule, &format!("{path}.{name}"), found);
        }
    }
    let mut found = Vec::new();
    undescribed(&schema(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_key_is_in_the_documentation() {
    let schema = schema();
    let page = |name: &str| fs::read_to_string(Path::new(ROOT).join("docs").join(name)).unwrap();
    let mut configuration = schema.clone();
    // The language of schemes has a page of its own.
    let definitions = configuration["$defs"].as_object_mut().unwrap();
    let of_schemes: Vec<String> = reachable(&schema, "SchemeSpec").into_iter().collect();
    for name in &of_schemes {
        definitions.remove(name);
    }
    let mut all = BTreeSet::new();
    keys(&configuration, &mut all);
    assert!(all.len() > 80, "{all:?}");
    let text = page("configuration.md");
    let lacking: Vec<_> = all
        .iter()
        .filter(|key| !text.contains(&format!("`{key}`")))
        .collect();
    assert!(
        lacking.is_empty(),
        "docs/configuration.md says nothing of {lacking:?}"
    );
}

/// Names of the definitions that `name` leads to.
fn reachable(schema: &Value, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if found.insert(name.clone()) {
            let text = schema["$defs"][&name].to_string();
            open.extend(
                text.split("#/$defs/")
                    .skip(1)
                    .map(|rest| rest.split('"').next().unwrap().to_owned()),
            );
        }
    }
    found
}
