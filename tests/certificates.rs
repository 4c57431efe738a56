//! Certificates that change, come in two kinds, and are asked of clients; sessions that go on.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use rustls::{ClientConfig, HandshakeKind, NamedGroup};

use crate::harness::{Answer, Authority, Client, Edge, Folder, Origin, SECURE, eventually};
use crate::tls::{Tls, connect, edge};

fn ask(edge: &Edge, config: ClientConfig, name: &str, host: &str) -> Answer {
    let stream = connect(edge, config, name).expect("a handshake");
    Client::over(Box::new(stream)).ask("GET", "/", &[("Host", host)], b"")
}

fn serial(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().expect("a chain")[0].to_vec()
}

/// What OpenSSL says of a handshake with these arguments.
fn openssl(edge: &Edge, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &edge.https().to_string(), "-servername", "a.example"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn metric(edge: &Edge, line: &str) {
    let page = || edge.admin("GET", "/metrics").text();
    eventually(line, || page().lines().any(|known| known == line).then_some(()));
}

#[test]
fn changed_files_are_taken_without_a_reload_and_bad_ones_are_not() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = edge(&origin, &authority);
    let current = || serial(&connect(&edge, authority.client(&[]), "a.example").expect("one"));
    let first = current();
    authority.issue(&edge.folder, "a", &["a.example"]);
    let second = eventually("the new certificate", || Some(current()).filter(|it| *it != first));
    // A key that does not fit; the log, the metric and the readiness say so.
    let other = Folder::new();
    authority.issue(&other, "x", &["a.example"]);
    std::fs::copy(other.path("certs/x.key"), edge.folder.path("certs/a.key")).expect("copied");
    metric(&edge, "vestibule_certificates_stale 1");
    assert_eq!(current(), second);
    eventually("a word", || edge.log().contains("the last good ones stay").then_some(()));
    let ready = edge.admin("GET", "/health/ready");
    assert!(ready.status == 200 && ready.text().contains("do not fit"), "{}", ready.text());
    std::fs::copy(other.path("certs/x.pem"), edge.folder.path("certs/a.pem")).expect("copied");
    eventually("the mended certificate", || Some(current()).filter(|it| *it != second));
    metric(&edge, "vestibule_certificates_stale 0");
    // One more name is one more certificate; a metric says when each ends.
    authority.issue(&edge.folder, "new", &["new.example"]);
    eventually("a certificate for a new name", || {
        connect(&edge, authority.client(&[]), "new.example").ok()
    });
    let ends = |line: &&str| line.starts_with("vestibule_certificate_expiry_timestamp_seconds{");
    eventually("three ends", || {
        let page = edge.admin("GET", "/metrics").text();
        (page.lines().filter(ends).count() == 3).then_some(())
    });
    std::fs::remove_file(edge.folder.path("certs/new.pem")).expect("removed");
    std::fs::remove_file(edge.folder.path("certs/new.key")).expect("removed");
    eventually("the certificate to be gone", || {
        connect(&edge, authority.client(&[]), "new.example").err()
    });
}

#[test]
fn two_kinds_of_certificates_stand_side_by_side() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let folder = Folder::new();
    // The names of the files do not decide.
    authority.issue_rsa(&folder, "a", &["a.example"]);
    authority.issue(&folder, "b", &["a.example"]);
    let yaml = format!("{SECURE}sites:\n  a.example:\n    next: {}\n", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = openssl(&edge, &[version]);
        assert!(said.contains("Peer signature type: ECDSA"), "{said}");
        let said = openssl(&edge, &[version, "-sigalgs", "RSA-PSS+SHA256"]);
        assert!(said.contains("Peer signature type: RSA-PSS"), "{said}");
    }
    let said = openssl(&edge, &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]);
    assert!(said.contains("Cipher is ECDHE-RSA-AES128-GCM-SHA256"), "{said}");
}

#[test]
fn what_is_spoken_is_what_mozilla_calls_intermediate() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = edge(&origin, &authority);
    edge.folder.write("ca.pem", &authority.pem);
    let spoken = |arguments: &[&str]| !openssl(&edge, arguments).contains("Cipher is (NONE)");
    for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
        assert!(spoken(&["-tls1_2", "-cipher", &format!("ECDHE-ECDSA-{cipher}")]), "{cipher}");
    }
    for suite in
        ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    {
        assert!(spoken(&["-tls1_3", "-ciphersuites", suite]), "{suite}");
    }
    for curve in ["X25519", "P-256", "P-384"] {
        assert!(spoken(&["-groups", curve]), "{curve}");
    }
    for weak in ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256"] {
        assert!(!spoken(&["-tls1_2", "-cipher", weak]), "{weak}");
    }
    for old in ["-tls1", "-tls1_1"] {
        assert!(!spoken(&[old, "-cipher", "ALL:@SECLEVEL=0"]), "{old}");
    }
    // Early data could be sent twice.
    let said =
        openssl(&edge, &["-tls1_3", "-CAfile", &edge.folder.path("ca.pem").to_string_lossy()]);
    assert!(
        !said.contains("Max Early Data: 1") && said.contains("Verify return code: 0"),
        "{said}"
    );
}

