//! Amazon SNS: the JSON envelope, its canonical text, the names of topics and certificates.

use super::laws;
use super::support::{Bench, Input, Once};

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(&["aws-sns"]))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    bench().seeds()
}

pub(crate) fn run(data: &[u8]) {
    let Some((judge, request)) = bench().split(data) else {
        return;
    };
    let Some(input) = Input::parse(request) else {
        return;
    };
    if laws::hold(judge, &input).is_ok() {
        // What is accepted is one envelope with all that a notification signs.
        let envelope: serde_json::Value = serde_json::from_slice(&input.body).unwrap();
        for name in ["MessageId", "Message", "Timestamp", "TopicArn", "Signature"] {
            assert!(envelope[name].is_string(), "accepted without {name}");
        }
    }
}
