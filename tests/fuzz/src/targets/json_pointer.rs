//! JSON pointers into bodies: `event_id`, and `each` over items that are signed by themselves.

use std::collections::HashSet;
use std::fmt;

use data_encoding::HEXLOWER;
use hookward::scheme::keys::KeySet;
use hookward::scheme::{Params, Scheme};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::laws;
use super::support::{Bench, Input, NOW, Once, SECRET, hmac_sha256, line, own, own_scheme};

const PRESETS: &[&str] = &[
    "adyen",
    "microsoft-graph",
    "microsoft-graph-rich",
    "midtrans",
    "checkbook",
    "binance-pay",
    "mailgun",
    "worldline",
    "stripe",
];

const ITEMS: &str = r#"
  items:
    algorithm: hmac-sha256
    each: /items/*
    signature: { json: /sig }
    signed: "{json:/id}"
"#;

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(PRESETS))
}

fn items() -> &'static (Scheme, KeySet) {
    static SCHEME: Once<(Scheme, KeySet)> = Once::new();
    SCHEME.get_or_init(|| own_scheme(&own(ITEMS), "items").unwrap())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = bench().seeds();
    let pointed = [
        ("/id", r#"{"id":"evt_1"}"#),
        ("/a/0/b", r#"{"a":[{"b":12.50}],"id":null}"#),
        ("/a~1b/~0", r#"{"a/b":{"~":true}}"#),
        ("", r#""text""#),
        ("/id", r#"{"id":"1","id":"2"}"#),
        ("/id", r#"{"\u0069d":"\ud83d\ude00"}"#),
        ("/a/01", r#"{"a":["x","y"]}"#),
        ("/a/b", r#"{"a":{"b":"1"},"a":{"b":"2"}}"#),
    ];
    for (pointer, body) in pointed {
        seeds.push(
            [
                &u16::MAX.to_le_bytes()[..],
                b"p\n",
                pointer.as_bytes(),
                b"\n",
                body.as_bytes(),
            ]
            .concat(),
        );
    }
    let tag = |id: &str| HEXLOWER.encode(&hmac_sha256(SECRET.as_bytes(), id.as_bytes()));
    let item = |id: &str| format!(r#"{{"id":"{id}","sig":"{}"}}"#, tag(id));
    for body in [
        format!(r#"{{"items":[{},{}]}}"#, item("a"), item("b")),
        format!(r#"{{"items":[{}],"items":[]}}"#, item("a")),
        r#"{"items":[]}"#.to_owned(),
        format!(r#"{{"items":[{},{{"id":"x"}}]}}"#, item("a")),
    ] {
        seeds.push([&u16::MAX.to_le_bytes()[..], b"e\n", body.as_bytes()].concat());
    }
    seeds
}

pub(crate) fn run(data: &[u8]) {
    if let Some(rest) = data.strip_prefix(&u16::MAX.to_le_bytes()) {
        let (kind, rest) = line(rest);
        return match kind {
            b"p" => pointed(rest),
            b"e" => each(rest),
            _ => {}
        };
    }
    let Some((judge, request)) = bench().split(data) else {
        return;
    };
    if let Some(input) = Input::parse(request) {
        let _verdict = laws::hold(judge, &input);
    }
}

/// The pointed-to text is what another JSON reader finds, and a repeated name on the way is none.
fn pointed(rest: &[u8]) {
    let (pointer, body) = line(rest);
    let Ok(pointer) = std::str::from_utf8(pointer) else {
        return;
    };
    let quoted = serde_json::to_string(pointer).unwrap();
    let text = format!(
        "  id:\n    algorithm: hmac-sha256\n    signature: {{ header: X-Sig }}\n    signed: \"{{body}}\"\n    event_id: {{ json: {quoted} }}"
    );
    let mut catalog = hookward::scheme::catalog::Catalog::built_in();
    if catalog
        .add("own.yaml", &super::support::preset(&text))
        .is_err()
    {
        return;
    }
    let Ok(scheme) = catalog.find("own").unwrap().bind(&Params::new(), None) else {
        return;
    };
    let key = scheme
        .secret_key("own".into(), SECRET.as_bytes(), None)
        .unwrap();
    let keys = KeySet::new(vec![key]).unwrap();
    let tag = HEXLOWER.encode(&hmac_sha256(SECRET.as_bytes(), body));
    let head = format!("POST / HTTP/1.1\nX-Sig: {tag}\n\n");
    let input = Input::parse(&[head.as_bytes(), body].concat()).unwrap();
    let content = input.content();
    let found = scheme
        .verify(&input.message(&content), &keys, NOW)
        .unwrap()
        .event_id;
    let document = serde_json::from_slice::<Value>(body).ok();
    let wanted = document
        .as_ref()
        .and_then(|document| match document.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        // An empty id would make one delivery of all that have one.
        .filter(|text| !text.is_empty());
    let is_number =
        document.and_then(|own| own.pointer(pointer).map(Value::is_number)) == Some(true);
    match (found, wanted) {
        // Numbers stand as they were written: `1.0` and `1e0` are left to their writers.
        (Some(found), Some(_)) if is_number => drop(found.parse::<f64>().unwrap()),
        (Some(found), Some(wanted)) => assert!(wanted.starts_with(&*found), "{found} for {wanted}"),
        (None, Some(_)) => {
            let unambiguous = serde_json::from_slice::<Unambiguous>(body);
            assert!(
                unambiguous.is_err(),
                "a value that stands once is not found"
            );
        }
        // Escapes of no character, in what was passed over, make it no document to the other reader.
        (Some(_), None) if serde_json::from_slice::<Value>(body).is_err() => {
            assert!(
                std::str::from_utf8(body).is_ok(),
                "found in what is not JSON"
            );
        }
        (Some(found), None) => panic!("{found} is nowhere"),
        (None, None) => {}
    }
}

/// Every item verifies by itself, and there is one at least.
fn each(body: &[u8]) {
    let input = Input::parse(&[b"POST / HTTP/1.1\n\n", body].concat()).unwrap();
    let (scheme, keys) = items();
    let content = input.content();
    if scheme.verify(&input.message(&content), keys, NOW).is_err() {
        return;
    }
    let document: Value = serde_json::from_slice(body).unwrap();
    let list = document["items"].as_array().unwrap();
    assert!(!list.is_empty(), "accepted without an item");
    for item in list {
        let id = match &item["id"] {
            Value::String(id) => id.clone(),
            id => id.to_string(),
        };
        let own = item["sig"].as_str().unwrap();
        let tag = HEXLOWER.encode(&hmac_sha256(SECRET.as_bytes(), id.as_bytes()));
        assert!(
            own.eq_ignore_ascii_case(&tag) || item["id"].is_number(),
            "an item is not signed"
        );
    }
}

/// JSON in which every name stands once.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Self)
    }
}

macro_rules! fine {
    ($($visit:ident $ty:ty;)+) => {
        $(fn $visit<E>(self, _: $ty) -> Result<Self, E> { Ok(self) })+
    };
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fine! { visit_bool bool; visit_i64 i64; visit_u64 u64; visit_f64 f64; visit_str &str; }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = members.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(serde::de::Error::custom("a repeated name"));
            }
        }
        Ok(self)
    }
}
