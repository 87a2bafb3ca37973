use std::sync::LazyLock;

use http::Method;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scheme::SenderUrl;
use crate::scheme::protocol::tests::{Case, cases};
use crate::scheme::public_key::PrivateKey;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:orders";

fn params(value: Value) -> Params {
    serde_json::from_value(value).unwrap()
}

fn scheme() -> AwsSns {
    AwsSns::from_params(&params(json!({ "topic_arns": [TOPIC] }))).unwrap()
}

fn key() -> Key {
    static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
        let size = rcgen::RsaKeySize::_2048;
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        PrivateKey::parse(&pair.serialize_der()).unwrap()
    });
    Key::private("rsa".into(), KEY.clone())
}

fn draft(body: &[u8]) -> Draft {
    Draft {
        method: Method::POST,
        url: SenderUrl {
            origin: "https://hooks.example.com".into(),
            target: "/sns".into(),
        },
        headers: Vec::new(),
        body: body.to_vec(),
    }
}

/// A signed message with these fields.
fn signed(fields: &Value) -> Draft {
    scheme()
        .sign(draft(fields.to_string().as_bytes()), &key(), NOW)
        .unwrap()
}

fn judge(draft: &Draft) -> Result<Verified, SignatureError> {
    let case = Case::of(draft);
    let verdict = scheme().verify(&case.message(), &[&key()], NOW, &mut Trace::off());
    verdict.map(|(_, verified)| verified)
}

fn with_field(draft: &Draft, name: &str, value: Value) -> Draft {
    let mut draft = draft.clone();
    let mut message: serde_json::Map<_, _> = serde_json::from_slice(&draft.body).unwrap();
    message.insert(name.to_owned(), value);
    draft.body = serde_json::to_vec(&message).unwrap();
    draft
}

fn confirmation(url: &str) -> Draft {
    signed(&json!({
        "Type": "SubscriptionConfirmation",
        "Token": "2336412f37",
        "Message": "You have chosen to subscribe.",
        "SubscribeURL": url,
    }))
}

