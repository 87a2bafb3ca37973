//! Requests as text, the vectors as seeds, and a second HMAC to judge the first one by.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use hookward::cli::verify::request;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::{Content, KeyKind, Message, Params, Scheme, SenderUrl};
use hookward::secret::Secret;
use hookward::units::UnixTime;
use http::{HeaderMap, Method};
use serde::Deserialize;
use sha2::Sha256;

/// The moment of targets that need one.
pub(super) const NOW: UnixTime = UnixTime::from_secs(1_767_225_600);
/// The key of schemes that are made here.
pub(super) const SECRET: &str = "fuzz-secret-0123456789abcdef";
/// Where requests without an absolute target were sent.
const ORIGIN: &str = "https://hooks.example.org";

/// A request, owned.
pub(super) struct Input {
    pub(super) method: Method,
    pub(super) url: SenderUrl,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Input {
    /// Reads a request as `hookward verify` does; an absolute target is the URL that the sender called.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let captured = request::parse(bytes).ok()?;
        let target = captured.target.as_str();
        let (origin, target) = match target.split_once("://") {
            Some((scheme, rest)) if !target.starts_with('/') => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (host, target) = rest.split_at(end);
                let slash = if target.starts_with('/') { "" } else { "/" };
                (format!("{scheme}://{host}"), format!("{slash}{target}"))
            }
            _ => (ORIGIN.to_owned(), target.to_owned()),
        };
        Some(Self {
            method: captured.method,
            url: SenderUrl {
                origin: origin.into(),
                target: target.into(),
            },
            headers: captured.headers,
            body: captured.body.to_vec(),
        })
    }

    pub(super) fn content(&self) -> Content {
        Content::from(self.body.clone())
    }

    pub(super) fn message<'a>(&'a self, body: &'a Content) -> Message<'a> {
        Message {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body,
        }
    }
}

/// A scheme with what it verifies by.
pub(super) struct Judge {
    pub(super) scheme: Scheme,
    pub(super) keys: KeySet,
    /// A key that signed nothing.
    pub(super) foreign: Option<KeySet>,
    pub(super) now: UnixTime,
    pub(super) preset: String,
    params: Params,
    secrets: Vec<String>,
    public_keys: Vec<String>,
}

/// One vector.
#[derive(Deserialize)]
struct Case {
    preset: String,
    kind: String,
    now: Option<i64>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    public_keys: Vec<String>,
    #[serde(default)]
    params: Params,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body_base64: String,
}

impl Case {
    fn print(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\n", self.method, self.url).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&BASE64.decode(self.body_base64.as_bytes()).unwrap());
        bytes
    }

    fn now(&self) -> UnixTime {
        self.now.map_or(NOW, UnixTime::from_secs)
    }

    fn judge(&self, catalog: &Catalog) -> Option<Judge> {
        let scheme = catalog
            .find(&self.preset)
            .ok()?
            .bind(&self.params, None)
            .ok()?;
        let mut keys = Vec::new();
        for (index, secret) in self.secrets.iter().enumerate() {
            let id = format!("secret-{index}").into();
            keys.push(scheme.secret_key(id, secret.as_bytes(), None).ok()?);
        }
        for (index, key) in self.public_keys.iter().enumerate() {
            let id: Arc<str> = format!("key-{index}").into();
            keys.extend(scheme.public_keys(&id, key.as_bytes(), None).ok()?);
        }
        if scheme.key_kind() == KeyKind::None {
            keys.push(Key::secret("none".into(), Secret::new(vec![0]), None));
        }
        Some(Judge {
            foreign: foreign(&scheme),
            keys: KeySet::new(keys)?,
            now: self.now(),
            preset: self.preset.clone(),
            params: self.params.clone(),
            secrets: self.secrets.clone(),
            public_keys: self.public_keys.clone(),
            scheme,
        })
    }

    fn is_of(&self, judge: &Judge) -> bool {
        self.preset == judge.preset
            && self.params == judge.params
            && self.secrets == judge.secrets
            && self.public_keys == judge.public_keys
            && self.now() == judge.now
    }
}

