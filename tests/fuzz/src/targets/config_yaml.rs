//! `hookward.yaml`.

use std::path::Path;

use hookward::config::{Environment, load_text};

use super::scheme_yaml::assert_is_within;

const PLAIN: &str = "version: 1
listeners:
  http: { address: 127.0.0.1:8080, plaintext: allow, trusted_proxies: [10.0.0.0/8] }
upstreams:
  app: { servers: [http://127.0.0.1:3000], timeout: 5s }
routes:
  - name: github
    match: { host: \"*.example.org\", path: /hooks/github, methods: [POST] }
    verify:
      - provider: github
        secrets: [env:SECRET]
    replay: { window: 10m, on_duplicate: reject }
    upstream: app
  - name: own
    match: { path: \"/own/{token}/{*rest}\" }
    allow_ips: [192.0.2.0/24]
    rate_limits: [{ key: client_ip, rate: 30/s, burst: 60 }]
    verify:
      - token: { path: token, secrets: [env:SECRET] }
      - scheme:
          algorithm: hmac-sha256
          signature: { header: X-Sig, prefix: \"sha256=\" }
          timestamp: { header: X-Time }
          signed: \"{timestamp}.{body}\"
        secrets: [env:SECRET]
    upstream: echo
";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        root.join("tests/config/valid"),
        root.join("../config/valid"),
    ];
    let folder = folders.iter().find(|folder| folder.is_dir()).unwrap();
    let mut seeds = vec![PLAIN.as_bytes().to_vec()];
    for name in ["checks.yaml", "contract.yaml", "warnings.yaml"] {
        seeds.push(std::fs::read(folder.join(name)).unwrap());
    }
    seeds
}

/// SECURITY Z-08: no panic, and every problem has a position.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Files of the machine are none of a fuzzer's business.
    if [
        "file:",
        "cert",
        "key:",
        "htpasswd",
        "providers_dir",
        "_ca",
        "ca:",
    ]
    .iter()
    .any(|word| text.contains(word))
    {
        let text = text.replace("file:", "env:").replace('/', "|");
        return judge(&text);
    }
    judge(text);
}

fn judge(text: &str) {
    let env = Environment::from_pairs([("SECRET", "an-env-secret-0123456789abcdef")]);
    let loaded = load_text("hookward.yaml", text, Path::new("/nonexistent"), &env);
    assert_eq!(
        loaded.config.is_none(),
        loaded.report.has_errors(),
        "neither good nor bad"
    );
    for problem in loaded.report.problems() {
        assert_is_within(problem.mark, text);
        assert!(!problem.message.is_empty());
    }
    let Some(config) = loaded.config else { return };
    // What a route table was made of, it finds.
    for route in config.routes.routes() {
        assert!(
            !route.matches.methods.is_empty(),
            "a route without a method"
        );
    }
}
