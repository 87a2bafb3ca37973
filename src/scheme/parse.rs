//! How signatures, timestamps and secrets are written: prefixes, lists, encodings, units.

use std::borrow::Cow;

use data_encoding::{
    BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE, HEXUPPER,
};
use smallvec::SmallVec;

use super::locate::{Item, Location, Pointer, Unreadable, View, find, find_all};
use super::primitive::{Hash, Tag};
use super::spec::{Encoding, SecretEncoding, SecretTransform, TimeUnit};
use super::{SignatureError, malformed, primitive};
use crate::reason::Reason;
use crate::units::UnixTime;

/// Most signatures that one request may offer: rotation needs two or three (SECURITY DS-29).
const CANDIDATES_MAX: usize = 16;

/// Where a signature stands and how it is written.
#[derive(Clone, Debug)]
pub(super) struct SignatureForm {
    pub(super) places: Vec<Location>,
    pub(super) repeated: bool,
    /// The n-th key counts for the n-th place only.
    pub(super) paired: bool,
    pub(super) base64_json: Option<Pointer>,
    pub(super) prefix: Option<String>,
    pub(super) prefix_optional: bool,
    /// Prefixes that name the hash, instead of one prefix.
    pub(super) prefixes: Vec<(String, Hash)>,
    pub(super) list: Option<List>,
    pub(super) encoding: Encoding,
}

/// A list of items in one value.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) separator: String,
    /// Between groups of items, which may repeat each other's.
    pub(super) groups: Option<String>,
    pub(super) assign: Option<String>,
    /// Items that hold signatures; empty: all but those of `others`.
    pub(super) take: Vec<String>,
    /// Items that something else takes.
    pub(super) others: Vec<String>,
}

/// A signature that is offered, as text or as bytes.
#[derive(Clone, Debug)]
pub(super) struct Offered<T> {
    /// The hash that its prefix names.
    pub(super) hash: Option<Hash>,
    /// Which of the places it stands in.
    pub(super) place: usize,
    pub(super) value: T,
}

/// The signatures of a request: mostly one.
pub(super) type Candidates = SmallVec<[Offered<Tag>; 1]>;

/// A value and the position of the place that it stands in.
type Placed<'a> = (usize, Cow<'a, [u8]>);

/// What stands where the signature should.
#[derive(Debug, Default)]
pub(super) struct Presented<'a> {
    /// Texts that may be signatures, without list and prefix.
    pub(super) texts: SmallVec<[Offered<Cow<'a, [u8]>>; 1]>,
    /// All items of the list.
    pub(super) items: Vec<Item<'a>>,
}

const MISSING: SignatureError =
    SignatureError::new(Reason::SignatureMissing, "the signature is missing");

impl SignatureForm {
    /// Whether the head alone tells what stands there.
    pub(super) fn is_in_head(&self) -> bool {
        !self.places.iter().any(Location::is_in_body)
    }