#[test]
fn keys_are_exchanged_so_that_no_quantum_computer_reads_them_later() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = edge(&origin, &authority);
    let stream = connect(&edge, authority.client(&[]), "a.example").expect("a handshake");
    let group = stream.conn.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    metric(&edge, "vestibule_tls_key_exchanges_total{group=\"X25519MLKEM768\"} 1");
    metric(&edge, "vestibule_tls_handshakes_total{version=\"TLSv1.3\",kind=\"full\"} 1");
}

#[test]
fn a_session_goes_on_with_every_worker_and_with_the_next_process() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let state = Folder::new();
    let start = || {
        let folder = Folder::new();
        authority.issue(&folder, "a", &["a.example"]);
        let path = state.path("kept").display().to_string();
        let sites = format!("sites:\n  a.example:\n    next: {}\n", origin.url());
        Edge::start_in(folder, &format!("{SECURE}state: {path}\n{sites}"))
    };
    let old = |authority: &Authority| {
        let mut config = authority.client(&[]);
        config.resumption = rustls::client::Resumption::in_memory_sessions(64);
        config
    };
    let kind = |edge: &Edge, config: &ClientConfig| {
        let stream = connect(edge, config.clone(), "a.example").expect("a handshake");
        let kind = stream.conn.handshake_kind();
        // The tickets come with the first answer.
        let answer = Client::over(Box::new(stream)).ask("GET", "/", &[("Host", "a.example")], b"");
        assert_eq!(answer.status, 200);
        kind
    };
    let client = old(&authority);
    let mut edge = start();
    assert_ne!(kind(&edge, &client), Some(HandshakeKind::Resumed));
    for _ in 0..8 {
        assert_eq!(kind(&edge, &client), Some(HandshakeKind::Resumed));
    }
    let keys = std::fs::metadata(state.path("kept/ticket.keys")).expect("the keys");
    assert_eq!(keys.permissions().mode() & 0o777, 0o600);
    edge.signal("TERM");
    edge.ended();
    // Whoever has another name begins anew.
    let next = start();
    assert_eq!(kind(&next, &client), Some(HandshakeKind::Resumed));
    metric(&next, "vestibule_tls_handshakes_total{version=\"TLSv1.3\",kind=\"resumed\"} 1");
}

#[test]
fn a_place_that_cannot_be_written_to_is_no_reason_to_stay_down() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let folder = Folder::new();
    authority.issue(&folder, "a", &["a.example"]);
    folder.write("file", "");
    let yaml = format!("{SECURE}state: file\nsites:\n  a.example:\n    next: {}\n", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    assert!(edge.log().contains("session tickets will end with this process"), "{}", edge.log());
    assert_eq!(ask(&edge, authority.client(&[]), "a.example", "a.example").status, 200);
}

#[test]
fn a_connection_that_was_made_for_one_site_is_not_answered_for_another() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let mut edge = edge(&origin, &authority);
    let status = |edge: &Edge, name, host| ask(edge, authority.client(&[]), name, host).status;
    assert_eq!(status(&edge, "a.example", "a.example"), 200);
    assert_eq!(status(&edge, "a.example", "b.example"), 421);
    assert_eq!(status(&edge, "b.example", "a.example"), 421);
    edge.access_line(|line| line["reason"] == "misdirected");
    // A name of no site, with a site's certificate.
    assert_eq!(status(&edge, "localhost", "a.example"), 421);
    let mut nameless = authority.client(&[]);
    nameless.enable_sni = false;
    assert_eq!(ask(&edge, nameless, "a.example", "b.example").status, 200);
    // A balancer in front has one connection for all.
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("the file");
    edge.reload_with(&format!("{yaml}trust: 127.0.0.1\n"));
    assert_eq!(status(&edge, "a.example", "b.example"), 200);
}

