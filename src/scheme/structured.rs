//! Structured field values (RFC 9651), as strictly as signatures need them.
//!
//! A reader of its own, since the general ones do what the RFC asks of them and a signature must
//! not: of two equal keys they keep the last, and they take base64 that is unpadded or has stray
//! bits. Here both are refused, so that one text has one meaning and one meaning has one signature
//! (SECURITY A-14). What no signature holds (decimals, dates, display strings) is not read at all.

use std::fmt;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most members of a dictionary, items of a list, parameters of an item: what is compared with
/// what came before it must be few.
const ENTRIES_MAX: usize = 64;
/// Most digits of an integer (RFC 9651 section 3.3.1): what fits is far from overflowing.
const DIGITS_MAX: usize = 15;

/// A bare item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    Boolean(bool),
    Bytes(Vec<u8>),
    Integer(i64),
    Text(String),
    Token(String),
}

/// Parameters in their order; each key once.
pub(super) type Parameters = Vec<(String, Bare)>;

/// An item with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Bare,
    pub(super) parameters: Parameters,
}

/// A list in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InnerList {
    pub(super) items: Vec<Item>,
    pub(super) parameters: Parameters,
}

/// A value of a dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Item(Item),
    List(InnerList),
}

/// Members in their order; each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dictionary(Vec<(String, Member)>);

impl Dictionary {
    /// Reads a header field, whose lines are one value (RFC 9651 section 4.2).
    pub(super) fn of_field(
        headers: &HeaderMap,
        name: &HeaderName,
    ) -> Result<Option<Self>, &'static str> {
        let lines: Vec<&[u8]> = headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        Self::parse(&lines.join(&b", "[..])).map(Some)
    }

    /// Reads a whole field value.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut rest = Reader(text);
        rest.skip_blanks();
        let mut members: Vec<(String, Member)> = Vec::new();
        if rest.is_empty() {
            return Ok(Self(members));
        }
        loop {
            let key = rest.key()?;
            let member = if rest.take(b'=') {
                rest.member()?
            } else {
                let parameters = rest.parameters()?;
                let value = Bare::Boolean(true);
                Member::Item(Item { value, parameters })
            };
            push(&mut members, key, member)?;
            rest.skip_whitespace();
            if rest.is_empty() {
                return Ok(Self(members));
            }
            if !rest.take(b',') {
                return Err("members of a structured field are not separated by commas");
            }
            rest.skip_whitespace();
        }
    }

    /// The member with this key.
    pub(super) fn get(&self, key: &str) -> Option<&Member> {
        self.iter()
            .find_map(|(own, member)| (own == key).then_some(member))
    }

    /// Keys and members, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.0.iter().map(|(key, member)| (key.as_str(), member))
    }
}

impl Item {
    /// Reads a text that is one item.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut rest = Reader(text);
        let item = rest.item()?;
        if rest.is_empty() {
            Ok(item)
        } else {
            Err("text follows the item")
        }
    }

    /// An item without parameters that is a byte sequence.
    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.value {
            Bare::Bytes(bytes) if self.parameters.is_empty() => Some(bytes),
            _ => None,
        }
    }
}

fn push<T>(entries: &mut Vec<(String, T)>, key: String, value: T) -> Result<(), &'static str> {
    if entries.len() >= ENTRIES_MAX {
        return Err("a structured field has too many entries");
    }
    if entries.iter().any(|(own, _)| *own == key) {
        return Err("a structured field has a key twice");
    }
    entries.push((key, value));
    Ok(())
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// The longest run of bytes that `wanted` holds for.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !wanted(*byte));
        let (run, rest) = self
            .0
            .split_at_checked(end.unwrap_or(self.0.len()))
            .unwrap_or_default();
        self.0 = rest;
        run
    }

    fn skip_blanks(&mut self) {
        self.run(|byte| byte == b' ');
    }

    fn skip_whitespace(&mut self) {
        self.run(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn key(&mut self) -> Result<String, &'static str> {
        if !matches!(self.peek(), Some(b'a'..=b'z' | b'*')) {
            return Err("a structured field has an ill-formed key");
        }
        Ok(text(self.run(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
        )))
    }

    fn member(&mut self) -> Result<Member, &'static str> {
        if self.take(b'(') {
            self.inner_list().map(Member::List)
        } else {
            self.item().map(Member::Item)
        }
    }

    fn inner_list(&mut self) -> Result<InnerList, &'static str> {
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.take(b')') {
                let parameters = self.parameters()?;
                return Ok(InnerList { items, parameters });
            }
            if items.len() >= ENTRIES_MAX {
                return Err("a structured field has too many entries");
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err("items of a list are not separated by blanks");
            }
        }
    }

    fn item(&mut self) -> Result<Item, &'static str> {
        let value = self.bare()?;
        let parameters = self.parameters()?;
        Ok(Item { value, parameters })
    }

    fn parameters(&mut self) -> Result<Parameters, &'static str> {
        let mut parameters = Vec::new();
        while self.take(b';') {
            self.skip_blanks();
            let key = self.key()?;
            let value = if self.take(b'=') {
                self.bare()?
            } else {
                Bare::Boolean(true)
            };
            push(&mut parameters, key, value)?;
        }
        Ok(parameters)
    }

    fn bare(&mut self) -> Result<Bare, &'static str> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b'"') => self.string(),
            Some(b':') => self.byte_sequence(),
            Some(b'?') => self.boolean(),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'*') => Ok(Bare::Token(text(self.run(is_token)))),
            _ => Err("a structured field has an ill-formed value"),
        }
    }

    fn integer(&mut self) -> Result<Bare, &'static str> {
        let is_negative = self.take(b'-');
        let digits = self.run(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() > DIGITS_MAX || self.peek() == Some(b'.') {
            return Err("a structured field has an ill-formed integer");
        }
        let number = digits
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        Ok(Bare::Integer(if is_negative { -number } else { number }))
    }

    fn string(&mut self) -> Result<Bare, &'static str> {
        const ILL_FORMED: &str = "a structured field has an ill-formed string";
        self.take(b'"');
        let mut string = String::new();
        loop {
            let Some((byte, rest)) = self.0.split_first() else {
                return Err(ILL_FORMED);
            };
            self.0 = rest;
            match byte {
                b'"' => return Ok(Bare::Text(string)),
                b'\\' if self.take(b'"') => string.push('"'),
                b'\\' if self.take(b'\\') => string.push('\\'),
                b'\\' => return Err(ILL_FORMED),
                b' '..=b'~' => string.push(char::from(*byte)),
                _ => return Err(ILL_FORMED),
            }
        }
    }

    fn byte_sequence(&mut self) -> Result<Bare, &'static str> {
        self.take(b':');
        let encoded = self.run(|byte| byte != b':');
        if !self.take(b':') {
            return Err("a byte sequence does not end");
        }
        let decoded = BASE64.decode(encoded);
        decoded
            .map(Bare::Bytes)
            .or(Err("a byte sequence is not canonical base64"))
    }

    fn boolean(&mut self) -> Result<Bare, &'static str> {
        self.take(b'?');
        if self.take(b'1') {
            Ok(Bare::Boolean(true))
        } else if self.take(b'0') {
            Ok(Bare::Boolean(false))
        } else {
            Err("a structured field has an ill-formed boolean")
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// Bytes that are known to be ASCII.
fn text(ascii: &[u8]) -> String {
    ascii.iter().copied().map(char::from).collect()
}

// The canonical forms (RFC 9651 section 4.1): what a signature is computed over.

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "?{}", u8::from(*value)),
            Self::Bytes(bytes) => write!(f, ":{}:", BASE64.encode(bytes)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(string) => {
                let escaped = string.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "\"{escaped}\"")
            }
            Self::Token(token) => f.write_str(token),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)?;
        write_parameters(&self.parameters, f)
    }
}

