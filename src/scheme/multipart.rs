//! The text fields of a `multipart/form-data` body (RFC 7578), for schemes that sign them.
//!
//! Signed are names and values, not the bytes around them: whoever has one genuine body may write those anew.
//! So they are read strictly. What readers of such bodies take apart differently is nothing here, or an app
//! would find other values than those that were verified.

use memchr::memmem;

use super::locate::Pair;

/// Most parts of one body.
const PARTS_MAX: usize = 1000;
/// Longest boundary (RFC 2046 section 5.1.1).
const BOUNDARY_MAX: usize = 70;

/// What a body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Names and values of the text fields, in their order.
    pub(super) fields: Vec<Pair>,
    /// Names of the files.
    pub(super) files: Vec<Vec<u8>>,
}

impl Form {
    /// `None` when `body` is not what `content_type` says, or when there are readers that take it apart
    /// differently.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Option<Self> {
        let (_, parameters) = parameters(content_type)?;
        let boundary = only(&parameters, "boundary")?;
        if !(1..=BOUNDARY_MAX).contains(&boundary.len()) || !boundary.bytes().all(is_of_boundary) {
            return None;
        }
        let delimiter = format!("--{boundary}");
        let delimiters = memmem::Finder::new(&delimiter);
        let mut rest = body.strip_prefix(delimiter.as_bytes())?;
        let mut form = Self::default();
        for _ in 0..=PARTS_MAX {
            if let Some(end) = rest.strip_prefix(b"--") {
                // There are readers that look for parts in what follows.
                return matches!(end, b"" | b"\r\n").then_some(form);
            }
            rest = rest.strip_prefix(b"\r\n")?;
            // Wherever it stands it ends the part: there are readers to which a bare LF before it is enough.
            let (part, tail) = rest.split_at_checked(delimiters.find(rest)?)?;
            form.take(part.strip_suffix(b"\r\n")?)?;
            rest = tail.get(delimiter.len()..)?;
        }
        None
    }

    fn take(&mut self, part: &[u8]) -> Option<()> {
        let (head, value) = part.split_at_checked(memmem::find(part, b"\r\n\r\n")?)?;
        let value = value.get(4..)?;
        let mut dispositions = Vec::new();
        for line in std::str::from_utf8(head).ok()?.split("\r\n") {
            let (name, text) = line.split_once(':')?;
            if !is_token(name) || text.contains(|c: char| c.is_ascii_control()) {
                return None;
            }
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" => dispositions.push(parameters(text)?),
                "content-length" if text.trim() != value.len().to_string() => return None,
                "content-transfer-encoding" if !is_verbatim(text) => return None,
                "content-type" if !is_text_or_file(text) => return None,
                _ => {}
            }
        }
        let [(kind, parameters)] = dispositions.as_slice() else {
            return None;
        };
        if !kind.eq_ignore_ascii_case("form-data") {
            return None;
        }
        let name = only(parameters, "name")?.as_bytes().to_vec();
        let mut others = parameters.iter().filter(|(own, _)| !is(own, "name"));
        if others.clone().next().is_none() {
            self.fields.push((name, value.to_vec()));
            return Some(());
        }
        // To some readers `filename*` alone makes a file, to others it does not.
        only(parameters, "filename")?;
        let is_of_file = |own: &str| is(own, "filename") || is(own, "filename*");
        others
            .all(|(own, _)| is_of_file(own))
            .then(|| self.files.push(name))
    }
}

/// What stands in a part as it is.
fn is_verbatim(encoding: &str) -> bool {
    ["7bit", "8bit", "binary"]
        .iter()
        .any(|own| encoding.trim().eq_ignore_ascii_case(own))
}

/// Whether a part of this media type is read as UTF-8 or as bytes, and not taken apart itself.
fn is_text_or_file(media_type: &str) -> bool {
    let Some((media_type, parameters)) = parameters(media_type) else {
        return false;
    };
    let media_type = media_type.to_ascii_lowercase();
    let is_plain = |(name, value): &(&str, &str)| {
        !name.contains('*')
            && (!is(name, "charset")
                || ["utf-8", "utf8", "us-ascii"]
                    .iter()
                    .any(|own| is(value, own)))
    };
    !media_type.starts_with("multipart/")
        && !media_type.starts_with("message/")
        && parameters.iter().all(is_plain)
}

fn is(text: &str, lower: &str) -> bool {
    text.eq_ignore_ascii_case(lower)
}

/// The value of the parameter `name`, where it is there once.
fn only<'a>(parameters: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    // `name*` and `name*0` are other ways to write it (RFC 2231), which not every reader knows.
    let is_another_way = |own: &str| {
        let base = own.split_once('*').map(|(base, _)| base);
        base.is_some_and(|base| is(base, name)) && name != "filename"
    };
    if parameters.iter().any(|(own, _)| is_another_way(own)) {
        return None;
    }
    let mut values = parameters.iter().filter(|(own, _)| is(own, name));
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// A header value and its parameters. `None` where readers may differ: quotes inside quotes, blanks around `=`,
/// values that are no token and not quoted.
fn parameters(text: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (main, mut rest) = match text.split_once(';') {
        Some((main, rest)) => (main, Some(rest)),
        None => (text, None),
    };
    let mut parameters = Vec::new();
    while let Some(text) = rest {
        let (name, text) = text.trim_start_matches(' ').split_once('=')?;
        if !is_token(name) {
            return None;
        }
        let (value, tail) = match text.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => text.split_at(text.find([';', ' ']).unwrap_or(text.len())),
        };
        let is_quoted = text.starts_with('"');
        if value.contains('\\') || !(is_quoted || is_token(value)) {
            return None;
        }
        parameters.push((name, value));
        let tail = tail.trim_start_matches(' ');
        rest = match tail.strip_prefix(';') {
            Some(more) => Some(more),
            None if tail.is_empty() => None,
            None => return None,
        };
    }
    Some((main.trim(), parameters))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_token)
}

