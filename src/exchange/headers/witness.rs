//! Who is told of each step in which a request's headers are changed, and why.

use http::HeaderMap;

/// Hears of a step that was taken. The words are those that `vestibule explain` says.
pub trait Witness {
    /// So they are now, for this reason.
    fn see(&mut self, why: &'static str, headers: &HeaderMap);
}

/// Nobody.
impl Witness for () {
    fn see(&mut self, _why: &'static str, _headers: &HeaderMap) {}
}
