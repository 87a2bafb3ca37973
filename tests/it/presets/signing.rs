//! What a scheme signs it verifies, and nothing else where it covers the body.

use std::collections::BTreeSet;
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER};
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::sign::Draft;
use hookward::scheme::spec::{Algorithm, SchemeSpec, SecretEncoding};
use hookward::scheme::{Content, KeyKind, Message, Params, Scheme, SenderUrl};
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::NON_ALPHANUMERIC;

use super::{presets, schemes, written};

const NOW: UnixTime = UnixTime::from_secs(1_767_225_600);

/// What `{SOURCE:NAME}` in the templates of a scheme asks of a request.
#[derive(Default)]
struct Wants {
    form: BTreeSet<String>,
    header: BTreeSet<String>,
    /// Header and text of a list whose items are signed.
    items: Vec<(String, String)>,
    json: BTreeSet<String>,
    /// Form field that holds the JSON.
    json_in: Option<String>,
    query: BTreeSet<String>,
    /// Nothing but the query is signed, so that there is no body.
    query_alone: bool,
    xml: BTreeSet<String>,
}

impl Wants {
    fn of(scheme: &serde_yaml::Value) -> Self {
        let text = serde_yaml::to_string(scheme).unwrap();
        let json_in = scheme
            .get("json_from")
            .and_then(|from| from.get("form")?.as_str());
        let signed = scheme.get("signed").and_then(serde_yaml::Value::as_str);
        let mut wants = Self {
            json_in: json_in.map(str::to_owned),
            query_alone: signed.is_some_and(|text| text.starts_with("{query:")),
            ..Self::default()
        };
        if Self::is_of_form(scheme) {
            wants.form.insert("greeting".to_owned());
        }
        for inner in text
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
        {
            let source = inner.split('|').next().unwrap().trim_end_matches('?');
            let Some((word, argument)) = source.split_once(':') else {
                continue;
            };
            if word == "item" {
                wants.items.extend(Self::list(scheme, argument));
                continue;
            }
            let list = match word {
                "form" => &mut wants.form,
                "header" => &mut wants.header,
                "json" | "json_compact" | "json_raw" | "json_sorted" => &mut wants.json,
                "query" => &mut wants.query,
                "xml" => &mut wants.xml,
                _ => continue,
            };
            list.insert(argument.to_owned());
        }
        wants
    }

    /// Whether a form is wanted though no template names a field of it: the signature stands in one,
    /// or its fields are signed as they come.
    fn is_of_form(scheme: &serde_yaml::Value) -> bool {
        let signature = scheme.get("signature");
        if signature.is_some_and(|own| own.get("form").is_some() && own.get("json").is_none()) {
            return true;
        }
        let Some(lists) = scheme.get("fields").and_then(serde_yaml::Value::as_mapping) else {
            return false;
        };
        lists.values().any(|list| match list.get("from") {
            Some(serde_yaml::Value::Sequence(all)) => all.iter().any(|from| from == "form"),
            Some(from) => from == "form",
            None => false,
        })
    }

    /// An item of the signature's list, as `--header` gives it.
    fn list(scheme: &serde_yaml::Value, item: &str) -> Option<(String, String)> {
        let signature = scheme.get("signature")?;
        let assign = signature.get("list")?.get("assign")?.as_str()?;
        let header = signature.get("header")?.as_str()?;
        Some((header.to_owned(), format!("{item}{assign}example")))
    }

    /// A request that has all of it.
    fn draft(&self) -> Draft {
        let mut headers = self.items.clone();
        headers.extend(
            self.header
                .iter()
                .map(|name| (name.clone(), "example".to_owned())),
        );
        let query: Vec<_> = self
            .query
            .iter()
            .map(|name| format!("{name}=example"))
            .collect();
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        };
        let (media_type, body) = if let Some(name) = &self.json_in {
            let json = self.json_body().to_string();
            let json = percent_encoding::utf8_percent_encode(&json, NON_ALPHANUMERIC);
            (
                "application/x-www-form-urlencoded",
                format!("{name}={json}"),
            )
        } else if !self.form.is_empty() {
            let pairs: Vec<_> = self
                .form
                .iter()
                .map(|name| format!("{name}=e%21"))
                .collect();
            ("application/x-www-form-urlencoded", pairs.join("&"))
        } else if !self.xml.is_empty() {
            (
                "application/xml",
                self.xml.iter().map(String::as_str).map(element).collect(),
            )
        } else if self.query_alone {
            ("text/plain", String::new())
        } else {
            ("application/json", self.json_body().to_string())
        };
        if !self
            .header
            .iter()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
        {
            headers.push(("Content-Type".to_owned(), media_type.to_owned()));
        }
        Draft {
            method: Method::POST,
            url: SenderUrl {
                origin: "https://hooks.example.org".into(),
                target: format!("/hooks{query}").into(),
            },
            headers,
            body: body.into_bytes(),
        }
    }

    fn json_body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "hello": "world" });
        for pointer in self.json.iter().filter(|pointer| !pointer.is_empty()) {
            let mut at = &mut body;
            for token in pointer.split('/').skip(1) {
                if at.is_null() {
                    *at = serde_json::json!({});
                }
                at = at
                    .as_object_mut()
                    .unwrap()
                    .entry(token)
                    .or_insert_with(|| ().into());
            }
            if at.is_null() {
                *at = "example".into();
            }
        }
        body
    }
}

