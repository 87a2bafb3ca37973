//! Lists of name-value pairs, written in the one way that a provider signs them.

use std::collections::HashSet;
use std::fmt;

use http::HeaderName;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::locate::{Pair, Unreadable, View, form_pairs, query_pairs};
use super::spec::{FieldsEscape, FieldsFrom, FieldsSort};
use super::template::{form_encode, url_encode};

/// Most names that `listed_in` may list: no head has so many fields that a provider signs.
const LISTED_MAX: usize = 100;

/// Which pairs, in which order, and how they are written.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) from: Vec<FieldsFrom>,
    pub(super) listed_in: Option<HeaderName>,
    pub(super) skip: Vec<String>,
    pub(super) sort: Option<FieldsSort>,
    pub(super) unique: bool,
    pub(super) write: Vec<Piece>,
    pub(super) join: String,
    pub(super) replace: Vec<(String, String)>,
    pub(super) escape: Option<FieldsEscape>,
    pub(super) join_values: Option<String>,
    pub(super) before: String,
}

/// A piece of how a pair is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Name,
    Value,
}

impl Piece {
    /// Parses `{name}={value}`.
    pub(super) fn parse(text: &str) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let next = [("{name}", Self::Name), ("{value}", Self::Value)]
                .into_iter()
                .filter_map(|(word, piece)| Some((rest.find(word)?, word, piece)))
                .min_by_key(|(at, ..)| *at);
            let Some((at, word, piece)) = next else { break };
            let (before, after) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Self::Literal(before.to_owned()));
            }
            pieces.push(piece);
            rest = after.strip_prefix(word).unwrap_or_default();
        }
        if !rest.is_empty() {
            pieces.push(Self::Literal(rest.to_owned()));
        }
        pieces
    }
}

impl Fields {
    /// Whether they come from the body.
    pub(super) fn is_of_body(&self) -> bool {
        self.from
            .iter()
            .any(|from| matches!(from, FieldsFrom::Form | FieldsFrom::Json))
    }

    /// Whether they come from the query alone.
    pub(super) fn is_of_query(&self) -> bool {
        self.from
            .iter()
            .all(|from| matches!(from, FieldsFrom::Query))
    }

    /// Whether only a form body can give them; any other body is left out.
    pub(super) fn is_of_form(&self) -> bool {
        self.from.contains(&FieldsFrom::Form) && !self.from.contains(&FieldsFrom::Json)
    }

    /// Whether what is written of a body shows where the value of the pair `name` begins and ends: it is not left
    /// out, and something stands between it and its neighbours.
    pub(super) fn shows(&self, name: &str) -> bool {
        let is_literal = |piece: &Piece| matches!(piece, Piece::Literal(_));
        let ends = [self.write.first(), self.write.last()];
        let is_apart = !self.join.is_empty() || ends.into_iter().flatten().any(is_literal);
        let is_split = self
            .write
            .windows(2)
            .any(|pair| pair.iter().any(is_literal));
        let is_kept = !self.skip.iter().any(|skip| skip == name);
        self.is_of_body() && is_kept && is_apart && is_split
    }

    /// Writes the pairs of a request.
    pub(super) fn write(&self, view: View<'_>) -> Result<Vec<u8>, Unreadable> {
        let mut pairs = Vec::new();
        for from in &self.from {
            pairs = self.pairs(*from, view)?;
            if !pairs.is_empty() {
                break;
            }
        }
        pairs.retain(|(name, _)| !self.skip.iter().any(|skip| *skip.as_bytes() == **name));
        match self.sort {
            Some(FieldsSort::Name) => pairs.sort(),
            Some(FieldsSort::NameOnly) => pairs.sort_by(|(a, _), (b, _)| a.cmp(b)),
            None => {}
        }
        if self.unique {
            pairs.dedup();
        }
        for (name, value) in &mut pairs {
            (*name, *value) = (self.spell(name), self.spell(value));
        }
        if let Some(separator) = &self.join_values {
            pairs = join_values(pairs, separator);
        }
        let mut out = Vec::new();
        for (index, (name, value)) in pairs.iter().enumerate() {
            let lead = if index == 0 { &self.before } else { &self.join };
            out.extend_from_slice(lead.as_bytes());
            for piece in &self.write {
                match piece {
                    Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                    Piece::Name => out.extend_from_slice(name),
                    Piece::Value => out.extend_from_slice(value),
                }
            }
        }
        Ok(out)
    }

