//! Where every key and value of a document stands, by its path.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_yaml::Value;

use super::{Place, fault, invalid, scalar_text, syntax};
use crate::problem::{Mark, Problem};

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 64;
/// Keys and values of a file: ten thousand long routes (SECURITY S-15).
const PLACES_MAX: usize = 1 << 20;
/// Longest scalar, in bytes, that is kept as it is written too: a longer number is not meant as a text.
const WRITTEN_BYTES_MAX: usize = 1024;
/// Length of all paths together, in bytes: it limits the work that a file can cause (SECURITY DS-21).
const PATHS_MAX: usize = 256 << 20;

/// Where keys and values stand, by a hash of their path, because the paths of a large file take many times
/// its size.
#[derive(Debug, Default)]
pub(super) struct Marks {
    keys: HashMap<u64, Mark>,
    values: HashMap<u64, Mark>,
    /// What is written where YAML reads a number or a truth value, which as a text is another one: `1.10`, `1e3`.
    written: HashMap<u64, Box<str>>,
    /// Where an alias stands: the path of what it repeats.
    aliases: HashMap<u64, Arc<str>>,
    duplicates: Vec<(String, Mark)>,
    path_bytes: usize,
}

/// An open collection while walking the events.
struct Open {
    path: String,
    begins: Mark,
    kind: Kind,
}

enum Kind {
    Sequence {
        next: usize,
    },
    Mapping {
        key: Option<String>,
        seen: BTreeSet<String>,
    },
}

impl Open {
    fn new(path: String, begins: Mark, kind: Kind) -> Self {
        Self { path, begins, kind }
    }
}

impl Marks {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let mut marks = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, Arc<str>> = HashMap::new();
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let begun = open.iter().rev().map(|open| open.begins);
                let bracket = syntax::bracket(text, begun);
                let hint = syntax::hint(error.info(), bracket);
                invalid(mark_of(error.marker()), &error.info(), Some(&hint))
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
                    open.push(Open::new(path, mark, Kind::Sequence { next: 0 }));
                }
                Event::MappingStart(anchor, _) => {
                    let path = marks.take_collection(&mut open, mark);
                    note_anchor(&mut anchors, anchor, &path);
                    let kind = Kind::Mapping {
                        key: None,
                        seen: BTreeSet::new(),
                    };
                    open.push(Open::new(path, mark, kind));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        Ok(marks)
    }

    /// Whether a key stands in the same mapping twice.
    pub(super) fn has_duplicates(&self) -> bool {
        !self.duplicates.is_empty()
    }

    /// The keys that stand in the same mapping twice.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = Problem> {
        self.duplicates.iter().map(|(path, mark)| {
            let first = self.keys.get(&hash(path)).map_or(0, |first| first.line);
            let message = format!("this key stands in the same mapping twice (line {first})");
            fault(*mark, path, message, Some("keep one of them".to_owned()))
        })
    }

    /// Takes a list or mapping that begins, and returns its path. One that is a key has no name, and what it holds
    /// has no path in the file.
    fn take_collection(&mut self, open: &mut [Open], mark: Mark) -> String {
        if self.take_key(open, None, mark) {
            "?".to_owned()
        } else {
            self.take_value(open, mark)
        }
    }

    /// Takes a key when a mapping waits for one. `scalar` is its text, `None` for an alias or a collection.
    fn take_key(&mut self, open: &mut [Open], scalar: Option<&str>, mark: Mark) -> bool {
        let Some(Open {
            path,
            kind:
                Kind::Mapping {
                    key: key @ None,
                    seen,
                },
            ..
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
            Some(Open { path, kind, .. }) => match kind {
                Kind::Sequence { next } => {
                    *next += 1;
                    format!("{path}[{}]", *next - 1)
                }
                Kind::Mapping { key, .. } => join(path, &key.take().unwrap_or_default()),
            },
        };
        self.path_bytes += path.len();
        self.values.entry(hash(&path)).or_insert(mark);
        path
    }

    /// The text of a scalar as it is written.
    pub(super) fn text(&self, value: &Value, path: &str) -> Option<String> {
        let written = match value {
            Value::Bool(_) | Value::Number(_) => self
                .written
                .get(&hash(path))
                .or_else(|| self.written.get(&hash(&self.origin(path)?))),
            _ => None,
        };
        written.map_or_else(|| scalar_text(value), |text| Some(text.to_string()))
    }

    pub(super) fn value_place(&self, path: &str) -> Place {
        self.nearest(path, |path| self.values.get(&hash(path)))
    }

    pub(super) fn key_place(&self, path: &str) -> Place {
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
        // A key may itself hold a `.` or a `[`: then several parts together are one key.
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

    /// This path and those of all mappings that `<<` merges into the one there, in order of precedence.
    fn merged(&self, path: &str) -> impl Iterator<Item = String> {
        let mut seen = HashSet::new();
        // Each path with the number of its sources that were taken.
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

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
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

/// The name that a key is read by: empty where the key is null.
fn named(key: &str, style: ScalarStyle) -> &str {
    match key {
        "~" | "null" | "Null" | "NULL" if style == ScalarStyle::Plain => "",
        name => name,
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
pub(super) fn under(path: &str, below: &str) -> String {
    if below.starts_with(['.', '[']) {
        format!("{path}{below}")
    } else {
        join(path, below)
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
