//! Header fields: the signature under another name, with another prefix or in another encoding, the
//! timestamp in another unit.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use http::HeaderName;

use super::{Hint, Trial};

/// What stands before signatures in the wild.
const PREFIXES: &[&str] = &[
    "sha256=",
    "sha1=",
    "sha512=",
    "v0=",
    "v1=",
    "v1,",
    "hmac-sha256=",
    "HMAC-SHA256 ",
    "HMAC ",
    "Bearer ",
    "Basic ",
    "t=",
];

/// Most other fields that are tried in place of an absent one.
const FIELDS_MAX: usize = 128;

pub(super) fn explain(trial: &Trial<'_>) -> Vec<Hint> {
    let names = trial.case.scheme.header_names();
    let families: [fn(&Trial<'_>, &HeaderName) -> Option<Hint>; 5] =
        [moved, prefix, encoding, blank, unit];
    let mut hints = Vec::new();
    for family in families {
        hints.extend(names.iter().find_map(|name| family(trial, name)));
    }
    hints
}

/// The bytes of a field that stands once.
fn value<'a>(trial: &'a Trial<'_>, name: &HeaderName) -> Option<&'a [u8]> {
    let mut fields = trial.case.message.headers.get_all(name).iter();
    let field = fields.next()?.as_bytes();
    fields.next().is_none().then_some(field)
}

fn moved(trial: &Trial<'_>, name: &HeaderName) -> Option<Hint> {
    let names = trial.case.scheme.header_names();
    let others = trial
        .case
        .message
        .headers
        .iter()
        .filter(|(other, _)| !names.contains(other));
    let (found, _) = others
        .take(FIELDS_MAX)
        .find(|(_, value)| trial.with_field(name, value.as_bytes()))?;
    Some(Hint::new(
        "header_name",
        format!("the signature matches once `{found}` is sent as `{name}`"),
    ))
}

fn prefix(trial: &Trial<'_>, name: &HeaderName) -> Option<Hint> {
    let value = value(trial, name)?;
    let bare = bare(value);
    if bare != value && trial.with_field(name, bare) {
        let message = format!("the signature matches once `{name}` is sent without its prefix");
        return Some(Hint::new("signature_prefix", message));
    }
    let wanted = PREFIXES
        .iter()
        .find(|prefix| trial.with_field(name, &[prefix.as_bytes(), bare].concat()))?;
    Some(Hint::new(
        "signature_prefix",
        format!("the signature matches once the value of `{name}` begins with `{wanted}`"),
    ))
}

/// Without what stands before the signature proper.
fn bare(value: &[u8]) -> &[u8] {
    let start = value
        .iter()
        .position(|byte| matches!(byte, b'=' | b',' | b' '))
        .filter(|mark| *mark < 16 && mark + 1 < value.len());
    // `=` at the end is base64's padding.
    let rest = start
        .and_then(|mark| value.get(mark + 1..))
        .unwrap_or(value);
    if rest.iter().all(|byte| *byte == b'=') {
        value
    } else {
        rest
    }
}

fn encoding(trial: &Trial<'_>, name: &HeaderName) -> Option<Hint> {
    let value = value(trial, name)?;
    let bare = bare(value);
    let prefix = value.strip_suffix(bare)?;
    let unpadded: Vec<u8> = bare.iter().copied().filter(|byte| *byte != b'=').collect();
    let decoded = [
        HEXLOWER_PERMISSIVE.decode(bare),
        BASE64_NOPAD.decode(&unpadded),
        BASE64URL_NOPAD.decode(&unpadded),
    ];
    for bytes in decoded.into_iter().flatten() {
        let forms = [
            ("hex", HEXLOWER.encode(&bytes)),
            ("base64", BASE64.encode(&bytes)),
            ("base64 without padding", BASE64_NOPAD.encode(&bytes)),
            ("base64url", BASE64URL_NOPAD.encode(&bytes)),
        ];
        let right = forms
            .iter()
            .find(|(_, text)| trial.with_field(name, &[prefix, text.as_bytes()].concat()));
        if let Some((form, _)) = right {
            let message = format!("the signature in `{name}` matches once it is written in {form}");
            return Some(Hint::new("signature_encoding", message));
        }
    }
    None
}

fn blank(trial: &Trial<'_>, name: &HeaderName) -> Option<Hint> {
    let value = value(trial, name)?;
    let cleaned: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'"' | b'\'' | b' '))
        .collect();
    let right = cleaned != value && trial.with_field(name, &cleaned);
    right.then(|| {
        let message =
            format!("the signature matches once blanks and quotes in `{name}` are removed");
        Hint::new("signature_quoted", message)
    })
}

/// The sender signed one unit and sent another.
fn unit(trial: &Trial<'_>, name: &HeaderName) -> Option<Hint> {
    let text = std::str::from_utf8(value(trial, name)?).ok()?;
    let run = super::moment::digit_runs(text)
        .into_iter()
        .find(|run| run.len() >= 9)?;
    let number: i64 = run.parse().ok()?;
    let units = [
        (
            number / 1_000,
            "the timestamp is sent in milliseconds, but signed in seconds",
        ),
        (
            number.saturating_mul(1_000),
            "the timestamp is sent in seconds, but signed in milliseconds",
        ),
    ];
    let (_, message) = units.into_iter().find(|(other, _)| {
        trial.with_field(name, text.replacen(run, &other.to_string(), 1).as_bytes())
    })?;
    Some(Hint::new("timestamp_unit", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_proper() {
        assert_eq!(bare(b"sha256=abcd"), b"abcd");
        assert_eq!(bare(b"v1,YWJj="), b"YWJj=");
        assert_eq!(bare(b"Bearer x"), b"x");
        assert_eq!(bare(b"YWJjZA=="), b"YWJjZA==");
        assert_eq!(bare(b"abcd"), b"abcd");
        assert_eq!(bare(b"="), b"=");
        assert_eq!(bare(b""), b"");
    }
}
