//! What must hold for any cookie or token that a client shows.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use super::credentials::{Chunks, Credentials, Wanted, basic};
use super::preset::authjs::Version;
use super::preset::lucia::Variant;
use super::preset::{authjs, better_auth, express, iron, jwt, lucia};

const COOKIE: &str = "session";
const SECRET: &str = "a secret of at least thirty-two bytes";

/// Lines of cookies.
pub fn cookies(data: &[u8]) {
    let wanted = Wanted { cookies: vec![COOKIE.to_owned()], bearer: false };
    let lines = data.split(|byte| *byte == b'\n');
    let Ok(credentials) = Credentials::of_lines(lines, &wanted) else { return };
    let fits = |value: Option<String>| {
        let value = value.unwrap_or_default();
        assert!(value.len() <= data.len(), "{value} out of {} bytes", data.len());
    };
    let mut headers = http::HeaderMap::new();
    if let Ok(line) = http::HeaderValue::from_bytes(data) {
        headers.append(http::header::AUTHORIZATION, line);
    }
    if let Some((name, password)) = basic(&headers) {
        assert!(!name.contains(':') && name.len() + password.len() < data.len());
    }
    for chunks in [Chunks::Strict, Chunks::FirstGap] {
        credentials.chunked(COOKIE, chunks).into_iter().for_each(fits);
    }
    credentials.cookie(COOKIE).into_iter().for_each(fits);
    let before = credentials.digest();
    let mut changed = credentials.clone();
    changed.set(COOKIE, None);
    assert_eq!(changed.cookie(COOKIE), Ok(None));
    assert_eq!(before, credentials.digest());
}

/// The value of a session's cookie, or a token, of every kind; nobody has the secret.
pub fn sessions(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    for version in [Version::V4, Version::V5] {
        let keys = authjs::keys(version, &[SECRET], COOKIE);
        assert!(authjs::open(version, &keys, value, "sub", 0).is_err(), "a sealed cookie");
    }
    assert!(better_auth::open(SECRET, value).is_err(), "a signed cookie of better-auth");
    assert!(express::open(&[SECRET], value).is_err(), "a signed cookie of express");
    let passwords = [("1".to_owned(), SECRET.to_owned())];
    assert!(iron::open(&passwords, value, "user.id", true, 0).is_err(), "a seal");
    let rules = jwt::Rules::default();
    assert!(jwt::open(value, &[], &rules, 0).is_err(), "a token without a key");
    if let Ok(token) = jwt::supabase_token(value) {
        assert!(token.len() <= value.len());
    }
    if let Some(user) = better_auth::user_in(value) {
        assert!(user.len() <= value.len());
    }
    for variant in [Variant::V2, Variant::V3, Variant::Guide2024, Variant::File2026] {
        let Ok(key) = lucia::open(variant, value) else { continue };
        assert!(lucia::judge(variant, &key, None, 0).is_err(), "a session that no row has");
    }
}
