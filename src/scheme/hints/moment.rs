//! Times: a right signature at the wrong moment.

use super::{Hint, Trial};
use crate::units::{Span, UnixTime};

/// Most numbers of a request that are tried as its timestamp.
const CANDIDATES_MAX: usize = 64;
/// Largest part of a body that is looked through.
const BODY_BYTES_MAX: usize = 64 * 1024;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Says how the timestamp and the moment of judging differ.
pub(super) fn explain(trial: &Trial<'_>) -> Option<Hint> {
    let case = trial.case;
    let verify = |now| case.scheme.verify(&case.message, &trial.keys, now).ok();
    if verify(case.now).is_some() {
        return None;
    }
    // The engine itself says which number is the timestamp: it accepts the request at that moment.
    let signed_at = candidates(trial)
        .into_iter()
        .find_map(|moment| verify(moment)?.signed_at)?;
    let now = case.now;
    let as_millis = UnixTime::from_millis(signed_at.secs());
    let as_secs = UnixTime::from_secs(signed_at.millis());
    let message = if is_near(as_millis, now) {
        "the timestamp is in milliseconds, where the scheme has seconds".to_owned()
    } else if is_near(as_secs, now) {
        "the timestamp is in seconds, where the scheme has milliseconds".to_owned()
    } else {
        return Some(clock(signed_at, now));
    };
    Some(Hint::new("timestamp_unit", message))
}

fn clock(signed_at: UnixTime, now: UnixTime) -> Hint {
    let apart = now.millis_since(signed_at);
    let side = if apart < 0 { "after" } else { "before" };
    let apart = apart.unsigned_abs();
    let rounded = std::time::Duration::from_secs(apart / 1_000);
    let facts = format!(
        "the signature is right; its timestamp is {signed_at}, {} {side} {now}",
        Span(rounded)
    );
    // Zones differ by multiples of a quarter of an hour, by up to fourteen hours.
    let off_zone = apart % (15 * MINUTE_MS);
    let is_zone = (15 * MINUTE_MS..=14 * 60 * MINUTE_MS).contains(&apart)
        && (off_zone <= MINUTE_MS || off_zone >= 14 * MINUTE_MS);
    if is_zone {
        let message = format!("{facts}: a clock set to local time instead of UTC would explain it");
        return Hint::new("timestamp_zone", message);
    }
    let advice = if side == "before" {
        "the capture is old (judge it at its own time with `--now`), or a clock is wrong"
    } else {
        "the sender's clock is ahead, or this one is behind"
    };
    Hint::new("timestamp_off", format!("{facts}: {advice}"))
}

fn is_near(moment: UnixTime, now: UnixTime) -> bool {
    now.millis_since(moment).unsigned_abs() <= DAY_MS
}

/// Moments that the request names: numbers in headers, target and body, and dates in headers.
fn candidates(trial: &Trial<'_>) -> Vec<UnixTime> {
    let message = &trial.case.message;
    let body = message.body.contiguous();
    let head = body.get(..BODY_BYTES_MAX).unwrap_or(&body);
    let body = String::from_utf8_lossy(head).into_owned();
    let mut moments = Vec::new();
    let fields = message
        .headers
        .values()
        .filter_map(|value| value.to_str().ok());
    for text in fields.chain([&*message.url.target, body.as_str()]) {
        moments.extend(UnixTime::from_rfc3339(text.trim()));
        for run in digit_runs(text) {
            if let (9..=19, Ok(number)) = (run.len(), run.parse::<i64>()) {
                moments.push(UnixTime::from_secs(number));
                moments.push(UnixTime::from_millis(number));
            }
        }
    }
    moments.truncate(CANDIDATES_MAX);
    moments
}

/// The runs of digits in a text.
pub(super) fn digit_runs(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|run| !run.is_empty())
        .collect()
}
