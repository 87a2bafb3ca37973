//! Preset files.

use hookward::problem::Mark;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::{KeyKind, Params};
use hookward::secret::Secret;

use super::support::{Input, NOW};

/// Shipped files of every kind.
const PRESETS: &[&str] = &[
    "adyen",
    "aws-sns",
    "http-message-signatures",
    "mandrill",
    "paypal",
    "plaid",
    "slack",
    "stripe",
    "twilio",
    "zoom",
    "standard-webhooks",
    "microsoft-graph-rich",
    "google-pubsub",
    "sendgrid",
];

const REQUEST: &[u8] = b"POST /hooks?a=1&b=2 HTTP/1.1\nContent-Type: application/json\nX-Sig: v1=00,t=1767225600\nX-Time: 1767225600\nX-Id: 1\nAuthorization: Bearer a.b.c\n\n{\"id\":\"1\",\"type\":\"x\",\"items\":[{\"a\":1}]}";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        root.join("rules/providers"),
        root.join("../../rules/providers"),
    ];
    let folder = folders.iter().find(|folder| folder.is_dir()).unwrap();
    let read = |name: &&str| {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        text.replace(&format!("provider: {name}"), "provider: fuzz")
            .into_bytes()
    };
    PRESETS.iter().map(read).collect()
}

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut catalog = Catalog::built_in();
    if let Err(report) = catalog.add("fuzz.yaml", text) {
        assert!(report.has_errors(), "refused for nothing");
        for problem in report.problems() {
            assert_is_within(problem.mark, text);
            assert!(!problem.message.is_empty());
        }
        let again = Catalog::built_in().add("fuzz.yaml", text).unwrap_err();
        assert_eq!(
            again.problems(),
            report.problems(),
            "another report of the same file"
        );
        return;
    }
    let ids: Vec<String> = {
        let preset = catalog.preset("fuzz").unwrap();
        preset.schemes().map(|(id, _)| id.to_owned()).collect()
    };
    for id in ids.iter().filter(|id| !id.contains('/')).take(8) {
        scheme(&catalog, id);
    }
}

/// SECURITY Z-08: every problem has a position, and it is one in the file.
pub(super) fn assert_is_within(mark: Mark, text: &str) {
    // The lines of YAML: a carriage return alone ends one too.
    let lines = 1 + text
        .matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
        .count();
    assert!(
        (1..=lines + 1).contains(&mark.line),
        "{mark:?} of {lines} lines"
    );
    assert!(
        (1..=text.len() + 2).contains(&mark.column),
        "{mark:?} of {} bytes",
        text.len()
    );
}

/// Whatever the scheme, an unsigned request does not pass under a key that nobody knows.
fn scheme(catalog: &Catalog, id: &str) {
    let selected = catalog.find(&format!("fuzz/{id}")).unwrap();
    let preset = &selected.preset;
    let mut params = Params::new();
    for (name, spec) in preset.params() {
        let known = spec
            .one_of
            .as_ref()
            .and_then(|known| known.get()?.first().cloned());
        if spec.default.is_none() {
            params.insert(
                name.to_owned(),
                known.unwrap_or_else(|| "example".to_owned()).into(),
            );
        }
    }
    let Ok(scheme) = selected.bind(&params, None) else {
        return;
    };
    let input = Input::parse(REQUEST).unwrap();
    let body = input.content();
    let message = input.message(&body);
    let key = |text: &[u8]| {
        let own = scheme.secret_key("own".into(), text, None);
        own.unwrap_or_else(|_| Key::secret("own".into(), Secret::new(text.to_vec()), None))
    };
    let keys = |text: &[u8]| KeySet::new(vec![key(text)]).unwrap();
    let one = keys(b"4f1d2c3b4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0");
    let two = keys(b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    let verdicts = [&one, &two].map(|keys| scheme.verify(&message, keys, NOW));
    assert!(
        verdicts.iter().any(Result::is_err) || scheme.key_kind() == KeyKind::None,
        "scheme `{id}` accepts under any key"
    );
    let [verdict, _] = verdicts;
    let _total = (
        verdict.map(|evidence| scheme.delivery(&message, &evidence)),
        scheme.precheck(message.method, message.url, message.headers),
    );
    let _known = (
        scheme.weaknesses(),
        scheme.header_names(),
        scheme.signed_tolerance(),
    );
}
