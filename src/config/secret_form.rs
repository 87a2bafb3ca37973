//! What is wrong with a secret, by the form of its text: it is no secret at all.
//!
//! Not for whether it decodes as its scheme wants it, which the scheme says. No message holds any of it.

use super::resolve::Finding;

/// A secret below this can be guessed.
pub(super) const BYTES_MIN: usize = 16;
/// What to do about one that others know.
pub(super) const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";
/// Secrets that stand in examples everywhere, or where a tool has found none (SECURITY A-05).
const SAMPLES: &[&str] = &[
    "<nil>",
    "<secret>",
    "change-me",
    "change_me",
    "changeit",
    "changeme",
    "development_secret",
    "insert-secret-here",
    "none",
    "null",
    "replace-me",
    "replace_me",
    "replaceme",
    "undefined",
    "your-secret",
    "your-secret-here",
    "your_secret",
    "your_secret_here",
    "yoursecret",
];

/// Where a secret is read, which says what mends it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File,
    Value,
    Variable,
}

/// What stands around a secret, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// `NAME=secret`, as a file of variables has it.
    Assignment,
    /// A JSON object that has it as a member.
    Json,
    /// Several lines, one of which it is.
    Lines,
    /// UTF-8 behind a byte order mark.
    Marked,
    /// With NUL bytes.
    Nul,
    /// Between quotes.
    Quoted,
    /// UTF-16.
    Utf16,
}

const QUOTES: [char; 3] = ['"', '\'', '`'];
/// Most lines, or members, that are looked at.
const PARTS_MAX: usize = 16;
/// Most forms within each other: a variable in quotes in a file with a byte order mark.
const DEPTH_MAX: usize = 4;

/// Why a text is none that only two sides know; `origin` is where it was read.
pub(super) fn refuse(bytes: &[u8], origin: &str) -> Option<Finding> {
    let text = String::from_utf8_lossy(bytes);
    let inner = inner(bytes);
    let known = String::from_utf8_lossy(&inner);
    let is_sample = |sample: &&str| known.trim().eq_ignore_ascii_case(sample);
    if SAMPLES.iter().any(is_sample) || is_elided(known.trim()) {
        let finding = Finding::new("the secret is a well-known sample: everybody can sign with it");
        return Some(finding.hint(MAKE_ONE));
    }
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let (what, why) = public_text(text)?;
    let message = format!("{origin} holds {what}, and not a secret that both sides share: {why}");
    let hint = "write the shared secret; a key of the sender's belongs into `public_keys`, where the scheme takes such";
    Some(Finding::new(message).hint(hint))
}

/// Whether nothing is there but what stands around a secret, or cannot be seen.
pub(super) fn is_hollow(bytes: &[u8]) -> bool {
    let is_nothing = |c: char| {
        let is_unseen = matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}');
        is_unseen || c.is_whitespace() || c.is_control() || QUOTES.contains(&c)
    };
    std::str::from_utf8(&inner(bytes)).is_ok_and(|text| text.chars().all(is_nothing))
}

/// The text within what stands around it.
fn inner(bytes: &[u8]) -> Vec<u8> {
    let mut inner = bytes.to_vec();
    for _ in 0..DEPTH_MAX {
        use SecretForm::{Assignment, Marked, Quoted, Utf16};
        match outer(&inner) {
            Some((Assignment | Marked | Quoted | Utf16, parts)) => inner = parts.concat(),
            _ => break,
        }
    }
    inner
}

/// What is doubtful about the text of a secret, the edges first.
pub(super) fn doubts(bytes: &[u8], source: Source) -> Vec<Finding> {
    let form = outer(bytes).map(|(form, _)| form);
    let edge = match form {
        // Their ends are not those of the text.
        Some(SecretForm::Marked | SecretForm::Utf16) => None,
        _ => edge(bytes, source),
    };
    let form = form.map(|form| form.doubt(source));
    let left = std::str::from_utf8(bytes).ok().and_then(left_over);
    let mut doubts: Vec<_> = [edge, form, left].into_iter().flatten().collect();
    if bytes.len() < BYTES_MIN {
        let bytes = bytes.len();
        let message = format!("the secret has {bytes} bytes; below {BYTES_MIN} it can be guessed");
        doubts.push(Finding::new(message).hint(MAKE_ONE));
    }
    doubts
}

