//! What scanners say of the TLS that is spoken: testssl.sh, and sslyze where there is one.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Authority, Edge, Folder, Origin, SECURE};

/// What testssl.sh minds, and why it is as it is here.
const MINDED: [(&str, &str); 7] = [
    ("cipher_order", "the client chooses, as Mozilla's intermediate profile has it"),
    ("cert_revocation", "the authority is the test's own"),
    ("cert_chain_of_trust", "and in no browser"),
    ("cert_validityPeriod", "and gives certificates for a long time"),
    ("security_headers", "are the application's own affair"),
    ("engine_problem", "of the scanner's own OpenSSL"),
    ("sessionresumption_ticket", "it gives up on a busy machine; other tests resume sessions"),
];

/// A site with a certificate of each kind.
fn edge() -> (Edge, String) {
    let (folder, authority, origin) = (Folder::new(), Authority::new(), Origin::text("ok"));
    authority.issue(&folder, "ecdsa", &["a.example"]);
    authority.issue_rsa(&folder, "rsa", &["a.example"]);
    let ca = folder.write("ca.pem", &authority.pem).display().to_string();
    let site = format!("  a.example:\n    next: {}\n    hsts: {{ max_age: 2y }}\n", origin.url());
    (Edge::start_in(folder, &format!("{SECURE}sites:\n{site}")), ca)
}

#[test]
fn testssl_finds_nothing() {
    let (edge, ca) = edge();
    let report = edge.folder.path("report.json");
    let url = format!("https://a.example:{}", edge.https().port());
    let output = Command::new("testssl")
        .args(["--quiet", "--warnings", "batch", "--color", "0", "--nodns", "none"])
        .args(["--ip", "127.0.0.1", "--add-ca", &ca, "--jsonfile"])
        .arg(&report)
        .arg(&url)
        .output()
        .expect("testssl starts; tests/tools.sh installs it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = std::fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}\n{said}"));
    let report: Vec<Value> = serde_json::from_str(&report).expect("JSON");
    let word = |found: &Value, key: &str| found[key].as_str().unwrap_or_default().to_owned();
    let minded: Vec<String> = report
        .iter()
        .filter(|found| !matches!(word(found, "severity").as_str(), "OK" | "INFO"))
        .map(|found| format!("{}: {}", word(found, "id"), word(found, "finding")))
        .filter(|found| {
            let id = found.split([':', ' ']).next();
            !MINDED.iter().any(|(known, _)| Some(*known) == id)
        })
        .collect();
    assert!(minded.is_empty(), "{minded:#?}\n{said}");
    // It did look.
    for (id, wanted) in [
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered"),
        ("secure_renego", "supported"),
        ("CRIME_TLS", "not vulnerable"),
        ("ROBOT", "not vulnerable"),
        ("heartbleed", "not vulnerable"),
        ("RC4", "not vulnerable"),
    ] {
        let found = report.iter().find(|found| word(found, "id") == id);
        let found = found.map(|found| word(found, "finding")).unwrap_or_default();
        assert!(found.contains(wanted), "{id}: {found}\n{said}");
    }
    // Versions of it call the curves of forward secrecy in two ways.
    let curves = report.iter().find(|found| word(found, "id").ends_with("FS_ECDHE_curves"));
    let curves = curves.map(|found| word(found, "finding")).unwrap_or_default();
    assert!(curves.contains("X25519") && curves.contains("prime256v1"), "{curves}\n{said}");
}

/// `make scan` says where sslyze is, which Debian does not have.
#[test]
fn sslyze_finds_mozillas_intermediate() {
    let Some(sslyze) = std::env::var_os("SSLYZE") else {
        eprintln!("SSLYZE names no sslyze; `make scan` installs one");
        return;
    };
    let (edge, ca) = edge();
    let output = Command::new(sslyze)
        .args(["--certinfo_ca_file", &ca, "--sni", "a.example", "--mozilla_config=intermediate"])
        .arg(format!("127.0.0.1:{}", edge.https().port()))
        .output()
        .expect("sslyze starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, verdict) = said.split_once("COMPLIANCE AGAINST TLS CONFIGURATION").expect("a verdict");
    // For who has asked for it.
    eprintln!("COMPLIANCE AGAINST TLS CONFIGURATION{verdict}");
    // The authority is the test's own: it is in no browser, and its certificates last for long.
    let strange = ["* certificate_path_validation:", "* maximum_certificate_lifespan:"];
    let minded: Vec<_> = verdict
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("* "))
        .filter(|line| !strange.iter().any(|known| line.starts_with(known)))
        .collect();
    assert!(minded.is_empty(), "{said}");
    assert!(said.contains("OK - Compression disabled") && verdict.contains("127.0.0.1"), "{said}");
}
