//! The configuration: what is accepted, and the whole diagnostic of what is not.
//!
//! `tests/config/valid/*.yaml` load without an error; `tests/config/invalid/*.yaml` each have a
//! `.snap` beside them with everything that `validate` says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hookward::config::{self, Environment, Loaded};
use hookward::units::UnixTime;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// 2026-11-01: what `not_after` and certificates are judged by.
const NOW: i64 = 1_793_491_200;

/// A folder with everything that the files refer to.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    for sub in ["certs", "providers", "broken"] {
        fs::create_dir(folder.path().join(sub)).unwrap();
    }
    let key = KeyPair::generate().unwrap();
    let leaf = |year| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    file("certs/server.pem", &leaf(2100));
    file("certs/expired.pem", &leaf(2021));
    file("certs/server.key", &key.serialize_pem());
    file(
        "certs/other.key",
        &KeyPair::generate().unwrap().serialize_pem(),
    );
    file(
        "certs/clients.pem",
        &authority.self_signed(&key).unwrap().pem(),
    );
    file("certs/public.key", &key.serialize_pem());
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(folder.path().join("certs/public.key"), open).unwrap();
    file(
        "certs/encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    file(
        "certs/damaged.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    file("broken/acme.yaml", "provider: acme\ntitel: Acme\n");
    file("broken/.acme.yaml.swp", "not for us");
    file("empty", "");
    file("blank", " \n");
    file("crlf", "a secret with a carriage return\r\n");
    file("secret.txt", "an example secret from a file\n");
    let hash = "$2y$05$abcdefghijklmnopqrstuuWvOUsMZ2IJrVQ.f2fOGKZWdJcJEZVEe";
    file(
        "users.htpasswd",
        &format!("# people\nann:{hash}\n\nbob:{hash}\n"),
    );
    file(
        "bad.htpasswd",
        &format!("ann:{hash}\nbob\ncid:plain\n:{hash}\n"),
    );
    folder
});

fn environment() -> Environment {
    let variables = [
        ("GITHUB_SECRET", "an example secret of GitHub"),
        ("STRIPE_SECRET", "whsec_an example secret of Stripe"),
        ("PARTNER_SECRET", "an example secret of a partner"),
        ("OTHER_SECRET", "another example secret of a partner"),
        ("TK", "an example of a token"),
        ("PW", "an example of a password"),
        ("PORT", "8080"),
        ("EMPTY", ""),
        ("BLANK", "  "),
        ("SHORT", "short"),
        ("SAMPLE", "changeme"),
    ];
    Environment::from_pairs(variables).at(UnixTime::from_secs(NOW))
}

fn load(text: &str) -> Loaded {
    config::load_text("hookward.yaml", text, FOLDER.path(), &environment())
}

/// The report as it is printed, without the name of the folder.
fn report(loaded: &Loaded) -> String {
    loaded
        .report
        .to_string()
        .replace(FOLDER.path().to_str().unwrap(), "DIR")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join("tests/config").join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_files_load() {
    for file in files("valid") {
        let loaded = load(&fs::read_to_string(&file).unwrap());
        assert!(
            loaded.config.is_some(),
            "{}:\n{}",
            file.display(),
            report(&loaded)
        );
    }
}

#[test]
fn invalid_files_say_everything_that_is_wrong() {
    let folder = Path::new(ROOT).join("tests/config/invalid");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for file in files("invalid") {
            let text = fs::read_to_string(&file).unwrap();
            let loaded = load(&text);
            assert!(
                loaded.report.has_errors() && loaded.config.is_none(),
                "{}",
                file.display()
            );
            insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), report(&loaded));
        }
    });
}
