//! The command line and what it says of a configuration.

use crate::harness::{Folder, vestibule};

const GOOD: &str = "sites:\n  localhost:\n    next: http://127.0.0.1:3000\n";

#[test]
fn a_right_file_is_silent_and_shows_its_defaults() {
    let folder = Folder::new();
    folder.write("proxy.yaml", GOOD);
    let output = vestibule(&["check"], &folder);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let output = vestibule(&["check", "--show"], &folder);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("first_byte: 60s") || shown.contains("first_byte: 1m"), "{shown}");
    // What is shown is itself a file.
    folder.write("proxy.yaml", &shown);
    assert!(vestibule(&["check"], &folder).status.success());
}

#[test]
fn a_wrong_file_says_everything_at_once_and_exits_78() {
    let folder = Folder::new();
    folder.write("proxy.yaml", "sites:\n  localhost:\n    nxet: http://127.0.0.1:3000\ntimeouts: { head: 10 }\nworkers: many\n");
    for command in ["check", "run"] {
        let output = vestibule(&[command], &folder);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = String::from_utf8_lossy(&output.stderr);
        for word in [
            "proxy.yaml:3:5",
            "nxet",
            "\"next\"",
            "proxy.yaml:4:19",
            "timeouts.head",
            "proxy.yaml:5:10",
            "workers",
        ] {
            assert!(said.contains(word), "{command}: no {word} in\n{said}");
        }
    }
}

#[test]
fn a_missing_file_and_wrong_arguments() {
    let folder = Folder::new();
    let output = vestibule(&["check", "-c", "nowhere.yaml"], &folder);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.yaml"), "{output:?}");
    assert_eq!(vestibule(&["serve"], &folder).status.code(), Some(2));
    let help = vestibule(&["--help"], &folder);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["run", "check", "reload", "status", "schema", "completions"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn certificates_that_cannot_be_used_are_a_problem_of_the_configuration() {
    let folder = Folder::new();
    folder.write("proxy.yaml", &format!("tls: {{ certs: certs }}\n{GOOD}"));
    folder.write("certs/a.pem", "not a certificate");
    let output = vestibule(&["check"], &folder);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("certs/a.key"), "{said}");
    folder.write("certs/a.key", "not a key");
    let said = vestibule(&["check"], &folder).stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("certs/a.key: no PEM"), "{said}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let folder = Folder::new();
    folder.write(
        "proxy.yaml",
        &format!("listen: {{ http: ['{address}'], https: [], admin: 'unix:a.sock' }}\n{GOOD}"),
    );
    let output = vestibule(&["run"], &folder);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&address.to_string()) && said.contains("another process"), "{said}");
}

#[test]
fn the_schema_and_the_completions_are_what_they_should_be() {
    let folder = Folder::new();
    let schema = vestibule(&["schema"], &folder).stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).expect("JSON");
    assert!(schema["properties"]["sites"].is_object(), "{schema}");
    let script = vestibule(&["completions", "bash"], &folder).stdout;
    assert!(String::from_utf8_lossy(&script).contains("_vestibule"));
}

#[test]
fn nobody_to_ask_is_said_so() {
    let folder = Folder::new();
    folder.write("proxy.yaml", &format!("listen: {{ admin: 'unix:a.sock' }}\n{GOOD}"));
    for command in ["reload", "status"] {
        let output = vestibule(&[command], &folder);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("does it run?"), "{output:?}");
    }
}
