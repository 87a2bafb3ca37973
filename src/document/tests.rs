use std::collections::HashMap;

use serde::Deserialize;

use super::*;
use crate::units::ByteSize;

#[derive(Debug, Deserialize)]
struct Spec {
    name: At<String>,
    size: Option<At<Parsed<ByteSize>>>,
    items: Option<At<Vec<At<Item>>>>,
    tags: Option<At<OneOrMany<String>>>,
    secret: Option<At<TextOr<Item>>>,
}

#[derive(Debug, Deserialize)]
struct Item {
    id: At<u16>,
}

fn decode(text: &str) -> (Option<Spec>, Vec<Problem>) {
    let mut problems = Vec::new();
    let document = Document::parse(text).unwrap();
    let spec = document.decode(&mut problems);
    (spec, problems)
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let (spec, problems) = decode(
        "name: [1]\nsize: 5x\nitmes: []\nitems:\n  - id: 70000\n  - id: 7\n    x-note: free\n",
    );
    let spec = spec.unwrap();
    let items = spec.items.unwrap().into_inner().unwrap();
    assert_eq!(items[1].get().unwrap().id.get(), Some(&7));
    let mut seen: Vec<_> = problems
        .iter()
        .map(|p| (p.mark.line, p.mark.column, p.path.as_str()))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            (1, 7, "name"),
            (2, 7, "size"),
            (3, 1, "itmes"),
            (5, 9, "items[0].id")
        ]
    );
    let unknown = problems.iter().find(|p| p.path == "itmes").unwrap();
    assert_eq!(unknown.hint.as_deref(), Some("did you mean `items`?"));
}

#[test]
fn absent_keys_are_told_from_wrong_ones() {
    let (spec, problems) = decode("size: 1KiB\n");
    let spec = spec.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(spec.name.get().is_none() && spec.name.place().is_none());
    assert_eq!(spec.size.unwrap().get().unwrap().0, ByteSize(1024));
}

#[test]
fn one_or_many_and_text_or() {
    let (spec, problems) = decode("name: a\ntags: one\nsecret: { id: 3 }\n");
    assert!(problems.is_empty(), "{problems:?}");
    let spec = spec.unwrap();
    assert_eq!(spec.tags.unwrap().get().unwrap().0[0].get().unwrap(), "one");
    assert!(
        matches!(spec.secret.unwrap().get(), Some(TextOr::Full(item)) if item.id.get() == Some(&3))
    );
    let (spec, _) = decode("name: a\ntags: [one, two]\nsecret: env:X\n");
    let spec = spec.unwrap();
    assert_eq!(spec.tags.unwrap().get().unwrap().0.len(), 2);
    assert!(matches!(spec.secret.unwrap().get(), Some(TextOr::Text(text)) if text == "env:X"));
}

#[test]
fn what_else_is_wrong_is_told_too() {
    let (spec, problems) =
        decode("name: a\nname: b\u{2028}\nsize: 2 KG\nx-a: 99999999999999999999\n");
    assert_eq!(spec.unwrap().name.get().unwrap(), "a");
    let mut told: Vec<_> = problems
        .iter()
        .map(|own| (own.mark.line, &*own.path))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(2, ""), (2, "name"), (3, "size")], "{problems:?}");
}

#[test]
fn keys_that_are_equal_in_another_spelling_are_errors() {
    // SECURITY DS-21: what one of them restricts must not vanish
    for text in [
        "x-p: &p allow\nlist: { allow: 1, *p : 2 }\n",
        "x-a: &a { b: 1 }\nx-c: &c { b: 2 }\nlist: { <<: *a, <<: *c }\n",
        "list: { 16: a, 0x10: b }\n",
    ] {
        assert!(Document::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_number_that_no_type_holds_is_a_text() {
    let (spec, problems) =
        decode("name: 123456789012345678901234567890\nsize: 99999999999999999999\n");
    assert_eq!(
        spec.unwrap().name.get().unwrap(),
        "123456789012345678901234567890"
    );
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].mark.line, &*problems[0].path), (2, "size"));
}

#[test]
fn a_text_is_what_is_written() {
    for text in [
        "1.10",
        "+49151",
        "7e10",
        "0x10",
        "0b11",
        "True",
        "1e3",
        ".5",
        "-0.0",
        "12345678901234567890.5",
    ] {
        let (spec, problems) = decode(&format!("name: {text}\n"));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(spec.unwrap().name.get().unwrap(), text);
        let (spec, _) = decode(&format!("x-own: &own {text}\nname: *own\n"));
        assert_eq!(spec.unwrap().name.get().unwrap(), text, "by an alias");
    }
}

