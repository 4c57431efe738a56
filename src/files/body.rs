//! A file, or a part of one, as a body.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::{Body, BodyError};

/// Read at once, and held in memory while the client takes it.
const PIECE: u64 = 128 * 1024;

/// `count` bytes of the file, from `from` on.
pub fn of(mut file: File, from: u64, count: u64) -> io::Result<Body> {
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    if count <= PIECE {
        return Ok(Body::from(read(&file, count)?));
    }
    Ok(Body::stream(Pieces { file, left: count }))
}

fn read(file: &File, count: u64) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    file.take(count).read_to_end(&mut piece)?;
    if piece.len() as u64 == count {
        Ok(Bytes::from(piece))
    } else {
        // It has been cut since; what was promised cannot be sent.
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

struct Pieces {
    file: File,
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let count = self.left.min(PIECE);
        match read(&self.file, count) {
            Ok(piece) => {
                self.left -= count;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => Poll::Ready(Some(Err(BodyError::Own(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
