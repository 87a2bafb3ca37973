//! The field that holds the signature: lists, prefixes, encodings, several of them.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, HEXLOWER};
use hookward::scheme::Scheme;
use hookward::scheme::keys::KeySet;
use hookward::scheme::sign::Draft;
use hookward::scheme::{KeyKind, SenderUrl};

use super::laws;
use super::support::{Bench, Input, NOW, Once, SECRET, hmac_sha256, own, own_scheme};

/// One of each layout.
const PRESETS: &[&str] = &[
    "bigcommerce",
    "buildkite",
    "calendly",
    "circleci",
    "discord",
    "github",
    "gitlab",
    "hubspot-v3",
    "mercado-pago",
    "mux",
    "omise",
    "paddle",
    "pagerduty",
    "payu",
    "persona",
    "plivo-v3",
    "render",
    "sanity",
    "sendgrid",
    "shopify",
    "slack",
    "standard-webhooks",
    "stripe",
    "stytch",
    "svix",
    "telnyx",
    "websub",
    "workos",
    "zoom",
];

/// Most signatures that one request may offer.
const CANDIDATES_MAX: usize = 16;

const OWN: &str = r#"
  list:
    algorithm: hmac-sha256
    signature: { header: X-Sig, list: { separator: ",", assign: "=", take: v1 } }
    timestamp: { item: t }
    signed: "{timestamp}.{body}"
  spaced:
    algorithm: hmac-sha256
    signature: { header: X-Sig, encoding: base64, list: { separator: " ", assign: ",", take: v1 } }
    signed: "{body}"
  groups:
    algorithm: hmac-sha256
    signature: { header: X-Sig, list: { separator: ",", groups: " ", assign: "=", take: v1 } }
    timestamp: { item: t }
    signed: "{timestamp}.{body}"
  prefix:
    algorithm: hmac-sha256
    signature: { header: X-Sig, prefix: "sha256=" }
    signed: "{body}"
  optional:
    algorithm: hmac-sha256
    signature: { header: X-Sig, prefix: "Signature ", prefix_optional: true, encoding: base64 }
    signed: "{body}"
  url64:
    algorithm: hmac-sha256
    signature: { header: X-Sig, encoding: base64url, repeated: true }
    signed: "{body}"
"#;
const IDS: [&str; 6] = ["list", "spaced", "groups", "prefix", "optional", "url64"];

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(PRESETS))
}

fn schemes() -> &'static BTreeMap<&'static str, (Scheme, KeySet)> {
    static SCHEMES: Once<BTreeMap<&'static str, (Scheme, KeySet)>> = Once::new();
    SCHEMES.get_or_init(|| {
        let catalog = own(OWN);
        let scheme = |id| (id, own_scheme(&catalog, id).unwrap());
        IDS.into_iter().map(scheme).collect()
    })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = bench().seeds();
    for (index, id) in IDS.into_iter().enumerate() {
        let (scheme, keys) = &schemes()[id];
        let draft = Draft {
            method: http::Method::POST,
            url: SenderUrl {
                origin: "https://h.example".into(),
                target: "/".into(),
            },
            headers: Vec::new(),
            body: b"{}".to_vec(),
        };
        let signed = scheme.sign(draft, &keys.all()[0], NOW).unwrap();
        let value = &signed.headers[0].1;
        for value in [
            value.clone(),
            value.to_uppercase(),
            format!("{value},{value}"),
            format!("{value} {value}"),
            format!("v0=00,{value} , x=1"),
            format!("{value}="),
        ] {
            let mut seed = u16::MAX.to_le_bytes().to_vec();
            seed.push(u8::try_from(index).unwrap());
            seed.extend(format!("POST / HTTP/1.1\nX-Sig: {value}\n\n{{}}").into_bytes());
            seeds.push(seed);
        }
    }
    seeds
}

pub(crate) fn run(data: &[u8]) {
    if let Some([index, rest @ ..]) = data.strip_prefix(&u16::MAX.to_le_bytes()) {
        return own_layout(IDS[usize::from(*index) % IDS.len()], rest);
    }
    let Some((judge, request)) = bench().split(data) else {
        return;
    };
    let Some(input) = Input::parse(request) else {
        return;
    };
    let accepted = laws::hold(judge, &input).is_ok();
    assert!(
        !accepted || judge.scheme.key_kind() != KeyKind::Secret || !input.headers.is_empty(),
        "accepted without a header field"
    );
}

/// SECURITY Z-03: no tag is accepted that is not in the text, and of no more than 16 of them.
fn own_layout(id: &str, request: &[u8]) {
    let Some(input) = Input::parse(request) else {
        return;
    };
    let (scheme, keys) = &schemes()[id];
    let body = input.content();
    if scheme.verify(&input.message(&body), keys, NOW).is_err() {
        return;
    }
    let fields: Vec<String> = input
        .headers
        .get_all("x-sig")
        .iter()
        .map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned())
        .collect();
    let text = fields.join("\n");
    let tag = |content: &[u8]| hmac_sha256(SECRET.as_bytes(), content);
    match id {
        "list" | "groups" => {
            let is_between = |c: char| c == ',' || (c == ' ' && id == "groups");
            let items = text.split(is_between);
            let items = items.filter_map(|item| item.split_once('='));
            let mut items: Vec<_> = items.map(|(name, own)| (name.trim(), own.trim())).collect();
            if id == "groups" {
                items.sort_unstable();
                items.dedup();
            }
            let named = |name| items.iter().filter(move |(own, _)| *own == name);
            let times: Vec<&str> = named("t").map(|(_, time)| *time).collect();
            assert_eq!(
                (fields.len(), times.len()),
                (1, 1),
                "a timestamp of two meanings"
            );
            let content = [times[0].as_bytes(), b".", &input.body].concat();
            let tag = HEXLOWER.encode(&tag(&content));
            assert!(named("v1").any(|(_, own)| own.eq_ignore_ascii_case(&tag)));
            assert!(named("v1").count() <= CANDIDATES_MAX, "too many candidates");
        }
        "spaced" => {
            let tag = format!("v1,{}", BASE64.encode(&tag(&input.body)));
            let blanks: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert!(blanks.contains(&tag), "a tag that is not in the text");
            assert!(
                text.matches("v1,").count() <= 4 * CANDIDATES_MAX,
                "too many candidates"
            );
        }
        "prefix" => {
            let (prefix, own) = text.split_at(7);
            assert_eq!(prefix, "sha256=");
            assert!(own.eq_ignore_ascii_case(&HEXLOWER.encode(&tag(&input.body))));
        }
        "optional" => {
            let own = text.strip_prefix("Signature ").unwrap_or(&text);
            assert_eq!(
                own,
                BASE64.encode(&tag(&input.body)),
                "another spelling of the tag"
            );
        }
        _ => {
            let tag = tag(&input.body);
            let spellings = [BASE64URL.encode(&tag), BASE64URL_NOPAD.encode(&tag)];
            assert!(fields.iter().any(|field| spellings.contains(field)));
            assert!(fields.len() <= CANDIDATES_MAX, "too many candidates");
        }
    }
}
