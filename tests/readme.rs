//! What the README and the demo show is what the binary takes.

use std::fs;

use crate::harness::{Folder, project, vestibule};

fn readme() -> String {
    fs::read_to_string(project("README.md")).expect("the README")
}

#[test]
fn its_configurations_are_right() {
    let text = readme();
    let blocks: Vec<_> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "no configuration in the README");
    for block in blocks {
        let folder = Folder::new();
        folder.write("proxy.yaml", block.expect("its end"));
        let output = vestibule(&["check"], &folder);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_demo_is_right() {
    let demo = project("examples/demo.yaml").display().to_string();
    let output = vestibule(&["check", "-c", &demo], &Folder::new());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn its_commands_are_all_there_are() {
    let text = readme();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `vestibule "));
    let told: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let help = vestibule(&["--help"], &Folder::new()).stdout;
    let help = String::from_utf8_lossy(&help).into_owned();
    let (_, commands) = help.split_once("Commands:\n").expect("the commands");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line.split_whitespace().next());
    let there: Vec<_> = names.filter(|name| *name != "help").collect();
    assert_eq!(told, there);
}

#[test]
fn what_shows_a_promise_is_there() {
    let makefile = fs::read_to_string(project("Makefile")).expect("the Makefile");
    let text = readme();
    let (_, table) = text.split_once("## What shows it").expect("the promises");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---"));
    let rows: Vec<_> = rows.skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let names: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows {row}");
        for name in names {
            if let Some(target) = name.strip_prefix("make ") {
                assert!(makefile.contains(&format!("\n{target}: ")), "{name}");
                continue;
            }
            let (file, test) = name.split_once("::").expect(name);
            let code = fs::read_to_string(project(&format!("tests/{file}.rs"))).expect(name);
            assert!(code.contains(&format!("#[test]\nfn {test}() {{")), "{name}");
        }
    }
}
