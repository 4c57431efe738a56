//! proxy.yaml in, problems or the effective configuration out.
//!
//! A file in `golden` is a proxy.yaml, a line of five dashes, and what `vestibule check` says of
//! it: every problem to the letter, or lines that `--show` prints. `GOLDEN=write` writes the
//! problems anew, to be read before they are believed.

use std::fs;
use std::process::Command;

use crate::harness::{Folder, project, vestibule};

const LINE: &str = "-----\n";

fn check(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .arg("check")
        .args(arguments)
        .current_dir(folder.path(""))
        .env("GOLDEN_PORT", "8099")
        .env("GOLDEN_EMPTY", "")
        .env_remove("GOLDEN_UNSET")
        .output()
        .expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What is wrong with this case, if anything.
fn judge(yaml: &str, expected: &str) -> Result<(), String> {
    let folder = Folder::new();
    folder.write("proxy.yaml", yaml);
    folder.write("secret", "from a file\n");
    folder.write("nothing", "\n");
    let (code, shown, said) = check(&folder, &["--show"]);
    if expected.starts_with("vestibule:") || code != Some(0) {
        return if said == expected && code == Some(78) { Ok(()) } else { Err(said) };
    }
    if let Some(line) = expected.lines().find(|line| !shown.contains(line.trim())) {
        return Err(format!("no line {line:?} in\n{shown}"));
    }
    // What is shown is a file that says the same.
    folder.write("proxy.yaml", &shown);
    let (_, again, said) = check(&folder, &["--show"]);
    if again == shown { Ok(()) } else { Err(format!("{shown}\nbecomes\n{again}{said}")) }
}

#[test]
fn every_file_is_judged_as_it_says() {
    let mut cases: Vec<_> = fs::read_dir(project("tests/golden"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 25, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let text = fs::read_to_string(&case).expect("a case");
        let (yaml, expected) = text.split_once(LINE).expect("a line of dashes");
        let Err(found) = judge(yaml, expected) else { continue };
        if std::env::var("GOLDEN").as_deref() == Ok("write") && found.starts_with("vestibule:") {
            fs::write(&case, format!("{yaml}{LINE}{found}")).expect("written");
        } else {
            wrong.push(format!("{}\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_manual_is_a_file_and_so_are_the_examples() {
    let folder = Folder::new();
    for file in ["proxy.yaml", "examples/demo.yaml"] {
        let path = project(file);
        let output = vestibule(&["check", "-c", path.to_str().expect("a path")], &folder);
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn paths_begin_at_the_files_folder() {
    let folder = Folder::new();
    let yaml =
        "listen: { admin: 'unix:run/a.sock' }\nsites: { localhost: { next: 'unix:app.sock' } }\n";
    folder.write("etc/proxy.yaml", yaml);
    let (code, shown, said) = check(&folder, &["--show", "-c", "etc/proxy.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    for path in ["etc/run/a.sock", "etc/certs", "etc/app.sock"] {
        let path = folder.path(path).display().to_string();
        assert!(shown.contains(&path), "no {path} in\n{shown}");
    }
}

#[test]
fn a_broken_file_still_says_where_to_ask() {
    let folder = Folder::new();
    for (yaml, word) in [
        ("listen: { admin: 'unix:a.sock', httq: 1 }\nworkers: ${GOLDEN_UNSET}\n", "a.sock"),
        ("listen: { admin: 'unix:a.sock' }\nsites: [\n", "a.sock"),
        ("listen: { admin: 'a.sock' }\n", "listen.admin"),
        ("sites: [\n", "proxy.yaml:1:"),
    ] {
        folder.write("proxy.yaml", yaml);
        let said = vestibule(&["status"], &folder).stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(word), "{yaml}{said}");
    }
}
