//! Amazon SNS: the JSON envelope, its canonical text, the names of topics and certificates.

use std::collections::HashMap;

use serde_json::value::RawValue;

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
        let envelope: HashMap<String, &RawValue> = serde_json::from_slice(&input.body).unwrap();
        for name in ["MessageId", "Message", "Timestamp", "TopicArn", "Signature"] {
            let is_text = envelope[name].get().starts_with('"');
            assert!(is_text, "accepted without {name}");
        }
    }
}
