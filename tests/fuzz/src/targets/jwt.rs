//! JSON Web Tokens, through the schemes that read them.

use data_encoding::BASE64URL_NOPAD;
use hookward::scheme::jws::Token;

use super::laws;
use super::support::{Bench, Input, Once, SECRET, hmac_sha256, own, own_scheme};
use hookward::scheme::Scheme;
use hookward::scheme::keys::KeySet;

const PRESETS: &[&str] = &[
    "apple-app-store",
    "atlassian-connect",
    "dialpad",
    "fireblocks",
    "google-pubsub",
    "keycloak",
    "livekit",
    "messagebird",
    "microsoft-graph-rich",
    "monday",
    "netlify",
    "plaid",
    "vonage-messages",
    "wix",
];

const OWN: &str = r#"
  hs256:
    algorithm: jwt
    signature: { header: Authorization, prefix: "Bearer " }
    event_id: { claim: jti }
    jwt:
      algorithms: [HS256]
      claims: { exp: { time: not_after, optional: true }, iss: { equals: fuzz } }
"#;

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(PRESETS))
}

fn hs256() -> &'static (Scheme, KeySet) {
    static SCHEME: Once<(Scheme, KeySet)> = Once::new();
    SCHEME.get_or_init(|| own_scheme(&own(OWN), "hs256").unwrap())
}

/// A token over these texts.
fn token(header: &str, payload: &str) -> String {
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(header), encode(payload));
    let tag = hmac_sha256(SECRET.as_bytes(), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&tag))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = bench().seeds();
    for (header, payload) in [
        (
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"iss":"fuzz","jti":"1","exp":1767225700}"#,
        ),
        (
            r#"{"typ":"JWT","kid":"k","alg":"HS256"}"#,
            r#"{"iss":"fuzz"}"#,
        ),
        (r#"{"alg":"HS512"}"#, r#"{"iss":"fuzz"}"#),
        (r#"{"alg":"none"}"#, r#"{"iss":"fuzz"}"#),
        (
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            r#"{"iss":"fuzz"}"#,
        ),
        (
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"iss":"fuzz","iss":"x"}"#,
        ),
    ] {
        let mut seed = u16::MAX.to_le_bytes().to_vec();
        seed.extend(token(header, payload).into_bytes());
        seeds.push(seed);
    }
    seeds
}

pub(crate) fn run(data: &[u8]) {
    if let Some(text) = data.strip_prefix(&u16::MAX.to_le_bytes()) {
        return alone(text);
    }
    let Some((judge, request)) = bench().split(data) else {
        return;
    };
    if let Some(input) = Input::parse(request) {
        let _verdict = laws::hold(judge, &input);
    }
}

/// A token that is accepted is the one spelling of what was signed (SECURITY A-14).
fn alone(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Some(input) =
        Input::parse(format!("POST / HTTP/1.1\nAuthorization: Bearer {text}\n\n").as_bytes())
    else {
        return;
    };
    let (scheme, keys) = hs256();
    let body = input.content();
    let verdict = scheme.verify(&input.message(&body), keys, super::support::NOW);
    let Ok(evidence) = verdict else { return };
    let given = input.headers["authorization"].to_str().unwrap();
    let given = given.strip_prefix("Bearer ").unwrap().trim_ascii();
    let (signed, signature) = given.rsplit_once('.').unwrap();
    let tag = hmac_sha256(SECRET.as_bytes(), signed.as_bytes());
    assert_eq!(
        signature,
        BASE64URL_NOPAD.encode(&tag),
        "another spelling of the tag"
    );
    let token = Token::parse(given).unwrap();
    assert_eq!(token.algorithm().name(), "HS256");
    let payload: serde_json::Value = serde_json::from_slice(token.payload()).unwrap();
    assert_eq!(payload["iss"], "fuzz");
    if let Some(id) = evidence.event_id {
        let own = match &payload["jti"] {
            serde_json::Value::String(own) => own.clone(),
            own => own.to_string(),
        };
        assert!(own.starts_with(&*id));
    }
}
