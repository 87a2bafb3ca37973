//! What holds for every scheme and every request.

use std::time::Duration;

use hookward::reason::Reason;
use hookward::scheme::trace::Trace;
use hookward::scheme::{Content, Evidence, KeyKind, Message, SignatureError};
use hookward::units::UnixTime;

use super::support::{Input, Judge};

type Verdict = Result<Evidence, SignatureError>;

/// Judges a request and everything around it; hands the verdict on.
pub(super) fn hold(judge: &Judge, input: &Input) -> Verdict {
    let Judge {
        scheme, keys, now, ..
    } = judge;
    let body = input.content();
    let message = input.message(&body);
    let verdict = scheme.verify(&message, keys, *now);

    // What the head alone refuses, the whole request does not pass.
    if let Err(error) = scheme.precheck(message.method, message.url, message.headers) {
        assert!(verdict.is_err(), "precheck says {error}, verify accepts");
    }
    same("the trace changes the verdict", &verdict, &{
        scheme.verify_traced(&message, keys, *now, &mut Trace::on())
    });
    frames_do_not_matter(judge, input, &verdict);
    time_is_an_interval(judge, &message, &verdict);

    let Ok(evidence) = &verdict else {
        return verdict;
    };
    // The same for the same request.
    let delivery = scheme.delivery(&message, evidence);
    assert_eq!(delivery, scheme.delivery(&message, evidence));
    if let Some(id) = &evidence.event_id {
        assert!(id.len() <= 256, "an event id of {} bytes", id.len());
    }
    if scheme.is_signed() {
        assert!(
            delivery.is_some(),
            "an accepted request without an identity"
        );
    }
    if let Some(foreign) = &judge.foreign {
        assert!(
            scheme.verify(&message, foreign, *now).is_err(),
            "proved by a key that signed nothing"
        );
    }
    if scheme.key_kind() != KeyKind::None && scheme.covers_body() {
        let mut longer = input.body.clone();
        longer.push(b'x');
        let longer = Content::from(longer);
        assert!(
            scheme.verify(&input.message(&longer), keys, *now).is_err(),
            "{}: a byte was added to a signed body",
            judge.preset
        );
    }
    verdict
}

/// Equal, where the detail of a refusal counts too.
fn same(what: &str, one: &Verdict, other: &Verdict) {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.key_id, other.key_id, "{what}");
            assert_eq!(one.event_id, other.event_id, "{what}");
            assert_eq!(one.signed_at, other.signed_at, "{what}");
        }
        (Err(one), Err(other)) => assert_eq!(one, other, "{what}"),
        (one, other) => panic!("{what}: {one:?} and {other:?}"),
    }
}

/// SECURITY Z-09: however a body was cut into frames, the verdict is the same.
fn frames_do_not_matter(judge: &Judge, input: &Input, verdict: &Verdict) {
    let Judge {
        scheme, keys, now, ..
    } = judge;
    for size in [1, 7] {
        let frames = input
            .body
            .chunks(size)
            .take(2048)
            .map(|frame| frame.to_vec().into());
        let mut frames: Vec<bytes::Bytes> = frames.collect();
        let done: usize = frames.iter().map(bytes::Bytes::len).sum();
        frames.push(input.body[done..].to_vec().into());
        let body = Content::new(frames);
        let message = input.message(&body);
        let cut = scheme.verify(&message, keys, *now);
        same("frames change the verdict", verdict, &cut);
        let whole = input.content();
        if let (Ok(cut), Ok(evidence)) = (&cut, verdict) {
            assert_eq!(
                scheme.delivery(&message, cut),
                scheme.delivery(&input.message(&whole), evidence),
                "frames change the identity"
            );
        }
    }
}

/// SECURITY Z-07: once too old, always too old; too early, and earlier still no better.
fn time_is_an_interval(judge: &Judge, message: &Message<'_>, verdict: &Verdict) {
    let Judge {
        scheme, keys, now, ..
    } = judge;
    let at = |by: Duration, ahead: bool| {
        let by = i64::try_from(by.as_millis()).unwrap();
        let by = if ahead { by } else { -by };
        let then = UnixTime::from_millis(now.millis().saturating_add(by));
        scheme.verify(message, keys, then)
    };
    let reason = |verdict: &Verdict| verdict.as_ref().err().map(|error| error.reason);
    let far = [
        Duration::from_secs(301),
        Duration::from_hours(24 * 365 * 50),
    ];
    for by in far {
        match reason(verdict) {
            Some(Reason::TimestampStale) => {
                assert!(at(by, true).is_err(), "stale, and later no more");
            }
            Some(Reason::TimestampAhead) => {
                assert!(at(by, false).is_err(), "ahead, and earlier no more");
            }
            Some(_) | None => {}
        }
    }
    let signed_at = verdict
        .as_ref()
        .ok()
        .and_then(|evidence| evidence.signed_at);
    if let (Some(tolerance), Some(_)) = (scheme.signed_tolerance(), signed_at)
        && tolerance.past < Duration::from_hours(24 * 365)
    {
        assert!(
            at(Duration::from_hours(24 * 365 * 50), true).is_err(),
            "accepted fifty years late"
        );
    }
}
