//! Keys: an ended one, another route's, and secrets that were copied with too much or too little.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

use super::{Hint, Secret, Trial, lasting, quoted};
use crate::scheme::keys::Key;

/// Prefixes that belong to some providers' secrets and not to the key.
const PREFIXES: &[&str] = &["whsec_", "whsk_", "v1,whsec_", "sha256=", "Bearer "];

/// The signature is by a key that has passed its `not_after`.
pub(super) fn expired(trial: &Trial<'_>) -> Option<Hint> {
    let case = trial.case;
    let ended = case
        .keys
        .iter()
        .filter(|key| key.not_after.is_some_and(|end| case.now >= end));
    let key = ended.into_iter().find(|key| proves(trial, key))?;
    let end = key.not_after?;
    Some(Hint::new(
        "secret_expired",
        format!(
            "the signature is by the previous secret {}, whose `not_after` was {end}; the sender \
             still uses it",
            quoted(&key.id)
        ),
    ))
}

pub(super) fn explain(trial: &Trial<'_>) -> Vec<Hint> {
    let mut hints = Vec::new();
    hints.extend(foreign(trial));
    for (code, message, variants) in FAMILIES {
        let right = texts(trial).iter().any(|text| {
            variants(text)
                .iter()
                .any(|bytes| !bytes.is_empty() && trial.with_secret(bytes))
        });
        if right {
            hints.push(Hint::new(code, *message));
        }
    }
    hints
}

fn proves(trial: &Trial<'_>, key: &Key) -> bool {
    lasting([key]).is_some_and(|keys| trial.is_right_with(&trial.case.message, &keys))
}

fn foreign(trial: &Trial<'_>) -> Option<Hint> {
    let other = trial
        .case
        .others
        .iter()
        .find(|other| proves(trial, &other.key))?;
    Some(Hint::new(
        "other_secret",
        format!(
            "the signature matches secret {} of {}",
            quoted(&other.key.id),
            other.owner
        ),
    ))
}

/// Every form of the secrets at hand: as written, and as decoded.
fn texts(trial: &Trial<'_>) -> Vec<Vec<u8>> {
    let written = trial.case.written.iter().map(Secret::expose);
    let decoded = trial.case.keys.iter().map(Key::bytes);
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for secret in written.chain(decoded).filter(|secret| !secret.is_empty()) {
        if !texts.iter().any(|text| text == secret) {
            texts.push(secret.to_vec());
        }
    }
    texts
}

type Variants = fn(&[u8]) -> Vec<Vec<u8>>;

/// Ways to get a secret wrong, and the variants that would be right.
const FAMILIES: &[(&str, &str, Variants)] = &[
    (
        "secret_whitespace",
        "the signature matches once white space around the secret is removed (or, where the sender \
         has it, added): compare the secret with the provider's, without blanks and line ends",
        whitespace,
    ),
    (
        "secret_quoted",
        "the signature matches once the quotes around the secret are removed",
        quotes,
    ),
    (
        "secret_prefix",
        "the signature matches with another prefix of the secret: copy it whole, as the provider \
         shows it, with `whsec_` where it has that, and nothing before it",
        prefixes,
    ),
    (
        "secret_encoding",
        "the signature matches with another encoding of the secret: the sender decodes it (hex or \
         base64) where this scheme takes it as text, or the other way round",
        encodings,
    ),
    (
        "secret_case",
        "the signature matches with the secret in another letter case",
        letter_case,
    ),
];

fn whitespace(text: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = text.trim_ascii();
    let mut variants = Vec::new();
    if trimmed != text {
        variants.push(trimmed.to_vec());
        variants.push(text.trim_ascii_end().to_vec());
        variants.push(text.trim_ascii_start().to_vec());
    }
    for end in ["\n", "\r\n", " ", "\r"] {
        variants.push([trimmed, end.as_bytes()].concat());
    }
    variants.push([b" ", trimmed].concat());
    variants
}

fn quotes(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.trim_ascii();
    let unquote = |quote: &[u8]| Some(text.strip_prefix(quote)?.strip_suffix(quote)?.to_vec());
    [unquote(b"\""), unquote(b"'"), unquote(b"`")]
        .into_iter()
        .flatten()
        .collect()
}

fn prefixes(text: &[u8]) -> Vec<Vec<u8>> {
    let mut variants = Vec::new();
    for prefix in PREFIXES {
        match text.strip_prefix(prefix.as_bytes()) {
            Some(rest) => {
                variants.push(rest.to_vec());
                variants.extend(decoded(rest));
            }
            None => variants.push([prefix.as_bytes(), text].concat()),
        }
    }
    // `xyz_` before the rest, as many providers mark their secrets.
    if let Some(mark) = text.iter().position(|byte| *byte == b'_')
        && let Some(rest) = text.get(mark + 1..)
    {
        variants.push(rest.to_vec());
        variants.extend(decoded(rest));
    }
    variants
}

fn encodings(text: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = text.trim_ascii();
    let mut variants = decoded(trimmed);
    variants.push(HEXLOWER.encode(text).into_bytes());
    variants.push(HEXLOWER.encode(text).to_ascii_uppercase().into_bytes());
    variants.push(BASE64.encode(text).into_bytes());
    variants.push(BASE64_NOPAD.encode(text).into_bytes());
    variants.push(BASE64URL_NOPAD.encode(text).into_bytes());
    variants
}

/// What a text stands for when it is hex or base64.
fn decoded(text: &[u8]) -> Vec<Vec<u8>> {
    let unpadded: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'=').collect();
    let decoders = [
        HEXLOWER_PERMISSIVE.decode(text),
        BASE64_NOPAD.decode(&unpadded),
        BASE64URL_NOPAD.decode(&unpadded),
    ];
    decoders.into_iter().flatten().collect()
}

fn letter_case(text: &[u8]) -> Vec<Vec<u8>> {
    vec![text.to_ascii_lowercase(), text.to_ascii_uppercase()]
}
