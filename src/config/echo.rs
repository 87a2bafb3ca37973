//! Messages repeat what stands in a file; not what looks like a credential that was pasted to the wrong place.

use crate::problem::Problem;

/// How credentials begin that are marked as such.
const MARKS: &[&str] = &[
    "AKIA",
    "ghp_",
    "github_pat_",
    "glpat-",
    "rk_",
    "shpat_",
    "shpss_",
    "sk_",
    "whsec_",
    "whsk_",
    "xoxb-",
    "xoxp-",
];
/// Letters and digits in one piece, from which on it is no word.
const PIECE_MIN: usize = 20;
/// As many as that of both sorts, or it is a name with a number.
const MIXED_MIN: usize = 4;

/// Shortens what looks like a credential wherever a problem repeats it.
pub(super) fn shorten(problem: &mut Problem) {
    problem.message = quoted(&problem.message);
    problem.hint = problem.hint.as_deref().map(quoted);
    // Tools follow it: only what is marked as a credential is worth a wrong one.
    let path = problem.path.split('.').map(|key| match marked(key) {
        Some(mark) => format!("{mark}…"),
        None => key.to_owned(),
    });
    problem.path = path.collect::<Vec<_>>().join(".");
}

/// Between backticks stands what a file says.
fn quoted(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(index, part)| {
        if index % 2 == 1 {
            shown(part)
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// How it is marked as a credential.
fn marked(text: &str) -> Option<&'static str> {
    MARKS.iter().copied().find(|mark| {
        let rest = text.strip_prefix(mark);
        rest.is_some_and(|rest| rest.len() >= 8 && !rest.contains([' ', '…']))
    })
}

fn shown(text: &str) -> String {
    match marked(text) {
        Some(mark) => format!("{mark}…"),
        None if is_random(text) => {
            let start: String = text.chars().take(4).collect();
            format!("{start}…")
        }
        None => text.to_owned(),
    }
}

/// Whether there is a piece that nobody would write by hand. Paths and URLs have such pieces, too.
fn is_random(text: &str) -> bool {
    let is_piece = |piece: &str| {
        let digits = piece.chars().filter(char::is_ascii_digit).count();
        piece.len() >= PIECE_MIN && digits >= MIXED_MIN && piece.len() - digits >= MIXED_MIN
    };
    let is_reference = text.starts_with("file:") || text.starts_with("env:");
    let is_place = is_reference || text.contains("://") || text.starts_with(['/', '.']);
    !is_place
        && text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(is_piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_not_repeated() {
        for (text, seen) in [
            ("whsec_MDEyMzQ1Njc4OWFi", "whsec_…"),
            ("0123456789abcdef0123456789abcdef", "0123…"),
            ("a: 0123456789abcdef0123456789abcdef", "a: 0…"),
            ("sk_live_0123456789", "sk_…"),
            ("verfy", "verfy"),
            ("sk_…", "sk_…"),
            ("hooks-of-2026-09-production", "hooks-of-2026-09-production"),
            (
                "a_rather_long_name_of_a_key_without_end",
                "a_rather_long_name_of_a_key_without_end",
            ),
            (
                "/nix/store/0123456789abcdef0123456789abcdef",
                "/nix/store/0123456789abcdef0123456789abcdef",
            ),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            assert_eq!(shown(text), seen);
        }
        assert_eq!(
            quoted("key `whsec_MDEyMzQ1Njc4` of `a`"),
            "key `whsec_…` of `a`"
        );
    }
}
