//! A YAML file that knows where everything in it stands.
//!
//! `serde_yaml` says what a file says; `saphyr-parser` says where. [`Document::decode`] reads a
//! spec (a struct with serde derives) and does not stop at the first mistake: unknown keys, wrong
//! types and bad units each become a [`Problem`] and the rest is read on. That works because every
//! field of a spec is an [`At`], which remembers its place and survives a value that is wrong.
//!
//! No meaning of any key is known here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;

use crate::problem::{Mark, Problem, Severity, suggest};

mod lenient;

use lenient::Lenient;

/// Gives the value of an environment variable, if it is set; or says why it has none that a text can hold.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, String> + 'a;

/// A parsed file: its values and where they stand.
#[derive(Debug)]
pub struct Document {
    value: Value,
    marks: Marks,
    /// What was found before any value was read.
    problems: Vec<Problem>,
    filled: Filled,
}

/// The texts that environment variables were put into: what they came to, and what is written.
#[derive(Debug, Default)]
struct Filled {
    by_path: HashMap<String, (String, String)>,
    /// Those that stand in a message by no chance, wherever it is about.
    telling: BTreeSet<(Reverse<usize>, String, String)>,
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
        // Editors of Windows write it; it is no character of the file (YAML 1.2 section 5.2).
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
        // In a blank's place it ends no line for anybody.
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
        problems.extend(marks.duplicates.iter().map(|(path, mark)| {
            let first = marks.keys.get(&hash(path)).map_or(0, |first| first.line);
            let message = format!("this key stands in the same mapping twice (line {first})");
            fault(*mark, path, message, Some("keep one of them".to_owned()))
        }));
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

    /// Replaces `${env:NAME}` and `${env:NAME:-default}` in every text of the document.
    pub fn interpolate(&mut self, lookup: &Lookup<'_>, problems: &mut Vec<Problem>) {
        let mut value = std::mem::take(&mut self.value);
        self.interpolate_value(&mut value, "", lookup, problems);
        self.value = value;
    }