    /// Reads what stands there.
    pub(super) fn read<'a>(&self, view: View<'a>) -> Result<Presented<'a>, SignatureError> {
        let values = self.values(view)?;
        if values.iter().all(|(_, value)| value.is_empty()) {
            return Err(MISSING);
        }
        let mut presented = Presented::default();
        for (place, value) in values {
            let value = match &self.base64_json {
                None => value,
                Some(pointer) => Cow::Owned(inside_base64_json(&value, pointer)?.into_bytes()),
            };
            match &self.list {
                None => presented.texts.extend(self.strip_prefix(place, value)),
                Some(list) => {
                    list.split(value, &mut presented.items)?;
                }
            }
        }
        if let Some(list) = &self.list {
            let taken: Vec<_> = presented
                .items
                .iter()
                .filter(|(name, _)| list.takes(name))
                .cloned()
                .collect();
            presented.texts.extend(
                taken
                    .into_iter()
                    .filter_map(|(_, v)| self.strip_prefix(0, v)),
            );
        }
        // Numbered header fields may hold one each.
        let most = CANDIDATES_MAX.max(self.places.len());
        match presented.texts.len() {
            0 => Err(malformed(
                "the signature is not written as the scheme writes it",
            )),
            count if count <= most => Ok(presented),
            _ => Err(malformed("more signatures are offered than are looked at")),
        }
    }

    /// Refuses a request that says something else in another of the places: the app may look there first.
    pub(super) fn says_nothing_else(
        &self,
        view: View<'_>,
        presented: &Presented<'_>,
    ) -> Result<(), SignatureError> {
        let [own] = presented.texts.as_slice() else {
            return Ok(());
        };
        for place in self.places.iter().skip(1) {
            let value = find(std::slice::from_ref(place), view).map_err(unreadable)?;
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                continue;
            };
            let other = self.strip_prefix(0, value);
            if other.is_none_or(|other| other.value != own.value) {
                return Err(malformed(
                    "the signature stands in two places, each another one",
                ));
            }
        }
        Ok(())
    }

    fn values<'a>(&self, view: View<'a>) -> Result<SmallVec<[Placed<'a>; 1]>, SignatureError> {
        if !self.repeated {
            let value = find(&self.places, view).map_err(unreadable)?;
            return Ok(value.map(|value| (0, value)).into_iter().collect());
        }
        let mut values = SmallVec::new();
        for (index, place) in self.places.iter().enumerate() {
            let found = find_all(std::slice::from_ref(place), view).map_err(unreadable)?;
            values.extend(found.into_iter().map(|value| (index, value)));
        }
        Ok(values)
    }

    /// The text behind the prefix; `None` when it is not a signature of this scheme.
    fn strip_prefix<'a>(
        &self,
        place: usize,
        value: Cow<'a, [u8]>,
    ) -> Option<Offered<Cow<'a, [u8]>>> {
        let offered = |hash, value| Some(Offered { hash, place, value });
        if !self.prefixes.is_empty() {
            let mut known = self.prefixes.iter();
            let (prefix, hash) = known.find(|(prefix, _)| value.starts_with(prefix.as_bytes()))?;
            return offered(Some(*hash), skip(value, prefix.len()));
        }
        let Some(prefix) = &self.prefix else {
            return offered(None, value);
        };
        match length_of_prefix(prefix, &value) {
            Some(length) => offered(None, skip(value, length)),
            None if self.prefix_optional => offered(None, value),
            None => None,
        }
    }

    /// The signatures as bytes; those of another length or alphabet are none.
    pub(super) fn decode(
        &self,
        presented: &Presented<'_>,
        is_length: impl Fn(Option<Hash>, usize) -> bool,
    ) -> Result<Candidates, SignatureError> {
        let bytes = |offered: &Offered<Cow<'_, [u8]>>| {
            let Offered { hash, place, .. } = *offered;
            let value = decode(self.encoding, &offered.value)?;
            is_length(hash, value.len()).then_some(Offered { hash, place, value })
        };
        let decoded: Candidates = presented.texts.iter().filter_map(bytes).collect();
        if decoded.is_empty() {
            return Err(malformed(
                "the signature is not in the scheme's encoding or length",
            ));
        }
        Ok(decoded)
    }

    /// The text of a signature, as [`SignatureForm::read`] takes it apart; `items` are what else
    /// the list holds.
    pub(super) fn write(&self, signature: &[u8], items: &[(String, String)]) -> String {
        let mut text = encode(self.encoding, signature);
        if let Some((prefix, _)) = self.prefixes.first() {
            text.insert_str(0, prefix);
        }
        if let Some(prefix) = &self.prefix {
            text.insert_str(0, prefix);
        }
        let Some(list) = &self.list else { return text };
        let mut parts: Vec<String> = items
            .iter()
            .map(|(name, value)| match &list.assign {
                Some(assign) => format!("{name}{assign}{value}"),
                None => value.clone(),
            })
            .collect();
        parts.push(match (&list.assign, list.take.first()) {
            (Some(assign), Some(name)) => format!("{name}{assign}{text}"),
            _ => text,
        });
        parts.join(&list.separator)
    }
}

fn unreadable(why: Unreadable) -> SignatureError {
    why.refused(
        Reason::SignatureMalformed,
        "the signature stands more than once",
        "the body that the signature stands in cannot be read",
    )
}