/// What the text may have been meant to be, each with the form that it is in now, the outermost first.
pub(super) fn meant(bytes: &[u8]) -> Vec<(SecretForm, Vec<u8>)> {
    let mut all: Vec<(SecretForm, Vec<u8>)> = Vec::new();
    let mut level = outer(bytes).map_or_else(Vec::new, |(form, parts)| {
        parts.into_iter().map(|part| (form, part)).collect()
    });
    for _ in 0..DEPTH_MAX {
        let mut deeper = Vec::new();
        for (form, part) in &level {
            let (_, parts) = outer(part).unwrap_or((*form, Vec::new()));
            deeper.extend(parts.into_iter().map(|part| (*form, part)));
        }
        all.extend(std::mem::take(&mut level));
        level = deeper;
        level.truncate(PARTS_MAX);
    }
    all.retain(|(_, part)| !part.is_empty());
    all
}

fn edge(bytes: &[u8], source: Source) -> Option<Finding> {
    let unless = "remove it, unless the provider has it too";
    let (what, hint) = if bytes.ends_with(b"\r") {
        let hint = match source {
            Source::File => "save the file with Unix line ends",
            Source::Variable => {
                "remove it where the variable is set: a file with Windows line ends leaves one"
            }
            Source::Value => unless,
        };
        ("ends with a carriage return", hint)
    } else if bytes.ends_with(b"\n") {
        let hint = match source {
            Source::File => "only one line end is left out: remove the others",
            Source::Variable => "remove it where the variable is set; `$(cat FILE)` leaves it out",
            Source::Value => unless,
        };
        ("ends with a line end", hint)
    } else if bytes.trim_ascii().len() < bytes.len() {
        ("begins or ends with a blank", unless)
    } else {
        return None;
    };
    Some(Finding::new(format!("the secret {what}, which is part of it")).hint(hint))
}

impl SecretForm {
    fn doubt(self, source: Source) -> Finding {
        let (what, hint) = match (self, source) {
            (Self::Assignment, _) => (
                "looks like `NAME=value`, and all of it is the secret",
                "leave the value alone, without the name",
            ),
            (Self::Json, _) => (
                "is a JSON object, and all of it is the secret",
                "leave the value of the member alone, without quotes",
            ),
            (Self::Lines, _) => (
                "has several lines, which all are part of it",
                "leave the line of the secret alone",
            ),
            (Self::Marked, Source::File) => (
                "begins with a byte order mark, which is part of it",
                "save the file as UTF-8 without one",
            ),
            (Self::Marked, Source::Value | Source::Variable) => (
                "begins with a byte order mark, which is part of it",
                "remove it: it cannot be seen",
            ),
            (Self::Nul, _) => (
                "holds a NUL byte, which is part of it",
                "no provider's secret does; copy it again",
            ),
            (Self::Quoted, Source::File) => (
                "begins and ends with quotes, which are part of it",
                "remove them, unless the provider has them too",
            ),
            (Self::Quoted, Source::Value | Source::Variable) => (
                "begins and ends with quotes, which are part of it",
                "remove them, unless the provider has them too; `docker --env-file` takes none away",
            ),
            (Self::Utf16, _) => (
                "is UTF-16, byte for byte",
                "save it as UTF-8; PowerShell does with `-Encoding ascii`",
            ),
        };
        Finding::new(format!("the secret {what}")).hint(hint)
    }
}

