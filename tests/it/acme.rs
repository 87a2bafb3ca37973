//! Certificates from an ACME authority: a real pebble that really looks.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::support::{App, Authority, Gateway, Tls, Wire, eventually, now, open_route, pause};

/// pebble with a name server for which every name is this machine.
struct Pebble {
    processes: Vec<Child>,
    dir: tempfile::TempDir,
    ports: Ports,
}

/// Ports that nobody else has at the moment.
struct Ports {
    directory: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    /// Where the authority looks, and where the gateway listens: not always the same.
    tls: u16,
    http: u16,
    closed: u16,
}

impl Ports {
    /// Below those that the system gives out by itself, and others than another test finds, in this process or in
    /// another: between being found and being bound they are free.
    fn find() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 10_000 + u16::try_from(std::process::id() % 2_000).unwrap() * 10;
        let held: Vec<_> = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed))
            .take_while(|port| *port < 32_000)
            .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .take(7)
            .collect();
        let port = |index: usize| held[index].local_addr().unwrap().port();
        Self {
            directory: port(0),
            management: port(1),
            dns: port(2),
            dns_management: port(3),
            tls: port(4),
            http: port(5),
            closed: port(6),
        }
    }
}

impl Pebble {
    /// An authority that looks where the gateway of its configuration listens.
    fn reachable() -> Self {
        let ports = Ports::find();
        let (tls, http) = (ports.tls, ports.http);
        Self::start(ports, tls, http)
    }

