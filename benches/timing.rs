//! Whether the time that a comparison takes tells where a guess is wrong (SECURITY A-08).
//!
//! `cargo bench --bench timing` does what dudect does (Reparaz, Balasch, Verbauwhede: "Dude, is my code
//! constant time?", 2017): two classes of guesses, wrong in the first place and wrong in the last one, in random
//! turns; Welch's t of their times, over all and over those that are left when slow ones, which the machine
//! made slow, are cut off. Above 4.5 the classes differ by more than chance, and the program fails. It fails as well
//! when it does not see a comparison that does tell, for then it would see nothing. `-- COUNT` takes so many guesses instead of
//! 100,000.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may panic and prints what it measured"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use hookward::config::{self, Environment};
use hookward::gateway::connection::{Connection, TlsFacts};
use hookward::gateway::password::Passwords;
use hookward::route::auth::{BasicCheck, BasicUser, Password, challenge};
use hookward::scheme::catalog::Catalog;
use hookward::scheme::keys::{Key, KeySet};
use hookward::scheme::{Content, Message, Params, SenderUrl};
use hookward::secret::Secret;
use hookward::server;
use hookward::telemetry::Telemetry;
use hookward::telemetry::log::{AccessLog, LogFormat};
use hookward::telemetry::metrics::Metrics;
use hookward::units::UnixTime;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use sha2::Sha256;

/// Guesses for each comparison.
const COUNT: usize = 100_000;
/// Guesses that are made before they are timed, so that making them does not count.
const BATCH: usize = 500;
/// From here on a difference is none of chance (dudect, TVLA).
const T_MAX: f64 = 4.5;
/// Fewer say nothing.
const ENOUGH: f64 = 5_000.0;

/// A secret as long as most: 43 characters.
const SECRET: &str = "an-example-of-a-secret-with-43-characters-1";
const BODY: &[u8] = b"{\"event\":\"ping\",\"id\":1}";
const NOW: UnixTime = UnixTime::from_secs(1_767_225_600);

/// Where a guess is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    First,
    Last,
}

/// The right text with one character changed, which stays of the same kind.
fn guess(right: &str, wrong: Wrong) -> String {
    let place = match wrong {
        Wrong::First => 0,
        Wrong::Last => right.len() - 1,
    };
    let change = |(index, byte)| match (index == place, byte) {
        (false, byte) => char::from(byte),
        (true, b'a') => 'b',
        (true, _) => 'a',
    };
    right.bytes().enumerate().map(change).collect()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.find_map(|word| word.parse().ok());
    let bench = Bench {
        count: count.unwrap_or(COUNT),
    };
    println!("guesses  first - last (median)     t  t without outliers  comparison");
    let leak = bench.run("control: stops at the first difference", secret, |given| {
        let mut pairs = given.bytes().zip(SECRET.bytes());
        !pairs.all(|(a, b)| black_box(a) == black_box(b))
    });
    let results = [
        token(&bench),
        password(&bench),
        signature(&bench, "github", github),
        signature(&bench, "shopify", shopify),
        requests(&bench),
    ];
    let worst = results.into_iter().fold(0.0, f64::max);
    if leak <= T_MAX {
        println!("\nthe control was not told apart: this run says nothing");
        return ExitCode::FAILURE;
    }
    if worst > T_MAX {
        println!("\na comparison tells where a guess is wrong: t is {worst:.2}");
        return ExitCode::FAILURE;
    }
    println!("\nno comparison tells where a guess is wrong: t is {worst:.2} at most, of {T_MAX}");
    ExitCode::SUCCESS
}

fn secret(wrong: Wrong) -> String {
    guess(SECRET, wrong)
}

/// A static token, as `token` checks compare it.
fn token(bench: &Bench) -> f64 {
    let key = Key::secret("now".into(), Secret::new(SECRET.into()), None);
    let keys = KeySet::new(vec![key]).expect("a key");
    bench.run("a static token", secret, |given| {
        keys.matching(given.as_bytes(), NOW).is_none()
    })
}