#[test]
fn messages_signed_by_aws() {
    let vectors = include_str!("../../../tests/vectors/aws-sns.jsonl");
    let mut count = 0;
    for case in cases(vectors) {
        let scheme = AwsSns::from_params(&case.params).unwrap();
        let keys = case.public_keys();
        let keys: Vec<&Key> = keys.iter().collect();
        let verdict = scheme.verify(&case.message(), &keys, case.now, &mut Trace::off());
        assert_eq!(verdict.is_ok(), case.accepted, "{}: {verdict:?}", case.name);
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn what_is_signed_verifies() {
    let plain = scheme().sign(draft(b"an order"), &key(), NOW).unwrap();
    let verified = judge(&plain).unwrap();
    assert_eq!(verified.signed_at, Some(NOW));
    assert_eq!(verified.confirm, None);
    assert!(verified.event_id.is_some());
    for (name, value) in [
        ("Message", json!("another order")),
        ("Subject", json!("")),
        (
            "TopicArn",
            json!("arn:aws:sns:eu-central-1:123456789012:others"),
        ),
        ("MessageId", json!("00000000-0000-0000-0000-000000000000")),
        ("Timestamp", json!("2023-11-14T22:13:21Z")),
    ] {
        let mut changed = with_field(&plain, name, value);
        changed.headers.clear();
        let reason = judge(&changed).unwrap_err().reason;
        assert_eq!(reason, Reason::SignatureMismatch, "{name}");
    }
}

#[test]
fn a_message_has_one_reading() {
    let plain = signed(&json!({ "Type": "Notification", "Message": "m", "Subject": "s" }));
    assert!(judge(&plain).is_ok());
    let raw = |change: fn(&str) -> String| {
        let mut changed = plain.clone();
        changed.body = change(std::str::from_utf8(&plain.body).unwrap()).into_bytes();
        judge(&changed).map_err(|error| error.reason)
    };
    let malformed = Err(Reason::SignatureMalformed);
    assert!(raw(|body| body.replacen('{', "{ \"Unknown\": [{}],\n", 1)).is_ok());
    assert_eq!(
        raw(|body| body.replacen('{', "{\"Message\":\"m\",", 1)),
        malformed
    );
    assert_eq!(
        raw(|body| body.replacen('{', "{\"message\":\"x\",", 1)),
        malformed
    );
    assert_eq!(
        raw(|body| body.replacen('{', "{\"Subject\":null,", 1)),
        malformed
    );
    assert_eq!(raw(|body| format!("{body}{body}")), malformed);
    assert_eq!(raw(|body| format!("[{body}]")), malformed);
    assert_eq!(raw(|_| "an order".to_owned()), malformed);
    let moved = with_field(&plain, "Subject", json!("s\nTimestamp\n0"));
    assert_eq!(
        judge(&moved).unwrap_err().reason,
        Reason::SignatureMalformed
    );
}

#[test]
fn headers_agree_with_what_is_signed() {
    let plain = signed(&json!({ "Type": "Notification", "Message": "m" }));
    for name in [
        "x-amz-sns-message-type",
        "X-Amz-Sns-Message-Id",
        "x-amz-sns-topic-arn",
    ] {
        let mut changed = plain.clone();
        changed
            .headers
            .retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        assert!(judge(&changed).is_ok(), "{name}");
        changed
            .headers
            .push((name.to_owned(), "SubscriptionConfirmation".to_owned()));
        assert_eq!(
            judge(&changed).unwrap_err().reason,
            Reason::SignatureMalformed,
            "{name}"
        );
    }
    let mut bare = plain;
    bare.headers
        .push(("x-amz-sns-rawdelivery".to_owned(), "true".to_owned()));
    assert_eq!(judge(&bare).unwrap_err().reason, Reason::SignatureMissing);
}

#[test]
fn certificates_come_from_sns_only() {
    // SECURITY A-33
    let plain = signed(&json!({ "Type": "Notification", "Message": "m" }));
    let key_url = |url: &str| {
        let changed = with_field(&plain, "SigningCertURL", json!(url));
        scheme()
            .key_url(&Case::of(&changed).message())
            .map(|wanted| wanted.url.to_string())
    };
    let path = "SimpleNotificationService-60eadc530605d63b8e62a523676ef735.pem";
    let good = format!("https://sns.eu-central-1.amazonaws.com/{path}");
    assert_eq!(key_url(&good).as_ref(), Ok(&good));
    for bad in [
        format!("http://sns.eu-central-1.amazonaws.com/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com@evil.example/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com.evil.example/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com:8443/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com:443/{path}"),
        format!("https://sns.eu-central-1.s3.amazonaws.com/{path}"),
        format!("https://s3.eu-central-1.amazonaws.com/sns/{path}"),
        format!("https://sns.us-east-1.amazonaws.com/{path}"),
        format!("https://sns.amazonaws.com/{path}"),
        format!("https://evil-sns.eu-central-1.amazonaws.com/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com.cn.evil.example/{path}"),
        format!("https://sns.eu-central-1.amazonaws.com/{path}?x=y"),
        format!("https://sns.eu-central-1.amazonaws.com/{path}#x"),
        format!("https://sns.eu-central-1.amazonaws.com/?Action=x&y={path}"),
        format!("https://sns.eu-central-1.amazonaws.com/x/../{path}"),
        "https://sns.eu-central-1.amazonaws.com/x.pem".to_owned(),
    ] {
        assert!(key_url(&bad).is_err(), "{bad}");
    }
    // What is pinned is not fetched, but the message still has to be one of SNS.
    let foreign = with_field(
        &plain,
        "SigningCertURL",
        json!("https://evil.example/x.pem"),
    );
    assert_eq!(
        judge(&foreign).unwrap_err().reason,
        Reason::SignatureMalformed
    );
}

#[test]
fn china_has_a_domain_of_its_own() {
    let topic = "arn:aws-cn:sns:cn-north-1:123456789012:orders";
    let scheme = AwsSns::from_params(&params(json!({ "topic_arns": [topic] }))).unwrap();
    let url = "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0.pem";
    let body = json!({ "Type": "Notification", "Message": "m", "SigningCertURL": url });
    let signed = scheme
        .sign(draft(body.to_string().as_bytes()), &key(), NOW)
        .unwrap();
    let wanted = scheme.key_url(&Case::of(&signed).message()).unwrap();
    assert_eq!(wanted.url.to_string(), url);
    assert_eq!(wanted.certificate_names.len(), 2);
}

#[test]
fn a_subscription_is_confirmed_at_sns_only() {
    // SECURITY A-34
    let host = "https://sns.eu-central-1.amazonaws.com";
    let query = format!("Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37");
    let good = format!("{host}/?{query}");
    let confirm = judge(&confirmation(&good)).unwrap().confirm;
    assert_eq!(confirm.map(|url| url.to_string()), Some(good));
    for bad in [
        format!("https://evil.example/?{query}"),
        format!("https://sns.us-east-1.amazonaws.com/?{query}"),
        format!("https://sns.eu-central-1.amazonaws.com:444/?{query}"),
        format!("{host}/x?{query}"),
        format!("{host}/?{query}1"),
        format!("{host}/?{query}&Action=DeleteTopic"),
        format!("{host}/?{}", query.replace("Confirm", "Delete")),
        format!("{host}/?{}", query.replace("orders", "others")),
        format!("http://sns.eu-central-1.amazonaws.com/?{query}"),
        "http://127.0.0.1/".to_owned(),
    ] {
        let reason = judge(&confirmation(&bad)).unwrap_err().reason;
        assert_eq!(reason, Reason::HandshakeInvalid, "{bad}");
    }
}

#[test]
fn a_message_unsubscribes_nothing_by_itself() {
    let message = signed(&json!({
        "Type": "UnsubscribeConfirmation",
        "Token": "2336412f37",
        "Message": "You have chosen to deactivate the subscription.",
        "SubscribeURL": format!(
            "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
        ),
    }));
    assert_eq!(judge(&message).unwrap().confirm, None);
}

#[test]
fn retries_are_one_delivery() {
    let plain = signed(&json!({ "Type": "Notification", "Message": "m", "MessageId": "a" }));
    let other = signed(&json!({ "Type": "Notification", "Message": "m", "MessageId": "b" }));
    let content = |draft: &Draft| scheme().delivery(&Case::of(draft).message()).unwrap();
    let mut unsigned = with_field(&plain, "MessageAttributes", json!({}));
    unsigned.headers.clear();
    assert_eq!(content(&plain), content(&unsigned));
    assert_ne!(content(&plain), content(&other));
}

#[test]
fn age_is_judged_last_and_to_the_millisecond() {
    let at = |timestamp: &str| {
        let message = json!({ "Type": "Notification", "Message": "m", "Timestamp": timestamp });
        judge(&signed(&message)).map_err(|error| error.reason)
    };
    assert!(at("2023-11-14T21:13:20.000Z").is_ok());
    assert_eq!(
        at("2023-11-14T21:13:19.999Z").unwrap_err(),
        Reason::TimestampStale
    );
    assert!(at("2023-11-14T22:18:20Z").is_ok());
    assert_eq!(
        at("2023-11-14T22:18:20.001Z").unwrap_err(),
        Reason::TimestampAhead
    );
    assert_eq!(at("yesterday").unwrap_err(), Reason::TimestampMalformed);
}

#[test]
fn what_is_passed_over_is_utf8_as_well() {
    let mut draft = signed(&json!({ "Message": "m", "Ours": "x-ours" }));
    assert!(judge(&draft).is_ok());
    let at = draft.body.windows(6).position(|own| own == b"x-ours");
    draft.body[at.unwrap()] = 0xff;
    assert!(judge(&draft).is_err());
}

#[test]
fn params_are_checked_all_at_once() {
    let problems = |value| AwsSns::from_params(&params(value)).unwrap_err().len();
    assert_eq!(problems(json!({})), 1);
    let all = json!({ "topic_arns": "x", "max_age_s": -1, "allow_signature_version_1": 1 });
    assert_eq!(problems(all), 3);
    for topics in [
        json!([]),
        json!(["orders"]),
        json!(["arn:aws:sqs:eu-central-1:1:x"]),
        json!([1]),
    ] {
        assert_eq!(problems(json!({ "topic_arns": topics })), 1);
    }
    let written = json!({
        "topic_arns": [TOPIC], "max_age_s": "60", "allow_signature_version_1": "true",
    });
    let scheme = AwsSns::from_params(&params(written)).unwrap();
    assert_eq!(scheme.tolerance.past, Duration::from_mins(1));
    assert!(scheme.allows_sha1);
}

proptest! {
    #[test]
    fn judging_is_total(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[ -~]{0,80}") {
        prop_assert!(judge(&draft(&body)).is_err());
        prop_assert!(judge(&draft(text.as_bytes())).is_err());
        prop_assert!(region_of(&text).is_none());
        prop_assert!(!is_certificate_path(&text));
    }
}