    /// An authority that looks at these ports of 127.0.0.1.
    fn start(ports: Ports, tls: u16, http: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let identity = authority.issue(&["127.0.0.1", "localhost"]);
        identity.write(dir.path(), "pebble");
        fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", ports.directory),
            "managementListenAddress": format!("127.0.0.1:{}", ports.management),
            "certificate": file("pebble.pem"),
            "privateKey": file("pebble.key"),
            "httpPort": http,
            "tlsPort": tls,
        }});
        fs::write(file("pebble.json"), config.to_string()).unwrap();
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .arg("-dns01")
            .arg(format!("127.0.0.1:{}", ports.dns))
            .arg("-management")
            .arg(format!("127.0.0.1:{}", ports.dns_management))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = fs::File::create(file("pebble.log")).unwrap();
        let pebble = Command::new("pebble")
            .args(["-config", &file("pebble.json"), "-strict", "-dnsserver"])
            .arg(format!("127.0.0.1:{}", ports.dns))
            // It looks at once, and always anew. One nonce in twenty is refused, as by default.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env_remove("PEBBLE_VA_ALWAYS_VALID")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], ports.directory));
        let pebble = Self {
            processes: vec![names, pebble],
            dir,
            ports,
        };
        eventually("pebble is ready", || TcpStream::connect(address).ok());
        pebble
    }

    /// A gateway's configuration, with its cache in the authority's folder.
    fn config(&self, app: &App) -> String {
        let folder = self.dir.path().display();
        let Ports {
            directory,
            tls,
            http,
            ..
        } = self.ports;
        format!(
            "version: 1
admin: {{ address: 127.0.0.1:0 }}
listeners:
  https:
    address: 127.0.0.1:{tls}
    tls:
      acme:
        domains: [hooks.example.org, www.example.org]
        email: ops@example.org
        directory: https://127.0.0.1:{directory}/dir
        ca: {folder}/ca.pem
        cache: {folder}/cache
  http: {{ address: 127.0.0.1:{http}, plaintext: redirect }}
routes:
{}",
            open_route(app)
        )
    }

    /// The only file in the cache whose name begins so.
    fn cached(&self, start: &str) -> PathBuf {
        let files = fs::read_dir(self.dir.path().join("cache")).unwrap();
        let found: Vec<PathBuf> = files
            .map(|file| file.unwrap().path())
            .filter(|path| name(path).starts_with(start))
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    fn signal(&self, signal: &str) {
        let pid = self.processes[1].id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pebble.log")).unwrap()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// The same configuration with further listeners, on ports of their own.
fn with_listeners(config: &str, more: &[(&str, &str)]) -> String {
    let (before, rest) = config.split_once("  https:\n").unwrap();
    let (own, after) = rest.split_once("  http:").unwrap();
    let (_address, tls) = own.split_once("    tls:\n").unwrap();
    let listener = |(name, domains): &(&str, &str)| {
        let tls = with_domains(tls, domains);
        format!("  {name}:\n    address: 127.0.0.1:0\n    tls:\n{tls}")
    };
    let more: String = more.iter().map(listener).collect();
    format!("{before}  https:\n{own}{more}  http:{after}")
}

/// The same configuration with a certificate for other names.
fn with_domains(config: &str, domains: &str) -> String {
    let before = "domains: [hooks.example.org, www.example.org]";
    assert!(config.contains(before));
    config.replace(before, &format!("domains: [{domains}]"))
}

/// Whose certificate a new connection is shown, and its serial number.
fn shown(gateway: &Gateway) -> (String, String) {
    shown_for(gateway, "hooks.example.org")
}

fn shown_for(gateway: &Gateway, name: &str) -> (String, String) {
    shown_by(gateway, "https", name)
}

fn shown_by(gateway: &Gateway, listener: &str, name: &str) -> (String, String) {
    let wire = Tls {
        name,
        ..Tls::default()
    }
    .connect(gateway.address(listener))
    .unwrap();
    let certificate = wire.session.unwrap().certificate;
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    (parsed.issuer().to_string(), parsed.raw_serial_as_string())
}

fn orders(gateway: &Gateway, result: &str) -> u64 {
    gateway
        .metric("hookward_acme_orders_total", &[("result", result)])
        .unwrap()
}

/// When the next certificate is due, as alerts see it.
fn due(gateway: &Gateway, name: &str) -> Option<u64> {
    let labels = [("listener", "https"), ("name", name)];
    gateway.metric("hookward_acme_order_due_timestamp_seconds", &labels)
}

/// Waits for longer than other tests: orders are tried again after half a minute.
fn wait_for_order(gateway: &Gateway, pebble: &Pebble) {
    let begun = Instant::now();
    while orders(gateway, "success") == 0 {
        assert!(
            begun.elapsed().as_secs() < 60,
            "no certificate\n{}\n{}",
            gateway.stderr(),
            pebble.log()
        );
        pause(Duration::from_millis(50));
    }
}

/// The same, and the serial number of what is served then.
fn ordered(gateway: &Gateway, pebble: &Pebble) -> String {
    wait_for_order(gateway, pebble);
    let (issuer, serial) = shown(gateway);
    assert!(issuer.contains("Pebble Intermediate CA"), "{issuer}");
    serial
}

fn post(wire: &mut Wire) -> u16 {
    let host = [("Host", "hooks.example.org")];
    wire.exchange("POST", "/open", &host, b"x").status
}

fn connect(gateway: &Gateway) -> Wire {
    let tls = Tls {
        name: "hooks.example.org",
        ..Tls::default()
    };
    tls.connect(gateway.address("https")).unwrap()
}

#[test]
fn a_certificate_is_ordered_kept_and_renewed_while_serving() {
    // SECURITY T-11
    let app = App::start();
    let ports = Ports::find();
    // Only TLS-ALPN-01 can succeed.
    let (tls, closed) = (ports.tls, ports.closed);
    let pebble = Pebble::start(ports, tls, closed);
    let config = pebble.config(&app);

    let gateway = Gateway::start(&config);
    assert_eq!(post(&mut connect(&gateway)), 200, "it serves meanwhile");
    let serial = ordered(&gateway, &pebble);
    assert_eq!(post(&mut connect(&gateway)), 200);
    eventually("the next order is due", || {
        (due(&gateway, "hooks.example.org")? > u64::try_from(now()).unwrap()).then_some(())
    });
    let until = gateway.metric(
        "hookward_tls_certificate_not_after_timestamp_seconds",
        &[("name", "hooks.example.org")],
    );
    assert!(
        until.is_some_and(|until| until > 1_700_000_000),
        "{until:?}"
    );
    for file in [pebble.cached("account-"), pebble.cached("certificate-")] {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    // The authority's way in is open to nobody else, and only while it looks.
    let stranger = Tls {
        name: "hooks.example.org",
        alpn: &[b"acme-tls/1"],
        ..Tls::default()
    };
    assert!(stranger.connect(gateway.address("https")).is_err());
    drop(gateway);

    // As it was named before all of its names counted.
    let kept = pebble.cached("certificate-");
    let stem = name(&kept).rsplit_once('-').unwrap().0;
    fs::rename(&kept, kept.with_file_name(format!("{stem}.pem"))).unwrap();
    let gateway = Gateway::start(&config);
    assert_eq!(shown(&gateway).1, serial, "the kept one is served at once");
    pause(Duration::from_secs(1));
    assert_eq!(orders(&gateway, "success") + orders(&gateway, "failure"), 0);
    drop(gateway);

    // Of its 27 years less than a third is left. The authority does not answer for the moment.
    let old = Authority::new().issue_until(&["hooks.example.org", "www.example.org"], 2027);
    let pem = format!("{}\n{}", old.cert_pem, old.key_pem);
    fs::write(pebble.cached("certificate-"), pem).unwrap();
    pebble.signal("-STOP");
    let gateway = Gateway::start(&config);
    let (issuer, _) = shown(&gateway);
    assert!(!issuer.contains("Pebble"), "{issuer}");
    let overdue = due(&gateway, "hooks.example.org").unwrap();
    assert!((1..u64::try_from(now()).unwrap()).contains(&overdue));
    let mut open = connect(&gateway);
    assert_eq!(post(&mut open), 200);
    pebble.signal("-CONT");
    let renewed = ordered(&gateway, &pebble);
    assert_ne!(renewed, serial);
    assert_eq!(post(&mut open), 200, "an open connection stays");
    eventually("it is kept", || {
        let kept = fs::read_to_string(&kept).ok()?;
        (!kept.contains(&old.cert_pem)).then_some(())
    });
}

#[test]
fn where_tls_cannot_be_reached_plain_http_proves_the_name() {
    // SECURITY T-11
    let app = App::start();
    let ports = Ports::find();
    let (http, closed) = (ports.http, ports.closed);
    let pebble = Pebble::start(ports, closed, http);
    let config = pebble.config(&app);
    let both = "hooks.example.org, www.example.org";
    let gateway = Gateway::start(&with_listeners(&config, &[("also", both)]));
    eventually("the first challenge fails", || {
        (orders(&gateway, "failure") > 0).then_some(())
    });
    let (issuer, _) = shown(&gateway);
    assert!(!issuer.contains("Pebble"), "{issuer}");
    assert_eq!(due(&gateway, "hooks.example.org"), Some(0));
    assert_eq!(post(&mut connect(&gateway)), 200);
    eventually("the failure is in the log", || {
        let log = gateway.stderr();
        log.contains("no certificate from the ACME authority")
            .then_some(())
    });
    let serial = ordered(&gateway, &pebble);
    eventually("the other listener does not wait for its turn", || {
        (shown_by(&gateway, "also", "hooks.example.org").1 == serial).then_some(())
    });
    assert_eq!(orders(&gateway, "success"), 1);
    // What is no token is a request like any other.
    let path = "/.well-known/acme-challenge/nothing";
    let answer = gateway.plain().exchange("GET", path, &[], b"");
    assert_eq!(answer.status, 308);
}

#[test]
fn a_certificate_that_cannot_be_kept_is_served_all_the_same() {
    // SECURITY S-05: the cache lies on a full disk of 64 KiB.
    let app = App::start();
    let pebble = Pebble::reachable();
    let cache = pebble.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let script = "mount -t tmpfs -o size=64k tmpfs \"$0\" && ! head -c 1M /dev/zero 2>/dev/null >\"$0/full\" \
        && exec \"$@\"";
    let wrapper = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        cache.to_str().unwrap(),
    ];
    let gateway = Gateway::start_through(&wrapper, &pebble.config(&app));
    ordered(&gateway, &pebble);
    assert_eq!(post(&mut connect(&gateway)), 200);
    for what in ["account", "certificate"] {
        let said = format!("the ACME {what} cannot be kept");
        // The certificate serves before the log says what became of it.
        eventually(&said, || gateway.stderr().contains(&said).then_some(()));
    }
    // Nothing torn is left for the next start to read.
    let seen = format!("/proc/{}/root{}", gateway.pid(), cache.display());
    let left: Vec<PathBuf> = fs::read_dir(seen)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(name(&left[0]), "full");
}

#[test]
fn an_authority_that_forgot_the_account_gets_a_new_one() {
    let app = App::start();
    let pebble = Pebble::reachable();
    let config = pebble.config(&app);
    let gateway = Gateway::start(&config);
    wait_for_order(&gateway, &pebble);
    drop(gateway);
    // Another account's credentials under this one's name.
    let account = pebble.cached("account-");
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&account).unwrap()).unwrap();
    let id = json["id"].as_str().unwrap().to_owned();
    json["id"] = format!("{id}0000").into();
    fs::write(&account, json.to_string()).unwrap();
    fs::remove_file(pebble.cached("certificate-")).unwrap();
    let gateway = Gateway::start(&config);
    eventually("the account is refused", || {
        (orders(&gateway, "failure") > 0).then_some(())
    });
    assert_eq!(post(&mut connect(&gateway)), 200);
    wait_for_order(&gateway, &pebble);
    let json = fs::read_to_string(pebble.cached("account-")).unwrap();
    assert!(!json.contains(&format!("{id}0000")));
}

