//! Patterns such as `[A-Za-z0-9_-]{1,128}`: what a value may look like that an answer repeats.
//!
//! Classes and characters with counts, one after the other; no alternatives, no groups. Matching takes
//! time in proportion to the value, whatever the pattern (SECURITY A-46, A-47, DS-20).

/// Longest value that a pattern can let through.
const LENGTH_MAX: usize = 4096;

/// A parsed pattern; it is about the whole value.
#[derive(Clone, Debug)]
pub(super) struct Charset {
    pieces: Vec<Piece>,
    length_max: usize,
}

/// Characters, and how many of them.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// One bit for each character of ASCII.
    class: u128,
    min: usize,
    max: usize,
}

/// Letters, digits, `-` and `_`.
const TOKEN: u128 = bits(b'A', b'Z') | bits(b'a', b'z') | bits(b'0', b'9') | bit(b'-') | bit(b'_');

const fn bit(byte: u8) -> u128 {
    1 << byte
}

const fn bits(from: u8, to: u8) -> u128 {
    let upper = if to >= 127 {
        u128::MAX
    } else {
        bit(to + 1) - 1
    };
    upper & !(bit(from) - 1)
}

impl Charset {
    /// Parses a pattern. The message says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(odd) = text.chars().find(|c| !matches!(c, ' '..='~')) {
            return Err(format!("`{odd}` is not a visible ASCII character"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((class, after)) = class(rest)? {
            let (min, max, after) = count(after)?;
            pieces.push(Piece { class, min, max });
            rest = after;
        }
        let longest = |sum: usize, piece: &Piece| sum.saturating_add(piece.max);
        let length_max = pieces.iter().fold(0, longest);
        if length_max == 0 || length_max > LENGTH_MAX {
            return Err(format!("it must let 1 to {LENGTH_MAX} characters through"));
        }
        Ok(Self { pieces, length_max })
    }

    /// Whether the whole of `value` is as the pattern says.
    pub(super) fn fits(&self, value: &[u8]) -> bool {
        if value.len() > self.length_max {
            return false;
        }
        let mut ends = vec![false; value.len() + 1];
        if let Some(start) = ends.first_mut() {
            *start = true;
        }
        for piece in &self.pieces {
            ends = piece.ends(&ends, value);
        }
        ends.last() == Some(&true)
    }

    /// Whether it lets nothing through but letters, digits, `-` and `_`, which few contents are made
    /// of: those that are get refused.
    pub(super) fn is_token(&self) -> bool {
        self.pieces.iter().all(|piece| piece.class & !TOKEN == 0)
    }
}

impl Piece {
    fn holds(self, byte: u8) -> bool {
        byte < 128 && self.class & bit(byte) != 0
    }

