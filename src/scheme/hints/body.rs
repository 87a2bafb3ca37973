//! Bodies: what frameworks, editors and shells do to bytes on their way.

use super::json::{self, Layout, Order, Strings};
use super::{Hint, Trial};
use crate::scheme::locate;

/// Largest body that is printed anew.
const JSON_BYTES_MAX: usize = 2 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The simplest change that makes the signature right: several may, for a trailing newline is also
/// gone once JSON is printed anew.
pub(super) fn explain(trial: &Trial<'_>) -> Option<Hint> {
    let body = trial.case.message.body.contiguous();
    FAMILIES.iter().find_map(|(code, variants)| {
        let mut changed = variants(&body)
            .into_iter()
            .filter(|(_, variant)| *variant != *body);
        let (what, _) = changed.find(|(_, variant)| trial.with_body(variant))?;
        Some(Hint::new(code, format!("the signature matches {what}")))
    })
}

/// What a variant undoes, and the body it gives.
type Variant = (String, Vec<u8>);
type Variants = fn(&[u8]) -> Vec<Variant>;

const FAMILIES: &[(&str, Variants)] = &[
    ("body_chunked", chunked),
    ("body_trailing_newline", trailing_newline),
    ("body_line_endings", line_endings),
    ("body_bom", bom),
    ("body_reserialized", reserialized),
    ("body_form_decoded", form_decoded),
    ("body_json_string", json_string),
    ("body_charset", charset),
    ("body_empty", empty),
];

fn variant(what: &str, body: impl Into<Vec<u8>>) -> Variant {
    (what.to_owned(), body.into())
}

/// A capture of the bytes on the wire has the sizes of the chunks in it.
fn chunked(body: &[u8]) -> Vec<Variant> {
    let what = "once the sizes of its chunks are taken out of the body: a capture is the body without its framing";
    let joined = without_chunks(body).map(|joined| variant(what, joined));
    joined.into_iter().collect()
}

fn without_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, after) = rest.split_at_checked(end)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let digits = std::str::from_utf8(digits).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        let after = after.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(joined);
        }
        let (data, after) = after.split_at_checked(size)?;
        joined.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

fn trailing_newline(body: &[u8]) -> Vec<Variant> {
    let removed = "once the trailing newline of the body is removed: an editor or `echo` added it";
    let added = "once a trailing newline is added to the body: it was lost on the way";
    let mut variants = Vec::new();
    if let Some(shorter) = body.strip_suffix(b"\r\n") {
        variants.push(variant(removed, shorter));
    }
    if let Some(shorter) = body.strip_suffix(b"\n") {
        variants.push(variant(removed, shorter));
    }
    if body.trim_ascii_end() != body {
        variants.push(variant(removed, body.trim_ascii_end()));
    }
    variants.push(variant(added, [body, b"\n"].concat()));
    variants.push(variant(added, [body, b"\r\n"].concat()));
    variants
}

fn line_endings(body: &[u8]) -> Vec<Variant> {
    let lf: Vec<u8> = without_carriage_returns(body);
    let mut crlf = Vec::with_capacity(lf.len());
    for byte in &lf {
        if *byte == b'\n' {
            crlf.push(b'\r');
        }
        crlf.push(*byte);
    }
    vec![
        variant(
            "once CRLF line ends of the body are LF: something converted them",
            lf,
        ),
        variant(
            "once LF line ends of the body are CRLF: something converted them",
            crlf,
        ),
    ]
}

fn without_carriage_returns(body: &[u8]) -> Vec<u8> {
    let mut lf = Vec::with_capacity(body.len());
    let mut bytes = body.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte != b'\r' || bytes.peek() != Some(&&b'\n') {
            lf.push(*byte);
        }
    }
    lf
}

fn bom(body: &[u8]) -> Vec<Variant> {
    vec![match body.strip_prefix(BOM) {
        Some(rest) => variant("once the byte order mark before the body is removed", rest),
        None => variant(
            "once a byte order mark is added before the body",
            [BOM, body].concat(),
        ),
    }]
}

/// The same JSON as other libraries print it.
fn reserialized(body: &[u8]) -> Vec<Variant> {
    // All variants are printed before any is tried.
    let small = Some(body).filter(|body| body.len() <= JSON_BYTES_MAX);
    let Some(value) = small.and_then(json::parse) else {
        return Vec::new();
    };
    let mut variants = Vec::new();
    for order in [Order::Kept, Order::Sorted] {
        for layout in [
            Layout::Compact,
            Layout::Spaced,
            Layout::Indented(2),
            Layout::Indented(4),
        ] {
            for strings in [
                Strings::Kept,
                Strings::Ascii,
                Strings::Unicode,
                Strings::Php,
            ] {
                let what = format!(
                    "once the JSON of the body is re-serialised{}{}{}: something parsed it and \
                     printed it anew; sign and verify the bytes that are sent",
                    layout.words(),
                    order.words(),
                    strings.words()
                );
                variants.push((
                    what,
                    json::print(&value, layout, order, strings).into_bytes(),
                ));
            }
        }
    }
    variants
}

fn form_decoded(body: &[u8]) -> Vec<Variant> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Vec::new();
    };
    let mut variants = vec![variant(
        "once the form of the body is decoded: sign it as it is sent",
        locate::decode(text),
    )];
    for field in text.split('&') {
        if let Some((name, value)) = field.split_once('=') {
            let what = format!("with the decoded form field `{}` as body", clip(name));
            variants.push((what, locate::decode(value)));
        }
    }
    variants.truncate(32);
    variants
}

fn json_string(body: &[u8]) -> Vec<Variant> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Vec::new();
    };
    let mut variants = Vec::new();
    if let Ok(inner) = serde_json::from_str::<String>(text) {
        variants.push(variant(
            "with the text inside the JSON string that the body is",
            inner,
        ));
    }
    if let Ok(outer) = serde_json::to_string(text) {
        variants.push(variant(
            "with the body as a JSON string: it was encoded twice",
            outer,
        ));
    }
    variants
}

/// UTF-8 that was taken for Latin-1, and the other way round.
fn charset(body: &[u8]) -> Vec<Variant> {
    let widened: String = body.iter().map(|byte| char::from(*byte)).collect();
    let mut variants = vec![variant(
        "once the body is read as Latin-1 and written as UTF-8: something recoded it",
        widened,
    )];
    if let Ok(text) = std::str::from_utf8(body) {
        let narrowed: Option<Vec<u8>> = text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).ok())
            .collect();
        if let Some(narrowed) = narrowed {
            variants.push(variant(
                "once the body is read as UTF-8 and written as Latin-1: something recoded it",
                narrowed,
            ));
        }
    }
    variants
}

fn empty(_: &[u8]) -> Vec<Variant> {
    vec![variant(
        "an empty body: the sender signed before it had the body",
        "",
    )]
}

fn clip(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}
