use proptest::prelude::*;

use super::*;

/// RFC 8037 appendix A: an Ed25519 key.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const POINT: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// RFC 7517 appendix A.1: an ECDSA key and an RSA key, and RFC 7517 appendix A.3: a secret.
const JWKS: &str = r#"{"keys":[
    {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
     "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"},
    {"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
     "e":"AQAB","alg":"RS256","kid":"2011-04-29"},
    {"kty":"oct","alg":"A128KW","k":"GawgguFyGrWKav7AX4VKUg"}]}"#;

fn one(written: impl AsRef<[u8]>) -> PublicKey {
    let [key] = PublicKey::parse_all(written.as_ref())
        .unwrap()
        .try_into()
        .unwrap();
    key
}

fn why(written: impl AsRef<[u8]>) -> String {
    PublicKey::parse_all(written.as_ref()).unwrap_err()
}

fn pem(label: &str, der: &[u8], width: usize) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(width)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn jwk(members: &str) -> String {
    let point = BASE64URL_NOPAD.encode(&HEXLOWER.decode(POINT.as_bytes()).unwrap());
    format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{point}"{members}}}"#)
}

fn rsa() -> PublicKey {
    one(JWKS)
}

/// A certificate of `names` over the Ed25519 key, valid in 2026 and 2027.
fn certificate(names: &[&str]) -> Vec<u8> {
    let seed = PrivateKey::parse(SEED.as_bytes()).unwrap();
    let pkcs8 = [
        HEXLOWER
            .decode(b"302e020100300506032b657004220420")
            .unwrap(),
        HEXLOWER.decode(SEED.as_bytes()).unwrap(),
    ]
    .concat();
    let key = rcgen::KeyPair::try_from(pkcs8.as_slice()).unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2028, 1, 1);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    assert_eq!(&one(&der), seed.public());
    der
}

