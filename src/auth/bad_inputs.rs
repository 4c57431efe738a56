//! What must not let anybody in, and what looks like it and must: one test for each. Those that
//! take a store, a hub or an application are in tests/auth_bad_inputs.rs.

use serde_json::Value;

use super::credentials::{Chunks, Credentials, Wanted};
use super::identity::Denial;
use super::preset::authjs;
use super::seal::{base64_url, to_base64_url};
use super::vectors::{expected, groups};

/// Tests that name cases of the vectors: what each case comes to there, it must come to here.
macro_rules! cases {
    ($($name:ident: $group:literal $([$case:literal is $result:literal])+;)+) => {
        $(
            #[test]
            fn $name() {
                $(assert_eq!(expected($group, $case), $result, $case);)+
            }
        )+
    };
}

cases! {
    the_id_of_a_row_is_no_token_of_the_2024_guide:
        "lucia-guide-2024-10" ["id-as-token" is "refused"];
    the_stored_hash_is_no_secret_of_the_2025_guide:
        "lucia-guide-2025-06" ["stored-hash-as-secret" is "refused"];
    a_session_of_two_halves_has_one_dot_and_no_empty_half:
        "lucia-guide-2025-06" ["no-dot" is "refused"] ["three-parts" is "refused"]
        ["empty-secret" is "refused"];
    the_2026_file_does_not_write_base64_as_urls_do:
        "lucia-2026-07" ["base64url-alphabet" is "refused"] ["no-padding" is "valid"];
    a_hash_that_another_variant_wrote_is_of_no_use:
        "lucia-2026-07" ["hash-of-text-row" is "refused"];
    a_row_of_the_2026_file_is_none_of_the_2025_guide:
        "lucia-guide-2025-06" ["row-of-2026-variant" is "refused"];
    a_row_of_lucia_2_holds_in_its_last_millisecond:
        "lucia-v2" ["now-equals-idle" is "valid"] ["one-ms-after-idle" is "refused"];
    a_row_of_lucia_3_does_not:
        "lucia-v3" ["pg-last-ms" is "valid"] ["pg-now-equals-expiry" is "refused"]
        ["mysql-text-now-equals" is "refused"] ["sqlite-seconds-at-expiry" is "refused"];
    milliseconds_where_seconds_are_declared_are_the_operators_mistake:
        "lucia-v3" ["sqlite-milliseconds-mistake" is "config_error"];
    a_sealed_cookie_opens_under_its_own_name_alone:
        "authjs-v5" ["salt-is-the-other-name" is "refused"]
        ["plain-cookie-when-secure-expected" is "refused"];
    a_sealed_cookie_that_would_be_unpacked_is_not_opened:
        "authjs-v5" ["zip-header" is "refused"];
    a_sealed_cookie_says_who_it_is_and_until_when:
        "authjs-v5" ["no-exp" is "refused"] ["no-sub" is "refused"] ["empty-sub" is "refused"]
        ["numeric-sub" is "refused"];
    a_sealed_cookie_of_version_4_says_who_it_is_and_until_when:
        "nextauth-v4" ["no-exp" is "refused"] ["no-sub" is "refused"];
    a_sealed_cookie_may_have_ended_fourteen_seconds_ago_and_not_fifteen:
        "authjs-v5" ["exp-plus-14s" is "valid"] ["exp-plus-15s" is "refused"];
    a_sealed_cookie_of_version_4_may_too:
        "nextauth-v4" ["exp-plus-14s" is "valid"] ["exp-plus-15s" is "refused"];
    a_cookie_in_pieces_is_whole_or_nothing:
        "authjs-v5" ["chunk-0-missing" is "refused"] ["chunk-last-missing" is "refused"]
        ["base-and-chunks" is "refused"] ["chunk-suffix-leading-zero" is "refused"];
    a_cookie_whose_name_only_begins_so_is_another:
        "authjs-v5" ["stray-prefix-name" is "valid"];
    a_token_of_better_auth_is_signed:
        "better-auth-1.7" ["unsigned-token" is "refused"] ["bad-signature" is "refused"];
    a_signature_of_better_auth_has_44_characters_of_plain_base64:
        "better-auth-1.7" ["signature-no-padding" is "refused"]
        ["signature-base64url" is "refused"];
    a_session_of_better_auth_from_before_the_users_were_revoked_is_over:
        "better-auth-1.7" ["redis-revoked-before" is "refused"]
        ["redis-revoked-earlier" is "valid"];
    the_copy_of_a_session_in_session_data_is_not_read:
        "better-auth-1.7" ["session_data-only" is "refused"];
    a_seal_whose_end_was_moved_does_not_open:
        "iron-session" ["expiry-extended" is "refused"] ["tampered-ciphertext" is "refused"];
    a_seal_without_an_end_is_not_taken_unasked:
        "iron-session" ["no-expiry-seal" is "refused"];
    a_visitor_who_has_not_logged_in_is_nobody:
        "express-session" ["no-user" is "refused"];
    a_token_that_is_not_signed_is_none_however_it_says_so:
        "jwt" ["alg-none" is "refused"] ["alg-none-jwks" is "refused"]
        ["alg-None-mixed-case" is "refused"];
    a_public_key_is_no_secret_to_sign_with:
        "jwt" ["confusion-hs256-with-rsa-public-pem" is "refused"]
        ["rs256-token-in-hs-mode" is "refused"];
    a_token_does_not_bring_its_own_key:
        "jwt" ["embedded-jwk" is "refused"];
    the_end_of_a_token_is_a_moment:
        "jwt" ["exp-string" is "refused"] ["exp-1e300" is "refused"] ["no-exp" is "refused"];
    a_token_from_the_future_is_none_yet:
        "jwt" ["nbf-plus-6" is "refused"] ["iat-future" is "refused"];
    a_token_says_whose_it_is_and_whom_it_is_for:
        "jwt" ["no-iss" is "refused"] ["no-aud" is "refused"];
    the_user_of_a_token_is_one_text:
        "jwt" ["duplicate-sub" is "refused"] ["numeric-sub" is "refused"]
        ["empty-sub" is "refused"];
    the_keys_of_a_supabase_project_are_no_users:
        "supabase" ["anon-key" is "refused"] ["service-role-key" is "refused"];
    what_stands_beside_a_supabase_token_is_not_believed:
        "supabase" ["user-field-forged" is "valid"];
    a_token_of_clerk_is_for_these_pages:
        "clerk" ["azp-other-origin" is "refused"] ["azp-missing" is "refused"];
    a_session_of_clerk_that_has_still_to_do_something_is_none:
        "clerk" ["sts-pending" is "refused"];
    a_login_page_in_place_of_an_answer_is_no_answer:
        "callback" ["html-200" is "temporary"];
    a_redirect_in_place_of_an_answer_is_a_refusal:
        "callback" ["status-302" is "refused"] ["status-307" is "refused"];
    a_path_that_the_application_does_not_have_is_no_answer:
        "callback" ["status-404" is "temporary"];
    an_answer_without_a_user_is_a_refusal:
        "callback" ["null-body" is "refused"] ["empty-user" is "refused"];
    auth_js_without_the_users_id_is_the_operators_mistake:
        "callback" ["authjs-default-body" is "config_error"];
}

