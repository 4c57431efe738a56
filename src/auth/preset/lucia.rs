//! Lucia and what its author published after it: five kinds that cannot be told apart by a cookie.

use crate::auth::identity::{Denial, Identity, plausible};
use crate::auth::seal::{base64, base64_unpadded, hex, same, sha256};

use super::{Key, Row, check_id};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    V2,
    V3,
    Guide2024,
    /// Ends so many milliseconds after the row's moment.
    Guide2025(i64),
    File2026,
}

/// Ten days.
pub const IDLE: i64 = 864_000_000;
/// One day.
pub const ABSOLUTE: i64 = 86_400_000;

/// What to look up for a cookie's value.
pub fn open(variant: Variant, value: &str) -> Result<Key, Denial> {
    check_id(value)?;
    match variant {
        Variant::V2 | Variant::V3 => Ok(Key { id: value.to_owned(), hash: None }),
        Variant::Guide2024 => Ok(Key { id: hex(&sha256(value.as_bytes())), hash: None }),
        Variant::Guide2025(_) => {
            let (id, secret) = halves(value)?;
            Ok(Key { id: id.to_owned(), hash: Some(sha256(secret.as_bytes())) })
        }
        Variant::File2026 => {
            let (id, secret) = halves(value)?;
            // JavaScript's fromBase64 takes it without padding too.
            let secret = base64(secret).or_else(|| base64_unpadded(secret));
            let secret = secret.ok_or(Denial::MALFORMED)?;
            Ok(Key { id: id.to_owned(), hash: Some(sha256(&secret)) })
        }
    }
}

fn halves(value: &str) -> Result<(&str, &str), Denial> {
    let (id, secret) = value.split_once('.').ok_or(Denial::MALFORMED)?;
    if id.is_empty() || secret.is_empty() || secret.contains('.') {
        return Err(Denial::MALFORMED);
    }
    Ok((id, secret))
}

/// What the row that was found, or none, comes to.
pub fn judge(variant: Variant, key: &Key, row: Option<&Row>, now: i64) -> Result<Identity, Denial> {
    let known = row.map(|row| row.id.as_str()).unwrap_or_default();
    // Databases find ids by rules of their own: capitals, trailing spaces.
    let found = same(known.as_bytes(), key.id.as_bytes());
    let proven = match (&key.hash, row) {
        (None, _) => true,
        (Some(hash), Some(Row { hash: Some(kept), .. })) => same(hash, kept),
        // As much work as with a row.
        (Some(hash), _) => same(hash, &[0; 32]),
    };
    let row = row.filter(|_| found && proven).ok_or(Denial::UNKNOWN)?;
    let moment = row.moment.ok_or(Denial::Refused("no_expiry"))?;
    let ends = match variant {
        // Valid to the end of its last millisecond.
        Variant::V2 => moment.saturating_add(1),
        Variant::V3 | Variant::Guide2024 => moment,
        Variant::Guide2025(lasts) => moment.saturating_add(lasts),
        Variant::File2026 => moment.saturating_add(IDLE),
    };
    plausible(ends, now)?;
    if now >= ends {
        return Err(Denial::EXPIRED);
    }
    let user = row.user.as_deref().ok_or(Denial::NO_USER)?;
    // There the id is what opens the session, so it must not be what the session is called.
    let session = match variant {
        Variant::V2 | Variant::V3 => hex(&sha256(key.id.as_bytes())),
        _ => key.id.clone(),
    };
    let identity = Identity::new(user, &session, Some(ends))?;
    Ok(Identity { claims: row.claims.clone(), ..identity })
}
