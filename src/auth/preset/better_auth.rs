//! better-auth: a signed token, whose session is in a database or in Redis.

use serde_json::Value;

use crate::auth::identity::{Denial, Identity, at, plausible, user_of};
use crate::auth::seal::{base64, hex, is_signed, same, sha256};
use crate::auth::time;

use super::{Key, check_id, parted};

/// The token, if its signature is right. It is required: databases have the token in clear.
pub fn open(secret: &str, value: &str) -> Result<Key, Denial> {
    let (token, signature) = parted(value).ok_or(Denial::MALFORMED)?;
    if signature.len() != 44 || !signature.ends_with('=') {
        return Err(Denial::MALFORMED);
    }
    let signature = base64(signature).ok_or(Denial::MALFORMED)?;
    if !is_signed(secret.as_bytes(), token.as_bytes(), &signature) {
        return Err(Denial::Refused("bad_signature"));
    }
    check_id(token)?;
    Ok(Key { id: token.to_owned(), hash: None })
}

/// The key of a session in Redis, and the one that says since when the user's are revoked.
pub fn revoked_key(prefix: &str, user: &str) -> String {
    format!("{prefix}revoked-sessions-before-{user}")
}

/// The user whose session a document is, to ask whether it was revoked.
pub fn user_in(document: &str) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    at(&document, "session.userId").and_then(user_of)
}

/// What Redis had under the token, and under the user's revocation.
pub fn judge_document(
    key: &Key,
    document: Option<&str>,
    revoked_before: Option<&str>,
    now: i64,
) -> Result<Identity, Denial> {
    let document = document.ok_or(Denial::UNKNOWN)?;
    let document: Value = serde_json::from_str(document)
        .map_err(|_error| Denial::Refused("malformed_store_value"))?;
    let moment = |path| at(&document, path).and_then(Value::as_str).and_then(time::parse);
    let token = at(&document, "session.token").and_then(Value::as_str).unwrap_or_default();
    if !same(token.as_bytes(), key.id.as_bytes()) {
        return Err(Denial::UNKNOWN);
    }
    let ends = moment("session.expiresAt").ok_or(Denial::Refused("no_expiry"))?;
    plausible(ends, now)?;
    if ends < now {
        return Err(Denial::EXPIRED);
    }
    if let Some(before) = revoked_before {
        let before: i64 =
            before.trim().parse().map_err(|_error| Denial::Refused("malformed_store_value"))?;
        if moment("session.createdAt").is_none_or(|created| created < before) {
            return Err(Denial::Refused("revoked"));
        }
    }
    let user = at(&document, "session.userId").and_then(user_of).ok_or(Denial::NO_USER)?;
    let session = hex(&sha256(key.id.as_bytes()));
    let mut identity = Identity::new(&user, &session, Some(ends))?;
    if let Some(Value::Object(about)) = document.get("user") {
        identity.claims.clone_from(about);
    }
    Ok(identity)
}
