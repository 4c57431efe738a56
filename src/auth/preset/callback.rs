//! What the application answered when it was asked who somebody is.

use serde_json::Value;

use crate::auth::identity::{Cause, Denial, Identity, at, user_of};
use crate::auth::time;

/// Whose words the answer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Ours: `userId`, `sessionId`, `expiresAt`, `claims`.
    Own,
    /// `GET /api/auth/session` of Auth.js and NextAuth.
    AuthJs,
    /// `GET /api/auth/get-session` of better-auth.
    BetterAuth,
}

/// Bytes of an answer.
pub const ANSWER_MAX: usize = 64 << 10;
/// An answer that is none, to this client at least.
pub const STRANGE: Denial = Denial::Temporary(Cause::Shown, "application_answer");
/// Bytes of what it says of the user.
const CLAIMS_MAX: usize = 4 << 10;

pub fn judge(
    words: Words,
    user_path: &str,
    status: u16,
    kind: Option<&str>,
    body: &[u8],
    now: i64,
) -> Result<Identity, Denial> {
    match status {
        200 => (),
        401 | 403 | 300..=399 => return Err(Denial::Refused("application")),
        // Whoever stands before the application says so of all.
        502..=504 => return Err(Denial::Temporary(Cause::Store, "application_failed")),
        // It may have failed at just this cookie, or have had enough of just this client.
        408 | 425 | 429 | 500.. => {
            return Err(Denial::Temporary(Cause::Shown, "application_failed"));
        }
        // It says something of the path, or of the request, not of the user.
        _ => return Err(Denial::Temporary(Cause::Shown, "application_status")),
    }
    let json = kind.is_some_and(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    });
    if !json || body.len() > ANSWER_MAX {
        return Err(STRANGE);
    }
    let answer: Value = serde_json::from_slice(body).map_err(|_error| STRANGE)?;
    match &answer {
        Value::Null => return Err(Denial::Refused("application")),
        Value::Object(fields) if fields.is_empty() => return Err(Denial::Refused("application")),
        Value::Object(_) => (),
        _ => return Err(STRANGE),
    }
    let user = match (at(&answer, user_path), words) {
        (None | Some(Value::Null), Words::AuthJs) => {
            return Err(Denial::Misconfigured("no_user_id_in_session"));
        }
        (None | Some(Value::Null), Words::Own) => return Err(Denial::NO_USER),
        (found, _) => found.and_then(user_of).ok_or(STRANGE)?,
    };
    if words == Words::BetterAuth
        && at(&answer, "session.userId").and_then(user_of) != Some(user.clone())
    {
        return Err(STRANGE);
    }
    let (ends, session) = match words {
        Words::Own => ("expiresAt", at(&answer, "sessionId")),
        Words::AuthJs => ("expires", None),
        Words::BetterAuth => ("session.expiresAt", at(&answer, "session.id")),
    };
    let ends = moment(at(&answer, ends)).ok_or(STRANGE)?;
    if ends.is_some_and(|ends| ends <= now) {
        return Err(Denial::EXPIRED);
    }
    let session = session.and_then(user_of).unwrap_or_default();
    let mut identity = Identity::new(&user, &session, ends)?;
    let about = if words == Words::Own { "claims" } else { "user" };
    match at(&answer, about) {
        Some(Value::Object(claims)) => identity.claims.clone_from(claims),
        None | Some(Value::Null) => (),
        Some(_) => return Err(STRANGE),
    }
    if serde_json::to_vec(&identity.claims).map_or(0, |text| text.len()) > CLAIMS_MAX {
        return Err(STRANGE);
    }
    Ok(identity)
}

/// `None` if it is no moment at all.
fn moment(value: Option<&Value>) -> Option<Option<i64>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => time::parse(text).map(Some),
        Some(value) => value.as_i64().map(Some),
    }
}
