//! The text fields of a `multipart/form-data` body (RFC 7578), for schemes that sign them.
//!
//! Signed are names and values, not the bytes around them: whoever has one genuine body may write those anew.
//! So they are read strictly. What known readers of such bodies (PHP, Go, busboy, Werkzeug, commons-fileupload)
//! take apart differently is nothing here, or an app would find other values than those that were verified.
//! Files are not signed: of them it only counts that they are no fields.

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
    /// Names of the files, and of what is a file to some.
    pub(super) files: Vec<Vec<u8>>,
}

impl Form {
    /// `None` when `body` is not what `content_type` says, or when there are readers that take it apart
    /// differently.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Option<Self> {
        let boundary = boundary(content_type)?;
        let delimiter = format!("--{boundary}");
        let delimiters = memmem::Finder::new(&delimiter);
        let mut rest = body.strip_prefix(delimiter.as_bytes())?;
        let mut form = Self::default();
        for _ in 0..=PARTS_MAX {
            if let Some(mut end) = rest.strip_prefix(b"--") {
                // Some readers look for parts in what follows.
                while let Some(more) = end.strip_prefix(b"\r\n") {
                    end = more;
                }
                return end.is_empty().then_some(form);
            }
            rest = rest.strip_prefix(b"\r\n")?;
            // The delimiter ends the part wherever it stands, because some readers take it after a bare LF.
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
        let (mut media_type, mut is_verbatim) = (None, true);
        for line in std::str::from_utf8(head).ok()?.split("\r\n") {
            let (name, text) = line.split_once(':')?;
            if !is_token(name) || text.contains(|c: char| c.is_ascii_control()) {
                return None;
            }
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" => dispositions.push(parameters(text)?),
                "content-length" if text.trim() != value.len().to_string() => return None,
                "content-transfer-encoding" => {
                    is_verbatim = is_one_of(text, &["7bit", "8bit", "binary"]);
                }
                "content-type" if media_type.replace(text).is_some() => return None,
                _ => {}
            }
        }
        let [(kind, parameters)] = dispositions.as_slice() else {
            return None;
        };
        if !is(kind, "form-data") {
            return None;
        }
        let name = only(parameters, "name")?;
        // PHP takes single quotes away, others decode `=?utf-8?...` (RFC 2047).
        if name.contains(['\'', '\\']) || name.contains("=?") {
            return None;
        }
        let is_of_file = |own: &str| is(own, "filename") || is(own, "filename*");
        let mut others = parameters.iter().filter(|(own, _)| !is(own, "name"));
        if !others.all(|(own, _)| is_of_file(own)) {
            return None;
        }
        let (media_type, of_type) = self::parameters(media_type.unwrap_or("text/plain"))?;
        if media_type.to_ascii_lowercase().starts_with("multipart/") {
            return None; // some readers look for parts in it
        }
        let name = name.as_bytes().to_vec();
        if parameters.len() > 1 || is(media_type, "application/octet-stream") {
            self.files.push(name);
            return Some(());
        }
        let is_nested = media_type.to_ascii_lowercase().starts_with("message/");
        if is_nested || !is_verbatim || !is_read_alike(&of_type, value) {
            return None;
        }
        self.fields.push((name, value.to_vec()));
        Some(())
    }
}

/// The boundary, where all readers find the same one: some take the first word that ends in `boundary=`.
fn boundary(content_type: &str) -> Option<&str> {
    let (_, parameters) = parameters(content_type)?;
    let is_known = |(own, _): &(&str, &str)| is(own, "boundary") || is(own, "charset");
    let boundary = only(&parameters, "boundary")?;
    let is_of_boundary = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.=_".contains(&byte);
    let is_fine = (1..=BOUNDARY_MAX).contains(&boundary.len())
        && boundary.bytes().all(is_of_boundary)
        && parameters.iter().all(is_known)
        && is_read_alike(&parameters, b"");
    is_fine.then_some(boundary)
}

/// Whether a form that says this of itself is read alike by all: in UTF-8, or in another charset where `values`
/// are ASCII, which is the same in those.
pub(super) fn is_read_in_one_charset<'v>(
    content_type: &str,
    mut values: impl Iterator<Item = &'v [u8]>,
) -> bool {
    parameters(content_type)
        .is_some_and(|(_, parameters)| values.all(|value| is_read_alike(&parameters, value)))
}

fn is_read_alike(parameters: &[(&str, &str)], value: &[u8]) -> bool {
    let mut charsets = parameters.iter().filter(|(own, _)| {
        let base = own.split_once('*').map_or(*own, |(base, _)| base);
        is(base, "charset")
    });
    let (charset, more) = (charsets.next(), charsets.next());
    let Some((own, charset)) = charset else {
        return true;
    };
    let lower = charset.to_ascii_lowercase();
    let is_ascii_and_more = lower.starts_with("iso-8859-") || lower.starts_with("windows-125");
    more.is_none()
        && is(own, "charset")
        && (is_one_of(&lower, &["utf-8", "utf8", "us-ascii", "ascii"])
            || (is_ascii_and_more && value.is_ascii()))
}

fn is_one_of(text: &str, known: &[&str]) -> bool {
    known.iter().any(|own| is(text.trim(), own))
}

fn is(text: &str, lower: &str) -> bool {
    text.eq_ignore_ascii_case(lower)
}

