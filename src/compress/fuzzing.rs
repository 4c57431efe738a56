//! What must hold for any `Accept-Encoding`.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use http::HeaderValue;

use crate::config::Coding;

use super::accept::choose;

const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// Lines of `Accept-Encoding`.
pub fn codings(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let lines: Vec<_> = lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let chosen = choose(&lines, &ALL);
    assert_eq!(choose(&lines, &[]), None);
    let text = data.to_ascii_lowercase();
    let named = |name: &[u8]| text.windows(name.len()).any(|part| part == name);
    if let Some(coding) = chosen {
        assert!(named(b"*") || named(coding.name().as_bytes()), "{coding:?} was not asked for");
        // Whoever takes it of three takes it alone.
        assert_eq!(choose(&lines, &[coding]), chosen);
    } else {
        assert!(ALL.iter().all(|coding| choose(&lines, &[*coding]).is_none()));
    }
}
