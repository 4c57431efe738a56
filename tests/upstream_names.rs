//! Targets that are written by a name: what happens while nobody can say what it stands for.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crate::harness::socketio::wait_for_metric;
use crate::harness::{Client, Edge, Folder, PLAIN, eventually};

/// Stands between the process and its resolver: of `app.test` a file says where it is, and whether that
/// takes its time.
const BETWEEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    resolver *next = (resolver *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (!name || strcmp(name, "app.test")) return next(name, service, hints, found);
    char line[64] = "";
    FILE *file = fopen(getenv("NAMES"), "r");
    if (file) {
        if (!fgets(line, sizeof line, file)) line[0] = 0;
        fclose(file);
    }
    line[strcspn(line, "\n")] = 0;
    char *slowly = strchr(line, ' ');
    if (slowly) {
        *slowly = 0;
        usleep(1500000);
    }
    return line[0] ? next(line, service, hints, found) : EAI_AGAIN;
}
"#;

/// Where `app.test` is.
struct Names(PathBuf);

impl Names {
    fn start(place: &str, next: &str) -> (Edge, Self) {
        let folder = Folder::new();
        folder.write("proxy.yaml", &format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n"));
        let (source, between) = (folder.write("names.c", BETWEEN), folder.path("names.so"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&between).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler").success());
        let names = Self(folder.write("names", place));
        let mut command = Edge::command(&folder);
        command.env("LD_PRELOAD", between).env("NAMES", &names.0);
        (Edge::spawn(folder, command), names)
    }

    /// Nothing: nobody can say.
    fn set(&self, place: &str) {
        let next = self.0.with_extension("next");
        fs::write(&next, place).expect("a file");
        fs::rename(&next, &self.0).expect("a file");
    }
}

/// Answers one request on each connection, so that every request is a look-up.
fn application(address: SocketAddr, text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte), Ok(1)) {
                    break;
                }
                head.push(byte[0]);
            }
            let length = text.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
            );
            // Whoever has only looked whether somebody listens is gone.
            let _sent = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_name_that_nobody_can_tell_just_now_is_where_it_was() {
    let one = application(([127, 0, 0, 1], 0).into(), "one");
    let next = format!("{{ targets: ['http://app.test:{}'], hold: {{ for: 1s }} }}", one.port());
    let (edge, names) = Names::start("127.0.0.1\n", &next);
    assert_eq!(edge.get("/").text(), "one");
    names.set("");
    for _ in 0..20 {
        let answer = edge.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    }
    assert_eq!(edge.admin("GET", "/health/ready").status, 200);
    // It comes back as another's.
    let _two = application(([127, 0, 0, 2], one.port()).into(), "two");
    names.set("127.0.0.2\n");
    eventually("the new address", || (edge.get("/").text() == "two").then_some(()));
    names.set("");
    assert_eq!(edge.get("/").text(), "two");
}

#[test]
fn a_name_that_is_told_slowly_is_where_it_is_told_to_be() {
    let one = application(([127, 0, 0, 1], 0).into(), "one");
    let _two = application(([127, 0, 0, 2], one.port()).into(), "two");
    let next = format!("http://app.test:{}", one.port());
    let (edge, names) = Names::start("127.0.0.1\n", &next);
    assert_eq!(edge.get("/").text(), "one");
    names.set("127.0.0.2 slowly\n");
    // Nobody waits for it to the end.
    eventually("the new address", || (edge.get("/").text() == "two").then_some(()));
}

#[test]
fn whoever_asks_waits_for_a_name_that_was_never_known() {
    let port = application(([127, 0, 0, 1], 0).into(), "one").port();
    let (edge, names) = Names::start("", &format!("http://app.test:{port}"));
    let address = edge.http();
    let asked = thread::spawn(move || Client::connect(address).get("/"));
    wait_for_metric(
        &edge,
        &format!("vestibule_held_requests{{upstream=\"http://app.test:{port}\"}}"),
        1,
    );
    assert_eq!(edge.admin("GET", "/health/ready").status, 503);
    names.set("127.0.0.1\n");
    let answer = asked.join().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    assert_eq!(edge.admin("GET", "/health/ready").status, 200);
}
