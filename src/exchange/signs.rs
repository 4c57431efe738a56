//! What a connection's socket tells about its client while others read and write.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Shared between a socket and who keeps its deadlines. Atomic, since a socket may change threads
/// with an upgrade.
#[derive(Debug, Default)]
pub struct Signs {
    came: AtomicBool,
    head: AtomicBool,
    unflushed: AtomicBool,
    unended: AtomicBool,
    at_work: AtomicBool,
    lingers: AtomicBool,
    crowded: AtomicBool,
    cut: AtomicU8,
}

/// Why a connection was ended for what its client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its bytes could be read in two ways.
    Ambiguous = 1,
    /// Too many frames that carry nothing.
    Flood,
    /// Too many requests taken back.
    Resets,
    /// It does not read.
    Stuck,
}

impl Cut {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Flood => "flood",
            Self::Resets => "resets",
            Self::Stuck => "stuck",
        }
    }
}

impl Signs {
    pub(super) fn note_bytes(&self) {
        self.came.store(true, Ordering::Relaxed);
    }

    /// True if bytes have come since this was asked last.
    pub fn take_bytes(&self) -> bool {
        self.came.swap(false, Ordering::Relaxed)
    }

    /// Says whether something that was written waits for the client.
    pub fn set_unflushed(&self, unflushed: bool) {
        self.unflushed.store(unflushed, Ordering::Relaxed);
    }

    /// True once all that was written has gone out.
    pub fn is_flushed(&self) -> bool {
        !self.unflushed.load(Ordering::Relaxed)
    }

    /// Says whether an answer is under way whose end is that of the connection.
    pub fn set_unended(&self, unended: bool) {
        self.unended.store(unended, Ordering::Relaxed);
    }

    pub(super) fn is_unended(&self) -> bool {
        self.unended.load(Ordering::Relaxed)
    }

    /// Says whether a request is being answered.
    pub fn set_at_work(&self, at_work: bool) {
        self.at_work.store(at_work, Ordering::Relaxed);
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Relaxed)
    }

    pub(super) fn set_lingers(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// All is said, and what the client still sends is thrown away.
    pub fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    pub(super) fn set_crowded(&self) {
        self.crowded.store(true, Ordering::Relaxed);
    }

    /// It lingered, and another was given its place.
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    pub(super) fn set_head(&self, begun: bool) {
        self.head.store(begun, Ordering::Relaxed);
    }

    /// HTTP/2: a request's head has begun and not ended.
    pub fn in_head(&self) -> bool {
        self.head.load(Ordering::Relaxed)
    }

    pub(super) fn set_cut(&self, why: Cut) {
        self.cut.store(why as u8, Ordering::Relaxed);
    }

    /// Why the socket has ended the connection, if it has.
    pub fn cut(&self) -> Option<Cut> {
        match self.cut.load(Ordering::Relaxed) {
            1 => Some(Cut::Ambiguous),
            2 => Some(Cut::Flood),
            3 => Some(Cut::Resets),
            4 => Some(Cut::Stuck),
            _ => None,
        }
    }
}
