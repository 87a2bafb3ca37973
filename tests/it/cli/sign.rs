//! `sign`: what the provider would send, in three forms.

use std::process::Command;

use data_encoding::BASE64;
use hookward::scheme::catalog::Catalog;
use hookward::scheme::{KeyKind, Params};

use super::Shell;
use crate::support::hmac_hex;

const SECRET: &str = "an example secret of 32 characters";
const BODY: &str = "{\"a\":1}\n";

fn sign(shell: &Shell, more: &[&str]) -> super::Ended {
    let secret = format!("value:{SECRET}");
    let mut args = vec![
        "sign",
        "--provider",
        "github",
        "--secret",
        &secret,
        "--body",
        "body",
    ];
    args.extend(more);
    shell.run(&args)
}

#[test]
fn an_http_message_with_the_providers_signature() {
    let shell = Shell::new().with("body", BODY);
    let ended = sign(&shell, &["--url", "https://hooks.example.org/gh?x=1"]).code(0);
    assert_eq!(ended.stderr, "");
    let signature = hmac_hex("sha256", SECRET, BODY.as_bytes());
    let expected = format!(
        "POST /gh?x=1 HTTP/1.1\r\nHost: hooks.example.org\r\nContent-Type: application/json\r\n\
         X-Hub-Signature-256: sha256={signature}\r\nContent-Length: 8\r\n\r\n{BODY}"
    );
    assert_eq!(ended.stdout, expected);
}

#[test]
fn what_is_given_goes_before_what_is_filled_in() {
    let shell = Shell::new().with("body", "a=b");
    let given = [
        "--method",
        "PUT",
        "--header",
        "Content-Type: text/plain",
        "--header",
        "Host: h.example",
    ];
    let ended = sign(&shell, &given).code(0);
    assert!(
        ended
            .stdout
            .starts_with("PUT / HTTP/1.1\r\nContent-Type: text/plain\r\nHost: h.example\r\n")
    );
    assert_eq!(ended.stdout.matches("Host:").count(), 1);
}

#[test]
fn a_header_that_signing_writes_itself_is_left_out_with_a_warning() {
    let shell = Shell::new().with("body", "");
    let sign = |provider: &str, headers: &[&str]| {
        let args = ["sign", "--secret", "value:an example secret"];
        let request = ["--provider", provider, "--body", "body"];
        let headers: Vec<_> = headers.iter().flat_map(|own| ["--header", own]).collect();
        shell.run(&[&args[..], &request, &headers].concat()).code(0)
    };
    for (provider, headers, left_out) in [
        (
            "github",
            &["x-hub-signature-256: foo", "X-Other: foo"][..],
            Some("x-hub-signature-256"),
        ),
        (
            "github",
            &["X-Hub-Signature-256: sha256="],
            Some("X-Hub-Signature-256"),
        ),
        (
            "github",
            &["X-Hub-Signature-256:"],
            Some("X-Hub-Signature-256"),
        ),
        (
            "github",
            &["X-Other: foo", "X-Empty:", "Host: h.example"],
            None,
        ),
        // The body of this one is a form.
        (
            "mattermost",
            &["Content-Type: text/plain"],
            Some("Content-Type"),
        ),
        // What the list of a signature holds beside it is given so.
        ("stripe", &["Stripe-Signature: t=1700000000"], None),
        (
            "stripe",
            &["Stripe-Signature: t=1700000000,v1=foo"],
            Some("Stripe-Signature"),
        ),
    ] {
        let ended = sign(provider, headers);
        let warning = left_out.map(|name| {
            format!("warning: the `{name}` of `--header` is left out: signing writes its own\n")
        });
        assert_eq!(ended.stderr, warning.unwrap_or_default(), "{headers:?}");
        assert!(!ended.stdout.contains("-256: foo"), "{ended:?}");
    }
}