impl List {
    fn split<'a>(
        &self,
        value: Cow<'a, [u8]>,
        items: &mut Vec<Item<'a>>,
    ) -> Result<(), SignatureError> {
        let bad = malformed("the list of signatures cannot be read");
        let text = String::from_utf8(value.into_owned()).map_err(|_bad| bad)?;
        // Blanks around items do not count, unless they alone tell a separator from `assign`.
        let separator = match self.separator.trim() {
            trimmed if trimmed.is_empty() || self.assign.as_deref() == Some(trimmed) => {
                self.separator.as_str()
            }
            trimmed => trimmed,
        };
        let text = match &self.groups {
            Some(between) => text.replace(between, separator),
            None => text,
        };
        let parts = text
            .split(separator)
            .map(str::trim)
            .filter(|part| !part.is_empty());
        for (index, part) in parts.enumerate() {
            if items.len() >= 4 * CANDIDATES_MAX {
                return Err(bad);
            }
            let item = match &self.assign {
                None => Some((index.to_string(), part.to_owned())),
                Some(assign) => part
                    .split_once(assign.as_str())
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
            };
            // An item of another form belongs to another scheme.
            let item = item.map(|(name, value)| {
                let (name, value) = (name.into_bytes(), value.into_bytes());
                (Cow::Owned(name), Cow::Owned(value))
            });
            let is_new = |item: &Item<'a>| self.groups.is_none() || !items.contains(item);
            items.extend(item.filter(is_new));
        }
        Ok(())
    }

    /// The items of a list that are no signatures.
    pub(super) fn other_items(&self, value: &str) -> Vec<(String, String)> {
        let mut items = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.split(Cow::Borrowed(value.as_bytes()), &mut items) {
            Ok(()) => items
                .iter()
                .filter(|(name, _)| !self.takes(name))
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    fn takes(&self, name: &[u8]) -> bool {
        let is = |own: &String| own.as_bytes() == name;
        if self.take.is_empty() {
            !self.others.iter().any(is)
        } else {
            self.take.iter().any(is)
        }
    }
}

/// How much of a value its prefix is, where it has that. A prefix that ends in a blank is the name of a scheme, such
/// as `Bearer `: its case does not count, nor how many blanks follow it (RFC 9110 section 11.4).
pub(super) fn length_of_prefix(prefix: &str, value: &[u8]) -> Option<usize> {
    let Some(scheme) = prefix.strip_suffix(' ') else {
        return value.starts_with(prefix.as_bytes()).then_some(prefix.len());
    };
    let (own, rest) = value.split_at_checked(scheme.len())?;
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    (blanks > 0 && own.eq_ignore_ascii_case(scheme.as_bytes())).then_some(own.len() + blanks)
}

pub(super) fn skip(value: Cow<'_, [u8]>, count: usize) -> Cow<'_, [u8]> {
    match value {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(count..).unwrap_or_default()),
        Cow::Owned(mut bytes) => {
            bytes.drain(..count.min(bytes.len()));
            Cow::Owned(bytes)
        }
    }
}

/// A value inside base64 of JSON.
pub(super) fn inside_base64_json(
    value: &[u8],
    pointer: &Pointer,
) -> Result<String, SignatureError> {
    let bad = malformed("the signature is not base64 of JSON");
    let json = BASE64.decode(value.trim_ascii()).map_err(|_bad| bad)?;
    pointer.read(&json).ok().flatten().ok_or(bad)
}

/// Strict: one alphabet, canonical last bits, no blanks (SECURITY A-14).
pub(super) fn decode(encoding: Encoding, text: &[u8]) -> Option<Tag> {
    if text.is_empty() {
        return None;
    }
    let alphabet = match encoding {
        Encoding::Base64 => BASE64,
        Encoding::Base64url if text.contains(&b'=') => BASE64URL,
        Encoding::Base64url => BASE64URL_NOPAD,
        Encoding::Hex | Encoding::HexUpper => HEXLOWER_PERMISSIVE,
    };
    let mut bytes = Tag::from_elem(0, alphabet.decode_len(text.len()).ok()?);
    let count = alphabet.decode_mut(text, &mut bytes).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Base64 => BASE64.encode(bytes),
        Encoding::Base64url => BASE64URL_NOPAD.encode(bytes),
        Encoding::Hex => HEXLOWER.encode(bytes),
        Encoding::HexUpper => HEXUPPER.encode(bytes),
    }
}

/// Numbers from here on are milliseconds where both units are written: as seconds it is the year 5138, as
/// milliseconds 1973.
const MILLIS_FROM: i64 = 100_000_000_000;

