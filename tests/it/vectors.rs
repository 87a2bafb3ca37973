//! Replays the vectors of every preset through the engine: what the provider's documentation and
//! library say must be accepted and refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::{Content, KeyKind, Message, Params, SenderUrl};
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

/// One case, as `tests/vectors/README.md` explains it.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) preset: String,
    pub(crate) case: String,
    pub(crate) kind: String,
    pub(crate) expect: String,
    pub(crate) now: Option<i64>,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    #[serde(default)]
    pub(crate) public_keys: Vec<String>,
    #[serde(default)]
    pub(crate) params: Params,
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_base64: String,
    /// The answer to a handshake.
    pub(crate) expect_response: Option<serde_json::Value>,
}

/// Every case of every file.
pub(crate) fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "jsonl")
    });
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
        {
            let case = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}:{}: {error}", file.display(), number + 1));
            cases.push(case);
        }
    }
    cases
}

/// The verdict on a case: its reason when refused.
fn judge(catalog: &Catalog, case: &Case) -> Result<Result<(), String>, String> {
    let selected = catalog
        .find(&case.preset)
        .map_err(|error| error.to_string())?;
    let scheme = selected
        .bind(&case.params, None)
        .map_err(|wrong| wrong.join("; "))?;
    let mut keys: Vec<Key> = Vec::new();
    for (index, secret) in case.secrets.iter().enumerate() {
        let id = format!("secret-{index}").into();
        match scheme.secret_key(id, secret.as_bytes(), None) {
            Ok(key) => keys.push(key),
            Err(error) if case.expect == "reject" => return Ok(Err(error)),
            Err(error) => return Err(error),
        }
    }
    for (index, key) in case.public_keys.iter().enumerate() {
        let id: Arc<str> = format!("key-{index}").into();
        keys.extend(scheme.public_keys(&id, key.as_bytes(), None)?);
    }
    if scheme.key_kind() == KeyKind::None {
        keys.push(Key::secret(
            "none".into(),
            hookward::secret::Secret::new(vec![0]),
            None,
        ));
    }
    let keys = KeySet::new(keys).ok_or("no keys")?;
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let name: HeaderName = name.parse().map_err(|_bad| format!("header {name}"))?;
        let value =
            HeaderValue::from_bytes(value.as_bytes()).map_err(|_bad| format!("value of {name}"))?;
        headers.append(name, value);
    }
    let (scheme_part, rest) = case.url.split_once("://").ok_or("url")?;
    let slash = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(slash);
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let url = SenderUrl {
        origin: format!("{scheme_part}://{host}").into(),
        target: target.into(),
    };
    let method = Method::from_bytes(case.method.as_bytes()).map_err(|error| error.to_string())?;
    let body = BASE64
        .decode(case.body_base64.as_bytes())
        .map_err(|error| error.to_string())?;
    let body = Content::from(body);
    let message = Message {
        method: &method,
        url: &url,
        headers: &headers,
        body: &body,
    };
    let now = UnixTime::from_secs(case.now.unwrap_or(1_767_225_600));
    if let Err(error) = scheme.precheck(&method, &url, &headers) {
        // What the head alone refuses, the whole request must not pass.
        if scheme.verify(&message, &keys, now).is_ok() {
            return Err(format!("precheck says {error}, verify accepts"));
        }
        return Ok(Err(error.to_string()));
    }
    Ok(scheme
        .verify(&message, &keys, now)
        .map(drop)
        .map_err(|error| error.to_string()))
}

#[test]
fn every_vector_gets_its_verdict() {
    let catalog = Catalog::built_in();
    let all = cases();
    let requests: Vec<&Case> = all.iter().filter(|case| case.kind == "request").collect();
    assert!(!requests.is_empty());
    let mut wrong = Vec::new();
    for case in &requests {
        let got = judge(&catalog, case);
        let told = match (&got, case.expect.as_str()) {
            (Ok(Ok(())), "accept") | (Ok(Err(_)), "reject") => continue,
            (Ok(Ok(())), _) => "accepted".to_owned(),
            (Ok(Err(reason)), _) => format!("refused: {reason}"),
            (Err(error), _) => format!("could not judge: {error}"),
        };
        wrong.push(format!(
            "{}: {}: expected {}, {told}",
            case.preset, case.case, case.expect
        ));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        requests.len(),
        wrong.join("\n")
    );
}
