//! Every vector of tests/golden/session-vectors.json: made by the packages themselves, and broken.

use serde_json::Value;

use super::credentials::{Chunks, Credentials, Wanted};
use super::identity::{Denial, Identity, at, user_of};
use super::keys::{Algorithm, Key};
use super::preset::{Row, authjs, better_auth, callback, express, iron, jwt, lucia};
use super::time;

pub type Verdict = Result<Identity, Denial>;
type Judge = fn(&Value, &Value) -> Option<Verdict>;

/// How each group's cases are judged; `None` where no answer came, which is the store's to say.
const JUDGES: [(&str, Judge); 15] = [
    ("lucia-v2", lucia_2_case),
    ("lucia-v3", lucia_3_case),
    ("lucia-guide-2024-10", guide_2024_case),
    ("lucia-guide-2025-06", guide_2025_case),
    ("lucia-2026-07", file_2026_case),
    ("authjs-v5", authjs_5_case),
    ("authjs-database-session", authjs_row_case),
    ("nextauth-v4", nextauth_4_case),
    ("better-auth-1.7", better_auth_case),
    ("iron-session", iron_case),
    ("express-session", express_case),
    ("jwt", jwt_case),
    ("supabase", supabase_case),
    ("clerk", clerk_case),
    ("callback", callback_case),
];

pub fn groups() -> Vec<Value> {
    let text = include_str!("../../tests/golden/session-vectors.json");
    let all: Value = serde_json::from_str(text).expect("JSON");
    all["groups"].as_array().expect("groups").clone()
}

/// Runs `judge` on each case of a group; returns how many there were.
fn check(id: &str, judge: Judge) -> usize {
    let groups = groups();
    let group = groups.iter().find(|group| group["id"] == id).expect("the group");
    let cases = group["cases"].as_array().expect("cases").iter();
    cases.filter(|case| is_met(group, case, judge)).count()
}

/// What this one case must come to, which it does.
pub fn expected(id: &str, name: &str) -> String {
    let (groups, (_, judge)) =
        (groups(), JUDGES.iter().find(|(known, _)| *known == id).expect("one"));
    let group = groups.iter().find(|group| group["id"] == id).expect("the group");
    let mut cases = group["cases"].as_array().expect("cases").iter();
    let case = cases.find(|case| case["id"] == name).expect("the case");
    assert!(is_met(group, case, *judge), "{id} {name}");
    case["expect"]["result"].as_str().expect("a word").to_owned()
}

/// False if the case is not ours to judge.
fn is_met(group: &Value, case: &Value, judge: Judge) -> bool {
    let Some(verdict) = judge(group, case) else { return false };
    let (word, identity) = match &verdict {
        Ok(identity) => ("valid", Some(identity)),
        Err(Denial::Missing | Denial::Refused(_)) => ("refused", None),
        Err(Denial::Temporary(..)) => ("temporary", None),
        Err(Denial::Misconfigured(_)) => ("config_error", None),
    };
    let (id, name, expect) = (&group["id"], &case["id"], &case["expect"]);
    assert_eq!(expect["result"], word, "{id} {name}: {verdict:?}");
    if let (Some(user), Some(identity)) = (expect["user_id"].as_str(), identity) {
        assert_eq!(identity.user, user, "{id} {name}");
    }
    if let (Some(ends), Some(identity)) = (expect["expires_at_ms"].as_i64(), identity) {
        assert_eq!(identity.expires_at, Some(ends), "{id} {name}");
    }
    true
}

fn shown(case: &Value, name: &str) -> Credentials {
    let line = case["cookie_header"].as_str().unwrap_or_default();
    let bytes: Vec<u8> =
        line.chars().map(|letter| u8::try_from(letter).expect("latin-1")).collect();
    let wanted = Wanted { cookies: vec![name.to_owned()], bearer: false };
    Credentials::of_lines(std::iter::once(&bytes[..]), &wanted).expect("few cookies")
}

fn cookie(case: &Value, name: &str) -> Result<String, Denial> {
    shown(case, name).cookie(name)?.ok_or(Denial::Missing)
}

fn chunked(case: &Value, name: &str, chunks: Chunks) -> Result<String, Denial> {
    shown(case, name).chunked(name, chunks)?.ok_or(Denial::Missing)
}

fn now(case: &Value) -> i64 {
    case["now_ms"].as_i64().expect("a clock")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len() / 2).filter_map(|at| digit(at * 2)).collect()
}

