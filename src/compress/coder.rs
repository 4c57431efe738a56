//! One compressor: pieces in, pieces out, each decodable up to where it was flushed.

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};

use brotli::CompressorWriter;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation as _, OutBuffer};

use crate::config::Coding;

/// For pages made on the fly: beyond these, time grows faster than sizes shrink.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: u32 = 4;
const GZIP_LEVEL: i32 = 5;

/// Logarithms of windows: the memory of a compressor is some times its window.
const WINDOW: u32 = 18;
const WINDOW_SMALL: u32 = 15;

/// The least room that is offered to a compressor at once.
const ROOM: usize = 4 * 1024;

/// Compressors at work on one worker: 256 large ones, of about 1 MiB each. When they are all taken,
/// bodies go out as they are.
const UNITS_MAX: usize = 1024;
const UNITS_LARGE: usize = 4;
const UNITS_SMALL: usize = 1;

/// Idle compressors of a kind that a worker keeps: making one costs more than a small page.
const KEPT_MAX: usize = 4;

thread_local! {
    static UNITS: Cell<usize> = const { Cell::new(0) };
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { zstd: Vec::new(), gzip: Vec::new() }) };
}

struct Kept {
    zstd: Vec<Encoder<'static>>,
    gzip: Vec<Deflate>,
}

/// A compressor at work, and its place among those of the worker.
pub struct Coder {
    kind: Option<Kind>,
    units: usize,
}

enum Kind {
    Zstd(Encoder<'static>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Deflate),
}

impl Coder {
    /// `lasting` ones are for streams that stay open: they take an eighth of the memory. `None` if
    /// the worker has as many as it may have, or no memory.
    pub fn new(coding: Coding, lasting: bool) -> Option<Self> {
        let units = if lasting { UNITS_SMALL } else { UNITS_LARGE };
        let taken = UNITS.get();
        if taken + units > UNITS_MAX {
            return None;
        }
        let kind = match coding {
            Coding::Zstd => Kind::Zstd(zstd(lasting).ok()?),
            Coding::Brotli => Kind::Brotli(Box::new(brotli(lasting))),
            Coding::Gzip => Kind::Gzip(gzip(lasting)),
        };
        UNITS.set(taken + units);
        Some(Self { kind: Some(kind), units })
    }

    /// Takes `data`; what is ready of the output is added to `out`.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self.kind()? {
            Kind::Zstd(encoder) => {
                let mut input = InBuffer::around(data);
                while input.pos() < data.len() {
                    out.reserve(ROOM);
                    let at = out.len();
                    encoder.run(&mut input, &mut OutBuffer::around_pos(out, at))?;
                }
                Ok(())
            }
            Kind::Brotli(writer) => {
                writer.write_all(data)?;
                out.append(writer.get_mut());
                Ok(())
            }
            Kind::Gzip(deflate) => deflated(deflate, data, DeflateFlush::NoFlush, out),
        }
    }

    /// Adds to `out` whatever of the data is not there yet.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.kind()? {
            Kind::Zstd(encoder) => loop {
                out.reserve(ROOM);
                let at = out.len();
                if encoder.flush(&mut OutBuffer::around_pos(out, at))? == 0 {
                    return Ok(());
                }
            },
            Kind::Brotli(writer) => {
                writer.flush()?;
                out.append(writer.get_mut());
                Ok(())
            }
            Kind::Gzip(deflate) => deflated(deflate, &[], DeflateFlush::SyncFlush, out),
        }
    }

    /// Adds the end to `out`; nothing can be written any more.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.kind.take().ok_or(io::ErrorKind::WriteZero)? {
            Kind::Zstd(mut encoder) => {
                loop {
                    out.reserve(ROOM);
                    let at = out.len();
                    if encoder.finish(&mut OutBuffer::around_pos(out, at), true)? == 0 {
                        break;
                    }
                }
                self.keep(|kept| &mut kept.zstd, encoder);
            }
            Kind::Brotli(writer) => out.append(&mut writer.into_inner()),
            Kind::Gzip(mut deflate) => {
                deflated(&mut deflate, &[], DeflateFlush::Finish, out)?;
                self.keep(|kept| &mut kept.gzip, deflate);
            }
        }
        Ok(())
    }

    fn kind(&mut self) -> io::Result<&mut Kind> {
        self.kind.as_mut().ok_or_else(|| io::ErrorKind::WriteZero.into())
    }

    /// Keeps a large one for the next body.
    fn keep<T>(&self, of: impl Fn(&mut Kept) -> &mut Vec<T>, coder: T) {
        if self.units == UNITS_LARGE {
            KEPT.with_borrow_mut(|kept| {
                let kept = of(kept);
                if kept.len() < KEPT_MAX {
                    kept.push(coder);
                }
            });
        }
    }
}

impl Drop for Coder {
    fn drop(&mut self) {
        UNITS.set(UNITS.get().saturating_sub(self.units));
    }
}