    /// Where the piece can end, given where it can start.
    fn ends(self, starts: &[bool], value: &[u8]) -> Vec<bool> {
        let (mut run, mut latest) = (0, None);
        let end = |at: usize| {
            let before = at.checked_sub(1).and_then(|before| value.get(before));
            if before.is_some_and(|byte| !self.holds(*byte)) {
                run = at;
            }
            // Starts come into reach one by one: the latest is the best.
            let start = at.checked_sub(self.min);
            latest = start
                .filter(|start| starts.get(*start) == Some(&true))
                .or(latest);
            latest.is_some_and(|start| start >= run && start >= at.saturating_sub(self.max))
        };
        (0..starts.len()).map(end).collect()
    }
}

/// A class or character at the beginning of `text`, and what follows it.
fn class(text: &str) -> Result<Option<(u128, &str)>, String> {
    let Some(first) = text.bytes().next() else {
        return Ok(None);
    };
    let Some(inner) = text.strip_prefix('[') else {
        if br"\^$.|?*+(){}]".contains(&first) {
            return Err(format!(
                "`{}` stands where a character or `[...]` is wanted",
                char::from(first)
            ));
        }
        return Ok(Some((bit(first), text.get(1..).unwrap_or_default())));
    };
    let (inner, after) = inner.split_once(']').ok_or("a `[` lacks its `]`")?;
    if inner.is_empty() || inner.starts_with('^') || inner.contains(['\\', '[']) {
        return Err(format!(
            "`[{inner}]`: list what is let through; `\\`, `[` and a leading `^` have no place in it"
        ));
    }
    let mut class = 0;
    let mut bytes = inner.bytes().peekable();
    while let Some(from) = bytes.next() {
        let mut ahead = bytes.clone();
        match (ahead.next(), ahead.next()) {
            (Some(b'-'), Some(to)) if from <= to => {
                class |= bits(from, to);
                bytes = ahead;
            }
            (Some(b'-'), Some(_)) => return Err(format!("`[{inner}]`: a range runs backwards")),
            _ => class |= bit(from),
        }
    }
    Ok(Some((class, after)))
}

/// `{3}` or `{1,128}` at the beginning of `text`, else once.
fn count(text: &str) -> Result<(usize, usize, &str), String> {
    if text.starts_with(['*', '+', '?']) {
        return Err("write how many: `{1,128}`".to_owned());
    }
    let Some(inner) = text.strip_prefix('{') else {
        return Ok((1, 1, text));
    };
    let (inner, after) = inner.split_once('}').ok_or("a `{` lacks its `}`")?;
    let (min, max) = inner.split_once(',').unwrap_or((inner, inner));
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if min <= max && max > 0 => Ok((min, max, after)),
        _ => Err(format!("`{{{inner}}}` is not a count; write `{{1,128}}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, value: &str) -> bool {
        Charset::parse(pattern).unwrap().fits(value.as_bytes())
    }

    #[test]
    fn a_pattern_is_about_the_whole_value() {
        let token = "[A-Za-z0-9_-]{1,8}";
        for value in ["a", "Z-_9", "12345678"] {
            assert!(fits(token, value), "{value}");
        }
        for value in ["", "123456789", "a b", "a:b", "{", "é", "a\n"] {
            assert!(!fits(token, value), "{value:?}");
        }
        assert!(fits("[ -~]{0,3}", ""));
        assert!(fits("[ -~]{1,3}", " ~<"));
        assert!(!fits("[ -~]{1,3}", "\u{7f}"));
    }

    #[test]
    fn pieces_follow_each_other() {
        let uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        assert!(fits(uuid, "890e4665-4dfe-4ab1-b689-ed553bceeed0"));
        assert!(!fits(uuid, "890e4665-4dfe-4ab1-b689-ed553bceeed"));
        assert!(!fits(uuid, "890e4665-4dfe-4ab1-b689_ed553bceeed0"));
        // What the first piece could take must be left for the next one where that needs it.
        assert!(fits("[a-z]{1,5}ab", "aabab"));
        assert!(fits("[a-z]{0,5}a[a-z]{2}", "axaxx"));
        assert!(!fits("[a-z]{0,1}a[a-z]{2}", "xxaxx"));
        assert!(fits("v[0-9]{0,2}", "v"));
    }

    #[test]
    fn a_value_that_fits_in_many_ways_costs_little() {
        // Trying one way after the other would take forever.
        let pattern = format!("{}b", "[a]{0,64}".repeat(63));
        assert!(!fits(&pattern, &"a".repeat(2049)));
        assert!(fits(&pattern, &format!("{}b", "a".repeat(2049))));
    }

    #[test]
    fn mistakes_are_found() {
        for pattern in [
            "",
            "[a-z",
            "[]",
            "[^a]{1,2}",
            "[z-a]{1,2}",
            "[a]{2,1}",
            "[a]{0}",
            "[a]+",
            "a*",
            "(a)",
            "[a]{1,",
            "[a]{x}",
            "[a]{1,5000}",
            "[é]{1,2}",
            ".{1,2}",
        ] {
            assert!(Charset::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn tokens_hold_nothing_that_could_be_signed_content() {
        for (pattern, is_token) in [
            ("[A-Za-z0-9_-]{1,128}", true),
            ("[0-9a-f]{8}-[0-9a-f]{4}", true),
            ("[A-Za-z0-9._-]{1,128}", false),
            ("[ -~]{1,128}", false),
            ("[0-9]{1,9}:", false),
        ] {
            assert_eq!(
                Charset::parse(pattern).unwrap().is_token(),
                is_token,
                "{pattern}"
            );
        }
    }
}
