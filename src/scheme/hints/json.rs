//! JSON printed anew: the same values, as other libraries write them.

use serde::de::IgnoredAny;

/// A JSON value whose scalars are kept as written.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// Number, literal or string, with its quotes.
    Atom(&'a str),
    /// Items.
    Array(Vec<Self>),
    /// Keys, with their quotes, and values.
    Object(Vec<(&'a str, Self)>),
}

/// White space between the parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    /// None: JavaScript, Go, Rust.
    Compact,
    /// Lines, indented by this number of blanks.
    Indented(usize),
    /// After commas and colons: Python.
    Spaced,
}

/// Order of keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// As received.
    Kept,
    /// By name.
    Sorted,
}

/// Escapes within strings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strings {
    /// `\uXXXX` for all but ASCII: Python.
    Ascii,
    /// As received.
    Kept,
    /// As `Ascii`, and `\/` for slashes: PHP.
    Php,
    /// As few escapes as can be: JavaScript, Go, Rust.
    Unicode,
}

impl Layout {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Compact => " without white space",
            Self::Indented(_) => " with indentation",
            Self::Spaced => " with blanks after commas and colons",
        }
    }
}

impl Order {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Kept => "",
            Self::Sorted => ", keys sorted",
        }
    }
}

impl Strings {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Ascii => ", non-ASCII text escaped",
            Self::Kept => "",
            Self::Php => ", slashes and non-ASCII text escaped",
            Self::Unicode => ", text unescaped",
        }
    }
}

/// Reads a body; `None` when it is no JSON or nested deeper than 128.
pub(super) fn parse(body: &[u8]) -> Option<Node<'_>> {
    // serde_json checks the syntax first, so that the walk below can rely on it. It does not limit the depth of
    // values that it skips.
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    let text = std::str::from_utf8(body).ok()?;
    let mut tokens = Tokens(text);
    let first = tokens.next()?;
    node(first, &mut tokens, DEPTH_MAX)
}

/// Deepest nesting that is looked at.
const DEPTH_MAX: usize = 128;

/// The tokens of a text that is JSON.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
        let end = match text.chars().next()? {
            '"' => string_end(text)?,
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            _ => text
                .find([' ', '\t', '\r', '\n', ',', ':', '}', ']'])
                .unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at_checked(end)?;
        self.0 = rest;
        Some(token)
    }
}

/// Where a string that begins here ends.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn node<'a>(token: &'a str, tokens: &mut Tokens<'a>, levels: usize) -> Option<Node<'a>> {
    let levels = levels.checked_sub(1)?;
    match token {
        "[" => {
            let mut items = Vec::new();
            loop {
                match tokens.next()? {
                    "]" => return Some(Node::Array(items)),
                    "," => {}
                    first => items.push(node(first, tokens, levels)?),
                }
            }
        }
        "{" => {
            let mut fields = Vec::new();
            loop {
                match tokens.next()? {
                    "}" => return Some(Node::Object(fields)),
                    "," => {}
                    key => {
                        tokens.next().filter(|colon| *colon == ":")?;
                        let first = tokens.next()?;
                        fields.push((key, node(first, tokens, levels)?));
                    }
                }
            }
        }
        atom => Some(Node::Atom(atom)),
    }
}

/// Prints a value.
pub(super) fn print(value: &Node<'_>, layout: Layout, order: Order, strings: Strings) -> String {
    let mut printer = Printer {
        layout,
        order,
        strings,
        out: String::new(),
    };
    printer.value(value, 0);
    printer.out
}

struct Printer {
    layout: Layout,
    order: Order,
    strings: Strings,
    out: String,
}

impl Printer {
    fn value(&mut self, value: &Node<'_>, depth: usize) {
        match value {
            Node::Atom(text) => self.atom(text),
            Node::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.gap(index, depth + 1);
                    self.value(item, depth + 1);
                }
                self.close(']', items.is_empty(), depth);
            }
            Node::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if matches!(self.order, Order::Sorted) {
                    fields.sort_by_key(|(key, _)| *key);
                }
                self.out.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    self.gap(index, depth + 1);
                    self.atom(key);
                    self.out
                        .push_str(if matches!(self.layout, Layout::Compact) {
                            ":"
                        } else {
                            ": "
                        });
                    self.value(value, depth + 1);
                }
                self.close('}', fields.is_empty(), depth);
            }
        }
    }

    /// Before the item at `index`.
    fn gap(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push(',');
        }
        match self.layout {
            Layout::Spaced if index > 0 => self.out.push(' '),
            Layout::Compact | Layout::Spaced => {}
            Layout::Indented(width) => self.line(width * depth),
        }
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if let Layout::Indented(width) = self.layout
            && !is_empty
        {
            self.line(width * depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, blanks: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', blanks));
    }

    fn atom(&mut self, text: &str) {
        let Ok(inner) = serde_json::from_str::<String>(text) else {
            return self.out.push_str(text);
        };
        let minimal = serde_json::to_string(&inner).unwrap_or_default();
        match self.strings {
            Strings::Kept => self.out.push_str(text),
            Strings::Unicode => self.out.push_str(&minimal),
            Strings::Ascii => self.ascii(&minimal),
            Strings::Php => self.ascii(&minimal.replace('/', "\\/")),
        }
    }

    fn ascii(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_ascii() {
                self.out.push(c);
                continue;
            }
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                self.out.extend(std::iter::once(format!("\\u{unit:04x}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(body: &str, layout: Layout, order: Order, strings: Strings) -> String {
        print(&parse(body.as_bytes()).unwrap(), layout, order, strings)
    }

    #[test]
    fn as_other_languages_print() {
        let body = r#"{ "b":[1.0 ,{}],"a": "é/\u00e9", "c":[] }"#;
        assert_eq!(
            printed(body, Layout::Compact, Order::Kept, Strings::Unicode),
            r#"{"b":[1.0,{}],"a":"é/é","c":[]}"#
        );
        assert_eq!(
            printed(body, Layout::Spaced, Order::Sorted, Strings::Ascii),
            r#"{"a": "\u00e9/\u00e9", "b": [1.0, {}], "c": []}"#
        );
        assert_eq!(
            printed(body, Layout::Compact, Order::Kept, Strings::Php),
            r#"{"b":[1.0,{}],"a":"\u00e9\/\u00e9","c":[]}"#
        );
        assert_eq!(
            printed(body, Layout::Indented(2), Order::Kept, Strings::Kept),
            "{\n  \"b\": [\n    1.0,\n    {}\n  ],\n  \"a\": \"é/\\u00e9\",\n  \"c\": []\n}"
        );
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(deep(100).as_bytes()).is_some());
        for levels in [200, 100_000] {
            assert!(parse(deep(levels).as_bytes()).is_none());
        }
        assert!(parse(b"{} x").is_none());
    }

    proptest! {
        #[test]
        fn the_value_stays_the_same(text in "[\\[\\]{},:\"a-c0-9 \\\\ué/.-]{0,40}") {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                for strings in [Strings::Ascii, Strings::Kept, Strings::Php, Strings::Unicode] {
                    let again = printed(&text, Layout::Indented(4), Order::Kept, strings);
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&again).unwrap(), &value);
                }
            }
        }
    }
}
