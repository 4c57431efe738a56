//! The libraries themselves, as applications use them: they make sessions in real stores, stock
//! clients come with the cookies, and go when the library ends the session.

use crate::auth::config;
use crate::harness::node::{Script, free_port};
use crate::harness::stores::Server;
use crate::harness::{Edge, Folder};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs a script of tests/node/sessions against an edge whose provider is `auth`.
fn check(auth: &str, script: &str, environment: &[(&str, &str)]) {
    let edge = Edge::start(&config(auth, ""));
    let url = format!("http://localhost:{}", edge.http().port());
    let mut all = vec![("URL", url.as_str()), ("SECRET", SECRET)];
    all.extend(environment);
    let said = Script::start(&format!("sessions/{script}"), &all).finish();
    assert!(said.contains("\"passed\""), "{said}");
    let access = std::fs::read_to_string(edge.folder.path("access")).expect("a file");
    for (name, secret) in [("secret", SECRET), ("password", "test-password")] {
        assert!(!edge.log().contains(secret) && !access.contains(secret), "the {name} is logged");
    }
}

/// Whatever is asked is asked again soon.
const SOON: &str = "cache: 0s, recheck: 200ms";

fn postgres(server: &Server) -> String {
    format!("postgres://postgres@127.0.0.1:{}/postgres", server.port)
}

fn mariadb() -> (Server, String) {
    let server = Server::mariadb();
    server.run(&["CREATE DATABASE app"]);
    server.run(&["CREATE USER app@'127.0.0.1' IDENTIFIED BY 'test-password'"]);
    server.run(&["GRANT ALL ON app.* TO app@'127.0.0.1'"]);
    let url = format!("mysql://app:test-password@127.0.0.1:{}/app", server.port);
    (server, url)
}

fn sqlite() -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.path("app.db").display().to_string();
    (folder, path)
}

#[test]
fn lucia_3_on_postgresql() {
    let server = Server::postgres();
    let url = postgres(&server);
    let auth = format!("{{ lucia: v3, database: \"{url}\", user_table: auth_user, {SOON} }}");
    check(&auth, "lucia3.mjs", &[("STORE", "postgres"), ("DATABASE", &url)]);
}

#[test]
fn lucia_3_on_mariadb() {
    let (_server, url) = mariadb();
    let auth = format!("{{ lucia: v3, database: \"{url}\", user_table: user, {SOON} }}");
    check(&auth, "lucia3.mjs", &[("STORE", "mysql"), ("DATABASE", &url)]);
}

#[test]
fn lucia_3_on_sqlite() {
    let (_folder, path) = sqlite();
    let auth = format!("{{ lucia: v3, database: \"sqlite:{path}\", user_table: user, {SOON} }}");
    check(&auth, "lucia3.mjs", &[("STORE", "sqlite"), ("DATABASE", &path)]);
}

#[test]
fn lucia_2_on_postgresql() {
    let server = Server::postgres();
    let url = postgres(&server);
    let auth = format!("{{ lucia: v2, database: \"{url}\", {SOON} }}");
    check(&auth, "lucia2.mjs", &[("DATABASE", &url)]);
}

#[test]
fn what_lucias_author_published_since() {
    for (kind, cookie) in [("guide-2024", "session"), ("guide-2025", "session_token")] {
        let (_folder, path) = sqlite();
        let auth =
            format!("{{ lucia: {kind}, database: \"sqlite:{path}\", cookie: {cookie}, {SOON} }}");
        check(&auth, "guides.mjs", &[("KIND", kind), ("DATABASE", &path)]);
    }
    let (_folder, path) = sqlite();
    let auth =
        format!("{{ lucia: file-2026, database: \"sqlite:{path}\", cookie: session, {SOON} }}");
    check(&auth, "guides.mjs", &[("KIND", "file-2026"), ("DATABASE", &path)]);
}

#[test]
fn authjs_5_with_an_encrypted_cookie() {
    check(&format!("{{ authjs: v5, secret: {SECRET} }}"), "authjs5.mjs", &[]);
}

#[test]
fn authjs_5_on_postgresql() {
    let server = Server::postgres();
    let url = postgres(&server);
    let auth = format!("{{ authjs: v5, database: \"{url}\", {SOON} }}");
    check(&auth, "authjs5.mjs", &[("DATABASE", &url)]);
}

/// No store of its is known to the edge: it asks `GET /api/auth/session`.
#[test]
fn authjs_5_by_its_own_endpoint() {
    let port = free_port().to_string();
    let auth = format!("{{ http: {{ words: authjs, to: 'http://127.0.0.1:{port}' }}, {SOON} }}");
    check(&auth, "authjs5.mjs", &[("APPLICATION", &port)]);
}

#[test]
fn better_auth_by_its_own_endpoint() {
    let (_folder, path) = sqlite();
    let port = free_port().to_string();
    let words = "words: better-auth";
    let auth = format!("{{ http: {{ {words}, to: 'http://127.0.0.1:{port}' }}, {SOON} }}");
    let environment = [("STORE", "sqlite"), ("DATABASE", path.as_str()), ("APPLICATION", &port)];
    check(&auth, "better_auth.mjs", &environment);
}

#[test]
fn nextauth_4() {
    check(&format!("{{ authjs: v4, secret: {SECRET} }}"), "nextauth4.mjs", &[]);
}

#[test]
fn better_auth_on_postgresql() {
    let server = Server::postgres();
    let url = postgres(&server);
    let auth = format!("{{ better_auth: {{}}, secret: {SECRET}, database: \"{url}\", {SOON} }}");
    check(&auth, "better_auth.mjs", &[("STORE", "postgres"), ("DATABASE", &url)]);
}

#[test]
fn better_auth_on_mariadb() {
    let (_server, url) = mariadb();
    let auth = format!("{{ better_auth: {{}}, secret: {SECRET}, database: \"{url}\", {SOON} }}");
    check(&auth, "better_auth.mjs", &[("STORE", "mysql"), ("DATABASE", &url)]);
}

#[test]
fn better_auth_on_sqlite() {
    let (_folder, path) = sqlite();
    let auth =
        format!("{{ better_auth: {{}}, secret: {SECRET}, database: \"sqlite:{path}\", {SOON} }}");
    check(&auth, "better_auth.mjs", &[("STORE", "sqlite"), ("DATABASE", &path)]);
}

#[test]
fn better_auth_on_redis() {
    let server = Server::redis();
    let url = format!("redis://:test-redis-password@127.0.0.1:{}", server.port);
    let (_folder, users) = sqlite();
    let auth = format!("{{ better_auth: {{ redis: \"{url}\" }}, secret: {SECRET}, {SOON} }}");
    let environment = [("STORE", "redis"), ("DATABASE", url.as_str()), ("USERS", users.as_str())];
    check(&auth, "better_auth.mjs", &environment);
}

#[test]
fn iron_session() {
    let auth = format!("{{ iron: {{ user: user.id }}, cookie: app-session, secret: {SECRET} }}");
    check(&auth, "iron.mjs", &[]);
}

#[test]
fn express_session_on_redis() {
    let server = Server::redis();
    let url = format!("redis://:test-redis-password@127.0.0.1:{}", server.port);
    let auth =
        format!("{{ redis: {{ url: \"{url}\", user: passport.user, signed: {SECRET} }}, {SOON} }}");
    check(&auth, "express.mjs", &[("DATABASE", &url)]);
}
