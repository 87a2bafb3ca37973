//! The access event as a line for people, and what both formats do with text from outside.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use super::log::AccessEvent;
use crate::units::UnixTime;

/// Longest text from outside that one field of a log takes.
pub(super) const FIELD_BYTES_MAX: usize = 256;

/// The beginning of `text`, at most [`FIELD_BYTES_MAX`] bytes, whole characters.
pub(super) fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(FIELD_BYTES_MAX);
    text.get(..end).unwrap_or_default()
}

/// Milliseconds with microsecond precision.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

thread_local! {
    /// The second that was written last: most events share theirs with the one before, and calendars are dear.
    static SECOND: RefCell<(UnixTime, String)> = const { RefCell::new((UnixTime::from_secs(0), String::new())) };
}

/// RFC 3339, to the millisecond.
pub(super) fn moment(time: UnixTime) -> String {
    let second = UnixTime::from_secs(time.secs());
    let mut text = String::with_capacity(24);
    SECOND.with_borrow_mut(|(last, written)| {
        if *last != second || written.is_empty() {
            *last = second;
            *written = second.to_string();
        }
        text.push_str(written.trim_end_matches('Z'));
    });
    let millis = u32::try_from(time.millis_since(second)).unwrap_or_default();
    text.push('.');
    text.extend([100, 10, 1].map(|place| char::from_digit(millis / place % 10, 10).unwrap_or('0')));
    text.push('Z');
    text
}

/// One event on one line, without the line's end.
pub(super) fn text(event: &AccessEvent<'_>) -> String {
    let mut line = String::with_capacity(384);
    line.push_str(&moment(event.timestamp));
    push_or_dash(&mut line, " ", event.status);
    push_text(&mut line, " ", Some(event.method));
    push_text(&mut line, " ", event.path);
    push_or_dash(&mut line, " ", Some(event.outcome.code()));
    push_or_dash(&mut line, " reason=", event.reason);
    push_text(&mut line, " route=", Some(event.route));
    push_text(&mut line, " provider=", event.provider);
    push_text(&mut line, " key_id=", event.key_id);
    push_text(&mut line, " event_id=", event.event_id);
    push_or_dash(&mut line, " upstream_status=", event.upstream_status);
    push_or_dash(&mut line, " client_ip=", event.client_ip);
    push_or_dash(&mut line, " bytes_in=", Some(event.bytes_in));
    push_or_dash(&mut line, " duration_ms=", Some(millis(event.duration)));
    push_text(&mut line, " request_id=", Some(event.request_id));
    line
}

/// A value of our own making.
fn push_or_dash(line: &mut String, label: &str, value: Option<impl Display>) {
    line.push_str(label);
    match value {
        Some(value) => line.push_str(&value.to_string()),
        None => line.push('-'),
    }
}

/// A value from outside: cut, and quoted with escapes unless it is plain graphic ASCII.
fn push_text(line: &mut String, label: &str, value: Option<&str>) {
    line.push_str(label);
    let Some(value) = value.map(cut) else {
        line.push('-');
        return;
    };
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    if !value.is_empty() && value != "-" && value.bytes().all(plain) {
        line.push_str(value);
    } else {
        line.push('"');
        line.extend(value.escape_debug());
        line.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_to_the_millisecond() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (7, "1970-01-01T00:00:00.007Z"),
            (1_790_000_000_120, "2026-09-21T14:13:20.120Z"),
            (1_790_000_000_999, "2026-09-21T14:13:20.999Z"),
            (1_790_000_001_000, "2026-09-21T14:13:21.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(moment(UnixTime::from_millis(millis)), text);
        }
    }
}
