//! The reference in `docs` says what the binary says. `GOLDEN=write` writes what is printed.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::socketio::hub_only;
use crate::harness::{Edge, Folder, project, vestibule};

#[test]
fn commands_keys_and_metrics_are_those_of_the_binary() {
    let output = vestibule(&["reference"], &Folder::new());
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let file = project("docs/reference.md");
    if std::env::var("GOLDEN").as_deref() == Ok("write") {
        fs::write(&file, &printed).expect("written");
    }
    let kept = fs::read_to_string(&file).expect("the reference");
    let differ = printed.lines().zip(kept.lines()).find(|(printed, kept)| printed != kept);
    assert!(printed == kept, "run with GOLDEN=write; the first line that differs: {differ:?}");
    for word in ["`hub.namespaces.NAMESPACE.auth`", "`vestibule doctor`", "vestibule_generation"] {
        assert!(printed.contains(word), "no {word}");
    }
}

/// The words between backticks of a line's cell.
fn words(line: &str, cell: usize) -> BTreeSet<String> {
    let cell = line.split(" | ").nth(cell).unwrap_or_default();
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_private_listeners_api_is_told_whole() {
    let told = fs::read_to_string(project("docs/api.md")).expect("the API");
    let edge = Edge::start(&hub_only(""));
    let all = [edge.admin("GET", "/nothing").text(), edge.admin("GET", "/hub/nothing").text()];
    let paths: Vec<_> =
        all.iter().flat_map(|text| text.split([' ', ',', ';', '"', '\n'])).collect();
    let paths: BTreeSet<_> = paths.into_iter().filter(|word| word.starts_with('/')).collect();
    assert!(paths.contains("/overview") && paths.contains("/hub/batch"), "{paths:?}");
    for path in paths {
        assert!(
            told.contains(&format!(" {path}`")) || told.contains(&format!("`{path}`")),
            "{path}"
        );
    }
    // Each operation says itself which fields it takes.
    let body = r#"{"namespace":"/","to":"*","event":"x","rooms":["a"],"unknown":1}"#;
    for op in ["emit", "join", "leave", "disconnect", "sockets", "rooms", "count"] {
        let answer = match op {
            "sockets" | "rooms" | "count" => {
                edge.admin("GET", &format!("/hub/{op}?namespace=/&unknown=1"))
            }
            "emit" => edge.admin_with(
                "POST",
                "/hub/emit",
                body.replace(r#""rooms":["a"],"#, "").as_bytes(),
            ),
            "disconnect" => {
                let body = r#"{"namespace":"/","to":"*","unknown":1}"#;
                edge.admin_with("POST", "/hub/disconnect", body.as_bytes())
            }
            _ => {
                let body = body.replace(r#""event":"x","#, "");
                edge.admin_with("POST", &format!("/hub/{op}"), body.as_bytes())
            }
        };
        let message = answer.json()["error"]["message"].as_str().expect("why").to_owned();
        let known = message.split("known are ").nth(1).unwrap_or_else(|| panic!("{op}: {message}"));
        let known: BTreeSet<_> = known.split(", ").map(str::to_owned).collect();
        let line = told.lines().find(|line| line.contains(&format!("/hub/{op}` |"))).expect(op);
        assert_eq!(words(line, 1), known, "{op}");
        for field in known {
            let row = format!("\n| `{field}` | ");
            assert!(told.contains(&row), "{op}: no row for {field}");
        }
    }
}