fn zstd(lasting: bool) -> io::Result<Encoder<'static>> {
    if !lasting && let Some(mut kept) = KEPT.with_borrow_mut(|kept| kept.zstd.pop()) {
        kept.reinit()?;
        return Ok(kept);
    }
    let mut encoder = Encoder::new(ZSTD_LEVEL)?;
    let window = if lasting { WINDOW_SMALL } else { WINDOW };
    encoder.set_parameter(CParameter::WindowLog(window))?;
    if lasting {
        encoder.set_parameter(CParameter::HashLog(WINDOW_SMALL - 1))?;
        encoder.set_parameter(CParameter::ChainLog(WINDOW_SMALL - 1))?;
    }
    Ok(encoder)
}

fn brotli(lasting: bool) -> CompressorWriter<Vec<u8>> {
    let window = if lasting { WINDOW_SMALL } else { WINDOW };
    CompressorWriter::new(Vec::new(), ROOM, BROTLI_QUALITY, window)
}

fn gzip(lasting: bool) -> Deflate {
    if !lasting && let Some(mut kept) = KEPT.with_borrow_mut(|kept| kept.gzip.pop()) {
        kept.reset();
        return kept;
    }
    // As in zlib: 16 more than the window's logarithm asks for gzip's head and checksum.
    let (window_bits, mem_level) = if lasting { (16 + 12, 5) } else { (16 + 15, 8) };
    Deflate::new_with_config(DeflateConfig {
        level: GZIP_LEVEL,
        window_bits,
        mem_level,
        ..DeflateConfig::default()
    })
}

/// Has all of `data` taken, and with a flush all of the output given.
fn deflated(
    deflate: &mut Deflate,
    mut data: &[u8],
    flush: DeflateFlush,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        let (at, taken, given) = (out.len(), deflate.total_in(), deflate.total_out());
        out.resize(at + (data.len() / 2).max(ROOM), 0);
        let room = out.get_mut(at..).unwrap_or_default();
        let size = room.len();
        let done = deflate.compress(data, room, flush);
        let taken = usize::try_from(deflate.total_in() - taken).unwrap_or(data.len());
        let given = usize::try_from(deflate.total_out() - given).unwrap_or(size);
        out.truncate(at + given);
        data = data.get(taken..).unwrap_or_default();
        match done {
            Err(error) => return Err(io::Error::other(error.as_str())),
            // Nothing was left to do.
            Ok(Status::StreamEnd | Status::BufError) => return Ok(()),
            // A compressor that left room has no more to give.
            Ok(Status::Ok) if data.is_empty() && given < size => return Ok(()),
            Ok(Status::Ok) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let read = match coding {
            Coding::Zstd => zstd::Decoder::new(bytes).expect("a decoder").read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
            Coding::Gzip => {
                let mut inflate = zlib_rs::Inflate::new(true, 15 + 16);
                let mut room = vec![0; 1 << 22];
                let done = inflate.decompress(bytes, &mut room, zlib_rs::InflateFlush::NoFlush);
                room.truncate(usize::try_from(inflate.total_out()).expect("a size"));
                out = room;
                done.map(|_| 0).map_err(|error| io::Error::other(error.as_str()))
            }
        };
        // The stream may be unfinished; what was flushed is there all the same.
        let _unfinished = read;
        out
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length)
            .flat_map(|n| format!("line {} of some text\n", n * 7919 % 1000).into_bytes())
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for coding in ALL {
            for lasting in [false, true] {
                // Twice, since the second is one that was kept.
                for size in [0, 1, 100, 20_000, 100_000] {
                    let data = text(size / 20);
                    let mut coder = Coder::new(coding, lasting).expect("a compressor");
                    let mut out = Vec::new();
                    for piece in data.chunks(1 << 14) {
                        coder.write(piece, &mut out).expect("taken");
                    }
                    coder.finish(&mut out).expect("finished");
                    assert_eq!(decoded(coding, &out), data, "{coding:?} {lasting} {size}");
                    assert!(data.len() < 1000 || out.len() < data.len() / 2, "{coding:?} {size}");
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_read() {
        for coding in ALL {
            let mut coder = Coder::new(coding, true).expect("a compressor");
            let (mut out, mut whole) = (Vec::new(), Vec::new());
            for number in 0..20 {
                let event = format!("data: event number {number}\n\n");
                coder.write(event.as_bytes(), &mut out).expect("taken");
                coder.flush(&mut out).expect("flushed");
                whole.extend_from_slice(event.as_bytes());
                assert_eq!(decoded(coding, &out), whole, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_worker_has_so_many_and_no_more() {
        let mut taken = Vec::new();
        while let Some(coder) = Coder::new(Coding::Gzip, false) {
            taken.push(coder);
        }
        assert_eq!(taken.len(), UNITS_MAX / UNITS_LARGE);
        taken.pop();
        assert!(Coder::new(Coding::Zstd, false).is_some());
    }
}
