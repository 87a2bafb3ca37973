//! A request on its way to a server.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::stream::Stream;

/// Most slices of one write: the head, and frames.
const SLICES: usize = 32;

/// A request that is being sent: the head and the frames of the body, none of them copied.
pub(super) struct Sending<'a> {
    head: &'a [u8],
    frames: &'a [Bytes],
    /// Bytes that were written.
    pub(super) taken: usize,
    is_flushed: bool,
    /// Bytes of the first of `frames` that were written.
    offset: usize,
}

impl<'a> Sending<'a> {
    pub(super) fn new(head: &'a [u8], frames: &'a [Bytes]) -> Self {
        Self {
            head,
            frames,
            taken: 0,
            is_flushed: false,
            offset: 0,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// What was not written yet.
    pub(super) fn left(&self) -> VecDeque<Bytes> {
        let head = Some(self.head).filter(|head| !head.is_empty());
        let mut frames = self.frames.iter().cloned();
        let first = frames.next().map(|mut first| {
            first.advance(self.offset);
            first
        });
        let head = head.map(Bytes::copy_from_slice);
        head.into_iter().chain(first).chain(frames).collect()
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_flushed
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while !self.head.is_empty() || !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut parts = slices.iter_mut();
            if let Some(slot) = parts.next() {
                *slot = IoSlice::new(self.head);
            }
            let mut skip = self.offset;
            for (slot, frame) in parts.zip(self.frames) {
                *slot = IoSlice::new(frame.get(skip..).unwrap_or_default());
                skip = 0;
            }
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices)) {
                Ok(0) if !self.is_at_empty_frame() => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Ok(sent) => self.advance(sent),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn is_at_empty_frame(&self) -> bool {
        let left = |frame: &Bytes| frame.len() == self.offset;
        self.head.is_empty() && self.frames.first().is_some_and(left)
    }

    fn advance(&mut self, sent: usize) {
        self.taken += sent;
        let of_head = sent.min(self.head.len());
        self.head = self.head.get(of_head..).unwrap_or_default();
        if !self.head.is_empty() {
            return;
        }
        let mut left = sent - of_head;
        while let Some((first, others)) = self.frames.split_first() {
            let open = first.len() - self.offset;
            if left < open {
                self.offset += left;
                return;
            }
            left -= open;
            self.offset = 0;
            self.frames = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_writes_lose_and_double_nothing() {
        let frames = [
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from_static(b"defg"),
        ];
        for step in 1..=10 {
            let mut sending = Sending::new(b"HEAD", &frames);
            let all = b"HEADabcdefg";
            let mut sent = 0;
            while sent < all.len() {
                let next = step.min(all.len() - sent);
                sending.advance(next);
                sent += next;
                let left: Vec<Bytes> = sending.left().into();
                assert_eq!(left.concat(), all[sent..], "after {sent}, by {step}");
                assert_eq!(sending.taken, sent);
            }
            assert!(sending.head.is_empty() && sending.frames.is_empty());
        }
    }
}