/// `/a/b` as `<a><b>example</b></a>`.
fn element(path: &str) -> String {
    path.rsplit('/')
        .take_while(|name| !name.is_empty())
        .fold("example".to_owned(), |inner, name| {
            format!("<{name}>{inner}</{name}>")
        })
}

fn secret_for(scheme: &Scheme, is_basic: bool) -> String {
    let plain = if is_basic {
        "user:password"
    } else {
        "an example of a secret, long enough"
    };
    match scheme.secret_encoding() {
        SecretEncoding::Base64 => BASE64.encode(plain.as_bytes()),
        SecretEncoding::Hex => HEXLOWER.encode(plain.as_bytes()),
        SecretEncoding::Utf8 => plain.to_owned(),
    }
}

/// A scheme with a key, to judge what it signed.
struct Judge<'a> {
    scheme: &'a Scheme,
    key: Key,
}

impl Judge<'_> {
    fn sign(&self, draft: Draft) -> Result<Draft, String> {
        let signed = self.scheme.sign(draft, &self.key, NOW);
        signed.map_err(|error| format!("sign: {error}"))
    }

    fn accepts(&self, request: &Draft) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name: HeaderName = name.parse().map_err(|error| format!("{name}: {error}"))?;
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            headers.append(name, value);
        }
        let body = Content::from(request.body.clone());
        let message = Message {
            method: &request.method,
            url: &request.url,
            headers: &headers,
            body: &body,
        };
        let keys = KeySet::new(vec![self.key.clone()]).unwrap();
        let verdict = self.scheme.verify(&message, &keys, NOW);
        verdict
            .map(drop)
            .map_err(|error| format!("verify: {error}"))
    }

    /// Whether it accepts what it signed; and no other body, where it is said to cover the body.
    fn holds(&self, draft: Draft) -> Result<(), String> {
        let signed = self.sign(draft.clone())?;
        self.accepts(&signed)?;
        if !self.scheme.covers_body() {
            return Ok(());
        }
        let mut other = signed;
        let place = other
            .body
            .iter()
            .position(|byte| *byte == b'e')
            .ok_or("no letter to change")?;
        other.body[place] = b'E';
        if self.accepts(&other).is_ok() {
            return Err("the body is said to be covered, but a changed one is accepted".to_owned());
        }
        // Where only the fields of a form are signed, a signature over none must not let in a body
        // of another type.
        let empty = Draft {
            body: Vec::new(),
            ..draft
        };
        if let Ok(mut other) = self.sign(empty) {
            other
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
            other
                .headers
                .push(("Content-Type".to_owned(), "application/json".to_owned()));
            other.body = b"{\"hello\":\"world\"}".to_vec();
            if self.accepts(&other).is_ok() {
                return Err(
                    "a JSON body is accepted under the signature of an empty one".to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// A key pair of every kind that a preset can sign with, made by openssl.
fn key_pairs() -> Vec<Vec<u8>> {
    let kinds = [
        vec!["ed25519"],
        vec!["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        vec!["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        vec!["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    ];
    let made = kinds.iter().map(|kind| {
        let mut openssl = Command::new("openssl");
        let made = openssl
            .args(["genpkey", "-algorithm"])
            .args(kind)
            .output()
            .unwrap();
        assert!(made.status.success(), "{kind:?}");
        made.stdout
    });
    made.collect()
}

/// A key that a user could hold for the scheme.
fn key_for(scheme: &Scheme, spec: &SchemeSpec, pairs: &[Vec<u8>]) -> Result<Key, String> {
    if scheme.key_kind() == KeyKind::Secret {
        let is_basic = spec
            .algorithm
            .get()
            .is_some_and(|own| *own == Algorithm::Basic);
        let secret = secret_for(scheme, is_basic);
        return scheme.secret_key("example".into(), secret.as_bytes(), None);
    }
    let mut keys = pairs
        .iter()
        .map(|pair| scheme.private_key("example".into(), pair));
    keys.find_map(Result::ok)
        .ok_or_else(|| "no key pair is of its kind".to_owned())
}

/// What a draft made here does not fit: items of a body that are signed each (see below), values inside
/// XML, and tokens with a chain of certificates, which only the provider has. Nobody signs by SHA-1 any more.
fn is_signed_elsewhere(spec: &SchemeSpec) -> bool {
    let in_xml = spec
        .signature
        .as_ref()
        .and_then(|at| at.get()?.xml.as_ref());
    let by_chain = spec.jwt.as_ref().and_then(|at| at.get()?.x5c.as_ref());
    let by_sha1 = spec.algorithm.get() == Some(&Algorithm::RsaSha1);
    spec.each.is_some() || in_xml.is_some() || by_chain.is_some() || by_sha1
}

#[test]
fn every_scheme_accepts_what_it_signed() {
    let pairs = key_pairs();
    let mut wrong = Vec::new();
    let mut count = 0;
    for preset in presets() {
        for ((reference, scheme), (id, spec)) in schemes(&preset).iter().zip(preset.schemes()) {
            if scheme.key_kind() == KeyKind::None || is_signed_elsewhere(spec) {
                continue;
            }
            count += 1;
            let draft = Wants::of(&written(&preset, id)).draft();
            let key = key_for(scheme, spec, &pairs);
            let held = key.and_then(|key| Judge { scheme, key }.holds(draft));
            wrong.extend(held.err().map(|error| format!("{reference}: {error}")));
        }
    }
    assert!(count > 300, "only {count} schemes");
    assert!(
        wrong.is_empty(),
        "{} of {count} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Whatever the body is: where a scheme covers nothing of it, it does not sign.
#[test]
fn a_body_of_any_kind_is_signed_so_that_it_verifies_or_not_at_all() {
    let bodies = [
        ("application/json", "{\"hello\":\"world\"}"),
        ("application/x-www-form-urlencoded", "hello=world"),
        ("application/xml", "<hello>world</hello>"),
        ("text/plain", "hello, world"),
        ("", "hello, world"),
        ("", ""),
    ];
    let pairs = key_pairs();
    let (mut wrong, mut signed_count) = (Vec::new(), 0);
    for preset in presets() {
        for ((reference, scheme), (_, spec)) in schemes(&preset).iter().zip(preset.schemes()) {
            if scheme.key_kind() == KeyKind::None {
                continue;
            }
            let judge = Judge {
                scheme,
                key: key_for(scheme, spec, &pairs).unwrap(),
            };
            for (media_type, body) in bodies {
                let mut draft = Wants::default().draft();
                draft.headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
                draft.headers.retain(|(_, value)| !value.is_empty());
                draft.body = body.as_bytes().to_vec();
                if let Ok(signed) = judge.sign(draft) {
                    signed_count += 1;
                    let held = judge.accepts(&signed).err();
                    wrong.extend(held.map(|error| format!("{reference}, {media_type}: {error}")));
                }
            }
        }
    }
    assert!(signed_count > 1000, "only {signed_count} requests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Items that are signed each, in the bodies that the vectors have.
#[test]
fn items_are_signed_each_in_their_place() {
    let catalog = Catalog::built_in();
    for (reference, secret, body) in [
        (
            "adyen/standard",
            "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
            r#"{"notificationItems":[
                {"NotificationRequestItem":{"pspReference":"1","eventCode":"A","amount":{"value":1,"currency":"EUR"}}},
                {"NotificationRequestItem":{"pspReference":"2","eventCode":"B","amount":{"value":2,"currency":"EUR"}}}
            ]}"#,
        ),
        (
            "microsoft-graph",
            "the client state",
            r#"{"value":[{"changeType":"created"},{"changeType":"updated"}]}"#,
        ),
    ] {
        let scheme = catalog
            .find(reference)
            .unwrap()
            .bind(&Params::new(), None)
            .unwrap();
        let key = scheme
            .secret_key("example".into(), secret.as_bytes(), None)
            .unwrap();
        let url = SenderUrl {
            origin: "https://hooks.example.org".into(),
            target: "/hook".into(),
        };
        let draft = Draft {
            method: Method::POST,
            url,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        };
        let signed = scheme.sign(draft, &key, NOW).unwrap();
        let keys = KeySet::new(vec![key]).unwrap();
        let judge = |body: Vec<u8>| {
            let message = Message {
                method: &signed.method,
                url: &signed.url,
                headers: &HeaderMap::new(),
                body: &Content::from(body),
            };
            scheme.verify(&message, &keys, NOW).is_ok()
        };
        assert!(judge(signed.body.clone()), "{reference}");
        assert!(
            !judge(body.as_bytes().to_vec()),
            "{reference}: the draft itself"
        );
    }
}