/// A secret in whichever spelling the scheme takes, that no vector uses.
fn foreign(scheme: &Scheme) -> Option<KeySet> {
    if scheme.key_kind() != KeyKind::Secret {
        return None;
    }
    let texts = [
        "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC0wMDAwMDA=",
        "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC0wMDAwMDA=",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    ];
    let mut keys = texts.iter().filter_map(|text| {
        scheme
            .secret_key("foreign".into(), text.as_bytes(), None)
            .ok()
    });
    KeySet::new(vec![keys.next()?])
}

/// The folder of the vectors, from the main package and from that of the fuzzer.
fn vectors() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let main = own.join("tests/vectors");
    if main.is_dir() {
        main
    } else {
        own.join("../vectors")
    }
}

/// The judges of a target, and its seeds: two bytes that choose a judge, then a request.
#[derive(Default)]
pub(super) struct Bench {
    judges: Vec<Judge>,
    seeds: Vec<Vec<u8>>,
}

impl Bench {
    /// From the vectors of these presets.
    pub(super) fn of(presets: &[&str]) -> Self {
        let catalog = Catalog::built_in();
        let mut bench = Self::default();
        for preset in presets {
            let file = vectors().join(format!("{preset}.jsonl"));
            let text =
                fs::read_to_string(&file).unwrap_or_else(|error| panic!("{preset}: {error}"));
            for line in text.lines() {
                let case: Case = serde_json::from_str(line).unwrap();
                if case.kind == "request" {
                    bench.add(&catalog, &case);
                }
            }
        }
        assert!(!bench.judges.is_empty());
        bench
    }

    fn add(&mut self, catalog: &Catalog, case: &Case) {
        let known = self.judges.iter().position(|judge| case.is_of(judge));
        let index = match known {
            Some(index) => index,
            None => match case.judge(catalog) {
                Some(judge) => {
                    self.judges.push(judge);
                    self.judges.len() - 1
                }
                None => return,
            },
        };
        let mut seed = u16::try_from(index).unwrap().to_le_bytes().to_vec();
        seed.extend(case.print());
        self.seeds.push(seed);
    }

    pub(super) fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    /// What the input asks for.
    pub(super) fn split<'a>(&self, data: &'a [u8]) -> Option<(&Judge, &'a [u8])> {
        let (index, rest) = data.split_first_chunk::<2>()?;
        let index = usize::from(u16::from_le_bytes(*index)) % self.judges.len();
        Some((&self.judges[index], rest))
    }
}

/// Schemes written for a target, each with [`SECRET`].
pub(super) fn own(schemes: &str) -> Catalog {
    let mut catalog = Catalog::built_in();
    let text = preset(schemes);
    catalog
        .add("own.yaml", &text)
        .unwrap_or_else(|report| panic!("{text}\n{report}"));
    catalog
}

/// A preset file around schemes.
pub(super) fn preset(schemes: &str) -> String {
    let head = "provider: own\ntitle: Own\ncategory: tests\nconfidence: high\nsources: [none]\nsecret: Any.\n";
    format!("{head}schemes:\n{schemes}\n")
}

/// A scheme of [`own`], and its keys.
pub(super) fn own_scheme(catalog: &Catalog, id: &str) -> Option<(Scheme, KeySet)> {
    let scheme = catalog.find(&format!("own/{id}")).ok()?;
    let scheme = scheme.bind(&Params::new(), None).ok()?;
    let key = scheme
        .secret_key("own".into(), SECRET.as_bytes(), None)
        .ok()?;
    Some((scheme, KeySet::new(vec![key])?))
}

/// A value that is made once and kept.
pub(super) type Once<T> = OnceLock<T>;

/// HMAC-SHA256, by the library itself.
pub(super) fn hmac_sha256(key: &[u8], content: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().into()
}

/// The first line and what follows it.
pub(super) fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    match end {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
