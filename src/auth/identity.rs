//! Who somebody is, or why that is not known; pure.

use std::fmt;

use serde_json::{Map, Value};

use super::seal::{hex, sha256};

/// A user, as one session of the application's vouches for.
#[derive(Clone, PartialEq)]
pub struct Identity {
    pub user: String,
    /// Which of the user's sessions; never what opens it.
    pub session: String,
    /// Its next credential will call the session the same.
    pub is_lasting: bool,
    /// Milliseconds since 1970; `None`: until it is asked about again.
    pub expires_at: Option<i64>,
    /// What else is known of the user.
    pub claims: Map<String, Value>,
}

/// Why nobody is identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Nothing was shown.
    Missing,
    /// A statement about what was shown; the word is for the log.
    Refused(&'static str),
    /// It may be right, and that cannot be said now.
    Temporary(Cause, &'static str),
    /// What the operator wrote does not fit what is there. Nobody is let in.
    Misconfigured(&'static str),
}

/// What stands in the way of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This process: it has too much to do, or stops.
    Edge,
    /// The store, or the application: it is away, and nobody can be looked up.
    Store,
    /// What was shown: others are answered.
    Shown,
}

impl Denial {
    pub const MALFORMED: Self = Self::Refused("malformed");
    pub const EXPIRED: Self = Self::Refused("expired");
    pub const UNKNOWN: Self = Self::Refused("unknown_session");
    pub const NOT_YET: Self = Self::Refused("not_yet_valid");
    pub const FROM_LATER: Self = Self::Refused("iat_in_future");
    pub const REVOKED: Self = Self::Refused("revoked");
    pub const NO_USER: Self = Self::Refused("missing_user_id");

    /// The stable word for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no_credential",
            Self::Refused(reason) | Self::Temporary(_, reason) | Self::Misconfigured(reason) => {
                reason
            }
        }
    }

    /// True if it is right at another time: it has ended, or this clock was set back.
    pub fn is_untimely(self) -> bool {
        matches!(self, Self::EXPIRED | Self::NOT_YET | Self::FROM_LATER)
    }

    /// True if asking again may end otherwise.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Temporary(..) | Self::Misconfigured(_))
    }
}

/// When the session ends, in milliseconds since 1970, beside what else is known of its user.
const EXPIRES: &str = "expires_at";

/// Names of users go into rooms, logs and headers.
const USER_MAX: usize = 256;
/// Names of sessions go into rooms; longer ones are shortened to their hash.
const SESSION_MAX: usize = 128;
/// Nobody's session lasts longer: a number in the wrong unit does.
const AHEAD_MAX: i64 = 400 * 86_400_000;
/// 2015: before there was any of these libraries.
const EARLIEST: i64 = 1_420_070_400_000;

impl Identity {
    /// Refuses an id that is empty, long or strange.
    pub fn new(user: &str, session: &str, expires_at: Option<i64>) -> Result<Self, Denial> {
        if user.is_empty() {
            return Err(Denial::NO_USER);
        }
        if user.len() > USER_MAX || user.chars().any(char::is_control) {
            return Err(Denial::Refused("bad_user_id"));
        }
        let is_short = session.len() <= SESSION_MAX && !session.chars().any(char::is_control);
        let session = if is_short { session.to_owned() } else { hex(&sha256(session.as_bytes())) };
        let user = user.to_owned();
        Ok(Self { user, session, is_lasting: true, expires_at, claims: Map::new() })
    }

    /// What a template or the application calls `user.FIELD`.
    pub fn field(&self, name: &str) -> Option<String> {
        match (name, self.claims.get(name)) {
            ("id", _) => Some(self.user.clone()),
            (EXPIRES, _) if self.expires_at.is_some() => self.expires_at.map(|at| at.to_string()),
            (_, Some(Value::String(text))) => Some(text.clone()),
            (_, Some(value @ (Value::Number(_) | Value::Bool(_)))) => Some(value.to_string()),
            _ => None,
        }
    }

    /// As hooks are told: the id, when the session ends if it does, and whatever else is known.
    pub fn to_json(&self) -> Value {
        let mut all = self.claims.clone();
        all.insert("id".to_owned(), Value::String(self.user.clone()));
        if let Some(ends) = self.expires_at {
            all.insert(EXPIRES.to_owned(), ends.into());
        }
        Value::Object(all)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {:?} until {:?}", self.user, self.expires_at)
    }
}

/// Refuses an end that no library writes, which is one in the wrong unit: it is too far ahead, or
/// would be an end if it were seconds. What is as old and no such number is over: applications end a
/// session by the moment 0.
pub fn plausible(expires_at: i64, now: i64) -> Result<(), Denial> {
    let latest = now.saturating_add(AHEAD_MAX);
    let in_seconds = EARLIEST / 1000..=latest / 1000;
    if expires_at > latest || in_seconds.contains(&expires_at) {
        return Err(Denial::Misconfigured("implausible_expiry"));
    }
    if expires_at < EARLIEST { Err(Denial::EXPIRED) } else { Ok(()) }
}

/// A user's id as JSON has it: a text, or a whole number that JavaScript can count to.
pub fn user_of(value: &Value) -> Option<String> {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => {
            let number = number.as_i64().filter(|number| number.unsigned_abs() <= EXACT)?;
            Some(number.to_string())
        }
        _ => None,
    }
}

/// The value at a path like `passport.user`.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ended_long_ago_is_over_and_what_is_in_another_unit_is_a_mistake() {
        const NOW: i64 = 1_800_000_000_000;
        for (ends, expected) in [
            (NOW, Ok(())),
            (NOW - 86_400_000, Ok(())),
            (NOW + AHEAD_MAX + 1, Err(Denial::Misconfigured("implausible_expiry"))),
            (NOW / 1000, Err(Denial::Misconfigured("implausible_expiry"))),
            (NOW / 1000 + 3600, Err(Denial::Misconfigured("implausible_expiry"))),
            (NOW * 1000, Err(Denial::Misconfigured("implausible_expiry"))),
            (0, Err(Denial::EXPIRED)),
            (-1, Err(Denial::EXPIRED)),
            (978_307_200_000, Err(Denial::EXPIRED)),
        ] {
            assert_eq!(plausible(ends, NOW), expected, "{ends}");
        }
    }

    #[test]
    fn what_is_known_of_a_user_is_told_under_its_name() {
        let mut anna = Identity::new("anna", "s1", Some(1_800_000_000_000)).expect("right");
        anna.claims =
            json!({ "id": "forged", "expires_at": 1, "plan": "pro", "age": 7, "tags": [1] })
                .as_object()
                .cloned()
                .expect("an object");
        for (field, text) in [
            ("id", Some("anna")),
            ("expires_at", Some("1800000000000")),
            ("plan", Some("pro")),
            ("age", Some("7")),
            ("tags", None),
            ("session", None),
        ] {
            assert_eq!(anna.field(field).as_deref(), text, "{field}");
        }
        let told = anna.to_json();
        assert_eq!(
            (&told["id"], &told["expires_at"]),
            (&json!("anna"), &json!(1_800_000_000_000_i64))
        );
        anna.expires_at = None;
        assert_eq!(anna.field("expires_at").as_deref(), Some("1"), "a claim of that name");
    }
}
