use proptest::prelude::*;

use super::*;
use crate::scheme::public_key::PrivateKey;
use crate::secret::Secret;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// RFC 7515 appendix A.1 to A.3: one payload under three algorithms.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
const HS256_TAG: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const HS256_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RS256_JWK: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const ES256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
/// RFC 8037 appendix A.4.
const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
const EDDSA_JWK: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn hs256() -> String {
    format!("{HS256_HEADER}.{PAYLOAD}.{HS256_TAG}")
}

fn secret(id: &str, bytes: &[u8]) -> Key {
    Key::secret(id.into(), Secret::new(bytes.to_vec()), None)
}

fn hs256_keys() -> KeySet {
    let key = BASE64URL_NOPAD.decode(HS256_KEY.as_bytes()).unwrap();
    KeySet::new(vec![
        secret("other", b"another secret"),
        secret("rfc", &key),
    ])
    .unwrap()
}

fn public(written: &str) -> KeySet {
    let keys = PublicKey::parse_all(written.as_bytes()).unwrap();
    let keys = keys
        .into_iter()
        .map(|key| Key::public(key.default_id().into(), key, None));
    KeySet::new(keys.collect()).unwrap()
}

/// The key's id, or why there is none.
fn judge(token: &str, allowed: &[JwsAlgorithm], keys: &KeySet) -> Result<String, Reason> {
    Token::parse(token)
        .and_then(|token| {
            token
                .verify(allowed, keys, NOW, None)
                .map(|key| key.id.to_string())
        })
        .map_err(|error| error.reason)
}

/// A token whose header says what it likes, with a right HMAC of the RFC's key.
fn with_header(header: &str) -> String {
    let header = BASE64URL_NOPAD.encode(header.as_bytes());
    let keys = hs256_keys();
    let content = [header.as_bytes(), b".", PAYLOAD.as_bytes()];
    let tag = tag(
        Hash::Sha256,
        keys.all()[1].secret_bytes().unwrap(),
        &content,
    );
    format!("{header}.{PAYLOAD}.{}", BASE64URL_NOPAD.encode(&tag))
}

#[test]
fn rfc_examples_hold() {
    assert_eq!(
        judge(&hs256(), &[JwsAlgorithm::Hs256], &hs256_keys()),
        Ok("rfc".to_owned())
    );
    for (token, algorithm, jwk) in [
        (RS256, JwsAlgorithm::Rs256, RS256_JWK),
        (ES256, JwsAlgorithm::Es256, ES256_JWK),
        (EDDSA, JwsAlgorithm::EdDsa, EDDSA_JWK),
    ] {
        assert!(
            judge(token, &[algorithm], &public(jwk)).is_ok(),
            "{algorithm:?}"
        );
    }
    let claims = Token::parse(RS256).unwrap().claims().unwrap();
    assert_eq!(claims["iss"], "joe");
}

#[test]
fn no_character_may_change() {
    let token = hs256();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(
            judge(&changed, &JwsAlgorithm::ALL, &hs256_keys()).is_err(),
            "{at}"
        );
        let cut = token.split_at(at).0;
        assert!(
            judge(cut, &JwsAlgorithm::ALL, &hs256_keys()).is_err(),
            "{at}"
        );
    }
}

/// SECURITY A-29, A-30 and the shapes of Wycheproof's JWS set.
#[test]
fn odd_shapes_are_malformed() {
    let good = hs256();
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{HS256_HEADER}.{PAYLOAD}"),
        format!("{HS256_HEADER}.{PAYLOAD}."),
        format!(".{PAYLOAD}.{HS256_TAG}"),
        format!("{PAYLOAD}.{HS256_TAG}"),
        format!("{good}."),
        format!("{good}.foo"),
        format!("{good}.a.b"), // a JWE has five parts
        format!(" {good}"),
        format!("{good}="),
        format!(
            "{HS256_HEADER}.{PAYLOAD}.{}l",
            HS256_TAG.trim_end_matches('k')
        ), // bits after the last byte
        format!("{HS256_HEADER}=.{PAYLOAD}.{HS256_TAG}"),
        format!("{HS256_HEADER}.{PAYLOAD}?.{HS256_TAG}"),
        format!("{HS256_HEADER}.{PAYLOAD}. {HS256_TAG}"),
        format!("{HS256_HEADER}.{PAYLOAD}.{}", "A".repeat(MAX_SIGNATURE + 2)),
        format!("{}.{PAYLOAD}.{HS256_TAG}", "A".repeat(MAX_HEADER + 4)),
        format!(
            r#"{{"payload":"{PAYLOAD}","protected":"{HS256_HEADER}","signature":"{HS256_TAG}"}}"#
        ),
    ] {
        let verdict = judge(&token, &JwsAlgorithm::ALL, &hs256_keys());
        assert_eq!(verdict, Err(Reason::SignatureMalformed), "{token:.80}");
    }
}