/// A good cookie of Auth.js 5, what opens it, and when it holds.
fn sealed() -> (String, Vec<super::seal::JweKey>, i64) {
    let groups = groups();
    let group = groups.iter().find(|group| group["id"] == "authjs-v5").expect("the group");
    let mut cases = group["cases"].as_array().expect("cases").iter();
    let case = cases.find(|case| case["id"] == "valid-secure").expect("the case");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let name = text(&case["cookie_name"]);
    let token = text(&case["cookie_header"]);
    let token = token.split_once('=').expect("a cookie").1.to_owned();
    let secrets: Vec<_> =
        group["secret_list"].as_array().expect("a list").iter().map(text).collect();
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    let keys = authjs::keys(authjs::Version::V5, &secrets, &name);
    (token, keys, case["now_ms"].as_i64().expect("a moment"))
}

#[test]
fn a_sealed_cookie_that_was_changed_anywhere_is_refused_in_one_way() {
    let (token, keys, now) = sealed();
    let open = |token: &str| authjs::open(authjs::Version::V5, &keys, token, "sub", now);
    assert!(open(&token).is_ok());
    let parts: Vec<&str> = token.split('.').collect();
    // Header, vector, text, tag; the second is empty.
    for changed in [0, 2, 3, 4] {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let first = if parts[changed].starts_with('e') { "f" } else { "e" };
        parts[changed].replace_range(..1, first);
        assert_eq!(open(&parts.join(".")), Err(Denial::Refused("sealed")), "part {changed}");
    }
}

#[test]
fn a_sealed_cookie_with_words_that_change_how_it_is_opened_is_not_opened() {
    let (token, keys, now) = sealed();
    let (head, rest) = token.split_once('.').expect("parts");
    let head = base64_url(head).expect("base64");
    let head: Value = serde_json::from_slice(&head).expect("JSON");
    for (name, value) in [
        ("crit", serde_json::json!(["exp"])),
        ("zip", "DEF".into()),
        ("p2c", 1.into()),
        ("epk", "x".into()),
    ] {
        let mut head = head.clone();
        head[name] = value;
        let token = format!("{}.{rest}", to_base64_url(head.to_string().as_bytes()));
        let opened = authjs::open(authjs::Version::V5, &keys, &token, "sub", now);
        assert_eq!(opened, Err(Denial::Refused("sealed")), "{name}");
    }
}

#[test]
fn a_cookie_in_fifty_pieces_is_refused() {
    let line: Vec<_> = (0..50).map(|number| format!("s.{number}=a")).collect();
    let line = line.join("; ");
    let wanted = Wanted { cookies: vec!["s".to_owned()], bearer: false };
    let shown = Credentials::of_lines(std::iter::once(line.as_bytes()), &wanted).expect("few");
    for chunks in [Chunks::Strict, Chunks::FirstGap] {
        assert_eq!(shown.chunked("s", chunks), Err(Denial::MALFORMED));
    }
}