#[test]
fn a_text_under_an_anchor_is_what_is_written() {
    #[derive(Debug, Deserialize)]
    struct Route {
        forward: At<HashMap<String, At<String>>>,
    }
    for (lead, forward) in [
        ("x-h: &h { v: 1.10, a.b: 1e3, t: True }", "*h"),
        ("x-h: &h { v: 1.10, a.b: 1e3, t: True }", "{ <<: *h }"),
        (
            "x-h: [&h { v: 1.10, a.b: 1e3 }, &i { v: 1.20, t: True }]",
            "{ <<: [*h, *i] }",
        ),
        (
            "x-t: &t True\nx-h: &h { a.b: 1e3, t: *t }",
            "{ <<: *h, v: 1.10 }",
        ),
    ] {
        let text = format!("{lead}\nforward: {forward}\n");
        let mut problems = Vec::new();
        let document = Document::parse(&text).unwrap();
        let route: Route = document.decode(&mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let headers = route.forward.get().unwrap();
        let of = |key: &str| headers[key].get().unwrap().as_str();
        let all = [of("v"), of("a.b"), of("t")];
        assert_eq!(all, ["1.10", "1e3", "True"], "{text}");
    }
}

#[test]
fn a_mistake_under_an_anchor_is_told_where_it_stands() {
    for text in [
        "x-i:\n  - &one\n    id: many\nname: a\nitems: [*one]\n",
        "x-i: &all\n  -\n    id: many\nname: a\nitems: *all\n",
        "x-i: &one\n\n    id: many\nname: a\nitems: [{ <<: *one }]\n",
        "x-i: &one\n\n    id: many\nname: a\nitems: [{ <<: [*one] }]\n",
        "x-i: &one\n\n    id: many\nx-j: &two { <<: *one }\nname: a\nitems: [{ <<: *two }]\n",
    ] {
        let (_, problems) = decode(text);
        let told: Vec<_> = problems
            .iter()
            .map(|own| (own.mark.line, own.mark.column, &*own.path))
            .collect();
        assert_eq!(told, [(3, 9, "items[0].id")], "{text}");
    }
}

#[test]
fn what_is_no_mapping_cannot_be_merged() {
    for (text, mark) in [
        ("name: a\nx-a: { <<: text }\n", (2, 12)),
        ("name: a\nitems: [{ <<: [text] }]\n", (2, 15)),
        ("x-t: &t text\nitems:\n- { <<: *t }\n", (3, 9)),
    ] {
        let problems = Document::parse(text).unwrap_err();
        assert_eq!(problems.len(), 1);
        let Mark { line, column } = problems[0].mark;
        assert_eq!((line, column), mark, "{text}");
        assert!(problems[0].message.contains("`<<`"), "{text}");
    }
}

#[test]
fn a_second_document_is_told_where_it_begins() {
    for text in ["name: a\n---\nname: b\n", "name: a\n...\nname: b\n"] {
        let problems = Document::parse(text).unwrap_err();
        assert!(problems[0].mark.line >= 2, "{problems:?}");
        assert!(problems[0].message.contains("a second document"));
    }
    assert!(Document::parse("---\nname: a\n...\n").is_ok());
}

#[test]
fn a_key_that_is_no_text_is_told() {
    for (key, what) in [
        ("null", "nothing"),
        ("~", "nothing"),
        ("[id, 2]", "a list"),
        ("{ id: 2 }", "a mapping"),
    ] {
        let (spec, problems) = decode(&format!("name: a\n? {key}\n: [b]\nsize: x\n"));
        assert_eq!(spec.unwrap().name.get().unwrap(), "a");
        let told: Vec<_> = problems
            .iter()
            .map(|own| (own.mark.line, own.mark.column))
            .collect();
        assert_eq!(told, [(2, 3), (4, 7)], "{key}: {problems:?}");
        assert!(
            problems[0].message.ends_with(what),
            "{}",
            problems[0].message
        );
    }
}

#[test]
fn curly_quotes_are_told() {
    for text in ["“sha256=”", "„sha256=“", "‘sha256=’"] {
        let (spec, problems) = decode(&format!("name: {text}\n"));
        assert_eq!(spec.unwrap().name.get().unwrap(), text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].severity, Severity::Warning);
    }
    let (_, problems) = decode("name: the users’\n");
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_wrong_number_is_told_as_it_is_written() {
    for (id, told) in [
        ("-1", "from 0 to 65535, got `-1`"),
        ("1e3", "got `1e3`"),
        ("99999999999", "this is too large: the most is 65535"),
        ("'99999999999'", "this is too large: the most is 65535"),
        (
            "99999999999999999999",
            "this is too large: the most is 65535",
        ),
        ("99999", "from 0 to 65535, got `99999`"),
        ("-99999999999", "got another number"),
        ("'99999999999x'", "got another text"),
    ] {
        let (_, problems) = decode(&format!("name: a\nitems: [{{ id: {id} }}]\n"));
        assert!(problems[0].message.ends_with(told), "{problems:?}");
    }
}

#[test]
fn a_key_without_a_value_is_a_slip() {
    let (_, problems) = decode("name: a\nsize:\n");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "this key has no value");
    assert_eq!(problems[0].mark, Mark { line: 2, column: 1 });
}