#[test]
fn headers_that_are_not_understood_are_malformed() {
    assert!(
        judge(
            &with_header(r#"{"alg":"HS256"}"#),
            &JwsAlgorithm::ALL,
            &hs256_keys()
        )
        .is_ok()
    );
    // SECURITY A-28, A-29
    for header in [
        "{}",
        "[]",
        r#""HS256""#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":null}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256""#,
        r#"{"alg":"HS256"}{}"#,
    ] {
        let verdict = judge(&with_header(header), &JwsAlgorithm::ALL, &hs256_keys());
        assert_eq!(verdict, Err(Reason::SignatureMalformed), "{header}");
    }
}

#[test]
fn only_pinned_algorithms_count() {
    let pinned = [JwsAlgorithm::Rs256, JwsAlgorithm::Hs512];
    assert_eq!(
        judge(&hs256(), &pinned, &hs256_keys()),
        Err(Reason::SignatureMalformed)
    );
    assert_eq!(
        judge(&hs256(), &[], &hs256_keys()),
        Err(Reason::SignatureMalformed)
    );
}

/// SECURITY A-29: the public key's bytes are no secret.
#[test]
fn a_public_key_is_never_an_hmac_secret() {
    let keys = public(RS256_JWK);
    let key = keys.all()[0].public_key().unwrap();
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#);
    let content = [header.as_bytes(), b".", PAYLOAD.as_bytes()];
    for bytes in [key.spki(), RS256_JWK.as_bytes(), b""] {
        let tag = tag(Hash::Sha256, bytes, &content);
        let token = format!("{header}.{PAYLOAD}.{}", BASE64URL_NOPAD.encode(&tag));
        assert_eq!(
            judge(&token, &JwsAlgorithm::ALL, &keys),
            Err(Reason::SignatureMismatch)
        );
    }
}

#[test]
fn a_secret_is_never_a_public_key() {
    let jwk = KeySet::new(vec![secret("jwk", RS256_JWK.as_bytes())]).unwrap();
    assert_eq!(
        judge(RS256, &JwsAlgorithm::ALL, &jwk),
        Err(Reason::SignatureMismatch)
    );
}

#[test]
fn a_jwk_verifies_only_its_own_algorithm() {
    let jwk = |alg: &str| public(&RS256_JWK.replace('{', &format!(r#"{{"alg":"{alg}","#)));
    assert!(judge(RS256, &JwsAlgorithm::ALL, &jwk("RS256")).is_ok());
    for alg in ["RS384", "RS512", "PS256"] {
        let verdict = judge(RS256, &JwsAlgorithm::ALL, &jwk(alg));
        assert_eq!(verdict, Err(Reason::SignatureMismatch), "{alg}");
    }
}

/// SECURITY A-31: a token that brings its own key, by value or by address, is signed by nobody.
#[test]
fn keys_in_the_token_are_not_looked_at() {
    let stranger =
        PrivateKey::parse(&[b"whsk_", BASE64.encode(&[7; 32]).as_bytes()].concat()).unwrap();
    let point = BASE64URL_NOPAD.encode(&stranger.public().spki()[12..]);
    for member in [
        serde_json::json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": point}}),
        serde_json::json!({"jku": "https://attacker.example/jwks.json"}),
        serde_json::json!({"x5u": "https://attacker.example/cert.pem"}),
        serde_json::json!({"x5c": ["MIIB"]}),
        serde_json::json!({"kid": "../../../../dev/null"}),
        serde_json::json!({"kid": "https://attacker.example/key"}),
        serde_json::json!({"kid": {"a": 1}}),
    ] {
        let header = member.as_object().unwrap();
        let key = Key::private("stranger".into(), stranger.clone());
        let token = sign(JwsAlgorithm::EdDsa, header, b"{}", Form::Attached, &key).unwrap();
        let verdict = judge(&token, &JwsAlgorithm::ALL, &public(EDDSA_JWK));
        assert_eq!(verdict, Err(Reason::SignatureMismatch), "{member}");
    }
}

#[test]
fn a_named_key_is_taken_for_tokens_of_its_name_only() {
    let private = PrivateKey::parse(&[b'1'; 64]).unwrap();
    let key = Key::private("own".into(), private.clone());
    let jwk = |kid: &str| {
        let point = BASE64URL_NOPAD.encode(&private.public().spki()[12..]);
        public(&format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{point}","kid":"{kid}"}}"#
        ))
    };
    let token = |kid: Option<&str>| {
        let mut header = Map::new();
        kid.map(|kid| header.insert("kid".to_owned(), kid.into()));
        sign(JwsAlgorithm::EdDsa, &header, b"{}", Form::Attached, &key).unwrap()
    };
    let judge = |kid, keys: &KeySet| judge(&token(kid), &[JwsAlgorithm::EdDsa], keys);
    assert_eq!(judge(Some("a"), &jwk("a")), Ok("a".to_owned()));
    assert_eq!(judge(Some("b"), &jwk("a")), Err(Reason::SignatureMismatch));
    assert_eq!(judge(None, &jwk("a")), Ok("a".to_owned()));
    let nameless = KeySet::new(vec![key.clone()]).unwrap();
    assert_eq!(judge(Some("b"), &nameless), Ok("own".to_owned()));
}

#[test]
fn a_key_that_has_ended_does_not_count() {
    let mut keys = hs256_keys().all().to_vec();
    keys[1].not_after = Some(NOW);
    let partly = KeySet::new(keys.clone()).unwrap();
    assert_eq!(
        judge(&hs256(), &JwsAlgorithm::ALL, &partly),
        Err(Reason::SignatureMismatch)
    );
    keys[0].not_after = Some(NOW);
    let wholly = KeySet::new(keys).unwrap();
    assert_eq!(
        judge(&hs256(), &JwsAlgorithm::ALL, &wholly),
        Err(Reason::KeyUnavailable)
    );
}

#[test]
fn detached_payloads_may_be_in_parts() {
    let key = secret("own", &[1; 32]);
    let keys = KeySet::new(vec![key.clone()]).unwrap();
    let body = b"{\"a\":1}".as_slice();
    let token = sign(JwsAlgorithm::Hs256, &Map::new(), body, Form::Detached, &key).unwrap();
    assert!(token.contains(".."));
    let verify = |token: &str, parts: Option<&[&[u8]]>| {
        Token::parse(token)?
            .verify(&[JwsAlgorithm::Hs256], &keys, NOW, parts)
            .map(|_| ())
    };
    assert_eq!(verify(&token, Some(&[body])), Ok(()));
    for at in 0..=body.len() {
        let (start, end) = body.split_at(at);
        assert_eq!(verify(&token, Some(&[start, b"", end])), Ok(()));
    }
    assert_eq!(verify(&token, Some(&[b"{}"])), Err(MISMATCH));
    assert_eq!(verify(&token, None), Err(MISMATCH));
    let whole = sign(JwsAlgorithm::Hs256, &Map::new(), body, Form::Attached, &key).unwrap();
    assert_eq!(verify(&whole, None), Ok(()));
    let reason = verify(&whole, Some(&[body])).unwrap_err().reason;
    assert_eq!(reason, Reason::SignatureMalformed);
}

#[test]
fn claims_are_one_json_object_of_one_meaning() {
    let key = secret("own", &[1; 32]);
    for payload in [
        r#"{"aud":"a","aud":"b"}"#,
        "[]",
        "1",
        "",
        "{} {}",
        "\u{feff}{}",
    ] {
        let token = sign(
            JwsAlgorithm::Hs256,
            &Map::new(),
            payload.as_bytes(),
            Form::Attached,
            &key,
        );
        let claims = Token::parse(&token.unwrap()).unwrap().claims();
        assert_eq!(
            claims.unwrap_err().reason,
            Reason::SignatureMalformed,
            "{payload}"
        );
    }
}

#[test]
fn signing_says_which_key_it_wants() {
    let private = Key::private("own".into(), PrivateKey::parse(&[b'1'; 64]).unwrap());
    let sign = |algorithm, key: &Key| {
        sign(algorithm, &Map::new(), b"{}", Form::Attached, key).unwrap_err()
    };
    assert_eq!(
        sign(JwsAlgorithm::Hs256, &private),
        "HS256 signs with a secret"
    );
    assert_eq!(
        sign(JwsAlgorithm::Es256, &secret("own", b"x")),
        "ES256 signs with a private key"
    );
    assert!(sign(JwsAlgorithm::Es256, &private).contains("ECDSA P-256"));
}

#[test]
fn a_header_cannot_say_another_algorithm_than_it_is_signed_with() {
    let key = secret("own", &[1; 32]);
    let mut header = Map::new();
    header.insert("alg".to_owned(), "none".into());
    let token = sign(JwsAlgorithm::Hs256, &header, b"{}", Form::Attached, &key).unwrap();
    assert_eq!(
        Token::parse(&token).unwrap().algorithm(),
        JwsAlgorithm::Hs256
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}", header in "\\PC{0,80}") {
        prop_assert!(Token::parse(&text).is_err());
        prop_assert!(judge(&with_header(&header), &JwsAlgorithm::ALL, &public(EDDSA_JWK)).is_err());
    }

    #[test]
    fn what_is_signed_verifies(payload: Vec<u8>, bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
        let key = secret("own", &bytes);
        for algorithm in [JwsAlgorithm::Hs256, JwsAlgorithm::Hs384, JwsAlgorithm::Hs512] {
            let token = sign(algorithm, &Map::new(), &payload, Form::Attached, &key).unwrap();
            let keys = KeySet::new(vec![key.clone()]).unwrap();
            prop_assert_eq!(judge(&token, &[algorithm], &keys), Ok("own".to_owned()));
            let token = Token::parse(&token).unwrap();
            prop_assert_eq!(token.payload(), payload.as_slice());
        }
    }
}