#[test]
fn every_spelling_is_one_key() {
    let key = one(POINT);
    let point = HEXLOWER.decode(POINT.as_bytes()).unwrap();
    let spki = key.spki().to_vec();
    assert_eq!(key.key_type(), KeyType::Ed25519);
    assert_eq!(spki.len(), 44);
    let one_line = pem("PUBLIC KEY", &spki, 64).replace('\n', "");
    let escaped = pem("PUBLIC KEY", &spki, 20).replace('\n', "\\n");
    for written in [
        POINT.to_uppercase(),
        format!(" {POINT}\r\n"),
        BASE64.encode(&point),
        BASE64_NOPAD.encode(&point),
        BASE64URL.encode(&point),
        BASE64URL_NOPAD.encode(&point),
        format!("whpk_{}", BASE64.encode(&point)),
        BASE64.encode(&spki),
        pem("PUBLIC KEY", &spki, 64),
        pem("PUBLIC KEY", &spki, 20).replace('\n', "\r\n"),
        format!("a remark\n{}\nanother", pem("PUBLIC KEY", &spki, 64)),
        one_line,
        escaped,
        pem("CERTIFICATE", &certificate(&["a.example"]), 64),
        BASE64.encode(&certificate(&["a.example"])),
        jwk(""),
        format!(r#"{{"keys":[{}]}}"#, jwk("")),
    ] {
        assert_eq!(one(&written), key, "{written}");
        assert_eq!(one(&written).fingerprint(), key.fingerprint());
    }
    assert_eq!(one(&spki), key);
}

#[test]
fn rsa_keys_have_two_shapes() {
    let key = rsa();
    assert_eq!(key.key_type(), KeyType::Rsa);
    let pkcs1 = &key.spki()[24..];
    for written in [
        pem("RSA PUBLIC KEY", pkcs1, 64),
        pem("PUBLIC KEY", key.spki(), 64),
        BASE64.encode(pkcs1),
        BASE64.encode(key.spki()),
    ] {
        assert_eq!(one(&written), key, "{written}");
    }
}

#[test]
fn several_blocks_are_several_keys() {
    let blocks = [
        pem("PUBLIC KEY", one(POINT).spki(), 64),
        pem("PUBLIC KEY", rsa().spki(), 64),
    ]
    .concat();
    let keys = PublicKey::parse_all(blocks.as_bytes()).unwrap();
    assert_eq!(keys, [one(POINT), rsa()]);
}

#[test]
fn a_jwks_is_read_for_the_keys_that_sign() {
    let key = rsa(); // the ECDSA key is for encryption, the third is a secret
    assert_eq!(key.kid(), Some("2011-04-29"));
    assert!(key.fits(SignatureAlgorithm::RsaSha256));
    assert!(!key.fits(SignatureAlgorithm::RsaSha512));
    assert!(!key.fits(SignatureAlgorithm::RsaPssSha256));
    assert!(why(r#"{"keys":[]}"#).contains("without keys"));
    assert!(why(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).contains("secret"));
    assert!(why(r#"{"keys":[1]}"#).contains("not a JWK"));
}

/// SECURITY A-32.
#[test]
fn keys_that_sign_nothing_are_refused() {
    let sig = format!(
        r#"{{"keys":[{},{}]}}"#,
        jwk(r#","use":"enc""#),
        jwk(r#","use":"sig""#)
    );
    assert_eq!(PublicKey::parse_all(sig.as_bytes()).unwrap().len(), 1);
    for (members, word) in [
        (r#","use":"enc""#, "`use`"),
        (r#","key_ops":["encrypt"]"#, "`key_ops`"),
        (r#","alg":"ES256""#, "`alg`"),
        (r#","alg":"HS256""#, "`alg`"),
        (r#","alg":"none""#, "`alg`"),
        (r#","alg":"RSA-OAEP""#, "`alg`"),
        (r#","d":"AAAA""#, "private"),
        (r#","x":"AAAA""#, "neither a JWK"),
    ] {
        assert!(
            why(jwk(members)).contains(word),
            "{members}: {}",
            why(jwk(members))
        );
    }
    assert_eq!(
        one(jwk(r#","use":"sig","key_ops":["verify"],"alg":"EdDSA""#)),
        one(POINT)
    );
    let rsa_512 = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "w".repeat(86));
    assert!(why(rsa_512).contains("bits"));
    let on_p521 = r#"{"kty":"EC","crv":"P-521","x":"AAAA","y":"AAAA"}"#;
    assert!(why(on_p521).contains("curve"));
    let off_curve = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyN"}"#;
    assert!(!why(off_curve).is_empty());
}

#[test]
fn what_is_no_public_key_says_so() {
    let spki = one(POINT).spki().to_vec();
    for (written, word) in [
        (String::new(), "no key"),
        ("  \n".to_owned(), "no key"),
        ("changeme!".to_owned(), "neither PEM"),
        (POINT.trim_end_matches("1a").to_owned(), "public key"),
        ("{".to_owned(), "JSON"),
        ("[]".to_owned(), "neither PEM"),
        ("whpk_".to_owned(), "whpk_"),
        ("whpk_AAAA".to_owned(), "32 bytes"),
        (format!("whsk_{}", BASE64.encode(&[7; 32])), "private"),
        (pem("PRIVATE KEY", &spki, 64), "private"),
        (pem("EC PARAMETERS", &spki, 64), "neither a public key"),
        (pem("PUBLIC KEY", b"0", 64), "not a public key"),
        (
            pem("PUBLIC KEY", &[spki.as_slice(), &[0]].concat(), 64),
            "bytes follow",
        ),
        (
            pem("PUBLIC KEY", &spki, 64).replace("END", "ENDE"),
            "last line",
        ),
        ("-----BEGIN PUBLIC KEY".to_owned(), "first line"),
        (
            "-----BEGIN PUBLIC KEY-----!-----END PUBLIC KEY-----".to_owned(),
            "base64",
        ),
        (pem("CERTIFICATE", &spki, 64), "certificate"),
    ] {
        let why = why(&written);
        assert!(why.contains(word), "{written}: {why}");
    }
    let private = rcgen::KeyPair::generate().unwrap();
    assert!(why(private.serialize_der()).contains("private"));
    assert!(why(private.serialize_pem()).contains("private"));
}

#[test]
fn a_certificate_keeps_its_facts() {
    let key = one(certificate(&["a.example", "b.example"]));
    assert_eq!(key.names(), ["a.example", "b.example"]);
    let at = |text: &str| UnixTime::from_rfc3339(text).unwrap();
    let expected = (at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    assert_eq!(key.validity(), Some(expected));
    assert_eq!(one(POINT).validity(), None);
    assert!(one(POINT).names().is_empty());
}

#[test]
fn ids_are_fit_for_a_header_field() {
    let named = |kid: &str| one(jwk(&format!(r#","kid":{}"#, serde_json::json!(kid))));
    assert_eq!(named("key-1_A.b").default_id(), "key-1_A.b");
    let own = one(POINT).default_id();
    assert_eq!(own.len(), 16);
    for kid in ["", "a b", "a\r\nSet-Cookie: x", "\u{e4}", &"a".repeat(65)] {
        assert_eq!(named(kid).default_id(), own, "{kid:?}");
    }
    assert_eq!(format!("{:?}", one(POINT)), format!("Ed25519 {own}"));
}

#[test]
fn private_keys_in_every_form_are_one_key() {
    let seed = HEXLOWER.decode(SEED.as_bytes()).unwrap();
    let point = HEXLOWER.decode(POINT.as_bytes()).unwrap();
    let pkcs8 = [
        HEXLOWER
            .decode(b"302e020100300506032b657004220420")
            .unwrap(),
        seed.clone(),
    ]
    .concat();
    let both = [seed.clone(), point].concat();
    for written in [
        SEED.to_owned(),
        BASE64.encode(&seed),
        format!("whsk_{}", BASE64.encode(&seed)),
        format!("whsk_{}", BASE64.encode(&both)),
        pem("PRIVATE KEY", &pkcs8, 64),
        pem("PRIVATE KEY", &pkcs8, 64).replace('\n', ""),
        BASE64.encode(&pkcs8),
    ] {
        let key = PrivateKey::parse(written.as_bytes()).unwrap();
        assert_eq!(*key.public(), one(POINT), "{written}");
    }
    let mixed = [seed.clone(), seed].concat();
    assert!(PrivateKey::parse(BASE64.encode(&mixed).as_bytes()).is_err());
}

#[test]
fn what_is_no_private_key_says_so_without_repeating_it() {
    for (written, word) in [
        (String::new(), "neither PEM"),
        ("canary!".to_owned(), "neither PEM"),
        (pem("PUBLIC KEY", one(POINT).spki(), 64), "without a private key"),
        (pem("ENCRYPTED PRIVATE KEY", b"canary", 64), "encrypted"),
        (pem("PRIVATE KEY", b"canary", 64), "not a private key"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----".to_owned(),
            "encrypted",
        ),
    ] {
        let why = PrivateKey::parse(written.as_bytes()).unwrap_err();
        assert!(why.contains(word) && !why.contains("canary"), "{written}: {why}");
    }
}

#[test]
fn a_private_key_prints_nothing_of_itself() {
    let key = PrivateKey::parse(SEED.as_bytes()).unwrap();
    let printed = format!("{key:?}");
    assert!(printed.starts_with("[redacted]"), "{printed}");
    assert!(!printed.contains(SEED.split_at(8).0), "{printed}");
}

#[test]
fn signing_says_which_key_it_wants() {
    let key = PrivateKey::parse(SEED.as_bytes()).unwrap();
    let why = key.sign(SignatureAlgorithm::RsaSha256, &[b""]).unwrap_err();
    assert_eq!(
        why,
        "the scheme signs with RSA keys, and this is an Ed25519 key"
    );
    let why = key.sign(SignatureAlgorithm::RsaSha1, &[b""]).unwrap_err();
    assert!(why.contains("SHA-1"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let in_pem = pem("CERTIFICATE", &bytes, 64);
        prop_assert!(PublicKey::parse_all(in_pem.as_bytes()).is_err());
        prop_assert!(PublicKey::parse_all(&bytes).is_err());
        prop_assert!(PrivateKey::parse(&bytes).is_err());
    }

    /// Certificates and keys with bytes changed are read or refused, but never believed.
    #[test]
    fn a_changed_key_is_another_key_or_none(at in 0usize..44, to in any::<u8>()) {
        let key = one(POINT);
        let mut spki = key.spki().to_vec();
        prop_assume!(spki[at] != to);
        spki[at] = to;
        if let Ok(keys) = PublicKey::parse_all(&spki) {
            prop_assert_ne!(&keys[0], &key);
        }
    }
}
