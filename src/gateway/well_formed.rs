//! Whether a body is well-formed JSON or XML: judged, never changed, never kept.

use quick_xml::events::{BytesStart, Event};
use serde::de::IgnoredAny;

/// Deepest nesting of arrays, objects or elements.
pub const NESTING_MAX: usize = 128;

/// What a media type promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// RFC 8259.
    Json,
    /// XML 1.0, without a document type.
    Xml,
}

impl Syntax {
    /// The syntax of a media type (lower case, without parameters), where it has one of the two.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" | "text/json" => Some(Self::Json),
            "application/xml" | "text/xml" => Some(Self::Xml),
            _ if media_type.ends_with("+json") => Some(Self::Json),
            _ if media_type.ends_with("+xml") => Some(Self::Xml),
            _ => None,
        }
    }

    /// Judges a whole body. The error says what is wrong, without any byte of the body.
    pub fn check(self, body: &[u8]) -> Result<(), &'static str> {
        let text = std::str::from_utf8(body).map_err(|_bad| "the body is not UTF-8")?;
        match self {
            Self::Json => check_json(text),
            Self::Xml => check_xml(text),
        }
    }
}

fn check_json(text: &str) -> Result<(), &'static str> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > NESTING_MAX {
                    return Err("the JSON is nested deeper than 128");
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(()),
        Err(_) => Err("the body is not well-formed JSON"),
    }
}

const XML_ILL_FORMED: &str = "the body is not well-formed XML";

fn check_xml(text: &str) -> Result<(), &'static str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.chars().any(|c| !is_xml_char(c)) {
        return Err("the XML holds a character that XML does not allow");
    }
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let mut depth = 0_usize;
    let mut roots = 0_usize;
    let mut first = true;
    loop {
        let event = reader.read_event().map_err(|_bad| XML_ILL_FORMED)?;
        match event {
            Event::DocType(_) => return Err("the XML has a document type"),
            Event::Start(tag) => {
                check_tag(&tag)?;
                roots += usize::from(depth == 0);
                depth += 1;
                if depth > NESTING_MAX {
                    return Err("the XML is nested deeper than 128");
                }
            }
            Event::Empty(tag) => {
                check_tag(&tag)?;
                roots += usize::from(depth == 0);
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) => {
                let blank = text.bytes().all(|byte| byte.is_ascii_whitespace());
                if (depth == 0 && !blank) || text.contains("]]>") {
                    return Err(XML_ILL_FORMED);
                }
            }
            Event::CData(_) if depth == 0 => return Err(XML_ILL_FORMED),
            Event::GeneralRef(name) => {
                let known = matches!(&*name, "amp" | "lt" | "gt" | "quot" | "apos");
                let number = matches!(name.resolve_char_ref(), Ok(Some(c)) if is_xml_char(c));
                if depth == 0 || !(known || number) {
                    return Err(XML_ILL_FORMED);
                }
            }
            Event::Decl(_) if !first => return Err(XML_ILL_FORMED),
            Event::Decl(_) | Event::CData(_) | Event::Comment(_) => {}
            Event::PI(instruction) => {
                if instruction.target().eq_ignore_ascii_case("xml") {
                    return Err(XML_ILL_FORMED);
                }
            }
            Event::Eof => break,
        }
        first = false;
    }
    if depth == 0 && roots == 1 {
        Ok(())
    } else {
        Err(XML_ILL_FORMED)
    }
}

/// Most attributes on one element: a duplicate check compares each with each (SECURITY DS-19).
const ATTRIBUTES_MAX: usize = 256;

fn check_tag(tag: &BytesStart<'_>) -> Result<(), &'static str> {
    if !is_xml_name(tag.name().as_ref()) {
        return Err(XML_ILL_FORMED);
    }
    for (index, attribute) in tag.attributes().enumerate() {
        let attribute = attribute.map_err(|_bad| XML_ILL_FORMED)?;
        if index >= ATTRIBUTES_MAX {
            return Err("an XML element has more than 256 attributes");
        }
        if !is_xml_name(attribute.key.as_ref()) || attribute.value.contains('<') {
            return Err(XML_ILL_FORMED);
        }
        quick_xml::escape::unescape(&attribute.value).map_err(|_bad| XML_ILL_FORMED)?;
    }
    Ok(())
}

/// XML 1.0 2.2.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// XML 1.0 2.3, all of non-ASCII taken as letters.
fn is_xml_name(name: &str) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':') || !c.is_ascii();
    let rest = |c: char| start(c) || c.is_ascii_digit() || matches!(c, '-' | '.');
    name.chars().next().is_some_and(start) && name.chars().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json() {
        for good in [
            "{}",
            " [1, -0.5e3, \"\\ud800\", null] ",
            "\"a\"",
            "0",
            "{\"a\":1,\"a\":2}",
        ] {
            assert_eq!(Syntax::Json.check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":}",
            "01",
            "nul",
            "{}{}",
            "\u{feff}{}",
            "'a'",
            "\"\t\"",
        ] {
            assert!(Syntax::Json.check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Syntax::Json.check(b"\"\xff\"").is_err());
    }

    #[test]
    fn nesting_stops_at_128() {
        // SECURITY DS-17
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(Syntax::Json.check(nested(128).as_bytes()), Ok(()));
        assert!(Syntax::Json.check(nested(129).as_bytes()).is_err());
        assert!(Syntax::Json.check(nested(100_000).as_bytes()).is_err());
        let brackets_in_text = format!("\"{}\"", "[{\\\"".repeat(1000));
        assert_eq!(Syntax::Json.check(brackets_in_text.as_bytes()), Ok(()));
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert_eq!(Syntax::Xml.check(nested(128).as_bytes()), Ok(()));
        assert!(Syntax::Xml.check(nested(129).as_bytes()).is_err());
    }

    #[test]
    fn xml() {
        for good in [
            "<a/>",
            "<?xml version=\"1.0\"?>\n<!-- c --><a b='1'>t &amp; &#x41;<![CDATA[<]]></a>\n",
            "\u{feff}<a xmlns:x='u'><x:b/></a>",
        ] {
            assert_eq!(Syntax::Xml.check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a b=1/>",
            "<a b='1' b='2'/>",
            "<a>&undefined;</a>",
            "<a>&#0;</a>",
            "<a b='<'/>",
            "<a b='&x;'/>",
            "<1/>",
            "</a>",
            "<a>]]></a>",
            "<a><?xml version='1.0'?></a>",
            "<a>\u{1}</a>",
            "<a",
            "<a b/>",
        ] {
            assert!(Syntax::Xml.check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn document_types_are_refused() {
        // SECURITY DS-19
        for bad in [
            "<!DOCTYPE a><a/>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
        ] {
            assert_eq!(
                Syntax::Xml.check(bad.as_bytes()),
                Err("the XML has a document type")
            );
        }
        let attributes: Vec<String> = (0..80_000).map(|i| format!("b{i}=''")).collect();
        let wide = format!("<a {}/>", attributes.join(" "));
        assert!(Syntax::Xml.check(wide.as_bytes()).is_err());
    }

    #[test]
    fn media_types() {
        assert_eq!(Syntax::of("application/json"), Some(Syntax::Json));
        assert_eq!(
            Syntax::of("application/cloudevents+json"),
            Some(Syntax::Json)
        );
        assert_eq!(Syntax::of("application/soap+xml"), Some(Syntax::Xml));
        assert_eq!(Syntax::of("text/plain"), None);
    }
}
