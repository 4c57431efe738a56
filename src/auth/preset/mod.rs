//! The kinds of sessions there are: how each is opened, and what a store's answer comes to; pure.
//!
//! What is shown is opened first, without a store: most of what is wrong ends there. Then a store
//! is asked, if the kind needs one, and its answer is judged by the edge's own clock.

pub mod authjs;
pub mod better_auth;
pub mod callback;
pub mod express;
pub mod iron;
pub mod jwt;
pub mod lucia;

use serde_json::{Map, Value};

use super::identity::Denial;

/// What a store is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub id: String,
    /// What the row's hash must be.
    pub hash: Option<[u8; 32]>,
}

/// One session as a database has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub id: String,
    pub user: Option<String>,
    /// Milliseconds since 1970: when it ends, or since when it counts.
    pub moment: Option<i64>,
    pub hash: Option<Vec<u8>>,
    pub claims: Map<String, Value>,
}

const ID_LENGTHS: std::ops::RangeInclusive<usize> = 16..=512;

/// Refuses what no library makes before a database is bothered with it.
fn check_id(id: &str) -> Result<(), Denial> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte);
    if !ID_LENGTHS.contains(&id.len()) || !id.bytes().all(letter) {
        return Err(Denial::MALFORMED);
    }
    Ok(())
}

/// Text and signature of a signed cookie, which are parted by the last dot.
fn parted(value: &str) -> Option<(&str, &str)> {
    value.rsplit_once('.').filter(|(text, _)| !text.is_empty())
}
