//! A provider takes one file: the made-up one of `docs/presets.md`, loaded from `providers_dir`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::root;
use crate::support::{Gateway, hmac_hex};

/// The preset that `docs/presets.md` makes up to explain how one is added.
fn made_up() -> String {
    let page = fs::read_to_string(root().join("docs/presets.md")).unwrap();
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let mut presets = blocks.filter(|block| block.starts_with("provider: "));
    presets
        .next()
        .expect("the page has a preset as its example")
        .to_owned()
}

const OWN_PRESETS: &str = "
version: 1
admin: { address: 127.0.0.1:0 }
listeners:
  https: { address: 127.0.0.1:0, tls: { self_signed: [localhost] } }
providers_dir: DIR/providers
routes:
  - name: post
    match: { path: /post }
    verify: [{ provider: acme-post, secrets: [\"value:an example of a secret, long enough\"] }]
    upstream: echo
";

fn write_preset(folder: &Path, text: &str) {
    fs::create_dir(folder.join("providers")).unwrap();
    fs::write(folder.join("providers/acme-post.yaml"), text).unwrap();
}

fn hookward(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    let output = command
        .args(arguments)
        .env_remove("HOOKWARD_CONFIG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The gateway serves it, the command line shows and judges it.
#[test]
fn a_preset_of_ones_own_serves() {
    let gateway = Gateway::start_with(OWN_PRESETS, &[], |dir| write_preset(dir, &made_up()));
    let body = br#"{"id":"msg_1","event":"delivered"}"#;
    let now = Command::new("date").arg("+%s").output().unwrap().stdout;
    let now = String::from_utf8(now).unwrap().trim().to_owned();
    let content = [now.as_bytes(), b".", body].concat();
    let mac = hmac_hex("sha256", "an example of a secret, long enough", &content);
    let signature = format!("t={now},v1={mac}");
    let forged = format!("t={now},v1={}", "0".repeat(64));
    assert_eq!(
        gateway
            .post("/post", &[("Acme-Signature", &signature)], body)
            .status,
        200
    );
    assert_eq!(
        gateway
            .post("/post", &[("Acme-Signature", &forged)], body)
            .status,
        401
    );
    assert_eq!(gateway.post("/post", &[], body).status, 401);

    let folder = gateway.dir().join("providers");
    let folder = folder.to_str().unwrap();
    let (code, shown, _) = hookward(&["providers", "show", "acme-post", "--providers-dir", folder]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("Acme Post") && shown.contains("{timestamp}.{body}"),
        "{shown}"
    );

    let request = gateway.dir().join("request.http");
    let message =
        format!("POST /post HTTP/1.1\r\nHost: localhost\r\nAcme-Signature: {signature}\r\n\r\n");
    fs::write(&request, [message.as_bytes(), body].concat()).unwrap();
    let config = gateway.config();
    let verify = [
        "verify",
        "-c",
        config.to_str().unwrap(),
        "--route",
        "post",
        "--request",
        request.to_str().unwrap(),
    ];
    let (code, verdict, problems) = hookward(&verify);
    assert_eq!(code, Some(0), "{verdict}{problems}");
}

/// A mistake in such a file is a problem of the configuration, with its place.
#[test]
fn a_mistake_in_a_preset_of_ones_own_has_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = made_up().replace("{timestamp}.{body}", "{timestmap}.{body}");
    let line = text
        .lines()
        .position(|line| line.contains("timestmap"))
        .unwrap()
        + 1;
    write_preset(dir.path(), &text);
    let config = dir.path().join("hookward.yaml");
    fs::write(
        &config,
        OWN_PRESETS.replace("DIR", dir.path().to_str().unwrap()),
    )
    .unwrap();
    let (code, _, problems) = hookward(&["validate", "-c", config.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{problems}");
    assert!(
        problems.contains(&format!("acme-post.yaml:{line}:")),
        "{problems}"
    );
    assert!(
        problems.contains("did you mean `{timestamp}`?"),
        "{problems}"
    );
}