/// The value of the parameter `name`, where it is there once.
fn only<'a>(parameters: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    // `name*` and `name*0` are other ways to write it (RFC 2231), which not every reader knows.
    let is_another_way = |own: &str| {
        let base = own.split_once('*').map(|(base, _)| base);
        base.is_some_and(|base| is(base, name))
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
    let (main, mut rest) = text.split_once(';').unwrap_or((text, ""));
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some((main.trim(), parameters));
        }
        let (name, text) = rest.split_once('=')?;
        let (value, tail) = match text.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len())),
        };
        // Some readers do not take a quote after a backslash for the end.
        let is_clear = !value.ends_with('\\') && (text.starts_with('"') || is_token(value));
        if !is_token(name) || !is_clear {
            return None;
        }
        parameters.push((name, value));
        let tail = tail.trim_start_matches([' ', '\t']);
        rest = match tail.strip_prefix(';') {
            Some(more) => more,
            None if tail.is_empty() => tail,
            None => return None,
        };
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_token)
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
            b"--x--\r\n ",
            b"",
        ] {
            assert_eq!(Form::read(MEDIA_TYPE, bad), None);
        }
        for media_type in ["multipart/form-data", "multipart/form-data; boundary=\"\""] {
            assert_eq!(Form::read(media_type, b"--x--"), None);
        }
        // As some write it.
        for media_type in [
            "multipart/form-data;boundary=\"x\"",
            "multipart/form-data;\tboundary=x;",
            "multipart/form-data; charset=UTF-8; boundary=x",
        ] {
            assert!(
                Form::read(media_type, b"--x--\r\n\r\n").is_some(),
                "{media_type}"
            );
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
            // Apache HttpClient: what it says is true of ASCII.
            format!("{BODY}\r\nContent-Type: text/plain; charset=ISO-8859-1"),
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
            "Content-Disposition: form-data; name='Body'".to_owned(),
            "Content-Disposition: form-data; name=\"'Body'\"".to_owned(),
            "Content-Disposition: form-data; name=\"=?utf-8?B?Qm9keQ==?=\"".to_owned(),
            // Other values.
            format!("{BODY}\r\nContent-Transfer-Encoding: base64"),
            format!("{BODY}\r\nContent-Type: text/plain; charset=utf-16"),
            format!("{BODY}\r\nContent-Type: multipart/mixed; boundary=y"),
            format!("{BODY}\r\nContent-Type: message/rfc822"),
            format!("{BODY}\r\nContent-Type: text/plain\r\nContent-Type: text/plain"),
            format!("{BODY}\r\nContent-Length: 9"),
        ];
        for head in bad {
            assert_eq!(with_head(&head), None, "{head}");
        }
    }

    #[test]
    fn every_reader_finds_the_same_boundary() {
        let body = format!("--x\r\n{BODY}\r\n\r\nv\r\n--x--\r\n");
        let questioned = body.replace("--x", "--x?");
        for (media_type, body) in [
            ("multipart/form-data; xboundary=y; boundary=x", &body),
            (
                "multipart/form-data; charset=\"boundary=y\"; boundary=x",
                &body,
            ),
            ("multipart/form-data; boundary=x; charset=utf-16", &body),
            (
                "multipart/form-data; boundary=x; charset*=utf-8''utf-16",
                &body,
            ),
            ("multipart/form-data; boundary=\"x?\"", &questioned),
        ] {
            assert_eq!(
                Form::read(media_type, body.as_bytes()),
                None,
                "{media_type}"
            );
        }
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
    fn a_charset_holds_for_what_is_the_same_in_it() {
        let latin = format!("{BODY}\r\nContent-Type: text/plain; charset=ISO-8859-1");
        for (value, fields) in [(&b"ascii"[..], Some(1)), (b"\xe4", None)] {
            let mut body = format!("--x\r\n{latin}\r\n\r\n").into_bytes();
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n--x--");
            let form = Form::read(MEDIA_TYPE, &body);
            assert_eq!(form.map(|form| form.fields.len()), fields, "{value:?}");
        }
        let judge = |media_type: &str, value: &[u8]| {
            is_read_in_one_charset(media_type, std::iter::once(value))
        };
        let form = "application/x-www-form-urlencoded";
        assert!(judge(form, b"\xc3\xa4"));
        assert!(judge(&format!("{form}; charset=UTF-8"), b"\xc3\xa4"));
        assert!(judge(&format!("{form};charset=windows-1252"), b"a"));
        assert!(!judge(&format!("{form};charset=windows-1252"), b"\xc3\xa4"));
        for other in ["utf-16", "ibm037", "utf-7"] {
            assert!(!judge(&format!("{form}; charset={other}"), b"a"), "{other}");
        }
    }

    #[test]
    fn files_are_told_from_fields() {
        // What is in them, and how it is written, is nobody's matter: mail is often forwarded.
        for head in [
            format!("{BODY}; filename=\"a b.png\"\r\nContent-Type: image/png"),
            format!("{BODY}; filename=\"a.png\"; filename*=UTF-8''%c3%a4.png"),
            format!("{BODY}; filename*=UTF-8''%c3%a4.png"),
            format!("{BODY}; filename=\"C:\\a'.eml\"\r\nContent-Type: message/rfc822"),
            format!("{BODY}; filename=a\r\nContent-Type: text/csv; charset=windows-1252"),
            format!("{BODY}; filename=a\r\nContent-Transfer-Encoding: base64"),
            format!("{BODY}\r\nContent-Type: application/octet-stream"),
        ] {
            let form = with_head(&head).unwrap();
            let told = (form.fields.len(), form.files);
            assert_eq!(told, (0, vec![b"Body".to_vec()]), "{head}");
        }
        for head in [
            format!("{BODY}; filename=\"a\\\"; name=\"other\"\""),
            format!("{BODY}; filename=a\r\nContent-Type: multipart/mixed; boundary=y"),
        ] {
            assert_eq!(with_head(&head), None, "{head}");
        }
    }
}
