//! Reads the values of a document into a spec, past every mistake.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;

use super::marks::{Marks, join};
use super::variables::REDACT_BYTES_MIN;
use super::{
    ALL_KEYS, At, Document, FREE_KEYS, OneOrMany, Parsed, Place, REWRITTEN_OFF, TextOr, scalar_text,
};
use crate::problem::{Mark, Problem, suggest};

const AT: &str = "$hookward::at";
const TEXT_OR: &str = "$hookward::text_or";
const ONE_OR_MANY: &str = "$hookward::one_or_many";

impl Document {
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
}

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

    /// A whole number. Of one that is too long to be repeated it says that it is too large.
    fn whole<T: FromStr>(&self, expected: &str, most: impl fmt::Display) -> Result<T, DecodeError> {
        let text = scalar_text(self.value).unwrap_or_default();
        let text = text.trim();
        let is_long = text.len() >= REDACT_BYTES_MIN && text.bytes().all(|b| b.is_ascii_digit());
        if is_long && text.parse::<T>().is_err() {
            let message = format!("expected {expected}, and this is too large: the most is {most}");
            return Err(DecodeError(message));
        }
        self.parse(expected)
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
    if text.chars().count() < REDACT_BYTES_MIN {
        format!("`{text}`")
    } else if value.is_number() {
        "another number".to_owned()
    } else {
        "another text".to_owned()
    }
}

macro_rules! deserialize_whole {
    ($($method:ident $visit:ident $ty:ty, $expected:literal;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(self.whole($expected, <$ty>::MAX)?)
        })+
    };
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
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "one character";
    }

    deserialize_whole! {
        deserialize_i8 visit_i8 i8, "a small whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0 on";
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
            if !is_known && !key.starts_with(FREE_KEYS) {
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
