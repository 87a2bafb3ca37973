use http::Method;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scheme::SenderUrl;
use crate::scheme::protocol::tests::{Case, cases};
use crate::scheme::public_key::{PrivateKey, PublicKey};

const NOW: UnixTime = UnixTime::from_secs(1_618_884_475);

fn params(value: Value) -> Params {
    serde_json::from_value(value).unwrap()
}

fn secret() -> Key {
    Key::secret("k".into(), Secret::new(b"shared".to_vec()), None)
}

fn hmac(required: &[&str]) -> HttpSignature {
    HttpSignature::from_params(&params(json!({
        "alg": "hmac-sha256", "keyid": "k", "required_components": required,
    })))
    .unwrap()
}

fn draft(headers: &[(&str, &str)]) -> Draft {
    Draft {
        method: Method::POST,
        url: url("https://Example.com:443", "/a/b?x=1&y=%20z&x2=a+b"),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: b"{\"hello\": \"world\"}".to_vec(),
    }
}

fn url(origin: &str, target: &str) -> SenderUrl {
    SenderUrl {
        origin: origin.into(),
        target: target.into(),
    }
}

fn judge(scheme: &HttpSignature, draft: &Draft) -> Result<Verified, SignatureError> {
    let case = Case::of(draft);
    let verdict = scheme.verify(&case.message(), &[&secret()], NOW, &mut Trace::off());
    verdict.map(|(_, verified)| verified)
}

fn reason(verdict: Result<Verified, SignatureError>) -> Reason {
    verdict.unwrap_err().reason
}

#[test]
fn appendix_b_of_rfc_9421() {
    // Sections B.2.2 to B.2.6, B.3 and B.4, with what must be refused.
    let vectors = include_str!("../../../tests/vectors/http-message-signatures.jsonl");
    let mut count = 0;
    for case in cases(vectors) {
        let scheme = HttpSignature::from_params(&case.params).unwrap();
        let secrets = case.secrets.iter().map(|written| {
            let secret = scheme.secret(written.as_bytes()).unwrap();
            Key::secret("secrets[0]".into(), secret, None)
        });
        let keys: Vec<Key> = secrets.chain(case.public_keys()).collect();
        let keys: Vec<&Key> = keys.iter().collect();
        let verdict = scheme.verify(&case.message(), &keys, case.now, &mut Trace::off());
        assert_eq!(verdict.is_ok(), case.accepted, "{}: {verdict:?}", case.name);
        if case.accepted {
            assert_eq!(scheme.precheck(&case.headers), Ok(()), "{}", case.name);
        }
        count += 1;
    }
    assert!(count >= 21, "{count}");
}

#[test]
fn what_is_signed_verifies() {
    let required = [
        "@method",
        "@target-uri",
        "@query-param;name=\"y\"",
        "content-digest",
        "content-length",
        "content-type",
        "date",
        "host",
    ];
    let scheme = hmac(&required);
    let signed = scheme.sign(
        draft(&[("Content-Type", "application/json")]),
        &secret(),
        NOW,
    );
    let signed = signed.unwrap();
    let verified = judge(&scheme, &signed).unwrap();
    assert_eq!(verified.signed_at, Some(NOW));
    let date = signed
        .headers
        .iter()
        .find(|(name, _)| name == "Date")
        .unwrap();
    assert_eq!(date.1, "Tue, 20 Apr 2021 02:07:55 GMT");

    let changed = |change: fn(&mut Draft)| {
        let mut draft = signed.clone();
        change(&mut draft);
        reason(judge(&scheme, &draft))
    };
    let mismatch = Reason::SignatureMismatch;
    assert_eq!(changed(|draft| draft.method = Method::PUT), mismatch);
    assert_eq!(changed(|draft| draft.body.push(b'\n')), mismatch);
    assert_eq!(
        changed(|draft| draft.url.origin = "https://example.org".into()),
        mismatch
    );
    assert_eq!(
        changed(|draft| draft.headers.push(("Date".into(), "x".into()))),
        mismatch
    );
    // Of two signatures, or two digests, none counts.
    for name in ["Signature", "Signature-Input", "Content-Digest"] {
        let mut draft = signed.clone();
        let value = draft
            .headers
            .iter()
            .find(|(own, _)| own == name)
            .unwrap()
            .1
            .clone();
        draft.headers.push((name.to_owned(), value));
        assert_eq!(
            reason(judge(&scheme, &draft)),
            Reason::SignatureMalformed,
            "{name}"
        );
    }
    assert!(scheme.sign(signed, &secret(), NOW).is_err());
    assert!(
        scheme.sign(draft(&[]), &secret(), NOW).is_err(),
        "no Content-Type to sign"
    );
}

