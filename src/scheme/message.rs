//! A request as schemes see it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use smallvec::{SmallVec, smallvec};

/// A request as a scheme sees it: borrowed, complete, not yet trusted.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Request method.
    pub method: &'a Method,
    /// The URL as the sender wrote it.
    pub url: &'a SenderUrl,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
    /// The body as received.
    pub body: &'a Content,
}

/// The URL that the sender called: what schemes that sign the URL sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderUrl {
    /// `https://hooks.example.org` or `https://hooks.example.org:8443`, without a trailing slash.
    pub origin: Arc<str>,
    /// Path and query as in the request line; begins with `/`.
    pub target: Arc<str>,
}

impl SenderUrl {
    /// `https` or `http`.
    pub fn scheme(&self) -> &str {
        self.origin
            .split_once("://")
            .map_or("https", |(scheme, _)| scheme)
    }

    /// Host with its port, when it was written.
    pub fn host(&self) -> &str {
        let rest = self
            .origin
            .split_once("://")
            .map_or(&*self.origin, |(_, rest)| rest);
        rest.split_once('/').map_or(rest, |(host, _)| host)
    }

    /// The raw path.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&*self.target, |(path, _)| path)
    }

    /// The raw query.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// A body as it arrived: frames that are never copied, decoded or changed.
#[derive(Clone, Debug, Default)]
pub struct Content(SmallVec<[Bytes; 1]>);

impl Content {
    /// From frames, in order.
    pub fn new(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self(frames.into_iter().collect())
    }

    /// The frames, in order.
    pub fn frames(&self) -> &[Bytes] {
        &self.0
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// One run of bytes; copies only when there are several frames.
    pub fn contiguous(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            frames => frames.concat().into(),
        }
    }

    /// As [`Content::contiguous`], borrowed where it can be.
    pub fn joined(&self) -> Cow<'_, [u8]> {
        match self.0.as_slice() {
            [] => Cow::Borrowed(&[]),
            [one] => Cow::Borrowed(one),
            frames => Cow::Owned(frames.concat()),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(smallvec![bytes.into()])
    }
}