#[test]
fn syntax_errors_have_a_place() {
    let problems = Document::parse("a: [1\nb: 2\n").unwrap_err();
    assert!(problems[0].mark.line >= 1 && problems[0].message.contains("not valid YAML"));
}

#[test]
fn syntax_errors_have_the_hint_of_their_cause() {
    for (text, helps) in [
        ("a:\n\tb: 1\n", "blanks instead of tabs"),
        ("a: \"one\nb: 2\n", "close the quote"),
        ("a: 'it's'\nb: 2\n", "write `''` for a `'`"),
        ("a: \"\\d\"\n", "a backslash begins an escape"),
        (
            "a: 1\n  b: 2\n",
            "here or in the line above: write `key: value`",
        ),
        ("a: b: c\n", "quotes around a value"),
        ("a:\n  -b: 1\n   c: 2\n", "with a blank after `-`"),
        ("a:\n  b: 1\n c: 2\n", "begin in the same column"),
        ("a:\n  - b\n  c: 2\n", "begin in the same column"),
        ("a: 1\nb:2\n", "with a blank after the colon"),
        (
            "a: [1, 2\nb: 3\n",
            "close the `[` of line 1, column 4 with a `]`",
        ),
        (
            "a: {\n  b: {c: 1\n}\nd: 2\n",
            "close the `{` of line 1, column 4",
        ),
        ("a: [{b: 1, c: [2}]\n", "close the `[` of line 1, column 15"),
        (
            "é: { b: 1 c: 2 }\n",
            "close the `{` of line 1, column 4 with a `}`, put a comma",
        ),
        ("a: [\"b\" \"c\"]\n", "put a comma between any two items"),
        ("a: \"b\" c\n", "quote all of the value"),
        ("a: [b]]\n", "remove it"),
        (" a: 1\nb: 2\n", "begin in the same column"),
        ("a: | b\n", "into quotes that begins with"),
        ("a: >b\n", "into quotes that begins with"),
        ("a: *\n", "into quotes that begins with"),
        ("a: *b\n", "define that one"),
        ("a: { b: *c }\n", "define that one"),
        ("a: @b\n", "into quotes that begins with"),
        ("a: `b`\n", "into quotes that begins with"),
    ] {
        let problems = Document::parse(text).unwrap_err();
        let hint = problems[0].hint.as_deref().unwrap_or_default();
        assert!(hint.contains(helps), "{text:?}: {problems:?}");
    }
}

#[test]
fn environment_in_scalars() {
    let mut document = Document::parse("name: ${env:A}-${env:B:-two}\nsize: ${env:C}\n").unwrap();
    let lookup = |name: &str| Ok((name == "A").then(|| "one".to_owned()));
    let mut problems = Vec::new();
    document.interpolate(&lookup, &mut problems);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].mark.line, problems[0].path.as_str()),
        (2, "size")
    );
    let spec: Spec = document.decode(&mut Vec::new()).unwrap();
    assert_eq!(spec.name.get().unwrap(), "one-two");
}

#[test]
fn anchors_merges_and_bombs() {
    let (spec, problems) = decode("x-base: &b { size: 2KiB }\n<<: *b\nname: a\n");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(spec.unwrap().size.unwrap().get().unwrap().0, ByteSize(2048));

    let (spec, problems) = decode(
        "x-a: &a { size: 1KiB, name: a }\nx-b: &b { <<: *a, size: 2KiB }\nx-c: &c { size: 3KiB }\n<<: [*b, *c]\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    let spec = spec.unwrap();
    assert_eq!(spec.size.unwrap().get().unwrap().0, ByteSize(2048));
    assert_eq!(spec.name.get().unwrap(), "a", "merged into what is merged");

    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, before) in ('b'..='z').zip('a'..) {
        let refs = vec![format!("*{before}"); 9].join(", ");
        bomb.extend([format!("{name}: &{name} [{refs}]\n")]);
    }
    assert!(Document::parse(&bomb).is_err(), "DS-21");
}