    /// Puts variables back into what is said of the values that were put into their places: they may be secrets. So
    /// may be what stands before an `@`.
    pub fn redact(&self, problem: &mut Problem) {
        let own = self.filled.by_path.get(&problem.path);
        let redacted = |text: &str| {
            let mut text = text.to_owned();
            if let Some((value, written)) = own {
                // Perhaps only the beginning is shown.
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
            for (_, value, written) in &self.filled.telling {
                text = text.replace(value.as_str(), written);
            }
            text
        };
        problem.message = without_passwords(&redacted(&problem.message));
        problem.hint = problem.hint.as_deref().map(redacted);
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

    /// Reads the document as a `T`, reporting every mistake. `None` only when the file is not a
    /// mapping at all.
    pub fn decode<T: DeserializeOwned>(&self, problems: &mut Vec<Problem>) -> Option<T> {
        let context = Context {
            marks: &self.marks,
            problems: RefCell::new(Vec::new()),
        };
        let result = T::deserialize(Node {
            value: &self.value,
            path: String::new(),
            cx: &context,
        });
        problems.extend(self.problems.iter().cloned());
        problems.append(&mut context.problems.borrow_mut());
        match result {
            Ok(spec) => Some(spec),
            Err(error) => {
                let message = match &self.value {
                    Value::Null => "the file is empty".to_owned(),
                    _ => error.0,
                };
                problems.push(self.marks.value_place("").error(message, None));
                None
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

impl Filled {
    fn note(&mut self, path: &str, value: &str, written: &str) {
        if value.is_empty() {
            return;
        }
        let (value, written) = (value.to_owned(), written.to_owned());
        if value.len() >= TELLING_BYTES {
            let longest_first = Reverse(value.len());
            self.telling
                .insert((longest_first, value.clone(), written.clone()));
        }
        self.by_path.insert(path.to_owned(), (value, written));
    }
}

/// A value of so many bytes stands in a message by no chance.
const TELLING_BYTES: usize = 8;

/// The text without what stands between a `:` and an `@`, as passwords do in URLs. One may hold any sign but the
/// backtick that begins a literal.
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

/// What is behind most errors of syntax.
const SYNTAX_HINT: &str = "put a value into quotes that begins with one of `*&!%@[{` or holds `: `, ` #` or, between \
                           brackets, `{`; indent with blanks";

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

/// The values of a file whose places are known.
fn values(text: &str, marks: &Marks) -> Result<Value, Problem> {
    let parsed = if marks.duplicates.is_empty() {
        serde_yaml::from_str(text).map(|Lenient::<false>(value)| value)
    } else {
        serde_yaml::from_str(text).map(|Lenient::<true>(value)| value)
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

// === positions ===

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 64;
/// Keys and values of a file: ten thousand long routes (SECURITY S-15).
const PLACES_MAX: usize = 1 << 20;
/// Longest scalar that is kept as it is written: who writes a longer number does not mean a text.
const WRITTEN_BYTES_MAX: usize = 1024;
/// Length of all their paths together: the work that a file can cause (SECURITY DS-21).
const PATHS_MAX: usize = 256 << 20;

/// Where keys and values stand, by a hash of their path: what would be the paths of a large file are
/// many times its size.
#[derive(Debug, Default)]
struct Marks {
    keys: HashMap<u64, Mark>,
    values: HashMap<u64, Mark>,
    /// What is written where YAML reads a number or a truth value, which as a text is another one: `1.10`, `1e3`.
    written: HashMap<u64, Box<str>>,
    /// Where an alias stands: the path of what it repeats.
    aliases: HashMap<u64, Arc<str>>,
    duplicates: Vec<(String, Mark)>,
    path_bytes: usize,
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// An open collection while walking the events.
enum Open {
    Sequence {
        path: String,
        next: usize,
    },
    Mapping {
        path: String,
        key: Option<String>,
        seen: BTreeSet<String>,
    },
}

impl Marks {
    fn read(text: &str) -> Result<Self, Problem> {
        let mut marks = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, Arc<str>> = HashMap::new();
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let mark = mark_of(error.marker());
                invalid(mark, &error.info(), Some(SYNTAX_HINT))
            })?;
            let mark = mark_of(&span.start);
            if open.len() > DEPTH_MAX {
                let message = format!("nested deeper than {DEPTH_MAX}");
                return Err(invalid(mark, &message, None));
            }
            let places = marks.keys.len() + marks.values.len();
            if places > PLACES_MAX || marks.path_bytes > PATHS_MAX {
                return Err(invalid(mark, &"the file has too many values", None));
            }
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "a second document begins here".to_owned();
                        let hint = "keep one, without `---` or `...`".to_owned();
                        return Err(fault(mark, "", message, Some(hint)));
                    }
                }
                Event::Scalar(text, style, anchor, _)
                    if !marks.take_key(&mut open, Some(named(&text, style)), mark) =>
                {
                    let path = marks.take_value(&mut open, mark);
                    if style == ScalarStyle::Plain && may_be_rewritten(&text) {
                        marks.written.insert(hash(&path), text.as_ref().into());
                    }
                    note_anchor(&mut anchors, anchor, &path);
                }
                Event::Alias(anchor) if !marks.take_key(&mut open, None, mark) => {
                    let path = marks.take_value(&mut open, mark);
                    if let Some(origin) = anchors.get(&anchor) {
                        marks.aliases.insert(hash(&path), Arc::clone(origin));
                    }
                }
                Event::SequenceStart(anchor, _) => {
                    let path = marks.take_collection(&mut open, mark);
                    note_anchor(&mut anchors, anchor, &path);
                    open.push(Open::Sequence { path, next: 0 });
                }
                Event::MappingStart(anchor, _) => {
                    let path = marks.take_collection(&mut open, mark);
                    note_anchor(&mut anchors, anchor, &path);
                    open.push(Open::Mapping {
                        path,
                        key: None,
                        seen: BTreeSet::new(),
                    });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        Ok(marks)
    }

    /// Takes a list or mapping that begins, and returns its path. As a key it has the name that it is read by: none;
    /// and what is in it stands at no path of the file.
    fn take_collection(&mut self, open: &mut [Open], mark: Mark) -> String {
        if self.take_key(open, None, mark) {
            "?".to_owned()
        } else {
            self.take_value(open, mark)
        }
    }

    /// Takes a key when a mapping waits for one: the text of a scalar, or none of an alias or a collection.
    fn take_key(&mut self, open: &mut [Open], scalar: Option<&str>, mark: Mark) -> bool {
        let Some(Open::Mapping {
            path,
            key: key @ None,
            seen,
        }) = open.last_mut()
        else {
            return false;
        };
        let text = scalar.unwrap_or_default();
        let full = join(path, text);
        if scalar.is_some() && !seen.insert(text.to_owned()) && text != "<<" {
            self.duplicates.push((full.clone(), mark));
        }
        self.path_bytes += full.len();
        self.keys.entry(hash(&full)).or_insert(mark);
        *key = Some(text.to_owned());
        true
    }

    /// Takes the value that is due and returns its path.
    fn take_value(&mut self, open: &mut [Open], mark: Mark) -> String {
        let path = match open.last_mut() {
            None => String::new(),
            Some(Open::Sequence { path, next }) => {
                *next += 1;
                format!("{path}[{}]", *next - 1)
            }
            Some(Open::Mapping { path, key, .. }) => join(path, &key.take().unwrap_or_default()),
        };
        self.path_bytes += path.len();
        self.values.entry(hash(&path)).or_insert(mark);
        path
    }

    /// The text of a scalar as it is written.
    fn text(&self, value: &Value, path: &str) -> Option<String> {
        let written = match value {
            Value::Bool(_) | Value::Number(_) => self
                .written
                .get(&hash(path))
                .or_else(|| self.written.get(&hash(&self.origin(path)?))),
            _ => None,
        };
        written.map_or_else(|| scalar_text(value), |text| Some(text.to_string()))
    }

    fn value_place(&self, path: &str) -> Place {
        self.nearest(path, |path| self.values.get(&hash(path)))
    }

    fn key_place(&self, path: &str) -> Place {
        self.nearest(path, |path| {
            let id = hash(path);
            self.keys.get(&id).or_else(|| self.values.get(&id))
        })
    }

    /// The place of a path, of what an alias or a merge brought there, or of what is nearest above it.
    fn nearest<'a>(&self, path: &str, find: impl Fn(&str) -> Option<&'a Mark>) -> Place {
        let place = |mark| Place {
            mark,
            path: path.into(),
        };
        let mut at = path;
        loop {
            let found = find(at).or_else(|| find(&self.origin(at)?));
            if let Some(mark) = found {
                return place(*mark);
            }
            let Some(cut) = at.rfind(['.', '[']) else {
                return place(find("").copied().unwrap_or(Mark::START));
            };
            at = at.get(..cut).unwrap_or_default();
        }
    }

    /// The path under which something is written that an alias or a merge brought to this one.
    fn origin(&self, path: &str) -> Option<String> {
        if self.aliases.is_empty() {
            return None;
        }
        let mut known = String::new();
        // A key may itself hold what divides paths: then it takes several parts to come to something known.
        let mut rest = String::new();
        for part in parts(path) {
            rest.push_str(part);
            let next = self
                .merged(&known)
                .map(|place| under(&place, &rest))
                .find(|place| self.is_known(place));
            if let Some(next) = next {
                known = self.followed(next);
                rest.clear();
            }
        }
        rest.is_empty().then_some(known)
    }

    /// This path and those of all mappings that `<<` merges into the one there, the first to count first.
    fn merged(&self, path: &str) -> impl Iterator<Item = String> {
        let mut seen = HashSet::new();
        // Each with how many of its sources were taken.
        let mut open = Vec::new();
        let mut next = Some(path.to_owned());
        std::iter::from_fn(move || {
            loop {
                let found = next.take().filter(|path| seen.insert(hash(path)));
                if let Some(found) = found {
                    open.push((found.clone(), 0));
                    return Some(found);
                }
                let (path, taken) = open.last_mut()?;
                next = self.source(path, *taken);
                *taken += 1;
                if next.is_none() {
                    open.pop();
                }
            }
        })
    }

    /// The path of the mapping that the `<<` of the one at this path names at this place.
    fn source(&self, path: &str, place: usize) -> Option<String> {
        let merge = join(path, "<<");
        // It names one, or a list of them.
        let named = match place.checked_sub(1) {
            None => merge,
            Some(index) => format!("{merge}[{index}]"),
        };
        self.is_known(&named).then(|| self.followed(named))
    }

    fn is_known(&self, path: &str) -> bool {
        self.values.contains_key(&hash(path))
    }

    /// The path of what stands at a path, or of what an alias there repeats.
    fn followed(&self, path: String) -> String {
        let origin = self.aliases.get(&hash(&path));
        origin.map_or(path, ToString::to_string)
    }
}

fn mark_of(marker: &Marker) -> Mark {
    Mark {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// Notes where an anchor stands; 0 is none.
fn note_anchor(anchors: &mut HashMap<usize, Arc<str>>, anchor: usize, path: &str) {
    if anchor > 0 {
        anchors.insert(anchor, path.into());
    }
}

/// The name that a key is read by: one that is nothing has none.
fn named(key: &str, style: ScalarStyle) -> &str {
    match key {
        "~" | "null" | "Null" | "NULL" if style == ScalarStyle::Plain => "",
        name => name,
    }
}

/// Puts what each `<<` names into the mapping that it stands in, the innermost first, so that what is merged has itself
/// what it merges. A key of the mapping's own counts before one that is merged, an earlier source before a later one.
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

/// The path of the first `<<` that merges what is no mapping.
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

/// Whether YAML may take a plain scalar for a number or a truth value.
fn may_be_rewritten(text: &str) -> bool {
    let begins = |first: char| first.is_ascii_digit() || "+-.TtFf".contains(first);
    text.len() <= WRITTEN_BYTES_MAX && text.starts_with(begins)
}

/// The parts of a path, each with the `.` or `[` that it begins with.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path).filter(|path| !path.is_empty());
    std::iter::from_fn(move || {
        let path = rest?;
        let end = path
            .char_indices()
            .skip(1)
            .find(|(_, c)| matches!(c, '.' | '['));
        let (part, after) = path.split_at(end.map_or(path.len(), |(at, _)| at));
        rest = Some(after).filter(|after| !after.is_empty());
        Some(part)
    })
}

/// The path of what is below a path, by its own path from there.
fn under(path: &str, below: &str) -> String {
    if below.starts_with(['.', '[']) {
        format!("{path}{below}")
    } else {
        join(path, below)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

// === decoding ===

struct Context<'a> {
    marks: &'a Marks,
    problems: RefCell<Vec<Problem>>,
}

/// One value of the document on its way into a spec.
struct Node<'a> {
    value: &'a Value,
    path: String,
    cx: &'a Context<'a>,
}

#[derive(Debug)]
struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let list = expected
            .iter()
            .map(|e| format!("`{e}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let close = suggest(variant, expected.iter().copied());
        let close = if variant == "false" && expected.contains(&"off") {
            format!("; {REWRITTEN_OFF}")
        } else {
            close.map_or_else(String::new, |close| format!("; did you mean `{close}`?"))
        };
        Self(format!("`{variant}` is not one of {list}{close}"))
    }
}

/// Why there is a `false` where `off` could be.
pub const REWRITTEN_OFF: &str =
    "tools of YAML 1.1 make `false` of `off`, unless it stands in quotes";

const AT: &str = "$hookward::at";
/// Name of a newtype that reads a mapping whose keys are data: `x-` means nothing there.
pub const ALL_KEYS: &str = "$hookward::all_keys";
const TEXT_OR: &str = "$hookward::text_or";
const ONE_OR_MANY: &str = "$hookward::one_or_many";

impl<'a> Node<'a> {
    fn unexpected(&self, expected: &str) -> DecodeError {
        DecodeError(format!("expected {expected}, got {}", kind(self.value)))
    }

    /// A number or boolean, also when interpolation made it a text.
    fn parse<T: FromStr>(&self, expected: &str) -> Result<T, DecodeError> {
        let text = scalar_text(self.value).ok_or_else(|| self.unexpected(expected))?;
        text.trim().parse().map_err(|_bad| {
            let written = self.cx.marks.text(self.value, &self.path).unwrap_or(text);
            let got = shown(&written, self.value);
            DecodeError(format!("expected {expected}, got {got}"))
        })
    }

    /// The entries of a mapping. A key that is no scalar has no name; it is reported and left out.
    fn entries(&self) -> Result<Vec<(String, &'a Value)>, DecodeError> {
        let Value::Mapping(map) = self.value else {
            return Err(self.unexpected("a mapping"));
        };
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map {
            if let Some(name) = scalar_text(key) {
                entries.push((name, value));
                continue;
            }
            let place = self.cx.marks.key_place(&join(&self.path, ""));
            let message = format!("a key is a text, and this one is {}", kind(key));
            let hint = "write it in quotes, or remove it".to_owned();
            let problem = place.error(message, Some(hint));
            self.cx.problems.borrow_mut().push(problem);
        }
        Ok(entries)
    }
}

/// Whether it stands in quotes as word processors write them, which YAML does not know.
fn is_in_curly_quotes(text: &str) -> bool {
    text.starts_with(['“', '„', '‘']) && text.ends_with(['”', '“', '’'])
}

/// What stands where a number or `true` was expected. A long text may be a secret.
fn shown(text: &str, value: &Value) -> String {
    if text.chars().count() < TELLING_BYTES {
        format!("`{text}`")
    } else if value.is_number() {
        "another number".to_owned()
    } else {
        "another text".to_owned()
    }
}

macro_rules! deserialize_parsed {
    ($($method:ident $visit:ident $ty:ty, $expected:literal;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(self.parse::<$ty>($expected)?)
        })+
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = DecodeError;

    deserialize_parsed! {
        deserialize_bool visit_bool bool, "`true` or `false`";
        deserialize_i8 visit_i8 i8, "a small whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0 on";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "one character";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (.., value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Tagged(_) => Err(self.unexpected("a value without a YAML tag")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.cx.marks.text(self.value, &self.path) {
            Some(text) => {
                if is_in_curly_quotes(&text) {
                    let place = self.cx.marks.value_place(&self.path);
                    let message = "the curly quotes around this text are part of it";
                    let hint = "write straight ones, `\"` or `'`".to_owned();
                    let problem = place.warning(message, Some(hint));
                    self.cx.problems.borrow_mut().push(problem);
                }
                visitor.visit_string(text)
            }
            None => Err(self.unexpected("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            // `allow_ips:` with nothing after it must not mean "any": it is a slip.
            Value::Null => {
                let place = self.cx.marks.key_place(&self.path);
                let hint = "write one, or remove the key".to_owned();
                let problem = place.error("this key has no value", Some(hint));
                self.cx.problems.borrow_mut().push(problem);
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match (name, self.value) {
            (AT, _) => visitor.visit_seq(Placed {
                node: Some(self),
                step: 0,
            }),
            (TEXT_OR, Value::String(text)) => visitor.visit_str(text),
            (TEXT_OR, Value::Bool(_) | Value::Number(_)) => self.deserialize_str(visitor),
            (ALL_KEYS, _) => self.deserialize_map(visitor),
            (ONE_OR_MANY, Value::Sequence(_)) => self.deserialize_seq(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Sequence(items) = self.value else {
            let DecodeError(message) = self.unexpected("a list");
            let hint = match self.value {
                Value::Mapping(_) => "; write `-` before each item",
                _ => "",
            };
            return Err(DecodeError(message + hint));
        };
        visitor.visit_seq(Items {
            items: items.iter().enumerate(),
            path: self.path,
            cx: self.cx,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let entries = self.entries()?;
        visitor.visit_map(Entries {
            entries: entries.into_iter(),
            next: None,
            path: self.path,
            cx: self.cx,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut entries = self.entries()?;
        entries.retain(|(key, _)| {
            let is_known = fields.contains(&key.as_str());
            if !is_known && !key.starts_with("x-") {
                let place = self.cx.marks.key_place(&join(&self.path, key));
                let hint = suggest(key, fields.iter().copied()).map_or_else(
                    || format!("known keys here: {}", fields.join(", ")),
                    |close| format!("did you mean `{close}`?"),
                );
                let problem = place.error(format!("unknown key `{key}`"), Some(hint));
                self.cx.problems.borrow_mut().push(problem);
            }
            is_known
        });
        visitor.visit_map(Entries {
            entries: entries.into_iter(),
            next: None,
            path: self.path,
            cx: self.cx,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.cx.marks.text(self.value, &self.path) {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => Err(self.unexpected("a word")),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    path: String,
    cx: &'a Context<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some((index, value)) = self.items.next() else {
            return Ok(None);
        };
        let path = format!("{}[{index}]", self.path);
        seed.deserialize(Node {
            value,
            path,
            cx: self.cx,
        })
        .map(Some)
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<(String, &'a Value)>,
    next: Option<(String, &'a Value)>,
    path: String,
    cx: &'a Context<'a>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        self.next = self.entries.next();
        let Some((key, _)) = &self.next else {
            return Ok(None);
        };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let (key, value) = self
            .next
            .take()
            .ok_or_else(|| DecodeError("value before key".to_owned()))?;
        seed.deserialize(Node {
            value,
            path: join(&self.path, &key),
            cx: self.cx,
        })
    }
}

/// What an [`At`] reads: line, column, path, then the value. An error in the value is reported
/// here, so that the `At` can leave it out and its neighbours are still read.
struct Placed<'a> {
    node: Option<Node<'a>>,
    step: u8,
}

impl<'de> de::SeqAccess<'de> for Placed<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(node) = &self.node else {
            return Ok(None);
        };
        let place = node.cx.marks.value_place(&node.path);
        self.step += 1;
        match self.step {
            1 => seed
                .deserialize((place.mark.line as u64).into_deserializer())
                .map(Some),
            2 => seed
                .deserialize((place.mark.column as u64).into_deserializer())
                .map(Some),
            3 => seed
                .deserialize(node.path.as_str().into_deserializer())
                .map(Some),
            _ => {
                let Some(node) = self.node.take() else {
                    return Ok(None);
                };
                let cx = node.cx;
                seed.deserialize(node).map(Some).inspect_err(|error| {
                    cx.problems
                        .borrow_mut()
                        .push(place.error(error.0.clone(), None));
                })
            }
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let line = seq.next_element::<usize>()?.unwrap_or(1);
                let column = seq.next_element::<usize>()?.unwrap_or(1);
                let path: String = seq.next_element()?.unwrap_or_default();
                let place = Place {
                    mark: Mark { line, column },
                    path: path.into(),
                };
                let value = seq.next_element::<T>().ok().flatten();
                Ok(At {
                    value,
                    place: Some(place),
                })
            }
        }

        // serde asks a missing field to deserialize from nothing, which fails: then it is absent.
        let read = deserializer.deserialize_newtype_struct(AT, AtVisitor(PhantomData));
        Ok(read.unwrap_or(Self {
            value: None,
            place: None,
        }))
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(de::Error::custom)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrVisitor<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a mapping")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                node: D,
            ) -> Result<TextOr<T>, D::Error> {
                T::deserialize(node).map(TextOr::Full)
            }
        }

        deserializer.deserialize_newtype_struct(TEXT_OR, TextOrVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of them")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<OneOrMany<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                node: D,
            ) -> Result<OneOrMany<T>, D::Error> {
                Ok(OneOrMany(vec![At::deserialize(node)?]))
            }
        }

        deserializer.deserialize_newtype_struct(ONE_OR_MANY, ListVisitor(PhantomData))
    }
}

/// The wrappers are invisible in a JSON Schema.
#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{At, OneOrMany, Parsed, TextOr};

    macro_rules! schema_as {
        ($ty:ident as $inner:ident, |$generator:ident| $schema:expr) => {
            impl<$inner: JsonSchema> JsonSchema for $ty<$inner> {
                fn inline_schema() -> bool {
                    true
                }
                fn schema_name() -> Cow<'static, str> {
                    $inner::schema_name()
                }
                fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        };
    }

    schema_as!(At as T, |generator| generator.subschema_for::<T>());
    schema_as!(TextOr as T, |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()]
    }));
    schema_as!(OneOrMany as T, |generator| {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    });

    impl<T> JsonSchema for Parsed<T> {
        fn inline_schema() -> bool {
            true
        }
        fn schema_name() -> Cow<'static, str> {
            "Scalar".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": ["string", "integer"] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    #[derive(Debug, Deserialize)]
    struct Spec {
        name: At<String>,
        size: Option<At<Parsed<ByteSize>>>,
        items: Option<At<Vec<At<Item>>>>,
        tags: Option<At<OneOrMany<String>>>,
        secret: Option<At<TextOr<Item>>>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        id: At<u16>,
    }

    fn decode(text: &str) -> (Option<Spec>, Vec<Problem>) {
        let mut problems = Vec::new();
        let document = Document::parse(text).unwrap();
        let spec = document.decode(&mut problems);
        (spec, problems)
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let (spec, problems) = decode(
            "name: [1]\nsize: 5x\nitmes: []\nitems:\n  - id: 70000\n  - id: 7\n    x-note: free\n",
        );
        let spec = spec.unwrap();
        let items = spec.items.unwrap().into_inner().unwrap();
        assert_eq!(items[1].get().unwrap().id.get(), Some(&7));
        let mut seen: Vec<_> = problems
            .iter()
            .map(|p| (p.mark.line, p.mark.column, p.path.as_str()))
            .collect();
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                (1, 7, "name"),
                (2, 7, "size"),
                (3, 1, "itmes"),
                (5, 9, "items[0].id")
            ]
        );
        let unknown = problems.iter().find(|p| p.path == "itmes").unwrap();
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `items`?"));
    }

    #[test]
    fn absent_keys_are_told_from_wrong_ones() {
        let (spec, problems) = decode("size: 1KiB\n");
        let spec = spec.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        assert!(spec.name.get().is_none() && spec.name.place().is_none());
        assert_eq!(spec.size.unwrap().get().unwrap().0, ByteSize(1024));
    }

    #[test]
    fn one_or_many_and_text_or() {
        let (spec, problems) = decode("name: a\ntags: one\nsecret: { id: 3 }\n");
        assert!(problems.is_empty(), "{problems:?}");
        let spec = spec.unwrap();
        assert_eq!(spec.tags.unwrap().get().unwrap().0[0].get().unwrap(), "one");
        assert!(
            matches!(spec.secret.unwrap().get(), Some(TextOr::Full(item)) if item.id.get() == Some(&3))
        );
        let (spec, _) = decode("name: a\ntags: [one, two]\nsecret: env:X\n");
        let spec = spec.unwrap();
        assert_eq!(spec.tags.unwrap().get().unwrap().0.len(), 2);
        assert!(matches!(spec.secret.unwrap().get(), Some(TextOr::Text(text)) if text == "env:X"));
    }

    #[test]
    fn what_else_is_wrong_is_told_too() {
        let (spec, problems) =
            decode("name: a\nname: b\u{2028}\nsize: 2 KG\nx-a: 99999999999999999999\n");
        assert_eq!(spec.unwrap().name.get().unwrap(), "a");
        let mut told: Vec<_> = problems
            .iter()
            .map(|own| (own.mark.line, &*own.path))
            .collect();
        told.sort_unstable();
        assert_eq!(told, [(2, ""), (2, "name"), (3, "size")], "{problems:?}");
    }

    #[test]
    fn keys_that_are_equal_in_another_spelling_are_errors() {
        // SECURITY DS-21: what one of them restricts must not vanish
        for text in [
            "x-p: &p allow\nlist: { allow: 1, *p : 2 }\n",
            "x-a: &a { b: 1 }\nx-c: &c { b: 2 }\nlist: { <<: *a, <<: *c }\n",
            "list: { 16: a, 0x10: b }\n",
        ] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_that_no_type_holds_is_a_text() {
        let (spec, problems) =
            decode("name: 123456789012345678901234567890\nsize: 99999999999999999999\n");
        assert_eq!(
            spec.unwrap().name.get().unwrap(),
            "123456789012345678901234567890"
        );
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].mark.line, &*problems[0].path), (2, "size"));
    }

    #[test]
    fn a_text_is_what_is_written() {
        for text in [
            "1.10",
            "+49151",
            "7e10",
            "0x10",
            "0b11",
            "True",
            "1e3",
            ".5",
            "-0.0",
            "12345678901234567890.5",
        ] {
            let (spec, problems) = decode(&format!("name: {text}\n"));
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(spec.unwrap().name.get().unwrap(), text);
            let (spec, _) = decode(&format!("x-own: &own {text}\nname: *own\n"));
            assert_eq!(spec.unwrap().name.get().unwrap(), text, "by an alias");
        }
    }

    #[test]
    fn a_text_under_an_anchor_is_what_is_written() {
        #[derive(Debug, Deserialize)]
        struct Route {
            forward: At<HashMap<String, At<String>>>,
        }
        for (lead, forward) in [
            ("x-h: &h { v: 1.10, a.b: 1e3, t: True }", "*h"),
            ("x-h: &h { v: 1.10, a.b: 1e3, t: True }", "{ <<: *h }"),
            (
                "x-h: [&h { v: 1.10, a.b: 1e3 }, &i { v: 1.20, t: True }]",
                "{ <<: [*h, *i] }",
            ),
            (
                "x-t: &t True\nx-h: &h { a.b: 1e3, t: *t }",
                "{ <<: *h, v: 1.10 }",
            ),
        ] {
            let text = format!("{lead}\nforward: {forward}\n");
            let mut problems = Vec::new();
            let document = Document::parse(&text).unwrap();
            let route: Route = document.decode(&mut problems).unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            let headers = route.forward.get().unwrap();
            let of = |key: &str| headers[key].get().unwrap().as_str();
            let all = [of("v"), of("a.b"), of("t")];
            assert_eq!(all, ["1.10", "1e3", "True"], "{text}");
        }
    }

    #[test]
    fn a_mistake_under_an_anchor_is_told_where_it_stands() {
        for text in [
            "x-i:\n  - &one\n    id: many\nname: a\nitems: [*one]\n",
            "x-i: &all\n  -\n    id: many\nname: a\nitems: *all\n",
            "x-i: &one\n\n    id: many\nname: a\nitems: [{ <<: *one }]\n",
            "x-i: &one\n\n    id: many\nname: a\nitems: [{ <<: [*one] }]\n",
            "x-i: &one\n\n    id: many\nx-j: &two { <<: *one }\nname: a\nitems: [{ <<: *two }]\n",
        ] {
            let (_, problems) = decode(text);
            let told: Vec<_> = problems
                .iter()
                .map(|own| (own.mark.line, own.mark.column, &*own.path))
                .collect();
            assert_eq!(told, [(3, 9, "items[0].id")], "{text}");
        }
    }

    #[test]
    fn what_is_no_mapping_cannot_be_merged() {
        for (text, mark) in [
            ("name: a\nx-a: { <<: text }\n", (2, 12)),
            ("name: a\nitems: [{ <<: [text] }]\n", (2, 15)),
            ("x-t: &t text\nitems:\n- { <<: *t }\n", (3, 9)),
        ] {
            let problems = Document::parse(text).unwrap_err();
            assert_eq!(problems.len(), 1);
            let Mark { line, column } = problems[0].mark;
            assert_eq!((line, column), mark, "{text}");
            assert!(problems[0].message.contains("`<<`"), "{text}");
        }
    }

    #[test]
    fn a_second_document_is_told_where_it_begins() {
        for text in ["name: a\n---\nname: b\n", "name: a\n...\nname: b\n"] {
            let problems = Document::parse(text).unwrap_err();
            assert!(problems[0].mark.line >= 2, "{problems:?}");
            assert!(problems[0].message.contains("a second document"));
        }
        assert!(Document::parse("---\nname: a\n...\n").is_ok());
    }

    #[test]
    fn a_key_that_is_no_text_is_told() {
        for (key, what) in [
            ("null", "nothing"),
            ("~", "nothing"),
            ("[id, 2]", "a list"),
            ("{ id: 2 }", "a mapping"),
        ] {
            let (spec, problems) = decode(&format!("name: a\n? {key}\n: [b]\nsize: x\n"));
            assert_eq!(spec.unwrap().name.get().unwrap(), "a");
            let told: Vec<_> = problems
                .iter()
                .map(|own| (own.mark.line, own.mark.column))
                .collect();
            assert_eq!(told, [(2, 3), (4, 7)], "{key}: {problems:?}");
            assert!(
                problems[0].message.ends_with(what),
                "{}",
                problems[0].message
            );
        }
    }

    #[test]
    fn curly_quotes_are_told() {
        for text in ["“sha256=”", "„sha256=“", "‘sha256=’"] {
            let (spec, problems) = decode(&format!("name: {text}\n"));
            assert_eq!(spec.unwrap().name.get().unwrap(), text);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].severity, Severity::Warning);
        }
        let (_, problems) = decode("name: the users’\n");
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_wrong_number_is_told_as_it_is_written() {
        for (id, told) in [
            ("-1", "from 0 to 65535, got `-1`"),
            ("1e3", "got `1e3`"),
            ("99999999999", "got another number"),
            ("'99999999999'", "got another text"),
        ] {
            let (_, problems) = decode(&format!("name: a\nitems: [{{ id: {id} }}]\n"));
            assert!(problems[0].message.ends_with(told), "{problems:?}");
        }
    }

    #[test]
    fn a_key_without_a_value_is_a_slip() {
        let (_, problems) = decode("name: a\nsize:\n");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "this key has no value");
        assert_eq!(problems[0].mark, Mark { line: 2, column: 1 });
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let problems = Document::parse("a: [1\nb: 2\n").unwrap_err();
        assert!(problems[0].mark.line >= 1 && problems[0].message.contains("not valid YAML"));
    }

    #[test]
    fn environment_in_scalars() {
        let mut document =
            Document::parse("name: ${env:A}-${env:B:-two}\nsize: ${env:C}\n").unwrap();
        let lookup = |name: &str| Ok((name == "A").then(|| "one".to_owned()));
        let mut problems = Vec::new();
        document.interpolate(&lookup, &mut problems);
        assert_eq!(problems.len(), 1);
        assert_eq!(
            (problems[0].mark.line, problems[0].path.as_str()),
            (2, "size")
        );
        let spec: Spec = document.decode(&mut Vec::new()).unwrap();
        assert_eq!(spec.name.get().unwrap(), "one-two");
    }

    #[test]
    fn anchors_merges_and_bombs() {
        let (spec, problems) = decode("x-base: &b { size: 2KiB }\n<<: *b\nname: a\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(spec.unwrap().size.unwrap().get().unwrap().0, ByteSize(2048));

        let (spec, problems) = decode(
            "x-a: &a { size: 1KiB, name: a }\nx-b: &b { <<: *a, size: 2KiB }\nx-c: &c { size: 3KiB }\n<<: [*b, *c]\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let spec = spec.unwrap();
        assert_eq!(spec.size.unwrap().get().unwrap().0, ByteSize(2048));
        assert_eq!(spec.name.get().unwrap(), "a", "merged into what is merged");

        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (name, before) in ('b'..='z').zip('a'..) {
            let refs = vec![format!("*{before}"); 9].join(", ");
            bomb.extend([format!("{name}: &{name} [{refs}]\n")]);
        }
        assert!(Document::parse(&bomb).is_err(), "DS-21");
    }
}
