//! What must hold for anything that another process may say.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use bytes::Bytes;

use super::frame::{Frame, HEAD};

/// A frame without its length: what is read is written the same.
pub fn handover(data: &[u8]) {
    let Ok(frame) = Frame::read(Bytes::copy_from_slice(data)) else { return };
    let written = frame.write().expect("it was short enough");
    assert_eq!(written.get(HEAD..), Some(data), "{frame:?}");
}