/// As a database would: the row if its id is what was asked for.
fn find(key: &super::preset::Key, row: Option<Row>) -> Option<Row> {
    row.filter(|row| row.id == key.id)
}

fn lucia_case(
    case: &Value,
    name: &str,
    variant: lucia::Variant,
    moment: impl Fn(&Value) -> Option<i64>,
) -> Verdict {
    let key = lucia::open(variant, &cookie(case, name)?)?;
    let kept = if case["table_row"].is_object() { &case["table_row"] } else { &case["row"] };
    let row = kept.is_object().then(|| Row {
        id: kept["id"].as_str().unwrap_or_default().to_owned(),
        user: user_of(&kept["user_id"]),
        moment: moment(kept),
        hash: kept["secret_hash_hex"].as_str().map(unhex),
        ..Row::default()
    });
    lucia::judge(variant, &key, find(&key, row).as_ref(), now(case))
}

fn lucia_2_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let moment = |row: &Value| row["idle_expires"].as_i64();
    Some(lucia_case(case, "auth_session", lucia::Variant::V2, moment))
}

#[test]
fn lucia_2() {
    let count = check("lucia-v2", lucia_2_case);
    assert_eq!(count, 11);
}

fn lucia_3_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let driver = &case["driver_value"];
    let moment = |_: &Value| match driver {
        Value::String(text) => time::parse(text),
        Value::Number(seconds) => Some(seconds.as_i64()? * 1000),
        other => other["js_date_ms"].as_i64(),
    };
    Some(lucia_case(case, "auth_session", lucia::Variant::V3, moment))
}

#[test]
fn lucia_3() {
    let count = check("lucia-v3", lucia_3_case);
    assert_eq!(count, 15);
}

fn guide_2024_case(_group: &Value, case: &Value) -> Option<Verdict> {
    if let Ok(value) = cookie(case, "session") {
        let key = lucia::open(lucia::Variant::Guide2024, &value).expect("a key");
        assert_eq!(key.id, case["lookup_key"], "{}", case["id"]);
    }
    let row = &case["table_row"];
    if let Some(document) = row["value"].as_str() {
        let judged = express::judge("x", Some(document), "user_id", "expires_at", now(case));
        return Some(judged);
    }
    if row["two_factor_verified"] == 0 {
        // The statement does not find it: its `where` is not met.
        assert_eq!(case["expect"]["result"], "refused");
        return Some(Err(Denial::UNKNOWN));
    }
    let moment = |row: &Value| Some(row["expires_at"].as_i64()? * 1000);
    Some(lucia_case(case, "session", lucia::Variant::Guide2024, moment))
}

#[test]
fn lucia_guide_2024() {
    let count = check("lucia-guide-2024-10", guide_2024_case);
    assert_eq!(count, 9);
}

fn guide_2025_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let absolute = case["expiry_mode"] == "created_at+86400s";
    let (column, lasts) =
        if absolute { ("created_at", lucia::ABSOLUTE) } else { ("last_verified_at", lucia::IDLE) };
    let moment = |row: &Value| Some(row[column].as_i64()? * 1000);
    Some(lucia_case(case, "session_token", lucia::Variant::Guide2025(lasts), moment))
}

#[test]
fn lucia_guide_2025() {
    let count = check("lucia-guide-2025-06", guide_2025_case);
    assert_eq!(count, 10);
}

fn file_2026_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let moment = |row: &Value| Some(row["token_last_verified_at"].as_i64()? * 1000);
    Some(lucia_case(case, "session", lucia::Variant::File2026, moment))
}

#[test]
fn lucia_file_2026() {
    let count = check("lucia-2026-07", file_2026_case);
    assert_eq!(count, 8);
}

fn sealed(group: &Value, case: &Value, version: authjs::Version) -> Verdict {
    let name = case["cookie_name"].as_str().expect("a name");
    let list = if case["secret_list"].is_array() { case } else { group };
    let keys = authjs::keys(version, &texts(&list["secret_list"]), name);
    authjs::open(version, &keys, &chunked(case, name, Chunks::Strict)?, "sub", now(case))
}

fn authjs_5_case(group: &Value, case: &Value) -> Option<Verdict> {
    Some(sealed(group, case, authjs::Version::V5))
}

