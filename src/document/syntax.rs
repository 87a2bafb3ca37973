//! What to do about a syntax error of YAML, by what the parser says of it.

use crate::problem::Mark;

const INDENT: &str = "keys of one mapping begin in the same column, and so do the `-` of one list: compare this line with \
                      those above it";
const TAB: &str = "indent with blanks instead of tabs";
const QUOTE: &str = "close the quote; within `\"…\"` a backslash begins an escape, within `'…'` it does not, and `''` is a `'`";
const KEY: &str = "here or in the line above: write `key: value`, with a blank after the colon, and quotes around a value \
                   that holds `: `; indent it as its neighbours, with a blank after `-`";
const PLAIN: &str = "put a value into quotes that begins with one of `*&!%@|>[{` or a backtick, or that holds `: ` or ` #`";

const QUOTED: &str = "the quoted text ends before this: quote all of the value, and within `'…'` write `''` for a `'`";
const ANCHOR: &str = "`*NAME` stands for what `&NAME` marked before it: define that one, or quote a text that begins with `*`";
const BRACKET: &str = "remove it, or open it before";

/// Words of the parser, and what helps. The first that occur count.
const HINTS: [(&str, &str); 16] = [
    ("unknown anchor", ANCHOR),
    ("tab", TAB),
    ("trailing content", QUOTED),
    ("misplaced bracket", BRACKET),
    ("document start", INDENT),
    ("expected comment or line break", PLAIN),
    ("quoted scalar", QUOTE),
    ("block collection", INDENT),
    ("block mapping", INDENT),
    ("block scalar", INDENT),
    ("block sequence entries", INDENT),
    ("invalid indentation", INDENT),
    ("simple key", KEY),
    ("mapping values", KEY),
    ("mapping keys", KEY),
    ("':'", KEY),
];

/// A bracket, and where it stands.
pub(super) type Bracket = (char, Mark);

/// The innermost bracket among the beginnings of what is open, from the inside.
pub(super) fn bracket(text: &str, mut begun: impl Iterator<Item = Mark>) -> Option<Bracket> {
    let bracket = |mark: Mark| {
        let line = text.lines().nth(mark.line.checked_sub(1)?)?;
        let first = line.chars().nth(mark.column.checked_sub(1)?)?;
        matches!(first, '[' | '{').then_some((first, mark))
    };
    begun.find_map(bracket)
}

/// What helps against an error that the parser describes like this, within a bracket that is not closed yet.
pub(super) fn hint(told: &str, within: Option<Bracket>) -> String {
    let known = HINTS.iter().find(|(words, _)| told.contains(words));
    match (within, known) {
        (_, Some((_, hint @ (TAB | QUOTE | ANCHOR)))) | (None, Some((_, hint))) => {
            (*hint).to_owned()
        }
        (Some((bracket, Mark { line, column })), _) => {
            let end = if bracket == '[' { ']' } else { '}' };
            format!(
                "close the `{bracket}` of line {line}, column {column} with a `{end}`, put a comma between any two items, and \
                 quotes around a value that holds one of `,[]{{}}` or `: `"
            )
        }
        (None, None) => PLAIN.to_owned(),
    }
}
