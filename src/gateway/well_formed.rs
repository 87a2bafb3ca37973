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
    /// The syntax of a media type (without parameters), where it has one of the two.
    pub fn of(media_type: &str) -> Option<Self> {
        let is = |whole: &str| media_type.eq_ignore_ascii_case(whole);
        let ends = |suffix: &str| {
            let start = media_type.len().checked_sub(suffix.len());
            let end = start.and_then(|start| media_type.as_bytes().get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
        };
        if is("application/json") || is("text/json") || ends("+json") {
            Some(Self::Json)
        } else if is("application/xml") || is("text/xml") || ends("+xml") {
            Some(Self::Xml)
        } else {
            None
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
            Event::Start(ref tag) | Event::Empty(ref tag) => {
                check_tag(tag)?;
                roots += usize::from(depth == 0);
                if depth >= NESTING_MAX {
                    return Err("the XML is nested deeper than 128");
                }
                depth += usize::from(matches!(event, Event::Start(_)));
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
            Event::Decl(declaration) => check_declaration(&declaration, text)?,
            Event::CData(_) | Event::Comment(_) => {}
            Event::PI(instruction) => {
                let target = instruction.target();
                if !is_xml_name(target) || target.eq_ignore_ascii_case("xml") {
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
    if !attributes_stand_apart(tag) {
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
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|_bad| XML_ILL_FORMED)?;
        if !value.chars().all(is_xml_char) {
            return Err(XML_ILL_FORMED);
        }
    }
    Ok(())
}

/// Whether each value ends before a blank or at the tag's end: the parser takes `b="1"c="2"`.
fn attributes_stand_apart(tag: &str) -> bool {
    let mut quote = None;
    let mut closed = false;
    for c in tag.chars() {
        if closed && !is_blank(c) {
            return false;
        }
        closed = quote == Some(c);
        if closed {
            quote = None;
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        }
    }
    true
}

/// XML 1.0 2.8 and 4.3.3. `declaration` begins with `xml`; the parser looks at nothing behind it.
fn check_declaration(declaration: &str, text: &str) -> Result<(), &'static str> {
    let rest = declaration.strip_prefix("xml").unwrap_or(declaration);
    let (version, mut rest) = pseudo_attribute(rest, "version").ok_or(XML_ILL_FORMED)?;
    let minor = version.strip_prefix("1.").unwrap_or_default();
    if minor.is_empty() || !minor.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(XML_ILL_FORMED);
    }
    if let Some((encoding, after)) = pseudo_attribute(rest, "encoding") {
        let is_ascii = encoding.eq_ignore_ascii_case("US-ASCII") && text.is_ascii();
        if !is_ascii && !encoding.eq_ignore_ascii_case("UTF-8") {
            return Err("the XML declares an encoding that it does not have");
        }
        rest = after;
    }
    if let Some((standalone, after)) = pseudo_attribute(rest, "standalone") {
        if !matches!(standalone, "yes" | "no") {
            return Err(XML_ILL_FORMED);
        }
        rest = after;
    }
    if rest.chars().all(is_blank) {
        Ok(())
    } else {
        Err(XML_ILL_FORMED)
    }
}

/// The value of ` name="value"` at the beginning of `text`, and what follows it.
fn pseudo_attribute<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str)> {
    let rest = text.strip_prefix(is_blank)?.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(name)?.trim_start_matches(is_blank);
    let rest = rest.strip_prefix('=')?.trim_start_matches(is_blank);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    rest.strip_prefix(quote)?.split_once(quote)
}

/// XML 1.0 2.3, `S`.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// XML 1.0 2.2.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// XML 1.0 2.3, `Name`.
fn is_xml_name(name: &str) -> bool {
    name.starts_with(starts_name) && name.chars().all(continues_name)
}

fn starts_name(c: char) -> bool {
    matches!(c,
        ':' | '_' | 'A'..='Z' | 'a'..='z'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}'
        | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}'
        | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

fn continues_name(c: char) -> bool {
    starts_name(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}'
            | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
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
        let within = |depth: usize| format!("{}<b/>{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert_eq!(Syntax::Xml.check(within(127).as_bytes()), Ok(()));
        assert!(Syntax::Xml.check(within(128).as_bytes()).is_err());
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
    fn xml_declarations() {
        for good in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><a/>",
            "<?xml version='1.1' standalone='no'?><a/>",
            "<?xml version='1.12'\n encoding = \"us-ascii\"\t?><a/>",
            "<?xml\tversion =\r\n'1.0' encoding='utf-8'?><a>\u{e4}</a>",
            "\u{feff}<?xml version='1.0'?><?x-y version?><a/>",
        ] {
            assert_eq!(Syntax::Xml.check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "<?xml?><a/>",
            "<?xml ?><a/>",
            "<?xml encoding=\"UTF-8\"?><a/>",
            "<?xml version=\"1.0\" foo=\"1\"?><a/>",
            "<?xml encoding=\"UTF-8\" version=\"1.0\"?><a/>",
            "<?xml version='1.0' standalone='yes' encoding='UTF-8'?><a/>",
            "<?xml version='1.0' version='1.0'?><a/>",
            "<?xml version='1.0'encoding='UTF-8'?><a/>",
            "<?xml version=\"1.0\" standalone=\"maybe\"?><a/>",
            "<?xml version=\"2.0x\"?><a/>",
            "<?xml version='2.0'?><a/>",
            "<?xml version='1.'?><a/>",
            "<?xml version='1.0\"?><a/>",
            "<?xml version=1.0?><a/>",
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>",
            "<?xml version='1.0' encoding='ISO-8859-1'?><a/>",
            "<?xml version='1.0' encoding=''?><a/>",
            "<?xml version='1.0' encoding='US-ASCII'?><a>\u{e4}</a>",
            " <?xml version='1.0'?><a/>",
            "<?XML version='1.0'?><a/>",
        ] {
            assert!(Syntax::Xml.check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn xml_names_and_attributes() {
        for good in [
            "<a b=\"it's\"\n\tc = '\"' />",
            "<a b='&#9;&#x10FFFF;&lt;' ></a >",
            "<\u{e4}\u{b7}1 \u{4e2d}-.='x'/>",
            "<a><?x?><?y z?></a>",
        ] {
            assert_eq!(Syntax::Xml.check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "<a b=\"1\"c=\"2\"/>",
            "<a b='1'c='2'/>",
            "<a b='1'c=\"2\"></a>",
            "<a b='1'\u{a0}c='2'/>",
            "<a b=\"&#1;\"/>",
            "<a b='&#xFFFE;'/>",
            "<a b='&#xD800;'/>",
            "<a b='&#+65;'/>",
            "<a b='&'/>",
            "<\u{d7}/>",
            "<\u{b7}a/>",
            "<a \u{d7}='1'/>",
            "<a\u{37e}/>",
            "<a><??></a>",
            "<a><? x?></a>",
            "<a><?1?></a>",
            "<a><?xMl x?></a>",
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
