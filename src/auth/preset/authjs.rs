//! Auth.js 5 and NextAuth 4: an encrypted cookie, or a token whose session is in a database.

use crate::auth::claims::Claims;
use crate::auth::identity::{Denial, Identity, plausible};
use crate::auth::seal::{self, Encryption, JweKey, hex, same, sha256};

use super::{Key, Row, check_id};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

/// As both packages allow.
const TOLERANCE: f64 = 15.0;

/// The keys of each secret for the cookie of this name.
pub fn keys(version: Version, secrets: &[&str], cookie: &str) -> Vec<JweKey> {
    let key = |secret: &&str| match version {
        Version::V5 => {
            let info = format!("Auth.js Generated Encryption Key ({cookie})");
            let (salt, info) = (cookie.as_bytes(), info.as_bytes());
            let length = Encryption::A256CbcHs512.key_len();
            let bytes = seal::derive(secret.as_bytes(), salt, info, length);
            JweKey { kid: Some(seal::thumbprint(&bytes)), bytes }
        }
        Version::V4 => {
            let info = b"NextAuth.js Generated Encryption Key";
            let length = Encryption::A256Gcm.key_len();
            JweKey { bytes: seal::derive(secret.as_bytes(), b"", info, length), kid: None }
        }
    };
    secrets.iter().map(key).collect()
}

/// Who the encrypted cookie says it is.
pub fn open(
    version: Version,
    keys: &[JweKey],
    token: &str,
    user_claim: &str,
    now: i64,
) -> Result<Identity, Denial> {
    let encryption = match version {
        Version::V4 => Encryption::A256Gcm,
        Version::V5 => Encryption::A256CbcHs512,
    };
    let opened = seal::open_jwe(token, encryption, keys);
    let claims = Claims::parse(&opened.map_err(|_sealed| Denial::Refused("sealed"))?)?;
    if claims.date("exp")?.is_some_and(|exp| exp.fract() != 0.0) {
        return Err(Denial::Refused("bad_date"));
    }
    let ends = claims.check_times(now, TOLERANCE)?;
    // Never another claim: an address changes hands.
    let user = claims.text(user_claim).ok_or(Denial::NO_USER)?.to_owned();
    let session = claims.text("jti").map(str::to_owned);
    let session = session.unwrap_or_else(|| hex(&sha256(token.as_bytes())));
    let identity = Identity::new(&user, &session, Some(ends))?;
    // Each cookie has a `jti` of its own.
    Ok(Identity { claims: claims.into_map(), is_lasting: false, ..identity })
}

pub fn open_database(token: &str) -> Result<Key, Denial> {
    check_id(token)?;
    Ok(Key { id: token.to_owned(), hash: None })
}

pub fn judge(key: &Key, row: Option<&Row>, now: i64) -> Result<Identity, Denial> {
    let row = row.filter(|row| same(row.id.as_bytes(), key.id.as_bytes()));
    let row = row.ok_or(Denial::UNKNOWN)?;
    let ends = row.moment.ok_or(Denial::Refused("no_expiry"))?;
    plausible(ends, now)?;
    if ends < now {
        return Err(Denial::EXPIRED);
    }
    let user = row.user.as_deref().ok_or(Denial::NO_USER)?;
    // The token opens the session, so it must not be what the session is called.
    let session = hex(&sha256(key.id.as_bytes()));
    let identity = Identity::new(user, &session, Some(ends))?;
    Ok(Identity { claims: row.claims.clone(), ..identity })
}