/// Reads a timestamp: digits and nothing else, or RFC 3339 (SECURITY A-16). No leading zeros: where
/// no delimiter stands before it, they could be another value's.
pub(super) fn time(unit: TimeUnit, text: &[u8]) -> Option<UnixTime> {
    let text = std::str::from_utf8(text).ok()?;
    if unit == TimeUnit::Rfc3339 {
        return UnixTime::from_rfc3339(text);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > 19 || text.starts_with('0') && text.len() > 1 {
        return None;
    }
    let number: i64 = text.parse().ok()?;
    Some(match unit {
        TimeUnit::SOrMs if number >= MILLIS_FROM => UnixTime::from_millis(number),
        TimeUnit::S | TimeUnit::SOrMs => UnixTime::from_millis(number.checked_mul(1_000)?),
        TimeUnit::Ms | TimeUnit::Rfc3339 => UnixTime::from_millis(number),
        TimeUnit::Us => UnixTime::from_millis(number / 1_000),
        TimeUnit::Ns => UnixTime::from_millis(number / 1_000_000),
    })
}

/// Writes a timestamp.
pub(super) fn write_time(unit: TimeUnit, time: UnixTime) -> String {
    match unit {
        TimeUnit::S | TimeUnit::SOrMs => time.secs().to_string(),
        TimeUnit::Ms => time.millis().to_string(),
        TimeUnit::Us => format!("{}000", time.millis()),
        TimeUnit::Ns => format!("{}000000", time.millis()),
        TimeUnit::Rfc3339 => time.to_string(),
    }
}

/// How a configured secret becomes key bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct SecretForm {
    pub(super) encoding: SecretEncoding,
    pub(super) prefixes: Vec<String>,
    pub(super) transform: Option<SecretTransform>,
}

impl SecretForm {
    /// The key bytes. The message never repeats the secret.
    pub(super) fn decode(&self, written: &[u8]) -> Result<Vec<u8>, String> {
        let mut prefixes = self.prefixes.iter();
        let bare = prefixes.find_map(|prefix| written.strip_prefix(prefix.as_bytes()));
        let text = bare.unwrap_or(written);
        let decoded = match self.encoding {
            SecretEncoding::Utf8 => text.to_vec(),
            SecretEncoding::Hex => HEXLOWER_PERMISSIVE
                .decode(text)
                .map_err(|_bad| "the secret is not hex, as this scheme's is".to_owned())?,
            SecretEncoding::Base64 => {
                let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
                let bare = text.get(..text.len() - padding).unwrap_or_default();
                BASE64_NOPAD.decode(bare).map_err(|_bad| {
                    let prefixes = self.prefixes.iter().map(|prefix| format!("`{prefix}`"));
                    let prefixes: Vec<_> = prefixes.collect();
                    if prefixes.is_empty() {
                        "the secret is not base64, as this scheme's is".to_owned()
                    } else {
                        let prefixes = prefixes.join(" or ");
                        format!("the secret is not base64 (after {prefixes}), as this scheme's is")
                    }
                })?
            }
        };
        if decoded.is_empty() {
            return Err("the secret is empty once it is decoded".to_owned());
        }
        // HMAC fills a short key up with zeros (RFC 2104 section 2).
        if decoded.iter().all(|byte| *byte == 0) {
            return Err("the secret is nothing but zeros, which is as good as empty".to_owned());
        }
        Ok(match self.transform {
            None => decoded,
            Some(SecretTransform::Sha1) => primitive::Digest::Sha1.of([decoded.as_slice()]),
            Some(SecretTransform::Nfkd) => nfkd(&decoded)?,
            Some(SecretTransform::Html) => html(&decoded)?,
        })
    }
}

fn nfkd(secret: &[u8]) -> Result<Vec<u8>, String> {
    use unicode_normalization::UnicodeNormalization;
    let text = std::str::from_utf8(secret).map_err(|_bad| "the secret is not UTF-8".to_owned())?;
    Ok(text.nfkd().collect::<String>().into_bytes())
}

/// The five characters that the sender's own escaping hides, by name or by number, each read once.
fn html(secret: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(secret).map_err(|_bad| "the secret is not UTF-8".to_owned())?;
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let entity = after.split_once(';');
        let known = entity.and_then(|(name, after)| Some((entity_of(name)?, after)));
        let (character, after) = known.unwrap_or(('&', after));
        decoded.push(character);
        rest = after;
    }
    decoded.push_str(rest);
    Ok(decoded.into_bytes())
}

