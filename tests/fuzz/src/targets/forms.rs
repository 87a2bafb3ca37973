//! Form and multipart bodies, and lists of their fields as providers sign them.

use data_encoding::HEXLOWER;
use hookward::scheme::Scheme;
use hookward::scheme::keys::KeySet;

use super::laws;
use super::support::{Bench, Input, NOW, Once, SECRET, hmac_sha256, line, own, own_scheme};

const PRESETS: &[&str] = &[
    "atlassian-connect",
    "contentful",
    "mailgun",
    "mandrill",
    "messagebird-legacy",
    "plivo-v2",
    "plivo-v3",
    "signalwire",
    "twilio",
    "vonage-sms",
    "dropbox-sign",
    "ko-fi",
    "iyzico",
];

const OWN: &str = r#"
  sorted:
    algorithm: hmac-sha256
    signature: { header: X-Sig }
    signed: "{fields:form}"
    fields:
      form: { from: form, sort: name, write: "{name}={value};" }
"#;

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(PRESETS))
}

fn sorted() -> &'static (Scheme, KeySet) {
    static SCHEME: Once<(Scheme, KeySet)> = Once::new();
    SCHEME.get_or_init(|| own_scheme(&own(OWN), "sorted").unwrap())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = bench().seeds();
    for body in [
        "a=1&b=2&a=0",
        "%61=%2B+%zz&=&&x",
        "b=%e4&a=%C3%A4&c",
        "a=1=2&%=%4",
    ] {
        seeds.push([&u16::MAX.to_le_bytes()[..], b"u\n", body.as_bytes()].concat());
    }
    for body in [
        "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--\r\n",
        "--X\r\nContent-Disposition: form-data; name=b; filename=\"x\"\r\nContent-Type: text/plain\r\n\r\n\r\n\r\n--X\r\ncontent-disposition: form-data; name=a\r\n\r\n--Y\r\n--X--",
        "--X--",
        "a\n--X\0b--X\0c",
    ] {
        seeds.push([&u16::MAX.to_le_bytes()[..], b"m\n", body.as_bytes()].concat());
    }
    seeds
}

pub(crate) fn run(data: &[u8]) {
    if let Some(rest) = data.strip_prefix(&u16::MAX.to_le_bytes()) {
        let (kind, body) = line(rest);
        return match kind {
            b"u" => urlencoded(body),
            b"m" => multipart(body),
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

/// Pairs as the scheme above writes them.
fn written(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    pairs.sort();
    let text = pairs
        .into_iter()
        .map(|(name, value)| [&name[..], b"=", &value, b";"].concat());
    text.collect::<Vec<_>>().concat()
}

fn is_accepted(content_type: &str, body: &[u8], content: &[u8]) -> bool {
    let tag = HEXLOWER.encode(&hmac_sha256(SECRET.as_bytes(), content));
    let head = format!("POST / HTTP/1.1\nContent-Type: {content_type}\nX-Sig: {tag}\n\n");
    let input = Input::parse(&[head.as_bytes(), body].concat()).unwrap();
    let (scheme, keys) = sorted();
    let body = input.content();
    scheme.verify(&input.message(&body), keys, NOW).is_ok()
}

/// SECURITY Z-02: another reader of forms finds the same fields, or there is none to compare with.
fn urlencoded(body: &[u8]) {
    let kind = "application/x-www-form-urlencoded";
    let fields: Vec<&[u8]> = body
        .split(|byte| *byte == b'&')
        .filter(|field| !field.is_empty())
        .collect();
    let pairs: Vec<_> = fields.iter().map(|field| pair(field)).collect();
    let is_readable = std::str::from_utf8(body).is_ok() && pairs.len() <= 1000;
    assert_eq!(
        is_accepted(kind, body, &written(pairs)),
        is_readable,
        "the fields are read differently"
    );
}

fn pair(field: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let at = field.iter().position(|byte| *byte == b'=');
    let (name, value) = at.map_or((field, &[][..]), |at| (&field[..at], &field[at + 1..]));
    (decode(name), decode(value))
}

/// `application/x-www-form-urlencoded` parsing of the WHATWG URL standard, byte by byte.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let hex = |byte: Option<&u8>| {
        (*byte? as char)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// What is printed is read; and whatever is read, nothing may follow or precede it unseen.
fn multipart(body: &[u8]) {
    let kind = "multipart/form-data; boundary=X";
    // Values that do not hold the delimiter, cut from the input: some readers take it wherever it stands.
    let values: Vec<&[u8]> = body
        .split(|byte| *byte == 0)
        .filter(|value| !value.windows(3).any(|window| window == b"--X"))
        .take(8)
        .collect();
    let mut printed = b"--X".to_vec();
    let mut pairs = Vec::new();
    for (index, value) in values.iter().enumerate() {
        printed.extend(
            format!("\r\nContent-Disposition: form-data; name=\"n{index}\"\r\n\r\n").into_bytes(),
        );
        printed.extend_from_slice(value);
        printed.extend_from_slice(b"\r\n--X");
        pairs.push((format!("n{index}").into_bytes(), value.to_vec()));
    }
    printed.extend_from_slice(b"--\r\n");
    let content = written(pairs);
    assert!(
        is_accepted(kind, &printed, &content),
        "what is printed is not read"
    );
    for added in [
        &b"x"[..],
        b"\r\n--X\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\n1\r\n--X--\r\n",
    ] {
        assert!(
            !is_accepted(kind, &[&printed, added].concat(), &content),
            "what follows the last boundary is not signed"
        );
        assert!(
            !is_accepted(kind, &[added, &printed].concat(), &content),
            "what precedes the first boundary is not signed"
        );
    }
    // The input itself, as it is: total.
    let _verdict = is_accepted(kind, body, &[]);
}
