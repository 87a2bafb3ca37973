"""Where Hookward lets more through than the strictest, and why that is right: a name of a case to a reason."""

SIZE = "the limits for heads are Hookward's own (`limits.header_bytes`), and bound the whole, not a part"

REASONS = {
    "fields: name b'X..5000'": SIZE,
    "fields: value b'a..9000'": SIZE,
}
