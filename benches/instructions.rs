//! How many instructions the hot pieces of the gateway execute, against the budget in
//! `instructions.budget`: a piece that costs more than 3 % over it fails.
//!
//! `cargo bench --bench instructions` checks; with `HOOKWARD_BLESS=1` it writes the budget anew; with `-- PIECE` it
//! says which functions a piece spends them in. Instructions are counted by `valgrind --tool=callgrind`, which shows
//! every program the same processor: neither load nor the machine's own extensions move the figures. Counted apart
//! are cryptography, for beside a hash of 2 KiB nobody would see what we add, and the heap, where what an allocation
//! costs depends on all that were before. The echo that stands for an app is not counted.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may panic and prints what it measured"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use tempfile::TempDir;

mod pieces;

use pieces::Run;

/// Argument with which the program, under valgrind, runs the pieces.
const RUN: &str = "--run-pieces";
/// Runs that are counted together, after as many that warm up.
const TIMES: u32 = 50;
/// How often that is done: the lowest counts are free of what happens now and then.
const BATCHES: usize = 5;
/// Cryptography, which is not ours to make cheaper; the names of its functions begin so.
const CRYPTOGRAPHY: &[&str] = &["aws_lc_", "blake3::", "md5::", "sha1::", "sha2::"];
/// Where the heap begins.
const HEAP: &[&str] = &["malloc", "calloc", "realloc", "posix_memalign", "free"];
/// What answers in the place of an app.
const ECHO: &str = "<hookward::gateway::echo::Echo*::send::*";
const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.budget");
const HEADER: &str = "\
# Instructions for each run of a piece (benches/pieces.rs): of our own, in the heap, in cryptography.
# Written by `HOOKWARD_BLESS=1 cargo bench --bench instructions`.
";
/// How far a piece may go over its budget, in thousandths.
const ROOM: u64 = 30;
/// The same of the heap, which never costs the same twice.
const ROOM_HEAP: u64 = 500;
/// The same where another compiler made the code, or the processor has not what valgrind passes on.
const ROOM_ELSEWHERE: u64 = 150;
/// Functions that are shown of a piece.
const EXPLAINED: usize = 40;
/// Of so few instructions a thousandth is none.
const SMALL: u64 = 10;
/// The same of the heap: a few allocations more are nothing.
const SMALL_HEAP: u64 = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == RUN) {
        return run();
    }
    let counted = Counted::new();
    if let Some(piece) = arguments.iter().find(|word| !word.starts_with("--")) {
        return counted.explain(piece);
    }
    let costs = counted.costs();
    #[expect(clippy::disallowed_methods, reason = "not the program's configuration")]
    if std::env::var("HOOKWARD_BLESS").is_ok() {
        fs::write(BUDGET, write(&costs)).expect("the budget can be written");
        println!("wrote {BUDGET}");
        return ExitCode::SUCCESS;
    }
    check(&costs)
}

/// The program under valgrind: each call of [`measured`] is counted apart.
fn run() -> ExitCode {
    for piece in pieces::all(&[1, 1000]) {
        let times = usize::try_from(TIMES).unwrap_or_default();
        piece.prepare(times)();
        for _ in 0..BATCHES {
            measured(piece.prepare(times));
        }
        println!("{}", piece.name);
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn measured(run: Run) {
    run();
}

/// Instructions for each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    own: u64,
    heap: u64,
    cryptography: u64,
}

impl Cost {
    fn lowest(self, other: Self) -> Self {
        Self {
            own: self.own.min(other.own),
            heap: self.heap.min(other.heap),
            cryptography: self.cryptography.min(other.cryptography),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            own,
            heap,
            cryptography,
        } = self;
        write!(f, "{own:9} {heap:9} {cryptography:12}")
    }
}

type Costs = BTreeMap<String, Cost>;

/// The dumps of callgrind: so many batches for each piece.
struct Counted {
    folder: TempDir,
    pieces: Vec<String>,
}

impl Counted {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
            .args([
                "--toggle-collect=instructions::measured",
                &format!("--toggle-collect={ECHO}"),
                "--dump-after=instructions::measured",
                "--compress-strings=no",
                "--compress-pos=no",
            ])
            .arg(format!(
                "--callgrind-out-file={}/out",
                folder.path().display()
            ))
            .arg(std::env::current_exe().expect("our own path"))
            .arg(RUN)
            .stderr(Stdio::inherit())
            .output()
            .expect("valgrind is installed");
        assert!(run.status.success(), "{}", run.status);
        let names = String::from_utf8(run.stdout).expect("names are text");
        let pieces = names.lines().map(str::to_owned).collect();
        Self { folder, pieces }
    }

    /// The dumps of a piece.
    fn batches(&self, piece: usize) -> impl Iterator<Item = String> {
        let numbers = piece * BATCHES + 1..=(piece + 1) * BATCHES;
        numbers.map(|number| {
            let file = self.folder.path().join(format!("out.{number}"));
            fs::read_to_string(file).expect("a dump for each batch")
        })
    }

    fn costs(&self) -> Costs {
        let pieces = self.pieces.iter().enumerate();
        let costs = pieces.map(|(index, name)| {
            let costs = self.batches(index).map(|text| Profile::parse(&text).cost());
            let lowest = costs.reduce(Cost::lowest).expect("a batch");
            (name.clone(), lowest)
        });
        costs.collect()
    }

    fn explain(&self, piece: &str) -> ExitCode {
        let Some(index) = self.pieces.iter().position(|name| name == piece) else {
            println!(
                "there is no piece {piece}; there are: {}",
                self.pieces.join(" ")
            );
            return ExitCode::FAILURE;
        };
        let text = self.batches(index).last().expect("a batch");
        let profile = Profile::parse(&text);
        let mut own: Vec<_> = profile.own.into_iter().collect();
        own.sort_by_key(|(_, cost)| Reverse(*cost));
        for (function, cost) in own.iter().take(EXPLAINED) {
            println!("{:9} {function}", cost / u64::from(TIMES));
        }
        ExitCode::SUCCESS
    }
}