/// The form that a secret is in, and what it may be without it.
fn outer(bytes: &[u8]) -> Option<(SecretForm, Vec<Vec<u8>>)> {
    if let Some(text) = utf16(bytes) {
        return Some((SecretForm::Utf16, vec![text.trim().into()]));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return Some((SecretForm::Marked, vec![rest.trim_ascii().to_vec()]));
    }
    // Random bytes have no form.
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.contains('\0') {
        return Some((SecretForm::Nul, vec![text.replace('\0', "").into()]));
    }
    if let Some(inner) = unquoted(text) {
        return Some((SecretForm::Quoted, vec![inner.into()]));
    }
    if let Some(members) = members(text) {
        return Some((SecretForm::Json, members));
    }
    if text.contains(['\n', '\r']) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines = lines.take(PARTS_MAX).map(Into::into);
        return Some((SecretForm::Lines, lines.collect()));
    }
    let value = assigned(text)?;
    Some((SecretForm::Assignment, vec![value.trim().into()]))
}

/// The text of UTF-16 with a byte order mark, or all of ASCII.
fn utf16(bytes: &[u8]) -> Option<String> {
    let is_high = |own: &[u8; 2], at: usize| own.get(at) == Some(&0);
    let (units, _) = bytes.as_chunks::<2>();
    let is_ascii =
        |at| bytes.len() > 6 && units.iter().all(|own| is_high(own, at) && own != &[0, 0]);
    let little = bytes.starts_with(b"\xff\xfe") || is_ascii(1);
    let big = bytes.starts_with(b"\xfe\xff") || is_ascii(0);
    let from = if little {
        u16::from_le_bytes
    } else {
        u16::from_be_bytes
    };
    let unit = |own: &[u8; 2]| from(*own);
    let text = || String::from_utf16(&units.iter().map(unit).collect::<Vec<_>>()).ok();
    let text = (little || big).then(text)??;
    Some(text.trim_start_matches('\u{feff}').to_owned())
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    QUOTES.into_iter().find_map(inner)
}

/// The texts of a JSON object.
fn members(text: &str) -> Option<Vec<Vec<u8>>> {
    if !text.starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let texts = object.values().filter_map(serde_json::Value::as_str);
    Some(texts.take(PARTS_MAX).map(Into::into).collect())
}

/// What stands after `NAME=`: a name as variables have it, for base64 ends with `=` and other texts have one too.
fn assigned(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    let (name, is_exported) = match name.strip_prefix("export ") {
        Some(name) => (name.trim(), true),
        None => (name.trim_end(), false),
    };
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let lower = name.to_ascii_lowercase();
    let is_telling = ["secret", "token", "password", "key"]
        .iter()
        .any(|word| lower.contains(word));
    let is_usual = name.len() > 2 && name.contains('_') && name == name.to_ascii_uppercase();
    let is_value = !value.trim_matches('=').trim().is_empty();
    // base64 without a value behind its `=` may hold a telling word, but no `_`.
    let is_assigned = is_exported || is_usual || (is_telling && is_value);
    (is_name && is_assigned).then_some(value)
}

/// What an example, or a tool that did nothing, left in the place of a secret.
fn left_over(text: &str) -> Option<Finding> {
    let text = unquoted(text.trim()).unwrap_or(text.trim()).trim();
    let (message, hint) = if is_variable(text) {
        (
            "the secret is the name of a variable, which nothing has replaced",
            "nothing is filled in inside a secret: give the value, or `env:NAME`",
        )
    } else if is_placeholder(text) {
        (
            "the secret looks like a sample that was to be replaced",
            MAKE_ONE,
        )
    } else {
        return None;
    };
    Some(Finding::new(message).hint(hint))
}