#[test]
fn what_a_private_key_signs_verifies() {
    let pair = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
    for (name, pair) in [
        ("ed25519", pair(&rcgen::PKCS_ED25519)),
        ("ecdsa-p256-sha256", pair(&rcgen::PKCS_ECDSA_P256_SHA256)),
        ("ecdsa-p384-sha384", pair(&rcgen::PKCS_ECDSA_P384_SHA384)),
        ("rsa-pss-sha512", pair(&rcgen::PKCS_RSA_SHA256)),
        ("rsa-v1_5-sha256", pair(&rcgen::PKCS_RSA_SHA256)),
    ] {
        let scheme = HttpSignature::from_params(&params(json!({ "alg": name }))).unwrap();
        let private = PrivateKey::parse(&pair.serialize_der()).unwrap();
        let private = Key::private("k".into(), private);
        let signed = scheme.sign(draft(&[]), &private, NOW).unwrap();
        let public = PublicKey::parse_all(pair.public_key_pem().as_bytes()).unwrap();
        let public = Key::public("k".into(), public[0].clone(), None);
        let case = Case::of(&signed);
        let mut trace = Trace::off();
        let keys = [&secret(), &public];
        let verdict = scheme.verify(&case.message(), &keys, NOW, &mut trace);
        assert_eq!(verdict.map(|(signer, _)| signer), Ok(1), "{name}");
        let verdict = scheme.verify(&case.message(), &keys[..1], NOW, &mut trace);
        assert_eq!(
            verdict.unwrap_err().reason,
            Reason::SignatureMismatch,
            "{name}"
        );
        let verdict = scheme.verify(&case.message(), &[], NOW, &mut trace);
        assert_eq!(
            verdict.unwrap_err().reason,
            Reason::KeyUnavailable,
            "{name}"
        );
        assert!(scheme.sign(draft(&[]), &secret(), NOW).is_err());
    }
}

/// A signature over `@method` with these parameters, right but for what the policy says.
fn with_input(input: &str) -> Result<Verified, SignatureError> {
    judge(&hmac(&["@method"]), &draft_with(input))
}

fn draft_with(input: &str) -> Draft {
    let content = format!("\"@method\": POST\n\"@signature-params\": {input}");
    let tag = BASE64.encode(&hmac_sha256(b"shared", content.as_bytes()));
    let input = format!("sig1={input}");
    let signature = format!("sig1=:{tag}:");
    draft(&[("Signature-Input", &input), ("Signature", &signature)])
}

#[test]
fn what_the_operator_pinned_holds() {
    let created = "created=1618884475";
    assert!(with_input(&format!("(\"@method\");{created};keyid=\"k\"")).is_ok());
    assert!(
        with_input(&format!(
            "(\"@method\");{created};keyid=\"k\";alg=\"hmac-sha256\""
        ))
        .is_ok()
    );
    for (input, expected) in [
        // SECURITY A-29: nothing in a request chooses the algorithm.
        (
            format!("(\"@method\");{created};keyid=\"k\";alg=\"ed25519\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\");{created};keyid=\"other\""),
            Reason::SignatureMismatch,
        ),
        (
            format!("(\"@method\");{created}"),
            Reason::SignatureMismatch,
        ),
        (
            format!("();{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\" \"@method\");{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\";req);{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\" \"@status\");{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\" \"Date\");{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(@method);{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\" \"x-absent\");{created};keyid=\"k\""),
            Reason::SignatureMalformed,
        ),
        (
            format!("(\"@method\");{created};keyid=k"),
            Reason::SignatureMalformed,
        ),
        (
            "(\"@method\");keyid=\"k\"".to_owned(),
            Reason::TimestampMissing,
        ),
        (
            "(\"@method\");created=\"1618884475\";keyid=\"k\"".to_owned(),
            Reason::TimestampMalformed,
        ),
        (
            "(\"@method\");created=16188844750000000;keyid=\"k\"".to_owned(),
            Reason::SignatureMalformed,
        ),
    ] {
        assert_eq!(reason(with_input(&input)), expected, "{input}");
    }
}

