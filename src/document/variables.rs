//! Environment variables in the texts of a document, and messages that must not show what they hold.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use serde_yaml::Value;

use super::marks::join;
use super::{Document, Lookup, scalar_text};
use crate::problem::Problem;

/// The texts that hold environment variables: each with its variables filled in, and as it is written.
#[derive(Debug, Default)]
pub(super) struct Filled {
    by_path: HashMap<String, (String, String)>,
    /// The long ones, which are redacted in every message, whatever place it is about.
    everywhere: BTreeSet<(Reverse<usize>, String, String)>,
}

impl Filled {
    fn note(&mut self, path: &str, value: &str, written: &str) {
        if value.is_empty() {
            return;
        }
        let (value, written) = (value.to_owned(), written.to_owned());
        if value.len() >= REDACT_BYTES_MIN {
            let longest_first = Reverse(value.len());
            self.everywhere
                .insert((longest_first, value.clone(), written.clone()));
        }
        self.by_path.insert(path.to_owned(), (value, written));
    }
}

impl Document {
    /// Replaces `${env:NAME}` and `${env:NAME:-default}` in every text of the document.
    pub fn interpolate(&mut self, lookup: &Lookup<'_>, problems: &mut Vec<Problem>) {
        let mut value = std::mem::take(&mut self.value);
        self.interpolate_value(&mut value, "", lookup, problems);
        self.value = value;
    }

    fn interpolate_value(
        &mut self,
        value: &mut Value,
        path: &str,
        lookup: &Lookup<'_>,
        problems: &mut Vec<Problem>,
    ) {
        match value {
            Value::String(text) if text.contains("${env:") => match expand(text, lookup) {
                Ok(expanded) => {
                    self.filled.note(path, &expanded, text);
                    *text = expanded;
                }
                Err((message, hint)) => {
                    let place = self.marks.value_place(path);
                    problems.push(place.error(message, Some(hint.to_owned())));
                }
            },
            Value::String(text) if text.contains("${") => {
                if let Some(name) = shell_variable(text) {
                    let place = self.marks.value_place(path);
                    let message = format!("`${{{name}}}` stays as it is written");
                    let hint = format!("for the environment variable, write `${{env:{name}}}`");
                    problems.push(place.warning(message, Some(hint)));
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.interpolate_value(item, &path, lookup, problems);
                }
            }
            Value::Mapping(map) => {
                for (key, item) in map.iter_mut() {
                    let path = join(path, &scalar_text(key).unwrap_or_default());
                    self.interpolate_value(item, &path, lookup, problems);
                }
            }
            Value::Tagged(tagged) => {
                self.interpolate_value(&mut tagged.value, path, lookup, problems);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Replaces values of variables in a message by what is written in the file, because they may be secrets.
    /// Passwords in URLs are left out, too.
    pub fn redact(&self, problem: &mut Problem) {
        let own = self.filled.by_path.get(&problem.path);
        let redacted = |text: &str| {
            let mut text = text.to_owned();
            if let Some((value, written)) = own {
                // A message may show only the beginning of a value.
                let shows = |part: &str| {
                    let part = part.trim_end_matches(['…', ':']);
                    part == value || (part.len() >= 4 && value.contains(part))
                };
                let parts = text.split('`').enumerate();
                let parts = parts.map(|(index, part)| match index % 2 {
                    1 if shows(part) => written,
                    _ => part,
                });
                text = parts.collect::<Vec<_>>().join("`");
            }
            for (_, value, written) in &self.filled.everywhere {
                text = text.replace(value.as_str(), written);
            }
            text
        };
        problem.message = without_passwords(&redacted(&problem.message));
        problem.hint = problem.hint.as_deref().map(redacted);
    }
}

/// A value this long in a message, in bytes, is no coincidence: redact it.
pub(super) const REDACT_BYTES_MIN: usize = 8;

/// The text without what stands between a `:` and an `@`, as passwords do in URLs. A password may contain any
/// character except the backtick, because that begins a literal.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split('@');
    let mut out = parts.next_back().unwrap_or_default().to_owned();
    while let Some(before) = parts.next_back() {
        let literal = before.rfind('`').map(|at| at + 1);
        let start = literal
            .or_else(|| before.rfind(' ').map(|at| at + 1))
            .unwrap_or(0);
        let scheme = before.get(start..).and_then(|user| user.find("://"));
        let (rest, user) = before.split_at(start + scheme.map_or(0, |at| at + 3));
        let user = user.split_once(':').map_or(user, |(name, _)| name);
        let mark = if before.ends_with(user) { "" } else { ":…" };
        out = format!("{rest}{user}{mark}@{out}");
    }
    out
}

/// The name in `${NAME}`, as shells and Compose write what is `${env:NAME}` here.
fn shell_variable(text: &str) -> Option<&str> {
    let mut references = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    references.find_map(|(name, _)| is_name(name).then_some(name))
}

/// The text with its variables, or what is wrong and a hint.
fn expand(text: &str, lookup: &Lookup<'_>) -> Result<String, (String, &'static str)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${env:") {
        out.push_str(before);
        let (reference, tail) = after
            .split_once('}')
            .ok_or(("`${env:` lacks its `}`".to_owned(), "write `${env:NAME}`"))?;
        if reference.contains("${") {
            let message = format!("`${{env:{reference}}}` holds another variable");
            return Err((message, "a default is text: write the one or the other"));
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let value = lookup(name).map_err(|why| (why, "set it to a text"))?;
        match (value, default) {
            (Some(value), _) if !value.is_empty() || default.is_none() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            _ => {
                let message = format!("environment variable `{name}` is not set");
                return Err((
                    message,
                    "set it, or write a default: `${env:NAME:-default}`",
                ));
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}
