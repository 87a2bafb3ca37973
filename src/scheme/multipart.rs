//! The text fields of a `multipart/form-data` body (RFC 7578), for schemes that sign them.
//!
//! Strict: what is not exactly a list of parts is nothing, for a lenient reader and the app would
//! take it apart differently.

use super::locate::Pair;

/// Most parts of one body.
const PARTS_MAX: usize = 1000;

/// Names and values of the parts, files among them. `None` when the body is not what its content
/// type says.
pub(super) fn pairs(content_type: &str, body: &[u8]) -> Option<Vec<Pair>> {
    let boundary = parameter(content_type, "boundary")?;
    if boundary.is_empty() || boundary.len() > 70 {
        return None; // RFC 2046 5.1.1
    }
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes())?;
    let inner = format!("\r\n{delimiter}");
    let mut pairs = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            // What follows is not signed, and there are readers that look for parts in it.
            return matches!(end, b"" | b"\r\n").then_some(pairs);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = find(rest, inner.as_bytes())?;
        let (part, tail) = rest.split_at_checked(end)?;
        pairs.push(pair(part)?);
        if pairs.len() > PARTS_MAX {
            return None;
        }
        rest = tail.strip_prefix(inner.as_bytes())?;
    }
}

fn pair(part: &[u8]) -> Option<Pair> {
    let end = find(part, b"\r\n\r\n")?;
    let head = std::str::from_utf8(part.get(..end)?).ok()?;
    let value = part.get(end + 4..)?.to_vec();
    let mut dispositions = head.split("\r\n").filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let (disposition, more) = (dispositions.next()?, dispositions.next());
    if more.is_some()
        || !disposition
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("form-data")
    {
        return None;
    }
    Some((parameter(disposition, "name")?.into_bytes(), value))
}

/// A parameter of a header value, with or without quotes. `None` when absent or given twice.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut found = None;
    for parameter in value.split(';').skip(1) {
        let (own, value) = parameter.split_once('=')?;
        if own.trim().eq_ignore_ascii_case(name) {
            let value = value.trim();
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value,
            };
            if found.replace(value.to_owned()).is_some() {
                return None;
            }
        }
    }
    found
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_strictly() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{}\r\n--x\r\n\
            content-disposition: form-data; name=b\r\nContent-Type: text/plain\r\n\r\na\r\n\r\nb\r\n--x--\r\n";
        let pairs = pairs("multipart/form-data; boundary=x", body).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0], (b"json".to_vec(), b"{}".to_vec()));
        assert_eq!(pairs[1], (b"b".to_vec(), b"a\r\n\r\nb".to_vec()));
        for bad in [
            &b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1"[..],
            b"--x\r\n\r\n1\r\n--x--",
            b"--y--",
            b"--x--\r\n\r\n--x\r\nContent-Disposition: form-data; name=b\r\n\r\n2\r\n--x--\r\n",
            b"--x--x",
            b"",
        ] {
            assert!(super::pairs("multipart/form-data; boundary=x", bad).is_none());
        }
        assert!(super::pairs("multipart/form-data", b"--x--").is_none());
    }
}
