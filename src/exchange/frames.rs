//! Follows the frames that an HTTP/2 client sends, and tells when it floods; pure.
//!
//! h2 reads the frames and keeps its memory bounded. This stands before it, because frames that
//! carry nothing cost work and have no bound of their own: pings, settings, resets, priorities.

use std::time::Duration;

use crate::limits::{Bucket, Rate};

/// The client's connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

/// Frames that carry nothing: a browser sends some in a minute.
const IDLE: (u32, u32) = (200, 2000);
/// Requests taken back. A page that is left, or a map that is moved, takes back some hundred.
const RESET: (u32, u32) = (100, 500);
/// A window update is due after so many bytes of answers; others count as frames that carry nothing.
const UPDATE_BYTES: u64 = 512;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Where in the stream of frames the next byte stands.
#[derive(Debug)]
pub struct Frames {
    preface: usize,
    header: [u8; HEADER],
    /// Bytes of the frame's header that are here.
    have: usize,
    /// Bytes of its payload that are not.
    left: usize,
    /// A block of headers has begun and not ended.
    head: bool,
    /// The frame at hand ends it.
    ends: bool,
    /// The frame at hand is data of so many bytes, of which the first says how many are padding.
    padded: Option<usize>,
    idle: Bucket,
    reset: Bucket,
    /// Bytes of answers that no window update was counted for.
    sent: u64,
}

/// What a client sends too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    Idle,
    Reset,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface: PREFACE,
            header: [0; HEADER],
            have: 0,
            left: 0,
            head: false,
            ends: false,
            padded: None,
            idle: Bucket::default(),
            reset: Bucket::default(),
            sent: 0,
        }
    }
}

impl Frames {
    /// Follows the next bytes; `now` is counted from any moment before the first.
    pub fn follow(&mut self, bytes: &[u8], now: impl Fn() -> Duration) -> Result<(), Flood> {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        let mut rest = bytes.get(preface..).unwrap_or_default();
        while !rest.is_empty() {
            if self.left > 0 {
                if let (Some(length), Some(padding)) = (self.padded.take(), rest.first()) {
                    self.unpadded(length, usize::from(*padding), &now)?;
                }
                let here = self.left.min(rest.len());
                self.left -= here;
                rest = rest.get(here..).unwrap_or_default();
                self.ended();
                continue;
            }
            let here = (HEADER - self.have).min(rest.len());
            let (part, after) = rest.split_at(here);
            if let Some(room) = self.header.get_mut(self.have..self.have + here) {
                room.copy_from_slice(part);
            }
            self.have += here;
            rest = after;
            if self.have == HEADER {
                self.have = 0;
                self.begun(&now)?;
                self.ended();
            }
        }
        Ok(())
    }

    /// So many bytes were sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// True while a request's head has begun and not ended.
    pub fn in_head(&self) -> bool {
        self.head
    }

    fn begun(&mut self, now: &impl Fn() -> Duration) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        let rate = |(count, burst): (u32, u32)| Rate::new(count, Duration::from_secs(1), burst);
        let fine = match kind {
            DATA if flags & END_STREAM != 0 => true,
            DATA if flags & PADDED != 0 && length > 0 => {
                self.padded = Some(self.left);
                true
            }
            DATA => length > 0 || self.idle.take(rate(IDLE), now()),
            HEADERS => {
                self.head = true;
                self.ends = flags & END_HEADERS != 0;
                true
            }
            CONTINUATION => {
                self.ends = flags & END_HEADERS != 0;
                length > 0 || self.idle.take(rate(IDLE), now())
            }
            RST_STREAM if !self.reset.take(rate(RESET), now()) => return Err(Flood::Reset),
            RST_STREAM => true,
            WINDOW_UPDATE if self.sent >= UPDATE_BYTES => {
                self.sent -= UPDATE_BYTES;
                true
            }
            _ => self.idle.take(rate(IDLE), now()),
        };
        if fine { Ok(()) } else { Err(Flood::Idle) }
    }

    /// Data that is nothing but padding carries nothing (RFC 9113 §6.1).
    fn unpadded(
        &mut self,
        length: usize,
        padding: usize,
        now: &impl Fn() -> Duration,
    ) -> Result<(), Flood> {
        let (count, burst) = IDLE;
        let rate = Rate::new(count, Duration::from_secs(1), burst);
        let carries = length > padding + 1 || self.idle.take(rate, now());
        if carries { Ok(()) } else { Err(Flood::Idle) }
    }

    fn ended(&mut self) {
        if self.left == 0 && std::mem::take(&mut self.ends) {
            self.head = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many of them pass, all at one moment.
    fn passes(one: &[u8]) -> usize {
        let mut frames = Frames::default();
        frames.follow(&[0; PREFACE], || Duration::ZERO).expect("a preface");
        (0..10_000).take_while(|_| frames.follow(one, || Duration::ZERO).is_ok()).count()
    }

    #[test]
    fn floods_end_and_work_does_not() {
        for (kind, flags, payload, most) in [
            (6, 0, &[0; 8][..], 2000),
            (6, 1, &[0; 8], 2000),
            (4, 0, &[], 2000),
            (2, 0, &[0; 5], 2000),
            (DATA, 0, &[], 2000),
            (DATA, PADDED, &[0], 2000),
            (DATA, PADDED, &[3, 0, 0, 0], 2000),
            (DATA, PADDED, &[2, 1, 0, 0], 10_000),
            (DATA, PADDED | END_STREAM, &[0], 10_000),
            (CONTINUATION, 0, &[], 2000),
            (WINDOW_UPDATE, 0, &[0; 4], 2000),
            (200, 0, &[], 2000),
            (RST_STREAM, 0, &[0; 4], 500),
            (DATA, 0, &[1; 100], 10_000),
            (DATA, END_STREAM, &[], 10_000),
            (HEADERS, END_HEADERS, &[1; 30], 10_000),
        ] {
            assert_eq!(passes(&frame(kind, flags, payload)), most, "frame {kind}");
        }
    }

    #[test]
    fn window_updates_are_due_for_what_was_sent() {
        let mut frames = Frames::default();
        frames.follow(&[0; PREFACE], || Duration::ZERO).expect("a preface");
        for _ in 0..10_000 {
            frames.sent(1024);
            let update = frame(WINDOW_UPDATE, 0, &[0, 0, 4, 0]);
            assert_eq!(frames.follow(&update, || Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn time_forgives() {
        let mut frames = Frames::default();
        frames.follow(&[0; PREFACE], || Duration::ZERO).expect("a preface");
        for number in 0..10_000_u64 {
            let ping = frame(6, 0, &[0; 8]);
            assert_eq!(frames.follow(&ping, || Duration::from_millis(number * 5)), Ok(()));
        }
    }

    #[test]
    fn a_head_begins_and_ends_wherever_the_pieces_are_cut() {
        let stream = [
            vec![0; PREFACE],
            frame(4, 0, &[0; 12]),
            frame(HEADERS, 0, &[1; 10]),
            frame(CONTINUATION, 0, &[1; 10]),
            frame(CONTINUATION, END_HEADERS, &[1; 10]),
            frame(DATA, END_STREAM, &[1; 10]),
        ]
        .concat();
        let (begins, ends) = (PREFACE + 21 + HEADER, PREFACE + 21 + 3 * 19);
        let mut frames = Frames::default();
        for (at, byte) in stream.iter().enumerate() {
            frames.follow(&[*byte], || Duration::ZERO).expect("no flood");
            assert_eq!(frames.in_head(), (begins..ends).contains(&(at + 1)), "after {}", at + 1);
        }
    }
}