#[test]
fn names_that_change_leave_the_certificate_that_is_there() {
    // SECURITY T-11
    let app = App::start();
    let pebble = Pebble::reachable();
    let config = pebble.config(&app);
    let gateway = Gateway::start(&config);
    let serial = ordered(&gateway, &pebble);
    let uncovered = "no certificate is there for these names yet";

    // From here on the authority does not answer.
    pebble.signal("-STOP");
    let said = gateway.stderr().matches(uncovered).count();
    assert_eq!(said, 1, "at the first start only");
    let reordered = with_domains(&config, "www.example.org, hooks.example.org");
    gateway.reload(&reordered, "success");
    assert_eq!(shown(&gateway).1, serial, "the same names in another order");
    gateway.reload(&with_domains(&config, "www.example.org"), "success");
    assert_eq!(shown(&gateway).1, serial, "a name less");
    let more = "new.example.org, hooks.example.org, www.example.org";
    let more = with_domains(&config, more);
    gateway.reload(&more, "success");
    assert_eq!(shown(&gateway).1, serial, "a name more");
    assert_eq!(shown_for(&gateway, "www.example.org").1, serial);
    assert_eq!(due(&gateway, "new.example.org"), Some(0));
    assert_eq!(due(&gateway, "hooks.example.org"), None, "as it was before");
    let (issuer, _) = shown_for(&gateway, "new.example.org");
    assert!(!issuer.contains("Pebble"), "{issuer}");
    eventually("the log names it", || {
        let log = gateway.stderr();
        let mut lines = log.lines().filter(|line| line.contains(uncovered));
        let names = "\"names\":\"new.example.org\"";
        (lines.clone().count() == 2 && lines.any(|line| line.contains(names))).then_some(())
    });
    drop(gateway);

    let gateway = Gateway::start(&more);
    assert_eq!(shown(&gateway).1, serial, "a start with a name more");
    pebble.signal("-CONT");
    wait_for_order(&gateway, &pebble);
    for name in ["new.example.org", "hooks.example.org", "www.example.org"] {
        let (issuer, renewed) = shown_for(&gateway, name);
        assert!(issuer.contains("Pebble Intermediate CA"), "{issuer}");
        assert_ne!(renewed, serial);
    }
    drop(gateway);

    // One file that is cut off does not hide another.
    let folder = pebble.dir.path().join("cache");
    let files = fs::read_dir(folder).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let cut = files.find(|path| name(path).contains("new.example.org"));
    let cut = cut.unwrap();
    let whole = fs::read_to_string(&cut).unwrap();
    fs::write(&cut, &whole[..500]).unwrap();
    pebble.signal("-STOP");
    let gateway = Gateway::start(&more);
    assert_eq!(shown(&gateway).1, serial);
    let log = gateway.stderr();
    let mut lines = log.lines();
    let said = lines.find(|line| line.contains("a kept ACME certificate cannot be used"));
    let said = said.unwrap();
    assert!(said.contains("it is cut off or damaged"), "{said}");
    assert!(said.contains(name(&cut)), "{said}");
}