impl fmt::Display for InnerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            item.fmt(f)?;
        }
        f.write_str(")")?;
        write_parameters(&self.parameters, f)
    }
}

impl fmt::Display for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, member)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(key)?;
            match member {
                Member::Item(Item {
                    value: Bare::Boolean(true),
                    parameters,
                }) => {
                    write_parameters(parameters, f)?;
                }
                Member::Item(item) => write!(f, "={item}")?,
                Member::List(list) => write!(f, "={list}")?,
            }
        }
        Ok(())
    }
}

fn write_parameters(parameters: &Parameters, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (key, value) in parameters {
        match value {
            Bare::Boolean(true) => write!(f, ";{key}")?,
            value => write!(f, ";{key}={value}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, &'static str> {
        Dictionary::parse(text.as_bytes()).map(|dictionary| dictionary.to_string())
    }

    #[test]
    fn what_is_read_prints_canonically() {
        for (text, printed) in [
            ("", ""),
            ("   ", ""),
            ("a", "a"),
            ("a=?1;x", "a;x"),
            (" a=1 ,\t b=-007;  q=tok:en/1 ", "a=1, b=-7;q=tok:en/1"),
            (r#"s="a\"\\b""#, r#"s="a\"\\b""#),
            ("d=:aGk=:", "d=:aGk=:"),
            (
                r#"sig1=(  "@method"   "a";sf  );created=1"#,
                r#"sig1=("@method" "a";sf);created=1"#,
            ),
            ("e=()", "e=()"),
            ("f=?0;g=?0", "f=?0;g=?0"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for text in [
            "a,",
            ",a",
            "a b",
            "A=1",
            "a=1, a=2",
            "a=1;x=1;x=2",
            "a=",
            "a=(\"b\"",
            "a=(\"b\"\"c\")",
            "a=(\"b\",\"c\")",
            "a=1.5",
            "a=1234567890123456",
            "a=--1",
            "a=-",
            "a=\"b",
            "a=\"\\n\"",
            "a=\"\u{7f}\"",
            "a=\"ü\"",
            "a=:aGk:",
            "a=:aGl=:",
            "a=:aGk=",
            "a=: aGk=:",
            "a=?2",
            "a=@1",
            "a=%\"x\"",
            "a=1 ;x",
            "\ta=1",
            "a=1;X",
        ] {
            assert!(canonical(text).is_err(), "{text}: {:?}", canonical(text));
        }
        let many: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("k{n}=1")).collect();
        assert!(canonical(&many.join(",")).is_err());
        assert!(canonical(&format!("a=({})", "1 ".repeat(ENTRIES_MAX + 1))).is_err());
    }

    proptest! {
        #[test]
        fn reading_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            drop(Dictionary::parse(&bytes));
            drop(Item::parse(&bytes));
        }

        #[test]
        fn what_is_printed_reads_the_same(text in r#"[a-c=,; ()":?0-9\\-]{0,40}"#) {
            if let Ok(dictionary) = Dictionary::parse(text.as_bytes()) {
                let printed = dictionary.to_string();
                prop_assert_eq!(Dictionary::parse(printed.as_bytes()), Ok(dictionary));
            }
        }
    }
}
