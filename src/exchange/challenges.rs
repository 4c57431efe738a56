//! What an ACME server looks for under `/.well-known/acme-challenge/` (RFC 8555 §8.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Proofs by their token. Clones are one and the same.
///
/// Workers share a lock here, which is taken only for paths of challenges.
#[derive(Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<String, String>>>);

const PATH: &str = "/.well-known/acme-challenge/";

impl Challenges {
    /// Shows `proof` at the path of `token`, until `forget`.
    pub fn show(&self, token: &str, proof: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(token.to_owned(), proof.to_owned());
    }

    pub fn forget(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// The proof that is looked for at `path`; `None` if it is none of ours.
    pub fn at(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}