/// RFC 2046 section 5.1.1, without the blank.
fn is_of_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA_TYPE: &str = "multipart/form-data; boundary=x";
    const BODY: &str = "Content-Disposition: form-data; name=\"Body\"";

    fn with_head(head: &str) -> Option<Form> {
        let body = format!("--x\r\n{head}\r\n\r\nv\r\n--x--\r\n");
        Form::read(MEDIA_TYPE, body.as_bytes())
    }

    #[test]
    fn parts_are_read_strictly() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{}\r\n--x\r\n\
            content-disposition: form-data; name=b\r\nContent-Type: text/plain\r\n\r\na\r\n\r\nb\r\n--x--\r\n";
        let form = Form::read(MEDIA_TYPE, body).unwrap();
        let (json, b) = (&form.fields[0], &form.fields[1]);
        assert_eq!(
            (json, form.fields.len()),
            (&(b"json".to_vec(), b"{}".to_vec()), 2)
        );
        assert_eq!(*b, (b"b".to_vec(), b"a\r\n\r\nb".to_vec()));
        for bad in [
            &b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1"[..],
            b"--x\r\n\r\n1\r\n--x--",
            b"--y--",
            b"--x--\r\n\r\n--x\r\nContent-Disposition: form-data; name=b\r\n\r\n2\r\n--x--\r\n",
            b"--x--x",
            b"",
        ] {
            assert_eq!(Form::read(MEDIA_TYPE, bad), None);
        }
        for media_type in ["multipart/form-data", "multipart/form-data; boundary=\"\""] {
            assert_eq!(Form::read(media_type, b"--x--"), None);
        }
    }

    #[test]
    fn what_others_read_as_something_else_is_nothing() {
        // Signed are names and values, not the bytes around them.
        let fine = [
            BODY.to_owned(),
            BODY.to_lowercase(),
            format!("{BODY}\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: 1"),
            format!("Content-Transfer-Encoding: 8bit\r\nX-Other: y\r\n{BODY}"),
        ];
        for head in fine {
            assert_eq!(with_head(&head).unwrap().fields.len(), 1, "{head}");
        }
        let bad = [
            // Heads that end, or go on, earlier for some.
            format!("{BODY}\r\nX: y\n\nEVIL\n--y"),
            format!("X: y\nContent-Disposition: form-data; name=\"junk\"\r\n{BODY}"),
            format!("{BODY}\r\n; name=\"other\""),
            format!("{BODY}\r\n X: y"),
            format!("X : y\r\n{BODY}"),
            format!("{BODY}\r\nX: \0"),
            // Other names.
            format!("{BODY}; name*=utf-8''From"),
            format!("{BODY}; name*0=From"),
            format!("{BODY}; Name=From"),
            format!("{BODY}; x=\"; name=From"),
            "Content-Disposition: form-data; name=\"Bo\\\"dy\"".to_owned(),
            "Content-Disposition: form-data; name =Body".to_owned(),
            "Content-Disposition: form-data; name=Body x".to_owned(),
            "Content-Disposition: attachment; name=Body".to_owned(),
            format!("{BODY}\r\n{BODY}"),
            // A file to some, and not to others.
            format!("{BODY}; filename*=utf-8''f"),
            // Other values.
            format!("{BODY}\r\nContent-Transfer-Encoding: base64"),
            format!("{BODY}\r\nContent-Type: text/plain; charset=utf-16"),
            format!("{BODY}\r\nContent-Type: multipart/mixed; boundary=y"),
            format!("{BODY}\r\nContent-Length: 9"),
        ];
        for head in bad {
            assert_eq!(with_head(&head), None, "{head}");
        }
        // Other boundaries.
        let body = format!("--x\r\n{BODY}\r\n\r\nv\r\n--x--\r\n");
        for more in [
            "; boundary*=utf-8''y",
            "; boundary*0=y",
            "; Boundary=y",
            "; x",
        ] {
            let media_type = format!("{MEDIA_TYPE}{more}");
            assert_eq!(Form::read(&media_type, body.as_bytes()), None, "{more}");
        }
        // A boundary that a stranger chose so that it stands in a value.
        for value in [
            "hi\n--x\nContent-Disposition: form-data; name=a\n\n",
            "--x",
            "a--x",
        ] {
            let body = format!("--x\r\n{BODY}\r\n\r\n{value}\r\n--x--\r\n");
            assert_eq!(Form::read(MEDIA_TYPE, body.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn files_are_told_from_fields() {
        for head in [
            format!("{BODY}; filename=\"a b.png\"\r\nContent-Type: image/png"),
            format!("{BODY}; filename=\"a.png\"; filename*=UTF-8''%c3%a4.png"),
        ] {
            let form = with_head(&head).unwrap();
            assert_eq!((form.fields.len(), form.files), (0, vec![b"Body".to_vec()]));
        }
    }
}
