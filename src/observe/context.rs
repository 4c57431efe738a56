//! Traces and spans as W3C Trace Context names them; pure, but for the numbers that it draws.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

/// A span of a trace, as `traceparent` has it (W3C Trace Context §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    pub is_sampled: bool,
}

/// How many traces are kept, of ten thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u16);

impl Context {
    /// What a header says; `None` for what is none. Of later versions the beginning is read.
    pub fn read(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length| {
            text.len() == length
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let shaped = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16);
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        if !shaped || !known || !is_hex(flags, 2) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// As the header has it.
    pub fn write(&self) -> String {
        let Self { trace, span, is_sampled } = self;
        format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled))
    }

    /// A span of a trace that begins here.
    pub fn begin(share: Share) -> Self {
        let trace = u128::from(random()) << 64 | u128::from(random());
        Self { trace, span: random(), is_sampled: share.takes(trace) }
    }

    /// A span below this one. What its sender wants kept is not asked: that would be everybody's.
    pub fn below(&self, share: Share) -> Self {
        Self { trace: self.trace, span: random(), is_sampled: share.takes(self.trace) }
    }
}

impl Share {
    /// The same for a trace wherever it passes.
    fn takes(self, trace: u128) -> bool {
        trace % 10_000 < u128::from(self.0)
    }
}

/// Never zero. Nobody's secret: it only must not come twice.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    STATE.with(|state| {
        // SplitMix64.
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut word = state.get();
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).max(1)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_read_as_the_recommendation_has_it() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::read(parent).expect("its own example");
        assert_eq!(context.write(), parent);
        let later = parent.replacen("00-", "cc-", 1) + "-more";
        assert_eq!(Context::read(&later), Some(context));
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_is_kept_everywhere_or_nowhere() {
        let all = Context::begin(Share(10_000));
        assert!(all.is_sampled && !Context::begin(Share(0)).is_sampled);
        let below = all.below(Share(10_000));
        assert_eq!((below.trace, below.is_sampled), (all.trace, true));
        assert_ne!(below.span, all.span);
        let kept = (0..10_000).filter(|_| Context::begin(Share(1_000)).is_sampled).count();
        assert!((800..1_200).contains(&kept), "{kept}");
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(header in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-0[01]") {
            if let Some(context) = Context::read(&header) {
                prop_assert_eq!(&context.write()[2..], &header[2..]);
            }
        }
    }
}
