//! The access event as a line for people, and what both formats do with text from outside.

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

/// RFC 3339, to the millisecond.
pub(super) fn moment(time: UnixTime) -> String {
    jiff::Timestamp::from_millisecond(time.millis())
        .map_or_else(|_beyond| time.to_string(), |time| format!("{time:.3}"))
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