/// A password of a Basic user that is not hashed.
fn password(bench: &Bench) -> f64 {
    let passwords = Passwords::new().expect("randomness");
    let check = BasicCheck {
        challenge: challenge("Basic", "hooks"),
        users: vec![BasicUser {
            name: "kim".into(),
            password: Password::Plain(Secret::new(SECRET.into())),
        }],
    };
    bench.run("a Basic password", secret, |given| {
        let judged = passwords.check(&check, "kim", given.as_bytes());
        judged.now_or_never().is_some_and(|judged| judged.is_err())
    })
}

fn tag() -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key will do");
    mac.update(BODY);
    mac.finalize().into_bytes().to_vec()
}

fn github(wrong: Wrong) -> (&'static str, String) {
    let tag = guess(&HEXLOWER.encode(&tag()), wrong);
    ("x-hub-signature-256", format!("sha256={tag}"))
}

fn shopify(wrong: Wrong) -> (&'static str, String) {
    let mut tag = tag();
    let byte = match wrong {
        Wrong::First => tag.first_mut(),
        Wrong::Last => tag.last_mut(),
    };
    *byte.expect("a tag") ^= 1;
    ("x-shopify-hmac-sha256", BASE64.encode(&tag))
}

/// The tag of a scheme.
fn signature(bench: &Bench, preset: &str, sign: fn(Wrong) -> (&'static str, String)) -> f64 {
    let catalog = Catalog::built_in();
    let selected = catalog.find(preset).expect("a preset");
    let scheme = selected.bind(&Params::new(), None).expect("no params");
    let key = scheme.secret_key("now".into(), SECRET.as_bytes(), None);
    let keys = KeySet::new(vec![key.expect("a secret")]).expect("a key");
    let url = SenderUrl {
        origin: "https://localhost".into(),
        target: "/".into(),
    };
    let body = Content::from(BODY.to_vec());
    let headers = |wrong| {
        let (name, value) = sign(wrong);
        let value = HeaderValue::from_str(&value).expect("a value");
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value)])
    };
    bench.run(&format!("a signature of {preset}"), headers, |headers| {
        let message = Message {
            method: &Method::POST,
            url: &url,
            headers,
            body: &body,
        };
        scheme.verify(&message, &keys, NOW).is_err()
    })
}

const CONFIG: &str = "version: 1
listeners:
  https: { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }
routes:
  - name: signed
    match: { path: /signed }
    verify: [{ provider: github, secrets: [env:SECRET] }]
    upstream: echo
  - name: token
    match: { path: /token }
    verify: [{ token: { header: x-token, secrets: [env:SECRET] } }]
    upstream: echo
  - name: basic
    match: { path: /basic }
    verify: [{ basic: { users: [{ name: kim, password: env:SECRET }] } }]
    upstream: echo
";

/// Whole requests, from the HTTP library to the answer: the worst of the three.
fn requests(bench: &Bench) -> f64 {
    let env = Environment::from_pairs([("SECRET", SECRET)]);
    let loaded = config::load_text("timing.yaml", CONFIG, Path::new(""), &env);
    let config = loaded.config.unwrap_or_else(|| panic_with(&loaded.report));
    let (access, _guard) = AccessLog::to(LogFormat::Json, std::io::sink()).expect("a thread");
    let telemetry = Telemetry::new(Metrics::new("timing"), access);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let gateway = runtime.block_on(async { server::gateway(config, telemetry) });
    let gateway = gateway.expect("a gateway");
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
    let tls = TlsFacts {
        certificate: None,
        client: None,
    };
    let connection = Connection::new(peer, "https".into(), Some(tls));
    let measure = |name: &str, path: &'static str, field: fn(Wrong) -> (&'static str, String)| {
        let request = |wrong| {
            let (name, value) = field(wrong);
            let request = Request::post(path).header(header::HOST, "localhost");
            let body = Full::from(Bytes::from_static(BODY));
            request.header(name, value).body(body).expect("a request")
        };
        bench.run(name, request, |request| {
            let answered = gateway.handle(&connection, request.clone());
            runtime.block_on(answered).status() == StatusCode::UNAUTHORIZED
        })
    };
    let basic = |wrong| {
        let credentials = BASE64.encode(format!("kim:{}", secret(wrong)).as_bytes());
        ("authorization", format!("Basic {credentials}"))
    };
    [
        measure("a request with a signature", "/signed", github),
        measure("a request with a token", "/token", |wrong| {
            ("x-token", secret(wrong))
        }),
        measure("a request with a password", "/basic", basic),
    ]
    .into_iter()
    .fold(0.0, f64::max)
}