/// `$NAME`, `${NAME}`, `$(command)`, `{{ name }}` or `%NAME%`, and nothing beside.
fn is_variable(text: &str) -> bool {
    let is_name = |name: &str| {
        let mut signs = name.chars();
        signs
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && signs.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let within = |start: &str, end: &str| text.strip_prefix(start)?.strip_suffix(end);
    within("${", "}").is_some()
        || within("$(", ")").is_some()
        || within("{{", "}}").is_some()
        || within("%", "%").is_some_and(is_name)
        || text.strip_prefix('$').is_some_and(is_name)
}

fn is_placeholder(text: &str) -> bool {
    const STARTS: &[&str] = &[
        "changeme",
        "change-me",
        "replaceme",
        "replace-me",
        "replace-with",
        "insert-",
        "todo",
    ];
    const ENDS: &[&str] = &["secret", "key", "token", "password", "here"];
    let plain = text.to_ascii_lowercase().replace(['_', ' '], "-");
    let is_your = plain.starts_with("your-") && ENDS.iter().any(|end| plain.ends_with(end));
    let is_bracketed = plain.starts_with('<') && plain.ends_with('>');
    // `whsec_xxxxxxxx`, `****`, and any other sign alone.
    let tail = plain.rsplit('-').next().unwrap_or_default();
    let mut signs = tail.chars();
    let first = signs.next();
    let is_one_sign = signs.all(|sign| Some(sign) == first);
    let is_filled = is_one_sign
        && ((tail.len() == plain.len() && tail.len() > 2)
            || (tail.len() > 5 && matches!(first, Some('x' | '*' | '.'))));
    is_your || is_bracketed || is_filled || STARTS.iter().any(|start| plain.starts_with(start))
}

/// Whether it is the beginning of a secret and dots, as examples show where one belongs.
fn is_elided(text: &str) -> bool {
    text == "..." || (text.len() < BYTES_MIN && text.ends_with("_..."))
}

/// What everybody can know: HMAC takes any text as its key, so that anybody could sign with it.
const EVERYBODY: &str = "everybody can know it, and sign with it";
const OF_ONE_SIDE: &str = "only one side has such a key";

/// The sections of PEM, the most telling first.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("PRIVATE KEY", "a private key", OF_ONE_SIDE),
    ("PUBLIC KEY", "a public key", EVERYBODY),
    (
        "CERTIFICATE REQUEST",
        "a request for a certificate",
        EVERYBODY,
    ),
    ("CERTIFICATE", "a certificate", EVERYBODY),
];

/// How public keys begin that are not PEM: those of OpenSSH, and the DER of RSA, P-256, P-384 and Ed25519 in base64.
const PUBLIC_KEYS: &[&str] = &[
    "ssh-rsa ",
    "ssh-ed25519 ",
    "ecdsa-sha2-",
    "MIIBIjANBgkqhkiG9w0BAQEFA",
    "MIICIjANBgkqhkiG9w0BAQEFA",
    "MFkwEwYHKoZIzj0CAQY",
    "MHYwEAYHKoZIzj0CAQY",
    "MCowBQYDK2VwAyEA",
];