#[test]
fn authjs_5() {
    let count = check("authjs-v5", authjs_5_case);
    assert_eq!(count, 28);
    let groups = groups();
    let group = groups.iter().find(|group| group["id"] == "authjs-v5").expect("the group");
    for (name, derived) in group["derived"].as_object().expect("keys") {
        let keys = authjs::keys(authjs::Version::V5, &texts(&group["secret_list"]), name);
        assert_eq!(keys[0].bytes, unhex(derived["key_hex"].as_str().expect("hex")));
    }
    let keys = authjs::keys(
        authjs::Version::V5,
        &texts(&group["secret_list"]),
        "__Secure-authjs.session-token",
    );
    assert_eq!(keys[0].kid.as_deref(), group["first_token_kid"].as_str());
}

fn nextauth_4_case(group: &Value, case: &Value) -> Option<Verdict> {
    Some(sealed(group, case, authjs::Version::V4))
}

#[test]
fn next_auth_4() {
    let count = check("nextauth-v4", nextauth_4_case);
    assert_eq!(count, 11);
}

fn row_of(row: &Value, id: &str, user: &str, moment: &str) -> Option<Row> {
    row.is_object().then(|| Row {
        id: row[id].as_str().unwrap_or_default().to_owned(),
        user: user_of(&row[user]),
        moment: row[moment].as_i64(),
        ..Row::default()
    })
}

fn authjs_row_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let judged = || {
        let token = cookie(case, "__Secure-authjs.session-token")?;
        let key = authjs::open_database(&token)?;
        let row = find(&key, row_of(&case["row"], "sessionToken", "userId", "expires_ms"));
        authjs::judge(&key, row.as_ref(), now(case))
    };
    // What is no answer is the store's to say.
    (case["id"] != "db-down").then(judged)
}

#[test]
fn authjs_in_a_database() {
    let count = check("authjs-database-session", authjs_row_case);
    assert_eq!(count, 4);
}

fn better_auth_case(group: &Value, case: &Value) -> Option<Verdict> {
    let judged = || {
        let name = group["cookie_name"].as_str().expect("a name");
        let secret = group["secret"].as_str().expect("a secret");
        let key = better_auth::open(secret, &cookie(case, name)?)?;
        let Some(redis) = case["redis"].as_object() else {
            let row = find(&key, row_of(&case["row"], "token", "userId", "expiresAt_ms"));
            return authjs::judge(&key, row.as_ref(), now(case));
        };
        let get = |key: &str| redis.get(key).and_then(Value::as_str);
        let document = get(&format!("better-auth:{}", key.id));
        let user = document.and_then(better_auth::user_in);
        let revoked = user.map(|user| better_auth::revoked_key("better-auth:", &user));
        let revoked = revoked.as_deref().and_then(get);
        better_auth::judge_document(&key, document, revoked, now(case))
    };
    (case["expect"]["result"] != "temporary").then(judged)
}

#[test]
fn better_auth_1() {
    let count = check("better-auth-1.7", better_auth_case);
    assert!(count >= 15, "{count}");
}

fn iron_case(group: &Value, case: &Value) -> Option<Verdict> {
    let list = if case["passwords"].is_object() { case } else { group };
    let passwords = list["passwords"].as_object().expect("passwords").iter();
    let passwords = passwords.map(|(id, word)| (id.clone(), word.as_str().unwrap().to_owned()));
    let passwords: Vec<_> = passwords.collect();
    let judged = || {
        let value = chunked(case, "app_session", Chunks::FirstGap)?;
        iron::open(&passwords, &value, "user.id", false, now(case))
    };
    Some(judged())
}

#[test]
fn iron_session_9() {
    let count = check("iron-session", iron_case);
    assert_eq!(count, 14);
}

fn express_case(group: &Value, case: &Value) -> Option<Verdict> {
    let judged = || {
        let id = express::open(&texts(&group["secret_list"]), &cookie(case, "connect.sid")?)?;
        if let Some(key) = case["redis_key"].as_str() {
            assert_eq!(format!("sess:{id}"), key, "{}", case["id"]);
        }
        let value = case["redis_value"].as_str();
        express::judge(&id, value, "passport.user", "cookie.expires", now(case))
    };
    // What is no answer is the store's to say.
    case["redis_error"].is_null().then(judged)
}

#[test]
fn express_session_1() {
    let count = check("express-session", express_case);
    assert_eq!(count, 12);
}