#[test]
fn what_frames_the_body_is_not_given() {
    let shell = Shell::new().with("body", "a=b");
    for framing in ["content-length: 3", "Transfer-Encoding: chunked"] {
        let ended = sign(&shell, &["--header", framing]).code(2);
        assert!(
            ended.stderr.contains("follows from the body"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn json_holds_the_same_request() {
    let shell = Shell::new().with("body", [0, 159, 146, 150]);
    let json = sign(
        &shell,
        &["--format", "json", "--url", "https://h.example/p"],
    )
    .code(0)
    .json();
    assert_eq!(json["method"], "POST");
    assert_eq!(json["url"], "https://h.example/p");
    assert_eq!(json["body_base64"], BASE64.encode(&[0, 159, 146, 150]));
    let signature = &json["headers"][0];
    assert_eq!(signature[0], "X-Hub-Signature-256");
    assert!(signature[1].as_str().unwrap().starts_with("sha256="));
}

#[test]
fn the_curl_command_sends_these_bytes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/it's?a=$b", listener.local_addr().unwrap());
    for body in [&b"@it's $HOME `x` \\ \"q\"\n"[..], b"\0\xff binary", b""] {
        let shell = Shell::new().with("body", body);
        let command = sign(
            &shell,
            &["--format", "curl", "--url", &url, "--header", "X-Empty:"],
        )
        .code(0);
        let mut curl = Command::new("sh")
            .args(["-c", command.stdout.trim_end()])
            .spawn()
            .unwrap();
        let (head, got) = serve_one(&listener);
        assert!(curl.wait().unwrap().success());
        assert_eq!(got, body, "{head}");
        assert!(head.starts_with("POST /it's?a=$b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("X-Empty:"), "{head}");
        let signature = hmac_hex("sha256", SECRET, body);
        assert!(
            head.contains(&format!("X-Hub-Signature-256: sha256={signature}\r\n")),
            "{head}"
        );
    }
}

/// Takes one request and answers it.
fn serve_one(listener: &std::net::TcpListener) -> (String, Vec<u8>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0);
    }
    let mut length = head.lines().filter_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")
            .map(str::to_owned)
    });
    let length = length
        .next_back()
        .map_or(0, |text| text.trim().parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (&stream)
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    (head, body)
}

/// Of presets that a secret can sign for: what `sign` makes, `verify` accepts.
#[test]
fn what_is_signed_verifies() {
    let catalog = Catalog::built_in();
    let mut signed = 0;
    for name in [
        "github", "gitlab", "stripe", "slack", "shopify", "twilio", "paddle", "linear", "square",
        "zendesk",
    ] {
        for (scheme, _) in catalog.preset(name).unwrap().schemes() {
            let reference = format!("{name}/{scheme}");
            let bound = catalog
                .find(&reference)
                .unwrap()
                .bind(&Params::new(), None)
                .unwrap();
            if bound.key_kind() == KeyKind::Secret {
                // Base64 of 24 bytes, which schemes that want text take too.
                let is_basic = bound.challenge() == "Basic";
                let secret = if is_basic {
                    "user:an example password"
                } else {
                    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
                };
                there_and_back(&reference, &format!("value:{secret}"));
                signed += 1;
            }
        }
    }
    assert!(signed >= 12, "{signed}");
}

/// RFC 7617: without a colon no receiver takes it.
#[test]
fn basic_credentials_without_a_colon_are_not_signed() {
    let shell = Shell::new().with("body", "{}");
    let sign = |secret| {
        let args = ["sign", "--provider", "brevo", "--secret", secret];
        shell.run(&[&args[..], &["--body", "body"]].concat())
    };
    let ended = sign("value:abcd").unable("write `user:password`");
    assert!(!ended.stderr.contains("abcd"), "{ended:?}");
    assert!(
        sign("value:user:abcd")
            .code(0)
            .stdout
            .contains("Authorization: Basic ")
    );
}

fn there_and_back(provider: &str, secret: &str) {
    let now = "1700000000";
    let shell = Shell::new().with(
        "body",
        "{\"id\":\"evt_1\",\"webhookTimestamp\":1700000000000}",
    );
    let keys = ["--provider", provider, "--secret", secret, "--now", now];
    let sign = [
        "sign",
        "--body",
        "body",
        "--url",
        "https://hooks.example.org:8443/x?y=1",
    ];
    let json = shell
        .run(&[&sign[..], &keys, &["--format", "json"]].concat())
        .code(0)
        .json();
    let message = shell.run(&[&sign[..], &keys].concat()).code(0).stdout;
    // Where the signature stands in the query, the URL has changed.
    let verify = [
        "verify",
        "--request",
        "-",
        "--url",
        json["url"].as_str().unwrap(),
    ];
    let verdict = shell
        .feed(&[&verify[..], &keys].concat(), message.as_bytes())
        .code(0);
    assert!(
        verdict.stdout.starts_with("accepted\n"),
        "{provider}: {verdict:?}"
    );
}

/// A URL that nobody gave is in no signature without a word.
#[test]
fn a_url_that_is_signed_should_be_given() {
    let shell = Shell::new().with("body", "a=1");
    let sign = |provider: &str, more: &[&str]| {
        let keys = [
            "sign",
            "--secret",
            "value:an example secret of 32 characters",
        ];
        let request = ["--provider", provider, "--body", "body"];
        shell.run(&[&keys[..], &request, more].concat()).code(0)
    };
    let hmac = ["--param", "alg=hmac-sha256"];
    let fields = ["--param", "required_components=[\"@method\"]"];
    let registered = ["--param", "registered_url=https://hooks.example.org/"];
    for (provider, more, is_covered) in [
        ("twilio", &[][..], true),
        ("contentful", &[], true),
        ("messagebird", &[], true),
        ("plivo-v2", &[], true),
        ("square", &[], true),
        ("square", &registered, false),
        ("http-message-signatures", &hmac, true),
        ("http-message-signatures", &[hmac, fields].concat(), false),
        ("github", &[], false),
        ("stripe", &[], false),
    ] {
        let ended = sign(provider, more);
        let is_told = ended.stderr.contains("calls with `--url`");
        assert_eq!(is_told, is_covered, "{provider}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), usize::from(is_told));
        let url = ["--url", "https://localhost/"];
        let given = sign(provider, &[more, &url].concat());
        assert_eq!(given.stderr, "", "{provider}");
    }
}

#[test]
fn a_private_key_signs_and_its_public_half_verifies() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let shell = Shell::new()
        .with("body", BODY)
        .with("private.pem", key.serialize_pem())
        .with("public.pem", key.public_key_pem())
        .with("other.pem", other.public_key_pem());
    let provider = ["--provider", "standard-webhooks/v1a"];
    let sign = ["sign", "--body", "body", "--secret", "file:private.pem"];
    let message = shell.run(&[&sign[..], &provider].concat()).code(0).stdout;
    let verify = |key: &str, code| {
        let verify = ["verify", "--request", "-", "--public-key", key];
        shell
            .feed(&[&verify[..], &provider].concat(), message.as_bytes())
            .code(code)
    };
    verify("file:public.pem", 0);
    verify("file:other.pem", 1);
    verify("file:body", 2);
    let secret = ["verify", "--request", "-", "--secret", "file:private.pem"];
    let ended = shell.feed(&[&secret[..], &provider].concat(), message.as_bytes());
    ended.unable("--public-key");
}

#[test]
fn what_cannot_be_signed_exits_2() {
    let shell = Shell::new().with("body", BODY);
    shell
        .run(&["sign", "--provider", "github", "--body", "body"])
        .unable("--secret");
    shell
        .run(&["sign", "--provider", "gihub", "--body", "body"])
        .unable("did you mean `github`");
    shell
        .run(&["sign", "--provider", "github/no", "--body", "body"])
        .unable("has no scheme `no`");
    sign(&shell, &["--body", "absent"]).code(2);
    sign(&shell, &["--url", "hooks.example.org"]).unable("not a URL");
    let ended = shell
        .run(&[
            "sign",
            "--provider",
            "github",
            "--secret",
            "env:ABSENT",
            "--body",
            "body",
        ])
        .unable("`ABSENT` is not set; set it for this command");
    assert!(!ended.stderr.contains("gateway"), "{ended:?}");
    let absent = ["sign", "--secret", "file:absent.pem", "--body", "body"];
    shell
        .run(&[&absent[..], &["--provider", "standard-webhooks/v1a"]].concat())
        .unable("relative paths start from the current folder: ");
    shell
        .run(&[
            "sign",
            "--provider",
            "github",
            "--secret",
            "plain",
            "--body",
            "body",
        ])
        .unable("value:TEXT");
    shell
        .run(&[
            "sign",
            "--provider",
            "github",
            "--secret",
            "value:x",
            "--body",
            "/dev/zero",
        ])
        .unable("larger than 64 MiB");
}

/// One key signs; a second one would be left out without a word.
#[test]
fn a_second_secret_is_refused() {
    let shell = Shell::new().with("body", BODY);
    for provider in ["github", "stripe", "standard-webhooks"] {
        for verb in [&["sign"][..], &["send", "--to", "http://127.0.0.1:9/"]] {
            let keys = ["--secret", "value:one", "--secret", "value:two"];
            let rest = ["--provider", provider, "--body", "body"];
            let ended = shell.run(&[verb, &rest, &keys].concat());
            ended.unable("'--secret <REF>' cannot be used multiple times");
        }
    }
}

/// Where nothing of a body is signed, or the body must hold what only its sender can write, `sign` says
/// what to give instead.
#[test]
fn a_body_that_cannot_be_signed_is_told_from_one_that_can() {
    let key = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    let organization = "<Envelope><Body><notifications><OrganizationId>00D1</OrganizationId>\
                        </notifications></Body></Envelope>";
    let shell = Shell::new()
        .with("json", "{\"a\":1}")
        .with("form", "a=1&b=%26")
        .with("payload", "payload=%7B%7D")
        .with("xml", organization);
    let sign = |provider: &str, secret: &str, body: &str| {
        let secret = format!("value:{secret}");
        let args = ["--provider", provider, "--secret", &secret, "--body", body];
        shell.run(&[&["sign"][..], &args].concat())
    };
    let form = "give it as `application/x-www-form-urlencoded`";
    for provider in ["plivo-v3", "mandrill"] {
        sign(provider, "token", "json").unable(form);
        let request = sign(provider, "token", "form").code(0).stdout;
        assert!(
            request.contains("Content-Type: application/x-www-form-urlencoded"),
            "{request}"
        );
        let secret = ["--provider", provider, "--secret", "value:token"];
        let verify = ["verify", "--url", "https://localhost/", "--request", "-"];
        shell
            .feed(&[&verify[..], &secret].concat(), request.as_bytes())
            .code(0);
    }
    // A field that is there, of what nothing says that it is a form; and a value that lacks.
    let unsaid = "give `Content-Type: application/x-www-form-urlencoded`";
    sign("gitea/form", "token", "payload").unable(unsaid);
    sign("lever", "token", "json").unable("the signature covers the value `/");
    let items = "give one that has some at `/notificationItems/*/NotificationRequestItem`";
    for body in ["json", "xml"] {
        sign("adyen/standard", key, body).unable(items);
    }
    let place = "stands at `/Envelope/Body/notifications/OrganizationId` of an XML body";
    sign("salesforce-outbound", "00D1", "json").unable(place);
    sign("salesforce-outbound", "00D2", "xml").unable(place);
    let request = sign("salesforce-outbound", "00D1", "xml").code(0).stdout;
    assert!(request.ends_with(organization), "{request}");
}
