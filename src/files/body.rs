//! A file, or parts of one, as a body.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::{Body, BodyError};

/// Read at once, and held in memory while the client takes it.
const PIECE: u64 = 128 * 1024;

/// What a body is made of.
pub enum Part {
    Text(Bytes),
    /// Bytes of the file, from `at` on.
    File {
        at: u64,
        count: u64,
    },
}

impl Part {
    pub fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { count, .. } => *count,
        }
    }
}

/// The parts, one after the other.
pub fn of(file: File, parts: VecDeque<Part>) -> io::Result<Body> {
    let left = parts.iter().map(Part::length).sum();
    let mut pieces = Pieces { file, parts, left };
    if left > PIECE {
        return Ok(Body::stream(pieces));
    }
    let first = pieces.next()?.unwrap_or_default();
    if pieces.left == 0 {
        return Ok(Body::from(first));
    }
    let mut whole = first.to_vec();
    while let Some(piece) = pieces.next()? {
        whole.extend_from_slice(&piece);
    }
    Ok(Body::from(Bytes::from(whole)))
}

struct Pieces {
    file: File,
    parts: VecDeque<Part>,
    left: u64,
}

impl Pieces {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = match self.parts.front_mut() {
            None => return Ok(None),
            Some(Part::Text(text)) => std::mem::take(text),
            Some(Part::File { at, count }) => {
                let here = (*count).min(PIECE);
                // One that has been cut since ends here: what was promised cannot be sent.
                let piece = read(&self.file, *at, here)?;
                *at += here;
                *count -= here;
                piece
            }
        };
        if self.parts.front().is_some_and(|part| part.length() == 0) {
            self.parts.pop_front();
        }
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}

fn read(file: &File, at: u64, count: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(count).unwrap_or_default()];
    file.read_exact_at(&mut piece, at)?;
    Ok(Bytes::from(piece))
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = self.next().map_err(BodyError::Own).transpose();
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
