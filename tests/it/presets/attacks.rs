//! Captured requests that a stranger changes: what the signature does not pin must not get through,
//! and a copy must stay a copy.

use data_encoding::BASE64;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::KeySet;
use hookward::scheme::sign::Draft;
use hookward::scheme::{Content, DeliveryNames, Message, Params, Scheme, SenderUrl};
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::vectors::cases;

const SIGNED_AT: UnixTime = UnixTime::from_secs(1_767_225_600);
const SECRET: &[u8] = b"4f1d2c3b4a5968778695a4b3c2d1e0f0";

/// Scheme and key of a preset.
struct Judge {
    scheme: Scheme,
    keys: KeySet,
    now: UnixTime,
}

impl Judge {
    fn of(preset: &str) -> Self {
        Self::with(preset, &Params::new())
    }

    fn with(preset: &str, params: &Params) -> Self {
        let selected = Catalog::built_in().find(preset).unwrap();
        let scheme = selected.bind(params, None).unwrap();
        let key = scheme.secret_key("own".into(), SECRET, None).unwrap();
        let keys = KeySet::new(vec![key]).unwrap();
        let now = SIGNED_AT;
        Self { scheme, keys, now }
    }

    /// The first vector of a preset that is accepted, and what judges it.
    fn of_vector(preset: &str) -> (Self, Draft) {
        let case = cases()
            .into_iter()
            .find(|case| case.preset == preset && case.expect == "accept");
        let case = case.unwrap();
        let selected = Catalog::built_in().find(preset).unwrap();
        let scheme = selected.bind(&case.params, None).unwrap();
        let key = |text: &String| scheme.public_keys(&"own".into(), text.as_bytes(), None);
        let keys = case.public_keys.iter().flat_map(|text| key(text).unwrap());
        let keys = KeySet::new(keys.collect()).unwrap();
        let now = case.now.map_or(SIGNED_AT, UnixTime::from_secs);
        let mut draft = draft("/", "", "");
        draft.headers = case.headers;
        draft.body = BASE64.decode(case.body_base64.as_bytes()).unwrap();
        (Self { scheme, keys, now }, draft)
    }

    fn sign(&self, draft: Draft) -> Draft {
        let key = self.keys.all().first().unwrap();
        self.scheme.sign(draft, key, SIGNED_AT).unwrap()
    }

    /// What makes the delivery itself, where it is accepted.
    fn delivery(&self, draft: &Draft, now: UnixTime) -> Option<DeliveryNames> {
        let mut headers = HeaderMap::new();
        for (name, value) in &draft.headers {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let body = Content::from(draft.body.clone());
        let message = Message {
            method: &draft.method,
            url: &draft.url,
            headers: &headers,
            body: &body,
        };
        let evidence = self.scheme.verify(&message, &self.keys, now).ok()?;
        Some(self.scheme.delivery(&message, &evidence).unwrap())
    }

    fn accepts(&self, draft: &Draft) -> bool {
        self.delivery(draft, self.now).is_some()
    }

    /// Asserts that a changed copy is refused or known as a copy.
    fn is_a_copy(&self, original: &Draft, changed: &Draft) {
        let known = self.delivery(original, SIGNED_AT).expect("the original");
        if let Some(other) = self.delivery(changed, SIGNED_AT) {
            assert_eq!(other, known, "{changed:?}");
        }
    }
}

fn draft(target: &str, media_type: &str, body: &str) -> Draft {
    Draft {
        method: Method::POST,
        url: SenderUrl {
            origin: "https://hooks.example.org".into(),
            target: target.into(),
        },
        headers: vec![("Content-Type".to_owned(), media_type.to_owned())],
        body: body.as_bytes().to_vec(),
    }
}

fn form(target: &str, body: &str) -> Draft {
    draft(target, "application/x-www-form-urlencoded", body)
}

fn json(body: &str) -> Draft {
    draft("/", "application/json", body)
}

fn header<'d>(draft: &'d mut Draft, name: &str) -> &'d mut String {
    let mut all = draft.headers.iter_mut();
    let own = all.find(|(own, _)| own.eq_ignore_ascii_case(name));
    &mut own.unwrap().1
}

#[test]
fn a_field_behind_a_thousand_others_is_seen() {
    // SECURITY DS-33
    let judge = Judge::of("mercado-pago");
    let signed = judge.sign(draft("/?data.id=123", "application/json", "{}"));
    assert!(judge.accepts(&signed));
    let mut hidden = signed;
    hidden.url.target = format!("/?data.id=123{}&data.id=666", "&a".repeat(999)).into();
    assert!(!judge.accepts(&hidden));
}

