//! The JSON Schema of the configuration, for editors and for `hookward schema`: a file, which a test makes
//! from the types of `spec.rs`, so that the program need not carry what makes it.

/// The JSON Schema of `hookward.yaml`.
pub const SCHEMA: &str = include_str!("../../rules/hookward.schema.json");

#[cfg(test)]
mod tests {
    use std::fs;

    use schemars::Schema;
    use schemars::generate::SchemaSettings;
    use schemars::transform::{Transform, transform_subschemas};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::config::spec::ConfigSpec;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/hookward.schema.json");

    #[test]
    fn the_schema_is_current() {
        let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("HOOKWARD_BLESS").is_some() {
            fs::write(FILE, made).unwrap();
        } else {
            let same = made.lines().zip(SCHEMA.lines());
            let same = same.take_while(|(made, kept)| made == kept).count();
            assert!(
                made == SCHEMA,
                "{FILE} is not what the types say, from line {}: HOOKWARD_BLESS=1 cargo test schema_is_current",
                same + 1
            );
        }
    }

    fn schema() -> Value {
        let generator = SchemaSettings::draft2020_12()
            .with_transform(AsRead)
            .into_generator();
        let mut schema = generator.into_root_schema_for::<ConfigSpec>();
        schema.insert("title".to_owned(), "hookward.yaml".into());
        schema.insert("$id".to_owned(), json!("hookward.schema.json"));
        schema.to_value()
    }

    /// Makes the schema say what the reader does beyond the types: unknown keys are errors, `x-*` keys
    /// are free, no key may be left without a value, `${env:NAME}` may stand for any scalar, any scalar is a text
    /// where one is wanted, and numbers and truth values may be in quotes.
    #[derive(Clone, Debug)]
    struct AsRead;

    impl Transform for AsRead {
        fn transform(&mut self, schema: &mut Schema) {
            transform_subschemas(self, schema);
            let Some(object) = schema.as_object_mut() else {
                return;
            };
            without_null(object);
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), json!(false));
                object.insert("patternProperties".to_owned(), json!({ "^x-": true }));
            }
            if let Some(Value::Array(words)) = object.get_mut("oneOf")
                && words
                    .iter()
                    .all(|word| word.get("const").is_some_and(Value::is_string))
            {
                let numbers = words.iter().filter_map(|word| word["const"].as_str());
                let numbers = numbers.filter_map(|word| word.parse::<f64>().ok());
                let numbers: Vec<_> = numbers.map(|number| json!({ "const": number })).collect();
                words.extend(numbers);
                words.push(text_like(INTERPOLATED));
            }
            if object.get("type") == Some(&json!("string")) && !object.contains_key("const") {
                object.insert("type".to_owned(), json!(["string", "number", "boolean"]));
            }
            let pattern = match object.get("type").and_then(Value::as_str) {
                Some("integer") => Some(format!("^\\s*[+-]?[0-9]+\\s*$|{INTERPOLATED}")),
                Some("boolean") => Some(format!("^\\s*(true|false)\\s*$|{INTERPOLATED}")),
                _ => None,
            };
            if let Some(pattern) = pattern {
                let description = object.remove("description");
                let exact = Value::Object(std::mem::take(object));
                object.extend(description.map(|text| ("description".to_owned(), text)));
                object.insert("anyOf".to_owned(), json!([exact, text_like(&pattern)]));
            }
        }
    }

    /// What a text with `${env:NAME}` in it stands for is not known here.
    const INTERPOLATED: &str = "\\$\\{env:";

    fn text_like(pattern: &str) -> Value {
        json!({ "type": "string", "pattern": pattern })
    }

    /// An optional key is one that may be absent, not one that may be null.
    fn without_null(object: &mut Map<String, Value>) {
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                object.insert("type".to_owned(), one);
            }
        }
        if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(one)] = choices.as_slice() {
                let one = one.clone();
                object.remove("anyOf");
                for (key, value) in one {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }
}
