//! A key in Redis whose value is JSON; express-session's signed cookie is the best known way to it.

use serde_json::{Map, Value};

use crate::auth::identity::{Denial, Identity, at, plausible, user_of};
use crate::auth::seal::{base64_unpadded, hex, is_signed, sha256};
use crate::auth::time;

use super::parted;

/// The session's id: `s:ID.SIGNATURE` if cookies are signed, else what passes for an id.
pub fn open(secrets: &[&str], value: &str) -> Result<String, Denial> {
    if secrets.is_empty() {
        super::check_id(value)?;
        return Ok(value.to_owned());
    }
    let signed = value.strip_prefix("s:").ok_or(Denial::MALFORMED)?;
    let (id, signature) = parted(signed).ok_or(Denial::MALFORMED)?;
    let signature = base64_unpadded(signature).ok_or(Denial::MALFORMED)?;
    let by = |secret: &&str| is_signed(secret.as_bytes(), id.as_bytes(), &signature);
    if !secrets.iter().any(by) {
        return Err(Denial::Refused("bad_signature"));
    }
    Ok(id.to_owned())
}

/// What the value, if there was one, comes to. A session that has no user is no login.
pub fn judge(
    id: &str,
    value: Option<&str>,
    user_path: &str,
    expires_path: &str,
    now: i64,
) -> Result<Identity, Denial> {
    let value = value.ok_or(Denial::UNKNOWN)?;
    let value: Value =
        serde_json::from_str(value).map_err(|_error| Denial::Refused("malformed_store_value"))?;
    let ends = expiry(at(&value, expires_path))?;
    if let Some(ends) = ends {
        plausible(ends, now)?;
        if now >= ends {
            return Err(Denial::EXPIRED);
        }
    }
    let user = at(&value, user_path).and_then(user_of).ok_or(Denial::NO_USER)?;
    let mut identity = Identity::new(&user, &hex(&sha256(id.as_bytes())), ends)?;
    identity.claims = claims(&value);
    Ok(identity)
}

/// Text, milliseconds, or nothing: then the store forgets it in time.
fn expiry(value: Option<&Value>) -> Result<Option<i64>, Denial> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            time::parse(text).map(Some).ok_or(Denial::Refused("malformed_store_value"))
        }
        // Seconds until the year 5138, milliseconds since 1973.
        Some(Value::Number(number)) => match number.as_i64() {
            Some(moment) if moment.abs() < 100_000_000_000 => Ok(Some(moment * 1000)),
            Some(moment) => Ok(Some(moment)),
            None => Err(Denial::Refused("malformed_store_value")),
        },
        Some(_) => Err(Denial::Refused("malformed_store_value")),
    }
}

/// The plain values of the session, which are what templates can name.
fn claims(value: &Value) -> Map<String, Value> {
    let fields = value.as_object().into_iter().flatten();
    let plain = fields.filter(|(_, value)| !value.is_object() && !value.is_array());
    plain.map(|(name, value)| (name.clone(), value.clone())).collect()
}
