//! Removing the token from the query.

use hookward::gateway::headers::{decoded_name, strip_query};

use super::support::line;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "auth\n/p?a=1&auth=TK&b=2",
        "auth,a b\n/p?%61uth=TK&a+b&b=%zz",
        "a\n/p?&&a&a=&=a",
        "a\n/p?",
        "\n/?=1&&x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// SECURITY Z-05: what decodes to a name goes, every other byte stays.
pub(crate) fn run(data: &[u8]) {
    let (names, target) = line(data);
    let (Ok(names), Ok(target)) = (std::str::from_utf8(names), std::str::from_utf8(target)) else {
        return;
    };
    let names: Vec<&str> = names.split(',').collect();
    let stripped = strip_query(target, &names);
    assert_eq!(
        strip_query(&stripped, &names),
        stripped,
        "twice is not once"
    );
    let Some((path, query)) = target.split_once('?') else {
        assert_eq!(stripped, target);
        return;
    };
    let is_secret = |field: &&str| names.contains(&decoded_name(field).as_str());
    let kept: Vec<&str> = query.split('&').filter(|field| !is_secret(field)).collect();
    let rest = stripped.strip_prefix(path).expect("the path is another");
    if kept.is_empty() {
        assert_eq!(rest, "");
    } else {
        assert_eq!(
            rest.strip_prefix('?'),
            Some(&*kept.join("&")),
            "other bytes changed"
        );
    }
    // By another reader: what a decoder of bytes takes for one of the names is gone.
    let fields = rest.strip_prefix('?').unwrap_or_default().split('&');
    for field in fields.filter(|field| !field.is_empty()) {
        let name = field.split('=').next().unwrap().replace('+', " ");
        let name: Vec<u8> = percent_encoding::percent_decode_str(&name).collect();
        assert!(
            names.iter().all(|own| own.as_bytes() != name),
            "the token is still there"
        );
    }
}