#[test]
fn time_is_judged_last_and_to_the_second() {
    // SECURITY A-17
    let at = |created: i64| with_input(&format!("(\"@method\");created={created};keyid=\"k\""));
    let now = NOW.secs();
    assert!(at(now - 300).is_ok());
    assert!(at(now + 300).is_ok());
    assert_eq!(reason(at(now - 301)), Reason::TimestampStale);
    assert_eq!(reason(at(now + 301)), Reason::TimestampAhead);
    assert_eq!(reason(at(-999_999_999_999_999)), Reason::TimestampStale);
    let expires = |expires: i64| {
        with_input(&format!(
            "(\"@method\");created={now};expires={expires};keyid=\"k\""
        ))
    };
    assert!(expires(now).is_ok());
    assert_eq!(reason(expires(now - 1)), Reason::TimestampStale);
}

#[test]
fn a_nonce_tells_deliveries_apart() {
    let with = |created: i64, nonce: &str| {
        let input = format!("(\"@method\");created={created};keyid=\"k\"{nonce}");
        let case = Case::of(&draft_with(&input));
        hmac(&["@method"]).delivery(&case.message()).unwrap()
    };
    let now = NOW.secs();
    let (one, again) = (with(now, ";nonce=\"a\""), with(now - 1, ";nonce=\"a\""));
    assert_eq!(one, again);
    assert_ne!(one, with(now, ";nonce=\"b\""));
    assert_ne!(with(now, ""), with(now - 1, ""));
}

#[test]
fn params_are_checked_all_at_once() {
    let problems = HttpSignature::from_params(&params(json!({
        "alg": "hmac-md5", "secret_encoding": "rot13", "label": "Sig 1", "required_components": ["@nope", "Date"], "keyid": 1,
    })));
    assert_eq!(problems.unwrap_err().len(), 6);
    let missing = HttpSignature::from_params(&Params::new()).unwrap_err();
    assert!(
        missing
            .iter()
            .any(|problem| problem.contains("`alg` is missing"))
    );
    for label in ["a;x", "a,b", "a=1", "Sig1", "ü"] {
        let given = json!({ "alg": "ed25519", "label": label });
        assert!(
            HttpSignature::from_params(&params(given)).is_err(),
            "{label}"
        );
    }
    for list in [json!([]), json!("@method"), json!([1])] {
        let given = json!({ "alg": "ed25519", "required_components": list });
        assert!(HttpSignature::from_params(&params(given)).is_err());
    }
    let default = HttpSignature::from_params(&params(json!({ "alg": "ed25519" }))).unwrap();
    assert!(default.covers_body() && !default.takes_secret());
}

proptest! {
    #[test]
    fn judging_is_total(input in "[ -~]{0,80}", signature in "[ -~]{0,40}", target in "/[!-~]{0,30}") {
        let scheme = hmac(&["@method"]);
        let mut draft = draft(&[("Signature-Input", &input), ("Signature", &signature)]);
        draft.url.target = target.into();
        prop_assert!(judge(&scheme, &draft).is_err());
    }

    #[test]
    fn any_request_that_is_signed_verifies(
        body in proptest::collection::vec(any::<u8>(), 0..64),
        target in "/[a-z%20/]{0,10}(\\?[a-z0-9=&+%]{0,20})?",
        value in "[ -~]{0,20}",
    ) {
        let scheme = hmac(&["@method", "@target-uri", "@path", "@query", "content-digest", "x-any"]);
        let mut draft = draft(&[("X-Any", &value)]);
        draft.body = body;
        draft.url.target = target.into();
        let signed = scheme.sign(draft, &secret(), NOW).unwrap();
        prop_assert!(judge(&scheme, &signed).is_ok());
    }
}
