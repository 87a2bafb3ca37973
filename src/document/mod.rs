//! A YAML file that knows where everything in it stands.
//!
//! `serde_yaml` says what a file says; `saphyr-parser` says where. [`Document::decode`] reads a
//! spec (a struct with serde derives) and does not stop at the first mistake: unknown keys, wrong
//! types and bad units each become a [`Problem`] and the rest is read on. That works because every
//! field of a spec is an [`At`], which remembers its place and survives a value that is wrong.
//!
//! No meaning of any key is known here.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_yaml::Value;

use crate::problem::{Mark, Problem, Severity};

mod decode;
mod lenient;
mod marks;
mod merge;
#[cfg(test)]
mod schema;
mod syntax;
mod variables;

use marks::Marks;
use merge::values;
use variables::Filled;

/// Gives the value of an environment variable, if it is set; or says why it has none that a text can hold.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, String> + 'a;

/// Why there is a `false` where `off` could be.
pub const REWRITTEN_OFF: &str =
    "tools of YAML 1.1 make `false` of `off`, unless it stands in quotes";

/// How keys begin that are free, for anchors: nobody reads them.
pub const FREE_KEYS: &str = "x-";

/// Name of a newtype that reads a mapping whose keys are data: `x-` means nothing there.
pub const ALL_KEYS: &str = "$hookward::all_keys";

/// A parsed file: its values and where they stand.
#[derive(Debug)]
pub struct Document {
    value: Value,
    marks: Marks,
    /// What was found before any value was read.
    problems: Vec<Problem>,
    filled: Filled,
}

/// Where a value stands and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line and column.
    pub mark: Mark,
    /// Path such as `routes[2].match.path`.
    pub path: Arc<str>,
}

impl Place {
    /// An error at this place.
    pub fn error(&self, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.problem(Severity::Error, message.into(), hint)
    }

    /// A warning at this place.
    pub fn warning(&self, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.problem(Severity::Warning, message.into(), hint)
    }

    fn problem(&self, severity: Severity, message: String, hint: Option<String>) -> Problem {
        Problem {
            file: None,
            mark: self.mark,
            path: self.path.to_string(),
            message,
            hint,
            severity,
        }
    }
}

/// A value of a spec together with its place.
///
/// A field of type `At<T>` is required: when the key is absent or its value is wrong, the problem
/// is reported and [`At::get`] is `None`. An optional key is an `Option<At<T>>`.
#[derive(Clone, Debug)]
pub struct At<T> {
    value: Option<T>,
    place: Option<Place>,
}

impl<T> At<T> {
    /// A value that was read as part of another one.
    pub fn new(value: T, place: Option<Place>) -> Self {
        Self {
            value: Some(value),
            place,
        }
    }

    /// A value that is not there, or was wrong.
    pub fn absent() -> Self {
        Self {
            value: None,
            place: None,
        }
    }

    /// The value, unless the key is absent or its value was wrong (which has been reported).
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// As [`At::get`], by value.
    pub fn into_inner(self) -> Option<T> {
        self.value
    }

    /// The place of the value; `None` when the key is absent.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

/// A scalar that is written as text and parsed by its type: sizes, durations, addresses.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<T>(pub T);

/// A text, or a mapping with more to say.
#[derive(Clone, Debug)]
pub enum TextOr<T> {
    /// The short form.
    Text(String),
    /// The long form.
    Full(T),
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<At<T>>);

impl Document {
    /// Parses YAML. Where its syntax is wrong, there is no document; what else is found is told by
    /// [`Document::decode`].
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        // A byte order mark, as Windows editors write it, is not part of the content (YAML 1.2 section 5.2).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let unclear = unclear_breaks(text).into_iter().map(|(mark, c)| {
            let code = u32::from(c);
            let message = format!(
                "U+{code:04X} ends a line for some readers of YAML and for others it does not"
            );
            let hint = format!("remove it, or write `\"\\u{code:04x}\"` in a quoted text");
            fault(mark, "", message, Some(hint))
        });
        let mut problems: Vec<_> = unclear.collect();
        // A blank instead ends no line for any reader.
        let text = &*if problems.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.replace(UNCLEAR_BREAKS, " "))
        };
        let marks = match Marks::read(text) {
            Ok(marks) => marks,
            Err(problem) => {
                problems.push(problem);
                return Err(problems);
            }
        };
        problems.extend(marks.duplicates());
        match values(text, &marks) {
            Ok(value) => Ok(Self {
                value,
                marks,
                problems,
                filled: Filled::default(),
            }),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// Gives back the memory of the values, once they were read; places stay known.
    pub fn forget_values(&mut self) {
        self.value = Value::Null;
    }

    /// The place of a path, or of what is nearest above it.
    pub fn place(&self, path: &str) -> Place {
        self.marks.key_place(path)
    }
}

fn fault(mark: Mark, path: &str, message: String, hint: Option<String>) -> Problem {
    Problem {
        file: None,
        mark,
        path: path.to_owned(),
        message,
        hint,
        severity: Severity::Error,
    }
}

fn invalid(mark: Mark, message: &dyn fmt::Display, hint: Option<&str>) -> Problem {
    let message = format!("not valid YAML: {message}");
    fault(mark, "", message, hint.map(str::to_owned))
}

/// Characters that end a line in YAML 1.1 and do not in YAML 1.2: the parser that makes the values and
/// the one that knows their places would read two different files.
const UNCLEAR_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The [`UNCLEAR_BREAKS`] of a text.
fn unclear_breaks(text: &str) -> Vec<(Mark, char)> {
    let mut found = Vec::new();
    if text.is_ascii() {
        return found;
    }
    let mut mark = Mark::START;
    let mut before = '\n';
    for c in text.chars() {
        match c {
            '\n' if before == '\r' => {} // one break of two characters
            '\n' | '\r' => {
                mark.line += 1;
                mark.column = 1;
            }
            c if UNCLEAR_BREAKS.contains(&c) => {
                found.push((mark, c));
                mark.column += 1;
            }
            _ => mark.column += 1,
        }
        before = c;
    }
    found
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
mod tests;
