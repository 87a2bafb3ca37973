use data_encoding::BASE64;

use super::*;
use crate::scheme::catalog::Catalog;
use crate::scheme::public_key::PrivateKey;
use crate::scheme::sign::Draft;
use crate::scheme::{Content, Params, SenderUrl};
use crate::secret::Secret;

/// The items of a body that are judged by themselves, as JSON.
fn judged(scheme: &Scheme, body: &str) -> Vec<String> {
    let url = SenderUrl {
        origin: "https://localhost".into(),
        target: "/".into(),
    };
    let message = Message {
        method: &Method::POST,
        url: &url,
        headers: &HeaderMap::new(),
        body: &Content::from(body.as_bytes().to_vec()),
    };
    let json = |view: &View<'_>| String::from_utf8(view.json.unwrap().to_vec()).unwrap();
    let items = scheme.with_views(&message, |views| Ok(views.iter().map(json).collect()));
    items.unwrap()
}

#[test]
fn items_that_are_alike_are_verified_once() {
    // SECURITY DS-30
    let adyen = Catalog::built_in().find("adyen/standard").unwrap();
    let scheme = adyen.bind(&Params::default(), None).unwrap();
    let (one, other) = (
        r#"{"NotificationRequestItem":1}"#,
        r#"{"NotificationRequestItem":2}"#,
    );
    let items = [one, one, other, one, other].join(", ");
    let body = format!(r#"{{"notificationItems":[{items}]}}"#);
    assert_eq!(judged(&scheme, &body), ["1", "2"]);
}

#[test]
fn few_signatures_by_key_pairs_are_looked_at() {
    // SECURITY DS-29
    let url = SenderUrl {
        origin: "https://localhost".into(),
        target: "/".into(),
    };
    let offered = |version: &str, count: usize, bytes: usize| {
        let preset = format!("standard-webhooks/{version}");
        let selected = Catalog::built_in().find(&preset).unwrap();
        let scheme = selected.bind(&Params::default(), None).unwrap();
        let one = format!("{version},{}", BASE64.encode(&vec![0; bytes]));
        let mut headers = HeaderMap::new();
        let fields = [
            ("webhook-signature", vec![one; count].join(" ")),
            ("webhook-timestamp", "1700000000".to_owned()),
        ];
        for (name, value) in fields {
            headers.insert(name, value.parse().unwrap());
        }
        scheme.precheck(&Method::POST, &url, &headers).is_ok()
    };
    assert!(offered("v1a", 4, 64) && !offered("v1a", 5, 64));
    assert!(offered("v1", 16, 32) && !offered("v1", 17, 32));
}

fn graph() -> Scheme {
    let graph = Catalog::built_in().find("microsoft-graph-rich").unwrap();
    let ours = ["audience", "tenant"].map(|name| (name.to_owned(), "x".into()));
    graph.bind(&Params::from(ours), None).unwrap()
}

#[test]
fn what_is_asked_of_a_whole_body_is_judged_once() {
    let scheme = graph();
    let size = rcgen::RsaKeySize::_2048;
    let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    let key = PrivateKey::parse(&pair.serialize_der()).unwrap();
    let key = Key::private("rsa".into(), key);
    let url = SenderUrl {
        origin: "https://localhost".into(),
        target: "/".into(),
    };
    let token = |secs: i64| {
        let draft = Draft {
            method: Method::POST,
            url: url.clone(),
            headers: Vec::new(),
            body: br#"{"validationTokens":[""]}"#.to_vec(),
        };
        let signed = scheme.sign(draft, &key, UnixTime::from_secs(secs)).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&signed.body).unwrap();
        body["validationTokens"][0].clone()
    };
    let tokens = [token(1_700_000_000), token(1_700_000_001)];
    assert_ne!(tokens[0], tokens[1]);
    let state = Key::secret("state".into(), Secret::new(b"s".to_vec()), None);
    let keys = KeySet::new(vec![key.clone(), state]).unwrap();
    for (state, holds) in [("s", true), ("t", false)] {
        let value = [serde_json::json!({ "clientState": state })];
        let body = serde_json::json!({ "validationTokens": tokens, "value": value });
        let body = Content::from(body.to_string().into_bytes());
        let message = Message {
            method: &Method::POST,
            url: &url,
            headers: &HeaderMap::new(),
            body: &body,
        };
        let mut trace = Trace::on();
        let now = UnixTime::from_secs(1_700_000_001);
        let verdict = scheme.verify_traced(&message, &keys, now, &mut trace);
        assert_eq!(verdict.is_ok(), holds, "{verdict:?}");
        let steps = trace.into_steps();
        assert_eq!(steps.iter().filter(|own| own.step == "require").count(), 1);
    }
}

#[test]
fn tokens_that_are_alike_are_verified_once() {
    let scheme = graph();
    let items = r#""a.b.c", "a.\u0062.c", " a.b.c\n", "a.b.d", 1, "1""#;
    let body = format!(r#"{{"validationTokens":[{items}]}}"#);
    assert_eq!(judged(&scheme, &body).len(), 4);
}