fn entity_of(name: &str) -> Option<char> {
    if name.contains('+') {
        return None; // `from_str_radix` takes a sign, but it is not a digit
    }
    let number = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        },
        None => match name {
            "amp" => 38,
            "gt" => 62,
            "lt" => 60,
            "quot" => 34,
            _ => return None,
        },
    };
    char::from_u32(number).filter(|known| matches!(known, '"' | '&' | '\'' | '<' | '>'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_strict() {
        // SECURITY A-14
        assert_eq!(
            decode(Encoding::Hex, b"0aFF"),
            Some(Tag::from_slice(&[0x0a, 0xff]))
        );
        for bad in ["", "0", "0x0a", " 0a", "0a ", "0g"] {
            assert_eq!(decode(Encoding::Hex, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            decode(Encoding::Base64, b"AAE="),
            Some(Tag::from_slice(&[0, 1]))
        );
        for bad in ["AAE", "AAF=", "AA E=", "AAE=\n", "-_8=", "AAE=="] {
            assert_eq!(decode(Encoding::Base64, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            decode(Encoding::Base64url, b"-_8"),
            decode(Encoding::Base64url, b"-_8=")
        );
    }

    #[test]
    fn names_of_schemes_have_no_case() {
        for (prefix, value, length) in [
            ("Bearer ", "Bearer t", Some(7)),
            ("Bearer ", "bEARER   t", Some(9)),
            ("Bearer ", "Bearert", None),
            ("Bearer ", "Bearer", None),
            ("Bearer ", "Bearer\tt", None),
            ("Bearer ", "Basic t", None),
            ("sha256=", "sha256=0a", Some(7)),
            ("sha256=", "SHA256=0a", None),
            ("sha256=", "sha", None),
        ] {
            assert_eq!(
                length_of_prefix(prefix, value.as_bytes()),
                length,
                "{value}"
            );
        }
    }

    #[test]
    fn timestamps_are_digits() {
        // SECURITY A-16
        assert_eq!(
            time(TimeUnit::S, b"1700000000"),
            Some(UnixTime::from_secs(1_700_000_000))
        );
        for bad in [
            "",
            "-1",
            "+1",
            "1.5",
            "1e9",
            " 1",
            "1 ",
            "99999999999999999999",
            "0x1",
        ] {
            assert_eq!(time(TimeUnit::S, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(time(TimeUnit::S, b"9223372036854775807"), None);
        assert_eq!(
            time(TimeUnit::Ns, b"1700000000123456789").unwrap().millis(),
            1_700_000_000_123
        );
    }

    #[test]
    fn seconds_and_milliseconds_are_told_apart() {
        let read = |text: &str| time(TimeUnit::SOrMs, text.as_bytes()).unwrap().millis();
        assert_eq!(read("1766237532"), 1_766_237_532_000);
        assert_eq!(read("1766237532123"), 1_766_237_532_123);
        assert_eq!(read("99999999999"), 99_999_999_999_000);
        assert_eq!(read("100000000000"), 100_000_000_000);
    }

    #[test]
    fn entities_of_a_secret_are_read_once() {
        for (written, meant) in [
            ("a&amp;b&lt;c&gt;&quot;&#039;", "a&b<c>\"'"),
            (
                "&#39;&#x27;&#X27;&#0039;&#38;&#60;&#x3e;&#034;",
                "''''&<>\"",
            ),
            ("&amp;lt; &amp;#39;", "&lt; &#39;"),
            (
                "a&b &; &#; &#x; &copy; &#65; &#+39; &",
                "a&b &; &#; &#x; &copy; &#65; &#+39; &",
            ),
        ] {
            let decoded = html(written.as_bytes()).unwrap();
            assert_eq!(decoded, meant.as_bytes(), "{written}");
        }
    }

    #[test]
    fn secrets_are_decoded() {
        let form = SecretForm {
            encoding: SecretEncoding::Base64,
            prefixes: vec!["v1,whsec_".to_owned(), "whsec_".to_owned()],
            transform: None,
        };
        for written in ["whsec_AAE=", "whsec_AAE", "v1,whsec_AAE=", "AAE="] {
            assert_eq!(form.decode(written.as_bytes()), Ok(vec![0, 1]), "{written}");
        }
        for bad in ["whsec_", "whsec_!", "whsec_AAF=", "whsec_AAAA"] {
            assert!(form.decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
