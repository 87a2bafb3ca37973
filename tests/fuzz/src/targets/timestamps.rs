//! Timestamps in every unit.

use data_encoding::HEXLOWER;
use hookward::reason::Reason;
use hookward::scheme::keys::KeySet;
use hookward::scheme::{Content, Message, Scheme, SenderUrl};
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderValue, Method};

use super::support::{Once, SECRET, hmac_sha256, own, own_scheme};

const UNITS: [&str; 5] = ["s", "ms", "us", "ns", "rfc3339"];

fn schemes() -> &'static Vec<(Scheme, KeySet)> {
    static SCHEMES: Once<Vec<(Scheme, KeySet)>> = Once::new();
    SCHEMES.get_or_init(|| {
        let scheme = |unit: &str| {
            let text = format!(
                "  s:\n    algorithm: hmac-sha256\n    signature: {{ header: X-Sig }}\n    timestamp: {{ header: X-Time, unit: {unit}, tolerance: 5m }}\n    signed: \"{{timestamp}}.{{body}}\""
            );
            own_scheme(&own(&text), "s").unwrap()
        };
        UNITS.map(scheme).into()
    })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let now: i64 = 1_767_225_600_000;
    let mut seeds = Vec::new();
    for (unit, text) in [
        (0, "1767225600"),
        (0, "01767225900"),
        (0, "9223372036854775807"),
        (1, "1767225300000"),
        (2, "1767225600000000"),
        (3, "1767225600000000000"),
        (4, "2026-01-01T00:00:00Z"),
        (4, "2026-01-01T00:04:59.999+00:00"),
        (4, "2025-12-31T23:59:60-11:30"),
    ] {
        for now in [now, now + 300_999, i64::MIN, i64::MAX, 0] {
            let mut seed = vec![unit];
            seed.extend(now.to_le_bytes());
            seed.extend(text.as_bytes());
            seeds.push(seed);
        }
    }
    seeds
}

/// SECURITY Z-07: total, and monotone in `now`.
pub(crate) fn run(data: &[u8]) {
    let Some(([unit, now @ ..], text)) = data.split_first_chunk::<9>() else {
        return;
    };
    let now = i64::from_le_bytes(*now);
    let Ok(value) = HeaderValue::from_bytes(text) else {
        return;
    };
    let unit = usize::from(*unit) % UNITS.len();
    let (scheme, keys) = &schemes()[unit];
    let tag = hmac_sha256(SECRET.as_bytes(), &[text, b".{}"].concat());
    let mut headers = HeaderMap::new();
    headers.insert("x-time", value);
    headers.insert("x-sig", HEXLOWER.encode(&tag).parse().unwrap());
    let url = SenderUrl {
        origin: "https://h.example".into(),
        target: "/".into(),
    };
    let body = Content::from(b"{}".to_vec());
    let message = Message {
        method: &Method::POST,
        url: &url,
        headers: &headers,
        body: &body,
    };
    let judge = |millis: i64| {
        let verdict = scheme.verify(&message, keys, UnixTime::from_millis(millis));
        verdict
            .map(|evidence| evidence.signed_at.unwrap())
            .map_err(|error| error.reason)
    };

    let verdict = judge(now);
    is_monotone(judge, now, verdict);
    if unit < 4 {
        is_a_number(text, unit, verdict);
    }
}

type Verdict = Result<UnixTime, Reason>;

fn is_monotone(judge: impl Fn(i64) -> Verdict, now: i64, verdict: Verdict) {
    for step in [1, 999, 1_000, 300_000, 301_000, i64::MAX / 2] {
        let earlier = judge(now.saturating_sub(step));
        let later = judge(now.saturating_add(step));
        match verdict {
            Err(Reason::TimestampStale) => assert_eq!(later, Err(Reason::TimestampStale)),
            Err(Reason::TimestampAhead) => assert_eq!(earlier, Err(Reason::TimestampAhead)),
            // Nothing but the time was ever wrong.
            Err(other) => assert_eq!((earlier, later), (Err(other), Err(other))),
            Ok(_) => {
                let was_stale = matches!(earlier, Err(Reason::TimestampStale));
                assert!(!was_stale, "stale before it was good");
                let is_ahead = matches!(later, Err(Reason::TimestampAhead));
                assert!(!is_ahead, "ahead after it was good");
            }
        }
    }
    if let Ok(signed_at) = verdict {
        let distance = i128::from(now) - i128::from(signed_at.millis());
        assert!(distance.abs() <= 301_000, "accepted {distance} ms away");
    }
}

/// Seconds to nanoseconds are digits and nothing else.
fn is_a_number(text: &[u8], unit: usize, verdict: Verdict) {
    let digits = !text.is_empty() && text.len() <= 19 && text.iter().all(u8::is_ascii_digit);
    match verdict {
        Err(Reason::TimestampMalformed | Reason::TimestampMissing) => {}
        Err(_) => assert!(digits, "not digits, but a time"),
        Ok(signed_at) => {
            assert!(digits, "not digits, but a time");
            let number: i128 = std::str::from_utf8(text).unwrap().parse().unwrap();
            let millis = match unit {
                0 => number * 1_000,
                1 => number,
                2 => number / 1_000,
                _ => number / 1_000_000,
            };
            assert_eq!(i128::from(signed_at.millis()), millis, "another time");
        }
    }
}
