//! The fuzz targets over their seeds and changed copies of them: what a fuzzer would find at once is
//! found here. `tests/fuzz` has the fuzzer; `HOOKWARD_SEED=1` writes its corpus.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use targets::{TARGETS, Target};

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len() + 1;
        match self {
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Flip(at, mask) => {
                if let Some(byte) = bytes.get_mut(at.index(length)) {
                    *byte ^= mask;
                }
            }
            Self::Insert(at, what) => {
                let at = at.index(length);
                bytes.splice(at..at, what.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Repeat(at, count) => {
                let at = at.index(length);
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let word = prop::sample::select(vec![
        "\n", "\r\n", ",", "=", "\"", ":", "{", "}", "%", "&", ".", " ", "0", "\0", "\u{e4}",
        "\n\n",
    ]);
    let word = word.prop_map(|word: &str| word.as_bytes().to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 1..4);
    let at = any::<prop::sample::Index>;
    let change = prop_oneof![
        at().prop_map(Change::Cut),
        (at(), 1_u8..).prop_map(|(at, mask)| Change::Flip(at, mask)),
        (at(), prop_oneof![word, bytes]).prop_map(|(at, what)| Change::Insert(at, what)),
        (at(), 1_usize..16).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1_usize..64).prop_map(|(at, count)| Change::Repeat(at, count)),
    ];
    prop::collection::vec(change, 1..4)
}

/// Runs a target over its seeds as they are, then over `cases` changed ones.
fn smoke(name: &str, cases: u32) {
    let Target { run, seeds, .. } = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds();
    assert!(!seeds.is_empty());
    if std::env::var_os("HOOKWARD_SEED").is_some() {
        write(name, &seeds);
    }
    for seed in &seeds {
        run(seed);
    }
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let inputs = (prop::sample::select(seeds), changes());
    let result = runner.run(&inputs, |(mut input, changes)| {
        for change in &changes {
            change.apply(&mut input);
        }
        let judged = std::panic::catch_unwind(|| run(&input));
        judged.map_err(|_told| {
            let shown = String::from_utf8_lossy(&input);
            TestCaseError::fail(format!("the invariant does not hold for {shown:?}"))
        })
    });
    result.unwrap();
}

/// Puts the seeds where the fuzzer looks for them.
fn write(name: &str, seeds: &[Vec<u8>]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/fuzz/corpus").join(name);
    fs::create_dir_all(&folder).unwrap();
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{index:04}")), seed).unwrap();
    }
}

macro_rules! smokes {
    ($($name:ident $cases:literal;)+) => {
        $(
            #[test]
            fn $name() {
                smoke(stringify!($name), $cases);
            }
        )+

        #[test]
        fn every_target_is_here() {
            let here = [$(stringify!($name)),+];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), here);
        }
    };
}

smokes! {
    aws_sns 300;
    config_yaml 300;
    forms 1000;
    forwarded_for 2000;
    http_signature 600;
    json_pointer 800;
    jwt 600;
    path_matcher 1000;
    proxy 300;
    proxy_header 2000;
    query_rewrite 2000;
    request_parser 1000;
    scheme_yaml 200;
    signature_header 1000;
    timestamps 1000;
    url_forms 1000;
}
