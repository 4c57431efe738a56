//! iron-session 9: the whole session is in a sealed cookie.

use serde_json::Value;

use crate::auth::identity::{Denial, Identity, at, user_of};
use crate::auth::seal::{self, hex, sha256};

/// As the library allows.
const SKEW: i64 = 60_000;

/// Who the seal says it is. `passwords` are by their ids; a seal without an end needs `endless`.
pub fn open(
    passwords: &[(String, String)],
    value: &str,
    user_path: &str,
    endless: bool,
    now: i64,
) -> Result<Identity, Denial> {
    let password = |id: &str| {
        let found = passwords.iter().find(|(known, _)| known == id);
        found.map(|(_, password)| password.as_bytes().to_vec())
    };
    let opened = seal::open_iron(value, &password);
    let (json, expires) = opened.map_err(|_sealed| Denial::Refused("sealed"))?;
    match expires {
        None if !endless => return Err(Denial::Refused("missing_exp")),
        Some(expires) if expires <= now.saturating_sub(SKEW) => return Err(Denial::EXPIRED),
        _ => (),
    }
    let session: Value = serde_json::from_slice(&json).map_err(|_error| Denial::MALFORMED)?;
    let user = at(&session, user_path).and_then(user_of).ok_or(Denial::NO_USER)?;
    let ends = expires.map(|expires| expires.saturating_add(SKEW));
    let mut identity = Identity::new(&user, &hex(&sha256(value.as_bytes())), ends)?;
    identity.is_lasting = false;
    let (parent, _) = user_path.rsplit_once('.').unwrap_or(("", ""));
    if let Some(Value::Object(about)) = at(&session, parent) {
        identity.claims.clone_from(about);
    }
    Ok(identity)
}