fn public_text(text: &str) -> Option<(&'static str, &'static str)> {
    if PUBLIC_KEYS.iter().any(|start| text.starts_with(start)) {
        return Some(("a public key", EVERYBODY));
    }
    let (_, label) = text.split_once("-----BEGIN")?;
    let label = label.split("-----").next().unwrap_or_default();
    let known = SECTIONS.iter().find(|(name, ..)| label.contains(name));
    Some(known.map_or(("PEM", OF_ONE_SIDE), |(_, what, why)| (*what, *why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_certificates_are_no_shared_secrets() {
        for (text, what) in [
            ("-----BEGIN PUBLIC KEY-----\nMIIB", "a public key"),
            ("\u{feff}\n-----BEGIN RSA PUBLIC KEY-----", "a public key"),
            ("-----BEGIN EC PRIVATE KEY-----", "a private key"),
            ("# ours\n-----BEGIN CERTIFICATE-----", "a certificate"),
            ("-----BEGIN NEW CERTIFICATE REQUEST-----", "a request for a"),
            ("-----BEGIN PGP MESSAGE-----", "PEM"),
            ("ssh-ed25519 AAAAC3Nza", "a public key"),
            ("MCowBQYDK2VwAyEAcanary", "a public key"),
        ] {
            let message = refuse(text.as_bytes(), "`a`").unwrap().message;
            assert!(
                message.starts_with(&format!("`a` holds {what}")),
                "{message}"
            );
        }
        for text in ["", "whsec_MCowBQYDK2VwAyEA", "MIIBIjAN", "a --BEGIN b"] {
            assert_eq!(refuse(text.as_bytes(), "`a`"), None, "{text}");
        }
    }

    fn messages(bytes: &[u8]) -> Vec<String> {
        let doubts = doubts(bytes, Source::File).into_iter();
        doubts.map(|doubt| doubt.message).collect()
    }

    #[test]
    fn what_stands_around_a_secret_is_named_and_taken_away() {
        // SECURITY L-03
        let secret = "canary-canary-canary";
        let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = secret.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (text, part) in [
            (format!("\"{secret}\"").into(), "quotes"),
            (format!("'{secret}'").into(), "quotes"),
            (format!("\u{feff}{secret}\r").into(), "byte order mark"),
            (utf16.clone(), "UTF-16"),
            ([&b"\xff\xfe"[..], &utf16, b"\n\0"].concat(), "UTF-16"),
            ([&b"\xfe\xff"[..], &big, b"\0"].concat(), "UTF-16"),
            (format!("{secret}\0").into(), "NUL"),
            (format!("# ours\n{secret}\n# end").into(), "several lines"),
            (format!("a\r\n{secret}").into(), "several lines"),
            (format!("GITHUB_SECRET={secret}").into(), "`NAME=value`"),
            (format!("secret = \"{secret}\"").into(), "`NAME=value`"),
            (format!("export X='{secret}'").into(), "`NAME=value`"),
            (format!("A=1\nexport X='{secret}'").into(), "several lines"),
            (format!("{{\"a\": 1,\n\"b\": \"{secret}\"}}").into(), "JSON"),
        ] {
            let text: Vec<u8> = text;
            let told = messages(&text).concat();
            assert!(told.contains(part) && !told.contains("canary"), "{told}");
            let meant = meant(&text);
            let found = meant.iter().any(|(_, own)| own == secret.as_bytes());
            assert!(found, "{part}: {meant:?}");
        }
    }

    #[test]
    fn what_was_never_replaced_is_named() {
        for (texts, part) in [
            (
                &[
                    "$SECRET",
                    "${SECRET}",
                    "\"$SECRET\"",
                    "$(cat a)",
                    "{{ secret }}",
                    "%SECRET%",
                ][..],
                "a variable",
            ),
            (
                &[
                    "xxxxxxxxxxxxxxxxxxxx",
                    "whsec_xxxxxxxxxxxx",
                    "aaa",
                    "********",
                    "changeme-please-now",
                    "replace-me-by-yours",
                    "your-webhook-secret",
                    "YOUR_GITHUB_SECRET",
                    "<your secret>",
                    "TODO",
                    "REPLACE_WITH_SECRET",
                ],
                "a sample that",
            ),
        ] {
            for text in texts {
                let told = messages(text.as_bytes()).concat();
                assert!(told.contains(part), "{text}: {told}");
            }
        }
    }

    #[test]
    fn what_is_in_order_is_not_doubted() {
        let random = [
            0x00, 0xff, 0x00, 0x9c, 0x0a, 0x00, 0x22, 0xfe, 0x80, 0x00, 0x01, 0x0a, 0x0d, 0xff,
            0xff, 0x10,
        ];
        for text in [
            &b"an example secret of 32 characters"[..],
            b"whsec_MDEyMzQ1Njc4OWFiY2RlZg==",
            b"MDEyMzQ1Njc4OWFiY2RlZg==",
            b"aGVsbG8=d29ybGQtaGVsbG8td29ybGQ",
            b"$2y$05$abcdefghijklmnop",
            b"p$SSWORD-with-a-dollar",
            b"0123456789abcdef0123456789abcdef",
            b"{not JSON, but long enough}",
            &random,
        ] {
            assert_eq!(messages(text), Vec::<String>::new(), "{text:?}");
            assert_eq!(meant(text), [], "{text:?}");
        }
    }
}