#[test]
fn the_certificate_of_another_authority_serves_and_is_said() {
    let app = App::start();
    let pebble = Pebble::reachable();
    let config = pebble.config(&app);
    let gateway = Gateway::start(&config);
    let serial = ordered(&gateway, &pebble);
    pebble.signal("-STOP");
    let other = config.replace(
        "directory: https://127.0.0.1",
        "directory: https://localhost",
    );
    gateway.reload(&other, "success");
    assert_eq!(shown(&gateway).1, serial);
    assert_eq!(due(&gateway, "hooks.example.org"), Some(0), "it pages");
    eventually("the log says it", || {
        let log = gateway.stderr();
        log.contains("is from another ACME authority").then_some(())
    });
}

#[test]
fn a_certificate_that_is_not_kept_outlives_a_reload() {
    let app = App::start();
    let pebble = Pebble::reachable();
    let cache = format!("cache: {}/cache", pebble.dir.path().display());
    let config = pebble.config(&app).replace(&cache, "cache: /proc/hookward");
    let gateway = Gateway::start(&config);
    let serial = ordered(&gateway, &pebble);
    pebble.signal("-STOP");
    let stricter = config.replace("acme:", "min_version: \"1.3\"\n      acme:");
    gateway.reload(&stricter, "success");
    assert_eq!(shown(&gateway).1, serial);
    let moved = stricter
        .replace("  https:", "  moved:")
        .replace(&pebble.ports.tls.to_string(), "0");
    gateway.reload(&moved, "success");
    let (_, moved) = shown_by(&gateway, "moved", "hooks.example.org");
    assert_eq!(moved, serial, "another listener");
    assert_eq!(orders(&gateway, "success"), 1, "it is as good as before");
}

