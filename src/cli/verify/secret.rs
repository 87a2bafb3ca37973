//! Secrets that are not as they were meant: with what an editor, a shell or a file of variables left around them.
//!
//! What the engine's hints do not try, for it knows no files.

use super::is_untimely;
use crate::config::{self, SecretForm};
use crate::scheme::hints::{Case, Hint};
use crate::scheme::keys::KeySet;

/// Bytes that are hashed at most: a second or so.
const TRIED_BYTES_MAX: usize = 256 << 20;
/// What a trial costs beside the body.
const TRIAL_BYTES_MIN: usize = 4 << 10;

/// The first form without which a secret is right.
pub(super) fn explain<'s>(
    case: &Case<'_>,
    secrets: impl Iterator<Item = &'s [u8]>,
) -> Option<Hint> {
    let Case {
        scheme,
        message,
        now,
        ..
    } = case;
    let trials = TRIED_BYTES_MAX / message.body.len().saturating_add(TRIAL_BYTES_MIN);
    let is_right = |meant: &[u8]| {
        let key = scheme.secret_key("tried".into(), meant, None).ok();
        let keys = key.and_then(|key| KeySet::new(vec![key]));
        keys.is_some_and(|keys| match scheme.verify(message, &keys, *now) {
            Ok(_) => true,
            Err(error) => is_untimely(&error),
        })
    };
    let mut meant = secrets.flat_map(config::secret_forms).take(trials);
    let (form, _) = meant.find(|(_, meant)| is_right(meant.expose()))?;
    let (code, how) = words(form);
    Some(Hint {
        code,
        message: format!("the signature matches {how}"),
    })
}

fn words(form: SecretForm) -> (&'static str, &'static str) {
    match form {
        SecretForm::Assignment => (
            "secret_assignment",
            "with what stands after `NAME=` alone: the name is no part of the secret",
        ),
        SecretForm::Json => (
            "secret_json",
            "with one member of the JSON object alone: the rest is no part of the secret",
        ),
        SecretForm::Lines => (
            "secret_lines",
            "with one line of the secret alone: the others are no part of it",
        ),
        SecretForm::Marked => (
            "secret_bom",
            "once the byte order mark before the secret is removed",
        ),
        SecretForm::Nul => ("secret_nul", "once the NUL bytes of the secret are removed"),
        SecretForm::Quoted => (
            "secret_quoted",
            "once the quotes around the secret are removed",
        ),
        SecretForm::Utf16 => (
            "secret_utf16",
            "once the secret is saved as UTF-8 and not as UTF-16",
        ),
    }
}