/// What each function cost by itself, who called whom, and what that cost.
#[derive(Default)]
struct Profile<'t> {
    own: BTreeMap<&'t str, u64>,
    calls: BTreeMap<&'t str, BTreeMap<&'t str, u64>>,
}

impl<'t> Profile<'t> {
    fn parse(text: &'t str) -> Self {
        let mut profile = Self::default();
        let (mut caller, mut callee) = ("", "");
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                caller = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if let Some(cost) = cost(line) {
                let sum = if std::mem::take(&mut is_call) {
                    let calls = profile.calls.entry(caller).or_default();
                    calls.entry(callee).or_default()
                } else {
                    profile.own.entry(caller).or_default()
                };
                *sum += cost;
            }
        }
        profile
    }

    /// For each run.
    fn cost(&self) -> Cost {
        let total: u64 = self.own.values().sum();
        assert!(total > 0, "nothing was counted");
        let (heap, cryptography) = self.apart();
        let each = |sum: u64| sum / u64::from(TIMES);
        Cost {
            own: each(total - heap - cryptography),
            heap: each(heap),
            cryptography: each(cryptography),
        }
    }

    /// What was spent in calls from us to the heap, and to cryptography.
    fn apart(&self) -> (u64, u64) {
        let (mut heap, mut cryptography) = (0, 0);
        let callers = self.calls.keys().copied();
        let mut open: Vec<&str> = callers
            .filter(|name| name.contains("instructions::measured"))
            .collect();
        let mut seen: BTreeSet<&str> = open.iter().copied().collect();
        while let Some(caller) = open.pop() {
            for (callee, cost) in self.calls.get(caller).into_iter().flatten() {
                let path = callee.trim_start_matches(['<', '&']);
                if CRYPTOGRAPHY.iter().any(|prefix| path.starts_with(prefix)) {
                    cryptography += cost;
                } else if HEAP.contains(callee) {
                    heap += cost;
                } else if seen.insert(callee) {
                    open.push(callee);
                }
            }
        }
        (heap, cryptography)
    }
}

/// The cost in a line of positions and cost.
fn cost(line: &str) -> Option<u64> {
    let (position, cost) = line.split_once(' ')?;
    position.parse::<u64>().ok()?;
    cost.parse().ok()
}

fn write(counted: &Costs) -> String {
    let mut text = format!("{HEADER}# {}\n", compiler());
    for (name, cost) in counted {
        writeln!(text, "{name:30} {cost}").expect("text grows");
    }
    text
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.expect("the compiler").stdout;
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn check(counted: &Costs) -> ExitCode {
    let text = fs::read_to_string(BUDGET).expect("benches/instructions.budget");
    let budget: Costs = text.lines().filter_map(parse).collect();
    let room = room(&text);
    let mut wrong = Vec::new();
    println!(
        "{:30} {:>9} {:>9} {:>12}   budget",
        "instructions", "own", "heap", "cryptography"
    );
    for (name, cost) in counted {
        let Some(budget) = budget.get(name) else {
            wrong.push(format!("{name} has no budget"));
            continue;
        };
        println!("{name:30} {cost} {budget}");
        for (what, (is, may), room, small) in [
            ("of its own", (cost.own, budget.own), room, SMALL),
            (
                "in the heap",
                (cost.heap, budget.heap),
                ROOM_HEAP,
                SMALL_HEAP,
            ),
            (
                "in cryptography",
                (cost.cryptography, budget.cryptography),
                room,
                SMALL,
            ),
        ] {
            if is > may + (may * room / 1000).max(small) {
                let over = (is - may) * 1000 / may.max(1);
                let (percent, tenths) = (over / 10, over % 10);
                wrong.push(format!(
                    "{name}: {is} instructions {what}, {percent}.{tenths} % over its budget of {may}"
                ));
            }
        }
    }
    for name in budget.keys().filter(|name| !counted.contains_key(*name)) {
        wrong.push(format!("{name} has a budget and is no piece"));
    }
    for line in &wrong {
        println!("error: {line}");
    }
    if !wrong.is_empty() {
        println!(
            "help: make it cheaper, or accept it: HOOKWARD_BLESS=1 cargo bench --bench instructions"
        );
    }
    println!(
        "{} passed, {} failed",
        counted.len() - wrong.len().min(counted.len()),
        wrong.len()
    );
    ExitCode::from(u8::from(!wrong.is_empty()))
}

fn parse(line: &str) -> Option<(String, Cost)> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|name| *name != "#")?;
    let mut number = || words.next()?.parse().ok();
    let cost = Cost {
        own: number()?,
        heap: number()?,
        cryptography: number()?,
    };
    Some((name.to_owned(), cost))
}

/// How much more than the budget may be used here.
fn room(budget: &str) -> u64 {
    let compiler = compiler();
    if !budget.contains(&format!("# {compiler}\n")) {
        println!(
            "the budget was written with another compiler than {compiler}: {ROOM_ELSEWHERE} thousandths of room"
        );
        return ROOM_ELSEWHERE;
    }
    if !has_avx2() {
        println!(
            "the budget was written where processors have AVX2: {ROOM_ELSEWHERE} thousandths of room"
        );
        return ROOM_ELSEWHERE;
    }
    ROOM
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}