#[test]
fn listeners_with_a_common_name_order_one_after_the_other() {
    let app = App::start();
    let ports = Ports::find();
    let (tls, closed) = (ports.tls, ports.closed);
    let pebble = Pebble::start(ports, tls, closed);
    let more = [
        ("more", "hooks.example.org, new.example.org"),
        ("same", "hooks.example.org, www.example.org"),
    ];
    let config = with_listeners(&pebble.config(&app), &more);
    let gateway = Gateway::start(&config);
    for listener in ["https", "same", "more"] {
        eventually(&format!("`{listener}` has a certificate"), || {
            let (issuer, _) = shown_by(&gateway, listener, "hooks.example.org");
            issuer.contains("Pebble Intermediate CA").then_some(())
        });
    }
    let same = shown_by(&gateway, "same", "hooks.example.org");
    assert_eq!(shown(&gateway), same, "equal settings, one order");
    eventually("two orders", || {
        (orders(&gateway, "success") == 2).then_some(())
    });
    assert_eq!(orders(&gateway, "failure"), 0);
    pebble.cached("account-");
}

#[test]
fn a_damaged_account_is_set_aside() {
    let app = App::start();
    let pebble = Pebble::reachable();
    let config = pebble.config(&app);
    let gateway = Gateway::start(&config);
    wait_for_order(&gateway, &pebble);
    eventually("it is kept", || {
        gateway
            .stderr()
            .contains("certificate issued")
            .then_some(())
    });
    drop(gateway);
    let (account, certificate) = (pebble.cached("account-"), pebble.cached("certificate-"));
    let whole = fs::read_to_string(&account).unwrap();
    let mut without_key: serde_json::Value = serde_json::from_str(&whole).unwrap();
    without_key["key_pkcs8"] = "AAAA".into();
    for damaged in ["", &whole[..whole.len() / 2], &without_key.to_string()] {
        fs::write(&account, damaged).unwrap();
        fs::remove_file(&certificate).unwrap();
        let gateway = Gateway::start(&config);
        wait_for_order(&gateway, &pebble);
        eventually("a certificate is kept", || {
            certificate.exists().then_some(())
        });
        assert_eq!(orders(&gateway, "failure"), 0);
        let log = gateway.stderr();
        let mut lines = log.lines();
        let said = lines.find(|line| line.contains("the kept ACME account is damaged"));
        assert!(said.unwrap().contains(name(&account)), "{log}");
        let aside = fs::read_to_string(account.with_extension("damaged")).unwrap();
        assert_eq!(aside, damaged);
        let made = fs::read_to_string(&account).unwrap();
        assert_ne!(made, whole, "a new account");
        serde_json::from_str::<serde_json::Value>(&made).unwrap();
    }
}
