//! The URL as providers sign it: ports, root paths, escapes.

use hookward::scheme::Scheme;
use hookward::scheme::keys::KeySet;
use hookward::scheme::sign::Draft;
use hookward::scheme::{Content, Message, SenderUrl};
use http::{HeaderMap, Method};

use super::laws;
use super::support::{Bench, Input, NOW, Once, line, own, own_scheme};

const PRESETS: &[&str] = &[
    "appwrite",
    "bird",
    "hubspot-v2",
    "hubspot-v3",
    "mandrill",
    "messagebird",
    "signalwire",
    "square",
    "trello",
    "twilio",
];

const OWN: &str = r#"
  ports:
    algorithm: hmac-sha256
    signature: { header: X-Sig }
    signed: "{method}|{url}|{body}"
    url: { variants: [without_port, with_default_port] }
"#;

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(PRESETS))
}

fn ports() -> &'static (Scheme, KeySet) {
    static SCHEME: Once<(Scheme, KeySet)> = Once::new();
    SCHEME.get_or_init(|| own_scheme(&own(OWN), "ports").unwrap())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = bench().seeds();
    for (one, other) in [
        ("https://h.example/a", "https://h.example:443/a"),
        ("http://h.example:80/a?b=%20", "http://h.example/a?b=%20"),
        ("https://[::1]:8443/", "https://[::1]/"),
        ("https://h.example", "https://h.example/"),
        ("https://h.example/a%2fb", "https://h.example/a%2Fb"),
    ] {
        seeds.push(
            [
                &u16::MAX.to_le_bytes()[..],
                one.as_bytes(),
                b"\n",
                other.as_bytes(),
            ]
            .concat(),
        );
    }
    seeds
}

pub(crate) fn run(data: &[u8]) {
    if let Some(rest) = data.strip_prefix(&u16::MAX.to_le_bytes()) {
        return two_urls(rest);
    }
    let Some((judge, request)) = bench().split(data) else {
        return;
    };
    if let Some(input) = Input::parse(request) {
        let _verdict = laws::hold(judge, &input);
    }
}

fn url(text: &[u8]) -> Option<SenderUrl> {
    let text = std::str::from_utf8(text).ok()?;
    Some(Input::parse(format!("POST {text} HTTP/1.1\n\n").as_bytes())?.url)
}

/// What is signed for one URL is accepted there, and at another one only when they differ in the port.
fn two_urls(rest: &[u8]) {
    let (one, other) = line(rest);
    let (Some(one), Some(other)) = (url(one), url(other)) else {
        return;
    };
    let (scheme, keys) = ports();
    let draft = Draft {
        method: Method::POST,
        url: one.clone(),
        headers: Vec::new(),
        body: b"{}".to_vec(),
    };
    let signed = scheme.sign(draft, &keys.all()[0], NOW).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-sig", signed.headers[0].1.parse().unwrap());
    let body = Content::from(b"{}".to_vec());
    let is_accepted = |url: &SenderUrl| {
        let message = Message {
            method: &Method::POST,
            url,
            headers: &headers,
            body: &body,
        };
        scheme.verify(&message, keys, NOW).is_ok()
    };
    assert!(is_accepted(&one), "what is signed is not accepted");
    if is_accepted(&other) {
        assert_eq!(one.target, other.target, "a signature for another target");
        assert_eq!(
            one.scheme(),
            other.scheme(),
            "a signature for another scheme"
        );
        assert_eq!(
            without_port(one.host()),
            without_port(other.host()),
            "a signature for another host"
        );
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