#[test]
fn a_timestamp_in_another_place_freshens_nothing() {
    let judge = Judge::of("vonage-sms");
    let signed = judge.sign(form("/", "text=hello&messageId=1"));
    assert!(judge.accepts(&signed));
    let later = UnixTime::from_secs(SIGNED_AT.secs() + 86_400);
    let mut freshened = signed;
    freshened.url.target = format!("/?timestamp={}", later.secs()).into();
    assert_eq!(judge.delivery(&freshened, later), None);
}

#[test]
fn an_id_takes_nothing_from_its_neighbours() {
    // SECURITY A-22, A-41
    let plivo = Judge::of("plivo-v3");
    let mut signed = form("/", "Text=pay.100&To=X");
    let nonce = "X-Plivo-Signature-V3-Nonce";
    signed.headers.push((nonce.to_owned(), "12345".to_owned()));
    let mut cut = plivo.sign(signed);
    assert!(plivo.accepts(&cut));
    cut.body = b"Text=pay".to_vec();
    *header(&mut cut, nonce) = "100ToX.12345".to_owned();
    assert!(!plivo.accepts(&cut));

    let nextcloud = Judge::of("nextcloud/talk-bot");
    let signed = nextcloud.sign(json("{\"a\":1}"));
    let mut shifted = signed.clone();
    let random = header(&mut shifted, "X-Nextcloud-Talk-Random");
    let last = random.pop().unwrap();
    shifted.body.insert(0, u8::try_from(last).unwrap());
    assert!(nextcloud.accepts(&signed));
    assert!(!nextcloud.accepts(&shifted));

    let quicknode = Judge::of("quicknode");
    let mut signed = json("{\"a\":1}");
    signed
        .headers
        .push(("X-QN-Nonce".to_owned(), "abc0".to_owned()));
    let signed = quicknode.sign(signed);
    let mut shifted = signed.clone();
    *header(&mut shifted, "X-QN-Nonce") = "abc".to_owned();
    header(&mut shifted, "X-QN-Timestamp").insert(0, '0');
    assert!(quicknode.accepts(&signed));
    assert!(!quicknode.accepts(&shifted));
}

#[test]
fn another_spelling_of_the_same_content_is_a_copy() {
    // SECURITY A-22, A-41, A-42
    let twilio = Judge::of("twilio");
    let signed = twilio.sign(form("/sms", "A=1&B=2"));
    for body in ["B=2&A=1", "A=%31&B=2", "A=1&B=2&A=1", "&A=1&B=2"] {
        let mut other = signed.clone();
        other.body = body.as_bytes().to_vec();
        twilio.is_a_copy(&signed, &other);
    }
    for origin in [
        "https://hooks.example.org:443",
        "https://hooks.example.org:8443",
    ] {
        let mut other = signed.clone();
        other.url.origin = origin.into();
        twilio.is_a_copy(&signed, &other);
    }
}

#[test]
fn blanks_around_a_token_make_no_new_delivery() {
    // SECURITY A-22, A-41
    let dialpad = Judge::of("dialpad");
    let signed = dialpad.sign(json("{\"call_id\":1}"));
    for (before, after) in [("", "\n"), (" ", ""), ("\t", " \r\n")] {
        let mut other = signed.clone();
        let token = String::from_utf8(signed.body.clone()).unwrap();
        other.body = format!("{before}{token}{after}").into_bytes();
        dialpad.is_a_copy(&signed, &other);
    }
    let vonage = Judge::of("vonage-messages");
    let signed = vonage.sign(json("{\"message_uuid\":\"1\"}"));
    let mut other = signed.clone();
    *header(&mut other, "Authorization") =
        header(&mut signed.clone(), "Authorization").replacen("Bearer ", "Bearer  ", 1);
    assert_ne!(header(&mut other, "Authorization").find("  "), None);
    vonage.is_a_copy(&signed, &other);
}

#[test]
fn an_event_signed_alone_in_a_batch_is_no_other_delivery() {
    let params = [("batch_first_element".to_owned(), true.into())];
    let segment = Judge::with("segment", &params.into_iter().collect());
    let batch = segment.sign(json("[{\"a\":1}]"));
    let alone = Draft {
        body: b"{\"a\":1}".to_vec(),
        ..batch.clone()
    };
    assert!(segment.accepts(&alone));
    segment.is_a_copy(&batch, &alone);
}

