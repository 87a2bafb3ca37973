//! HTTP Message Signatures: `Signature-Input`, `Signature`, `Content-Digest` (RFC 9421, 9530).

use super::laws;
use super::support::{Bench, Input, Once};

fn bench() -> &'static Bench {
    static BENCH: Once<Bench> = Once::new();
    BENCH.get_or_init(|| Bench::of(&["http-message-signatures"]))
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
    if laws::hold(judge, &input).is_err() {
        return;
    }
    let text = |name: &str| {
        let fields = input.headers.get_all(name).iter();
        fields
            .map(|field| field.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (names, signatures) = (text("signature-input"), text("signature"));
    assert!(
        names.contains('(') && signatures.contains(':'),
        "accepted unsigned"
    );
    // A covered method is that of the request: another one is another content.
    if names.contains("\"@method\"") {
        let other = Input {
            method: http::Method::from_bytes(b"FUZZ").unwrap(),
            headers: input.headers.clone(),
            url: input.url.clone(),
            body: input.body.clone(),
        };
        let body = other.content();
        let verdict = judge
            .scheme
            .verify(&other.message(&body), &judge.keys, judge.now);
        assert!(
            verdict.is_err() || names.matches('(').count() > 1,
            "a covered method was changed"
        );
    }
}
