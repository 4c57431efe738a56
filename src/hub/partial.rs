//! A packet whose attachments have not all come.

use std::time::Duration;

use bytes::Bytes;

/// What was read of it so far.
pub struct Partial {
    text: String,
    missing: usize,
    parts: Vec<Bytes>,
    bytes: usize,
    begun: Duration,
}

/// After one more part.
pub enum Filled {
    Whole(String, Vec<Bytes>),
    Wanting(Box<Partial>),
    /// All of it is more than one message may have.
    TooLarge,
}

impl Partial {
    /// `missing` attachments are to come, one at least.
    pub fn begin(text: &str, missing: usize, now: Duration) -> Box<Self> {
        let (text, bytes) = (text.to_owned(), text.len());
        Box::new(Self { text, missing, parts: Vec::new(), bytes, begun: now })
    }

    /// Takes the next attachment; text and parts have `max` bytes at most in all.
    pub fn fill(mut self: Box<Self>, part: &[u8], max: usize) -> Filled {
        self.bytes += part.len();
        if self.bytes > max {
            return Filled::TooLarge;
        }
        self.parts.push(Bytes::copy_from_slice(part));
        self.missing -= 1;
        if self.missing > 0 { Filled::Wanting(self) } else { Filled::Whole(self.text, self.parts) }
    }

    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_counts() {
        let begin = || Partial::begin("51-[1]", 2, Duration::ZERO);
        let Filled::Wanting(partial) = begin().fill(b"1234", 14) else { panic!("one is missing") };
        let Filled::Whole(text, parts) = partial.fill(b"5678", 14) else { panic!("none is") };
        assert_eq!((text.as_str(), parts.concat().as_slice()), ("51-[1]", &b"12345678"[..]));
        let Filled::Wanting(partial) = begin().fill(b"1234", 13) else { panic!("one is missing") };
        assert!(matches!(partial.fill(b"5678", 13), Filled::TooLarge));
        assert!(matches!(begin().fill(b"123456789", 14), Filled::TooLarge));
    }
}