    fn pairs(&self, from: FieldsFrom, view: View<'_>) -> Result<Vec<Pair>, Unreadable> {
        match from {
            FieldsFrom::Form => form_pairs(view),
            FieldsFrom::Query => query_pairs(view.url.query().unwrap_or_default()),
            FieldsFrom::Json => json_pairs(view),
            FieldsFrom::Headers => self.header_pairs(view),
        }
    }

    fn header_pairs(&self, view: View<'_>) -> Result<Vec<Pair>, Unreadable> {
        let Some(list) = self
            .listed_in
            .as_ref()
            .and_then(|list| view.headers.get(list))
        else {
            return Ok(Vec::new());
        };
        let list = list.to_str().map_err(|_bad| Unreadable::Body)?;
        let names = list
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty());
        let names: Vec<String> = names.take(LISTED_MAX + 1).collect();
        if names.len() > LISTED_MAX {
            return Err(Unreadable::TooMany);
        }
        // Each value is copied: one that is listed again and again would be much larger than the head.
        let mut seen = HashSet::new();
        if !names.iter().all(|name| seen.insert(name)) {
            return Err(Unreadable::Twice);
        }
        let pair = |name: &String| {
            let mut fields = view.headers.get_all(name).iter();
            let value = fields
                .next()
                .map(|field| field.as_bytes().to_vec())
                .unwrap_or_default();
            match fields.next() {
                Some(_) => Err(Unreadable::Twice),
                None => Ok((name.clone().into_bytes(), value)),
            }
        };
        names.iter().map(pair).collect()
    }

    /// Replaced and escaped.
    fn spell(&self, bytes: &[u8]) -> Vec<u8> {
        let mut spelt = bytes.to_vec();
        if !self.replace.is_empty() {
            let mut text = String::from_utf8_lossy(&spelt).into_owned();
            for (from, to) in &self.replace {
                text = text.replace(from, to);
            }
            spelt = text.into_bytes();
        }
        match self.escape {
            None => spelt,
            Some(FieldsEscape::Form) => form_encode(&spelt).into_bytes(),
            Some(FieldsEscape::Rfc3986) => url_encode(&spelt).into_bytes(),
        }
    }
}

fn json_pairs(view: View<'_>) -> Result<Vec<Pair>, Unreadable> {
    if view.json.is_none() && super::locate::is_form(view.headers) {
        return Ok(Vec::new());
    }
    let bytes = view.json_bytes()?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let Members(members) = serde_json::from_slice(&bytes).map_err(|_bad| Unreadable::Body)?;
    let mut names = HashSet::new();
    if !members.iter().all(|(name, _)| names.insert(name)) {
        return Err(Unreadable::Twice);
    }
    let pair = |(name, value): (String, Value)| {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null => String::new(),
            Value::Array(_) | Value::Object(_) => return Err(Unreadable::Body),
        };
        Ok((name.into_bytes(), text.into_bytes()))
    };
    members.into_iter().map(pair).collect()
}

/// Members of an object in their order, equal names kept apart.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        json.deserialize_map(MembersVisitor)
    }
}

/// Values of equal neighbouring names, joined.
fn join_values(pairs: Vec<Pair>, separator: &str) -> Vec<Pair> {
    let mut joined: Vec<Pair> = Vec::new();
    for (name, value) in pairs {
        match joined.last_mut() {
            Some((last, values)) if *last == name => {
                values.extend_from_slice(separator.as_bytes());
                values.extend_from_slice(&value);
            }
            _ => joined.push((name, value)),
        }
    }
    joined
}