#[test]
fn a_site_can_be_for_clients_with_a_certificate_alone() {
    let (origin, authority, clients) = (Origin::text("ok"), Authority::new(), Authority::new());
    let folder = Folder::new();
    authority.issue(&folder, "a", &["a.example"]);
    authority.issue(&folder, "b", &["b.example"]);
    folder.write("clients.pem", &clients.pem);
    let sites = format!(
        "sites:\n  a.example:\n    next: {0}\n  b.example:\n    next: {0}\n    client_ca: clients.pem\n",
        origin.url()
    );
    let mut edge = Edge::start_in(folder, &format!("{SECURE}{sites}trust: 127.0.0.1\n"));
    let showing = |by: &Authority| authority.client_showing(&[], Some(by));
    assert_eq!(ask(&edge, showing(&clients), "b.example", "b.example").status, 200);
    assert_eq!(ask(&edge, authority.client(&[]), "a.example", "a.example").status, 200);
    // Without one, and with another's, the handshake fails; TLS 1.3 says so at the first read.
    for config in [authority.client(&[]), showing(&authority)] {
        let refused = connect(&edge, config, "b.example").and_then(|mut stream| {
            std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")?;
            std::io::Read::read_exact(&mut stream, &mut [0])
        });
        assert!(refused.is_err(), "let in");
    }
    // Nor by way of another name, of none, or of plain HTTP; whoever is trusted with the rest.
    assert_eq!(ask(&edge, authority.client(&[]), "a.example", "b.example").status, 421);
    assert_eq!(ask(&edge, showing(&clients), "a.example", "b.example").status, 421);
    let mut nameless = authority.client(&[]);
    nameless.enable_sni = false;
    assert_eq!(ask(&edge, nameless, "a.example", "b.example").status, 421);
    let plain = |headers: &[(&str, &str)]| edge.connect().ask("GET", "/", headers, b"").status;
    assert_eq!(plain(&[("Host", "b.example")]), 308);
    assert_eq!(plain(&[("Host", "b.example"), ("X-Forwarded-Proto", "https")]), 421);
    // A connection that is there already was let in by the word of those before.
    let stream = connect(&edge, showing(&clients), "b.example").expect("a handshake");
    let mut kept = Client::over(Box::new(stream));
    let mut on_it = || kept.ask("GET", "/", &[("Host", "b.example")], b"").status;
    assert_eq!(on_it(), 200);
    edge.reload();
    assert_eq!(on_it(), 200, "the same ones");
    let others = Authority::new();
    edge.folder.write("clients.pem", &others.pem);
    edge.reload();
    assert_eq!(on_it(), 421);
    assert_eq!(ask(&edge, showing(&others), "b.example", "b.example").status, 200);
    edge.folder.write("clients.pem", &clients.pem);
    edge.reload();
    // A file that is no certificate changes nothing.
    edge.folder.write("clients.pem", "nothing");
    let status = edge.reload();
    assert!(status.contains("not reloaded") && status.contains("clients.pem"), "{status}");
    assert_eq!(ask(&edge, showing(&clients), "b.example", "b.example").status, 200);
}

/// What else may be wrong meanwhile keeps no certificate from being renewed.
#[test]
fn a_certificate_is_renewed_whatever_else_is_wrong() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let folder = Folder::new();
    authority.issue(&folder, "a", &["a.example"]);
    folder.write("assets/a.txt", "a");
    let routes = "routes: [{ path: /assets/*, files: assets }]";
    let yaml = format!("{SECURE}sites:\n  a.example: {{ next: \"{}\", {routes} }}\n", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    let current = || serial(&connect(&edge, authority.client(&[]), "a.example").expect("one"));
    let first = current();
    std::fs::remove_dir_all(edge.folder.path("assets")).expect("removed");
    authority.issue(&edge.folder, "a", &["a.example"]);
    eventually("the new certificate", || Some(current()).filter(|it| *it != first));
    assert_eq!(ask(&edge, authority.client(&[]), "a.example", "a.example").status, 200);
}

/// The new listener is there before the old one goes, at the same address.
#[test]
fn a_port_goes_from_http_to_https_and_back() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let port = crate::harness::node::free_port();
    let yaml = |http: &str, https: &str| {
        format!(
            "listen: {{ http: [{http}], https: [{https}], admin: 'unix:admin.sock' }}\ntls: {{ certs: certs }}\nworkers: 2\nstate: kept\nsites:\n  a.example:\n    next: {}\n",
            origin.url()
        )
    };
    let address = format!("'127.0.0.1:{port}'");
    let folder = Folder::new();
    authority.issue(&folder, "a", &["a.example"]);
    let mut edge = Edge::start_in(folder, &yaml(&address, ""));
    assert_eq!(edge.connect().ask("GET", "/", &[("Host", "a.example")], b"").status, 200);
    assert!(!edge.folder.path("kept/ticket.keys").exists());
    edge.reload_with(&yaml("", &address));
    edge.https = Some(([127, 0, 0, 1], port).into());
    // As often as each worker is asked. One that was about to close may still have been chosen.
    for _ in 0..8 {
        eventually("HTTPS", || connect(&edge, authority.client(&[]), "a.example").ok());
    }
    assert_eq!(ask(&edge, authority.client(&[]), "a.example", "a.example").status, 200);
    assert!(edge.folder.path("kept/ticket.keys").exists(), "the next process goes on with them");
    edge.reload_with(&yaml(&address, ""));
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    eventually("HTTP", || {
        let mut client = std::net::TcpStream::connect(edge.http()).ok()?;
        std::io::Write::write_all(&mut client, request).ok()?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut client, &mut said).ok()?;
        said.starts_with("HTTP/1.1 200").then_some(())
    });
}