fn verdict(opened: Result<Identity, jwt::Unverified>) -> Verdict {
    opened.map_err(|unverified| match unverified {
        jwt::Unverified::Denied(denial) => denial,
        // After the document was read anew, which brought nothing new here.
        jwt::Unverified::UnknownKey => Denial::Refused("unknown_key"),
    })
}

fn owned(text: &Value) -> String {
    text.as_str().expect("a text").to_owned()
}

fn jwt_case(group: &Value, case: &Value) -> Option<Verdict> {
    let keys = match case["mode"].as_str() {
        Some("hs") => {
            vec![Key::secret(group["hs_secret"].as_str().expect("one"), Algorithm::Hs256)]
        }
        _ => Key::set(group["jwks"].to_string().as_bytes()).expect("keys"),
    };
    let rules = jwt::Rules {
        issuer: Some(owned(&group["issuer"])),
        audience: vec![owned(&group["audience"])],
        user_claim: "sub".to_owned(),
        ..jwt::Rules::default()
    };
    let token = case["token"].as_str().expect("a token");
    Some(verdict(jwt::open(token, &keys, &rules, now(case))))
}

#[test]
fn json_web_tokens() {
    let count = check("jwt", jwt_case);
    assert_eq!(count, 44);
}

fn supabase_case(group: &Value, case: &Value) -> Option<Verdict> {
    let judged = || {
        let name = owned(&group["cookie_base"]);
        let token = jwt::supabase_token(&chunked(case, &name, Chunks::FirstGap)?)?;
        let mut require = vec![("role".to_owned(), "authenticated".to_owned())];
        if case["id"] == "aal1-when-aal2-required" {
            require.push(("aal".to_owned(), "aal2".to_owned()));
        }
        let rules = jwt::Rules {
            issuer: Some(owned(&group["issuer"])),
            audience: vec![owned(&group["audience"])],
            user_claim: "sub".to_owned(),
            require,
            ..jwt::Rules::default()
        };
        let secret = group["hs_secret"].as_str().expect("one");
        let keys = [Key::secret(secret, Algorithm::Hs256)];
        verdict(jwt::open(&token, &keys, &rules, now(case)))
    };
    Some(judged())
}

#[test]
fn supabase() {
    let count = check("supabase", supabase_case);
    assert_eq!(count, 11);
}

fn clerk_case(group: &Value, case: &Value) -> Option<Verdict> {
    let judged = || {
        let keys = [Key::jwk(&group["jwk"]).expect("a key")];
        let rules = jwt::Rules {
            user_claim: "sub".to_owned(),
            typ: Some("JWT".to_owned()),
            parties: texts(&group["authorized_parties"]).into_iter().map(str::to_owned).collect(),
            ..jwt::Rules::default()
        };
        verdict(jwt::open(&cookie(case, "__session")?, &keys, &rules, now(case)))
    };
    Some(judged())
}

#[test]
fn clerk() {
    let count = check("clerk", clerk_case);
    assert_eq!(count, 11);
}

fn callback_case(_group: &Value, case: &Value) -> Option<Verdict> {
    let answer = &case["response"];
    let (words, path) = match case["preset"].as_str() {
        Some("authjs") => (callback::Words::AuthJs, "user.id"),
        Some("better-auth") => (callback::Words::BetterAuth, "user.id"),
        _ => (callback::Words::Own, "userId"),
    };
    // No answer is the sender's to say.
    let status = u16::try_from(answer["status"].as_u64()?).ok()?;
    let body = match answer["body_bytes"].as_u64() {
        Some(bytes) => "x".repeat(usize::try_from(bytes).expect("small")),
        None => owned(&answer["body"]),
    };
    let kind = at(answer, "headers.content-type").and_then(Value::as_str);
    Some(callback::judge(words, path, status, kind, body.as_bytes(), now(case)))
}

#[test]
fn the_application_is_asked() {
    let count = check("callback", callback_case);
    assert_eq!(count, 32);
}

#[test]
fn cookies_are_read_in_one_way() {
    let groups = groups();
    let group = groups.iter().find(|group| group["id"] == "cookie-header").expect("the group");
    let cases = group["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 16);
    for case in cases {
        let read = shown(case, "sid").cookie("sid");
        let (name, expect) = (&case["id"], &case["expect"]);
        match expect["refused"].as_str() {
            Some(reason) => assert_eq!(read.err().map(Denial::reason), Some(reason), "{name}"),
            None => assert_eq!(read.ok().flatten().as_deref(), expect["value"].as_str(), "{name}"),
        }
    }
}
