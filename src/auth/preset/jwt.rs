//! JSON Web Tokens (RFC 7519): keys, and what must hold for a token.
//!
//! The algorithm is the key's, never the token's.

use serde_json::{Number, Value};

use crate::auth::claims::Claims;
use crate::auth::identity::{Denial, Identity};
use crate::auth::keys::{Algorithm, Key};
use crate::auth::seal::{base64_url, hex, sha256};

/// What must hold besides the signature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub issuer: Option<String>,
    /// One of these; none: tokens have no audience.
    pub audience: Vec<String>,
    pub user_claim: String,
    /// The `typ` that the head must have.
    pub typ: Option<String>,
    /// Claims with exactly these values.
    pub require: Vec<(String, String)>,
    /// `azp` is one of these.
    pub parties: Vec<String>,
    /// Issued before this, in seconds: the user has left since, elsewhere.
    pub issued_since: Option<u32>,
}

/// Bytes of a token.
const TOKEN_MAX: usize = 24 << 10;
/// Bytes of its payload.
const PAYLOAD_MAX: usize = 16 << 10;
/// Clocks differ.
const LEEWAY: f64 = 5.0;

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    Denied(Denial),
    /// It names a key that is not known, or not yet.
    UnknownKey,
}

impl From<Denial> for Unverified {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

pub fn open(token: &str, keys: &[Key], rules: &Rules, now: i64) -> Result<Identity, Unverified> {
    if token.len() > TOKEN_MAX {
        return Err(Denial::MALFORMED.into());
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Denial::MALFORMED)?;
    let (head, payload) = signed.split_once('.').ok_or(Denial::MALFORMED)?;
    if payload.contains('.') {
        return Err(Denial::MALFORMED.into());
    }
    let bytes = |text| base64_url(text).ok_or(Denial::MALFORMED);
    let head = Claims::parse(&bytes(head)?)?;
    let (payload, signature) = (bytes(payload)?, bytes(signature)?);
    if payload.len() > PAYLOAD_MAX {
        return Err(Denial::MALFORMED.into());
    }
    check_head(&head, rules)?;
    let mut candidates = candidates(&head, keys)?;
    if !candidates.any(|key| key.verifies(signed.as_bytes(), &signature)) {
        return Err(Denial::Refused("bad_signature").into());
    }
    Ok(identify(Claims::parse(&payload)?, rules, token, now)?)
}

fn check_head(head: &Claims, rules: &Rules) -> Result<(), Denial> {
    const TRAPS: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "crit", "b64"];
    if head.names().any(|name| TRAPS.contains(&name)) {
        return Err(Denial::Refused("bad_header"));
    }
    if rules.typ.is_some() && head.text("typ") != rules.typ.as_deref() {
        return Err(Denial::Refused("typ"));
    }
    Ok(())
}

/// The keys that the token may have been signed with.
fn candidates<'a>(
    head: &Claims,
    keys: &'a [Key],
) -> Result<impl Iterator<Item = &'a Key>, Unverified> {
    let algorithm = head.text("alg").and_then(Algorithm::parse);
    let algorithm = algorithm.ok_or(Denial::Refused("bad_algorithm"))?;
    let kid = match head.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(Denial::MALFORMED.into()),
    };
    let named = keys.iter().filter(|key| key.kid.is_some()).count();
    match &kid {
        None if named > 1 => return Err(Denial::Refused("missing_kid").into()),
        Some(kid) if named > 0 && !keys.iter().any(|key| key.kid.as_ref() == Some(kid)) => {
            return Err(Unverified::UnknownKey);
        }
        _ => (),
    }
    let fits = move |key: &&Key| {
        let same = key.kid.is_none() || kid.is_none() || key.kid == kid;
        same && key.algorithm == algorithm
    };
    Ok(keys.iter().filter(fits))
}

fn identify(claims: Claims, rules: &Rules, token: &str, now: i64) -> Result<Identity, Denial> {
    let ends = claims.check_times(now, LEEWAY)?;
    if rules.issuer.is_some() && claims.text("iss") != rules.issuer.as_deref() {
        return Err(Denial::Refused("bad_iss"));
    }
    check_audience(claims.get("aud"), &rules.audience)?;
    for (name, value) in &rules.require {
        let has = match claims.get(name) {
            Some(Value::String(text)) => text == value,
            Some(Value::Bool(flag)) => value.parse() == Ok(*flag),
            Some(Value::Number(number)) => {
                value.parse().is_ok_and(|known: Number| known == *number)
            }
            _ => false,
        };
        if !has {
            return Err(Denial::Refused("required_claim"));
        }
    }
    let party = claims.text("azp").unwrap_or_default();
    if !rules.parties.is_empty() && !rules.parties.iter().any(|known| known == party) {
        return Err(Denial::Refused("bad_azp"));
    }
    // Clerk: the user has still to choose, or to prove, something.
    if claims.text("sts") == Some("pending") {
        return Err(Denial::Refused("session_pending"));
    }
    if let (Some(since), Some(issued)) = (rules.issued_since, claims.date("iat")?)
        && issued < f64::from(since)
    {
        return Err(Denial::Refused("signed_out"));
    }
    let user = claims.text_at(&rules.user_claim).ok_or(Denial::NO_USER)?.to_owned();
    let lasting = ["sid", "session_id"].into_iter().find_map(|name| claims.text(name));
    let session = lasting.or_else(|| claims.text("jti")).map(str::to_owned);
    let session = session.unwrap_or_else(|| hex(&sha256(token.as_bytes())));
    let (is_lasting, identity) = (lasting.is_some(), Identity::new(&user, &session, Some(ends))?);
    Ok(Identity { claims: claims.into_map(), is_lasting, ..identity })
}

fn check_audience(claim: Option<&Value>, wanted: &[String]) -> Result<(), Denial> {
    let is_wanted = |value: &Value| wanted.iter().any(|known| value.as_str() == Some(known));
    let right = match claim {
        None => wanted.is_empty(),
        // It is meant for somebody, and nobody said for whom we are.
        Some(_) if wanted.is_empty() => false,
        Some(Value::Array(all)) => all.iter().any(is_wanted),
        Some(one) => is_wanted(one),
    };
    if right { Ok(()) } else { Err(Denial::Refused("bad_aud")) }
}

/// The access token in the cookie of Supabase's client.
pub fn supabase_token(value: &str) -> Result<String, Denial> {
    let decoded = match value.strip_prefix("base64-") {
        Some(encoded) => base64_url(encoded).ok_or(Denial::MALFORMED)?,
        None => value.as_bytes().to_vec(),
    };
    // What it says of the user beside the token is not signed.
    let session: Value = serde_json::from_slice(&decoded).map_err(|_error| Denial::MALFORMED)?;
    let token = session.get("access_token").and_then(Value::as_str);
    token.map(str::to_owned).ok_or(Denial::MALFORMED)
}
