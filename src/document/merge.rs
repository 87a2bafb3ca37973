//! The values of a document, with what each `<<` merges in its place.

use serde_yaml::Value;

use super::lenient::Lenient;
use super::marks::{Marks, under};
use super::{invalid, scalar_text};
use crate::problem::{Mark, Problem};

/// The values of a file whose places are known.
pub(super) fn values(text: &str, marks: &Marks) -> Result<Value, Problem> {
    let parsed = if marks.has_duplicates() {
        serde_yaml::from_str(text).map(|Lenient::<true>(value)| value)
    } else {
        serde_yaml::from_str(text).map(|Lenient::<false>(value)| value)
    };
    if let Some(path) = parsed.as_ref().ok().and_then(wrong_merge) {
        let message = "`<<` takes in a mapping, or a list of them";
        let hint = "write `<<: *NAME`, where `&NAME` stands before a mapping".to_owned();
        return Err(marks.value_place(&path).error(message, Some(hint)));
    }
    let parsed = parsed.map(|mut value| {
        merge(&mut value);
        value
    });
    parsed.map_err(|error| {
        let mark = error.location().map_or(Mark::START, |location| Mark {
            line: location.line(),
            column: location.column(),
        });
        invalid(mark, &error, None)
    })
}

/// Puts the mappings that each `<<` names into the mapping that it stands in. The innermost `<<` goes first, so that
/// a mapping is complete when it is merged. The mapping's own keys count before merged ones, and an earlier source
/// before a later one.
fn merge(value: &mut Value) {
    match value {
        Value::Sequence(items) => items.iter_mut().for_each(merge),
        Value::Mapping(map) => {
            map.values_mut().for_each(merge);
            let sources = match map.remove("<<") {
                Some(Value::Sequence(sources)) => sources,
                source => source.into_iter().collect(),
            };
            for source in sources {
                if let Value::Mapping(source) = source {
                    for (key, value) in source {
                        map.entry(key).or_insert(value);
                    }
                }
            }
        }
        _ => {}
    }
}

/// The path of the first `<<` that names something other than mappings.
fn wrong_merge(value: &Value) -> Option<String> {
    let below = |at: String, inner: &Value| Some(under(&at, &wrong_merge(inner)?));
    match value {
        Value::Sequence(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| below(format!("[{index}]"), item))
        }
        Value::Mapping(map) => map.iter().find_map(|(key, item)| {
            let key = scalar_text(key).unwrap_or_default();
            let is_wrong = key == "<<"
                && match item {
                    Value::Mapping(_) => false,
                    Value::Sequence(items) => !items.iter().all(Value::is_mapping),
                    _ => true,
                };
            if is_wrong {
                Some(key)
            } else {
                below(key, item)
            }
        }),
        _ => None,
    }
}