#[test]
fn what_a_handshake_signs_for_anybody_is_no_delivery() {
    // SECURITY A-46
    let judge = Judge::of("x-twitter");
    assert!(judge.accepts(&judge.sign(json("{\"for_user_id\":\"1\"}"))));
    assert!(!judge.accepts(&judge.sign(json("12345"))));

    let params = Params::from([("public_key".to_owned(), "own".into())]);
    let braintree = Judge::with("braintree", &params);
    let payload = |text: &str| braintree.sign(form("/", &format!("bt_payload={text}")));
    assert!(braintree.accepts(&payload("PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4")));
    assert!(!braintree.accepts(&payload("abcdef0123456789abcd")));
}

#[test]
fn two_media_types_are_refused() {
    let judge = Judge::of("twilio");
    let mut signed = judge.sign(form("/sms", "A=1"));
    let second = ("Content-Type".to_owned(), "application/json".to_owned());
    signed.headers.push(second);
    assert!(!judge.accepts(&signed));
}

#[test]
fn a_field_that_other_readers_take_for_the_signed_one_is_refused() {
    // SECURITY RT-25, DS-18
    for preset in ["gogs/form", "gitea/form", "forgejo/form"] {
        let judge = Judge::of(preset);
        let signed = judge.sign(form("/hook?a=1;b=2", "payload=%7B%7D"));
        assert!(judge.accepts(&signed), "{preset}");
        // Rack passes over brackets before a name.
        for more in [
            "[payload]=x",
            "]payload=x",
            "[[payload][a]=x",
            "payload[]=x",
            "a=1;payload=x",
        ] {
            let mut other = signed.clone();
            other.body.extend(format!("&{more}").bytes());
            assert!(!judge.accepts(&other), "{preset}: {more}");
        }
        // Servlets read the query first, Rack begins a field behind a `;`.
        for query in [
            "payload=x",
            "a=1&Payload[]=x",
            "a=1;payload=x",
            "%70ayload",
            "a;payload",
        ] {
            let mut other = signed.clone();
            other.url.target = format!("/hook?{query}").into();
            assert!(!judge.accepts(&other), "{preset}: {query}");
        }
    }
}

#[test]
fn values_of_a_json_body_are_signed_for_those_who_read_json() {
    // SECURITY A-39, DS-18
    let item = "{\"amount\":{\"value\":1,\"currency\":\"EUR\"},\"pspReference\":\"a\",\"merchantAccountCode\":\"m\",\
        \"merchantReference\":\"r\",\"eventCode\":\"AUTHORISATION\",\"success\":\"true\",\"additionalData\":{}}";
    let items = format!("{{\"notificationItems\":[{{\"NotificationRequestItem\":{item}}}]}}");
    let signed = |preset, body| {
        let judge = Judge::of(preset);
        let signed = judge.sign(json(body));
        (judge, signed)
    };
    let lever = signed("lever", "{\"token\":\"t1\",\"data\":{}}");
    let adyen = signed("adyen/standard", &items);
    let of_vectors = ["apple-app-store", "aws-sns"].map(Judge::of_vector);
    for (judge, signed) in [lever, adyen].into_iter().chain(of_vectors) {
        let what = String::from_utf8_lossy(&signed.body).into_owned();
        assert!(judge.accepts(&signed), "{what}");
        for (media_type, holds) in [
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=ISO-8859-1", true),
            ("text/plain", true),
            ("application/json; charset=utf-7", false),
            ("application/json; charset=utf-16le", false),
            ("application/json; charset=utf-8; charset=utf-7", false),
            ("application/json; charset*=utf-8''utf-7", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=x", false),
            ("application/x-www-form-urlencoded; x=\u{e9}", false),
            ("application/json; charset=utf-16le; x=\u{e9}", false),
            ("application/x-www-form-urlencoded, a", false),
            ("multipart/form-data boundary=x", false),
            ("application/json; charset", false),
            ("application/json;", true),
        ] {
            let mut other = signed.clone();
            media_type.clone_into(header(&mut other, "content-type"));
            assert_eq!(judge.accepts(&other), holds, "{media_type}: {what}");
        }
        for (coding, holds) in [("identity", true), ("gzip", false), ("br", false)] {
            let mut other = signed.clone();
            let field = ("Content-Encoding".to_owned(), coding.to_owned());
            other.headers.push(field);
            assert_eq!(judge.accepts(&other), holds, "{coding}: {what}");
        }
    }
}
