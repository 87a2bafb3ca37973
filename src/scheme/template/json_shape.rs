//! How a JSON value of the body is written into signed content: compact, or with its keys sorted.

use std::borrow::Cow;
use std::ops::Range;

use crate::scheme::{SignatureError, malformed, strict_json};

/// How a JSON value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Without blanks outside strings.
    Compact,
    /// As it stands.
    Raw,
    /// Compact, keys sorted.
    Sorted,
}

impl Shape {
    pub(super) fn write(self, raw: &str) -> Result<Vec<u8>, SignatureError> {
        match self {
            Self::Raw => Ok(raw.as_bytes().to_vec()),
            Self::Compact => Ok(compact(raw)),
            Self::Sorted => {
                // A member that stands twice would be written once (SECURITY DS-18).
                strict_json::parse(raw.as_bytes()).ok_or(malformed(
                    "the JSON that the signature covers cannot be read",
                ))?;
                let mut out = Vec::with_capacity(raw.len());
                sort_into(raw, &mut out)?;
                Ok(out)
            }
        }
    }
}

/// JSON without the blanks between its tokens.
fn compact(raw: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in raw.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => continue,
            _ => {}
        }
        out.push(byte);
    }
    out
}

const NOT_THE_JSON: SignatureError =
    malformed("the body is not the JSON that the signature covers");

/// Writes compact JSON with the keys of every object sorted by bytes, every scalar as it stands. `raw` is JSON,
/// no deeper than `serde_json` reads, in which no key stands twice.
fn sort_into(raw: &str, out: &mut Vec<u8>) -> Result<(), SignatureError> {
    let end = sort_value(raw, out)?;
    end.trim().is_empty().then_some(()).ok_or(NOT_THE_JSON)
}

/// Writes the value at the beginning of `json`, and gives back what follows it. Each byte is read once; members
/// that are not in order are moved once for each object around them.
fn sort_value<'j>(json: &'j str, out: &mut Vec<u8>) -> Result<&'j str, SignatureError> {
    let json = json.trim_start();
    let Some(open @ (b'{' | b'[')) = json.as_bytes().first().copied() else {
        let (scalar, rest) = split_scalar(json)?;
        out.extend_from_slice(scalar.as_bytes());
        return Ok(rest);
    };
    let close = if open == b'{' { '}' } else { ']' };
    out.push(open);
    let begin = out.len();
    let mut members: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
    let mut rest = json.get(1..).unwrap_or_default().trim_start();
    let mut is_first = true;
    while !rest.starts_with(close) {
        if !is_first {
            rest = rest.strip_prefix(',').ok_or(NOT_THE_JSON)?;
            out.push(b',');
        }
        if open == b'{' {
            let (key, value) = split_scalar(rest.trim_start())?;
            let key: Cow<'_, str> = serde_json::from_str(key).map_err(|_bad| NOT_THE_JSON)?;
            let start = out.len();
            let written = serde_json::Value::from(key.as_ref()).to_string();
            out.extend_from_slice(written.as_bytes());
            out.push(b':');
            let value = value.trim_start().strip_prefix(':').ok_or(NOT_THE_JSON)?;
            rest = sort_value(value, out)?;
            members.push((key, start..out.len()));
        } else {
            rest = sort_value(rest, out)?;
        }
        rest = rest.trim_start();
        is_first = false;
    }
    if !members.is_sorted_by(|(a, _), (b, _)| a <= b) {
        order(members, begin, out);
    }
    out.push(close as u8);
    Ok(rest.get(1..).unwrap_or_default())
}

/// Puts the members that were written from `begin` on in order, with commas between them.
fn order(mut members: Vec<(Cow<'_, str>, Range<usize>)>, begin: usize, out: &mut Vec<u8>) {
    members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut ordered = Vec::with_capacity(out.len().saturating_sub(begin));
    for (index, (_, range)) in members.into_iter().enumerate() {
        if index > 0 {
            ordered.push(b',');
        }
        ordered.extend_from_slice(out.get(range).unwrap_or_default());
    }
    out.truncate(begin);
    out.append(&mut ordered);
}

/// A string, number or word at the beginning of valid JSON, and what follows it.
fn split_scalar(json: &str) -> Result<(&str, &str), SignatureError> {
    let bytes = json.as_bytes();
    let end = if bytes.first() == Some(&b'"') {
        let mut is_escaped = false;
        let closing = bytes.iter().skip(1).position(|byte| match byte {
            _ if std::mem::take(&mut is_escaped) => false,
            b'\\' => {
                is_escaped = true;
                false
            }
            byte => *byte == b'"',
        });
        closing.map(|at| at + 2)
    } else {
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        Some(bytes.iter().position(is_end).unwrap_or(bytes.len()))
    };
    end.and_then(|end| json.split_at_checked(end))
        .ok_or(NOT_THE_JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(raw: &str) -> Result<String, SignatureError> {
        let written = Shape::Sorted.write(raw)?;
        Ok(String::from_utf8(written).unwrap())
    }

    #[test]
    fn keys_are_sorted_and_scalars_stay() {
        for (raw, expected) in [
            ("{}", "{}"),
            (" [ ] ", "[]"),
            ("{\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}"),
            (
                "{ \"z\" : [ {\"y\": 1.50 , \"x\":null}, true ] , \"a\": \"}, \\\"\" }",
                "{\"a\":\"}, \\\"\",\"z\":[{\"x\":null,\"y\":1.50},true]}",
            ),
            (
                "{\"\\u0062\":1,\"a\":{\"d\":{},\"c\":[]}}",
                "{\"a\":{\"c\":[],\"d\":{}},\"b\":1}",
            ),
            ("\"\\u00e4\"", "\"\\u00e4\""),
            ("-1e2", "-1e2"),
        ] {
            assert_eq!(sorted(raw).as_deref(), Ok(expected), "{raw}");
        }
        // SECURITY DS-18
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "1 2",
        ] {
            assert!(sorted(bad).is_err(), "{bad}");
        }
        let deep = |levels: usize| "{\"b\":0,\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        let written = sorted(&deep(100)).unwrap();
        assert!(written.starts_with("{\"a\":{\"a\":") && written.ends_with(",\"b\":0},\"b\":0}"));
        assert!(sorted(&deep(200)).is_err());
    }
}