#[expect(clippy::panic, reason = "the configuration is in this file")]
fn panic_with<T>(report: &impl std::fmt::Display) -> T {
    panic!("{report}")
}

struct Bench {
    count: usize,
}

impl Bench {
    /// Times `refuses` on guesses of both classes and prints what came of it: the largest t.
    fn run<I>(&self, name: &str, input: impl Fn(Wrong) -> I, refuses: impl Fn(&I) -> bool) -> f64 {
        let mut coin = Coin::new();
        let mut times = Vec::with_capacity(self.count + BATCH);
        // The first batch warms up.
        let mut is_warm = false;
        while times.len() < self.count {
            let batch: Vec<(Wrong, I)> = (0..BATCH)
                .map(|_| coin.toss())
                .map(|wrong| (wrong, input(wrong)))
                .collect();
            for (wrong, guess) in &batch {
                let begun = Instant::now();
                let refused = refuses(black_box(guess));
                let took = begun.elapsed();
                assert!(refused, "{name}: a wrong guess was taken");
                let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
                times.push((*wrong, took));
            }
            if !std::mem::replace(&mut is_warm, true) {
                times.clear();
            }
        }
        report(name, &times)
    }
}

/// Prints one row and returns its largest t.
fn report(name: &str, times: &[(Wrong, u32)]) -> f64 {
    let mut sorted: Vec<u32> = times.iter().map(|(_, took)| *took).collect();
    sorted.sort_unstable();
    let all = welch(times, u32::MAX);
    // dudect crops at a hundred places; these are enough to leave the tail out at any length.
    let places = (1..=20).map(|n| n * 50).chain([990, 999]);
    let cropped = places.filter_map(|place| {
        let most = sorted.get(sorted.len() * place / 1000)?;
        Some(welch(times, *most))
    });
    let cropped = cropped.fold(0.0_f64, |most, t| most.max(t.abs()));
    let median = |class: Wrong| {
        let mut own: Vec<u32> = times
            .iter()
            .filter(|(wrong, _)| *wrong == class)
            .map(|(_, took)| *took)
            .collect();
        own.sort_unstable();
        own.get(own.len() / 2).copied().unwrap_or_default()
    };
    let (first, last) = (median(Wrong::First), median(Wrong::Last));
    let difference = i64::from(first) - i64::from(last);
    println!(
        "{:7}  {difference:+5} ns of {first:7} ns  {all:+6.2}  {cropped:18.2}  {name}",
        times.len()
    );
    cropped.max(all.abs())
}

/// Welch's t of the times up to `most`; 0 where there are too few.
fn welch(times: &[(Wrong, u32)], most: u32) -> f64 {
    let (mut first, mut last) = (Moments::default(), Moments::default());
    for (wrong, took) in times.iter().filter(|(_, took)| *took <= most) {
        match wrong {
            Wrong::First => first.add(f64::from(*took)),
            Wrong::Last => last.add(f64::from(*took)),
        }
    }
    if first.count.min(last.count) < ENOUGH {
        return 0.0;
    }
    let spread = first.variance() / first.count + last.variance() / last.count;
    if spread == 0.0 {
        return 0.0;
    }
    (first.mean - last.mean) / spread.sqrt()
}

/// Mean and variance, kept up as Welford does.
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

/// Which class comes next: `SplitMix64`, from a seed of the system.
struct Coin(u64);

impl Coin {
    fn new() -> Self {
        Self(getrandom::u64().expect("randomness"))
    }

    fn toss(&mut self) -> Wrong {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (mixed ^ (mixed >> 31)) & 1 == 0 {
            Wrong::First
        } else {
            Wrong::Last
        }
    }
}
